"""Files of a `remote.Source` onto this disk: several at a time, each whole or not there, resumed.

A file grows under another name and is renamed when it is whole, so whatever has its name needs not
be read again, whenever the process was killed.
"""

import contextlib
import errno
import hashlib
import os
import pathlib
import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence

from clevit_jax.system.remote import File, Source

_THREADS = 16  # files at a time
_PAUSES = (1.0, 4.0)  # seconds before a file is tried again
_STALL_SECONDS = 300.0  # without a byte of any file, after which all is given up
_LAST_SECONDS = 5.0  # that readers may take to stop


class ChangedError(Exception):
    """A file is not what its listing said."""


class DiskError(Exception):
    """This disk refuses a file; `__cause__` is the OSError."""


class _Stopped(Exception):  # noqa: N818
    pass


def download(
    source: Source,
    files: Sequence[File],
    folder: pathlib.Path,
    parts: pathlib.Path,
    progress: Callable[[int, int], None],
) -> None:
    """Brings files to a folder.

    Args:
        source: of the files.
        files: that are not there.
        folder: where they go, each by its name.
        parts: a folder for files that are not whole; those of an earlier try are gone on with.
        progress: called with bytes that came, and files that are whole by now.

    Raises:
        ChangedError: a file is gone, or is not what the listing said.
        DiskError: they cannot be written.
        OSError: the source refuses a file, or does not give it after three tries.
    """
    waiting: queue.SimpleQueue[File] = queue.SimpleQueue()
    for file in files:
        waiting.put(file)
    told: queue.SimpleQueue[tuple[int, int] | Exception] = queue.SimpleQueue()
    stop = threading.Event()

    def work() -> None:
        with contextlib.suppress(queue.Empty):
            while not stop.is_set():
                file = waiting.get_nowait()
                try:
                    _bring(source, file, folder, parts, stop, lambda count: told.put((count, 0)))
                    told.put((0, 1))
                except Exception as error:  # raised where it is waited for
                    told.put(error)
                    return

    # Daemons, so that one that hangs does not keep the process.
    threads = [threading.Thread(target=work, daemon=True) for _ in range(min(_THREADS, len(files)))]
    for thread in threads:
        thread.start()
    left = len(files)
    try:
        while left:
            try:
                news = told.get(timeout=_STALL_SECONDS)
            except queue.Empty:
                raise TimeoutError(
                    errno.ETIMEDOUT, f"nothing came for {_STALL_SECONDS:.0f} seconds"
                ) from None
            if isinstance(news, Exception):
                raise news
            progress(*news)
            left -= news[1]
    finally:
        stop.set()
        until = time.monotonic() + _LAST_SECONDS
        for thread in threads:
            thread.join(max(0.0, until - time.monotonic()))


def _bring(
    source: Source,
    file: File,
    folder: pathlib.Path,
    parts: pathlib.Path,
    stop: threading.Event,
    came: Callable[[int], None],
) -> None:
    """Brings one file, in three tries at most."""
    part = parts / hashlib.sha256(file.name.encode("utf-8", "surrogateescape")).hexdigest()[:32]
    for pause in (*_PAUSES, None):
        try:
            _append(source, file, part, stop, came)
            break
        except FileNotFoundError as error:
            raise ChangedError(f"{file.name} is gone") from error
        except PermissionError:
            raise
        except OSError as error:
            if error.errno == errno.ESTALE:
                raise ChangedError(f"{file.name} was changed") from error
            if pause is None:
                raise
            stop.wait(pause)
    if file.md5 and _md5(part) != file.md5:
        part.unlink()
        raise ChangedError(f"{file.name} has other contents than its listing says")
    with _on_disk():
        target = folder / file.name
        target.parent.mkdir(parents=True, exist_ok=True)
        os.replace(part, target)


def _append(
    source: Source,
    file: File,
    part: pathlib.Path,
    stop: threading.Event,
    came: Callable[[int], None],
) -> None:
    """Reads what a part lacks of its file. Raises OSError where the source ends too soon."""
    start = size_of(part, file)
    with _on_disk():
        part.touch()
    with open(part, "r+b", buffering=0) as growing:
        growing.seek(start)
        for piece in source.pieces(file, start):
            if stop.is_set():
                raise _Stopped
            with _on_disk():
                growing.write(piece)
            start += len(piece)
            came(len(piece))
        with _on_disk():
            growing.truncate()
    if 0 <= file.size < start:
        raise ChangedError(f"{file.name} has more bytes ({start:,}) than its listing says")
    if start < file.size:
        raise OSError(errno.EIO, f"{file.name} ends after {start:,} of {file.size:,} bytes")


def size_of(part: pathlib.Path, file: File) -> int:
    """Bytes of a file that are there already; 0 where nothing tells that they are the same."""
    try:
        size = part.stat().st_size
    except OSError:
        return 0
    return size if file.mark and size <= file.size else 0


def _md5(path: pathlib.Path) -> str:
    with _on_disk(), open(path, "rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


@contextlib.contextmanager
def _on_disk() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DiskError(str(error)) from error
