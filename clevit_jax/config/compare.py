"""Configs of two runs, or of two versions: written as JSON, read back and compared."""

import os
from typing import Any

from ml_collections import ConfigDict

from clevit_jax import recipes
from clevit_jax.config.ranges import check_types
from clevit_jax.errors import ConfigError
from clevit_jax.recipes import flatten
from clevit_jax.system.addresses import is_fetched, public
from clevit_jax.system.hub import is_name
from clevit_jax.system.places import expand
from clevit_jax.weights import from_hub

# Settings that say where and how to compute, and do not change what is computed.
NOT_COMPARED = (
    "data.root",
    "data.copy_to",
    "data.cache_bytes",
    "data.threads",
    "checkpoint.",
    "log.",
    "mesh.",
    "model.kernels",
    "model.scan",
)

# Settings that `--extend` may change, for they leave the shapes of the state, the order of the
# images and the images themselves alone: what was trained stays what it is, and its scores compare
# with those that come. Not here are what the state is made of (`model.*`, `optim.name`), which
# images come when (`seed`, `batch_size`, `data.*`) and how they look (`views.*`, `eval.resize`).
EXTENDABLE = (
    "epochs",
    "accumulation",
    "model.drop_path",
    "model.dtype",
    "model.remat",
    "loss.",
    "optim.lr",
    "optim.head_multiplier",
    "optim.schedule",
    "optim.warmup_epochs",
    "optim.warmup_start",
    "optim.end",
    "optim.weight_decay",
    "optim.clip_norm",
    "optim.b1",
    "optim.b2",
    "optim.eps",
    "optim.momentum",
    "eval.every_epochs",
    "eval.batch_size",
    "eval.patience",
)

# Settings that are paths. They are written in full, and compared by where they lead.
_PLACES = ("data.root", "data.copy_to", "model.pretrained", "model.class_map")

# Settings that may differ from host to host of one run.
PER_HOST = ("data.root", "data.copy_to", "data.cache_bytes", "data.threads")

# Settings that came later, with what older runs did without them.
DEFAULTS_OF_OLDER_RUNS: dict[str, Any] = {
    "model.pretrained": "",
    "model.class_map": "",
    "data.tfds": "",
    "data.copy_to": "",
    "data.file_column": "",
    "data.label_column": "",
    "data.test_fraction": 0.2,
    "data.val_fraction": 0.0,
    "data.folds": 0,
    "data.fold": 0,
    "data.split_seed": 0,
    "data.split_column": "",
    "data.header": "auto",
    "data.class_level": "auto",
    "data.label_pattern": "",
    "data.on_bad_image": "stop",
    "data.max_bad": 0.01,
    "data.truncated": False,
    "data.bits": 0,
    "views.mean": (),
    "views.std": (),
    "checkpoint.keep_every": 0,
    "checkpoint.timeout_minutes": 10.0,
    "log.report": True,
    "log.wandb": "",
    "log.mlflow": "",
    "model.kernels": "auto",
    "model.scan": "auto",
    "eval.patience": 0,
}


def restore_config(settings: dict[str, Any]) -> ConfigDict:
    """The config that was written as JSON, locked, whatever settings have come since.

    What is not there is in `DEFAULTS_OF_OLDER_RUNS`, or else as in `configs/base.py`.

    Raises:
        ConfigError: a value is of another type than in base.py.
        NewerConfigError: there are settings that base.py does not have.
    """
    known = recipes.defaults()
    there = flatten(ConfigDict(_with_tuples(settings)))
    if unknown := [name for name in there if name not in known]:
        for name in unknown:
            _check_groups(name, there[name], known)
        raise NewerConfigError(unknown)
    flat = {**known, **DEFAULTS_OF_OLDER_RUNS, **there}
    check_types(flat)
    nested: dict[str, Any] = {}
    for name in known:  # in the order of base.py
        *groups, leaf = name.split(".")
        owner = nested
        for group in groups:
            owner = owner.setdefault(group, {})
        owner[leaf] = float(flat[name]) if isinstance(known[name], float) else flat[name]
    return ConfigDict(nested).lock()


class NewerConfigError(ConfigError):
    """Settings that this version does not know.

    Attributes:
        names: of the settings.
    """

    def __init__(self, names: list[str]):
        self.names = tuple(names)
        super().__init__(f"There are no settings {', '.join(names)}.")


def _check_groups(name: str, value: Any, known: dict[str, Any]) -> None:
    """Raises ConfigError if a value stands for a group of base.py, or a group for a value."""
    if any(other.startswith(f"{name}.") for other in known):
        raise ConfigError(f"{name} is {value!r}; it must be a group of settings.")
    if (parent := name.rpartition(".")[0]) in known:
        raise ConfigError(f"{parent} is a group of settings; it must be like {known[parent]!r}.")


def _with_tuples(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _with_tuples(inner) for name, inner in value.items()}
    return tuple(value) if isinstance(value, list) else value


def changed_settings(
    before: dict[str, Any], now: dict[str, Any], *, free: tuple[str, ...] = ()
) -> list[str]:
    """`name: before, now` of every setting that differs, but for `NOT_COMPARED` and `free`."""
    missing = "not set"
    return [
        f"{name}: {str(before.get(name, missing)) or repr('')}, "
        f"{str(now.get(name, missing)) or repr('')}"
        for name in sorted(before.keys() | now.keys())
        if not _same(name, before.get(name, missing), now.get(name, missing))
        and not name.startswith(NOT_COMPARED + free)
    ]


def unextendable(differences: list[str]) -> list[str]:
    """Those of `changed_settings` that `--extend` must not make, see `EXTENDABLE`."""
    return [text for text in differences if not text.startswith(EXTENDABLE)]


def _same(name: str, before: Any, now: Any) -> bool:
    """Whether two values of a setting are the same; paths are, where they lead to one place."""
    if before == now or name not in _PLACES or not (before and now):
        return bool(before == now)
    try:
        return _in_full(name, before) == _in_full(name, now)
    except (ConfigError, TypeError):
        return False


def with_places_in_full(config: ConfigDict) -> ConfigDict:
    """The config with its paths in full, so that they are found from any folder; locked."""
    config = config.copy_and_resolve_references().unlock()
    known = flatten(config)
    paths = {name: known[name] for name in _PLACES if known[name]}  # "": TFDS's own folder, none
    config.update_from_flattened_dict({name: _in_full(name, path) for name, path in paths.items()})
    return config.lock()


def _in_full(name: str, path: str) -> str:
    if name == "model.pretrained" and (weights := from_hub.named(path)):
        return str(weights)
    full = expand(path, name, hub=name == "data.root", fetched=name != "data.copy_to")
    if is_fetched(full):
        return public(full)
    return full if is_name(full) else os.path.abspath(full)
