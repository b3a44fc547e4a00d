"""Mistakes by the coarser levels of the classes: which stay inside a group, and which leave it."""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from clevit_jax.analysis.prediction_table import as_utf8
from clevit_jax.analysis.report.mistakes import ClassMetrics, ConfusedPair, Confusion
from clevit_jax.data.dataset import Level


class GroupRow(NamedTuple):
    """A group of a level.

    Attributes:
        name: of the group.
        classes: number of its classes.
        right: number of its images that were predicted as their own class.
        metrics: of the group as if it were a class: `right` there counts the images that were
            predicted as any class of the group.
        mistaken_for: name of the other group that its images were most often predicted as, or "".
    """

    name: str
    classes: int
    right: int
    metrics: ClassMetrics
    mistaken_for: str


@dataclasses.dataclass(frozen=True)
class LevelMetrics:
    """A level of the classes, and what became of the images of each of its groups.

    Attributes:
        name: of the level.
        rows: one for each group, in the order of their first classes.
    """

    name: str
    rows: Sequence[GroupRow]

    @property
    def mistakes(self) -> int:
        """Images that were predicted as another class than their own."""
        return sum(row.metrics.images - row.right for row in self.rows)

    @property
    def mistakes_inside(self) -> int:
        """Those of the mistakes that stay inside their group."""
        return sum(row.metrics.right - row.right for row in self.rows)


def by_level(confusion: Confusion, levels: Sequence[Level]) -> list[LevelMetrics]:
    """What became of the images of every group of every level, by the confusions of classes."""
    return [LevelMetrics(as_utf8(level.name), _rows(confusion, level)) for level in levels]


def _rows(confusion: Confusion, level: Level) -> list[GroupRow]:
    names, numbers = [as_utf8(name) for name in level.group_names], np.array(level.group_numbers)
    labels, predicted, counts = confusion.cells.T
    right = np.bincount(numbers[labels], counts * (labels == predicted), len(names)).astype(int)
    classes = np.bincount(numbers)
    return [
        GroupRow(
            name=names[metrics.label],
            classes=int(classes[metrics.label]),
            right=int(right[metrics.label]),
            metrics=metrics,
            mistaken_for="" if metrics.mistaken_for is None else names[metrics.mistaken_for],
        )
        for metrics in _merged(confusion, numbers, len(names)).by_class()
    ]


def _merged(confusion: Confusion, numbers: np.ndarray, count: int) -> Confusion:
    """The confusion matrix of groups, of that of their classes."""
    labels, predicted, images = confusion.cells.T
    keys, places = np.unique(numbers[labels] * count + numbers[predicted], return_inverse=True)
    merged = np.bincount(places, weights=images).astype(int)
    return Confusion(np.stack([keys // count, keys % count, merged], axis=1), count)


def shared_groups(pairs: Sequence[ConfusedPair], levels: Sequence[Level]) -> list[str]:
    """For each pair of classes the finest group that both are in, as "Rosa (genus)", or ""."""
    return [
        next(
            (
                as_utf8(f"{level.groups[pair.label]} ({level.name})")
                for level in reversed(levels)
                if level.groups[pair.label] == level.groups[pair.predicted]
            ),
            "",
        )
        for pair in pairs
    ]
