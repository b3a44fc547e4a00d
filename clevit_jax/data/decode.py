"""Decoding of images to uint8 pixels."""

import contextlib
import dataclasses
import io
import pathlib
from collections.abc import Iterator

import numpy as np
from PIL import ExifTags, Image, ImageFile, ImageOps

from clevit_jax.data import cut_short, formats, no_image, sixteen_bit
from clevit_jax.data.dataset import StoredImage
from clevit_jax.data.formats import MissingPackageError, NotAnImageError
from clevit_jax.data.tally import Tally
from clevit_jax.errors import CutShortError, DecodeError, Repeated
from clevit_jax.model.preprocessing import Preprocessing
from clevit_jax.system.faults import mend, os_reason


@dataclasses.dataclass(frozen=True)
class Decoding:
    """How images are decoded where that is not told by their files.

    Attributes:
        truncated: whether an image that lacks its last bytes is read as far as it goes.
        bits: bits that 16-bit images use, 8 to 16; 0 is what the file says, or else 16.
    """

    truncated: bool = False
    bits: int = 0


PLAIN = Decoding()


def is_turned(image: Image.Image) -> bool:
    """Whether EXIF says that an image is not stored upright; False where EXIF is damaged."""
    if formats.turned_by_decoder(image):
        return False
    try:
        return image.getexif().get(ExifTags.Base.Orientation, 1) in range(2, 9)
    except Exception:  # whatever a damaged EXIF block raises
        return False


def _turn_upright(image: Image.Image) -> None:
    """Turns a loaded image in place, where `is_turned` says so."""
    if formats.turned_by_decoder(image):
        return
    try:
        # Where Pillow cannot write a damaged EXIF block anew, the pixels are turned.
        ImageOps.exif_transpose(image, in_place=True)
    except MemoryError:
        raise
    except Exception:  # whatever a damaged EXIF block raises: the pixels are good without it
        pass


def _place(data: pathlib.Path | bytes | StoredImage, name: str) -> str:
    return (name or "An image in memory") if isinstance(data, bytes) else str(data)


def read_rgb(
    data: pathlib.Path | bytes | StoredImage,
    name: str = "",
    decoding: Decoding = PLAIN,
    tally: Tally | None = None,
) -> Image.Image:
    """Decodes an image as torchvision's loader does, upright.

    EXIF orientation is applied. Alpha is dropped, grey is repeated, the first frame stands for an
    animation, and 16-bit values are divided by 256 (`>> 8`) instead of clipped. Safe to call from
    several threads. From the first call on, Python shows no warnings out of Pillow's modules.

    Args:
        data: a path, an encoded image, or a `StoredImage`.
        name: what errors call an image that is given as bytes.
        decoding: what its file does not tell.
        tally: counts it, if it has 16 bits or lacks its end.

    Returns:
        An image of mode RGB.

    Raises:
        DecodeError: unreadable, truncated, empty, not an image, or a decompression bomb.
        CutShortError: of these, truncated; `decoding.truncated` would read it.
        MemoryError: it names the image.
    """
    with _named(_place(data, name)):
        encoded = data if isinstance(data, bytes | pathlib.Path) else data.read()
        try:
            return _upright_rgb(encoded, decoding, tally)
        except NotAnImageError:
            raise NotAnImageError(_what_it_is(encoded, _place(data, name))) from None
        except MemoryError:
            raise
        except Exception as error:
            whole = cut_short.lacks_end(error, encoded)
            if whole is None:
                raise
            if not decoding.truncated:
                raise CutShortError(str(error)) from error
            image = _upright_rgb(whole, decoding, tally, cut=True)
            if tally is not None:
                tally.add_cut_short(name or _place(data, name))
            return image


def pillow_rgb(image: Image.Image, name: str = "", decoding: Decoding = PLAIN) -> Image.Image:
    """The pixels of a Pillow image as `read_rgb` gives those of its file, upright.

    Args:
        image: the image; it is neither changed nor closed, but Pillow may load it.
        name: what errors call it.
        decoding: as in `read_rgb`. What Pillow left out when it loaded the image is lost: of
            colour with 16 bits, the lower ones.

    Raises:
        DecodeError: its pixels cannot be read, or have no defined range.
    """
    with _named(name or "An image in memory"):
        if decoding != PLAIN and (encoded := _file_of(image)) is not None:
            return read_rgb(encoded, name, decoding)
        stored = sixteen_bit.stored(image)
        try:
            image.load()
        except (OSError, ValueError) as error:
            raise (CutShortError(str(error)) if cut_short.is_said(error) else error) from error
        # A copy, not `exif_transpose(image)`, because that returns the image itself at times.
        upright = image.copy()
        upright.format = image.format
        _turn_upright(upright)
        return _to_rgb(upright, decoding, stored.shift, None)


