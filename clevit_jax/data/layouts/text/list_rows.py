"""Rows of the lists that belong together, one for each split."""

import pathlib
from collections.abc import Mapping
from typing import NamedTuple

from clevit_jax.data.layouts.listing import Notes, Request, points_out, read_lines
from clevit_jax.data.layouts.text.list_files import ListedFiles
from clevit_jax.data.layouts.text.list_lines import Parsed, parse
from clevit_jax.data.layouts.text.list_names import ImageList
from clevit_jax.errors import Repeated


class Row(NamedTuple):
    """A line of a list.

    Attributes:
        where: the list and the line, for sentences.
        split: of the list.
        file: relative to the root.
        inner: relative to what the list's files are relative to.
        fields: beside the file.
    """

    where: str
    split: str
    file: str
    inner: str
    fields: tuple[str, ...]


class Family(NamedTuple):
    """Lists that belong together, as those of variants.

    Attributes:
        name: what their names say besides the split; "" for nothing.
        columns: names of the fields.
        rows: of all splits, train first.
        rows_first: whether the file stands last in a line.
        unlabelled: (list, rows without a label) of each list that has none where others do.
    """

    name: str
    columns: tuple[str, ...]
    rows: list[Row]
    rows_first: bool
    unlabelled: tuple[tuple[pathlib.Path, list[Row]], ...] = ()


def read_family(
    name: str,
    lists: Mapping[str, ImageList],
    files: ListedFiles,
    request: Request,
    notes: Notes,
) -> Family:
    """The rows of lists, one for each split; what is wrong goes to the notes."""
    family = Family(name, (), [], False)
    for split in ("train", "val", "test"):
        if split not in lists:
            continue
        path = lists[split].path
        before = len(notes.problems)
        parsed = parse(read_lines(path, notes), files.has, request.label_column)
        if parsed is not None and (labels := lists[split].labels) is not None:
            parsed = _labelled(path, parsed, labels, notes)
        if parsed is None:
            if len(notes.problems) == before:
                notes.problems.append(f"{path} lists no image.")
            continue
        if split == "train":
            family = family._replace(columns=parsed.columns, rows_first=parsed.file_last)
        elif family.columns and not parsed.columns:
            rows = _found_rows(path, split, parsed, files, Notes([], []))
            missing = len(parsed.lines) - len(rows)
            family = family._replace(unlabelled=(*family.unlabelled, (path, rows)))
            if missing:
                notes.warnings.append(
                    f"{path} has no labels, and {missing:,} of its files are not there; these are "
                    "left out."
                )
            continue
        elif len(family.columns) != len(parsed.columns) and family.rows:
            notes.problems.append(
                f"{path} has {len(parsed.columns)} columns beside the file, but the list for "
                f"training has {len(family.columns)}; write the same ones."
            )
            continue
        _say_odd(path, parsed, notes)
        family.rows.extend(_found_rows(path, split, parsed, files, notes))
    return family


def _labelled(
    path: pathlib.Path, parsed: Parsed, labels: pathlib.Path, notes: Notes
) -> Parsed | None:
    """The lines of a list with the labels of another file; None, and a problem, if they differ."""
    texts = [text for _, text in read_lines(labels, notes)]
    if len(texts) != len(parsed.lines):
        notes.problems.append(
            f"{labels} has {len(texts):,} lines, but {path} has {len(parsed.lines):,} images; "
            "write a label for each."
        )
        return None
    lines = [
        line._replace(fields=(*line.fields, text))
        for line, text in zip(parsed.lines, texts, strict=True)
    ]
    return parsed._replace(lines=lines, columns=(*parsed.columns, "label"))


def _say_odd(path: pathlib.Path, parsed: Parsed, notes: Notes) -> None:
    """A problem for each line that is not as most are."""
    usual = f"a file and {len(parsed.columns)} more" if parsed.columns else "a file alone"
    notes.problems.extend(
        Repeated(
            f"{path}, line {number}: expected {usual}, as most lines have, not {text[:80]!r}.",
            rule=f"{path}: {{n}} lines are not as the others, {usual}",
            item=f"line {number}",
        )
        for number, text in parsed.odd
    )


def _found_rows(
    path: pathlib.Path, split: str, parsed: Parsed, files: ListedFiles, notes: Notes
) -> list[Row]:
    """The rows whose files are there; a problem for each of the others."""
    rows = list[Row]()
    found = files.find(path, split, [line.file for line in parsed.lines])
    for line, file, problem in zip(parsed.lines, found.files, found.problems, strict=True):
        where = f"{path}, line {line.number}"
        if problem is not None:
            notes.problems.append(
                Repeated(
                    f"{where}: {problem}",
                    rule=f"{path}: {{n}} of {len(parsed.lines):,} files are not there",
                    item=repr(line.file),
                )
            )
        if file is not None and not points_out(file):
            rows.append(Row(where, split, file, file.removeprefix(found.base), line.fields))
    return rows
