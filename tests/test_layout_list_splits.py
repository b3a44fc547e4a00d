"""Splits and forms of lists of images that their names alone do not tell."""

import pytest
from test_layout_lists import PAIRS, check, files, lines, make, problems, read, told

NAMES = ("rose", "tulip", "lily")
EXPECTED = {
    split: sorted((f"images/{file}", file.split("/")[0]) for file, _ in pairs)
    for split, pairs in PAIRS.items()
}


def as_expected(data) -> None:
    for split, examples in (("train", data.train), ("test", data.test)):
        assert sorted(told(examples, data)) == EXPECTED[split]


def test_a_test_list_without_labels_has_those_of_its_folders(tmp_path):
    """As the lists of UCF101: `<file> <label>` for training, `<file>` for testing."""
    texts = {"train.txt": lines(f"{file} {label}" for file, label in PAIRS["train"]),
             "test.txt": lines(file for file, _ in PAIRS["test"])}  # fmt: skip
    data = read(make(tmp_path, files(), texts))
    as_expected(data)
    (said,) = data.warnings
    assert "test.txt has no labels: its 3 images have those of their folders." in said
    make(tmp_path, ["images/daisy/9.jpg"], {"test.txt": lines(["daisy/9.jpg", "rose/9.jpg"])})
    assert any("its 2 images are left out" in said for said in read(tmp_path).warnings)


def test_a_test_list_of_files_in_the_list_of_all_is_not_trained_on(tmp_path):
    """As those of Birdsnap."""
    rows = [f"{file}\t{label}" for split in PAIRS for file, label in PAIRS[split]]
    texts = {"images.txt": lines(["path\tspecies_id", *rows]),
             "test_images.txt": lines(["path", *(file for file, _ in PAIRS["test"])])}  # fmt: skip
    data = read(make(tmp_path, files(), texts))
    as_expected(data)
    assert "images have theirs from the list of all, and are not trained on" in data.warnings[0]


@pytest.mark.parametrize("name", ["list.txt", "train.txt"])
@pytest.mark.parametrize(
    ("header", "row"),
    [
        ("name label split", "{file} {name} {split}"),
        ("", "{file} {name} {split}"),
        ("", "{file} red {name} {split}"),
        ("", "{file} {label} {split}"),
        ("file\tspecies\tset", "{file}\t{name}\t{split}"),
        ("path,label,is_train", "{file},{name},{flag}"),
    ],
)
def test_a_column_tells_the_split(tmp_path, name, header, row):
    rows = [
        row.format(
            file=file,
            label=label,
            name=NAMES[label],
            split=split,
            flag=int(split == "train"),
        )
        for split, pairs in PAIRS.items()
        for file, label in pairs
    ]
    data = read(make(tmp_path, files(), {name: lines([header] * bool(header) + rows)}))
    assert len(data.train) == 9
    assert len(data.test) == 3
    assert {example.name for example in data.test} == {f"images/{f}" for f, _ in PAIRS["test"]}
    called = {name.removeprefix("red ") for name in data.class_names}
    assert called == set(NAMES)


def test_a_list_for_each_class(tmp_path):
    """As the splits of HMDB51: `rose_train.txt` of files alone."""
    texts = {
        f"splits/{name}_{split}.txt": lines(f for f, label in pairs if NAMES[label] == name)
        for split, pairs in PAIRS.items()
        for name in NAMES
    }
    as_expected(read(make(tmp_path, files(), texts)))


def test_a_list_that_has_a_partner_with_a_longer_name(tmp_path):
    """As Places365: the names of the lists for training say which of two they are."""
    texts = {
        f"places365_{name}.txt": lines(f"{file} {label}" for file, label in PAIRS[split])
        for split, name in (("train", "train_standard"), ("test", "val"))
    }
    assert check(make(tmp_path, files(), texts)).warnings == ()
    other = {"other_val.txt": lines(f"{file} {label}" for file, label in PAIRS["test"])}
    data = read(make(tmp_path, [], other))
    as_expected(data)
    assert "other_val.txt: not read, as no list of training images is called alike" in str(
        data.warnings
    )


