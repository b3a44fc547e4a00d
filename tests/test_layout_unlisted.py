"""Images that lie among those of a list, and that it does not name, are told of."""

import pytest
from csv_folders import NINE, counts, made, of, touch

from clevit_jax.data import sources

TABLES = {
    "train.csv": "file,label\n" + "".join(f"{NINE[i]},{of(i)}\n" for i in range(7)),
    "train.txt": "".join(f"{NINE[i]} {i % 3}\n" for i in range(7)),
}


def said(root) -> list[str]:
    data = sources.load_dataset(root)
    assert sum(counts(data).values()) == 7
    return [each for each in data.warnings if "in no list" in each]


@pytest.mark.parametrize("name", TABLES)
def test_images_beside_listed_ones_are_told_of(tmp_path, name):
    touch(tmp_path, [f"images/{file}" for file in NINE])
    (tmp_path / name).write_text(TABLES[name])
    assert said(tmp_path) == [
        f"{tmp_path}: 2 images lie beside listed ones and in no list, and not read "
        "(images/0007.jpg, images/0008.jpg)."
    ]
    (tmp_path / "images/0008.jpg").unlink()
    assert "1 image lies beside" in said(tmp_path)[0]
    (tmp_path / "images/0007.jpg").unlink()
    touch(tmp_path, ["masks/0000.png", "images/.hidden.jpg", "images/notes.txt"])
    assert said(tmp_path) == []


def test_images_of_a_list_that_is_left_out_are_told_of_once(tmp_path):
    root = made(tmp_path, "file,label", lambda i: f"{NINE[i]},{of(i)}", count=7)
    touch(root, [f"images/{file}" for file in NINE])
    (root / "test.csv").write_text("".join(f"{file}\n" for file in ("file", *NINE[7:])))
    assert said(root) == []
    assert (
        "test.csv has no column of labels and is left out" in sources.load_dataset(root).warnings[0]
    )
