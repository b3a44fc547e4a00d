"""Configs by the name of a recipe, a file or a run: what `--config` and `get_config` read.

Nothing here needs JAX before a run is read, so that `--help` and mistyped commands answer at once.
"""

import os
import pathlib
from typing import TYPE_CHECKING, Any

from clevit_jax import recipes
from clevit_jax.errors import ConfigError
from clevit_jax.system.addresses import BUCKETS, scheme
from clevit_jax.system.places import in_bucket, run_place

if TYPE_CHECKING:
    from ml_collections import ConfigDict

_RUN_FILE = "config.json"  # of a run; `runs.workdir` writes it


def get_config(name: str, /, **settings: Any) -> "ConfigDict":
    """A config as the command line makes it.

        config = clevit_jax.get_config("folder", epochs=50, **{"data.root": "photos"})

    Args:
        name: what `--config` takes: a recipe (`cotton80`, `soyageing:R3`), the path of a file, with
            its argument after a colon, or the workdir of a run, whose config it is.
        **settings: what differs from it, by full name, such as `epochs` or `optim.lr`.

    Returns:
        A new config, locked: a setting that is not there cannot be set.

    Raises:
        ConfigError: there is no such recipe, file or run, the file fails, a setting is not there
            or its value is of another type; one sentence with the mend.
    """
    config = load(name)
    known = recipes.flatten(config)
    for setting, value in settings.items():
        if setting not in known:
            raise ConfigError(recipes.no_such_setting(setting, list(known)))
        try:
            config.update_from_flattened_dict({setting: value})
        except (TypeError, ValueError):
            old = known[setting]
            raise ConfigError(
                f"{setting} is {value!r}; it must be of type {type(old).__name__}, like {old!r}."
            ) from None
    return config


def load(name: str) -> "ConfigDict":
    """The config that a name stands for, locked; raises ConfigError. `name`: see `get_config`."""
    run = run_of(run_place(name, "--config"))
    if run is None and scheme(name) in BUCKETS:
        raise ConfigError(
            f"--config is {name}, which is no run, and a config file is code, so it is read from "
            f"this machine alone; copy it and name the copy: gcloud storage cp {name} ."
        )
    if run is None:
        return recipes.load(name)
    from clevit_jax.runs.workdir import load_config

    return load_config(run)


def run_of(path: pathlib.Path) -> pathlib.Path | None:
    """The run whose config a path stands for, None where it is none.

    That is the run itself, or the first of a folder of seeds: its seeds differ in `seed` alone.
    """
    if path.name == _RUN_FILE and _is_file(path):
        return path.parent
    if _is_file(path / _RUN_FILE):
        return path
    if not in_bucket(path) and not os.path.isdir(path):
        return None
    from clevit_jax.runs.results import seed_folders

    return next(iter(seed_folders(path).values()), None)


def _is_file(path: pathlib.Path) -> bool:
    # On a disk not by pathlib, which raises where a name is too long.
    return path.is_file() if in_bucket(path) else os.path.isfile(path)
