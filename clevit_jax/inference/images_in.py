"""The one way in for images: whatever somebody has, as upright RGB.

Files in any form go through `data.decode`, so a path, its bytes, an open file and a Pillow image of
it give the same pixels.
"""

import io
import os
import pathlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

import numpy as np
from PIL import Image

from clevit_jax.data import decode, sixteen_bit
from clevit_jax.data.decode import PLAIN, Decoding
from clevit_jax.errors import ConfigError, DecodeError
from clevit_jax.system import addresses, remote
from clevit_jax.system.places import expand, place

# What `rgb` takes. For type checkers it is any object, since arrays of all libraries count.
ImageLike = Any
Row = TypeVar("Row")
_TAKEN = (
    "the path of a file, its bytes, a file open in mode 'rb', a Pillow image, or pixels as an "
    "array of NumPy, JAX or torch, uint8 [H, W, 3]"
)
_LONGEST_PATH = 4096  # letters, of Linux
_CHANNELS = (1, 2, 3, 4)  # grey, grey and alpha, RGB, RGB and alpha


def rgb(image: ImageLike, name: str = "", decoding: Decoding = PLAIN) -> Image.Image:
    """One image in any form as upright RGB; the object that it comes from stays as it is.

    Args:
        image: a path (text or `os.PathLike`), or an address in a bucket or on the web, which is
            read each time; an encoded image as bytes, as a `StoredImage` or as a file open in mode
            'rb', which is read from its beginning; a Pillow image; or pixels: uint8 or uint16 [H,
            W, 3], [H, W], [H, W, 1] or with alpha, bool [H, W], of NumPy, JAX or whatever NumPy or
            DLPack reads. Tensors of torch may have their channels first.
        name: what errors call an image that does not name itself.
        decoding: see `decode.read_rgb`.

    Returns:
        An image of mode RGB.

    Raises:
        DecodeError: it cannot be decoded.
        ValueError: pixels of a shape or dtype that can be meant in several ways.
        TypeError: it is no image at all.
    """
    if isinstance(image, np.ndarray) and image.ndim == 0:
        image = image.item()  # text in an array
    called = call(image, name)
    if isinstance(image, str | os.PathLike):
        if addresses.is_fetched(text := os.fsdecode(image)):
            return decode.read_rgb(_content_at(text), called, decoding)
        return decode.read_rgb(_path(image), decoding=decoding)
    if isinstance(image, bytes | bytearray | memoryview):
        return decode.read_rgb(bytes(image), called, decoding)
    if isinstance(image, Image.Image):
        return decode.pillow_rgb(image, called, decoding)
    if _is_array(image):
        pixels = _channels_last(_to_numpy(image, called), image, called)
        return _from_pixels(pixels, called, decoding)
    if _is_file(image):
        return decode.read_rgb(_content(image, called), called, decoding)
    if callable(getattr(image, "read", None)):  # a `StoredImage`
        return decode.read_rgb(image, called, decoding)
    raise TypeError(
        f"{name or 'The image'} is of type {_type(image)}, which is no image; give {_TAKEN}."
    )


def call(image: ImageLike, name: str = "") -> str:
    """What errors call an image: its path or place where it has one, or else `name`."""
    if isinstance(image, str | os.PathLike):
        return addresses.shown(os.fsdecode(image))
    if callable(getattr(image, "read", None)):
        if not _is_file(image):
            return str(image)  # a `StoredImage` says where it lies
        if isinstance(getattr(image, "name", None), str):
            return image.name
    return name or "An image in memory"


def each(images: ImageLike | Iterable[ImageLike], read: Callable[[Any, str], Row]) -> Iterator[Row]:
    """`read(image, name)` of one image, or of each of several, one by one.

    Args:
        images: one image, as `rgb` takes it; or a list, a generator, an array of paths, or a batch
            of pixels, [B, H, W, 3].
        read: gets an image and what errors call it: "", or `images[3]` where there are several.

    Raises:
        TypeError: a dict or a set.
        Exception: what `read` raises; the place in `images` is named.
    """
    several = _several(images)
    if several is None:
        yield read(images, "")
        return
    for index, image in enumerate(several):
        name = f"images[{index}]"
        try:
            row = read(image, name)
        except (DecodeError, TypeError, ValueError) as error:
            if name in str(error):
                raise
            raise type(error)(f"{name}: {error}") from error
        yield row


def _several(images: ImageLike | Iterable[ImageLike]) -> Iterable[ImageLike] | None:
    """The images, if they are several; None if it is one, or none at all."""
    single = isinstance(images, str | bytes | bytearray | memoryview | os.PathLike | Image.Image)
    if single or callable(getattr(images, "read", None)):
        return None
    if _is_array(images):
        array = _to_numpy(images, "An array of images")
        if array.dtype.kind in "OSTU":  # objects or text
            return array.tolist() if array.ndim == 1 else None
        return _channels_last(array, images, "A batch of images") if array.ndim == 4 else None
    if isinstance(images, dict | set | frozenset):
        raise TypeError(
            f"Images came as a {_type(images)}, which is no image and no list; give {_TAKEN}, or "
            "several in a list."
        )
    return images if isinstance(images, Iterable) else None


def _type(image: object) -> str:
    """`int`, `torch.Tensor`."""
    kind = type(image)
    return kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__name__}"


def _content_at(address: str) -> bytes:
    """The bytes of an image in a bucket or on the web. Raises DecodeError."""
    try:
        return remote.content(expand(address, "An image", fetched=True), "An image")
    except ConfigError as error:
        raise DecodeError(str(error)) from error


