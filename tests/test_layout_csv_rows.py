"""Rows of tables as people have them: paths of elsewhere, images to tell, boxes, odd labels."""

import gzip

import pytest
from csv_folders import EXPECTED, NAMES, NINE, counts, made, of, problem, told, touch

from clevit_jax.data import sources
from clevit_jax.data.layouts.listing import Request

PATHS = {
    "Windows": ("images/{}.jpg", "C:\\Users\\me\\plants\\images\\{}.jpg"),
    "absolute": ("images/{}.jpg", "/home/me/plants/images/{}.jpg"),
    "up": ("images/{}.jpg", "../input/plants/images/{}.jpg"),
    "prefixed": ("images/{}.jpg", "plants/images/{}.jpg"),
    "another ending": ("images/{}.jpg", "images/{}.png"),
    "another ending, by name": ("images/{}.jpg", "{}.png"),
    "deeper": ("images/all/{}.jpg", "images/{}.jpg"),
    "deeper, by name": ("photos/2020/{}.jpg", "{}"),
    "capitals": ("Images/P{}.JPG", "images/p{}.jpg"),
    "a folder of another name": ("jpg/{}.jpg", "images/{}.jpg"),
    "in folders of classes": ("train_images/{label}/{}.jpg", "{}.jpg"),
    "in folders of classes, from elsewhere": ("{label}/{}.jpg", "D:/x/{label}/{}.jpg"),
    "absolute without ending": ("images/{}.jpg", "/data/{}"),
}


@pytest.mark.parametrize("case", PATHS)
def test_paths_of_elsewhere_are_found_by_one_rule(tmp_path, case):
    there, written = PATHS[case]
    files = [there.format(f"{i:04}", label=of(i)) for i in range(9)]
    root = touch(tmp_path / "data", files)
    touch(tmp_path, ["input/plants/images/0000.jpg"])  # outside: never read
    rows = [f"{written.format(f'{i:04}', label=of(i))},{of(i)}" for i in range(9)]
    (root / "train.csv").write_text("image,label\n" + "\n".join(rows) + "\n")
    data = sources.load_dataset(root, layout="csv")
    assert told(data) == {file: of(i) for i, file in enumerate(files)}
    (warning,) = data.warnings
    assert "train.csv: 9 file(s) are not where it says, and are read " in warning
    assert repr(files[0]) in warning


def test_one_name_in_several_folders(tmp_path):
    """The longest path in common tells; else the class; else the split; else nothing."""
    files = [f"images/{name}/{i}.jpg" for name in NAMES for i in range(3)]
    root = touch(tmp_path, files)
    rows = [f"/home/me/{file},{file.split('/')[1]}" for file in files]
    (root / "train.csv").write_text("image,label\n" + "\n".join(rows) + "\n")
    assert told(sources.load_dataset(root)) == {file: file.split("/")[1] for file in files}
    rows = [f"{file.split('/')[2]},{file.split('/')[1]}" for file in files]
    (root / "train.csv").write_text("image,label\n" + "\n".join(rows) + "\n")
    assert told(sources.load_dataset(root)) == {file: file.split("/")[1] for file in files}
    rows = [f"/home/{file.split('/')[2]},{'ab'[i % 2]}" for i, file in enumerate(files)]
    (root / "train.csv").write_text("image,label\n" + "\n".join(rows) + "\n")
    assert "9 files are named by paths that point out of the data set's folder" in problem(root)
    rows = [f"{file.split('/')[2]},{'ab'[i % 2]}" for i, file in enumerate(files[:1])]
    (root / "train.csv").write_text("image,label\n" + "\n".join(rows) + "\n")
    assert "'0.jpg' may be any of 'images/lily/0.jpg', 'images/rose/0.jpg', " in problem(root)
    assert problem(root).endswith("'images/tulip/0.jpg'; write its folder.")


def test_splits_are_looked_for_in_their_own_folders(tmp_path):
    files = [f"{split}ing_set/a/{i}.jpg" for split in ("train", "test") for i in range(3)]
    root = touch(tmp_path, files)
    for split in ("train", "test"):
        rows = [f"/x/{i}.jpg,{NAMES[i]}" for i in range(3)]
        (root / f"{split}.csv").write_text("image,label\n" + "\n".join(rows) + "\n")
    data = sources.load_dataset(root, layout="csv")
    assert [e.name for e in data.train + data.test] == files


