"""Which of a list's columns is the class, and which are coarser levels of it."""

import re
from collections.abc import Sequence
from typing import NamedTuple

from clevit_jax.data.layouts.columns import choose_columns
from clevit_jax.data.layouts.listing import Request
from clevit_jax.data.layouts.text.list_lines import whole

_ROW_ID = re.compile(r"(image|img|row|file|photo)?[ _-]?(id|index|idx|no|number|#)", re.IGNORECASE)
_MANY = 10  # images of which each has another label
_DECIMAL = re.compile(r"[-+]?[0-9]*\.[0-9]+")


class Choice(NamedTuple):
    """Positions of columns.

    Attributes:
        label: of the class.
        name: of the name that goes with the label; None if there is none.
        levels: of the coarser levels, the coarsest first.
    """

    label: int
    name: int | None
    levels: list[int]


def choose(
    columns: Sequence[str],
    values: Sequence[Sequence[str]],
    wanted: str,
    *,
    rows_first: bool,
    apart: bool,
) -> Choice | str:
    """Which column is the class: the one that tells all the others.

    Args:
        columns: their names, at least one.
        values: of each column, for each of the training images.
        wanted: the column that the user names, or its number; "" for none.
        rows_first: whether the first column may number the rows, as where the file stands last.
        apart: whether each image has a folder, and so perhaps a class, of its own.

    Returns:
        The choice, or a question.
    """
    measures = [bool(column) and all(map(_DECIMAL.fullmatch, column)) and
                not all(map(whole, column)) for column in values]  # fmt: skip
    usable = [i for i in range(len(columns)) if not measures[i]]
    if wanted:
        return _wanted(columns, values, wanted, usable)
    if len(usable) > 1:
        usable = [i for i in usable if not _numbers_rows(columns[i], values[i], i, rows_first)]
    if not usable:
        shown = ", ".join(map(repr, columns))
        return f"none of the columns {shown} looks like a class; set data.label_column to one."
    if len(usable) == 1 and not apart and len(set(values[usable[0]])) == len(values[0]) >= _MANY:
        return (
            f"each of the {len(values[0]):,} training images has another label "
            f"({columns[usable[0]]}), as {values[usable[0]][0][:60]!r}, so it is no class; write "
            "the class after each file."
        )
    telling = [i for i in usable if all(_tells(values[i], values[j]) for j in usable)]
    told, problems = choose_columns([columns[i] for i in usable], Request(), files=False)
    if told.label is not None and not problems:
        return _with_rest(usable[told.label], usable, values)
    # What is another thing in each row may number these as well; a column with a name does not.
    single = [
        i
        for i in telling
        if not apart
        and columns[i].startswith("column ")
        and len(set(values[i])) == len(values[i]) > 1
    ]
    if not telling or (single and len(telling) < len(usable)):
        ways = "; ".join(
            f"data.label_column={_shown(columns[i])}: {len(set(values[i])):,} classes"
            for i in usable
        )
        return f"more than one column may be the class; choose one of them. {ways}."
    return _with_rest(telling[0], usable, values)


def _wanted(
    columns: Sequence[str], values: Sequence[Sequence[str]], wanted: str, usable: Sequence[int]
) -> Choice | str:
    """The column that the user names."""
    column = wanted.strip().lower()
    calls = [(name.lower(), name.lower().removeprefix("column ")) for name in columns]
    named = [i for i, names in enumerate(calls) if column in names]
    if not named:
        shown = ", ".join(map(repr, columns))
        return f"there is no column {wanted!r}, only {shown}; set data.label_column."
    return _with_rest(named[0], usable, values)


def _numbers_rows(name: str, values: Sequence[str], position: int, rows_first: bool) -> bool:
    """Whether a column but numbers the rows."""
    if len(set(values)) < len(values):
        return False
    return bool(_ROW_ID.fullmatch(name)) or (
        rows_first and position == 0 and all(map(whole, values))
    )


def _with_rest(label: int, usable: Sequence[int], values: Sequence[Sequence[str]]) -> Choice:
    """The choice of a label, with the columns that it tells."""
    told = [i for i in usable if i != label and _tells(values[label], values[i])]
    names = [i for i in told if _tells(values[i], values[label])]
    name = next((i for i in names if not all(map(whole, values[i]))), None)
    if not all(map(whole, values[label])):
        name = None
    coarser = sorted((i for i in told if i not in names), key=lambda i: len(set(values[i])))
    levels = list[int]()
    for i in coarser:
        # Of two groupings across each other, the second numbers what is in the first, as Pets do.
        if all(_tells(values[i], values[j]) for j in levels if len(set(values[j])) > 1):
            levels.append(i)
    return Choice(label, name, levels)


def _tells(finer: Sequence[str], coarser: Sequence[str]) -> bool:
    """Whether rows that are alike in the one are alike in the other."""
    return len(set(zip(finer, coarser, strict=True))) == len(set(finer))


def _shown(column: str) -> str:
    """A column as a setting takes it."""
    name = column.removeprefix("column ")
    return name if re.fullmatch(r"\w+", name) else repr(name)
