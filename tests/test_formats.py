"""Formats and endings: what is read, what needs another package, and what stands upright."""

import importlib
import io
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from clevit_jax.data import decode, formats
from clevit_jax.data.layouts.listing import is_image
from clevit_jax.errors import DecodeError

# Eight blocks that differ, so that a lossy codec does not blur which lies where.
BLOCKS = np.random.default_rng(3).integers(0, 2, (4, 2, 3), np.uint8) * np.uint8(255)
UPRIGHT = np.kron(BLOCKS, np.ones((16, 16, 1), np.uint8))
READ_BEFORE = ("bmp", "gif", "jfif", "jp2", "jpe", "jpeg", "jpg", "pgm", "png", "ppm", "tif",
               "tiff", "webp")  # fmt: skip


def encoded(pixels: np.ndarray, kind: str, **options) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, kind, **options)
    return stream.getvalue()


def test_endings_only_grow():
    for name in (*READ_BEFORE, "AVIF", "heic", "heif", "hif", "jxl", "mpo", "apng", "pnm", "j2k"):
        assert is_image(f"a/b.c.{name}")
        assert is_image(f".{name}")
    for name in ("a", "a.jpg.crdownload", "jpg", "a.", "a.jpg/b", "a.ico", "a.tga", ""):
        assert not is_image(name)
    assert not formats.OTHER_IMAGE_ENDINGS & set(formats.EXTENSIONS)


def test_endings_are_those_of_the_formats():
    """As Pillow has them, where it knows the format by itself."""
    Image.init()
    for kind, endings in formats.ENDINGS_BY_FORMAT.items():
        if kind not in formats.READABLE:
            continue
        known = {e for e, k in Image.EXTENSION.items() if k == kind}
        assert set(endings) - {".mpo"} <= known


@pytest.mark.parametrize("kind", formats.READABLE)
def test_every_ending_that_is_taken_is_read(kind, tmp_path):
    data = encoded(UPRIGHT, kind)
    for ending in formats.ENDINGS_BY_FORMAT[kind]:
        path = tmp_path / f"a{ending}"
        path.write_bytes(data)
        difference = np.abs(np.asarray(decode.read_rgb(path)).astype(int) - UPRIGHT)
        assert difference.mean() < 8


def test_a_jpeg_of_several_pictures():
    frames = [Image.fromarray(UPRIGHT), Image.fromarray(255 - UPRIGHT)]
    stream = io.BytesIO()
    frames[0].save(stream, "MPO", save_all=True, append_images=frames[1:], quality=95)
    difference = np.abs(np.asarray(decode.read_rgb(stream.getvalue())).astype(int) - UPRIGHT)
    assert difference.mean() < 8


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
@pytest.mark.parametrize("kind", ["AVIF", "HEIF"])
def test_what_a_container_turns_is_turned_once(kind, orientation):
    """AVIF and HEIC say the rotation in the container and, many of them, in EXIF too."""
    if kind == "AVIF" and kind not in formats.READABLE:
        pytest.skip("Pillow has no AVIF before 11.3")
    if kind == "HEIF":
        pytest.importorskip("pillow_heif", reason="the extra heic is not installed")
        formats._learn("HEIF")
    turns = {1: 0, 3: 2, 6: 1, 8: -1}[orientation]  # counterclockwise, from upright to stored
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = np.ascontiguousarray(np.rot90(UPRIGHT, turns))
    data = encoded(stored, kind, exif=exif.tobytes(), quality=95)
    assert b"irot" in data or orientation == 1
    for image in (decode.read_rgb(data), decode.pillow_rgb(formats.open_image(io.BytesIO(data)))):
        pixels = np.asarray(image).astype(int)
        assert pixels.shape == UPRIGHT.shape
        assert np.abs(pixels - UPRIGHT).mean() < 16