def test_a_few_that_are_not_there_are_no_rule(tmp_path):
    """What lies elsewhere under the same name may be another picture."""
    root = made(tmp_path, "image,label", lambda i: f"images/{NINE[i]},{of(i)}")
    (root / "images" / NINE[4]).rename(root / NINE[4])
    found = problem(root)
    assert "1 file(s) are not where it says; 1 of them may be those " in found
    assert "'images/0004.jpg' is '0004.jpg'" in found
    (root / NINE[4]).unlink()
    assert "line 6: the file 'images/0004.jpg' is not in" in problem(root)
    touch(root, ["images/a/0000.jpg"])
    (root / "train.csv").write_text("image,label\n" + "".join(f"{i}.jpg,a\n" for i in range(99)))
    assert "99 files are not in " in problem(root)


def test_two_names_never_mean_one_file(tmp_path):
    root = touch(tmp_path, ["images/1.jpg", "images/2.jpg"])
    rows = ["/a/1.jpg,x", "/b/1.jpg,x", "/a/2.jpg,y"]
    (root / "train.csv").write_text("image,label\n" + "\n".join(rows) + "\n")
    assert "3 file(s) are not where it says; 1 of them may be those " in problem(root)


@pytest.mark.parametrize(
    "name", ["sample_submission.csv", "sampleSubmission.csv", "submission_format.csv", "sub.csv"]
)
@pytest.mark.parametrize("text", ["id,breed\n0001,rose\n", "id,rose,tulip\n0001,0.5,0.5\n"])
def test_forms_of_answers_are_left_out(tmp_path, name, text):
    root = made(
        tmp_path, "id,breed", lambda i: f"{i:04},{of(i)}", name="labels.csv", where="train/"
    )
    touch(root, ["test/0001.jpg"])
    (root / name).write_text(text)
    data = sources.load_dataset(root)
    assert told(data) == {f"train/{file}": of(i) for i, file in enumerate(NINE)}
    assert [w for w in data.warnings if f"{name} is left out" in w]


@pytest.mark.parametrize("text", ["filename\nt1.jpg\n", "filename,label\nt1.jpg,\nt2.jpg,\n"])
def test_tables_of_images_to_tell_are_left_out(tmp_path, text):
    root = made(tmp_path, "filename,label", lambda i: f"{NINE[i]},{of(i)}", name="Training_set.csv")
    touch(root, ["test/t1.jpg", "test/t2.jpg"])
    (root / "Testing_set.csv").write_text(text)
    data = sources.load_dataset(root)
    assert counts(data) == {"train": 7, "test": 2}
    assert "--mode predict" in data.warnings[0]


def test_rows_of_images_to_tell_are_left_out(tmp_path):
    rows = [f"{file},{of(i)},train" if i < 6 else f"{file},,test" for i, file in enumerate(NINE)]
    root = made(tmp_path, "filename,label,split", rows.__getitem__)
    data = sources.load_dataset(root)
    assert sorted(told(data)) == [f"images/{file}" for file in NINE[:6]]
    assert "none of its 3 test images has a label; they are left out" in data.warnings[0]


def test_rows_of_boxes(tmp_path):
    root = made(tmp_path, "filename,class,xmin,ymin,xmax,ymax",
                lambda i: f"{NINE[i]},{of(i)},1,1,5,5\n{NINE[i]},{of(i)},7,7,9,9")  # fmt: skip
    data = sources.load_dataset(root)
    assert counts(data) == {"train": 7, "test": 2}
    assert "its 18 rows are boxes in 9 images; each image counts once" in data.warnings[0]
    made(root, "filename,class,xmin,ymin,xmax,ymax",
         lambda i: f"{NINE[i]},{of(i)},1,1,5,5\n{NINE[i]},{of(i // 2)},7,7,9,9")  # fmt: skip
    assert (
        "6 of 9 images have boxes of several classes ('images/0001.jpg': 'rose' and 'tulip')"
        in (problem(root))
    )


