"""Data sets that Hugging Face's `save_to_disk` wrote: Arrow files, in a folder for each split."""

import json
import os
import pathlib
import posixpath
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from clevit_jax.data.layouts.file_places import FilePlaces
from clevit_jax.data.layouts.listing import Contents, Notes, Request, first_three
from clevit_jax.data.layouts.store import columnar, parquet_schema
from clevit_jax.data.layouts.store.parquet_schema import Schema
from clevit_jax.data.layouts.store.slices import Slice, SlicedFile
from clevit_jax.data.split_names import splits_among
from clevit_jax.errors import first_line

LOOKS_FOR = "dataset_dict.json or state.json with *.arrow, as save_to_disk of datasets writes"
_ENDING = ".arrow"
_FILE_MAGIC = b"ARROW1\0\0"  # of Arrow's form for files; without it, it is a stream


class _UnusableError(ValueError):
    """A file is whole, but not of a form that is read."""


class _Shard(NamedTuple):
    """An Arrow file.

    Attributes:
        name: below the data set's folder.
        split: that it belongs to, or "".
        info: JSON that describes its columns, which may not be there.
    """

    name: str
    split: str
    info: pathlib.Path


def fits(root: pathlib.Path, _: Request) -> str | None:
    """What the layout is recognised by, or None. Only names are looked at."""
    shards = _shards(root, Notes([], []))
    if not shards:
        return None
    more = f" and {len(shards) - 1} more" if len(shards) > 1 else ""
    return f"{shards[0].name}{more}"


def _shards(root: pathlib.Path, notes: Notes) -> list[_Shard]:
    """The Arrow files in `root`, else those in its folders, a split each."""
    if here := _arrow_files(root, notes):
        # Copies of the hub's own cache hold several splits: leaves-train.arrow, leaves-test.arrow.
        splits = splits_among(posixpath.splitext(name)[0] for name in here)
        info = root / "dataset_info.json"
        return [_Shard(name, splits.get(posixpath.splitext(name)[0], ""), info) for name in here]
    with os.scandir(root) as entries:
        names = sorted(entry.name for entry in entries if entry.is_dir())
    folders = [name for name in names if (root / name / "state.json").is_file()]
    told = splits_among(folders)
    if len(folders) == 1:
        told.setdefault(folders[0], "")
    if loose := [name for name in folders if name not in told]:
        notes.warnings.append(
            f"{root}: {first_three(loose)} not read, for the name tells no split; "
            f"name one of them with data.root to read it alone."
        )
    return [
        _Shard(f"{folder}/{name}", split, root / folder / "dataset_info.json")
        for folder, split in told.items()
        for name in _arrow_files(root / folder, notes)
    ]


def _arrow_files(folder: pathlib.Path, notes: Notes) -> list[str]:
    """The Arrow files in a folder: those that state.json lists, else all, less what was cached."""
    with os.scandir(folder) as entries:
        names = sorted(
            entry.name
            for entry in entries
            if entry.name.lower().endswith(_ENDING)
            and not entry.name.startswith((".", "cache-"))
            and entry.is_file()
        )
    try:
        state = json.loads((folder / "state.json").read_bytes())
        listed = [str(each["filename"]) for each in state["_data_files"]]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return names
    if lost := [name for name in listed if name not in names]:
        notes.problems.append(
            f"{folder / 'state.json'} lists {len(lost)} files that are not there "
            f"({first_three(lost)}); copy them again."
        )
    return [name for name in listed if name in names]


def read(root: pathlib.Path, request: Request, notes: Notes) -> Contents:
    """Reads the Arrow files in `root`, or in its folders that are called as splits.

    Columns are told as in Parquet files: see `parquet.read`. An image is kept as its place in the
    file, and is read from there when it is decoded.
    """
    shards = _shards(root, notes)
    if not shards and not notes.problems:
        notes.problems.append(f"{root} holds no Arrow file; looked for {LOOKS_FOR}.")
    if not notes.problems and (lost := columnar.lost_shards(shard.name for shard in shards)):
        notes.warnings.append(columnar.say_lost(root, lost))
    reader = _ArrowReader(root, request, notes)
    rows = [row for shard in shards for row in reader.rows(shard)]
    unsplit = [shard.name for shard in shards if not shard.split]
    if unsplit and len(unsplit) < len(shards):
        notes.problems.append(
            f"{root / unsplit[0]} tells no split, as other files there do; move it elsewhere."
        )
    return columnar.to_contents(
        rows, root, reader.places, (reader.level,) if reader.level else (), request, notes
    )


