"""What a command prints: it never ends the command, and a log keeps it.

A terminal that was closed, a pipe that nobody reads any more, a full disk behind `>`, and letters
that a terminal cannot show are no reason to end a night's training.
"""

import contextlib
import errno
import functools
import os
import pathlib
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

from clevit_jax.system.bounded import Bounded
from clevit_jax.system.places import in_bucket
from clevit_jax.system.uploaded import UploadedFile

LOG_FILE = "log.txt"
_LAST_WORDS = 2.0  # seconds that last words may take: a pipe may be full, or a disk gone
_KEPT = 1 << 16  # characters of a log that wait for their file, or for room on the disk
_DISK_SECONDS = 10.0  # that printing waits for the disk of a log, once
_CLOSING_SECONDS = 70.0  # that the end waits for it: in a bucket it is uploaded then
# The stream is gone for good. What else fails, such as a full disk, may pass.
_GONE = (errno.EPIPE, errno.EIO, errno.EBADF, errno.ENXIO, errno.ENOTCONN, errno.ECONNRESET)

_log: "_Log | None" = None  # takes what is printed, from the first line on


def log_file(process: int) -> str:
    """Name of the log of one of several processes: `log.txt` of process 0, `log-3.txt`."""
    return f"log-{process}.txt" if process else LOG_FILE


class _Log:
    """Appends lines to a file, once it is known. What cannot be written waits, up to `_KEPT`."""

    def __init__(self) -> None:
        self._path: pathlib.Path | None = None
        self._ours: Callable[[], bool] = lambda: True
        self._file: Any = None
        self._waiting = ""
        self._lines: dict[str, str] = {}  # not ended yet, by stream
        self._disk = Bounded(_DISK_SECONDS)
        self._lock = threading.Lock()

    def add(self, stream: str, text: str) -> None:
        """Takes what was printed. Of a bar, which is written over itself, its end is kept."""
        with self._lock:
            *lines, begun = (self._lines.get(stream, "") + text).split("\n")
            self._lines[stream] = begun.rpartition("\r")[2] if len(begun) > _KEPT else begun
            shown = (line.rstrip("\r").rpartition("\r")[2].rstrip() for line in lines)
            self._waiting = (self._waiting + "".join(f"{line}\n" for line in shown))[-_KEPT:]
            if self._path is not None and lines:
                self._write()

    def open(self, path: pathlib.Path, ours: Callable[[], bool]) -> None:
        """Appends to this file from now on, beginning with what waits."""
        self.close()
        with self._lock:
            self._path, self._ours = path, ours
            self._write()

    def close(self) -> None:
        """Ends the file; what comes later waits for another."""
        with self._lock:
            if self._path is None:
                return
            self._write()
            if self._file is not None and not self._disk.hangs():
                with contextlib.suppress(OSError, RuntimeError):
                    self._disk.call(self._file.close, seconds=_CLOSING_SECONDS)
            self._path = self._file = None
            self._disk.close()

    def _open(self, path: pathlib.Path) -> Any:
        """The file, to append to; each write is in it when it returns."""
        return _InBucket(path, self._ours) if in_bucket(path) else path.open("ab", buffering=0)

    def _write(self) -> None:
        data = self._waiting.encode("utf-8", "backslashreplace")
        # A disk that does not answer keeps nobody from printing; Python that ends starts no thread.
        with contextlib.suppress(OSError, RuntimeError):
            written = self._disk.call(functools.partial(self._append, data))
            self._waiting = data[written:].decode("utf-8", "replace")

    def _append(self, data: bytes) -> int:
        if self._file is None and self._path is not None:
            self._file = self._open(self._path)
        return self._file.write(data) if self._file is not None else 0


class _InBucket:
    """A log in a bucket, as a file; what is printed there shows 15 seconds later at most."""

    def __init__(self, path: pathlib.Path, ours: Callable[[], bool]):
        self._file = UploadedFile(path, ours=ours)

    def write(self, data: bytes) -> int:
        self._file.write([data])
        return len(data)

    def close(self) -> None:
        self._file.close()


class _Stream:
    """A text stream that loses what it cannot write, and hands what it is given to the log."""

    def __init__(self, stream: Any, name: str):
        self._stream = stream  # None where the process has none
        self._name = name
        with contextlib.suppress(AttributeError, OSError, ValueError):
            stream.reconfigure(errors="backslashreplace")

    def write(self, text: str) -> int:
        if _log is not None:
            _log.add(self._name, text)
        try:
            if self._stream is not None:
                self._stream.write(text)
        except UnicodeEncodeError:  # of a stream that cannot be told what to do then
            encoding = self._stream.encoding or "ascii"
            self._stream.write(text.encode(encoding, "backslashreplace").decode(encoding))
        except (OSError, ValueError) as error:
            self._lose(error)
        return len(text)

    def writelines(self, lines: Any) -> None:
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        try:
            if self._stream is not None:
                self._stream.flush()
        except (OSError, ValueError) as error:
            self._lose(error)

    def _lose(self, error: Exception) -> None:
        """Sends what follows nowhere, if the stream is gone for good."""
        if isinstance(error, OSError) and error.errno not in _GONE:
            return
        # What its buffer holds would fail again when the process ends.
        with contextlib.suppress(OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)

    def isatty(self) -> bool:
        return self._stream is not None and self._stream.isatty()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextlib.contextmanager
def unbreakable() -> Iterator[None]:
    """While entered, whatever becomes of stdout and stderr, nothing that is printed raises.

    Letters that a stream's encoding lacks are printed as `\\N{...}` escapes.
    """
    global _log
    before, log_before = (sys.stdout, sys.stderr), _log
    for name in ("stdout", "stderr"):
        if not isinstance(getattr(sys, name), _Stream):
            setattr(sys, name, _Stream(getattr(sys, name), name))
    _log = _log or _Log()
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before
        if _log is not log_before and _log is not None:
            _log.close()
        _log = log_before


@contextlib.contextmanager
def logged(path: pathlib.Path, *, ours: Callable[[], bool] = lambda: True) -> Iterator[None]:
    """While entered, what is printed is appended to a file, too, from the command's first line on.

    Inside of `unbreakable`. Where stdout is this very file, it is there already. After an error the
    log stays open until `unbreakable` is left, for what is said of the error.

    Args:
        path: the file.
        ours: whether it is still this process's; see `system.append.appended`.
    """
    log = _log
    if log is None or _is_stdout(path):
        yield
        return
    log.open(path, ours)
    yield
    log.close()


@contextlib.contextmanager
def unseen() -> Iterator[None]:
    """While entered, what is printed to stdout goes to the log alone."""
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(_Stream(nowhere, "stdout")):
        yield


def last_words(text: str = "") -> None:
    """Prints to stderr and ends the log, from any thread, in two seconds at most.

    For what comes before `os._exit`, which flushes nothing. Another thread may hang in a write, and
    so may this one; what hangs is left behind.
    """

    def say() -> None:
        with contextlib.suppress(OSError, ValueError):
            if text:
                print(text, file=sys.stderr, flush=True)
            if _log is not None:
                _log.close()

    speaker = threading.Thread(target=say, daemon=True)
    speaker.start()
    speaker.join(_LAST_WORDS)


def _is_stdout(path: pathlib.Path) -> bool:
    with contextlib.suppress(OSError, ValueError, AttributeError):
        return os.path.samestat(os.fstat(sys.stdout.fileno()), path.stat())
    return False


def open_standard_streams() -> None:
    """Gives the process a stdin, stdout and stderr that lead nowhere, where it has none.

    The next file that is opened would take their place, and what a library prints would be
    written into it.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest that is free