def test_jpeg_xl(tmp_path):
    pytest.importorskip("pillow_jxl", reason="pillow-jxl-plugin is not installed")
    formats._learn("JXL")
    exif = Image.Exif()
    exif[0x0112] = 6
    for options in ({}, {"exif": exif.tobytes()}):
        pixels = np.asarray(decode.read_rgb(encoded(UPRIGHT, "JXL", lossless=True, **options)))
        np.testing.assert_array_equal(pixels, UPRIGHT)  # the codestream says which way is up
    # A JPEG that is kept in a JPEG XL is turned as that JPEG is.
    jpeg = encoded(np.rot90(UPRIGHT).copy(), "JPEG", exif=exif.tobytes(), quality=95)
    (tmp_path / "a.jpg").write_bytes(jpeg)
    with Image.open(tmp_path / "a.jpg") as image:
        image.save(tmp_path / "a.jxl", lossless_jpeg=True)
    kept = np.asarray(decode.read_rgb(tmp_path / "a.jxl"))
    np.testing.assert_array_equal(kept, np.asarray(decode.read_rgb(jpeg)))


HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(40)
JXL = [b"\xff\x0a" + bytes(range(40)), b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(range(40))]


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (HEIC, r"HEIC image, which pillow_heif reads.*pip install -e '\.\[heic\]'"),
        (HEIC.replace(b"ftypheic", b"ftypmif1"), r"HEIC image, which pillow_heif reads"),
        (JXL[0], r"JPEG XL image, which pillow_jxl reads.*pip install pillow-jxl-plugin"),
        (JXL[1], r"JPEG XL image"),
    ],
)
def test_a_format_whose_package_is_not_there(monkeypatch, tmp_path, data, said):
    def without(name, *more):
        if name in ("pillow_heif", "pillow_jxl"):
            raise ImportError(name)
        return real(name, *more)

    real = importlib.import_module
    monkeypatch.setattr(importlib, "import_module", without)
    formats._learn.cache_clear()
    (tmp_path / "a.jpg").write_bytes(data)
    with pytest.raises(DecodeError, match=rf"^a\.jpg is a {said}"):
        decode.read_rgb(data, "a.jpg")
    with pytest.raises(DecodeError, match=rf"^{tmp_path}/a\.jpg is a {said}"):
        decode.read_rgb(tmp_path / "a.jpg")


@pytest.mark.parametrize("data", [HEIC, *JXL, b"\0\0\0\x1cftypavif\0\0\0\0mif1avif" + bytes(9)])
def test_only_the_beginning_of_an_image(data, tmp_path):
    """Whether what would read it is installed or not, it is a sentence, and names no object."""
    (tmp_path / "a.jpg").write_bytes(data)
    for source in (data, tmp_path / "a.jpg"):
        with pytest.raises(DecodeError, match=r"a\.jpg (begins as|is|cannot be decoded)") as caught:
            decode.read_rgb(source, "a.jpg")
        assert " object at " not in str(caught.value)


def test_packages_are_imported_by_the_first_such_image_alone():
    code = (
        "import io, sys; from PIL import Image; from clevit_jax.data import decode\n"
        "s = io.BytesIO(); Image.new('RGB', (8, 8)).save(s, 'WEBP')\n"
        "decode.read_rgb(s.getvalue())\n"
        "assert not {'pillow_heif', 'pillow_jxl'} & sys.modules.keys()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_pillow_without_avif(monkeypatch):
    data = b"\0\0\0\x1cftypavif\0\0\0\0mif1avifmiaf" + bytes(40)
    monkeypatch.setattr(Image, "OPEN", Image.OPEN | {"AVIF": (None, lambda prefix: False)})
    monkeypatch.setattr(formats.features, "check", lambda name: False)
    with pytest.raises(DecodeError, match=r"AVIF image, .*built without; .*pip install"):
        decode.read_rgb(data)


@pytest.mark.parametrize("ending", [".tga", ".NEF", ".psd"])
def test_endings_that_say_image_too(ending):
    data = bytes(range(1, 255))
    with pytest.raises(DecodeError, match=rf"is not read, as no {ending.lower()} is"):
        decode.read_rgb(data, f"a{ending}")


def test_the_preview_in_a_raw_file_is_not_taken_for_the_image():
    """Of a Nikon's NEF, or a DNG, the first page of the TIFF is a thumbnail."""
    image, stream = Image.new("RGB", (16, 12)), io.BytesIO()
    image.save(stream, "TIFF", tiffinfo={254: 1})
    with pytest.raises(DecodeError, match=r"a\.tif .*preview, as in a raw file of a camera"):
        decode.read_rgb(stream.getvalue(), "a.tif")
