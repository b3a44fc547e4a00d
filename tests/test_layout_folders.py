"""Class folders as people have them: names of splits, levels, what is empty, lost or left aside."""

import os
import pathlib
import random
import re
import unicodedata

import pytest

from clevit_jax.data import sources
from clevit_jax.data.dataset import Level
from clevit_jax.data.layouts.folder.folder_names import of_pictures, says_nothing, twins
from clevit_jax.data.layouts.listing import Request, files_below
from clevit_jax.errors import DataError


def make(root: pathlib.Path, *files: str) -> pathlib.Path:
    """Empty files; `a/1-3.jpg` is a/1.jpg to a/3.jpg."""
    root.mkdir(parents=True, exist_ok=True)
    for file in files:
        counted = re.fullmatch(r"(.*/)?(\d+)-(\d+)(\.\w+)", file)
        names = [file]
        if counted:
            folder, first, last, ending = counted.groups()
            names = [f"{folder or ''}{k}{ending}" for k in range(int(first), int(last) + 1)]
        for name in names:
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).touch()
    return root


def classes(folder: str, *names: str, count: int = 4) -> list[str]:
    return [f"{folder}{name}/1-{count}.jpg" for name in names or ("rose", "tulip")]


def load(root, **request):
    data = sources.load_dataset(root, request=Request(**request))
    assert data.layout == "folders"
    return data


def problem(root, **request) -> str:
    with pytest.raises(DataError) as caught:
        sources.load_dataset(root, request=Request(**request))
    (found,) = caught.value.problems
    return found


def sizes(data) -> dict[str, int]:
    return {split: len(examples) for split, examples in data.splits.items()}


def labels(data) -> dict[str, str]:
    """File -> class name, of all splits."""
    return {e.name: data.class_names[e.label] for inside in data.splits.values() for e in inside}


@pytest.mark.parametrize(
    ("train", "val", "test"),
    [
        ("training_set", "", "test_set"),
        ("Train", "Valid", "Test"),
        ("train", "dev", "eval"),
        ("train_images", "", "test_images"),
        ("cars_train", "", "cars_test"),
        ("flowers_train", "flowers_val", "flowers_test"),
        ("Training Data", "Validation Data", "Testing Data"),
        ("seg_train/seg_train", "", "seg_test/seg_test"),
        ("train/images", "val/images", "test/images"),
        ("train/train_set", "", "test/test_set"),
        ("training", "", "holdout"),
    ],
)
def test_names_of_splits(tmp_path, train, val, test):
    files = classes(f"{train}/") + classes(f"{test}/", count=2)
    files += classes(f"{val}/", count=3) if val else []
    data = load(make(tmp_path, *files))
    assert data.class_names == ("rose", "tulip")
    assert sizes(data) == {"train": 8, "test": 4} | ({"val": 6} if val else {})
    assert all(e.name.startswith(f"{test}/") for e in data.test)
    assert labels(data)[f"{train}/tulip/1.jpg"] == "tulip"
    assert data.warnings == ()


def test_a_class_may_be_called_train(tmp_path):
    data = load(make(tmp_path / "a", *classes("", "bus", "car", "train")))
    assert data.class_names == ("bus", "car", "train")
    assert sum(sizes(data).values()) == 12
    years = [f"{name}/{year}/1-3.jpg" for name in ("bus", "car", "train") for year in (2020, 2021)]
    root = make(tmp_path / "b", *years)
    found = problem(root)
    assert "train/ may be the training images or a class beside bus/, car/" in found
    assert f"set data.root={root / 'train'};" in found


def test_two_folders_of_one_split(tmp_path):
    root = make(tmp_path, *classes("train1/"), *classes("train2/"), *classes("test/"))
    assert f"{root}: train1/ and train2/ are 2 folders of the train split" in problem(root)


def test_splits_in_each_class(tmp_path):
    files = [f"{name}/{split}/1-3.jpg" for name in ("rose", "tulip") for split in ("train", "test")]
    data = load(make(tmp_path, *files))
    assert (data.class_names, sizes(data)) == (("rose", "tulip"), {"train": 6, "test": 6})
    assert {e.name.split("/")[1] for e in data.test} == {"test"}
    assert labels(data)["rose/test/2.jpg"] == "rose"
    assert data.warnings[0].startswith("The splits are folders in each class, as ")


