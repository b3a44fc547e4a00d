"""Encoded images in Parquet files: read in blocks of rows, of which few stay in memory."""

import collections
import pathlib
import threading
from collections.abc import Iterator
from typing import Any, NamedTuple

from clevit_jax.errors import first_line

_BLOCK = 64  # rows that are read at a time
_WHOLE = 32 << 20  # a row group of at most so many bytes is read from end to end
_KEPT = 128 << 20  # bytes of the blocks that stay in memory


class _Cursor(NamedTuple):
    """A row group that is being read, in order."""

    group: tuple[int, int]  # file, row group
    blocks: Iterator[Any]
    size: int  # bytes of all its columns


class ParquetImages:
    """The image columns of Parquet files; safe to use from several threads.

    Parquet keeps rows in groups and compresses many of them together, so that one cannot be read
    alone. Neighbours of what was asked for are kept for a while: in order, each group is read once.
    In a random order a group is read again for almost every image, which takes long if it is large.
    """

    def __init__(self, root: pathlib.Path) -> None:
        """Begins without files. `root` is the folder of the data set."""
        self._root = root
        self._files: list[tuple[pathlib.Path, str, bool]] = []
        self._kept: collections.OrderedDict[tuple[int, int, int], Any] = collections.OrderedDict()
        self._bytes = 0
        self._cursor: _Cursor | None = None
        self._next = 0  # block of the cursor
        self._lock = threading.Lock()

    def add(self, path: pathlib.Path, column: str, *, nested: bool) -> int:
        """Adds a file and returns its number, by which `ParquetImage` knows it.

        Args:
            path: of the file.
            column: of the images, binary, or with a binary field `bytes` if it is `nested`.
        """
        self._files.append((path, column, nested))
        return len(self._files) - 1

    def path(self, file: int) -> pathlib.Path:
        """The path of a file."""
        return self._files[file][0]

    def name(self, file: int) -> str:
        """The path of a file below the data set's folder, the same on every machine."""
        return self.path(file).relative_to(self._root).as_posix()

    def read(self, file: int, group: int, row: int) -> bytes:
        """The image in a row of a row group. Raises OSError: it is missing, or the file damaged."""
        key = (file, group, row // _BLOCK)
        with self._lock:
            if key not in self._kept:
                try:
                    self._load(key)
                except Exception as error:  # whatever pyarrow raises on damaged files
                    self._cursor = None
                    reason = first_line(error).removesuffix(".")
                    raise OSError(f"the file is damaged ({reason})") from error
            self._kept.move_to_end(key)
            block = self._kept[key]
        data = block[row % _BLOCK].as_py()
        if data is None:
            raise OSError("there is no image in the row")
        return bytes(data)

    def _load(self, key: tuple[int, int, int]) -> None:
        """Reads on to a block, and keeps it and those before it as far as there is room."""
        *group, wanted = key
        if self._cursor is None or self._cursor.group != tuple(group) or self._next > wanted:
            self._cursor, self._next = self._open(*group), 0
        while True:
            block = next(self._cursor.blocks, None)
            if block is None:
                break
            self._keep((*self._cursor.group, self._next), block)
            self._next += 1
            if self._next > wanted and self._cursor.size > _WHOLE:
                break
        if key not in self._kept:
            raise EOFError("it ends early")

    def _open(self, file: int, group: int) -> _Cursor:
        import pyarrow.parquet

        path, column, nested = self._files[file]
        # Neither mapped, which would end the process where a file is cut off meanwhile, nor
        # buffered in advance, which would hold a whole group.
        source = pyarrow.parquet.ParquetFile(
            path, pre_buffer=False, buffer_size=1 << 20, page_checksum_verification=True
        )
        wanted = f"{column}.bytes" if nested else column
        batches = source.iter_batches(
            _BLOCK, row_groups=[group], columns=[wanted], use_threads=False
        )
        blocks = (
            batch.column(0).field("bytes") if nested else batch.column(0) for batch in batches
        )
        return _Cursor((file, group), blocks, source.metadata.row_group(group).total_byte_size)

    def _keep(self, key: tuple[int, int, int], block: Any) -> None:
        if key in self._kept:
            return
        self._kept[key] = block
        self._bytes += block.nbytes
        while self._bytes > _KEPT and len(self._kept) > 1:
            self._bytes -= self._kept.popitem(last=False)[1].nbytes


class ParquetImage:
    """An encoded image in a Parquet file. Light: a data set has one per image."""

    __slots__ = ("_file", "_group", "_images", "_row", "_start")

    def __init__(self, images: ParquetImages, file: int, group: int, start: int, row: int):
        self._images = images
        self._file = file
        self._group = group
        self._start = start  # row of the file that the group starts with
        self._row = row

    def read(self) -> bytes:
        """The encoded image. Raises OSError where it is missing or the file is damaged."""
        return self._images.read(self._file, self._group, self._row)

    @property
    def place(self) -> str:
        """File and row, the same on every machine."""
        return f"{self._images.name(self._file)}/{self._start + self._row}"

    def __str__(self) -> str:
        return f"{self._images.path(self._file)}, row {self._start + self._row}"
