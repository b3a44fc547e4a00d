"""Locks of files (`flock`), which go with the process that has them, however it ends."""

import contextlib
import os
import pathlib
import time
from collections.abc import Iterator

try:
    import fcntl
except ModuleNotFoundError:  # Windows
    fcntl = None  # type: ignore[assignment]

_WAIT_SECONDS = 0.2  # between two looks at a lock


def try_lock(path: pathlib.Path, *, shared: bool) -> int | None:
    """The descriptor of a file, locked; None where another has it, or the disk has no locks."""
    if fcntl is None:
        return None
    descriptor = -1
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except OSError:
        if descriptor >= 0:
            os.close(descriptor)
        return None
    return descriptor


@contextlib.contextmanager
def alone(path: pathlib.Path, doing: str) -> Iterator[bool]:
    """Waits until no other process has the lock of a file; yields whether the disk has locks.

    Args:
        path: of the file, which is made.
        doing: what the other one does, for the sentence that says that this one waits.
    """
    descriptor = -1 if fcntl is None else os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        locked, said = fcntl is not None, False
        while locked:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if not said:
                    print(f"Waiting for another process, which {doing}.", flush=True)
                said = True
                time.sleep(_WAIT_SECONDS)
            except OSError:
                locked = False
        yield locked
    finally:
        if descriptor >= 0:
            os.close(descriptor)