def test_a_test_folder_beside_the_classes(tmp_path):
    data = load(make(tmp_path / "flat", *classes(""), "test/1-5.jpg"))
    assert (data.class_names, sum(sizes(data).values())) == (("rose", "tulip"), 8)
    assert "5 image(s) without a class are not read" in data.warnings[0]
    data = load(make(tmp_path / "labelled", *classes(""), *classes("test/", count=2)))
    assert sizes(data) == {"train": 8, "test": 4}


@pytest.mark.parametrize(
    ("folder", "named"),
    [
        ("test", "test"),
        ("test/test", "test/test"),
        ("test/images", "test/images"),
        ("test/unknown", "test/unknown"),
        ("pred", "pred"),
        ("test_set/test_set", "test_set/test_set"),
    ],
)
@pytest.mark.parametrize("val", [True, False])
def test_images_without_a_class_are_left_out(tmp_path, folder, named, val):
    root = make(tmp_path, *classes("train/"), f"{folder}/1-5.png", "sample_submission.xlsx")
    make(root, *(classes("valid/", count=2) if val else []))
    data = load(root)
    assert data.class_names == ("rose", "tulip")
    assert sizes(data) == ({"train": 8, "test": 4} if val else {"train": 6, "test": 2})
    assert data.warnings == (
        f"{root / named}: 5 image(s) without a class are not read; predict them with --mode "
        f"predict --input {root / named}.",
    )


def test_a_test_split_of_other_folders(tmp_path):
    root = make(tmp_path, *classes("train/"), "test/batch1/1-3.jpg", "test/batch2/1-3.jpg")
    assert f"{root / 'test'}: none of its folders (batch1, batch2) is a class of train/" in problem(
        root
    )
    root = make(tmp_path / "case", *classes("train/", "Rose", "tulip"), *classes("test/"))
    found = problem(root)
    assert (
        found == f"{root / 'test/rose'}: there is no class 'rose' in train/. Did you mean 'Rose'? "
        "Rename one of both."
    )


@pytest.mark.parametrize("folders", [["images"], ["images", "labels"], ["images", "masks"]])
def test_a_folder_of_all_images_is_no_class(tmp_path, folders):
    """The form of YOLO, and of segmentation."""
    endings = {"images": "jpg", "labels": "txt", "masks": "png"}
    files = [f"{s}/{f}/1-3.{endings[f]}" for s in ("train", "test") for f in folders]
    assert "nothing says the class" in problem(make(tmp_path / "a", *files))
    files = [f"{folder}/1-3.{endings[folder]}" for folder in folders]
    assert "nothing says the class" in problem(make(tmp_path / "b", *files))


HIERARCHY = ["Fruit/Apple/Red", "Fruit/Pear/Conference", "Vegetables/Leek", "Vegetables/Onion/Red"]


def test_a_hierarchy_is_asked_about(tmp_path):
    files = [f"{split}/{name}/1-3.jpg" for split in ("train", "test") for name in HIERARCHY]
    root = make(tmp_path, *files)
    assert problem(root) == (
        f"{root / 'train'} has folders in folders, and the classes may be either: 2 classes at the "
        "top level (Fruit, Vegetables): data.class_level=top; 4 at the leaves (Fruit/Apple/Red, "
        "Fruit/Pear/Conference, Vegetables/Leek, ...): data.class_level=leaf."
    )
    top = load(root, class_level="top")
    assert (top.class_names, top.levels) == (("Fruit", "Vegetables"), ())
    assert sizes(top) == {"train": 12, "test": 12}
    leaf = load(root, class_level="leaf")
    names = ("Fruit/Apple/Red", "Conference", "Leek", "Vegetables/Onion/Red")
    assert leaf.class_names == names
    assert leaf.levels == (Level("level 1", ("Fruit", "Fruit", "Vegetables", "Vegetables")),)
    of_folder = dict(zip(HIERARCHY, names, strict=True))
    assert labels(leaf) == {
        path.relative_to(root).as_posix(): of_folder["/".join(path.relative_to(root).parts[1:-1])]
        for path in root.rglob("*.jpg")
    }
    second = load(root, class_level="2")
    assert second.class_names == ("Apple", "Pear", "Leek", "Onion")
    assert "data.class_level is 4, but" in problem(root, class_level="4")
    assert "it must be top, leaf, auto or a number from 1" in problem(root, class_level="middle")


