"""Rows of tables in columns, Parquet or Arrow, that hold the images or name their files."""

import pathlib
import re
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

from clevit_jax.data.dataset import StoredImage
from clevit_jax.data.layouts import table
from clevit_jax.data.layouts.columns import SPLITS, plain
from clevit_jax.data.layouts.csv.csv_form import Table
from clevit_jax.data.layouts.csv.made_rows import Read, with_folds
from clevit_jax.data.layouts.file_places import FilePlaces
from clevit_jax.data.layouts.listing import Contents, Notes, Request
from clevit_jax.data.layouts.record.record_table import text_of
from clevit_jax.data.layouts.record.records import find_files, split_by_folder
from clevit_jax.data.layouts.store.parquet_schema import Schema
from clevit_jax.data.layouts.store.told import Labels, Told, tell
from clevit_jax.errors import Repeated


@runtime_checkable
class PlacedImage(StoredImage, Protocol):
    """An image in a row of a file."""

    @property
    def place(self) -> str:
        """File and row, the same on every machine."""
        ...


class Row(NamedTuple):
    """An image of a file, before its columns are known.

    Attributes:
        where: file and row, for sentences.
        data: the image; None where the row names its file, in `path`.
        name: of the image, or "".
        path: of the file that the image is, or once was.
        cells: of the columns that may tell something, as text.
    """

    where: str
    data: PlacedImage | pathlib.Path | None
    name: str
    path: str
    cells: Sequence[str] = ()


class Part(NamedTuple):
    """A file: the split that its name or folder tells, or "", its columns, and its rows."""

    path: pathlib.Path
    split: str
    schema: Schema
    rows: list[Row]


def make_rows(
    images: Iterable[tuple[str, PlacedImage | None]],
    schema: Schema,
    paths: Sequence[str],
    cells: Sequence[Sequence[str]],
) -> list[Row]:
    """The rows of a file.

    Args:
        images: file and row of each, for sentences, and the image that it holds.
        schema: which columns are which.
        paths: of the files that the images are, or once were; "" for none.
        cells: values of the columns `schema.plain`, as text.
    """
    rows = zip(images, paths, cells, strict=True)
    if schema.name is None:
        return [Row(where, data, "", path, each) for (where, data), path, each in rows]
    at = schema.plain.index(schema.name)
    return [Row(where, data, each[at], path, each) for (where, data), path, each in rows]


def texts_of(column: Any) -> list[str]:
    """The values of a column of pyarrow, as text; "" for none."""
    values = column.to_pylist()
    try:
        known = {value: text_of(value) for value in set(values)}
    except TypeError:  # lists and dicts, which are no text
        return [text_of(value) for value in values]
    return [known[value] for value in values]


def cells_of(columns: Sequence[list[str]], rows: int) -> Sequence[Sequence[str]]:
    """The cells of each row of some columns, which may be none."""
    return list(zip(*columns, strict=True)) if columns else [()] * rows


def read_parts(
    parts: Sequence[Part],
    root: pathlib.Path,
    places: FilePlaces | None,
    request: Request,
    mend: str,
    notes: Notes,
) -> Contents:
    """Finds out which columns tell what, of all files together, and parts the rows into splits.

    Args:
        parts: the files of the data set.
        root: its folder.
        places: the files there, where rows name files.
        request: settings that name columns.
        mend: what to do with a file of no split, where others have one.
        notes: gets what is wrong.
    """
    told_by = {request.split_column} - {""}
    unsplit = [
        part
        for part in parts
        if not part.split
        and not any(plain(name) in SPLITS or name in told_by for name in part.schema.plain)
    ]
    if unsplit and len(unsplit) < len(parts):
        notes.problems.append(
            f"{unsplit[0].path} tells no split, as other files of {root} do; {mend}."
        )
        return Contents((), {"train": []})
    header = list(dict.fromkeys(name for part in parts for name in part.schema.plain))
    cells = [row for part in parts for row in _in_order(part, header)]
    at = _Places(root, [row for part in parts for row in part.rows])
    if not cells and notes.problems:
        return Contents((), {"train": []})
    table_ = Table("", header, True, cells, list(range(len(cells))))
    where = f"{parts[0].path if len(parts) == 1 else root}:"
    every = list(dict.fromkeys(name for part in parts for name in part.schema.names))
    given = [part.split for part in parts for _ in part.rows]
    labels = tell(table_, root, at, where, every, request, lambda _: False, notes, given)
    if labels is None:
        return Contents((), {"train": []})
    told = iter(labels.told)
    rows = [
        (row, whole)
        for part in parts
        for row in part.rows
        if (whole := _whole(next(told), row, part, labels, notes)) is not None
    ]
    levels = tuple(level.removesuffix("_label") for level in labels.levels)
    return to_contents(rows, root, places, labels._replace(levels=levels), request, notes)


class _Places(Sequence[str]):
    """File and row of each of some rows, below the root; made when one is asked for."""

    def __init__(self, root: pathlib.Path, rows: Sequence[Row]):
        self._root = f"{root}/"
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, at: Any) -> Any:
        return self._rows[at].where.removeprefix(self._root)


