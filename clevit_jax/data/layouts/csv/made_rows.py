"""Rows of tables, once their columns are known: the names of their files, levels, boxes and folds.

Tables are those of CSV files, of metadata and of JSON lists alike.
"""

import pathlib
import re
import types
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from clevit_jax.data.layouts import table
from clevit_jax.data.layouts.csv.csv_cells import Label, RowProblems
from clevit_jax.data.layouts.csv.csv_columns import CsvColumns
from clevit_jax.data.layouts.csv.csv_form import Table
from clevit_jax.data.layouts.csv.split_columns import fold_of
from clevit_jax.data.layouts.listing import Contents, Folds, Notes, first_three, points_out

_LITTER = re.compile(r"(^|[\\/])(\.DS_Store|\._[^\\/]*|Thumbs\.db|desktop\.ini)\s*$", re.IGNORECASE)
_NO_FOLDS: Mapping[str, int] = types.MappingProxyType({})


class Read(NamedTuple):
    """What a table says.

    Attributes:
        rows: of the images.
        levels: names of the coarser levels that the rows' groups are of.
        folds: file -> its fold, from 0; empty where no column tells them.
        fold_column: name of that column.
    """

    rows: list[table.TableRow]
    levels: tuple[str, ...] = ()
    folds: Mapping[str, int] = _NO_FOLDS
    fold_column: str = ""


def named_files(
    whole: Table, file: int, labels: Sequence[Label], problems: RowProblems, notes: Notes
) -> list[str]:
    """The file of each row as it is written; "" where the row is left out, or names none.

    Args:
        whole: the table.
        file: position of its column of files.
        labels: of the rows.
        problems: gets the rows without a file.
        notes: gets a warning on files that a system leaves behind.
    """
    names, litter = list[str](), list[str]()
    for line, row, label in zip(whole.lines, whole.rows, labels, strict=True):
        name = row[file]
        if label.is_left_out:
            name = ""
        elif not name.strip():
            problems.add(line, "the file is empty.", "{n} rows have no file")
            name = ""
        elif _LITTER.search(name):
            litter.append(name)
            name = ""
        names.append(name)
    if litter:
        notes.warnings.append(
            f"{problems.path}: {len(litter):,} row(s) are of files that a system leaves behind, "
            f"and are passed over ({first_three([repr(name) for name in litter])})."
        )
    return names


def made_rows(
    whole: Table,
    columns: CsvColumns,
    splits: Sequence[str | None],
    labels: Sequence[Label],
    files: Sequence[str],
    root: pathlib.Path,
    problems: RowProblems,
    notes: Notes,
) -> Read:
    """The rows that have all that is needed.

    Args:
        whole: the table.
        columns: of it.
        splits, labels, files: of each row; None and "" where there is none. Files are relative to
            the root.
        root: of the data set.
        problems: says where each row is.
        notes: get what is said of boxes.
    """
    levels = columns.label.levels
    groups = list(zip(*([row[i].strip() for row in whole.rows] for i in levels), strict=True))
    rows, kept = list[table.TableRow](), list[int]()
    for at, (line, split, label, file) in enumerate(
        zip(whole.lines, splits, labels, files, strict=True)
    ):
        if not label.text or split is None or not file or points_out(file):
            continue
        where = problems.where(line)
        inside = groups[at] if groups else ()
        rows.append(
            table.TableRow(where, split, label.text, label.class_name, root / file, file, inside)
        )
        kept.append(at)
    fold = columns.split.fold
    numbers = {text: k for k, text in enumerate(columns.split.folds)}
    folds = dict[str, int]()
    if fold is not None:
        folds = {files[at]: numbers[fold_of(whole.rows[at][fold])] for at in kept}
    if columns.boxes:
        rows = _one_each(problems.path, rows, notes)
    names = tuple(whole.header[i].strip() for i in levels)
    return Read(rows, names, folds, "" if fold is None else whole.header[fold].strip())


def _one_each(path: pathlib.Path, rows: list[table.TableRow], notes: Notes) -> list[table.TableRow]:
    """Rows of boxes, without those that say the same of an image as one before."""
    labels: dict[str, set[str]] = {}
    for row in rows:
        labels.setdefault(row.name, set()).add(row.label)
    mixed = {name: inside for name, inside in labels.items() if len(inside) > 1}
    if mixed:
        name, inside = next(iter(mixed.items()))
        kinds = " and ".join(map(repr, sorted(inside)[:2]))
        notes.problems.append(
            f"{path}: {len(mixed):,} of {len(labels):,} images have boxes of several classes "
            f"({name!r}: {kinds}), and one class is learned for each image here: cut the boxes "
            "out into images of their own, or remove the other rows."
        )
        rows = [row for row in rows if row.name not in mixed]
    once = list({(row.name, row.split, row.label): row for row in reversed(rows)}.values())
    if len(once) < len(rows):
        notes.warnings.append(
            f"{path}: its {len(rows):,} rows are boxes in {len(once):,} images; each image "
            "counts once, whole."
        )
    return once[::-1]


def joined(said: Sequence[Read]) -> tuple[list[table.TableRow], tuple[str, ...]]:
    """The rows of several tables, and the levels of the first, which are those of all classes.

    Rows of a table that has other levels tell no groups.
    """
    levels = said[0].levels if said else ()
    rows = list[table.TableRow]()
    for each in said:
        is_alike = each.levels == levels
        rows += each.rows if is_alike else [row._replace(groups=()) for row in each.rows]
    return rows, levels


def with_folds(contents: Contents, said: Sequence[Read], notes: Notes) -> Contents:
    """Contents with the folds of the training table, where no split is for testing."""
    of = {file: fold for each in said for file, fold in each.folds.items()}
    columns = [each.fold_column for each in said if each.fold_column]
    if not of or "test" in contents.splits:
        if columns:
            notes.warnings.append(
                f"the column {columns[0]!r} tells folds, which are not read: there is a test split."
            )
        return contents
    return contents._replace(folds=Folds(columns[0], of))
