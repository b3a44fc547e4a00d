"""CSV tables, written with the standard library's csv and read back."""

import csv
import io
import os
import pathlib
import re
import tempfile
import unicodedata

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clevit_jax.data import sources
from clevit_jax.data.layouts.listing import Request
from clevit_jax.errors import DataError

FILES = ["images/a 1.png", "images/b.JPG", "images/c.png", "images/d.png"]
TRAIN = b"file,label\na 1.png,ash\nb.JPG,oak\n"
TEST = b"file,label\nc.png,ash\nd.png,oak\n"


def make(root: pathlib.Path, tables: dict, files=FILES) -> pathlib.Path:
    for file in files:
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).touch()
    root.mkdir(exist_ok=True)
    for name, text in tables.items():
        (root / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    return root


def problems(root, **options) -> tuple[str, ...]:
    with pytest.raises(DataError) as caught:
        sources.load_dataset(root, **options)
    return caught.value.problems


def labels(examples) -> list[tuple[str, int]]:
    return [(example.name, example.label) for example in examples]


def test_train_and_test(tmp_path):
    data = sources.load_dataset(make(tmp_path, {"train.csv": TRAIN, "test.csv": TEST}))
    assert (data.layout, data.recognised_by) == ("csv", "train.csv and test.csv")
    assert (data.class_names, data.warnings) == (("ash", "oak"), ())
    assert [tuple(e) for e in data.train] == [
        (tmp_path / "images/a 1.png", 0, 0, "images/a 1.png"),
        (tmp_path / "images/b.JPG", 1, 1, "images/b.JPG"),
    ]
    assert labels(data.test) == [("images/c.png", 0), ("images/d.png", 1)]


@pytest.mark.parametrize(
    "text",
    [
        b"\xef\xbb\xbf" + TRAIN,
        TRAIN.replace(b"\n", b"\r\n"),
        TRAIN.replace(b"\n", b"\r"),
        TRAIN.rstrip(b"\n"),
        b"\n" + TRAIN.replace(b"\n", b"\n \n,\n"),
        TRAIN.replace(b",", b";"),
        TRAIN.replace(b",", b"\t"),
        TRAIN.replace(b",", b" , ").replace(b"label", b"Label "),
        TRAIN.replace(b"oak", b'"oak"').replace(b"file", b'"FILE"'),
        b"".join(b"%s,7,%s\n" % tuple(line.split(b",")) for line in TRAIN.splitlines()),
        # What Kaggle's lists are called.
        TRAIN.replace(b"file,label", b"dir,class_id"),
        TRAIN.replace(b"file,label", b"File Name,Species"),
    ],
)
def test_dialects(tmp_path, text):
    plain = sources.load_dataset(make(tmp_path / "plain", {"train.csv": TRAIN, "test.csv": TEST}))
    other = sources.load_dataset(make(tmp_path / "other", {"train.csv": text, "test.csv": TEST}))
    assert other.class_names == plain.class_names
    assert [e[1:] for e in other.train] == [e[1:] for e in plain.train]


@pytest.mark.parametrize("name", ["Training.CSV", "train.tsv"])
@pytest.mark.parametrize("test", ["TEST.csv", "testing.tsv"])
def test_table_names(tmp_path, name, test):
    data = sources.load_dataset(make(tmp_path, {name: TRAIN, test: TEST, "valid.csv": TEST}))
    assert [len(inside) for inside in data.splits.values()] == [2, 2, 2]
    assert list(data.splits) == ["train", "val", "test"]


def test_one_table_with_a_split_column(tmp_path):
    rows = "img,target,subset\na 1.png,x,TRAIN\nb.JPG,y,training\nc.png,x,Test\nd.png,y, val\n"
    data = sources.load_dataset(
        make(tmp_path, {"list.csv": rows, "sizes.csv": "width,height\n1,2\n"})
    )
    assert data.recognised_by == "the columns of list.csv, with its split column 'subset'"
    assert [labels(inside) for inside in data.splits.values()] == [
        [("images/a 1.png", 0), ("images/b.JPG", 1)],
        [("images/d.png", 1)],
        [("images/c.png", 0)],
    ]
    make(tmp_path, {"list.csv": rows.replace("Test", "3").replace("training", "")})
    assert problems(tmp_path)[:2] == (
        f"{tmp_path / 'list.csv'}, line 3: the split '' is not train, val or test.",
        f"{tmp_path / 'list.csv'}, line 4: the split '3' is not train, val or test.",
    )


def test_one_table_without_splits_is_cut(tmp_path):
    files = [f"{k}.png" for k in range(10)]
    rows = "".join(f"{file},{'ab'[k % 2]}\n" for k, file in enumerate(files))
    data = sources.load_dataset(make(tmp_path, {"list.csv": "path,class\n" + rows}, files))
    assert data.recognised_by == (
        "the columns of list.csv; test split: 20 % of the images, cut by seed 0"
    )
    assert (len(data.train), len(data.test)) == (8, 2)
    assert sorted(e.name for e in data.train + data.test) == files


def test_validation_stands_for_a_test_that_is_not_there(tmp_path):
    """As with class folders."""
    data = sources.load_dataset(make(tmp_path, {"train.csv": TRAIN, "val.csv": TEST}))
    assert (len(data.train), len(data.test), data.val) == (2, 2, ())


def test_an_unlabelled_test_is_not_read(tmp_path):
    """As on Kaggle. With a column of labels forced, too."""
    files = [f"{k}.png" for k in range(10)]
    rows = "".join(f"{file},{'ab'[k % 2]}\n" for k, file in enumerate(files))
    root = make(tmp_path, {"train.csv": "file,label\n" + rows, "test.csv": "file\nx.png\n"}, files)
    for request in (Request(), Request(label_column="label")):
        data = sources.load_dataset(root, request=request)
        assert len(data.train + data.test) == 10
        assert data.warnings == (
            f"{root / 'test.csv'} has no column of labels and is left out; images without labels "
            "are for --mode predict.",
        )
    make(root, {"test.csv": "width\n3\n"})
    assert [s for s in problems(root) if s.startswith(f"{root / 'test.csv'}: no column")]


def test_ids_without_ending(tmp_path):
    files = [
        "images/T_0.jpg",
        "images/T_1.JPG",
        "train/T_2.0.png",
        "a/T_3.bmp",
        "images/T_4",
        "images/T_4.png",
    ]
    rows = "image_id,label\nT_0,1\nT_1,2\nT_2.0,2\na/T_3,1\nT_4,1\n"
    root = make(tmp_path, {"train.csv": rows, "test.csv": "image_id,label\nT_0,1\n"}, files)
    assert labels(sources.load_dataset(root).train) == [
        ("images/T_0.jpg", 0), ("images/T_1.JPG", 1), ("train/T_2.0.png", 1), ("a/T_3.bmp", 0),
        ("images/T_4", 0),
    ]  # fmt: skip
    (root / "images" / "T_0.png").touch()
    said = "the file 'T_0' may be any of 'images/T_0.jpg', 'images/T_0.png'; write its ending."
    assert problems(root) == tuple(
        f"{root / name}, line 2: {said}" for name in ("train.csv", "test.csv")
    )
    make(root, {"test.csv": "image_id,label\nT_5.png,1\n"}, ["images/T_5.png.jpg"])
    assert f"{root / 'test.csv'}, line 2: the file 'T_5.png' is not in " in problems(root)[1]


def test_files_are_looked_for_in_the_folder_of_the_split(tmp_path):
    files = ["train/1.png", "test/1.png", "train_images/2.png", "test_images/2.png"]
    files += ["images/train/3.png", "images/test/3.png", "4.png", "images/4.png"]
    rows = "file,label\n1.png,a\n2.png,b\n3.png,a\n4.png,b\n"
    data = sources.load_dataset(make(tmp_path, {"train.csv": rows, "test.csv": rows}, files))
    assert [e.name for e in data.train] == [*files[0:5:2], "4.png"]
    assert [e.name for e in data.test] == [*files[1:6:2], "4.png"]


def test_one_hot(tmp_path):
    """Plant Pathology 2020; the label is that of NumPy's argmax over the columns."""
    header = ["image_id", "healthy", "multiple_diseases", "rust", "scab"]
    hot = np.eye(4, dtype=int)[[2, 0, 3, 1, 2]]
    rows = [[f"Train_{i}", *row] for i, row in enumerate(hot.tolist())]
    rows[0][1:] = [f"{x:.1f}" for x in rows[0][1:]]
    files = [f"images/Train_{i}.jpg" for i in range(5)]
    other = [
        [name, *row] for name, row in zip(["Train_0", "Train_4"], hot[[0, 4]].tolist(), strict=True)
    ]
    root = make(tmp_path, {"train.csv": written([header, *rows])}, files)
    # The columns of the test table may be in another order.
    swapped = [[row[i] for i in (4, 3, 2, 1, 0)] for row in [header, *other]]
    make(root, {"test.csv": written(swapped)}, files)
    data = sources.load_dataset(root)
    assert data.class_names == tuple(header[1:])
    assert [e.label for e in data.train] == hot.argmax(1).tolist()
    assert [e.label for e in data.test] == hot[[0, 4]].argmax(1).tolist()
    rows[1][2], rows[2][1:], rows[3][4], rows[4][1] = 1, [0, 0, 0, 0], "x", ""
    make(root, {"train.csv": written([header, *rows])}, files)
    place = f"{root / 'train.csv'}, line "
    assert problems(root)[:3] == (
        f"{root / 'train.csv'}: 2 of 5 rows have more or less than one class, by the columns "
        "'healthy', 'multiple_diseases', 'rust', ... (line 3: 2, line 4: 0); one class is learned "
        "for each image here: leave one 1 in each row, or remove the rows.",
        f"{place}5: the column 'scab' is 'x', not 0 or 1.",
        f"{place}6: the column 'healthy' is '', not 0 or 1.",
    )


def test_one_hot_with_a_class_of_no_image(tmp_path):
    text = "file,x,y,z\na 1.png,1,0,0\nb.JPG,0,0,1\n"
    data = sources.load_dataset(make(tmp_path, {"train.csv": text, "test.csv": text}))
    assert (data.class_names, [e.label for e in data.train]) == (("x", "z"), [0, 1])
    assert "1 of the labels 0 to 2 have no training image (1)" in data.warnings[0]
    make(tmp_path, {"train.csv": text.replace("y", "x")})
    assert problems(tmp_path)[0] == (
        f"{tmp_path / 'train.csv'}: the column 'x' is there more than once; rename or remove one."
    )


def test_one_hot_beside_other_columns(tmp_path):
    """The numbers of the rows, as pandas writes them, and the split."""
    text = ",file,split,x,y\n0,a 1.png,train,0,1\n1,b.JPG,train,1,0\n2,c.png,test,1,0\n"
    data = sources.load_dataset(make(tmp_path, {"all.csv": text}))
    assert data.class_names == ("x", "y")
    assert [e.label for e in data.train + data.test] == [1, 0, 0]
    make(tmp_path, {"all.csv": text.replace("0,1\n", "0\n", 1)})
    (found,) = problems(tmp_path, layout="csv")
    assert found.endswith("line 2: 4 field(s), but the header has 5; quote fields in which there "
                          "is a ','.")  # fmt: skip


def test_class_names_go_with_labels(tmp_path):
    text = "file,label,class_name\na 1.png,10,oak\nb.JPG,9,yew\nc.png,9,yew\n"
    root = make(tmp_path, {"train.csv": text, "test.csv": text})
    data = sources.load_dataset(root)
    assert (data.class_names, [e.label for e in data.train]) == (("yew", "oak"), [1, 0, 0])
    # The only column of classes is that of labels.
    make(root, {"train.csv": text.replace("label", "x"), "test.csv": text.replace("label", "x")})
    assert sources.load_dataset(root).class_names == ("oak", "yew")
    make(root, {"train.csv": text + "d.png,9,oak\n", "test.csv": text})
    place = root / "train.csv"
    assert problems(root) == (
        f"{place}, line 5: label '9' has the class name 'oak' here but 'yew' at {place}, line 3.",
        f"{place}, line 5: the class name 'oak' goes with label '9' here but with label '10' at "
        f"{place}, line 2.",
    )
    make(root, {"train.csv": text + "d.png,9, \n"})
    assert problems(root) == (f"{place}, line 5: the class name is empty.",)
    make(root, {"train.csv": text.replace("label", "x") + "d.png,9, \n"})
    (found,) = [s for s in problems(root) if s.startswith(f"{place}, line 5: ")]
    assert found.endswith("the label is empty.")


@pytest.mark.parametrize(
    ("written_labels", "names", "warned"),
    [
        (["0", "1", "2"], ("0", "1", "2"), None),
        (["1", "3", "2"], ("1", "2", "3"), None),
        (["10", "9", "1"], ("1", "9", "10"), "7 of the labels 1 to 10 have no training image (2, "),
        (["0", "1", "3"], ("0", "1", "3"), "1 of the labels 0 to 3 have no training image (2); "),
        (["1.0", "2", "10."], ("1", "2", "10"), "7 of the labels 1 to 10 have"),
        (["1.0", "2", "x"], ("1.0", "2", "x"), None),
        (["-1", "1", "2"], ("-1", "1", "2"), "1 of the labels -1 to 2 have no training image (0)"),
        (["0", "1", "9" * 18], ("0", "1", "9" * 18), "have no training image (2, 3, 4, ...)"),
    ],
)
def test_numbers_as_labels(tmp_path, written_labels, names, warned):
    rows = zip(["a 1.png", "b.JPG", "c.png"], written_labels, strict=True)
    text = written([["image", "label"], *rows])
    data = sources.load_dataset(make(tmp_path, {"train.csv": text, "test.csv": text}))
    assert data.class_names == names
    whole = [label.removesuffix("0").rstrip(".") if "." in label else label
             for label in written_labels]  # fmt: skip
    assert [names[e.label] for e in data.train] == (whole if "x" not in names else written_labels)
    gaps = [s for s in data.warnings if "of the labels" in s]
    assert len(gaps) == (warned is not None)
    assert not gaps or warned in gaps[0]


def test_numbers_for_training_and_another_label_for_testing(tmp_path):
    tables = {"train.csv": "image,label\na 1.png,1.0\nb.JPG,3.0\n",
              "test.csv": "image,label\nc.png,x\nd.png,1.0\n"}  # fmt: skip
    assert problems(make(tmp_path, tables)) == (
        f"{tmp_path / 'test.csv'}, line 2: no training image has the label 'x'.",
    )


@pytest.mark.parametrize(
    ("header", "request_", "said"),
    [
        ("file,label,species", {}, "the columns 'label' (2 classes), 'species' (2 classes) may all "
         "hold the label; set data.label_column=label or data.label_column=species."),
        ("x,File,Path", {"label_column": "x"}, "the columns 'File', 'Path' may all hold the file; "
         "set data.file_column to one of them."),
        ("file,label,label", {}, "'label', 'label' may all hold the label; rename or remove one."),
        ("file,label,x", {"label_column": "y"}, "there is no column 'y', only 'file', 'label', "
         "'x'; set data.label_column to one of them."),
        ("file,label,x", {"file_column": "y"}, "set data.file_column to one of them."),
        ("file,x,y", {}, "no column is known to hold the label, of 'file', 'x', 'y'; set "
         "data.label_column to one of them."),
        ("file,label,x,set,split", {}, "the columns 'set', 'split' may all hold the split; set "
         "data.split_column to one of them."),
    ],
)  # fmt: skip
def test_columns_that_cannot_be_told(tmp_path, header, request_, said):
    rows = header + "\na 1.png,p,q" + ",train,train" * ("set" in header) + "\n"
    rows += "b.JPG,r,s" + ",train,test" * ("set" in header) + "\n"
    root = make(tmp_path, {"train.csv": rows})
    found = problems(root, layout="csv", request=Request(**request_))
    (about,) = [s for s in found if s.startswith(f"{root / 'train.csv'}: ")]
    assert said in about


def test_columns_asked_for(tmp_path):
    text = "file,label,species,Foto\nx,p,q,a 1.png\ny,p,r,b.JPG\n"
    root = make(tmp_path, {"train.csv": text, "test.csv": text})
    request = Request(file_column="foto", label_column="species")
    data = sources.load_dataset(root, request=request)
    assert data.class_names == ("q", "r")
    assert [e.name for e in data.train] == ["images/a 1.png", "images/b.JPG"]
    # Names that nobody could guess need the layout, too.
    make(root, {name: text.replace("file", "a").replace("label", "b") for name in
                ("train.csv", "test.csv")})  # fmt: skip
    assert sources.load_dataset(root, layout="csv", request=request).class_names == ("q", "r")


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("c.png", "1 field(s), but the header has 2; quote fields in which there is a ','."),
        ("c.png,ash,x", "3 field(s), but the header has 2"),
        ("c.png, ", "the label is empty."),
        (" ,ash", "the file is empty."),
        ("c.png,a\0sh", "there is a NUL character"),
        ("c\0.png,ash", "there is a NUL character"),
        ('"c.png"x,ash', "it is not CSV ("),
        ('"c.png,ash', "it is not CSV (unexpected end of data)"),
        (f"c.png,{'x' * 200_000}", "it is not CSV (field larger than field limit (131072))"),
        ("gone.png,ash", "the file 'gone.png' is not in the data set's folder, images/, train/, "),
        ("gone,ash", "the file 'gone' is not in"),
        ("b.JPG,ash", "'images/b.JPG' has label 'ash' here but label 'oak' at "),
    ],
)
def test_bad_row_is_named(tmp_path, row, said):
    text = TRAIN + b'"c.png","ash\r\n\n"\n'.replace(b"\r\n\n", b"") + b"\r\n\n" + row.encode()
    root = make(tmp_path, {"train.csv": text, "test.csv": TEST})
    (found,) = problems(root)
    assert found.startswith(f"{root / 'train.csv'}, line 7: ")
    assert said in found
    assert len(found.splitlines()) == 1


