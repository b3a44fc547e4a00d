"""What a model gets wrong: confusions, classes one by one, and the worst images."""

import dataclasses
from typing import NamedTuple

import numpy as np

from clevit_jax.inference.prediction import softmax
from clevit_jax.steps.eval_step import Evaluation


class Pair(NamedTuple):
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


class ClassScore(NamedTuple):
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

    def pairs(self) -> list[Pair]:
        """All confusions, the most frequent ones first; of equal ones the larger share first."""
        images = self.images
        wrong = self.cells[self.cells[:, 0] != self.cells[:, 1]]
        found = [Pair(int(t), int(p), int(n), n / images[t]) for t, p, n in wrong]
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

    def by_class(self) -> list[ClassScore]:
        """Every class in the order of their numbers."""
        images = self.images
        predicted = np.bincount(self.cells[:, 1], weights=self.cells[:, 2], minlength=self.classes)
        own = self.cells[self.cells[:, 0] == self.cells[:, 1]]
        right = np.zeros(self.classes, int)
        right[own[:, 0]] = own[:, 2]
        worst: dict[int, Pair] = {}
        for pair in self.pairs():
            worst.setdefault(pair.label, pair)
        return [
            ClassScore(
                label=k,
                images=int(images[k]),
                right=int(right[k]),
                recall=right[k] / images[k] if images[k] else None,
                precision=right[k] / predicted[k] if predicted[k] else None,
                mistaken_for=worst[k].predicted if k in worst else None,
                mistaken=worst[k].images if k in worst else 0,
            )
            for k in range(self.classes)
        ]


def ranks(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """How many classes come before the label, int [N], as `evaluate.rank_of_label` counts."""
    own = np.take_along_axis(logits, labels[:, None].astype(int), axis=-1)  # [N, 1]
    lower = np.arange(logits.shape[-1])[None] < labels[:, None]
    before = ((logits > own) | ((logits == own) & lower)).sum(-1)
    return np.where(np.isnan(own[:, 0]), logits.shape[-1], before)


def confusion(logits: np.ndarray, labels: np.ndarray) -> Confusion:
    """Of logits [N, K] and labels [N]."""
    predicted = logits.argmax(-1)
    pairs, counts = np.unique(np.stack([labels, predicted], 1), axis=0, return_counts=True)
    return Confusion(np.concatenate([pairs, counts[:, None]], axis=1), logits.shape[-1])


def losses(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Cross-entropy of each image in nats, float64 [N]."""
    probabilities = np.take_along_axis(softmax(logits), labels[:, None].astype(int), axis=-1)
    return -np.log(np.maximum(probabilities[:, 0], np.finfo(np.float64).tiny))


def evaluation(logits: np.ndarray, labels: np.ndarray) -> Evaluation:
    """What `--mode eval` counts, from logits [N, K] and labels [N]."""
    rank = ranks(logits, labels)
    right = (rank < 1).astype(np.float64)
    per_class = [right[labels == label].mean() for label in np.unique(labels)]
    return Evaluation(
        top1=float(right.mean()),
        top5=float((rank < 5).mean()),
        mean_per_class=float(np.mean(per_class)),
        loss=float(losses(logits, labels).mean()),
        count=len(labels),
    )


def worst(logits: np.ndarray, labels: np.ndarray, count: int) -> list[int]:
    """The rows whose label is not the first class, those of the highest loss first."""
    wrong = np.flatnonzero(ranks(logits, labels) > 0)
    order = np.argsort(-losses(logits, labels)[wrong], kind="stable")
    return [int(row) for row in wrong[order][:count]]
