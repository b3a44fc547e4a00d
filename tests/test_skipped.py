"""Images that cannot be read, left out of a data set: which, how many at most, and what is said."""

import errno
import json

import numpy as np
import pytest
import tiny
from PIL import Image

from clevit_jax.config import resolve_data
from clevit_jax.data import decode, pipeline, skipped
from clevit_jax.data.audit import command
from clevit_jax.data.dataset import Dataset, Example, Skipped
from clevit_jax.data.open import open_data
from clevit_jax.data.skipped import leave_out, most
from clevit_jax.errors import DataError, DecodeError
from clevit_jax.runs import skipped as record


def split(name, count, classes=2):
    return tuple(
        Example(f"{name}{k}".encode(), k % classes, k, f"{name}/{k}.png") for k in range(count)
    )


def made(train=8, test=4, val=0, classes=2):
    names = tuple("abcdef"[:classes])
    train, test, val = (
        split(n, k, classes) for n, k in (("train", train), ("test", test), ("val", val))
    )
    return Dataset("folders", "by hand", names, train, test, (), val)


def bad(dataset, *places, reason="{} is bad."):
    return [
        Skipped(name, example := dataset.splits[name][row], reason.format(example.name))
        for name, row in places
    ]


def test_what_stays_keeps_its_order_and_what_went_can_be_put_back():
    whole = made(val=3)
    fewer = leave_out(whole, bad(whole, ("train", 5), ("train", 0), ("test", 3), ("val", 1)))
    assert [e.name for e in fewer.train] == [f"train/{k}.png" for k in (1, 2, 3, 4, 6, 7)]
    assert [e.name for e in fewer.test] == ["test/0.png", "test/1.png", "test/2.png"]
    assert [e.name for e in fewer.val] == ["val/0.png", "val/2.png"]
    for examples in fewer.splits.values():
        assert [example.id for example in examples] == list(range(len(examples)))
    assert skipped.counts(fewer) == {"train": 2, "val": 1, "test": 1}
    assert skipped.listed(fewer) == whole
    assert fewer.split_hash() != whole.split_hash()


@pytest.mark.parametrize(
    ("images", "share", "number"),
    [(60, 0.01, 1), (1, 0.01, 1), (199, 0.01, 1), (200, 0.01, 2), (100, 0.29, 29), (100, 0.0, 0)],
)
def test_how_many_may_be_left_out(images, share, number):
    """One per cent of a small set is none, but whoever skips means the one that there is."""
    assert most(images, share) == number


def test_too_many_are_refused_and_the_limit_that_would_do_is_named():
    whole = made(train=300, test=100)
    few = bad(whole, *(("train", k) for k in range(3)), ("test", 7))
    skipped.check_limit(leave_out(whole, few), 0.01)
    many = [*few, *bad(whole, ("train", 3))]
    with pytest.raises(DataError) as error:
        skipped.check_limit(leave_out(whole, many), 0.01)
    lines = str(error.value).splitlines()
    assert lines[0] == (
        "4 of 300 training images (1.3 %) cannot be read, and no more than 3 may be left out "
        "(--config.data.max_bad=0.01)."
    )
    assert lines[1].endswith("or raise the limit: --config.data.max_bad=0.02.")
    assert lines[2:] == [s.reason for s in many]
    skipped.check_limit(leave_out(whole, many), 0.02)
    with pytest.raises(
        DataError, match=r"no more than 0 may be left out \(--config.data.max_bad=0\)"
    ):
        skipped.check_limit(leave_out(whole, few), 0.0)


def test_a_class_without_training_images_and_an_empty_split_are_refused():
    whole = made(train=6, test=1, classes=3)
    with pytest.raises(DataError, match="'b' has no training image that can be read") as error:
        skipped.check_limit(leave_out(whole, bad(whole, ("train", 1), ("train", 4))), 0.9)
    assert "max_bad" not in str(error.value)  # no limit would help
    with pytest.raises(DataError, match="None of the 1 test images can be read"):
        skipped.check_limit(leave_out(whole, bad(whole, ("test", 0))), 0.9)
    # A class that is not tested any more is said, and no more.
    whole = made(train=6, test=6, classes=3)
    fewer = leave_out(whole, bad(whole, ("test", 1), ("test", 4)))
    skipped.check_limit(fewer, 0.5)
    assert skipped.classes_not_tested(fewer) == [
        "The class 'b' has no test image left, so the scores say nothing about it."
    ]


