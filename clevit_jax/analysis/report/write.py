"""Writing of a report: by `--mode report`, and after training."""

import pathlib

import jax
from absl import logging

from clevit_jax.analysis.ood import say
from clevit_jax.analysis.report.collect import collect_content
from clevit_jax.analysis.report.content import Content
from clevit_jax.analysis.report.page import render_page
from clevit_jax.analysis.report.recorded import collect_recorded
from clevit_jax.analysis.trained_model import TrainedModel
from clevit_jax.distributed import processes, sharding
from clevit_jax.errors import ConfigError, DataError, first_line
from clevit_jax.evaluate import evaluate_workdir
from clevit_jax.inference.classifier import Classifier
from clevit_jax.model.preprocessing import Preprocessing
from clevit_jax.runs.facts import read_evaluation
from clevit_jax.runs.setup import Run
from clevit_jax.runs.workdir import REPORT_FILE, RUN_FILE
from clevit_jax.steps.state import TrainState
from clevit_jax.system import faults
from clevit_jax.system.faults import mend, os_reason
from clevit_jax.system.files import replacing, why_not_there, why_not_writable


def write_report(trained: TrainedModel, output: pathlib.Path | None = None) -> pathlib.Path:
    """Writes a report, whole or not at all; an older one is replaced.

    A run that has no evaluation.json yet is scored first, as by `--mode eval`. Of a run whose
    images are not there the report has what needs none, and says what is missing.

    Args:
        trained: a run, or any model with a config that names a data set of its classes.
        output: the file; by default `report.html` in the workdir of a run, or where that cannot
            be written to, `NAME-report.html` in the folder one is in.

    Returns:
        Path of the report.

    Raises:
        ConfigError: the images or the file are not named, or it cannot be written.
        DataError, CheckpointError: the images or the checkpoint cannot be read.
    """
    if not trained.is_run and (trained.config is None or output is None):
        raise ConfigError(
            f"{trained.path} is not a run, so a report on it needs --config FILE "
            "--config.data.root=DIR for the images, and --output FILE.html."
        )
    path = output or _default_path(trained.path)
    if path.suffix.lower() not in (".html", ".htm"):
        raise ConfigError(f"--output {path} must end in .html.")
    if reason := why_not_there(path.absolute().parent):
        raise ConfigError(f"--output {path} cannot be written: {reason}.")
    text = render_page(_collect(trained))
    try:
        with replacing(path) as new:
            new.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {os_reason(error)}{mend(error)}.") from error
    return path


def _has_scores(workdir: pathlib.Path) -> bool:
    """Whether evaluation.json is there, and not damaged; what is damaged is made again."""
    try:
        return bool(read_evaluation(workdir))
    except ConfigError as error:
        print(error, flush=True)
        return False


def _default_path(workdir: pathlib.Path) -> pathlib.Path:
    """`report.html` in the workdir, or elsewhere where that cannot be written to, which it says."""
    reason = why_not_writable(workdir)
    if not reason:
        return workdir / REPORT_FILE
    path = pathlib.Path(f"{workdir.absolute().name}-{REPORT_FILE}")
    print(f"{workdir} cannot be written to: {reason}. The report goes to {path} here.", flush=True)
    return path


def _with_mend(error: Exception) -> str:
    sentence = first_line(error)
    mend = " Say where they are: --config.data.root=DIR."
    return sentence if "--config.data.root" in sentence else sentence + mend


def _collect(trained: TrainedModel) -> Content:
    """The content of a report; of a run whose images are gone, what it recorded of itself."""
    try:
        trained.dataset()
    except (ConfigError, DataError) as error:
        if not trained.is_run or not (trained.path / RUN_FILE).is_file():
            raise
        missing = (
            f"The images are not there, so there are no confusions, classes, mistakes, maps or "
            f"features here. {_with_mend(error)}"
        )
        say(missing)
        return collect_recorded(trained, missing)
    if trained.is_run and not _has_scores(trained.path):
        assert trained.config is not None
        evaluate_workdir(trained.config, trained.path)
    return collect_content(trained)


def write_after_training(run: Run, state: TrainState) -> None:
    """Writes the report of a finished run, and prints its path.

    Process 0 writes it on its own devices, and the others wait. The run is over and saved, so an
    error here is logged and ends nothing.

    Args:
        run: the run.
        state: its last state; deleted, to make room on the devices.
    """
    gather = jax.jit(lambda params: params, out_shardings=sharding.replicated(run.steps.mesh))
    step = int(state.step)
    params = jax.device_get(gather(state.eval_params))
    for leaf in jax.tree.leaves(state):
        leaf.delete()
    if processes.index() != 0:
        return
    try:
        drawn = run.settings.step.views
        kind = "average, " if run.settings.step.optim.ema else ""
        classifier = Classifier(
            run.steps.model,
            params,
            run.dataset.class_names,
            f"{run.workdir.name} ({kind}step {step})",
            preprocessing=Preprocessing(
                run.settings.data.eval_resize, mean=drawn.mean, std=drawn.std
            ),
            levels=run.dataset.levels,
            decoding=run.settings.data.decoding,
        )
        path = write_report(TrainedModel(run.workdir, classifier, run.config, True))
    except Exception as error:
        logging.error(
            "The report could not be written: %s Try again: --mode report --workdir %s.",
            faults.sentence(error) or repr(error),
            run.workdir,
        )
        return
    print(f"  {'report':<12} {path}", flush=True)
