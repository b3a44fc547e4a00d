"""Files in a bucket that grow: kept here, and uploaded whole every 15 seconds and at the end.

A bucket cannot append, and takes about one write a second of one name.
"""

import pathlib
import tempfile
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

from absl import logging

SECONDS = 15.0  # between two uploads: so late may be what others see
_PATIENCE = 60.0  # seconds that `flush` and `close` wait for an upload


class UploadedFile:
    """Appends records to a file in a bucket, with the methods of `system.append.AppendedFile`.

    An upload that fails costs nothing: the next one brings all again.

    Args:
        path: in a bucket. What is there already is kept.
        what: the file in words, for what is said of it; of one without nothing is.
        ours: asked before each upload; once it says no, nothing goes up any more, for then the file
            is another writer's.
        seconds: between two uploads.
    """

    def __init__(
        self,
        path: pathlib.Path,
        what: str = "",
        *,
        ours: Callable[[], bool] = lambda: True,
        seconds: float = SECONDS,
    ):
        self.path = path
        self._ours = ours
        self._what = what
        self._seconds = seconds
        self._data: bytes | None = None  # of the whole file, once what is there was read
        self._changed = threading.Condition()  # of what follows
        self._new = bytearray()  # not there yet
        self._urgent = self._closing = self._failing = False
        self._thread: threading.Thread | None = None

    def write(self, records: Iterable[bytes]) -> None:
        """Takes records, which go up with the next upload. Never raises OSError."""
        with self._changed:
            self._new += b"".join(records)
            self._changed.notify_all()
            if self._thread is None and self._new and not self._closing:
                # A daemon, so that a bucket that does not answer does not keep the process.
                self._thread = threading.Thread(
                    target=self._run, name="clevit_jax_upload", daemon=True
                )
                self._thread.start()

    def flush(self) -> None:
        """Returns when all is in the bucket, or an upload has failed, or has taken too long."""
        with self._changed:
            if self._thread is not None:
                self._urgent = True
                self._changed.notify_all()
                self._changed.wait_for(lambda: not self._new or self._failing, _PATIENCE)

    def close(self) -> None:
        """Uploads what is left, or says that it is lost; may be called twice."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        if self._thread is None:
            return
        self._thread.join(_PATIENCE)
        if self._thread.is_alive():  # it must not write over what comes after
            self._ours = lambda: False
        self._thread = None
        if self._new and self._what:
            logging.error("The newest %s are lost: %s cannot be written.", self._what, self.path)

    def _run(self) -> None:
        while not self._closing or self._new:
            last = self._closing
            with self._changed:
                self._changed.wait_for(lambda: self._new or self._closing)
                new, self._urgent = bytes(self._new), False
            sent = bool(new) and self._upload(new)
            with self._changed:
                if sent:
                    del self._new[: len(new)]
                self._changed.notify_all()
                if last:
                    return
                self._changed.wait_for(lambda: self._urgent or self._closing, self._seconds)

    def _upload(self, new: bytes) -> bool:
        try:
            if not self._ours():
                self._what = ""  # what is lost here the other writes
                return True
            if self._data is None:
                self._data = self.path.read_bytes() if self.path.exists() else b""
            self.path.write_bytes(self._data + new)
        except OSError as error:
            if not self._failing and self._what:
                logging.error(
                    "The %s cannot be written to %s: %s. Training goes on, and they wait in "
                    "memory until they can.", self._what, self.path, error.strerror or error,
                )  # fmt: skip
            self._failing = True
            return False
        self._data = self._data + new
        if self._failing and self._what:
            logging.error("The %s are written to %s again.", self._what, self.path)
        self._failing = False
        return True


class GrowingCopy:
    """A file on this disk that is written in any way, and becomes one in a bucket.

    Attributes:
        local: the file here.

    Args:
        path: in the bucket.
        fetch: whether to begin with what is there.

    Raises:
        OSError: it cannot be fetched.
    """

    def __init__(self, path: Any, *, fetch: bool):
        self._path = path
        self._folder = tempfile.TemporaryDirectory(prefix="clevit_jax-")
        self.local = pathlib.Path(self._folder.name, path.name)
        self._uploaded = time.monotonic()
        if fetch and path.exists():
            path.download(self.local)

    def upload_now_and_then(self) -> None:
        """Uploads it, if the last time is `SECONDS` ago. Raises OSError."""
        if time.monotonic() - self._uploaded >= SECONDS:
            self._path.upload(self.local)
            self._uploaded = time.monotonic()

    def close(self) -> None:
        """Uploads it, and removes it here. Raises OSError."""
        try:
            self._path.upload(self.local)
        finally:
            self._folder.cleanup()
