"""Fused kernels, interpreted, against the plain path in float32 at the highest precision."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
from flax import nnx

from clevit_jax.distributed import sharding
from clevit_jax.kernels import arithmetic, attention, linear
from clevit_jax.kernels.config import KernelConfig
from clevit_jax.kernels.rows import Grid
from clevit_jax.model import swin, swin_tpu
from clevit_jax.model.attention import relative_position_index, shift_mask
from clevit_jax.model.config import VARIANTS

FAST = KernelConfig(interpret=True)
SMALL = dataclasses.replace(FAST, vmem=2_500_000)  # too little for what a step would take at once
# Of eight images, see test_a_small_chip_has_smaller_steps.
IN_TWO_STEPS = {
    "image_size": 24, "kernels": SMALL, "embed_dim": 128, "num_heads": (4,), "window": 2,
}  # fmt: skip


def make_config(**changes):
    fields = {
        "image_size": 56, "num_classes": 5, "embed_dim": 32, "depths": (2,), "num_heads": (1,),
        "drop_path": 0.3, "kernels": FAST,
    }  # fmt: skip
    return swin.SwinConfig(**{**fields, **changes})


@functools.cache
def random_params(config):
    leaves, tree = jax.tree.flatten(swin.abstract_swin(config)[1])
    keys = jax.random.split(jax.random.key(0), len(leaves))
    made = [0.2 * jax.random.normal(k, x.shape) for k, x in zip(keys, leaves, strict=True)]
    return jax.tree.map_with_path(
        lambda path, x: 1 + x if path[-1].key == "scale" else x, jax.tree.unflatten(tree, made)
    )


@functools.cache
def compiled(config):
    graphdef = swin.abstract_swin(config)[0]

    def loss(params, images, noise, weights):
        logits, features = nnx.merge(graphdef, params)(images, drop_path_noise=noise)
        return (logits * weights).sum(), features

    return jax.jit(jax.value_and_grad(loss, has_aux=True))


def run(config, params, batch, seed=0):
    """Features, and the gradient of a weighted sum of the logits."""
    keys = jax.random.split(jax.random.key(seed), 3)
    images = jax.random.normal(keys[0], (batch, config.image_size, config.image_size, 3))
    noise = jax.random.uniform(keys[1], (batch, config.num_drop_paths))
    weights = jax.random.normal(keys[2], (batch, config.num_classes))
    with jax.default_matmul_precision("highest"):
        (_, features), grads = compiled(config)(params, images, noise, weights)
    return features, grads


def distance(a, b):
    return float(jnp.linalg.norm((a - b).astype(jnp.float32)) / jnp.linalg.norm(b))


@pytest.mark.parametrize(
    ("changes", "batch"),
    [
        ({"num_heads": (2,)}, 8),  # shifted windows of 7
        ({"embed_dim": 96, "num_heads": (3,)}, 8),  # heads that do not fill a register
        ({"image_size": 96, "window": 12}, 8),  # shifted windows of 12
        ({"image_size": 112, "depths": (2, 1), "num_heads": (1, 2)}, 5),  # merging, padded batch
        ({**IN_TWO_STEPS, "remat": "blocks"}, 16),
    ],
)
def test_equal_to_the_plain_path(changes, batch):
    config = make_config(**changes)
    plain = dataclasses.replace(config, kernels=None)
    params = random_params(config)
    features, grads = run(config, params, batch)
    wanted_features, wanted = run(plain, params, batch)
    assert distance(features, wanted_features) < 1e-5
    for (path, grad), right in zip(
        jax.tree.leaves_with_path(grads), jax.tree.leaves(wanted), strict=True
    ):
        assert distance(grad, right) < 1e-4, jax.tree_util.keystr(path)


def test_bfloat16_is_no_farther_from_the_truth_than_the_plain_path():
    """Root mean square over four batches, for one alone is a draw of rounding errors."""
    config = make_config(dtype=jnp.bfloat16, embed_dim=128, num_heads=(4,))
    plain = dataclasses.replace(config, kernels=None)
    params = random_params(config)
    squares = {}
    for seed in range(4):
        truth = run(dataclasses.replace(plain, dtype=jnp.float32), params, 8, seed)
        fast, slow = run(config, params, 8, seed), run(plain, params, 8, seed)
        for (path, right), *both in zip(
            jax.tree.leaves_with_path(truth), *map(jax.tree.leaves, (fast, slow)), strict=True
        ):
            squares.setdefault(path, []).append([distance(x, right) ** 2 for x in both])
    for path, found in squares.items():
        ours, theirs = np.sqrt(np.mean(found, 0))
        assert ours <= 1.1 * theirs + 1e-6, jax.tree_util.keystr(path)


def test_divided_over_devices():
    """Rows over both axes; parameters whole, their gradients summed."""
    mesh = sharding.make_mesh(2, 2, devices=jax.devices()[:4])
    config = make_config(kernels=KernelConfig(mesh, interpret=True))
    plain = dataclasses.replace(config, kernels=None)
    params = random_params(make_config())
    features, grads = run(config, params, 8)
    wanted_features, wanted = run(plain, params, 8)
    assert distance(features, wanted_features) < 1e-5
    assert max(jax.tree.leaves(jax.tree.map(distance, grads, wanted))) < 1e-4


def test_heads_far_apart():
    """Scores of one head 1e4 above another's: each head's softmax is its own."""
    config = make_config(embed_dim=64, num_heads=(2,))
    plain = dataclasses.replace(config, kernels=None)
    params = jax.tree.map(lambda x: x, random_params(config))
    for block in params["layers"][0]["blocks"].values():
        table = block["attn"]["relative_position_bias_table"]
        block["attn"]["relative_position_bias_table"] = table + jnp.array([[0.0, 1e4]])
    features, grads = run(config, params, 8)
    wanted, _ = run(plain, params, 8)
    assert distance(features, wanted) < 1e-3  # 1e4 leaves float32 three digits behind the point
    assert all(jnp.isfinite(x).all() for x in jax.tree.leaves(grads))


def test_gelu_within_half_a_step_of_bfloat16():
    x = np.linspace(-12, 12, 200001, dtype=np.float32)
    right = x.astype(np.float64) * scipy.special.ndtr(x.astype(np.float64))
    got = np.asarray(arithmetic.gelu(jnp.asarray(x), exact=False), np.float64)
    error = np.abs(got - right)
    assert (error <= np.maximum(2.0**-9 * np.abs(right), 1e-6)).all()
    step = 1e-3
    _, slope = arithmetic.gelu_and_slope(jnp.asarray(x), exact=False)
    above, below = ((x + d) * scipy.special.ndtr(x + d) for d in (step, -step))
    np.testing.assert_allclose(slope, (above - below) / (2 * step), atol=2e-3)


@pytest.mark.parametrize(("window", "shift", "grid"), [(7, 3, 28), (12, 6, 24)])
def test_kinds_of_windows(window, shift, grid):
    """Every window of the official mask is one of the four kinds."""
    masks = shift_mask((grid, grid), window, shift)
    kinds, side = attention.kind_masks(window, shift), grid // window
    for i in range(side):
        for j in range(side):
            kind = kinds[2 * (i == side - 1) + (j == side - 1)]
            np.testing.assert_array_equal(masks[i * side + j], kind)


@pytest.mark.parametrize("window", [2, 7, 12])
def test_bias_of_the_table_bit_by_bit(window):
    table = jax.random.normal(jax.random.key(0), ((2 * window - 1) ** 2, 3))
    wanted = np.asarray(table)[relative_position_index(window)].transpose(2, 0, 1)
    np.testing.assert_array_equal(attention.relative_bias(table, window), wanted)


def test_what_no_kernel_fits_is_said_and_runs_plainly():
    """Blocks, and a merge for which there is no room."""
    little = dataclasses.replace(FAST, vmem=1000)
    config = make_config(embed_dim=24, num_heads=(1, 2), depths=(1, 1), kernels=little)
    assert swin_tpu.describe_kernels(config, 4) == (
        "Kernels: 0 of 2 blocks run fused; blocks 0.0, 1.0 (stage.block) do not: each has 24 "
        "channels per head, which must be 8, 16, 32, 64 or 128; 4 images per device are padded to "
        "8."
    )
    params = random_params(config)
    features, _ = run(config, params, 4)
    wanted, _ = run(dataclasses.replace(config, kernels=None), params, 4)
    assert distance(features, wanted) < 1e-5


def test_a_small_chip_has_smaller_steps():
    """What fits first: the MLP in parts, then queries, keys and values, then fewer images."""

    def found(images, **changes):
        (plans,) = swin_tpu.plan_blocks(make_config(**changes), images)
        return {(plan.grid.images, plan.together, plan.parts) for plan in plans}

    small = {"embed_dim": 128, "num_heads": (4,), "window": 2}
    assert found(16, **small) == {(16, 3, 1)}
    assert found(16, **small, kernels=SMALL) == {(8, 3, 4)}
    assert found(16, **IN_TWO_STEPS) == {(8, 3, 4)}
    less = dataclasses.replace(FAST, vmem=4_000_000)
    assert found(24, window=2, kernels=less) == {(8, 3, 1)}
    wide = {"image_size": 32, "embed_dim": 512, "num_heads": (16,), "dtype": jnp.bfloat16}
    less = dataclasses.replace(FAST, vmem=7_000_000)
    # Where windows are shifted a step has one line, and there is room for all three together.
    assert found(16, window=2, **wide, kernels=less) == {(8, 1, 4), (8, 3, 4)}
    heads = attention.Heads(4, 32, 7)  # which took 19.2 MiB for 48 images on a v4, libtpu said
    assert attention.images_per_step(Grid(28, 28, 48, vmem=20 << 20), heads) == 48
    assert attention.images_per_step(Grid(28, 28, 48, vmem=14 << 20), heads) == 24


@pytest.mark.parametrize("together", [3, 1])
def test_gradients_of_queries_keys_and_values(together):
    """Of normalised, rolled tokens, as JAX derives them."""
    grid = Grid(4, 4, 8, roll=1, interpret=True, itemsize=4)
    keys = jax.random.split(jax.random.key(0), 6)
    x, residual = (jax.random.normal(k, (4, 4, 8, 32)) for k in keys[:2])
    parts = [jax.random.normal(k, (4, 4, 8, 128)) for k in keys[2:5]]
    w, b = jax.random.normal(keys[5], (32, 384)), jnp.zeros(384)

    def plain(x, w, b):
        normal = jax.nn.standardize(x, epsilon=arithmetic.LAYER_NORM_EPSILON)
        value = jnp.dot(normal, w, precision="highest") + b[None, None, None]
        return jnp.roll(value, (-1, -1), (0, 1))

    dx, *wanted = jax.vjp(plain, x, w, b)[1](jnp.concatenate(parts, -1))
    found = linear.qkv_gradient(x, residual, parts, w, grid=grid, together=together)
    for ours, right in zip(found, (dx + residual, *wanted), strict=True):
        assert distance(ours, right) < 1e-5


@pytest.mark.parametrize("variant", list(VARIANTS))
@pytest.mark.parametrize(("image_size", "window"), [(224, 7), (448, 7), (384, 12)])
@pytest.mark.parametrize("vmem", [56, 112])
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float32])
def test_every_published_model_has_kernels(variant, image_size, window, vmem, dtype):
    """On the 64 MiB of a v5p or TPU7x and the 128 of a v5e or v6e."""
    config = swin.SwinConfig.variant(
        variant,
        image_size=image_size,
        window=window,
        dtype=dtype,
        kernels=KernelConfig(vmem=vmem << 20),
    )
    blocks = sum(config.depths)
    assert (
        swin_tpu.describe_kernels(config, 24) == f"Kernels: {blocks} of {blocks} blocks run fused."
    )
