"""The folder of a run: names of its files, its config, and checks before it is written to."""

import contextlib
import datetime
import functools
import importlib.metadata
import pathlib
import platform
import re
import sys
import time
import uuid
from typing import Any

import jax
from ml_collections import ConfigDict

from clevit_jax.config import (
    NewerConfigError,
    changed_settings,
    check_model,
    flatten,
    restore_config,
    unextendable,
    with_places_in_full,
)
from clevit_jax.distributed import processes
from clevit_jax.errors import ConfigError
from clevit_jax.recipes import defaults
from clevit_jax.system.faults import mend, os_reason
from clevit_jax.system.files import read_json_object, write_json
from clevit_jax.system.progress import in_notebook

CONFIG_FILE, RUN_FILE, EVALUATION_FILE = "config.json", "run.json", "evaluation.json"
LOAD_REPORT_FILE = "load_report.json"
MAPS_FILE = "maps.json"  # what the deletion test found; see `analysis.deletion`
CHECKPOINTS_FOLDER = "checkpoints"
REPORT_FILE = "report.html"
SHARED_SECONDS = 10.0  # how long a network disk may take to show a file to the other hosts
PACKAGES = ("clevit_jax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy")


def load_config(workdir: pathlib.Path) -> ConfigDict:
    """The config that a run was made with, by an older version too.

    Where config.json is damaged, it is the copy in the newest checkpoint; a line says so.

    Raises:
        ConfigError: the folder is not a run, or one of a newer version.
    """
    path = workdir / CONFIG_FILE
    if not path.exists():
        raise ConfigError(
            f"{workdir} holds no run ({CONFIG_FILE} is missing); start one with --config FILE."
        )
    try:
        return _restore(workdir, read_json_object(path), str(path))
    except _OfNewerVersionError:
        raise
    except ConfigError as error:
        copies = sorted(
            (workdir / CHECKPOINTS_FOLDER).glob("*/meta/metadata"),
            key=lambda copy: copy.parts[-3].zfill(20),
        )
        for copy in reversed(copies):
            with contextlib.suppress(ConfigError):
                config = _restore(workdir, read_json_object(copy).get("config"), str(copy))
                _say_once(f"{error} The copy in checkpoint {copy.parts[-3]} is taken.")
                return config
        raise ConfigError(f"{error} Put a copy of it back, or name another --workdir.") from error


class _OfNewerVersionError(ConfigError):
    """The run is not damaged, but this version cannot read it."""


def _restore(workdir: pathlib.Path, settings: Any, where: str) -> ConfigDict:
    """`restore_config`, with errors that say where the settings stand."""
    if not isinstance(settings, dict) or not all(
        isinstance(settings.get(group, {}), dict) for group in ("data", "model")
    ):
        settings = {}
    try:
        names = set(flatten(ConfigDict(settings)))
    except ValueError:  # a name that no setting can have
        names = set()
    if not names & defaults().keys():
        raise ConfigError(f"{where} holds no settings; it was not written by this program.")
    there, here = _version_there(workdir), importlib.metadata.version("clevit_jax")
    versions = f"{there} there, {here} here; " if there not in ("", here) else ""
    newer = f"{workdir} was made by a newer version of clevit_jax ({versions}"
    upgrade = "pip install --upgrade clevit_jax."
    try:
        config = restore_config(settings)
        check_model(config)
        return config
    except NewerConfigError as error:
        raise _OfNewerVersionError(
            f"{newer}unknown settings: {', '.join(error.names)}); {upgrade}"
        ) from error
    except ConfigError as error:
        if _numbers(there) > _numbers(here):  # which may take more than this one does
            reason = str(error).removesuffix(".")
            raise _OfNewerVersionError(f"{newer}{reason}); {upgrade}") from error
        raise ConfigError(f"{where}: {error}") from error


def _version_there(workdir: pathlib.Path) -> str:
    """The version that a run was last started by, "" where run.json does not say."""
    try:
        return str(read_json_object(workdir / RUN_FILE)["starts"][-1]["versions"]["clevit_jax"])
    except (ConfigError, LookupError, TypeError):
        return ""


def _numbers(version: str) -> list[int]:
    """`0.10.2` -> [0, 10, 2]."""
    return [int(digits) for digits in re.findall(r"\d+", version.partition("+")[0])]


