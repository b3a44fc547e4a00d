"""The rows of CSV tables, with the file that each one names."""

import pathlib
import re
import types
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from clevit_jax.data.layouts import table
from clevit_jax.data.layouts.columns import missing_column
from clevit_jax.data.layouts.csv import csv_columns, csv_form
from clevit_jax.data.layouts.csv.csv_cells import Label, RowProblems, labels_of, splits_of
from clevit_jax.data.layouts.csv.csv_columns import CsvColumns
from clevit_jax.data.layouts.csv.csv_form import Table
from clevit_jax.data.layouts.csv.split_columns import SplitColumns, fold_of
from clevit_jax.data.layouts.listing import BLANKS, Notes, Request, first_three, points_out
from clevit_jax.data.layouts.split_codes import NONE
from clevit_jax.data.layouts.table_files import Repair, TableFiles, Wanted

_LITTER = re.compile(r"(^|[\\/])(\.DS_Store|\._[^\\/]*|Thumbs\.db|desktop\.ini)\s*$", re.IGNORECASE)
_NO_FOLDS: Mapping[str, int] = types.MappingProxyType({})


class Read(NamedTuple):
    """What a table says.

    Attributes:
        rows: of the images.
        levels: names of the coarser levels that the rows' groups are of.
        folds: file -> its fold, from 0; empty where no column tells them.
        fold_column: name of that column.
    """

    rows: list[table.TableRow]
    levels: tuple[str, ...] = ()
    folds: Mapping[str, int] = _NO_FOLDS
    fold_column: str = ""


