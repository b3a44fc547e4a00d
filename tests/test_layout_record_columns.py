"""Columns of JSON, JSON lines, Parquet, Arrow and tars are told as those of the same CSV table."""

import csv
import io
import json
import pathlib
import tarfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from clevit_jax.data import sources
from clevit_jax.data.layouts.listing import Request
from clevit_jax.data.layouts.store.parquet_schema import is_prose
from clevit_jax.errors import DataError

NAMES = ("rose", "tulip", "lily")
COUNT = 12


def rows_of(make, file: str = "image") -> list[dict]:
    return [{file: f"{i:04}.jpg"} | make(i) for i in range(COUNT)]


def as_csv(root: pathlib.Path, rows: list[dict]) -> None:
    with (root / "labels.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def as_json(root: pathlib.Path, rows: list[dict]) -> None:
    (root / "labels.json").write_text(json.dumps(rows))


def as_images(root: pathlib.Path, rows: list[dict]) -> None:
    (root / "labels.json").write_text(json.dumps({"info": {"year": 1}, "images": rows}))


def as_lines(root: pathlib.Path, rows: list[dict]) -> None:
    (root / "all.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def as_parquet(root: pathlib.Path, rows: list[dict]) -> None:
    pq.write_table(pa.Table.from_pylist(rows), root / "all.parquet")


def as_arrow(root: pathlib.Path, rows: list[dict]) -> None:
    table = pa.Table.from_pylist(rows)
    with pa.ipc.new_stream(str(root / "data.arrow"), table.schema) as writer:
        writer.write_table(table)


def as_tar(root: pathlib.Path, rows: list[dict]) -> None:
    with tarfile.open(root / "all.tar", "w") as tar:
        for row in rows:
            stem = pathlib.Path(row["image"]).stem
            about = {key: value for key, value in row.items() if key != "image"}
            for ending, data in (("jpg", b"x"), ("json", json.dumps(about).encode())):
                info = tarfile.TarInfo(f"{stem}.{ending}")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))


