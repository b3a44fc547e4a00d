"""The layout of Parquet tables with images and labels, as the Hugging Face hub and pandas write."""

import contextlib
import itertools
import os
import pathlib
import re
from collections.abc import Iterator, Sequence
from typing import Any

from clevit_jax.data import no_image
from clevit_jax.data.layouts.columns import split_of
from clevit_jax.data.layouts.csv import csv_columns
from clevit_jax.data.layouts.file_places import FilePlaces
from clevit_jax.data.layouts.listing import (
    Contents,
    Notes,
    Request,
    is_image,
    say_own,
)
from clevit_jax.data.layouts.record.record_table import text_table
from clevit_jax.data.layouts.store import columnar, parquet_schema
from clevit_jax.data.layouts.store.lost_shards import lost_shards, say_lost
from clevit_jax.data.layouts.store.parquet_images import ParquetImage, ParquetImages
from clevit_jax.data.layouts.store.parquet_schema import Schema
from clevit_jax.errors import first_line

LOOKS_FOR = "*.parquet or data/*.parquet with images, or names of files, and labels"
_SOME = 50  # rows that tell which columns are which
_LARGE = 256 << 20  # bytes of a row group whose images take long to read in a random order


def fits(root: pathlib.Path, request: Request) -> str | None:
    """What the layout is recognised by, or None. Only the columns of a file are looked at."""
    files = list(_files(root))
    more = f" and {len(files) - 1} more" if len(files) > 1 else ""
    for path in files:
        with _open(path, Notes([], [])) as source:
            if source is not None:
                name = path.relative_to(root).as_posix()
                column = _column_of_images(source, path, request)
                return f"the column {column!r} of {name}{more}" if column else None
    # None can be opened: let `read` say why.
    return f"{files[0].relative_to(root).as_posix()}{more}" if files else None


def _column_of_images(source: Any, path: pathlib.Path, request: Request) -> str | None:
    """The column that holds images or lists of them, or names their files beside a label."""
    schema = source.schema_arrow
    images = parquet_schema.image_columns(schema) or parquet_schema.lists_of_images(schema)
    if images:
        return images[0]
    chosen, _ = parquet_schema.choose_schema(schema, request)
    if chosen is None or path.name == "metadata.parquet":  # which is a layout of its own
        return None
    try:
        wanted = f"{chosen.image}.path" if chosen.has_path else chosen.image
        columns = [wanted, *chosen.plain]
        batch = next(source.iter_batches(_SOME, columns=columns, use_threads=False))
    except Exception:  # whatever pyarrow raises on damaged files, or where there is no row
        return chosen.image
    records = [("", {name: row[name] for name in chosen.plain}) for row in batch.to_pylist()]
    told = csv_columns.choose(text_table(records)[0], request, lambda _: False, files=False)
    if not told.labelled:
        return None
    value = batch.column(chosen.image)[0].as_py()
    name = value.get("path") if isinstance(value, dict) else value
    return chosen.image if is_image(str(name)) or "." not in str(name) else None


def read(root: pathlib.Path, request: Request, notes: Notes) -> Contents:
    """Reads the files in `root`, in `data` of it, and in folders there that are called as splits.

    Images are encoded, in a binary column or in a struct with binary `bytes`, as Hugging Face's
    hub has them; or a column names their files, in `root`. The other columns of all files together
    are told by the rules for CSV: labels, names, coarser levels, splits and folds; names of classes
    may also be in the metadata of the file, where the hub keeps them. The split is a column, else
    told by the name of the file (`test-00000-of-00001.parquet`), else by the folders of the files
    that it names, else train. Test images of which none has a label are
    left out. An image's name is that of a column, else the `path` of the struct, else its row.

    Opening reads no image, so does not see whether one is there. Nor does it ask for statistics:
    pyarrow ends the process where those are damaged.
    """
    own = set[str]()
    files = _files(root, own)
    if own:
        notes.warnings.append(say_own(root, own))
    if not files:
        notes.problems.append(f"{root} holds no Parquet file; looked for {LOOKS_FOR}.")
    reader = _ParquetReader(root, request, notes)
    if lost := lost_shards(path.relative_to(root).as_posix() for path in files):
        notes.warnings.append(say_lost(root, lost))
    parts = [part for path, split in files.items() for part in reader.parts(path, split)]
    mend = "name it train-*, validation-* or test-*, or add a column 'split'"
    return columnar.read_parts(parts, root, reader.places, request, mend, notes)


def _files(root: pathlib.Path, own: set[str] | None = None) -> dict[pathlib.Path, str]:
    """Path -> split that its name or folder tells, or "", in `root` or else in `data` of it.

    Features that this program wrote are left out; `own` gets their names, relative to `root`.
    """
    for place in (root, root / "data"):
        if not place.is_dir():
            continue
        with os.scandir(place) as entries:
            inside = sorted(entry.name for entry in entries if entry.is_dir())
        folders = {place: ""} | {place / name: split_of(name) or "" for name in inside}
        files = {
            path: split or _split_in(path.stem)
            for folder, split in folders.items()
            if folder == place or split
            for path in sorted(folder.iterdir())
            if path.suffix.lower() == ".parquet" and path.name[0] != "." and path.is_file()
        }
        features = {path for path in files if _is_features(path)}
        if own is not None:
            own.update(path.relative_to(root).as_posix() for path in features)
        if files.keys() - features:
            return {path: split for path, split in files.items() if path not in features}
    return {}


