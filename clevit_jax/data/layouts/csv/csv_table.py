"""CSV tables: `train.csv` and perhaps `test.csv` and `val.csv`, or a single table."""

import os
import pathlib
import posixpath
from typing import NamedTuple

from clevit_jax.data import no_image
from clevit_jax.data.dataset import SPLIT_WORDS
from clevit_jax.data.layouts import table
from clevit_jax.data.layouts.columns import FILES, LABELS, called, plain, quoted_names
from clevit_jax.data.layouts.csv import csv_columns, csv_form
from clevit_jax.data.layouts.csv.answers import is_form, table_stem
from clevit_jax.data.layouts.csv.csv_columns import CsvColumns
from clevit_jax.data.layouts.csv.csv_form import Table
from clevit_jax.data.layouts.csv.csv_rows import CsvReader
from clevit_jax.data.layouts.csv.made_rows import Read, joined, with_folds
from clevit_jax.data.layouts.image_names import ImageNames
from clevit_jax.data.layouts.listing import (
    Contents,
    Notes,
    Request,
    files_ending,
    is_image,
)
from clevit_jax.data.layouts.text.list_names import may_list
from clevit_jax.data.layouts.unlisted import warn_of_unlisted
from clevit_jax.data.split_names import splits_among

LOOKS_FOR = "train.csv, perhaps with test.csv and val.csv, or one *.csv of files and labels"
_ENDINGS = (".csv", ".tsv", ".csv.gz", ".tsv.gz")
# Where tables lie that are not beside the images' folders.
_FOLDERS = ("annotations", "annotation", "anno", "labels", "metadata", "meta", "csv", "data",
            "splits", "lists", "csvs", "tables", "groundtruth", "gt", "labelling")  # fmt: skip


def fits(root: pathlib.Path, request: Request) -> str | None:
    """What the layout is recognised by, or None. Only the beginning of each table is read."""
    found = _tables(root, request)
    if not found.is_sure:
        return None
    every = [path for paths in found.by_split.values() for path in paths]
    names = " and ".join(path.relative_to(root).as_posix() for path in every)
    seen = names if "train" in found.by_split else f"the columns of {names}"
    return f"{seen}, with its split column {found.split_column!r}" if found.split_column else seen


def fits_alone(root: pathlib.Path, request: Request) -> str | None:
    """What a folder that no layout fits is read by: its only table, or train.csv, of its images.

    The names of the columns may say nothing, and then their values tell, or `read` says what lacks.
    """
    images = ImageNames(root)
    heads = {
        path: csv_columns.head(csv_form.peek(path), request, images.any_called)
        for path in _paths(root)
        if not is_form(path.name) and no_image.pointer_at(path) is None
    }
    heads = {path: head for path, head in heads.items() if head[0].rows}
    told = splits_among(table_stem(path.name) for path in heads)
    train = [path for path in heads if told.get(table_stem(path.name)) == "train"]
    chosen = list(heads) if len(heads) == 1 else train
    if len(chosen) != 1 or not images.is_any():
        return None
    path = chosen[0]
    columns = heads[path][1]
    is_one = columns.file is not None or columns.labelled
    return f"the columns of {path.relative_to(root).as_posix()}" if is_one else None


