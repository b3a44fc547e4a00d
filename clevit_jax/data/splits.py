"""Cuts of a split, in two or in folds: pure functions of (file names, labels, seed)."""

import collections
import hashlib
from collections.abc import Iterator, Sequence

from clevit_jax.data.dataset import Example


def _draw(seed: int, what: str, text: str) -> bytes:
    """A random number drawn by identity: the same on every machine and in every order."""
    return hashlib.sha256(f"{what}\0{seed}\0{text}".encode("utf-8", "surrogateescape")).digest()


def _files_by_class(examples: Sequence[Example], seed: int, what: str) -> dict[int, list[str]]:
    """Label -> its distinct file names, in a random order.

    A file that is listed twice stays together; one with several labels counts for the lowest.
    """
    label_of: dict[str, int] = {}
    for example in examples:
        label_of[example.name] = min(example.label, label_of.get(example.name, example.label))
    classes = collections.defaultdict[int, list[str]](list)
    for name, label in label_of.items():
        classes[label].append(name)
    return {
        label: sorted(names, key=lambda name: (_draw(seed, what, name), name))
        for label, names in sorted(classes.items())
    }


def _parted(examples: Sequence[Example], names: set[str]) -> tuple[list[Example], list[Example]]:
    rest = [example for example in examples if example.name not in names]
    return rest, [example for example in examples if example.name in names]


def cut(
    examples: Sequence[Example], fraction: float, *, seed: int, what: str, least: int = 0
) -> tuple[list[Example], list[Example]]:
    """Cuts a share out of a split, stratified by class.

    `round(fraction * N)` of the N files go, or `least` where that is more: each class gives its
    share rounded down, and the classes that lost most by that one more, until the number is
    reached. Every class keeps a file.

    Args:
        examples: the split; their order does not matter.
        fraction: in [0, 1).
        seed: of the draw.
        what: name of the draw, so that two draws with one seed differ.
        least: files that go from a set that is too small for its share, if a class can spare one.

    Returns:
        The rest and what was cut out, each in the order of `examples`.
    """
    classes = _files_by_class(examples, seed, what)
    exact = {label: fraction * len(names) for label, names in classes.items()}
    counts = {label: min(int(share), len(classes[label]) - 1) for label, share in exact.items()}
    wanted = max(least, round(fraction * sum(map(len, classes.values())))) - sum(counts.values())
    # Most lost first; of equals, by draw, so that no class is favoured.
    queue = sorted(
        classes, key=lambda label: (counts[label] - exact[label], _draw(seed, what, str(label)))
    )
    spare = [label for label in queue if counts[label] < len(classes[label]) - 1]
    for label in spare[: max(0, wanted)]:
        counts[label] += 1
    return _parted(
        examples, {n for label, names in classes.items() for n in names[: counts[label]]}
    )


def fold_of(examples: Sequence[Example], folds: int, *, seed: int) -> dict[str, int]:
    """File name -> its fold, from 0; the folds' sizes, in all and in each class, differ by one."""
    classes = _files_by_class(examples, seed, "folds")

    def deal() -> Iterator[str]:
        for names in classes.values():
            yield from names

    return {name: position % folds for position, name in enumerate(deal())}


def take_fold(
    examples: Sequence[Example], folds: int, fold: int, *, seed: int
) -> tuple[list[Example], list[Example]]:
    """The examples outside one of `folds` stratified folds, and those in it.

    Raises:
        ValueError: `folds` is below 2, or `fold` is not one of them.
    """
    if folds < 2:
        raise ValueError(f"folds is {folds}; there must be at least 2.")
    if not 0 <= fold < folds:
        raise ValueError(f"fold is {fold}; of {folds} folds, it must be from 0 to {folds - 1}.")
    numbers = fold_of(examples, folds, seed=seed)
    return _parted(examples, {name for name, number in numbers.items() if number == fold})
