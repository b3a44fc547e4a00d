"""Nearest neighbours by the cosine of features, by scikit-learn.

scikit-learn is imported where it is used, for that takes seconds. It compares blocks of rows, so
that the memory does not grow with the square of the images. Which of several images at exactly the
same distance counts as the nearer is its choice, the same each time on one machine.
"""

import dataclasses
from typing import Any

import numpy as np

_WORKING_MEMORY = 64  # MiB of distances at a time; scikit-learn's own default is 1024


def normalised(features: np.ndarray) -> np.ndarray:
    """Rows of length 1, float32; a row of zeros stays one."""
    lengths = np.linalg.norm(features, axis=-1, keepdims=True)
    return (features / np.maximum(lengths, np.finfo(np.float32).tiny)).astype(np.float32)


def _index(keys: np.ndarray, count: int) -> Any:
    from sklearn.neighbors import NearestNeighbors

    return NearestNeighbors(n_neighbors=count, metric="cosine").fit(keys)


def nearest_distances(features: np.ndarray) -> np.ndarray:
    """1 - cosine of each row to the nearest other one, float32 [N], from 0 (alike) to 2.

    Args:
        features: [N, C], N at least 2.
    """
    import sklearn

    with sklearn.config_context(working_memory=_WORKING_MEMORY):
        distances, _ = _index(features, 1).kneighbors()  # without rows as their own neighbours
    return distances[:, 0].astype(np.float32)


def nearest_of_class(
    query: np.ndarray, keys: np.ndarray, labels: np.ndarray, label: int
) -> tuple[int, float] | None:
    """The key [M, C] of a class that is nearest to a query [C] and its distance, or None."""
    rows = np.flatnonzero(labels == label)
    if not len(rows):
        return None
    distances, found = _index(keys[rows], 1).kneighbors(query[None])
    return int(rows[found[0, 0]]), float(distances[0, 0])


def knn_accuracy(
    train: np.ndarray, train_labels: np.ndarray, test: np.ndarray, test_labels: np.ndarray,
    ks: tuple[int, ...] = (1, 5, 20),
) -> dict[int, float]:  # fmt: skip
    """Share of test images that the majority of their k nearest training images names right.

    Every neighbour has one vote; of classes with equal votes, that of the nearest wins. A k above
    the number of training images takes all.

    Args:
        train, test: features [M, C] and [N, C].
        train_labels, test_labels: integers [M] and [N].
        ks: numbers of neighbours.
    """
    import sklearn
    from sklearn.utils.extmath import weighted_mode

    most = min(max(ks), len(train))
    with sklearn.config_context(working_memory=_WORKING_MEMORY):
        _, found = _index(train, most).kneighbors(test)
    neighbours = train_labels[found]  # [N, most], the nearest first
    # KNeighborsClassifier would give equal votes to the lowest class. Here the j-th neighbour has
    # 2 ** -(j + 2) of a vote more, together less than one: where votes are equal, the nearest wins
    # (to k = 50, the bits of a float64).
    votes = 1 + 0.5 ** np.arange(2, most + 2)
    named = {k: weighted_mode(neighbours[:, :k], votes[:k], axis=1)[0][:, 0] for k in ks}
    return {k: float((labels == test_labels).mean()) for k, labels in named.items()}


@dataclasses.dataclass(frozen=True)
class Retrieval:
    """How well the features of a set find images of the same class in it.

    Attributes:
        recall_at_1: share of the images whose nearest other one is of their class.
        mean_average_precision: mean over the images of the precision at each of their class.
        queries: images that have another one of their class; the others do not count.
    """

    recall_at_1: float
    mean_average_precision: float
    queries: int


def retrieval(features: np.ndarray, labels: np.ndarray) -> Retrieval | None:
    """Each image as a query among all others; None where no class has two images.

    Args:
        features: [N, C].
        labels: integers [N].

    Source: the retrieval protocol of Oh Song et al., Deep Metric Learning via Lifted Structured
    Feature Embedding, CVPR 2016 (R@1); average precision over the whole ranking.
    """
    from sklearn.metrics import label_ranking_average_precision_score, pairwise_distances_chunked

    first, precision, queries, start = 0, 0.0, 0, 0
    for distances in pairwise_distances_chunked(
        features, metric="cosine", working_memory=_WORKING_MEMORY
    ):  # [B, N]
        own = np.arange(len(distances)), np.arange(start, start + len(distances))
        same = labels[own[1], None] == labels
        same[own] = False
        distances[own] = 3  # more than any: comes last, where another class changes no precision
        start += len(distances)
        distances, same = distances[same.any(1)], same[same.any(1)]
        if not len(same):
            continue
        queries += len(same)
        first += int(same[np.arange(len(same)), distances.argmin(1)].sum())
        # average_precision_score of each row, at a fifth of its time.
        precision += len(same) * label_ranking_average_precision_score(same, -distances)
    return Retrieval(first / queries, precision / queries, queries) if queries else None
