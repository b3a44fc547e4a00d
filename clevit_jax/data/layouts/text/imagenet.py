"""ImageNet's form: training images in folders of synsets, validation images in one folder.

So are ILSVRC 2012, as its archives and as Kaggle have it, its subsets, and Tiny ImageNet. Where the
validation images lie in folders of synsets as well, without lists, that is the layout `folders`.

Reference: https://image-net.org/challenges/LSVRC/2012/, readme.txt of the development kit.
"""

import pathlib
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from clevit_jax.data.layouts import table
from clevit_jax.data.layouts.folder.folder_splits import Parts, find_parts, folders_in
from clevit_jax.data.layouts.listing import (
    Contents,
    Notes,
    Request,
    files_below,
    first_three,
    is_image,
    read_lines,
    say_own,
)
from clevit_jax.data.layouts.synsets import is_synset, list_folders
from clevit_jax.data.layouts.text import imagenet_val, list_names
from clevit_jax.errors import Repeated

LOOKS_FOR = "train/<synset>/ and val/ with its labels in a list, as ImageNet and Tiny ImageNet have"
_BASES = ("", "Data/CLS-LOC", "ILSVRC/Data/CLS-LOC", "CLS-LOC")  # where train/ and val/ are
_TRAIN_LIST = "train_cls.txt"
_OF_KAGGLE = ("LOC_train_solution.csv", "LOC_val_solution.csv")


class _Place(NamedTuple):
    """Where the images of an ImageNet are.

    Attributes:
        base: the folder that has those of the splits.
        parts: the folders in it, relative to it.
        folders: that may hold lists, between the data set and `base`.
    """

    base: pathlib.Path
    parts: Parts
    folders: list[pathlib.Path]

    @property
    def train(self) -> str:
        return self.parts.splits["train"][0]

    @property
    def val(self) -> str | None:
        """The folder in which validation images lie side by side, or None."""
        return next(iter(self.parts.flat.get("val", ())), None)


def fits(root: pathlib.Path, _: Request) -> str | None:
    """What the layout is recognised by, or None."""
    place = _find(root)
    if place is None:
        return None
    seen = [f"{(place.base / place.train).relative_to(root).as_posix()}/<synset>/"]
    lists = imagenet_val.lists(place.folders) if place.val else []
    if not lists and not _is_of_kaggle(root, place):
        return None
    if place.base == root and _has_train_list(root):  # of files and labels, which say it all
        return None
    return " and ".join([*seen, *(path.relative_to(root).as_posix() for path in lists[:1])])


def read(root: pathlib.Path, request: Request, notes: Notes) -> Contents:
    """Reads train/<synset>/** and val/*, in `root` or in ILSVRC/Data/CLS-LOC/.

    The validation images have their classes from LOC_val_solution.csv, val_annotations.txt,
    val.txt or ILSVRC2012_validation_ground_truth.txt (`imagenet_val`), or from their folders. They
    are the test split, unless there are test images in folders of synsets; the published ones have
    no labels, and are left out. Where
    train_cls.txt lists the training images, these are read and no others. Classes are the synsets
    in the order of their numbers.
    """
    del request
    place = _find(root)
    if place is None:
        notes.problems.append(f"{root} holds no {LOOKS_FOR}.")
        return Contents((), {"train": []})
    own = set[str]()
    above = "" if place.base == root else f"{place.base.relative_to(root).as_posix()}/"
    train = _in_folders(place, place.train, "train", own)
    train = _listed(place, train, notes)
    rows = [*train]
    for split in ("val", "test"):
        for path in place.parts.splits.get(split, ()):
            rows += _in_folders(place, path, split, own)
    if place.val is not None and train:
        rows += _validation(root, place, {row.label for row in train}, own, notes)
    for path in place.parts.flat.get("test", ()):
        if count := sum(1 for _ in _images(place.base / path, own)):
            notes.warnings.append(
                f"{place.base / path}: {count:,} image(s) without a class are not read; predict "
                f"them with --mode predict --input {place.base / path}."
            )
    if own:
        notes.warnings.append(say_own(root, own))
    if notes.problems:
        return Contents((), {"train": []})
    rows = [row._replace(name=f"{above}{row.name}") for row in rows]
    return table.to_contents(rows, str(root), notes)


