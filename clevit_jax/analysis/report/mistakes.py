"""What a model gets wrong: confusions, classes one by one, and the worst images."""

import dataclasses
from typing import NamedTuple

import numpy as np

from clevit_jax.steps.eval_step import loss_of_label, rank_of_label


class ConfusedPair(NamedTuple):
    """Images of one class that were taken for another.

    Attributes:
        label: the right class.
        predicted: the other one.
        images: so many.
        share: of the images of the right class, in [0, 1].
    """

    label: int
    predicted: int
    images: int
    share: float


class ClassMetrics(NamedTuple):
    """How one class did.

    Attributes:
        label: its number.
        images: of it.
        right: of these, those with the class as first.
        recall: right / images; None without an image.
        precision: right / those predicted as this class; None if there are none.
        mistaken_for: the class that its images were mostly taken for, or None.
        mistaken: how many of them.
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
    """Counts of (right class, predicted class), those that occur.

    Attributes:
        cells: int [M, 3], rows of right class, predicted class, count; sorted by the first two.
        classes: how many there are.
    """

    cells: np.ndarray
    classes: int

    @property
    def images(self) -> np.ndarray:
        """Images of each class, int [K]."""
        return np.bincount(
            self.cells[:, 0], weights=self.cells[:, 2], minlength=self.classes
        ).astype(int)

    def pairs(self) -> list[ConfusedPair]:
        """All confusions, the most frequent ones first; of equal ones the larger share first."""
        images = self.images
        wrong = self.cells[self.cells[:, 0] != self.cells[:, 1]]
        found = [ConfusedPair(int(t), int(p), int(n), n / images[t]) for t, p, n in wrong]
        return sorted(found, key=lambda pair: (-pair.images, -pair.share, pair.label))

    def order(self) -> list[int]:
        """All classes, those of the most confused pairs first and beside each other."""
        both: dict[tuple[int, int], int] = {}
        for pair in self.pairs():  # A taken for B and B for A count together
            key = (min(pair.label, pair.predicted), max(pair.label, pair.predicted))
            both[key] = both.get(key, 0) + pair.images
        placed: dict[int, None] = {}
        for key in sorted(both, key=lambda key: (-both[key], key)):
            placed |= dict.fromkeys(key)
        return [*placed, *(label for label in range(self.classes) if label not in placed)]

    def by_class(self) -> list[ClassMetrics]:
        """Every class in the order of their numbers."""
        from sklearn.metrics import precision_recall_fscore_support

        labels, predicted, counts = self.cells.T
        precision, recall, _, images = precision_recall_fscore_support(
            labels,
            predicted,
            labels=np.arange(self.classes),
            sample_weight=counts,
            zero_division=np.nan,
        )
        right = dict(self.cells[labels == predicted, 1:].tolist())
        worst: dict[int, ConfusedPair] = {}
        for pair in self.pairs():
            worst.setdefault(pair.label, pair)
        return [
            ClassMetrics(
                label=k,
                images=int(images[k]),
                right=right.get(k, 0),
                recall=None if np.isnan(recall[k]) else float(recall[k]),
                precision=None if np.isnan(precision[k]) else float(precision[k]),
                mistaken_for=worst[k].predicted if k in worst else None,
                mistaken=worst[k].images if k in worst else 0,
            )
            for k in range(self.classes)
        ]


def count_confusions(logits: np.ndarray, labels: np.ndarray) -> Confusion:
    """Of logits [N, K] and labels [N]."""
    predicted = logits.argmax(-1)
    # scikit-learn's confusion_matrix has K x K cells, of which nearly all are empty.
    pairs, counts = np.unique(np.stack([labels, predicted], 1), axis=0, return_counts=True)
    return Confusion(np.concatenate([pairs, counts[:, None]], axis=1), logits.shape[-1])


def worst_rows(logits: np.ndarray, labels: np.ndarray, count: int) -> list[int]:
    """The rows whose label is not the first class, those of the highest loss first."""
    wrong = np.flatnonzero(rank_of_label(logits, labels) > 0)
    order = np.argsort(-loss_of_label(logits, labels)[wrong], kind="stable")
    return [int(row) for row in wrong[order][:count]]
