"""Parts that the readers of all layouts share: listed files, lines of text, labels in order."""

import itertools
import os
import pathlib
import posixpath
import re
import unicodedata
from collections.abc import Container, Iterable, Iterator, Sequence
from typing import NamedTuple

from clevit_jax.data.dataset import Example, Level
from clevit_jax.data.formats import EXTENSIONS
from clevit_jax.data.layouts.csv import encoding
from clevit_jax.system.own_files import own_names

_READ = frozenset(EXTENSIONS)
BLANKS = " \t"  # what separates the words of a line


class Request(NamedTuple):
    """Settings of a reader, as the user gave them.

    Attributes:
        num_classes: number of classes that the user says there are.
        file_column: of a table, the column of files or images; "" finds it by its name.
        label_column: of a table, the column of labels; "" finds it by its name.
        tfds: name of a TFDS data set, perhaps with config and version.
        split_column: of a table, the column of splits; "" finds it by its name and values.
        header: whether a table has one: "true", "false", or "auto" to find out.
        class_level: which level of a hierarchy of folders the classes are: "top", "leaf", a number
            from 1, or "auto".
        label_pattern: regular expression of the class in the name of a file; "" for none.
    """

    num_classes: int | None = None
    file_column: str = ""
    label_column: str = ""
    tfds: str = ""
    split_column: str = ""
    header: str = "auto"
    class_level: str = "auto"
    label_pattern: str = ""


class Notes(NamedTuple):
    """Sentences that a reader writes: problems stop a run, warnings are printed.

    One about a file or a line that may hold of many is an `errors.Repeated`.
    """

    problems: list[str]
    warnings: list[str]


class Folds(NamedTuple):
    """Folds for cross-validation that the data set tells itself.

    Attributes:
        column: that tells them.
        of: name of an example -> number of its fold, from 0.
    """

    column: str
    of: dict[str, int]


class Contents(NamedTuple):
    """Class names and examples that a reader returns, as far as problems allow.

    Attributes:
        class_names: one name for each label.
        splits: examples of "train", and of "val" and "test" where the data set has them. Their ids
            are given later.
        levels: coarser levels of the classes, the coarsest first.
        folds: that the training examples are parted into, where there is no test split.
    """

    class_names: tuple[str, ...]
    splits: dict[str, list[Example]]
    levels: tuple[Level, ...] = ()
    folds: Folds | None = None


def files_below(
    folder: str,
    prefix: str = "",
    *,
    hidden: bool = True,
    own: set[str] | None = None,
    above: tuple[str, ...] = (),
) -> Iterator[str]:
    """Paths of all files below `folder`, relative to it, with forward slashes.

    What this program wrote (`system.own_files`) is left out.

    Args:
        folder: where to look.
        prefix: goes before each path.
        hidden: whether files and folders that begin with a dot count.
        own: gets the folders, `prefix` first, in which something was left out.
        above: where the links lie that led here.
    """
    for entry in users_entries(folder, prefix, own):
        if not hidden and entry.name.startswith("."):
            continue
        if not entry.is_dir():
            if entry.is_file():
                yield prefix + entry.name
        elif not entry.is_symlink():
            below = f"{prefix}{entry.name}/"
            yield from files_below(entry.path, below, hidden=hidden, own=own, above=above)
        elif not goes_round(entry.path, (*above, folder)):
            yield from files_below(
                entry.path,
                f"{prefix}{entry.name}/",
                hidden=hidden,
                own=own,
                above=(*above, folder),
            )


def users_entries(
    folder: str, prefix: str = "", own: set[str] | None = None
) -> list["os.DirEntry[str]"]:
    """What is in a folder and is not this program's; `prefix` and `own` as in `files_below`."""
    with os.scandir(folder) as opened:
        entries = list(opened)
    ours = own_names(folder, {entry.name for entry in entries}, is_image)
    for entry in entries if ours else ():  # a class may have the name of a folder of ours
        if entry.name in ours and entry.is_dir() and any(map(is_image, files_below(entry.path))):
            ours.remove(entry.name)
    if ours and own is not None:
        own.add(prefix)
    return [entry for entry in entries if entry.name not in ours] if ours else entries


def files_ending(folder: str | os.PathLike[str], endings: str | tuple[str, ...]) -> list[str]:
    """Names of the files in a folder, not below it, that have an ending and are not hidden; sorted.

    Args:
        folder: where to look.
        endings: in lower case; files may write them in capitals.
    """
    with os.scandir(folder) as entries:
        return sorted(
            entry.name
            for entry in entries
            if entry.name.lower().endswith(endings)
            and not entry.name.startswith(".")
            and entry.is_file()
        )