def _file_of(image: Image.Image) -> bytes | None:
    """The file of a Pillow image that is not loaded yet and stands at its first frame."""
    file = getattr(image, "fp", None)
    if not (isinstance(image, ImageFile.ImageFile) and image.tile and file) or image.tell():
        return None
    place = file.tell()
    file.seek(0)
    encoded = file.read()
    file.seek(place)
    return encoded


@contextlib.contextmanager
def _named(place: str) -> Iterator[None]:
    """Turns whatever decoding raises into a sentence that names the image."""
    try:
        yield
    except CutShortError as error:
        read = "read what there is, with the rest grey or black: --config.data.truncated=true"
        sentence = f"{place} is truncated, its last bytes lack; fetch it again, or {read}."
        rule = f"{{n}} images are truncated, their last bytes lack; fetch them again, or {read}"
        raise CutShortError(Repeated(sentence, rule=rule, item=place)) from error
    except DecodeError:
        raise
    except (NotAnImageError, MissingPackageError) as error:
        raise _failed(place, str(error), f"{{n}} files, each of which {error}") from None
    except MemoryError:
        raise MemoryError(f"the system gives no more to decode {place}") from None
    except Exception as error:  # Pillow's plugins raise what they like on damaged files
        text = " ".join(str(error).split()).removesuffix(".") or type(error).__name__
        if isinstance(error, OSError) and error.errno:
            text = os_reason(error) + mend(error)
        if text == "Truncated File Read":  # in Pillow's words
            text = "it is truncated, and ends before its pixels begin; fetch it again"
        elif isinstance(error, Image.DecompressionBombError):
            text += "; save it smaller, or cut it into pieces"
        elif text.startswith("broken data stream"):
            text += "; fetch it again"
        why = f"cannot be decoded: {text}"
        raise _failed(place, why, f"{{n}} images {why}") from error


def _failed(place: str, why: str, rule: str) -> DecodeError:
    return DecodeError(Repeated(f"{place} {why}.", rule=rule, item=place))


def _what_it_is(encoded: bytes | pathlib.Path, place: str) -> str:
    """The rest of a sentence on a file that Pillow cannot tell to be an image."""
    path = io.BytesIO(encoded) if isinstance(encoded, bytes) else encoded
    start = formats.head(path, no_image.HEAD_BYTES)
    size = len(encoded) if isinstance(encoded, bytes) else encoded.stat().st_size
    if what := no_image.describe(start, size):
        return f"is {what}"
    if kind := formats.begins_as(start):
        return f"begins as {kind} does, but lacks its end or is of a kind that is not read"
    ending = pathlib.PurePath(place).suffix.lower()
    if ending in formats.OTHER_IMAGE_ENDINGS:
        return f"is not read, as no {ending} is; save it as PNG or JPEG"
    known = ", ".join(formats.ENDINGS_BY_FORMAT)
    return f"is not an image of a known format ({known})"


def _upright_rgb(
    encoded: bytes | pathlib.Path, decoding: Decoding, tally: Tally | None, *, cut: bool = False
) -> Image.Image:
    """The image, with `cut` as far as it goes."""
    with _opened(encoded, cut) as image:
        start = formats.head(_stream(encoded), 4096) if image.format == "JPEG2000" else b""
        stored = sixteen_bit.stored(image, start)
        offset = image.tile[0][2] if image.tile else 0
        _refuse_preview(image)
        _load_upright(image, cut)
        if not stored.deep or (tally is None and not decoding.bits):
            return _to_rgb(image, decoding, stored.shift, tally)
        if stored.deep == "ppm":
            whole = encoded if isinstance(encoded, bytes) else encoded.read_bytes()
            values = sixteen_bit.read_deep_ppm(whole, offset, image.size)
        elif decoding.bits in (0, 16):  # the bytes that Pillow keeps are enough
            full = np.full((1, 1, 1), 255, np.uint8)
            values = sixteen_bit.join_bytes(np.asarray(image), full, "")
        else:
            with _opened(encoded, cut) as again:
                sixteen_bit.read_low_bytes(again)
                _load_upright(again, cut)
                values = sixteen_bit.join_bytes(np.asarray(image), np.asarray(again), stored.deep)
        eight = sixteen_bit.to_eight_bits(values, decoding.bits, tally=tally)
        return image.convert("RGB") if decoding.bits in (0, 16) else Image.fromarray(eight)


