"""The class of each row of a table: which columns hold it, its name, and coarser classes."""

import re
from collections.abc import Sequence
from typing import NamedTuple

from clevit_jax.data.layouts.columns import (
    CLASS_NAMES,
    COARSER,
    GENERIC,
    KINDS,
    LABELS,
    MAYBE_LABELS,
    NUMBERS,
    OF_CLASSES,
    OTHER_NAMES,
    RANKS,
    as_setting,
    pick,
    plain,
    wanted_column,
)
from clevit_jax.data.layouts.csv.values import Values

_OF_NUMBERS = ("id", "label", "class", "category", "code")  # endings of their names
_GROUPING = ("category", "categories", "class", "target")  # which may be coarser than a label


class LabelColumns(NamedTuple):
    """Which columns tell the class of a row.

    Attributes:
        label: positions of the columns that make the label together; empty where there is none.
        class_name: position of the name that goes with it, or None.
        levels: positions of the columns of coarser classes, the coarsest first.
        is_sure: whether the label is told by the column's name, or asked for.
    """

    label: tuple[int, ...] = ()
    class_name: int | None = None
    levels: tuple[int, ...] = ()
    is_sure: bool = True


def choose_labels(
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    wanted: str,
    taken: set[int],
    problems: list[str],
    said: list[str],
    *,
    bits: bool,
) -> LabelColumns:
    """Finds out which columns tell the class, by their names and values.

    Args:
        header: names of the columns.
        rows: fields of the rows.
        wanted: the setting `data.label_column`: a name, or several with `+` between.
        taken: positions of columns that are something else.
        problems: gets a sentence where it cannot be told.
        said: gets a sentence on what was not told by a name.
        bits: whether all columns are of 0 and 1, so that each may be a class: then only one that
            is surely called as a label is chosen.
    """
    values = Values(header, rows, taken)
    if wanted:
        return _asked(values, wanted, problems)
    ranks = values.called(RANKS)
    sure = [i for i in values.called(LABELS[0]) if not (len(ranks) > 1 and _is_class(header[i]))]
    sure = _without_coarser(values, sure)
    sure = [i for i in sure if values.count(i) > 1] or sure  # `Aves` in each row tells nothing
    name = pick([n if i in values.free else "" for i, n in enumerate(header)], CLASS_NAMES,
                "class name", "", problems)  # fmt: skip
    if not sure and name is not None:
        return _with_levels(values, (name,), None)
    if len(sure) == 1:
        return _one(values, sure[0], name, problems)
    if sure:
        return _of_several(values, sure, name, problems, said)
    if bits:
        return LabelColumns()
    for group in MAYBE_LABELS:
        maybe = [i for i in values.called(group) if group is MAYBE_LABELS[0] or values.repeats(i)]
        maybe = _without_coarser(values, maybe)
        if len(maybe) > 1:
            return _of_several(values, maybe, None, problems, said)
        if maybe:
            if group is not MAYBE_LABELS[0]:
                said.append(_say_class(values, maybe[0]))
            return _with_levels(values, tuple(maybe), None, is_sure=group is MAYBE_LABELS[0])
    return _of_no_name(values, said)


def choose_unnamed(values_of: Sequence[Sequence[str]], width: int, taken: set[int],
                   wanted: str, problems: list[str]) -> LabelColumns:  # fmt: skip
    """The columns of a table without a header: the only one, or number and name one to one."""
    header = [str(i + 1) for i in range(width)]
    values = Values(header, values_of, taken)
    if wanted:
        return _asked(values, wanted, problems)
    texts = [i for i in values.free if not values.is_number(i)]
    if len(values.free) == 1 or len(texts) == 1:
        name = texts[0] if texts else values.free[0]
        numbers = [i for i in values.free if i != name and values.is_same(i, name)]
        if len(values.free) == 2 and len(numbers) == 1:
            return LabelColumns((numbers[0],), name)
        return LabelColumns((name,))
    if not values.free:
        return LabelColumns()
    problems.append(_ask(values, values.free))
    return LabelColumns((values.free[0],))


def _asked(values: Values, wanted: str, problems: list[str]) -> LabelColumns:
    """The columns that the user named."""
    if wanted.strip().lower() not in [name.lower() for name in values.header]:
        parts = [part.strip() for part in wanted.split("+")]
        found = [values.header.index(part) for part in parts if part in values.header]
        if len(parts) == len(found) > 1:
            return _with_levels(values, tuple(found), None)
    label = wanted_column(values.header, wanted, "label", problems)
    if label is None:
        return LabelColumns()
    names = [i for group in CLASS_NAMES for i in values.called(group) if i != label]
    name = next((i for i in names if values.is_same(i, label)), None)
    return _with_levels(values, (label,), name)


def _one(values: Values, label: int, name: int | None, problems: list[str]) -> LabelColumns:
    """Of one column that is called as a label, and what may lie beside."""
    genera = [i for i in values.called(("genus",)) if i != label]
    if genera and plain(values.header[label]) in KINDS:
        whole = values.count(genera[0], label)
        if whole > values.count(label):  # one word for the species of several genera
            problems.append(_ask(values, [genera[0], label], together=True))
    if name is None and plain(values.header[label]) in NUMBERS:
        stem = re.sub(r"(id|no|number|idx|index|num|encoded)$", "", plain(values.header[label]))
        named = [i for i in values.called((stem, f"{stem}name")) if values.is_same(i, label)]
        name = next((i for i in named if not values.is_number(i)), None)
    finer = [
        i
        for i in values.free
        if i not in (label, name)
        and plain(values.header[i]).endswith(OF_CLASSES)
        and values.repeats(i)
        and values.is_coarser(label, i)
    ]
    if finer:
        problems.append(_ask(values, [label, *finer]))
    ids = [i for i in values.called(("id", "ids")) if values.repeats(i)]
    if ids and plain(values.header[label]) in KINDS and values.is_coarser(label, ids[0]):
        problems.append(_ask(values, [ids[0], label]))
    return _with_levels(values, (label,), None if name == label else name)


