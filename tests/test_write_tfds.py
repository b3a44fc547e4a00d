"""The command tools/prepare_tfds.py: what it writes reads as what it was made of."""

import dataclasses
import errno
import importlib.util
import io
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import tracemalloc

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from clevit_jax.data import decode, pipeline, sources, write_tfds
from clevit_jax.data.dataset import Dataset, Example, Level
from clevit_jax.errors import DataError, DecodeError

HOME = pathlib.Path(__file__).parents[1]
TOOL = HOME / "tools" / "prepare_tfds.py"


@pytest.fixture
def command(capsys):
    """`command(*arguments)` -> (exit code, stdout, stderr)."""
    spec = importlib.util.spec_from_file_location("prepare_tfds", TOOL)
    assert spec is not None
    assert spec.loader is not None
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)

    def run(*arguments):
        code = tool.main(list(map(str, arguments)))
        out, error = capsys.readouterr()
        return code, out, error

    return run


def noise(seed: int, size=(9, 7), channels=3) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, channels), np.uint8)
    return Image.fromarray(pixels[..., 0] if channels == 1 else pixels)


def encode(image: Image.Image, form: str, **options) -> bytes:
    stream = io.BytesIO()
    image.save(stream, form, **options)
    return stream.getvalue()


def rotated() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return encode(noise(1), "jpeg", exif=exif)


def deep(form: str) -> bytes:
    pixels = np.random.default_rng(2).integers(0, 1 << 16, (9, 7)).astype(np.uint16)
    return encode(Image.fromarray(pixels), form)


IMAGES = {
    "plain ?%20.png": encode(noise(3), "png"),
    "grün.JPG": encode(noise(4), "jpeg"),
    "rotated.jpeg": rotated(),
    "cmyk.jpg": encode(noise(5).convert("CMYK"), "jpeg"),
    "grey.png": encode(noise(6, channels=1), "png"),
    "palette.png": encode(noise(7).convert("P"), "png"),
    "alpha.png": encode(noise(8, channels=4), "png"),
    "deep.png": deep("png"),
    "deep.tif": deep("tiff"),
    "moving.gif": encode(noise(9), "gif", save_all=True, append_images=[noise(10)]),
    "a.webp": encode(noise(11), "webp"),
    "b.bmp": encode(noise(12), "bmp") + bytes(5),  # NumPy takes zeros off the end of a string
    os.fsdecode(b"no utf \xff.png"): encode(noise(13), "png"),
}


@pytest.fixture
def leaves(tmp_path):
    """Class folders with every sort of image in each class; the numbers have the last class."""
    root = tmp_path / "My leaves"
    for split in ("train", "test"):
        for class_name in ("Bœuf", "two words"):
            (root / split / class_name).mkdir(parents=True)
            for name, data in IMAGES.items():
                (root / split / class_name / name).write_bytes(data)
    return root


def encoded(example) -> bytes:
    return (
        example.data.read_bytes() if isinstance(example.data, pathlib.Path) else example.data.read()
    )


def assert_same(written: Dataset, source: Dataset) -> None:
    assert written.split_hash() == source.split_hash()
    assert written.class_names == source.class_names
    assert written.splits.keys() == source.splits.keys()
    for split, examples in source.splits.items():
        for mine, theirs in zip(written.splits[split], examples, strict=True):
            assert mine[1:] == theirs[1:]
            assert encoded(mine) == encoded(theirs)


def test_same_pixels_labels_and_names(command, leaves, tmp_path):
    code, out, _ = command(leaves, tmp_path / "out", "--shards", 3)
    assert code == 0
    folder = tmp_path / "out" / "my_leaves"
    assert out.endswith(f"Wrote {folder}/1.0.0; train from it: --config.data.root={folder}\n")
    source = sources.load_dataset(leaves)
    written = sources.load_dataset(folder)
    assert (written.layout, written.warnings) == ("tfds", ())
    assert_same(written, source)
    for mine, theirs in zip(written.train, source.train, strict=True):
        np.testing.assert_array_equal(decode.read_rgb(mine.data), decode.read_rgb(theirs.data))


