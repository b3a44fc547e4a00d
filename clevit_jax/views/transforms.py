"""Image transforms on the device: crop, brightness, rotation, flip, erasing, shuffling.

Each takes one image [H, W, C]; a batch goes through `jax.vmap`. Each is a deterministic core and a
thin `random_*` wrapper that draws its parameters: `key` comes first, options are keyword-only.
Unless said otherwise an image is float32 in the range 0..1; the crop is not rounded to 8 bits. A
box is int32 [4]: top, left, height, width, in pixels.

Source: torchvision's `RandomResizedCrop`, `ColorJitter`, `RandomRotation` and `RandomErasing`.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np

from clevit_jax.model import preprocessing
from clevit_jax.model.preprocessing import Colour
from clevit_jax.views import rotation
from clevit_jax.views.crop import crop

IMAGENET_MEAN = np.array(preprocessing.IMAGENET_MEAN, np.float32)
IMAGENET_STD = np.array(preprocessing.IMAGENET_STD, np.float32)
BOX_TRIES = 10  # torchvision's, for the crop and for the erased box


def _random_box(
    key: jax.Array,
    *,
    shape: tuple[int, int],
    area: tuple[float, float],
    aspect: tuple[float, float],
    largest: tuple[int, int],
    fallback: tuple[int, int],
) -> jax.Array:
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
    any_legal = legal[first]
    size = jnp.where(
        any_legal, jnp.stack([heights, widths])[:, first], jnp.array(fallback, jnp.int32)
    )
    room = jnp.array(shape, jnp.int32) - size
    drawn = jnp.floor(uniform[-2:] * (room + 1).astype(jnp.float32)).astype(jnp.int32)
    return jnp.concatenate([jnp.where(any_legal, drawn, room // 2), size])


def random_crop_box(
    key: jax.Array,
    *,
    height: int,
    width: int,
    scale: tuple[float, float],
    ratio: tuple[float, float],
) -> jax.Array:
    """Box int32 [4] of a random resized crop of a height x width image.

    `scale` is the crop's area over the image's; `ratio` is width over height, log-uniform. After
    ten illegal draws: the largest centred box of legal aspect.

    Source: torchvision `RandomResizedCrop`.
    """
    fallback = (height, width)
    if width / height < ratio[0]:
        fallback = (round(width / ratio[0]), width)
    elif width / height > ratio[1]:
        fallback = (height, round(height * ratio[1]))
    return _random_box(
        key,
        shape=(height, width),
        area=scale,
        aspect=(1 / ratio[1], 1 / ratio[0]),
        largest=(height, width),
        fallback=fallback,
    )


def random_resized_crop(
    key: jax.Array,
    image: jax.Array,
    *,
    size: int,
    scale: tuple[float, float],
    ratio: tuple[float, float],
) -> jax.Array:
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
    """Image [H, W, C] rotated counter-clockwise by `angle` degrees about its centre.

    Nearest neighbour, corners black, same shape and dtype; an angle of 0 is the identity.
    Source: Pillow's `Image.rotate`, whose 16.16 fixed-point coordinates are kept: integers pick
    the same pixel on every device and in every batch, where floats would part at ties.
    """
    height, width = image.shape[:2]
    picks = rotation.rotation_picks(angle, False, shape=(height, width))
    return rotation.gather_pixels(image, picks)


def random_rotate(key: jax.Array, image: jax.Array, *, degrees: float) -> jax.Array:
    """`rotate` by an angle uniform in [-degrees, degrees]."""
    return rotate(image, jax.random.uniform(key, (), minval=-degrees, maxval=degrees))


def flip_horizontal(image: jax.Array) -> jax.Array:
    """Image [H, W, C] with left and right exchanged."""
    return image[:, ::-1]


def random_flip_horizontal(key: jax.Array, image: jax.Array, *, probability: float) -> jax.Array:
    """`flip_horizontal` with the given probability, else the image itself."""
    return jnp.where(jax.random.bernoulli(key, probability), flip_horizontal(image), image)


def normalize(
    image: jax.Array,
    *,
    mean: Colour = preprocessing.IMAGENET_MEAN,
    std: Colour = preprocessing.IMAGENET_STD,
) -> jax.Array:
    """Float image [..., 3] in 0..1, less the mean of each channel, over its deviation."""
    channel_shape = (1,) * (image.ndim - 1) + (3,)
    middle, scale = (np.array(x, np.float32).reshape(channel_shape) for x in (mean, std))
    return (image - middle) / scale


@functools.partial(jax.jit, static_argnames=("mean", "std"))
def normalize_images(
    images: jax.Array,
    *,
    mean: Colour = preprocessing.IMAGENET_MEAN,
    std: Colour = preprocessing.IMAGENET_STD,
) -> jax.Array:
    """Images uint8 [B, H, W, 3], resized and cropped by the host -> normalised float32."""
    return normalize(images.astype(jnp.float32) / 255, mean=mean, std=std)


def random_erase_box(
    key: jax.Array,
    *,
    height: int,
    width: int,
    area: tuple[float, float],
    ratio: tuple[float, float],
) -> jax.Array:
    """Box int32 [4] to erase in a height x width image, smaller than it on both sides.

    `area` is the box's over the image's; `ratio` is height over width, log-uniform. After ten
    illegal draws the box is empty.

    Source: torchvision `RandomErasing`.
    """
    return _random_box(
        key,
        shape=(height, width),
        area=area,
        aspect=ratio,
        largest=(height - 1, width - 1),
        fallback=(0, 0),
    )


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
