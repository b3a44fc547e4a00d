"""Sentences on class folders: what is wrong with them, and what in them is not read."""

import os
import pathlib
from collections.abc import Iterable, Iterator, Mapping, Sequence

from clevit_jax.data.formats import OTHER_IMAGE_ENDINGS
from clevit_jax.data.layouts.folder import out_of_place
from clevit_jax.data.layouts.folder.folder_names import (
    are_numbers,
    normal,
    of_pictures,
    twins,
    twins_of,
)
from clevit_jax.data.layouts.folder.folder_splits import (
    Parts,
    class_folders,
    folder_above,
    folders_in,
    holds_image,
)
from clevit_jax.data.layouts.folder.hierarchy import Path
from clevit_jax.data.layouts.folder.tree import Folder
from clevit_jax.data.layouts.listing import (
    Notes,
    files_below,
    first_three,
    is_image,
    say_own,
    users_entries,
)
from clevit_jax.data.litter import is_litter
from clevit_jax.data.split_names import is_to_predict, split_called
from clevit_jax.errors import Repeated

_TABLES = (".csv", ".tsv", ".xlsx", ".xls", ".jsonl", ".mat")
# Endings of what may be images and is not read: a class that has nothing else loses much.
_LISTS = (".lst", ".txt", ".csv", ".tsv", ".json", ".jsonl")
_UNREAD = (*OTHER_IMAGE_ENDINGS, ".mp4", ".mov", ".avi", ".mkv", ".webm", ".npy")


def check_splits(root: pathlib.Path, parts: Parts, notes: Notes) -> None:
    """Problems of the folders of splits: two of one split, none with an image, no class in them."""
    for split, paths in parts.splits.items():
        if len(paths) > 1 and not are_parts(root, paths):
            shown = " and ".join(f"{path}/" for path in paths)
            notes.problems.append(
                f"{root}: {shown} are {len(paths)} folders of the {split} split; put their images "
                "into one, or rename what is not to be read."
            )
    notes.problems.extend(
        f"{root / path} holds no class folder with images; add them, or remove the folder."
        for paths in parts.empty.values()
        for path in paths
        if not _holds_lists(root / path)
    )
    flat = "train" not in parts.splits and "train" in parts.flat
    if flat and not class_folders(root, parts, most=1):
        (path, *_) = parts.flat["train"]
        notes.problems.append(
            f"{root / path} holds images and no class folder: nothing says which class they are "
            f"of; put them into {path}/<class>/."
        )
    if set(parts.splits) == {"train"} and not parts.flat:
        notes.problems.extend(_train_may_be_a_class(root, parts))


def are_parts(root: pathlib.Path, paths: Sequence[str]) -> bool:
    """Whether folders of one split are parts of it, as ImageNet-100's `train.X1`, `train.X2`.

    Their names differ in a number at the end alone, and no class lies in two of them.
    """
    stems = {path.rstrip("0123456789") for path in paths}
    names = [name for path in paths for name in folders_in(root / path)]
    return len(stems) == 1 and len(set(names)) == len(names)


def _holds_lists(folder: pathlib.Path) -> bool:
    """Whether a folder without images is one of lists, as SageMaker's `train_lst/`."""
    return any(file.lower().endswith(_LISTS) for file in files_below(str(folder), hidden=False))


def _train_may_be_a_class(root: pathlib.Path, parts: Parts) -> Iterator[str]:
    """A question where `bus`, `car` and `train` hold the same folders, as of one year each."""
    (path, *_) = parts.splits["train"]
    inside = set(folders_in(root / path))
    if not (of_pictures(inside) or are_numbers(inside)):
        return
    beside = [f"{name}/" for name in parts.others if inside & set(folders_in(root / name))]
    if beside:
        yield (
            f"{root}: {path}/ may be the training images or a class beside {first_three(beside)}, "
            f"which hold folders of the same names ({first_three(sorted(inside))}); for the "
            f"training images, set data.root={root / path}; for a class, rename it, to {path}s say."
        )