@functools.cache
def _say_once(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def has_checkpoints(workdir: pathlib.Path) -> bool:
    """Whether a checkpoint was begun, whole or not."""
    return any((workdir / CHECKPOINTS_FOLDER).glob("[0-9]*"))


def newest_step(workdir: pathlib.Path) -> int:
    """The step of the newest checkpoint, whole or not; 0 where there is none. Process 0 looks."""
    folders = (workdir / CHECKPOINTS_FOLDER).glob("[0-9]*")
    steps = [int(path.name) for path in folders if path.name.isdecimal()]
    return processes.broadcast("newest", max(steps, default=0))


def check_workdir(
    workdir: pathlib.Path,
    config: ConfigDict,
    *,
    free: tuple[str, ...] = (),
    reading: bool = False,
    of_seeds: bool = False,
) -> None:
    """Raises ConfigError unless the folder is new, or a run with this very config.

    Args:
        workdir: the folder.
        config: of the run that is asked for.
        free: prefixes of settings that may differ, besides `NOT_COMPARED`.
        reading: whether the run is only looked at.
        of_seeds: whether the run is one of those of --mode seeds, which takes neither --extend nor
            --from.
    """
    metrics = workdir / "metrics.jsonl"
    begun = has_checkpoints(workdir) or (metrics.exists() and metrics.stat().st_size > 0)
    if not begun:  # a run that ended before its first record leaves nothing to protect
        return
    if not (workdir / CONFIG_FILE).exists():
        raise ConfigError(
            f"{workdir} holds results but no {CONFIG_FILE}; name another --workdir, nothing is "
            "changed."
        )
    differences = changed_settings(flatten(load_config(workdir)), flatten(config), free=free)
    if differences:
        advice = (
            _mend_seeds(workdir, differences) if of_seeds else _mend(workdir, differences, reading)
        )
        raise ConfigError(
            f"{workdir} holds a run with another config; {advice}. "
            f"Differences (there, here): {'; '.join(differences)}."
        )


def _mend(workdir: pathlib.Path, differences: list[str], reading: bool) -> str:
    """What to type where a run has another config than the one that is asked for."""
    if reading:
        return "leave --config out, and the run's own is taken"
    if not unextendable(differences):
        return "go on with it under the new one by --extend, or name another --workdir"
    return (
        f"name another --workdir; to begin there from the weights of this one: --from "
        f"{workdir}@last"
    )


def _mend_seeds(workdir: pathlib.Path, differences: list[str]) -> str:
    """The same for a run of --mode seeds, where every seed has its own command."""
    sentence = "seeds that are compared share one config, so name another --workdir"
    if unextendable(differences):
        return sentence
    return (
        f"{sentence}; or extend each seed by itself, this one by --workdir {workdir} --extend and "
        "the new settings, without --mode, and then repeat --mode seeds"
    )


def claim_workdir(workdir: pathlib.Path, config: ConfigDict) -> None:
    """Writes config.json into the folder, and checks that all processes see the same folder.

    Raises:
        ConfigError: it cannot be written, or another process does not see what is written there.
    """
    token = workdir / f".seen-by-all-{uuid.uuid4().hex}"
    try:
        if processes.index() == 0:
            workdir.mkdir(parents=True, exist_ok=True)
            write_json(workdir / CONFIG_FILE, with_places_in_full(config).to_dict())
            if processes.count() > 1:
                token.touch()
    except OSError as error:
        raise ConfigError(
            f"--workdir {workdir} cannot be written: {os_reason(error)}{mend(error)}."
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
            f"--workdir {workdir} of process 0 is not the folder that process "
            f"{', '.join(map(str, blind))} sees; put it on a disk that all hosts share."
        )


def describe_environment() -> dict[str, Any]:
    """What `run.json` records of the machine and the software each time the run is started."""

    def version(package: str) -> str | None:
        try:
            return importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            return None

    return {
        "started": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        # A kernel's own command line says nothing of the run, and reports are handed on.
        "command": ["notebook"] if in_notebook() else sys.argv,
        "python": platform.python_version(),
        "versions": {package: version(package) for package in PACKAGES},
        "devices": [jax.devices()[0].device_kind, jax.device_count()],
        "processes": jax.process_count(),
    }
