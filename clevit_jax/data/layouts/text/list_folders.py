"""Classes that folders and names of listed files tell."""

import collections
import pathlib
import posixpath
import re
from collections.abc import Sequence

from clevit_jax.data.layouts import table
from clevit_jax.data.layouts.listing import Notes, Request, first_three
from clevit_jax.data.layouts.text.list_rows import Row
from clevit_jax.data.split_names import split_called

# Names that cameras and programs give.
_CAMERA = re.compile(
    r"(img|image|imagen|imgp|dsc|dscn|dscf|dscn|pict|pic|photo|p|frame|scan|wp|pxl|mvimg|cimg|sam|"
    r"gopr|screenshot|[0-9_-]*)",
    re.IGNORECASE,
)
_COUNTED = re.compile(r"(.+?)[ ._-]*\(?[0-9]+\)?")


def told(
    root: pathlib.Path,
    rows: Sequence[Row],
    folders: Sequence[tuple[str, ...]],
    request: Request,
    notes: Notes,
) -> tuple[list[table.TableRow], list[str]]:
    """Classes of lists of files alone: by their folders, or else by their names.

    Args:
        root: of the data set.
        rows: of the lists.
        folders: of each row, as `class_folders` gives them.
        request: of the reader.
        notes: gets a problem where neither tells, or where several levels of folders may.

    Returns:
        The rows of a table, and the names of its levels.
    """
    if len(set(folders)) > 1 and all(folders):
        classes = _at_level(root, folders, request, notes)
        if classes is None:
            return [], []
        distinct = list(set(classes))
        called = dict(zip(distinct, unique_names(distinct), strict=True))
        above = min(map(len, distinct)) - 1
        groups = {each: tuple("/".join(each[: k + 1]) for k in range(above)) for each in distinct}
        return [
            _row(root, row, called[each], groups[each])
            for row, each in zip(rows, classes, strict=True)
        ], [f"level {k + 1}" for k in range(above)]
    names = _counted_names(rows)
    if names is None:
        notes.problems.append(
            f"{root}: the lists name files without classes, and neither their folders nor their "
            f"names tell these ({first_three([row.inner for row in rows])}); write the class "
            "after each file."
        )
        return [], []
    notes.warnings.append(
        f"{root}: the lists name no classes; these are told by the names of the files, as "
        f"{names[0]!r} by {rows[0].inner!r}: {len(set(names)):,} classes."
    )
    return [_row(root, row, name, ()) for row, name in zip(rows, names, strict=True)], []


def _row(root: pathlib.Path, row: Row, name: str, groups: tuple[str, ...]) -> table.TableRow:
    return table.TableRow(row.where, row.split, name, "", root / row.file, row.file, groups)


def _at_level(
    root: pathlib.Path, folders: Sequence[tuple[str, ...]], request: Request, notes: Notes
) -> Sequence[tuple[str, ...]] | None:
    """The folder of each file that is its class; None, and a question, where several may be."""
    top, leaf = {folder[:1] for folder in folders}, set(folders)
    wanted = request.class_level
    if wanted == "auto" and len(top) > 1 and len(top) != len(leaf):
        if all(
            len(folder[0]) == 1 and folder[0].isalpha() for folder in top
        ):  # SUN397 sorts its classes by their letters
            wanted = "leaf"
        else:
            notes.problems.append(_ask(root, folders, top, leaf))
            return None
    if wanted == "top":
        return [folder[:1] for folder in folders]
    if wanted.isdecimal():
        return [folder[: int(wanted)] for folder in folders]
    return folders


def _ask(
    root: pathlib.Path,
    folders: Sequence[tuple[str, ...]],
    top: set[tuple[str, ...]],
    leaf: set[tuple[str, ...]],
) -> str:
    """A question with the number of classes at each level, where levels between differ."""
    ways = [("top", top)]
    for depth in range(2, max(map(len, leaf))):
        level = {folder[:depth] for folder in folders}
        if len(level) not in (len(ways[-1][1]), len(leaf)):
            ways.append((str(depth), level))
    shown = [
        f"data.class_level={setting}, {len(level):,} as {'/'.join(min(level))!r}"
        for setting, level in [*ways, ("leaf", leaf)]
    ]
    return (
        f"{root}: the lists name files alone, in folders within folders; choose which are the "
        f"classes: {', '.join(shown[:-1])}, or {shown[-1]}."
    )


