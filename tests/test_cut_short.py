"""Images that lack their last bytes, against what Pillow's own switch gives."""

import concurrent.futures
import functools
import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageFile

from clevit_jax.data import decode
from clevit_jax.data.dataset import Example
from clevit_jax.data.decode import Decoding
from clevit_jax.data.pipeline import DecodedImages
from clevit_jax.errors import CutShortError, DataError, DecodeError

LENIENT = Decoding(truncated=True)
SMALL = np.random.default_rng(0).integers(0, 256, (30, 20, 3), np.uint8)
IMAGE = Image.fromarray(SMALL).resize((140, 180), Image.Resampling.BICUBIC)
KINDS = {
    "JPEG": ("JPEG", {}),
    "progressive": ("JPEG", {"progressive": True}),
    "PNG": ("PNG", {}),
    "TIFF": ("TIFF", {}),
    "BMP": ("BMP", {}),
    "GIF": ("GIF", {}),
    "PPM": ("PPM", {}),
}


def encoded(kind: str, **options) -> bytes:
    stream = io.BytesIO()
    IMAGE.save(stream, kind, **options)
    return stream.getvalue()


def by_the_switch(data: bytes, monkeypatch) -> np.ndarray:
    """What Pillow gives of a file with `LOAD_TRUNCATED_IMAGES`."""
    with monkeypatch.context() as patch:
        patch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
        return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


@pytest.mark.parametrize("share", [0.02, 0.4, 0.8])
@pytest.mark.parametrize("kind", KINDS)
def test_as_much_as_pillow_gives(kind, share, monkeypatch, tmp_path):
    name, options = KINDS[kind]
    data = encoded(name, **options)
    cut = data[: int(len(data) * (1 - share))]
    (tmp_path / "a.img").write_bytes(cut)
    for source in (cut, tmp_path / "a.img"):
        with pytest.raises(CutShortError, match=r"a\.img is truncated.*--config\.data\.truncated="):
            decode.read_rgb(source, "a.img")
        pixels = np.asarray(decode.read_rgb(source, "a.img", LENIENT))
        np.testing.assert_array_equal(pixels, by_the_switch(cut, monkeypatch))
    assert np.asarray(IMAGE).shape == pixels.shape


@pytest.mark.parametrize("lossless", [True, False])
def test_webp(lossless):
    """Pillow gives nothing of it."""
    data = encoded("WEBP", lossless=lossless)
    whole = np.asarray(decode.read_rgb(data))
    with pytest.raises(CutShortError):
        decode.read_rgb(data[: len(data) // 2])
    pixels = np.asarray(decode.read_rgb(data[: len(data) // 2], "", LENIENT))
    same = (pixels == whole).all((1, 2))
    assert same[:30].all()
    assert not same.all()


def test_a_tiff_in_strips_that_libtiff_reads():
    """Its directory comes first, as most programs write it; Pillow puts it last."""
    grey = np.asarray(IMAGE.convert("L"))
    height, width = grey.shape
    strips = [zlib.compress(rows.tobytes()) for rows in np.split(grey, 9)]
    entries = [(256, width), (257, height), (258, 8), (259, 8), (262, 1), (273, 200), (277, 1),
               (278, height // 9), (279, 250), (284, 1)]  # fmt: skip
    data = b"II*\0" + struct.pack("<IH", 8, len(entries))
    for tag, value in entries:
        data += struct.pack("<HHII", tag, 4, 9 if tag in (273, 279) else 1, value)
    offsets = [300 + sum(map(len, strips[:k])) for k in range(9)]
    data = data.ljust(200, b"\0") + struct.pack("<9I", *offsets)
    data = data.ljust(250, b"\0") + struct.pack("<9I", *map(len, strips))
    data = data.ljust(300, b"\0") + b"".join(strips)
    np.testing.assert_array_equal(np.asarray(decode.read_rgb(data))[..., 0], grey)
    cut = data[: offsets[6] + 5]
    with pytest.raises(CutShortError):
        decode.read_rgb(cut)
    pixels = np.asarray(decode.read_rgb(cut, "", LENIENT))[..., 0]
    np.testing.assert_array_equal(pixels[:120], grey[:120])
    assert not (pixels[120:] == grey[120:]).all()


def test_whole_images_are_the_same_and_damaged_ones_stay_refused():
    for name, options in KINDS.values():
        data = encoded(name, **options)
        plain = np.asarray(decode.read_rgb(data))
        np.testing.assert_array_equal(np.asarray(decode.read_rgb(data, "", LENIENT)), plain)
    png = bytearray(encoded("PNG"))
    png[len(png) // 2] ^= 0xFF
    for data in (bytes(png), b"", b"<html>", encoded("PNG")[:20], encoded("JPEG2000")[:-50]):
        with pytest.raises(DecodeError, match=r"^a\.png "):
            decode.read_rgb(data, "a.png", LENIENT)


def test_upright_too():
    exif = Image.Exif()
    exif[0x0112] = 6
    for kind in ("JPEG", "PNG", "TIFF"):
        data = encoded(kind, exif=exif.tobytes())
        assert decode.read_rgb(data[:-1500], "", LENIENT).size == (180, 140)


def test_the_switch_of_pillow_is_never_touched():
    """Threads that refuse such files see no moment in which they are read."""
    data = [data[: len(data) // 2] for data in map(encoded, ("JPEG", "PNG", "TIFF"))]

    def strict(index: int) -> bool:
        assert not ImageFile.LOAD_TRUNCATED_IMAGES
        try:
            with Image.open(io.BytesIO(data[index % 3])) as image:
                image.load()
        except OSError:
            return True
        return False

    def lenient(index: int) -> bool:
        return decode.read_rgb(data[index % 3], "", LENIENT).size == IMAGE.size

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        both = [pool.submit(work, k) for k in range(60) for work in (strict, lenient)]
        assert all(future.result() for future in both)


def test_the_error_of_many_says_how_many():
    cut = encoded("JPEG")[:-100]
    examples = [Example(cut, 0, k, f"{k}.jpg") for k in range(5)]
    decoder = functools.partial(decode.decode_train, size=8)
    with pytest.raises(DataError) as caught:
        DecodedImages(examples, decoder, cache_bytes=0).fill(threads=2)
    assert str(caught.value).startswith("5 images are truncated, their last bytes lack; ")
    assert "--config.data.truncated=true" in str(caught.value)
    lenient = functools.partial(decoder, decoding=LENIENT)
    DecodedImages(examples, lenient, cache_bytes=0).fill(threads=2)