def test_a_quote_that_is_not_closed_in_a_long_table(tmp_path):
    """The rest of the table would be read as one field, and then as garbage."""
    root = make(tmp_path, {"train.csv": TRAIN + b'c.png,"oak\n' + b"x,y\n" * 50_000,
                           "test.csv": TEST})  # fmt: skip
    (found,) = problems(root)
    assert found.startswith(f"{root / 'train.csv'}, line 4: it is not CSV (field larger than")


def test_lines_are_counted_within_quoted_fields(tmp_path):
    text = b'file,label\n"a 1.png","a\nb"\r"b.JPG","c\r\nd"\r\ngone.png,x\n'
    root = make(tmp_path, {"train.csv": text})
    assert problems(root)[0].startswith(f"{root / 'train.csv'}, line 6: the file 'gone.png'")


def test_all_problems_at_once(tmp_path):
    root = make(
        tmp_path,
        {
            "train.csv": TRAIN + b"c.png\ngone.png,\n" + b'"x"y,z\n' * 2 + b"e.png,oak\n",
            "test.csv": TEST + b"b.JPG,elm\n/etc/x.png,ash\n",
            "val.csv": b"file,label\n\xff\n",
        },
    )
    places = [s.removeprefix(f"{root}{os.sep}").partition(": ")[::2] for s in problems(root)]
    assert [place for place, _ in places] == [
        "train.csv, line 4",
        "train.csv, line 5",
        "train.csv, line 5",
        "train.csv, line 6",
        "train.csv, line 7",
        "train.csv, line 8",
        "val.csv, line 2",
        "test.csv, line 5",
        "test.csv, line 4",
        "test.csv, line 4",
    ]
    assert "label 'elm' here but label 'oak' at" in places[-2][1]
    assert places[-1][1] == "no training image has the label 'elm'."


