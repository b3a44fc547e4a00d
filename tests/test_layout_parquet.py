"""Parquet files, written with pyarrow and read back."""

import base64
import collections
import concurrent.futures
import io
import json
import pathlib

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from clevit_jax.analysis.feature_file import Features, write_feature_file
from clevit_jax.data import decode, sources
from clevit_jax.data.layouts.listing import Request
from clevit_jax.data.layouts.store import parquet, parquet_images
from clevit_jax.errors import DataError, DecodeError


def pixels(number: int) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 256, (6, 6, 3), np.uint8)


def png(number: int) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels(number)).save(stream, "png")
    return stream.getvalue()


def images(*numbers: int) -> list[dict]:
    return [{"bytes": png(i), "path": f"{i}.png"} for i in numbers]


def write(path: pathlib.Path, columns: dict, *, metadata=None, **options) -> pathlib.Path:
    """Writes a file and returns its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    made = pa.table(columns)
    if metadata is not None:
        made = made.replace_schema_metadata({"huggingface": json.dumps(metadata)})
    pq.write_table(made, path, **options)
    return path.parent


def load(root, **options):
    return sources.load_dataset(root, **options)


def problems(root, **options) -> tuple[str, ...]:
    with pytest.raises(DataError) as caught:
        load(root, **options)
    return caught.value.problems


def listed(examples) -> list[tuple[str, int]]:
    return [(example.name, example.label) for example in examples]


TWO = {"image": images(0, 1), "label": [0, 1]}
THREE = {"image": images(0, 1, 2), "label": [0, 0, 1], "split": ["train", "test", "train"]}


@pytest.fixture
def hub(tmp_path):
    """A data set in the manner of Hugging Face's hub: shards by split, classes in the metadata."""
    names = {"info": {"features": {"label": {"names": ["ash", "oak"], "_type": "ClassLabel"}}}}
    for shard, numbers in enumerate([(0, 1, 2), (3, 4)]):
        columns = {"image": images(*numbers), "label": [i % 2 for i in numbers]}
        write(tmp_path / f"data/train-0000{shard}-of-00002.parquet", columns, metadata=names)
    for split, number in (("test", 5), ("validation", 6)):
        columns = {"image": images(number), "label": [number % 2]}
        write(tmp_path / f"data/{split}-00000-of-00001.parquet", columns, metadata=names)
    return tmp_path


def test_shards_of_the_hub(hub):
    data = load(hub)
    assert data.layout == "parquet"
    assert data.recognised_by == (
        "the column 'image' of data/test-00000-of-00001.parquet and 3 more"
    )
    assert (data.class_names, data.warnings) == (("ash", "oak"), ())
    assert listed(data.train) == [(f"{i}.png", i % 2) for i in range(5)]
    assert listed(data.test) == [("5.png", 1)]
    assert listed(data.val) == [("6.png", 0)]
    for number, example in enumerate((*data.train, *data.test, *data.val)):
        decoded = decode.decode_train(example.data, example.name, size=6)
        np.testing.assert_array_equal(decoded, pixels(number))
    assert str(data.train[4].data) == f"{hub}/data/train-00001-of-00002.parquet, row 1"


@pytest.mark.parametrize(
    "path",
    ["leaves_Valid.PARQUET", "test/0000.parquet", "data/testing/part-0.parquet"],
)
def test_the_split_is_told_by_file_or_folder(tmp_path, path):
    columns = TWO | {"file_name": ["a", "b"]}
    write(tmp_path / path, columns)
    place = tmp_path / "data" if path.startswith("data") else tmp_path
    write(place / "train-0.parquet", TWO)
    data = load(tmp_path)
    assert listed(data.test) == [("a", 0), ("b", 1)]
    assert data.val == ()  # they are tested on where there are no others


