"""Nearest-neighbour picks of a rotation: as a gather, and as a Pallas kernel for TPUs.

Output pixel (row, column) comes from the source pixel whose coordinates are two affine functions of
(row, column) in 16.16 fixed point, as in Pillow's `Image.rotate`: `Picks`. Both forms copy the same
pixels, bit by bit.

A TPU gathers a pixel at a time from its main memory, but within 128 lanes of a register at once.
So the kernel picks in two passes along lanes. With r the source row and x the output column, the
first makes tables T_k[r, x] = S[r, e(r, x) + k], k = 0 and 1; the second, on the tables transposed,
out[row, x] = T_k[r, x] for the r and k of the pixel. Rows that share r and x differ by less than a
column in what they pick, and e is rounded so that two tables hold them all.
"""

import jax
import jax.numpy as jnp

from clevit_jax.kernels.rotation import ONE
from clevit_jax.views.config import ViewConfig


def _fixed(value: jax.Array) -> jax.Array:
    return jnp.floor(value * ONE + 0.5).astype(jnp.int32)


def picks(
    angle: jax.Array | float, flipped: jax.Array | bool, *, shape: tuple[int, int]
) -> jax.Array:
    """Where the pixels of an image come from that is turned, and then perhaps flipped.

    Args:
        angle: degrees counter-clockwise about the centre.
        flipped: whether left and right are exchanged after turning.
        shape: height and width of the image.

    Returns:
        int32 [6], in 16.16 fixed point: source row at output pixel (0, 0), its change a column and
        a row; source column at (0, 0), its change a column and a row. Integers pick the same pixel
        on every device and in every batch, where floats would part at ties.
    """
    height, width = shape
    radians = jnp.deg2rad(jnp.asarray(angle, jnp.float32))
    cos, sin = jnp.cos(radians), jnp.sin(radians)
    # Where the centre of output pixel (0, 0) comes from; the centre of the image stays put.
    up, left = 0.5 - height / 2, 0.5 - width / 2
    top = _fixed(sin * left + cos * up + height / 2)
    start = _fixed(cos * left - sin * up + width / 2)
    cos, sin = _fixed(cos), _fixed(sin)
    last = jnp.where(flipped, width - 1, 0)
    sign = jnp.where(flipped, -1, 1)
    return jnp.stack([top + sin * last, sign * sin, cos, start + cos * last, sign * cos, -sin])


def draw_picks(angle_key: jax.Array, flip_key: jax.Array, *, config: ViewConfig) -> jax.Array:
    """`rotation.picks` of a `random_rotate` and then a `random_flip_horizontal`."""
    angle = jax.random.uniform(angle_key, (), minval=-config.degrees, maxval=config.degrees)
    flipped = jax.random.bernoulli(flip_key, config.flip)
    return picks(angle, flipped, shape=(config.size, config.size))


def gather(image: jax.Array, picks: jax.Array) -> jax.Array:
    """The pixels of an image [H, W, C] that `picks` names; 0 where there is none."""
    height, width, channels = image.shape
    row = jnp.arange(height, dtype=jnp.int32)[:, None]  # [H, 1]
    column = jnp.arange(width, dtype=jnp.int32)[None, :]  # [1, W]
    y = (picks[0] + picks[1] * column + picks[2] * row) >> 16  # [H, W]
    x = (picks[3] + picks[4] * column + picks[5] * row) >> 16  # [H, W]
    inside = (y >= 0) & (y < height) & (x >= 0) & (x < width)
    pixel = jnp.where(inside, y * width + x, 0)
    turned = image.reshape(height * width, channels)[pixel]  # [H, W, C]
    return jnp.where(inside[..., None], turned, jnp.zeros((), image.dtype))
