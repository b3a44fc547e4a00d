"""Folders in the manner of Hugging Face, and JSON lines, written by the standard library."""

import csv
import json
import pathlib

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from clevit_jax.data import sources
from clevit_jax.data.layouts.listing import Request
from clevit_jax.errors import DataError

NAMES = ("rose", "tulip", "lily")


def write(path: pathlib.Path, rows: list[dict], *, images: bool = True) -> pathlib.Path:
    """Writes a list in the form that its ending says, and the images beside; returns the list."""
    path.parent.mkdir(parents=True, exist_ok=True)
    match path.suffix:
        case ".csv":
            with path.open("w", newline="", encoding="utf-8") as stream:
                writer = csv.DictWriter(stream, list(rows[0]))
                writer.writeheader()
                writer.writerows(rows)
        case ".parquet":
            pq.write_table(pa.Table.from_pylist(rows), path)
        case _:
            lines = [json.dumps(row, ensure_ascii=False) for row in rows]
            path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    for row in rows if images else ():
        name = next(iter(row.values()))
        (path.parent / name).parent.mkdir(parents=True, exist_ok=True)
        (path.parent / name).touch()
    return path


def rows(count: int, folder: str = "", **more) -> list[dict]:
    return [{"file_name": f"{folder}{i:04}.png", "label": NAMES[i % 3], **more}
            for i in range(count)]  # fmt: skip


def listed(data, examples) -> list[tuple[str, str]]:
    return [(example.name, data.class_names[example.label]) for example in examples]


def problems(root, **options) -> tuple[str, ...]:
    with pytest.raises(DataError) as caught:
        sources.load_dataset(root, **options)
    return caught.value.problems


FORMS = ["metadata.csv", "metadata.jsonl", "metadata.parquet"]


@pytest.mark.parametrize("place", ["", "data/"])
@pytest.mark.parametrize("form", FORMS)
def test_a_list_in_each_split(tmp_path, form, place):
    """The same names in each split, as they are relative to the list."""
    for split, count in (("train", 6), ("validation", 3), ("test", 3)):
        write(tmp_path / f"{place}{split}/{form}", rows(count, text="é, 玫瑰"))
    data = sources.load_dataset(tmp_path)
    assert (data.layout, data.warnings) == ("metadata", ())
    assert data.recognised_by == ", ".join(
        f"{place}{split}/{form}" for split in ("test", "train", "validation")
    )
    assert data.class_names == tuple(sorted(NAMES))
    for split, examples in (("train", data.train), ("validation", data.val), ("test", data.test)):
        assert listed(data, examples) == [
            (f"{place}{split}/{i:04}.png", NAMES[i % 3]) for i in range(len(examples))
        ]
    assert (len(data.train), len(data.val), len(data.test)) == (6, 3, 3)
    assert all(example.data.is_file() for example in data.train)


@pytest.mark.parametrize("form", FORMS)
def test_one_list_of_unsplit_images(tmp_path, form):
    write(tmp_path / form, rows(9, "images/"))
    data = sources.load_dataset(tmp_path)
    assert data.layout == "metadata"
    assert sorted(listed(data, data.train + data.test)) == [
        (f"images/{i:04}.png", NAMES[i % 3]) for i in range(9)
    ]


def test_one_list_of_images_in_folders_of_splits(tmp_path):
    write(tmp_path / "metadata.jsonl", rows(6, "train/") + rows(3, "test/"))
    data = sources.load_dataset(tmp_path)
    assert [e.name for e in data.test] == [f"test/{i:04}.png" for i in range(3)]
    assert len(data.train) == 6


def test_a_column_says_the_split(tmp_path):
    made = [row | {"split": "test" if i > 6 else "train"} for i, row in enumerate(rows(9))]
    write(tmp_path / "metadata.jsonl", made)
    data = sources.load_dataset(tmp_path)
    assert [e.name for e in data.test] == ["0007.png", "0008.png"]
    made[4]["split"] = "sometimes"
    write(tmp_path / "metadata.jsonl", made)
    assert problems(tmp_path)[0] == (
        f"{tmp_path}/metadata.jsonl, line 5: the split 'sometimes' is not train, val or test."
    )


def test_numbers_with_names(tmp_path):
    write(
        tmp_path / "train/metadata.parquet",
        [{"file_name": f"{i}.png", "label": float(i % 3), "class_name": NAMES[i % 3]}
         for i in range(6)],
    )  # fmt: skip
    data = sources.load_dataset(tmp_path)
    assert data.class_names == NAMES
    assert sorted(listed(data, data.train + data.test)) == [
        (f"train/{i}.png", NAMES[i % 3]) for i in range(6)
    ]


