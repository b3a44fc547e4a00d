"""The prediction for one image: its most probable classes."""

import dataclasses
from collections.abc import Sequence

import numpy as np
import scipy.special


@dataclasses.dataclass(frozen=True)
class Prediction:
    """The most probable classes of an image, in falling order.

    Attributes:
        class_names: names of these classes.
        probabilities: their probabilities, in [0, 1].
        margin: probability of the first class minus that of the second; 1 if the model has one
            class.
    """

    class_names: tuple[str, ...]
    probabilities: tuple[float, ...]
    margin: float

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
        return ", ".join(f"{name} {100 * probability:.1f} %" for name, probability in pairs)


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities, float64 [..., K], of logits [..., K]."""
    return scipy.special.softmax(logits.astype(np.float64), axis=-1)


def rank(probabilities: np.ndarray, class_names: Sequence[str], top: int) -> Prediction:
    """The `top` most probable classes, or all there are; of equal ones the lower number first.

    Args:
        probabilities: probabilities of all classes, [K].
        class_names: names of all classes.
        top: number of classes, at least 1.
    """
    order = np.argsort(-probabilities, kind="stable")
    best = probabilities[order[:2]].tolist()
    return Prediction(
        class_names=tuple(class_names[i] for i in order[:top]),
        probabilities=tuple(float(probabilities[i]) for i in order[:top]),
        margin=best[0] - best[1] if len(best) > 1 else 1.0,
    )