def test_a_file_listed_twice_is_a_warning(tmp_path):
    root = make(tmp_path, {"train.csv": TRAIN + b"images/b.JPG,oak\n", "test.csv": TEST})
    (warning,) = sources.load_dataset(root).warnings
    assert "1 file(s) are listed more than once for training" in warning
    assert "(images/b.JPG)" in warning


@pytest.mark.parametrize("name", ["../a.png", "x/../../a.png", "..\\a.png", "/etc/a.png", "C:\\a"])
def test_paths_that_point_out_are_refused(tmp_path, name):
    text = TRAIN + f"{name},oak\n".encode()
    root = make(tmp_path / "data", {"train.csv": text, "test.csv": TEST})
    make(tmp_path, {}, ["a.png"])
    data, found = sources.scan(root)
    assert found[0] == (
        f"{root / 'train.csv'}, line 4: the file {name!r} points out of the data set's folder; "
        "name it relative to the data set's folder."
    )
    assert len(data.train) == 2  # not even a check of the data may open it


def test_tables_that_are_empty(tmp_path):
    root = make(tmp_path, {"train.csv": "file,label\n", "test.csv": "\n"})
    assert problems(root) == (
        f"{root / 'train.csv'} lists no image.",
        f"{root / 'test.csv'}, line 1: it has no header; expected one, and a row per image.",
    )


