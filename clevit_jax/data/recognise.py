"""Which layout a folder has: told from its files, read, and asked about where two are sensible."""

import os
import pathlib
from collections.abc import Callable
from typing import NamedTuple

from clevit_jax.data.dataset import SPLIT_WORDS
from clevit_jax.data.layouts import unread
from clevit_jax.data.layouts.csv import csv_table
from clevit_jax.data.layouts.folder import file_names, folders
from clevit_jax.data.layouts.folder.folder_splits import folders_in, holds_image
from clevit_jax.data.layouts.listing import (
    Contents,
    Notes,
    Request,
    files_below,
    first_three,
    is_image,
)
from clevit_jax.data.layouts.name_files import name_files
from clevit_jax.data.layouts.record import coco, metadata
from clevit_jax.data.layouts.seen import archives_in
from clevit_jax.data.layouts.store import arrow, parquet, tfds_records, webdataset
from clevit_jax.data.layouts.text import cub, deepfashion, imagenet, lists, matlab, ufg
from clevit_jax.data.litter import is_litter
from clevit_jax.errors import DataError, said_once

_DEEPEST = 3  # folders that hold nothing but the next one, as archives unpack
_LISTS = (".csv", ".tsv", ".txt", ".json", ".jsonl", ".mat", ".xlsx")
_ANNOTATIONS = (*_LISTS, ".xml")
_ABOUT = ("readme", "license", "licence", "citation", "about")  # files on the data set as a whole


class _Layout(NamedTuple):
    """The interface of a layout: each module in layouts/ has these three, under these names.

    Attributes:
        looks_for: what a data set of this layout has, for sentences.
        fits: what a folder is recognised by, or None.
        read: the examples in a folder; what is wrong with it goes to the notes.
    """

    looks_for: str
    fits: Callable[[pathlib.Path, Request], str | None]
    read: Callable[[pathlib.Path, Request, Notes], Contents]


# Where several say the same, the first one counts.
_LAYOUTS = {
    "ufg": _Layout(ufg.LOOKS_FOR, ufg.fits, ufg.read),
    "cub": _Layout(cub.LOOKS_FOR, cub.fits, cub.read),
    "imagenet": _Layout(imagenet.LOOKS_FOR, imagenet.fits, imagenet.read),
    "deepfashion": _Layout(deepfashion.LOOKS_FOR, deepfashion.fits, deepfashion.read),
    "lists": _Layout(lists.LOOKS_FOR, lists.fits, lists.read),
    "coco": _Layout(coco.LOOKS_FOR, coco.fits, coco.read),
    "matlab": _Layout(matlab.LOOKS_FOR, matlab.fits, matlab.read),
    "metadata": _Layout(metadata.LOOKS_FOR, metadata.fits, metadata.read),
    "csv": _Layout(csv_table.LOOKS_FOR, csv_table.fits, csv_table.read),
    "parquet": _Layout(parquet.LOOKS_FOR, parquet.fits, parquet.read),
    "arrow": _Layout(arrow.LOOKS_FOR, arrow.fits, arrow.read),
    "webdataset": _Layout(webdataset.LOOKS_FOR, webdataset.fits, webdataset.read),
    "tfds": _Layout(tfds_records.LOOKS_FOR, tfds_records.fits, tfds_records.read),
    "folders": _Layout(folders.LOOKS_FOR, folders.fits, folders.read),
    "file_names": _Layout(file_names.LOOKS_FOR, file_names.fits, file_names.read),
}
LAYOUTS = ("auto", *_LAYOUTS)  # what `layout` may be


class Recognised(NamedTuple):
    """A folder's layout, and what its reader returned.

    Attributes:
        layout: its name.
        seen: the files that it was recognised by.
        root: the folder that was read: the one that was named, or the only one in it.
        contents: of the reader.
        notes: of the reader.
    """

    layout: str
    seen: str
    root: pathlib.Path
    contents: Contents
    notes: Notes