def check_classes(
    root: pathlib.Path,
    trees: Mapping[str, Folder],
    files: Mapping[str, Mapping[Path, list[str]]],
    notes: Notes,
) -> None:
    """Problems and warnings on the classes: too few, empty, unknown to training, of like names."""
    known = files["train"]
    for split, tree in trees.items():
        notes.problems.extend(
            f"{root / link} is a link that leads nowhere, and would be a class; bring back what it "
            "leads to, or remove it."
            for link in tree.lost
            if tree.path and not is_image(link)
        )
        if not of_user(tree):
            notes.problems.append(f"{root / tree.path} holds no class folder.")
        notes.problems.extend(_unknown_classes(root, tree, files[split], trees["train"], known))
        tested = {} if split == "train" else known
        _check_empty(root / tree.path, tree, tested, notes)
    if len(known) == 1 and not notes.problems:
        notes.problems.append(_one_class(root, trees["train"], next(iter(known))))
    for group in twins("/".join(path) for path in known):
        shown = ", ".join(map(repr, group[:-1])) + f" and {group[-1]!r}"
        notes.warnings.append(
            f"{root / trees['train'].path}: the classes {shown} differ in capitals, blanks or the "
            "ending of a copy alone; if they are one class, put their images into one folder."
        )


def of_user(tree: Folder) -> list[Folder]:
    """The folders in one that are not this program's; one with an image of the user is theirs."""
    return [
        top
        for top in tree.folders.values()
        if top.holds_image() or not any(each.own for each in top.below())
    ]


def _unknown_classes(
    root: pathlib.Path,
    tree: Folder,
    files: Iterable[Path],
    train: Folder,
    known: Mapping[Path, list[str]],
) -> Iterator[str]:
    """Problems: classes of another split that training images lack."""
    among = ["/".join(path) for path in known]
    here = train.path or str(root)
    all_here = {"/".join(path) for path in files}
    strange = sorted(all_here.difference(among))
    twin = twins_of(strange, among)
    if among and len(strange) == len(all_here) > 1 and not twin:
        yield (
            f"{root / tree.path}: none of its folders ({first_three(strange)}) is a class of "
            f"{here} ({first_three(sorted(among))}); rename them, or, if its images have no "
            f"labels, take {tree.path} out of the data set and predict them with --mode predict."
        )
        return
    for name in strange:
        hint = " Add training images of it, or leave the folder out."
        if name in twin:
            hint = f" Did you mean {twin[name]!r}? Rename one of both."
        yield Repeated(
            f"{root / tree.path / name}: there is no class {name!r} in {here}.{hint}",
            rule=f"{root / tree.path}: {{n}} folders are no class of {here}; add training images "
            "of these, or leave them out",
            item=name,
        )


def _check_empty(
    place: pathlib.Path, tree: Folder, tested: Mapping[Path, list[str]], notes: Notes
) -> None:
    """Class folders without an image: warned of, but where images are there and cannot be read.

    Args:
        place: the folder of the split.
        tree: what is in it.
        tested: the classes that training has, where the split is another one.
        notes: gets the sentences.
    """
    for folder in of_user(tree):
        if folder.holds_image():
            continue
        name = folder.path.removesuffix("/").rpartition("/")[2]
        lost = sorted(link for each in folder.below() for link in each.lost)
        others = sorted(file for each in folder.below() for file in each.others)
        unread = [file for file in others if file.lower().endswith(_UNREAD)]
        if lost or unread:
            what = "link(s) that lead nowhere" if lost else "file(s) of a kind that is not read"
            mend = "bring back what they lead to" if lost else "convert them to JPEG or PNG"
            notes.problems.append(
                f"{place / name} holds no image, but {len(lost or unread)} {what} "
                f"({first_three(lost or unread)}); {mend}, or remove the folder."
            )
            continue
        is_trained = (normal(name),) in tested
        one = "it is left out of the classes"
        all_of = "they are left out of the classes"
        if is_trained:
            one, all_of = "the class is trained on, but not tested", "trained on, but not tested"
        notes.warnings.append(
            Repeated(
                f"{place / name} holds no image: {one}.",
                rule=f"{place}: {{n}} folders hold no image: {all_of}",
                item=name,
            )
        )


