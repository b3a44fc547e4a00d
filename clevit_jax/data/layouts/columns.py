"""Columns of a table, be it CSV or Parquet, recognised by their names."""

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from clevit_jax.data.layouts.listing import Request
from clevit_jax.data.split_names import split_called

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


def split_of(text: str) -> str | None:
    """The split that `text` means: 'train', 'val' or 'test'; None if it means none of them."""
    return split_called(text.strip())


def quoted_names(names: Iterable[str]) -> str:
    """Names, quoted, for a sentence."""
    return ", ".join(repr(name) for name in names) or "none"


def missing_column(what: str, header: Sequence[str]) -> str:
    """A sentence for a table that has no column of files, or none of labels.

    Args:
        what: "file" or "label".
        header: names of the columns that there are.
    """
    return (
        f"no column is known to hold the {what}, of {quoted_names(header)}; "
        f"set data.{what}_column to one of them."
    )


def choose_columns(
    header: Sequence[str], request: Request, *, files: bool = True
) -> tuple[Columns, list[str]]:
    """Finds out by their names which columns are which.

    Args:
        header: names of the columns; "" for one that is not to be chosen.
        request: its `file_column` and `label_column` are taken instead, where given.
        files: whether images are files; else their names matter little, and a column of them is not
            chosen in doubt.

    Returns:
        The columns, and a sentence for each choice that cannot be made. That a column is not there
        is a problem only where the request names it: the reader knows whether it needs one.
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
            f"there is no column {wanted!r}, only {quoted_names(filter(None, names))}; set "
            f"data.{what}_column to one of them."
        )
    if len(fitting) > 1:
        same = [names[i] for i in fitting]
        settable = what in ("file", "label") and len(set(same)) == len(same)
        mend = f"set data.{what}_column to one of them" if settable else "rename or remove one"
        problems.append(f"the columns {quoted_names(same)} may all hold the {what}; {mend}.")
    return fitting[0] if fitting else None
