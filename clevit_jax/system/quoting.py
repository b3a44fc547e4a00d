"""Names that come from files, in sentences and on terminals: readable, harmless, not too long."""

import unicodedata
from collections.abc import Iterable
from typing import Any

_SHOWN = 80  # characters of a name that a sentence shows
# What ends a line, speaks to a terminal or has no form in UTF-8. Joiners, which some scripts need,
# are not among them.
_CATEGORIES = ("Cc", "Cs", "Zl", "Zp")
# Turn the direction of what follows, so that a name can look like another.
_TURNING = frozenset("\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def printable(text: str) -> str:
    r"""A text as it can be printed: line ends, control characters and lone surrogates as escapes.

    >>> printable("ash\n\x1b[31mred")
    'ash\\n\\x1b[31mred'
    """
    if text.isprintable():
        return text
    return "".join(
        letter.encode("unicode_escape").decode() if _is_control(letter) else letter
        for letter in text
    )


def _is_control(letter: str) -> bool:
    return letter in _TURNING or unicodedata.category(letter) in _CATEGORIES


def quoted(names: Iterable[Any], most: int = 20) -> str:
    r"""Names as a list for a sentence: each in quotes, printable and not too long.

    >>> quoted(["a", "\x1b[31m", "c", "d"], most=2)
    "'a', '\\x1b[31m' and 2 more"

    Args:
        names: text, or anything else, which is written as Python does.
        most: so many are shown, and the others counted.
    """
    names = list(names)
    shown = ", ".join(map(_quoted, names[:most]))
    return shown + (f" and {len(names) - most:,} more" if len(names) > most else "")


def _quoted(name: Any) -> str:
    # Cut before it is written out, for it may be as long as its file.
    long = isinstance(name, str | bytes) and len(name) > _SHOWN
    text = repr(name[:_SHOWN] if long else name)
    return f"{text[:_SHOWN]}..." if long or len(text) > _SHOWN + 2 else text


def first_of(sentences: Iterable[str], most: int) -> list[str]:
    """The first sentences, and how many more there are."""
    sentences = list(sentences)
    more = len(sentences) - most
    return [*sentences[:most], *([f"and {more:,} more"] if more > 0 else [])]
