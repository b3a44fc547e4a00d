"""Configs of two runs, or of two versions: written as JSON, read back and compared."""

from typing import Any

from ml_collections import ConfigDict

from clevit_jax.recipes import flatten

# Settings that say where and how to compute, and do not change what is computed.
NOT_COMPARED = (
    "data.root",
    "data.cache_bytes",
    "data.threads",
    "checkpoint.",
    "log.",
    "mesh.",
    "model.kernels",
    "model.scan",
)

# Settings that may differ from host to host of one run.
PER_HOST = ("data.root", "data.cache_bytes", "data.threads")

# Settings that came later, with what older runs did without them.
DEFAULTS_OF_OLDER_RUNS: dict[str, Any] = {
    "model.pretrained": "",
    "model.class_map": "",
    "data.tfds": "",
    "data.file_column": "",
    "data.label_column": "",
    "data.test_fraction": 0.2,
    "data.val_fraction": 0.0,
    "data.folds": 0,
    "data.fold": 0,
    "data.split_seed": 0,
    "log.report": True,
    "model.kernels": "auto",
    "model.scan": "auto",
}


def restore_config(settings: dict[str, Any]) -> ConfigDict:
    """The config that was written as JSON, locked, with `DEFAULTS_OF_OLDER_RUNS` filled in."""
    config = ConfigDict(_with_tuples(settings))
    known = flatten(config)
    missing = {
        k: v
        for k, v in DEFAULTS_OF_OLDER_RUNS.items()
        if k not in known and k.partition(".")[0] in config
    }
    config.update_from_flattened_dict(missing)
    return config.lock()


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
        if before.get(name, missing) != now.get(name, missing)
        and not name.startswith(NOT_COMPARED + free)
    ]
