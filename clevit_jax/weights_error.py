"""What is said of weights that cannot be used."""

from collections.abc import Iterable
from typing import Any


class WeightsError(ValueError):
    """A file of weights that cannot be used: one sentence with the file, the culprit, the mend."""


def damaged(detail: str) -> str:
    """The end of a sentence about a file that is not as it was written."""
    return f"is damaged or cut short ({detail}): download or copy it again"


def quoted(names: Iterable[Any], most: int = 20) -> str:
    """Names of a file as a list; the quotes also take the sting out of control characters."""
    shown = [repr(name)[:80] for name in names]
    return ", ".join(shown[:most]) + (f" and {len(shown) - most} more" if len(shown) > most else "")
