"""Synsets of WordNet, as ImageNet calls its classes (`n01440764`), and the words that name them."""

import collections
import json
import os
import pathlib
import re
from collections.abc import Iterator, Sequence

from clevit_jax.data.layouts.csv import encoding
from clevit_jax.data.layouts.listing import Notes

_SYNSET = re.compile(r"n[0-9]{8}")
_LARGEST = 1 << 23  # bytes; words.txt of all of WordNet has 3 million
# Names of files that name synsets, the surest first.
_FILES = ("loc_synset_mapping.txt", "synset_words.txt", "words.txt", "labels.json")
_LIKE = re.compile(
    r".*(synset|wnid|words|class_index|labels|classes|map_clsloc|names|readme).*\.(txt|json)"
)
_FOLDER = re.compile(
    r"devkit|caffe|imagesets|cls-loc|^meta$|^metadata$|^annotations?$", re.IGNORECASE
)
_DEEPEST = 2  # folders of lists in each other, as ImageSets/CLS-LOC


def is_synset(text: str) -> bool:
    """Whether a text is the number of a noun in WordNet, with its n.

    >>> is_synset("n01440764"), is_synset("n02085620-Chihuahua")
    (True, False)
    """
    return _SYNSET.fullmatch(text) is not None


def list_folders(root: pathlib.Path, base: pathlib.Path) -> list[pathlib.Path]:
    """The folders that may hold lists on images of synsets.

    Args:
        root: of the data set.
        base: of its images: `root` itself, or below it.

    Returns:
        Those from `root` down to `base`, and in each those called as ImageSets/CLS-LOC/, as the
        development kit or as Caffe's lists.
    """
    between = [base, *base.parents]
    chain = [path for path in reversed(between) if path == root or root in path.parents]
    return list(dict.fromkeys(folder for path in chain for folder in (path, *_called(path, 1))))


def _called(folder: pathlib.Path, depth: int) -> Iterator[pathlib.Path]:
    with os.scandir(folder) as entries:
        names = sorted(entry.name for entry in entries if entry.is_dir())
    for name in names:
        if _FOLDER.search(name) or (depth > 1 and name == "data"):
            yield folder / name
            if depth < _DEEPEST:
                yield from _called(folder / name, depth + 1)


def name_synsets(
    root: pathlib.Path, base: pathlib.Path, classes: Sequence[str], notes: Notes
) -> tuple[str, ...]:
    """Names for classes that are synsets, as far as a file tells them.

    Such are LOC_synset_mapping.txt, synset_words.txt and words.txt of lines `n01440764 tench, Tinca
    tinca`, map_clsloc.txt, and JSON of {"n01440764": "tench"} or {"0": ["n01440764", "tench"]}. Of
    synsets with one name, as the two of `crane`, each has its number added.

    Args:
        root: of the data set, as the user named it.
        base: the folder in it that was read.
        classes: as they are called so far, one for each label.
        notes: gets a warning on where the names come from.

    Returns:
        One name for each label; `classes` themselves where no file names all.
    """
    numbers = tuple(classes)
    if len(numbers) < 2 or not all(map(is_synset, numbers)):
        return numbers
    for path in _files(root, base):
        known = _named(path)
        if all(known.get(number) for number in numbers):
            names = [known[number] for number in numbers]
            count = collections.Counter(names)
            named = tuple(
                name if count[name] == 1 else f"{name} ({number})"
                for number, name in zip(numbers, names, strict=True)
            )
            notes.warnings.append(
                f"{root}: the classes have their names from {path.relative_to(root).as_posix()} "
                f"({numbers[0]} is {named[0]!r}, {numbers[-1]} is {named[-1]!r})."
            )
            return named
    return numbers


def _files(root: pathlib.Path, base: pathlib.Path) -> list[pathlib.Path]:
    """The files that may name synsets, the surest first."""
    found = [
        path
        for folder in list_folders(root, base)
        for path in sorted(folder.iterdir())
        if _LIKE.fullmatch(path.name.lower()) and path.is_file() and path.stat().st_size <= _LARGEST
    ]
    rank = {name: place for place, name in enumerate(_FILES)}
    return sorted(found, key=lambda path: rank.get(path.name.lower(), len(rank)))


def _named(path: pathlib.Path) -> dict[str, str]:
    """Synset -> name, of those that a file names."""
    text = encoding.decode(path.read_bytes(), western=True).text or ""
    if path.suffix.lower() == ".json":
        return _of_json(text)
    named = dict[str, str]()
    for line in re.split(r"\r\n|\n|\r", text):
        match = re.fullmatch(r"(n[0-9]{8})[\s,:=]+(?:[0-9]+\s+)?(.*[^\W\d].*)", line.strip())
        if match:
            named[match[1]] = match[2].strip(" \t\"'")
    return named


def _of_json(text: str) -> dict[str, str]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    if not isinstance(value, dict):
        return {}
    named = dict[str, str]()
    for key, inside in value.items():
        pair = inside if isinstance(inside, list) and len(inside) == 2 else (key, inside)
        if all(isinstance(part, str) for part in pair) and is_synset(pair[0]):
            named[pair[0]] = pair[1].strip()
    return named
