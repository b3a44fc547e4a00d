"""Order, completeness and resumption of the batches, whatever the number of processes."""

import io
import itertools
import json
import pathlib
import threading

import jax
import numpy as np
import pytest
from PIL import Image
from waiting import LIMIT

from clevit_jax.data import decode, pipeline
from clevit_jax.data.dataset import Example
from clevit_jax.errors import DataError, DecodeError


def make(number: int) -> tuple[np.ndarray, np.ndarray]:
    """Images that show their index, and labels that are ten times the index."""
    index = np.arange(number)
    return np.broadcast_to(index[:, None, None, None], (number, 2, 2, 3)).astype(
        np.uint8
    ), 10 * index


def dataset(number, batch_size, index=0, count=1, *, seed=0, threads=2, prefetch=2, ids=None):
    return pipeline.train_dataset(
        *make(number),
        ids,
        seed=seed,
        batch_size=batch_size,
        process_index=index,
        process_count=count,
        threads=threads,
        prefetch=prefetch,
    )


def take(iterator, steps: int) -> dict[str, np.ndarray]:
    """The next batches, one below the other: [steps, b, ...]."""
    batches = list(itertools.islice(iterator, steps))
    return {key: np.stack([batch[key] for batch in batches]) for key in batches[0]}


def train(number, batch_size, steps, index=0, count=1, **options) -> dict[str, np.ndarray]:
    iterator = iter(dataset(number, batch_size, index, count, **options))
    taken = take(iterator, steps)
    iterator.close()
    return taken


SIZES = [(7, 4), (8, 4), (3, 8), (1, 4), (13, 12)]  # examples, global batch


@pytest.mark.parametrize(("number", "batch_size"), SIZES)
@pytest.mark.parametrize("count", [1, 2, 4])
def test_each_example_once_an_epoch(number, batch_size, count):
    epochs = 3
    steps = -(-epochs * number // batch_size)
    parts = [train(number, batch_size, steps, p, count) for p in range(count)]
    ids = np.concatenate([part["id"] for part in parts], axis=1).ravel()
    epoch = np.concatenate([part["epoch"] for part in parts], axis=1).ravel()
    assert ids.shape == (steps * batch_size,)
    np.testing.assert_array_equal(epoch, np.arange(steps * batch_size) // number)
    for e in range(epochs):
        np.testing.assert_array_equal(np.sort(ids[epoch == e]), np.arange(number))


@pytest.mark.parametrize(("number", "batch_size"), SIZES)
@pytest.mark.parametrize("count", [2, 4])
def test_global_batch_does_not_depend_on_processes(number, batch_size, count):
    whole = train(number, batch_size, 5)
    parts = [train(number, batch_size, 5, p, count) for p in range(count)]
    for key, value in whole.items():
        joined = np.concatenate([part[key] for part in parts], axis=1)
        np.testing.assert_array_equal(joined, value)


def test_batch_contents():
    batch = train(7, 4, 5, 1, 2, ids=np.arange(100, 107))
    assert {key: (value.shape[1:], value.dtype.name) for key, value in batch.items()} == {
        "image": ((2, 2, 2, 3), "uint8"),
        "label": ((2,), "int32"),
        "id": ((2,), "int32"),
        "epoch": ((2,), "int32"),
    }
    np.testing.assert_array_equal(batch["image"][..., 0, 0, 0] + 100, batch["id"])
    np.testing.assert_array_equal(batch["label"], 10 * (batch["id"] - 100))


def test_order_is_by_seed_and_epoch():
    first = train(40, 8, 10)["id"].reshape(2, 40)
    assert (first[0] != first[1]).any()
    assert (first[0] != np.arange(40)).any()
    again = train(40, 8, 10, threads=5, prefetch=0)["id"].reshape(2, 40)
    np.testing.assert_array_equal(first, again)
    other = train(40, 8, 10, seed=1)["id"].reshape(2, 40)
    for mine, theirs in itertools.product(first, other):  # no epoch of one seed is one of another
        assert (mine != theirs).any()


def test_shuffle_is_uniform():
    orders = train(3, 3, 600)["id"]
    _, counts = np.unique(orders, axis=0, return_counts=True)
    assert counts.shape == (6,)  # 100 each; the deviation of a count is 9
    assert counts.min() > 60
    assert counts.max() < 140


@pytest.mark.parametrize(("number", "batch_size"), SIZES)
def test_resumes_with_other_processes_and_threads(number, batch_size):
    iterator = iter(dataset(number, batch_size))
    take(iterator, 3)
    state = json.loads(json.dumps(iterator.get_state()))
    expected = take(iterator, 4)
    iterator.close()
    parts = []
    for index in range(4):
        resumed = iter(dataset(number, batch_size, index, 4, threads=3, prefetch=1))
        take(resumed, 1)  # whatever was read before is forgotten
        resumed.set_state(state)
        parts.append(take(resumed, 4))
        resumed.close()
    for key, value in expected.items():
        np.testing.assert_array_equal(np.concatenate([p[key] for p in parts], axis=1), value)


def test_to_device_runs_ahead_but_its_state_does_not():
    put = []
    ahead = threading.Event()

    def to_jax(batch):
        put.append(threading.current_thread())
        if len(put) >= 4:
            ahead.set()
        return jax.device_put(batch)

    iterator = iter(pipeline.to_device(dataset(7, 4), to_jax, buffer=2))
    assert isinstance(next(iterator)["image"], jax.Array)
    assert ahead.wait(20)  # the first, two in the buffer, one that waits for a place
    assert threading.current_thread() not in put
    assert len(put) == 4
    state = json.loads(json.dumps(iterator.get_state()))
    iterator.close()
    resumed = iter(pipeline.to_device(dataset(7, 4), jax.device_put, buffer=1))
    resumed.set_state(state)
    after = take(resumed, 3)
    resumed.close()
    expected = train(7, 4, 4)
    np.testing.assert_array_equal(after["id"], expected["id"][1:])


def test_errors_reach_the_consumer():
    def broken(batch):
        raise RuntimeError("no device")

    iterator = iter(pipeline.to_device(dataset(7, 4), broken, buffer=2))
    with pytest.raises(RuntimeError, match="no device"):
        next(iterator)
    iterator.close()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"batch_size": 6, "count": 4}, "6 does not divide among 4 processes"),
        ({"batch_size": 0}, "0 does not divide"),
        ({"number": 0}, "no training images"),
        ({"index": 2, "count": 2}, "process_index = 2 is not below 2"),
        ({"ids": [1]}, r"\(1,\) ids"),
        ({"seed": -1}, "seed = -1"),
    ],
)
def test_train_arguments(options, said):
    with pytest.raises(ValueError, match=said):
        dataset(**{"number": 7, "batch_size": 4, **options})


