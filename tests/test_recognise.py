"""Which layout a folder has, where several fit."""

import pathlib

import pytest

from clevit_jax.data import sources
from clevit_jax.errors import DataError


def make(root: pathlib.Path, tables: dict, files) -> pathlib.Path:
    for file in files:
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).touch()
    for name, text in tables.items():
        (root / name).write_text(text)
    return root


def problems(root) -> tuple[str, ...]:
    with pytest.raises(DataError) as caught:
        sources.load_dataset(root)
    return caught.value.problems


def test_a_table_beside_class_folders(tmp_path):
    """It is taken where it says more than the folders, and asked about where it contradicts."""
    files = [f"train_images/{genus}/{k}.png" for genus in ("Rosa", "Tulipa") for k in range(4)]
    species = ["canina", "alba", "canina", "alba", "x", "x", "x", "x"]

    def rows(names):
        lines = [f"{file},{name}" for file, name in zip(files, names, strict=False)]
        return "\n".join(["image_path,label", *lines]) + "\n"

    root = make(tmp_path / "finer", {"train.csv": rows(species)}, files)
    data = sources.load_dataset(root)
    assert (data.layout, data.class_names) == ("csv", ("alba", "canina", "x"))
    assert "says more than train_images/<class>/" in data.recognised_by
    root = make(tmp_path / "part", {"train.csv": rows(species[:6])}, files)
    data = sources.load_dataset(root)
    assert len(data.train) + len(data.test) == 6
    assert any(
        "2 images that are in folders are in no list, and not read." in w for w in data.warnings
    )
    both = rows(list("abababab"))  # each class of the table in both folders
    (found,) = problems(make(tmp_path / "other", {"train.csv": both}, files))
    assert "can be read in 2 ways" in found
    (found,) = problems(make(tmp_path / "few", {"train.csv": rows(species[:3])}, files))
    assert "data.layout=csv, by train.csv: 2 classes, 3 training images" in found
    # Folders may be the finer classes.
    names = ["rose", "tulip", "oak", "elm"]
    fine = [f"train_images/{name}/{k}.png" for name in names for k in range(2)]
    kinds = ["flower"] * 4 + ["tree"] * 4
    lines = [f"{file},{kind}" for file, kind in zip(fine, kinds, strict=True)]
    table = "\n".join(["image_path,label", *lines]) + "\n"
    (found,) = problems(make(tmp_path / "coarser", {"train.csv": table}, fine))
    assert "data.layout=csv, by train.csv: 2 classes, 8 training images" in found
    assert "data.layout=folders, by train_images/<class>/: 4 classes, 8 training images" in found
    # Folders with splits: a table of the training images alone says nothing of the test images.
    both = [f"{split}/{c}/{k}.png" for split in ("train", "test") for c in "ab" for k in range(3)]
    table = "image_path,label\n" + "".join(f"{file},{file[6]}\n" for file in both[:6])
    root = make(tmp_path / "splits", {"train.csv": table}, both)
    (found,) = problems(root)
    assert (
        "data.layout=folders, by train/<class>/ and test/<class>/: 2 classes, 6 training" in found
    )


def test_what_was_meant_lies_deeper(tmp_path):
    """An archive in a folder of its own name, beside images without a class."""
    files = [
        f"plants/plants/{s}/{c}/{k}.jpg" for s in ("train", "valid") for c in "ab" for k in "12"
    ]
    (found,) = problems(make(tmp_path, {}, [*files, "test/test/1.jpg"]))
    assert found.endswith(f"Did you mean data.root={tmp_path}/plants/plants?")


def test_images_that_are_links_to_nothing(tmp_path):
    for kind in "ab":
        (tmp_path / "train" / kind).mkdir(parents=True)
        (tmp_path / "train" / kind / "1.jpg").symlink_to("../.git/annex/objects/gone")
    (found,) = problems(tmp_path)
    assert "2 image(s) are links that lead nowhere (train/a/1.jpg, train/b/1.jpg)" in found
    assert "nothing says the class" not in found


@pytest.mark.parametrize("name", ["train.csv", "annotations.json", "train.txt"])
def test_lists_that_git_lfs_left_a_pointer_of(tmp_path, name):
    text = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 12345\n"
    (found,) = problems(make(tmp_path, {name: text}, ["images/a.jpg", "images/b.jpg"]))
    assert f"{name}: a Git LFS pointer, not the file itself; fetch that: git lfs pull." in found
    assert "nothing says the class" not in found


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"\xef\xbb\xbf\n<!DOCTYPE html><html>Sign in", "an HTML page; the download failed"),
        (b"PK\x03\x04\x14\x00\x06\x00", "a spreadsheet or an archive under another name"),
        (b"", "an empty file; fetch it again"),
    ],
)
def test_what_is_only_called_as_a_list(tmp_path, content, said):
    root = make(tmp_path, {}, ["images/a.jpg", "images/b.jpg"])
    (root / "train.csv").write_bytes(content)
    assert f"train.csv: {said}" in problems(root)[0]
