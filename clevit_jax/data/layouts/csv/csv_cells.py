"""What the cells of a CSV table say of each row: its split, its label and its class name."""

import pathlib
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from clevit_jax.data.layouts.columns import as_setting
from clevit_jax.data.layouts.csv.csv_columns import CsvColumns, bit
from clevit_jax.data.layouts.csv.csv_form import Table
from clevit_jax.data.layouts.csv.split_columns import SplitColumns, split_by_flags
from clevit_jax.data.layouts.listing import Notes, first_three
from clevit_jax.data.layouts.split_codes import is_typable
from clevit_jax.errors import Repeated

# What programs write for a value that is missing.
_MISSING = frozenset(("nan", "NaN", "NAN", "NA", "N/A", "n/a", "#N/A", "<NA>", "NULL", "null"))
_TO_TELL = frozenset(("", "-1", "-1.0", *_MISSING))  # labels of images that are to be told


class Label(NamedTuple):
    """What a row says of its class; "" for nothing.

    Attributes:
        text: the label, as it is written.
        class_name: the name that goes with it.
        is_left_out: whether the row is to be passed over without a word: a test image to be told.
    """

    text: str
    class_name: str = ""
    is_left_out: bool = False


class RowProblems:
    """What is wrong with the rows of a table; it comes out in the order of the lines."""

    def __init__(self, path: pathlib.Path, places: Sequence[str] = (), *, below: bool = False):
        """Says what rows are called.

        Args:
            path: of the table.
            places: what its lines are called, where they are not the lines of a text.
            below: whether `path` is a folder, and places begin with the files in it.
        """
        self.path = path
        self._mark = "/" if below else ", "
        self._places = places
        self._found: list[tuple[int, str]] = []

    def place(self, line: int) -> str:
        """What a line is called."""
        return self._places[line] if self._places else f"line {line}"

    def where(self, line: int) -> str:
        """The file and the line, for a sentence."""
        return f"{self.path}{self._mark}{self.place(line)}"

    def add(self, line: int, problem: str, rule: str, item: str = "") -> None:
        """Notes what is wrong with a row, and what to say where it holds of many."""
        sentence = f"{self.where(line)}: {problem}"
        about = f"{self.place(line)}: {item}" if item else self.place(line)
        self._found.append((line, Repeated(sentence, rule=f"{self.path}: {rule}", item=about)))

    def say(self, sentence: str) -> None:
        """Notes what is wrong with the table as a whole."""
        self._found.append((0, f"{self.path}: {sentence}"))

    def extend(self, found: Iterable[tuple[int, str]]) -> None:
        """Notes sentences, each with its line."""
        self._found.extend(found)

    def in_order(self) -> Iterator[str]:
        """All sentences, by line."""
        return (sentence for _, sentence in sorted(self._found, key=lambda each: each[0]))


def splits_of(
    table: Table, columns: SplitColumns, split: str, problems: RowProblems, *, alone: bool
) -> list[str | None]:
    """The split of each row; None where it is wrong.

    Args:
        table: all of its rows count.
        columns: by which it is told.
        split: that of the table.
        problems: gets what is wrong.
        alone: whether the table is the only one, so that its rows may be of every split.
    """
    if columns.word is None and not columns.flags:
        return [split] * len(table.rows)
    told = list[str | None]()
    mend = _mend(table, columns)
    for line, row in zip(table.lines, table.rows, strict=True):
        if columns.word is not None:
            text = row[columns.word]
            own = columns.words.get(text.strip())
            words = "is not train, val or test"
        else:
            text = ", ".join(f"{table.header[i].strip()} {row[i].strip()}" for i in columns.flags)
            own = split_by_flags(columns.flags, row)
            words = "says no split, or two"
        if own is None:
            rule = f"{{n}} rows have a split that {words}{mend}"
            problems.add(line, f"the split {text!r} {words}.", rule, repr(text))
        elif own != split and not alone:
            problems.add(
                line,
                f"the split is {text!r} in the table of the {split} split; move the row.",
                f"{{n}} rows have another split than {split}, that of the table; move them, or set "
                "data.split_column=none",
                repr(text),
            )
            own = None
        told.append(own)
    return told


