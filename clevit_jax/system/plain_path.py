"""A plain path to a folder, for libraries that read patterns, URLs or UTF-8 into a path."""

import contextlib
import os
import pathlib
import re
import tempfile
import weakref
from typing import cast

from clevit_jax.errors import CheckpointError
from clevit_jax.system.places import in_bucket

_PLAIN = re.compile(r"/(?!/)[A-Za-z0-9_./+=,@-]*")  # nothing here means more than itself


class PlainPath:
    """A folder by a path that any library takes for what it is.

    A path of plain signs stays as it is. Any other (`runs/exp[1]`, `50%`, bytes that are not
    UTF-8) is reached through a symbolic link in a temporary folder of its own; a bucket has no
    links, so there it is refused.

    Args:
        folder: need not exist.
    """

    def __init__(self, folder: pathlib.Path):
        self.folder = folder.absolute()
        self._link: pathlib.Path | None = None

    def path(self) -> pathlib.Path:
        """The plain path; the link is made again where something cleaned it up.

        Raises:
            CheckpointError: no temporary folder with a plain path can be written.
        """
        if in_bucket(self.folder):
            return _in_bucket(self.folder)
        if _PLAIN.fullmatch(str(self.folder)):
            return self.folder
        if self._link is None or not self._link.is_symlink():
            self._link = _link_to(self.folder)
            # Whoever forgets to close, or ends with an error, leaves nothing behind either.
            weakref.finalize(self, _remove, self._link)
        return self._link

    def in_words(self, text: str) -> str:
        """A message of a library, with the folder's own path in it."""
        return text if self._link is None else text.replace(str(self._link), str(self.folder))

    def close(self) -> None:
        """Removes the link, where there is one; may be called twice."""
        if self._link is not None:
            _remove(self._link)
            self._link = None


def _remove(link: pathlib.Path) -> None:
    with contextlib.suppress(OSError):
        link.unlink()
        link.parent.rmdir()


def _in_bucket(folder: pathlib.Path) -> pathlib.Path:
    """The path as libraries make it, which write in ways that ours does not."""
    from etils import epath

    address = os.fspath(folder)
    if not _PLAIN.fullmatch(address.removeprefix("gs:/")):
        raise CheckpointError(
            f"Checkpoints cannot be kept in {folder}: its path has signs that mean something else "
            "to the libraries that write to buckets; name a --workdir of letters, digits and -_.=@."
        )
    return cast(pathlib.Path, epath.Path(address))


def _link_to(folder: pathlib.Path) -> pathlib.Path:
    for place in _temporary_folders():
        if _PLAIN.fullmatch(place):
            with contextlib.suppress(OSError):  # full, or not to be written
                link = pathlib.Path(tempfile.mkdtemp(prefix="clevit_jax-", dir=place), "folder")
                os.symlink(folder, link)
                return link
    raise CheckpointError(
        f"Checkpoints cannot be kept in {folder}: its path has signs that mean something else to "
        "the library that writes them, and no temporary folder can be written to lead there by a "
        "plain path; name a --workdir of letters and digits, or set TMPDIR to a folder with room."
    )


def _temporary_folders() -> list[str]:
    places = ["/tmp", "/var/tmp", "/dev/shm"]
    with contextlib.suppress(OSError):  # none that it knows of can be written
        places.insert(0, tempfile.gettempdir())
    return places