@pytest.mark.parametrize("column", ["image_file_name", "x"])
def test_another_column_of_files(tmp_path, column):
    made = [{column: row["file_name"], "label": row["label"]} for row in rows(6)]
    write(tmp_path / "metadata.csv", made)
    request = Request(file_column=column if column == "x" else "")
    assert len(sources.load_dataset(tmp_path, layout="metadata", request=request).train) == 5


def test_files_without_a_row_and_test_images_without_labels_are_said(tmp_path):
    write(tmp_path / "train/metadata.csv", rows(6))
    write(tmp_path / "test/metadata.csv", [{"file_name": "a.png"}, {"file_name": "b.png"}])
    (tmp_path / "train/more.png").touch()
    data = sources.load_dataset(tmp_path)
    assert len(data.train + data.test) == 6
    assert data.warnings == (
        f"{tmp_path}/test/metadata.csv: no test image has a label; none of the 2 is read.",
        f"{tmp_path}: 3 images are in no list with labels, and are not read (test/a.png, "
        "test/b.png, train/more.png).",
    )


def one_hot(count: int, name="{:04}.jpg") -> list[dict]:
    """As Roboflow writes them, with a blank before each name and value."""
    return [
        {"filename": name.format(i)}
        | {f" {each}": f" {int(NAMES[i % 3] == each)}" for each in NAMES}
        for i in range(count)
    ]


def test_columns_of_0_and_1_in_each_split(tmp_path):
    for split, count in (("train", 6), ("valid", 3), ("test", 3)):
        write(tmp_path / f"{split}/_classes.csv", one_hot(count))
    data = sources.load_dataset(tmp_path)
    assert (data.layout, data.class_names) == ("metadata", NAMES)  # as the header has
    assert listed(data, data.val) == [(f"valid/{i:04}.jpg", NAMES[i]) for i in range(3)]
    assert (len(data.train), len(data.test)) == (6, 3)
    made = one_hot(6)
    made[1][" lily"] = made[2][" rose"] = " 1"
    path = write(tmp_path / "train/_classes.csv", made)
    (found,) = problems(tmp_path)
    assert found == (
        f"{path}: 2 of 6 rows have more or less than one class, by the columns 'rose', 'tulip', "
        "'lily' (line 3: 2, line 4: 2); one class is learned for each image here: leave one 1 in "
        "each row, or remove the rows."
    )


def test_boxes_in_each_split(tmp_path):
    """One example for each file, where the boxes in it are of one class."""
    made = [{"filename": f"{i // 2}.jpg", "class": NAMES[i // 2 % 3], "xmin": i, "xmax": i + 1}
            for i in range(12)]  # fmt: skip
    path = write(tmp_path / "train/_annotations.csv", made)
    write(tmp_path / "test/_annotations.csv", made[:6])
    data = sources.load_dataset(tmp_path)
    assert listed(data, data.train) == [(f"train/{i}.jpg", NAMES[i % 3]) for i in range(6)]
    assert len(data.test) == 3
    assert data.warnings[0] == (
        f"{path}: its 12 rows are boxes in 6 images; each image counts once, whole."
    )
    made[1]["class"] = "lily"
    write(path, made)
    assert problems(tmp_path) == (
        f"{path}: 1 of 6 images have boxes of several classes ('train/0.jpg': 'lily' and 'rose'), "
        "and one class is learned for each image here: cut the boxes out into images of their own, "
        "or remove the other rows.",
    )


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("train.jsonl", "val.jsonl", "test.jsonl"), (6, 6, 6)),
        (("train.ndjson", "test.ndjson"), (6, 0, 6)),
        (("flowers_train.jsonl", "flowers_dev.jsonl"), (6, 0, 6)),
        (("data.jsonl",), (5, 0, 1)),
    ],
)
def test_json_lines(tmp_path, names, expected):
    for name in names:
        stem = name.partition(".")[0]
        made = [{"image": f"{stem}{i}.jpg", "label": NAMES[i % 3], "box": [1]} for i in range(6)]
        write(tmp_path / name, made, images=False)
        for row in made:
            (tmp_path / "images").mkdir(exist_ok=True)
            (tmp_path / "images" / row["image"]).touch()
    data = sources.load_dataset(tmp_path)
    assert (len(data.train), len(data.val), len(data.test)) == expected
    assert data.train[0].name.startswith("images/")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"file_name": "0001.png", "label": ""}', "line 7: the label is empty."),
        ('{"file_name": "0001.png", "label": null}', "line 7: the label is empty."),
        ('{"file_name": "", "label": "rose"}', "line 7: the file is empty."),
        ('{"file_name": "0001.png", "label": "x"}', "'0001.png' has label 'x' here but label"),
        ('{"file_name": "/etc/passwd", "label": "x"}', "'/etc/passwd' is not below the data set"),
        ('{"file_name": "0001.png", ', "line 7: it is not JSON (Expecting property name"),
        ("[" * 10**5, "line 7: it is not JSON (maximum recursion depth exceeded"),
        ('"0001.png"', "line 7: it is no JSON object."),
        ('{"file_name": 7, "label": 8}', "the file '7' is not below the data set's folder."),
    ],
)
def test_bad_line_is_named(tmp_path, line, said):
    path = write(tmp_path / "metadata.jsonl", rows(6))
    path.write_text(path.read_text() + line + "\n")
    (found,) = problems(tmp_path)
    assert said in found
    assert found.startswith(f"{path}")