class _ArrowReader:
    """Reader of the rows of Arrow files."""

    def __init__(self, root: pathlib.Path, request: Request, notes: Notes):
        self._root = root
        self._request = request
        self._notes = notes
        self.places: FilePlaces | None = None  # of files that rows name, where they do
        self.level: str | None = (
            None  # name of a coarser level that all files have; "" if some lack
        )

    def rows(self, shard: _Shard) -> list[columnar.Row]:
        """The rows of a file of which enough is right; the notes get what is wrong."""
        path = self._root / shard.name
        rows = list[columnar.Row]()
        problems = list[str]()
        try:
            rows = list(self._rows(path, shard, problems))
        except _UnusableError as error:
            problems.append(f"{path}: {error}.")
        except Exception as error:  # whatever pyarrow raises on damaged files
            reason = first_line(error).removesuffix(".")
            problems.append(f"{path} is not a whole Arrow file ({reason}); copy it again.")
        self._notes.problems.extend(problems)
        if not rows and not problems:
            self._notes.problems.append(f"{path} lists no image.")
        if any(row.data is None for row in rows):
            self.places = self.places or FilePlaces(self._root)
            rows = columnar.with_files(
                rows, path, self._root, shard.split, self.places, self._notes
            )
        return rows

    def _rows(
        self, path: pathlib.Path, shard: _Shard, problems: list[str]
    ) -> Iterator[columnar.Row]:
        import pyarrow

        file = SlicedFile(path, shard.name)
        number = 0
        # Mapped only while it is opened: later the images are read, so that a file that is cut off
        # meanwhile is an error, and not the end of the process.
        with pyarrow.memory_map(str(path)) as mapped:
            start = mapped.read_buffer(mapped.size()).address
            mapped.seek(0)
            arrow_schema, batches = _batches(mapped)
            schema, wrong = parquet_schema.choose_schema(
                arrow_schema, self._request, _features(shard.info)
            )
            problems.extend(f"{path}: {problem}" for problem in wrong)
            if schema is None:
                return
            level = (schema.group or "").removesuffix("_label")
            self.level = level if self.level in (None, level) else ""
            for batch in batches:
                batch.validate()
                columns = _columns(batch, schema)
                spans = _spans(batch, schema, start, mapped.size())
                for span, values in zip(spans, zip(*columns, strict=True), strict=True):
                    where = f"row {number}"
                    image = None if span is None else Slice(file, *span, where)
                    row, wrong = columnar.make_row(
                        f"{path}, {where}", image, shard.split, schema, columnar.Values(*values)
                    )
                    problems.extend(f"{path}, {where}: {problem}" for problem in wrong)
                    if row is not None:
                        yield row
                    number += 1


def _features(info: pathlib.Path) -> Any:
    """The features in dataset_info.json; None where it tells none."""
    try:
        features = json.loads(info.read_bytes())["features"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    return features if isinstance(features, dict) and features else None


def _batches(mapped: Any) -> tuple[Any, Iterator[Any]]:
    """The schema of a file, and its batches of rows."""
    import pyarrow

    magic = mapped.read(len(_FILE_MAGIC))
    mapped.seek(0)
    if magic == _FILE_MAGIC:
        source = pyarrow.ipc.open_file(mapped)
        return source.schema, (source.get_batch(i) for i in range(source.num_record_batches))
    source = pyarrow.ipc.open_stream(mapped)
    return source.schema, iter(source)


def _columns(batch: Any, schema: Schema) -> list[list[Any]]:
    """Columns of `columnar.Values`, a value per row; no image is read."""
    nothing = [None] * batch.num_rows

    def values(name: str | None) -> list[Any]:
        if name is None:
            return nothing
        column = batch.column(name)
        column.validate(full=True)
        return list(column.to_pylist())

    paths = nothing
    if schema.has_path:
        column = batch.column(schema.image).field("path")
        column.validate(full=True)
        paths = column.to_pylist()
    elif schema.is_file:
        paths = values(schema.image)
    wanted = (schema.label, schema.class_name, schema.split, schema.name)
    return [*map(values, wanted), paths, values(schema.group)]


def _spans(batch: Any, schema: Schema, start: int, size: int) -> list[tuple[int, int] | None]:
    """Where in the file each image lies, and its length; None where there is none.

    Args:
        batch: rows of the mapped file.
        schema: which columns are which.
        start: address of the mapped file.
        size: its length in bytes.

    Raises:
        _UnusableError: the images are not in the file as they are.
        ValueError: the batch is damaged.
    """
    from pyarrow import types

    if schema.is_file:
        return [None] * batch.num_rows
    column = batch.column(schema.image)
    there = column.is_valid().to_numpy(zero_copy_only=False)
    if schema.nested:
        column = column.field("bytes")
        there = there & column.is_valid().to_numpy(zero_copy_only=False)
    if types.is_binary_view(column.type):
        raise _UnusableError("the images are binary views; save them as binary")
    column.validate(full=True)
    _, offsets, data = column.buffers()
    if offsets is None:
        return [None] * batch.num_rows
    base = 0  # where no image has a byte
    if data is not None and data.size:
        base = data.address - start
        if not 0 <= base <= base + data.size <= size:
            raise _UnusableError("it is compressed; save it without compression")
    kind = np.int64 if types.is_large_binary(column.type) else np.int32
    places = np.frombuffer(offsets, kind)[column.offset :][: len(column) + 1].astype(np.int64)
    begin = (places[:-1] + base).tolist()
    lengths = np.diff(places).tolist()
    return [
        (first, length) if is_there else None
        for first, length, is_there in zip(begin, lengths, there.tolist(), strict=True)
    ]
