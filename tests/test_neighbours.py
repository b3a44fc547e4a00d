"""Neighbours, retrieval and the probe against calculations by hand."""

import tracemalloc
import types

import numpy as np
import pytest

from clevit_jax.analysis import neighbours, ood, probe
from clevit_jax.analysis.feature_file import Features
from clevit_jax.analysis.ood import UNLIKE, make_reference


@pytest.fixture(scope="module")
def sets():
    """Features around four centres, and labels."""
    rng = np.random.RandomState(0)
    centres = rng.standard_normal((4, 16)) + 1

    def draw(count):
        labels = rng.randint(0, 4, count)
        return (centres[labels] + 1.5 * rng.standard_normal((count, 16))).astype(np.float32), labels

    return (*draw(60), *draw(40))


@pytest.fixture
def small_blocks(monkeypatch):
    """Three rows of 60 at a time, so that several blocks are put together."""
    monkeypatch.setattr(neighbours, "_WORKING_MEMORY", 3 * 60 * 8 / 2**20)


def cosines(queries, keys):
    """Of all pairs, float64 [N, M], one by one."""
    return np.array(
        [
            [np.dot(q, k) / np.sqrt(np.dot(q, q) * np.dot(k, k)) for k in keys.astype(np.float64)]
            for q in queries.astype(np.float64)
        ]
    )


@pytest.mark.usefixtures("small_blocks")
def test_nearest_distances(sets):
    similar = cosines(sets[0], sets[0])
    np.fill_diagonal(similar, -1)
    found = neighbours.nearest_distances(sets[0])
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, 1 - similar.max(axis=1), atol=1e-6)


def test_copies_and_empty_features_have_distances():
    """A copy is at distance 0, though not the row itself; a row of zeros is at right angles."""
    features = np.array([[1, 2], [2, 4], [0, 0], [2, -1]], np.float32)
    np.testing.assert_allclose(neighbours.nearest_distances(features), [0, 0, 1, 1], atol=1e-6)


@pytest.mark.usefixtures("small_blocks")
def test_knn_accuracy(sets):
    train, train_labels, test, test_labels = sets
    right, equal_votes = {1: 0, 4: 0}, 0
    for row, label in zip(cosines(test, train), test_labels, strict=True):
        nearest = train_labels[np.argsort(-row)].tolist()
        for k in right:
            votes = {c: nearest[:k].count(c) for c in nearest[:k]}
            most = [c for c, count in votes.items() if count == max(votes.values())]
            right[k] += min(most, key=nearest.index) == label
            equal_votes += len(most) > 1
    assert equal_votes > 3
    found = neighbours.knn_accuracy(train, train_labels, test, test_labels, (1, 4))
    assert found == {k: count / len(test) for k, count in right.items()}


def test_equal_votes_go_to_the_nearest():
    train = np.array([[1, 0], [1, 0.1], [1, 0.2], [1, 0.3]], np.float32)
    query = np.array([[1, 0]], np.float32)
    labels = np.array([7, 5, 5, 7])
    assert neighbours.knn_accuracy(train, labels, query, np.array([7]), (4,)) == {4: 1.0}
    assert neighbours.knn_accuracy(train, labels, query, np.array([5]), (3, 99)) == {
        3: 1.0,
        99: 0.0,
    }


@pytest.mark.usefixtures("small_blocks")
def test_retrieval(sets):
    _, _, features, labels = sets
    features, labels = features[:38], np.append(labels[:37], 9)  # and one that has no other
    similar = cosines(features, features)
    precisions, first = [], []
    for row in range(37):
        order = [other for other in np.argsort(-similar[row]) if other != row]
        same = [labels[other] == labels[row] for other in order]
        at = [sum(same[: place + 1]) / (place + 1) for place in range(37) if same[place]]
        precisions.append(sum(at) / len(at))
        first.append(same[0])
    found = neighbours.retrieval(features, labels)
    assert found.queries == 37
    assert found.recall_at_1 == pytest.approx(np.mean(first))
    assert found.mean_average_precision == pytest.approx(np.mean(precisions), abs=1e-12)


def test_retrieval_by_hand():
    """Angles 0, 10, 30 and 70 degrees: each has its like at another place of the ranking."""
    angles = np.deg2rad([0, 10, 30, 70])
    features = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    found = neighbours.retrieval(features, np.array([0, 1, 0, 1]))
    # From 0: 10, 30, ...; from 10: 0, 30, 70; from 30: 10, 0, ...; from 70: 30, 10, ...
    assert found == neighbours.Retrieval(0.0, pytest.approx((1 / 2 + 1 / 3 + 1 / 2 + 1 / 2) / 4), 4)
    # Of equal distances, none comes first: the precision counts them all.
    found = neighbours.retrieval(features[[0, 1, 1, 1]], np.array([0, 0, 1, 2]))
    assert found.mean_average_precision == pytest.approx((1 / 3 + 1 / 3) / 2)