OTHERS = [as_json, as_images, as_lines, as_parquet, as_arrow, as_tar]
GENUS = ("Rosa", "Rosa", "Lilium")
ALBA = ("alba", "nigra", "alba")  # of two genera
CASES = {
    "a number and its name": (lambda i: {"label_id": i % 3, "label": NAMES[i % 3]}, {}),
    "numbers as 3.0": (lambda i: {"label": float(i % 3), "class_name": NAMES[i % 3]}, {}),
    "genus above": (lambda i: {"family": "ab"[i % 3 // 2], "genus": GENUS[i % 3],
                               "species": NAMES[i % 3]}, {}),
    "words of splits": (lambda i: {"label": NAMES[i % 3], "subset": "TRAIN" if i < 9 else "dev"},
                        {}),
    "yes and no": (lambda i: {"label": NAMES[i % 3], "is_test": i > 8, "is_valid": i in (0, 1)},
                   {}),
    "another split column": (lambda i: {"label": NAMES[i % 3], "split": "train",
                                        "mine": ("train", "test")[i > 8]},
                             {"split_column": "mine"}),
    "no split column": (lambda i: {"label": NAMES[i % 3], "split": ("train", "test")[i > 4]},
                        {"split_column": "none"}),
    "two together": (lambda i: {"genus": GENUS[i % 3], "species": ALBA[i % 3]},
                     {"label_column": "genus+species"}),
    "another label column": (lambda i: {"label": "x", "kind": NAMES[i % 3]},
                             {"label_column": "kind"}),
    "breed": (lambda i: {"breed": NAMES[i % 3], "age": 0.5 + i}, {}),
    "family alone": (lambda i: {"family": GENUS[i % 3], "year": 2000 + i}, {}),
    "folds": (lambda i: {"label": NAMES[i % 3], "fold": i % 2}, {}),
    "zeros and ones": (lambda i: {name: int(NAMES[i % 3] == name) for name in NAMES}, {}),
    "a test without labels": (lambda i: {"split": ("train", "test")[i > 8],
                                         "label": NAMES[i % 3] if i < 9 else ""}, {}),
}  # fmt: skip
REFUSED = {
    "genus beside species": (lambda i: {"genus": GENUS[i % 3], "species": ALBA[i % 3]}, {}),
    "two labels": (lambda i: {"label": i % 3, "category": i % 4, "target": i % 2}, {}),
    "no such split": (lambda i: {"label": i % 3, "split": "abc"[i % 3]}, {}),
}


def listed(data) -> dict[str, set[tuple[str, str]]]:
    """Split -> (name of the image, class) of each."""
    return {
        split: {(pathlib.PurePath(e.name).name, data.class_names[e.label]) for e in examples}
        for split, examples in data.splits.items()
    }


def folder(root: pathlib.Path, write, rows: list[dict]) -> pathlib.Path:
    root.mkdir()
    if write is not as_tar:
        for row in rows:
            (root / row["image"]).touch()
    write(root, rows)
    return root


@pytest.mark.parametrize("write", OTHERS, ids=lambda write: write.__name__)
@pytest.mark.parametrize("case", CASES)
def test_columns_are_told_as_those_of_csv(tmp_path, case, write):
    make, options = CASES[case]
    rows, request = rows_of(make), Request(**options)
    expected = sources.load_dataset(folder(tmp_path / "a", as_csv, rows), request=request)
    data = sources.load_dataset(folder(tmp_path / "b", write, rows), request=request)
    assert (data.class_names, data.levels) == (expected.class_names, expected.levels)
    if listed(data) != listed(expected):  # a split that is drawn depends on the names of the files
        every = [set().union(*listed(each).values()) for each in (data, expected)]
        assert every[0] == every[1]
        sizes = [{split: len(each) for split, each in d.splits.items()} for d in (data, expected)]
        assert write is as_tar
        assert sizes[0] == sizes[1]


@pytest.mark.parametrize("write", OTHERS, ids=lambda write: write.__name__)
@pytest.mark.parametrize("case", REFUSED)
def test_what_csv_asks_is_asked(tmp_path, case, write):
    make, options = REFUSED[case]
    rows, said = rows_of(make), list[str]()
    for name, each in (("a", as_csv), ("b", write)):
        root = folder(tmp_path / name, each, rows)
        with pytest.raises(DataError) as caught:
            sources.load_dataset(root, request=Request(**options))
        assert len(caught.value.problems) == 1
        said.append(str(caught.value).partition("the column")[2])
    assert said[0] == said[1] != ""


@pytest.mark.parametrize("write", OTHERS, ids=lambda write: write.__name__)
def test_a_label_that_is_not_there_is_one_sentence(tmp_path, write):
    rows = rows_of(lambda i: {"number": i})
    root = folder(tmp_path / "a", write, rows)
    for request, expected in (
        (Request(), ("hold the label, of", "no known layout")),
        (Request(label_column="kind"), ("there is no column 'kind', only", "no known layout")),
    ):
        with pytest.raises(DataError) as caught:
            sources.load_dataset(root, request=request)
        (found,) = caught.value.problems
        assert any(each in found for each in expected)


def parquet_of(path: pathlib.Path, rows: list[dict]) -> None:
    pq.write_table(pa.Table.from_pylist(rows), path)


def test_columns_of_several_files_are_told_together(tmp_path):
    """Each file has one class, so that no file alone tells the level."""
    rows = rows_of(lambda i: {"genus": GENUS[i // 4], "species": NAMES[i // 4]})
    for row in rows:
        (tmp_path / row["image"]).touch()
    for k in range(3):
        parquet_of(tmp_path / f"{k}.parquet", rows[4 * k : 4 * k + 4])
    data = sources.load_dataset(tmp_path)
    assert data.class_names == tuple(sorted(NAMES))
    assert [tuple(level) for level in data.levels] == [("genus", ("Lilium", "Rosa", "Rosa"))]


def test_a_file_of_a_split_beside_one_with_a_column_of_it(tmp_path):
    rows = rows_of(lambda i: {"label": NAMES[i % 3]})
    for row in rows:
        (tmp_path / row["image"]).touch()
    parquet_of(tmp_path / "test.parquet", rows[:3])
    parquet_of(tmp_path / "rest.parquet", [row | {"split": "train"} for row in rows[3:]])
    data = sources.load_dataset(tmp_path)
    assert (len(data.train), len(data.test)) == (9, 3)


def test_sentences_are_no_classes(tmp_path):
    rows = rows_of(lambda i: {"label": NAMES[i % 3], "text": f"{NAMES[i % 2]} " * 40})
    schema = pa.Table.from_pylist(rows).schema
    columns = [
        name for name in schema.names if not is_prose(name, pa.array([r[name] for r in rows]))
    ]
    assert columns == ["image", "label"]


def test_metadata_with_semicolons_in_windows_letters(tmp_path):
    text = "file_name;species\n" + "".join(f"{i:04}.jpg;Ros\xe9 {i % 3}\n" for i in range(COUNT))
    (tmp_path / "metadata.csv").write_bytes(text.encode("cp1252"))
    for i in range(COUNT):
        (tmp_path / f"{i:04}.jpg").touch()
    data = sources.load_dataset(tmp_path)
    assert (data.layout, data.class_names) == ("metadata", ("Rosé 0", "Rosé 1", "Rosé 2"))
    assert any("read as Windows-1252" in warning for warning in data.warnings)


def test_the_json_of_an_image_contradicts_the_split_of_its_tar(tmp_path):
    rows = rows_of(lambda i: {"label": NAMES[i % 3], "split": ("train", "test")[i == 5]})
    as_tar(tmp_path, rows)
    assert len(sources.load_dataset(tmp_path).test) == 1
    (tmp_path / "all.tar").rename(tmp_path / "train.tar")
    with pytest.raises(DataError) as caught:
        sources.load_dataset(tmp_path)
    assert str(caught.value) == (
        f"{tmp_path}/train.tar, 0005: its JSON is of the test split, but the tar is of the train "
        "split."
    )


def test_the_split_of_folders_is_said_and_can_be_left(tmp_path):
    rows = [{"image": f"{('train', 'test')[i > 8]}/{i}.jpg", "label": NAMES[i % 3]}
            for i in range(COUNT)]  # fmt: skip
    for row in rows:
        (tmp_path / row["image"]).parent.mkdir(exist_ok=True)
        (tmp_path / row["image"]).touch()
    as_json(tmp_path, rows)
    data = sources.load_dataset(tmp_path)
    assert {e.name for e in data.test} == {f"test/{i}.jpg" for i in (9, 10, 11)}
    assert any("the split of each image is that of its folder" in each for each in data.warnings)
    drawn = sources.load_dataset(tmp_path, request=Request(split_column="none"))
    assert {e.name for e in drawn.test} != {e.name for e in data.test}
