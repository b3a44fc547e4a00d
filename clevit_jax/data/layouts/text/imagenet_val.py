"""The classes of ImageNet's validation images, from the lists that they are published with."""

import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from clevit_jax.data.layouts.listing import Notes, first_three, read_lines
from clevit_jax.data.layouts.synsets import is_synset
from clevit_jax.data.layouts.text import mat_files
from clevit_jax.errors import Repeated

_LIST = re.compile(
    r"LOC_val_solution\.csv|(.*[_-])?(val|valid|validation)([_-]?(annotations|ground_truth|gt|map|"
    r"list|labels?|cls|synset_labels))?\.(txt|csv)",
    re.IGNORECASE,
)
_NUMBER = re.compile(r"[0-9]{1,9}")
_BETWEEN = re.compile(r"[\s,;]+")
_META = "meta.mat"  # of the development kit: the number of each synset
_MAP = "map_clsloc.txt"  # the same, as lines `n02119789 1 kit_fox`
_ORDER = "synsets.txt"  # Caffe's, for numbers from 0


class Told(NamedTuple):
    """What a list says.

    Attributes:
        path: of the list.
        synsets: validation image, relative to their folder -> its synset.
    """

    path: pathlib.Path
    synsets: dict[str, str]


def lists(folders: Sequence[pathlib.Path]) -> list[pathlib.Path]:
    """The files that may say the classes of validation images, Kaggle's table first."""
    found = [
        path
        for folder in folders
        for path in sorted(folder.iterdir())
        if _LIST.fullmatch(path.name) and path.is_file()
    ]
    return sorted(dict.fromkeys(found), key=lambda path: not path.name.startswith("LOC_"))


def synsets_of(
    images: Sequence[str],
    paths: Sequence[pathlib.Path],
    classes: Sequence[str],
    folders: Sequence[pathlib.Path],
    notes: Notes,
) -> Told | None:
    """The synset of each validation image, as far as lists say it.

    A line is `<file> <synset>` with whatever follows, `<file> <number>`, or a synset or a number
    alone, in the order of the files' names. Numbers from 0 count the synsets in their order.
    Numbers from 1 are those of ILSVRC's development kit, which are in another order: they are read
    by its meta.mat or map_clsloc.txt, and asked about where neither is there. Kaggle's val.txt,
    which numbers its own lines, says nothing.

    Args:
        images: relative to their folder, sorted.
        paths: of the lists.
        classes: the synsets of the training images, sorted.
        folders: in which the numbers of the synsets may be told.
        notes: gets a problem where lists contradict each other, or cannot be read.

    Returns:
        What the first list says that says anything; None where none does.
    """
    told, questions = list[Told](), list[str]()
    for path in paths:
        rows = _rows(path, notes)
        labels = _by_image(path, rows, images, questions)
        if not labels:
            continue
        if all(map(is_synset, labels.values())):
            told.append(Told(path, labels))
        elif all(map(_NUMBER.fullmatch, labels.values())):
            number = {file: int(label) for file, label in labels.items()}
            order = _order(path, set(number.values()), classes, folders, questions, notes)
            if order:
                told.append(Told(path, {file: order[k] for file, k in number.items()}))
    for other in told[1:]:
        unlike = [f for f, wnid in other.synsets.items() if told[0].synsets.get(f, wnid) != wnid]
        if unlike:
            first = told[0].synsets[unlike[0]]
            notes.problems.append(
                f"{told[0].path} and {other.path} say different classes of {len(unlike):,} "
                f"validation image(s) ({unlike[0]!r} is {first} and {other.synsets[unlike[0]]}); "
                "keep the right one."
            )
    if not told:
        notes.problems.extend(questions)
        return None
    return told[0]


def _rows(path: pathlib.Path, notes: Notes) -> list[list[str]]:
    """The fields of each line, without a header."""
    rows = [_BETWEEN.split(line.strip(" \t,;\"'")) for _, line in read_lines(path, notes)]
    if rows and rows[0][0].lower() in ("imageid", "image", "file", "filename", "image_id"):
        rows = rows[1:]
    return rows


