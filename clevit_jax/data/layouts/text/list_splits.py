"""Splits that lists tell otherwise than by their names: a column, or a list of files alone."""

import pathlib
from collections.abc import Mapping

from clevit_jax.data.layouts.columns import unread_folds
from clevit_jax.data.layouts.csv.split_columns import choose_splits, split_by_flags
from clevit_jax.data.layouts.listing import Notes, Request
from clevit_jax.data.layouts.text.list_folders import class_folders
from clevit_jax.data.layouts.text.list_rows import Family, Row
from clevit_jax.errors import Repeated

_Fields = tuple[str, ...]


def completed(family: Family, notes: Notes) -> Family:
    """The lists of a family with the rows of those that have no labels, where others tell these.

    The files of such a list may all be in the list for training, which is one of all images then;
    or they lie in folders that have one label each there. Otherwise the list is left out, and it
    is said.
    """
    for path, rows in family.unlabelled:
        aside = {row.file: row for row in rows}
        trained = [row for row in family.rows if row.split == "train"]
        left = [row for row in trained if row.file not in aside]
        if rows and left and len(trained) - len(left) == len(aside):
            family = family._replace(
                rows=[
                    row._replace(split=aside[row.file].split)
                    if row.split == "train" and row.file in aside
                    else row
                    for row in family.rows
                ]
            )
            notes.warnings.append(
                f"{path} has no labels: its {len(aside):,} images have theirs from the list of "
                "all, and are not trained on."
            )
        elif rows and (told := _by_folder(trained, rows)) is not None:
            family = family._replace(rows=[*family.rows, *told])
            notes.warnings.append(
                f"{path} has no labels: its {len(rows):,} images have those of their folders."
            )
        elif rows:
            notes.warnings.append(f"{path} has no labels; its {len(rows):,} images are left out.")
    return family


def _by_folder(trained: list[Row], rows: list[Row]) -> list[Row] | None:
    """The rows with the labels of their folders; None where these do not tell them."""
    both = [*trained, *rows]
    folders = class_folders([row.inner for row in both], [row.split for row in both])
    fields: dict[_Fields, _Fields] = {}
    for folder, row in zip(folders, trained, strict=False):
        if fields.setdefault(folder, row.fields) != row.fields:
            return None
    wanted = folders[len(trained) :]
    if () in fields or len(set(fields.values())) < max(2, len(fields)):
        return None
    if not all(folder in fields for folder in wanted):
        return None
    return [row._replace(fields=fields[folder]) for row, folder in zip(rows, wanted, strict=True)]


def parted(root: pathlib.Path, family: Family, request: Request, notes: Notes) -> Family:
    """A list of all images, parted by the column that tells the split; others as they are."""
    if len(family.columns) < 2 or any(row.split != "train" for row in family.rows):
        return family
    problems, said = list[str](), list[str]()
    fields = [row.fields for row in family.rows]
    told = choose_splits(family.columns, fields, request.split_column, set(), problems, said)
    notes.problems.extend(f"{root}: {problem}" for problem in problems)
    notes.warnings.extend(f"{root}: {sentence}" for sentence in said)
    if told.word is None and not told.flags:
        if told.fold is not None or told.doubt:
            notes.warnings.append(f"{root}: {unread_folds(family.columns)}")
        return family
    kept = [i for i in range(len(family.columns)) if i not in told.positions]
    rows = list[Row]()
    for row in family.rows:
        split = _split_of(row, told.word, told.words, told.flags)
        if split is None:
            notes.problems.append(
                Repeated(
                    f"{row.where}: nothing says whether {row.file!r} is for training or testing.",
                    rule=f"{root}: {{n}} images are of no split; write train, val or test",
                    item=row.where,
                )
            )
            continue
        rows.append(row._replace(split=split, fields=tuple(row.fields[i] for i in kept)))
    return family._replace(columns=tuple(family.columns[i] for i in kept), rows=rows)


def _split_of(
    row: Row, word: int | None, words: Mapping[str, str], flags: Mapping[int, str]
) -> str | None:
    if word is None:
        return split_by_flags(flags, row.fields)
    return words.get(row.fields[word].strip())
