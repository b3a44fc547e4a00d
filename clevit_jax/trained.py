"""A trained Swin, wherever it lies: in a run, a converted checkpoint or another library's file."""

import pathlib
from typing import Literal

from clevit_jax import architecture, converted, experiment, rundir, weights
from clevit_jax.checkpoint import CheckpointError, Checkpoints
from clevit_jax.swin import abstract_swin
from clevit_jax.weights import LoadReport, Weights, named_leaves
from clevit_jax.weights_error import WeightsError

Which = Literal["last", "best"]
HUB_FILES = ("model.safetensors", "pytorch_model.bin")


def read(path: str | pathlib.Path, *, checkpoint: Which = "last") -> Weights:
    """Reads a Swin.

    Args:
        path: workdir of a run, folder of a converted checkpoint, or a `.pth` or `.safetensors`
            file in any of `dialects.DIALECTS`, or a folder with one as the Hugging Face hub has it.
        checkpoint: of a run: its newest, or the one with the best test top-1. A run that keeps an
            average gives the average, which is what its evaluations score.

    Raises:
        WeightsError, CheckpointError, ConfigError: in one sentence that names the file.
    """
    path = pathlib.Path(path)
    if is_run(path):
        average = rundir.load_config(path).optim.ema > 0
        return read_run(path, checkpoint=checkpoint, average=average)
    if checkpoint != "last":
        raise WeightsError(f"{path} is no run, so it has no {checkpoint} checkpoint.")
    if converted.is_converted(path):
        return converted.read(path)
    if path.is_dir():
        inside = [path / name for name in HUB_FILES if (path / name).is_file()]
        if not inside:
            raise WeightsError(
                f"{path} is neither a run (config.json and checkpoints/) nor a converted "
                f"checkpoint ({converted.FACTS}), and holds no {' or '.join(HUB_FILES)}; name the "
                "file of weights."
            )
        path = inside[0]
    return weights.read_file(path)


def is_run(path: pathlib.Path) -> bool:
    """Whether a path looks like the workdir of a run."""
    return (path / rundir.CONFIG).is_file() and (path / rundir.CHECKPOINTS).is_dir()


def resize(path: str | pathlib.Path) -> int | None:
    """Pixels that evaluations of a run bring the shorter side to; None of what is no run."""
    path = pathlib.Path(path)
    return rundir.load_config(path).eval.resize if is_run(path) else None


def map_name(path: str | pathlib.Path) -> str | None:
    """The map that the deletion test chose for a run (`analysis.deletion`), None before it."""
    path = pathlib.Path(path) / rundir.MAPS
    return rundir.read_facts(path).get("chosen") if path.is_file() else None


def read_run(workdir: pathlib.Path, *, checkpoint: Which, average: bool) -> Weights:
    """The parameters of a run; nothing in its folder is changed.

    Args:
        workdir: of the run.
        checkpoint: its newest that can be read, or its best.
        average: whether those of the moving average.

    Raises:
        ConfigError: the folder is no run, or the run keeps no average.
        CheckpointError: there is no such checkpoint, or it cannot be read.
    """
    config = rundir.load_config(workdir)
    if average and not config.optim.ema:
        raise experiment.ConfigError(f"{workdir} keeps no average: its optim.ema is 0.")
    if not (workdir / rundir.RUN).is_file():
        raise CheckpointError(f"{workdir} has no checkpoint yet; train it first.")
    names = tuple(rundir.read_json(workdir / rundir.RUN)["class_names"])
    trained = experiment.model_config(config, len(names), platform="cpu")
    model = architecture.from_json(architecture.to_json(trained))  # float32, without drop path
    like = abstract_swin(model)[1]
    checkpoints = Checkpoints(
        workdir / rundir.CHECKPOINTS, keep=config.checkpoint.keep, read_only=True
    )
    try:
        steps = checkpoints.steps()[::-1]
        if checkpoint == "best":
            best = checkpoints.best()
            if best is None:
                raise CheckpointError(f"{workdir} has no evaluated checkpoint yet; take the last.")
            steps = [best[0]]
        step, params = checkpoints.restore_params(steps, like, average=average)
    finally:
        checkpoints.close()
    kind = "average, " if average else ""
    return Weights(
        model, params, "clevit_jax", f"{workdir.name} ({kind}step {step})", class_names=names,
        report=LoadReport(matched=tuple(named_leaves(params))),
    )  # fmt: skip