@pytest.mark.parametrize("kind", [pa.binary(), pa.large_binary(), pa.binary_view()])
@pytest.mark.parametrize(
    "labels", [["oak", "ash", "oak"], pa.array(["oak", "ash", "oak"]).dictionary_encode()]
)
def test_columns_of_any_type(tmp_path, kind, labels):
    columns = {
        "img": pa.array([png(0), png(1), png(2)], kind),
        "class": labels,
        "subset": ["training", "train", "TEST"],
        "image_id": [17, 18, 19],
        "boxes": [[1, 2], [], [3]],
    }
    data = load(write(tmp_path / "all.parquet", columns))
    assert data.class_names == ("ash", "oak")
    assert listed(data.train) == [("17", 1), ("18", 0)]
    assert listed(data.test) == [("19", 1)]
    assert [example.data.read() for example in data.train] == [png(0), png(1)]


def test_class_names_are_a_column(tmp_path):
    columns = {
        "image": images(0, 1, 2),
        "label": [10.0, 9.0, 10.0],
        "class_name": ["ash", "oak", "ash"],
        "split": ["train", "train", "test"],
    }
    data = load(write(tmp_path / "all.parquet", columns))
    assert data.class_names == ("oak", "ash")
    assert listed(data.train + data.test) == [("0.png", 1), ("1.png", 0), ("2.png", 1)]
    (warning,) = data.warnings
    assert "labels 1 to 10" in warning


def test_paths_that_do_not_tell_images_apart_are_no_names(tmp_path):
    same = [{"bytes": png(i), "path": "1.png"} for i in range(3)]
    columns = {"image": same, "label": [0, 1, 0], "split": ["train", "train", "test"]}
    data = load(write(tmp_path / "a b.parquet", columns))
    names = [example.name for example in data.train + data.test]
    assert names == [f"a b.parquet/{i}/1.png" for i in range(3)]


def test_a_column_of_names_is_believed(tmp_path):
    columns = {"image": images(0, 1), "label": [0, 1], "file_name": ["a.png", "a.png"]}
    assert problems(write(tmp_path / "all.parquet", columns)) == (
        f"{tmp_path}/all.parquet, row 1: 'a.png' has label '1' here but label '0' at "
        f"{tmp_path}/all.parquet, row 0.",
    )


def test_test_images_without_labels_are_left_out(tmp_path):
    write(tmp_path / "train.parquet", {"image": images(0, 1, 2), "label": [0, 1, 0]})
    write(tmp_path / "test.parquet", {"image": images(3, 4), "label": [-1, -1]})
    data = load(tmp_path, split=sources.SplitConfig(test_fraction=0.4))
    assert sorted(listed(data.train + data.test)) == [("0.png", 0), ("1.png", 1), ("2.png", 0)]
    assert data.warnings == (f"{tmp_path}: no test image has a label; none of the 2 is read.",)


WRONG = [
    ({"label": [0, None]}, "all.parquet, row 1: there is no label; add one,"),
    ({"label": [0, -1]}, "all.parquet, row 1: there is no label; add one,"),
    ({"label": [0.0, float("nan")]}, "all.parquet, row 1: there is no label; add one,"),
    ({"label": ["a", " "]}, "all.parquet, row 1: there is no label; add one,"),
    ({"label": [[0], [1]]}, "all.parquet: no column is known to hold the label, of 'image'"),
    ({"split": ["train", "none"]}, "all.parquet, row 1: the split 'none' is not train, val or"),
    ({"split": ["train", None]}, "all.parquet, row 1: the split '' is not train, val or"),
    ({"class_name": ["oak", ""]}, "all.parquet, row 1: the class name is empty."),
    ({"class_name": ["oak", "oak"]}, "all.parquet, row 1: the class name 'oak' goes with label"),
    ({"Label": [1, 0]},
     "all.parquet: the columns 'label' (2 classes), 'Label' (2 classes) may all hold the label;"),
    ({"image": [png(0)] * 2, "image2": [png(0)] * 2, "img": [png(0)] * 2},
     "all.parquet: each of the columns 'image', 'img' may hold the images; set data.file_column"),
]  # fmt: skip


@pytest.mark.parametrize(("columns", "sentence"), WRONG)
def test_what_is_wrong_is_named(tmp_path, columns, sentence):
    found = problems(write(tmp_path / "all.parquet", TWO | columns))
    assert found[0].startswith(f"{tmp_path}/{sentence}")


