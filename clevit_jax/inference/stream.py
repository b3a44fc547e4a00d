"""A stream of images through a classifier: in their order, in fixed memory."""

import collections
import concurrent.futures
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Generic, NamedTuple, TypeVar

import numpy as np

from clevit_jax.data.dataset import Example
from clevit_jax.errors import DecodeError
from clevit_jax.inference.classifier import Classifier

Item = TypeVar("Item")


class ItemOutput(NamedTuple, Generic[Item]):
    """Logits and features of one item, or why there are none.

    Attributes:
        item: the item, as `stream` was given it.
        logits: float32 [K]; with `flip`, those of the image and of its mirror image, [2, K].
        features: float32 [C]; with `flip`, the mean of both.
        error: one sentence, when the image could not be read; the arrays are empty then.
        pixels: the image as the model saw it, uint8 [S, S, 3].
    """

    item: Item
    logits: np.ndarray
    features: np.ndarray
    error: str = ""
    pixels: np.ndarray = np.zeros(0, np.uint8)


def stream(
    classifier: Classifier,
    items: Iterable[Item],
    read: Callable[[Item], np.ndarray],
    *,
    batch_size: int,
    threads: int,
    flip: bool = False,
) -> Iterator[ItemOutput[Item]]:
    """Runs a classifier over any number of images, two batches ahead of what is taken.

    Args:
        classifier: the model.
        items: names of the images, of any type; taken one by one, as they are needed.
        read: gives the pixels of an item, uint8 [S, S, 3], or raises DecodeError or OSError; called
            from several threads.
        batch_size: images at a time.
        threads: number of threads that call `read`.
        flip: whether each image is also seen mirrored.

    Yields:
        One output per item, in the order of the items.
    """

    def pixels_or_error(item: Item) -> np.ndarray | str:
        try:
            return read(item)
        except DecodeError as error:
            return error.sentence
        except OSError as error:
            return f"{error.filename or item} cannot be read: {error.strerror or error}."

    items = iter(items)
    waiting: collections.deque[Iterator[ItemOutput[Item]]] = collections.deque()
    with concurrent.futures.ThreadPoolExecutor(threads, thread_name_prefix="read") as pool:
        reading: collections.deque[tuple[Item, concurrent.futures.Future]] = collections.deque()

        def read_ahead() -> None:
            for item in itertools.islice(items, 2 * batch_size - len(reading)):
                reading.append((item, pool.submit(pixels_or_error, item)))

        try:
            read_ahead()
            while reading or waiting:
                if reading:
                    count = min(batch_size, len(reading))
                    batch = [reading.popleft() for _ in range(count)]
                    read_ahead()
                    waiting.append(_dispatch_batch(classifier, batch, batch_size, flip))
                if len(waiting) > 1 or not reading:
                    yield from waiting.popleft()
        finally:
            for _, future in reading:
                future.cancel()


def _dispatch_batch(
    classifier: Classifier,
    batch: list[tuple[Item, concurrent.futures.Future]],
    size: int,
    flip: bool,
) -> Iterator[ItemOutput[Item]]:
    """Begins to compute a batch at once; the iterator that it returns waits for the outputs."""
    loaded = [(item, future.result()) for item, future in batch]
    readable = [pixels for _, pixels in loaded if not isinstance(pixels, str)]
    pending = []
    if readable:
        images = np.stack(readable)
        # Batches of one size: nothing is compiled anew, and no image's numbers depend on how many
        # there are beside it.
        pending = [classifier.dispatch(images, size=size)]
        if flip:
            pending.append(classifier.dispatch(images[:, :, ::-1], size=size))

    def wait() -> Iterator[ItemOutput[Item]]:
        outputs = [result() for result in pending]
        nothing, row = np.zeros(0, np.float32), 0
        for item, pixels in loaded:
            if isinstance(pixels, str):
                yield ItemOutput(item, nothing, nothing, error=pixels)
                continue
            logits = np.stack([part[0][row] for part in outputs])
            features = np.stack([part[1][row] for part in outputs]).mean(axis=0)
            yield ItemOutput(item, logits if flip else logits[0], features, pixels=pixels)
            row += 1

    return wait()


class DatasetOutputs(NamedTuple):
    """Logits and features of labelled images.

    Attributes:
        examples: the images that could be decoded, in their order.
        logits: float32 [N, K].
        features: float32 [N, C].
        errors: one sentence per image that could not be decoded.
    """

    examples: tuple[Example, ...]
    logits: np.ndarray
    features: np.ndarray
    errors: tuple[str, ...]

    @property
    def labels(self) -> np.ndarray:
        """Labels of the examples, int32 [N]."""
        return np.array([example.label for example in self.examples], np.int32)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the image files, as the data set has them."""
        return tuple(example.name for example in self.examples)


def collect_outputs(
    classifier: Classifier,
    examples: Sequence[Example],
    *,
    batch_size: int,
    threads: int,
    progress: Callable[[], object] = lambda: None,
) -> DatasetOutputs:
    """Runs a classifier over the images of a data set as evaluations see them.

    Args:
        classifier, batch_size, threads: see `stream`.
        examples: the images.
        progress: called after each image.
    """
    kept, errors = list[Example](), list[str]()
    logits = np.zeros((len(examples), classifier.class_count), np.float32)
    features = np.zeros((len(examples), classifier.model.channels(-1)), np.float32)

    def read(example: Example) -> np.ndarray:
        return classifier.pixels(example.data, example.name)

    for output in stream(classifier, examples, read, batch_size=batch_size, threads=threads):
        progress()
        if output.error:
            errors.append(output.error)
            continue
        logits[len(kept)], features[len(kept)] = output.logits, output.features
        kept.append(output.item)
    return DatasetOutputs(tuple(kept), logits[: len(kept)], features[: len(kept)], tuple(errors))
