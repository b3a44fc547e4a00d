"""Checks of file names: those that will make trouble, and stems that two splits share."""

import collections
import pathlib
import re
import unicodedata
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from clevit_jax.data.dataset import Example

_RESERVED = {"con", "prn", "aux", "nul", *(f"{x}{i}" for x in ("com", "lpt") for i in range(1, 10))}
_SPLIT = re.compile(r"_(train|test|val)$", re.IGNORECASE)


def _not_on_windows(part: str) -> bool:
    reserved = part.partition(".")[0].lower() in _RESERVED
    return bool(re.search(r'[<>:"|?*\\]', part)) or part.endswith(".") or reserved


def _is_not_utf8(part: str) -> bool:
    return any("\ud800" <= letter <= "\udfff" for letter in part)


# Kind -> words for several such names, words for one, and whether a part of a path is one.
_ODD_PARTS = {
    "control_character": (
        "hold a control character",
        "holds a control character",
        lambda part: any(unicodedata.category(letter) == "Cc" for letter in part),
    ),
    "outer_blank": (
        "begin or end with a blank",
        "begins or ends with a blank",
        lambda part: part != part.strip(),
    ),
    "not_nfc": (
        "are not in Unicode's NFC form, so that the same names typed anew may differ",
        "is not in Unicode's NFC form, so that the same name typed anew may differ",
        lambda part: not unicodedata.is_normalized("NFC", part),
    ),
    "percent_escape": (
        "hold an escape of web addresses, like %20",
        "holds an escape of web addresses, like %20",
        lambda part: re.search("%[0-9A-Fa-f]{2}", part) is not None,
    ),
    "not_on_windows": ("cannot exist on Windows", "cannot exist on Windows", _not_on_windows),
    "not_utf8": ("are not UTF-8", "is not UTF-8", _is_not_utf8),
}


class OddNames(NamedTuple):
    """File names that are odd in one way.

    Attributes:
        kind: a short name, for programs.
        several: what "file names ..." are or do.
        single: what "file name ..." is or does.
        names: them, sorted.
    """

    kind: str
    several: str
    single: str
    names: list[str]


def odd_names(names: Iterable[str]) -> list[OddNames]:
    """File names that will make trouble on another system or in another program.

    Args:
        names: with forward slashes.

    Returns:
        One for each kind of oddness that occurs.
    """
    distinct = sorted(set(names))
    kinds = [
        OddNames(kind, many, one, [name for name in distinct if any(map(is_odd, name.split("/")))])
        for kind, (many, one, is_odd) in _ODD_PARTS.items()
    ]
    same = collections.defaultdict[str, list[str]](list)
    for name in distinct:
        same[unicodedata.normalize("NFC", name).casefold()].append(name)
    colliding = sorted(name for group in same.values() if len(group) > 1 for name in group)
    what = "from another one in nothing but case or the coding of accents"
    kinds.append(OddNames("differ_in_case", f"differ {what}", f"differs {what}", colliding))
    return [odd for odd in kinds if odd.names]


def stem(name: str) -> str:
    """The file name without folder, ending and `_train`, `_test` or `_val`."""
    return _SPLIT.sub("", pathlib.PurePosixPath(name).stem)


def namesakes(train: Sequence[Example], other: Sequence[Example]) -> dict[int, list[int]]:
    """Which training images have the class and the stem of an image of another split.

    Returns:
        Index in `other` -> indices in `train`, of the images that have such a namesake.
    """
    known = collections.defaultdict[tuple[int, str], list[int]](list)
    for index, example in enumerate(train):
        known[example.label, stem(example.name)].append(index)
    keys = [(example.label, stem(example.name)) for example in other]
    return {index: known[key] for index, key in enumerate(keys) if key in known}