def _by_image(
    path: pathlib.Path, rows: list[list[str]], images: Sequence[str], questions: list[str]
) -> dict[str, str]:
    """Image -> what a list says after its name, or in the line of its number; {} for nothing."""
    if not rows:
        return {}
    if all(len(row) == 1 for row in rows):
        if not (is_synset(rows[0][0]) or _NUMBER.fullmatch(rows[0][0])):
            return {}
        if len(rows) != len(images):
            questions.append(
                f"{path} has {len(rows):,} lines, but there are {len(images):,} validation images; "
                "its lines are in the order of their names, so both must be whole."
            )
            return {}
        return dict(zip(images, (row[0] for row in rows), strict=True))
    called = {name: file for file in images for name in _names(file)}
    labels, counts = dict[str, str](), list[str]()
    mixed = list[str]()
    for row in rows:
        file = next((called[name] for name in _names(row[0]) if name in called), None)
        synsets = list(dict.fromkeys(filter(is_synset, row[1:])))
        counts += row[1:2]
        if file is None or len(row) < 2:
            continue
        if len(synsets) > 1:
            mixed.append(file)
        labels[file] = synsets[0] if synsets else row[1]
    if counts == [str(k) for k in range(1, len(counts) + 1)]:  # lines that are counted
        return {}
    if mixed:
        questions.append(
            f"{path}: {len(mixed):,} image(s) have boxes of several synsets, and so no one class "
            f"({first_three(mixed)}); remove these lines and images."
        )
        return {}
    return labels


def _names(file: str) -> tuple[str, str]:
    """A file's name without its folders, and without its ending."""
    name = file.replace("\\", "/").rpartition("/")[2]
    return name, name.rpartition(".")[0] or name


def _order(
    path: pathlib.Path,
    numbers: set[int],
    classes: Sequence[str],
    folders: Sequence[pathlib.Path],
    questions: list[str],
    notes: Notes,
) -> Mapping[int, str]:
    """Number -> synset, of those in a list; {} where it cannot be told."""
    if 0 in numbers:
        listed = path.parent / _ORDER
        order = [line for _, line in read_lines(listed, notes)] if listed.is_file() else classes
        if max(numbers) < len(order):
            return dict(enumerate(order))
        questions.append(
            f"{path} has numbers from 0 to {max(numbers)}, but there are {len(order):,} synsets "
            "to count; write the synset, as n01440764, in the place of the number."
        )
        return {}
    for folder in folders:
        for name, read in ((_META, _of_meta), (_MAP, _of_map)):
            if (folder / name).is_file():
                known = read(folder / name, notes)
                if numbers <= known.keys():
                    return known
                notes.problems.extend(
                    Repeated(
                        f"{path}: {folder / name} does not name the number {number}.",
                        rule=f"{path}: {folder / name} does not name {{n}} of its numbers",
                        item=str(number),
                    )
                    for number in sorted(numbers - known.keys())
                )
                return {}
    questions.append(
        f"{path} has numbers from {min(numbers)} to {max(numbers)}, which may count ILSVRC's own "
        f"order of synsets (1 is n02119789) or that of their names (1 is {classes[0]}): for the "
        f"first, put {_META} of the development kit beside it; for the second, write numbers from "
        "0, or the synset in the place of the number."
    )
    return {}


def _of_meta(path: pathlib.Path, notes: Notes) -> dict[int, str]:
    """ILSVRC2012_ID -> WNID of the development kit's meta.mat."""
    synsets = mat_files.load(path, ["synsets"], notes).get("synsets")
    if not isinstance(synsets, dict) or not {"ILSVRC2012_ID", "WNID"} <= synsets.keys():
        return {}
    pairs = zip(
        mat_files.numbers(synsets["ILSVRC2012_ID"]), mat_files.texts(synsets["WNID"]), strict=True
    )
    return {number: wnid for number, wnid in pairs if number is not None and wnid}


def _of_map(path: pathlib.Path, notes: Notes) -> dict[int, str]:
    """Number -> synset of lines `n02119789 1 kit_fox`."""
    rows = [line.split() for _, line in read_lines(path, notes)]
    return {int(row[1]): row[0] for row in rows if len(row) > 1 and _NUMBER.fullmatch(row[1])}
