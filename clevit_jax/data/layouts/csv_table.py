"""CSV tables with a header: `train.csv` and perhaps `test.csv` and `val.csv`, or a single table."""

import csv
import io
import os
import pathlib
import posixpath
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from clevit_jax.data.dataset import SPLIT_WORDS
from clevit_jax.data.layouts import table
from clevit_jax.data.layouts.columns import (
    Columns,
    choose_columns,
    missing_column,
    quoted_names,
    split_of,
)
from clevit_jax.data.layouts.listing import (
    BLANKS,
    Contents,
    Notes,
    Request,
    files_below,
    find_file,
    first_three,
    is_image,
    points_out,
    read_text,
)

LOOKS_FOR = "train.csv, perhaps with test.csv and val.csv, or one *.csv of files and labels"
_ENDINGS = (".csv", ".tsv")
_DELIMITERS = ",;\t"
_BITS = {"0": 0, "0.0": 0, "1": 1, "1.0": 1}
_PEEK = 1 << 16  # bytes, enough for a header and a row


class _Head(NamedTuple):
    """The form of a table, as its header and first row tell.

    Attributes:
        header: names of the columns; empty where there is no header.
        first: fields of the first row; empty where there is no row.
        one_hot: positions of the columns that are a class each, where there is no column of labels.
        problems: sentences on the choice of columns.
    """

    delimiter: str
    header: list[str]
    first: list[str]
    columns: Columns
    one_hot: list[int]
    problems: list[str]

    @property
    def labelled(self) -> bool:
        return self.columns.label is not None or bool(self.one_hot)


def fits(root: pathlib.Path, request: Request) -> str | None:
    """What the layout is recognised by, or None. Only the beginning of each table is read."""
    sure, tables = _tables(root, request)
    names = " and ".join(path.name for paths in tables.values() for path in paths)
    if not sure:
        return None
    return names if "train" in tables else f"the columns of {names}"


def read(root: pathlib.Path, request: Request, notes: Notes) -> Contents:
    """Reads the tables in `root`.

    A table is UTF-8 text with a header, and commas, semicolons or tabs between its fields. Read are
    train.csv, test.csv and val.csv (or validation.tsv and the like), else the only table with files
    and labels. A column `split` parts the rows of a table that is alone. Labels are a column, or a
    column of 0 and 1 for each class, as in Plant Pathology 2020. A test.csv without labels is left
    out.

    Files are relative to `root`, or to images/, <split>/, <split>_images/ or images/<split>/ in it,
    the first that has them. The split is that of the table or row, and train if neither tells.
    The ending may be left out where only one image has the name.
    """
    tables = _tables(root, request)[1]
    if not any(tables.values()):
        notes.problems.append(f"{root} holds no table; looked for {LOOKS_FOR}.")
    for split, paths in tables.items():
        if len(paths) > 1:
            what = f"the table of the {split} split" if split else "the table"
            mend = "keep one" if split else "keep one, or name them train.csv, val.csv and test.csv"
            names = quoted_names(path.name for path in paths)
            notes.problems.append(f"{root}: {names} may all be {what}; {mend}.")
    if notes.problems:
        return Contents((), {"train": []})
    chosen = {split: paths[0] for split, paths in tables.items()}
    if "test" in chosen:
        head = _peek(chosen["test"], request)
        if head.columns.file is not None and not head.labelled:
            path = chosen.pop("test")
            notes.warnings.append(f"{path} has no column of labels and is not read.")
    reader = _CsvReader(root, request, notes, alone=len(chosen) == 1)
    rows = [row for split, path in chosen.items() for row in reader.rows(path, split or "train")]
    if not rows and notes.problems:
        return Contents((), {"train": []})
    return table.to_contents(rows, str(root), notes)


def table_files(root: pathlib.Path) -> list[str]:
    """Names of the tables in `root`, whatever they hold."""
    with os.scandir(root) as entries:
        return sorted(
            entry.name
            for entry in entries
            if entry.name.lower().endswith(_ENDINGS)
            and not entry.name.startswith(".")
            and entry.is_file()
        )


