"""Config files by recipe name or path.

A recipe is a file of the folder `configs/`: beside the package in a clone, inside it where it is
installed.
"""

import contextlib
import difflib
import functools
import importlib.abc
import importlib.machinery
import importlib.util
import os
import pathlib
import sys
import types
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from clevit_jax.errors import ConfigError
from clevit_jax.system.places import place

if TYPE_CHECKING:
    from ml_collections import ConfigDict

_PACKAGE = pathlib.Path(__file__).resolve().parent
# Installed, or a clone (an editable install is one).
FOLDER = next(p for p in (_PACKAGE / "configs", _PACKAGE.parent / "configs") if p.is_dir())
_MODULE = "config_config"  # the name of a config file as a module


def names() -> list[str]:
    """The recipes that there are, sorted."""
    return sorted(path.stem for path in FOLDER.glob("*.py") if path.stem != "__init__")


def load(name: str) -> "ConfigDict":
    """The config of a recipe or a file, locked; raises ConfigError. `name`: see `runs.named`."""
    return _load_file(find(name), name)


@functools.cache
def defaults() -> dict[str, Any]:
    """Every setting of `configs/base.py` by its full name, with its default; not to be changed."""
    return flatten(_load_file(FOLDER / "base.py", "base"))


def _load_file(path: pathlib.Path, name: str) -> "ConfigDict":
    """What `get_config` of a file returns; `name` is what `load` was asked for."""
    from ml_collections import ConfigDict

    argument = name.split(":", 1)[1:]
    spec = importlib.util.spec_from_file_location(_MODULE, path)
    if spec is None or spec.loader is None:
        raise ConfigError(f"The config {name} cannot be loaded: its name must end in .py.")
    module = importlib.util.module_from_spec(spec)
    try:
        with _importable(module, is_recipe=path.resolve().parent == FOLDER):
            spec.loader.exec_module(module)
            config = module.get_config(*argument)
    except Exception as error:  # a config file may raise anything
        text = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
        text = text.removesuffix(".")
        raise ConfigError(f"The config {name} cannot be loaded: {text}.") from error
    if not isinstance(config, ConfigDict):
        raise ConfigError(
            f"The config {name} cannot be loaded: its get_config() returns {config!r}, not a "
            "ConfigDict."
        )
    return config.lock()


def find(name: str) -> pathlib.Path:
    """The file of a recipe, or a file by its path, whatever follows a colon; raises ConfigError.

    A path that is there goes before a recipe of that name.
    """
    given = name.partition(":")[0]
    path = place(given, "--config")
    if os.path.isfile(path):  # False also where a name is too long, or not to be seen
        return path
    recipes = names()
    if given in recipes:
        return FOLDER / f"{given}.py"
    files = sorted(file.name for file in path.parent.glob("*.py"))
    if path.suffix != ".py" and path.name == given:
        near = difflib.get_close_matches(given, recipes, n=len(recipes), cutoff=0)
        mend = f"there are {', '.join(near)}"
        mend += f"; did you mean the file {given}.py?" if f"{given}.py" in files else "."
        raise ConfigError(f"There is no recipe {given}; {mend}")
    close = difflib.get_close_matches(path.name, files)
    if close:
        mend = f"did you mean {path.with_name(close[0])}?"
    elif path.stem in recipes:
        mend = f"did you mean the recipe, --config {path.stem}?"
    else:
        mend = "give the path of one, or the name of a recipe."
    raise ConfigError(f"There is no config file {path}; {mend}")


def flatten(config: "ConfigDict") -> dict[str, Any]:
    """`{"model.window": 7, ...}`, tuples as they are."""
    from ml_collections import ConfigDict

    flat: dict[str, Any] = {}
    for name, value in config.items():
        if isinstance(value, ConfigDict):
            flat |= {f"{name}.{inner}": x for inner, x in flatten(value).items()}
        else:
            flat[name] = value
    return flat


def no_such_setting(name: str, known: list[str], *, flag: str = "") -> str:
    """The sentence for a setting that is not there; it names the nearest one.

    Args:
        name: in full, `model.windw`.
        known: the settings that there are.
        flag: what stands before a setting where it is typed, `--config.`.
    """
    same_end = [k for k in known if k.rpartition(".")[2] == name.rpartition(".")[2]]
    near = same_end or difflib.get_close_matches(name, known, n=1, cutoff=0)
    return f"There is no setting {flag}{name}; the nearest is {flag}{near[0]}."


class _Finder(importlib.abc.MetaPathFinder):
    """Finds `configs` where a spec says, before anything else is asked."""

    def __init__(self, spec: importlib.machinery.ModuleSpec | None):
        self.spec = spec

    def find_spec(
        self, fullname: str, path: Any = None, target: Any = None
    ) -> importlib.machinery.ModuleSpec | None:
        return self.spec if fullname == "configs" else None


@contextlib.contextmanager
def _importable(module: types.ModuleType, *, is_recipe: bool) -> Iterator[None]:
    """While it lasts, a config file may say `from configs import base`, wherever it lies.

    No package of that name is installed. In a recipe, `configs` is the folder of recipes, whatever
    else has that name. In a user's file it is the user's own package or folder `configs`, if Python
    finds one, and what that does not hold comes from the recipes. What was imported as `configs`
    before is back afterwards.
    """
    path, before = sys.path, _take_out("configs")
    if not is_recipe:  # the command `clevit_jax` does not look in the working folder by itself
        sys.path = [*path, str(pathlib.Path.cwd())]
    own = None if is_recipe else importlib.machinery.PathFinder.find_spec("configs")
    if own is None:
        own = importlib.util.spec_from_file_location(
            "configs", FOLDER / "__init__.py", submodule_search_locations=[str(FOLDER)]
        )
    elif own.submodule_search_locations is not None:
        own.submodule_search_locations = [*own.submodule_search_locations, str(FOLDER)]
    finder = _Finder(own)
    sys.meta_path.insert(0, finder)
    sys.modules[_MODULE] = module  # as dataclasses want it
    try:
        yield
    finally:
        sys.path = path
        sys.meta_path.remove(finder)
        del sys.modules[_MODULE]
        _take_out("configs")
        sys.modules |= before


def _take_out(package: str) -> dict[str, Any]:
    """Takes a package and its modules out of those that are imported; returns them."""
    names = [name for name in sys.modules if name == package or name.startswith(f"{package}.")]
    return {name: sys.modules.pop(name) for name in names}
