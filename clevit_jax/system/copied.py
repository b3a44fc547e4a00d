"""A file in a copy of a bucket, which is called by its address and read from this disk."""

import dataclasses
import pathlib

from clevit_jax.system import addresses


@dataclasses.dataclass(frozen=True)
class CopiedPath:
    """A path of a copy, with as much of `pathlib.Path` as is asked of images.

    Attributes:
        path: on this disk.
        address: that `str()` shows.
    """

    path: pathlib.Path
    address: str

    def __str__(self) -> str:
        return self.address

    def read(self) -> bytes:
        """The contents; an OSError has the address for a path."""
        try:
            return self.path.read_bytes()
        except OSError as error:
            error.filename = self.address
            raise

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def parent(self) -> "CopiedPath":
        return CopiedPath(self.path.parent, self.address.rpartition("/")[0])

    def relative_to(self, folder: "CopiedPath") -> pathlib.Path:
        return self.path.relative_to(folder.path)

    def absolute(self) -> "CopiedPath":
        return self

    def as_posix(self) -> str:
        return self.address


ImagePath = pathlib.Path | CopiedPath


def below(folder: pathlib.Path, address: str, path: pathlib.Path) -> CopiedPath:
    """The path of a file in the copy of a folder at an address."""
    return CopiedPath(path, addresses.below(address, path.relative_to(folder)))