def test_many_problems_of_one_kind_are_one_sentence(tmp_path):
    root = made(tmp_path, "image,label", lambda i: f"{NINE[i]},{of(i)}\n{NINE[i]},{of(i + 1)}")
    assert "9 rows give a file another label than a row before" in problem(root)
    root = made(tmp_path, "image,label", lambda i: f"{NINE[i]},{'' if i % 2 else of(i)}")
    assert "4 rows have no label" in problem(root)


@pytest.mark.parametrize("text", ["nan", "NaN", "NA", "null", "<NA>", "#N/A"])
def test_missing_labels_are_named(tmp_path, text):
    """Those that pandas reads as missing."""
    root = made(tmp_path, "image,label", lambda i: f"{NINE[i]},{text if i == 4 else of(i)}")
    assert f"line 6: the label is {text!r}, which stands for a missing one" in problem(root)


def test_labels_that_are_nearly_alike(tmp_path):
    for kinds, count in [(("Rose", "rose", "ROSE"), 3), (("red oak", "red\xa0oak", "red_oak"), 3)]:
        rows = [f"{file},{kinds[i % 3]}" for i, file in enumerate(NINE)]
        data = sources.load_dataset(made(tmp_path, "image,label", rows.__getitem__))
        assert data.num_classes == count
        (warning,) = data.warnings
        assert "class names differ only in capitals or blanks" in warning
    for kinds in [("pe\u0301", "pé"), ("a", "a\xa0"), ("a", " a ")]:
        rows = [f"{file},{(*kinds, 'z')[i % 3]}" for i, file in enumerate(NINE)]
        data = sources.load_dataset(made(tmp_path, "image,label", rows.__getitem__))
        assert (data.num_classes, data.warnings) == (2, ())


@pytest.mark.parametrize(
    ("kinds", "warning"),
    [
        (("001", "1", "2"), "differ only in the zeros of numbers ('001' and '1')"),
        (("1.0", "1", "x"), "differ only in the zeros of numbers ('1' and '1.0')"),
        (("0", "1", "-1"), "3 image(s) have the label -1, which counts as a class beside 2 others"),
        (("000", "1", "2"), None),
        (("1", "-1", "1"), None),  # yes and no
        (("-1", "a", "b"), None),
    ],
)
def test_numbers_that_may_mean_another_thing(tmp_path, kinds, warning):
    rows = [f"{file},{kinds[i % 3]}" for i, file in enumerate(NINE)]
    data = sources.load_dataset(made(tmp_path, "image,label", rows.__getitem__))
    assert data.num_classes == len(set(kinds))
    said = [each for each in data.warnings if "of the labels" not in each]
    assert len(said) == (warning is not None)
    assert not said or warning in said[0]


@pytest.mark.parametrize("values", [("TRUE", "FALSE"), ("True", "false"), ("1.0", "0.0")])
def test_a_column_of_yes_and_no_for_each_class(tmp_path, values):
    header = f"file,{','.join(NAMES)},split"
    rows = [
        ",".join([file, *(values[name != of(i)] for name in NAMES), "train" if i < 6 else "test"])
        for i, file in enumerate(NINE)
    ]
    data = sources.load_dataset(made(tmp_path, header, rows.__getitem__))
    assert told(data) == EXPECTED
    assert counts(data) == {"train": 6, "test": 3}


def test_a_column_that_is_true_in_most_rows_is_asked_about(tmp_path):
    """It may say that a row is for validation, or that it is sound."""
    root = made(tmp_path, "file,label,is_valid", lambda i: f"{NINE[i]},{of(i)},{i != 4}")
    assert "the column 'is_valid' is true in 8 of 9 rows" in problem(root)
    data = sources.load_dataset(root, request=Request(split_column="none"))
    assert counts(data) == {"train": 7, "test": 2}
    rows = [f"{file},{of(i)},{int(i > 2)}" for i, file in enumerate(NINE)]
    made(root, "file,label,is_valid", rows.__getitem__)
    data = sources.load_dataset(root, request=Request(split_column="is_valid"))
    assert counts(data) == {"train": 3, "test": 6}