def test_split_column_and_table_agree(tmp_path):
    text = "file,label,split\na 1.png,ash,train\nb.JPG,ash,val\n"
    root = make(tmp_path, {"train.csv": text, "test.csv": TEST})
    assert problems(root)[0] == (
        f"{root / 'train.csv'}, line 3: the split is 'val' in the table of the train split; "
        "move the row."
    )
    (root / "test.csv").unlink()
    assert [e.name for e in sources.scan(root)[0].test] == ["images/b.JPG"]


def test_several_tables(tmp_path):
    root = make(tmp_path, {"a.csv": TRAIN, "b.csv": TEST})
    assert problems(root) == (
        f"{root}: 'a.csv', 'b.csv' may all be the table; keep one, or name them train.csv, val.csv "
        "and test.csv.",
    )
    make(root, {"train.csv": TRAIN, "train.tsv": TRAIN})
    assert problems(root) == (
        f"{root}: 'train.csv', 'train.tsv' may all be the table of the train split; keep one.",
    )


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("results.csv", "epoch,loss\n1,2\n"),
        ("files.csv", "path,category\ndoc/a.txt,letters\n"),
        ("people.csv", "dir,class\n/home/x,admin\n"),
        ("sizes.csv", "file,width,height\na.png,100,200\n"),
        ("train.csv", "sepal,petal,species\n1,2,setosa\n"),
        ("train.csv", b"\xff\xfe\0"),
        (".hidden.csv", TRAIN),
    ],
)
def test_tables_of_other_things(tmp_path, name, text):
    root = make(tmp_path, {name: text}, [])
    (found,) = problems(root)
    assert "has no known layout (docs/data.md lists them)" in found


