"""Splits that are cut: stratified, the same on every machine, and nobody in two places."""

import collections
import hashlib
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clevit_jax.data import splits
from clevit_jax.data.dataset import Example


def listed(*counts):
    """Examples of classes with so many files each."""
    pairs = [(label, k) for label, count in enumerate(counts) for k in range(count)]
    return [Example(b"", label, i, f"{label} é?%20_{k}.png") for i, (label, k) in enumerate(pairs)]


def names(examples):
    return [example.name for example in examples]


def by_class(examples):
    return collections.Counter(example.label for example in examples)


classes = st.lists(st.integers(1, 12), min_size=1, max_size=12)


@given(classes, st.floats(0, 0.95), st.integers(0, 2**32))
def test_a_cut_is_stratified(counts, fraction, seed):
    examples = listed(*counts)
    rest, out = splits.cut(examples, fraction, seed=seed, what="val")
    assert sorted(names(rest + out)) == sorted(names(examples))
    taken = by_class(out)
    for label, count in enumerate(counts):
        assert taken[label] < count  # one is kept
        assert int(fraction * count) - 1 <= taken[label] <= fraction * count + 1
    if min(counts) > 1 / (1 - fraction):  # every class can spare its share
        assert len(out) == round(fraction * len(examples))


@given(classes, st.integers(2, 6), st.integers(0, 2**32))
def test_folds_are_stratified_and_share_nothing(counts, folds, seed):
    examples = listed(*counts)
    parts = [splits.take_fold(examples, folds, fold, seed=seed) for fold in range(folds)]
    tested = [name for _, out in parts for name in names(out)]
    assert sorted(tested) == sorted(names(examples))
    for rest, out in parts:
        assert sorted(names(rest + out)) == sorted(names(examples))
    sizes = [len(out) for _, out in parts]
    assert max(sizes) - min(sizes) <= 1
    for label in range(len(counts)):
        share = [by_class(out)[label] for _, out in parts]
        assert max(share) - min(share) <= 1


WAYS = {
    "cut": lambda examples, seed: splits.cut(examples, 0.3, seed=seed, what="val")[1],
    "fold": lambda examples, seed: splits.take_fold(examples, 3, 1, seed=seed)[1],
}


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_a_split_is_a_function_of_names_labels_and_seed(way):
    examples = listed(5, 7, 9)
    mixed = random.Random(0).sample(examples, len(examples))
    elsewhere = [example._replace(data=b"x", id=99) for example in mixed]
    assert set(names(way(examples, 3))) == set(names(way(elsewhere, 3)))
    assert set(names(way(examples, 3))) != set(names(way(examples, 4)))
    assert names(way(examples, 3)) == sorted(names(way(examples, 3)))  # the order is kept


def test_the_draw_is_a_hash_of_what_seed_and_name():
    """So that a set which is cut today is cut alike in years: by hand, for one class."""
    examples = listed(10)
    _, out = splits.cut(examples, 0.3, seed=7, what="test")

    def key(name):
        return hashlib.sha256(f"test\0007\0{name}".encode()).digest()

    assert set(names(out)) == set(sorted(names(examples), key=key)[:3])
    _, other = splits.cut(examples, 0.3, seed=7, what="val")
    assert set(names(out)) != set(names(other))


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_a_file_that_is_listed_twice_stays_on_one_side(way):
    examples = listed(6, 6)
    out = names(way(examples * 2, 0))
    assert set(collections.Counter(out).values()) == {2}
    assert set(out) == set(names(way(examples, 0)))


def test_every_image_is_tested_on_once_in_all_seeds_of_the_draw():
    """No image is favoured: over many seeds each is drawn about as often."""
    examples = listed(5)
    drawn = collections.Counter[str]()
    for seed in range(1000):
        drawn.update(names(splits.cut(examples, 0.2, seed=seed, what="test")[1]))
    assert len(drawn) == 5
    assert min(drawn.values()) > 150  # 200 each; the deviation is 13
    assert max(drawn.values()) < 250


def test_the_share_that_is_left_over_goes_to_any_class():
    """Ten classes of three and a third of a file each: not always to the same classes."""
    examples = listed(*[3] * 10)
    drawn = collections.Counter[int]()
    for seed in range(200):
        taken = by_class(splits.cut(examples, 0.1, seed=seed, what="val")[1])
        assert sum(taken.values()) == 3
        assert max(taken.values()) == 1
        drawn.update(taken)
    assert len(drawn) == 10
    assert min(drawn.values()) > 30  # 60 each; the deviation is 6.5


@pytest.mark.parametrize(("folds", "fold"), [(1, 0), (0, 0), (3, 3), (3, -1)])
def test_a_fold_that_does_not_exist(folds, fold):
    with pytest.raises(ValueError, match=r"folds is|fold is"):
        splits.take_fold(listed(4), folds, fold, seed=0)


@given(classes, st.floats(0, 0.95), st.integers(0, 2**32))
def test_a_least_number_changes_no_cut_that_is_not_empty(counts, fraction, seed):
    """So the splits of runs stay; an empty cut gets one file, if a class has two."""
    examples = listed(*counts)
    before = splits.cut(examples, fraction, seed=seed, what="test")
    after = splits.cut(examples, fraction, seed=seed, what="test", least=1)
    if before[1]:
        assert after == before
    else:
        assert len(after[1]) == (max(counts) > 1)
        assert set(by_class(after[0])) == set(range(len(counts)))
