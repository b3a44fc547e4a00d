"""16-bit images of fewer bits, against NumPy."""

import io
import re
import struct
import zlib

import numpy as np
import pytest
from PIL import Image
from test_decode import grey_rgb, png16

from clevit_jax.data import decode, sixteen_bit
from clevit_jax.data.decode import Decoding
from clevit_jax.data.tally import Tally
from clevit_jax.errors import DecodeError

RNG = np.random.default_rng(5)
GREY = RNG.integers(0, 1 << 12, (6, 9)).astype(np.uint16)
COLOUR = RNG.integers(0, 1 << 12, (6, 9, 3)).astype(np.uint16)
GREY[0, 0] = COLOUR[0, 0] = 4095


def tiff(pixels: np.ndarray, order: str = "<", *, bits: int = 16, packed: bytes = b"") -> bytes:
    """A TIFF by hand: grey [H, W] or RGB [H, W, 3]."""
    channels = 1 if pixels.ndim == 2 else 3
    data = packed or pixels.astype(f"{order}u2").tobytes()
    entries = [(256, 4, pixels.shape[1]), (257, 4, pixels.shape[0]), (258, 3, bits), (259, 3, 1),
               (262, 3, 1 if channels == 1 else 2), (273, 4, 200), (277, 3, channels),
               (278, 4, pixels.shape[0]), (279, 4, len(data)), (284, 3, 1)]  # fmt: skip
    ifd = struct.pack(f"{order}H", len(entries))
    for tag, kind, value in entries:
        count, place = 1, struct.pack(f"{order}HH" if kind == 3 else f"{order}I",
                                      *((value, 0) if kind == 3 else (value,)))  # fmt: skip
        if tag == 258 and channels == 3:
            count, place = 3, struct.pack(f"{order}I", 180)
        ifd += struct.pack(f"{order}HHI", tag, kind, count) + place
    start = (b"II" if order == "<" else b"MM") + struct.pack(f"{order}HI", 42, 8)
    start = (start + ifd + bytes(4)).ljust(180, b"\0") + struct.pack(f"{order}3H", *[bits] * 3)
    return start.ljust(200, b"\0") + data


def ppm(pixels: np.ndarray, highest: int) -> bytes:
    magic = b"P5" if pixels.ndim == 2 else b"P6"
    size = f"{pixels.shape[1]} {pixels.shape[0]}\n{highest}\n".encode()
    return magic + b"\n" + size + pixels.astype(">u2").tobytes()


def compressed_tiff(pixels: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "TIFF", compression="tiff_lzw")
    return stream.getvalue()


def with_alpha(pixels: np.ndarray) -> bytes:
    """A PNG of 16 bits with an alpha that is high."""
    alpha = np.full(pixels.shape[:2] + (1,), 0xFFF0, np.uint16)
    whole = np.concatenate([pixels.reshape(*pixels.shape[:2], -1), alpha], axis=-1)
    data = png16(whole)
    header = bytearray(data[16:29])
    header[9] = 4 if whole.shape[-1] == 2 else 6
    check = struct.pack(">I", zlib.crc32(b"IHDR" + bytes(header)))
    return data[:16] + bytes(header) + check + data[33:]


LOOSE = {
    "PNG": (png16(GREY), GREY),
    "PNG with alpha": (with_alpha(GREY), GREY),
    "TIFF": (tiff(GREY), GREY),
    "TIFF, big-endian": (tiff(GREY, ">"), GREY),
    "TIFF, compressed": (compressed_tiff(GREY), GREY),
    "TIFF, 32 bit": (compressed_tiff(GREY.astype(np.int32)), GREY),
    "PGM": (ppm(GREY, 65535), GREY),
    "PNG, RGB": (png16(COLOUR), COLOUR),
    "PNG, RGB with alpha": (with_alpha(COLOUR), COLOUR),
    "TIFF, RGB": (tiff(COLOUR), COLOUR),
    "TIFF, RGB, big-endian": (tiff(COLOUR, ">"), COLOUR),
    "PPM": (ppm(COLOUR, 65535), COLOUR),
}


def as_rgb(pixels: np.ndarray) -> np.ndarray:
    return pixels if pixels.ndim == 3 else grey_rgb(pixels)