def test_layout_asked_for_without_a_table(tmp_path):
    (found,) = problems(tmp_path, layout="csv")
    assert found.startswith(f"{tmp_path} holds no table; looked for train.csv")


def test_another_layout_beside_it(tmp_path):
    root = make(tmp_path, {"train.csv": TRAIN}, [*FILES, "train/ash/1.png", "train/oak/1.png"])
    (found,) = problems(root)
    assert "data.layout=csv, by train.csv: 2 classes, 2 training images" in found
    assert "data.layout=folders, by train/<class>/: 2 classes, 2 training images" in found


def test_no_stat_for_each_file(tmp_path, monkeypatch):
    root = make(tmp_path, {"train.csv": TRAIN, "test.csv": TEST})
    calls = []
    for where, name in [(pathlib.Path, "stat"), (os, "stat"), (os.path, "exists")]:
        kept = getattr(where, name)

        def counted(path, *args, kept=kept, **options):
            calls.append(str(path))
            return kept(path, *args, **options)

        monkeypatch.setattr(where, name, counted)
    listed = []
    kept_scandir = os.scandir
    monkeypatch.setattr(os, "scandir", lambda path: listed.append(str(path)) or kept_scandir(path))
    sources.load_dataset(root, layout="csv")
    assert not [path for path in calls if path.lower().endswith((".png", ".jpg"))]
    assert listed.count(str(root / "images")) == 1


