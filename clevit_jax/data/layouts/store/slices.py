"""Encoded images that lie whole within a larger file: read by their place and length."""

import pathlib
from typing import NamedTuple


class SlicedFile(NamedTuple):
    """A file with images in it: where it is, and its name below the data set's folder."""

    path: pathlib.Path
    name: str


class Slice:
    """Some bytes of a file, at a place that is known. Light: a data set has one per image."""

    __slots__ = ("_file", "_length", "_name", "_start")

    def __init__(self, file: SlicedFile, start: int, length: int, name: str):
        """The bytes of `file` from `start`; `name` says which they are, as "row 3"."""
        self._file = file
        self._start = start
        self._length = length
        self._name = name

    def read(self) -> bytes:
        """The bytes; safe to call from several threads. Raises OSError: the file ends early."""
        with self._file.path.open("rb") as file:
            file.seek(self._start)
            data = file.read(self._length)
        if len(data) < self._length:
            raise OSError(f"the file ends within it; copy {self._file.name} again")
        return data

    @property
    def place(self) -> str:
        """File and place in it, the same on every machine."""
        return f"{self._file.name}/{self._name.removeprefix('row ')}"

    def __str__(self) -> str:
        return f"{self._file.path}, {self._name}"
