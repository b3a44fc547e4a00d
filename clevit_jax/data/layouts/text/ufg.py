"""The layout of the UFG sets and AFD: `anno/{train,test}.txt` and `images/`, or names alone."""

import pathlib
import posixpath
import re
from collections.abc import Sequence

from clevit_jax.data.dataset import Example
from clevit_jax.data.layouts.listing import (
    BLANKS,
    Contents,
    Notes,
    Request,
    files_below,
    find_file,
    first_three,
    in_order,
    is_image,
    label_gaps,
    label_problem,
    points_out,
    read_class_names,
    read_lines,
    say_own,
)
from clevit_jax.data.layouts.text.list_lines import names_images

LOOKS_FOR = "anno/train.txt and anno/test.txt, or images/<class>_<k>_<split>.*"
_NAME = re.compile(r"(.+)_[^_]+_(train|val|test)")
_SPLITS = ("train", "test", "val")
_PEEK, _SEEN = 1 << 16, 40  # bytes and lines that tell the form of a list


def fits(root: pathlib.Path, _: Request) -> str | None:
    """What the layout is recognised by, or None."""
    if is_annotated(root):
        return "anno/train.txt and anno/test.txt"
    if not (root / "images").is_dir() or (root / "anno" / "train.txt").is_file():
        return None
    for name in files_below(str(root / "images"), hidden=False):
        if _class_and_split(name) is not None:
            return f"names <class>_<k>_<split> as images/{name}"
    return None


def is_annotated(root: pathlib.Path) -> bool:
    """Whether anno/ has lists as UFG's, and none of another form or with labels from 0."""
    paths = [root / "anno" / f"{split}.txt" for split in ("train", "test")]
    there = [path for path in paths if path.is_file()]
    if there == paths[:1] and (root / "anno" / "val.txt").is_file():
        return False
    return bool(there) and not _is_other(there[0])


def _is_other(path: pathlib.Path) -> bool:
    """Whether most lines of a list name images, but not as UFG does, or labels begin at 0."""
    data = path.read_bytes()
    head = data[:_PEEK].decode("utf-8-sig", "replace")
    lines = [line.strip(BLANKS) for line in re.split(r"\r\n|\n|\r", head)][:_SEEN]
    matches = [re.fullmatch(rf"(.+?)[{BLANKS}]+[^{BLANKS}]+", line) for line in lines]
    alike = sum(match is not None and is_image(match[1]) for match in matches)
    if names_images(lines) and 2 * alike < sum(map(bool, lines)):
        return True
    zeros = len(re.findall(rb"[ \t]0+[ \t]*$", data, re.MULTILINE))
    if not zeros:
        return False
    labels = re.findall(rb"[ \t]([0-9]{1,9})[ \t\r]*$", data, re.MULTILINE)
    return 2 * zeros * (max(map(int, labels)) + 1) >= len(labels)  # no slip, but a class


def read(root: pathlib.Path, request: Request, notes: Notes) -> Contents:
    """Reads anno/{train,test}.txt with lines `<file> <label from 1>`, images/, perhaps classes.txt.

    Without anno/, class and split are those of the names `<class>_<k>_<split>`.
    """
    present = None
    if (root / "images").is_dir():
        own = set[str]()
        present = set(files_below(str(root / "images"), own=own))
        if own:
            notes.warnings.append(say_own(root / "images", own))
    else:
        notes.problems.append(f"{root / 'images'} is missing: the annotated files belong there.")
    if present is not None and not (root / "anno").is_dir():
        return _read_names(root, sorted(present), request, notes)
    splits = {
        split: _read_annotation(root / "anno" / f"{split}.txt", present, request, notes)
        for split in _SPLITS
        if split != "val" or (root / "anno" / "val.txt").is_file()
    }
    examples = [example for inside in splits.values() for example in inside]
    num_classes = request.num_classes or max((example.label + 1 for example in examples), default=0)
    if splits["train"]:
        labels = {example.label + 1 for example in splits["train"]}
        notes.problems.extend(
            f"{root / 'anno' / 'train.txt'}: {gap} no training image."
            for gap in label_gaps(labels, num_classes)
        )
    return Contents(_names_of_classes(root, examples, num_classes, notes), splits)


