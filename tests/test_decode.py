"""Decoding against pixels that were made in NumPy, and against the official pre-processing."""

import concurrent.futures
import io
import struct
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image, ImageFile

from clevit_jax.data import decode
from clevit_jax.errors import DecodeError

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (5, 7, 3), np.uint8)
GREY = PIXELS[..., 0]


def encoded(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def png16(pixels: np.ndarray) -> bytes:
    """A 16-bit PNG written by hand, grey [H, W] or RGB [H, W, 3]."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + check

    height, width = pixels.shape[:2]
    colour = 0 if pixels.ndim == 2 else 2
    header = struct.pack(">IIBBBBB", width, height, 16, colour, 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    chunks = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


def pixels_of(data, name="") -> np.ndarray:
    return np.asarray(decode.read_rgb(data, name))


def grey_rgb(grey) -> np.ndarray:
    return np.repeat(np.asarray(grey)[..., None], 3, axis=-1)


def test_rgb_and_grey_and_one_bit(tmp_path):
    (tmp_path / "a.png").write_bytes(encoded(Image.fromarray(PIXELS)))
    np.testing.assert_array_equal(pixels_of(tmp_path / "a.png"), PIXELS)
    np.testing.assert_array_equal(pixels_of(encoded(Image.fromarray(GREY))), grey_rgb(GREY))
    bits = Image.fromarray(GREY > 99)
    np.testing.assert_array_equal(
        pixels_of(encoded(bits)), grey_rgb(np.where(GREY > 99, 255, 0).astype(np.uint8))
    )


def test_alpha_is_dropped():
    alpha = RNG.integers(0, 256, (5, 7), np.uint8)
    rgba = np.dstack([PIXELS, alpha])
    np.testing.assert_array_equal(pixels_of(encoded(Image.fromarray(rgba))), PIXELS)
    la = Image.fromarray(np.dstack([GREY, alpha]), "LA")
    np.testing.assert_array_equal(pixels_of(encoded(la)), grey_rgb(GREY))


@pytest.mark.parametrize("transparency", [None, 2, bytes([0, 128, 255, 7])])
def test_palette(transparency):
    palette = RNG.integers(0, 256, (4, 3), np.uint8)
    index = RNG.integers(0, 4, (5, 7), np.uint8)
    image = Image.fromarray(index)
    image.putpalette(palette.tobytes())
    options = {} if transparency is None else {"transparency": transparency}
    data = encoded(image, **options)
    assert Image.open(io.BytesIO(data)).mode == "P"
    np.testing.assert_array_equal(pixels_of(data), palette[index])


def test_cmyk():
    cmyk = RNG.integers(0, 256, (5, 7, 4), np.uint8)
    data = encoded(Image.fromarray(cmyk, "CMYK"), "TIFF")
    ink = cmyk.astype(np.float64) / 255
    expected = 255 * (1 - ink[..., :3]) * (1 - ink[..., 3:])
    np.testing.assert_allclose(pixels_of(data), expected, atol=1.0)


SIXTEEN = RNG.integers(0, 1 << 16, (5, 7)).astype(np.uint16)
SIXTEEN[0, :3] = 0, 300, 65535


def test_sixteen_bit_is_scaled_not_clipped():
    expected = grey_rgb((SIXTEEN // 256).astype(np.uint8))
    np.testing.assert_array_equal(pixels_of(png16(SIXTEEN)), expected)
    tiff = encoded(Image.fromarray(SIXTEEN), "TIFF")
    big = encoded(Image.frombytes("I;16B", (7, 5), SIXTEEN.astype(">u2").tobytes()), "TIFF")
    assert [Image.open(io.BytesIO(d)).mode for d in (tiff, big)] == ["I;16", "I;16B"]
    np.testing.assert_array_equal(pixels_of(tiff), expected)
    np.testing.assert_array_equal(pixels_of(big), expected)
    wide = encoded(Image.fromarray(SIXTEEN.astype(np.int32)), "TIFF")
    assert Image.open(io.BytesIO(wide)).mode == "I"
    np.testing.assert_array_equal(pixels_of(wide), expected)
    colour = RNG.integers(0, 1 << 16, (5, 7, 3)).astype(np.uint16)
    np.testing.assert_array_equal(pixels_of(png16(colour)), (colour // 256).astype(np.uint8))


@pytest.mark.parametrize("pixels", [np.full((2, 2), 70000), np.full((2, 2), -1)])
def test_more_than_sixteen_bit_is_refused(pixels):
    data = encoded(Image.fromarray(pixels.astype(np.int32)), "TIFF")
    with pytest.raises(DecodeError, match=r"^deep\.tif .* do not fit 16 bit"):
        decode.read_rgb(data, "deep.tif")


def test_floating_point_is_refused():
    data = encoded(Image.fromarray(np.ones((2, 2), np.float32)), "TIFF")
    with pytest.raises(DecodeError, match=r"^f\.tif .*floating-point"):
        decode.read_rgb(data, "f.tif")


def test_animation_gives_the_first_frame():
    frames = [Image.fromarray(np.full((4, 4), value, np.uint8)) for value in (10, 200)]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    Image.open(io.BytesIO(data)).seek(1)  # there is a second frame
    np.testing.assert_array_equal(pixels_of(data), np.full((4, 4, 3), 10))


# What the stored pixels look like when the upright image carries each EXIF orientation: the
# EXIF standard says where the stored row 0 and column 0 lie in the upright image.
STORED = {
    1: lambda x: x,  # top, left
    2: lambda x: x[:, ::-1],  # top, right
    3: lambda x: x[::-1, ::-1],  # bottom, right
    4: lambda x: x[::-1],  # bottom, left
    5: lambda x: x.swapaxes(0, 1),  # left, top
    6: lambda x: np.rot90(x, 1),  # right, top
    7: lambda x: x[::-1, ::-1].swapaxes(0, 1),  # right, bottom
    8: lambda x: np.rot90(x, -1),  # left, bottom
}


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_exif_orientation(orientation, kind):
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = Image.fromarray(np.ascontiguousarray(STORED[orientation](PIXELS)))
    np.testing.assert_array_equal(pixels_of(encoded(stored, kind, exif=exif)), PIXELS)


@pytest.mark.parametrize("exif", [b"Exif\0\0II*\0garbage", b"Exif\0\0" + b"\xff" * 40, b"nonsense"])
def test_damaged_exif_neither_fails_nor_warns(exif, recwarn):
    image = Image.fromarray(PIXELS)
    data = encoded(image, "JPEG", exif=exif)
    plain = encoded(image, "JPEG")
    np.testing.assert_array_equal(pixels_of(data), pixels_of(plain))
    assert not recwarn.list


def test_an_orientation_counts_where_the_rest_of_exif_is_damaged(monkeypatch):
    """Pillow writes the block anew once the pixels are turned."""
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encoded(Image.fromarray(np.ascontiguousarray(STORED[6](PIXELS))), "PNG", exif=exif)
    monkeypatch.setattr(Image.Exif, "tobytes", lambda *_: 1 / 0)
    np.testing.assert_array_equal(pixels_of(data), PIXELS)


def test_turned_says_what_is_turned():
    for orientation in (0, *STORED, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        data = encoded(Image.fromarray(PIXELS), exif=exif)
        with Image.open(io.BytesIO(data)) as image:
            assert decode.is_turned(image) is not np.array_equal(pixels_of(data), PIXELS)


def test_deep_grey_is_turned_too():
    grey = np.arange(35, dtype=np.uint16).reshape(5, 7) << 8
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encoded(Image.fromarray(np.rot90(grey)), exif=exif)
    np.testing.assert_array_equal(pixels_of(data)[..., 0], grey >> 8)


def test_decompression_bombs(monkeypatch, recwarn):
    data = encoded(Image.fromarray(PIXELS))  # 35 pixels
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 20)  # Pillow warns from 20 and fails from 40
    np.testing.assert_array_equal(pixels_of(data), PIXELS)
    assert not recwarn.list
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    with pytest.raises(DecodeError, match=r"^bomb\.png .*decompression bomb.*; save it smaller"):
        decode.read_rgb(data, "bomb.png")


def test_a_sliver_is_not_blown_up(monkeypatch):
    data = encoded(Image.new("RGB", (600, 1)))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)  # 600 are fine, 12000 x 20 are not
    with pytest.raises(DecodeError, match=r"^line\.png is too narrow .* 600 x 1"):
        decode.decode_eval(data, "line.png", resize=20, crop=10)


GOOD = {kind: encoded(Image.fromarray(RNG.integers(0, 256, (64, 64, 3), np.uint8)), kind)
        for kind in ("JPEG", "PNG", "BMP", "WEBP", "TIFF")}  # fmt: skip


@pytest.mark.parametrize("kind", GOOD)
def test_truncated_files_are_refused(kind, tmp_path):
    np.asarray(decode.read_rgb(GOOD[kind]))
    path = tmp_path / "half.img"
    path.write_bytes(GOOD[kind][: len(GOOD[kind]) // 2])
    for data in (path, path.read_bytes()):
        with pytest.raises(DecodeError, match=r"half\.img .*\.$"):
            decode.read_rgb(data, "half.img")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "an empty file"),
        (b"<html>404</html>", "an HTML page, not an image"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n", "a PostScript"),
        (b"\x89PNG\r\n\x1a\n", "."),
        (bytes(range(128, 256)), "not an image of a known format"),
    ],
)
def test_what_is_no_image_is_refused(content, said, tmp_path):
    path = tmp_path / "file.png"
    path.write_bytes(content)
    with pytest.raises(DecodeError, match=rf"^{path} .*{said}"):
        decode.read_rgb(path)
    with pytest.raises(DecodeError, match=rf"^file\.png .*{said}"):
        decode.read_rgb(content, "file.png")
    assert issubclass(DecodeError, ValueError)


def test_missing_file_and_folder_are_refused(tmp_path):
    for path in (tmp_path / "gone.png", tmp_path):
        with pytest.raises(DecodeError, match=f"^{path} cannot be decoded"):
            decode.read_rgb(path)


def test_pillow_settings_stay_as_they_are():
    before = Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES, list(Image.ID)
    decode.read_rgb(GOOD["JPEG"])
    after = Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES, list(Image.ID)
    assert before == after


def test_warnings_of_others_are_still_shown_once():
    decode.read_rgb(GOOD["PNG"])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        for _ in range(3):
            decode.read_rgb(GOOD["PNG"])
            warnings.warn("mine", UserWarning, stacklevel=1)
    assert [str(one.message) for one in caught] == ["mine"]


def bilinear(pixels: np.ndarray, size: int) -> np.ndarray:
    """Triangle filter, as wide as the step when shrinking, along rows then columns."""

    def weights(length: int) -> np.ndarray:
        scale = length / size
        centres = (np.arange(size) + 0.5) * scale
        distance = np.abs(np.arange(length) + 0.5 - centres[:, None]) / max(scale, 1.0)
        weight = np.maximum(1 - distance, 0)
        return weight / weight.sum(axis=1, keepdims=True)

    rows, columns = weights(pixels.shape[0]), weights(pixels.shape[1])
    return np.einsum("yh,xw,hwc->yxc", rows, columns, pixels.astype(np.float64))


@pytest.mark.parametrize("shape", [(40, 61), (9, 7)])
def test_decode_train_is_a_bilinear_square(shape):
    pixels = RNG.integers(0, 256, (*shape, 3), np.uint8)
    image = decode.decode_train(encoded(Image.fromarray(pixels)), size=16)
    assert (image.shape, image.dtype.name) == ((16, 16, 3), "uint8")
    np.testing.assert_allclose(image, bilinear(pixels, 16), atol=1.01)


def test_decode_eval_is_the_official_preprocessing(golden):
    image = decode.decode_eval(golden / "eval_input.png", resize=512, crop=448)
    assert (image.shape, image.dtype.name) == ((448, 448, 3), "uint8")
    with np.load(golden / "eval_preprocess.npz") as stored:
        official = stored["output_hwc"]
    official = official * [0.229, 0.224, 0.225] + [0.485, 0.456, 0.406]
    np.testing.assert_allclose(image[::7, ::7] / 255, official, atol=2 / 255)


@pytest.mark.parametrize(
    ("width", "height", "box"),
    # By hand: the longer side is int(8 * long / short), offsets are round((side - 5) / 2), where
    # halves go to the even number: 1.5 -> 2, 2.5 -> 2, 4.5 -> 4.
    [(8, 8, (2, 2)), (8, 11, (2, 3)), (10, 8, (2, 2)), (14, 8, (4, 2)), (8, 9, (2, 2))],
)
def test_decode_eval_rounds_as_torchvision(width, height, box):
    pixels = RNG.integers(0, 256, (height, width, 3), np.uint8)
    image = decode.decode_eval(encoded(Image.fromarray(pixels)), resize=8, crop=5)
    left, top = box
    np.testing.assert_array_equal(image, pixels[top : top + 5, left : left + 5])


def test_decode_eval_truncates_the_longer_side():
    pixels = RNG.integers(0, 256, (30, 47, 3), np.uint8)
    resized = Image.fromarray(pixels).resize((31, 20), Image.Resampling.BICUBIC)  # 31.33
    expected = np.asarray(resized)[5:15, 10:20]  # round(10.5) is 10
    image = decode.decode_eval(encoded(Image.fromarray(pixels)), resize=20, crop=10)
    np.testing.assert_array_equal(image, expected)


def test_decode_eval_crop_must_fit():
    with pytest.raises(ValueError, match="crop = 9 must not exceed resize = 8"):
        decode.decode_eval(GOOD["PNG"], resize=8, crop=9)


def test_threads_agree(recwarn):
    exif = Image.Exif()
    exif[0x0112] = 6
    data = [encoded(Image.fromarray(PIXELS), exif=exif), GOOD["JPEG"], b"no", GOOD["WEBP"]] * 25

    def work(one):
        try:
            return decode.decode_train(one, size=20).tobytes()
        except DecodeError as error:
            return str(error)

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        assert list(pool.map(work, data)) == [work(one) for one in data]
    assert not recwarn.list