def class_folders(
    files: Sequence[str], splits: Sequence[str] | None = None
) -> list[tuple[str, ...]]:
    """The folders that each file lies in, the outer first, without those named as its split.

    Args:
        files: with their folders.
        splits: of each file; None for files of one.
    """
    keys = [(split, posixpath.dirname(file))
            for split, file in zip(splits or [""] * len(files), files, strict=True)]  # fmt: skip
    parts = {key: tuple(filter(None, key[1].split("/"))) for key in set(keys)}
    kept = dict[tuple[str, str], tuple[str, ...]]()
    for split in {split for split, _ in parts}:
        ours = {key: part for key, part in parts.items() if key[0] == split}
        shared = posixpath.commonprefix(list(ours.values()))
        depths = [i for i, part in enumerate(shared) if split_called(part)]
        for key, part in ours.items():
            kept[key] = tuple(x for i, x in enumerate(part) if i not in depths)
    return [kept[key] for key in keys]


def folder_names(folders: Sequence[tuple[str, ...]], labels: Sequence[str]) -> dict[str, str]:
    """Label -> the name of its folder, where each label has one of its own; empty otherwise.

    A name is the last folder's, and the whole path where two would be the same. Folders that are
    called by numbers alone say no more than labels do.
    """
    inside: dict[str, set[tuple[str, ...]]] = {}
    for folder, label in zip(folders, labels, strict=True):
        inside.setdefault(label, set()).add(folder)
    for each in inside.values():  # as the validation images of ImageNet lie in none
        if len(each) > 1:
            each.discard(())
    if any(len(each) > 1 for each in inside.values()):
        return {}
    only = {label: next(iter(each)) for label, each in inside.items()}
    if () in only.values() or len(set(only.values())) < len(only):
        return {}
    names = unique_names(list(only.values()))
    if all(name.isdecimal() for name in names):
        return {}
    return dict(zip(only, names, strict=True))


def group_names(folders: Sequence[tuple[str, ...]], groups: Sequence[str]) -> dict[str, str]:
    """Group -> the folder that all of it is in, at the innermost depth that parts all groups.

    Empty where there is no such depth.
    """
    shared: dict[str, tuple[str, ...]] = {}
    for folder, group in set(zip(folders, groups, strict=True)):
        common = posixpath.commonprefix([folder, shared.setdefault(group, folder)])
        shared[group] = tuple(common)
    depth = min(map(len, shared.values()), default=0)
    cut = [folder[:depth] for folder in shared.values()]
    if not depth or len(set(cut)) < len(cut):
        return {}
    return dict(zip(shared, unique_names(cut), strict=True))


def unique_names(folders: Sequence[tuple[str, ...]]) -> list[str]:
    """A name for each of several paths: its last part, or all of it where that is not enough."""
    last = [folder[-1] for folder in folders]
    return [
        name if last.count(name) == 1 else "/".join(folder)
        for name, folder in zip(last, folders, strict=True)
    ]


def counted_of(files: Sequence[str], labels: Sequence[str]) -> dict[str, str]:
    """Label -> what its files' names begin with, as Pets' do, where that is one to one."""
    names: dict[str, str] = {}
    for file, label in zip(files, labels, strict=True):
        match = _COUNTED.fullmatch(posixpath.splitext(posixpath.basename(file))[0])
        if match is None or names.setdefault(label, match[1]) != match[1]:
            return {}
    distinct = set(names.values())
    if len(distinct) < len(names) or any(map(_CAMERA.fullmatch, distinct)):
        return {}
    return names


def _counted_names(rows: Sequence[Row]) -> list[str] | None:
    """The classes that names as `american_bulldog_12` tell; None where they do not look so.

    At least two classes, each of two images, and none that a camera calls its pictures.
    """
    matches = [_COUNTED.fullmatch(posixpath.splitext(posixpath.basename(row.file))[0])
               for row in rows]  # fmt: skip
    classes = [match[1] for match in matches if match]
    counts = collections.Counter(classes)
    if len(classes) < len(rows) or not 2 <= len(counts) <= len(rows) // 2:
        return None
    if min(counts.values()) < 2 or any(map(_CAMERA.fullmatch, counts)):
        return None
    return classes