def _refuse_preview(image: ImageFile.ImageFile) -> None:
    """Raises ValueError on a raw file of a camera, which is a TIFF whose first page is small."""
    if image.format == "TIFF" and image.tag_v2.get(254, 0) & 1:  # type: ignore[attr-defined]
        raise ValueError(
            "its first page is but a preview, as in a raw file of a camera; save it as TIFF or JPEG"
        )


def _stream(encoded: bytes | pathlib.Path) -> pathlib.Path | io.BytesIO:
    return io.BytesIO(encoded) if isinstance(encoded, bytes) else encoded


def _opened(encoded: bytes | pathlib.Path, cut: bool) -> ImageFile.ImageFile:
    if cut:
        assert isinstance(encoded, bytes)
        return cut_short.open_without_end(encoded)
    return formats.open_image(_stream(encoded))


def _load_upright(image: ImageFile.ImageFile, cut: bool) -> None:
    if cut:
        cut_short.load(image)
    else:
        image.load()
    _turn_upright(image)


def _to_rgb(
    image: Image.Image, decoding: Decoding, own_shift: int | None, tally: Tally | None
) -> Image.Image:
    """A loaded image as RGB, without what it has besides colour."""
    if image.mode == "RGB":
        return image
    if image.mode == "F":
        raise ValueError("floating-point pixels have no defined range; save it with 8 or 16 bit")
    if image.mode.startswith("I"):  # 16 bit, which Pillow's own conversion would clip at 255
        pixels = np.asarray(image)
        image = Image.fromarray(sixteen_bit.to_eight_bits(pixels, decoding.bits, own_shift, tally))
    if image.mode in ("La", "RGBa"):  # Pillow converts them to these alone
        image = image.convert({"La": "LA", "RGBa": "RGBA"}[image.mode])
    return image.convert("RGB")


def decode_train(
    data: pathlib.Path | bytes | StoredImage,
    name: str = "",
    *,
    size: int,
    decoding: Decoding = PLAIN,
    tally: Tally | None = None,
) -> np.ndarray:
    """Decodes an image and resizes it to a fixed square, bilinear.

    As torchvision's `Resize((size, size))` (paper: 600 x 600); `decoding` and `tally` as in
    `read_rgb`.

    Returns:
        uint8 [size, size, 3], read-only.

    Raises:
        DecodeError: see `read_rgb`.
    """
    image = read_rgb(data, name, decoding, tally)
    return np.asarray(image.resize((size, size), Image.Resampling.BILINEAR))


def decode_eval(
    data: pathlib.Path | bytes | StoredImage,
    name: str = "",
    *,
    resize: int,
    crop: int,
    decoding: Decoding = PLAIN,
    tally: Tally | None = None,
) -> np.ndarray:
    """Decodes an image, resizes its shorter side, bicubic, and cuts out the centre.

    As torchvision's `Resize(resize, BICUBIC)` and `CenterCrop(crop)`, with their rounding
    (`tests/golden/eval_preprocess.npz`); `decoding` and `tally` as in `read_rgb`.

    Returns:
        uint8 [crop, crop, 3], read-only.

    Raises:
        DecodeError: see `read_rgb`; also when the image is so narrow that resizing would exhaust
            the memory.
        ValueError: `crop` exceeds `resize`.
    """
    image = read_rgb(data, name, decoding, tally)
    return centre_crop(image, _place(data, name), Preprocessing(resize), crop=crop)


def centre_crop(
    image: Image.Image, place: str, preprocessing: Preprocessing, *, crop: int
) -> np.ndarray:
    """The pixels that a model takes, of an image that is decoded already.

    Args:
        image: of mode RGB.
        place: what errors call it.
        preprocessing: how it is resized, and where the crop begins.
        crop: pixels per side of the crop.

    Returns:
        uint8 [crop, crop, 3], read-only.

    Raises:
        DecodeError: it is too narrow.
        ValueError: `crop` exceeds `resize`.
    """
    resize = preprocessing.resize
    if crop > resize:
        raise ValueError(f"crop = {crop} must not exceed resize = {resize}.")
    short, long = (1, 1) if preprocessing.squash else sorted(image.size)
    scaled = int(resize * long / short)
    limit = Image.MAX_IMAGE_PIXELS
    if limit is not None and resize * scaled > 2 * limit:
        raise DecodeError(f"{place} is too narrow to be resized: {image.width} x {image.height}.")
    width, height = (resize, scaled) if image.width <= image.height else (scaled, resize)
    filtered = Image.Resampling[preprocessing.interpolation.upper()]
    image = image.resize((width, height), filtered)
    corner = round if preprocessing.corner == "even" else int
    left, top = (corner((side - crop) / 2.0) for side in (width, height))
    return np.asarray(image.crop((left, top, left + crop, top + crop)))
