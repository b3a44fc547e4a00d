"""The losses against the official code's numbers, PyTorch, NumPy loops and hand calculations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from clevit_jax.steps.losses import cross_entropy, instance_triplet, supervised_cosine

smoothed = jax.jit(cross_entropy, static_argnames="label_smoothing")
cosine_and_grad = jax.jit(jax.value_and_grad(supervised_cosine))
triplet_and_grad = jax.jit(jax.value_and_grad(instance_triplet, argnums=(1, 2)))


def rows(seed, *shape):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy_equals_torch(smoothing):
    logits, labels = 5 * rows(0, 6, 9), np.array([0, 8, 3, 3, 1, 7], np.int32)
    reference = torch.tensor(logits, requires_grad=True)
    losses = torch.nn.functional.cross_entropy(
        reference, torch.tensor(labels).long(), label_smoothing=smoothing, reduction="none"
    )
    (want_gradient,) = torch.autograd.grad(losses.mean(), reference)

    got = smoothed(logits, labels, label_smoothing=smoothing)

    def mean(logits: jax.Array) -> jax.Array:
        return cross_entropy(logits, jnp.asarray(labels), label_smoothing=smoothing).mean()

    gradient = jax.jit(jax.grad(mean))(logits)
    assert got.shape == (6,)
    np.testing.assert_allclose(got, losses.detach().numpy(), rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(gradient, want_gradient.numpy(), atol=1e-7)


def test_cross_entropy_equals_timm_formula():
    """timm: 0.9 times the negative log-likelihood plus 0.1 times the mean over all classes."""
    logits, labels = rows(1, 3, 4).astype(np.float64), np.array([2, 0, 3], np.int32)
    log_probs = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    want = 0.9 * -log_probs[np.arange(3), labels] + 0.1 * -log_probs.mean(1)
    got = smoothed(logits.astype(np.float32), labels, label_smoothing=0.1)
    np.testing.assert_allclose(got, want, rtol=1e-6)


def test_cross_entropy_of_bfloat16_is_computed_in_float32():
    logits, labels = rows(2, 6, 9).astype(jnp.bfloat16), np.arange(6, dtype=np.int32)
    got = smoothed(logits, labels, label_smoothing=0.1)
    assert got.dtype == jnp.float32
    want = smoothed(logits.astype(np.float32), labels, label_smoothing=0.1)
    np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("case", [0, 1, 2])
def test_supervised_cosine_equals_official_code(golden, case):
    stored = np.load(golden / "supervised_cosine_loss.npz")
    features, labels = stored[f"features_{case}"], stored[f"labels_{case}"].astype(np.int32)
    loss, gradient = cosine_and_grad(features, labels)
    np.testing.assert_allclose(loss, stored[f"loss_{case}"], atol=1e-6)
    np.testing.assert_allclose(gradient, stored[f"grad_{case}"], atol=1e-6)


@pytest.mark.parametrize("margin", [0.4, -0.2])
def test_supervised_cosine_equals_a_loop(margin):
    features, labels = rows(3, 10, 7), np.array([0, 1, 1, 2, 0, 0, 1, 1, 2, 3], np.int32)
    total = 0.0
    for x, label in zip(features.astype(np.float64), labels, strict=True):
        for y, other_label in zip(features.astype(np.float64), labels, strict=True):
            cosine = x @ y / (np.linalg.norm(x) * np.linalg.norm(y))
            total += 1 - cosine if label == other_label else max(cosine - margin, 0)
    got, _ = cosine_and_grad(features, labels, margin=margin)
    np.testing.assert_allclose(got, total / 100, rtol=1e-6)


def test_supervised_cosine_by_hand():
    """Directions 0, 90 and 60 degrees, labels 5 5 6: pairs 1 (twice), 0.1 (twice), 0.466 (twice).

    cos 0 = 1 within the class; cos 60 - 0.4 = 0.1 and cos 30 - 0.4 = 0.4660254 across. Lengths
    3, 0.5 and 2 do not matter.
    """
    features = np.array([[3, 0], [0, 0.5], [1, 3**0.5]], np.float32)
    loss, _ = cosine_and_grad(features, np.array([5, 5, 6], np.int32))
    np.testing.assert_allclose(loss, 2 * (1 + 0.1 + 0.4660254) / 9, rtol=1e-6)


def test_rows_of_zeros_give_finite_gradients():
    features, ids = rows(4, 8, 6), np.array([0, 1, 2, 2, 3, 3, 4, 5], np.int32)
    features[1] = 0
    loss, gradient = cosine_and_grad(features, ids)
    assert np.isfinite(loss)
    assert np.isfinite(gradient).all()
    np.testing.assert_array_equal(gradient[1], 0)
    # The positive equals its anchor in every row, so every distance to it is 0 as well.
    loss, gradients = triplet_and_grad(jax.random.key(0), features, features, ids)
    assert np.isfinite(loss)
    assert all(np.isfinite(gradient).all() for gradient in gradients)
    assert np.abs(gradients[0]).max() > 0


def test_instance_triplet_by_hand():
    """Two images: each one's negative is the other's anchor, at 90 degrees, so d = sqrt 2.

    Row 0: the positive is the anchor's own direction, max(0 - 1.41421356 + 1, 0) = 0.
    Row 1: the positive is at 60 degrees, d = 2 sin 30 = 1, max(1 - 1.41421356 + 1, 0) = 0.58578644.
    With margin 2: 0.58578644 and 1.58578644.
    """
    anchor = np.array([[2, 0], [0, 5]], np.float32)
    positive = np.array([[7, 0], [3**0.5, 1]], np.float32)
    ids = np.array([11, 4], np.int32)
    for margin, want in [(1.0, 0.58578644 / 2), (2.0, (0.58578644 + 1.58578644) / 2)]:
        got, _ = triplet_and_grad(jax.random.key(0), anchor, positive, ids, margin=margin)
        np.testing.assert_allclose(got, want, rtol=1e-6)


@pytest.fixture(scope="module")
def drawn():
    """A function of five ids: for 600 keys and each row, whose anchor was the row's negative.

    All positives but row r's are their own anchors and all anchors are further apart than the
    margin of 1, so only row r counts. Its positive is opposite, at distance 2: five times the loss
    is 3 - d(a_r, n_r), and the distances of the anchors, written out in float64, tell n_r.
    """
    anchor = rows(5, 5, 40)
    positives = np.stack([anchor * np.where(np.arange(5) == r, -1, 1)[:, None] for r in range(5)])
    positives = positives.astype(np.float32)
    unit = anchor / np.linalg.norm(anchor.astype(np.float64), axis=1, keepdims=True)
    distance = np.linalg.norm(unit[:, None] - unit[None], axis=2)
    assert distance[~np.eye(5, dtype=bool)].min() > 1.0
    over_rows = jax.vmap(instance_triplet, (None, None, 0, None))
    over_keys = jax.jit(jax.vmap(over_rows, (0, None, None, None)))
    keys = jax.random.split(jax.random.key(1), 600)

    def drawn(ids):
        losses = np.asarray(over_keys(keys, anchor, positives, np.array(ids, np.int32)))
        error = np.abs(distance - (3 - 5 * losses)[:, :, None])  # [600, 5, 5]
        assert error.min(axis=2).max() < 1e-5, "a negative that is no anchor of the batch"
        return error.argmin(axis=2)

    return drawn


def test_instance_triplet_draws_every_other_image_equally_often(drawn):
    """Chi-square of each row over its four others, and of two rows jointly, at p = 0.001."""
    negatives = drawn([2, 70, 3, 0, 5])
    for row in range(5):
        counts = np.bincount(negatives[:, row], minlength=5)
        assert counts[row] == 0
        assert ((np.delete(counts, row) - 150) ** 2 / 150).sum() < 16.3, counts
    for row, other_row in [(0, 1), (2, 4)]:
        joint = np.zeros((5, 5))
        np.add.at(joint, (negatives[:, row], negatives[:, other_row]), 1)
        joint = np.delete(np.delete(joint, row, axis=0), other_row, axis=1)
        assert ((joint - 37.5) ** 2 / 37.5).sum() < 37.7, joint


def test_instance_triplet_never_draws_the_same_image(drawn):
    ids = np.array([7, 9, 7, 4, 9])
    negatives = drawn(ids)
    for row in range(5):
        assert set(ids[negatives[:, row]]) == set(ids) - {ids[row]}


def test_instance_triplet_without_another_image_is_zero():
    for batch in (1, 8):  # one row; eight rows of one image
        ids = np.full(batch, 6, np.int32)
        key = jax.random.key(0)
        loss, gradients = triplet_and_grad(key, rows(9, batch, 6), rows(10, batch, 6), ids)
        assert loss == 0
        for gradient in gradients:
            np.testing.assert_array_equal(gradient, 0)


def test_shuffling_the_batch_changes_nothing():
    anchor, positive, ids = rows(11, 8, 6), rows(12, 8, 6), np.arange(30, 38, dtype=np.int32)
    order = np.random.default_rng(13).permutation(8)
    key = jax.random.key(3)
    loss, gradients = triplet_and_grad(key, anchor, positive, ids)
    shuffled = triplet_and_grad(key, anchor[order], positive[order], ids[order])
    np.testing.assert_allclose(shuffled[0], loss, rtol=1e-6)
    for got, want in zip(shuffled[1], gradients, strict=True):
        np.testing.assert_allclose(got, want[order], atol=1e-6)

    loss, gradient = cosine_and_grad(anchor, ids % 3)
    shuffled = cosine_and_grad(anchor[order], ids[order] % 3)
    np.testing.assert_allclose(shuffled[0], loss, rtol=1e-6)
    np.testing.assert_allclose(shuffled[1], gradient[order], atol=1e-6)


def test_four_devices_equal_one():
    """The batch split over a mesh: the same total, and a gradient that stays split."""

    def total(anchor, positive, logits, labels, ids):
        stacked = jnp.concatenate([anchor, positive])
        return (
            cross_entropy(logits, labels, label_smoothing=0.1).mean()
            + supervised_cosine(stacked, jnp.concatenate([labels, labels]))
            + instance_triplet(jax.random.key(5), anchor, positive, ids)
        )

    batch = (
        rows(14, 8, 6),
        rows(15, 8, 6),
        rows(16, 8, 3),
        np.arange(8, dtype=np.int32) % 3,
        np.arange(8, dtype=np.int32),
    )
    mesh = jax.make_mesh((4,), ("data",), axis_types=(AxisType.Auto,))
    split = NamedSharding(mesh, PartitionSpec("data"))
    step = jax.jit(jax.value_and_grad(total, argnums=(0, 1, 2)))
    want_loss, want_gradients = step(*batch)
    loss, gradients = step(*jax.device_put(batch, split))
    np.testing.assert_allclose(loss, want_loss, rtol=1e-6)
    for got, want in zip(gradients, want_gradients, strict=True):
        assert len(got.sharding.device_set) == 4
        np.testing.assert_allclose(got, want, atol=1e-6)
