"""The rows of CSV tables, with the file that each one names."""

import pathlib
from collections.abc import Sequence

from clevit_jax.data.layouts.csv import csv_columns, csv_form
from clevit_jax.data.layouts.csv.csv_cells import Label, RowProblems, labels_of, splits_of
from clevit_jax.data.layouts.csv.csv_columns import CsvColumns
from clevit_jax.data.layouts.csv.csv_form import Table
from clevit_jax.data.layouts.csv.made_rows import Read, made_rows, named_files
from clevit_jax.data.layouts.csv.split_columns import SplitColumns
from clevit_jax.data.layouts.listing import BLANKS, Notes, Request, first_three
from clevit_jax.data.layouts.split_codes import NONE
from clevit_jax.data.layouts.table_files import Repair, TableFiles, Wanted


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
        self.is_asked = self.is_asked or columns.is_asked
        if not csv_columns.is_usable(
            path, whole, columns, self._request, self._notes, alone=self._alone
        ):
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
        return made_rows(whole, columns, splits, labels, files, self._root, problems, self._notes)

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
        names = named_files(whole, columns.file, labels, problems, self._notes)
        files = list[str]()
        missing = dict[int, tuple[Wanted, str]]()  # position -> what is wanted, what is wrong
        for at, name in enumerate(names):
            if not name:
                files.append("")
                continue
            own = splits[at] or split
            file, problem = self._find(name, own)
            if problem:
                missing[at] = (Wanted(name, own, labels[at].text), problem)
                file = ""
            files.append(file)
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
