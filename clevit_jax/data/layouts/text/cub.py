"""The layout of CUB-200-2011 and NABirds: a few text files with lines `<id> <value>`."""

import collections
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from clevit_jax.data.layouts import table
from clevit_jax.data.layouts.listing import (
    BLANKS,
    Contents,
    Notes,
    Request,
    files_below,
    find_file,
    first_three,
    in_order,
    label_problem,
    points_out,
    read_lines,
)
from clevit_jax.data.split_names import split_called
from clevit_jax.errors import Repeated

LOOKS_FOR = "images.txt and image_class_labels.txt, as in CUB-200-2011"
_LABELS = "image_class_labels.txt"
_NEEDED = ("images.txt", _LABELS)
_SPLIT = "train_test_split.txt"
_TREE = "hierarchy.txt"  # of NABirds: `<id> <id of the parent>`
_PAIR = re.compile(rf"([^{BLANKS}]+)[{BLANKS}]+(.+)")
_PAIR_BY_COMMA = re.compile(rf"([^{BLANKS},]+),[{BLANKS}]*(.+)")


class _Value(NamedTuple):
    line: int
    text: str


def fits(root: pathlib.Path, _: Request) -> str | None:
    """What the layout is recognised by, or None."""
    return " and ".join(_NEEDED) if all((root / name).is_file() for name in _NEEDED) else None


def read(root: pathlib.Path, request: Request, notes: Notes) -> Contents:
    """Reads images.txt, image_class_labels.txt and perhaps train_test_split.txt and classes.txt.

    Their lines are `<id> <file in images/>`, `<id> <label>`, `<id> <1 for training, else 0>` and
    `<label> <class name>`, with blanks, tabs or a comma between. Labels begin at 1, or at 0, and
    may have gaps. Without train_test_split.txt there is no test split; without classes.txt, classes
    are named as the folders of their images, where each has one, and as their labels otherwise.
    hierarchy.txt, as NABirds has, gives coarser levels.
    """
    present = None
    if (root / "images").is_dir():
        present = set(files_below(str(root / "images")))
    else:
        notes.problems.append(f"{root / 'images'} is missing: the listed files belong there.")
    parts: dict[str, dict[str, _Value]] = {}
    for name in (*_NEEDED, _SPLIT):
        if name in _NEEDED or (root / name).is_file():
            pairs = _pairs(root / name, notes, present if name == "images.txt" else None)
            if pairs is not None:
                parts[name] = pairs
    if _SPLIT not in parts and (others := sorted(root.glob("*split*.txt"))):
        notes.warnings.append(
            f"{root}: {first_three([path.name for path in others])}: not read; for these splits, "
            f"write {_SPLIT} of lines <id> <1 for training, 0 for testing>."
        )
    _check_ids(root, parts, notes)
    files = _files(root, parts.get("images.txt", {}), present, notes)
    labels = _labels(root, parts, notes)
    splits = _splits(root, parts.get(_SPLIT), files, notes)
    both = [key for key in files if key in labels and key in splits]
    names = _class_names(root, {key: labels[key] for key in both}, files, notes)
    levels = _levels(root, set(labels.values()), names, notes)
    place, images = root / _LABELS, root / "images"
    rows = [
        table.TableRow(
            f"{place}, line {parts[_LABELS][key].line}",
            splits[key],
            labels[key],
            names.get(labels[key], ""),
            images / files[key],
            files[key],
            levels.get(labels[key], ()),
        )
        for key in both
    ]
    if not rows and notes.problems:
        return Contents((), {"train": []})
    depth = max(map(len, levels.values()), default=0)
    called = [f"level {k + 1}" for k in range(depth)]
    contents = table.to_contents(rows, str(root), notes, levels=called)
    if _SPLIT in parts:
        contents.splits.setdefault("test", [])
    return contents


