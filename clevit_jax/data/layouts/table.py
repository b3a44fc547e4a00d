"""What tables share, be they CSV or Parquet: which column is which, and rows to examples."""

import itertools
import pathlib
import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from clevit_jax.data.dataset import Example, Stored, split_called
from clevit_jax.data.layouts.listing import Found, Notes, Request, in_order

# Names of columns without capitals, blanks, `_` and `-`; the earlier group is the better fit.
_FILES = (
    ("file", "filename", "filepath", "path", "imagepath", "imgpath", "imagefile", "dir"),
    ("image", "img", "imagename", "imgname", "imageid", "imgid"),
)
_LABELS = (
    (
        "label",
        "labels",
        "labelid",
        "class",
        "classid",
        "classlabel",
        "category",
        "categoryid",
        "target",
        "species",
        "cultivar",
    ),
)
_CLASS_NAMES = (("classname",), ("labelname",), ("categoryname",), ("speciesname",))
_SPLITS = (("split", "subset", "set"),)
_WHOLE = re.compile(r"(-?[0-9]{1,18})(\.0*)?")


class Columns(NamedTuple):
    """Positions of the columns that say something; None where there is none.

    Attributes:
      file: of the image's file.
      label: of the class: its number, or its name.
      class_name: of the name that goes with the label; only where there is a label, too.
      split: of train, val or test.
    """

    file: int | None
    label: int | None
    class_name: int | None
    split: int | None


class TableRow(NamedTuple):
    """A row of a table, checked as far as it can be without the others.

    Attributes:
      where: the table and the line or row, for sentences.
      split: "train", "val" or "test".
      label: as it is written, not empty.
      class_name: the name that goes with the label; "" if the table has none.
      data, name: as in `Example`.
    """

    where: str
    split: str
    label: str
    class_name: str
    data: pathlib.Path | bytes | Stored
    name: str


def split_of(text: str) -> str | None:
    """'train', 'val' or 'test', as which `text` is meant; None if it is none of them."""
    return split_called(text.strip())


def listed(names: Iterable[str]) -> str:
    """Names, quoted, for a sentence."""
    return ", ".join(repr(name) for name in names) or "none"


def absent(what: str, header: Sequence[str]) -> str:
    """A sentence for a table that has no column of files, or none of labels.

    Args:
      what: "file" or "label".
      header: names of the columns that there are.
    """
    return (
        f"no column is known to hold the {what}, of {listed(header)}; "
        f"set data.{what}_column to one of them."
    )


def choose(
    header: Sequence[str], request: Request, *, files: bool = True
) -> tuple[Columns, list[str]]:
    """Finds out by their names which columns are which.

    Args:
      header: names of the columns; "" for one that is not to be chosen.
      request: its `file_column` and `label_column` are taken instead, where given.
      files: whether images are files; else their names matter little, and are not chosen in doubt.

    Returns:
      The columns, and a sentence for each choice that cannot be made. A column that is not there is
      none of them unless the request names it: whether it is needed, the reader knows.
    """
    problems: list[str] = []
    wanted = request.file_column if files else ""
    file = _pick(header, _FILES, "file", wanted, problems if files else [])
    label = _pick(header, _LABELS, "label", request.label_column, problems)
    name = _pick(header, _CLASS_NAMES, "class name", "", problems)
    if label is None and not request.label_column:
        label = name
    split = _pick(header, _SPLITS, "split", "", problems)
    return Columns(file, label, None if name == label else name, split), problems


def _pick(
    header: Sequence[str],
    groups: Sequence[Sequence[str]],
    what: str,
    wanted: str,
    problems: list[str],
) -> int | None:
    """The position of a column, `wanted` or of the first group that has any."""
    names = [name.strip() for name in header]
    if wanted:
        tries = [[i for i, name in enumerate(names) if name == wanted.strip()]]
        tries.append([i for i, name in enumerate(names) if name.lower() == wanted.strip().lower()])
    else:
        plain = [re.sub(r"[\s_-]+", "", name).lower() for name in names]
        tries = [[i for i, name in enumerate(plain) if name in group] for group in groups]
    fitting = next(filter(None, tries), [])
    if wanted and not fitting:
        problems.append(
            f"there is no column {wanted!r}, only {listed(filter(None, names))}; set "
            f"data.{what}_column to one of them."
        )
    if len(fitting) > 1:
        same = [names[i] for i in fitting]
        settable = what in ("file", "label") and len(set(same)) == len(same)
        mend = f"set data.{what}_column to one of them" if settable else "rename or remove one"
        problems.append(f"the columns {listed(same)} may all hold the {what}; {mend}.")
    return fitting[0] if fitting else None


def found(rows: Sequence[TableRow], where: str, notes: Notes) -> Found:
    """Numbers the labels of a table and parts its rows into splits.

    Classes are those of the training rows: in the order of their labels, which is that of numbers
    where all are integers (`1.0` counts as `1`). Without `test`, `val` is taken as the test split,
    as in class folders. A split of which there is no row is not in the result.

    Args:
      rows: of all tables of the data set.
      where: the data set, for sentences.
      notes: gets a problem for each file with two labels, label that no training row has, and class
        name that goes with two labels or the other way round; and a warning if integers have gaps.
    """
    if not any(row.split == "train" for row in rows):
        if not notes.problems:  # it may only follow from what is wrong already
            notes.problems.append(f"{where} lists no image for training.")
        return Found((), {"train": []})
    rows = _whole_labels(rows)
    labels = in_order(row.label for row in rows if row.split == "train")
    numbers = {label: number for number, label in enumerate(labels)}
    _check_files(rows, notes)
    names = _check_class_names(rows, notes)
    _warn_of_gaps(labels, where, notes)
    splits: dict[str, list[Example]] = {"train": []}
    for row in rows:
        if row.label not in numbers:
            notes.problems.append(f"{row.where}: no training image has the label {row.label!r}.")
            continue
        example = Example(row.data, numbers[row.label], 0, row.name)
        splits.setdefault(row.split, []).append(example)
    if "test" not in splits and "val" in splits:
        splits["test"] = splits.pop("val")
    return Found(tuple(names.get(label, label) for label in labels), splits)


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
                f"{row.where}: {row.name!r} has label {row.label!r} here but label "
                f"{before.label!r} at {before.where}."
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
