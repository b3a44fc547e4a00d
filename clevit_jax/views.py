"""The two views of CLE-ViT, made on the device: crop, jitter, rotate, flip, erase, shuffle.

A deterministic core a step and a thin `random_*` wrapper that draws its parameters; `key` comes
first, options are keyword-only. Both take one image [H, W, C] and are vmapped in `make_views`.
Unless said otherwise an image is float32 in the range 0..1; the crop is not rounded to 8 bits.
A box is int32 [4]: top, left, height, width, in pixels.

Source: CLE-ViT (doi 10.24963/ijcai.2023/504) and its official code, drawn as torchvision's
`RandomResizedCrop`, `ColorJitter`, `RandomRotation` and `RandomErasing`.
"""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np

IMAGENET_MEAN = np.array([0.485, 0.456, 0.406], np.float32)
IMAGENET_STD = np.array([0.229, 0.224, 0.225], np.float32)

KINDS = ("full", "base", "mask_only", "swap_only")
ERASING_KINDS = ("full", "mask_only")
SHUFFLING_KINDS = ("full", "swap_only")

BOX_TRIES = 10  # torchvision's, for the crop and for the erased box


@dataclasses.dataclass(frozen=True)
class ViewConfig:
    """How views are made; the defaults are those of the official code.

    Raises:
        ValueError: a value that makes no sense, in one sentence that names the field.
    """

    kind: str = "full"  # full | base (anchor alone) | mask_only | swap_only
    size: int = 448  # side of a view, pixels; the config's `image_size`
    crop_scale: tuple[float, float] = (0.67, 1.0)  # area of the crop, share of the image
    crop_ratio: tuple[float, float] = (3 / 4, 4 / 3)  # width over height of the crop
    brightness: float = 0.3  # factor uniform in 1 +- this; 0 switches it off
    degrees: float = 15.0  # angle uniform in +- this; 0 switches it off
    flip: float = 0.5  # probability of the horizontal flip
    erase_area: tuple[float, float] = (0.15, 0.45)  # area of the erased box, share of the view
    erase_ratio: tuple[float, float] = (0.3, 3.3)  # height over width of the erased box
    parts: int = 2  # the positive is shuffled in parts x parts pieces

    @property
    def count(self) -> int:
        """Views of an image: the anchor, and the positive where there is one."""
        return 1 if self.kind == "base" else 2

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"views.kind is {self.kind!r}; it must be one of {', '.join(KINDS)}.")
        if self.size < 1:
            raise ValueError(f"image_size is {self.size}; it must be at least 1 pixel.")
        pairs = {"crop_scale": 1, "crop_ratio": 100, "erase_area": 1, "erase_ratio": 100}
        for name, highest in pairs.items():
            pair = tuple(getattr(self, name))  # a list, as read from JSON, would not hash
            object.__setattr__(self, name, pair)
            if len(pair) != 2 or not 0 < pair[0] <= pair[1] <= highest:
                raise ValueError(
                    f"views.{name} is {pair}; it must be (low, high), 0 < low <= high <= {highest}."
                )
        for name, highest in {"brightness": 1, "degrees": 180, "flip": 1}.items():
            value = getattr(self, name)
            if not 0 <= value <= highest:
                raise ValueError(f"views.{name} is {value}; it must lie in 0..{highest}.")
        if self.parts < 1:
            raise ValueError(f"views.parts is {self.parts}; it must be at least 1.")
        if self.kind in SHUFFLING_KINDS and self.size % self.parts:
            raise ValueError(
                f"views.parts is {self.parts}, which does not divide image_size {self.size}."
            )


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


def _resize_weights(start: jax.Array, length: jax.Array, *, size: int, pixels: int) -> jax.Array:
    """Weights float32 [size, pixels] that resize the pixels start..start + length to `size`."""
    place = jnp.arange(size, dtype=jnp.int32)[:, None]  # [size, 1]
    index = jnp.arange(pixels, dtype=jnp.int32)[None, :] - start  # [1, pixels]
    # Distances of the centres times 2 size: integers, and so the same weights on every device.
    distance = jnp.abs((2 * index + 1) * size - (2 * place + 1) * length)  # [size, pixels]
    weights = jnp.maximum(2 * jnp.maximum(length, size) - distance, 0)
    weights = jnp.where((index >= 0) & (index < length), weights, 0).astype(jnp.float32)
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
    height, width, channels = image.shape
    radians = jnp.deg2rad(jnp.asarray(angle, jnp.float32))
    cos, sin = jnp.cos(radians), jnp.sin(radians)

    def fixed(value: jax.Array) -> jax.Array:
        return jnp.floor(value * 65536 + 0.5).astype(jnp.int32)

    # Where the centre of output pixel (0, 0) comes from; the centre of the image stays put.
    up, left = 0.5 - height / 2, 0.5 - width / 2
    top = fixed(sin * left + cos * up + height / 2)
    start = fixed(cos * left - sin * up + width / 2)
    row = jnp.arange(height, dtype=jnp.int32)[:, None]  # [H, 1]
    column = jnp.arange(width, dtype=jnp.int32)[None, :]  # [1, W]
    y = (top + fixed(sin) * column + fixed(cos) * row) >> 16  # [H, W]
    x = (start + fixed(cos) * column - fixed(sin) * row) >> 16  # [H, W]
    inside = (y >= 0) & (y < height) & (x >= 0) & (x < width)
    pixel = jnp.where(inside, y * width + x, 0)
    turned = image.reshape(height * width, channels)[pixel]  # [H, W, C]
    return jnp.where(inside[..., None], turned, jnp.zeros((), image.dtype))


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
        view = random_rotate(angle_key, view, degrees=config.degrees)
    if config.flip:
        view = random_flip_horizontal(flip_key, view, probability=config.flip)
    return normalize(view)


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
    return jax.vmap(functools.partial(_example_views, config=config))(keys, images)
