"""Errors that a user can cause, each said in one sentence: `except ClevitError` catches them all.

Commands print the sentence and end with the error's exit code, 2 but for storage that does not
answer; anything else is a fault of the program and ends with a traceback.
"""

from collections.abc import Sequence
from typing import Self

STALLED = 77  # exit code: storage does not answer, run the same again (sysexits' EX_NOPERM)
_SHOWN = 20  # problems of a data set that its message shows
_ALONE = 3  # sentences of one rule that are shown in full


class ClevitError(ValueError):
    """Something that the user can mend; the message names the culprit and the mend.

    Attributes:
        exit_code: of a command that it ends.
    """

    exit_code = 2


class ConfigError(ClevitError):
    """A setting, a flag or a file named by one cannot be used."""


class Repeated(str):
    """A sentence about one file or line, of a kind that may hold of thousands.

    >>> told = [Repeated(f"{x}.jpg is empty.", rule="{n} files are empty", item=f"{x}.jpg")
    ...         for x in range(5)]
    >>> said_once(told)
    ['5 files are empty (0.jpg, 1.jpg, 2.jpg, ...).']

    Attributes:
        rule: what to say of several at once, without a full stop; `{n}` stands for their number.
            Sentences with one rule are one kind.
        item: what this one is about, as a list names it.
    """

    rule: str
    item: str

    def __new__(cls, sentence: str, *, rule: str, item: str) -> Self:
        made = super().__new__(cls, sentence)
        made.rule, made.item = rule, item
        return made


def said_once(sentences: Sequence[str]) -> list[str]:
    """Sentences, with those of one rule merged where there are more than three.

    Returns:
        In the order of `sentences`; the merged sentence stands where its first one stood, and has
        the number and three examples.
    """
    items: dict[str, list[str]] = {}
    for sentence in sentences:
        if isinstance(sentence, Repeated):
            items.setdefault(sentence.rule, []).append(sentence.item)
    said, merged = list[str](), set[str]()
    for sentence in sentences:
        if not isinstance(sentence, Repeated) or len(items[sentence.rule]) <= _ALONE:
            said.append(sentence)
        elif sentence.rule not in merged:
            merged.add(sentence.rule)
            same = items[sentence.rule]
            shown = ", ".join(same[:_ALONE])
            said.append(f"{sentence.rule.replace('{n}', f'{len(same):,}')} ({shown}, ...).")
    return said


class DataError(ClevitError):
    """Everything that is wrong with a data set, found in one pass.

    Attributes:
        problems: one sentence for each problem; all of them, while the message merges those of one
            rule (`said_once`) and shows the first 20.
    """

    def __init__(self, problems: Sequence[str]):
        self.problems = tuple(problems)
        said = said_once(self.problems)
        lines = said[:_SHOWN]
        if len(said) > _SHOWN:
            lines.append(f"... and {len(said) - _SHOWN} more.")
        super().__init__("\n".join(lines))


class DecodeError(ClevitError):
    """An image cannot be decoded; the message names the file."""

    @property
    def sentence(self) -> str:
        """The message; a `Repeated` where it may hold of many images, which `str()` would lose."""
        return self.args[0]


class CutShortError(DecodeError):
    """An image lacks its last bytes; `data.truncated` would read what there is of it."""


class WeightsError(ClevitError):
    """A file of weights cannot be used; the message names the file."""


class CheckpointError(ClevitError):
    """A checkpoint cannot be written or read."""


class NoRoomError(CheckpointError):
    """The disk has no room for a checkpoint; nothing was begun."""


class StorageError(CheckpointError):
    """The disk or the bucket of a run has not answered within `checkpoint.timeout_minutes`."""

    exit_code = STALLED


class UnreachableError(StorageError):
    """The bucket of a run cannot be reached just now; it may come back before long."""


class SupersededError(ClevitError):
    """A newer start has taken the run over; this one writes nothing more."""


class TrainingError(ClevitError):
    """A run cannot go on."""


class ProcessError(ClevitError):
    """Processes do not come together, or cannot go on together."""


def first_line(error: BaseException) -> str:
    """What an error of a library says first, or its kind where it says nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
