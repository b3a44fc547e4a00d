"""Classes in the names of files: `cat.0.jpg`, by a regular expression that the user gives."""

import collections
import os
import pathlib
import posixpath
import re
import warnings
from collections.abc import Iterator, Sequence

from clevit_jax.data.dataset import Example
from clevit_jax.data.layouts.folder.folder_splits import holds_image
from clevit_jax.data.layouts.listing import (
    Contents,
    Notes,
    Request,
    files_below,
    first_three,
    in_order,
    is_image,
    say_own,
)
from clevit_jax.data.split_names import splits_among
from clevit_jax.errors import DataError

LOOKS_FOR = "images with the class in their names, by data.label_pattern"
# Forms of names with a class that ends or begins with a letter, the plainest first.
_PATTERNS = (
    r"^(.*[^\W\d_])[._ -]*[0-9]+$",  # cat.0, american_bulldog_12
    r"^(.*[^\W\d_])[._ -]*\(?[0-9]+\)?$",  # cat (0)
    r"^(.*[^\W\d_].*?)[._ -]+[0-9]+$",  # rose2_0
    r"^[0-9]+[._ -]+(.*[^\W\d_])$",  # 0_cat
    r"^([^\W\d_]+)[._ -]",  # cat_left-0
)
_CAMERAS = {"img", "dsc", "dscn", "dscf", "image", "images", "photo", "pict", "p", "imag", "pic"}
_LOOKED_AT = 100_000  # files that are enough to suggest a pattern
_FEW = 20  # folders that are looked into for it
_SHOWN = 5  # classes that a suggestion names


def fits(root: pathlib.Path, request: Request) -> str | None:
    """What the layout is recognised by, or None: only a pattern makes it fit."""
    del root
    return f"data.label_pattern = {request.label_pattern}" if request.label_pattern else None


def read(root: pathlib.Path, request: Request, notes: Notes) -> Contents:
    """Reads the images below `root` whose paths `data.label_pattern` fits.

    It is searched for in the name without its ending, as `cat.0`; or where there is a `/` in the
    pattern, in the path below `root`, or below the folder of the split. The class is the group
    `label`, else the first group. Images that it does not fit are left out, and counted. Where
    folders are called as splits, they are.
    """
    pattern = _compiled(request.label_pattern)
    own = set[str]()
    images = sorted(
        file for file in files_below(str(root), hidden=False, own=own) if is_image(file)
    )
    if own:
        notes.warnings.append(say_own(root, own))
    if not images:
        notes.problems.append(f"{root} holds no image.")
        return Contents((), {"train": []})
    found: dict[str, list[tuple[str, str]]] = {}
    unfit = list[str]()
    by_path = "/" in request.label_pattern
    for split, file, inside in _by_split(images):
        stem = posixpath.splitext(inside)[0]
        match = split and pattern.search(stem if by_path else posixpath.basename(stem))
        label = (match["label"] if "label" in pattern.groupindex else match[1]) if match else None
        if label and label.strip():
            found.setdefault(split, []).append((file, label.strip()))
        else:
            unfit.append(file)
    if unfit:
        what = f"{root}: data.label_pattern = {request.label_pattern!r} matches"
        if len(unfit) == len(images):
            notes.problems.append(
                f"{what} none of the {len(images)} images ({first_three(unfit)}); it is searched "
                "for in the name without the ending, or in the path where it has a '/'."
            )
            return Contents((), {"train": []})
        notes.warnings.append(
            f"{what} all but {len(unfit)} of the {len(images)} images; these are not read "
            f"({first_three(unfit)})."
        )
    return _contents(root, found, notes)