def _tables(root: pathlib.Path, request: Request) -> tuple[bool, dict[str, list[pathlib.Path]]]:
    """Whether the layout fits, and the tables by split; "" is that of a single table."""
    there = [root / name for name in table_files(root)]
    splits: dict[str, list[pathlib.Path]] = {}
    for split in SPLIT_WORDS:
        if paths := [path for path in there if split_of(path.stem) == split]:
            splits[split] = paths
    train = splits.get("train", [])
    fitting = [path for path in there if _is_of_images(_peek(path, request), root)]
    if any(path in fitting for path in train):
        return True, splits
    if fitting:
        return True, {"": fitting}
    return False, splits if train else {"": there}


def _is_of_images(head: _Head, root: pathlib.Path) -> bool:
    """Whether a table has files and labels, and the file of its first row may be an image."""
    column = head.columns.file
    if column is None or not head.labelled:
        return False
    name = head.first[column] if column < len(head.first) else ""
    if posixpath.splitext(name.strip())[1]:
        return is_image(name.strip())
    return any(map(is_image, files_below(str(root), hidden=False)))


def _peek(path: pathlib.Path, request: Request) -> _Head:
    with path.open("rb") as file:
        return _head(file.read(_PEEK).decode("utf-8-sig", "replace"), request)


def _head(text: str, request: Request) -> _Head:
    """The head by the delimiter that gives most of what is needed; of equals, most columns."""
    heads = [_head_by(text, delimiter, request) for delimiter in _DELIMITERS]
    return max(
        heads,
        key=lambda head: ((head.columns.file is not None) + head.labelled, len(head.header)),
    )


def _head_by(text: str, delimiter: str, request: Request) -> _Head:
    records = _records(text, delimiter)
    (_, header), (_, first) = next(records, (0, "")), next(records, (0, ""))
    if isinstance(header, str):
        header = []
    if isinstance(first, str):
        first = []
    columns, problems = choose_columns(header, request)
    one_hot: list[int] = []
    if columns.label is None and not request.label_column and len(first) == len(header):
        rest = [i for i, name in enumerate(header) if name.strip()]
        rest = [i for i in rest if i not in (columns.file, columns.split)]
        if len(rest) > 1 and all(first[i].strip(BLANKS) in _BITS for i in rest):
            one_hot = rest
    classes = [header[i].strip() for i in one_hot]
    problems += [
        f"the column {name!r} is there more than once; rename or remove one."
        for name in sorted({name for name in classes if classes.count(name) > 1})
    ]
    return _Head(delimiter, header, first, columns, one_hot, problems)