def recognise(root: pathlib.Path, layout: str, request: Request) -> Recognised:
    """Finds out the layout of a folder, and reads it.

    Args:
        root: folder of the data set.
        layout: its name, or "auto".
        request: what the readers need to know besides.

    Raises:
        DataError: the layout cannot be told, or there are several and they differ.
    """
    if request.tfds:
        if layout not in ("auto", "tfds"):
            raise DataError(
                [f"data.tfds is for the layout tfds; set data.layout=auto, not {layout}."]
            )
        return _read(root, "tfds", f"data.tfds = {request.tfds}", request)
    if layout != "auto":
        if layout not in _LAYOUTS:
            names = ", ".join(_LAYOUTS)
            raise DataError([f"data.layout is {layout!r}; it must be auto or one of {names}."])
        seen = _LAYOUTS[layout].fits(root, request)
        return _read(root, layout, seen or f"data.layout = {layout}", request)
    fitting = _fitting(root, request)
    if fitting:
        return _agreeing([_read(root, *each, request) for each in fitting.items()])
    # Folders of images alone are weak evidence: they may well be data sets that lie side by side.
    inside = _folders(root)
    below = [path for path in inside if not _images_alone(path) and _fitting(path, request)]
    if not below and (seen := folders.fits_unsplit(root, request)) is not None:
        return _read(root, "folders", seen, request)
    if (found := _wrapped(root, request)) is not None:
        return found
    if not below:
        deeper = (_with_classes(path, request) for path in inside)
        below = [path for path in deeper if path is not None]
    if not below and (seen := csv_table.fits_alone(root, request)) is not None:
        return _read(root, "csv", seen, request)
    raise DataError([unread.unknown(root, below)])


def _wrapped(root: pathlib.Path, request: Request) -> Recognised | None:
    """The data set in the only folder of `root`, or in the only folder of that; None if none is."""
    inner, beside = root, list[str]()
    for _ in range(_DEEPEST):
        if _has_annotations(inner) or (deeper := _only_folder(inner)) is None:
            return None
        beside += [f"{path.name}/" for path in _folders(inner) if path != deeper]
        inner = deeper
        fitting = _fitting(inner, request)
        if not fitting and (seen := folders.fits_unsplit(inner, request)) is not None:
            fitting = {"folders": seen}
        if fitting:
            found = _agreeing([_read(inner, *each, request) for each in fitting.items()])
            if beside:
                found.notes.warnings.append(
                    f"{root}: there is no image and no list in {first_three(beside)}; not read."
                )
            if archives := archives_in(root):
                found.notes.warnings.append(
                    f"{root}: {first_three(archives)}: an archive is not looked into; read is "
                    f"{inner.relative_to(root).as_posix()}/."
                )
            return found._replace(seen=f"{found.seen} in {inner.relative_to(root).as_posix()}/")
    return None


def _fitting(root: pathlib.Path, request: Request) -> dict[str, str]:
    """Layout -> what it is recognised by, of all that fit; one that a setting is for goes alone."""
    wanted = None
    if request.label_pattern:
        wanted = "file_names"
    elif str(request.class_level) != "auto":
        wanted = "folders"
    if wanted and (seen := _LAYOUTS[wanted].fits(root, request)) is not None:
        return {wanted: seen}
    if (seen := imagenet.fits(root, request)) is not None:  # its lists are of no other form
        return {"imagenet": seen}
    return {
        name: seen
        for name, layout in _LAYOUTS.items()
        if (seen := layout.fits(root, request)) is not None
    }


def _read(root: pathlib.Path, layout: str, seen: str, request: Request) -> Recognised:
    notes = Notes([], [])
    contents = _LAYOUTS[layout].read(root, request, notes)
    if layout != "folders" and str(request.class_level) != "auto":
        notes.warnings.append(
            f"data.class_level = {request.class_level} is for class folders, and has no effect on "
            f"the layout {layout}."
        )
    return Recognised(layout, seen, root, contents, notes)


def _agreeing(readings: list[Recognised]) -> Recognised:
    """The first of several readings, if they say the same of each image.

    Raises:
        DataError: they differ, and the user must choose.
    """
    first = readings[0]
    if len(readings) == 1:
        return first
    said = [None if each.notes.problems else _said(each.contents) for each in readings]
    if said[0] is not None and all(each == said[0] for each in said):
        others = ", ".join(f"{each.layout} ({each.seen})" for each in readings[1:])
        return first._replace(seen=f"{first.seen}; the layout {others} says the same")
    if len(readings) == 2 and readings[1].layout == "folders" and said[0] is not None:
        # A list says more than the folders that its images lie in, unless it contradicts them.
        if said[1] is None or len(readings[1].contents.class_names) < 2:
            return first._replace(seen=f"{first.seen}; the folders alone do not tell the classes")
        if (left_out := _refined(said[0], said[1])) is not None:
            if left_out:
                one = left_out == 1
                verb = "image that is in folders is" if one else "images that are in folders are"
                first.notes.warnings.append(
                    f"{first.root}: {left_out:,} {verb} in no list, and not read."
                )
            return first._replace(seen=f"{first.seen}, which says more than {readings[1].seen}")
    ways = "; ".join(f"data.layout={each.layout}, by {_summary(each)}" for each in readings)
    raise DataError(
        [
            f"{first.root} can be read in {len(readings)} ways, which differ; choose one of them. "
            f"{ways}."
        ]
    )


