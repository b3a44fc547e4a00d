"""The layout of CUB-200-2011 and NABirds: a few text files with lines `<id> <value>`."""

import pathlib
import re
from collections.abc import Mapping
from typing import NamedTuple

from clevit_jax.data.layouts import table
from clevit_jax.data.layouts.listing import (
    BLANKS,
    Contents,
    Notes,
    Request,
    files_below,
    find_file,
    in_order,
    label_problem,
    points_out,
    read_lines,
)

LOOKS_FOR = "images.txt and image_class_labels.txt, as in CUB-200-2011"
_LABELS = "image_class_labels.txt"
_NEEDED = ("images.txt", _LABELS)
_SPLIT = "train_test_split.txt"
_PAIR = re.compile(rf"([^{BLANKS}]+)[{BLANKS}]+(.+)")


class _Value(NamedTuple):
    line: int
    text: str


def fits(root: pathlib.Path, _: Request) -> str | None:
    """What the layout is recognised by, or None."""
    return " and ".join(_NEEDED) if all((root / name).is_file() for name in _NEEDED) else None


def read(root: pathlib.Path, request: Request, notes: Notes) -> Contents:
    """Reads images.txt, image_class_labels.txt and perhaps train_test_split.txt and classes.txt.

    Their lines are `<id> <file in images/>`, `<id> <label from 1>`, `<id> <1 for training, else 0>`
    and `<label> <class name>`. Labels may have gaps. Without train_test_split.txt there is no test
    split; without classes.txt, classes are named as the folders of their images, where each has
    one, and as their labels otherwise.
    """
    present = None
    if (root / "images").is_dir():
        present = set(files_below(str(root / "images")))
    else:
        notes.problems.append(f"{root / 'images'} is missing: the listed files belong there.")
    parts: dict[str, dict[str, _Value]] = {}
    for name in (*_NEEDED, _SPLIT):
        if name in _NEEDED or (root / name).is_file():
            pairs = _pairs(root / name, notes)
            if pairs is not None:
                parts[name] = pairs
    _check_ids(root, parts, notes)
    files = _files(root, parts.get("images.txt", {}), present, notes)
    labels = _labels(root, parts, notes)
    splits = _splits(root, parts.get(_SPLIT), files, notes)
    both = [key for key in files if key in labels and key in splits]
    names = _class_names(root, {key: labels[key] for key in both}, files, notes)
    place, images = root / _LABELS, root / "images"
    rows = [
        table.TableRow(
            f"{place}, line {parts[_LABELS][key].line}",
            splits[key],
            labels[key],
            names.get(labels[key], ""),
            images / files[key],
            files[key],
        )
        for key in both
    ]
    if not rows and notes.problems:
        return Contents((), {"train": []})
    contents = table.to_contents(rows, str(root), notes)
    if _SPLIT in parts:
        contents.splits.setdefault("test", [])
    return contents


def _pairs(path: pathlib.Path, notes: Notes) -> dict[str, _Value] | None:
    """Id -> value of each line `<id> <value>`; None if the file is missing or is not text."""
    if not path.is_file():
        notes.problems.append(f"{path} is missing.")
        return None
    before = len(notes.problems)
    rows = read_lines(path, notes)
    if len(notes.problems) > before:
        return None
    pairs: dict[str, _Value] = {}
    for number, line in rows:
        parts = _PAIR.fullmatch(line)
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


def _check_ids(root: pathlib.Path, parts: Mapping[str, Mapping[str, _Value]], notes: Notes) -> None:
    """Every id of images.txt must be in each other file, and the other way round."""
    images = parts.get("images.txt", {})
    for name, pairs in parts.items() if "images.txt" in parts else ():
        for having, of, other, missing in (
            ("images.txt", images, name, pairs),
            (name, pairs, "images.txt", images),
        ):
            notes.problems.extend(
                f"{root / having}, line {value.line}: the id {key!r} is not in {other}."
                for key, value in of.items()
                if key not in missing
            )


def _files(
    root: pathlib.Path, images: Mapping[str, _Value], present: set[str] | None, notes: Notes
) -> dict[str, str]:
    """Id -> file in images/."""
    files: dict[str, str] = {}
    for key, (line, text) in images.items():
        file, problem = find_file(text, present)
        if problem:
            notes.problems.append(f"{root / 'images.txt'}, line {line}: {problem}")
        if not points_out(file):
            files[key] = file
    return files


def _labels(
    root: pathlib.Path, parts: Mapping[str, Mapping[str, _Value]], notes: Notes
) -> dict[str, str]:
    """Id -> label, as its shortest text."""
    labels: dict[str, str] = {}
    images = parts.get("images.txt", {})
    for key, (line, text) in parts.get(_LABELS, {}).items():
        name = images[key].text if key in images else key
        if problem := label_problem(name, text, None):
            notes.problems.append(f"{root / _LABELS}, line {line}: {problem}")
        else:
            labels[key] = str(int(text))
    return labels


def _splits(
    root: pathlib.Path, values: Mapping[str, _Value] | None, files: Mapping[str, str], notes: Notes
) -> dict[str, str]:
    """Id -> split; train for all if there is no file that says."""
    if values is None:
        return dict.fromkeys(files, "train")
    meant = {"1": "train", "0": "test"}
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
        # NABirds names the root of its tree of classes, too: it is 0.
        problem = None if label == "0" else label_problem(name, label, None)
        if problem is None and names.setdefault(str(int(label)), name) != name:
            problem = f"label {label} has another name above."  # as `1` and `01`
        if problem:
            notes.problems.append(f"{path}, line {line}: {problem}")
    return names
