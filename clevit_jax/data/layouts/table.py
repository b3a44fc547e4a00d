"""Rows of tables, be they CSV, Parquet or lists of text, to numbered labels and splits."""

import itertools
import pathlib
import re
import unicodedata
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from clevit_jax.data.dataset import Example, Level, StoredImage
from clevit_jax.data.layouts.listing import Contents, Notes, first_three, in_order
from clevit_jax.errors import Repeated

_MARKS = (",", ";", "|", "+", "&", "/", " ")  # between the classes of a label of several
_WHOLE = re.compile(r"(-?[0-9]{1,18})(\.0*)?")
# Labels that may say that there is none; `nan` and the like are refused as that.
_NO_CLASS = frozenset(
    [
        *("?", "??", "???", "-", "--", "none", "unknown", "unk", "undefined", "unlabeled"),
        *("unlabelled", "no label", "no_label", "not labeled", "tbd", "todo", "missing", "empty"),
        *("#ref!", "#value!", "#name?", "#div/0!", "#num!"),
    ]
)
_ZEROS = re.compile(r"0*([0-9]+)(?:\.0*)?")  # a number, whatever zeros it is written with


class TableRow(NamedTuple):
    """A row of a table, checked as far as it can be without the others.

    Attributes:
        where: the table and the line or row, for sentences.
        split: "train", "val" or "test".
        label: as it is written, not empty.
        class_name: the name that goes with the label; "" if the table has none.
        data, name: as in `Example`.
        groups: the coarser classes that it is in, the coarsest first; one for each of the levels,
            or none where the row's table does not tell them.
    """

    where: str
    split: str
    label: str
    class_name: str
    data: pathlib.Path | bytes | StoredImage
    name: str
    groups: tuple[str, ...] = ()


def to_contents(
    rows: Sequence[TableRow],
    where: str,
    notes: Notes,
    *,
    levels: Sequence[str] = (),
    ids: bool = False,
) -> Contents:
    """Numbers the labels of a table and parts its rows into splits.

    Classes are those of the training rows: in the order of their labels, which is that of numbers
    where all are integers (`1.0` counts as `1`). Without `test`, `val` is taken as the test split,
    as in class folders. A split of which there is no row is not in the result.

    Args:
        rows: of all tables of the data set.
        where: the data set, for sentences.
        notes: gets a problem for each file with two labels, for each label that no training row
            has, and for each class name that goes with two labels or the other way round; and a
            warning if integers have gaps.
        levels: names of the coarser levels that the rows' `groups` are of. A level in which a class
            is in two groups is left out, with a warning.
        ids: whether labels are ids from a list of classes, where gaps say nothing.
    """
    if not any(row.split == "train" for row in rows):
        if not notes.problems:  # it may only follow from what is wrong already
            notes.problems.append(f"{where} lists no image for training.")
        return Contents((), {"train": []})
    rows = _whole_labels(_one_form(rows))
    labels = in_order(row.label for row in rows if row.split == "train")
    numbers = {label: number for number, label in enumerate(labels)}
    _check_files(rows, notes)
    names = _check_class_names(rows, notes)
    if not ids:
        _warn_of_gaps(labels, where, notes)
        _warn_of_none(rows, labels, where, notes)
    splits: dict[str, list[Example]] = {"train": []}
    for row in rows:
        if row.label not in numbers:
            notes.problems.append(
                Repeated(
                    f"{row.where}: no training image has the label {row.label!r}.",
                    rule="{n} rows have a label that no training image has; add training images of "
                    "these classes, or remove the rows",
                    item=f"{row.where}: {row.label!r}",
                )
            )
            continue
        example = Example(row.data, numbers[row.label], 0, row.name)
        splits.setdefault(row.split, []).append(example)
    if "test" not in splits and "val" in splits:
        splits["test"] = splits.pop("val")
    class_names = tuple(names.get(label, label) for label in labels)
    _warn_of_one_tested(rows, labels, where, notes)
    _warn_of_no_class(class_names, splits["train"], where, notes)
    _warn_of_alike(class_names, where, notes)
    _warn_of_several(class_names, where, notes)
    return Contents(class_names, splits, _levels(rows, numbers, class_names, levels, where, notes))


