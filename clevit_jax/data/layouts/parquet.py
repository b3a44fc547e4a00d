"""The layout of Parquet tables with images and labels, as the Hugging Face hub and pandas write."""

import contextlib
import itertools
import os
import pathlib
import re
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from clevit_jax.data.layouts import parquet_schema, table
from clevit_jax.data.layouts.columns import split_of
from clevit_jax.data.layouts.listing import BLANKS, Contents, Notes, Request, say_own
from clevit_jax.data.layouts.parquet_images import ParquetImage, ParquetImages
from clevit_jax.data.layouts.parquet_schema import Schema
from clevit_jax.errors import first_line

LOOKS_FOR = "*.parquet or data/*.parquet with images and labels"
_LARGE = 256 << 20  # bytes of a row group whose images take long to read in a random order


class _Values(NamedTuple):
    """Values of the columns in one row; None for null, or where there is no such column."""

    label: Any
    class_name: Any
    split: Any
    name: Any
    path: Any


class _Row(NamedTuple):
    """A row as it is written; `label` is "" where it is null or, of integers, -1."""

    split: str
    label: str
    class_name: str
    image: ParquetImage
    name: str
    path: str  # of the file that the image once was


def fits(root: pathlib.Path, _: Request) -> str | None:
    """What the layout is recognised by, or None. Only the columns of a file are looked at."""
    files = list(_files(root))
    more = f" and {len(files) - 1} more" if len(files) > 1 else ""
    for path in files:
        with _open(path, Notes([], [])) as source:
            if source is not None:
                images = parquet_schema.image_columns(source.schema_arrow)
                name = path.relative_to(root).as_posix()
                return f"the column {images[0]!r} of {name}{more}" if images else None
    # None can be opened: let `read` say why.
    return f"{files[0].relative_to(root).as_posix()}{more}" if files else None