def test_levels_of_three(tmp_path):
    deep = ["A/B/1", "A/B/2", "A/C/3", "D/E/4", "D/E/5"]
    root = make(tmp_path, *[f"{name}/1-3.jpg" for name in deep])
    assert "; 3 at level 2 (A/B, A/C, D/E): data.class_level=2; 5 at the leaves" in problem(root)
    data = load(root, class_level="leaf")
    assert data.class_names == tuple("12345")
    assert data.levels == (
        Level("level 1", tuple("AAADD")),
        Level("level 2", tuple("BBCEE")),
    )


def test_numbered_species_below_groups(tmp_path):
    files = [f"{name}/1-3.jpg" for name in ("Plantae/1", "Plantae/2", "Aves/3", "Aves/4")]
    root = make(tmp_path, *files)
    found = problem(root)
    assert "2 classes at the top level (Aves, Plantae): data.class_level=top" in found
    assert "4 at the leaves (Aves/3, Aves/4, Plantae/1, ...): data.class_level=leaf" in found


@pytest.mark.parametrize(
    "inside",
    [
        ["2020", "2021"],
        ["2020-05-01", "20210612"],
        ["part1", "part2"],
        ["cam_a", "Camera 2"],
        ["1", "2", "3"],
        ["front", "back"],
        ["raw", "augmented"],
    ],
)
def test_sub_folders_by_session_are_no_classes(tmp_path, inside):
    files = [f"train/{name}/{part}/1-3.jpg" for name in ("rose", "tulip") for part in inside]
    root = make(tmp_path, *files)
    data = load(root)
    assert data.class_names == ("rose", "tulip")
    assert sum(sizes(data).values()) == 6 * len(inside)
    (warning,) = data.warnings
    assert "(" + ", ".join(sorted(inside)) + "), the same in several classes, are not" in warning
    assert f"data.class_level=leaf ({2 * len(inside)} classes)" in warning
    assert load(root, class_level="leaf").num_classes == 2 * len(inside)


def test_many_classes_with_a_few_sub_folders(tmp_path):
    names = [f"species {letter}" for letter in "abcdefgh"]
    files = [f"{name}/{by}/1-2.jpg" for name in names for by in ("anna", "ben")]
    data = load(make(tmp_path / "a", *files))
    assert data.class_names == tuple(names)
    assert "the sub-folders of classes (anna, ben)" in data.warnings[0]
    # ... but of plots that have healthy and sick plants each, it may well be these.
    files = [f"{name}/{of}/1-2.jpg" for name in names for of in ("healthy", "sick")]
    assert "the same folders (healthy, sick) lie in" in problem(make(tmp_path / "b", *files))


@pytest.mark.parametrize("tops", [("color", "grayscale", "segmented"), ("field", "lab")])
def test_the_same_classes_in_several_folders_are_asked_about(tmp_path, tops):
    root = make(tmp_path, *[f"{top}/{name}/1-3.jpg" for top in tops for name in ("a", "b")])
    assert problem(root) == (
        f"{root}: the same folders (a, b) lie in {', '.join(tops)}; choose one of these: "
        f"{len(tops)} classes at the top level ({', '.join(tops)}): data.class_level=top; 2 with "
        f"those of one name together (a, b): data.class_level=2; {2 * len(tops)} at the leaves "
        f"({tops[0]}/a, {tops[0]}/b, {tops[1]}/a, ...): data.class_level=leaf; or read one of them "
        f"alone: data.root={root}/{tops[0]}, say."
    )
    together = load(root, class_level="2")
    assert (together.class_names, together.levels) == (("a", "b"), ())
    assert sum(sizes(together).values()) == 6 * len(tops)
    assert "are one class (data.class_level=2)" in together.warnings[0]
    assert load(root / tops[0]).class_names == ("a", "b")


def test_images_in_a_class_and_below(tmp_path):
    root = make(tmp_path, "a/1-4.jpg", "a/x/1-2.jpg", "b/1-3.jpg")
    data = load(root)
    assert (data.class_names, sum(sizes(data).values())) == (("a", "b"), 9)
    assert "the sub-folders of classes (x) are not taken for classes" in data.warnings[0]
    assert load(root, class_level="leaf").class_names == ("a", "x", "b")


def test_one_folder_below_each_class(tmp_path):
    """Both levels part the images alike."""
    data = load(make(tmp_path, "a/images/1-3.jpg", "b/b/1-3.jpg", "c/old/1-3.jpg"))
    assert (data.class_names, data.warnings) == (("a", "b", "c"), ())