def _levels(
    rows: Sequence[TableRow],
    numbers: Mapping[str, int],
    class_names: Sequence[str],
    levels: Sequence[str],
    where: str,
    notes: Notes,
) -> tuple[Level, ...]:
    """The levels in which each class is in one group; of one group in all, there is no level."""
    made = list[Level]()
    for position, level in enumerate(levels):
        groups: dict[int, set[str]] = {label: set() for label in numbers.values()}
        for row in rows:
            if row.label in numbers and row.groups:
                groups[numbers[row.label]].add(row.groups[position])
        mixed = next((label for label, inside in groups.items() if len(inside) > 1), None)
        if mixed is not None:
            shown = " and ".join(map(repr, sorted(groups[mixed])[:2]))
            notes.warnings.append(
                f"{where}: {level!r} is no coarser level of the classes: {class_names[mixed]!r} "
                f"is in {shown}."
            )
        elif len(set().union(*groups.values())) > 1:
            made.append(Level(level, tuple(next(iter(inside)) for inside in groups.values())))
    return tuple(made)


def _one_form(rows: Sequence[TableRow]) -> Sequence[TableRow]:
    """Makes one label of those that differ in how Unicode writes accents, as two systems do."""
    forms: dict[str, set[str]] = {}
    for label in {row.label for row in rows}:
        if not label.isascii():
            forms.setdefault(unicodedata.normalize("NFC", label), set()).add(label)
    plain = {label: form for form, labels in forms.items() if len(labels) > 1 for label in labels}
    if not plain:
        return rows
    return [row._replace(label=plain.get(row.label, row.label)) for row in rows]


def _warn_of_alike(class_names: Sequence[str], where: str, notes: Notes) -> None:
    """Warns of classes whose names differ in nothing but capitals, blanks, `_`, `-` and zeros."""
    alike: dict[str, list[str]] = {}
    for name in dict.fromkeys(class_names):
        folded = unicodedata.normalize("NFKC", name).casefold()
        plain = re.sub(r"(?<!^)[\s_-]+", " ", folded).strip()
        number = _ZEROS.fullmatch(plain)
        alike.setdefault(number[1] if number else plain, []).append(name)
    groups = [" and ".join(map(repr, names)) for names in alike.values() if len(names) > 1]
    if groups:
        numbers = all(map(_ZEROS.fullmatch, (key for key, names in alike.items() if names[1:])))
        what = "the zeros of numbers" if numbers else "capitals or blanks"
        notes.warnings.append(
            f"{where}: class names differ only in {what} ({first_three(groups)}); they "
            "count as classes of their own. Write them alike if they are one."
        )


def _warn_of_several(class_names: Sequence[str], where: str, notes: Notes) -> None:
    """Warns of classes that are others put together, as `scab rust` or `0,2`."""
    known = set(class_names)
    several = list[str]()
    for name in class_names:
        for mark in _MARKS:
            parts = [part.strip() for part in name.split(mark)] if mark in name else []
            if len(set(parts)) > 1 and known.issuperset(parts):
                several.append(name)
                break
    if several:
        count = "1 class is" if len(several) == 1 else f"{len(several):,} classes are"
        notes.warnings.append(
            f"{where}: {count} others put together ({first_three(list(map(repr, several)))}), and "
            "each counts as a class of its own: an image has one class here. If that is not meant, "
            "keep one label for each image, or leave these images out."
        )


def _whole_labels(rows: Sequence[TableRow]) -> Sequence[TableRow]:
    """Takes the `.0` off labels that are whole numbers, as some programs write all numbers."""
    whole = {label: _WHOLE.fullmatch(label) for label in {row.label for row in rows}}
    texts = {label: match[1] for label, match in whole.items() if match}
    if len(texts) < len(whole) or all(label == text for label, text in texts.items()):
        return rows
    return [row._replace(label=texts[row.label]) for row in rows]


