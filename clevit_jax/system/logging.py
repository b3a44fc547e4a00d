"""Warnings and log messages of other libraries, kept back."""

import contextlib
import logging
import os
import sys
import warnings
from collections.abc import Iterator
from typing import Any

from absl import logging as absl_logging


@contextlib.contextmanager
def quiet(level: int = logging.ERROR, *, stderr: bool = False) -> Iterator[None]:
    """Keeps back the warnings and log messages of libraries inside the block.

    Args:
        level: of Python's logging; messages above it still appear.
        stderr: keeps back all that is written to file descriptor 2, too, by which compiled code
            logs.
    """
    disabled = logging.root.manager.disable
    logging.disable(level)
    try:
        with warnings.catch_warnings(), _no_stderr() if stderr else contextlib.nullcontext():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)


@contextlib.contextmanager
def _no_stderr() -> Iterator[None]:
    sys.stderr.flush()
    kept = os.dup(2)
    with open(os.devnull, "w") as silence:
        os.dup2(silence.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


@contextlib.contextmanager
def errors_alone() -> Iterator[None]:
    """Keeps back what is logged by absl and is no error, such as orbax's remarks on each save."""
    before = absl_logging.get_verbosity()
    absl_logging.set_verbosity(absl_logging.ERROR)
    _hush_orbax()
    try:
        yield
    finally:
        absl_logging.set_verbosity(before)


def _hush_orbax() -> None:
    """Keeps back orbax's own words on a save that failed: pages of tracebacks of its threads.

    What it raises is told in a sentence by `runs.checkpoint`.
    """
    absl_logging.get_absl_logger().addFilter(_not_of_orbax)


def _not_of_orbax(record: logging.LogRecord) -> bool:
    return f"{os.sep}orbax{os.sep}" not in record.pathname


def quiet_command() -> None:
    """Keeps back, for the rest of a command, what orbax says beside the errors that it raises."""
    absl_logging.set_verbosity(absl_logging.ERROR)  # warns of every checkpoint without a score
    _hush_orbax()
    # The reads that it gave up at the first damaged file end in tracebacks of their own.
    logging.getLogger("asyncio").setLevel("CRITICAL")

    def unraisable(what: Any) -> None:
        code = getattr(what.object, "cr_code", None)
        of_orbax = code is not None and "orbax" in code.co_filename
        # Of the writes that it gave up on a full disk: tensorstore's come back to nobody.
        if not of_orbax and str(getattr(what, "exc_value", "")) != "Event loop is closed":
            sys.__unraisablehook__(what)

    sys.unraisablehook = unraisable
    warnings.filterwarnings("ignore", "coroutine .* was never awaited", RuntimeWarning)