def test_tfds_reads_it(command, leaves, tmp_path):
    """TFDS decodes the pixels by itself; it does not know of EXIF."""
    assert command(leaves, tmp_path, "--name", "mine", "--layout", "folders")[0] == 0
    builder = tfds.builder("mine", data_dir=tmp_path, try_gcs=False)
    assert builder.info.supervised_keys == ("image", "label")
    assert builder.info.features["label"].names == ["Bœuf", "two words"]
    source = builder.as_data_source("train")
    assert len(source) == 2 * len(IMAGES)
    seen = 0
    for row in source:
        name = os.fsdecode(row["file_name"]).rpartition("/")[2]
        if name in ("plain ?%20.png", "b.bmp"):
            with Image.open(io.BytesIO(IMAGES[name])) as image:
                np.testing.assert_array_equal(row["image"], image)
            seen += 1
    assert seen == 4


def test_splits_are_kept_as_they_are_cut(command, leaves, tmp_path):
    for name in list(IMAGES):  # no test split then
        for class_name in ("Bœuf", "two words"):
            (leaves / "test" / class_name / name).unlink()
    for folder in ("test/Bœuf", "test/two words", "test"):
        (leaves / folder).rmdir()
    options = ["--test-fraction", 0.3, "--val-fraction", 0.25, "--split-seed", 7]
    assert command(leaves, tmp_path, "--name", "mine", *options)[0] == 0
    split = sources.SplitConfig(test_fraction=0.3, val_fraction=0.25, seed=7)
    source = sources.load_dataset(leaves, split=split)
    assert len(source.val) == round(0.25 * len(source.train + source.val)) > 0
    assert_same(sources.load_dataset(tmp_path / "mine"), source)
    # Prepared once more, from the records.
    assert command(tmp_path / "mine", tmp_path / "again")[0] == 0
    assert_same(sources.load_dataset(tmp_path / "again" / "mine"), source)


def test_shards(command, leaves, tmp_path):
    assert command(leaves, tmp_path, "--name", "mine", "--shards", 4)[0] == 0
    assert command(leaves, tmp_path, "--name", "many", "--shards", 1000)[0] == 0
    assert command(leaves, tmp_path, "--name", "one")[0] == 0
    count = 2 * len(IMAGES)
    for name, expected in (("mine", [6, 7, 6, 7]), ("many", [1] * count), ("one", [count])):
        info = json.loads((tmp_path / name / "1.0.0" / "dataset_info.json").read_text())
        for split in info["splits"]:
            assert list(map(int, split["shardLengths"])) == expected
            shards = (tmp_path / name / "1.0.0").glob(f"{name}-{split['name']}.array_record*")
            assert sum(path.stat().st_size for path in shards) == int(split["numBytes"])


def test_unreadable_images_are_all_named(command, leaves, tmp_path):
    bad = [leaves / "train" / "Bœuf" / "grey.png", leaves / "test" / "two words" / "grün.JPG"]
    bad[0].write_bytes(IMAGES["grey.png"][:60])
    bad[1].write_bytes(b"")
    code, _, error = command(leaves, tmp_path / "out")
    assert code == 2
    assert "error: Mend or remove 2 images, or leave them out: --on-bad-image skip.\n" in error
    assert f"\n{bad[0]} is truncated, its last bytes lack" in error
    assert f"\n{bad[1]} is an empty file.\n" in error
    assert not (tmp_path / "out").exists()


def test_unreadable_images_may_be_left_out(command, leaves, tmp_path):
    """What is written is what reads as a data set without them."""
    bad = leaves / "train" / "Bœuf" / "grey.png"
    bad.write_bytes(b"")
    skip = ["--name", "mine", "--on-bad-image", "skip"]
    code, _, error = command(leaves, tmp_path, *skip, "--max-bad", 0)
    assert (code, f"\n{bad} is an empty file." in error) == (2, True)
    assert "1 of 26 training images (3.8 %) cannot be read" in error
    assert "or raise the limit: --max-bad=0.04." in error
    code, _, error = command(leaves, tmp_path, *skip)
    assert code == 0
    assert "warning: 1 of 26 training images could not be read and was left out." in error
    assert f"warning: {bad} is an empty file." in error
    bad.unlink()
    assert_same(sources.load_dataset(tmp_path / "mine"), sources.load_dataset(leaves))


