"""Formats of images: which are read, the endings of their files, and the packages that some need.

A file's content decides how it is read; its ending only decides whether it is taken for an image.
"""

import functools
import importlib.util
import io
import pathlib
import re
import warnings

from PIL import Image, ImageFile, UnidentifiedImageError, features

# Format, as Pillow calls it -> endings of files that hold it. Formats outside this table are
# refused: Pillow would hand some of them (EPS) to other programs.
ENDINGS_BY_FORMAT = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo"),  # MPO: several JPEGs in a row
    "PNG": (".png", ".apng"),
    "TIFF": (".tif", ".tiff"),
    "BMP": (".bmp",),
    "GIF": (".gif",),
    "WEBP": (".webp",),
    "PPM": (".ppm", ".pgm", ".pbm", ".pnm"),
    "JPEG2000": (".jp2", ".j2k", ".j2c", ".jpc", ".jpf", ".jpx"),
    "AVIF": (".avif",),
    "HEIF": (".heic", ".heif", ".hif"),
    "JXL": (".jxl",),
}
EXTENSIONS = tuple(sorted(ending for endings in ENDINGS_BY_FORMAT.values() for ending in endings))

# Endings that say "image" as well, and are not read.
OTHER_IMAGE_ENDINGS = frozenset((
    ".3fr", ".ai", ".arw", ".bpg", ".cr2", ".cr3", ".cur", ".czi", ".dcm", ".dcr", ".dds", ".djvu",
    ".dng", ".emf", ".eps", ".erf", ".exr", ".fit", ".fits", ".hdr", ".icns", ".ico", ".iiq",
    ".jxr", ".kdc", ".lif", ".mef", ".mos", ".mrw", ".nd2", ".ndpi", ".nef", ".nii", ".nrw", ".orf",
    ".pcx", ".pef", ".pfm", ".psb", ".psd", ".qoi", ".raf", ".raw", ".rw2", ".rwl", ".sgi", ".sr2",
    ".srw", ".svg", ".svgz", ".svs", ".tga", ".vst", ".wdp", ".wmf", ".x3f", ".xbm", ".xcf", ".xpm",
))  # fmt: skip

# Format -> the package that teaches it to Pillow, and how to get it. Each is imported when the
# first such image comes, and never otherwise.
_PACKAGES = {
    "HEIF": ("pillow_heif", "pip install -e '.[heic]' -c constraints.txt"),
    "JXL": ("pillow_jxl", "pip install pillow-jxl-plugin"),
}
_HAS_AVIF = importlib.util.find_spec("PIL.AvifImagePlugin") is not None  # since Pillow 11.3
# Formats that Pillow reads by itself.
READABLE = tuple(
    kind for kind in ENDINGS_BY_FORMAT if kind not in _PACKAGES and (kind != "AVIF" or _HAS_AVIF)
)
_HEIF_BRANDS = re.compile(rb"hei[cmsx]|hev[cmsx]")
_QUIET = ("ignore", None, Warning, re.compile(r"PIL\."), 0)


class NotAnImageError(ValueError):
    """The bytes are not those of an image that is read; the message says no more."""


def open_image(stream: pathlib.Path | io.BytesIO) -> ImageFile.ImageFile:
    """Opens an image of any format that is read; its pixels are not decoded yet.

    From the first call on, Python shows no warnings out of Pillow's modules.

    Raises:
        NotAnImageError: it is not one.
        MissingPackageError: it is one, and what reads it is not installed.
        Exception: whatever Pillow raises on a damaged file, or the system on one it cannot read.
    """
    # Pillow warns of harmless things (broken EXIF, many pixels) from within `open`. To filter
    # only around the call, `warnings.catch_warnings`, is not safe with threads. Compare first,
    # because each change of the filters makes Python forget which warnings it has shown.
    if tuple(warnings.filters[:1]) != (_QUIET,):
        warnings.filterwarnings("ignore", module=r"PIL\.")
    try:
        return Image.open(stream, formats=READABLE)
    except UnidentifiedImageError:
        kind = _sniff(head(stream, 64))
        if kind is None:
            raise NotAnImageError from None
        _learn(kind)
        if isinstance(stream, io.BytesIO):
            stream.seek(0)
    try:
        return Image.open(stream, formats=(kind,))
    except UnidentifiedImageError:
        raise NotAnImageError from None


class MissingPackageError(Exception):
    """An image whose format needs another package; the message says which, and how to get it."""


def head(stream: pathlib.Path | io.BytesIO, size: int) -> bytes:
    """The first bytes of a file."""
    if isinstance(stream, io.BytesIO):
        return stream.getvalue()[:size]
    with open(stream, "rb") as file:
        return file.read(size)


_BEGINNINGS = {
    b"\xff\xd8\xff": "a JPEG",
    b"\x89PNG\r\n\x1a\n": "a PNG",
    b"II*\0": "a TIFF",
    b"MM\0*": "a TIFF",
    b"II+\0": "a TIFF",
    b"MM\0+": "a TIFF",
    b"GIF8": "a GIF",
    b"RIFF": "a WebP",
    b"\0\0\0\x0cjP  ": "a JPEG 2000",
    b"\xff\x4f\xff\x51": "a JPEG 2000",
}


def begins_as(start: bytes) -> str | None:
    """What a file begins as that Pillow cannot open all the same: "a TIFF"."""
    if _is_jpeg_xl(start):
        return "a JPEG XL"
    if start[4:8] == b"ftyp":
        brands = _brands(start)
        return "a HEIC" if _HEIF_BRANDS.search(brands) else "an AVIF" if b"avi" in brands else None
    return next((kind for mark, kind in _BEGINNINGS.items() if start.startswith(mark)), None)


def _sniff(start: bytes) -> str | None:
    """The format, of those that Pillow alone does not read, of a file that starts like this."""
    if _is_jpeg_xl(start):
        return "JXL"
    if start[4:8] == b"ftyp":
        brands = _brands(start)
        if _HEIF_BRANDS.search(brands):
            return "HEIF"
        if b"avif" in brands and not (_HAS_AVIF and features.check("avif")):
            raise MissingPackageError(
                "is an AVIF image, which this Pillow is too old for, or was built without; get "
                "another: pip install -U --force-reinstall pillow"
            )
    return None


def _is_jpeg_xl(start: bytes) -> bool:
    return start[:2] == b"\xff\x0a" or start[4:12] == b"JXL \r\n\x87\n"


def _brands(start: bytes) -> bytes:
    """What a file of ISO's container, as AVIF and HEIC have it, says that it holds."""
    return start[8 : max(12, min(64, int.from_bytes(start[:4], "big")))]


@functools.cache
def _learn(kind: str) -> None:
    """Teaches Pillow a format; raises MissingPackageError, also on every later call."""
    package, command = _PACKAGES[kind]
    try:
        module = importlib.import_module(package)
    except ImportError as error:
        names = {"HEIF": "HEIC", "JXL": "JPEG XL"}
        raise MissingPackageError(
            f"is a {names[kind]} image, which {package} reads, and that is not installed; "
            f"install it: {command}"
        ) from error
    if kind == "HEIF":
        module.register_heif_opener()


def turned_by_decoder(image: Image.Image) -> bool:
    """Whether the decoder of an image has turned it upright, whatever its EXIF block says.

    libheif and libjxl do, and leave EXIF as it was; but not for a JPEG that is kept in a JPEG XL.
    Pillow does not turn AVIF, and gives what libavif says as EXIF.
    """
    if image.format == "HEIF":
        return True
    return image.format == "JXL" and not getattr(image, "jpeg", False)
