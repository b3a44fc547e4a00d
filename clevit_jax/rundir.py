"""The folder of a run: whose it is, what it was made with, what came of it."""

import datetime
import importlib.metadata
import json
import os
import pathlib
import platform
import sys
import time
import uuid
from typing import Any

import jax
from ml_collections import ConfigDict

from clevit_jax import processes
from clevit_jax.experiment import ConfigError, flatten

CONFIG, RUN, RESULT = "config.json", "run.json", "evaluation.json"
START = "load_report.json"
MAPS = "maps.json"  # what the deletion test found; see `analysis.deletion`
CHECKPOINTS = "checkpoints"
# Settings that say where and how to compute, and do not change what is computed.
FREE = (
    "data.root", "data.cache_bytes", "data.threads", "checkpoint.", "log.", "mesh.",
    "model.kernels", "model.scan",
)  # fmt: skip
SHARED_SECONDS = 10.0  # that a network disk has to show a file to the other hosts
# Settings that may differ from host to host of one run.
LOCAL = ("data.root", "data.cache_bytes", "data.threads")
# Settings that came later, with what older runs did without them.
ADDED: dict[str, Any] = {
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
PACKAGES = ("clevit_jax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy")


def write_json(path: pathlib.Path, value: Any) -> None:
    """Writes it whole or not at all."""
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
    os.replace(temporary, path)


def read_json(path: pathlib.Path) -> Any:
    """Raises ConfigError when the file is missing or is no JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror or error}.") from error
    except ValueError as error:
        raise ConfigError(f"{path} is not JSON: {error}.") from error


def read_facts(path: pathlib.Path) -> dict[str, Any]:
    """The object in a JSON file. Raises ConfigError when there is none."""
    facts = read_json(path)
    if not isinstance(facts, dict):
        raise ConfigError(f"{path} is no JSON object; it was not written by this program.")
    return facts


def load_config(workdir: pathlib.Path) -> ConfigDict:
    """The config that a run was made with. Raises ConfigError when the folder is no run."""
    if not (workdir / CONFIG).exists():
        raise ConfigError(
            f"{workdir} holds no run ({CONFIG} is missing); start one with --config FILE."
        )
    settings = read_facts(workdir / CONFIG)
    if not all(isinstance(settings.get(group), dict) for group in ("data", "model")):
        raise ConfigError(
            f"{workdir / CONFIG} holds no settings; it was not written by this program."
        )
    return to_config(settings)


def to_config(settings: dict[str, Any]) -> ConfigDict:
    """The config that was written as JSON, locked, with what is in `ADDED` filled in."""
    config = ConfigDict(_with_tuples(settings))
    known = flatten(config)
    missing = {k: v for k, v in ADDED.items() if k not in known and k.partition(".")[0] in config}
    config.update_from_flattened_dict(missing)
    return config.lock()


def _with_tuples(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _with_tuples(inner) for name, inner in value.items()}
    return tuple(value) if isinstance(value, list) else value


def has_checkpoints(workdir: pathlib.Path) -> bool:
    """Whether a checkpoint was begun, whole or not."""
    return any((workdir / CHECKPOINTS).glob("[0-9]*"))


def check(workdir: pathlib.Path, config: ConfigDict, *, free: tuple[str, ...] = ()) -> None:
    """Raises ConfigError unless the folder is new, or a run with this very config.

    Args:
        workdir: the folder.
        config: of the run that is asked for.
        free: beginnings of names of settings that may differ, besides `FREE`.
    """
    metrics = workdir / "metrics.jsonl"
    begun = has_checkpoints(workdir) or (metrics.exists() and metrics.stat().st_size > 0)
    if not begun:  # a run that ended before its first record leaves nothing to protect
        return
    if not (workdir / CONFIG).exists():
        raise ConfigError(
            f"{workdir} holds results but no {CONFIG}; name another --workdir, nothing is changed."
        )
    differences = compare(flatten(load_config(workdir)), flatten(config), free=free)
    if differences:
        raise ConfigError(
            f"{workdir} holds a run with another config; name another --workdir. "
            f"Different are (there, here): {'; '.join(differences)}."
        )


def claim(workdir: pathlib.Path, config: ConfigDict) -> None:
    """Makes the folder this run's, and sees that all processes look at the same one.

    Raises:
        ConfigError: it cannot be written, or another process does not see what is written there.
    """
    token = workdir / f".seen-by-all-{uuid.uuid4().hex}"
    try:
        if processes.index() == 0:
            workdir.mkdir(parents=True, exist_ok=True)
            write_json(workdir / CONFIG, config.to_dict())
            if processes.count() > 1:
                token.touch()
    except OSError as error:
        raise ConfigError(
            f"--workdir {workdir} cannot be written: {error.strerror or error}."
        ) from error
    if processes.count() == 1:
        return
    token = workdir / processes.broadcast("token", token.name)
    until = time.monotonic() + SHARED_SECONDS
    while not (seen := token.exists()) and time.monotonic() < until:
        time.sleep(0.1)
    blind = [number for number, sees in enumerate(processes.gather("seen", seen)) if not sees]
    if processes.index() == 0:
        token.unlink(missing_ok=True)
    if blind:
        raise ConfigError(
            f"--workdir {workdir} of process 0 is not that of process "
            f"{', '.join(map(str, blind))}; it must lie on a disk that all hosts share."
        )


def compare(
    before: dict[str, Any], now: dict[str, Any], *, free: tuple[str, ...] = ()
) -> list[str]:
    """`name: before, now` of every setting that differs and is neither of `FREE` nor of `free`."""
    missing = "not set"
    return [
        f"{name}: {str(before.get(name, missing)) or repr('')}, "
        f"{str(now.get(name, missing)) or repr('')}"
        for name in sorted(before.keys() | now.keys())
        if before.get(name, missing) != now.get(name, missing) and not name.startswith(FREE + free)
    ]


def describe_start() -> dict[str, Any]:
    """What `run.json` records of the machine and the software each time the run is started."""

    def version(package: str) -> str | None:
        try:
            return importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            return None

    return {
        "started": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "command": sys.argv,
        "python": platform.python_version(),
        "versions": {package: version(package) for package in PACKAGES},
        "devices": [jax.devices()[0].device_kind, jax.device_count()],
        "processes": jax.process_count(),
    }