def test_a_fault_of_the_disk_writes_nothing(command, leaves, tmp_path, monkeypatch):
    def fail(*_):
        raise DecodeError("It cannot be read.") from OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(decode, "read_rgb", fail)
    code, _, error = command(leaves, tmp_path / "out", "--on-bad-image", "skip", "--max-bad", 0.9)
    assert code == 2
    assert "could not be read: Input/output error" in error
    assert not (tmp_path / "out").exists()


def test_images_without_their_end(command, leaves, tmp_path):
    path = next(path for path in leaves.rglob("*.jpg") if path.stat().st_size > 100)
    path.write_bytes(path.read_bytes()[:-40])
    code, _, error = command(leaves, tmp_path / "out")
    assert code == 2
    assert "truncated" in error
    assert not list(tmp_path.glob("out/*"))
    assert command(leaves, tmp_path / "out", "--truncated")[0] == 0


def test_refusals(command, leaves, tmp_path):
    out = tmp_path / "out"
    (out / "mine").mkdir(parents=True)
    for arguments, said in (
        ((leaves, out, "--name", "mine"), f"{out / 'mine'} is already there; remove it"),
        ((leaves, out, "--name", "My leaves"), "'My leaves' is not a name that TFDS takes"),
        ((leaves, out, "--name", "../x"), "'../x' is not a name that TFDS takes"),
        ((leaves, out, "--shards", 0), "--shards is 0; it must be at least 1."),
        ((leaves, leaves / "train"), f"{leaves / 'train'} lies in the data set {leaves}; name"),
        ((leaves, out, "--val-fraction", 2), "data.val_fraction is 2.0; it must be in [0, 1)."),
        ((leaves / "gone", out), f"There is no folder {leaves / 'gone'}; name"),
        ((leaves, out, "--layout", "ufg"), "images is missing"),
    ):
        code, printed, error = command(*arguments)
        assert (code, printed) == (2, "")
        assert error.startswith("error: ")
        assert said in error
    assert [path.name for path in out.iterdir()] == ["mine"]


@pytest.mark.parametrize(
    ("folder", "name"),
    [("SoyGene", "soygene"), ("my-leaves 2", "my_leaves_2"), ("22", "data_22"), ("é", "data")],
)
def test_default_name(tmp_path, folder, name):
    assert write_tfds.default_name(tmp_path / folder) == name
    write_tfds.check_tfds_target(tmp_path, name)


class Png:
    """An image in a larger file that counts how often it is read."""

    def __init__(self, seed: int, size=(3, 2)):
        self._data = encode(noise(seed, size), "png")
        self.reads = 0

    def read(self) -> bytes:
        self.reads += 1
        return self._data


def dataset(names, class_names=("a", "b"), labels=None, test=1) -> Dataset:
    labels = labels or [0] * len(names)
    examples = [Example(Png(i), labels[i], i, name) for i, name in enumerate(names)]
    cut = len(examples) - test
    tested = tuple(e._replace(id=i) for i, e in enumerate(examples[cut:]))
    return Dataset("parquet", "x", tuple(class_names), tuple(examples[:cut]), tested, ())


def test_coarser_levels_survive(tmp_path):
    levels = (Level("genus", ("Pyrus", "Pyrus", "Solanum")),)
    data = dataclasses.replace(
        dataset("xyz", ("anjou", "bosc", "tomato"), [0, 1, 2]), levels=levels
    )
    folder = write_tfds.write_tfds(data, tmp_path, name="leaves")
    assert sources.load_dataset(folder).levels == levels
    (folder / "levels.json").write_text('{"genus": ["Pyrus"]}')
    with pytest.raises(DataError, match=r"levels.json does not name a group for each of the 3"):
        sources.load_dataset(folder)


@pytest.mark.parametrize("name", ["", " ", " a", "a ", "a\n", "a\nb", "a\x85b", "\udcff"])
def test_class_names_that_cannot_be_kept(tmp_path, name):
    with pytest.raises(
        DataError, match=r"^The class name .*; rename it\.$|not valid UTF-8; rename"
    ):
        write_tfds.write_tfds(dataset(["x", "y"], [name, "b"]), tmp_path, name="mine")
    assert list(tmp_path.iterdir()) == []


