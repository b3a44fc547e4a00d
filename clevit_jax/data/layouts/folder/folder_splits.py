"""Which folders of a data set are its splits, and which hold images without a class."""

import itertools
import os
import pathlib
from typing import NamedTuple

from clevit_jax.data.dataset import SPLIT_WORDS
from clevit_jax.data.layouts.folder.folder_names import is_wrapper, says_nothing
from clevit_jax.data.layouts.listing import files_below, is_image
from clevit_jax.data.litter import is_litter
from clevit_jax.data.split_names import is_to_predict, split_called, splits_among

_LOOKED_AT = 100  # names in a folder that is not the data set's
_DEEPEST = 3  # folders alone in each other that are gone into


class Parts(NamedTuple):
    """The folders in a data set, relative to it.

    Attributes:
        splits: split -> folders that are called so and hold class folders; mostly one.
        flat: split -> folders that are called so, in which images lie in no class folder.
        empty: split -> folders that are called so, without an image.
        others: that are called otherwise, whatever they hold.
    """

    splits: dict[str, list[str]]
    flat: dict[str, list[str]]
    empty: dict[str, list[str]]
    others: list[str]

    def seen(self) -> str:
        """What they are recognised by."""
        paths = [path for split in SPLIT_WORDS for path in self.splits.get(split, ())]
        return " and ".join(f"{path}/<class>/" for path in paths)


def find_parts(root: pathlib.Path) -> Parts:
    """Tells the folders in `root` apart by their names, and by whether class folders are in them.

    Only as much is listed as this takes.
    """
    parts = Parts({}, {}, {}, [])
    names = folders_in(root)
    told = splits_among(names)
    for name in names:
        if name not in told:
            parts.others.append(name)
        elif not _is_own(root / name):
            path, kind = _inside(root, name, told[name])
            of_kind = {"classes": parts.splits, "images": parts.flat, "nothing": parts.empty}
            of_kind[kind].setdefault(told[name], []).append(path)
    return parts


def class_folders(root: pathlib.Path, parts: Parts, *, most: int) -> list[str]:
    """The first folders with images that may be classes, where none is for training; sorted.

    `images/` and `masks/` alone are none. `train` is one where images lie in it as they do in
    those beside it, and no other split is there.
    """
    if "train" in parts.splits:
        return []
    found = list[str]()
    for name in parts.others:
        if len(found) == most:
            break
        if not is_to_predict(name) and holds_image(root / name):
            found.append(name)
    found = [] if all(map(says_nothing, found)) else found
    if "train" in parts.flat:  # of buses, cars and trains
        if [*parts.splits, *parts.flat] != ["train"] or not found:
            return []
        found += parts.flat["train"]
    return sorted(found)


def _inside(root: pathlib.Path, path: str, split: str) -> tuple[str, str]:
    """The folder that holds the class folders, or the images, of a split; and which of both.

    It is `path`, or the folder alone in it: `seg_train/seg_train/`, `train/images/`.
    """
    with_images = list[str]()
    for name in sorted(folders_in(root / path), key=lambda name: (says_nothing(name), name)):
        if holds_image(root / path / name):
            with_images.append(name)
        if len(with_images) > 1 and not says_nothing(with_images[0]):
            return path, "classes"
    if len(with_images) == 1 and path.count("/") < _DEEPEST:
        (name,) = with_images
        if is_wrapper(name, path.rpartition("/")[2]) or split_called(name) == split:
            return _inside(root, f"{path}/{name}", split)
    if with_images and not all(map(says_nothing, with_images)):
        return path, "classes"
    if with_images:  # images/ and masks/, say
        return f"{path}/{with_images[0]}", "images"
    with os.scandir(root / path) as entries:
        loose = any(is_image(entry.name) and entry.name[0] != "." for entry in entries)
    return path, "images" if loose else "nothing"


def folders_in(root: pathlib.Path) -> list[str]:
    """Names of the folders in `root` that are not litter, sorted."""
    with os.scandir(root) as entries:
        return sorted(e.name for e in entries if not is_litter(e.name) and e.is_dir())


def holds_image(folder: pathlib.Path, own: set[str] | None = None) -> bool:
    """Whether an image of the user lies in a folder or below it; `own` as in `files_below`."""
    with os.scandir(folder) as entries:
        for entry in entries:  # pictures of this program are PNG
            name = entry.name
            sure = is_image(name) and name[0] != "." and not name.lower().endswith(".png")
            if sure and entry.is_file():
                return True
    return any(is_image(name) for name in files_below(str(folder), hidden=False, own=own))


def folder_above(root: pathlib.Path) -> pathlib.Path | None:
    """The folder that `root` lies in, where `root` looks like one of several class folders there.

    That is, where images lie in it and in another beside it. Little of each is looked at.
    """
    place = root.absolute()
    found = 0
    if not _holds_some(place):
        return None
    try:
        for name in folders_in(place.parent)[:_LOOKED_AT]:
            found += _holds_some(place.parent / name)
    except OSError:
        return None
    return place.parent if found > 1 else None


def _holds_some(folder: pathlib.Path) -> bool:
    """Whether an image is among the first files in a folder."""
    with os.scandir(folder) as entries:
        few = itertools.islice(entries, _LOOKED_AT)
        return any(is_image(each.name) and each.name[0] != "." for each in few)


def _is_own(folder: pathlib.Path) -> bool:
    """Whether a folder is one of this program's, and no image of a user is in it."""
    own = set[str]()
    return not holds_image(folder, own) and bool(own)
