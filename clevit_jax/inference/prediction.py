"""The prediction for one image: its most probable classes, and its groups of coarser levels."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import scipy.special

from clevit_jax.data.dataset import Level


class Group(NamedTuple):
    """The most probable group of a coarser level, and its probability: the sum of its classes'."""

    name: str
    probability: float


@dataclasses.dataclass(frozen=True)
class Prediction:
    """The most probable classes of an image, in falling order.

    Attributes:
        class_names: names of these classes.
        probabilities: their probabilities, in [0, 1].
        margin: probability of the first class minus that of the second; 1 if the model has one
            class.
        levels: for each coarser level of the classes, by its name, the most probable group, which
            need not be that of the most probable class; empty where the model knows no levels.
    """

    class_names: tuple[str, ...]
    probabilities: tuple[float, ...]
    margin: float
    levels: Mapping[str, Group] = dataclasses.field(default_factory=dict, hash=False)

    @property
    def class_name(self) -> str:
        """Name of the most probable class."""
        return self.class_names[0]

    @property
    def probability(self) -> float:
        """Probability of the most probable class."""
        return self.probabilities[0]

    def __str__(self) -> str:
        pairs = zip(self.class_names, self.probabilities, strict=True)
        classes = ", ".join(f"{name} {100 * probability:.1f} %" for name, probability in pairs)
        return classes + "".join(
            f"; {level} {group.name} {100 * group.probability:.1f} %"
            for level, group in self.levels.items()
        )


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities, float64 [..., K], of logits [..., K]."""
    return scipy.special.softmax(logits.astype(np.float64), axis=-1)


class Grouping:
    """A level of the classes, to sum probabilities by.

    Attributes:
        name: of the level.
    """

    def __init__(self, level: Level) -> None:
        self.name = level.name
        self._names, self._numbers = level.group_names, np.array(level.group_numbers)

    def best(self, probabilities: np.ndarray) -> Group:
        """The most probable group by probabilities of all classes, [K]; of equal ones the first."""
        sums = np.bincount(self._numbers, weights=probabilities, minlength=len(self._names))
        number = int(sums.argmax())
        return Group(self._names[number], float(sums[number]))


def rank(
    probabilities: np.ndarray,
    class_names: Sequence[str],
    top: int,
    groupings: Sequence[Grouping] = (),
) -> Prediction:
    """The `top` most probable classes, or all there are; of equal ones the lower number first.

    Args:
        probabilities: probabilities of all classes, [K].
        class_names: names of all classes.
        top: number of classes, at least 1.
        groupings: of the coarser levels of the classes.
    """
    order = np.argsort(-probabilities, kind="stable")
    best = probabilities[order[:2]].tolist()
    return Prediction(
        class_names=tuple(class_names[i] for i in order[:top]),
        probabilities=tuple(float(probabilities[i]) for i in order[:top]),
        margin=best[0] - best[1] if len(best) > 1 else 1.0,
        levels={grouping.name: grouping.best(probabilities) for grouping in groupings},
    )
