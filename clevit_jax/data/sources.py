"""Which images there are, with which labels: one reader for each layout of files on disk."""

import dataclasses
import hashlib
import itertools
import os
import pathlib
import posixpath
import re
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

_TYPES = (
    "bmp",
    "gif",
    "jfif",
    "jp2",
    "jpe",
    "jpeg",
    "jpg",
    "pgm",
    "png",
    "ppm",
    "tif",
    "tiff",
    "webp",
)
EXTENSIONS = tuple(f".{name}" for name in _TYPES)
_SHOWN = 20


class DataError(ValueError):
    """Everything that is wrong with a data set, found in one pass.

    Attributes:
      problems: one sentence for each problem; all of them, while the message shows the first 20.
    """

    def __init__(self, problems: Sequence[str]):
        self.problems = tuple(problems)
        lines = list(self.problems[:_SHOWN])
        if len(self.problems) > _SHOWN:
            lines.append(f"... and {len(self.problems) - _SHOWN} more.")
        super().__init__("\n".join(lines))


class Example(NamedTuple):
    """One labelled image.

    Attributes:
      data: where the encoded image lies, or its bytes.
      label: class number, from 0.
      id: index in its split, from 0.
      name: the file as the data set itself names it; the same on every machine.
    """

    data: pathlib.Path | bytes
    label: int
    id: int
    name: str


@dataclasses.dataclass(frozen=True)
class Dataset:
    """A data set that was found to be free of errors.

    Attributes:
      layout: name of the layout, as `data.layout` takes it.
      recognised_by: the files that the layout was recognised by.
      class_names: one name for each label.
      train: training examples.
      test: test examples.
      warnings: a sentence for each thing that is odd but no error.
    """

    layout: str
    recognised_by: str
    class_names: tuple[str, ...]
    train: tuple[Example, ...]
    test: tuple[Example, ...]
    warnings: tuple[str, ...]

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    def split_hash(self) -> str:
        """Hex SHA-256 over (split, name, label) of all examples, in order."""
        digest = hashlib.sha256()
        for split, examples in (("train", self.train), ("test", self.test)):
            for example in examples:
                row = f"{split}\0{example.name}\0{example.label}\n"
                digest.update(row.encode("utf-8", "surrogateescape"))
        return digest.hexdigest()


class _Notes(NamedTuple):
    problems: list[str]
    warnings: list[str]


class _Found(NamedTuple):
    class_names: tuple[str, ...]
    train: list[Example]
    test: list[Example]


