"""Masked sums against NumPy on the whole split at once."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from clevit_jax.distributed import sharding
from clevit_jax.model import swin
from clevit_jax.model.config import SwinConfig
from clevit_jax.steps import eval_step

CONFIG = SwinConfig(
    image_size=16, num_classes=7, embed_dim=4, depths=(1, 1), num_heads=(1, 1), window=2
)


@pytest.fixture(scope="module")
def model():
    graphdef, _ = swin.abstract_swin(CONFIG)
    params = swin.init_params(CONFIG, 0)
    shape = params["head"]["kernel"].shape
    params["head"]["kernel"] = 10 * jax.random.normal(jax.random.key(1), shape)
    return jax.jit(eval_step.make_eval_step(graphdef)), params, graphdef


@pytest.fixture(scope="module")
def split():
    rng = np.random.RandomState(0)
    images = rng.randint(0, 256, (13, 16, 16, 3)).astype(np.uint8)
    return images, rng.randint(0, 6, 13).astype(np.int32)  # class 6 never occurs


def padded(split, size):
    images, labels = split
    for start in range(0, len(labels), size):
        rows = np.arange(start, start + size)
        inside = rows < len(labels)
        rows = np.where(inside, rows, 0)
        yield {"image": images[rows], "label": labels[rows], "mask": inside}


@pytest.mark.parametrize("size", [4, 8, 16])
def test_equals_numpy_whatever_the_batch(model, split, size):
    from flax import nnx

    step, params, graphdef = model
    images, labels = split
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    inputs = ((images / 255 - mean) / std).astype(np.float32)
    logits = np.asarray(nnx.merge(graphdef, params)(jnp.asarray(inputs))[0], np.float64)
    order = np.argsort(-logits, axis=1, kind="stable")
    right = order[:, 0] == labels
    log_p = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    result = eval_step.evaluate_batches(step, params, padded(split, size))
    assert result.count == 13
    assert result.top1 == pytest.approx(right.mean())
    assert result.top5 == pytest.approx((order[:, :5] == labels[:, None]).any(1).mean())
    assert result.mean_per_class == pytest.approx(
        np.mean([right[labels == k].mean() for k in np.unique(labels)])
    )
    assert result.loss == pytest.approx(-log_p[np.arange(13), labels].mean(), rel=1e-4)


def test_divided_over_devices(model, split):
    step, params, _ = model
    mesh = sharding.make_mesh()
    params_here = jax.device_put(params, sharding.replicated(mesh))
    batches = (sharding.to_global(mesh, b) for b in padded(split, 8))
    ours = eval_step.evaluate_batches(step, params_here, batches)
    alone = eval_step.evaluate_batches(step, params, padded(split, 8))
    assert (ours.top1, ours.top5, ours.mean_per_class) == (
        alone.top1,
        alone.top5,
        alone.mean_per_class,
    )
    assert ours.loss == pytest.approx(alone.loss, rel=1e-5)


def test_padding_never_counts_even_when_it_is_no_number(model, split):
    step, params, _ = model
    batch = next(padded(split, 4))
    batch["mask"] = np.array([True, False, True, False])
    sums = jax.device_get(step(params, batch))
    assert sums["count"].sum() == 2
    np.testing.assert_array_equal(np.nonzero(sums["count"])[0], np.unique(batch["label"][[0, 2]]))


@pytest.mark.parametrize("xp", [np, jnp])
def test_ties_and_nan_are_not_right_by_default(xp):
    labels = xp.array([0, 2, 4])
    for logits, expected in [
        (xp.zeros((3, 5)), [0, 2, 4]),
        (xp.full((3, 5), xp.nan), [5, 5, 5]),
        (xp.array([[1.0, 3.0, 2.0, 0, 0], [5.0, xp.inf, 5.0, 0, 0], [1, 1, 1, 1, 2]]), [2, 2, 0]),
    ]:
        found = eval_step.rank_of_label(logits, labels)
        assert isinstance(found, xp.ndarray)
        np.testing.assert_array_equal(found, expected)


def test_evaluation_of_logits_by_hand():
    probabilities = np.array([[4] + 6 * [1], 7 * [10 / 7], [4] + 6 * [1], [4] + 6 * [1]]) / 10
    found = eval_step.evaluation_of(np.log(probabilities) + 3, np.array([0, 6, 1, 0], np.int32))
    loss = -np.log(0.4 * 0.1 / 7 * 0.4) / 4
    assert found == eval_step.Evaluation(2 / 4, 3 / 4, pytest.approx(1 / 3), pytest.approx(loss), 4)
    sure = eval_step.loss_of_label(np.array([[0, 900]], np.float32), np.array([0]))
    assert (sure.dtype, sure.item()) == (np.float64, 900)  # where its probability is 0


def test_an_empty_split_is_refused(model):
    with pytest.raises(ValueError, match="nothing to evaluate"):
        eval_step.evaluate_batches(model[0], model[1], [])
