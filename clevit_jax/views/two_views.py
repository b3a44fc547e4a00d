"""The two views of CLE-ViT, made on the device: crop, jitter, rotate, flip, erase, shuffle.

The transforms of one image are in `views.transforms`; `make_views` puts them in order, and maps
them over a batch.

Source: CLE-ViT (doi 10.24963/ijcai.2023/504) and its official code.
"""

import functools

import jax
import jax.numpy as jnp

from clevit_jax.distributed.sharding import on_each_device
from clevit_jax.views import rotation
from clevit_jax.views.config import ERASING_KINDS, SHUFFLING_KINDS, ViewConfig
from clevit_jax.views.transforms import (
    normalize,
    random_brightness,
    random_erase,
    random_flip_horizontal,
    random_resized_crop,
    random_shuffle_parts,
)
from clevit_jax.views.two_views_tpu import views_by_kernel


def example_keys(seed: int | jax.Array, epoch: jax.Array, ids: jax.Array) -> jax.Array:
    """Keys of examples by identity: fold_in(fold_in(key(seed), epoch), id).

    Args:
        seed: integer of the run.
        epoch: int32 [B], the epoch of each example.
        ids: int32 [B], the number of each example in its data set.

    Returns:
        Typed keys [B]; they depend on nothing but (seed, epoch, id) of the example itself.
    """
    # Named, because the `rbg` some users make their default depends on the batch under vmap.
    root = jax.random.key(seed, impl="threefry2x32")

    def example_key(epoch: jax.Array, example_id: jax.Array) -> jax.Array:
        return jax.random.fold_in(jax.random.fold_in(root, epoch), example_id)

    return jax.vmap(example_key)(epoch, ids)


def _common_view(key: jax.Array, image: jax.Array, *, config: ViewConfig) -> jax.Array:
    """What both views share: float image [S, S, 3] -> normalised [size, size, 3]."""
    crop_key, brightness_key, angle_key, flip_key = jax.random.split(key, 4)
    view = random_resized_crop(
        crop_key, image, size=config.size, scale=config.crop_scale, ratio=config.crop_ratio
    )  # [size, size, 3]
    if config.brightness:
        view = random_brightness(brightness_key, view, brightness=config.brightness)
    if config.degrees:
        picks = rotation.draw_picks(angle_key, flip_key, config=config)
        view = rotation.gather_pixels(view, picks)  # rotates and flips
    elif config.flip:
        view = random_flip_horizontal(flip_key, view, probability=config.flip)
    return normalize(view, mean=config.mean, std=config.std)


def _example_views(
    key: jax.Array, image: jax.Array, *, config: ViewConfig
) -> tuple[jax.Array, jax.Array | None]:
    """Anchor and positive of one image uint8 [S, S, 3]."""
    # Split alike for each kind, so that the anchor does not depend on the kind.
    anchor_key, positive_key, erase_key, shuffle_key = jax.random.split(key, 4)
    image = image.astype(jnp.float32) / 255
    common = functools.partial(_common_view, config=config)
    if config.kind == "base":
        return common(anchor_key, image), None
    # One vmap over both keys: the two crops become one matmul over the shared image.
    anchor, positive = jax.vmap(common, in_axes=(0, None))(
        jnp.stack([anchor_key, positive_key]), image
    )
    if config.kind in ERASING_KINDS:
        positive = random_erase(
            erase_key, positive, area=config.erase_area, ratio=config.erase_ratio
        )
    if config.kind in SHUFFLING_KINDS:
        positive = random_shuffle_parts(shuffle_key, positive, parts=config.parts)
    return anchor, positive


@functools.partial(jax.jit, static_argnames="config")
def make_views(
    keys: jax.Array, images: jax.Array, *, config: ViewConfig
) -> tuple[jax.Array, jax.Array | None]:
    """Anchors and positives of a batch.

    Args:
        keys: typed keys [B], one per example (`example_keys`).
        images: uint8 [B, S, S, 3], resized by the host to a square.
        config: the kind and the options of the views.

    Returns:
        Anchors and positives, float32 [B, size, size, 3], normalised; for the kind
        `base` the positives are None and nothing is computed for them.

    Raises:
        ValueError: images are not uint8 [B, S, S, 3], or there is not one key per image.
    """
    if images.dtype != jnp.uint8 or images.ndim != 4 or images.shape[-1] != 3:
        raise ValueError(
            f"images are {images.dtype}{images.shape}; they must be uint8 [B, S, S, 3]."
        )
    if keys.shape != images.shape[:1]:
        raise ValueError(
            f"keys have the shape {keys.shape}; it must be ({len(images)},), one per image."
        )
    if config.kernel is None:
        return jax.vmap(functools.partial(_example_views, config=config))(keys, images)
    local = functools.partial(views_by_kernel, config=config)
    return on_each_device(local, config.kernel.mesh)(keys, images)
