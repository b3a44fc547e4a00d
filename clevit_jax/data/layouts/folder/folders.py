"""Class folders: `train/<class>/**` with `test` and `val` alike, or `<class>/**` alone."""

import pathlib
from collections.abc import Iterable, Mapping

from clevit_jax.data.dataset import SPLIT_WORDS, Example
from clevit_jax.data.layouts.folder import folder_words
from clevit_jax.data.layouts.folder.folder_names import is_wrapper, normal
from clevit_jax.data.layouts.folder.folder_splits import Parts, class_folders, find_parts
from clevit_jax.data.layouts.folder.hierarchy import Cut, Path, decide, levels_above, names_of
from clevit_jax.data.layouts.folder.tree import Folder, walk
from clevit_jax.data.layouts.listing import Contents, Notes, Request
from clevit_jax.data.split_names import is_to_predict, splits_among

LOOKS_FOR = "train/<class>/, perhaps with test/<class>/ and val/<class>/, or <class>/ alone"
_LEVELS = ("top", "leaf", "auto")


def fits(root: pathlib.Path, _: Request) -> str | None:
    """What the layout is recognised by, or None: a training folder with class folders in it."""
    parts = find_parts(root)
    return parts.seen() if "train" in parts.splits else None


def fits_unsplit(root: pathlib.Path, _: Request) -> str | None:
    """What class folders alone are recognised by, or None: at least two, none that trains.

    A folder for testing may lie beside them. Weak evidence, for when nothing else fits.
    """
    parts = find_parts(root)
    classes = class_folders(root, parts, most=2)
    if len(classes) < 2:
        return None
    return " and ".join(filter(None, [f"<class>/ as {classes[0]}/", parts.seen()]))


def lone_class(root: pathlib.Path) -> str | None:
    """The name of the only class folder with images, where no folder is named as a split."""
    parts = find_parts(root)
    classes = class_folders(root, parts, most=2)
    return classes[0] if len(classes) == 1 and not parts.splits else None


def read(root: pathlib.Path, request: Request, notes: Notes) -> Contents:
    """Reads train/<class>/** and test/<class>/** and val/<class>/**, or <class>/** alone.

    Without `test`, `val` is taken as the test split. Which level of the folders the classes are is
    that of `request.class_level`; the levels above are kept. Names that are the same text to
    Unicode are one class, however their accents are spelt.
    """
    nothing = Contents((), {"train": [], "test": []})  # no split is cut of what is not read
    level = str(request.class_level)
    if level not in _LEVELS and not (level.isdecimal() and int(level) > 0):
        notes.problems.append(
            f"data.class_level is {level!r}; it must be top, leaf, auto or a number from 1."
        )
        return nothing
    parts = find_parts(root)
    folder_words.check_splits(root, parts, notes)
    trees = {} if notes.problems else _trees(root, parts, notes)
    if not trees:
        return nothing
    of_path = {split: _by_path(tree) for split, tree in trees.items()}
    counts = {
        path: sum(len(folder.images) for folder in folders)
        for path, folders in of_path["train"].items()
    }
    top = trees["train"].path
    where = str(root / top)
    cut, said = decide(counts, level, where, "" if top else str(root)) if counts else (Cut(1), "")
    if cut is None:
        notes.problems.append(said)
        return nothing
    notes.warnings.extend([said] if said else [])
    contents = _contents(root, trees, of_path, cut, notes)
    folder_words.say_what_is_left_out(root, parts, trees, notes)
    folder_words.say_tables_beside(root, contents.class_names, notes)
    return contents


def _trees(root: pathlib.Path, parts: Parts, notes: Notes) -> dict[str, Folder]:
    """Split -> all that lies in its folder; none, and a problem, where nothing is for training."""
    trees = dict[str, Folder]()
    if "train" not in parts.splits:
        beside = [parts.splits, *([] if "train" in parts.flat else [parts.flat])]
        aside = {path for of_split in beside for paths in of_split.values() for path in paths}
        names = {path.partition("/")[0] for path in aside} | set(
            filter(is_to_predict, parts.others)
        )
        whole = walk(str(root), leave_out=frozenset(names))
        if parts.splits and not whole.folders:
            notes.problems.append(f"{root / 'train'} is missing.")
            return {}
        trees = {"train": whole} if parts.splits else _splits_in_classes(whole, notes)
    for split in SPLIT_WORDS:
        for path in parts.splits.get(split, ()):
            part = walk(str(root / path), f"{path}/")
            if split in trees:  # of numbered parts with different classes, the first names all
                trees[split].folders |= part.folders
                trees[split].images += part.images
            else:
                trees[split] = part
    if "test" not in trees and "val" in trees:
        trees["test"] = trees.pop("val")
    return trees


def _splits_in_classes(whole: Folder, notes: Notes) -> dict[str, Folder]:
    """Class folders, or those of `rose/train/`, `rose/test/` and the same in each other class."""
    inside = {
        name for top in whole.folders.values() for name, each in top.folders.items()
        if each.holds_image()
    }  # fmt: skip
    told = splits_among(sorted(inside))
    direct = any(top.images for top in whole.folders.values())
    if direct or len(told) < len(inside) or not {"train"} < set(told.values()):
        return {"train": whole}
    trees = {split: Folder("") for split in SPLIT_WORDS if split in told.values()}
    for name, top in whole.folders.items():
        for below, folder in top.folders.items():
            if below in told:
                split = trees[told[below]]
                split.folders.setdefault(name, Folder(f"{name}/")).folders[below] = folder
    notes.warnings.append(
        "The splits are folders in each class, as "
        f"{' and '.join(f'{name}/{split}/' for split in sorted(inside))}."
    )
    return trees


def _by_path(tree: Folder) -> dict[Path, list[Folder]]:
    """Names of folders below the tree's -> the folders with images that they lead to.

    Names are in composed characters. One that says nothing at the end, as `rose/images`, is left
    out where it is alone.
    """
    found: dict[Path, list[Folder]] = {}

    def visit(folder: Folder, path: Path) -> None:
        inside = [(name, each) for name, each in folder.folders.items() if each.holds_image()]
        for name, each in inside:
            alone = len(inside) == 1 and not folder.images and not each.folders
            below = (*path, normal(name))
            if alone and path and is_wrapper(name, path[-1]):
                below = path
            if each.images:
                found.setdefault(below, []).append(each)
            visit(each, below)

    visit(tree, ())
    return found


def _contents(
    root: pathlib.Path,
    trees: Mapping[str, Folder],
    of_path: Mapping[str, Mapping[Path, list[Folder]]],
    cut: Cut,
    notes: Notes,
) -> Contents:
    """The examples of each split; problems are classes that training lacks, or none at all."""
    files = {split: _by_class(folders, cut) for split, folders in of_path.items()}
    classes = sorted(files["train"])
    labels = {path: label for label, path in enumerate(classes)}
    folder_words.check_classes(root, trees, files, notes)
    names = names_of(classes)
    examples = {
        split: [
            Example(root / file, labels[path], 0, file)
            for path in sorted(inside.keys() & labels.keys())
            for file in sorted(inside[path])
        ]
        for split, inside in files.items()
    }
    return Contents(
        tuple(names[path] for path in classes),
        examples,
        () if cut.merged else levels_above(classes),
    )


def _by_class(folders: Mapping[Path, Iterable[Folder]], cut: Cut) -> dict[Path, list[str]]:
    """Class -> its images."""
    files: dict[Path, list[str]] = {}
    for path, same in folders.items():
        of_class = files.setdefault(cut.of(path), [])
        for folder in same:
            of_class += folder.images
    return files
