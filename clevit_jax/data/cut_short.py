"""Images that lack their last bytes: told from damaged ones, and read as far as they go.

Not by `PIL.ImageFile.LOAD_TRUNCATED_IMAGES`, which gives the same pixels: it is one switch for the
whole process. While it were on, every other thread would read such files without a word, be it of
the user or of a run that refuses them; a lock of ours would not hold those back. So each file gets
what its decoder waits for at the end, or the rows are taken that were decoded before the end came.
"""

import io
import pathlib
import re
from collections.abc import Sequence

from PIL import Image, ImageFile, TiffImagePlugin

from clevit_jax.data import formats

_END_OF_JPEG = b"\xff\xd9"  # libjpeg makes what lacks before it grey
_TIFFS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_SAID = ("image file is truncated", "not enough image data")  # by Pillow


def lacks_end(error: Exception, encoded: bytes | pathlib.Path) -> bytes | None:
    """The file, if it failed to decode because its last bytes lack and it can be read without.

    A file that is damaged before its end, or whose format tells nothing of a part of the image
    (JPEG 2000, AVIF, HEIC, JPEG XL), is none.
    """
    if isinstance(encoded, pathlib.Path):
        if not encoded.is_file():
            return None
        encoded = encoded.read_bytes()
    if is_said(error):
        return encoded
    if _is_webp(encoded):
        return encoded if _missing_of_webp(encoded) > 0 else None
    if encoded[:4] in _TIFFS and re.fullmatch(r"(decoder error )?-\d+", str(error)):  # of libtiff
        with formats.open_image(io.BytesIO(encoded)) as image:
            return encoded if _missing_of_tiff(image, len(encoded)) > 0 else None
    return None


def is_said(error: Exception) -> bool:
    """Whether Pillow says so itself, by the error that it raised."""
    return str(error).startswith(_SAID)


def warning(names: Sequence[str]) -> str | None:
    """A sentence on images that were read without their last bytes; None where there are none."""
    if not names:
        return None
    some = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
    which = "1 image lacks its" if len(names) == 1 else f"{len(names):,} images lack their"
    return f"{which} last bytes ({some}); what is not there is grey or black (data.truncated=true)."


def open_without_end(encoded: bytes) -> ImageFile.ImageFile:
    """Opens an image that `lacks_end`, or a whole one; `load` decodes it."""
    if encoded.startswith(b"\xff\xd8"):
        encoded += _END_OF_JPEG
    elif _is_webp(encoded):
        encoded += bytes(max(0, _missing_of_webp(encoded)))
    image = formats.open_image(io.BytesIO(encoded))
    if image.tile and image.tile[0][0] == "libtiff":
        # libtiff decodes strip by strip, and none where it cannot read the last.
        padded = encoded + bytes(max(0, _missing_of_tiff(image, len(encoded))))
        image = formats.open_image(io.BytesIO(padded))
    return image


def load(image: ImageFile.ImageFile) -> None:
    """Decodes what there is of an image that `open_without_end` opened; what lacks is black."""
    try:
        image.load()
    except (OSError, ValueError):
        if image.format in ("JPEG", "MPO", "WEBP"):
            raise
        image.tile = []  # what was decoded is in place; this says that no more will come
        image.load()


def _is_webp(encoded: bytes) -> bool:
    return encoded[:4] == b"RIFF" and encoded[8:12] == b"WEBP"


def _missing_of_webp(encoded: bytes) -> int:
    """Bytes that a WebP lacks of the length in its header."""
    return int.from_bytes(encoded[4:8], "little") + 8 - len(encoded)


def _missing_of_tiff(image: Image.Image, size: int) -> int:
    """Bytes that a TIFF lacks of where its last strip or tile ends."""
    assert isinstance(image, TiffImagePlugin.TiffImageFile)
    ends = [0]
    for offsets, counts in ((273, 279), (324, 325)):  # of strips, of tiles
        pairs = zip(image.tag_v2.get(offsets, ()), image.tag_v2.get(counts, ()), strict=False)
        ends += [offset + count for offset, count in pairs]
    return max(ends) - size
