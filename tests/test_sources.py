"""Readers of the data layouts: what they find, and what they say of bad data."""

import dataclasses
import hashlib
import pathlib

import pytest

from clevit_jax.data import sources
from clevit_jax.data.layouts.listing import Request
from clevit_jax.errors import DataError

TRAIN = [("a 1_train.png", 1), ("b_1_train.png", 2)]
TEST = [("a 1_test.png", 1), ("b_1_test.png", 2)]


def rows(pairs) -> bytes:
    return "".join(f"{name} {label}\n" for name, label in pairs).encode()


def make_ufg(root: pathlib.Path, train=None, test=None, files=None, classes=None) -> pathlib.Path:
    (root / "anno").mkdir(parents=True)
    (root / "images").mkdir()
    (root / "anno" / "train.txt").write_bytes(rows(TRAIN) if train is None else train)
    (root / "anno" / "test.txt").write_bytes(rows(TEST) if test is None else test)
    for name in [name for name, _ in TRAIN + TEST] if files is None else files:
        (root / "images" / name).parent.mkdir(exist_ok=True)
        (root / "images" / name).touch()
    if classes is not None:
        (root / "classes.txt").write_text(classes)
    return root


def make_folders(root: pathlib.Path, files) -> pathlib.Path:
    for file in files:
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).touch()
    return root


FOLDERS = ["train/b/1.png", "train/a/x/2.JPG", "train/a/1.jpeg", "test/a/3.tif", "test/b/4.webp"]


def problems(root, **options) -> tuple[str, ...]:
    with pytest.raises(DataError) as caught:
        sources.load_dataset(root, **options)
    return caught.value.problems


def test_ufg(tmp_path):
    data = sources.load_dataset(make_ufg(tmp_path))
    assert (data.layout, data.num_classes, data.warnings) == ("ufg", 2, ())
    assert [tuple(e)[1:] for e in data.train] == [(0, 0, "a 1_train.png"), (1, 1, "b_1_train.png")]
    assert [e.data for e in data.test] == [tmp_path / "images" / name for name, _ in TEST]
    assert "anno/train.txt" in data.recognised_by


@pytest.mark.parametrize(
    "text",
    [
        b"\xef\xbb\xbf" + rows(TRAIN),
        rows(TRAIN).replace(b"\n", b"\r\n"),
        rows(TRAIN).rstrip(b"\n"),
        b"\n  \n" + rows(TRAIN).replace(b"\n", b"\n\n"),
        rows(TRAIN).replace(b" 2", b" \t 2  "),
    ],
    ids=["bom", "crlf", "no last newline", "empty lines", "blanks"],
)
def test_ufg_text_variants(tmp_path, text):
    plain = sources.load_dataset(make_ufg(tmp_path / "plain"))
    other = sources.load_dataset(make_ufg(tmp_path / "other", train=text))
    assert [e[1:] for e in other.train] == [e[1:] for e in plain.train]


def test_ufg_class_names(tmp_path):
    pattern = [("x_y_1_train.png", 1), ("z_1_train.png", 2)]
    test = [("x_y_9_test.png", 1), ("z_3_test.png", 2)]
    files = [name for name, _ in pattern + test]
    root = make_ufg(tmp_path / "pattern", rows(pattern), rows(test), files)
    assert sources.load_dataset(root).class_names == ("x_y", "z")
    root = make_ufg(tmp_path / "file", rows(pattern), rows(test), files, "Anjou\nBeef Tomato\n")
    assert sources.load_dataset(root).class_names == ("Anjou", "Beef Tomato")
    test[0] = ("q_9_test.png", 1)  # label 1 is x_y in training
    files.append("q_9_test.png")
    root = make_ufg(tmp_path / "mixed", rows(pattern), rows(test), files)
    assert sources.load_dataset(root).class_names == ("1", "2")
    same = [("x_1_train.png", 1), ("x_2_train.png", 2)]  # two labels, one name
    root = make_ufg(tmp_path / "same", rows(same), rows(same), [name for name, _ in same])
    assert sources.load_dataset(root).class_names == ("1", "2")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("lonely.png", "expected '<file> <label>'"),
        ("a 1_train.png x", "'x' of 'a 1_train.png' is not an integer"),
        ("a 1_train.png 1.0", "not an integer"),
        ("a 1_train.png 1_0", "not an integer"),
        ("a 1_train.png 0", "is 0, but labels start at 1"),
        ("a 1_train.png -3", "is -3, but labels start at 1"),
        ("a 1_train.png 3", "above num_classes = 2"),
        ("gone.png 1", "'gone.png' is not in images/"),
        ("../a.png 1", "'../a.png' points out of images/"),
        ("x/../../a.png 1", "points out of images/"),
        ("..\\a.png 1", "points out of images/"),
        ("/etc/a.png 1", "'/etc/a.png' points out of images/"),
        ("C:\\a.png 1", "points out of images/"),
        ("b_1_train.png 1", "has label 1 here but label 2 on line 2"),
    ],
)
def test_ufg_bad_line_is_named(tmp_path, line, said):
    root = make_ufg(tmp_path, train=rows(TRAIN) + b"\n" + line.encode() + b"\n")
    (found,) = problems(root, layout="ufg", request=Request(num_classes=2))
    assert found.startswith(f"{root / 'anno' / 'train.txt'}, line 4: ")
    assert said in found


