"""Rows of tables in columns, Parquet or Arrow, that hold the images or name their files."""

import pathlib
import re
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

from clevit_jax.data.dataset import StoredImage
from clevit_jax.data.layouts import table
from clevit_jax.data.layouts.columns import split_of
from clevit_jax.data.layouts.file_places import FilePlaces
from clevit_jax.data.layouts.listing import BLANKS, Contents, Notes, Request, first_three
from clevit_jax.data.layouts.record.records import find_files, split_by_folder
from clevit_jax.data.layouts.store.parquet_schema import Schema
from clevit_jax.errors import Repeated

_SHARD = re.compile(r"(.*?)(\d{3,})-of-(\d{3,})(?!\d)")
_MOST_SHARDS = 100_000


@runtime_checkable
class PlacedImage(StoredImage, Protocol):
    """An image in a row of a file."""

    @property
    def place(self) -> str:
        """File and row, the same on every machine."""
        ...


class Values(NamedTuple):
    """Values of the columns in one row; None for null, or where there is no such column."""

    label: Any
    class_name: Any
    split: Any
    name: Any
    path: Any
    group: Any


class Row(NamedTuple):
    """A row as it is written; `label` is "" where it is null or, of integers, -1.

    Attributes:
        where: file and row, for sentences.
        data: the image; None where the row names its file, in `path`.
        path: of the file that the image is, or once was.
        groups: the coarser classes, one for each of the levels.
    """

    where: str
    split: str
    label: str
    class_name: str
    data: PlacedImage | pathlib.Path | None
    name: str
    path: str
    groups: tuple[str, ...]


def make_row(
    where: str, data: PlacedImage | None, split: str, schema: Schema, values: Values
) -> tuple[Row | None, list[str]]:
    """A row, None if it must be left out, and what is wrong with it.

    Args:
        where, data: as in `Row`.
        split: of the file, or "".
        schema: which columns are which.
        values: of them.
    """
    problems = []
    label, class_name = text_of(values.label), text_of(values.class_name)
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
    own = split
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
    name, path, group = text_of(values.name), text_of(values.path), text_of(values.group)
    if schema.group_classes and group.isdecimal() and int(group) < len(schema.group_classes):
        group = schema.group_classes[int(group)]
    groups = () if schema.group is None else (group,)
    return Row(where, own, label, class_name, data, name, path, groups), problems


def text_of(value: Any) -> str:
    """A number or a text, as text; "" for null, NaN, and -1, which is the hub's missing label."""
    if value is None or value != value or (type(value) is int and value == -1):
        return ""
    return str(int(value) if isinstance(value, bool) else value).strip(BLANKS)


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
    rows: Sequence[Row],
    root: pathlib.Path,
    places: FilePlaces | None,
    levels: Sequence[str],
    request: Request,
    notes: Notes,
) -> Contents:
    """Numbers the labels of all rows and parts them into splits.

    Test images of which none has a label are left out.

    Args:
        rows: of all files of the data set.
        root: its folder.
        places: the files there, where rows name files: then their folders may tell the split.
        levels: names of the coarser levels that the rows' `groups` are of.
        request: its `split_column` may say that folders do not.
        notes: gets what is wrong.
    """
    unlabelled = [row for row in rows if not row.label]
    tested = sum(row.split == "test" for row in rows)
    if unlabelled and len(unlabelled) == tested and all(row.split == "test" for row in unlabelled):
        notes.warnings.append(f"{root}: no test image has a label; none of the {tested} is read.")
        rows = [row for row in rows if row.label]
    else:
        notes.problems.extend(
            Repeated(
                f"{row.where}: there is no label; add one, or remove the row.",
                rule=f"{root}: {{n}} rows have no label; add one to each, or remove these rows",
                item=row.where.rpartition(", ")[2],
            )
            for row in unlabelled
        )
    if not rows and notes.problems:
        return Contents((), {"train": []})
    named = _named(rows, levels=bool(levels))
    if places is not None:
        named = split_by_folder(named, places, request, root, notes)
    named = [row if row.split else row._replace(split="train") for row in named]
    return table.to_contents(named, str(root), notes, levels=levels)


def _named(rows: Sequence[Row], *, levels: bool) -> list[table.TableRow]:
    """Gives each image a name. Paths often lack the folders, and tell images apart no more."""
    paths = [row.path for row in rows if row.path]
    distinct = len(set(paths)) == len(paths)
    named = []
    for row in rows:
        path = row.path if distinct else ""
        name = row.name or path
        if not name and isinstance(row.data, PlacedImage):
            name = "/".join(filter(None, (row.data.place, row.path)))
        groups = row.groups if levels else ()
        assert row.data is not None
        named.append(
            table.TableRow(row.where, row.split, row.label, row.class_name, row.data, name, groups)
        )
    return named


def lost_shards(names: Iterable[str]) -> list[str]:
    """The shards that names such as `train-00000-of-00002.parquet` count and that are not there.

    Args:
        names: of the shards that are there, with their folders.

    Returns:
        The others, `train-00001-of-00002`, in their order.
    """
    there: dict[tuple[str, str], set[int]] = {}
    for name in names:
        if match := _SHARD.match(name):
            there.setdefault((match[1], match[3]), set()).add(int(match[2]))
    return [
        f"{start}{i:0{len(count)}}-of-{count}"
        for (start, count), numbers in there.items()
        if int(count) <= _MOST_SHARDS
        for i in range(int(count))
        if i not in numbers
    ]


def say_lost(root: pathlib.Path, lost: Sequence[str]) -> str:
    """A sentence on shards that are not there."""
    many = "shard is" if len(lost) == 1 else "shards are"
    return (
        f"{root}: {len(lost):,} {many} not there, though the names of others count them "
        f"({first_three(lost)}), so their images are not read; fetch them for the whole data set."
    )