def test_one_class(tmp_path):
    root = make(tmp_path / "a", *classes("train/", "rose"), *classes("test/", "rose"))
    assert problem(root) == (
        f"{root / 'train'} has one class, 'rose': there is nothing to tell apart; two are needed "
        "at least."
    )
    root = make(tmp_path / "b", *classes("train/flowers/"), *classes("test/flowers/"))
    assert "2 classes at the leaves (flowers/rose, flowers/tulip): data.class_level=leaf" in (
        problem(root)
    )
    assert load(root, class_level="leaf").class_names == ("rose", "tulip")


def test_one_folder_too_low_or_too_high(tmp_path):
    root = make(tmp_path / "data", *classes("train/"), *classes("test/"))
    assert problem(root / "train/rose").endswith(f"did you mean data.root={root}?")
    (warning,) = load(root / "train").warnings
    assert warning.endswith(f"lies beside test/; to read both, set data.root={root}.")
    alone = make(tmp_path / "alone", *classes(""))
    assert problem(alone / "rose").endswith(f"did you mean data.root={alone}?")
    make(tmp_path / "archive/unpacked", *classes("train/"))
    make(tmp_path / "archive", "__MACOSX/unpacked/._1.jpg", "unpacked.zip")
    data = load(tmp_path / "archive")
    assert data.recognised_by.startswith("train/<class>/ in unpacked/; ")
    assert "unpacked.zip: an archive is not looked into; read is unpacked/." in data.warnings[0]
    files = [*classes("images/Images/"), "annotations/rose/1.xml", "annotations/rose/2"]
    data = load(make(tmp_path / "beside", *files))
    assert data.class_names == ("rose", "tulip")
    assert "there is no image and no list in annotations/" in data.warnings[0]
    make(tmp_path / "beside", "annotations/train.txt")  # which may say the split
    assert problem(tmp_path / "beside").endswith(f"data.root={tmp_path / 'beside/images/Images'}?")


def test_a_wrapped_data_set_beside_a_flat_test_folder(tmp_path):
    """New Plant Diseases, as it is unpacked."""
    make(tmp_path, *classes("Dataset(Augmented)/Dataset(Augmented)/train/"), "test/test/1-3.jpg")
    inner = tmp_path / "Dataset(Augmented)/Dataset(Augmented)"
    assert problem(tmp_path).endswith(f"Did you mean data.root={inner}?")


LITTER = ["__MACOSX", "@eaDir", "lost+found", "$RECYCLE.BIN", "System Volume Information", ".git",
          "venv", "node_modules", ".ipynb_checkpoints", ".AppleDouble"]  # fmt: skip


@pytest.mark.parametrize("inside", ["", "train/", "train/rose/"])
def test_litter_is_no_class(tmp_path, inside):
    files = [f"{inside}{name}/{file}" for name in LITTER for file in ("1.jpg", "._rose")]
    files += [f"{inside}{name}" for name in (".DS_Store", "Thumbs.db", "desktop.ini")]
    root = make(tmp_path, *classes("train/"), *classes("test/"), *files)
    data = load(root)
    assert (data.class_names, sizes(data)) == (("rose", "tulip"), {"train": 8, "test": 8})
    assert [w for w in data.warnings if "passed over" not in w] == []
    assert len(data.warnings) == (1 if inside else 0)


def test_empty_class_folders(tmp_path):
    root = make(tmp_path, *classes("train/", "lily", "rose", "tulip"), *classes("test/"))
    for folder in ("train/daisy", "test/daisy", "test/lily"):
        (root / folder).mkdir()
    data = load(root)
    assert data.class_names == ("lily", "rose", "tulip")
    assert data.warnings == (
        f"{root / 'train/daisy'} holds no image: it is left out of the classes.",
        f"{root / 'test/daisy'} holds no image: it is left out of the classes.",
        f"{root / 'test/lily'} holds no image: the class is trained on, but not tested.",
    )
    for number in range(40):
        (root / f"train/x{number:02}").mkdir()
    many = (
        f"{root / 'train'}: 41 folders hold no image: they are left out of the classes (daisy, "
        "x00, x01, ...)."
    )
    assert load(root).warnings[0] == many
    make(root, "test/daisy/1.jpg")
    assert problem(root) == (
        f"{root / 'test/daisy'}: there is no class 'daisy' in train/. Add training images of it, "
        "or leave the folder out."
    )


def test_a_class_that_cannot_be_read(tmp_path):
    root = make(tmp_path, *classes("train/"), "train/lily/1-3.cr2")
    assert "holds no image, but 3 file(s) of a kind that is not read" in problem(root)


