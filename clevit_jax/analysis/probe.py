"""Metrics of features without the head: k-NN accuracy, retrieval and a linear probe."""

import dataclasses
import warnings

import numpy as np

from clevit_jax.analysis import neighbours
from clevit_jax.analysis.neighbours import Retrieval

KS = (1, 5, 20)  # numbers of neighbours


@dataclasses.dataclass(frozen=True)
class FeatureMetrics:
    """How well features separate classes; accuracies are fractions in [0, 1] of the test images.

    Attributes:
        train, test: numbers of images.
        knn: k -> accuracy of the majority of the k nearest training images; no k above their
            number.
        linear_probe: accuracy of a logistic regression on the training features; None if there is
            only one class.
        retrieval: retrieval among the test images; None if no class has two.
    """

    train: int
    test: int
    knn: dict[int, float]
    linear_probe: float | None
    retrieval: Retrieval | None

    def lines(self) -> list[str]:
        """Lines for the terminal."""
        lines = []
        if min(self.train, self.test) < neighbours.FEW:
            lines.append(
                f"Images: {self.train} training, {self.test} test. Below {neighbours.FEW} of each, "
                "the numbers tell little but chance."
            )
        lines += [f"k-NN, k = {k}: {100 * accuracy:.2f} %" for k, accuracy in self.knn.items()]
        if self.linear_probe is not None:
            lines.append(f"Linear probe: {100 * self.linear_probe:.2f} %")
        if self.retrieval is not None:
            lines.append(
                f"Retrieval among the test images: R@1 {100 * self.retrieval.recall_at_1:.2f} %, "
                f"mAP {100 * self.retrieval.mean_average_precision:.2f} %"
            )
        return lines


def feature_metrics(
    train: np.ndarray, train_labels: np.ndarray, test: np.ndarray, test_labels: np.ndarray
) -> FeatureMetrics:
    """Metrics of features [M, C] of training and [N, C] of test images, with labels [M] and [N]."""
    return FeatureMetrics(
        train=len(train),
        test=len(test),
        knn=neighbours.knn_accuracy(
            train, train_labels, test, test_labels, tuple(k for k in KS if k <= len(train))
        ),
        linear_probe=linear_probe(train, train_labels, test, test_labels),
        retrieval=neighbours.retrieval(test, test_labels),
    )


def linear_probe(
    train: np.ndarray, train_labels: np.ndarray, test: np.ndarray, test_labels: np.ndarray
) -> float | None:
    """Test accuracy of scikit-learn's logistic regression (C = 1) on standardised features."""
    if len(np.unique(train_labels)) < 2:
        return None
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    with warnings.catch_warnings():
        # The accuracy stops changing long before the solver converges.
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(train, train_labels)
    return float((model.predict(test) == test_labels).mean())
