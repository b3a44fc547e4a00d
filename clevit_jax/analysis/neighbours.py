"""Nearest neighbours by the cosine of features, computed by scikit-learn.

scikit-learn is imported inside the functions, because that takes seconds. It compares blocks of
rows, so that memory does not grow with the square of the number of images. Which of several images
at exactly the same distance counts as nearest is its choice, the same each time on one machine.
"""

import dataclasses
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from sklearn.neighbors import NearestNeighbors

FEW = 5  # of fewer images, comparisons tell nothing but chance
_WORKING_MEMORY = 64  # MiB of distances at a time; scikit-learn's default is 1024


def normalised(features: np.ndarray) -> np.ndarray:
    """Features [N, C] with each row divided by its length, float32; a row of zeros stays zero."""
    lengths = np.linalg.norm(features, axis=-1, keepdims=True)
    return (features / np.maximum(lengths, np.finfo(np.float32).tiny)).astype(np.float32)


def _index(keys: np.ndarray, count: int) -> "NearestNeighbors":
    """An index that finds the `count` nearest keys."""
    from sklearn.neighbors import NearestNeighbors

    return NearestNeighbors(n_neighbors=count, metric="cosine").fit(keys)


def nearest_distances(features: np.ndarray) -> np.ndarray:
    """Distance from each row to the nearest other one.

    Args:
        features: [N, C], N at least 2.

    Returns:
        1 - cosine, from 0 (same direction) to 2, float32 [N].
    """
    import sklearn

    with sklearn.config_context(working_memory=_WORKING_MEMORY):
        distances, _ = _index(features, 1).kneighbors()  # without rows as their own neighbours
    return distances[:, 0].astype(np.float32)


def nearest_of_class(
    query: np.ndarray, keys: np.ndarray, labels: np.ndarray, label: int
) -> tuple[int, float] | None:
    """The nearest to a query among the keys of one class.

    Args:
        query: features of an image, [C].
        keys: features of others, [M, C].
        labels: labels of the keys, [M].
        label: the class.

    Returns:
        Row of the key, and its distance 1 - cosine; None if no key is of the class.
    """
    rows = np.flatnonzero(labels == label)
    if not len(rows):
        return None
    distances, nearest = _index(keys[rows], 1).kneighbors(query[None])
    return int(rows[nearest[0, 0]]), float(distances[0, 0])


def knn_accuracy(
    train: np.ndarray,
    train_labels: np.ndarray,
    test: np.ndarray,
    test_labels: np.ndarray,
    ks: tuple[int, ...] = (1, 5, 20),
) -> dict[int, float]:
    """Accuracy of a k-nearest-neighbours classifier on test images.

    Every neighbour has one vote; of classes with equal votes, that of the nearest neighbour wins. A
    k above the number of training images takes all of them.

    Args:
        train, test: features [M, C] and [N, C].
        train_labels, test_labels: integers [M] and [N].
        ks: numbers of neighbours.

    Returns:
        k -> fraction of the test images that are classified correctly.
    """
    import sklearn
    from sklearn.utils.extmath import weighted_mode

    most = min(max(ks), len(train))
    with sklearn.config_context(working_memory=_WORKING_MEMORY):
        _, nearest = _index(train, most).kneighbors(test)
    neighbours = train_labels[nearest]  # [N, most], the nearest first
    # KNeighborsClassifier would give equal votes to the lowest class. Here the j-th neighbour has
    # 2 ** -(j + 2) of a vote more, together less than one: where votes are equal, the nearest wins
    # (to k = 50, the bits of a float64).
    votes = 1 + 0.5 ** np.arange(2, most + 2)
    predicted = {k: weighted_mode(neighbours[:, :k], votes[:k], axis=1)[0][:, 0] for k in ks}
    return {k: float((labels == test_labels).mean()) for k, labels in predicted.items()}


@dataclasses.dataclass(frozen=True)
class Retrieval:
    """Metrics of retrieval: does an image find others of its class by its features?

    Attributes:
        recall_at_1: fraction of the queries whose nearest other image is of their class.
        mean_average_precision: mean over the queries of the average precision.
        queries: number of images that share their class with another one; only these are queries.
    """

    recall_at_1: float
    mean_average_precision: float
    queries: int


def retrieval(features: np.ndarray, labels: np.ndarray) -> Retrieval | None:
    """Retrieval with each image as a query among all others; None if no class has two images.

    Args:
        features: [N, C].
        labels: integers [N].

    Source: the retrieval protocol of Oh Song et al., Deep Metric Learning via Lifted Structured
    Feature Embedding, CVPR 2016 (R@1); average precision over the whole ranking.
    """
    from sklearn.metrics import label_ranking_average_precision_score, pairwise_distances_chunked

    hits, precision, queries, begin = 0, 0.0, 0, 0
    for distances in pairwise_distances_chunked(
        features, metric="cosine", working_memory=_WORKING_MEMORY
    ):  # [B, N]
        own = np.arange(len(distances)), np.arange(begin, begin + len(distances))
        same = labels[own[1], None] == labels
        same[own] = False
        distances[own] = 3  # more than any: comes last, where another class changes no precision
        begin += len(distances)
        distances, same = distances[same.any(1)], same[same.any(1)]
        if not len(same):
            continue
        queries += len(same)
        hits += int(same[np.arange(len(same)), distances.argmin(1)].sum())
        # The same as average_precision_score row by row, in a fifth of the time.
        precision += len(same) * label_ranking_average_precision_score(same, -distances)
    return Retrieval(hits / queries, precision / queries, queries) if queries else None