def test_ufg_all_problems_at_once(tmp_path):
    root = make_ufg(tmp_path, rows(TRAIN) + b"gone.png zero\n", b"b_1_test.png 9\n\xff\n")
    found = problems(root, request=Request(num_classes=3))
    assert [s for s in found if "line 3" in s and "'zero'" in s]  # both faults of one line
    assert [s for s in found if "line 3" in s and "not in images/" in s]
    assert [s for s in found if "test.txt, line 2" in s and "UTF-8" in s]
    assert [s for s in found if "label 3 has no training image" in s]


def test_long_lists_are_cut_in_the_message_only(tmp_path):
    root = make_ufg(tmp_path, rows(TRAIN) + b"".join(b"gone%d.png 1\n" % i for i in range(50)))
    with pytest.raises(DataError) as caught:
        sources.load_dataset(root)
    assert len(caught.value.problems) == 50
    assert str(caught.value).count("\n") == 20
    assert str(caught.value).endswith("and 30 more.")


def test_ufg_empty_classes(tmp_path):
    train = [("a 1_train.png", 2), ("b_1_train.png", 6)]
    root = make_ufg(tmp_path, rows(train), rows([("a 1_test.png", 10**15)]))
    found = problems(root)
    assert [s.split("train.txt: ")[1].split(" no")[0] for s in found] == [
        "label 1 has",
        "labels 3 to 5 have",
        f"labels 7 to {10**15} have",
    ]


@pytest.mark.parametrize("split", ["train", "test"])
def test_ufg_missing_and_empty_files(tmp_path, split):
    root = make_ufg(tmp_path / "empty", **{split: b"\n"})
    assert f"{root / 'anno' / split}.txt lists no image." in problems(root)
    root = make_ufg(tmp_path / "missing")
    (root / "anno" / f"{split}.txt").unlink()
    assert f"{root / 'anno' / split}.txt is missing." in problems(root)


def test_ufg_without_images_folder(tmp_path):
    root = make_ufg(tmp_path, files=[])
    (root / "images").rmdir()
    (found,) = problems(root)
    assert found.startswith(f"{root / 'images'} is missing")


def test_ufg_classes_file_must_fit(tmp_path):
    (found,) = problems(make_ufg(tmp_path / "few", classes="one\n"))
    assert "1 class names, but there are 2 classes" in found
    (found,) = problems(make_ufg(tmp_path / "twice", classes="one\none\n"))
    assert "'one' is given more than once" in found


def test_ufg_warnings(tmp_path):
    train = [*TRAIN, TRAIN[0]]
    data = sources.load_dataset(make_ufg(tmp_path, rows(train), rows([*TEST, TRAIN[1]])))
    assert len(data.warnings) == 2
    assert "1 file(s) are listed more than once" in data.warnings[0]
    assert "(b_1_train.png)" in data.warnings[1]
    assert "both for training and for testing" in data.warnings[1]
    assert [e.id for e in data.train] == [0, 1, 2]


