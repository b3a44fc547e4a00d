"""What other libraries log, kept quiet."""

import contextlib
import sys
from collections.abc import Iterator
from logging import getLogger
from typing import Any

from absl import logging


@contextlib.contextmanager
def _verbosity(level: int) -> Iterator[None]:
    before = logging.get_verbosity()
    logging.set_verbosity(level)
    try:
        yield
    finally:
        logging.set_verbosity(before)


def quiet() -> None:
    """For commands: leaves out what orbax says beside the errors that are passed on."""
    logging.set_verbosity(logging.ERROR)  # it warns of every checkpoint without a score
    # The reads that it gave up at the first damaged file end in tracebacks of their own.
    getLogger("asyncio").setLevel("CRITICAL")

    def unraisable(what: Any) -> None:
        code = getattr(what.object, "cr_code", None)
        if code is None or "orbax" not in code.co_filename:
            sys.__unraisablehook__(what)

    sys.unraisablehook = unraisable
