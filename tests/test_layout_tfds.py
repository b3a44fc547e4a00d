"""The reader of TFDS data sets, against what TFDS itself writes and reads."""

import concurrent.futures
import io
import json
import os
import pathlib
import shutil
import subprocess
import sys

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from clevit_jax.data import decode, sources
from clevit_jax.data.layouts.listing import Request
from clevit_jax.data.layouts.store import tfds_records
from clevit_jax.errors import DataError, DecodeError

F = tfds.features


def png(seed: int, size=(5, 4)) -> bytes:
    """A small image of noise; its bytes end in zeros, which NumPy would take off a string."""
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "png")
    return stream.getvalue() + bytes(3)


def row(number: int, **more) -> dict:
    return {"image": png(number), "label": number % 2, "file_name": f"é {number}?.png", **more}


FEATURES = {
    "image": F.Image(shape=(None, None, 3)),
    "label": F.ClassLabel(names=["Anjou", "Bœuf tomate"]),
    "file_name": F.Text(),
}
ROWS = {
    "train": [row(i) for i in range(9)],
    "test": [row(i) for i in range(20, 25)],
    "validation": [row(i) for i in range(30, 33)],
}


def make(
    place: pathlib.Path,
    splits=ROWS,
    features=FEATURES,
    *,
    supervised=("image", "label"),
    version="1.0.0",
    config=None,
    shards=2,
) -> pathlib.Path:
    """Lets TFDS prepare a data set in `place`; returns its folder."""

    class Leaves(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        name = "leaves"
        VERSION = tfds.core.Version(version)
        BUILDER_CONFIGS = [tfds.core.BuilderConfig(name=config)] if config else []

        def _info(self):
            return tfds.core.DatasetInfo(
                builder=self, features=F.FeaturesDict(features), supervised_keys=supervised
            )

        def _split_generators(self, _):
            return {name: enumerate(rows) for name, rows in splits.items()}

        def _generate_examples(self):
            raise NotImplementedError

    builder = Leaves(data_dir=place, file_format="array_record")
    options = tfds.download.DownloadConfig(num_shards=shards)
    builder.download_and_prepare(download_config=options)
    return pathlib.Path(builder.data_dir)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A folder of TFDS data sets, with the one of `ROWS`."""
    place = tmp_path_factory.mktemp("tfds")
    make(place)
    return place


@pytest.fixture
def leaves(prepared, tmp_path):
    """A copy of the prepared folder, to do damage to."""
    return pathlib.Path(shutil.copytree(prepared / "leaves" / "1.0.0", tmp_path / "leaves"))


def problems(root, **options) -> tuple[str, ...]:
    with pytest.raises(DataError) as caught:
        sources.load_dataset(root, **options)
    return caught.value.problems


def test_same_as_tfds_reads(prepared):
    data = sources.load_dataset(prepared / "leaves")
    assert (data.layout, data.recognised_by) == ("tfds", "dataset_info.json in 1.0.0/")
    assert data.class_names == ("Anjou", "Bœuf tomate")
    assert data.warnings == ()
    builder = tfds.builder_from_directory(str(prepared / "leaves" / "1.0.0"))
    assert {name: len(rows) for name, rows in data.splits.items()} == {
        "train": 9,
        "val": 3,
        "test": 5,
    }
    for split, name in (("train", "train"), ("val", "validation"), ("test", "test")):
        expected = builder.as_data_source(name, decoders={"image": tfds.decode.SkipDecoding()})
        for index, example in enumerate(data.splits[split]):
            theirs = expected[index]
            assert example.id == index
            assert example.label == theirs["label"]
            assert example.name == theirs["file_name"].decode()
            assert example.data.read() == theirs["image"]
        written = {(r["file_name"], r["label"], r["image"]) for r in ROWS[name]}
        assert {(e.name, e.label, e.data.read()) for e in data.splits[split]} == written


def test_pixels(prepared):
    example = sources.load_dataset(prepared / "leaves").test[0]
    (mine,) = [r for r in ROWS["test"] if r["file_name"] == example.name]
    with Image.open(io.BytesIO(mine["image"])) as image:
        np.testing.assert_array_equal(decode.read_rgb(example.data), image)


@pytest.mark.parametrize("key", ["file_name", "filename", "image/filename", "name"])
def test_names(tmp_path, key):
    rows = [{"image": png(i), "label": 0, key: b"\xff%d" % i} for i in range(2)]
    features = {"image": F.Image(), "label": F.ClassLabel(names=["a"]), key: F.Text()}
    folder = make(tmp_path, {"train": rows}, features, shards=1)
    found = tfds_records.read(folder, Request(), sources.Notes([], []))
    assert sorted(e.name for e in found.splits["train"]) == ["\udcff0", "\udcff1"]


def test_names_by_index(tmp_path):
    """A `name` that is no text is no name, and neither is any other text."""
    features = {"image": F.Image(), "label": F.ClassLabel(num_classes=2)}
    features |= {"name": F.ClassLabel(num_classes=3), "note": F.Text()}
    rows = [{"image": png(i), "label": i % 2, "name": 2, "note": "x"} for i in range(4)]
    data = sources.load_dataset(make(tmp_path, {"train": rows[:2], "test": rows[2:]}, features))
    assert [e.name for e in data.train + data.test] == ["train/0", "train/1", "test/0", "test/1"]
    assert data.class_names == ("0", "1")


BIRDS = {
    "image": F.Image(shape=(None, None, 3)),
    "image/filename": F.Text(),
    "label": F.ClassLabel(names=["x", "y"]),
    "attribute": F.ClassLabel(num_classes=7),
    "bbox": F.BBoxFeature(),
    "segmentation_mask": F.Image(shape=(None, None, 1)),
}


def bird(number: int) -> dict:
    return {
        "image": png(number),
        "image/filename": f"{number}.jpg",
        "label": number % 2,
        "attribute": 5,
        "bbox": F.BBox(0.0, 0.0, 1.0, 1.0),
        "segmentation_mask": b"mask",
    }


def test_many_features(tmp_path):
    """As in caltech_birds2011."""
    birds = [bird(i) for i in range(6)]
    splits = {"train": birds[:4], "test": birds[4:]}
    data = sources.load_dataset(make(tmp_path / "keys", splits, BIRDS))
    assert {(e.name, e.label, e.data.read()) for e in data.train} == {
        (b["image/filename"], b["label"], b["image"]) for b in birds[:4]
    }
    folder = make(tmp_path / "none", splits, BIRDS, supervised=None)
    assert [s.removeprefix(f"{folder}: ") for s in problems(folder)] == [
        "each of image, segmentation_mask may be an image; set data.file_column to one.",
        "each of attribute, label may be a class label; set data.label_column to one.",
    ]
    forced = Request(file_column="segmentation_mask", label_column="attribute")
    data = sources.load_dataset(folder, request=forced)
    assert {(e.label, e.data.read()) for e in data.train} == {(5, b"mask")}
    (image, label) = problems(folder, request=Request(file_column="bbox", label_column="image"))
    assert image.startswith(
        f"{folder}: data.file_column = 'bbox' is not an image; it has attribute, "
    )
    assert label.startswith(f"{folder}: data.label_column = 'image' is not a class label; it has ")


def test_only_train_is_cut(tmp_path):
    folder = make(tmp_path, {"train": ROWS["train"]})
    data = sources.load_dataset(folder, split=sources.SplitConfig(test_fraction=0.3))
    assert (len(data.train), len(data.test)) == (6, 3)
    assert "test split: 30 % of the images" in data.recognised_by


def test_validation_alone_is_the_test_split(tmp_path):
    """As in class folders."""
    splits = {
        "train": ROWS["train"],
        "validation": ROWS["validation"],
        "unlabelled": [row(1), row(2)],
    }
    data = sources.load_dataset(make(tmp_path, splits))
    assert (len(data.test), data.val) == (3, ())
    (warning,) = data.warnings
    assert "1 split(s) are not read (unlabelled)" in warning


def test_no_training_split(tmp_path):
    folder = make(tmp_path, {"test": ROWS["test"]})
    assert problems(folder) == (f"{folder} has no example in a split 'train'.",)


def test_unlabelled_records(tmp_path):
    """A test split without labels is left out; one without some is not understood."""
    splits = {"train": [row(i) for i in range(9)], "test": [row(9, label=-1), row(10, label=-1)]}
    data = sources.load_dataset(make(tmp_path / "none", splits, shards=1))
    assert (len(data.train), len(data.test)) == (7, 2)  # a fifth is cut, as without a test split
    assert any("none of the 2 test images has a label" in text for text in data.warnings)
    splits = {"train": [row(0), row(1)], "test": [row(2, label=-1), row(3)]}
    folder = make(tmp_path / "some", splits, shards=1)
    (found,) = problems(folder)
    shard = folder / "leaves-test.array_record-00000-of-00001"
    assert found == (
        f"{shard}, record {found[len(str(shard)) + 9]} has the label -1, but the 2 classes are "
        "numbered from 0; leave out what has no label."
    )


def test_float_images_are_none(leaves):
    """TFDS stores them as a PNG of their bits."""
    text = json.loads((leaves / "features.json").read_text())
    image = text["featuresDict"]["features"]["image"]["image"]
    image["dtype"] = "float32"
    image["shape"]["dimensions"][-1] = "1"
    (leaves / "features.json").write_text(json.dumps(text))
    (found,) = problems(leaves)
    assert "has no feature that is an image; it has " in found


def test_no_label(tmp_path):
    rows = {"train": [{"image": png(1)}, {"image": png(2)}]}
    folder = make(tmp_path, rows, {"image": F.Image()}, supervised=None)
    assert problems(folder) == (f"{folder} has no feature that is a class label; it has image.",)


def test_by_name(prepared, tmp_path, monkeypatch):
    plain = sources.load_dataset(prepared / "leaves")
    named = sources.load_dataset(prepared, request=Request(tfds="leaves"))
    assert named.split_hash() == plain.split_hash()
    assert (named.layout, named.recognised_by) == ("tfds", "data.tfds = leaves")
    monkeypatch.setenv("TFDS_DATA_DIR", str(prepared))
    default = sources.load_dataset("", layout="tfds", request=Request(tfds="leaves:1.0.0"))
    assert default.split_hash() == plain.split_hash()
    monkeypatch.delenv("TFDS_DATA_DIR")
    monkeypatch.setenv("HOME", str(tmp_path))
    shutil.copytree(prepared, tmp_path / "tensorflow_datasets")
    assert (
        sources.load_dataset("", request=Request(tfds="leaves")).split_hash() == plain.split_hash()
    )


def test_versions(tmp_path):
    for version, count in (("9.0.0", 2), ("10.0.0", 3), ("1.9.0", 4)):
        make(tmp_path, {"train": ROWS["train"][:count], "test": ROWS["test"]}, version=version)
    newest = sources.load_dataset(tmp_path / "leaves")
    assert newest.recognised_by == "dataset_info.json in 10.0.0/, the newest of 3 versions"
    assert len(newest.train) == len(
        sources.load_dataset(tmp_path, request=Request(tfds="leaves")).train
    )
    assert len(newest.train) == 3
    assert len(sources.load_dataset(tmp_path, request=Request(tfds="leaves:1.9.0")).train) == 4
    assert len(sources.load_dataset(tmp_path / "leaves" / "9.0.0").train) == 2


def test_configs(tmp_path):
    for config, count in (("large", 2), ("small", 3)):
        splits = {"train": ROWS["train"][:count], "test": ROWS["test"]}
        make(tmp_path, splits, config=config)
        if config == "large":  # the only one, so far
            assert len(sources.load_dataset(tmp_path, request=Request(tfds="leaves")).train) == 2
    for wanted in ("leaves/small", "leaves/small:1.0.0"):
        assert len(sources.load_dataset(tmp_path, request=Request(tfds=wanted)).train) == 3
    assert problems(tmp_path, request=Request(tfds="leaves")) == (
        f"{tmp_path / 'leaves'} has several configs; set data.tfds to one of leaves/large, "
        "leaves/small.",
    )


@pytest.mark.parametrize("wanted", ["birds", "leaves:2.0.0", "leaves/small"])
def test_not_prepared(prepared, wanted):
    (found,) = problems(prepared, request=Request(tfds=wanted))
    assert f"{prepared} holds no prepared TFDS data set '{wanted}' (there: " in found
    assert f"`tfds build {wanted} --file_format=array_record`" in found


@pytest.mark.parametrize("wanted", ["../leaves", "/leaves", "leaves/..", "leaves:1", "a b", "a/"])
def test_names_that_are_none(prepared, wanted):
    (found,) = problems(prepared, request=Request(tfds=wanted))
    assert found.startswith(f"data.tfds is {wanted!r}; it must be a name")


def test_other_layout_is_contradicted(prepared):
    (found,) = problems(prepared, layout="csv", request=Request(tfds="leaves"))
    assert found == "data.tfds is for the layout tfds; set data.layout=auto, not csv."


def test_layout_forced_on_something_else(tmp_path):
    (found,) = problems(tmp_path, layout="tfds")
    assert found.startswith(f"{tmp_path} holds no prepared TFDS data set; looked for ")


def test_hint_one_folder_up(prepared):
    (found,) = problems(prepared)
    assert f"Did you mean data.root={prepared / 'leaves'}?" in found


def edit(path: pathlib.Path, change) -> None:
    path.write_bytes(change(path.read_bytes()))


def flip(data: bytes) -> bytes:
    at = data.index(png(4)[-40:-3])
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


SHARD = "leaves-train.array_record-00000-of-00002"
OTHER = "leaves-train.array_record-00001-of-00002"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda data: data[: len(data) // 2], "is cut off or damaged"),
        (lambda data: data[:-1], "is cut off or damaged"),
        (lambda data: b"", "is cut off or damaged"),
        (lambda data: b"no records" * 10_000, "is cut off or damaged"),
    ],
    ids=["half", "without its last byte", "empty", "something else"],
)
def test_damaged_shard(leaves, change, said):
    edit(leaves / SHARD, change)
    (found,) = problems(leaves)
    assert found.startswith(f"{leaves / SHARD} {said}")
    assert found.endswith("copy it again, or prepare the data set again.")


def test_missing_shards(leaves):
    for name in (SHARD, OTHER):
        (leaves / name).unlink()
    assert [s.split("; ")[0] for s in problems(leaves)[:2]] == [
        f"{leaves / name} is missing" for name in (SHARD, OTHER)
    ]


def test_flipped_bit(leaves):
    """The check sum of that record alone tells; the others are good."""
    (hit,) = [p for p in leaves.glob("leaves-train*") if png(4)[-40:-3] in p.read_bytes()]
    edit(hit, flip)
    (found,) = problems(leaves)
    assert found.startswith(f"{hit}, record ")
    assert found.endswith(
        " cannot be read: Corrupted Riegeli/records file: chunk data hash mismatch; prepare the "
        "data set again."
    )


def test_damage_after_opening(leaves):
    """A shard that is cut off while training reads it gives a sentence, not an empty image."""
    examples = sources.load_dataset(leaves).train
    for name in (SHARD, OTHER):
        edit(leaves / name, lambda data: data[:100])
    with pytest.raises(DecodeError, match=r"leaves-train\.array_record-0000.*, record 0 can"):
        decode.read_rgb(examples[0].data)


def test_wrong_number_of_records(leaves):
    info = leaves / "dataset_info.json"
    counts = [int(n) for s in json.loads(info.read_text())["splits"] for n in s["shardLengths"]]
    edit(info, lambda text: text.replace(b'"%d"' % counts[0], b'"77"', 1))
    said = [s for s in problems(leaves) if "has" in s]
    assert f" has {counts[0]} records, but {info} says 77; copy it again" in said[0]


@pytest.mark.parametrize("name", ["dataset_info.json", "features.json"])
def test_torn_metadata(leaves, name):
    edit(leaves / name, lambda text: text[: len(text) // 2])
    (found,) = problems(leaves)
    assert found.startswith(f"{leaves} cannot be opened as a data set of TFDS: ")
    assert found.endswith("; prepare it again.")


def test_tfrecord(leaves):
    edit(leaves / "dataset_info.json", lambda text: text.replace(b"array_record", b"tfrecord"))
    (found,) = problems(leaves)
    assert found.startswith(f"{leaves} is in the form tfrecord, not in array_record; prepare it")


def test_array_record_beside_another_form(leaves):
    """`tfds convert_format` leaves both in one folder."""
    text = json.loads((leaves / "dataset_info.json").read_text())
    text |= {"fileFormat": "tfrecord", "alternativeFileFormats": ["array_record"]}
    (leaves / "dataset_info.json").write_text(json.dumps(text))
    data = sources.load_dataset(leaves)
    assert {e.data.read() for e in data.test} == {r["image"] for r in ROWS["test"]}
    assert str(data.test[0].data).startswith(str(leaves / "leaves-test.array_record-"))


def test_threads(prepared):
    examples = sources.load_dataset(prepared / "leaves").train * 40
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        read = list(pool.map(lambda example: example.data.read(), examples))
    by_name = {r["file_name"]: r["image"] for r in ROWS["train"]}
    assert read == [by_name[example.name] for example in examples]


def test_records_are_light_and_say_where(prepared):
    data = sources.load_dataset(prepared / "leaves").train
    assert all(not hasattr(example.data, "__dict__") for example in data)
    places = [str(example.data) for example in data]
    folder = prepared / "leaves" / "1.0.0"
    counts = tfds.builder_from_directory(str(folder)).info.splits["train"].shard_lengths
    assert places == [
        f"{folder / shard}, record {index}"
        for shard, count in zip((SHARD, OTHER), counts, strict=True)
        for index in range(count)
    ]


_ALONE = """
import socket, sys
def refuse(*args, **options):
    raise AssertionError("network")
socket.socket.connect = socket.getaddrinfo = refuse
from clevit_jax.data import sources
from clevit_jax.data.decode import read_rgb
data = sources.load_dataset(sys.argv[1], request=sources.Request(tfds="leaves"))
assert read_rgb(data.train[0].data).size == (4, 5)
assert "tensorflow" not in sys.modules
"""


def test_without_tensorflow_and_network(prepared, tmp_path):
    """TensorFlow seems to be installed here, but whoever imports it dies. Nothing is printed."""
    (tmp_path / "tensorflow").mkdir()
    (tmp_path / "tensorflow" / "__init__.py").write_text("import os\nos._exit(9)\n")
    home = pathlib.Path(__file__).parents[1]
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), str(home)])}
    command = [sys.executable, "-c", _ALONE, str(prepared)]
    done = subprocess.run(command, capture_output=True, text=True, env=env)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