_NAMES = st.one_of(
    st.text(max_size=8),
    st.binary(max_size=8).map(lambda data: data.decode("utf-8", "surrogateescape")),
)


@hypothesis.given(
    names=st.lists(_NAMES, min_size=2, max_size=5),
    class_names=st.lists(st.text(min_size=1, max_size=6), min_size=2, max_size=4, unique=True),
    data=st.data(),
)
@hypothesis.settings(max_examples=40)
def test_any_names_survive_or_are_refused(tmp_path_factory, names, class_names, data):
    number = st.integers(0, len(class_names) - 1)
    labels = data.draw(st.lists(number, min_size=len(names), max_size=len(names)))
    out = tmp_path_factory.mktemp("any")
    source = dataset(names, class_names, labels, test=data.draw(st.integers(1, len(names) - 1)))
    refused = []
    try:
        folder = write_tfds.write_tfds(source, out, name="mine", shards=2)
    except DataError as error:
        refused = list(error.problems)
    if refused:
        assert [problem for problem in refused if "rename it." not in problem] == []
        assert list(out.iterdir()) == []
    else:
        assert_same(sources.load_dataset(folder), source)


def test_same_file_twice(tmp_path):
    """What the annotation lists twice stays so, with its name."""
    source = dataset(["x", "x", "y", "x"])
    assert_same(sources.load_dataset(write_tfds.write_tfds(source, tmp_path, name="mine")), source)


def test_failure_leaves_nothing(tmp_path):
    source = dataset([str(i) for i in range(6)])

    def fail(done, total):
        if done == 6 + 4:
            raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        write_tfds.write_tfds(source, tmp_path, name="mine", progress=fail)
    assert list(tmp_path.iterdir()) == []


def test_full_disk(tmp_path, monkeypatch):
    """What array_record raises where the disk is full, as seen on a file system of 6 MB."""
    from tensorflow_datasets.core import file_adapters

    def full(path, examples):
        raise RuntimeError("write() failed: No space left on device; writing x; at byte 7")

    monkeypatch.setattr(file_adapters.ArrayRecordFileAdapter, "write_examples", full)
    with pytest.raises(OSError, match=r"^mine-train.* cannot be written: .*left on device\.$"):
        write_tfds.write_tfds(dataset(["x", "y"]), tmp_path, name="mine")
    assert list(tmp_path.iterdir()) == []


def test_what_does_not_read_back_is_not_kept(tmp_path, monkeypatch):
    real = Dataset.split_hash
    source = dataset(["x", "y"])
    monkeypatch.setattr(
        Dataset, "split_hash", lambda self: real(self) + ("!" if self is source else "")
    )
    with pytest.raises(DataError, match="does not read as what was written"):
        write_tfds.write_tfds(source, tmp_path, name="mine")
    assert list(tmp_path.iterdir()) == []


def test_written_meanwhile_by_another(tmp_path):
    def other(done, total):
        (tmp_path / "mine").mkdir(exist_ok=True)

    with pytest.raises(DataError, match="is already there"):
        write_tfds.write_tfds(dataset(["x", "y"]), tmp_path, name="mine", progress=other)
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


_KILLED = """
import os, pathlib, signal, sys
from clevit_jax.data import sources, write_tfds
def kill(done, total):
    if done == total // 2 + int(sys.argv[3]):
        os.kill(os.getpid(), signal.SIGKILL)
source = sources.load_dataset(sys.argv[1])
write_tfds.write_tfds(source, pathlib.Path(sys.argv[2]), name="mine", shards=4, progress=kill)
"""


def alone(code: str, *arguments, path="") -> subprocess.CompletedProcess:
    env = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, [path, str(HOME)]))}
    command = [sys.executable, *(["-c", code] if code else []), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=env)


@pytest.mark.parametrize("after", [1, 2 * 2 * len(IMAGES)])
def test_killed(leaves, tmp_path, after):
    """Killed at the first image that is written, and at the last."""
    out = tmp_path / "out"
    done = alone(_KILLED, leaves, out, after)
    assert done.returncode == -signal.SIGKILL
    assert [path.name[0] for path in out.iterdir()] == ["."]  # hidden, and not under the name
    folder = write_tfds.write_tfds(sources.load_dataset(leaves), out, name="mine")
    assert_same(sources.load_dataset(folder), sources.load_dataset(leaves))


