"""Random parameters: the bits of the initializers, by programs that do not grow with the model."""

import jax
import numpy as np
import pytest
from flax import nnx

from clevit_jax.model import init
from clevit_jax.model.config import SwinConfig
from clevit_jax.model.swin import Swin, init_params

SMALL = SwinConfig(
    image_size=16, num_classes=3, embed_dim=8, depths=(1, 1), num_heads=(1, 2), window=2
)
# Parameters of more numbers than a row, and more rows than a call.
WIDE = SwinConfig(
    image_size=16, num_classes=3, embed_dim=256, depths=(1,), num_heads=(2,), window=2
)


@pytest.mark.parametrize("config", [SMALL, WIDE])
def test_the_bits_are_those_of_the_initializers(config):
    @jax.jit
    def reference(key):
        return nnx.to_pure_dict(nnx.state(Swin(config, rngs=nnx.Rngs(key)), nnx.Param))

    expected = reference(jax.random.key(2**31 + 5, impl="threefry2x32"))
    params = init_params(config, 2**31 + 5)
    assert jax.tree.structure(params) == jax.tree.structure(expected)
    for leaf, other in zip(jax.tree.leaves(params), jax.tree.leaves(expected), strict=True):
        assert (leaf.dtype, type(leaf)) == (np.float32, np.ndarray)
        np.testing.assert_array_equal(leaf, other)


def test_one_program_draws_for_every_model():
    init_params(SMALL, 0)
    before = init._draw._cache_size(), init._fold_in._cache_size()
    init_params(WIDE, 1)
    assert (init._draw._cache_size(), init._fold_in._cache_size()) == before


def test_they_are_a_cut_normal():
    """Mean 0, deviation 0.02 cut at two of them (0.88 of it), in each of a layer's rows."""
    params = init_params(WIDE, 0)
    kernel = params["layers"][0]["blocks"][0]["mlp"]["fc1"]["kernel"].reshape(-1, init.WIDTH)
    assert np.abs(kernel).max() <= 0.04
    np.testing.assert_allclose(kernel.mean(1), 0, atol=0.0015)  # five standard errors
    np.testing.assert_allclose(kernel.std(1), 0.02 * 0.8796, rtol=0.05)
    assert len(np.unique(kernel)) > 0.98 * kernel.size
    assert not params["head"]["kernel"].any()