def _in_order(part: Part, header: Sequence[str]) -> Iterable[Sequence[str]]:
    """The cells of a file's rows under the columns of all files."""
    if list(part.schema.plain) == header:
        return (row.cells for row in part.rows)
    positions = {name: i for i, name in enumerate(part.schema.plain)}
    order = [positions.get(name) for name in header]
    lacking = [part.split if plain(name) in SPLITS else "" for name in header]
    both = list(zip(order, lacking, strict=True))
    return ([no if i is None else row.cells[i] for i, no in both] for row in part.rows)


def _whole(told: Told, row: Row, part: Part, labels: Labels, notes: Notes) -> Told | None:
    """What is told of a row, with the names of its classes and the split of its file."""
    problems, classes = notes.problems, part.schema.classes.get(labels.label_column, [])
    label, class_name = "" if told.label == "-1" else told.label, told.class_name
    if classes and label:
        number = int(label) if re.fullmatch(r"-?[0-9]{1,18}", label) else -1
        if not 0 <= number < len(classes):
            problems.append(
                f"{row.where}: the label is {label}, but the file names the classes 0 to "
                f"{len(classes) - 1}."
            )
            return None
        class_name = class_name or classes[number]
    if part.split and told.split and told.split != part.split:
        problems.append(
            f"{row.where}: the split is {told.split!r} in a file of the {part.split} split; move "
            "the row."
        )
        return None
    groups = told.groups
    if labels.levels and part.schema.classes:
        named = [part.schema.classes.get(level, []) for level in labels.levels]
        groups = tuple(
            names[int(group)] if group.isdecimal() and int(group) < len(names) else group
            for group, names in zip(told.groups, named, strict=True)
        )
    if label == told.label and class_name == told.class_name and groups is told.groups:
        return told
    return Told(label, class_name, told.split, groups, told.fold)


def with_files(
    rows: Sequence[Row],
    path: pathlib.Path,
    root: pathlib.Path,
    split: str,
    places: FilePlaces,
    notes: Notes,
) -> list[Row]:
    """The rows of a file, those that name files with these; the notes get what is not there."""
    loose = [row for row in rows if row.data is None]
    notes.problems.extend(
        Repeated(
            f"{row.where}: there is no image, and no file is named.",
            rule=f"{path}: {{n}} of its rows have no image, and name no file",
            item=row.where.rpartition(", ")[2],
        )
        for row in loose
        if not row.path
    )
    folder = path.parent.relative_to(root).as_posix()
    beside = "" if folder == "." else f"{folder}/"
    named = [row.path for row in loose if row.path]
    files = find_files(named, path, beside, split, places, notes) if named else {}
    return [
        row
        if row.data is not None
        else row._replace(data=root / files[row.path], name=files[row.path])
        for row in rows
        if row.data is not None or row.path in files
    ]


def to_contents(
    rows: Sequence[tuple[Row, Told]],
    root: pathlib.Path,
    places: FilePlaces | None,
    labels: Labels,
    request: Request,
    notes: Notes,
) -> Contents:
    """Numbers the labels of all rows and parts them into splits.

    Test images of which none has a label are left out.

    Args:
        rows: of all files of the data set, with what is told of them; the label is "" where there
            is none.
        root: its folder.
        places: the files there, where rows name files: then their folders may tell the split.
        labels: say of which levels and folds the rows are.
        request: its `split_column` may say that folders do not.
        notes: gets what is wrong.
    """
    unlabelled = [(row, told) for row, told in rows if not told.label]
    tested = sum(told.split == "test" for _, told in rows)
    if (
        unlabelled
        and len(unlabelled) == tested
        and all(told.split == "test" for _, told in unlabelled)
    ):
        notes.warnings.append(f"{root}: no test image has a label; none of the {tested} is read.")
        rows = [(row, told) for row, told in rows if told.label]
    else:
        notes.problems.extend(
            Repeated(
                f"{row.where}: there is no label; add one, or remove the row.",
                rule=f"{root}: {{n}} rows have no label; add one to each, or remove these rows",
                item=row.where.rpartition(", ")[2],
            )
            for row, _ in unlabelled
        )
    if not rows and notes.problems:
        return Contents((), {"train": []})
    otherwise = "train" if places is None else ""  # folders may tell it
    named = _named(rows, otherwise, levels=bool(labels.levels))
    folds = {
        each.name: told.fold
        for each, (_, told) in zip(named, rows, strict=True)
        if told.fold is not None
    }
    if places is not None:
        named = split_by_folder(named, places, request, root, notes)
    contents = table.to_contents(named, str(root), notes, levels=labels.levels)
    return with_folds(contents, [Read(named, labels.levels, folds, labels.fold_column)], notes)


def _named(
    rows: Sequence[tuple[Row, Told]], otherwise: str, *, levels: bool
) -> list[table.TableRow]:
    """Gives each image a name, and a split where none is told.

    Paths often lack the folders, and tell images apart no more.
    """
    paths = [row.path for row, _ in rows if row.path]
    distinct = len(set(paths)) == len(paths)
    named = []
    for row, told in rows:
        path = row.path if distinct else ""
        name = row.name or path
        if not name and isinstance(row.data, PlacedImage):
            name = "/".join(filter(None, (row.data.place, row.path)))
        assert row.data is not None
        label, class_name, split, groups, _ = told
        named.append(
            table.TableRow(
                row.where,
                split or otherwise,
                label,
                class_name,
                row.data,
                name,
                groups if levels else (),
            )
        )
    return named