@pytest.mark.parametrize("kind", ["grey", "TIFF", "RGB"])
def test_eight_bits_in_sixteen(kind):
    """As programs write them that widen all pixels."""
    make, values = {"grey": (png16, GREY), "TIFF": (tiff, GREY), "RGB": (png16, COLOUR)}[kind]
    small = values & 0xFF
    image = decode.read_rgb(make(small), "", Decoding(bits=8))
    np.testing.assert_array_equal(np.asarray(image), as_rgb(small).astype(np.uint8))


@pytest.mark.parametrize("kind", LOOSE)
def test_bits_are_those_that_are_named(kind, tmp_path):
    data, values = LOOSE[kind]
    (tmp_path / "a.img").write_bytes(data)
    for source in (data, tmp_path / "a.img"):
        tally = Tally()
        image = decode.read_rgb(source, "a.img", Decoding(bits=12), tally)
        np.testing.assert_array_equal(np.asarray(image), as_rgb(values >> 4).astype(np.uint8))
        assert (tally.deep, tally.highest) == (1, 4095)
        plain, tally = np.asarray(decode.read_rgb(source, "a.img", tally=tally)), Tally()
        shift = np.abs(plain.astype(int) - as_rgb(values >> 8))
        assert shift.max() <= (1 if kind == "PPM" else 0)  # which Pillow rounds
        decode.read_rgb(source, "a.img", tally=tally)
        assert tally.deep == 1
        assert 4095 <= tally.highest < 4096
    with pytest.raises(DecodeError, match=r"a\.img .*up to 4,095.*10 bits.*data\.bits=12"):
        decode.read_rgb(data, "a.img", Decoding(bits=10))
    np.testing.assert_array_equal(decode.read_rgb(data, "", Decoding(bits=16)), plain)


def test_what_a_file_says_itself_goes_before():
    """PNM has its highest value in the header, and TIFF may have 12 bits to a value."""
    for bits in (0, 12, 14):
        scaled = np.asarray(decode.read_rgb(ppm(GREY, 4095), "", Decoding(bits=bits)))
        np.testing.assert_allclose(scaled, grey_rgb(GREY >> 4), atol=1)
        wide = np.pad(GREY, ((0, 0), (0, 1)))  # two values in three bytes
        a, b = wide[:, ::2].astype(int), wide[:, 1::2].astype(int)
        packed = np.stack([a >> 4, (a & 15) << 4 | b >> 8, b & 255], -1).astype(np.uint8)
        data = tiff(wide, bits=12, packed=packed.tobytes())
        tally = Tally()
        pixels = np.asarray(decode.read_rgb(data, "", Decoding(bits=bits), tally))
        np.testing.assert_array_equal(pixels, grey_rgb(wide >> 4))
        assert tally.deep == 0


def test_8_bit_images_are_left_alone():
    pixels = RNG.integers(0, 256, (4, 5, 3), np.uint8)
    for kind in ("PNG", "TIFF", "BMP", "PPM"):
        stream, tally = io.BytesIO(), Tally()
        Image.fromarray(pixels).save(stream, kind)
        image = decode.read_rgb(stream.getvalue(), "", Decoding(bits=12), tally)
        np.testing.assert_array_equal(np.asarray(image), pixels)
        assert tally.deep == 0


@pytest.mark.parametrize(
    ("images", "highest", "said"),
    [
        (3, 4095, "All 3 16-bit images have no value above 4,095.*nearly black.*data.bits=12"),
        (1, 900, r"The one 16-bit image has no value above 900.*data.bits=12 \(or 10\)"),
        (1, 255, r"no value above 255.*of 8 bits.*come out black.*data.bits=8, and"),
        (2, 256, r"of 12 bits.*data.bits=12 \(or 10\)"),
        (2, 16383, "dark.*data.bits=14"),
        (2, 16384, None),
        (0, 0, None),
        (5, 0, None),
        (9, 65535, None),
    ],
)
def test_the_warning(images, highest, said):
    warning = sixteen_bit.dark_warning(images, highest)
    assert (warning is None) is (said is None)
    if said:
        assert re.search(said, warning)