def read(root: pathlib.Path, request: Request, notes: Notes) -> Contents:
    """Reads the files in `root`, in `data` of it, and in folders there that are called as splits.

    Images are encoded, in a binary column or in a struct with binary `bytes`, as Hugging Face's
    hub has them. Labels are a column of integers or texts; their names are a column, or those that
    the hub keeps in the metadata of the file. The split is a column, else told by the name of the
    file (`test-00000-of-00001.parquet`), else train. Test images of which none has a label are left
    out. An image's name is that of a column, else the `path` of the struct, else its row.

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
    rows = [row for path, split in files.items() for row in reader.rows(path, split)]
    unsplit = [path for path, split in files.items() if not split and path not in reader.split]
    if unsplit and len(unsplit) < len(files):
        notes.problems.append(
            f"{unsplit[0]} tells no split, as other files of {root} do; name it train-*, "
            "validation-* or test-*, or add a column 'split'."
        )
    unlabelled = [row for row in rows if not row.label]
    tested = sum(row.split == "test" for row in rows)
    if unlabelled and len(unlabelled) == tested and all(row.split == "test" for row in unlabelled):
        notes.warnings.append(f"{root}: no test image has a label; none of the {tested} is read.")
        rows = [row for row in rows if row.label]
    else:
        notes.problems.extend(
            f"{row.image}: there is no label; add one, or remove the row." for row in unlabelled
        )
    if not rows and notes.problems:
        return Contents((), {"train": []})
    return table.to_contents(_named(rows), str(root), notes)


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
        notes.problems.append(f"{path} is not a whole Parquet file ({reason}); copy it again.")
        yield None
        return
    with source:
        yield source


def _named(rows: Sequence[_Row]) -> list[table.TableRow]:
    """Gives each image a name. Paths often lack the folders, and tell images apart no more."""
    paths = [row.path for row in rows if row.path]
    distinct = len(set(paths)) == len(paths)
    named = []
    for row in rows:
        path = row.path if distinct else ""
        name = row.name or path or "/".join(filter(None, (row.image.place, row.path)))
        named.append(
            table.TableRow(str(row.image), row.split, row.label, row.class_name, row.image, name)
        )
    return named


class _ParquetReader:
    """Reader of the rows of Parquet files."""

    def __init__(self, root: pathlib.Path, request: Request, notes: Notes):
        self._root = root
        self._request = request
        self._notes = notes
        self._images = ParquetImages(root)
        self.split: set[pathlib.Path] = set()  # files with a column of splits

    def rows(self, path: pathlib.Path, split: str) -> Iterator[_Row]:
        """The rows of a file of which enough is right; the notes get what is wrong."""
        problems = self._notes.problems
        with _open(path, self._notes) as source:
            if source is None:
                return
            schema, wrong = parquet_schema.choose_schema(source.schema_arrow, self._request)
            problems.extend(f"{path}: {problem}" for problem in wrong)
            if schema is None:
                return
            if schema.split is not None:
                self.split.add(path)
            try:
                columns = _read_columns(source, schema)
                groups = [source.metadata.row_group(i) for i in range(source.num_row_groups)]
                sizes = [group.num_rows for group in groups]
                if sum(sizes) != len(columns[0]):
                    raise ValueError(f"{len(columns[0])} rows instead of {sum(sizes)}")
            except Exception as error:  # whatever pyarrow raises on damaged files
                problems.append(
                    f"{path} is damaged ({first_line(error).removesuffix('.')}); copy it again."
                )
                return
            self._warn_of_large(path, max((group.total_byte_size for group in groups), default=0))
            number = self._images.add(path, schema.image, nested=schema.nested)
        if not columns[0]:
            problems.append(f"{path} lists no image.")
        starts = list(itertools.accumulate([0, *sizes]))
        places = ((g, i) for g, size in enumerate(sizes) for i in range(size))
        for (group, i), values in zip(places, zip(*columns, strict=True), strict=True):
            image = ParquetImage(self._images, number, group, starts[group], i)
            row, wrong = _row(image, split, schema, _Values(*values))
            problems.extend(f"{image}: {problem}" for problem in wrong)
            if row is not None:
                yield row

    def _warn_of_large(self, path: pathlib.Path, largest: int) -> None:
        if largest > _LARGE:
            self._notes.warnings.append(
                f"{path} holds {largest / 1e6:.0f} MB of images in one row group, which is slow to "
                "read in a random order; write it with row_group_size=100, or let data.cache_bytes "
                "hold all images."
            )


def _row(
    image: ParquetImage, split: str, schema: Schema, values: _Values
) -> tuple[_Row | None, list[str]]:
    """A row, None if it must be left out, and what is wrong with it."""
    problems = []
    label, class_name = _text(values.label), _text(values.class_name)
    if schema.class_name is not None and label and not class_name:
        problems.append("the class name is empty.")
    if schema.classes and label:
        if not 0 <= int(label) < len(schema.classes):
            problems.append(
                f"the label is {label}, but the file names the classes 0 to "
                f"{len(schema.classes) - 1}."
            )
            return None, problems
        class_name = class_name or schema.classes[int(label)]
    own = split or "train"
    if schema.split is not None:
        told = split_of(str(values.split))
        if told is None:
            problems.append(f"the split {values.split!r} is not train, val or test.")
            return None, problems
        if split and told != split:
            problems.append(
                f"the split is {values.split!r} in a file of the {split} split; move the row."
            )
            return None, problems
        own = told
    name, path = _text(values.name), _text(values.path)
    return _Row(own, label, class_name, image, name, path), problems


def _text(value: Any) -> str:
    """A number or a text, as text; "" for null, NaN, and -1, which is the hub's missing label."""
    if value is None or value != value or (type(value) is int and value == -1):
        return ""
    return str(int(value) if isinstance(value, bool) else value).strip(BLANKS)


def _read_columns(source: Any, schema: Schema) -> list[list[Any]]:
    """Columns of label, class name, split, name and path, a value per row; no image is read."""
    path = f"{schema.image}.path" if schema.has_path else None
    wanted = [schema.label, schema.class_name, schema.split, schema.name, path]
    read = source.read(columns=[name for name in wanted if name is not None], use_threads=False)
    nothing = [None] * read.num_rows
    columns = [nothing if name is None else read.column(name).to_pylist() for name in wanted[:-1]]
    paths = (
        [chunk.field("path").to_pylist() for chunk in read.column(schema.image).chunks]
        if path
        else [nothing]
    )
    return [*columns, list(itertools.chain.from_iterable(paths))]
