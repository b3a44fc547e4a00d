"""The bar that fits: a widget in a notebook, a bar in a terminal, else a line now and then."""

import sys
import warnings
from typing import Any

with warnings.catch_warnings():
    # Without ipywidgets a notebook gets the line of text, which says the same.
    warnings.filterwarnings("ignore", message="IProgress not found")
    from tqdm.auto import tqdm

LINES_SECONDS = 20.0  # between two lines of a bar that nobody sees move


def progress_bar(*args: Any, **options: Any) -> tqdm:
    """A bar of tqdm, with its arguments, on stderr.

    Where stderr is neither a terminal nor a notebook (a file, a pipe, the log of a batch job), it
    writes a whole line each `LINES_SECONDS` and a last one, since a bar that is written over
    itself fills such a place with megabytes.
    """
    if not watched():
        options = {
            "file": _Lines(sys.stderr),
            "mininterval": LINES_SECONDS,
            "ncols": 100,
            **options,
        }
    return tqdm(*args, **options)


def watched() -> bool:
    """Whether somebody sees a bar move."""
    return in_notebook() or (sys.stderr is not None and sys.stderr.isatty())


def in_notebook() -> bool:
    """Whether this process is the kernel of a notebook."""
    ipython = sys.modules.get("IPython")
    return ipython is not None and hasattr(ipython.get_ipython(), "kernel")


class _Lines:
    """A stream that makes lines of what tqdm writes over itself, but for the first: 0 %."""

    def __init__(self, stream: Any):
        self._stream = stream
        self._last: str | None = None

    def write(self, text: str) -> None:
        line = text.strip()
        if not line or line == self._last:
            return
        if self._last is not None and self._stream is not None:
            self._stream.write(f"{line}\n")
        self._last = line

    def flush(self) -> None:
        if self._stream is not None:
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