@pytest.mark.parametrize("image", [{"bytes": None, "path": "1.png"}, None])
def test_a_row_without_an_image(tmp_path, image):
    columns = {
        "image": [*images(0), image, *images(1)],
        "label": [0, 0, 1],
        "split": ["test", "train", "train"],
    }
    example, _ = load(write(tmp_path / "all.parquet", columns)).train
    with pytest.raises(DecodeError) as caught:
        decode.decode_train(example.data, example.name, size=6)
    assert str(caught.value) == (
        f"{tmp_path}/all.parquet, row 1 cannot be decoded: there is no image in the row."
    )


def test_a_column_that_is_set(tmp_path):
    columns = TWO | {"image2": [png(5), png(6)], "Label": [1, 0], "pixels": [png(7), png(8)]}
    del columns["image"]
    root = write(tmp_path / "all.parquet", columns)
    assert "each of the columns 'image2', 'pixels'" in problems(root)[0]
    data, _ = sources.scan(root, request=Request(file_column="pixels", label_column="Label"))
    assert {e.data.read(): e.label for e in data.train + data.test} == {png(7): 1, png(8): 0}
    (sentence, *_) = problems(root, request=Request(file_column="label", label_column="Label"))
    assert "data.file_column = 'label' is not a column of encoded images" in sentence
    assert "those are 'image2', 'pixels'" in sentence
    (sentence, *_) = problems(root, request=Request(file_column="pixels", label_column="kind"))
    assert "there is no column 'kind'" in sentence


def test_splits_that_contradict(tmp_path):
    columns = TWO | {"split": ["train", "test"]}
    root = write(tmp_path / "train.parquet", columns)
    (sentence,) = problems(root)
    assert sentence.endswith(
        "row 1: the split is 'test' in a file of the train split; move the row."
    )
    write(tmp_path / "train.parquet", TWO)
    write(tmp_path / "more.parquet", TWO)
    assert problems(root)[0].startswith(f"{root}/more.parquet tells no split, as other files")


def test_labels_outside_of_the_classes(tmp_path):
    names = {"info": {"features": {"label": {"names": ["ash"]}}}}
    root = write(tmp_path / "train.parquet", TWO, metadata=names)
    assert problems(root) == (
        f"{root}/train.parquet, row 1: the label is 1, but the file names the classes 0 to 0.",
    )


@pytest.mark.parametrize(
    "metadata",
    [
        [],
        {"info": None},
        {"info": {"features": {"label": 3}}},
        {"info": {"features": {"label": {"names": "ab"}}}},
    ],
)
def test_foreign_metadata_is_passed_over(tmp_path, metadata):
    root = write(tmp_path / "train.parquet", TWO, metadata=metadata)
    assert load(write(root / "test.parquet", TWO)).class_names == ("0", "1")


@pytest.mark.parametrize("data", [b"", b"PAR1", b"PAR1" + bytes(50), None])
def test_a_torn_file_is_named(tmp_path, data):
    root = write(tmp_path / "train.parquet", TWO)
    write(tmp_path / "test.parquet", TWO)
    whole = (root / "test.parquet").read_bytes()
    (root / "test.parquet").write_bytes(whole[:-10] if data is None else data)
    assert any(
        f"{root}/test.parquet is not a whole Parquet file" in text for text in problems(root)
    )
    (root / "train.parquet").unlink()
    assert any(
        f"{root}/test.parquet is not a whole Parquet file" in text for text in problems(root)
    )


def test_a_footer_with_another_number_of_rows(tmp_path, monkeypatch):
    root = write(tmp_path / "train.parquet", TWO)
    monkeypatch.setattr(parquet, "_read_columns", lambda _, schema: ([None], [(0,)], schema))
    assert problems(root) == (
        f"{root}/train.parquet is damaged (1 rows instead of 2); copy it again.",
    )


def test_a_file_without_rows_is_named(tmp_path):
    schema = {"image": pa.array([], pa.binary()), "label": pa.array([], pa.int64())}
    root = write(tmp_path / "train.parquet", schema)
    assert problems(root)[0] == f"{root}/train.parquet lists no image."


