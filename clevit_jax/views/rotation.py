"""Rotation of an image by nearest neighbours: which pixels are picked, and a gather of them.

Output pixel (row, column) comes from the source pixel whose coordinates are two affine functions of
(row, column) in 16.16 fixed point, as in Pillow's `Image.rotate`. On TPUs `kernels.rotation` copies
the same pixels, bit by bit.
"""

import jax
import jax.numpy as jnp

from clevit_jax.kernels.rotation import ONE
from clevit_jax.views.config import ViewConfig


def _fixed(value: jax.Array) -> jax.Array:
    return jnp.floor(value * ONE + 0.5).astype(jnp.int32)


def rotation_picks(
    angle: jax.Array | float, flipped: jax.Array | bool, *, shape: tuple[int, int]
) -> jax.Array:
    """Where the pixels of an image come from that is rotated, and then perhaps flipped.

    Args:
        angle: degrees counter-clockwise about the centre.
        flipped: whether left and right are exchanged after the rotation.
        shape: height and width of the image.

    Returns:
        int32 [6], in 16.16 fixed point: source row at output pixel (0, 0), its change per column
        and per row; source column at (0, 0), its change per column and per row. Integers pick the
        same pixel on every device and in every batch, where floats would part at ties.
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
    """`rotation_picks` of a `random_rotate` and then a `random_flip_horizontal`."""
    angle = jax.random.uniform(angle_key, (), minval=-config.degrees, maxval=config.degrees)
    flipped = jax.random.bernoulli(flip_key, config.flip)
    return rotation_picks(angle, flipped, shape=(config.size, config.size))


def gather_pixels(image: jax.Array, picks: jax.Array) -> jax.Array:
    """The pixels of an image [H, W, C] at `rotation_picks`; 0 where there is none."""
    height, width, channels = image.shape
    row = jnp.arange(height, dtype=jnp.int32)[:, None]  # [H, 1]
    column = jnp.arange(width, dtype=jnp.int32)[None, :]  # [1, W]
    y = (picks[0] + picks[1] * column + picks[2] * row) >> 16  # [H, W]
    x = (picks[3] + picks[4] * column + picks[5] * row) >> 16  # [H, W]
    inside = (y >= 0) & (y < height) & (x >= 0) & (x < width)
    pixel = jnp.where(inside, y * width + x, 0)
    rotated = image.reshape(height * width, channels)[pixel]  # [H, W, C]
    return jnp.where(inside[..., None], rotated, jnp.zeros((), image.dtype))