def _find(root: pathlib.Path) -> _Place | None:
    """Where the folders of the splits are; None where training images are in no synsets."""
    for inner in _BASES:
        base = root / inner
        if not base.is_dir():
            continue
        parts = find_parts(base)
        train = parts.splits.get("train", [])
        if len(train) != 1:
            continue
        classes = folders_in(base / train[0])
        if len(classes) > 1 and all(map(is_synset, classes)):
            images = [base / path for paths in parts.flat.values() for path in paths]
            above = [folder for path in images for folder in (path, path.parent)]
            folders = list_folders(root, base)
            return _Place(base, parts, list(dict.fromkeys([*folders, *above])))
    return None


def _is_of_kaggle(root: pathlib.Path, place: _Place) -> bool:
    """Whether more than folders tells that this is ILSVRC, as Kaggle has it."""
    return place.base != root or any((root / name).is_file() for name in _OF_KAGGLE)


def _has_train_list(root: pathlib.Path) -> bool:
    if (root / "train.csv").is_file():
        return True
    found = list_names.find(root, Notes([], []))
    return any(
        each.path.name != _TRAIN_LIST
        for splits in found.values()
        for split, each in splits.items()
        if split == "train"
    )


def _images(folder: pathlib.Path, own: set[str]) -> Iterator[str]:
    """The images below a folder, relative to it."""
    return filter(is_image, files_below(str(folder), hidden=False, own=own))


def _in_folders(place: _Place, path: str, split: str, own: set[str]) -> list[table.TableRow]:
    """The images of a split whose synsets are folders."""
    folder = place.base / path
    found = sorted(file for file in _images(folder, own) if "/" in file)
    return [
        table.TableRow(
            f"{folder}/{file}", split, file.partition("/")[0], "", folder / file, f"{path}/{file}"
        )
        for file in found
    ]


def _listed(place: _Place, train: list[table.TableRow], notes: Notes) -> list[table.TableRow]:
    """The training images that train_cls.txt lists; all where it is not there."""
    paths = [folder / _TRAIN_LIST for folder in place.folders]
    path = next((path for path in paths if path.is_file()), None)
    if path is None:
        return train
    start = len(place.train) + 1
    by_stem = {row.name[start:].rpartition(".")[0]: row for row in train}
    kept = list[table.TableRow]()
    for number, line in read_lines(path, notes):
        stem = line.split()[0]
        row = by_stem.get(stem) or by_stem.get(stem.rpartition(".")[0])
        if row is None:
            notes.problems.append(
                Repeated(
                    f"{path}, line {number}: the file {stem!r} is not in {place.train}/.",
                    rule=f"{path}: {{n}} of its files are not in {place.train}/; unpack them, or "
                    f"take the list away to read what is there",
                    item=repr(stem),
                )
            )
        else:
            kept.append(row)
    if len(kept) < len(train):
        listed = {row.name for row in kept}
        others = [row.name for row in train if row.name not in listed]
        notes.warnings.append(
            f"{path} does not list {len(others):,} image(s) of {place.train}/, which are left out "
            f"({first_three(others)}); to read these, too, take the list away."
        )
    return kept


def _validation(
    root: pathlib.Path, place: _Place, classes: set[str], own: set[str], notes: Notes
) -> list[table.TableRow]:
    """The validation images, with the synsets that lists say; none where no list does."""
    assert place.val is not None
    folder = place.base / place.val
    images = sorted(_images(folder, own))
    paths = imagenet_val.lists(place.folders)
    told = imagenet_val.synsets_of(images, paths, sorted(classes), place.folders, notes)
    if told is None:
        if not notes.problems:
            notes.warnings.append(
                f"{folder}: nothing says the classes of its {len(images):,} image(s), which are "
                "left out; to test on them, put LOC_val_solution.csv, or val.txt of lines <file> "
                f"<synset>, into {root}."
            )
        return []
    return _rows(place, images, told, notes)


def _rows(
    place: _Place, images: Sequence[str], told: imagenet_val.Told, notes: Notes
) -> list[table.TableRow]:
    """The validation images with their synsets; a problem for each without one."""
    assert place.val is not None
    folder, path = place.base / place.val, told.path
    rows = list[table.TableRow]()
    for file in images:
        if file not in told.synsets:
            notes.problems.append(
                Repeated(
                    f"{path}: it does not say the class of {file!r}.",
                    rule=f"{path}: it does not say the classes of {{n}} images of {folder}",
                    item=repr(file),
                )
            )
            continue
        where, name = f"{path}, {file!r}", f"{place.val}/{file}"
        rows.append(table.TableRow(where, "val", told.synsets[file], "", folder / file, name))
    return rows