def _read_annotation(
    path: pathlib.Path, present: set[str] | None, request: Request, notes: Notes
) -> list[Example]:
    if not path.is_file():
        notes.problems.append(f"{path} is missing.")
        return []
    images = path.parent.parent / "images"
    rows = read_lines(path, notes)
    if not rows:
        notes.problems.append(f"{path} lists no image.")
    examples: list[Example] = []
    first: dict[str, tuple[int, int]] = {}  # file -> (line, label) of its first mention
    for number, line in rows:
        parts = re.fullmatch(rf"(.+?)[{BLANKS}]+([^{BLANKS}]+)", line)
        if parts is None:
            notes.problems.append(
                f"{path}, line {number}: expected '<file> <label>', not {line!r}."
            )
            continue
        written, text = parts.groups()
        bad_label = label_problem(written, text, request.num_classes)
        name, bad_file = find_file(written, present)
        wrong = [problem for problem in (bad_label, bad_file) if problem]
        notes.problems.extend(f"{path}, line {number}: {problem}" for problem in wrong)
        if bad_label or points_out(name):
            continue
        label = int(text)
        before, other = first.setdefault(name, (number, label))
        if other != label:
            notes.problems.append(
                f"{path}, line {number}: {name!r} has label {label} here "
                f"but label {other} on line {before}."
            )
        examples.append(Example(images / name, label - 1, 0, name))
    return examples


def _class_and_split(name: str) -> tuple[str, str] | None:
    """(class, split) of `<class>_<k>_<split>.ext`."""
    if not ("_train." in name or "_test." in name or "_val." in name):  # most, and at once
        return None
    stem = posixpath.splitext(posixpath.basename(name))[0]
    match = _NAME.fullmatch(stem) if is_image(name) else None
    return None if match is None else (match[1], match[2])


def _names_of_classes(
    root: pathlib.Path, examples: Sequence[Example], num_classes: int, notes: Notes
) -> tuple[str, ...]:
    """Names from classes.txt, else from `<class>_<k>_<split>.ext`, else the label numbers."""
    path = root / "classes.txt"
    if path.is_file():
        return read_class_names(path, num_classes, notes)
    if notes.problems:  # a mistyped label may have made num_classes huge
        return ()
    name_of: dict[int, str] = {}
    for example in examples:
        told = _class_and_split(example.name)
        if told is None or name_of.setdefault(example.label, told[0]) != told[0]:
            break
    else:
        if len(set(name_of.values())) == num_classes:
            return tuple(name_of[label] for label in range(num_classes))
    return tuple(str(label) for label in range(1, num_classes + 1))


def _read_names(
    root: pathlib.Path, files: Sequence[str], request: Request, notes: Notes
) -> Contents:
    told = {name: _class_and_split(name) for name in files if is_image(name)}
    notes.problems.extend(
        f"{root / 'images' / name} does not tell its class and split, as <class>_<k>_<split> would."
        for name, parts in told.items()
        if parts is None
    )
    others = [name for name in files if not is_image(name)]
    if others:
        notes.warnings.append(
            f"{root / 'images'}: {len(others)} file(s) are not images ({first_three(others)})."
        )
    known = {name: parts for name, parts in told.items() if parts is not None}
    told_classes = in_order(parts[0] for parts in known.values())
    classes, names = _order_of_classes(root, told_classes, notes)
    numbers = {name: label for label, name in enumerate(classes)}
    splits: dict[str, list[Example]] = {"train": []}
    for name, (class_name, split) in known.items():
        example = Example(root / "images" / name, numbers[class_name], 0, name)
        splits.setdefault(split, []).append(example)
    return Contents(tuple(names), splits)


def _order_of_classes(
    root: pathlib.Path, classes: list[str], notes: Notes
) -> tuple[Sequence[str], Sequence[str]]:
    """The classes that file names tell, in the order of their labels, and their names."""
    path = root / "classes.txt"
    if not path.is_file():
        return classes, classes
    listed = read_class_names(path, len(classes), notes)
    if set(listed) == set(classes):
        return listed, listed
    if all(name.isdigit() for name in classes) and len(listed) == len(classes):
        return classes, listed
    notes.problems.extend(
        f"{path} does not name the class {name!r} of the files in {root / 'images'}."
        for name in classes
        if name not in listed
    )
    return classes, classes
