"""Sentences on what lies among class folders and does not belong there, or tells more."""

import itertools
import os
import pathlib
from collections.abc import Mapping

from clevit_jax.data.layouts.folder.folder_names import MASK, is_of_a_text, is_set_aside
from clevit_jax.data.layouts.folder.tree import Folder
from clevit_jax.data.layouts.listing import Notes, first_three, is_image, users_entries
from clevit_jax.data.layouts.seen import ARCHIVES

_LISTS = (".txt", ".csv", ".tsv", ".json", ".jsonl")
_PEEK = 1 << 16  # bytes of a list, enough to see what it is of
_SOME = 5  # images that are looked for in it


def say(root: pathlib.Path, trees: Mapping[str, Folder], notes: Notes) -> None:
    """Warnings on images beside splits, pictures of a text, masks and archives."""
    train = trees["train"]
    if train.path:
        entries = users_entries(str(root))
        loose = sorted(e.name for e in entries if is_image(e.name) and e.name[0] != ".")
        if loose:
            notes.warnings.append(
                f"{root}: {len(loose):,} image(s) lie beside the folders of the splits and are not "
                f"read ({first_three(loose)})."
            )
    else:
        for name in filter(is_of_a_text, train.folders):
            count = train.folders[name].count()
            if count:
                notes.warnings.append(
                    f"{root / name}: this folder of {count:,} image(s) is taken for a class, "
                    "though it is called as those of pictures in a text; if it is none, move it "
                    "out of the data set."
                )
    for tree in trees.values():
        for name in filter(is_set_aside, tree.folders):
            if count := tree.folders[name].count():
                notes.warnings.append(
                    f"{root / tree.path / name}: this folder of {count:,} image(s) is taken for a "
                    "class, though its name may say that they are of none; if so, move it out of "
                    "the data set."
                )
    if packed := sorted(
        file
        for file in train.others
        if file.lower().endswith(ARCHIVES)
        and pathlib.PurePath(file).name.partition(".")[0] not in (*train.folders, "train", "data")
    ):
        notes.warnings.append(
            f"{root}: {first_three(packed)}: an archive is not looked into; if it holds a class, "
            "unpack it."
        )
    _say_masks(root, trees, notes)


def _say_masks(root: pathlib.Path, trees: Mapping[str, Folder], notes: Notes) -> None:
    """A warning on images beside which lies one of their name and `_mask`."""
    masks = list[str]()
    for tree in trees.values():
        for folder in tree.below():
            marked = [file for file in folder.images if "mask" in file or "_seg" in file]
            if marked:
                stems = {file.rpartition(".")[0] for file in folder.images}
                masks += [
                    file
                    for file in marked
                    if (match := MASK.fullmatch(file.rpartition(".")[0])) and match[1] in stems
                ]
    if masks:
        notes.warnings.append(
            f"{root}: {len(masks):,} image(s) are called as masks of those beside them, and count "
            f"as images of their classes ({first_three(sorted(masks))}); if they are masks, move "
            "them out of the class folders."
        )


def listed(root: pathlib.Path, path: str) -> str:
    """A sentence on lists that say something of images that lie in no class folder, or "".

    Args:
        root: the data set.
        path: of the folder of images, relative to it.
    """
    with os.scandir(root / path) as entries:
        images = (entry.name for entry in entries if is_image(entry.name))
        names = list(itertools.islice(images, _SOME))
    found = [
        place.relative_to(root).as_posix()
        for folder in dict.fromkeys((root, root / path.partition("/")[0], root / path))
        for place in _lists_in(folder)
        if _tells(place, names)
    ]
    if not found:
        return ""
    return (
        f" {first_three(found)} may tell their classes, but not beside class folders: put each "
        "image into the folder of its class, or write one table of all images with the columns "
        "file, label and split."
    )


def _lists_in(folder: pathlib.Path) -> list[pathlib.Path]:
    """Lists in a folder that are no forms of answers."""
    return sorted(
        folder / entry.name
        for entry in users_entries(str(folder))
        if entry.name.lower().endswith(_LISTS)
        and "submi" not in entry.name.lower()
        and entry.name[0] != "."
        and entry.is_file()
    )


def _tells(place: pathlib.Path, names: list[str]) -> bool:
    """Whether the beginning of a file has one of some names, and something after or before it."""
    with place.open("rb") as file:
        text = file.read(_PEEK).decode("utf-8", "replace")
    for name in names:
        for line in text.splitlines() if name in text else ():
            before, found, after = line.partition(name)
            if found and (after.strip(' ",;') or before.strip(' ",;').rpartition(" ")[0]):
                return True
    return False
