"""Errors that a user can cause, each said in one sentence: `except ClevitError` catches them all.

Commands print the sentence and end with exit code 2; anything else is a fault of the program and
ends with a traceback.
"""

from collections.abc import Sequence

_SHOWN = 20  # problems of a data set that its message shows


class ClevitError(ValueError):
    """Something that the user can mend; the message names the culprit and the mend."""


class ConfigError(ClevitError):
    """A setting, a flag or a file named by one cannot be used."""


class DataError(ClevitError):
    """Everything that is wrong with a data set, found in one pass.

    Attributes:
        problems: one sentence for each problem; all of them, while the message shows the first 20.
    """

    def __init__(self, problems: Sequence[str]):
        self.problems = tuple(problems)
        lines = list(self.problems[:_SHOWN])
        if len(self.problems) > _SHOWN:
            lines.append(f"... and {len(self.problems) - _SHOWN} more.")
        super().__init__("\n".join(lines))


class DecodeError(ClevitError):
    """An image cannot be decoded; the message names the file."""


class WeightsError(ClevitError):
    """A file of weights cannot be used; the message names the file."""


class CheckpointError(ClevitError):
    """A checkpoint cannot be written or read."""


class NoRoomError(CheckpointError):
    """The disk has no room for a checkpoint; nothing was begun."""


class TrainingError(ClevitError):
    """A run cannot go on."""


class ProcessError(ClevitError):
    """Processes do not come together, or cannot go on together."""


def first_line(error: BaseException) -> str:
    """What an error of a library says first, or its kind where it says nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
