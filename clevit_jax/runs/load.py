"""Reading a trained Swin: from a run, a converted checkpoint or another library's file."""

import dataclasses
import pathlib
from typing import Any, Literal

from clevit_jax.config import model_config
from clevit_jax.distributed import processes
from clevit_jax.errors import CheckpointError, ClevitError, ConfigError, WeightsError
from clevit_jax.model.config import SwinConfig
from clevit_jax.model.preprocessing import Preprocessing
from clevit_jax.model.swin import abstract_swin
from clevit_jax.runs.checkpoint import Checkpoints
from clevit_jax.runs.facts import colours_of, levels_of, read_run_facts
from clevit_jax.runs.workdir import (
    CHECKPOINTS_FOLDER,
    CONFIG_FILE,
    MAPS_FILE,
    RUN_FILE,
    load_config,
)
from clevit_jax.system.addresses import BUCKETS, is_fetched, scheme, shown
from clevit_jax.system.files import read_json_object
from clevit_jax.system.places import run_place
from clevit_jax.weights import from_address, from_hub
from clevit_jax.weights.convert import Weights, named_leaves, read_torch_weights
from clevit_jax.weights.converted import FACTS, TENSORS, is_converted, read_converted
from clevit_jax.weights.folders import HUB_FILES, check_holds_weights, weights_in
from clevit_jax.weights.hub_facts import with_told
from clevit_jax.weights.load_report import LoadReport
from clevit_jax.weights.variants import Channels

Which = Literal["last", "best"] | int  # a checkpoint of a run; an int is its step
_THREE = "has three channels of input already; drop the choice of channels"


def read_weights(
    path: str | pathlib.Path,
    *,
    checkpoint: Which = "last",
    entry: str | None = None,
    prefix: str | None = None,
    channels: Channels | None = None,
    copy_to: str = "",
) -> Weights:
    """Reads the weights of a Swin, whichever way they are kept.

    Args:
        path: workdir of a run, folder of a converted checkpoint, or a `.pth` or `.safetensors`
            file in any of `dialects.DIALECTS`, or a folder with one, whole or in shards, as the
            Hugging Face hub has it, or the index of these shards.
            `RUN@last`, `RUN@best` and `RUN@STEP` name a checkpoint, too. A name on the hub, as
            `weights.from_hub.named` knows it, is fetched once; so is what lies in a bucket or on
            the web, but for a run in a bucket, `gs://BUCKET/RUN`, which is read where it lies.
        checkpoint: of a run: its newest, the one with the best top-1, or the one of a step. A run
            that keeps an average gives the average, which is what its evaluations score.
        channels: of another library's file whose patch embedding has other than three channels of
            input, how to bring it to three: "sum", "repeat" or "first".
        entry: of a `.pth` of another library that holds several state dicts, the name of one, as
            `state_dict_ema`; with dots for one in another, as `checkpoint.state_dict`.
        prefix: of a file of another library that holds several networks, what stands before the
            names of one, as `backbone.`; "" where nothing does.
        copy_to: folder of the copies of what lies in a bucket or on the web; see `system.fetch`.

    Raises:
        WeightsError, CheckpointError, ConfigError: in one sentence that names the file.
    """
    elsewhere = is_fetched(path) and not is_run_there(path)
    if (elsewhere or from_hub.named(path)) and checkpoint != "last":
        raise WeightsError(f"{shown(path)} is not a run, so it has no checkpoints to choose from.")
    if elsewhere:
        return _read_copy(path, copy_to, entry=entry, prefix=prefix, channels=channels)
    if from_hub.named(path):
        fetched = from_hub.fetch(path)
        weights = read_weights(fetched.path, entry=entry, prefix=prefix, channels=channels)
        return dataclasses.replace(weights, source=str(fetched))
    path, named = split_checkpoint(path)
    checkpoint = checkpoint if named is None else named
    if channels is not None and holds_run(path):
        raise WeightsError(f"{path} {_THREE} ({channels}).")
    if (entry, prefix) != (None, None) and (holds_run(path) or is_converted(path)):
        raise WeightsError(
            f"--entry and --prefix are for a file of another library, and {path} is none; drop "
            "them."
        )
    if holds_run(path):
        average = load_config(path).optim.ema > 0
        return read_run(path, checkpoint=checkpoint, average=average)
    if checkpoint != "last":
        what = f"checkpoint {checkpoint}" if isinstance(checkpoint, int) else f"{checkpoint} one"
        raise WeightsError(
            f"{path} is not a run, so there are no checkpoints to choose the {what} from; "
            "leave the choice out."
        )
    if path.name == TENSORS and is_converted(path.parent):
        path = path.parent
    if channels is not None and is_converted(path):
        raise WeightsError(f"{path} {_THREE} ({channels}).")
    if is_converted(path):
        return read_converted(path)
    return _read_of_others(path, entry, prefix, channels)


def _read_copy(path: str | pathlib.Path, copy_to: str, **options: Any) -> Weights:
    """Weights that lie elsewhere, from their copy; errors name them by their address."""
    copy = from_address.fetch(path, copy_to)
    try:
        weights = read_weights(copy.path, **options)
    except ClevitError as error:
        raise type(error)(copy.said(str(error))) from error
    return dataclasses.replace(weights, source=copy.address)


