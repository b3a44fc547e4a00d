"""What fields beside images tell of them, by the rules for the columns of CSV tables."""

import itertools
import pathlib
from collections.abc import Callable, Sequence
from typing import NamedTuple

from clevit_jax.data.layouts.columns import missing_column
from clevit_jax.data.layouts.csv import csv_columns
from clevit_jax.data.layouts.csv.csv_cells import Label, RowProblems, labels_of, splits_of
from clevit_jax.data.layouts.csv.csv_form import Table
from clevit_jax.data.layouts.csv.split_columns import fold_of
from clevit_jax.data.layouts.listing import Notes, Request


class Told(NamedTuple):
    """What is told of an image; "" for nothing.

    Attributes:
        label: as it is written.
        class_name: the name that goes with it.
        split: of the image.
        groups: the coarser classes, the coarsest first.
        fold: number of its fold, from 0; None where no field tells it.
    """

    label: str = ""
    class_name: str = ""
    split: str = ""
    groups: tuple[str, ...] = ()
    fold: int | None = None


class Labels(NamedTuple):
    """The labels of a data set.

    Attributes:
        told: of each image, in their order.
        levels: names of the coarser levels that the groups are of.
        fold_column: name of the field that tells the folds; "" without one.
        label_column: name of the field that is the label; "" where it is none, or several.
    """

    told: list[Told]
    levels: tuple[str, ...] = ()
    fold_column: str = ""
    label_column: str = ""


def tell(
    table: Table,
    root: pathlib.Path,
    places: Sequence[str],
    where: str,
    named: Sequence[str],
    request: Request,
    any_called: Callable[[set[str]], bool],
    notes: Notes,
    given: Sequence[str] | None = None,
) -> Labels | None:
    """Finds out which fields tell what, and reads them; None, and a problem, where no label is.

    A row without a label is not said: it may be an image to be told.

    Args:
        table: of all images, one a row; its lines are positions in `places`.
        root: the data set, for sentences.
        places: file and row of each image below it.
        where: goes before the sentences on columns.
        named: all fields, for the sentence that none holds the label.
        request: its `label_column` and `split_column` go first, where given.
        any_called: whether an image has one of some names, so that such a column is no label.
        notes: get what is wrong, and what is told by values alone.
        given: splits of the images, "" for none, where no field tells one.
    """
    columns = csv_columns.choose(table, request, any_called, files=False)
    notes.problems.extend(f"{where} {problem}" for problem in columns.problems)
    notes.warnings.extend(f"{where} {sentence}" for sentence in columns.said)
    if not columns.labelled and not columns.problems:
        notes.problems.append(f"{where} {missing_column('label', named)}")
    if not columns.labelled or columns.problems:
        return None
    problems = RowProblems(root, places, below=True)
    splits = splits_of(table, columns.split, "", problems, alone=True)
    one_hot = {table.header[i]: number for number, i in enumerate(columns.one_hot)}
    of_labels = problems if one_hot else RowProblems(root, places, below=True)
    labels = labels_of(root, table, columns, splits, one_hot, of_labels, Notes([], []))
    if columns.label.class_name is not None:
        _note_nameless(labels, problems)
    notes.problems.extend(problems.in_order())
    levels, fold = columns.label.levels, columns.split.fold
    numbers = {text: k for k, text in enumerate(columns.split.folds)}
    groups = [tuple(row[i] for i in levels) for row in table.rows] if levels else None
    folds = None if fold is None else [numbers.get(fold_of(row[fold])) for row in table.rows]
    told = [
        Told(text, class_name, split or other, group, number)
        for (text, class_name, _), split, other, group, number in zip(
            labels,
            splits,
            itertools.repeat("") if given is None else given,
            itertools.repeat(()) if groups is None else groups,
            itertools.repeat(None) if folds is None else folds,
            strict=False,
        )
    ]
    alone = columns.label.label if len(columns.label.label) == 1 else ()
    return Labels(
        told,
        tuple(table.header[i] for i in levels),
        "" if fold is None else table.header[fold],
        *(table.header[i] for i in alone),
    )


def _note_nameless(labels: Sequence[Label], problems: RowProblems) -> None:
    """Notes the rows that have a label without the name that goes with it."""
    for line, label in enumerate(labels):
        if label.text and not label.class_name:
            problems.add(line, "the class name is empty.", "{n} rows have no class name")
