"""Which columns of a CSV table are which, told by their names and by what is in them."""

import pathlib
import re
from collections.abc import Callable
from typing import NamedTuple

from clevit_jax.data.layouts.columns import (
    BOXES,
    FILES,
    FILES_IF,
    called,
    is_unnamed,
    missing_column,
    plain,
    several,
    wanted_column,
)
from clevit_jax.data.layouts.csv import csv_form
from clevit_jax.data.layouts.csv.csv_form import Table
from clevit_jax.data.layouts.csv.label_columns import LabelColumns, choose_labels, choose_unnamed
from clevit_jax.data.layouts.csv.split_columns import SplitColumns, choose_splits
from clevit_jax.data.layouts.listing import BLANKS, Notes, Request, first_three, is_image

_BITS = {"0": 0, "0.0": 0, "false": 0, "1": 1, "1.0": 1, "true": 1}
_OF_FILES = ("id", "idcode", "name", "key", "file", "image")  # endings of their columns' names
_WHOLE_BOXES = ("bbox", "boxes")  # names of columns that hold all of a box
# What Google's AutoML calls images of no split yet, and those of the only one.
_OF_NO_SPLIT = ("UNASSIGNED", "TRAIN")
_SAMPLE = 50  # rows that are looked at for names of images


class CsvColumns(NamedTuple):
    """Which columns are which.

    Attributes:
        file: position of the column of files; None where there is none.
        label: the columns of classes; empty where there are none.
        one_hot: positions of the columns that are a class each, where there is no label.
        split: the columns of splits.
        boxes: whether there are columns of boxes, so that a file may have several rows.
        problems: sentences on what cannot be told.
        said: sentences on what was told by values alone.
    """

    file: int | None
    label: LabelColumns
    one_hot: list[int]
    split: SplitColumns
    boxes: bool
    problems: list[str]
    said: list[str]

    @property
    def labelled(self) -> bool:
        return bool(self.label.label or self.one_hot)

    @property
    def is_asked(self) -> bool:
        """Whether the user must say which column is the label."""
        return any("hold the label" in problem for problem in self.problems)


def head(
    text: str, request: Request, any_called: Callable[[set[str]], bool]
) -> tuple[Table, CsvColumns]:
    """The first rows of a table, parted by what gives most of what is needed, and its columns.

    Of equal delimiters, the one that gives most columns counts.
    """
    tables = [
        csv_form.sample(text, delimiter, request.header, any_called)
        for delimiter in csv_form.delimiters(text)
    ]
    heads = [(table, choose(table, request, any_called)) for table in tables]
    return max(
        heads,
        key=lambda head: ((head[1].file is not None) + head[1].labelled, len(head[0].header)),
    )


def choose(
    table: Table,
    request: Request,
    any_called: Callable[[set[str]], bool],
    *,
    files: bool = True,
) -> CsvColumns:
    """Chooses the columns of a table.

    Args:
        table: all of it, or its first rows.
        request: settings that name columns.
        any_called: whether any image of the data set has one of some names, with or without ending.
        files: whether images are files that a column names; else such a column is told, so that it
            is no label, and nothing is said of it.
    """
    header = table.header if table.named else [""] * len(table.header)
    problems, said = list[str](), list[str]()
    if files:
        file = _file(table, header, request.file_column, any_called, problems, said)
    else:
        file = _file(table, header, "", any_called, [], [])
    boxes = called(header, BOXES)
    taken = {i for i in (file, *boxes) if i is not None}
    names = table.header
    splits = choose_splits(names, table.rows, request.split_column, taken | _label(names, request),
                           problems, said)  # fmt: skip
    taken |= splits.positions
    if not table.named:
        taken |= _of_nothing(table, taken, said)
    wanted = request.label_column
    one_hot = _one_hot(table, taken) if table.rows and table.named and not wanted else []
    if table.named:
        label = choose_labels(header, table.rows, wanted, taken, problems, said, bits=bool(one_hot))
    else:
        label = choose_unnamed(table.rows, len(header), taken, wanted, problems)
    if label.label:
        one_hot = []
    else:
        classes = [header[i].strip() for i in one_hot]
        problems += [
            f"the column {name!r} is there more than once; rename or remove one."
            for name in sorted({name for name in classes if classes.count(name) > 1})
        ]
    if not table.named and file is not None and label.label:
        parts = " + ".join(str(i + 1) for i in label.label)
        said.insert(
            0,
            f"no header: column {file + 1} is the file, column {parts} the label; "
            "data.header=true takes the first line as names.",
        )
    are_boxes = len(boxes) > 1 or bool(called(header, _WHOLE_BOXES))
    numbers = not table.named and len(header) - len(taken) > 4
    return CsvColumns(file, label, one_hot, splits, are_boxes or numbers, problems, said)


