"""What features are worth without the head: neighbours, retrieval and a linear probe."""

import dataclasses
import warnings

import numpy as np

from clevit_jax.analysis import neighbours
from clevit_jax.analysis.neighbours import Retrieval

KS = (1, 5, 20)


@dataclasses.dataclass(frozen=True)
class FeatureMetrics:
    """Shares in [0, 1], of test images unless said otherwise.

    Attributes:
        train, test: images of each.
        knn: k -> accuracy of the majority of the k nearest training images.
        linear_probe: accuracy of a logistic regression on the training features; None where there
            is one class.
        retrieval: among the test images alone; None where no class has two.
    """

    train: int
    test: int
    knn: dict[int, float]
    linear_probe: float | None
    retrieval: Retrieval | None

    def lines(self) -> list[str]:
        """For the terminal."""
        found = [f"k-NN, k = {k}: {100 * share:.2f} %" for k, share in self.knn.items()]
        if self.linear_probe is not None:
            found.append(f"Linear probe: {100 * self.linear_probe:.2f} %")
        if self.retrieval is not None:
            found.append(
                f"Retrieval among the test images: R@1 {100 * self.retrieval.recall_at_1:.2f} %, "
                f"mAP {100 * self.retrieval.mean_average_precision:.2f} %"
            )
        return found


def feature_metrics(
    train: np.ndarray, train_labels: np.ndarray, test: np.ndarray, test_labels: np.ndarray
) -> FeatureMetrics:
    """Measures features [M, C] of training and [N, C] of test images, with labels [M] and [N]."""
    return FeatureMetrics(
        train=len(train),
        test=len(test),
        knn=neighbours.knn_accuracy(train, train_labels, test, test_labels, KS),
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
        warnings.simplefilter("ignore", ConvergenceWarning)  # the accuracy stands long before
        model.fit(train, train_labels)
    return float((model.predict(test) == test_labels).mean())
