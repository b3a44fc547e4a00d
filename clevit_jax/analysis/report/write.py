"""Writes the report of a run."""

import os
import pathlib

from clevit_jax import rundir, scoring
from clevit_jax.analysis.report.collect import collect
from clevit_jax.analysis.report.page import render
from clevit_jax.analysis.subject import Subject
from clevit_jax.experiment import ConfigError

FILE = "report.html"  # in the workdir


def write_report(subject: Subject, output: pathlib.Path | None = None) -> pathlib.Path:
    """Writes the report of a run, whole or not at all; an older one is replaced.

    A run whose checkpoint is not scored yet is scored first, as by `--mode eval`.

    Args:
        subject: a run.
        output: the file; `report.html` in the workdir by default.

    Returns:
        Where it is.

    Raises:
        ConfigError: the subject is no run, or the file cannot be written.
        DataError, CheckpointError: the images or the checkpoint cannot be read.
    """
    if not subject.is_run or subject.config is None:
        raise ConfigError(
            f"{subject.path} is no run, and a report is about one; --mode features measures any model."
        )
    path = output or subject.path / FILE
    if path.suffix.lower() not in (".html", ".htm") or not path.absolute().parent.is_dir():
        raise ConfigError(f"--output {path} must end in .html, in a folder that is there.")
    if not (subject.path / rundir.RESULT).is_file():
        scoring.evaluate_workdir(subject.config, subject.path)
    text = render(collect(subject))
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, path)
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror or error}.") from error
    finally:
        temporary.unlink(missing_ok=True)
    return path