def test_ufg_subfolders(tmp_path):
    train = [("s/a.png", 1), ("./b.png", 2)]
    root = make_ufg(tmp_path, rows(train), rows(train), ["s/a.png", "b.png"])
    assert [e.name for e in sources.load_dataset(root).train] == ["s/a.png", "b.png"]


@pytest.mark.parametrize("test", ["test", "val"])
def test_folders(tmp_path, test):
    files = [file.replace("test/", f"{test}/") for file in FOLDERS]
    hidden = ["train/a/.hidden.png", "train/.git/x.png", "train/a/notes.txt", "train/a/._1.jpg"]
    data = sources.load_dataset(make_folders(tmp_path, files + hidden))
    assert (data.layout, data.class_names) == ("folders", ("a", "b"))
    nested, unread = data.warnings  # of what is no image, and not of what is hidden
    assert "the sub-folders of classes (x) are not taken for classes" in nested
    assert "1 file(s) have no ending that is read (train/a/notes.txt)" in unread
    assert [(e.name, e.label, e.id) for e in data.train] == [
        ("train/a/1.jpeg", 0, 0),
        ("train/a/x/2.JPG", 0, 1),
        ("train/b/1.png", 1, 2),
    ]
    assert [(e.name, e.label) for e in data.test] == [
        (f"{test}/a/3.tif", 0),
        (f"{test}/b/4.webp", 1),
    ]
    assert data.train[0].data == tmp_path / "train/a/1.jpeg"


def test_folders_problems(tmp_path):
    root = make_folders(tmp_path, [*FOLDERS, "train/c/notes.txt", "test/d/1.png"])
    found = problems(root, request=Request(num_classes=4))
    assert len(found) == 2
    assert found[0] == (
        f"{root / 'test' / 'd'}: there is no class 'd' in train/. Add training images of it, or "
        "leave the folder out."
    )
    assert "2 classes, but num_classes = 4" in found[1]


def test_folders_without_splits(tmp_path):
    root = make_folders(tmp_path / "one", ["train/a/1.png", "train/b/1.png"])
    (found,) = problems(root)
    assert found.startswith(f"{root} has no test split, and none can be cut: no class has two")
    (root / "test").mkdir()
    (found,) = problems(root)
    assert found.startswith(f"{root / 'test'} holds no class folder with images")
    (tmp_path / "two").mkdir()
    assert problems(tmp_path / "two", layout="folders") == (
        f"{tmp_path / 'two'} holds no class folder.",
    )


def test_one_class_is_refused(tmp_path):
    """Where its folder is the only one, and where that is read all the same."""
    root = make_folders(tmp_path / "data", ["a/1.png", "a/2.png", "a/3.png"])
    (found,) = problems(root)
    assert found.endswith(" Its images lie in one folder, a/; classes are two folders at least.")
    (found,) = problems(root, layout="folders")
    assert found.startswith(f"{root} has one class, 'a': there is nothing to tell apart")


def test_folders_warnings(tmp_path):
    data = sources.load_dataset(
        make_folders(tmp_path, [*FOLDERS, "val/a/1.png", "train/loose.png"])
    )
    assert [warning for warning in data.warnings if "loose.png" in warning]
    assert (len(data.test), [e.name for e in data.val]) == (2, ["val/a/1.png"])


def test_folders_follow_links_but_not_in_circles(tmp_path):
    root = make_folders(tmp_path / "data", [*FOLDERS, "../elsewhere/5.png"])
    (root / "train" / "c").symlink_to(tmp_path / "elsewhere")
    (root / "test" / "c").symlink_to(tmp_path / "elsewhere")
    (root / "train" / "a" / "again").symlink_to(root / "train")
    data = sources.load_dataset(root)
    assert data.class_names == ("a", "b", "c")
    assert len(data.train) == 4