def test_compressed_tables(tmp_path):
    root = made(tmp_path, "image,label", lambda i: f"{NINE[i]},{of(i)}")
    content = gzip.compress((root / "train.csv").read_bytes())
    (root / "train.csv").unlink()
    (root / "train.csv.gz").write_bytes(content)
    assert told(sources.load_dataset(root)) == EXPECTED
    (root / "train.csv.gz").write_bytes(content[:-9])
    assert "train.csv.gz is no whole gzip file (" in problem(root, layout="csv")


@pytest.mark.parametrize("folder", ["annotations", "labels", "data"])
def test_tables_in_a_folder_of_annotations(tmp_path, folder):
    root = made(tmp_path, "image,label", lambda i: f"{NINE[i]},{of(i)}")
    (root / folder).mkdir()
    (root / "train.csv").rename(root / folder / "train.csv")
    data = sources.load_dataset(root)
    assert told(data) == EXPECTED
    assert data.recognised_by.startswith(f"{folder}/train.csv; ")


def test_rows_of_litter_are_passed_over(tmp_path):
    rows = [f"{file},{of(i)}" for i, file in enumerate(NINE)]
    root = made(tmp_path, "image,label", lambda i: rows[i])
    with (root / "train.csv").open("a") as file:
        file.write(".DS_Store,rose\nimages/._0001.jpg,tulip\nThumbs.db,lily\n")
    data = sources.load_dataset(root)
    assert told(data) == EXPECTED
    assert "3 row(s) are of files that a system leaves behind" in data.warnings[0]


def test_row_numbers_of_pandas_are_no_class(tmp_path):
    bits = ("1,0,0", "0,1,0", "0,0,1")
    header = "Unnamed: 0,image,rose,tulip,lily"
    root = made(tmp_path, header, lambda i: f"{i},{NINE[i]},{bits[i % 3]}")
    assert told(sources.load_dataset(root)) == EXPECTED


def test_shares_of_classes_are_no_classes(tmp_path):
    root = made(
        tmp_path, "file,rose,tulip,lily", lambda i: f"{NINE[i]},0.25,{i / 16},{0.75 - i / 16}"
    )
    found = problem(root)
    assert "the columns 'rose', 'tulip', 'lily' hold shares that make 1 in each row" in found
    root = made(tmp_path, "file,width,height", lambda i: f"{NINE[i]},0.25,{i / 16}")
    assert "no column is known to hold the label" in problem(root)


def test_tables_of_other_splits_than_training_alone(tmp_path):
    for name in ("val.csv", "test.csv"):
        root = made(tmp_path, "file,label", lambda i: f"{NINE[i]},{of(i)}", name=name)
    assert "'test.csv', 'val.csv' are of splits, but no table is of training" in problem(root)


@pytest.mark.parametrize(
    ("label", "warning"),
    [
        ("?", "'?' counts as a class, with 3 image(s); if it stands for no label, remove these"),
        ("Unknown", "'Unknown' counts as a class, with 3 image(s)"),
        ("None", "'None' counts as a class, with 3 image(s)"),
        ("unknown oak", None),
    ],
)
def test_labels_that_may_say_that_there_is_none(tmp_path, label, warning):
    labels = ["rose", "tulip", label] * 3
    root = made(tmp_path, "file,label", lambda i: f"{NINE[i]},{labels[i]}")
    split = sources.SplitConfig(test_fraction=0, folds=0)
    data, _ = sources.scan(root, split=split)
    assert data.num_classes == 3
    assert [warning in each for each in data.warnings] == ([True] if warning else [])


def test_one_label_of_all_test_images(tmp_path):
    root = made(tmp_path, "file,label", lambda i: f"{NINE[i]},{i % 3}", count=6)
    for name, labels, is_said in [("test.csv", "000", True), ("test.csv", "001", False),
                                  ("val.csv", "000", False)]:  # fmt: skip
        (root / "test.csv").unlink(missing_ok=True)
        touch(root, [f"images/{file}" for file in NINE[6:]])
        rows = [f"{file},{label}" for file, label in zip(NINE[6:], labels, strict=True)]
        (root / name).write_text("\n".join(["file,label", *rows]) + "\n")
        said = [each for each in sources.load_dataset(root).warnings if "all 3 test" in each]
        assert bool(said) is is_said