class CsvReader:
    """Reader of tables; `read` is called for the training table first."""

    def __init__(
        self,
        root: pathlib.Path,
        request: Request,
        notes: Notes,
        *,
        alone: bool,
        by_folder: bool = False,
        by_number: bool = True,
    ):
        """Lists the files of a data set.

        Args:
            root: of the data set.
            request: settings that name columns.
            notes: get what is wrong, and what is to be said.
            alone: whether there is one table, so that its rows may be of several splits.
            by_folder: whether its name tells no split either, so that the folders of files may.
            by_number: whether 7 may mean 0007.jpg.
        """
        self._root = root
        self._request = request
        self._notes = notes
        self._alone = alone
        self._by_folder = by_folder and request.split_column.strip().lower() != NONE
        self._files = TableFiles(root, by_number=by_number)
        self.is_asked = False  # whether the user must say which column is the label
        self._one_hot: dict[str, int] = {}  # class -> label, in the order of the first header

    @property
    def images(self) -> list[str]:
        """The images of the data set, relative to its root."""
        return self._files.images

    def read(self, path: pathlib.Path, split: str) -> Read:
        """The rows of a table of which enough is right; the notes get what is wrong."""
        text = csv_form.text_of(path, self._notes)
        if text is None:
            return Read([])
        head, _ = csv_columns.head(text, self._request, self._files.any_called)
        problems = RowProblems(path)
        if not head.header:
            self._notes.problems.append(
                f"{path}, line 1: it has no header; expected one, and a row per image."
            )
            return Read([])
        whole, uneven = csv_form.whole(path, text, head, self._notes)
        columns = csv_columns.choose(whole, self._request, self._files.any_called)
        if not self._is_usable(path, whole, columns):
            return Read([])
        problems.extend(uneven)
        for i in columns.one_hot:
            self._one_hot.setdefault(whole.header[i].strip(), len(self._one_hot))
        if not whole.rows and not uneven:
            self._notes.problems.append(f"{path} lists no image.")
        splits: Sequence[str | None] = splits_of(
            whole, columns.split, split, problems, alone=self._alone
        )
        labels = labels_of(path, whole, columns, splits, self._one_hot, problems, self._notes)
        files = self._places(path, whole, columns, splits, labels, split, problems)
        self._notes.problems.extend(problems.in_order())
        if self._by_folder and columns.split == SplitColumns():
            splits = self._splits_by_folder(path, splits, files)
        return self._made(path, whole, columns, splits, labels, files)

    def _splits_by_folder(
        self, path: pathlib.Path, splits: Sequence[str | None], files: Sequence[str]
    ) -> list[str | None]:
        """The splits of rows of which no column tells any: those of the folders of their files."""
        told = self._files.splits_of(dict.fromkeys(file for file in files if file))
        if not told:
            return list(splits)
        self._notes.warnings.append(
            f"{path}: the split of each image is that of its folder, as of "
            f"{first_three(list(told))}; data.split_column={NONE} has it drawn instead."
        )
        return [told.get(file, split) for file, split in zip(files, splits, strict=True)]

    def _is_usable(self, path: pathlib.Path, whole: Table, columns: CsvColumns) -> bool:
        """Whether there are files and labels; says what was told by values, and what is wrong."""
        problems = self._notes.problems
        problems.extend(f"{path}: {problem}" for problem in columns.problems)
        if self._alone and columns.split.doubt:
            problems.append(f"{path}: {columns.split.doubt}")
        if columns.file is None and not self._request.file_column:
            problems.append(f"{path}: {missing_column('file', whole.header)}")
        is_asked = any("hold the label" in problem for problem in columns.problems)
        if not columns.labelled and not self._request.label_column and not is_asked:
            shares = csv_columns.shares(whole, columns)
            problems.append(
                f"{path}: the columns {first_three([repr(name) for name in shares])} hold shares "
                "that make 1 in each row, and one class is learned for each image here: write 1 "
                "for it and 0 for the others."
                if shares
                else f"{path}: {missing_column('label', whole.header)}"
            )
        self._notes.warnings.extend(f"{path}: {sentence}" for sentence in columns.said)
        self.is_asked = self.is_asked or is_asked
        return columns.file is not None and columns.labelled and not is_asked

    def _places(
        self,
        path: pathlib.Path,
        whole: Table,
        columns: CsvColumns,
        splits: Sequence[str | None],
        labels: Sequence[Label],
        split: str,
        problems: RowProblems,
    ) -> list[str]:
        """The file of each row, relative to the root; "" where there is none."""
        assert columns.file is not None
        files = list[str]()
        missing = dict[int, tuple[Wanted, str]]()  # position -> what is wanted, what is wrong
        litter = list[str]()
        for at, row in enumerate(whole.rows):
            name = row[columns.file]
            if labels[at].is_left_out:
                files.append("")
                continue
            if not name.strip():
                problems.add(whole.lines[at], "the file is empty.", "{n} rows have no file")
                files.append("")
                continue
            if _LITTER.search(name):
                litter.append(name)
                files.append("")
                continue
            own = splits[at] or split
            file, problem = self._find(name, own)
            if problem:
                missing[at] = (Wanted(name, own, labels[at].text), problem)
                file = ""
            files.append(file)
        if litter:
            self._notes.warnings.append(
                f"{path}: {len(litter):,} row(s) are of files that a system leaves behind, and are "
                f"passed over ({first_three([repr(name) for name in litter])})."
            )
        if missing:
            wanted = list(dict.fromkeys(each for each, _ in missing.values()))
            repair = self._files.repair(wanted, set(files) - {""})
            found = self._say_repair(path, repair, len(wanted), problems)
            for at, (each, problem) in missing.items():
                if each in found:
                    files[at] = found[each]
                elif repair is None or repair.is_taken:
                    several = self._files.alike(each.name) if " is not in " in problem else []
                    if several:
                        both = first_three([repr(file) for file in several])
                        problem = f"the file {each.name!r} may be any of {both}; write its folder."
                    problems.add(whole.lines[at], problem, self._rule(problem), repr(each.name))
        return files

    def _find(self, name: str, split: str) -> tuple[str, str | None]:
        """Blanks around a name may belong to it, or have been set for looks."""
        file, problem = self._files.find(name, split)
        if problem and name.strip(BLANKS) != name:
            return self._files.find(name.strip(BLANKS), split)
        return file, problem

    def _say_repair(
        self, path: pathlib.Path, repair: Repair | None, count: int, problems: RowProblems
    ) -> dict[Wanted, str]:
        """What a rule found; a warning where it is taken, and one problem where it is not."""
        if repair is None:
            return {}
        if repair.is_taken:
            self._notes.warnings.append(
                f"{path}: {len(repair.found):,} file(s) are not where it says, and are read "
                f"{repair.said}."
            )
            return repair.found
        problems.say(
            f"{count:,} file(s) are not where it says; {len(repair.found):,} of them may "
            f"be those {repair.said}. Write where they are, if so, or move them."
        )
        return {}

    def _rule(self, problem: str) -> str:
        """What to say of many files with one kind of problem."""
        if "points out of" in problem:
            return (
                "{n} files are named by paths that point out of the data set's folder, and none of "
                f"their names is in it; name them relative to {self._root}"
            )
        if problem.endswith("write its folder."):
            return "{n} files are named without their folder, and several have the name"
        if "may be any of" in problem:
            return "{n} files are named without their ending, and several have the name"
        return f"{{n}} files are not in {self._root}, or a folder in it such as images/ or train/"

    def _made(
        self,
        path: pathlib.Path,
        whole: Table,
        columns: CsvColumns,
        splits: Sequence[str | None],
        labels: Sequence[Label],
        files: Sequence[str],
    ) -> Read:
        """The rows that have all that is needed."""
        levels = columns.label.levels
        groups = list(zip(*([row[i].strip() for row in whole.rows] for i in levels), strict=True))
        rows, kept = list[table.TableRow](), list[int]()
        for at, (line, split, label, file) in enumerate(
            zip(whole.lines, splits, labels, files, strict=True)
        ):
            if not label.text or split is None or not file or points_out(file):
                continue
            where = f"{path}, line {line}"
            inside = groups[at] if groups else ()
            rows.append(
                table.TableRow(
                    where, split, label.text, label.class_name, self._root / file, file, inside
                )
            )
            kept.append(at)
        fold = columns.split.fold
        numbers = {text: k for k, text in enumerate(columns.split.folds)}
        folds = dict[str, int]()
        if fold is not None:
            folds = {files[at]: numbers[fold_of(whole.rows[at][fold])] for at in kept}
        if columns.boxes:
            rows = self._one_each(path, rows)
        names = tuple(whole.header[i].strip() for i in levels)
        return Read(rows, names, folds, "" if fold is None else whole.header[fold].strip())

    def _one_each(self, path: pathlib.Path, rows: list[table.TableRow]) -> list[table.TableRow]:
        """Rows of boxes, without those that say the same of an image as one before."""
        labels: dict[str, set[str]] = {}
        for row in rows:
            labels.setdefault(row.name, set()).add(row.label)
        mixed = {name: inside for name, inside in labels.items() if len(inside) > 1}
        if mixed:
            name, inside = next(iter(mixed.items()))
            kinds = " and ".join(map(repr, sorted(inside)[:2]))
            self._notes.problems.append(
                f"{path}: {len(mixed):,} of {len(labels):,} images have boxes of several classes "
                f"({name!r}: {kinds}), and one class is learned for each image here: cut the boxes "
                "out into images of their own, or remove the other rows."
            )
            rows = [row for row in rows if row.name not in mixed]
        once = list({(row.name, row.split, row.label): row for row in reversed(rows)}.values())
        if len(once) < len(rows):
            self._notes.warnings.append(
                f"{path}: its {len(rows):,} rows are boxes in {len(once):,} images; each image "
                "counts once, whole."
            )
        return once[::-1]
