"""Images that cannot be read: left out of a data set within a limit, and said."""

import collections
import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from clevit_jax.data.dataset import SPLIT_NAMES, Dataset, Skipped
from clevit_jax.data.open import DataConfig, decoded_images
from clevit_jax.errors import DataError, Repeated, said_once
from clevit_jax.system.progress import progress_bar

MAX_BAD = "--config.data.max_bad"
_HALF = 0.5  # where more of a split cannot be read, something else is wrong


def leave_out(dataset: Dataset, found: Iterable[Skipped]) -> Dataset:
    """The data set without some images; those that stay keep their order."""
    found = tuple(found)
    gone: dict[str, set[int]] = collections.defaultdict(set)
    for skipped in found:
        gone[skipped.split].add(skipped.example.id)
    kept: dict[str, Any] = {
        split: tuple(
            example._replace(id=i)
            for i, example in enumerate(e for e in examples if e.id not in gone[split])
        )
        for split, examples in dataset.splits.items()
        if gone[split]
    }
    return dataclasses.replace(dataset, **kept, skipped=(*dataset.skipped, *found))


def listed(dataset: Dataset) -> Dataset:
    """The data set as it is listed, before `leave_out`."""
    parts = {split: list(examples) for split, examples in dataset.splits.items()}
    for skipped in sorted(dataset.skipped, key=lambda skipped: skipped.example.id):
        parts.setdefault(skipped.split, []).insert(skipped.example.id, skipped.example)
    whole: dict[str, Any] = {
        split: tuple(example._replace(id=i) for i, example in enumerate(examples))
        for split, examples in parts.items()
    }
    return dataclasses.replace(dataset, **whole, skipped=())


def counts(dataset: Dataset) -> dict[str, int]:
    """How many images of each split are left out; only of splits where there are any."""
    numbers = collections.Counter(skipped.split for skipped in dataset.skipped)
    return {split: numbers[split] for split in SPLIT_NAMES if numbers[split]}


def most(images: int, max_bad: float) -> int:
    """How many of the images of a split may be left out: a share, and at least one.

    Of a set of 60 images one per cent is none, and whoever asks to go on without bad images means
    the one that he has. A share of 0 is none at all.
    """
    return max(1, math.floor(images * max_bad + 1e-9)) if max_bad else 0


def problems(dataset: Dataset, max_bad: float, *, flag: str = MAX_BAD) -> list[str]:
    """Sentences on what a data set may not lose: many images, a class, or a split.

    Args:
        dataset: what is left of it.
        max_bad: the limit, see `most`.
        flag: that would raise it.
    """
    said, too_much = _lost(dataset), 0.0
    for split, number in counts(dataset).items():
        images = number + len(dataset.splits.get(split, ()))
        if most(images, max_bad) < number < images:
            too_much = max(too_much, number / images)
            said.append(
                f"{number:,} of {images:,} {SPLIT_NAMES[split]} images "
                f"({100 * number / images:.2g} %) cannot be read, and no more than "
                f"{most(images, max_bad):,} may be left out ({flag}={max_bad:g})."
            )
    if said:
        raised = f", or raise the limit: {flag}={_share(too_much)}"
        limit = raised if 0 < too_much <= _HALF and not _lost(dataset) else ""
        said.append(f"Mend or remove these files (--mode check_data lists them){limit}.")
    return said


def _lost(dataset: Dataset) -> list[str]:
    """Sentences on splits, and on classes to train, of which no image is left."""
    said = [
        f"None of the {number:,} {SPLIT_NAMES[split]} images can be read."
        for split, number in counts(dataset).items()
        if not dataset.splits.get(split)
    ]
    trained = {example.label for example in dataset.train}
    gone = {s.example.label for s in dataset.skipped if s.split == "train"} - trained
    said += [
        Repeated(
            f"The class {dataset.class_names[label]!r} has no training image that can be read, so "
            "it cannot be learnt; mend one, or remove the class.",
            rule="{n} classes have no training image that can be read, so they cannot be learnt; "
            "mend one of each, or remove the classes",
            item=dataset.class_names[label],
        )
        for label in sorted(gone if trained else ())
    ]
    return said


def check_limit(dataset: Dataset, max_bad: float, *, flag: str = MAX_BAD) -> None:
    """Raises DataError, with what is wrong with each image, where too much would be left out."""
    if said := problems(dataset, max_bad, flag=flag):
        raise DataError([*said, *(skipped.reason for skipped in dataset.skipped)])