def _pairs(
    path: pathlib.Path, notes: Notes, present: set[str] | None = None
) -> dict[str, _Value] | None:
    """Id -> value of each line `<id> <value>`; None if the file is missing or is not text.

    Where values are files, `present` tells whether it is a comma that stands between.
    """
    if not path.is_file():
        notes.problems.append(f"{path} is missing.")
        return None
    before = len(notes.problems)
    rows = read_lines(path, notes)
    if len(notes.problems) > before:
        return None
    numbered = path.name == "classes.txt"
    pairs: dict[str, _Value] = {}
    pair = (
        _PAIR_BY_COMMA
        if _has_commas([line for _, line in rows], present, numbered=numbered)
        else _PAIR
    )
    for number, line in rows:
        parts = pair.fullmatch(line)
        if parts is None:
            notes.problems.append(f"{path}, line {number}: expected '<id> <value>', not {line!r}.")
            continue
        key, text = parts.groups()
        first = pairs.setdefault(key, _Value(number, text))
        if first.line != number:
            notes.problems.append(
                f"{path}, line {number}: the id {key!r} is on line {first.line}, too; remove one."
            )
    return pairs


def _has_commas(lines: Sequence[str], present: set[str] | None, *, numbered: bool) -> bool:
    """Whether all lines have a comma between id and value; ids are numbers if `numbered`."""
    if not all(_PAIR_BY_COMMA.fullmatch(line) for line in lines):
        return False
    commas = [_PAIR_BY_COMMA.fullmatch(line) for line in lines]
    blanks = [_PAIR.fullmatch(line) for line in lines]
    if not all(blanks) or all(
        match and match[1].find(",") == len(match[1]) - 1 for match in blanks
    ):
        return True
    if numbered:
        return all(match and match[1].isdecimal() for match in commas)
    if present is not None:
        return any(match and match[2] in present for match in commas)
    return not any(match and re.search(rf"[{BLANKS}]", match[2]) for match in commas)


def _check_ids(root: pathlib.Path, parts: Mapping[str, Mapping[str, _Value]], notes: Notes) -> None:
    """Every id of images.txt must be in each other file, and the other way round."""
    images = parts.get("images.txt", {})
    for name, pairs in parts.items() if "images.txt" in parts else ():
        for having, of, other, missing in (
            ("images.txt", images, name, pairs),
            (name, pairs, "images.txt", images),
        ):
            notes.problems.extend(
                Repeated(
                    f"{root / having}, line {value.line}: the id {key!r} is not in {other}.",
                    rule=f"{root / having}: {{n}} ids are not in {other}",
                    item=repr(key),
                )
                for key, value in of.items()
                if key not in missing
            )


def _files(
    root: pathlib.Path, images: Mapping[str, _Value], present: set[str] | None, notes: Notes
) -> dict[str, str]:
    """Id -> file in images/."""
    files: dict[str, str] = {}
    again = present is not None and all(  # the folder is written once more
        text.startswith("images/") and text not in present for _, text in images.values()
    )
    for key, (line, text) in images.items():
        file, problem = find_file(text.removeprefix("images/") if again else text, present)
        if problem:
            notes.problems.append(
                Repeated(
                    f"{root / 'images.txt'}, line {line}: {problem}",
                    rule=f"{root / 'images.txt'}: {{n}} files are not in images/",
                    item=repr(text),
                )
            )
        if not points_out(file):
            files[key] = file
    return files


def _labels(
    root: pathlib.Path, parts: Mapping[str, Mapping[str, _Value]], notes: Notes
) -> dict[str, str]:
    """Id -> label, as its shortest text."""
    labels: dict[str, str] = {}
    images = parts.get("images.txt", {})
    zero = _from_zero(root, [text for _, text in parts.get(_LABELS, {}).values()])
    for key, (line, text) in parts.get(_LABELS, {}).items():
        name = images[key].text if key in images else key
        if zero and re.fullmatch(r"0+", text):
            labels[key] = "0"
        elif problem := label_problem(name, text, None):
            notes.problems.append(f"{root / _LABELS}, line {line}: {problem}")
        else:
            labels[key] = str(int(text))
    return labels