def is_usable(
    path: pathlib.Path,
    table: Table,
    columns: CsvColumns,
    request: Request,
    notes: Notes,
    *,
    alone: bool,
) -> bool:
    """Whether there are files and labels; says what was told by values, and what is wrong.

    Args:
        path: of the table, for sentences.
        table: all of it.
        columns: of it.
        request: settings that name columns.
        notes: get the sentences.
        alone: whether it is the only table, so that its own columns tell the splits.
    """
    problems = notes.problems
    problems.extend(f"{path}: {problem}" for problem in columns.problems)
    if alone and columns.split.doubt:
        problems.append(f"{path}: {columns.split.doubt}")
    if columns.file is None and not request.file_column:
        problems.append(f"{path}: {missing_column('file', table.header)}")
    if not columns.labelled and not request.label_column and not columns.is_asked:
        names = shares(table, columns)
        problems.append(
            f"{path}: the columns {first_three([repr(name) for name in names])} hold shares that "
            "make 1 in each row, and one class is learned for each image here: write 1 for it and "
            "0 for the others."
            if names
            else f"{path}: {missing_column('label', table.header)}"
        )
    notes.warnings.extend(f"{path}: {sentence}" for sentence in columns.said)
    return columns.file is not None and columns.labelled and not columns.is_asked


def _of_nothing(table: Table, taken: set[int], said: list[str]) -> set[int]:
    """Positions of columns without names that say nothing: blank, or one word on the split."""
    values = {i: {row[i].strip().upper() for row in table.rows} for i in range(len(table.header))}
    only = {i: inside.pop() for i, inside in values.items() if i not in taken and len(inside) == 1}
    found = {i for i, word in only.items() if word in ("", *_OF_NO_SPLIT)}
    said += [
        f"the column {table.header[i]!r} holds {only[i]} alone, which parts nothing."
        for i in sorted(found)
        if only[i]
    ]
    return found


def _label(header: list[str], request: Request) -> set[int]:
    """Positions of the columns that the user says are the label: they are no split."""
    parts = [request.label_column, *request.label_column.split("+")]
    wanted = {part.strip().lower() for part in parts} - {""}
    return {i for i, name in enumerate(header) if name.strip().lower() in wanted}


def bit(text: str) -> int | None:
    """0 or 1, as a cell of a column for a class has it; None if it is neither."""
    return _BITS.get(text.strip(BLANKS).lower())


def _one_hot(table: Table, taken: set[int]) -> list[int]:
    """Positions of columns of 0 and 1, as the first row has them; at least two."""
    rest = [i for i, name in enumerate(table.header) if not is_unnamed(name) and i not in taken]
    first = table.rows[0]
    is_one_hot = len(rest) > 1 and all(bit(first[i]) is not None for i in rest)
    return rest if is_one_hot else []


def shares(table: Table, columns: CsvColumns) -> list[str]:
    """Names of columns of fractions that make 1 in each row, as probabilities of classes do."""
    known = {columns.file, *columns.split.positions}
    rest = [i for i, name in enumerate(table.header) if not is_unnamed(name) and i not in known]
    try:
        sums = [sum(float(row[i]) for i in rest) for row in table.rows]
    except ValueError:
        return []
    is_one = len(rest) > 1 and bool(sums) and all(abs(each - 1) < 0.02 for each in sums)
    return [table.header[i].strip() for i in rest] if is_one else []


def _file(
    table: Table,
    header: list[str],
    wanted: str,
    any_called: Callable[[set[str]], bool],
    problems: list[str],
    said: list[str],
) -> int | None:
    """The position of the column of files."""
    if wanted:
        return wanted_column(table.header, wanted, "file", problems)
    some = table.rows[:_SAMPLE]

    def holds_images(position: int) -> bool:
        cells = [row[position].strip() for row in some]
        return any(map(is_image, cells)) and all(is_image(cell) for cell in cells if cell)

    for group in FILES:
        if fitting := called(header, group):
            telling = [i for i in fitting if holds_images(i)]
            if len(telling) == 1:
                return telling[0]
            if len(fitting) > 1:
                problems.append(several([header[i].strip() for i in fitting], "file"))
            return fitting[0]
    maybe = called(header, FILES_IF)
    for i in maybe:
        if holds_images(i):
            return i
    for i in maybe:
        if any_called({row[i].strip() for row in some} - {""}):
            return i
    telling = [i for i in range(len(header)) if holds_images(i)]
    if not telling and not table.named:
        telling = [
            i for i in range(len(header)) if any_called({row[i].strip() for row in some} - {""})
        ]
    if not telling:
        for i in maybe:  # 7 of `0007.jpg`: what a spreadsheet leaves of a number
            if any_called(_padded({row[i].strip() for row in some} - {""})):
                return i
    if not telling and table.named:
        telling = [
            i
            for i in range(len(header))
            if plain(header[i]).endswith(_OF_FILES)
            and any_called({row[i].strip() for row in some} - {""})
        ]
    if len(telling) > 1:
        problems.append(several([table.header[i].strip() for i in telling], "file"))
    if telling and table.named:
        said.append(
            f"the files are read from the column {header[telling[0]].strip()!r}, which holds names "
            "of images; data.file_column=NAME takes another."
        )
    return telling[0] if telling else None


def _padded(numbers: set[str]) -> set[str]:
    """Whole numbers with the zeros before them that names of files may have."""
    if not all(re.fullmatch(r"[0-9]{1,12}", number) for number in numbers):
        return set()
    return {number.zfill(width) for number in numbers for width in range(2, 13)} - numbers