def _contents(
    root: pathlib.Path, found: dict[str, list[tuple[str, str]]], notes: Notes
) -> Contents:
    if "train" not in found:
        notes.problems.append(f"{root} lists no image for training.")
        return Contents((), {"train": []})
    if "test" not in found and "val" in found:
        found["test"] = found.pop("val")
    names = in_order(label for _, label in found["train"])
    numbers = {name: number for number, name in enumerate(names)}
    for split, files in found.items():
        strange = sorted({label for _, label in files} - numbers.keys())
        if strange:
            notes.problems.append(
                f"{root}: no training image is of {first_three([repr(s) for s in strange])}, but "
                f"images of the {split} split are; mend data.label_pattern, or move them."
            )
    splits = {
        split: [
            Example(root / file, numbers[label], 0, file)
            for file, label in files
            if label in numbers
        ]
        for split, files in found.items()
    }
    return Contents(tuple(names), splits)


def _compiled(text: str) -> re.Pattern[str]:
    """The pattern of the user. Raises DataError, with what is wrong with it."""
    if not text:
        raise DataError(
            [
                "data.layout=file_names needs data.label_pattern, a regular expression with the "
                "class in brackets, such as '^(.+?)[._ -]*[0-9]+$' for cat.0.jpg."
            ]
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            pattern = re.compile(text)
    except (re.error, RecursionError, OverflowError) as error:
        raise DataError(
            [f"data.label_pattern = {text!r} is no regular expression ({error}); mend it."]
        ) from error
    if not pattern.groups:
        raise DataError(
            [
                f"data.label_pattern = {text!r} has no group; put the part that is the class in "
                "brackets, as in '^(.+?)[._ -]*[0-9]+$'."
            ]
        )
    return pattern


def _by_split(images: Sequence[str]) -> Iterator[tuple[str, str, str]]:
    """(split, file, path below the folder of the split) of each image; the split is "" for none."""
    folders = splits_among(sorted({file.partition("/")[0] for file in images if "/" in file}))
    is_split = "train" in folders.values()
    for file in images:
        folder, _, inside = file.partition("/")
        if not is_split:
            yield "train", file, file
        else:
            yield folders.get(folder, "") if inside else "", file, inside


def suggest(root: pathlib.Path) -> str | None:
    """The pattern by which the names of loose images seem to tell classes, as a sentence.

    Looked at are images that lie in `root`, or in its folders that are called as splits, or in its
    only other folder. Classes are at least two, each of at least two files, and there are at most
    half as many classes as files.

    Returns:
        What to set, with the number of classes and some of their names; None if nothing is obvious.
    """
    stems, inside = _loose_stems(root)
    beside = f"--config.data.root={root / inside} " if inside else ""
    for pattern in _PATTERNS:
        matches = map(re.compile(pattern).search, stems)
        labels = collections.Counter(match[1] for match in matches if match)
        count = sum(labels.values())
        if count < 0.9 * len(stems) or not 2 <= len(labels) <= count / 2:
            continue
        if min(labels.values()) >= 2 and not {label.lower() for label in labels} <= _CAMERAS:
            names = in_order(labels)
            shown = ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
            return (
                "The class seems to be in the names of the files: "
                f"{beside}--config.data.label_pattern='{pattern}' finds {len(names)} classes in "
                f"{count} of {len(stems)} images ({shown})."
            )
    return None


def _loose_stems(root: pathlib.Path) -> tuple[list[str], str]:
    """Names without ending of the images in `root`, or in its folders of training images.

    And the folder that they are in, where others hold images that belong to them, as masks.
    """
    inside = ""
    here = _images_in(root)
    if not here:
        with os.scandir(root) as entries:
            names = sorted(
                entry.name for entry in entries if entry.is_dir() and entry.name[0] != "."
            )
        splits = splits_among(names)
        trained = [name for name, split in splits.items() if split == "train"]
        if not trained:
            loose = [name for name in names[:_FEW] if _images_in(root / name)]
            trained = loose if len(loose) == 1 else []
            others = [name for name in names if name not in trained]
            if trained and any(holds_image(root / name) for name in others):
                (inside,) = trained
        here = [stem for name in trained for stem in _images_in(root / name)]
    return here[:_LOOKED_AT], inside


def _images_in(folder: pathlib.Path) -> list[str]:
    with os.scandir(folder) as entries:
        return [
            posixpath.splitext(entry.name)[0]
            for entry in entries
            if is_image(entry.name) and not entry.name.startswith(".") and entry.is_file()
        ]