def read(root: pathlib.Path, request: Request, notes: Notes) -> Contents:
    """Reads the tables in `root`.

    A table is text, of which `csv_form` tells the form. Read are train.csv, test.csv and val.csv
    (or validation.tsv and the like), else the only table with files and labels. Labels are a
    column, or a column of 0 and 1 for each class, as in Plant Pathology 2020. A table of which the
    training one is alone may say the split of its rows: `split_columns`. Test and validation tables
    without labels, and those in which a competition wants its answers, are left out.

    Files are relative to `root`, or to images/, <split>/, <split>_images/ or images/<split>/ in it,
    the first that has them. The split is that of the table or row, and train if neither tells.
    The ending may be left out where only one image has the name. What is not there is looked for
    by one rule for all (`table_files`), which is said.
    """
    found = _tables(root, request)
    tables = found.by_split
    notes.warnings.extend(found.left_out)
    if not any(tables.values()):
        notes.problems.append(f"{root} holds no table; looked for {LOOKS_FOR}.")
    for split, paths in tables.items():
        if len(paths) > 1:
            what = f"the table of the {split} split" if split else "the table"
            mend = "keep one" if split else "keep one, or name them train.csv, val.csv and test.csv"
            names = quoted_names(path.name for path in paths)
            own = splits_among(table_stem(path.name) for path in paths).values()
            wrong = f"{names} may all be {what}; {mend}."
            if not split and len(set(own)) == len(paths):
                wrong = f"{names} are of splits, but no table is of training; call one train.csv."
            notes.problems.append(f"{root}: {wrong}")
    if notes.problems:
        return Contents((), {"train": []})
    chosen = {split: paths[0] for split, paths in tables.items()}
    if found.unjoined and not request.split_column:
        names = quoted_names(path.name for path in found.unjoined)
        notes.problems.append(
            f"{next(iter(chosen.values()))} has labels, and {names} beside it files without; they "
            "are not joined: add a column 'split' to it, or set data.split_column=none to have a "
            "split drawn."
        )
        return Contents((), {"train": []})
    reader = CsvReader(
        root,
        request,
        notes,
        alone=len(chosen) == 1,
        by_folder=set(chosen) == {""},
        by_number=not found.files_elsewhere,
    )
    said = list[Read]()
    for split, path in chosen.items():
        if not reader.is_asked:  # one question is enough for all tables
            said.append(reader.read(path, split or "train"))
    rows, levels = joined(said)
    if not rows and notes.problems:
        return Contents((), {"train": []})
    contents = table.to_contents(rows, str(root), notes, levels=levels)
    warn_of_unlisted(root, reader.images, contents, notes)
    return with_folds(contents, said, notes)


def table_files(root: pathlib.Path) -> list[str]:
    """Names of the tables in `root`, whatever they hold."""
    return files_ending(root, _ENDINGS)


class _Found(NamedTuple):
    """The tables of a folder.

    Attributes:
        is_sure: whether the layout fits.
        by_split: the tables by split; "" is that of a single table.
        left_out: sentences on tables that are not read.
        split_column: the column that tells the splits of a single table; "" without one.
        unjoined: tables of a training and other splits, or with a column of splits, that have
            files and no labels, beside a single table that has these.
        files_elsewhere: whether a table without labels has files and more, as their numbers.
    """

    is_sure: bool
    by_split: dict[str, list[pathlib.Path]]
    left_out: list[str]
    split_column: str = ""
    unjoined: tuple[pathlib.Path, ...] = ()
    files_elsewhere: bool = False


def _paths(root: pathlib.Path) -> list[pathlib.Path]:
    """The tables in a folder; where it has none, those in its first folder of annotations."""
    if there := table_files(root):
        return [root / name for name in there]
    if texts := _texts(root):
        return texts
    with os.scandir(root) as entries:
        there_are = {plain(name): name for name in sorted(e.name for e in entries if e.is_dir())}
    for folder in (there_are[name] for name in _FOLDERS if name in there_are):
        if there := table_files(root / folder):
            return [root / folder / name for name in there]
    return []


def _texts(root: pathlib.Path) -> list[pathlib.Path]:
    """Tables with tabs that are called .txt and begin with names of columns, as Leafsnap's."""
    found = [root / name for name in files_ending(root, ".txt") if not may_list(name)]
    return [path for path in found if _is_table(csv_form.peek(path))]


def _is_table(text: str) -> bool:
    header = text.partition("\n")[0].strip("\r").split("\t")
    is_file = any(called(header, group) for group in FILES)
    return is_file and bool(called(header, LABELS[0]))