def _check_files(rows: Sequence[TableRow], notes: Notes) -> None:
    first: dict[str, TableRow] = {}
    for row in rows:
        before = first.setdefault(row.name, row)
        if before.label != row.label:
            notes.problems.append(
                Repeated(
                    f"{row.where}: {row.name!r} has label {row.label!r} here but label "
                    f"{before.label!r} at {before.where}.",
                    rule="{n} rows give a file another label than a row before; an image has one "
                    "class here, so remove all rows but one of each file",
                    item=f"{row.where}: {row.name!r} is {row.label!r} and {before.label!r}",
                )
            )


def _check_class_names(rows: Sequence[TableRow], notes: Notes) -> dict[str, str]:
    """Label -> class name, which must be one to one."""
    first: dict[tuple[str, str], TableRow] = {}
    for row in rows:
        if row.class_name:
            first.setdefault((row.label, row.class_name), row)
    by_label: dict[str, TableRow] = {}
    by_name: dict[str, TableRow] = {}
    for row in first.values():
        before = by_label.setdefault(row.label, row)
        if before.class_name != row.class_name:
            notes.problems.append(
                f"{row.where}: label {row.label!r} has the class name {row.class_name!r} here but "
                f"{before.class_name!r} at {before.where}."
            )
        before = by_name.setdefault(row.class_name, row)
        if before.label != row.label:
            notes.problems.append(
                f"{row.where}: the class name {row.class_name!r} goes with label {row.label!r} "
                f"here but with label {before.label!r} at {before.where}."
            )
    return {label: row.class_name for label, row in by_label.items()}


def _warn_of_none(
    rows: Sequence[TableRow], labels: Sequence[str], where: str, notes: Notes
) -> None:
    """Warns of -1 among numbers from 0 or 1, which often stands for no label."""
    if "-1" not in labels or len(labels) < 3 or not all(map(_WHOLE.fullmatch, labels)):
        return
    count, others = sum(row.label == "-1" for row in rows), len(labels) - 1
    notes.warnings.append(
        f"{where}: {count:,} image(s) have the label -1, which counts as a class beside {others:,} "
        "others; if it stands for no label, remove these rows."
    )


def _warn_of_one_tested(
    rows: Sequence[TableRow], labels: Sequence[str], where: str, notes: Notes
) -> None:
    """Warns where all test images have one label, which may but fill the column."""
    tested = [row.label for row in rows if row.split == "test"]
    if len(tested) > 2 and len(labels) > 1 and set(tested) == {tested[0]}:
        said = f"all {len(tested):,} test images have the label {tested[0]!r}"
        if tested[0] in labels and not any(said in each for each in notes.warnings):
            notes.warnings.append(
                f"{where}: {said}; if it only fills the column, take the table of the test split "
                "away."
            )


def _warn_of_no_class(
    class_names: Sequence[str], train: Sequence[Example], where: str, notes: Notes
) -> None:
    """Warns of classes whose names often say that an image has none."""
    odd = [label for label, name in enumerate(class_names) if name.strip().lower() in _NO_CLASS]
    for label in odd:
        count = sum(example.label == label for example in train)
        notes.warnings.append(
            f"{where}: {class_names[label]!r} counts as a class, with {count:,} image(s); if it "
            "stands for no label, remove these rows."
        )


def _warn_of_gaps(labels: Sequence[str], where: str, notes: Notes) -> None:
    numbers = {int(match[1]) for label in labels if (match := _WHOLE.fullmatch(label))}
    if len(numbers) < len(labels):  # the labels are texts
        return
    low, high = min(1, *numbers), max(numbers)
    missing = high + 1 - low - len(numbers)
    if missing:
        some = itertools.islice((i for i in range(low, high + 1) if i not in numbers), 3)
        shown = ", ".join(map(str, some)) + (", ..." if missing > 3 else "")
        notes.warnings.append(
            f"{where}: {missing} of the labels {low} to {high} have no training image ({shown}); "
            f"the others are numbered in their order, from 0 to {len(labels) - 1}."
        )
