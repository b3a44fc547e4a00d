"""Masked sums against NumPy on the whole split at once."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from clevit_jax.data.dataset import Level
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


LEVELS = (
    Level("kind", ("p", "p", "q", "p", "q", "q", "p")),
    Level("super category", ("b", "a", "a", "c", "b", "c", "c")),
    Level("class", tuple("abcdefg")),
)


@pytest.mark.parametrize("size", [4, 16])
def test_levels_count_the_right_groups(model, split, size):
    """By scikit-learn, of the same predictions; each class its own group is the top-1 itself."""
    from flax import nnx
    from sklearn.metrics import accuracy_score

    _, params, graphdef = model
    images, labels = split
    step = jax.jit(eval_step.make_eval_step(graphdef, levels=LEVELS))
    found = eval_step.evaluate_batches(step, params, padded(split, size), LEVELS)
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    inputs = ((images / 255 - mean) / std).astype(np.float32)
    logits = np.asarray(nnx.merge(graphdef, params)(jnp.asarray(inputs))[0])
    predicted = logits.argmax(-1)
    for name, groups in LEVELS:
        in_words = [[groups[k] for k in numbers] for numbers in (labels, predicted)]
        assert found.levels[name] == pytest.approx(accuracy_score(*in_words)), name
    assert list(found.levels) == [name for name, _ in LEVELS]
    assert found.levels["class"] == found.top1 < found.levels["super category"]
    plain = eval_step.evaluate_batches(model[0], params, padded(split, size))
    assert found == dataclasses.replace(plain, levels=found.levels)
    assert eval_step.evaluation_of(logits, labels, LEVELS).levels == found.levels


@pytest.mark.parametrize("xp", [np, jnp])
def test_a_group_is_not_right_by_default(xp):
    """By hand: equal logits are the first class, NaN comes last, and all NaN are no class."""
    logits = xp.array([3 * [0.0], [xp.nan, 1, 2], [xp.nan, xp.nan, -1], 3 * [xp.nan]])
    for labels, expected in [
        ([0, 2, 2, 0], [True, True, True, False]),
        ([1, 1, 1, 1], [True, False, False, False]),
        ([2, 0, 0, 2], [False, False, False, False]),
    ]:
        found = eval_step.group_is_right(logits, xp.array(labels), Level("kind", ("a", "a", "b")))
        assert isinstance(found, xp.ndarray)
        assert found.tolist() == expected


def test_scores_by_level_in_words_and_in_json():
    found = eval_step.Evaluation(0.5, 1, 0.25, 1.5, 8, {"genus": 0.912, 'a/"b"': 1.0})
    assert str(found) == (
        'top-1 50.00 %, top-5 100.00 %, mean per class 25.00 %, genus 91.20 %, a/"b" 100.00 %, '
        "loss 1.5000 (8 images)"
    )
    written = json.loads(json.dumps(found.to_json()))
    assert written == {
        "top1": 0.5, "top5": 1, "mean_per_class": 0.25, "loss": 1.5, "count": 8,
        "accuracy_genus": 0.912, 'accuracy_a/"b"': 1.0,
    }  # fmt: skip
    assert eval_step.Evaluation.from_json({"step": 3, **written}) == found
    assert hash(found) == hash(dataclasses.replace(found, levels={}))


def test_an_empty_split_is_refused(model):
    with pytest.raises(ValueError, match="nothing to evaluate"):
        eval_step.evaluate_batches(model[0], model[1], [])