def test_tables_without_images_are_no_data_set(tmp_path):
    write(tmp_path / "train.parquet", {"file": ["a.txt"], "label": [0]})
    assert "no known layout" in problems(tmp_path)[0]
    write(tmp_path / "train.parquet", {"caption": ["a.png"], "label": [0]})
    assert "no known layout" in problems(tmp_path)[0]
    (sentence,) = problems(tmp_path, layout="parquet")
    assert "no column holds encoded images" in sentence
    (tmp_path / "train.parquet").unlink()
    assert "holds no Parquet file" in problems(tmp_path, layout="parquet")[0]


PATHS = [f"{i}.png" for i in range(6)]


@pytest.mark.parametrize("folder", ["", "images/", "a/b/"])
@pytest.mark.parametrize(
    "column",
    [{"file_name": PATHS}, {"image_path": pa.array(PATHS, pa.large_string())},
     {"image": [{"path": name} for name in PATHS]}, {"image": PATHS}],
)  # fmt: skip
def test_a_column_names_the_files(tmp_path, column, folder):
    columns = column | {"label": ["oak", "ash"] * 3, "split": ["train"] * 4 + ["test"] * 2}
    write(tmp_path / "all.parquet", columns)
    for i in range(6):
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        (tmp_path / folder / f"{i}.png").write_bytes(png(i))
    data = load(tmp_path)
    assert (data.layout, data.class_names) == ("parquet", ("ash", "oak"))
    assert listed(data.train) == [(f"{folder}{i}.png", 1 - i % 2) for i in range(4)]
    assert listed(data.test) == [(f"{folder}{i}.png", 1 - i % 2) for i in (4, 5)]
    assert [e.data for e in data.test] == [tmp_path / folder / f"{i}.png" for i in (4, 5)]


def test_files_that_are_named_and_their_folders_tell_the_split(tmp_path):
    names = [f"{'test' if i > 3 else 'train'}/{i}.png" for i in range(6)]
    write(tmp_path / "all.parquet", {"path": names, "label": [0, 1] * 3})
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    data = load(tmp_path)
    assert [e.name for e in data.train + data.test] == names
    assert len(data.test) == 2
    (tmp_path / names[0]).unlink()
    assert problems(tmp_path) == (
        f"{tmp_path}/all.parquet: the file 'train/0.png' is not below the data set's folder.",
    )
    write(tmp_path / "all.parquet", {"path": [names[1], None], "label": [0, 1]})
    assert problems(tmp_path) == (
        f"{tmp_path}/all.parquet, row 1: there is no image, and no file is named.",
    )


def test_several_images_a_row_are_refused(tmp_path):
    columns = {"images": [images(0, 1), images(2)], "label": [0, 1]}
    assert problems(write(tmp_path / "all.parquet", columns)) == (
        f"{tmp_path}/all.parquet: each row of the column 'images' holds several images, and an "
        "example has one; write a row for each.",
    )


def test_fine_labels_are_the_classes_and_coarse_ones_a_level(tmp_path):
    """As CIFAR-100 has them on the hub."""
    features = {
        "fine_label": {"names": ["ash", "oak", "rose"], "_type": "ClassLabel"},
        "coarse_label": {"names": ["flower", "tree"], "_type": "ClassLabel"},
    }
    columns = {
        "img": images(*range(6)),
        "fine_label": [0, 1, 2] * 2,
        "coarse_label": [1, 1, 0] * 2,
        "split": ["train"] * 3 + ["test"] * 3,
    }
    write(tmp_path / "all.parquet", columns, metadata={"info": {"features": features}})
    data = load(tmp_path)
    assert data.class_names == ("ash", "oak", "rose")
    assert [tuple(level) for level in data.levels] == [("coarse", ("tree", "tree", "flower"))]
    coarse = load(tmp_path, request=Request(label_column="coarse_label"))
    assert (coarse.class_names, coarse.levels) == (("flower", "tree"), ())