def test_layout_is_found_or_asked_for(tmp_path):
    root = make_folders(make_ufg(tmp_path), FOLDERS)
    (found,) = problems(root)
    assert found == (
        f"{root} can be read in 2 ways, which differ; choose one of them. data.layout=ufg, by "
        "anno/train.txt and anno/test.txt: 2 classes, 2 training images, 2 test images; "
        "data.layout=folders, by train/<class>/ and test/<class>/: 2 classes, 3 training images, "
        "2 test images."
    )
    assert sources.load_dataset(root, layout="ufg").layout == "ufg"
    assert sources.load_dataset(root, layout="folders").layout == "folders"
    assert problems(root, layout="zip")[0].startswith(
        "data.layout is 'zip'; it must be auto or one of ufg, "
    )


def test_no_data(tmp_path, monkeypatch):
    """Where it looked, in full, and nothing of what a data set looks like."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("/elsewhere")
    name = "name the folder of the images: data.root."
    assert problems(pathlib.Path("gone")) == (f"There is no folder {tmp_path / 'gone'}; {name}",)
    assert problems(pathlib.Path("file")) == (f"{tmp_path / 'file'} is not a folder; {name}",)
    (found,) = problems(pathlib.Path("link"))
    assert "link is a link to /elsewhere, which is not there" in found
    (found,) = problems(pathlib.Path("a" * 300))
    assert found.endswith("cannot be read: File name too long.")


def test_no_layout(tmp_path):
    (found,) = problems(tmp_path)
    assert found == (
        f"{tmp_path} has no known layout (docs/data.md lists them). There is no image in it."
    )


def test_split_hash(tmp_path):
    data = sources.load_dataset(make_ufg(tmp_path / "here"))
    text = "train\0a 1_train.png\x000\ntrain\0b_1_train.png\x001\n"
    text += "test\0a 1_test.png\x000\ntest\0b_1_test.png\x001\n"
    assert data.split_hash() == hashlib.sha256(text.encode()).hexdigest()
    assert sources.load_dataset(make_ufg(tmp_path / "there")).split_hash() == data.split_hash()
    moved = sources.load_dataset(
        make_ufg(tmp_path / "moved", rows(TRAIN + TEST[:1]), rows(TEST[1:]))
    )
    assert moved.split_hash() != data.split_hash()


def test_no_stat_for_each_file(tmp_path, monkeypatch):
    root = make_ufg(tmp_path)
    calls = []
    for name in ("stat", "resolve", "exists", "is_file"):
        kept = getattr(pathlib.Path, name)

        def counted(self, *args, kept=kept, **options):
            calls.append(self)
            return kept(self, *args, **options)

        monkeypatch.setattr(pathlib.Path, name, counted)
    sources.load_dataset(root)
    assert not [path for path in calls if path.suffix == ".png"]


def test_ufg_by_names_alone(tmp_path):
    """The set of produce22: class, number and split are in the name, classes in classes.txt."""
    files = ["z_1_train.png", "z_2_test.JPG", "a_b_1_train.png", "s/a_b_7_test.png", "notes.txt"]
    root = make_folders(tmp_path, [f"images/{file}" for file in files])
    data = sources.load_dataset(root)
    assert (data.layout, data.class_names) == ("ufg", ("a_b", "z"))
    assert "<class>_<k>_<split>" in data.recognised_by
    assert [(e.name, e.label, e.id) for e in data.train] == [
        ("a_b_1_train.png", 0, 0),
        ("z_1_train.png", 1, 1),
    ]
    assert {(e.name, e.label) for e in data.test} == {("z_2_test.JPG", 1), ("s/a_b_7_test.png", 0)}
    assert data.test[0].data == root / "images" / data.test[0].name
    assert "1 file(s) are not images (notes.txt)" in data.warnings[0]
    (root / "classes.txt").write_text("z\na_b\n")
    assert sources.load_dataset(root).class_names == ("z", "a_b")
    (root / "classes.txt").write_text("z\nq\n")
    (found,) = problems(root)
    assert "does not name the class 'a_b'" in found
    (root / "images" / "stray.png").touch()
    assert "stray.png does not tell its class and split" in problems(root)[0]


def test_ufg_by_names_counts_numbers_as_numbers(tmp_path):
    files = [f"images/{k}_1_{split}.png" for k in (10, 2, 1) for split in ("train", "test")]
    root = make_folders(tmp_path, files)
    data = sources.load_dataset(root)
    assert data.class_names == ("1", "2", "10")
    assert {e.name: e.label for e in data.train}["10_1_train.png"] == 2
    (root / "classes.txt").write_text("one\ntwo\nten\n")
    assert sources.load_dataset(root).class_names == ("one", "two", "ten")


def test_ufg_with_validation(tmp_path):
    root = make_ufg(tmp_path, files=[name for name, _ in TRAIN + TEST] + ["v.png"])
    (root / "anno" / "val.txt").write_text("v.png 2\n")
    data = sources.load_dataset(root)
    assert [(e.name, e.label, e.id) for e in data.val] == [("v.png", 1, 0)]
    assert data.splits.keys() == {"train", "val", "test"}
    (found,) = problems(root, split=sources.SplitConfig(val_fraction=0.5))
    assert "has a validation split, so none can be cut; set data.val_fraction=0" in found


def test_annotated_names_in_another_form(tmp_path):
    """Backslashes of Windows, and accents that another machine spells in two characters."""
    train = [("s\\b.png", 2), ("cafe\u0301.png", 1), ("\u00a0x\u00a0.png", 1)]
    root = make_ufg(tmp_path, rows(train), files=["s/b.png", "caf\u00e9.png", "\u00a0x\u00a0.png"]
                    + [name for name, _ in TEST])  # fmt: skip
    names = [e.name for e in sources.load_dataset(root).train]
    assert names == ["s/b.png", "caf\u00e9.png", "\u00a0x\u00a0.png"]


TREE = [f"{c}/{k}.jpg" for c in ("ash", "oak", "elm") for k in range(10)]


def test_class_folders_alone_are_split_by_seed(tmp_path):
    data = sources.load_dataset(make_folders(tmp_path, [*TREE, ".git/x.png", "README.md"]))
    assert (data.layout, data.class_names) == ("folders", ("ash", "elm", "oak"))
    assert data.recognised_by == "<class>/ as ash/; test split: 20 % of the images, cut by seed 0"
    assert (len(data.train), len(data.test), data.val) == (24, 6, ())
    assert sorted(e.name for e in data.train + data.test) == sorted(TREE)
    assert [e.id for e in data.test] == list(range(6))
    assert all(e.name.startswith(data.class_names[e.label]) for e in data.train + data.test)
    other = sources.load_dataset(tmp_path, split=sources.SplitConfig(seed=1))
    assert {e.name for e in other.test} != {e.name for e in data.test}
    assert other.split_hash() != data.split_hash()


def test_folds_test_each_image_once(tmp_path):
    make_folders(tmp_path, [f"train/{file}" for file in TREE])
    parts = [
        sources.load_dataset(
            tmp_path, split=sources.SplitConfig(folds=5, fold=i, val_fraction=0.25)
        )
        for i in range(5)
    ]
    assert sorted(e.name for part in parts for e in part.test) == sorted(f"train/{f}" for f in TREE)
    for part in parts:
        assert {split: len(inside) for split, inside in part.splits.items()} == {
            "train": 18, "val": 6, "test": 6
        }  # fmt: skip
        assert len({e.name for e in part.train + part.val + part.test}) == 30
    assert len({part.split_hash() for part in parts}) == 5


def test_folds_want_a_set_without_a_test_split(tmp_path):
    (found,) = problems(make_ufg(tmp_path), split=sources.SplitConfig(folds=2))
    assert "has a test split, and data.folds is for data without one" in found


def test_a_fold_that_takes_all_of_a_class(tmp_path):
    root = make_folders(tmp_path, [*TREE, "yew/1.jpg"])
    found = [
        list(sources.scan(root, split=sources.SplitConfig(folds=2, fold=i))[1]) for i in (0, 1)
    ]
    (said,) = found[0] + found[1]
    assert "holds every image of the class 'yew'" in said


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ({"test_fraction": 1.0}, "data.test_fraction is 1.0"),
        ({"val_fraction": -0.1}, "data.val_fraction is -0.1"),
        ({"folds": 1}, "data.folds is 1"),
        ({"folds": 3, "fold": 3}, "data.fold is 3"),
        ({"fold": 1}, "data.fold is 1"),
        ({"seed": -1}, "data.split_seed is -1"),
    ],
)
def test_senseless_splits(setting, said):
    with pytest.raises(ValueError, match=said):
        sources.SplitConfig(**setting)


def test_folders_by_other_names(tmp_path):
    data = sources.load_dataset(
        make_folders(
            tmp_path, ["Training/a/1.png", "valid/a/2.png", "TEST/a/3.png", "Training/b/1.png"]
        )
    )
    assert data.recognised_by == "Training/<class>/ and valid/<class>/ and TEST/<class>/"
    assert [inside[0].name for inside in data.splits.values()] == [
        "Training/a/1.png", "valid/a/2.png", "TEST/a/3.png"
    ]  # fmt: skip
    make_folders(tmp_path, ["val/a/4.png"])
    (found,) = problems(tmp_path)
    assert f"{tmp_path}: val/ and valid/ are 2 folders of the val split" in found


def test_a_tree_needs_two_classes_and_no_split(tmp_path):
    for root in (["a/1.png"], ["test/1/a.png", "val/1/b.png"], ["a/1.txt", "b/2.txt"]):
        (found,) = problems(make_folders(tmp_path / root[0].replace("/", "_"), root))
        assert "no known layout" in found


def test_the_folder_below_is_suggested(tmp_path):
    root = make_folders(tmp_path, [f"unpacked/{file}" for file in FOLDERS])
    data = sources.load_dataset(root)  # what alone lies in it is meant
    assert data == dataclasses.replace(
        sources.load_dataset(root / "unpacked"), recognised_by=data.recognised_by
    )
    assert data.recognised_by == "train/<class>/ and test/<class>/ in unpacked/"
    make_folders(tmp_path, [f"other/{file}" for file in FOLDERS])  # two data sets, not two classes
    (found,) = problems(root)
    assert found.endswith(f"data.root={root / 'other'} or {root / 'unpacked'}?")


def test_what_can_be_read_is_there_in_spite_of_problems(tmp_path):
    """For check_data, which says all that is wrong at once."""
    root = make_ufg(tmp_path, rows([*TRAIN, ("gone.png", 1)]))
    data, found = sources.scan(root)
    assert len(found) == 1
    assert [e.name for e in data.train] == [name for name, _ in TRAIN] + ["gone.png"]
    assert len(data.test) == 2


@pytest.mark.parametrize(
    ("counts", "val", "sizes"),
    [
        ((2, 1), 0.0, (2, 0, 1)),
        ((2, 1, 1), 0.1, None),  # the one that a class can spare is tested on
        ((2, 2), 0.1, (2, 1, 1)),
        ((3, 1), 0.2, (2, 1, 1)),
        ((1, 1, 1), 0.0, None),
    ],
)
def test_a_tiny_set_is_cut_so_that_each_class_trains(tmp_path, counts, val, sizes):
    """Training first, then the test, then validation; else one sentence on what is needed."""
    files = [f"{'abc'[label]}/{k}.png" for label, count in enumerate(counts) for k in range(count)]
    root = make_folders(tmp_path, files)
    split = sources.SplitConfig(val_fraction=val, test_fraction=0.1)
    data, said = sources.scan(root, layout="folders", split=split)
    if sizes is None:
        (sentence,) = said
        assert "no class has two" in sentence
        assert "add images" in sentence
        return
    assert said == []
    assert (len(data.train), len(data.val), len(data.test)) == sizes
    assert {example.label for example in data.train} == set(range(len(counts)))


def test_more_folds_than_images(tmp_path):
    root = make_folders(tmp_path, ["a/1.png", "a/2.png", "b/3.png"])
    (found,) = problems(root, layout="folders", split=sources.SplitConfig(folds=5, fold=4))
    assert found == (
        f"{root} has 3 images, so fold 4 of 5 holds none; lower data.folds or add images."
    )


def test_a_share_of_nothing_is_refused(tmp_path):
    root = make_folders(tmp_path, ["a/1.png", "b/2.png"])
    (found,) = problems(root, layout="folders", split=sources.SplitConfig(test_fraction=0.0))
    assert "0 % of the images round to 0; raise data.test_fraction" in found