def _read_of_others(
    path: pathlib.Path, entry: str | None, prefix: str | None, channels: Channels | None
) -> Weights:
    """Another library's file or folder, with what the JSON beside it says; see `read_weights`."""
    inside: pathlib.Path | None = path
    passed_over: tuple[str, ...] = ()
    if path.is_dir():
        inside, passed_over = weights_in(path)
    else:
        check_holds_weights(path)
    if inside is None:
        raise WeightsError(
            f"{path} is neither a run (config.json and checkpoints/) nor a converted "
            f"checkpoint ({FACTS}), and holds no {' or '.join(HUB_FILES)}; name the "
            "file of weights."
        )
    weights = read_torch_weights(inside, entry=entry, prefix=prefix, channels=channels)
    report = dataclasses.replace(weights.report, passed_over=passed_over)
    return with_told(dataclasses.replace(weights, report=report), inside)


def read_which(text: str) -> Which:
    """The checkpoint that "last", "best" or the number of a step names; raises ConfigError."""
    if text in ("last", "best"):
        return text  # type: ignore[return-value]
    if text.isdecimal() and text.isascii():
        return int(text)
    raise ConfigError(
        f"{text!r} names no checkpoint; it must be last, best, or the number of a step, such as "
        "120."
    )


def check_step(checkpoints: Checkpoints, step: int) -> None:
    """Raises CheckpointError, which lists those that there are, unless a step has a checkpoint."""
    steps = processes.broadcast("steps", checkpoints.steps())
    if step not in steps:
        there = ", ".join(map(str, steps)) or "none"
        raise CheckpointError(
            f"{checkpoints.folder} has no checkpoint of step {step}; there are: {there}."
        )


def split_checkpoint(path: str | pathlib.Path) -> tuple[pathlib.Path, Which | None]:
    """`RUN@best` -> RUN and "best", `RUN@120` -> RUN and 120; a path that is there has no such end.

    Nor has a name on the hub, which is no path of a run.

    Returns:
        The path, and the checkpoint that it names, None where it names none.
    """
    if from_hub.named(path) or (is_fetched(path) and scheme(path) not in BUCKETS):
        return pathlib.Path(path), None
    whole = run_place(path)
    name, at, end = str(whole).rpartition("@")
    known = end in ("last", "best") or (end.isdecimal() and end.isascii())
    if not at or not name or not known or whole.exists():
        return whole, None
    return run_place(name), read_which(end)


def is_run_there(path: str | pathlib.Path) -> bool:
    """Whether an address is that of a run in a bucket, also as `RUN@best`: it is read there."""
    return scheme(path) in BUCKETS and holds_run(split_checkpoint(path)[0])


def holds_run(path: pathlib.Path) -> bool:
    """Whether a path looks like the workdir of a run."""
    return (path / CONFIG_FILE).is_file() and (path / CHECKPOINTS_FOLDER).is_dir()


def chosen_map(path: str | pathlib.Path) -> str | None:
    """The map that the deletion test chose for a run (`analysis.deletion`), None before it."""
    chosen = read_maps(split_checkpoint(path)[0]).get("chosen")
    return chosen if isinstance(chosen, str) else None


def read_maps(workdir: pathlib.Path) -> dict[str, Any]:
    """What the deletion test found; empty where it was not made, or its file is damaged."""
    path = workdir / MAPS_FILE
    try:
        return read_json_object(path) if path.is_file() else {}
    except ConfigError:  # the test is made again when it is needed
        return {}


def read_run(workdir: pathlib.Path, *, checkpoint: Which, average: bool) -> Weights:
    """The parameters of a run; nothing in its folder is changed.

    Args:
        workdir: of the run.
        checkpoint: its newest that can be read, its best, or the one of a step.
        average: whether to read the moving average of its parameters.

    Raises:
        ConfigError: the folder is not a run, or the run keeps no average.
        CheckpointError: there is no such checkpoint, or it cannot be read.
    """
    config = load_config(workdir)
    if average and not config.optim.ema:
        raise ConfigError(f"{workdir} keeps no average: its optim.ema is 0.")
    if not (workdir / RUN_FILE).is_file():
        raise CheckpointError(f"{workdir} has no checkpoint yet; train it first.")
    facts = read_run_facts(workdir, "class_names")
    names, (mean, std) = tuple(facts["class_names"]), colours_of(facts)
    trained = model_config(config, len(names), platform="cpu")
    model = SwinConfig.from_json(trained.to_json())  # float32, without drop path
    like = abstract_swin(model)[1]
    checkpoints = Checkpoints(
        workdir / CHECKPOINTS_FOLDER, keep=config.checkpoint.keep, read_only=True
    )
    try:
        steps = checkpoints.steps()[::-1]
        if checkpoint == "best":
            steps = [step for step, _ in checkpoints.by_score()]
            if not steps:
                raise CheckpointError(
                    f"{workdir} has no evaluated checkpoint yet; take its last one."
                )
        elif checkpoint != "last":
            check_step(checkpoints, checkpoint)
            steps = [checkpoint]
        step, params = checkpoints.restore_params(steps, like, average=average)
    finally:
        checkpoints.close()
    kind = "average, " if average else ""
    return Weights(
        model,
        params,
        "clevit_jax",
        f"{workdir.name} ({kind}step {step})",
        class_names=names,
        levels=levels_of(facts),
        report=LoadReport(matched=tuple(named_leaves(params))),
        bits=config.data.bits,
        truncated=config.data.truncated,
        preprocessing=Preprocessing(config.eval.resize, mean=mean, std=std),
    )
