"""Resized crops as matmuls: Pillow's bilinear filter with antialias.

A box is int32 [4]: top, left, height, width, in pixels; it lies in the image and is not empty.
"""

import jax
import jax.numpy as jnp


def triangles(start: jax.Array, length: jax.Array, *, size: int, pixels: int) -> jax.Array:
    """Integers [size, pixels] in proportion to the weights of `_resize_weights`, as float32."""
    place = jnp.arange(size, dtype=jnp.int32)[:, None]  # [size, 1]
    index = jnp.arange(pixels, dtype=jnp.int32)[None, :] - start  # [1, pixels]
    # Distances of the centres times 2 size: integers, and so the same weights on every device.
    distance = jnp.abs((2 * index + 1) * size - (2 * place + 1) * length)  # [size, pixels]
    weights = jnp.maximum(2 * jnp.maximum(length, size) - distance, 0)
    return jnp.where((index >= 0) & (index < length), weights, 0).astype(jnp.float32)


def _resize_weights(start: jax.Array, length: jax.Array, *, size: int, pixels: int) -> jax.Array:
    """Weights float32 [size, pixels] that resize the pixels start..start + length to `size`."""
    weights = triangles(start, length, size=size, pixels=pixels)
    return weights / weights.sum(axis=1, keepdims=True)


def crop(image: jax.Array, box: jax.Array, *, size: int) -> jax.Array:
    """The box of the image [H, W, C], resized to [size, size, C]; float32, same range.

    Bilinear with antialias, as Pillow's `crop` and then `resize(..., BILINEAR)`: a triangle filter
    that widens as the crop shrinks and sees no pixel outside the box. The box lies in the image
    and is not empty. Source: torchvision `resized_crop`.
    """
    top, left, height, width = box
    rows = _resize_weights(top, height, size=size, pixels=image.shape[0])  # [size, H]
    columns = _resize_weights(left, width, size=size, pixels=image.shape[1])  # [size, W]
    highest = jax.lax.Precision.HIGHEST
    image = image.astype(jnp.float32)
    return jnp.einsum("hwc,yh,xw->yxc", image, rows, columns, precision=highest)