def test_command_without_tensorflow(leaves, tmp_path):
    """TensorFlow seems to be installed here, but whoever imports it dies."""
    (tmp_path / "fake" / "tensorflow").mkdir(parents=True)
    (tmp_path / "fake" / "tensorflow" / "__init__.py").write_text("import os\nos._exit(9)\n")
    done = alone("", TOOL, leaves, tmp_path / "out", path=str(tmp_path / "fake"))
    assert done.returncode == 0
    said = [line for line in re.split(r"[\r\n]", done.stderr) if line.strip()]
    assert all(line.startswith("Checking, then writing") for line in said)  # the bar, no chatter
    assert_same(sources.load_dataset(tmp_path / "out" / "my_leaves"), sources.load_dataset(leaves))


class Large:
    """A megabyte that is made when it is read."""

    def read(self) -> bytes:
        return encode(Image.new("RGB", (640, 540)), "bmp")


def test_memory_is_that_of_an_image(tmp_path):
    examples = tuple(Example(Large(), 0, i, str(i)) for i in range(60))
    source = Dataset("parquet", "x", ("a", "b"), examples[:40], examples[40:], ())
    write_tfds.write_tfds(source, tmp_path, name="first")  # imports
    tracemalloc.start()
    write_tfds.write_tfds(source, tmp_path, name="mine", threads=2)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 15 << 20  # of 60 MB; some are read back at a time


class Counted:
    """A record that counts how often it is read."""

    def __init__(self, data):
        self._data = data
        self.reads = 0

    def read(self) -> bytes:
        self.reads += 1
        return self._data.read()


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """14 training and 10 test images in three shards each."""
    source = dataset([f"{i}.png" for i in range(24)], test=10)
    return write_tfds.write_tfds(source, tmp_path_factory.mktemp("hosts"), name="mine", shards=3)


def hosts(prepared, split, count):
    """For each process its images, which share nothing, and its counters."""
    for index in range(count):
        examples = [
            e._replace(data=Counted(e.data)) for e in sources.load_dataset(prepared).splits[split]
        ]
        images = pipeline.DecodedImages(
            examples, lambda data, name: np.array(decode.read_rgb(data, name)), cache_bytes=0
        )
        yield index, images, [example.data for example in examples]


def test_training_hosts_read_their_own_rows(prepared):
    """Four processes: each row of an epoch is read by one, once."""
    batch, epochs = 8, 4
    steps = epochs * 14 // batch
    together = np.zeros((epochs, 14), int)
    for index, images, counters in hosts(prepared, "train", 4):
        batches = iter(
            pipeline.train_dataset(
                images,
                np.zeros(14, int),
                seed=3,
                batch_size=batch,
                process_index=index,
                process_count=4,
                threads=2,
                prefetch=0,
            )
        )
        mine = np.zeros(14, int)
        for _ in range(steps):
            part = next(batches)
            np.add.at(together, (part["epoch"], part["id"]), 1)
            np.add.at(mine, part["id"], 1)
        batches.close()
        assert mine.sum() == steps * batch // 4
        assert [counter.reads for counter in counters] == mine.tolist()
    np.testing.assert_array_equal(together, np.ones((epochs, 14), int))


def test_evaluating_hosts_read_their_own_rows(prepared):
    """The first image is read by all, for the shape of what is padded."""
    together = np.zeros(10, int)
    for index, images, counters in hosts(prepared, "test", 4):
        batches = pipeline.eval_batches(
            images,
            np.zeros(10, int),
            batch_size=8,
            process_index=index,
            process_count=4,
            threads=2,
        )
        rows = [row for t in (0, 8) for row in range(t + 2 * index, t + 2 * index + 2) if row < 10]
        assert sum(int(part["mask"].sum()) for part in batches) == len(rows)
        reads = np.array([counter.reads for counter in counters])
        reads[0] -= 1
        assert np.flatnonzero(reads).tolist() == rows
        together += reads
    np.testing.assert_array_equal(together, np.ones(10, int))