def _one_class(root: pathlib.Path, train: Folder, path: Path) -> str:
    """A problem: nothing can be told apart; and what was meant, perhaps."""
    said = (
        f"{root / train.path} has one class, {'/'.join(path)!r}: there is nothing to tell apart; "
        "two are needed at least."
    )
    if empty := [f"{name}/" for name, each in train.folders.items() if not each.holds_image()]:
        said += f" There is no image in {first_three(empty)}."
    if not train.path and (parent := folder_above(root)):
        said += f" If the classes are the folders beside it, set data.root={parent}."
    return said


def say_what_is_left_out(
    root: pathlib.Path, parts: Parts, trees: Mapping[str, Folder], notes: Notes
) -> None:
    """Warnings on images and files in the data set that are not read."""
    for tree in trees.values():
        notes.warnings.extend(_left_out_of(root, tree))
    if "train" in parts.flat:  # it is a class, and there are no splits
        return
    unlabelled = [path for paths in parts.flat.values() for path in paths]
    unlabelled += [name for name in parts.others if is_to_predict(name)]
    for path in unlabelled:
        if count := sum(map(is_image, files_below(str(root / path), hidden=False))):
            notes.warnings.append(
                f"{root / path}: {count:,} image(s) without a class are not read; predict them "
                f"with --mode predict --input {root / path}.{out_of_place.listed(root, path)}"
            )
    out_of_place.say(root, trees, notes)
    if trees["train"].path:
        others = [name for name in parts.others if not is_to_predict(name)]
        if beside := [f"{name}/" for name in others if holds_image(root / name)]:
            notes.warnings.append(
                f"{root}: images in {first_three(beside)} are of no split and are not read."
            )
    elif above := _splits_above(root):
        notes.warnings.append(above)


def _left_out_of(root: pathlib.Path, tree: Folder) -> Iterator[str]:
    """Warnings on what is not read of a split."""
    place = root / tree.path
    folders = [tree, *(each for top in of_user(tree) for each in top.below())]
    if own := [folder.path for folder in tree.below() if folder.own]:
        yield say_own(root, own)
    if tree.images:
        names = sorted(file.removeprefix(tree.path) for file in tree.images)
        yield (
            f"{place}: {len(names):,} image(s) lie in no class folder and are not read "
            f"({first_three(names)})."
        )
    if others := sorted(file for folder in folders[1:] for file in folder.others):
        yield (
            f"{place}: {len(others):,} file(s) have no ending that is read "
            f"({first_three(others)}); docs/data.md says which are."
        )
    if lost := sorted(link for folder in folders for link in folder.lost):
        yield _lost_links(root, lost)
    if litter := sorted({name for folder in folders for name in folder.litter}):
        yield f"{place}: what a system left there is passed over ({first_three(litter)})."


def _lost_links(root: pathlib.Path, lost: Sequence[str]) -> str:
    """A sentence on links that lead nowhere, and who may bring back what they lead to."""
    target = os.readlink(root / lost[0])
    mend = "bring back what they lead to"
    if ".git/annex" in target:
        mend = "fetch the files with `git annex get .`"
    elif ".dvc" in target:
        mend = "fetch the files with `dvc pull`"
    return (
        f"{root}: {len(lost):,} link(s) lead nowhere and are left out ({first_three(lost)}; the "
        f"first leads to {target}); {mend}."
    )


def _splits_above(root: pathlib.Path) -> str | None:
    """A warning where the data set's folder is itself a split of the one that it lies in."""
    place = root.absolute()
    own = split_called(place.name)
    if own is None:
        return None
    try:
        names = [name for name in folders_in(place.parent) if split_called(name) not in (None, own)]
    except OSError:
        return None
    if not names:
        return None
    shown = first_three([f"{name}/" for name in names])
    return f"{root} lies beside {shown}; to read both, set data.root={place.parent}."


def say_tables_beside(root: pathlib.Path, class_names: Sequence[str], notes: Notes) -> None:
    """A warning of tables in the data set, which do not count beside class folders.

    Where classes are numbers, they may well have their names from one.
    """
    names = [entry.name for entry in users_entries(str(root)) if entry.is_file()]
    tables = [
        name
        for name in sorted(names)
        if name.lower().endswith(_TABLES) and not is_litter(name) and "submi" not in name.lower()
    ]
    if tables and not are_numbers(class_names):
        notes.warnings.append(
            f"{root}: {first_three(tables)}: not read; classes and splits are those of the folders."
        )