# Names as people, cameras and web pages give them.
_PIECES = ["?", "%20", "#", ",", ";", "\t", '"', "'", " ", "\r\n", "\n", "e\u0301", "é", "=", ".."]
_CHARACTERS = st.characters(exclude_categories=("Cs",), exclude_characters="\0/\\:")
_NAMES = st.lists(_CHARACTERS | st.sampled_from(_PIECES), max_size=8).map("".join)
_CLASSES = _NAMES.map(lambda name: unicodedata.normalize("NFC", name).strip()).filter(
    lambda name: name and not re.fullmatch(r"-?[0-9]+(\.0*)?|NA", name)
)


def written(rows, **dialect) -> bytes:
    """CSV as the standard library writes it."""
    fields = [str(field) for row in rows for field in row]
    if any(mark in field for field in fields for mark in "\r\n"):
        dialect["quoting"] = csv.QUOTE_ALL  # Python 3.11 leaves some line breaks unquoted
    out = io.StringIO(newline="")
    csv.writer(out, **dialect).writerows(rows)
    return out.getvalue().encode()


@st.composite
def _listed(draw) -> list[tuple[str, str]]:
    """(file, class), each file once."""
    classes = draw(st.lists(_CLASSES, min_size=2, max_size=3, unique=True))
    rows = []
    for number in range(draw(st.integers(2, 4))):
        folders = [f"{name}_/" for name in draw(st.lists(_NAMES, max_size=2))]
        ending = draw(st.sampled_from([".png", ".JPG", ".Jpeg", ".tif"]))
        file = "".join(folders) + f"{draw(_NAMES)}{number}{ending}"
        rows.append((file, classes[number] if number < 2 else draw(st.sampled_from(classes))))
    return rows


