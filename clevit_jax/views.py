"""The two views of CLE-ViT, made on the device: crop, jitter, rotate, flip, erase, shuffle.

A deterministic core a step and a thin `random_*` wrapper that draws its parameters; `key` comes
first, options are keyword-only. Both take one image [H, W, C] and are vmapped in `make_views`.
Unless said otherwise an image is float32 in the range 0..1; the crop is not rounded to 8 bits.
A box is int32 [4]: top, left, height, width, in pixels.

Source: CLE-ViT (doi 10.24963/ijcai.2023/504) and its official code, drawn as torchvision's
`RandomResizedCrop`, `ColorJitter`, `RandomRotation` and `RandomErasing`.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec

from clevit_jax import rotation
from clevit_jax.cropping import crop, crop_planes
from clevit_jax.view_config import ERASING_KINDS, SHUFFLING_KINDS, ViewConfig

IMAGENET_MEAN = np.array([0.485, 0.456, 0.406], np.float32)
IMAGENET_STD = np.array([0.229, 0.224, 0.225], np.float32)

BOX_TRIES = 10  # torchvision's, for the crop and for the erased box


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


def _random_box(
    key: jax.Array, *, shape: tuple[int, int], area: tuple[float, float],
    aspect: tuple[float, float], largest: tuple[int, int], fallback: tuple[int, int],
) -> jax.Array:  # fmt: skip
    """First of ten drawn sizes that is within `largest`, at a uniform place; else `fallback`.

    Sizes are (height, width), `aspect` is height over width. The fall-back box is centred.
    """
    # One draw for all: every call of the generator takes a CPU long to compile.
    uniform = jax.random.uniform(key, (2 * BOX_TRIES + 2,))
    areas = area[0] + (area[1] - area[0]) * uniform[:BOX_TRIES]
    areas = areas * (shape[0] * shape[1])
    low, high = math.log(aspect[0]), math.log(aspect[1])
    aspects = jnp.exp(low + (high - low) * uniform[BOX_TRIES:-2])
    heights = jnp.round(jnp.sqrt(areas * aspects)).astype(jnp.int32)
    widths = jnp.round(jnp.sqrt(areas / aspects)).astype(jnp.int32)
    legal = (heights > 0) & (heights <= largest[0]) & (widths > 0) & (widths <= largest[1])
    first = jnp.argmax(legal)
    fits = legal[first]
    size = jnp.where(fits, jnp.stack([heights, widths])[:, first], jnp.array(fallback, jnp.int32))
    room = jnp.array(shape, jnp.int32) - size
    drawn = jnp.floor(uniform[-2:] * (room + 1).astype(jnp.float32)).astype(jnp.int32)
    return jnp.concatenate([jnp.where(fits, drawn, room // 2), size])


def random_crop_box(
    key: jax.Array, *, height: int, width: int,
    scale: tuple[float, float], ratio: tuple[float, float],
) -> jax.Array:  # fmt: skip
    """Box int32 [4] of a random resized crop of a height x width image.

    `scale` is the share of the area, `ratio` width over height, log-uniform. After ten illegal
    draws: the largest centred box of legal aspect. Source: torchvision `RandomResizedCrop`.
    """
    fallback = (height, width)
    if width / height < ratio[0]:
        fallback = (round(width / ratio[0]), width)
    elif width / height > ratio[1]:
        fallback = (height, round(height * ratio[1]))
    return _random_box(
        key, shape=(height, width), area=scale, aspect=(1 / ratio[1], 1 / ratio[0]),
        largest=(height, width), fallback=fallback,
    )  # fmt: skip


def random_resized_crop(
    key: jax.Array, image: jax.Array, *, size: int,
    scale: tuple[float, float], ratio: tuple[float, float],
) -> jax.Array:  # fmt: skip
    """`crop` at a `random_crop_box`: float32 [size, size, C], same range as the image."""
    height, width = image.shape[:2]
    box = random_crop_box(key, height=height, width=width, scale=scale, ratio=ratio)
    return crop(image, box, size=size)


def adjust_brightness(image: jax.Array, factor: jax.Array | float) -> jax.Array:
    """Image [H, W, C] times the factor, clipped to 0..1 (torchvision `adjust_brightness`)."""
    return jnp.clip(image * factor, 0.0, 1.0)


def random_brightness(key: jax.Array, image: jax.Array, *, brightness: float) -> jax.Array:
    """`adjust_brightness` by a factor uniform in [1 - brightness, 1 + brightness]."""
    factor = jax.random.uniform(key, (), minval=1 - brightness, maxval=1 + brightness)
    return adjust_brightness(image, factor)


def rotate(image: jax.Array, angle: jax.Array | float) -> jax.Array:
    """Image [H, W, C] turned counter-clockwise by `angle` degrees about its centre.

    Nearest neighbour, corners black, same shape and dtype; an angle of 0 is the identity.
    Source: Pillow's `Image.rotate`, whose 16.16 fixed-point coordinates are kept: integers pick
    the same pixel on every device and in every batch, where floats would part at ties.
    """
    height, width = image.shape[:2]
    return rotation.gather(image, rotation.picks(angle, False, shape=(height, width)))


def random_rotate(key: jax.Array, image: jax.Array, *, degrees: float) -> jax.Array:
    """`rotate` by an angle uniform in [-degrees, degrees]."""
    return rotate(image, jax.random.uniform(key, (), minval=-degrees, maxval=degrees))


def flip_horizontal(image: jax.Array) -> jax.Array:
    """Image [H, W, C] with left and right exchanged."""
    return image[:, ::-1]


def random_flip_horizontal(key: jax.Array, image: jax.Array, *, probability: float) -> jax.Array:
    """`flip_horizontal` with the given probability, else the image itself."""
    return jnp.where(jax.random.bernoulli(key, probability), flip_horizontal(image), image)


def normalize(image: jax.Array) -> jax.Array:
    """Float image [..., 3] in 0..1, less the ImageNet mean, over its standard deviation."""
    channel_shape = (1,) * (image.ndim - 1) + (3,)
    return (image - IMAGENET_MEAN.reshape(channel_shape)) / IMAGENET_STD.reshape(channel_shape)


@jax.jit
def normalize_images(images: jax.Array) -> jax.Array:
    """Images uint8 [B, H, W, 3], resized and cropped by the host -> normalised float32."""
    return normalize(images.astype(jnp.float32) / 255)


def random_erase_box(
    key: jax.Array, *, height: int, width: int,
    area: tuple[float, float], ratio: tuple[float, float],
) -> jax.Array:  # fmt: skip
    """Box int32 [4] to erase in a height x width image, smaller than it on both sides.

    `area` is the share of the area, `ratio` height over width, log-uniform. After ten illegal
    draws the box is empty. Source: torchvision `RandomErasing`.
    """
    return _random_box(
        key, shape=(height, width), area=area, aspect=ratio,
        largest=(height - 1, width - 1), fallback=(0, 0),
    )  # fmt: skip


def erase(image: jax.Array, box: jax.Array) -> jax.Array:
    """Image [H, W, C] with 0 inside the box: the mean colour, if it is normalised."""
    top, left, height, width = box
    row = jnp.arange(image.shape[0], dtype=jnp.int32)
    column = jnp.arange(image.shape[1], dtype=jnp.int32)
    in_rows = (row >= top) & (row < top + height)
    in_columns = (column >= left) & (column < left + width)
    inside = in_rows[:, None, None] & in_columns[None, :, None]  # [H, W, 1]
    return jnp.where(inside, jnp.zeros((), image.dtype), image)


def random_erase(
    key: jax.Array, image: jax.Array, *, area: tuple[float, float], ratio: tuple[float, float]
) -> jax.Array:
    """`erase` at a `random_erase_box`."""
    height, width = image.shape[:2]
    return erase(image, random_erase_box(key, height=height, width=width, area=area, ratio=ratio))


def shuffle_parts(image: jax.Array, order: jax.Array, *, parts: int) -> jax.Array:
    """Image [H, W, C] cut in parts x parts equal parts, part `order[i]` put at place i.

    Parts and places count row by row; `order` is int32 [parts * parts].

    Raises:
        ValueError: parts does not divide the height and the width.
    """
    height, width, channels = image.shape
    if height % parts or width % parts:
        raise ValueError(f"{parts} parts do not divide an image of {height}x{width} pixels.")
    tall, wide = height // parts, width // parts
    grid = image.reshape(parts, tall, parts, wide, channels).swapaxes(1, 2)
    pieces = grid.reshape(parts * parts, tall, wide, channels)[order]
    grid = pieces.reshape(parts, parts, tall, wide, channels).swapaxes(1, 2)
    return grid.reshape(height, width, channels)


def random_shuffle_parts(key: jax.Array, image: jax.Array, *, parts: int) -> jax.Array:
    """`shuffle_parts` in an order uniform over all, the identity included."""
    return shuffle_parts(image, jax.random.permutation(key, parts * parts), parts=parts)


def _common_view(key: jax.Array, image: jax.Array, *, config: ViewConfig) -> jax.Array:
    """What both views share: float image [S, S, 3] -> normalised [size, size, 3]."""
    crop_key, brightness_key, angle_key, flip_key = jax.random.split(key, 4)
    view = random_resized_crop(
        crop_key, image, size=config.size, scale=config.crop_scale, ratio=config.crop_ratio
    )  # [size, size, 3]
    if config.brightness:
        view = random_brightness(brightness_key, view, brightness=config.brightness)
    if config.degrees:
        picks = _random_picks(angle_key, flip_key, config=config)
        view = rotation.gather(view, picks)  # turns and flips
    elif config.flip:
        view = random_flip_horizontal(flip_key, view, probability=config.flip)
    return normalize(view)


def _random_picks(angle_key: jax.Array, flip_key: jax.Array, *, config: ViewConfig) -> jax.Array:
    """`rotation.picks` of a `random_rotate` and then a `random_flip_horizontal`."""
    angle = jax.random.uniform(angle_key, (), minval=-config.degrees, maxval=config.degrees)
    flipped = jax.random.bernoulli(flip_key, config.flip)
    return rotation.picks(angle, flipped, shape=(config.size, config.size))


def _common_planes(
    key: jax.Array, image: jax.Array, *, config: ViewConfig
) -> tuple[jax.Array, jax.Array]:
    """`_common_view` up to the rotation: bfloat16 [3, S, S] in 0..255 -> planes, and its picks.

    The planes are float32 [3, R, P], as `rotation.kernel` takes them.
    """
    crop_key, brightness_key, angle_key, flip_key = jax.random.split(key, 4)
    side = image.shape[-1]
    box = random_crop_box(
        crop_key, height=side, width=side, scale=config.crop_scale, ratio=config.crop_ratio
    )
    planes = crop_planes(image, box, size=config.size)
    if config.brightness:
        planes = random_brightness(brightness_key, planes, brightness=config.brightness)
    return planes, _random_picks(angle_key, flip_key, config=config)


def _views_by_kernel(
    keys: jax.Array, images: jax.Array, *, config: ViewConfig
) -> tuple[jax.Array, jax.Array | None]:
    """`make_views` of one device's images, turned by the kernel."""
    assert config.kernel is not None
    example_keys = jax.vmap(lambda key: jax.random.split(key, 4))(keys)  # as `_example_views`
    count = config.count
    common = jax.vmap(functools.partial(_common_planes, config=config), in_axes=(0, None))
    planes, picks = jax.vmap(common)(
        example_keys[:, :count], images.transpose(0, 3, 1, 2).astype(jnp.bfloat16)
    )
    # Erased and shuffled in the same kernel: an anchor by an empty box and in its own order.
    number, shuffled = len(keys), config.kind in SHUFFLING_KINDS
    parts = config.parts if shuffled and rotation.movable(config.size, config.parts) else 1
    boxes = jnp.zeros((number, count, 4), jnp.int32)
    orders = jnp.broadcast_to(jnp.arange(parts * parts), (number, count, parts * parts))
    if config.kind in ERASING_KINDS:
        draw = functools.partial(
            random_erase_box, height=config.size, width=config.size,
            area=config.erase_area, ratio=config.erase_ratio,
        )  # fmt: skip
        boxes = boxes.at[:, 1].set(jax.vmap(draw)(example_keys[:, 2]))
    if parts > 1:
        draw = functools.partial(jax.random.permutation, x=parts * parts)
        orders = orders.at[:, 1].set(jax.vmap(draw)(example_keys[:, 3]))
    views = rotation.kernel(
        planes.reshape(-1, *planes.shape[2:]), picks.reshape(-1, 6), boxes.reshape(-1, 4),
        orders.reshape(number * count, -1), size=config.size, interpret=config.kernel.interpret,
        mean=tuple(IMAGENET_MEAN.tolist()), deviation=tuple(IMAGENET_STD.tolist()),
    )  # fmt: skip
    views = views.transpose(0, 2, 3, 1).reshape(number, count, config.size, config.size, 3)
    if config.kind == "base":
        return views[:, 0], None
    positives = views[:, 1]
    if shuffled and parts != config.parts:
        shuffle = functools.partial(random_shuffle_parts, parts=config.parts)
        positives = jax.vmap(shuffle)(example_keys[:, 3], positives)
    return views[:, 0], positives


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
    # One vmap over both keys: the two crops become one matrix product over the shared image.
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
        keys: typed keys [B], one an example (`example_keys`).
        images: uint8 [B, S, S, 3], resized by the host to a square.
        config: the kind and the options of the views.

    Returns:
        Anchors and positives, float32 [B, size, size, 3], ImageNet-normalised; for the kind
        `base` the positives are None and nothing is computed for them.

    Raises:
        ValueError: images are not uint8 [B, S, S, 3], or not one key an image.
    """
    if images.dtype != jnp.uint8 or images.ndim != 4 or images.shape[-1] != 3:
        raise ValueError(
            f"images are {images.dtype}{images.shape}; they must be uint8 [B, S, S, 3]."
        )
    if keys.shape != images.shape[:1]:
        raise ValueError(f"there are keys of shape {keys.shape} for {images.shape[0]} images.")
    if config.kernel is None:
        return jax.vmap(functools.partial(_example_views, config=config))(keys, images)
    local = functools.partial(_views_by_kernel, config=config)
    mesh = config.kernel.mesh
    if mesh is None or mesh.size == 1:
        return local(keys, images)
    divided = PartitionSpec(mesh.axis_names)
    return jax.shard_map(local, mesh=mesh, in_specs=divided, out_specs=divided, check_vma=False)(
        keys, images
    )
