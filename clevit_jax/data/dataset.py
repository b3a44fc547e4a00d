"""Data sets: examples, class names and splits, and the words for splits."""

import dataclasses
import hashlib
import pathlib
from collections.abc import Iterable
from typing import NamedTuple, Protocol


class StoredImage(Protocol):
    """An encoded image inside a larger file; `str()` of it says where, for errors.

    It is read when it is decoded, so that a data set may be larger than the memory.
    """

    def read(self) -> bytes:
        """The encoded image; safe to call from several threads."""
        ...


class Example(NamedTuple):
    """One labelled image.

    Attributes:
        data: where the encoded image lies, or its bytes.
        label: class number, from 0.
        id: index in its split, from 0.
        name: the file as the data set itself names it; the same on every machine.
    """

    data: pathlib.Path | bytes | StoredImage
    label: int
    id: int
    name: str


class Skipped(NamedTuple):
    """An image of a data set that is left out, because it cannot be read.

    Attributes:
        split: that it was listed in.
        example: the image; its id is its index in that split, before any was left out.
        reason: why it cannot be read, a sentence.
    """

    split: str
    example: Example
    reason: str


class Level(NamedTuple):
    """A coarser level of the classes, as the genus above species or a folder above class folders.

    Attributes:
        name: of the level, for people: "genus", "level 1".
        groups: for each class, by its number, the name of the group that it is in.
    """

    name: str
    groups: tuple[str, ...]

    @property
    def group_names(self) -> tuple[str, ...]:
        """Each group once, in the order of their first classes."""
        return tuple(dict.fromkeys(self.groups))

    @property
    def group_numbers(self) -> tuple[int, ...]:
        """For each class, by its number, the number of its group in `group_names`."""
        numbers = {group: number for number, group in enumerate(self.group_names)}
        return tuple(numbers[group] for group in self.groups)


def describe_levels(levels: Iterable[Level]) -> str:
    """The levels with their numbers of groups: "family (5 groups), genus (12 groups)"."""
    return ", ".join(f"{level.name} ({len(level.group_names)} groups)" for level in levels)


@dataclasses.dataclass(frozen=True)
class Dataset:
    """A data set: its class names, and the examples of its splits.

    Attributes:
        layout: name of the layout, as `data.layout` takes it.
        recognised_by: the files that the layout was recognised by, and how it was split, if it was.
        class_names: one name for each label.
        train: training examples.
        test: test examples.
        warnings: a sentence for each thing that is odd but not an error.
        val: validation examples, by which the best checkpoint is chosen; often none.
        levels: coarser levels of the classes, the coarsest first; often none.
        skipped: images that cannot be read, and are in no split (`skipped.leave_out`); often none.
    """

    layout: str
    recognised_by: str
    class_names: tuple[str, ...]
    train: tuple[Example, ...]
    test: tuple[Example, ...]
    warnings: tuple[str, ...]
    val: tuple[Example, ...] = ()
    levels: tuple[Level, ...] = ()
    skipped: tuple[Skipped, ...] = ()

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    @property
    def splits(self) -> dict[str, tuple[Example, ...]]:
        """train, val where there is one, and test."""
        splits = {"train": self.train, "val": self.val, "test": self.test}
        return {name: examples for name, examples in splits.items() if examples or name != "val"}

    def split_hash(self) -> str:
        """Hex SHA-256 over (split, name, label) of all examples, in order."""
        digest = hashlib.sha256()
        for split, examples in (("train", self.train), ("test", self.test), ("val", self.val)):
            for example in examples:
                row = f"{split}\0{example.name}\0{example.label}\n"
                digest.update(row.encode("utf-8", "surrogateescape"))
        return digest.hexdigest()


class SplitWords(NamedTuple):
    """The words for a split.

    Attributes:
        adjective: before "images".
        purpose: after "for".
        tfds: names in TFDS; the first is the one to write.
    """

    adjective: str
    purpose: str
    tfds: tuple[str, ...]


# How people write them is in `split_names`.
SPLIT_WORDS = {
    "train": SplitWords("training", "training", ("train",)),
    "val": SplitWords("validation", "validation", ("validation", "valid", "val")),
    "test": SplitWords("test", "testing", ("test",)),
}
SPLIT_NAMES = {split: words.adjective for split, words in SPLIT_WORDS.items()}
