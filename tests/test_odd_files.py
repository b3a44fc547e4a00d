"""Whatever a file is called and however it is encoded: its pixels, or a sentence that names it.

From the files on the disk through every layout's reader to the uint8 array, against pixels that
were made in NumPy.
"""

import csv
import io
import pathlib
import tempfile
import zlib

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from clevit_jax.data import decode, sources
from clevit_jax.errors import DataError, DecodeError

SIZE = 6  # decoding to it changes nothing
PIXELS = np.random.default_rng(0).integers(0, 256, (SIZE, SIZE, 3), np.uint8)
GREY = PIXELS[..., 0]


def encoded(image: Image.Image, kind: str, **options) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def rgb(grey: np.ndarray) -> np.ndarray:
    return np.repeat(grey[..., None], 3, axis=-1)


def turned(orientation: int) -> tuple[bytes, np.ndarray]:
    """A PNG with an EXIF orientation, and the pixels upright; 6: turn clockwise, 3: half a turn."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    upright = {6: np.rot90(PIXELS, -1), 3: PIXELS[::-1, ::-1], 2: PIXELS[:, ::-1]}[orientation]
    return encoded(Image.fromarray(PIXELS), "PNG", exif=exif), upright


def palette() -> tuple[bytes, np.ndarray]:
    image = Image.fromarray(GREY)
    colours = np.random.default_rng(1).integers(0, 256, (256, 3), np.uint8)
    image.putpalette(colours.tobytes())
    return encoded(image, "PNG"), colours[GREY]


def bomb() -> bytes:
    """A PNG whose header promises 60000 x 60000 pixels."""
    data = bytearray(encoded(Image.fromarray(GREY), "PNG"))
    data[16:24] = (60000).to_bytes(4, "big") * 2
    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
    return bytes(data)


CMYK = np.dstack([PIXELS, np.zeros_like(GREY)])
DEEP = GREY.astype(np.uint16) * 256 + 77
FRAMES = [Image.fromarray(GREY), Image.fromarray(255 - GREY)]
WHOLE = encoded(Image.fromarray(PIXELS), "PNG")
GOOD = {
    "rgb": (WHOLE, PIXELS),
    "bmp": (encoded(Image.fromarray(PIXELS), "BMP"), PIXELS),
    "webp": (encoded(Image.fromarray(PIXELS), "WEBP", lossless=True), PIXELS),
    "grey": (encoded(Image.fromarray(GREY), "PNG"), rgb(GREY)),
    "palette": palette(),
    "rgba": (encoded(Image.fromarray(np.dstack([PIXELS, GREY])), "PNG"), PIXELS),
    "cmyk": (encoded(Image.fromarray(CMYK, "CMYK"), "TIFF"), 255 - PIXELS),
    "16 bit": (encoded(Image.fromarray(DEEP), "PNG"), rgb(GREY)),
    "clockwise": turned(6),
    "half a turn": turned(3),
    "mirrored": turned(2),
    "animated": (encoded(FRAMES[0], "GIF", save_all=True, append_images=FRAMES[1:]), rgb(GREY)),
}
BAD = {
    "zero bytes": (b"", "is an empty file"),
    "truncated": (WHOLE[:-30], "is truncated, its last bytes lack"),
    "header alone": (WHOLE[:33], "begins as a PNG does, but lacks its end"),
    "text": (b"<html>404</html>", "is an HTML page, not an image"),
    "bomb": (bomb(), "decompression bomb"),
}

# What a file name may hold: all but what ends it, or a folder, or a line.
letters = st.characters(exclude_characters="/\\\0\n\r", exclude_categories=["Cs"])
stems = st.one_of(
    st.text(letters, min_size=1, max_size=20),
    st.sampled_from(
        ["a b", "50%20 off?", "é", "e\u0301", "叶", "#1", "a,b", 'q"q', "=1+1", "-f", ";"]
    ),
).filter(lambda text: text.strip(" \t.") == text and len(text.encode()) < 120)
endings = st.sampled_from([".png", ".PNG", ".Jpg", ".jpeg", ".TIF", ".webp"])  # not by content
text_files = st.sampled_from(["\n", "\r\n"]), st.booleans(), st.booleans()


def annotation(rows: list[str], end: str, bom: bool, last: bool) -> bytes:
    text = end.join(rows) + (end if last else "")
    return (b"\xef\xbb\xbf" if bom else b"") + text.encode()


def write(path: pathlib.Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def as_ufg(root, name, data, style):
    write(root / "images" / name, data)
    write(root / "images" / "other.png", WHOLE)
    for split in ("train", "test"):
        write(root / "anno" / f"{split}.txt", annotation([f"{name} 1", "other.png 2"], *style))


def as_cub(root, name, data, style):
    write(root / "images" / name, data)
    for other in ("other.png", "test.png"):
        write(root / "images" / other, WHOLE)
    write(root / "images.txt", annotation([f"1 {name}", "2 other.png", "3 test.png"], *style))
    write(root / "image_class_labels.txt", annotation(["1 1", "2 2", "3 1"], *style))
    write(root / "train_test_split.txt", annotation(["1 1", "2 1", "3 0"], *style))


def as_csv(root, name, data, style):
    write(root / "images" / name, data)
    write(root / "images" / "other.png", WHOLE)
    end, bom, last = style
    stream = io.StringIO()
    rows = csv.writer(stream, lineterminator=end)
    rows.writerows([["image", "label"], [name, "leaf, old"], ["other.png", "oak"]])
    text = stream.getvalue() if last else stream.getvalue().removesuffix(end)
    for split in ("train", "test"):
        write(root / f"{split}.csv", (b"\xef\xbb\xbf" if bom else b"") + text.encode())


def as_folders(root, name, data, style):
    for split in ("train", "test"):
        write(root / split / "a" / name, data)
        write(root / split / "b" / "other.png", WHOLE)


def as_parquet(root, name, data, style):
    image = {"bytes": data, "path": name}
    other = {"bytes": WHOLE, "path": "other.png"}
    table = {
        "image": [image, image, other],
        "label": [0, 0, 1],
        "split": ["train", "test", "train"],
    }
    root.mkdir(exist_ok=True)
    pyarrow.parquet.write_table(pyarrow.table(table), root / "all.parquet")


LAYOUTS = {"ufg": as_ufg, "cub": as_cub, "csv": as_csv, "folders": as_folders,
           "parquet": as_parquet}  # fmt: skip


@pytest.mark.parametrize("layout", LAYOUTS)
@settings(max_examples=60)
@given(
    st.lists(stems, max_size=2),
    stems,
    endings,
    st.sampled_from([*GOOD, *BAD]),
    st.tuples(*text_files),
)
@example([], "a", ".png", "bomb", ("\r\n", True, False))
def test_right_pixels_or_a_sentence_that_names_the_file(layout, folders, stem, ending, kind, style):
    name = "/".join([*folders, stem + ending])
    data, expected = (GOOD | BAD)[kind]
    with tempfile.TemporaryDirectory() as folder:
        root = pathlib.Path(folder) / "set"
        LAYOUTS[layout](root, name, data, style)
        dataset = sources.load_dataset(root)
        assert dataset.layout == layout
        assert dataset.warnings == () or layout != "folders"
        found, other = dataset.train
        if other.name.endswith(name) and not found.name.endswith(name):
            found, other = other, found
        assert found.name.endswith(name)
        if kind in GOOD:
            pixels = decode.decode_train(found.data, found.name, size=SIZE)
            np.testing.assert_array_equal(pixels, expected)
            return
        with pytest.raises(DecodeError) as caught:
            decode.decode_train(found.data, found.name, size=SIZE)
    assert ("all.parquet, row 0" if layout == "parquet" else stem) in str(caught.value)
    assert expected in str(caught.value)


OUTSIDE = ["../outside.png", "a/../../outside.png", "/etc/outside.png", "..\\outside.png",
           "C:\\outside.png", "\\\\host\\outside.png"]  # fmt: skip


@pytest.mark.parametrize("layout", ["ufg", "cub", "csv"])
@pytest.mark.parametrize("name", OUTSIDE)
def test_a_file_outside_of_the_data_set_is_refused(tmp_path, layout, name):
    write(tmp_path / "outside.png", WHOLE)
    root = tmp_path / "set"
    LAYOUTS[layout](root, "inside.png", WHOLE, ("\n", False, True))
    for path in root.rglob("*"):
        if path.suffix in (".txt", ".csv"):
            path.write_text(path.read_text().replace("inside.png", name))
    with pytest.raises(DataError) as caught:
        sources.load_dataset(root)
    named = [problem for problem in caught.value.problems if "points out of" in problem]
    assert named
    assert all(repr(name) in problem for problem in named)
    others = set(caught.value.problems) - set(named)  # its class loses its training image
    assert all("no training image" in problem for problem in others)