def _said(contents: Contents) -> frozenset[tuple[str, str, str]]:
    """(split, file, class name) of each example."""
    return frozenset(
        (split, str(example.data), contents.class_names[example.label])
        for split, examples in contents.splits.items()
        for example in examples
    )


def _refined(
    listed: frozenset[tuple[str, str, str]], in_folders: frozenset[tuple[str, str, str]]
) -> int | None:
    """How many images are in folders and in no list, where the list does not contradict them.

    It does where a class of it lies in several folders, for then the folders may be the finer
    classes; where folders have splits and those are others; and where it has less than half of the
    images in folders: None.
    """
    told = {file: (split, name) for split, file, name in listed}
    both = [(*told[file], split, name) for split, file, name in in_folders if file in told]
    classes = {(name, folder) for _, name, _, folder in both}
    nested = len(classes) == len({name for name, _ in classes})
    folder_splits = {split for split, _, _ in in_folders}
    same_splits = {split for _, _, split, _ in both} == folder_splits and all(
        split == of_folder for split, _, of_folder, _ in both
    )
    if nested and (same_splits or folder_splits == {"train"}) and 2 * len(both) >= len(in_folders):
        return len(in_folders) - len(both)
    return None


def _summary(reading: Recognised) -> str:
    """`train.csv: 3 classes, 9 training images`, or what is wrong with it."""
    if reading.notes.problems:
        problem = said_once(reading.notes.problems)[0].removesuffix(".")
        return f"{reading.seen}: cannot be read so ({problem})"
    splits = reading.contents.splits
    counts = [(len(reading.contents.class_names), "class", "classes")]
    for split in SPLIT_WORDS:
        if split in splits:
            image = f"{SPLIT_WORDS[split].adjective} image"
            counts.append((len(splits[split]), image, f"{image}s"))
    said = [f"{count:,} {one if count == 1 else more}" for count, one, more in counts]
    return f"{reading.seen}: {', '.join(said)}"


def _folders(root: pathlib.Path) -> list[pathlib.Path]:
    """The folders in `root` that are not hidden and not litter, sorted."""
    return [root / name for name in folders_in(root)]


def _images_alone(folder: pathlib.Path) -> bool:
    """Whether nothing but images lies in a folder, as in that of a class."""
    with os.scandir(folder) as entries:
        return all(is_image(entry.name) or is_litter(entry.name) for entry in entries)


def _has_annotations(root: pathlib.Path) -> bool:
    """Whether files beside the folders may say what the images are: then these are not alone."""
    with os.scandir(root) as entries:
        names = [entry.name.lower() for entry in entries if not is_litter(entry.name)]
    of_classes = {
        path.name.lower()
        for path, told in name_files(root, ("",))
        if told.by_number and not any(map(is_image, told.by_number.values()))
    }
    names = [name for name in names if name not in of_classes and not csv_table.is_form(name)]
    return any(name.endswith(_ANNOTATIONS) and not name.startswith(_ABOUT) for name in names)


def _with_classes(root: pathlib.Path, request: Request) -> pathlib.Path | None:
    """The data set that is `root`, or lies alone in it."""
    inner: pathlib.Path | None = root
    for _ in range(_DEEPEST):
        if inner is None or folders.fits_unsplit(inner, request) is not None:
            return inner
        if not _images_alone(inner) and _fitting(inner, request):
            return inner
        inner = _only_folder(inner)
    return None


def _only_folder(root: pathlib.Path) -> pathlib.Path | None:
    """The only folder in `root`, or the only one with images where no other one holds lists."""
    inside = _folders(root)
    if len(inside) < 2:
        return inside[0] if inside else None
    found = list[pathlib.Path]()
    for path in inside:
        found += [path] if holds_image(path) else []
        if len(found) > 1:
            return None
    others = (file for path in inside if path not in found for file in files_below(str(path)))
    if any(file.lower().endswith(_LISTS) for file in others):
        return None
    return found[0] if found else None
