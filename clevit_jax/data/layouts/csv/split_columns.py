"""The split of the rows of a table: by a column of words, columns of yes and no, or of folds."""

import types
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from clevit_jax.data.layouts.columns import (
    FOLDS,
    SPLITS,
    SPLITS_IF,
    as_setting,
    called,
    flag_of,
    plain,
    quoted_names,
    several,
    wanted_column,
)
from clevit_jax.data.layouts.listing import first_three
from clevit_jax.data.layouts.split_codes import NONE, codes_among, parts_of, question
from clevit_jax.data.split_names import splits_among

_TRUE = frozenset(("1", "1.0", "true", "yes", "y", "t"))
_FALSE = frozenset(("0", "0.0", "false", "no", "n", "f"))
_MOST_FOLDS = 100
_NO_WORDS: Mapping[str, str] = types.MappingProxyType({})
_NO_FLAGS: Mapping[int, str] = types.MappingProxyType({})


class SplitColumns(NamedTuple):
    """Which columns tell the split of a row.

    Attributes:
        word: position of a column of words; None where there is none.
        words: value of it -> split, of those that mean one.
        flags: position of a column of yes and no -> split.
        fold: position of a column of folds, by which no split is told; None where there is none.
        folds: the values of it, in order.
    """

    word: int | None = None
    words: Mapping[str, str] = _NO_WORDS
    flags: Mapping[int, str] = _NO_FLAGS
    fold: int | None = None
    folds: tuple[str, ...] = ()

    @property
    def positions(self) -> set[int]:
        """Of all these columns."""
        one = {self.word, self.fold} - {None}
        return {i for i in one if i is not None} | set(self.flags)


def choose_splits(
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    wanted: str,
    taken: set[int],
    problems: list[str],
    said: list[str],
) -> SplitColumns:
    """Finds out which columns tell the split, by their names and values.

    Args:
        header: names of the columns.
        rows: fields of the rows.
        wanted: the setting `data.split_column`.
        taken: positions of columns that are something else.
        problems: gets a sentence where it cannot be told.
        said: gets a sentence on a column that was told by its values.
    """
    free = [i for i in range(len(header)) if i not in taken]
    values = {i: {row[i].strip() for row in rows} for i in free}
    if wanted:
        if wanted.strip().lower() == NONE and not called(header, (NONE,)):
            return SplitColumns()
        name, meant = parts_of(wanted, header)
        asked = wanted_column(header, name, "split", problems)
        if asked not in values:
            return SplitColumns()
        if meant:
            return _as_said(header, asked, values, meant, problems)
        return _as_asked(header, rows, asked, values, problems)
    words = {i: _words(header[i], values[i] - {""}) for i in free}
    fold = next((i for i in called(header, FOLDS) if i in values and _are_folds(values[i])), None)
    numbers = _in_order(values[fold]) if fold is not None else ()
    word = _word(header, rows, values, words, problems, said)
    flags = _flags(header, rows, values, problems)
    if word is not None:
        return SplitColumns(word, words[word], fold=fold, folds=numbers)
    return SplitColumns(flags=flags, fold=fold, folds=numbers)


def split_by_flags(flags: Mapping[int, str], row: Sequence[str]) -> str | None:
    """The split that columns of yes and no tell; None where they contradict, or say nothing.

    What no flag claims is of the split that has no flag: `is_valid` leaves training, `is_train`
    testing, `is_train` and `is_valid` testing, `is_valid` and `is_test` training.
    """
    told = {split for i, split in flags.items() if row[i].strip().lower() in _TRUE}
    if len(told) == 1:
        return told.pop()
    if told or any(row[i].strip().lower() not in _FALSE for i in flags):
        return None
    left = [split for split in ("train", "test") if split not in flags.values()]
    return left[0] if left else None


def fold_of(text: str) -> str:
    """A fold as it is written, without blanks and the `.0` that some programs write."""
    return text.strip().removesuffix(".0")


def _words(name: str, values: set[str]) -> dict[str, str]:
    """Value -> split, of the values of a column, by words or by codes."""
    is_sure, is_likely = plain(name) in SPLITS, plain(name) in SPLITS_IF
    codes = codes_among(values, alone=not is_sure)
    return splits_among(values) or (codes if is_sure or is_likely or len(values) > 1 else {})