@pytest.mark.parametrize(
    "row", ['"{}/{}" {}', "{}/{}|{}", "{}/{}: {}", "{}/{}:{}", "{}/{} = {}", '"{}/{}",{}']
)
def test_quotes_and_signs(tmp_path, row):
    """Around names with blanks, and between file and class."""
    there = [f"images/{folder}/my photo {k}.jpg" for folder in "ab" for k in range(4)]
    texts = {
        f"{split}.txt": lines(
            row.format(folder, f"my photo {k}.jpg", folder.upper()) for folder in "ab" for k in some
        )
        for split, some in (("train", range(3)), ("test", (3,)))
    }
    data = read(make(tmp_path, there, texts))
    assert data.class_names == ("A", "B")
    assert [(e.name, e.label) for e in data.train] == [
        (f"images/{folder}/my photo {k}.jpg", label)
        for label, folder in enumerate("ab")
        for k in range(3)
    ]
    assert [e.label for e in data.test] == [0, 1]


def test_folders_called_by_digits_are_no_letters_that_classes_are_sorted_by(tmp_path):
    named = [f"{c}/{k}.jpg" for c in ("1/10", "1/11", "2/20") for k in range(4)]
    root = make(tmp_path, [f"images/{name}" for name in named], {"train.txt": lines(named)})
    (found,) = problems(root)
    assert "data.class_level=top, 2 as '1', or data.class_level=leaf, 3 as '1/10'" in found


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-8-sig"])
def test_encodings(tmp_path, encoding):
    texts = {
        f"{split}.txt": "".join(f"{file} {label}\r\n" for file, label in pairs).encode(encoding)
        for split, pairs in PAIRS.items()
    }
    as_expected(read(make(tmp_path, files(), texts)))


def test_tables_of_one_column_are_lists(tmp_path):
    """`train.csv` of files alone; the classes are their folders."""
    texts = {
        f"{split}.csv": lines(["path", *(file for file, _ in pairs)])
        for split, pairs in PAIRS.items()
    }
    as_expected(read(make(tmp_path, files(), texts)))
    (tmp_path / "sample_submission.csv").write_text("path,label\n9.jpg,rose\n")
    as_expected(read(tmp_path))
    (tmp_path / "test.csv").write_text("path,width\nrose/0.jpg,3\n")  # which is none
    assert "has no known layout" in problems(tmp_path)[0]


def of_voc(order=("1", "-1", "0")) -> dict[str, str]:
    """A list for each class and split, as Pascal VOC's: yes, no, or hard to see."""
    yes, no, _ = order
    return {
        f"ImageSets/Main/{name}_{split}.txt": lines(
            f"{file.removesuffix('.jpg')} {yes if file.split('/')[0] == name else no:>2}"
            for file, _ in pairs
        )
        for name in NAMES
        for split, pairs in PAIRS.items()
    }


def test_a_list_of_yes_and_no_for_each_class(tmp_path):
    root = make(tmp_path, files(), of_voc())
    data = read(root)
    as_expected(data)
    assert sorted(data.class_names) == sorted(NAMES)


def test_images_of_several_classes_by_lists_of_yes_and_no_are_asked_about(tmp_path):
    root = make(tmp_path, files(), of_voc())
    path = root / "ImageSets/Main/rose_train.txt"
    path.write_text(path.read_text().replace("-1", " 1", 1))
    (found,) = problems(root)
    assert "tell yes and no of 3 classes, and 1 of 12 images" in found
    assert "set data.label_column=" in found
    data = read(root, label_column="tulip")
    assert sorted(data.class_names) == ["-1", "1"]


def test_columns_of_yes_and_no_in_a_list(tmp_path):
    texts = {
        f"{split}.txt": lines(
            f"{file} {' '.join(str(int(file.split('/')[0] == name)) for name in NAMES)}"
            for file, _ in pairs
        )
        for split, pairs in PAIRS.items()
    }
    root = make(tmp_path, files(), texts | {"classes.txt": lines(NAMES)})
    as_expected(read(root))
    head = f"image {' '.join(NAMES)}\n"
    make(tmp_path, [], {name: head + text for name, text in texts.items()})
    (root / "classes.txt").unlink()
    as_expected(read(root))


def test_folds_of_a_list_are_told_of(tmp_path):
    rows = [f"{file} {label} {i % 3}" for i, (file, label) in enumerate(PAIRS["train"])]
    root = make(tmp_path, files(), {"train.txt": lines(["file label fold", *rows])})
    assert "the column 'fold' tells folds, which are read of CSV tables" in read(root).warnings[0]