def _is_features(path: pathlib.Path) -> bool:
    with _open(path, Notes([], [])) as source:
        return source is not None and parquet_schema.is_features(source.schema_arrow)


def _split_in(stem: str) -> str:
    """'test' of 'leaves-test-00000-of-00001'; "" if it names no split, or several."""
    splits = {split_of(word) for word in re.split(r"[^A-Za-z]+", stem)} - {None}
    return (splits.pop() or "") if len(splits) == 1 else ""


@contextlib.contextmanager
def _open(path: pathlib.Path, notes: Notes) -> Iterator[Any]:
    """The open file; None, and a problem, if it is not Parquet."""
    import pyarrow.parquet

    try:
        source = pyarrow.parquet.ParquetFile(path)
        _ = source.schema_arrow
    except Exception as error:  # whatever its parsers raise on damaged files
        reason = first_line(error).removesuffix(".")
        told = no_image.pointer_at(path)
        notes.problems.append(
            f"{path} is {told}."
            if told
            else f"{path} is not a whole Parquet file ({reason}); copy it again."
        )
        yield None
        return
    with source:
        yield source


class _ParquetReader:
    """Reader of the rows of Parquet files."""

    def __init__(self, root: pathlib.Path, request: Request, notes: Notes):
        self._root = root
        self._request = request
        self._notes = notes
        self._images = ParquetImages(root)
        self.places: FilePlaces | None = None  # of files that rows name, where they do

    def parts(self, path: pathlib.Path, split: str) -> list[columnar.Part]:
        """A file with the rows of which enough is right; none, and a problem, if it is damaged."""
        with _open(path, self._notes) as source:
            if source is None:
                return []
            schema, wrong = parquet_schema.choose_schema(source.schema_arrow, self._request)
            self._notes.problems.extend(f"{path}: {problem}" for problem in wrong)
            if schema is None:
                return []
            try:
                paths, cells, schema = _read_columns(source, schema)
                groups = [source.metadata.row_group(i) for i in range(source.num_row_groups)]
                sizes = [group.num_rows for group in groups]
                if sum(sizes) != len(paths):
                    raise ValueError(f"{len(paths)} rows instead of {sum(sizes)}")
            except Exception as error:  # whatever pyarrow raises on damaged files
                reason = first_line(error).removesuffix(".")
                self._notes.problems.append(f"{path} is damaged ({reason}); copy it again.")
                return []
            self._warn_of_large(path, max((group.total_byte_size for group in groups), default=0))
        if not paths:
            self._notes.problems.append(f"{path} lists no image.")
            return []
        number = self._images.add(path, schema.image, nested=schema.nested)
        starts = list(itertools.accumulate([0, *sizes]))
        images = [
            ParquetImage(self._images, number, group, starts[group], i)
            for group, size in enumerate(sizes)
            for i in range(size)
        ]
        stored = ((str(image), None if schema.is_file else image) for image in images)
        rows = columnar.make_rows(stored, schema, paths, cells)
        if any(row.data is None for row in rows):
            self.places = self.places or FilePlaces(self._root)
            rows = columnar.with_files(rows, path, self._root, split, self.places, self._notes)
        return [columnar.Part(path, split, schema, rows)]

    def _warn_of_large(self, path: pathlib.Path, largest: int) -> None:
        if largest > _LARGE:
            self._notes.warnings.append(
                f"{path} holds {largest / 1e6:.0f} MB of images in one row group, which is slow to "
                "read in a random order; write it with row_group_size=100, or let data.cache_bytes "
                "hold all images."
            )


def _read_columns(source: Any, schema: Schema) -> tuple[list[str], Sequence[Sequence[str]], Schema]:
    """The path of each row, its cells of the plain columns, and these; no image is read."""
    path = f"{schema.image}.path" if schema.has_path else None
    if schema.is_file and not schema.has_path:
        path = schema.image
    read = source.read(columns=[*schema.plain, *([path] if path else [])], use_threads=False)
    columns = {name: read.column(name) for name in schema.plain}
    plain = tuple(n for n in schema.plain if not parquet_schema.is_prose(n, columns[n]))
    cells = columnar.cells_of([columnar.texts_of(columns[name]) for name in plain], read.num_rows)
    paths = [""] * read.num_rows
    if path == schema.image:
        paths = columnar.texts_of(read.column(path))
    elif path:
        chunks = read.column(schema.image).chunks
        paths = [each for chunk in chunks for each in columnar.texts_of(chunk.field("path"))]
    return paths, cells, schema._replace(plain=plain)