def _word(
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    values: dict[int, set[str]],
    words: dict[int, dict[str, str]],
    problems: list[str],
    said: list[str],
) -> int | None:
    """The position of a column of words: by its name, else by its values alone."""
    only = {i for i in values if words[i] and len(words[i]) == len(values[i] - {""})}
    known = [i for i in called(header, SPLITS) if i in values and words[i]]
    several_told = {i for i in values if len(set(words[i].values())) > 1}
    likely = [i for i in called(header, SPLITS_IF) if i in only | several_told]
    telling = [
        i for i in sorted(only) if {"train"} < set(words[i].values()) and "" not in values[i]
    ]
    for fitting in (known, likely, telling):
        if not fitting:
            continue
        first = fitting[0]
        as_told = [[words[i].get(row[i].strip()) for row in rows] for i in fitting]
        if any(each != as_told[0] for each in as_told):
            problems.append(several([header[i].strip() for i in fitting], "split"))
        if fitting is telling:
            said.append(
                f"the split is read from the column {header[first].strip()!r}, whose values are "
                f"{quoted_names(sorted(words[first])[:4])}; data.split_column={NONE} leaves it out."
            )
        return first
    unread = [
        i for i in called(header, SPLITS) if i in values and not words[i] and values[i] - {""}
    ]
    problems += [_question(header, rows, i) for i in unread]
    return None


def _question(header: Sequence[str], rows: Sequence[Sequence[str]], position: int) -> str:
    name = header[position].strip()
    return question(name, as_setting(name), [row[position] for row in rows])


def _flags(
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    values: dict[int, set[str]],
    problems: list[str],
) -> dict[int, str]:
    told = {i: flag_of(header[i]) for i in values if _is_yes_or_no(values[i])}
    flags = {i: split for i, split in told.items() if split is not None}
    for i in flags:
        yes = sum(row[i].strip().lower() in _TRUE for row in rows)
        is_either = plain(header[i]) in ("isvalid", "valid") and len(flags) == 1
        if is_either and 2 * yes > len(rows):
            name = header[i].strip()
            problems.append(
                f"the column {name!r} is true in {yes:,} of {len(rows):,} rows: set "
                f"data.split_column={as_setting(name)} if these are for validation, or {NONE} if "
                "it says that a row is sound."
            )
            return {}
    return flags


def _as_asked(
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    asked: int,
    values: dict[int, set[str]],
    problems: list[str],
) -> SplitColumns:
    """What the column that the user named tells."""
    inside = values[asked] - {""}
    words = splits_among(inside) or codes_among(inside)
    if words:
        return SplitColumns(asked, words)
    if _is_yes_or_no(inside) and (split := flag_of(header[asked])):
        return SplitColumns(flags={asked: split})
    if _are_folds(inside) and plain(header[asked]) not in SPLITS:
        return SplitColumns(fold=asked, folds=_in_order(inside))
    if plain(header[asked]) in SPLITS:
        problems.append(_question(header, rows, asked))
        return SplitColumns()
    shown = first_three([repr(value) for value in sorted(inside)]) or "nothing"
    problems.append(
        f"data.split_column is {header[asked].strip()!r}, which holds {shown}: neither train, val "
        "and test, nor yes and no under a name such as is_test, nor numbers of folds; say "
        "what they mean, as "
        f"data.split_column={as_setting(header[asked].strip())}:0=train,1=test."
    )
    return SplitColumns()


def _as_said(
    header: Sequence[str],
    asked: int,
    values: dict[int, set[str]],
    meant: Mapping[str, str],
    problems: list[str],
) -> SplitColumns:
    """What the column tells by the meaning that the user gave its values, which must be of all."""
    name = header[asked].strip()
    if lacking := sorted(values[asked] - {""} - meant.keys()):
        problems.append(
            f"data.split_column does not say what {first_three(list(map(repr, lacking)))} of the "
            f"column {name!r} means; add {lacking[0]}=train, val or test to it."
        )
        return SplitColumns()
    return SplitColumns(asked, meant)


def _is_yes_or_no(values: set[str]) -> bool:
    inside = {value.lower() for value in values if value}
    return bool(inside) and inside <= _TRUE | _FALSE


def _are_folds(values: set[str]) -> bool:
    return 2 <= len(values) <= _MOST_FOLDS and all(fold_of(value).isdecimal() for value in values)


def _in_order(values: set[str]) -> tuple[str, ...]:
    return tuple(sorted({fold_of(value) for value in values}, key=float))
