"""Images through a classifier, one after the other in their order, in fixed memory."""

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


class Output(NamedTuple, Generic[Item]):
    """What became of one item.

    Attributes:
        item: it.
        logits: float32 [K]; with `flip`, those of the image and of its mirror image, [2, K].
        features: float32 [C]; with `flip` the mean of both.
        error: why it could not be decoded, in one sentence; the arrays are empty then.
        pixels: what the model saw, uint8 [S, S, 3].
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
) -> Iterator[Output[Item]]:
    """Runs a classifier over any number of images, two batches ahead of what is taken.

    Args:
        classifier: the model.
        items: what names the images; taken one by one, as they are needed.
        read: gives the pixels of an item, uint8 [S, S, 3], or raises DecodeError or OSError; called
            from several threads.
        batch_size: images at a time.
        threads: that read.
        flip: whether each image is also seen mirrored.

    Yields:
        An output for each item, in their order.
    """

    def load(item: Item) -> np.ndarray | str:
        try:
            return read(item)
        except DecodeError as error:
            return str(error)
        except OSError as error:
            return f"{error.filename or item} cannot be read: {error.strerror or error}."

    items = iter(items)
    waiting: collections.deque[Iterator[Output[Item]]] = collections.deque()
    with concurrent.futures.ThreadPoolExecutor(threads, thread_name_prefix="read") as pool:
        reading: collections.deque[tuple[Item, concurrent.futures.Future]] = collections.deque()

        def read_ahead() -> None:
            for item in itertools.islice(items, 2 * batch_size - len(reading)):
                reading.append((item, pool.submit(load, item)))

        try:
            read_ahead()
            while reading or waiting:
                if reading:
                    count = min(batch_size, len(reading))
                    batch = [reading.popleft() for _ in range(count)]
                    read_ahead()
                    waiting.append(_run(classifier, batch, batch_size, flip))
                if len(waiting) > 1 or not reading:
                    yield from waiting.popleft()
        finally:
            for _, future in reading:
                future.cancel()


def _run(
    classifier: Classifier,
    batch: list[tuple[Item, concurrent.futures.Future]],
    size: int,
    flip: bool,
) -> Iterator[Output[Item]]:
    """Begins to compute a batch at once; what it returns waits for it."""
    loaded = [(item, future.result()) for item, future in batch]
    good = [pixels for _, pixels in loaded if not isinstance(pixels, str)]
    started = []
    if good:
        pixels = np.stack(good)
        # Batches of one size: nothing is compiled anew, and no image's numbers depend on how many
        # there are beside it.
        started = [classifier.start(pixels, size=size)]
        if flip:
            started.append(classifier.start(pixels[:, :, ::-1], size=size))

    def wait() -> Iterator[Output[Item]]:
        parts = [part() for part in started]
        nothing, row = np.zeros(0, np.float32), 0
        for item, found in loaded:
            if isinstance(found, str):
                yield Output(item, nothing, nothing, found)
                continue
            logits = np.stack([part[0][row] for part in parts])
            features = np.stack([part[1][row] for part in parts]).mean(axis=0)
            yield Output(item, logits if flip else logits[0], features, pixels=found)
            row += 1

    return wait()


class Outputs(NamedTuple):
    """What a model makes of labelled images.

    Attributes:
        examples: the images that could be decoded, in their order.
        logits: float32 [N, K].
        features: float32 [N, C].
        errors: a sentence for each image that could not.
    """

    examples: tuple[Example, ...]
    logits: np.ndarray
    features: np.ndarray
    errors: tuple[str, ...]

    @property
    def labels(self) -> np.ndarray:
        """int32 [N]."""
        return np.array([example.label for example in self.examples], np.int32)

    @property
    def names(self) -> tuple[str, ...]:
        """Of the files, as the data set has them."""
        return tuple(example.name for example in self.examples)


def collect(
    classifier: Classifier,
    examples: Sequence[Example],
    *,
    batch_size: int,
    threads: int,
    progress: Callable[[], object] = lambda: None,
) -> Outputs:
    """Runs a classifier over the images of a data set as evaluations see them.

    Args:
        classifier, batch_size, threads: see `stream`.
        examples: the images.
        progress: called after each of them.
    """
    kept, errors = list[Example](), list[str]()
    logits = np.zeros((len(examples), classifier.model.num_classes), np.float32)
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
    return Outputs(tuple(kept), logits[: len(kept)], features[: len(kept)], tuple(errors))