@settings(max_examples=100)
@given(
    rows=_listed(),
    delimiter=st.sampled_from(",;\t"),
    line_end=st.sampled_from(["\n", "\r\n", "\r"]),
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
    mark=st.sampled_from([b"", b"\xef\xbb\xbf"]),
    ended=st.booleans(),
    below=st.sampled_from(["", "images/", "train/"]),
)
def test_what_the_standard_library_writes_is_read(
    rows, delimiter, line_end, quoting, mark, ended, below
):
    text = written(
        [["file", "label"], *rows], delimiter=delimiter, lineterminator=line_end, quoting=quoting
    )
    text = mark + (text if ended else text.removesuffix(line_end.encode()))
    with tempfile.TemporaryDirectory() as folder:
        files = [below + name for name, _ in rows]
        root = make(pathlib.Path(folder), {"train.csv": text}, files)
        make(root, {"test.csv": written([["file", "label"], [files[0], rows[0][1]]])}, [])
        data = sources.load_dataset(root, layout="csv")  # class folders may be among the names
        assert all(e.data.is_file() for e in data.train)
    assert [e.name for e in data.train] == files
    assert [data.class_names[e.label] for e in data.train] == [name for _, name in rows]
    assert list(data.class_names) == sorted({name for _, name in rows})


@settings(max_examples=50)
@given(names=st.lists(_NAMES, min_size=2, max_size=4), forms=st.permutations(["NFC", "NFD"]))
def test_accents_in_another_form_are_found(names, forms):
    there, table = (
        [unicodedata.normalize(form, f"{name}\u00e9{k}.png") for k, name in enumerate(names)]
        for form in forms
    )
    rows = [["file", "label"], *([name, "ab"[k > 0]] for k, name in enumerate(table))]
    with tempfile.TemporaryDirectory() as folder:
        root = make(pathlib.Path(folder), {}, [f"images/{name}" for name in there])
        make(root, {"train.csv": written(rows), "test.csv": written(rows)}, [])
        data = sources.load_dataset(root)
        assert [e.name for e in data.train] == [f"images/{name}" for name in there]


@pytest.mark.parametrize("table", ["leaves.csv", "train.csv"])
def test_columns_that_are_set_are_recognised_by(tmp_path, table):
    text = "\ufeffDateiname;Sorte;Split\na 1.png;Esche;train\nb.JPG;Eiche;train\nc.png;Esche;test\n"
    root = make(tmp_path, {table: text})
    said = "no column is known to hold the label, of 'Dateiname', 'Sorte', 'Split'; set data.label_"
    assert said in problems(root)[0]
    wrong = problems(root, request=Request(file_column="Datei", label_column="Sorte"))
    assert "there is no column 'Datei', only 'Dateiname', 'Sorte', 'Split'" in wrong[0]
    data = sources.load_dataset(
        root, request=Request(file_column="Dateiname", label_column="Sorte")
    )
    assert (data.layout, data.class_names) == ("csv", ("Eiche", "Esche"))
    assert labels(data.test) == [("images/c.png", 1)]
