"""A file that records are appended to, whole and in order, even if its disk is full for a while."""

import collections
import contextlib
import pathlib
from collections.abc import Callable, Iterable

from absl import logging

from clevit_jax.system.places import in_bucket
from clevit_jax.system.uploaded import UploadedFile

WAITING = 10_000  # records that wait for room; the oldest are lost beyond


def appended(
    path: pathlib.Path, what: str, *, ours: Callable[[], bool] = lambda: True
) -> "AppendedFile | UploadedFile":
    """A file to append records to: on a disk, or in a bucket, where it is up to 15 seconds late.

    Args:
        path, what: see `AppendedFile`.
        ours: whether it is still this process's, which is asked before a file in a bucket, whole
            as it goes up, is written over that of another.
    """
    return UploadedFile(path, what, ours=ours) if in_bucket(path) else AppendedFile(path, what)


class AppendedFile:
    """Appends records to a file; those that cannot be written wait in memory.

    A write that fails costs nothing but the waiting: the file is cut back to its last whole record,
    and the next write tries all again. The file is opened for each write, so that one on a network
    disk that was away (a stale handle) is found again.

    Args:
        path: need not exist; its folder is made.
        what: the file in words, for what is said of it.
        waiting: records that wait at most.
    """

    def __init__(self, path: pathlib.Path, what: str, *, waiting: int = WAITING):
        self.path = path
        self._what = what
        self._waiting = collections.deque[bytes](maxlen=waiting)
        self._lost = 0
        self._failing = False
        self._size: int | None = None  # bytes of whole records; None before the first write

    def write(self, records: Iterable[bytes]) -> None:
        """Appends records, or keeps them for the next time; says so once. Never raises OSError."""
        for record in records:
            self._lost += len(self._waiting) == self._waiting.maxlen
            self._waiting.append(record)
        if not self._waiting:
            return
        try:
            self._append(b"".join(self._waiting))
        except OSError as error:
            with contextlib.suppress(OSError):  # readers see whole records alone
                self._cut()
            if not self._failing:
                logging.error(
                    "The %s cannot be written to %s: %s. Training goes on, and they wait in "
                    "memory until they can.", self._what, self.path, error.strerror or error,
                )  # fmt: skip
            self._failing = True
            return
        self._waiting.clear()
        if self._failing:
            lost = f"the oldest {self._lost} records are lost" if self._lost else "none is lost"
            logging.error("The %s are written to %s again; %s.", self._what, self.path, lost)
        self._failing, self._lost = False, 0

    def flush(self) -> None:
        """Does nothing: what could be written is there."""

    def close(self) -> None:
        """Tries a last time, and says what is lost; may be called twice."""
        self.write(())
        if self._waiting:
            count = self._lost + len(self._waiting)
            logging.error("%d records of the %s are lost: %s.", count, self._what, self.path)
            self._waiting.clear()

    def _append(self, data: bytes) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("ab", buffering=0) as file:
            there = file.seek(0, 2)
            if self._size is None:
                self._size = there
            if there > self._size:  # what a write left that failed
                file.truncate(self._size)
            size = min(there, self._size)  # the file may have been made anew
            left = memoryview(data)
            while left:
                left = left[file.write(left) :]
        self._size = size + len(data)  # closed without an error: some disks tell of it only then

    def _cut(self) -> None:
        if self._size is not None and self.path.stat().st_size > self._size:
            with self.path.open("r+b") as file:
                file.truncate(self._size)