@pytest.mark.parametrize("place", ["", "data"])
@pytest.mark.parametrize("name", ["a.parquet", "train.parquet", "z.parquet"])
def test_features_beside_the_images_are_left_out(tmp_path, place, name):
    """Before and after the images by name, beside their folder, and named as a split."""
    images_in = tmp_path / place
    write(images_in / "m.parquet", {"image": images(*range(6)), "label": [0, 1] * 3})
    before = load(tmp_path)
    rows = np.zeros((1, 2), np.float32)
    texts = ("x",), ("test",), np.array([0]), rows, rows, ("0", "1"), "run", "ab"
    write_feature_file(tmp_path / name, Features(*texts))
    after = load(tmp_path)
    assert (after.layout, after.split_hash()) == ("parquet", before.split_hash())
    (warning,) = after.warnings
    assert f"what this program wrote itself is not taken for images ({name})" in warning
    (tmp_path / place / "m.parquet").unlink()
    assert "no known layout" in problems(tmp_path)[0]


def test_a_table_of_the_user_is_not_taken_for_features(tmp_path):
    """Of the same columns, but without the hash of a model."""
    columns = dict.fromkeys(("name", "split", "features", "logits"), ["train"] * 2)
    write(tmp_path / "train.parquet", columns | {"label": [0, 1]})
    (sentence,) = problems(tmp_path, layout="parquet")
    assert "no column holds encoded images" in sentence


@pytest.fixture
def counted(monkeypatch):
    """Counts how often a row group is opened."""
    opened = collections.Counter()
    original = parquet_images.ParquetImages._open

    def count(self, file, group):
        opened[file, group] += 1
        return original(self, file, group)

    monkeypatch.setattr(parquet_images.ParquetImages, "_open", count)
    return opened


@pytest.mark.parametrize("whole", [0, 1 << 30])
@pytest.mark.parametrize("codec", ["none", "snappy", "zstd"])
def test_images_of_any_row_by_several_threads(tmp_path, monkeypatch, whole, codec):
    """Groups of 150 rows, so of three blocks, of which few are kept; all at once or by and by."""
    monkeypatch.setattr(parquet_images, "_WHOLE", whole)
    monkeypatch.setattr(parquet_images, "_KEPT", 40_000)
    encoded = [f"image {i} ".encode() * 20 for i in range(400)]
    columns = {
        "image": encoded,
        "label": [i % 2 for i in range(400)],
        "split": ["train"] * 200 + ["test"] * 200,
    }
    write(tmp_path / "all.parquet", columns, row_group_size=150, compression=codec)
    data = load(tmp_path)
    stored = [example.data for example in data.train + data.test]
    order = np.random.default_rng(0).permutation(400)
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        read = list(pool.map(lambda i: stored[i].read(), order))
    assert read == [encoded[i] for i in order]
    (store,) = {each._images for each in stored}
    assert store._bytes == sum(block.nbytes for block in store._kept.values()) <= 40_000
    assert str(stored[399]).endswith("all.parquet, row 399")


@pytest.mark.parametrize("whole", [0, 1 << 30])
def test_in_order_a_group_is_read_once(tmp_path, monkeypatch, counted, whole):
    monkeypatch.setattr(parquet_images, "_WHOLE", whole)
    columns = {"image": images(*range(300)), "label": [0, 1] * 150}
    write(tmp_path / "train.parquet", columns, row_group_size=100)
    data = load(write(tmp_path / "test.parquet", TWO))
    assert not counted  # opening reads no image
    assert [example.data.read() for example in data.train] == [png(i) for i in range(300)]
    assert counted == {(1, 0): 1, (1, 1): 1, (1, 2): 1}


def test_a_small_group_is_read_once_in_any_order(tmp_path, counted):
    columns = {"image": images(*range(200)), "label": [0, 1] * 100}
    write(tmp_path / "train.parquet", columns, row_group_size=100)
    data = load(write(tmp_path / "test.parquet", TWO))
    for row in (0, 100, 99, 199, 50):
        assert data.train[row].data.read() == png(row)
    assert counted == {(1, 0): 1, (1, 1): 1}