def how_to_go_on(found: Sequence[Skipped], dataset: Dataset, config: DataConfig) -> str:
    """A sentence on images that stop a command, and on what does not.

    Args:
        found: images of `dataset` that cannot be read.
        dataset: in which they still are.
        config: its settings.
    """
    numbers = collections.Counter(skipped.split for skipped in found)
    shares = {split: number / len(dataset.splits[split]) for split, number in numbers.items()}
    beyond = [
        shares[split]
        for split, number in numbers.items()
        if number > most(len(dataset.splits[split]), config.max_bad)
    ]
    images = {split: len(examples) for split, examples in dataset.splits.items()}
    said = f"{_parts(images, numbers)} cannot be read"
    lost = said_once(_lost(leave_out(dataset, found)))
    if lost or max(beyond, default=0) > _HALF:
        mend = f"{said}; mend or remove them (--mode check_data lists them)."
        return " ".join([mend, *lost])
    limit = f" {MAX_BAD}={_share(max(beyond))}" if beyond else ""
    return (
        f"{said}; mend or remove them, or go on without them: "
        f"--config.data.on_bad_image=skip{limit}."
    )


def summary(dataset: Dataset) -> str:
    """`3 of 240 images could not be read and were left out: ...`; "" where there is none."""
    return summary_of(
        {split: len(examples) for split, examples in dataset.splits.items()}, counts(dataset)
    )


def summary_of(images: Mapping[str, int], left_out: Mapping[str, int]) -> str:
    """The same from numbers by split: of the images that stayed, and of those left out."""
    if not left_out:
        return ""
    number = sum(left_out.values())
    listed = {split: images.get(split, 0) + left_out.get(split, 0) for split in SPLIT_NAMES}
    was = "was" if number == 1 else "were"
    if len(left_out) == 1:
        return f"{_parts(listed, left_out)} could not be read and {was} left out."
    return (
        f"{number:,} of {sum(listed.values()):,} images could not be read and {was} left out: "
        f"{_parts(listed, left_out)}."
    )


def would_skip(dataset: Dataset) -> str:
    """What a run would do, for a data set that only is looked at."""
    listed = {split: len(examples) for split, examples in dataset.splits.items()}
    left_out = counts(dataset)
    for split, number in left_out.items():
        listed[split] = listed.get(split, 0) + number
    return f"A run leaves out what cannot be read, {_parts(listed, left_out)}."


def classes_not_tested(dataset: Dataset) -> list[str]:
    """Sentences on classes of which every test or validation image is left out."""
    said = list[str]()
    for split in ("val", "test"):
        left = {example.label for example in dataset.splits.get(split, ())}
        gone = {s.example.label for s in dataset.skipped if s.split == split} - left
        said += [
            Repeated(
                f"The class {dataset.class_names[label]!r} has no {SPLIT_NAMES[split]} image left, "
                "so the scores say nothing about it.",
                rule=f"{{n}} classes have no {SPLIT_NAMES[split]} image left, so the scores say "
                "nothing about them",
                item=dataset.class_names[label],
            )
            for label in sorted(gone)
        ]
    return said


def without_bad(config: DataConfig, dataset: Dataset) -> Dataset:
    """Decodes every image once, and leaves out those that cannot be read.

    For what one process does with a data set; a run has `runs.skipped`.

    Raises:
        DataError: more than `config.max_bad`, see `problems`; or the disk failed.
    """
    plain = dataclasses.replace(config, cache_bytes=0)
    found = list[Skipped]()
    for split, images in decoded_images(plain, dataset, training=False).items():
        desc = f"Reading {SPLIT_NAMES[split]} images"
        with progress_bar(total=len(images), unit=" images", desc=desc) as bar:

            def advance(done: int, _: int, bar: Any = bar) -> None:
                bar.update(done - bar.n)

            bad = images.check(threads=config.threads, progress=advance)
        found += [Skipped(split, dataset.splits[split][row], reason) for row, reason in bad]
    reduced = leave_out(dataset, found)
    check_limit(reduced, config.max_bad)
    return reduced


def _parts(images: Mapping[str, int], numbers: Mapping[str, int]) -> str:
    """`2 of 180 training images and 1 of 60 test images`."""
    return " and ".join(
        f"{number:,} of {images[split]:,} {SPLIT_NAMES[split]} images"
        for split, number in numbers.items()
    )


def _share(share: float) -> str:
    """A share, rounded up to whole per cents."""
    return f"{math.ceil(100 * share - 1e-9) / 100:g}"
