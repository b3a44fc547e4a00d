"""A state is born where it lives, and is the same wherever that is."""

import jax
import numpy as np
import optax
import pytest

from clevit_jax.distributed.sharding import make_mesh, state_sharding
from clevit_jax.model import swin
from clevit_jax.steps.state import create_state

MODEL = swin.SwinConfig(
    image_size=16, num_classes=5, embed_dim=64, depths=(1,), num_heads=(2,), window=2
)
OPTIMIZER = optax.adam(1e-3)


@pytest.fixture(scope="module")
def states():
    """The same state on one device and on 2 x 2, with an average."""
    meshes = (make_mesh(devices=jax.devices()[:1]), make_mesh(2, 2))
    return [create_state(MODEL, OPTIMIZER, mesh, seed=3, ema=True) for mesh in meshes]


def test_equal_on_any_mesh(states):
    one, four = map(jax.device_get, states)
    jax.tree.map(np.testing.assert_array_equal, one, four)


def test_born_as_the_rule_says(states):
    for state in states:
        mesh = state.step.sharding.mesh
        expected = state_sharding(mesh, state)
        jax.tree.map(lambda leaf, sharding: _same(leaf, sharding), state, expected)
    kernel = states[1].params["layers"][0]["blocks"][0]["mlp"]["fc1"]["kernel"]  # 64 x 256
    assert kernel.addressable_shards[0].data.shape == (64, 128)
    for part in (states[1].opt_state[0].mu, states[1].opt_state[0].nu, states[1].ema):
        like = part["layers"][0]["blocks"][0]["mlp"]["fc1"]["kernel"]
        assert like.sharding == kernel.sharding


def _same(leaf, sharding):
    assert leaf.sharding.is_equivalent_to(sharding, leaf.ndim)


def test_the_parts(states):
    state = jax.device_get(states[0])
    assert state.step == 0
    assert state.step.dtype == np.int32
    assert all(leaf.dtype == np.float32 for leaf in jax.tree.leaves(state.params))
    jax.tree.map(np.testing.assert_array_equal, state.ema, state.params)
    assert state.eval_params is state.ema
    assert all(not leaf.any() for leaf in jax.tree.leaves(state.opt_state))


def test_the_average_is_a_copy_of_its_own(states):
    """Else the donation of one would be that of the other."""
    pairs = zip(jax.tree.leaves(states[0].ema), jax.tree.leaves(states[0].params), strict=True)
    assert all(a.unsafe_buffer_pointer() != b.unsafe_buffer_pointer() for a, b in pairs)


def test_seed_and_given_parameters(states):
    mesh = make_mesh()
    other = create_state(MODEL, OPTIMIZER, mesh, seed=4)
    name = ("patch_embed", "proj", "kernel")
    assert not np.array_equal(_at(other.params, name), _at(states[0].params, name))
    assert other.ema is None
    assert other.eval_params is other.params
    ones = jax.tree.map(lambda leaf: np.full(leaf.shape, 2, np.float32), other.params)
    given = create_state(MODEL, OPTIMIZER, mesh, seed=4, ema=True, params=ones)
    assert all((np.asarray(leaf) == 2).all() for leaf in jax.tree.leaves(given.params))
    assert all((np.asarray(leaf) == 2).all() for leaf in jax.tree.leaves(given.ema))


def _at(tree, names):
    for name in names:
        tree = tree[name]
    return tree