def test_memory_is_that_of_a_block(monkeypatch):
    """700 images have 2 MB of cosines in float32; blocks of 0.05 MiB do with less."""
    monkeypatch.setattr(neighbours, "_WORKING_MEMORY", 0.05)
    features = np.random.RandomState(0).standard_normal((700, 4)).astype(np.float32)
    labels = np.arange(700) % 200
    neighbours.retrieval(features[:9], labels[:9])  # what is imported and kept
    tracemalloc.start()
    try:
        neighbours.nearest_distances(features)
        neighbours.knn_accuracy(features, labels, features, labels)
        neighbours.retrieval(features, labels)
        assert tracemalloc.get_traced_memory()[1] < 1.5e6
    finally:
        tracemalloc.stop()


def test_retrieval_without_pairs():
    features = np.eye(3, dtype=np.float32)
    assert neighbours.retrieval(features, np.array([0, 1, 2])) is None
    one_pair = neighbours.retrieval(features, np.array([0, 0, 2]))
    assert one_pair.queries == 2


def test_nearest_of_class():
    keys = np.array([[1, 0], [0, 1], [1, 1]], np.float32)
    labels = np.array([0, 1, 1])
    query = np.array([2, 1], np.float32)
    row, distance = neighbours.nearest_of_class(query, keys, labels, 1)
    assert row == 2
    assert distance == pytest.approx(1 - 3 / np.sqrt(10), abs=1e-6)
    assert neighbours.nearest_of_class(query, keys, labels, 2) is None


def test_probe(sets):
    worth = probe.feature_metrics(*sets)
    assert worth.linear_probe > 0.5  # chance is 0.25
    assert set(worth.knn) == {1, 5, 20}
    assert len(worth.lines()) == 5
    shuffled = probe.linear_probe(sets[0], np.random.RandomState(1).permutation(sets[1]), *sets[2:])
    assert shuffled < worth.linear_probe
    assert probe.linear_probe(sets[0], np.zeros(60, int), *sets[2:]) is None


def test_unlike_training(sets):
    """The share of the training images that have another one at less distance, by brute force."""
    train, labels, test, _ = sets
    images = Features(
        files=tuple(map(str, range(60))), splits=("train",) * 60, labels=labels, features=train,
        logits=train, class_names=(), source="", fingerprint="",
    )  # fmt: skip
    reference = make_reference(images)
    own = 1 - np.sort(cosines(train, train))[:, -2]
    far = -train.mean(0, keepdims=True)  # away from all of them
    for queries in (test, far):
        distance, nearer = reference.compare(queries)
        expected = 1 - cosines(queries, train).max(axis=1)
        np.testing.assert_allclose(distance, expected, atol=1e-6)
        np.testing.assert_allclose(nearer, (own[None] < expected[:, None] - 1e-7).mean(1))
    assert (nearer >= UNLIKE).all()
    assert reference.compare(train)[1].max() == 0  # each has itself at no distance
    assert make_reference(images.only("test")) is None


def test_equal_distances_are_not_nearer():
    """Of training images that are all twice there, none is nearer to another than a third copy."""
    twice = np.repeat(np.eye(4, dtype=np.float32), 2, axis=0)
    images = Features(
        files=("x",) * 8, splits=("train",) * 8, labels=np.zeros(8), features=twice, logits=twice,
        class_names=(), source="", fingerprint="",
    )  # fmt: skip
    distance, nearer = make_reference(images).compare(twice[:1])
    assert (distance[0], nearer[0]) == (0, 0)
    assert make_reference(images).compare(np.ones((1, 4), np.float32))[1] == 1


@pytest.mark.parametrize("count", [1, 2, 4, 5])
def test_few_training_images_are_no_reference(count, monkeypatch, capsys):
    """It is said, and the column stays empty."""
    features = np.eye(count, dtype=np.float32)
    images = Features(
        files=("x",) * count, splits=("train",) * count, labels=np.zeros(count), features=features,
        logits=features, class_names=(), source="", fingerprint="",
    )  # fmt: skip
    monkeypatch.setattr(ood, "training_features", lambda _: images)
    reference = ood.open_reference(types.SimpleNamespace(config={}), None)
    said = capsys.readouterr().err
    assert (reference is None) == (count < 5) == (f"{count} training image(s) are too few" in said)


@pytest.mark.parametrize(("train", "test"), [(1, 1), (2, 1), (3, 5), (6, 4)])
def test_metrics_of_few_features(train, test):
    """No k above the number of images, and a sentence instead of trust."""
    rng = np.random.RandomState(0)
    rows = rng.standard_normal((train + test, 3)).astype(np.float32)
    labels = np.arange(train + test) % 2
    worth = probe.feature_metrics(rows[:train], labels[:train], rows[train:], labels[train:])
    assert set(worth.knn) == {k for k in (1, 5, 20) if k <= train}
    assert (worth.linear_probe is None) == (train == 1)
    assert worth.lines()[0].startswith(f"Images: {train} training, {test} test. Below 5 of each")
