"""Decoding of images to uint8 pixels."""

import io
import os
import pathlib
import re
import warnings

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from clevit_jax.data.dataset import StoredImage
from clevit_jax.errors import DecodeError
from clevit_jax.system.faults import mend, os_reason

# Formats outside this list are refused: Pillow would hand some of them (EPS) to other programs.
_FORMATS = ("JPEG", "PNG", "TIFF", "BMP", "GIF", "WEBP", "PPM", "JPEG2000")
_QUIET = ("ignore", None, Warning, re.compile(r"PIL\."), 0)


def is_turned(image: Image.Image) -> bool:
    """Whether EXIF says that an image is not stored upright; False where EXIF is damaged."""
    try:
        return image.getexif().get(ExifTags.Base.Orientation, 1) in range(2, 9)
    except Exception:  # whatever a damaged EXIF block raises
        return False


def _turn_upright(image: Image.Image) -> None:
    """Turns a loaded image in place, where `is_turned` says so."""
    try:
        # Where Pillow cannot write a damaged EXIF block anew, the pixels are turned.
        ImageOps.exif_transpose(image, in_place=True)
    except MemoryError:
        raise
    except Exception:  # whatever a damaged EXIF block raises: the pixels are good without it
        pass


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB":
        return image
    if image.mode == "F":
        raise ValueError("floating-point pixels have no defined range; save it with 8 or 16 bit")
    if image.mode.startswith("I"):  # 16 bit, which Pillow's own conversion would clip at 255
        pixels = np.asarray(image)
        if pixels.min() < 0 or pixels.max() > 0xFFFF:
            raise ValueError("its pixels do not fit 16 bit; save it with 8 or 16 bit")
        image = Image.fromarray((pixels >> 8).astype(np.uint8))
    return image.convert("RGB")


def _place(data: pathlib.Path | bytes | StoredImage, name: str) -> str:
    return (name or "An image in memory") if isinstance(data, bytes) else str(data)


def read_rgb(data: pathlib.Path | bytes | StoredImage, name: str = "") -> Image.Image:
    """Decodes an image as torchvision's loader does, upright.

    EXIF orientation is applied. Alpha is dropped, grey is repeated, the first frame stands for an
    animation, and 16-bit grey is divided by 256 (`>> 8`) instead of clipped. Safe to call from
    several threads. From the first call on, Python shows no warnings out of Pillow's modules.

    Args:
        data: a path, an encoded image, or a `StoredImage`.
        name: what errors call an image that is given as bytes.

    Returns:
        An image of mode RGB.

    Raises:
        DecodeError: unreadable, truncated, empty, not an image, or a decompression bomb.
        MemoryError: it names the image.
    """
    # Pillow warns of harmless things (broken EXIF, many pixels) from within `open`. To filter
    # only around the call, `warnings.catch_warnings`, is not safe with threads. Compare first,
    # because each change of the filters makes Python forget which warnings it has shown.
    if tuple(warnings.filters[:1]) != (_QUIET,):
        warnings.filterwarnings("ignore", module=r"PIL\.")
    place = _place(data, name)
    try:
        encoded = data if isinstance(data, bytes | pathlib.Path) else data.read()
        stream = io.BytesIO(encoded) if isinstance(encoded, bytes) else encoded
        with Image.open(stream, formats=_FORMATS) as image:
            image.load()
            _turn_upright(image)
            return _to_rgb(image)
    except UnidentifiedImageError:
        size = len(encoded) if isinstance(encoded, bytes) else os.path.getsize(encoded)
        if not size:
            raise DecodeError(f"{place} is an empty file.") from None
        formats = ", ".join(_FORMATS)
        raise DecodeError(f"{place} is not an image of a known format ({formats}).") from None
    except MemoryError:
        raise MemoryError(f"the system gives no more to decode {place}") from None
    except Exception as error:  # Pillow's plugins raise what they like on damaged files
        text = str(error).removesuffix(".") or type(error).__name__
        if isinstance(error, OSError) and error.errno:
            text = os_reason(error) + mend(error)
        raise DecodeError(f"{place} cannot be decoded: {text}.") from error


def decode_train(
    data: pathlib.Path | bytes | StoredImage, name: str = "", *, size: int
) -> np.ndarray:
    """Decodes an image and resizes it to a fixed square, bilinear.

    As torchvision's `Resize((size, size))` (paper: 600 x 600).

    Returns:
        uint8 [size, size, 3], read-only.

    Raises:
        DecodeError: see `read_rgb`.
    """
    image = read_rgb(data, name)
    return np.asarray(image.resize((size, size), Image.Resampling.BILINEAR))


def decode_eval(
    data: pathlib.Path | bytes | StoredImage, name: str = "", *, resize: int, crop: int
) -> np.ndarray:
    """Decodes an image, resizes its shorter side, bicubic, and cuts out the centre.

    As torchvision's `Resize(resize, BICUBIC)` and `CenterCrop(crop)`, with their rounding
    (`tests/golden/eval_preprocess.npz`).

    Returns:
        uint8 [crop, crop, 3], read-only.

    Raises:
        DecodeError: see `read_rgb`; also when the image is so narrow that resizing would exhaust
            the memory.
        ValueError: `crop` exceeds `resize`.
    """
    return centre_crop(read_rgb(data, name), _place(data, name), resize=resize, crop=crop)


def centre_crop(image: Image.Image, place: str, *, resize: int, crop: int) -> np.ndarray:
    """The resized and cropped pixels of `decode_eval`, of an image that is decoded already.

    Args:
        image: of mode RGB.
        place: what errors call it.
        resize: as `decode_eval`.
        crop: as `decode_eval`.

    Returns:
        uint8 [crop, crop, 3], read-only.

    Raises:
        DecodeError: it is too narrow.
        ValueError: `crop` exceeds `resize`.
    """
    if crop > resize:
        raise ValueError(f"crop = {crop} must not exceed resize = {resize}.")
    short, long = sorted(image.size)
    scaled = int(resize * long / short)
    limit = Image.MAX_IMAGE_PIXELS
    if limit is not None and resize * scaled > 2 * limit:
        raise DecodeError(f"{place} is too narrow to be resized: {image.width} x {image.height}.")
    width, height = (resize, scaled) if image.width <= image.height else (scaled, resize)
    image = image.resize((width, height), Image.Resampling.BICUBIC)
    left, top = (round((side - crop) / 2.0) for side in (width, height))
    return np.asarray(image.crop((left, top, left + crop, top + crop)))