def test_bad_tables_are_named(tmp_path):
    path = write(tmp_path / "train/metadata.csv", rows(6))
    text = path.read_text()
    path.write_text(text + "0001.png,rose,red\n")
    assert "line 8: 3 field(s), but the header has 2;" in problems(tmp_path)[0]
    path.write_text(text + '"0001.png"x,rose\n')
    assert "line 8: it is not CSV (" in problems(tmp_path)[0]
    path.write_text("file_name,label\n")
    assert problems(tmp_path, layout="metadata")[0].endswith("metadata.csv lists no image.")
    path.unlink()
    assert "holds no list of images; looked for" in problems(tmp_path, layout="metadata")[0]
    write(tmp_path / "train/metadata.parquet", rows(6))
    write(tmp_path / "train/metadata.jsonl", rows(6))
    (found,) = problems(tmp_path)
    assert "'train/metadata.jsonl', 'train/metadata.parquet' may each be the list of the" in found


def test_metadata_without_labels(tmp_path):
    """Folders are the classes, or the column of labels is asked for."""
    for name in NAMES:
        made = [{"file_name": f"{name}/{i}.png", "text": "a flower"} for i in range(2)]
        write(tmp_path / f"train/{name}.csv", made)
        (tmp_path / f"train/{name}.csv").rename(tmp_path / "train/metadata.csv")
    assert sources.load_dataset(tmp_path).layout == "folders"
    write(tmp_path / "flat/metadata.csv", [{"file_name": "0.png", "text": "a"}])
    assert problems(tmp_path / "flat") == (
        f"{tmp_path}/flat/metadata.csv: no column is known to hold the label, of 'file_name', "
        "'text'; set data.label_column to one of them.",
    )
    write(tmp_path / "flat/metadata.csv", rows(6))
    (found,) = problems(tmp_path / "flat", request=Request(label_column="kind"))
    assert "there is no column 'kind', only 'file_name', 'label'" in found


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("metadata.csv", "id,year\n1,2\n"),
        ("metadata.jsonl", '{"epoch": 1}\n'),
        ("metrics.jsonl", '{"step": 1, "loss": 2.0}\n'),
        ("train.jsonl", '{"text": "good", "label": 1}\n'),
        ("metadata.csv", '"a\n'),
        (".train.jsonl", '{"image": "0.png", "label": 1}\n'),
        ("train.jsonl", "[1]\n"),
    ],
)
def test_lists_of_other_things(tmp_path, name, line):
    (tmp_path / name).write_text(line)
    for i in range(4):
        (tmp_path / f"train/{i % 2}").mkdir(parents=True, exist_ok=True)
        (tmp_path / f"train/{i % 2}/{i}.png").touch()
    assert sources.load_dataset(tmp_path, layout="auto").layout == "folders"


def test_a_finer_field_beside_a_label_is_asked_about(tmp_path):
    made = [{**row, "label": "ab"[i % 3 > 1], "sub_label": NAMES[i % 3]}
            for i, row in enumerate(rows(9))]  # fmt: skip
    write(tmp_path / "metadata.jsonl", made)
    (found,) = problems(tmp_path)
    assert "the columns 'label' (2 classes), 'sub_label' (3 classes) may all hold the" in found
    assert "set data.label_column=label or data.label_column=sub_label" in found
    data = sources.load_dataset(tmp_path, request=Request(label_column="sub_label"))
    assert sorted(data.class_names) == sorted(NAMES)
    write(tmp_path / "metadata.jsonl", [{**row, "sub_label": i} for i, row in enumerate(made)])
    assert sources.load_dataset(tmp_path).num_classes == 2


def test_folds_are_those_of_a_table(tmp_path):
    write(tmp_path / "metadata.jsonl", [{**row, "fold": i // 3} for i, row in enumerate(rows(9))])
    data = sources.load_dataset(tmp_path)
    assert [example.name for example in data.test] == [row["file_name"] for row in rows(9)[:3]]
    drawn = sources.load_dataset(tmp_path, request=Request(split_column="none"))
    assert len(drawn.train) + len(drawn.test) == 9
    assert not any("fold" in warning for warning in drawn.warnings)