def test_what_to_type_where_a_bad_image_stops(tmp_path):
    whole = made(train=240, test=60)
    config = resolve_data(tiny.small())
    one = skipped.how_to_go_on(bad(whole, ("train", 0), ("test", 1)), whole, config)
    assert one == (
        "1 of 240 training images and 1 of 60 test images cannot be read; mend or remove them, or "
        "go on without them: --config.data.on_bad_image=skip."
    )
    many = skipped.how_to_go_on(bad(whole, *(("test", k) for k in range(7))), whole, config)
    assert many.endswith("--config.data.on_bad_image=skip --config.data.max_bad=0.12.")
    assert most(60, 0.12) == 7
    assert most(60, 0.11) == 6
    most_of_them = bad(whole, *(("test", k) for k in range(31)))
    assert "skip" not in skipped.how_to_go_on(most_of_them, whole, config)
    small = made(train=4, classes=2)
    lost = skipped.how_to_go_on(bad(small, ("train", 0), ("train", 2)), small, config)
    assert "skip" not in lost
    assert "'a' has no training image" in lost


def test_the_line_of_a_report():
    whole = made(train=180, test=60)
    assert skipped.summary(whole) == ""
    fewer = leave_out(whole, bad(whole, ("train", 3), ("train", 4), ("test", 1)))
    assert skipped.summary(fewer) == (
        "3 of 240 images could not be read and were left out: 2 of 180 training images and 1 of 60 "
        "test images."
    )
    fewer = leave_out(whole, bad(whole, ("test", 1)))
    assert skipped.summary(fewer) == "1 of 60 test images could not be read and was left out."


class Faulty:
    """An image in a larger file that cannot be read."""

    def __init__(self, error):
        self.error = error

    def read(self):
        raise self.error

    def __str__(self):
        return "t.parquet, row 7"


def images_of(*contents):
    stored = [Example(data, 0, k, f"{k}.png") for k, data in enumerate(contents)]
    return pipeline.DecodedImages(
        stored, lambda data, name: decode.decode_train(data, name, size=4), cache_bytes=1 << 20
    )


def png(tmp_path):
    Image.new("RGB", (5, 5), "red").save(tmp_path / "a.png")
    return (tmp_path / "a.png").read_bytes()


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.ENOTCONN, errno.EMFILE])
def test_a_fault_of_the_disk_is_no_bad_image(number, tmp_path):
    images = images_of(png(tmp_path), Faulty(OSError(number, "It failed")))
    with pytest.raises(DataError, match=r"1\.png could not be read: It failed.* not of the image"):
        images.check(threads=1)


@pytest.mark.parametrize("error", [
    FileNotFoundError(errno.ENOENT, "No such file"), PermissionError(errno.EACCES, "Denied"),
    OSError(errno.EINVAL, "Invalid argument"), OSError("broken data stream"), KeyError("row"),
])  # fmt: skip
def test_a_fault_of_the_file_is_one(error, tmp_path):
    images = images_of(png(tmp_path), Faulty(error), b"")
    assert [row for row, _ in images.check(threads=2)] == [1, 2]


def test_short_memory_is_no_bad_image(tmp_path):
    with pytest.raises(MemoryError):
        images_of(png(tmp_path), Faulty(MemoryError())).check(threads=1)


def test_what_was_decoded_to_find_the_bad_ones_is_kept():
    decoded = []

    def decoder(data, name):
        decoded.append(name)
        if data == b"bad":
            raise DecodeError(f"{name} is bad.")
        return np.full((1, 1, 3), int(data), np.uint8)

    contents = [b"5", b"bad", b"6", b"7"]
    stored = [Example(data, 0, k, f"{k}.png") for k, data in enumerate(contents)]
    images = pipeline.DecodedImages(stored, decoder, cache_bytes=9)
    assert images.check(threads=1) == [(1, "1.png is bad.")]
    others = images.without([1])
    assert len(others) == 3
    assert [int(others[k][0, 0, 0]) for k in range(3)] == [5, 6, 7]
    assert decoded == ["0.png", "1.png", "2.png", "3.png"]
    images = pipeline.DecodedImages(stored, decoder, cache_bytes=6)  # for two of them
    images.check(threads=1)
    others, decoded[:] = images.without([1]), []
    assert [int(others[k][0, 0, 0]) for k in (0, 1, 2, 2)] == [5, 6, 7, 7]
    assert decoded == ["3.png", "3.png"]


def test_a_record_is_read_as_it_was_written(tmp_path):
    whole = made()
    fewer = leave_out(whole, bad(whole, ("train", 3), ("test", 0)))
    record.write_skipped(tmp_path, fewer)
    kept = json.loads((tmp_path / "skipped_images.json").read_text())
    assert kept["images"] == {"train": 8, "test": 4}
    assert kept["skipped"][0] == {
        "split": "train", "row": 3, "file": "train/3.png", "reason": "train/3.png is bad.",
    }  # fmt: skip
    assert record.as_recorded(whole, kept) == fewer
    assert record.of_run(whole, tmp_path) == fewer
    assert record.of_run(made(train=9), tmp_path) is None  # other images