@pytest.mark.parametrize("number", [1, 3, 7, 8, 9])
@pytest.mark.parametrize(("batch_size", "count"), [(1, 1), (4, 1), (4, 2), (8, 4), (12, 4)])
def test_eval_counts_each_example_once(number, batch_size, count):
    images, labels = make(number)
    parts = [
        take(
            pipeline.eval_batches(
                images,
                labels,
                batch_size=batch_size,
                process_index=p,
                process_count=count,
                threads=2,
            ),
            100,
        )
        for p in range(count)
    ]
    steps = -(-number // batch_size)
    for part in parts:
        assert part["image"].shape == (steps, batch_size // count, 2, 2, 3)
        assert (part["image"].dtype.name, part["label"].dtype.name) == ("uint8", "int32")
    whole = {key: np.concatenate([p[key] for p in parts], axis=1) for key in parts[0]}
    mask = whole["mask"].ravel()
    np.testing.assert_array_equal(mask, np.arange(steps * batch_size) < number)
    np.testing.assert_array_equal(whole["label"].ravel()[mask], labels)
    np.testing.assert_array_equal(whole["image"].reshape(-1, 2, 2, 3)[mask], images)
    assert not whole["image"].reshape(-1, 2, 2, 3)[~mask].any()
    assert not whole["label"].ravel()[~mask].any()


def test_eval_arguments_and_early_end():
    images, labels = make(9)
    options = {"process_index": 0, "process_count": 2, "threads": 2}
    with pytest.raises(ValueError, match="3 does not divide"):
        pipeline.eval_batches(images, labels, batch_size=3, **options)
    with pytest.raises(ValueError, match="no images"):
        pipeline.eval_batches(images[:0], labels[:0], batch_size=2, **options)
    with pytest.raises(ValueError, match="9 images have"):
        pipeline.eval_batches(images, labels[:3], batch_size=2, **options)
    before = threading.active_count()
    batches = pipeline.eval_batches(images, labels, batch_size=2, **options)
    next(batches)
    batches.close()
    for thread in threading.enumerate():
        if thread.name.startswith("grain-prefetch"):
            thread.join(20)
    assert threading.active_count() <= before


class Counting:
    """A decoder that makes a 3-byte image of the number given as bytes, and counts."""

    def __init__(self):
        self.calls: list[str] = []

    def __call__(self, data, name):
        self.calls.append(name)
        if data == b"bad":
            raise DecodeError(f"{name} is bad.")
        return np.full((1, 1, 3), int(data), np.uint8)


def examples(*contents: bytes) -> list[Example]:
    return [Example(data, 0, i, f"{i}.png") for i, data in enumerate(contents)]


def test_decoded_images_are_kept_within_the_budget():
    counting = Counting()
    images = pipeline.DecodedImages(examples(b"5", b"6", b"7"), counting, cache_bytes=8)
    progress = []
    images.fill(threads=1, progress=lambda *args: progress.append(args))
    assert progress == [(1, 3), (2, 3), (3, 3)]
    assert len(images) == 3
    for _ in range(2):
        assert [int(images[i][0, 0, 0]) for i in range(3)] == [5, 6, 7]
    assert counting.calls == ["0.png", "1.png", "2.png", "2.png", "2.png"]
    assert images[0] is images[0]
    with pytest.raises(ValueError, match="read-only"):
        images[0][:] = 0


def test_fill_names_every_unreadable_file():
    counting = Counting()
    bad = [b"bad" if i % 2 else b"1" for i in range(60)]
    images = pipeline.DecodedImages(examples(*bad), counting, cache_bytes=6)
    with pytest.raises(DataError) as caught:
        images.fill(threads=4)
    assert caught.value.problems == tuple(f"{i}.png is bad." for i in range(1, 60, 2))
    assert len(counting.calls) == 60


def test_unreadable_file_stops_training_and_is_named():
    images = pipeline.DecodedImages(examples(b"1", b"bad"), Counting(), cache_bytes=0)
    options = {"batch_size": 2, "process_index": 0, "process_count": 1, "threads": 1}
    iterator = iter(pipeline.train_dataset(images, [0, 1], None, seed=0, prefetch=1, **options))
    with pytest.raises(DecodeError, match=r"1\.png is bad"):
        next(iterator)
    iterator.close()
    with pytest.raises(DecodeError, match=r"1\.png is bad"):
        next(pipeline.eval_batches(images, [0, 1], **options))


def test_image_that_two_threads_decode_counts_once():
    both = threading.Barrier(2, timeout=LIMIT)
    counting = Counting()

    def decoder(data, name):
        if name == "0.png":
            both.wait()  # neither thread has put its image into the cache yet
        return counting(data, name)

    images = pipeline.DecodedImages(examples(b"5", b"6"), decoder, cache_bytes=6)
    jobs = [threading.Thread(target=images.__getitem__, args=(0,)) for _ in range(2)]
    for job in jobs:
        job.start()
    for job in jobs:
        job.join()
    assert [int(images[i][0, 0, 0]) for i in (0, 1, 1)] == [5, 6, 6]
    assert counting.calls == ["0.png", "0.png", "1.png"]


def test_from_files_to_batches(tmp_path: pathlib.Path):
    stream = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (6, 6, 3), np.uint8)
    Image.fromarray(pixels).save(stream, "PNG")
    (tmp_path / "a.png").write_bytes(stream.getvalue())
    files = [Example(tmp_path / "a.png", 3, 0, "a.png")]
    images = pipeline.DecodedImages(
        files, lambda data, name: decode.decode_train(data, name, size=6), cache_bytes=1000
    )
    options = {"batch_size": 2, "process_index": 0, "process_count": 1, "threads": 1}
    (batch,) = pipeline.eval_batches(images, [3], **options)
    np.testing.assert_array_equal(batch["image"][0], pixels)
    np.testing.assert_array_equal(batch["label"], [3, 0])