def test_large_row_groups_are_warned_of(tmp_path, monkeypatch):
    monkeypatch.setattr(parquet, "_LARGE", 300)
    data = load(write(tmp_path / "all.parquet", THREE))
    assert "in one row group, which is slow to read in a random order" in data.warnings[0]
    monkeypatch.setattr(parquet, "_LARGE", 3000)
    assert not any("row group" in warning for warning in load(tmp_path).warnings)


def test_a_file_that_is_cut_off_later(hub):
    data = load(hub)
    path = hub / "data/train-00001-of-00002.parquet"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(DecodeError, match="00002\\.parquet, row 1 cannot be"):
        decode.decode_train(data.train[4].data, data.train[4].name, size=6)


def test_mutated_files_are_read_or_refused(tmp_path):
    """No traceback, whatever bytes are changed, left out or repeated."""
    root = write(tmp_path / "all.parquet", THREE)
    whole = (root / "all.parquet").read_bytes()
    rng = np.random.default_rng(0)
    outcomes = collections.Counter()
    for _ in range(500):
        data = bytearray(whole)
        at, length = rng.integers(len(data)), int(rng.integers(1, 9))
        match rng.integers(3):
            case 0:
                data[at : at + length] = rng.bytes(length)
            case 1:
                del data[at : at + length]
            case 2:
                data[at:at] = data[at : at + length]
        (root / "all.parquet").write_bytes(data)
        try:
            for example in sources.load_dataset(root).train:
                decode.decode_train(example.data, example.name, size=6)
            outcomes["read"] += 1
        except (DataError, DecodeError):
            outcomes["refused"] += 1
    assert min(outcomes["read"], outcomes["refused"]) > 50


def test_shards_that_are_not_there_are_told_of(tmp_path):
    more = {"image": images(2, 3), "label": [0, 1]}
    write(tmp_path / "data/train-00000-of-00003-8a1b.parquet", TWO)
    write(tmp_path / "data/test-00000-of-00001.parquet", more)
    (warning,) = load(tmp_path).warnings
    assert "2 shards are not there" in warning
    assert "(data/train-00001-of-00003, data/train-00002-of-00003)" in warning
    write(tmp_path / "data/train-00001-of-00003-8a1b.parquet", {**TWO, "image": images(4, 5)})
    write(tmp_path / "data/train-00002-of-00003-8a1b.parquet", {**TWO, "image": images(6, 7)})
    assert not load(tmp_path).warnings


def test_a_pointer_is_called_one_and_images_as_text_are(tmp_path):
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 12345\n"
    (tmp_path / "train.parquet").write_text(pointer)
    assert (
        "is a Git LFS pointer, not the file itself; fetch that: git lfs pull."
        in (problems(tmp_path)[0])
    )
    text = [base64.b64encode(png(i) * 3).decode() for i in range(2)]
    write(tmp_path / "train.parquet", {"image": text, "label": [0, 1]})
    (found,) = problems(tmp_path)
    assert "holds images as text (base64" in found
    assert len(found) < 400


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"fold": [0, 1, 2]}, "the column 'fold' tells folds, which are not read: there is a test"),
        ({"coarse_label": [0, 0, 1]}, None),
        ({"width": [3, 4, 5]}, None),
    ],
)
def test_columns_that_are_not_read(tmp_path, more, said):
    columns = {"image": images(0, 1, 2), "label": [0, 0, 1], **more}
    for split in ("train", "test"):
        write(tmp_path / f"{split}.parquet", columns)
    found = [each for each in load(tmp_path).warnings if "tells" in each]
    assert [said in each for each in found] == ([True] if said else [])


def test_a_finer_column_beside_the_label_is_asked_about(tmp_path):
    write(tmp_path / "train.parquet", {"image": images(0, 1, 2, 3, 4, 5), "label": [0, 0, 1] * 2,
                                       "sub_label": list("abc") * 2})  # fmt: skip
    (found,) = problems(tmp_path)
    assert "'label' (2 classes), 'sub_label' (3 classes) may all hold the label" in found
