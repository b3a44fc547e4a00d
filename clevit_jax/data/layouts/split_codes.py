"""Splits that a column writes as codes: TR and TE, T, V and E, or numbers, which are asked about.

The setting `data.split_column=NAME:0=train,1=test` says what the values of a column mean.
"""

import collections
import re
from collections.abc import Collection, Iterable, Mapping, Sequence

from clevit_jax.data.dataset import SPLIT_WORDS
from clevit_jax.data.split_names import split_called

NONE = "none"  # the setting by which no column tells the split
# Two letters mean one split each; what they stand beside does not matter.
_TWO = {"tr": "train", "va": "val", "vl": "val", "vd": "val", "te": "test", "ts": "test"}
# One letter means a split beside the others alone: T is for training where E or V is there.
_ONE = {"t": "train", "v": "val", "e": "test"}
_MOST = 3  # values that a question shows with a split each


def codes_among(values: Iterable[str], *, alone: bool = False) -> dict[str, str]:
    """Value -> split of codes that can mean one thing only; empty where any may mean another.

    >>> codes_among(["TR", "TE"]), codes_among(["T", "V", "E"])
    ({'TR': 'train', 'TE': 'test'}, {'T': 'train', 'V': 'val', 'E': 'test'})
    >>> codes_among(["L", "V", "T"]), codes_among(["0", "1"])
    ({}, {})

    Args:
        values: those of a column, without "".
        alone: whether nothing but the values says that the column tells splits. Then one letter
            is no split, and TR and TE must both be there.
    """
    plain = {value: value.strip().lower() for value in values}
    if plain and all(text in _TWO for text in plain.values()):
        told = {value: _TWO[text] for value, text in plain.items()}
        return told if not alone or {"train", "test"} <= set(told.values()) else {}
    if not alone and len(plain) > 1 and all(text in _ONE for text in plain.values()):
        told = {value: _ONE[text] for value, text in plain.items()}
        return told if {"train"} < set(told.values()) else {}
    return {}


def parts_of(setting: str, header: Sequence[str]) -> tuple[str, dict[str, str]]:
    """The column that `data.split_column` names, and value -> split where it says these.

    A column that is called as the whole setting goes first.

    >>> parts_of("part:0=train,1=test", ["file", "part"])
    ('part', {'0': 'train', '1': 'test'})
    """
    name, mark, said = setting.rpartition(":")
    known = {column.strip().lower() for column in header}
    if not mark or setting.strip().lower() in known:
        return setting, {}
    pairs = [re.fullmatch(r"\s*(.*?)\s*=\s*(\w+)\s*", part) for part in said.split(",")]
    splits = [split_called(pair[2]) if pair else None for pair in pairs]
    if None in splits:
        return setting, {}
    told = zip(pairs, splits, strict=True)
    return name, {pair[1]: split for pair, split in told if pair and split}


def is_typable(value: str) -> bool:
    """Whether a value can stand in the setting as it is."""
    return re.fullmatch(r"[\w.+?-]{1,40}", value) is not None


def split_meant(text: str, said: Mapping[str, str]) -> str | None:
    """The split that one value of a column means, by what the setting says, or by itself."""
    return said.get(text.strip()) or split_called(text.strip()) or _TWO.get(text.strip().lower())


def question(name: str, column: str, cells: Collection[str]) -> str:
    """One sentence on a column of splits whose values do not say which these are.

    Args:
        name: of the column.
        column: the same, as it is typed in a setting.
        cells: its value in each row.
    """
    counts = collections.Counter(cell.strip() for cell in cells if cell.strip())
    values = sorted(counts)
    shown = ", ".join(
        f"{value!r} in {counts[value]:,} row{'' if counts[value] == 1 else 's'}"
        for value in values[:_MOST]
    ) + (", ..." if len(values) > _MOST else "")
    said = f"the column {name!r} holds {shown}, and not train, val or test"
    none = f"set data.split_column={NONE} to leave it out"
    if not 2 <= len(values) <= _MOST or not all(map(is_typable, values)):
        return f"{said}; write these, or {none}."
    splits = tuple(SPLIT_WORDS) if len(values) > 2 else ("train", "test")
    most = max(values, key=counts.__getitem__)  # of three, for training
    others = [value for value in values if value != most]
    orders = (
        [values, values[::-1]] if len(values) == 2 else [[most, *others], [most, *others[::-1]]]
    )
    settings = [
        ",".join(f"{value}={split}" for value, split in zip(order, splits, strict=True))
        for order in orders
    ]
    return (
        f"{said}: set data.split_column={column}:{settings[0]} or {column}:{settings[1]}, as it is "
        f"meant, or {none}."
    )
