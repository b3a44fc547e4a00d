"""Nearest neighbours by the cosine of features: how alike, whose class, and how well they sort."""

import dataclasses
from collections.abc import Iterator

import numpy as np

_BLOCK = 1 << 24  # similarities held at a time, of 4 bytes


def normalised(features: np.ndarray) -> np.ndarray:
    """Rows of length 1, float32; a row of zeros stays one."""
    lengths = np.linalg.norm(features, axis=-1, keepdims=True)
    return (features / np.maximum(lengths, np.finfo(np.float32).tiny)).astype(np.float32)


def _similarities(
    queries: np.ndarray, keys: np.ndarray, *, same: bool
) -> Iterator[tuple[int, np.ndarray]]:
    """Blocks of rows of the cosines, with the first row of each; -inf to itself if `same`."""
    queries, keys = normalised(queries), normalised(keys)
    rows = max(1, _BLOCK // max(1, len(keys)))
    for start in range(0, len(queries), rows):
        found = queries[start : start + rows] @ keys.T
        if same:
            own = np.arange(len(found))
            found[own, start + own] = -np.inf
        yield start, found


def distances(queries: np.ndarray, keys: np.ndarray | None = None) -> np.ndarray:
    """1 - cosine to the nearest key, float32 [N], from 0 (alike) to 2.

    Args:
        queries: [N, C].
        keys: [M, C]; None are the queries themselves, each without itself, of which there must be
            two.
    """
    others = queries if keys is None else keys
    blocks = _similarities(queries, others, same=keys is None)
    return np.maximum(0, 1 - np.concatenate([found.max(axis=1) for _, found in blocks]))


def nearest_of_class(
    query: np.ndarray, keys: np.ndarray, labels: np.ndarray, label: int
) -> tuple[int, float] | None:
    """The key [M, C] of a class that is nearest to a query [C] and its distance, or None."""
    rows = np.flatnonzero(labels == label)
    if not len(rows):
        return None
    found = 1 - normalised(keys[rows]) @ normalised(query[None])[0]
    best = int(found.argmin())
    return int(rows[best]), max(0.0, float(found[best]))


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
    most = min(max(ks), len(train))
    right = dict.fromkeys(ks, 0)
    for start, found in _similarities(test, train, same=False):
        order = np.argsort(-found, axis=1, kind="stable")[:, :most]
        for row, neighbours in enumerate(train_labels[order]):
            for k in ks:
                classes, first, votes = np.unique(
                    neighbours[:k], return_index=True, return_counts=True
                )
                best = min(range(len(classes)), key=lambda i: (-votes[i], first[i]))
                right[k] += int(classes[best] == test_labels[start + row])
    return {k: count / len(test) for k, count in right.items()}


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
    first, precision, queries = 0, 0.0, 0
    for start, found in _similarities(features, features, same=True):
        order = np.argsort(-found, axis=1, kind="stable")[:, :-1]  # without the query itself
        for ranked in labels[order] == labels[start : start + len(found), None]:
            places = np.flatnonzero(ranked)  # of its class, from 0
            if not len(places):
                continue
            queries += 1
            first += int(ranked[0])
            precision += float((np.arange(1, len(places) + 1) / (places + 1)).mean())
    return Retrieval(first / queries, precision / queries, queries) if queries else None
