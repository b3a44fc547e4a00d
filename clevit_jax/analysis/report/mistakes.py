"""Mistakes of a model: its confusion matrix, metrics of each class, and the worst images."""

import dataclasses
from typing import NamedTuple

import numpy as np

from clevit_jax.steps.eval_step import loss_of_label, rank_of_label


class ConfusedPair(NamedTuple):
    """Images of one class that were predicted as another.

    Attributes:
        label: the true class.
        predicted: the predicted class.
        images: number of such images.
        share: fraction of the images of the true class, in [0, 1].
    """

    label: int
    predicted: int
    images: int
    share: float


class ClassMetrics(NamedTuple):
    """Metrics of one class.

    Attributes:
        label: number of the class.
        images: number of its images.
        right: number of these that were predicted as this class.
        recall: right / images; None if it has no image.
        precision: right / images predicted as this class; None if there are none.
        mistaken_for: the other class that its images were most often predicted as, or None.
        mistaken: number of these.
    """

    label: int
    images: int
    right: int
    recall: float | None
    precision: float | None
    mistaken_for: int | None
    mistaken: int


@dataclasses.dataclass(frozen=True)
class Confusion:
    """Confusion matrix, sparse.

    Attributes:
        cells: rows of true class, predicted class, count for the pairs that occur, sorted by the
            first two; int [M, 3].
        num_classes: number of classes.
    """

    cells: np.ndarray
    num_classes: int

    @property
    def images(self) -> np.ndarray:
        """Number of images of each class, int [K]."""
        return np.bincount(
            self.cells[:, 0], weights=self.cells[:, 2], minlength=self.num_classes
        ).astype(int)

    def pairs(self) -> list[ConfusedPair]:
        """Confused pairs, the most frequent ones first; of equal ones the larger share first."""
        images = self.images
        wrong = self.cells[self.cells[:, 0] != self.cells[:, 1]]
        pairs = [ConfusedPair(int(t), int(p), int(n), n / images[t]) for t, p, n in wrong]
        return sorted(pairs, key=lambda pair: (-pair.images, -pair.share, pair.label))

    def order(self) -> list[int]:
        """All classes; those of the most confused pairs come first, beside each other."""
        both: dict[tuple[int, int], int] = {}
        for pair in self.pairs():  # A predicted as B and B as A count together
            key = (min(pair.label, pair.predicted), max(pair.label, pair.predicted))
            both[key] = both.get(key, 0) + pair.images
        placed: dict[int, None] = {}
        for key in sorted(both, key=lambda key: (-both[key], key)):
            placed |= dict.fromkeys(key)
        return [*placed, *(label for label in range(self.num_classes) if label not in placed)]

    def by_class(self) -> list[ClassMetrics]:
        """Metrics of every class, in the order of their numbers."""
        from sklearn.metrics import precision_recall_fscore_support

        labels, predicted, counts = self.cells.T
        precision, recall, _, images = precision_recall_fscore_support(
            labels,
            predicted,
            labels=np.arange(self.num_classes),
            sample_weight=counts,
            zero_division=np.nan,
        )
        right = dict(self.cells[labels == predicted, 1:].tolist())
        most_frequent: dict[int, ConfusedPair] = {}
        for pair in self.pairs():
            most_frequent.setdefault(pair.label, pair)
        return [
            ClassMetrics(
                label=k,
                images=int(images[k]),
                right=right.get(k, 0),
                recall=None if np.isnan(recall[k]) else float(recall[k]),
                precision=None if np.isnan(precision[k]) else float(precision[k]),
                mistaken_for=most_frequent[k].predicted if k in most_frequent else None,
                mistaken=most_frequent[k].images if k in most_frequent else 0,
            )
            for k in range(self.num_classes)
        ]


def count_confusions(logits: np.ndarray, labels: np.ndarray) -> Confusion:
    """The confusion matrix of logits [N, K] and labels [N]."""
    predicted = logits.argmax(-1)
    # Not scikit-learn's confusion_matrix: of its K x K cells, nearly all would be empty.
    pairs, counts = np.unique(np.stack([labels, predicted], 1), axis=0, return_counts=True)
    return Confusion(np.concatenate([pairs, counts[:, None]], axis=1), logits.shape[-1])


def worst_rows(logits: np.ndarray, labels: np.ndarray, count: int) -> list[int]:
    """Rows that are predicted wrong, those of the highest loss first; at most `count`.

    Args:
        logits: [N, K].
        labels: [N].
        count: number of rows.
    """
    wrong = np.flatnonzero(rank_of_label(logits, labels) > 0)
    order = np.argsort(-loss_of_label(logits, labels)[wrong], kind="stable")
    return [int(row) for row in wrong[order][:count]]