def test_a_record_of_files_that_were_removed_since(tmp_path):
    """What is left is the same; a name that several images have means the one of that row."""
    whole = made()
    record.write_skipped(tmp_path, leave_out(whole, bad(whole, ("train", 3), ("test", 0))))
    train = leave_out(whole, bad(whole, ("train", 3))).train  # the file of the test is still there
    removed = Dataset("folders", "", ("a", "b"), train, whole.test, ())
    assert record.of_run(removed, tmp_path).split_hash() == json.loads(
        (tmp_path / "skipped_images.json").read_text()
    )["split_hash"]  # fmt: skip
    twins = tuple(example._replace(name="same.png") for example in whole.train)
    table = Dataset("parquet", "", ("a", "b"), twins, whole.test, ())
    fewer = leave_out(table, bad(table, ("train", 2)))
    record.write_skipped(tmp_path, fewer)
    assert record.of_run(table, tmp_path) == fewer


@pytest.mark.parametrize("text", ["", "{", "[]", '{"skipped": 3}', '{"skipped": [{"split": "a"}]}'])
def test_a_damaged_record_is_said(text, tmp_path, capsys):
    assert record.read_skipped(tmp_path) is None
    (tmp_path / "skipped_images.json").write_text(text)
    assert record.read_skipped(tmp_path) is None
    assert "skipped_images.json is damaged" in capsys.readouterr().out


@pytest.fixture
def root(tmp_path):
    """Two classes of 6 training and 3 test images, of which the first of a is empty."""
    folder = tmp_path / "data"
    for name, count in (("train", 6), ("test", 3)):
        for label in "ab":
            (folder / name / label).mkdir(parents=True)
            for k in range(count):
                pixels = np.random.RandomState(len(list(folder.rglob("*")))).bytes(20 * 20 * 3)
                Image.frombytes("RGB", (20, 20), pixels).save(folder / name / label / f"{k}.png")
        (folder / name / "a" / "0.png").write_bytes(b"")
    return folder


def check(root, tmp_path, **settings):
    config = tiny.small()
    config.data.root = str(root)
    config.update_from_flattened_dict({f"data.{k}": v for k, v in settings.items()})
    code = command.check_data(resolve_data(config), tmp_path / "work")
    return code, json.loads((tmp_path / "work" / "data_check.json").read_text())


def test_check_data_says_what_a_run_would_do(root, tmp_path, capsys):
    code, found = check(root, tmp_path)
    assert (code, len(found["errors"])) == (1, 2)
    assert found["errors"][0]["advice"].endswith("--config.data.on_bad_image=skip.")
    assert found["errors"][0]["advice"] in " ".join(capsys.readouterr().out.split())
    code, found = check(root, tmp_path, on_bad_image="skip")
    assert (code, found["errors"]) == (0, [])
    unreadable = [w for w in found["warnings"] if w["kind"] == "unreadable"]
    assert [w["items"] for w in unreadable] == [["train/a/0.png"], ["test/a/0.png"]]
    assert unreadable[0]["advice"] == (
        "A run leaves out what cannot be read, 1 of 12 training images and 1 of 6 test images."
    )
    (root / "test" / "a" / "1.png").write_bytes(b"")
    code, found = check(root, tmp_path, on_bad_image="skip")
    assert (code, len(found["errors"])) == (1, 3)
    assert "--config.data.max_bad=0.34" in found["errors"][0]["advice"]
    assert check(root, tmp_path, on_bad_image="skip", max_bad=0.34)[0] == 0


def test_check_data_takes_no_fault_of_the_disk_for_a_bad_image(root, tmp_path, monkeypatch):
    def fail(*_):
        raise DecodeError("It cannot be read.") from OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(decode, "read_rgb", fail)
    code, found = check(root, tmp_path, on_bad_image="skip", max_bad=0.9)
    assert code == 1
    assert "The disk or the machine failed (train/a/0.png, " in found["errors"][0]["advice"]


def test_a_dataset_that_one_process_looks_at(root):
    config = tiny.small()
    config.data.root = str(root)
    data = resolve_data(config)
    fewer = skipped.without_bad(data, open_data(data))
    assert skipped.counts(fewer) == {"train": 1, "test": 1}
    assert [s.example.name for s in fewer.skipped] == ["train/a/0.png", "test/a/0.png"]
    (root / "test" / "a" / "1.png").write_bytes(b"no")
    with pytest.raises(DataError, match="2 of 6 test images"):
        skipped.without_bad(data, open_data(data))