def _mend(table: Table, columns: SplitColumns) -> str:
    """What to type where values of a column of words mean no split; "" where all do."""
    at = columns.word
    if at is None:
        return ""
    strange = (text for row in table.rows if (text := row[at].strip()) not in columns.words)
    first = next(filter(is_typable, strange), "")
    column = as_setting(table.header[at].strip())
    setting = f"data.split_column={column}:{first}=test,train=train"
    return f"; if they mean one, say so, as {setting}" if first else ""


def labels_of(
    path: pathlib.Path,
    table: Table,
    columns: CsvColumns,
    splits: Sequence[str | None],
    one_hot: dict[str, int],
    problems: RowProblems,
    notes: Notes,
) -> list[Label]:
    """The label of each row.

    Args:
        path: of the table, for sentences.
        table: all of its rows count.
        columns: by which it is told.
        splits: of the rows.
        one_hot: class -> label, where each class is a column.
        problems: gets what is wrong with a row.
        notes: gets a warning where no test image has a label.
    """
    if columns.one_hot:
        return _one_hot(table, columns.one_hot, one_hot, problems)
    label = columns.label.label
    if len(label) == 1:
        texts = [row[label[0]].strip() for row in table.rows]
    else:
        texts = [" ".join(row[i].strip() for i in label).strip() for row in table.rows]
    to_tell = _all_to_tell(texts, splits)
    if to_tell:
        notes.warnings.append(
            f"{path}: none of its {to_tell:,} test images has a label; they are left out, and are "
            "for --mode predict."
        )
    name = columns.label.class_name
    made = list[Label]()
    for at, (line, row) in enumerate(zip(table.lines, table.rows, strict=True)):
        text = texts[at]
        if to_tell and splits[at] == "test":
            made.append(Label("", is_left_out=True))
            continue
        if not text or text in _MISSING:
            what = "empty" if not text else f"{text!r}, which stands for a missing one"
            mend = "" if not text else "; write the class, or remove the row"
            rule = "{n} rows have no label; write the class, or remove the rows"
            problems.add(line, f"the label is {what}{mend}.", rule, text)
            text = ""
        class_name = row[name].strip() if name is not None else ""
        if name is not None and not class_name:
            problems.add(line, "the class name is empty.", "{n} rows have no class name")
        made.append(Label(text, class_name))
    return made


def _all_to_tell(texts: Sequence[str], splits: Sequence[str | None]) -> int:
    """The number of test images, where none of them has a label and all others have."""
    tested = [text for text, split in zip(texts, splits, strict=True) if split == "test"]
    if not tested or any(text not in _TO_TELL for text in tested):
        return 0
    return len(tested)


def _one_hot(
    table: Table, positions: Sequence[int], numbers: dict[str, int], problems: RowProblems
) -> list[Label]:
    """The labels of a table in which each class is a column of 0 and 1."""
    classes = [table.header[i].strip() for i in positions]
    shown = first_three([repr(name) for name in classes])
    made = list[Label]()
    others = list[tuple[int, int]]()  # lines, and how many classes they have
    for line, row in zip(table.lines, table.rows, strict=True):
        bits = [bit(row[i]) for i in positions]
        for name, i, each in zip(classes, positions, bits, strict=True):
            if each is None:
                problems.add(line, f"the column {name!r} is {row[i]!r}, not 0 or 1.",
                             "{n} cells of the classes' columns are not 0 or 1", name)  # fmt: skip
        ones = sum(map(bool, bits))
        if None in bits:
            made.append(Label(""))
        elif ones != 1:
            others.append((line, ones))
            made.append(Label(""))
        else:
            name = classes[bits.index(1)]
            made.append(Label(str(numbers[name]), name))
    if len(others) == 1:
        line, ones = others[0]
        problems.add(line, f"{ones} of the columns {shown} are 1; one must be.", "")
    elif others:
        some = first_three([f"{problems.place(line)}: {ones}" for line, ones in others])
        problems.say(
            f"{len(others):,} of {len(table.rows):,} rows have more or less than one class, by the "
            f"columns {shown} ({some}); one class is learned for each image here: leave one 1 in "
            "each row, or remove the rows."
        )
    return made
