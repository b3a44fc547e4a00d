"""The one way in: any form of an image is the same image, and what is none is refused in words."""

import contextlib
import io
import pathlib
import tempfile

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from test_sixteen_bit import COLOUR, GREY, png16, ppm, tiff, with_alpha

from clevit_jax.data import decode, formats
from clevit_jax.data.decode import Decoding
from clevit_jax.errors import CutShortError, DecodeError
from clevit_jax.inference import images_in

RNG = np.random.default_rng(7)
PIXELS = RNG.integers(0, 256, (6, 5, 3), np.uint8)
ALPHA = RNG.integers(0, 256, (6, 5, 1), np.uint8)


def encoded(image, kind="PNG", **options):
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def turned(kind, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded(Image.fromarray(PIXELS), kind, exif=exif.tobytes())


def palette():
    image = Image.fromarray(PIXELS[..., 0] % 4)
    image.putpalette(RNG.integers(0, 256, (4, 3), np.uint8).tobytes())
    return encoded(image, transparency=2)


def frames():
    both = [Image.fromarray(PIXELS[..., k]) for k in (0, 1)]
    return encoded(both[0], "GIF", save_all=True, append_images=both[1:])


FILES = {
    **{f"{kind} {k}": turned(kind, k) for kind in ("JPEG", "TIFF", "WEBP") for k in range(1, 9)},
    **{f"{kind} 6": turned(kind, 6) for kind in ("PNG", "AVIF") if kind in formats.READABLE},
    "L": encoded(Image.fromarray(PIXELS[..., 0])),
    "1": encoded(Image.fromarray(PIXELS[..., 0] > 99)),
    "LA": encoded(Image.fromarray(np.dstack([PIXELS[..., :1], ALPHA]))),
    "P": palette(),
    "RGBA": encoded(Image.fromarray(np.dstack([PIXELS, ALPHA]))),
    "CMYK": encoded(Image.fromarray(np.dstack([PIXELS, ALPHA]), "CMYK"), "JPEG"),
    "GIF": frames(),
    "16 bit": png16(GREY),
    "16 bit, TIFF": tiff(GREY),
    "16 bit, big-endian": tiff(GREY, ">"),
    "16 bit, I": encoded(Image.fromarray(GREY.astype(np.int32)), "TIFF"),
    "16 bit, PGM": ppm(GREY, 65535),
    "16 bit, RGB": png16(COLOUR),
    "16 bit, LA": with_alpha(GREY),
    "16 bit, PPM": ppm(COLOUR, 65535),
}


@contextlib.contextmanager
def forms_of(path):
    """name -> the file in every form that is one."""
    data = path.read_bytes()
    written = io.BytesIO()
    written.write(data)  # stands at its end
    with (
        path.open("rb") as file,
        tempfile.SpooledTemporaryFile() as spooled,
        Image.open(path) as lazy,
        Image.open(io.BytesIO(data)) as loaded,
    ):
        loaded.load()
        spooled.write(data)
        yield {
            "path": path,
            "text": str(path),
            "NumPy text": np.str_(path),
            "text in an array": np.array(str(path)),
            "bytes": data,
            "bytearray": bytearray(data),
            "memoryview": memoryview(data),
            "BytesIO": written,
            "open file": file,
            "spooled": spooled,
            "lazy": lazy,
            "loaded": loaded,
        }


@pytest.mark.parametrize("kind", FILES)
def test_every_form_of_a_file_has_the_same_pixels(kind, tmp_path):
    path = tmp_path / "a.img"
    path.write_bytes(FILES[kind])
    expected = np.asarray(decode.read_rgb(path))
    with forms_of(path) as forms:
        for name, form in forms.items():
            for _ in range(2):  # an open file is not used up
                image = images_in.rgb(form)
                assert image.mode == "RGB", name
                np.testing.assert_array_equal(np.asarray(image), expected, err_msg=name)


@pytest.mark.parametrize("kind", [kind for kind in FILES if "16 bit" in kind])
def test_bits_hold_for_every_form(kind, tmp_path):
    path, decoding = tmp_path / "a.img", Decoding(bits=12)
    path.write_bytes(FILES[kind])
    expected = np.asarray(decode.read_rgb(path, decoding=decoding))
    with forms_of(path) as forms:
        if kind.endswith((" RGB", " LA", " PPM")):
            del forms["loaded"]  # Pillow has left the lower bytes out
        for name, form in forms.items():
            pixels = np.asarray(images_in.rgb(form, "", decoding))
            np.testing.assert_array_equal(pixels, expected, err_msg=name)


def test_what_lacks_its_end_in_every_form(tmp_path):
    path, lenient = tmp_path / "a.img", Decoding(truncated=True)
    image = Image.fromarray(PIXELS).resize((99, 80))
    for kind in ("JPEG", "PNG", "WEBP"):
        path.write_bytes(encoded(image, kind)[:-300])
        expected = np.asarray(decode.read_rgb(path, decoding=lenient))
        forms = [str(path), path.read_bytes(), io.BytesIO(path.read_bytes())]
        if kind != "WEBP":  # which Pillow does not open
            forms.append(Image.open(io.BytesIO(path.read_bytes())))
            with pytest.raises(CutShortError, match=r"^x is truncated"):
                images_in.rgb(Image.open(io.BytesIO(path.read_bytes())), "x")
        for form in forms:
            np.testing.assert_array_equal(np.asarray(images_in.rgb(form, "", lenient)), expected)
        with pytest.raises(CutShortError):
            images_in.rgb(path)


def test_a_pillow_image_stays_as_it_is(tmp_path):
    for kind in ("JPEG 6", "GIF", "16 bit", "P", "RGBA"):
        (tmp_path / "a.img").write_bytes(FILES[kind])
        with Image.open(tmp_path / "a.img") as image, Image.open(tmp_path / "a.img") as other:
            images_in.rgb(image)
            other.load()
            assert (image.mode, image.size, image.info) == (other.mode, other.size, other.info)
            assert dict(image.getexif()) == dict(other.getexif())
            np.testing.assert_array_equal(np.asarray(image), np.asarray(other))
            if kind == "GIF":  # the frame that it stands at
                image.seek(1)
                frame = np.asarray(image.convert("RGB"))
                np.testing.assert_array_equal(np.asarray(images_in.rgb(image)), frame)
                assert image.tell() == 1


def test_pillow_images_in_memory():
    """What is made of a photograph keeps its EXIF block, and pixels as they lie in the file."""
    expected = np.asarray(decode.read_rgb(FILES["JPEG 6"]))
    converted = Image.open(io.BytesIO(FILES["JPEG 6"])).convert("RGB")
    np.testing.assert_array_equal(np.asarray(images_in.rgb(converted)), expected)
    grey = np.repeat((GREY >> 8).astype(np.uint8)[..., None], 3, axis=-1)
    for made in (Image.fromarray(GREY), Image.fromarray(GREY.astype(np.int32))):
        np.testing.assert_array_equal(np.asarray(images_in.rgb(made)), grey)
        np.testing.assert_array_equal(
            np.asarray(images_in.rgb(made, "", Decoding(bits=12)))[..., 0], GREY >> 4
        )
    for mode in ("YCbCr", "HSV", "RGBX", "RGBa", "La", "PA", "1"):
        source = Image.fromarray(np.dstack([PIXELS, np.full_like(ALPHA, 255)]))
        source = source.convert("RGBA" if mode == "RGBa" else "LA" if mode == "La" else "RGB")
        image = images_in.rgb(source.convert(mode))
        assert (image.mode, image.size) == ("RGB", (5, 6))
    with pytest.raises(DecodeError, match=r"^images\[3\] cannot be decoded: floating-point"):
        images_in.rgb(Image.new("F", (2, 2)), "images[3]")
    closed = Image.open(io.BytesIO(FILES["L"]))
    closed.close()
    with pytest.raises(DecodeError):
        images_in.rgb(closed)


RGB_ARRAYS = {
    "RGB": PIXELS,
    "not contiguous": np.asfortranarray(PIXELS),
    "read-only": np.frombuffer(PIXELS.tobytes(), np.uint8).reshape(PIXELS.shape),
    "with alpha": np.dstack([PIXELS, ALPHA]),
    "16 bit": PIXELS.astype(np.uint16) << 8 | 77,
    "16 bit, big-endian": (PIXELS.astype(np.uint16) << 8 | 77).astype(">u2"),
    "JAX": jnp.asarray(PIXELS),
}
GREY_ARRAYS = {
    "[H, W]": PIXELS[..., 0],
    "[H, W, 1]": PIXELS[..., :1],
    "with alpha": np.dstack([PIXELS[..., :1], ALPHA]),
    "16 bit": PIXELS[..., 0].astype(np.uint16) << 8 | 5,
    "16 bit, with alpha": np.dstack([PIXELS[..., :1], ALPHA]).astype(np.uint16) << 8,
}


@pytest.mark.parametrize("kind", RGB_ARRAYS)
def test_arrays_of_colour(kind):
    np.testing.assert_array_equal(np.asarray(images_in.rgb(RGB_ARRAYS[kind])), PIXELS)


@pytest.mark.parametrize("kind", GREY_ARRAYS)
def test_arrays_of_grey(kind):
    expected = np.repeat(PIXELS[..., :1], 3, axis=-1)
    np.testing.assert_array_equal(np.asarray(images_in.rgb(GREY_ARRAYS[kind])), expected)


def test_arrays_of_bits():
    mask = PIXELS[..., 0] > 99
    expected = np.repeat(np.where(mask, 255, 0)[..., None], 3, axis=-1)
    np.testing.assert_array_equal(np.asarray(images_in.rgb(mask)), expected)
    deep = PIXELS.astype(np.uint16) << 4
    twelve = Decoding(bits=12)
    np.testing.assert_array_equal(np.asarray(images_in.rgb(deep, "", twelve)), PIXELS)
    with pytest.raises(ValueError, match=r"^x cannot be taken: it holds values up to 65,535"):
        images_in.rgb(np.full((2, 2), 65535, np.uint16), "x", twelve)


class Foreign:
    """An array of another library: NumPy, or DLPack, reads it."""

    def __init__(self, array, way):
        self.array = array
        if way == "dlpack":
            self.__class__ = type("OnDevice", (Foreign,), {"__array__": Foreign.refuse})

    def __array__(self, dtype=None, copy=None):
        return self.array

    def refuse(self, dtype=None, copy=None):
        raise TypeError("Implicit conversion to a NumPy array is not allowed.")

    def __dlpack__(self, **options):
        return self.array.__dlpack__(**options)

    def __dlpack_device__(self):
        return self.array.__dlpack_device__()


def test_arrays_of_other_libraries():
    for way in ("array", "dlpack"):
        pixels = np.asarray(images_in.rgb(Foreign(PIXELS, way)))
        np.testing.assert_array_equal(pixels, PIXELS)

    class Away:
        __array__ = Foreign.refuse

    with pytest.raises(TypeError, match=r"Away and cannot be read from here .*to the CPU first"):
        images_in.rgb(Away())


def test_tensors_of_torch():
    torch = pytest.importorskip("torch", reason="the extra convert is not installed")
    last = torch.from_numpy(PIXELS.copy())
    first, grey = last.permute(2, 0, 1), last[..., 0]
    for tensor in (last, first, first.contiguous()):
        np.testing.assert_array_equal(np.asarray(images_in.rgb(tensor)), PIXELS)
    expected = np.repeat(PIXELS[..., :1], 3, axis=-1)
    for tensor in (grey, grey[None], grey[..., None]):
        np.testing.assert_array_equal(np.asarray(images_in.rgb(tensor)), expected)
    for batch in (torch.stack([last] * 2), torch.stack([first] * 2)):
        rows = list(images_in.each(batch, lambda image, name: (name, images_in.rgb(image))))
        assert [name for name, _ in rows] == ["images[0]", "images[1]"]
        for _, image in rows:
            np.testing.assert_array_equal(np.asarray(image), PIXELS)
    with pytest.raises(ValueError, match=r"tensor \[3, 6, 3\], which may have its channels first"):
        images_in.rgb(first[..., :3])
    with pytest.raises(ValueError, match=r"not float32 .*\(255 \* x\)\.round"):
        images_in.rgb(first / 255)
    with pytest.raises(TypeError, match=r"torch\.Tensor and cannot be read from here"):
        images_in.rgb(torch.zeros((2, 2, 3), device="meta"))


@pytest.mark.parametrize(
    ("pixels", "said"),
    [
        (PIXELS / 255, r"float64 \[6, 5, 3\]; from 0 to 1 give \(255 \* x\)\.round\(\)"),
        (jnp.asarray(PIXELS, jnp.bfloat16), r"bfloat16 \[6, 5, 3\]; from 0 to 1 give"),
        (PIXELS.astype(np.int64), r"int64 \[6, 5, 3\]; if they go from 0 to 255, give x\.astype"),
        (np.moveaxis(PIXELS, -1, 0), r"array \[3, 6, 5\]\. If its channels come first, .*moveaxis"),
        (np.zeros((1, 6, 5), np.uint8), "If its channels come first"),
        (np.zeros((4, 6, 5), np.uint8), r"not uint8 \[4, 6, 5\]; \[H, W\]"),
        (np.zeros((6, 5, 7), np.uint8), r"not uint8 \[6, 5, 7\]"),
        (np.zeros(6, np.uint8), r"not uint8 \[6\]"),
        (np.zeros((1, 2, 3, 4, 3), np.uint8), r"not uint8 \[1, 2, 3, 4, 3\]"),
        (np.zeros((0, 5, 3), np.uint8), r"has no pixels"),
    ],
)
def test_pixels_that_can_be_meant_in_several_ways(pixels, said):
    with pytest.raises(ValueError, match=rf"^images\[2\] .*{said}"):
        images_in.rgb(pixels, "images[2]")


@pytest.mark.parametrize(
    ("thing", "said"),
    [
        (255, "images[1] is of type int, which is no image; give the path of a file, its bytes"),
        (None, "is of type NoneType"),
        ({"bytes": b""}, "is of type dict"),
        (["a.png"], "is of type list"),
        (np.uint8(3), "is of type numpy.uint8"),
        (io.StringIO("x"), "is open as text; open it in mode 'rb'"),
        (Image, "is of type module"),
    ],
)
def test_what_is_no_image(thing, said):
    with pytest.raises(TypeError) as caught:
        images_in.rgb(thing, "images[1]")
    assert said in str(caught.value)
    with pytest.raises(TypeError, match=r"^images\[1\]"):
        list(images_in.each([PIXELS, thing], images_in.rgb))


def test_files_that_are_open_otherwise(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(FILES["L"])
    with (
        path.open(encoding="latin-1") as file,
        pytest.raises(TypeError, match=rf"^{path} is open as text"),
    ):
        images_in.rgb(file)
    with path.open("rb") as file:
        pass
    with pytest.raises(DecodeError, match=rf"^{path} cannot be read: .*closed"):
        images_in.rgb(file)

    class Download(io.RawIOBase):  # cannot go back
        def readable(self):
            return True

        def readinto(self, buffer):
            part = self.left[: len(buffer)]
            self.left = self.left[len(part) :]
            buffer[: len(part)] = part
            return len(part)

    download = Download()
    download.left = FILES["L"]
    assert images_in.rgb(download).size == (5, 6)


def test_one_or_several(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(encoded(Image.fromarray(PIXELS)))
    read = lambda image, name: (name, np.asarray(images_in.rgb(image, name)))  # noqa: E731
    one = [path, str(path), path.read_bytes(), io.BytesIO(path.read_bytes()), PIXELS,
           Image.open(path), np.str_(path), np.array(str(path)), jnp.asarray(PIXELS)]  # fmt: skip
    for image in one:
        ((name, pixels),) = images_in.each(image, read)
        assert name == ""
        np.testing.assert_array_equal(pixels, PIXELS)
    several = [one[:2], tuple(one[:2]), iter(one[:2]), (image for image in one[:2]),
               np.array([str(path)] * 2), np.array([path, str(path)], object),
               np.stack([PIXELS] * 2), jnp.stack([PIXELS] * 2), {0: path, 1: path}.values(),
               tmp_path.glob("*"), [path.read_bytes()]]  # fmt: skip
    for images in several:
        rows = list(images_in.each(images, read))
        assert [name for name, _ in rows] == [f"images[{k}]" for k in range(len(rows))]
        assert len(rows) in (1, 2)
        for _, pixels in rows:
            np.testing.assert_array_equal(pixels, PIXELS)
    assert list(images_in.each([], read)) == []
    assert list(images_in.each(np.zeros((0, 4, 4, 3), np.uint8), read)) == []
    for images in ({path: 1}, {path}, frozenset([path])):
        with pytest.raises(TypeError, match=r"Images came as a .*several in a list"):
            list(images_in.each(images, read))


def test_errors_name_the_place_in_the_list(tmp_path):
    (tmp_path / "a.png").write_text("no")
    path = tmp_path / "a.png"
    for image, error, said in (
        (path, DecodeError, rf"^images\[1\]: {path} is a text file"),
        (str(tmp_path / "b.png"), DecodeError, r"^images\[1\]: .*b\.png cannot be decoded"),
        (b"", DecodeError, r"^images\[1\] is an empty file"),
        (Image.new("F", (2, 2)), DecodeError, r"^images\[1\] cannot be decoded"),
        (PIXELS / 2, ValueError, r"^images\[1\] must be pixels"),
        (1.5, TypeError, r"^images\[1\] is of type float"),
    ):
        with pytest.raises(error, match=said):
            list(images_in.each([PIXELS, image], images_in.rgb))


def test_one_by_one():
    """A generator of many is never held as a whole."""
    taken = []

    def images():
        for index in range(9):
            taken.append(index)
            yield PIXELS

    rows = images_in.each(images(), images_in.rgb)
    next(rows)
    assert taken == [0]


def test_text_that_is_a_path(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PICTURES", str(tmp_path))
    for name in ("a$b.png", "ab.png"):
        (tmp_path / name).write_bytes(encoded(Image.fromarray(PIXELS)))
    for path in (tmp_path / "a$b.png", "~/ab.png", "$PICTURES/ab.png", pathlib.Path("~/ab.png")):
        assert images_in.rgb(path).size == (5, 6)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "named by an empty text"),
        ("data:image/png;base64,AAAA", "26 letters, 'data:image/png;base6'..., which is no path"),
        ("A" * 5000, "base64.b64decode"),
        (
            "~/a*.png",
            "/home/me/a*.png is a pattern, and no file; give its files: sorted(glob.glob(",
        ),
    ],
)
def test_text_that_is_no_path(monkeypatch, text, said):
    monkeypatch.setenv("HOME", "/home/me")
    with pytest.raises(DecodeError) as error:
        images_in.rgb(text)
    assert said in str(error.value)
    assert len(str(error.value)) < 250


def test_the_file_of_a_user_is_where_it_was():
    stream = io.BytesIO(FILES["16 bit, TIFF"])
    stream.seek(3)
    images_in.rgb(stream)
    assert stream.tell() == 3
    assert not stream.closed