def _files(folder: str, prefix: str = "", *, hidden: bool = True) -> Iterator[str]:
    """Paths of all files below `folder`, relative to it, with forward slashes."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if not hidden and entry.name.startswith("."):
                continue
            if not entry.is_dir():
                if entry.is_file():
                    yield prefix + entry.name
            elif not (entry.is_symlink() and _contains(entry.path, folder)):
                yield from _files(entry.path, f"{prefix}{entry.name}/", hidden=hidden)


def _contains(link: str, folder: str) -> bool:
    """Whether following `link` would come back to `folder`, that is, go round in a circle."""
    target = os.path.realpath(link)
    return os.path.commonpath([target, os.path.realpath(folder)]) == target


def _lines(path: pathlib.Path, notes: _Notes) -> list[tuple[int, str]]:
    """(line number from 1, stripped text) of each line of `path` that is not blank."""
    data = path.read_bytes()
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        number = data[: error.start].count(b"\n") + 1
        notes.problems.append(f"{path}, line {number}: not UTF-8 text; save the file as UTF-8.")
        return []
    stripped = [(i, line.strip()) for i, line in enumerate(text.split("\n"), start=1)]
    return [(i, line) for i, line in stripped if line]


def _is_image(name: str) -> bool:
    return name.lower().endswith(EXTENSIONS)


def _sample(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")


def _label_problem(name: str, text: str, num_classes: int | None) -> str | None:
    if not re.fullmatch(r"[+-]?[0-9]{1,18}", text):
        return f"the label {text!r} of {name!r} is not an integer."
    if int(text) < 1:
        return f"the label of {name!r} is {text}, but labels start at 1."
    if num_classes is not None and int(text) > num_classes:
        return f"the label of {name!r} is {text}, above num_classes = {num_classes}."
    return None


def _file_problem(name: str, present: set[str] | None) -> str | None:
    if re.match(r"[\\/]|[A-Za-z]:[\\/]", name) or ".." in re.split(r"[\\/]", name):
        return f"the file {name!r} points out of images/; name it relative to images/."
    if present is not None and posixpath.normpath(name) not in present:
        return f"the file {name!r} is not in images/."
    return None


def _read_annotation(
    path: pathlib.Path, present: set[str] | None, num_classes: int | None, notes: _Notes
) -> list[Example]:
    if not path.is_file():
        notes.problems.append(f"{path} is missing.")
        return []
    images = path.parent.parent / "images"
    lines = _lines(path, notes)
    if not lines:
        notes.problems.append(f"{path} lists no image.")
    examples: list[Example] = []
    first: dict[str, tuple[int, int]] = {}  # file -> (line, label) of its first mention
    again: dict[str, None] = {}
    for number, line in lines:
        name, *rest = line.rsplit(maxsplit=1)
        if not rest:
            notes.problems.append(
                f"{path}, line {number}: expected '<file> <label>', not {line!r}."
            )
            continue
        bad_label = _label_problem(name, rest[0], num_classes)
        found = [bad_label, _file_problem(name, present)]
        notes.problems.extend(f"{path}, line {number}: {problem}" for problem in found if problem)
        if bad_label:
            continue
        name, label = posixpath.normpath(name), int(rest[0])
        before, other = first.setdefault(name, (number, label))
        if other != label:
            notes.problems.append(
                f"{path}, line {number}: {name!r} has label {label} here "
                f"but label {other} on line {before}."
            )
        elif before != number:
            again[name] = None
        examples.append(Example(images / name, label - 1, len(examples), name))
    if again:
        notes.warnings.append(
            f"{path}: {len(again)} file(s) are listed more than once and count each time "
            f"({_sample(list(again))})."
        )
    return examples


def _gaps(labels: set[int], num_classes: int) -> Iterator[str]:
    """The runs of labels from 1 to `num_classes` that are not in `labels`, in words."""
    for low, high in itertools.pairwise([0, *sorted(labels), num_classes + 1]):
        if high - low == 2:
            yield f"label {low + 1} has"
        elif high - low > 2:
            yield f"labels {low + 1} to {high - 1} have"


def _names_of_classes(
    root: pathlib.Path, examples: Sequence[Example], num_classes: int, notes: _Notes
) -> tuple[str, ...]:
    """Names from classes.txt, else from `<class>_<k>_<split>.ext`, else the label numbers."""
    path = root / "classes.txt"
    if path.is_file():
        names = [name for _, name in _lines(path, notes)]
        if len(names) != num_classes:
            notes.problems.append(
                f"{path} has {len(names)} class names, but there are {num_classes} classes."
            )
        for name in sorted({name for name in names if names.count(name) > 1}):
            notes.problems.append(f"{path}: the class name {name!r} is given more than once.")
        return tuple(names)
    if notes.problems:  # a mistyped label may have made num_classes huge
        return ()
    found: dict[int, str] = {}
    for example in examples:
        match = re.fullmatch(r"(.+)_[^_]+_(?:train|test|val)", pathlib.PurePath(example.name).stem)
        if match is None or found.setdefault(example.label, match[1]) != match[1]:
            break
    else:
        if len(set(found.values())) == num_classes:
            return tuple(found[label] for label in range(num_classes))
    return tuple(str(label) for label in range(1, num_classes + 1))


def _read_ufg(root: pathlib.Path, num_classes: int | None, notes: _Notes) -> _Found:
    """anno/{train,test}.txt with lines `<file> <label from 1>`, images/, perhaps classes.txt."""
    present = None
    if (root / "images").is_dir():
        present = set(_files(str(root / "images")))
    else:
        notes.problems.append(f"{root / 'images'} is missing: the annotated files belong there.")
    train, test = (
        _read_annotation(root / "anno" / f"{split}.txt", present, num_classes, notes)
        for split in ("train", "test")
    )
    known = {example.name for example in train}
    shared = list(dict.fromkeys(example.name for example in test if example.name in known))
    if shared:
        notes.warnings.append(
            f"{root / 'anno'}: {len(shared)} file(s) are listed both for training and for testing "
            f"({_sample(shared)})."
        )
    largest = max((example.label + 1 for example in train + test), default=0)
    num_classes = num_classes or largest
    if train:
        labels = {example.label + 1 for example in train}
        notes.problems.extend(
            f"{root / 'anno' / 'train.txt'}: {gap} no training image."
            for gap in _gaps(labels, num_classes)
        )
    return _Found(_names_of_classes(root, train + test, num_classes, notes), train, test)


def _read_class_folders(root: pathlib.Path, split: str, notes: _Notes) -> dict[str, list[str]]:
    """Class name -> sorted image paths, relative to `root`."""
    classes: dict[str, list[str]] = {}
    loose: list[str] = []
    others: list[str] = []
    with os.scandir(root / split) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if not entry.is_dir():
                if _is_image(entry.name):
                    loose.append(entry.name)
                continue
            files = sorted(_files(entry.path, f"{split}/{entry.name}/", hidden=False))
            classes[entry.name] = [file for file in files if _is_image(file)]
            others += [file for file in files if not _is_image(file)]
    if not classes:
        notes.problems.append(f"{root / split} holds no class folder.")
    for name in sorted(name for name, inside in classes.items() if not inside):
        notes.problems.append(
            f"{root / split / name} holds no image; add some or remove the folder "
            f"(read are {' '.join(EXTENSIONS)})."
        )
    if loose:
        notes.warnings.append(
            f"{root / split}: {len(loose)} image(s) lie in no class folder and are not read "
            f"({_sample(sorted(loose))})."
        )
    if others:
        notes.warnings.append(
            f"{root / split}: {len(others)} file(s) have no ending that is read "
            f"({_sample(sorted(others))}); read are {' '.join(EXTENSIONS)}."
        )
    return dict(sorted(classes.items()))


def _read_folders(root: pathlib.Path, num_classes: int | None, notes: _Notes) -> _Found:
    """train/<class>/** and test/<class>/** (or val/<class>/**)."""
    if not (root / "train").is_dir():
        notes.problems.append(f"{root / 'train'} is missing.")
        return _Found((), [], [])
    tests = [split for split in ("test", "val") if (root / split).is_dir()]
    if len(tests) == 2:
        notes.warnings.append(f"{root / 'val'} is not read, because {root / 'test'} exists too.")
    train = _read_class_folders(root, "train", notes)
    test: dict[str, list[str]] = {}
    if tests:
        test = _read_class_folders(root, tests[0], notes)
    else:
        notes.problems.append(f"{root / 'test'} is missing, and so is {root / 'val'}.")
    labels = {name: label for label, name in enumerate(train)}
    for name in sorted(test.keys() - labels.keys()):
        notes.problems.append(f"{root / tests[0] / name}: there is no class {name!r} in train/.")
    if num_classes is not None and num_classes != len(train):
        notes.problems.append(
            f"{root / 'train'} has {len(train)} class folders, but num_classes = {num_classes}."
        )

    def examples(classes: dict[str, list[str]]) -> list[Example]:
        pairs = [(file, labels.get(name, -1)) for name, files in classes.items() for file in files]
        return [Example(root / file, label, i, file) for i, (file, label) in enumerate(pairs)]

    return _Found(tuple(train), examples(train), examples(test))


class _Layout(NamedTuple):
    looks_for: str
    fits: Callable[[pathlib.Path], bool]
    read: Callable[[pathlib.Path, int | None, _Notes], _Found]


def _has_annotation(root: pathlib.Path) -> bool:
    return any((root / "anno" / f"{split}.txt").is_file() for split in ("train", "test"))


_LAYOUTS = {
    "ufg": _Layout("anno/train.txt and anno/test.txt", _has_annotation, _read_ufg),
    "folders": _Layout(
        "train/<class>/ and test/<class>/ (or val/<class>/)",
        lambda root: (root / "train").is_dir(),
        _read_folders,
    ),
}


_EXPECTED = "; ".join(f"{name}: {layout.looks_for}" for name, layout in _LAYOUTS.items())


def _choose(root: pathlib.Path, layout: str) -> str:
    if layout != "auto":
        if layout not in _LAYOUTS:
            raise DataError([f"Layout {layout!r} is none of auto, {', '.join(_LAYOUTS)}."])
        return layout
    fitting = [name for name, candidate in _LAYOUTS.items() if candidate.fits(root)]
    if not fitting:
        raise DataError([f"{root} has no known layout; looked for {_EXPECTED}."])
    if len(fitting) > 1:
        raise DataError(
            [f"{root} fits the layouts {' and '.join(fitting)}; set data.layout to one of them."]
        )
    return fitting[0]


def load(
    root: str | os.PathLike[str], *, layout: str = "auto", num_classes: int | None = None
) -> Dataset:
    """Finds the examples of a data set; no image is opened.

    Args:
      root: folder of the data set.
      layout: 'ufg' (the official UFG sets: `anno/{train,test}.txt` with lines `<file> <label>`,
        labels from 1, `images/`, and perhaps `classes.txt` with a class name a line), 'folders'
        (`train/<class>/**`, and `test` or `val` alike), or 'auto' to find out.
      num_classes: number of classes; by default the largest label, or the folders of `train`.

    Returns:
      The data set. Examples keep the order of the annotation, or that of the sorted folders.

    Raises:
      DataError: with a sentence for each thing that is missing, unreadable or contradictory.
    """
    root = pathlib.Path(root)
    if not root.is_dir():
        raise DataError([f"{root} is not a folder; give the folder with {_EXPECTED}."])
    chosen = _choose(root, layout)
    notes = _Notes([], [])
    found = _Found((), [], [])
    try:
        found = _LAYOUTS[chosen].read(root, num_classes, notes)
    except OSError as error:
        notes.problems.append(f"{error.filename} cannot be read: {error.strerror}.")
    if notes.problems:
        raise DataError(notes.problems)
    return Dataset(
        layout=chosen,
        recognised_by=_LAYOUTS[chosen].looks_for,
        class_names=found.class_names,
        train=tuple(found.train),
        test=tuple(found.test),
        warnings=tuple(notes.warnings),
    )
