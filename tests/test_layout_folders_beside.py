"""What lies among class folders and is none, or tells more: it is said, never taken in silence."""

import pytest
from test_class_names import numbered
from test_layout_folders import classes, labels, load, make, problem, sizes

from clevit_jax.data import sources

SPLIT = [*classes("train/", count=5), *classes("test/", count=2)]


def test_images_beside_the_splits(tmp_path):
    (said,) = load(make(tmp_path, *SPLIT, "cover.jpg", "1-3.png")).warnings
    assert said == (
        f"{tmp_path}: 4 image(s) lie beside the folders of the splits and are not read "
        "(1.png, 2.png, 3.png, ...)."
    )
    assert load(make(tmp_path / "other", *SPLIT)).warnings == ()


@pytest.mark.parametrize(("name", "is_said"), [("docs", True), ("Assets", True), ("daisy", False)])
def test_pictures_of_a_text(tmp_path, name, is_said):
    said = load(make(tmp_path, *classes(""), f"{name}/1-2.jpg")).warnings
    assert any(f"{name}: this folder of 2 image(s) is taken for a class" in s for s in said) == (
        is_said
    )


def test_masks_beside_their_images(tmp_path):
    """As BUSI has them; a mask of nothing is an image."""
    names = [f"{c}/{c} ({k}){m}.png" for c in "ab" for k in range(3) for m in ("", "_mask")]
    (said,) = load(make(tmp_path, *names, "a/mask.png", "a/carnival_mask.png")).warnings
    assert "6 image(s) are called as masks of those beside them" in said


def test_a_class_in_an_archive(tmp_path):
    (said,) = load(make(tmp_path, *classes(""), "lily.zip", "rose.zip")).warnings
    assert said.startswith(f"{tmp_path}: lily.zip: an archive is not looked into")


@pytest.mark.parametrize("where", ["val.txt", "val/val_annotations.txt"])
def test_a_list_of_images_that_lie_in_no_class_folder(tmp_path, where):
    """As ImageNet and Tiny ImageNet have their validation images."""
    root = make(tmp_path, *classes("train/", count=5), "val/images/1-4.jpg")
    (root / where).write_text("".join(f"{k}.jpg\trose\t0\t0\n" for k in range(1, 5)))
    data = load(root)
    assert sizes(data) == {"train": 8, "test": 2}
    assert set(labels(data).values()) == {"rose", "tulip"}
    (said,) = data.warnings
    assert f"{where} may tell their classes, but not beside class folders" in said
    (root / where).write_text("".join(f"{k}.jpg\n" for k in range(1, 5)))
    assert not any("may tell" in said for said in load(root).warnings)


def test_splits_of_unknown_names_are_asked_about(tmp_path):
    found = problem(make(tmp_path, *classes("harjoitus/"), *classes("koe/")))
    assert "2 classes at the top level" in found
    assert found.endswith("or, if they are splits, call them train/ and test/.")


def test_a_table_of_splits_beside_class_folders_is_asked_about(tmp_path):
    root = make(tmp_path, *classes(""))
    files = sorted(str(path.relative_to(root)) for path in root.rglob("*.jpg"))
    rows = [f"{file},{'test' if i % 4 else 'train'}" for i, file in enumerate(files)]
    (root / "split.csv").write_text("\n".join(["file,split", *rows]) + "\n")
    found = problem(root)
    assert "split.csv tells the split of each file, and is not read beside class folders" in found
    assert sum(sizes(load(root, split_column="none")).values()) == len(files)
    make(root, *(f"test/{file}" for file in files))  # which folders tell
    assert sizes(load(root)) == {"train": len(files), "test": len(files)}


@pytest.mark.parametrize("name", ["unsorted", "_trash", "New folder (2)", "Old", "To check"])
@pytest.mark.parametrize("split", ["", "train/"])
def test_folders_of_what_is_set_aside_are_told_of(tmp_path, name, split):
    root = make(tmp_path, *classes(split, "rose", "tulip", "old rose", name))
    data = load(root)
    assert data.num_classes == 4
    (said,) = data.warnings
    assert f"{name}: this folder of 4 image(s) is taken for a class, though its name may" in said


def test_a_list_of_other_class_names(tmp_path):
    """Classes of folders, and a list beside that contradicts them."""
    names = ("rose", "tulip", "lily")
    root = make(tmp_path, *classes("train/", *names, count=5), *classes("test/", *names))
    for text, is_said in (
        ("rose\ntulip\nlily\n", False),
        ("0 Rose\n1 Tulip\n2 Lily\n", False),
        ("rose\ntulip\ndaisy\n", True),
        ("1 rose\n2 tulip\n3 daisy\n", True),
        ("a\nb\nc\n", False),  # of something else
        ("rose\ntulip\nlily\nall\n", False),
    ):
        (root / "classes.txt").write_text(text)
        said = load(root).warnings
        assert (
            f"{root}: classes.txt names daisy, which is no class of the images, and not lily; the "
            "names are those of the images, so check which are right." in said
        ) == is_said


def test_names_for_numbers_below_a_header_and_too_few(tmp_path):
    root = numbered(tmp_path, 1)
    (root / "category.txt").write_text("id\tname\n1\trice\n2\teels on rice\n3\tpilaf\n")
    assert sources.load_dataset(root).class_names == ("rice", "eels on rice", "pilaf")
    (root / "category.txt").write_text("rice\npilaf\n")
    data = sources.load_dataset(root)
    assert data.class_names == ("1", "2", "3")
    assert any("category.txt lists 2 names, and the labels are from 1 to 3" in s
               for s in data.warnings)  # fmt: skip


@pytest.mark.parametrize("mark", [" ", ",", "|", " + "])
def test_labels_of_several_classes(tmp_path, mark):
    """As Plant Pathology 2021 has them: they are classes of their own, and it is said."""
    names = ["scab", "rust", f"scab{mark}rust", "leaf spot"]
    make(tmp_path, "images/0-7.jpg")
    rows = [f'{k}.jpg,"{names[k % 4]}"\n' for k in range(8)]
    (tmp_path / "train.csv").write_text("image,label\n" + "".join(rows))
    data = sources.load_dataset(tmp_path)
    assert data.num_classes == 4
    (said,) = [said for said in data.warnings if "put together" in said]
    assert f"1 class is others put together ({names[2]!r})" in said


def test_a_level_of_no_class_between_is_no_sign_that_all_below_are_none(tmp_path):
    """As Office-31 has them: `amazon/images/mug`; domains are no classes."""
    places = [f"{domain}/images/" for domain in ("amazon", "dslr", "webcam")]
    root = make(tmp_path, *(name for place in places for name in classes(place, "bike", "mug")))
    found = problem(root)
    assert "3 classes at the top level (amazon, dslr, webcam): data.class_level=top" in found
    assert "2 with those of one name together (bike, mug): data.class_level=3" in found
    data = load(root, class_level="3")
    assert data.class_names == ("bike", "mug")
    assert sum(sizes(data).values()) == 24
