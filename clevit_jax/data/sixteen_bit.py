"""Images of two bytes per value: how they become 8 bits, and whether they are nearly black then.

A file of 16 bits does not say whether a camera filled them: many hold 10, 12 or 14 bits, and keep
the lowest values of 16.
"""

import sys
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageFile

from clevit_jax.data.tally import Tally

_FULL = 16
_GREY_ALPHA = "LA;16B"  # of a PNG
_USUAL = (8, 12, 14)  # bits below 16: of programs that widen all, of cameras; 10 are told with 12


def dark_warning(images: int, highest: int) -> str | None:
    """A sentence on 16-bit images, as `Tally` counts them, that seem to hold fewer bits."""
    bits = next((bits for bits in _USUAL if highest < 1 << bits), None)
    if not images or not highest or bits is None:
        return None
    which = "The one 16-bit image has" if images == 1 else f"All {images:,} 16-bit images have"
    or_ten = " (or 10)" if bits > 8 and highest < 1 << 10 else ""
    nearly = {8: "black", 12: "nearly black"}.get(bits, "dark")
    return (
        f"{which} no value above {highest:,} of 65,535, as images of {bits} bits do, and so come "
        f"out {nearly}; if they are that, set --config.data.bits={bits}{or_ten}, and if they are "
        "meant to be dark, --config.data.bits=16."
    )


class Stored(NamedTuple):
    """How an image that is not decoded yet holds its values.

    Attributes:
        deep: Pillow's name of the order of bytes, where it is of colour with two bytes per value;
            of these Pillow keeps one. Else empty.
        shift: by how many bits values are too large for 8, where the file says it; else None.
    """

    deep: str = ""
    shift: int | None = None


def stored(image: Image.Image, start: bytes = b"") -> Stored:
    """How an image that `formats.open_image` opened holds its values.

    Args:
        image: the image; not loaded yet.
        start: the first bytes of its file.
    """
    tiles = getattr(image, "tile", None)
    if not tiles:
        return Stored()
    decoder, _, _, args = tiles[0]
    if decoder in ("ppm", "ppm_plain"):  # Pillow scales by the highest value that the header names
        full = args[-1] == 0xFFFF
        if image.mode == "RGB":
            return Stored(decoder if full else "")
        return Stored(shift=None if full else 8)
    if image.format == "TIFF" and image.tag_v2.get(258, (8,))[0] == 12:  # type: ignore[attr-defined]
        return Stored(shift=4)
    if image.format == "JPEG2000" and _jpeg2000_bits(start) < _FULL:
        return Stored(shift=8)  # scaled by Pillow
    rawmode = str(args if isinstance(args, str) else args[0] if args else "")
    return Stored(rawmode if ";16" in rawmode and not image.mode.startswith("I") else "")


def _jpeg2000_bits(start: bytes) -> int:
    """Bits of a JPEG 2000's first component, as its SIZ segment says; 16 without one."""
    place = start.find(b"\xff\x4f\xff\x51")
    header = start[place:] if place >= 0 else b""
    return (header[42] & 0x7F) + 1 if len(header) > 42 else _FULL


def to_eight_bits(
    pixels: np.ndarray, bits: int, own_shift: int | None = None, tally: Tally | None = None
) -> np.ndarray:
    """Values of 16 bits as uint8, by leaving out the lowest bits (`>> 8`, or `>> bits - 8`).

    Args:
        pixels: integers of any shape.
        bits: how many are used, 8 to 16; 0 is 16.
        own_shift: of `Stored`; goes before `bits`.
        tally: counts the image.

    Raises:
        ValueError: there are values beyond 16 bits, or beyond `bits`.
    """
    low, high = int(pixels.min()), int(pixels.max())
    if low < 0 or high > 0xFFFF:
        raise ValueError("its pixels do not fit 16 bit; save it with 8 or 16 bit")
    if own_shift is not None:
        return np.minimum(pixels >> own_shift, 255).astype(np.uint8)
    if tally is not None:
        tally.add_deep(high)
    bits = bits or _FULL
    if high >> bits:
        raise ValueError(
            f"it holds values up to {high:,}, which are more than the {bits} bits of data.bits; "
            f"set --config.data.bits={high.bit_length()}, or leave it out"
        )
    return (pixels >> (bits - 8)).astype(np.uint8)


def read_low_bytes(image: ImageFile.ImageFile) -> None:
    """Lets a `deep` image that is not loaded yet load the bytes that Pillow leaves out.

    Pillow takes of each value the byte that is the higher one in the file's order of bytes. In the
    other order it is the lower one.

    Raises:
        ValueError: it is of a kind where that is not so.
    """
    tiles = []
    for tile in image.tile:
        args = tile.args or ("",)
        rawmode = args if isinstance(args, str) else args[0]
        colours, _, order = rawmode.partition(";16")
        if rawmode == _GREY_ALPHA:
            other = "RGBA"  # four bytes as they are: the second is the lower one of the grey
        elif colours in ("RGB", "RGBA", "RGBX") and order in ("B", "L", "N"):
            native = "L" if sys.byteorder == "little" else "B"
            other = f"{colours};16{'B' if order.replace('N', native) == 'L' else 'L'}"
        else:
            raise ValueError(f"16 bits of {rawmode} are not read with data.bits; save it as RGB")
        tiles.append(tile._replace(args=other if isinstance(args, str) else (other, *args[1:])))
    image.tile = tiles


def join_bytes(high: np.ndarray, low: np.ndarray, deep: str) -> np.ndarray:
    """Values uint16 [H, W, 3] of a `deep` image.

    Args:
        high: as Pillow decodes it, uint8 [H, W, C].
        low: the same after `read_low_bytes`.
        deep: of `Stored`.
    """
    low = low[..., 1:2] if deep == _GREY_ALPHA else low[..., :3]
    return high[..., :3].astype(np.uint16) << 8 | low


def read_deep_ppm(encoded: bytes, offset: int, size: tuple[int, int]) -> np.ndarray:
    """Values uint16 [H, W, 3] of a PPM, which Pillow would round to 8 bits.

    Args:
        encoded: the file; what lacks at its end is black.
        offset: where the pixels begin.
        size: width and height.
    """
    width, height = size
    wanted = 6 * width * height
    pixels = encoded[offset : offset + wanted].ljust(wanted, b"\0")
    return np.frombuffer(pixels, ">u2").astype(np.uint16).reshape(height, width, 3)