def test_links_that_lead_nowhere(tmp_path):
    root = make(tmp_path / "d", *classes("train/"))
    store = make(tmp_path / "store", "1-4.jpg")
    (root / "train/lily").mkdir()
    for k in range(1, 5):
        (root / f"train/lily/{k}.jpg").symlink_to(store / f"{k}.jpg")
    (root / "train/lily/9.jpg").symlink_to("../../.git/annex/objects/x/9.jpg")
    data = load(root)
    assert sum(sizes(data).values()) == 12
    assert data.warnings == (
        f"{root}: 1 link(s) lead nowhere and are left out (train/lily/9.jpg; the first leads to "
        "../../.git/annex/objects/x/9.jpg); fetch the files with `git annex get .`.",
    )
    for k in range(1, 5):
        (store / f"{k}.jpg").unlink()
    assert f"{root / 'train/lily'} holds no image, but 5 link(s) that lead nowhere" in problem(root)
    (root / "train/daisy").symlink_to(tmp_path / "gone")
    with pytest.raises(DataError, match="daisy is a link that leads nowhere, and would be a class"):
        sources.load_dataset(root)


def test_links_in_a_circle_of_two(tmp_path):
    root = make(tmp_path, *classes("train/"))
    (root / "train/rose/x").symlink_to(root / "train/tulip")
    (root / "train/tulip/y").symlink_to(root / "train/rose")
    (root / "train/rose/self").symlink_to(root)
    assert len(list(files_below(str(root / "train")))) == 16
    assert sum(sizes(load(root, class_level="top")).values()) == 16


@pytest.mark.parametrize("forms", [("NFD", "NFC"), ("NFC", "NFD")])
def test_accents_in_another_form_are_one_class(tmp_path, forms):
    names = [unicodedata.normalize(form, "\u00c9pinette") for form in forms]
    root = make(tmp_path, *classes("train/", names[0], "sapin"), *classes("test/", names[1]))
    make(root, f"train/{names[1]}/9.jpg")
    data = load(root)
    assert data.class_names == ("sapin", unicodedata.normalize("NFC", names[0]))
    assert sizes(data) == {"train": 9, "test": 4}
    assert all(e.data.is_file() for e in data.train + data.test)


def test_names_that_are_probably_one(tmp_path):
    names = ["Rose", "rose", "rose (1)", "rose - Copy", "red\u00a0rose", "red rose", "lily"]
    (first, second) = load(make(tmp_path, *classes("train/", *names))).warnings
    assert "the classes 'Rose', 'rose', 'rose (1)' and 'rose - Copy' differ in capitals" in first
    assert "'red rose' and 'red\\xa0rose'" in second
    assert twins(["black-rot", "black_rot ", "Black  Rot - Kopie (2)", "rot"]) == [
        ["black-rot", "black_rot ", "Black  Rot - Kopie (2)"]
    ]
    assert twins(["737-200", "737-300", "A", "B", "(1)", "(2)", "x2", "x3"]) == []


def test_odd_names_stay_as_they_are(tmp_path):
    odd = ["rose, red", 'the "lily"', "\u73ab\u7470", "\u0648\u0631\u062f", "=SUM(A1)", "tulip ",
           "<b>x", "-1", "100%", "l" * 120]  # fmt: skip
    data = load(make(tmp_path, *classes("train/", *odd)))
    assert data.class_names == tuple(sorted(odd))
    assert data.warnings == ()


def test_what_is_seen_and_not_read(tmp_path):
    for number, (files, said) in enumerate(
        [
            (["data.zip"], "unpack it (`unzip data.zip`)."),
            (["images.tar.gz"], "images.tar.gz: an archive is not looked into; unpack it"),
            (["x.rar"], "(`unrar x x.rar`)"),
            (["labels.xlsx", "images/1-3.jpg"], "save it as CSV, as train.csv with the columns"),
            (["train_lmdb/data.mdb", "train_lmdb/lock.mdb"], "an LMDB is not read; write its"),
            (["train.h5"], "train.h5: such a file is not read"),
            (
                ["Annotations/1-3.xml", "JPEGImages/1-3.jpg"],
                "3 file(s) of boxes, as Annotations/1.",
            ),
            (["a/1-2.mp4", "b/1.mp4"], "a film is not read"),
            (["images/1-5.jpg"], "Of 5 image(s) (images/1.jpg, images/2.jpg, images/3.jpg, ...) "),
            ([], "There is no image in it."),
            (["a/1", "b/1.dat"], "There is no image in it, but 2 other file(s) (a/1, b/1.dat)."),
            (
                ["a/1.CR2", "b/1.nef"],
                "2 image(s) of kinds that are not read, .cr2, .nef (a/1.CR2, "
                "b/1.nef); convert them to JPEG or PNG.",
            ),
        ]
    ):
        found = problem(make(tmp_path / str(number), *files))
        assert found.startswith(f"{tmp_path / str(number)} has no known layout (docs/data.md")
        assert said in found


