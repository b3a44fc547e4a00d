"""The two views on TPUs: crops as matmuls, plane by plane, and the rotation kernel."""

import functools

import jax
import jax.numpy as jnp

from clevit_jax.kernels.rotation import can_shuffle, plane_shape, rotate_planes
from clevit_jax.views import rotation
from clevit_jax.views.config import ERASING_KINDS, SHUFFLING_KINDS, ViewConfig
from clevit_jax.views.crop import triangles
from clevit_jax.views.transforms import (
    random_brightness,
    random_crop_box,
    random_erase_box,
    random_shuffle_parts,
)


def crop_planes(image: jax.Array, box: jax.Array, *, size: int) -> jax.Array:
    """`crop` of 8-bit pixels, in planes, with fewer bfloat16 passes on a TPU: 5 in place of 12.

    There the lines are cut to 16 bits, so it is the same to 1e-5; elsewhere, to rounding.

    Args:
        image: bfloat16 [C, H, W], whole numbers in 0..255.
        box: int32 [4].
        size: pixels per side of the result.

    Returns:
        float32 [C, R, P] in 0..1, see `rotation.plane_shape`; 0 beyond `size`.
    """
    top, left, height, width = box
    rows_spare, columns_spare = ((0, whole - size) for whole in plane_shape(size))
    # A weight is a whole number, cut in two of 8 bits: their products with pixels are exact.
    rows = triangles(top, height, size=size, pixels=image.shape[1])
    total = jnp.pad(255 * rows.sum(axis=1), rows_spare, constant_values=1)  # [R]
    high = rows.astype(jnp.bfloat16)
    low = (rows - high.astype(jnp.float32)).astype(jnp.bfloat16)
    rows = jnp.pad(jnp.concatenate([high, low], axis=1), (rows_spare, (0, 0)))  # [R, 2 H]
    lines = jnp.einsum(
        "yh,chw->cyw",
        rows,
        jnp.concatenate([image, image], axis=1),
        preferred_element_type=jnp.float32,
    )
    lines = lines / total[None, :, None]
    columns = triangles(left, width, size=size, pixels=image.shape[2])
    total = jnp.pad(columns.sum(axis=1), columns_spare, constant_values=1)  # [P]
    columns = jnp.pad(columns, (columns_spare, (0, 0)))  # [P, W]
    return (
        jnp.einsum("cyw,xw->cyx", lines, columns, precision=jax.lax.Precision.HIGH)
        / total[None, None, :]
    )


def _common_planes(
    key: jax.Array, image: jax.Array, *, config: ViewConfig
) -> tuple[jax.Array, jax.Array]:
    """`_common_view` up to the rotation: bfloat16 [3, S, S] in 0..255 -> planes, and its picks.

    The planes are float32 [3, R, P], as `rotation.rotate_planes` takes them.
    """
    crop_key, brightness_key, angle_key, flip_key = jax.random.split(key, 4)
    side = image.shape[-1]
    box = random_crop_box(
        crop_key, height=side, width=side, scale=config.crop_scale, ratio=config.crop_ratio
    )
    planes = crop_planes(image, box, size=config.size)
    if config.brightness:
        planes = random_brightness(brightness_key, planes, brightness=config.brightness)
    return planes, rotation.draw_picks(angle_key, flip_key, config=config)


def views_by_kernel(
    keys: jax.Array, images: jax.Array, *, config: ViewConfig
) -> tuple[jax.Array, jax.Array | None]:
    """`make_views` of one device's images, rotated by the kernel."""
    assert config.kernel is not None
    keys_of_draws = jax.vmap(lambda key: jax.random.split(key, 4))(keys)  # as `_example_views`
    count = config.count
    common = jax.vmap(functools.partial(_common_planes, config=config), in_axes=(0, None))
    planes, picks = jax.vmap(common)(
        keys_of_draws[:, :count], images.transpose(0, 3, 1, 2).astype(jnp.bfloat16)
    )
    # Erased and shuffled in the same kernel: an anchor by an empty box and in its own order.
    number, shuffled = len(keys), config.kind in SHUFFLING_KINDS
    parts = config.parts if shuffled and can_shuffle(config.size, config.parts) else 1
    boxes = jnp.zeros((number, count, 4), jnp.int32)
    orders = jnp.broadcast_to(jnp.arange(parts * parts), (number, count, parts * parts))
    if config.kind in ERASING_KINDS:
        draw = functools.partial(
            random_erase_box,
            height=config.size,
            width=config.size,
            area=config.erase_area,
            ratio=config.erase_ratio,
        )
        boxes = boxes.at[:, 1].set(jax.vmap(draw)(keys_of_draws[:, 2]))
    if parts > 1:
        draw = functools.partial(jax.random.permutation, x=parts * parts)
        orders = orders.at[:, 1].set(jax.vmap(draw)(keys_of_draws[:, 3]))
    views = rotate_planes(
        planes.reshape(-1, *planes.shape[2:]),
        picks.reshape(-1, 6),
        boxes.reshape(-1, 4),
        orders.reshape(number * count, -1),
        size=config.size,
        interpret=config.kernel.interpret,
        mean=config.mean,
        deviation=config.std,
    )
    views = views.transpose(0, 2, 3, 1).reshape(number, count, config.size, config.size, 3)
    if config.kind == "base":
        return views[:, 0], None
    positives = views[:, 1]
    if shuffled and parts != config.parts:
        shuffle = functools.partial(random_shuffle_parts, parts=config.parts)
        positives = jax.vmap(shuffle)(keys_of_draws[:, 3], positives)
    return views[:, 0], positives
