"""DeepFashion's lists: a line that counts, a header, and a file with its category in each line.

Reference: http://mmlab.ie.cuhk.edu.hk/projects/DeepFashion.html, Category and Attribute Prediction.
"""

import pathlib
from typing import NamedTuple

from clevit_jax.data.layouts import table
from clevit_jax.data.layouts.listing import Contents, Notes, Request, first_three, read_lines
from clevit_jax.data.layouts.text.list_files import ListedFiles
from clevit_jax.data.split_names import split_called
from clevit_jax.errors import Repeated

LOOKS_FOR = "list_category_img.txt and list_eval_partition.txt, as in DeepFashion"
_LABELS = "list_category_img.txt"
_SPLITS = "list_eval_partition.txt"
_NAMES = "list_category_cloth.txt"
_FOLDERS = ("", "Anno_coarse", "Anno", "Eval", "Anno_fine", "anno", "eval")
_KINDS = {"1": "upper body", "2": "lower body", "3": "full body"}  # category_type


class _Line(NamedTuple):
    number: int
    fields: list[str]


def fits(root: pathlib.Path, _: Request) -> str | None:
    """What the layout is recognised by, or None."""
    paths = [path for name in (_LABELS, _SPLITS) if (path := _find(root, name)) is not None]
    if not paths or (paths[0].name == _SPLITS and "item_id" not in _header(paths[0])):
        return None
    return " and ".join(path.relative_to(root).as_posix() for path in paths)


def read(root: pathlib.Path, request: Request, notes: Notes) -> Contents:
    """Reads list_category_img.txt with the splits of list_eval_partition.txt.

    They lie in `root`, or in Anno_coarse/, Anno/ and Eval/. Classes are named by
    list_category_cloth.txt, whose category_type is a coarser level. Images are looked for in all
    folders. In-shop retrieval, whose tested items are none of those trained on, is refused.
    """
    del request
    labels, splits = _find(root, _LABELS), _find(root, _SPLITS)
    if labels is None:
        notes.problems.append(
            f"{splits or root / _SPLITS} is of DeepFashion's In-shop Clothes Retrieval: it tests "
            "on other items than it trains on, so they cannot be classes; take the images that "
            f"{_LABELS} goes with."
        )
        return Contents((), {"train": []})
    lines = _lines(labels, 2, notes)
    told: dict[str, str] = {}
    if splits is not None:
        told = {line.fields[0]: line.fields[1] for line in _lines(splits, 2, notes)}
    called = _names(root, notes)
    files = ListedFiles(root, notes).find(labels, "", [line.fields[0] for line in lines])
    rows = list[table.TableRow]()
    for line, place, problem in zip(lines, files.files, files.problems, strict=True):
        name, label = line.fields
        where = f"{labels}, line {line.number}"
        split = split_called(told.get(name, "")) if splits is not None else "train"
        if split is None:
            problem = f"{splits} does not say whether {name!r} is for train, val or test."
        if problem is not None:
            notes.problems.append(
                Repeated(
                    f"{where}: {problem}",
                    rule=f"{labels}: {{n}} files are not there, or of no split",
                    item=repr(name),
                )
            )
        if place is not None and split is not None:
            class_name, kind = called.get(label, ("", ""))
            groups = (kind,) if called else ()
            rows.append(
                table.TableRow(where, split, label, class_name, root / place, place, groups)
            )
    if not rows and notes.problems:
        return Contents((), {"train": []})
    if called and (lacking := sorted({row.label for row in rows if not row.class_name})):
        notes.problems.append(f"{_NAMES} does not name the category {first_three(lacking)}.")
    return table.to_contents(rows, str(root), notes, levels=["type"] if called else [], ids=True)


def _find(root: pathlib.Path, name: str) -> pathlib.Path | None:
    return next((p for folder in _FOLDERS if (p := root / folder / name).is_file()), None)


def _header(path: pathlib.Path) -> list[str]:
    lines = read_lines(path, Notes([], []))
    return lines[1][1].split() if len(lines) > 1 else []


def _lines(path: pathlib.Path, width: int, notes: Notes) -> list[_Line]:
    """The fields of each line but the count and the header; a problem for each of another width."""
    lines = [_Line(number, text.split()) for number, text in read_lines(path, notes)]
    if lines and len(lines[0].fields) == 1:
        lines = lines[2:]
    notes.problems.extend(
        Repeated(
            f"{path}, line {line.number}: expected {width} words, not {len(line.fields)}.",
            rule=f"{path}: {{n}} lines are not of {width} words",
            item=f"line {line.number}",
        )
        for line in lines
        if len(line.fields) != width
    )
    return [line for line in lines if len(line.fields) == width]


def _names(root: pathlib.Path, notes: Notes) -> dict[str, tuple[str, str]]:
    """Category, counted from 1 in their list -> its name, and the kind of cloth that it is."""
    path = _find(root, _NAMES)
    lines = _lines(path, 2, notes) if path is not None else []
    return {
        str(k): (line.fields[0], _KINDS.get(line.fields[1], line.fields[1]))
        for k, line in enumerate(lines, start=1)
    }
