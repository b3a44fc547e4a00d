"""Classes by the names that people type: the one that is meant, and the nearest where none is."""

import difflib
import re
import unicodedata
from collections.abc import Sequence

_NEAREST = 3  # names that a sentence offers


def find_class(name: str, class_names: Sequence[str], source: str) -> int:
    """The number of a class by its name; also by its number, where no class is called by one.

    A name is the same however its accents are stored (NFC or NFD).

    Args:
        name: the name, or digits.
        class_names: names of all classes.
        source: what messages call the model.

    Raises:
        ValueError: there is no such class, or several of this name; it names the nearest.
    """
    composed = unicodedata.normalize("NFC", name)
    columns = [i for i, other in enumerate(class_names) if other == name] or [
        i for i, other in enumerate(class_names) if unicodedata.normalize("NFC", other) == composed
    ]
    if len(columns) == 1:
        return columns[0]
    if columns:
        raise ValueError(
            f"{source} has {len(columns)} classes {name!r}; give a number instead: "
            f"{', '.join(map(str, columns))}."
        )
    by_number = re.fullmatch(r"[0-9]{1,9}", name) and not any(map(str.isdecimal, class_names))
    if by_number and int(name) < len(class_names):
        return int(name)
    raise ValueError(f"{source} has no class {name!r}; {nearest_words(name, class_names)}")


def nearest_words(name: str, class_names: Sequence[str]) -> str:
    """The end of a sentence on a class that is not there: which may be meant, or what there is."""
    near = nearest_names(name, class_names)
    if near:
        return f"did you mean {' or '.join(map(repr, near))}?"
    some = ", ".join(map(repr, class_names[:5]))
    return f"its classes are {some}{', ...' if len(class_names) > 5 else '.'}"


def nearest_names(name: str, class_names: Sequence[str]) -> list[str]:
    """The names that may be meant by another, the likeliest first; none that is nothing like it."""
    by_fold: dict[str, list[str]] = {}
    for other in dict.fromkeys(class_names):
        by_fold.setdefault(fold(other), []).append(other)
    folded = fold(name)
    if folded in by_fold:
        return by_fold[folded][:_NEAREST]
    close = difflib.get_close_matches(folded, by_fold, n=_NEAREST)
    holding = sorted((other for other in by_fold if len(folded) > 2 and folded in other), key=len)
    return [other for key in dict.fromkeys([*close, *holding]) for other in by_fold[key]][:_NEAREST]


def fold(name: str) -> str:
    """A name without what people write in different ways: capitals, blanks, punctuation."""
    letters = unicodedata.normalize("NFKC", name).casefold()
    return "".join(c for c in letters if unicodedata.category(c)[0] not in "ZPC") or letters
