"""Facts about every image of a data set, each read once: size, format and hashes, but no pixels."""

import concurrent.futures
import functools
import pathlib
import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from clevit_jax.data import cut_short, decode, formats
from clevit_jax.data.audit import duplicates
from clevit_jax.data.dataset import Dataset, Example
from clevit_jax.data.decode import PLAIN, Decoding
from clevit_jax.data.layouts.listing import is_image, points_out
from clevit_jax.data.tally import Tally
from clevit_jax.errors import DecodeError
from clevit_jax.system.faults import fault_of_machine


class ImageFacts(NamedTuple):
    """The facts that are kept of an image.

    Attributes:
        width: in pixels, upright.
        height: in pixels, upright.
        format: as Pillow calls it; a JPEG of several pictures (MPO) is JPEG.
        mode: as Pillow calls it, in the file.
        turned: whether EXIF says that it is not stored upright.
        animated: whether it has several frames or pages.
        pixels: `duplicates.pixel_digest`.
        look: `duplicates.perceptual_hash`.
        highest: highest value of 16-bit pixels whose file does not say how many bits they use;
            else None.
        is_cut_short: whether it lacks its last bytes, and was read as far as it goes.
    """

    width: int
    height: int
    format: str
    mode: str
    turned: bool
    animated: bool
    pixels: bytes
    look: np.ndarray
    highest: int | None = None
    is_cut_short: bool = False


class Entry(NamedTuple):
    """An example, the split that it is in, and what was read of it.

    Attributes:
        split: train, val or test.
        example: the example.
        facts: None where it could not be read.
    """

    split: str
    example: Example
    facts: ImageFacts | None


class Reading(NamedTuple):
    """The facts about all examples, and the files that could not be read.

    Attributes:
        entries: split by split, in their order.
        unreadable: file name, and why it could not be read in one sentence.
        missing: names of files that are not there, or that may not be read.
        files: what was read of each file, once each.
        faults: names of the unreadable ones that the disk or the machine is to blame for.
    """

    entries: list[Entry]
    unreadable: list[tuple[str, str]]
    missing: list[str]
    files: list[ImageFacts]
    faults: Sequence[str] = ()


def read_image_facts(example: Example, decoding: Decoding = PLAIN) -> ImageFacts:
    """Reads and decodes one image, as training would with this `decoding`.

    Raises:
        DecodeError: see `decode.read_rgb`.
        FileNotFoundError: there is no such file.
    """
    data, name = example.data, example.name
    if not isinstance(data, bytes):
        name = str(data)
        try:
            data = data.read_bytes() if isinstance(data, pathlib.Path) else data.read()
        except FileNotFoundError:
            raise
        except Exception as error:  # whatever a reader of larger files raises
            text = getattr(error, "strerror", None) or str(error).removesuffix(".")
            raise DecodeError(f"{name} cannot be read: {text}.") from error
    tally = Tally()
    rgb = decode.read_rgb(data, name, decoding, tally)
    with cut_short.open_without_end(data) as image:  # no more than its header
        kind = "JPEG" if image.format == "MPO" else str(image.format)
        mode, turned, animated = image.mode, decode.is_turned(image), _is_animated(image)
    return ImageFacts(
        width=rgb.width,
        height=rgb.height,
        format=kind,
        mode=mode,
        turned=turned,
        animated=animated,
        pixels=duplicates.pixel_digest(rgb),
        look=duplicates.perceptual_hash(rgb),
        highest=tally.highest if tally.deep else None,
        is_cut_short=bool(tally.cut_short),
    )


def _is_animated(image: Image.Image) -> bool:
    try:
        return image.format != "MPO" and getattr(image, "n_frames", 1) > 1
    except Exception:  # whatever damage behind the first frame raises; the first is what is used
        return False


def _place_key(split: str, example: Example) -> tuple[str, ...]:
    """A key that examples share whose image lies in one place."""
    if isinstance(example.data, bytes):
        return (split, str(example.id))
    return (str(example.data),)