def _path(image: str | os.PathLike) -> pathlib.Path:
    if isinstance(image, pathlib.Path) and os.path.lexists(image):
        return image
    text = os.fsdecode(image)
    if not text:
        raise DecodeError("An image is named by an empty text; give the path of a file.")
    if len(text) > _LONGEST_PATH or text.startswith("data:"):
        raise DecodeError(
            f"An image came as a text of {len(text):,} letters, {text[:20]!r}..., which is no "
            "path; if it is base64, give its bytes: base64.b64decode(text.rpartition(',')[2])."
        )
    path = place(text, "An image")
    if "*" in text and not os.path.lexists(path):
        files = f"sorted(glob.glob({str(path)!r}))"
        raise DecodeError(f"{path} is a pattern, and no file; give its files: {files}.")
    return path


def _is_file(image: object) -> bool:
    """Whether it is an open file, or alike; a `StoredImage` has no more of one than `read`."""
    return hasattr(image, "read") and (hasattr(image, "readable") or hasattr(image, "seek"))


def _content(file: Any, called: str) -> bytes:
    """All bytes of a file, which stays where it stood."""
    if isinstance(file, io.TextIOBase):
        raise TypeError(f"{called} is open as text; open it in mode 'rb'.")
    try:
        seekable = file.seekable() if hasattr(file, "seekable") else hasattr(file, "seek")
        if not seekable:  # a pipe or a download
            content = file.read()
        else:
            stood = file.tell()
            file.seek(0)
            content = file.read()
            file.seek(stood)
    except (OSError, ValueError) as error:  # it is closed, or was opened to be written
        said = str(error).removesuffix(".")
        raise DecodeError(f"{called} cannot be read: {said}; give it open in mode 'rb'.") from error
    if not isinstance(content, bytes | bytearray | memoryview):
        raise TypeError(f"{called} gives {_type(content)}, not bytes; open it in mode 'rb'.")
    return bytes(content)


def _is_array(image: object) -> bool:
    if isinstance(image, np.generic):  # one number
        return False
    return hasattr(image, "__array__") or hasattr(image, "__dlpack__")


def _to_numpy(image: Any, called: str) -> np.ndarray:
    try:
        return np.asarray(image)
    except Exception as error:  # whatever a library raises of what is not in this memory
        try:
            return np.from_dlpack(image)
        except Exception:
            raise TypeError(
                f"{called} is of type {_type(image)} and cannot be read from here "
                f"({' '.join(str(error).split())[:120]}); bring it to the CPU first, such as "
                "x.detach().cpu(), and to a type that NumPy has, such as x.float()."
            ) from error


def _channels_last(pixels: np.ndarray, image: object, called: str) -> np.ndarray:
    """Pixels [..., H, W, C]; `image` is what they come from."""
    if pixels.ndim < 3 or pixels.dtype.kind in "OSTU":
        return pixels
    of_torch = type(image).__module__.split(".")[0] in ("torch", "torchvision")
    first, last = pixels.shape[-3] in (1, 3), pixels.shape[-1] in _CHANNELS
    shape = list(pixels.shape)
    if of_torch and first and last:
        raise ValueError(
            f"{called} is a tensor {shape}, which may have its channels first or last; give a "
            "NumPy array [H, W, 3]."
        )
    if of_torch and first:
        return np.moveaxis(pixels, -3, -1)
    if first and not last:
        raise ValueError(
            f"{called} is an array {shape}. If its channels come first, bring them to the end, "
            "np.moveaxis(x, -3, -1); if it is several grey images, give a list of them."
        )
    return pixels


def _from_pixels(pixels: np.ndarray, called: str, decoding: Decoding) -> Image.Image:
    """An image of pixels [H, W] or [H, W, C]. Raises ValueError."""
    pixels = pixels.astype(pixels.dtype.newbyteorder("="), copy=False)
    kind, shape = pixels.dtype, list(pixels.shape)
    fits = pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[-1] in _CHANNELS)
    if kind not in (np.uint8, np.uint16, np.bool_) or not fits:
        wanted = f"{called} must be pixels, uint8 [H, W, 3], not {kind} {shape}"
        if kind not in (np.uint8, np.uint16, np.bool_) and kind.kind not in "OSTU":
            is_float = "float" in kind.name
            raise ValueError(
                f"{wanted}; "
                + (
                    "from 0 to 1 give (255 * x).round().astype(np.uint8), from 0 to 255 "
                    if is_float
                    else "if they go from 0 to 255, give "
                )
                + "x.astype(np.uint8)."
            )
        raise ValueError(f"{wanted}; [H, W], [H, W, 1] and [H, W, 4] are taken, too.")
    if not pixels.size:
        raise ValueError(f"{called} has no pixels: {kind} {shape}.")
    if pixels.ndim == 3:
        pixels = pixels[..., : 1 if pixels.shape[-1] < 3 else 3]  # without alpha
    if kind == np.uint16:
        try:
            pixels = sixteen_bit.to_eight_bits(pixels, decoding.bits)
        except ValueError as error:
            raise ValueError(f"{called} cannot be taken: {error}.") from error
    elif kind == np.bool_:
        pixels = pixels.astype(np.uint8) * np.uint8(255)
    if pixels.ndim == 3 and pixels.shape[-1] == 1:
        pixels = pixels[..., 0]
    return Image.fromarray(np.ascontiguousarray(pixels)).convert("RGB")
