"""MATLAB's labels of Stanford Dogs, Stanford Cars and Flowers-102, as they are published."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from clevit_jax.data.layouts import table
from clevit_jax.data.layouts.listing import Contents, Notes, Request, in_order
from clevit_jax.data.layouts.text import mat_files
from clevit_jax.data.layouts.text.list_files import ListedFiles
from clevit_jax.data.layouts.text.list_folders import class_folders, folder_names
from clevit_jax.errors import Repeated

LOOKS_FOR = "*.mat of labels, as in Stanford Cars, Flowers-102 and Stanford Dogs"
_FOLDERS = ("", "lists", "devkit", "car_devkit/devkit", "car_devkit", "annotations", "labels")
_DOGS = {"train": "train_list.mat", "test": "test_list.mat"}
_FLOWERS = {"labels": "imagelabels.mat", "splits": "setid.mat"}
_SET_IDS = {"train": "trnid", "val": "valid", "test": "tstid"}
_CARS = {
    "train": "cars_train_annos.mat",
    "labelled test": "cars_test_annos_withlabels.mat",
    "test": "cars_test_annos.mat",
    "all": "cars_annos.mat",
    "names": "cars_meta.mat",
}


class _Listed(NamedTuple):
    """Files of one split, as a MATLAB file lists them.

    Attributes:
        path: of the MATLAB file.
        split: of the files.
        files, labels: None for what cannot be read.
        rows: of each in the file, from 1; () where they are all of it.
    """

    path: pathlib.Path
    split: str
    files: list[str | None]
    labels: list[int | None]
    rows: Sequence[int] = ()


def fits(root: pathlib.Path, _: Request) -> str | None:
    """What the layout is recognised by, or None."""
    for names in (_DOGS, _FLOWERS, _CARS):
        there = _there(root, names)
        main = [what for what in ("train", "labels", "all") if what in there]
        if main:
            return " and ".join(path.relative_to(root).as_posix() for path in there.values())
    return None


def read(root: pathlib.Path, request: Request, notes: Notes) -> Contents:
    """Reads the labels of Stanford Dogs, Stanford Cars or Flowers-102, with the published splits.

    Dogs: train_list.mat and test_list.mat, in `root` or lists/. Flowers-102: imagelabels.mat and
    setid.mat, whose trnid, valid and tstid are train, val and test. Cars: cars_train_annos.mat and
    cars_test_annos_withlabels.mat, in `root` or devkit/, with the names of cars_meta.mat; or
    cars_annos.mat of all. Images are looked for in all folders.
    """
    del request
    lists, names = list[_Listed](), list[str | None]()
    if there := _there(root, _DOGS, "train"):
        lists = [_dogs(path, split, notes) for split, path in there.items()]
    elif there := _there(root, _FLOWERS, "labels"):
        lists = _flowers(there, notes)
    elif there := _there(root, _CARS, "train", "all"):
        lists, names = _cars(there, notes)
    else:
        notes.problems.append(f"{root} holds no {LOOKS_FOR}.")
    if notes.problems or not lists:
        return Contents((), {"train": []})
    files = ListedFiles(root, notes)
    rows = [row for listed in lists for row in _rows(root, listed, files, notes)]
    in_one = notes.problems and lists[0].path.name == _CARS["all"]
    if in_one and any((root / folder).is_dir() for folder in ("cars_train", "cars_test")):
        notes.problems.append(
            f"{root}: {_CARS['all']} goes with car_ims/, and not with cars_train/ and "
            f"cars_test/; for these fetch devkit/{_CARS['train']} and {_CARS['labelled test']}."
        )
    if not rows and notes.problems:
        return Contents((), {"train": []})
    path = there.get("names", there.get("all"))
    return table.to_contents(_named(path, rows, names, notes), str(root), notes)


def _there(root: pathlib.Path, names: dict[str, str], *needed: str) -> dict[str, pathlib.Path]:
    """What -> file, of the files that are there; {} if none of the needed ones is."""
    found = {}
    for what, name in names.items():
        paths = (root / folder / name for folder in _FOLDERS)
        path = next((path for path in paths if path.is_file()), None)
        if path is not None:
            found[what] = path
    return found if not needed or any(what in found for what in needed) else {}


def _dogs(path: pathlib.Path, split: str, notes: Notes) -> _Listed:
    found = _load(path, ["file_list", "labels"], notes)
    if not found:
        return _Listed(path, split, [], [])
    return _listed(path, split, found["file_list"], found["labels"], notes)


def _flowers(there: dict[str, pathlib.Path], notes: Notes) -> list[_Listed]:
    """Flowers-102: the label of image k is the kth, and three lists of k are the splits."""
    path = there["labels"]
    found = _load(path, ["labels"], notes)
    if not found:
        return []
    labels = mat_files.numbers(found["labels"])
    ids = {"train": list[int | None](range(1, len(labels) + 1))}
    if "splits" in there:
        path = there["splits"]
        sets = _load(path, list(_SET_IDS.values()), notes)
        ids = {split: mat_files.numbers(sets[name]) for split, name in _SET_IDS.items() if sets}
    bad = [k for inside in ids.values() for k in inside if k is None or not 0 < k <= len(labels)]
    if bad:
        notes.problems.append(
            f"{path}: {len(bad):,} numbers of images are not from 1 to {len(labels):,}, that of "
            f"the labels, as {bad[0]}; fetch both files again."
        )
        return []
    known = {split: [k for k in inside if k is not None] for split, inside in ids.items()}
    return [
        _Listed(path, split, [f"image_{k:05}.jpg" for k in inside], [labels[k - 1] for k in inside])
        for split, inside in known.items()
    ]


def _cars(there: dict[str, pathlib.Path], notes: Notes) -> tuple[list[_Listed], list[str | None]]:
    """Stanford Cars, and the names of its classes."""
    if "train" not in there:
        return _cars_in_one(there["all"], notes)
    parts = list[_Listed]()
    for what in ("train", "labelled test", "test"):
        if what not in there or (what == "test" and "labelled test" in there):
            continue
        path = there[what]
        columns = _fields(_load(path, ["annotations"], notes))
        if what == "test" and "fname" in columns and "class" not in columns:
            count = len(mat_files.texts(columns["fname"]))
            notes.warnings.append(
                f"{path} has no labels, and its {count:,} images are left out; "
                f"{_CARS['labelled test']} has them."
            )
        elif _has(path, columns, ("fname", "class"), notes):
            split = "train" if what == "train" else "test"
            parts.append(_listed(path, split, columns["fname"], columns["class"], notes))
    names = []
    if "names" in there:
        names = mat_files.texts(_load(there["names"], ["class_names"], notes).get("class_names"))
    return parts, names


def _cars_in_one(path: pathlib.Path, notes: Notes) -> tuple[list[_Listed], list[str | None]]:
    """Stanford Cars of the older cars_annos.mat."""
    found = _load(path, ["annotations", "class_names"], notes)
    columns = _fields(found)
    if not _has(path, columns, ("relative_im_path", "class", "test"), notes):
        return [], []
    listed = _listed(path, "", columns["relative_im_path"], columns["class"], notes)
    tests = mat_files.numbers(columns["test"])
    parts = list[_Listed]()
    for split, bit in (("train", 0), ("test", 1)):
        rows = [row for row, test in enumerate(tests) if test == bit and row < len(listed.files)]
        files = [listed.files[row] for row in rows]
        labels = [listed.labels[row] for row in rows]
        if rows:
            parts.append(_Listed(path, split, files, labels, [row + 1 for row in rows]))
    return parts, mat_files.texts(found["class_names"])


def _fields(found: Mapping[str, Any]) -> dict[str, Any]:
    """Field -> values, of the structs `annotations`; {} if there are none."""
    value = found.get("annotations")
    return value if isinstance(value, dict) else {}


def _load(path: pathlib.Path, names: list[str], notes: Notes) -> dict[str, Any]:
    """Variables of a file; {}, and a problem, where it lacks one."""
    before = len(notes.problems)
    found = mat_files.load(path, names, notes)
    if len(notes.problems) > before:
        return {}
    return found if _has(path, found, names, notes) else {}


def _has(path: pathlib.Path, found: Mapping[str, Any], names: Sequence[str], notes: Notes) -> bool:
    """Whether all names are there; a problem, unless there is one of this file, if they are not."""
    missing = [name for name in names if name not in found]
    if missing and not any(problem.startswith(str(path)) for problem in notes.problems):
        notes.problems.append(f"{path} holds no {' and no '.join(missing)}; fetch it again.")
    return not missing


def _listed(path: pathlib.Path, split: str, files: Any, labels: Any, notes: Notes) -> _Listed:
    """Files and labels, which must be as many."""
    listed = _Listed(path, split, mat_files.texts(files), mat_files.numbers(labels))
    if len(listed.files) != len(listed.labels):
        notes.problems.append(
            f"{path} has {len(listed.files):,} files, but {len(listed.labels):,} labels; fetch it "
            "again."
        )
        return _Listed(path, split, [], [])
    return listed


def _rows(
    root: pathlib.Path, listed: _Listed, files: ListedFiles, notes: Notes
) -> list[table.TableRow]:
    """The rows whose files are there; a problem for each of the others."""
    path = listed.path
    numbers = listed.rows or range(1, len(listed.files) + 1)
    pairs = list(zip(numbers, listed.files, listed.labels, strict=True))
    notes.problems.extend(
        Repeated(
            f"{path}, row {k}: the file or the label cannot be read; fetch the file again.",
            rule=f"{path}: {{n}} files or labels cannot be read; fetch the file again",
            item=f"row {k}",
        )
        for k, file, label in pairs
        if not file or label is None
    )
    sound = [(k, file, label) for k, file, label in pairs if file and label is not None]
    found = files.find(path, listed.split, [file for _, file, _ in sound])
    rows = list[table.TableRow]()
    for (k, written, label), file, problem in zip(sound, found.files, found.problems, strict=True):
        if problem is not None:
            notes.problems.append(
                Repeated(
                    f"{path}, row {k}: {problem}",
                    rule=f"{path}: {{n}} of {len(pairs):,} files are not there",
                    item=repr(written),
                )
            )
        if file is not None:
            where = f"{path}, row {k}"
            rows.append(table.TableRow(where, listed.split, str(label), "", root / file, file))
    return rows


def _named(
    path: pathlib.Path | None,
    rows: list[table.TableRow],
    names: Sequence[str | None],
    notes: Notes,
) -> list[table.TableRow]:
    """Rows with the names of their classes: those that are given, by number from 1, or folders'."""
    labels = [row.label for row in rows]
    if names and path is not None:
        called = {str(k): name for k, name in enumerate(names, start=1) if name}
        if missing := [label for label in in_order(labels) if label not in called]:
            notes.problems.append(
                f"{path} names {len(called):,} classes, and not that of the label {missing[0]}; "
                "fetch it again."
            )
    else:
        called = folder_names(class_folders([row.name for row in rows]), labels)
    return [row._replace(class_name=called.get(row.label, "")) for row in rows]
