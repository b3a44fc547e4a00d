"""A scan over the blocks of a stage gives what the blocks give one after the other."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from flax import nnx

from clevit_jax.config import resolve
from clevit_jax.distributed import sharding
from clevit_jax.errors import ConfigError
from clevit_jax.model import swin
from clevit_jax.steps.jitted import make_jitted_steps


def make_model(**changes):
    """Stages of 2 blocks and of 7: three pairs, and one that is left over."""
    shape = {"embed_dim": 8, "depths": (2, 7), "num_heads": (1, 2), "image_size": 32, "window": 2}
    return swin.SwinConfig(num_classes=3, **{**shape, "drop_path": 0.4, **changes})


def loss_and_gradients(model, params, *, scan, noise=True):
    rng = np.random.default_rng(0)
    images = rng.standard_normal((3, 32, 32, 3)).astype(np.float32)
    drawn = rng.random((3, model.num_drop_paths)).astype(np.float32) if noise else None
    graphdef, _ = swin.abstract_swin(model)

    def loss(params):
        logits, features = nnx.merge(graphdef, params)(images, drop_path_noise=drawn, scan=scan)
        return jnp.sum(logits**2) + jnp.sum(features**3)

    return jax.jit(jax.value_and_grad(loss))(params)


@pytest.mark.parametrize(
    ("remat", "noise"), [("none", True), ("blocks", True), ("none", False)],
    ids=["plain", "remat", "no drop path"],
)  # fmt: skip
def test_results_are_the_same(random_params, remat, noise):
    """Loss and every gradient."""
    model = make_model()
    params = random_params(model)
    loss, gradients = loss_and_gradients(model, params, scan=False, noise=noise)
    scanned = make_model(remat=remat)
    found, others = loss_and_gradients(scanned, params, scan=True, noise=noise)
    np.testing.assert_allclose(found, loss, rtol=1e-5)
    assert jax.tree.structure(gradients) == jax.tree.structure(others)
    largest = max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(gradients))
    for one, other in zip(jax.tree.leaves(gradients), jax.tree.leaves(others), strict=True):
        np.testing.assert_allclose(other, one, rtol=1e-3, atol=1e-6 * largest)


def make_step(scan, **changes):
    config = tiny.get_config()
    config.model.depths, config.model.scan = (1, 6), scan
    config.update_from_flattened_dict(changes)
    config.model.num_classes = 3
    made = make_jitted_steps(resolve(config, None, "cpu").step, sharding.make_mesh(-1, 1))
    arguments = (made.abstract_state, made.train_batch, made.abstract_numbers)
    return made, made.train_step.trace(*arguments).lower().as_text()


def test_the_setting():
    """`auto` scans on CPUs, in the training step alone; `model.kernels` knows no scan."""
    scanned, text = make_step("auto")
    assert "stablehlo.while" in text
    assert make_step("blocks")[1] == text
    plain, other = make_step("none")
    assert other.count("stablehlo.while") < text.count("stablehlo.while")
    assert len(text) < len(other)
    assert jax.tree.structure(scanned.abstract_state) == jax.tree.structure(plain.abstract_state)
    evaluations = [
        made.eval_step.lower(made.abstract_state.eval_params, made.eval_batch).as_text()
        for made in (scanned, plain)
    ]
    assert evaluations[0] == evaluations[1]
    assert not resolve(tiny.get_config(), None, "gpu").step.scan
    with pytest.raises(
        ConfigError, match=r"^model.scan is 'x'; choose one of auto, none, blocks\.$"
    ):
        make_step("x")
