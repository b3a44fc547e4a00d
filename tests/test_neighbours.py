"""Neighbours, retrieval and the probe against scikit-learn and hand calculations."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score
from sklearn.neighbors import KNeighborsClassifier, NearestNeighbors

from clevit_jax.analysis import neighbours, probe
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
    monkeypatch.setattr(neighbours, "_BLOCK", 180)


@pytest.mark.usefixtures("small_blocks")
def test_distances(sets):
    train, _, test, _ = sets
    index = NearestNeighbors(n_neighbors=2, metric="cosine").fit(train)
    expected = index.kneighbors(test)[0][:, 0]
    np.testing.assert_allclose(neighbours.distances(test, train), expected, atol=1e-6)
    others = index.kneighbors(train)[0][:, 1]  # the nearest is the image itself
    np.testing.assert_allclose(neighbours.distances(train), others, atol=1e-6)


@pytest.mark.usefixtures("small_blocks")
def test_knn_accuracy(sets):
    train, train_labels, test, test_labels = sets
    found = neighbours.knn_accuracy(train, train_labels, test, test_labels, (1, 5))
    model = KNeighborsClassifier(1, metric="cosine").fit(train, train_labels)
    assert found[1] == pytest.approx(model.score(test, test_labels))
    # With five, scikit-learn breaks ties another way, so count where there is none.
    votes = KNeighborsClassifier(5, metric="cosine").fit(train, train_labels).predict_proba(test)
    clear = np.sort(votes, axis=1)[:, -1] > np.sort(votes, axis=1)[:, -2]
    assert 0.5 < clear.mean() < 1
    clear_only = neighbours.knn_accuracy(train, train_labels, test[clear], test_labels[clear], (5,))
    expected = (votes[clear].argmax(1) == test_labels[clear]).mean()
    assert clear_only[5] == pytest.approx(expected)


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
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    similar = unit @ unit.T
    precisions, first = [], []
    for row in range(len(labels)):
        others = np.arange(len(labels)) != row
        same = labels[others] == labels[row]
        precisions.append(average_precision_score(same, similar[row][others]))
        first.append(same[similar[row][others].argmax()])
    found = neighbours.retrieval(features, labels)
    assert found.queries == len(labels)
    assert found.recall_at_1 == pytest.approx(np.mean(first))
    assert found.mean_average_precision == pytest.approx(np.mean(precisions), abs=1e-6)


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
    index = NearestNeighbors(n_neighbors=2, metric="cosine").fit(train)
    own = index.kneighbors(train)[0][:, 1]
    far = -train.mean(0, keepdims=True)  # away from all of them
    for queries in (test, far):
        distance, nearer = reference.compare(queries)
        expected = index.kneighbors(queries)[0][:, 0]
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
