"""A new run that begins from the weights of another: `--from RUN[@last|@best|@STEP]`."""

import pathlib

from ml_collections import ConfigDict

from clevit_jax.errors import ConfigError
from clevit_jax.runs.load import holds_run, is_run_there, split_checkpoint
from clevit_jax.runs.workdir import CONFIG_FILE, has_checkpoints, load_config
from clevit_jax.system.addresses import is_fetched, public
from clevit_jax.weights import from_hub


def begin_from(config: ConfigDict, origin: str, workdir: pathlib.Path) -> ConfigDict:
    """The config of a run that begins from other weights.

    `model.pretrained` is set, so that config.json says where the run comes from and the same
    command goes on with it. A `model.class_map` was for the weights before these, and is emptied
    where the config is the origin's.

    Args:
        config: of the new run.
        origin: a run, also as `RUN@best` or `RUN@120`, or other weights, also by a name on the hub.
        workdir: of the new run.

    Raises:
        ConfigError: there is no such path, or the workdir holds a run that began elsewhere.
    """
    path, which = split_checkpoint(origin)
    name = _elsewhere(origin)
    path = path if name else path.resolve()
    of_run = f"{path}@{'last' if which is None else which}"
    pretrained = _begun_from(workdir)
    if pretrained is None:
        check_origin(origin)
        pretrained = of_run if holds_run(path) else str(name or path)
    elif pretrained not in (of_run, *([str(name or path)] if which is None else [])):
        raise ConfigError(
            f"--from {origin}: {workdir} holds a run already, which began from "
            f"{pretrained or 'random parameters'}; name a new --workdir, or leave --from out to go "
            "on."
        )
    changed = config.copy_and_resolve_references()
    with changed.unlocked():
        changed.model.pretrained = pretrained
        if holds_run(path) and changed.model.class_map == load_config(path).model.class_map:
            changed.model.class_map = ""
    return changed.lock()


def _begun_from(workdir: pathlib.Path) -> str | None:
    """What the run in a folder began from, None where no run has begun there."""
    if not has_checkpoints(workdir) or not (workdir / CONFIG_FILE).is_file():
        return None
    return load_config(workdir).model.pretrained


def _elsewhere(origin: str) -> str:
    """The name on the hub or the address of other weights; "" of a path, and of a run."""
    if is_fetched(origin) and not is_run_there(origin):
        return public(origin)
    name = from_hub.named(origin)
    return "" if name is None else str(name)


def check_origin(origin: str) -> None:
    """Raises ConfigError unless there is such a path, and it is a run where a step is named."""
    path, which = split_checkpoint(origin)
    if not _elsewhere(origin) and not path.exists():
        raise ConfigError(
            f"--from {origin}: there is no {path}; name the workdir of a run, RUN@best or RUN@STEP "
            "for one of its checkpoints, or a file of weights."
        )
    if which is not None and not holds_run(path):
        raise ConfigError(
            f"--from {origin}: {path} is not a run, so it has no checkpoints to choose from."
        )
