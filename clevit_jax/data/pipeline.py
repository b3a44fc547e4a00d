"""Batches of decoded images, loaded by Grain."""

import concurrent.futures
import functools
import pathlib
import sys
import threading
from collections.abc import Callable, Collection, Generator, Sequence
from typing import Any, NamedTuple, Protocol

import grain
import numpy as np

from clevit_jax.data.dataset import Example, StoredImage
from clevit_jax.data.tally import Tally
from clevit_jax.errors import DataError, DecodeError
from clevit_jax.system.faults import fault_of_machine, mend, os_reason

HostBatch = dict[str, np.ndarray]


class Images(Protocol):
    """Random access to images of one shape: an array [N, S, S, 3] or `DecodedImages`."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> np.ndarray: ...


class Unreadable(NamedTuple):
    """An image that cannot be decoded: its row, and why, a sentence that names it."""

    row: int
    reason: str


class DecodedImages:
    """Random access to decoded images; as many as fit a budget stay in memory.

    Args:
        examples: what to decode.
        decode: `decode(example.data, example.name)` -> uint8 [S, S, 3], for example
            `functools.partial(decode_train, size=600)`.
        cache_bytes: decoded bytes to keep; what does not fit is decoded each time.
        tally: what `decode` counts odd images in; it is kept as the attribute `tally`.
    """

    def __init__(
        self,
        examples: Sequence[Example],
        decode: Callable[[pathlib.Path | bytes | StoredImage, str], np.ndarray],
        *,
        cache_bytes: int,
        tally: Tally | None = None,
    ):
        self.tally = tally or Tally()
        self._examples = examples
        self._decode = decode
        self._free = cache_bytes
        self._kept: list[np.ndarray | None] = [None] * len(examples)
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._examples)

    def __getitem__(self, index: int, /) -> np.ndarray:
        """uint8 [S, S, 3], read-only and not copied. Raises DecodeError."""
        kept = self._kept[index]
        if kept is not None:
            return kept
        image = self.decode(self._examples[index])
        image.flags.writeable = False  # the cache hands out the array itself
        with self._lock:
            if self._kept[index] is None and image.nbytes <= self._free:
                self._kept[index] = image
                self._free -= image.nbytes
        return image

    def decode(self, example: Example) -> np.ndarray:
        """An image, uint8 [S, S, 3], whether it is one of these or not. Raises DecodeError."""
        return self._decode(example.data, example.name)

    def check(
        self,
        rows: Sequence[int] | None = None,
        *,
        threads: int,
        progress: Callable[[int, int], None] | None = None,
    ) -> list[Unreadable]:
        """Decodes images once: fills the cache, and finds those that cannot be decoded.

        Args:
            rows: their indices; all by default.
            threads: images to decode at a time.
            progress: called with (images done, images in all).

        Raises:
            DataError: an image could not be read by a fault of the disk or the machine, which
                says nothing about the image.
        """

        def undecodable(index: int) -> DecodeError | None:
            try:
                self[index]
            except DecodeError as error:
                return error
            return None

        rows = range(len(self)) if rows is None else rows
        found: list[Unreadable] = []
        with concurrent.futures.ThreadPoolExecutor(threads) as pool:
            for done, error in enumerate(pool.map(undecodable, rows), start=1):
                if error is not None:
                    raise_fault(self._examples[rows[done - 1]], error)
                    found.append(Unreadable(rows[done - 1], error.sentence))
                if progress is not None:
                    progress(done, len(rows))
        return found

    def fill(
        self,
        rows: Sequence[int] | None = None,
        *,
        threads: int,
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        """As `check`; raises DataError, which names every image that cannot be decoded."""
        if found := self.check(rows, threads=threads, progress=progress):
            raise DataError([reason for _, reason in found])

    def without(self, rows: Collection[int]) -> "DecodedImages":
        """The other images, with what is decoded of them; these are not to be used after."""
        gone = set(rows)
        kept = [row for row in range(len(self)) if row not in gone]
        others = DecodedImages(
            [self._examples[row] for row in kept],
            self._decode,
            cache_bytes=self._free,
            tally=self.tally,
        )
        others._kept = [self._kept[row] for row in kept]
        return others


def raise_fault(example: Example, error: BaseException) -> None:
    """Raises DataError where an image could not be read by no fault of its own."""
    if fault := fault_of_machine(error):
        raise DataError(
            [
                f"{example.name} could not be read: {os_reason(fault)}{mend(fault)}. That is a "
                "fault of the disk or the machine, and not of the image, so nothing is left out "
                "for it."
            ]
        ) from error


def _share(batch_size: int, process_index: int, process_count: int) -> slice:
    """The rows of a global batch that a process loads."""
    if batch_size < 1 or batch_size % process_count:
        raise ValueError(
            f"The global batch size {batch_size} does not divide among {process_count} processes."
        )
    if not 0 <= process_index < process_count:
        raise ValueError(f"process_index = {process_index} is not below {process_count}.")
    rows = batch_size // process_count
    return slice(process_index * rows, (process_index + 1) * rows)


def _batches(load: Callable[[int], HostBatch], count: int, prefetch: int) -> grain.IterDataset:
    """`load(0)`, `load(1)`, ...; `prefetch` of them ahead, two under way."""
    options = grain.ReadOptions(num_threads=min(2, prefetch), prefetch_buffer_size=prefetch)
    return grain.MapDataset.range(count).map(load).to_iter_dataset(options)


def train_dataset(
    images: Images,
    labels: Sequence[int] | np.ndarray,
    ids: Sequence[int] | np.ndarray | None = None,
    *,
    seed: int,
    batch_size: int,
    process_index: int,
    process_count: int,
    threads: int,
    prefetch: int,
) -> grain.IterDataset:
    """Endless training batches: each example once per epoch, each epoch in another order.

    The N examples of epoch e follow a permutation that is drawn from (seed, e); all epochs in a
    row are one endless order. Global batch t is its positions [t * B, (t + 1) * B), row by row,
    and a process loads its block of these rows. So the global batch is the same array for any
    number of processes and threads, and whether or not B divides N or even exceeds it.

    Args:
        images: uint8 [S, S, 3] each.
        labels: integers [N].
        ids: integers [N] that the views are seeded by; by default the index.
        seed: of the order, at least 0.
        batch_size: of the global batch, B.
        process_index: this process.
        process_count: number of processes.
        threads: images to load at a time.
        prefetch: batches to load ahead; 0 loads each when it is asked for.

    Returns:
        A dataset of {"image": uint8 [b, S, S, 3], "label": int32 [b], "id": int32 [b],
        "epoch": int32 [b]}, b = B / process_count. The state of its iterator is JSON-able: the
        number of batches that were handed out, which any number of processes can resume from.

    Raises:
        ValueError: no images, lengths that differ, a negative seed, or a batch that does not divide
            among the processes.
    """
    number = len(images)
    share = _share(batch_size, process_index, process_count)
    labels = np.asarray(labels, np.int32)
    ids = np.arange(number, dtype=np.int32) if ids is None else np.asarray(ids, np.int32)
    if number == 0:
        raise ValueError("There are no training images.")
    if labels.shape != (number,) or ids.shape != (number,):
        raise ValueError(f"{number} images have {labels.shape} labels and {ids.shape} ids.")
    if seed < 0:
        raise ValueError(f"seed = {seed} must not be negative.")
    pool = concurrent.futures.ThreadPoolExecutor(threads, thread_name_prefix="load-images")

    # Not grain's `shuffle`: its index cipher, run in Python, takes as long as loading the image.
    # RandomState, because NumPy promises its stream for ever, and a run may outlive a version.
    @functools.lru_cache(maxsize=4)
    def order(epoch: int) -> np.ndarray:
        return np.random.RandomState([seed, epoch]).permutation(number)

    def load(step: int) -> HostBatch:
        positions = step * batch_size + np.arange(share.start, share.stop)  # [b]
        epochs = positions // number
        rows = [int(order(int(e))[p % number]) for e, p in zip(epochs, positions, strict=True)]
        return {
            "image": np.stack(list(pool.map(images.__getitem__, rows))),
            "label": labels[rows],
            "id": ids[rows],
            "epoch": epochs.astype(np.int32),
        }

    return _batches(load, sys.maxsize // batch_size, prefetch)


def to_device(
    dataset: grain.IterDataset, put: Callable[[HostBatch], Any], *, buffer: int
) -> grain.IterDataset:
    """Maps `put` over the batches in a background thread, at most `buffer` + 1 ahead.

    The state of its iterator is that of the batches which were handed out, not of those which
    wait in the buffer. Close the iterator to end the thread.
    """
    return grain.experimental.ThreadPrefetchIterDataset(
        dataset.map(put), prefetch_buffer_size=buffer
    )


def eval_rows(number: int, batch_size: int, process_index: int, process_count: int) -> list[int]:
    """Indices of the examples that a process loads for `eval_batches`, of `number` in all."""
    share = _share(batch_size, process_index, process_count)
    return [row for row in range(number) if share.start <= row % batch_size < share.stop]


def eval_batches(
    images: Images,
    labels: Sequence[int] | np.ndarray,
    *,
    batch_size: int,
    process_index: int,
    process_count: int,
    threads: int,
) -> Generator[HostBatch, None, None]:
    """All examples once, in order, in batches of one shape.

    Global batch t is the examples [t * B, (t + 1) * B), of which a process loads its block. Rows
    beyond the last example are zeros with mask False. Every process gets the same number of
    batches, also one that has no example.

    Args:
        images: uint8 [S, S, 3] each.
        labels: integers [N].
        batch_size: of the global batch, B.
        process_index: this process.
        process_count: number of processes.
        threads: images to load at a time.

    Yields:
        {"image": uint8 [b, S, S, 3], "label": int32 [b], "mask": bool [b]}, b = B / process_count.

    Raises:
        ValueError: no images, lengths that differ, or a batch that does not divide among processes.
    """
    number = len(images)
    share = _share(batch_size, process_index, process_count)
    labels = np.asarray(labels, np.int32)
    if number == 0:
        raise ValueError("There are no images to evaluate.")
    if labels.shape != (number,):
        raise ValueError(f"{number} images have {labels.shape} labels.")
    return _eval_batches(images, labels, batch_size, share, threads)


def _eval_batches(
    images: Images, labels: np.ndarray, batch_size: int, share: slice, threads: int
) -> Generator[HostBatch, None, None]:
    number = len(images)
    zeros = np.zeros_like(images[0])

    def load(step: int) -> HostBatch:
        rows = step * batch_size + np.arange(share.start, share.stop)  # [b]
        mask = rows < number
        loaded = list(pool.map(images.__getitem__, rows[mask].tolist()))
        return {
            "image": np.stack(loaded + [zeros] * int((~mask).sum())),
            "label": np.where(mask, labels[np.minimum(rows, number - 1)], np.int32(0)),
            "mask": mask,
        }

    with concurrent.futures.ThreadPoolExecutor(threads, thread_name_prefix="load-images") as pool:
        batches = iter(_batches(load, -(-number // batch_size), prefetch=2))
        try:
            yield from batches
        finally:
            batches.close()