def _tables(root: pathlib.Path, request: Request) -> _Found:
    """Which tables are to be read."""
    images = ImageNames(root)
    heads: dict[pathlib.Path, tuple[Table, CsvColumns]] = {}
    left_out = list[str]()
    for path in _paths(root):
        head = csv_columns.head(csv_form.peek(path), request, images.any_called)
        if is_form(path.name):
            left_out.append(
                f"{path} is left out: by its name, it is the form of a competition's answers."
            )
        elif not _is_metadata(path.name, head[0]):
            heads[path] = head
    told = splits_among(table_stem(path.name) for path in heads)
    splits: dict[str, list[pathlib.Path]] = {}
    for split in SPLIT_WORDS:
        if paths := [path for path in heads if told.get(table_stem(path.name)) == split]:
            splits[split] = paths
    fitting = [path for path, head in heads.items() if _is_of_images(head, images)]
    for split, paths in list(splits.items()):
        if len(paths) > 1 and (usable := [path for path in paths if path in fitting]):
            splits[split] = paths = usable
        unlabelled = [path for path in paths if _has_no_label(heads[path][1])]
        if split != "train" and unlabelled == paths:
            del splits[split]
            left_out += [_say_unlabelled(path) for path in paths]
    train = splits.get("train", [])
    telling = tuple(path for path, head in heads.items() if _tells_splits(head))
    if any(path in fitting for path in train):
        own = _split_column(heads[train[0]]) if len(splits) == 1 else ""
        return _Found(True, splits, left_out, own, telling if len(splits) == 1 and not own else ())
    sure = [path for path in fitting if heads[path][1].label.is_sure]
    if sure:
        own = _split_column(heads[sure[0]])
        lists = [path for path in train if _has_no_label(heads[path][1])]
        lists += [path for path in heads if told.get(table_stem(path.name)) in ("val", "test")]
        unjoined = (
            tuple(lists) if lists and lists[0] in train and len(lists) > 1 and not own else ()
        )
        unjoined = unjoined or (() if own else telling)
        others = [heads[path] for path in heads if path not in sure and path not in unjoined]
        elsewhere = any(_has_no_label(head[1]) and len(head[0].header) > 1 for head in others)
        return _Found(True, {"": sure}, left_out, own, unjoined, elsewhere)
    return _Found(False, splits if train else {"": fitting or list(heads)}, left_out)


def _split_column(head: tuple[Table, CsvColumns]) -> str:
    table, columns = head[0], head[1].split
    if columns.word is not None:
        return table.header[columns.word].strip()
    return " and ".join(table.header[i].strip() for i in columns.flags)


def _is_of_images(head: tuple[Table, CsvColumns], images: ImageNames) -> bool:
    """Whether a table has files and labels, and the file of its first row may be an image."""
    rows, columns = head[0].rows, head[1]
    if columns.file is None or not columns.labelled:
        return False
    name = rows[0][columns.file].strip() if rows else ""
    return is_image(name) if posixpath.splitext(name)[1] else images.is_any()


def _tells_splits(head: tuple[Table, CsvColumns]) -> bool:
    """Whether a table tells the splits of files, and not their labels."""
    split = head[1].split
    is_told = bool(split.flags) or len(set(split.words.values())) > 1
    return _has_no_label(head[1]) and is_told


def split_tables(root: pathlib.Path, request: Request) -> list[str]:
    """The tables in a folder that tell the splits of files, and not their labels."""
    images = ImageNames(root)
    paths = [path for path in _paths(root) if not is_form(path.name)]
    heads = {
        path: csv_columns.head(csv_form.peek(path), request, images.any_called) for path in paths
    }
    return [
        path.relative_to(root).as_posix() for path, head in heads.items() if _tells_splits(head)
    ]


def _has_no_label(columns: CsvColumns) -> bool:
    is_asked = any("may all hold" in problem for problem in columns.problems)
    return columns.file is not None and not columns.labelled and not is_asked


def _say_unlabelled(path: pathlib.Path) -> str:
    return (
        f"{path} has no column of labels and is left out; images without labels are for "
        "--mode predict."
    )


def _is_metadata(name: str, head: Table) -> bool:
    """Whether a table is that of a Hugging Face image folder, which `metadata` reads."""
    columns = [column.strip() for column in head.header]
    return name.lower() == "metadata.csv" and any(c.endswith("file_name") for c in columns)