def _records(text: str, delimiter: str) -> Iterator[tuple[int, list[str] | str]]:
    """For each record that is not blank: the line it begins on, and its fields or what is wrong."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    while True:
        line = reader.line_num + 1
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield line, f'it is not CSV ({error}); quote fields as "a" and quotes in them as "".'
            if "limit" in str(error):  # the next record would start within this one's field
                return
            continue
        if any(field.strip() for field in fields):
            yield line, fields


class _Files:
    """The files of a data set, looked up by what tables call them."""

    def __init__(self, root: pathlib.Path):
        present = sorted(files_below(str(root)))
        self._called = {file: [file] for file in present}  # name -> files it may mean
        for file in present:
            stem = posixpath.splitext(file)[0]
            # `a.png` does not mean `a.png.jpg`, and `a` only means `a.jpg` if there is no `a`.
            if is_image(file) and not is_image(stem) and self._called.get(stem) != [stem]:
                self._called.setdefault(stem, []).append(file)

    def find(self, name: str, split: str) -> tuple[str, str | None]:
        """The file, relative to the root, and what is wrong with it."""
        if points_out(name):
            return find_file(name, (), "the data set's folder")
        folders = ("", "images/", f"{split}/", f"{split}_images/", f"images/{split}/")
        tries = [folder + name for folder in folders]
        known = next((each for each in tries if each in self._called), None)
        if known is None:
            candidates = (find_file(each, self._called) for each in tries)
            known = next((file for file, problem in candidates if problem is None), None)
        if known is None:
            places = f"the data set's folder, {', '.join(folders[1:-1])} or {folders[-1]}"
            return find_file(name, (), places)
        file, *others = self._called[known]
        if others:
            both = quoted_names([file, *others])
            return file, f"the file {name!r} may be any of {both}; write its ending."
        return file, None


class _CsvReader:
    """Reader of tables; `rows` is called for the training table first."""

    def __init__(self, root: pathlib.Path, request: Request, notes: Notes, *, alone: bool):
        self._root = root
        self._request = request
        self._notes = notes
        self._alone = alone
        self._files = _Files(root)
        self._one_hot: dict[str, int] = {}  # class -> label, in the order of the first header

    def rows(self, path: pathlib.Path, split: str) -> Iterator[table.TableRow]:
        """The rows of a table of which enough is right; the notes get what is wrong."""
        problems = self._notes.problems
        text = read_text(path, self._notes)
        if text is None:
            return
        head = _head(text, self._request)
        records = _records(text, head.delimiter)
        line, header = next(records, (1, "it has no header; expected one, and a row per image."))
        if isinstance(header, str):
            problems.append(f"{path}, line {line}: {header}")
            return
        problems.extend(f"{path}: {problem}" for problem in head.problems)
        if head.columns.file is None and not self._request.file_column:
            problems.append(f"{path}: {missing_column('file', header)}")
        if not head.labelled and not self._request.label_column:
            problems.append(f"{path}: {missing_column('label', header)}")
        if head.columns.file is None or not head.labelled:
            return
        for i in head.one_hot:
            self._one_hot.setdefault(header[i].strip(), len(self._one_hot))
        empty = True
        for line, fields in records:
            empty = False
            row, wrong = self._row(head, fields, f"{path}, line {line}", split)
            problems.extend(f"{path}, line {line}: {problem}" for problem in wrong)
            if row is not None:
                yield row
        if empty:
            problems.append(f"{path} lists no image.")

    def _row(
        self, head: _Head, fields: list[str] | str, where: str, split: str
    ) -> tuple[table.TableRow | None, list[str]]:
        """A row, None if it must be left out, and what is wrong with it."""
        if isinstance(fields, str):
            return None, [fields]
        if len(fields) != len(head.header):
            return None, [
                f"{len(fields)} field(s), but the header has {len(head.header)}; quote fields in "
                f"which there is a {head.delimiter!r}."
            ]
        if any("\0" in field for field in fields):
            return None, ["there is a NUL character; save the file as UTF-8 text."]
        assert head.columns.file is not None
        row_split, wrong = self._split(head, fields, split)
        label, class_name, bad_label = self._label(head, fields)
        name = fields[head.columns.file]
        if name.strip():
            file, bad_file = self._file(name, row_split or split)
        else:
            file, bad_file = "", "the file is empty."
        wrong += [problem for problem in (*bad_label, bad_file) if problem]
        if not label or row_split is None or not file or points_out(file):
            return None, wrong
        return table.TableRow(where, row_split, label, class_name, self._root / file, file), wrong

    def _file(self, name: str, split: str) -> tuple[str, str | None]:
        """Blanks around a name may belong to it, or have been set for looks."""
        file, problem = self._files.find(name, split)
        if problem and name.strip(BLANKS) != name:
            return self._files.find(name.strip(BLANKS), split)
        return file, problem

    def _split(
        self, head: _Head, fields: Sequence[str], split: str
    ) -> tuple[str | None, list[str]]:
        if head.columns.split is None:
            return split, []
        text = fields[head.columns.split]
        told = split_of(text)
        if told is None:
            return None, [f"the split {text!r} is not train, val or test."]
        if told != split and not self._alone:
            return None, [f"the split is {text!r} in the table of the {split} split; move the row."]
        return told, []

    def _label(self, head: _Head, fields: Sequence[str]) -> tuple[str, str, list[str]]:
        """The label, the class name that goes with it, and what is wrong; "" for none."""
        if head.columns.label is not None:
            label, name = fields[head.columns.label].strip(BLANKS), ""
            wrong = [] if label.strip() else ["the label is empty."]
            if head.columns.class_name is not None:
                name = fields[head.columns.class_name].strip(BLANKS)
                wrong += [] if name.strip() else ["the class name is empty."]
            return label, name, wrong
        classes = [head.header[i].strip() for i in head.one_hot]
        bits = [_BITS.get(fields[i].strip(BLANKS)) for i in head.one_hot]
        wrong = [
            f"the column {name!r} is {fields[i]!r}, not 0 or 1."
            for name, i, bit in zip(classes, head.one_hot, bits, strict=True)
            if bit is None
        ]
        if not wrong and sum(map(bool, bits)) != 1:
            shown = first_three([repr(name) for name in classes])
            wrong = [f"{sum(map(bool, bits))} of the columns {shown} are 1; one must be."]
        if wrong:
            return "", "", wrong
        name = classes[bits.index(1)]
        return str(self._one_hot[name]), name, []
