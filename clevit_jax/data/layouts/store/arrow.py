"""Data sets that Hugging Face's `save_to_disk` wrote: Arrow files, in a folder for each split."""

import json
import os
import pathlib
import posixpath
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from clevit_jax.data.layouts.file_places import FilePlaces
from clevit_jax.data.layouts.listing import Contents, Notes, Request, first_three
from clevit_jax.data.layouts.store import columnar, parquet_schema
from clevit_jax.data.layouts.store.lost_shards import lost_shards, say_lost
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
    if not notes.problems and (lost := lost_shards(shard.name for shard in shards)):
        notes.warnings.append(say_lost(root, lost))
    reader = _ArrowReader(root, request, notes)
    parts = [part for shard in shards for part in reader.parts(shard)]
    mend = "move it elsewhere"
    return columnar.read_parts(parts, root, reader.places, request, mend, notes)


class _ArrowReader:
    """Reader of the rows of Arrow files."""

    def __init__(self, root: pathlib.Path, request: Request, notes: Notes):
        self._root = root
        self._request = request
        self._notes = notes
        self.places: FilePlaces | None = None  # of files that rows name, where they do

    def parts(self, shard: _Shard) -> list[columnar.Part]:
        """A file with the rows of which enough is right; none, and a problem, if it is damaged."""
        path, problems = self._root / shard.name, self._notes.problems
        before = len(problems)
        part = None
        try:
            part = self._part(path, shard)
        except _UnusableError as error:
            problems.append(f"{path}: {error}.")
        except Exception as error:  # whatever pyarrow raises on damaged files
            reason = first_line(error).removesuffix(".")
            problems.append(f"{path} is not a whole Arrow file ({reason}); copy it again.")
        if part is None or not part.rows:
            if len(problems) == before:
                problems.append(f"{path} lists no image.")
            return []
        if any(row.data is None for row in part.rows):
            self.places = self.places or FilePlaces(self._root)
            rows = columnar.with_files(
                part.rows, path, self._root, shard.split, self.places, self._notes
            )
            part = part._replace(rows=rows)
        return [part]

    def _part(self, path: pathlib.Path, shard: _Shard) -> columnar.Part | None:
        import pyarrow

        file = SlicedFile(path, shard.name)
        # Mapped only while it is opened: later the images are read, so that a file that is cut off
        # meanwhile is an error, and not the end of the process.
        with pyarrow.memory_map(str(path)) as mapped:
            start = mapped.read_buffer(mapped.size()).address
            mapped.seek(0)
            arrow_schema, batches = _batches(mapped)
            schema, wrong = parquet_schema.choose_schema(
                arrow_schema, self._request, _features(shard.info)
            )
            self._notes.problems.extend(f"{path}: {problem}" for problem in wrong)
            if schema is None:
                return None
            rows = list[columnar.Row]()
            for batch in batches:
                batch.validate()
                if not rows:
                    schema = _without_prose(batch, schema)
                paths, cells = _columns(batch, schema)
                spans = _spans(batch, schema, start, mapped.size())
                places = [f"row {at}" for at in range(len(rows), len(rows) + len(spans))]
                images = (
                    (f"{path}, {where}", None if span is None else Slice(file, *span, where))
                    for span, where in zip(spans, places, strict=True)
                )
                rows += columnar.make_rows(images, schema, paths, cells)
            return columnar.Part(path, shard.split, schema, rows)


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


def _without_prose(batch: Any, schema: Schema) -> Schema:
    """The columns without those of sentences, as the first rows have them."""
    plain = list[str]()
    for name in schema.plain:
        batch.column(name).validate(full=True)
        if not parquet_schema.is_prose(name, batch.column(name)):
            plain.append(name)
    return schema._replace(plain=tuple(plain))


def _columns(batch: Any, schema: Schema) -> tuple[list[str], Sequence[Sequence[str]]]:
    """The path of each row, and its cells of the plain columns; no image is read."""
    paths = [""] * batch.num_rows
    if schema.has_path or schema.is_file:
        column = batch.column(schema.image)
        column = column.field("path") if schema.has_path else column
        column.validate(full=True)
        paths = columnar.texts_of(column)
    columns = list[list[str]]()
    for name in schema.plain:
        batch.column(name).validate(full=True)
        columns.append(columnar.texts_of(batch.column(name)))
    return paths, columnar.cells_of(columns, batch.num_rows)


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