def test_what_lies_beside_is_told_of(tmp_path):
    files = [*classes("train/"), *classes("test/"), "extra/1.jpg", "docs/x.txt", "list.csv"]
    root = make(tmp_path, *files, "README.md", "sample_submission.csv")
    assert load(root).warnings == (
        f"{root}: images in extra/ are of no split and are not read.",
        f"{root}: list.csv: not read; classes and splits are those of the folders.",
    )


def test_a_folder_that_may_not_be_read_is_named(tmp_path, monkeypatch):
    root = make(tmp_path, *classes("train/"))
    scandir = os.scandir

    def refuse(path):
        if str(path).endswith("tulip"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    assert problem(root) == f"{root / 'train/tulip'} cannot be read: Permission denied."


def test_words_of_names():
    assert says_nothing("JPEGImages")
    assert says_nothing("all_images")
    assert not says_nothing("2020")
    assert not says_nothing("rose images")
    assert of_pictures(["2020", "May 2021", "cam_b", "grayscale"])
    assert not of_pictures(["2020", "Rosa"])
    assert not of_pictures(["0123"])


NAMES = ["train", "test", "val", "cars_train", "cars_test", "images", "masks", "rose", "Rose", "1"]
NAMES += ["2", "2020", "part1", "Fruit", "Apple", "E\u0301", "\u00c9", "pred", "@eaDir", "x"]
TREES = [
    [f"{split}{name}" for split in splits for name in names]
    for splits in (["train/", "test/"], ["cars_train/", "cars_test/"], [""], ["train/images/"])
    for names in (["rose", "tulip", "lily"], HIERARCHY, ["a/2020", "a/2021", "b/2020"])
]


def mutate(rng: random.Random, root: pathlib.Path) -> None:
    """Renames, adds, links or empties something in a tree."""
    folders = [path for path in sorted(root.rglob("*")) if path.is_dir() and not path.is_symlink()]
    folder = rng.choice([root, *folders])
    new = folder / rng.choice(NAMES)
    kind = rng.choice(["rename", "add", "file", "link", "lost", "empty", "wrap"])
    if kind == "rename" and folder != root and not os.path.lexists(folder.parent / new.name):
        folder.rename(folder.parent / new.name)
    elif kind == "wrap" and not os.path.lexists(new):
        held = list(folder.iterdir())
        new.mkdir()
        for path in held:
            path.rename(new / path.name)
    elif kind == "empty":
        for path in folder.iterdir():
            if path.is_file():
                path.unlink()
    elif kind in ("link", "lost") and not os.path.lexists(new):
        new.symlink_to(rng.choice([root, *folders]) if kind == "link" else root / "gone")
    elif kind == "add" and not new.is_symlink():
        make(folder, f"{new.name}/1.jpg")
    else:
        make(folder, rng.choice(["0.png", "notes.txt", "x.heic", ".x.jpg"]))


def fuzz(place: pathlib.Path, count: int) -> tuple[int, int]:
    """Reads `count` mutated trees; returns how many were read and refused."""
    rng = random.Random(0)
    read = 0
    for number in range(count):
        root = make(place / f"d{number}", *(f"{each}/1-2.jpg" for each in rng.choice(TREES)))
        for _ in range(rng.randint(0, 3)):
            mutate(rng, root)
        level = rng.choice(["auto", "auto", "top", "leaf", "2"])
        try:
            data = sources.load_dataset(
                root, layout=rng.choice(["auto", "folders"]), request=Request(class_level=level)
            )
        except DataError:
            continue
        read += 1
        assert data.num_classes > 1
        files = [str(e.data) for inside in data.splits.values() for e in inside]
        assert len(files) == len(set(files)) > 0
        for file, name in zip(files, labels(data).values(), strict=True):
            path = unicodedata.normalize("NFC", str(pathlib.Path(file).relative_to(root).parent))
            assert pathlib.Path(file).is_file()
            assert set(name.split("/")) <= set(path.split("/"))
    return read, count - read


def test_any_tree_is_read_or_refused(tmp_path):
    read, refused = fuzz(tmp_path, 150)
    assert min(read, refused) > 15