def _from_zero(root: pathlib.Path, labels: Sequence[str]) -> bool:
    """Whether 0 is a class, and no slip: it is named, or has its share of the images."""
    counts = collections.Counter(labels)
    if not counts["0"]:
        return False
    if (root / "classes.txt").is_file():
        named = _pairs(root / "classes.txt", Notes([], [])) or {}
        return "0" in named and not (root / _TREE).is_file()  # NABirds calls the root of all so
    return 2 * counts["0"] * len(counts) >= len(labels)


def _splits(
    root: pathlib.Path, values: Mapping[str, _Value] | None, files: Mapping[str, str], notes: Notes
) -> dict[str, str]:
    """Id -> split; train for all if there is no file that says."""
    if values is None:
        return dict.fromkeys(files, "train")
    meant = {"1": "train", "0": "test"}
    for text in {text for _, text in values.values()} - meant.keys():
        if (told := split_called(text)) is not None:
            meant[text] = told
    notes.problems.extend(
        f"{root / _SPLIT}, line {line}: the value of {key!r} is {text!r}; it must "
        "be 1 (training) or 0 (testing)."
        for key, (line, text) in values.items()
        if text not in meant
    )
    return {key: meant[text] for key, (_, text) in values.items() if text in meant}


def _class_names(
    root: pathlib.Path, labels: Mapping[str, str], files: Mapping[str, str], notes: Notes
) -> dict[str, str]:
    """Label -> name from classes.txt, else from the folders; empty if neither tells."""
    if (root / "classes.txt").is_file():
        names = _listed_names(root / "classes.txt", notes)
        example = {label: files[key] for key, label in labels.items()}
        notes.problems.extend(
            f"{root / 'classes.txt'} does not name label {label}, that of {example[label]!r}."
            for label in in_order(example)
            if names is not None and label not in names
        )
        return names or {}
    folders: dict[str, set[str]] = {}
    for key, label in labels.items():
        folders.setdefault(label, set()).add(files[key].rpartition("/")[0])
    distinct = {next(iter(inside)) for inside in folders.values() if len(inside) == 1} - {""}
    if len(distinct) < len(folders):
        return {}
    return {label: next(iter(inside)) for label, inside in folders.items()}


def _listed_names(path: pathlib.Path, notes: Notes) -> dict[str, str] | None:
    pairs = _pairs(path, notes)
    if pairs is None:
        return None
    names: dict[str, str] = {}
    for label, (line, name) in pairs.items():
        # Labels may begin at 0; NABirds names the root of its tree of classes so.
        problem = None if label == "0" else label_problem(name, label, None)
        if problem is None and names.setdefault(str(int(label)), name) != name:
            problem = f"label {label} has another name above."  # as `1` and `01`
        if problem:
            notes.problems.append(f"{path}, line {line}: {problem}")
    return names


def _levels(
    root: pathlib.Path, labels: set[str], names: Mapping[str, str], notes: Notes
) -> dict[str, tuple[str, ...]]:
    """Label -> the names of the groups that it is in, the coarsest first, by hierarchy.txt.

    A class that lies higher than others is a group of its own in the levels below it.
    """
    if not labels or not (root / _TREE).is_file():
        return {}
    wrong = Notes([], [])
    parents = {key: value.text for key, value in (_pairs(root / _TREE, wrong) or {}).items()}
    ways: dict[str, list[str]] = {}
    for label in labels:
        way = [label]
        while (parent := parents.get(way[-1])) is not None and parent not in way:
            way.append(parent)
        ways[label] = way[::-1]
        if parent is not None:
            wrong.problems.append(f"{root / _TREE}: {label} is above itself.")
    if wrong.problems:
        notes.warnings.append(f"The levels are not read: {wrong.problems[0]}")
        return {}
    if len({way[0] for way in ways.values()}) == 1:  # the root
        ways = {label: way[1:] or way for label, way in ways.items()}
    depth = max(map(len, ways.values())) - 1  # the last is the class itself
    full = {label: way + way[-1:] * (depth - len(way)) for label, way in ways.items()}
    called = _listed_names(root / "classes.txt", Notes([], [])) or {}
    called |= names
    return {
        label: tuple(called.get(group, group) for group in way[:depth])
        for label, way in full.items()
    }
