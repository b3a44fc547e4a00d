"""The gallery: what is in the picture, and that it is written whole or not at all."""

import numpy as np
import pytest
from PIL import Image

from clevit_jax.views.gallery import save_gallery

MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
ROWS, SIDE = 3, 40


@pytest.fixture
def pictures() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Original, anchor and positive as uint8; each row and column has a colour of its own."""
    colours = np.random.RandomState(0).randint(20, 236, (3, ROWS, 1, 1, 3), np.uint8)
    original, anchor, positive = (np.tile(column, (1, SIDE, SIDE, 1)) for column in colours)
    return np.tile(original, (1, 2, 2, 1)), anchor, positive


def normalised(pixels: np.ndarray) -> np.ndarray:
    return ((pixels / 255 - MEAN) / STD).astype(np.float32)


def columns_of(sheet: np.ndarray, pixels: np.ndarray) -> list[tuple[int, int, int, int]]:
    """Top, left, height, width of the one block of each row's colour."""
    blocks = []
    for colour in pixels[:, 0, 0]:
        y, x = np.nonzero(np.all(sheet == colour, axis=-1))
        blocks.append((int(y.min()), int(x.min()), int(np.ptp(y)) + 1, int(np.ptp(x)) + 1))
    return blocks


@pytest.mark.parametrize("with_positives", [True, False])
@pytest.mark.parametrize("names", [None, ["first", "second", "Ährenfäule"]])
def test_rows_and_columns(tmp_path, pictures, with_positives, names):
    original, anchor, positive = pictures
    path = tmp_path / "new folder" / "views.png"
    shown = normalised(positive) if with_positives else None
    save_gallery(path, original, normalised(anchor), shown, names=names)
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        sheet = np.asarray(picture.convert("RGB"))
    columns = pictures if with_positives else pictures[:2]
    blocks = np.array([columns_of(sheet, column) for column in columns])  # [columns, rows, 4]
    assert np.all(blocks[..., 2:] == SIDE)
    assert np.all(blocks[:, :, 0] == blocks[:1, :, 0])  # a row is level
    assert np.all(blocks[:, :, 1] == blocks[:, :1, 1])  # a column is upright
    assert np.all(np.diff(blocks[:, 0, 1]) > SIDE)  # with a margin between
    assert np.all(np.diff(blocks[0, :, 0]) > SIDE)
    for _, left in blocks[:, 0, :2]:  # a heading stands over each column
        heading = sheet[: blocks[0, 0, 0], left : left + SIDE]
        assert (heading.min(axis=-1) < 100).any()
    # Names, and nothing else, stand in the space above the second row.
    space = sheet[blocks[0, 0, 0] + SIDE : blocks[0, 1, 0]]
    assert (space < 100).any() == (names is not None)


def test_a_view_beyond_the_pixel_range_is_clipped(tmp_path, pictures):
    original, anchor, _ = pictures
    views = np.full(anchor.shape, 50, np.float32)
    views[1] = -50
    save_gallery(tmp_path / "views.png", original, views, None)
    sheet = np.asarray(Image.open(tmp_path / "views.png").convert("RGB"))
    tops = [block[0] for block in columns_of(sheet, original)]
    left = columns_of(sheet, original)[0][1] + SIDE + SIDE // 2
    assert [tuple(sheet[top + 20, left]) for top in tops] == [(255,) * 3, (0,) * 3, (255,) * 3]


def test_a_failed_write_leaves_the_old_picture(tmp_path, pictures, monkeypatch):
    original, anchor, _ = pictures
    path = tmp_path / "views.png"
    path.write_bytes(b"old")

    def fail(image, file, **options):
        file.write_bytes(b"half")
        raise OSError("no space left")

    monkeypatch.setattr(Image.Image, "save", fail)
    with pytest.raises(OSError, match="no space left"):
        save_gallery(path, original, normalised(anchor), None)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_wrong_arguments_are_refused(tmp_path, pictures):
    original, anchor, positive = pictures
    views, path = normalised(anchor), tmp_path / "views.png"
    with pytest.raises(ValueError, match="must be uint8"):
        save_gallery(path, original / 255, views, None)
    with pytest.raises(ValueError, match="3 originals but 2 anchors"):
        save_gallery(path, original, views[:2], None)
    with pytest.raises(ValueError, match="views have the shape"):
        save_gallery(path, original, views[0], None)
    with pytest.raises(ValueError, match="they must be alike"):
        save_gallery(path, original, views, normalised(positive)[:, :20])
    with pytest.raises(ValueError, match="1 names for 3 rows"):
        save_gallery(path, original, views, None, names=["one"])
    with pytest.raises(ValueError, match="at least one row"):
        save_gallery(path, original[:0], views[:0], None)
    assert not path.exists()
