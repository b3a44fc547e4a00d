"""Configs by name or path, from the command line and from Python, whatever else is `configs`."""

import importlib
import pathlib
import sys

import pytest

import clevit_jax
from clevit_jax import recipes
from clevit_jax.config import flatten
from clevit_jax.errors import ConfigError
from configs import base

ROOT = pathlib.Path(__file__).parents[1]
READS_BASE = "from configs import base\n\n\ndef get_config():\n    return base.get_config()\n"


@pytest.fixture
def place(tmp_path, monkeypatch):
    """An empty folder to work in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_recipe_by_name(place):
    """Each is what its module makes."""
    assert set(recipes.names()) == {p.stem for p in (ROOT / "configs").glob("*.py")} - {"__init__"}
    for name in set(recipes.names()) - {"soyageing"}:
        made = importlib.import_module(f"configs.{name}").get_config()
        assert flatten(clevit_jax.get_config(name)) == flatten(made), name
    assert clevit_jax.get_config("soyageing:R3").data.root == "data/soyageing/R3"
    with pytest.raises(ConfigError, match=r"soyageing:R2 cannot be loaded: .* one of R1, R3"):
        clevit_jax.get_config("soyageing:R2")


def test_a_file_goes_before_a_recipe(place):
    (place / "cub").mkdir()  # a folder does not
    assert clevit_jax.get_config("cub").model.num_classes == 200
    (place / "mine.py").write_text(READS_BASE.replace("base.get_config()", "base"))
    with pytest.raises(ConfigError, match=r"mine.py cannot be loaded: its get_config\(\) returns"):
        clevit_jax.get_config("mine.py")
    (place / "folder").write_text("no Python by its name")
    with pytest.raises(ConfigError, match=r"folder cannot be loaded: its name must end in \.py"):
        clevit_jax.get_config("folder")


def test_settings(place):
    """As the command line sets them; what is not there or of another type is refused."""
    config = clevit_jax.get_config(
        "folder", epochs=3, **{"data.root": "x", "optim.lr": 1, "model.depths": [1, 2]}
    )
    assert (config.epochs, config.data.root) == (3, "x")
    assert (config.optim.lr, type(config.optim.lr)) == (1.0, float)
    assert config.model.depths == (1, 2)
    assert clevit_jax.get_config("folder").epochs == base.get_config().epochs  # a new one each time
    with pytest.raises(AttributeError):
        config.epoch = 3  # locked
    for name, nearest in (("model.windw", "model.window"), ("lr", "optim.lr")):
        with pytest.raises(ConfigError, match=f"no setting {name}; the nearest is {nearest}"):
            clevit_jax.get_config("folder", **{name: 1})
    with pytest.raises(ConfigError, match="no setting model;"):
        clevit_jax.get_config("folder", model=3)
    with pytest.raises(ConfigError, match=r"epochs is 1.5; it must be of type int, like 200"):
        clevit_jax.get_config("folder", epochs=1.5)


@pytest.mark.parametrize("start", ["", "X = 1\n"], ids=["folder", "package"])
def test_configs_of_the_user(place, monkeypatch, start):
    """Beside the recipes, not hidden by them and not hiding them."""
    own = place / "configs"
    own.mkdir()
    if start:
        (own / "__init__.py").write_text(start)
    (own / "tables.py").write_text("EPOCHS = 7\n")
    (own / "mine.py").write_text(
        "from configs import base, tables\n\n\ndef get_config():\n    config = base.get_config()\n"
        "    config.epochs = tables.EPOCHS\n    return config\n"
    )
    # As the command `clevit_jax` has it, which does not look in the working folder.
    path = [p for p in sys.path if p and pathlib.Path(p).resolve() != ROOT]
    monkeypatch.setattr(sys, "path", path)
    assert clevit_jax.get_config("configs/mine.py").epochs == 7
    (own / "base.py").write_text(
        "from ml_collections import ConfigDict\n\n\n"
        "def get_config():\n    return ConfigDict({'epochs': 1, 'model': {}})\n"
    )
    assert len(flatten(clevit_jax.get_config("configs/mine.py"))) == 1  # theirs, when they have one
    # As `python -m clevit_jax.main` has it. Not `syspath_prepend`, which would undo the line above.
    monkeypatch.setattr(sys, "path", [str(place), *path])
    assert clevit_jax.get_config("cub").epochs == 40  # but a recipe has its own


def test_nothing_stays_behind(place, monkeypatch):
    """What is `configs` elsewhere in the program is what it was, after a failure as well."""
    before = sys.modules["configs"], sys.modules["configs.base"], list(sys.path), sys.meta_path[:]
    (place / "mine.py").write_text(READS_BASE)
    clevit_jax.get_config("mine.py")
    (place / "mine.py").write_text("from configs import base\n\n1 / 0\n")
    with pytest.raises(ConfigError, match="ZeroDivisionError: division by zero"):
        clevit_jax.get_config("mine.py")
    now = sys.modules["configs"], sys.modules["configs.base"], list(sys.path), sys.meta_path[:]
    assert now == before
    for name in [name for name in sys.modules if name.partition(".")[0] == "configs"]:
        monkeypatch.delitem(sys.modules, name)
    clevit_jax.get_config("cub")
    assert not [name for name in sys.modules if name.partition(".")[0] == "configs"]


def test_a_file_may_hold_dataclasses(place):
    """Which look for the module that they are made in."""
    (place / "mine.py").write_text(
        "from __future__ import annotations\n\nimport dataclasses\n\nfrom configs import base\n\n\n"
        "@dataclasses.dataclass\nclass Mine:\n    epochs: int = 3\n\n\n"
        "def get_config():\n    config = base.get_config()\n"
        "    config.epochs = Mine().epochs\n    return config\n"
    )
    assert clevit_jax.get_config("mine.py").epochs == 3