def say_own(folder: str | os.PathLike[str], own: Iterable[str]) -> str:
    """A sentence on what was left out of a folder; `own` as `files_below` gives it, not empty."""
    where = [name or "." for name in sorted(own)]
    return (
        f"{folder}: what this program wrote itself is not taken for images ({first_three(where)})."
    )


def goes_round(link: str, folders: Iterable[str]) -> bool:
    """Whether following `link` would come back to one of `folders`: a circle, also of two links.

    Args:
        link: a link to a folder.
        folders: in which it lies, and in which the links lie that led there.
    """
    target = os.path.realpath(link)
    real = (os.path.realpath(folder) for folder in folders)
    return any(os.path.commonpath([target, folder]) == target for folder in real)


def read_text(path: pathlib.Path, notes: Notes) -> str | None:
    """The text of a file without its byte-order mark; None, and a problem, if it cannot be told."""
    text, line = encoding.decode(path.read_bytes())
    if text is None:
        notes.problems.append(f"{path}, line {line}: not UTF-8 text; save the file as UTF-8.")
    return text


def read_lines(path: pathlib.Path, notes: Notes) -> list[tuple[int, str]]:
    """(line number from 1, stripped text) of each line of `path` that is not blank.

    Lines end as on Unix, Windows or old Macs. Only ASCII blanks are stripped: others may well
    belong to a file's name.
    """
    text = read_text(path, notes)
    split = re.split(r"\r\n|\n|\r", text or "")
    stripped = [(i, line.strip(BLANKS)) for i, line in enumerate(split, start=1)]
    return [(i, line) for i, line in stripped if line]


def is_image(name: str) -> bool:
    """Whether a file's ending is one that is read."""
    return name[name.rfind(".") :].lower() in _READ  # faster than `endswith` of many


def first_three(names: Sequence[str]) -> str:
    """The first three of `names`, for a sentence."""
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")


def label_problem(name: str, text: str, num_classes: int | None) -> str | None:
    """What is wrong with a label that must be an integer from 1, or None."""
    if not re.fullmatch(r"[+-]?[0-9]{1,18}", text):
        return f"the label {text!r} of {name!r} is not an integer."
    if int(text) < 1:
        return f"the label of {name!r} is {text}, but labels start at 1."
    if num_classes is not None and int(text) > num_classes:
        return f"the label of {name!r} is {text}, above num_classes = {num_classes}."
    return None


def points_out(name: str) -> bool:
    """Whether a file name of an annotation is absolute, or climbs out of its folder."""
    return bool(re.match(r"[\\/]|[A-Za-z]:[\\/]", name)) or ".." in re.split(r"[\\/]", name)


def find_file(
    name: str, present: Container[str] | None, folder: str = "images/"
) -> tuple[str, str | None]:
    """The file that an annotation names, and what is wrong with it.

    Args:
        name: as it is written; backslashes, and another form of the same accents, are understood.
        present: files below the folder with forward slashes; None does not look.
        folder: what problems call the folder.
    """
    if points_out(name):
        return name, f"the file {name!r} points out of {folder}; name it relative to {folder}."
    plain = posixpath.normpath(name)
    if present is None or plain in present:
        return plain, None
    slashes = posixpath.normpath(name.replace("\\", "/"))
    for form in (slashes, *(unicodedata.normalize(f, slashes) for f in ("NFC", "NFD"))):
        if form in present:
            return form, None
    return plain, f"the file {name!r} is not in {folder}."


def label_gaps(labels: set[int], num_classes: int) -> Iterator[str]:
    """Words for the labels from 1 to `num_classes` that are not in `labels`, run by run."""
    for low, high in itertools.pairwise([0, *sorted(labels), num_classes + 1]):
        if high - low == 2:
            yield f"label {low + 1} has"
        elif high - low > 2:
            yield f"labels {low + 1} to {high - 1} have"


def in_order(names: Iterable[str]) -> list[str]:
    """Distinct class names: by number where all are integers, by text otherwise."""
    distinct = set(names)
    if all(re.fullmatch(r"-?[0-9]{1,18}", name) for name in distinct):
        return sorted(distinct, key=lambda name: (int(name), name))
    return sorted(distinct)


def read_class_names(path: pathlib.Path, num_classes: int, notes: Notes) -> tuple[str, ...]:
    """The class names of a file with one per line; they must be distinct, and `num_classes`."""
    names = [name for _, name in read_lines(path, notes)]
    if len(names) != num_classes:
        notes.problems.append(
            f"{path} has {len(names)} class names, but there are {num_classes} classes; "
            "name each class once, one per line."
        )
    for name in sorted({name for name in names if names.count(name) > 1}):
        notes.problems.append(
            f"{path}: the class name {name!r} is given more than once; rename one."
        )
    return tuple(names)