def read_images(
    dataset: Dataset,
    *,
    threads: int,
    decoding: Decoding = PLAIN,
    progress: Callable[[int, int], None] | None = None,
) -> Reading:
    """Reads every file of a data set once, also one that is listed several times.

    A file that points out of the folder of the data set, which `sources.scan` calls a problem, is
    not opened.

    Args:
        dataset: as `sources.scan` gives it, also with problems.
        threads: images to read at a time; so many decoded images are in memory at most.
        decoding: as in training.
        progress: called with (files done, files in all).
    """
    examples = [(split, e) for split, inside in dataset.splits.items() for e in inside]
    places = {_place_key(split, example): example for split, example in examples}
    outcomes: list[ImageFacts | DecodeError | None] = []
    with concurrent.futures.ThreadPoolExecutor(threads, thread_name_prefix="check-images") as pool:
        read = functools.partial(_facts_or_problem, decoding=decoding)
        for outcome in pool.map(read, places.values()):
            outcomes.append(outcome)
            if progress is not None:
                progress(len(outcomes), len(places))
    by_place = dict(zip(places, outcomes, strict=True))
    files = [each for each in outcomes if isinstance(each, ImageFacts)]
    faults = [
        example.name
        for place, example in places.items()
        if isinstance(outcome := by_place[place], DecodeError) and fault_of_machine(outcome)
    ]
    reading = Reading([], [], [], files, faults)
    for place, example in places.items():
        outcome = by_place[place]
        if isinstance(outcome, DecodeError):
            reading.unreadable.append((example.name, outcome.sentence))
        elif outcome is None:
            reading.missing.append(example.name)
    for split, example in examples:
        outcome = by_place[_place_key(split, example)]
        entry = Entry(split, example, outcome if isinstance(outcome, ImageFacts) else None)
        reading.entries.append(entry)
    return reading


def _facts_or_problem(example: Example, decoding: Decoding) -> ImageFacts | DecodeError | None:
    """The facts, why it cannot be read, or None where there is no such file."""
    if isinstance(example.data, pathlib.Path) and points_out(example.name):
        return None
    try:
        return read_image_facts(example, decoding)
    except FileNotFoundError:
        return None
    except DecodeError as error:
        return error


def has_wrong_ending(name: str, image_format: str) -> bool:
    """Whether a file name ends as an image of another format."""
    return is_image(name) and not name.lower().endswith(formats.ENDINGS_BY_FORMAT[image_format])


def spread(numbers: Iterable[int]) -> dict[str, float]:
    """The minimum, median and maximum; all 0 where there are no numbers."""
    values = list(numbers) or [0]
    return {"min": min(values), "median": statistics.median(values), "max": max(values)}


def describe_splits(dataset: Dataset) -> dict[str, dict[str, Any]]:
    """Per split: images, classes, images per class, and classes without an image; JSON-able."""
    described = {}
    for split, examples in dataset.splits.items():
        counts = Counter(example.label for example in examples)
        without = [name for label, name in enumerate(dataset.class_names) if not counts.get(label)]
        described[split] = {
            "images": len(examples),
            "classes": len(counts),
            "images_a_class": spread(counts.values()),
            "classes_without_image": without,
        }
    return described


def describe_images(files: Sequence[ImageFacts], *, sides: dict[str, int]) -> dict[str, Any]:
    """Sizes, formats and modes, JSON-able.

    Args:
        files: what was read.
        sides: name -> pixels; counted are the images that have a shorter side.
    """

    def counted(values: Iterable[str]) -> dict[str, int]:
        return dict(sorted(Counter(values).items(), key=lambda item: (-item[1], item[0])))

    smaller = {
        name: sum(min(facts.width, facts.height) < side for facts in files)
        for name, side in sides.items()
    }
    return {
        "width": spread(facts.width for facts in files),
        "height": spread(facts.height for facts in files),
        "smaller_than": {
            name: {"pixels": sides[name], "images": count, "share": count / max(1, len(files))}
            for name, count in smaller.items()
        },
        "formats": counted(facts.format for facts in files),
        "modes": counted(facts.mode for facts in files),
        "turned_by_exif": sum(facts.turned for facts in files),
        "animated": sum(facts.animated for facts in files),
    }