def _of_several(
    values: Values,
    candidates: list[int],
    name: int | None,
    problems: list[str],
    said: list[str],
) -> LabelColumns:
    """Of several columns that may be the label: a number and its name, or the user is asked."""
    candidates = _without_other_names(values, candidates)
    if len(candidates) == 1:
        return _one(values, candidates[0], name, problems)
    numbers = [i for i in candidates if plain(values.header[i]) in NUMBERS]
    others = [i for i in candidates if i not in numbers]
    if len(numbers) == 1 and len(others) == 1 and name is None:
        number, other = numbers[0], others[0]
        if values.is_same(number, other) and not values.is_number(other):
            return _with_levels(values, (number,), other)
    first = candidates[0]
    names = [values.header[i] for i in candidates]
    is_same = values.of(first) and all(values.of(i) == values.of(first) for i in candidates)
    if len(set(names)) == len(names) and is_same:
        return _with_levels(values, (first,), name)
    alike = len(candidates) > 2 and name is None
    if alike and all(values.is_same(first, i) for i in candidates) and values.count(first) > 1:
        return _of_one_meaning(values, candidates, said)
    problems.append(_ask(values, candidates, together=len(candidates) == 2))
    return LabelColumns((first,))


def _of_one_meaning(values: Values, candidates: list[int], said: list[str]) -> LabelColumns:
    """Of several columns that go together one to one: a number, if any, and the first name."""
    numbers = [i for i in candidates if values.is_number(i)]
    texts = [i for i in candidates if i not in numbers]
    label = (numbers or texts)[0]
    name = texts[0] if numbers and texts else None
    shown = ", ".join(repr(values.header[i]) for i in candidates)
    said.append(
        f"the columns {shown} tell the same classes; they are called by "
        f"{values.header[label if name is None else name]!r}."
    )
    return _with_levels(values, (label,), name)


def _of_no_name(values: Values, said: list[str]) -> LabelColumns:
    """The finest of the coarser classes, else the only column, of what repeats.

    Numbers are classes only where they are 0 and 1, or the column is called so (`landmark_id`).
    """
    coarser = [i for name in COARSER for i in values.called((name,))]
    if coarser:
        finest = coarser[-1]
        said.append(_say_class(values, finest))
        return _with_levels(values, (finest,), None, is_sure=False)
    rest = values.free
    if len(rest) == 1 and values.repeats(rest[0]) and _may_be_class(values, rest[0]):
        said.append(_say_class(values, rest[0]))
        return LabelColumns((rest[0],), is_sure=False)
    return LabelColumns()


def _may_be_class(values: Values, position: int) -> bool:
    if not values.is_number(position) or plain(values.header[position]).endswith(_OF_NUMBERS):
        return True
    return {text.removesuffix(".0") for text in values.of(position)} == {"0", "1"}


def _without_coarser(values: Values, candidates: list[int]) -> list[int]:
    """Candidates, without a `category` that is coarser than another of them."""
    return [
        i
        for i in candidates
        if plain(values.header[i]) not in _GROUPING[:2]
        or not any(values.is_coarser(i, other) for other in candidates if other != i)
    ]


def _without_other_names(values: Values, candidates: list[int]) -> list[int]:
    """Candidates, without scientific names that go one to one with a column called as a label."""
    labels = [i for i in candidates if plain(values.header[i]) in GENERIC]
    return [
        i
        for i in candidates
        if plain(values.header[i]) not in OTHER_NAMES
        or not any(values.is_same(i, label) for label in labels)
    ]


def _with_levels(
    values: Values, label: tuple[int, ...], name: int | None, *, is_sure: bool = True
) -> LabelColumns:
    """A label, with the columns beside it that are coarser."""
    classes = values.count(*label)
    beside = [i for level in (*COARSER, *_GROUPING[:2]) for i in values.called((level,))]
    levels = [
        i
        for i in beside
        if i != name and (i not in label or len(label) > 1)
        and 1 < values.count(i) < classes == values.count(i, *label)
    ]  # fmt: skip
    levels.sort(key=values.count)
    return LabelColumns(label, name, tuple(levels), is_sure)


def _ask(values: Values, candidates: Sequence[int], *, together: bool = False) -> str:
    """One sentence with the number of classes of each way, and what to type."""
    names = [values.header[i] for i in candidates]
    if len(set(names)) < len(names):
        quoted = ", ".join(map(repr, names))
        return f"the columns {quoted} may all hold the label; rename or remove one."
    ways = [(repr(values.header[i]), values.header[i], values.count(i)) for i in candidates]
    whole = values.count(*candidates)
    if together and whole > max(count for _, _, count in ways):
        ways.append(("both together", "+".join(names), whole))
    shown = ", ".join(f"{what} ({count:,} {_classes(count)})" for what, _, count in ways)
    settings = " or ".join(f"data.label_column={as_setting(setting)}" for _, setting, _ in ways)
    return f"the columns {shown} may all hold the label; set {settings}."


def _classes(count: int) -> str:
    return "class" if count == 1 else "classes"


def _say_class(values: Values, position: int) -> str:
    count = values.count(position)
    return (
        f"the class is read from the column {values.header[position]!r} ({count:,} "
        f"{_classes(count)}); data.label_column=NAME takes another."
    )


def _is_class(name: str) -> bool:
    return plain(name) == "class"
