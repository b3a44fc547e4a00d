"""Class folders: `train/<class>/**` with `test` and `val` alike, or `<class>/**` alone."""

import os
import pathlib

from clevit_jax.data.dataset import SPLIT_WORDS, Example
from clevit_jax.data.layouts.listing import (
    EXTENSIONS,
    Contents,
    Notes,
    Request,
    files_below,
    first_three,
    is_image,
    say_own,
    users_entries,
)
from clevit_jax.data.split_names import split_called

LOOKS_FOR = "train/<class>/, perhaps with test/<class>/ and val/<class>/, or <class>/ alone"
_ENDINGS = " ".join(EXTENSIONS)


def is_litter(name: str) -> bool:
    """Whether a folder is hidden, or is one that an operating system leaves beside the files."""
    return name.startswith(".") or name == "__MACOSX"


def _folders(root: pathlib.Path) -> list[str]:
    """Names of the folders in `root` that are not hidden."""
    with os.scandir(root) as entries:
        return sorted(e.name for e in entries if not is_litter(e.name) and e.is_dir())


def _split_folders(root: pathlib.Path, notes: Notes) -> dict[str, str]:
    """Split -> name of its folder."""
    folders: dict[str, str] = {}
    for name in _folders(root):
        split = split_called(name)
        if split is None or _is_own(root / name):
            continue
        if split in folders:
            notes.problems.append(
                f"{root / folders[split]} and {root / name} are both folders of the {split} "
                "split; rename one."
            )
        folders[split] = name
    return folders


def _has_image(folder: pathlib.Path, own: set[str] | None = None) -> bool:
    return any(is_image(name) for name in files_below(str(folder), hidden=False, own=own))


def _is_own(folder: pathlib.Path) -> bool:
    """Whether a folder is one of this program's, and no image of a user is in it."""
    own = set[str]()
    return not _has_image(folder, own) and bool(own)


def fits(root: pathlib.Path, _: Request) -> str | None:
    """What the layout is recognised by, or None: a folder `train` with folders in it."""
    splits = _split_folders(root, Notes([], []))
    if "train" not in splits or not _folders(root / splits["train"]):
        return None
    return " and ".join(f"{splits[split]}/<class>/" for split in SPLIT_WORDS if split in splits)


def fits_unsplit(root: pathlib.Path, _: Request) -> str | None:
    """What class folders alone are recognised by, or None: at least two, none named as a split.

    Weak evidence, for when nothing else fits.
    """
    with_images = _class_folders(root)
    return f"<class>/ as {with_images[0]}/" if len(with_images) > 1 else None


def lone_class(root: pathlib.Path) -> str | None:
    """The name of the only class folder with images, where no folder is named as a split."""
    with_images = _class_folders(root)
    return with_images[0] if len(with_images) == 1 else None


def _class_folders(root: pathlib.Path) -> list[str]:
    """Names of the folders with images in them; none where one is named as a split."""
    if _split_folders(root, Notes([], [])):
        return []
    return [name for name in _folders(root) if _has_image(root / name)]


def read(root: pathlib.Path, request: Request, notes: Notes) -> Contents:
    """Reads train/<class>/** and test/<class>/** and val/<class>/**, or <class>/** alone.

    Without `test`, `val` is taken as the test split.
    """
    folders = _split_folders(root, notes)
    if not folders:
        classes = _read_split(root, "", notes)
        return Contents(tuple(classes), {"train": _examples(root, classes, tuple(classes))})
    if "train" not in folders:
        notes.problems.append(f"{root / 'train'} is missing.")
        return Contents((), {"train": []})
    if "test" not in folders and "val" in folders:
        folders["test"] = folders.pop("val")
    classes_of = {split: _read_split(root, name, notes) for split, name in folders.items()}
    names = tuple(classes_of["train"])
    for split, classes in classes_of.items():
        notes.problems.extend(
            f"{root / folders[split] / name}: there is no class {name!r} in {folders['train']}/."
            for name in sorted(classes.keys() - set(names))
        )
    return Contents(
        names, {split: _examples(root, inside, names) for split, inside in classes_of.items()}
    )


def _examples(
    root: pathlib.Path, classes: dict[str, list[str]], names: tuple[str, ...]
) -> list[Example]:
    labels = {name: label for label, name in enumerate(names)}
    return [
        Example(root / file, labels[name], 0, file)
        for name, files in classes.items()
        if name in labels
        for file in files
    ]


def _read_split(root: pathlib.Path, split: str, notes: Notes) -> dict[str, list[str]]:
    """Class name -> sorted image paths, relative to `root`."""
    classes: dict[str, list[str]] = {}
    loose: list[str] = []
    others: list[str] = []
    own = set[str]()
    for entry in users_entries(str(root / split), f"{split}/" if split else "", own):
        if entry.name.startswith("."):
            continue
        if not entry.is_dir():
            if is_image(entry.name):
                loose.append(entry.name)
            continue
        prefix = f"{split}/{entry.name}/" if split else f"{entry.name}/"
        inside = set[str]()
        files = sorted(files_below(entry.path, prefix, hidden=False, own=inside))
        own |= inside
        images = [file for file in files if is_image(file)]
        if images or not inside:
            classes[entry.name] = images
            others += [file for file in files if not is_image(file)]
    if own:
        notes.warnings.append(say_own(root, own))
    if not classes:
        notes.problems.append(f"{root / split} holds no class folder.")
    for name in sorted(name for name, inside in classes.items() if not inside):
        notes.problems.append(
            f"{root / split / name} holds no image; add some or remove the folder "
            f"(read are {_ENDINGS})."
        )
    if loose:
        notes.warnings.append(
            f"{root / split}: {len(loose)} image(s) lie in no class folder and are not read "
            f"({first_three(sorted(loose))})."
        )
    if others:
        notes.warnings.append(
            f"{root / split}: {len(others)} file(s) have no ending that is read "
            f"({first_three(sorted(others))}); read are {_ENDINGS}."
        )
    return dict(sorted(classes.items()))
