"""The form of a CSV file: its letters, what is between its fields, and whether it has a header."""

import csv
import gzip
import io
import pathlib
import re
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from clevit_jax.data.layouts.columns import is_known, is_label_or_file
from clevit_jax.data.layouts.csv import encoding
from clevit_jax.data.layouts.listing import Notes, is_image
from clevit_jax.errors import Repeated

_DELIMITERS = ",;\t|"
_EXCEL = re.compile(
    r"sep=(.)(?:\r\n|\r|\n)", re.IGNORECASE
)  # a first line on what is between fields
_LINE = re.compile(r"\r\n|\r|\n")
_PEEK = 1 << 16  # bytes, enough for a header and some rows
_DAMAGED = (gzip.BadGzipFile, EOFError, zlib.error)
_SAMPLE = 200  # rows by which a form is told


class Table(NamedTuple):
    """A table of text, of which every row has a field for each column.

    Attributes:
        delimiter: between its fields.
        header: names of the columns; "1", "2", ... where the file has none.
        named: whether the file has them.
        rows: fields of each row.
        lines: the line, from 1, that each row begins on.
    """

    delimiter: str
    header: list[str]
    named: bool
    rows: Sequence[Sequence[str]]
    lines: list[int]


def peek(path: pathlib.Path) -> str:
    """What a table begins with."""
    try:
        with (gzip.open if is_packed(path) else open)(path, "rb") as file:
            return encoding.begun(file.read(_PEEK))
    except _DAMAGED:
        return ""


def is_packed(path: pathlib.Path) -> bool:
    """Whether a table is compressed, as pandas does where the name ends so."""
    return path.suffix.lower() == ".gz"


def delimiters(text: str) -> str:
    """What may be between the fields of a text: what its first line tells Excel, or any."""
    told = _EXCEL.match(text)
    return told[1] if told else _DELIMITERS


def text_of(path: pathlib.Path, notes: Notes) -> str | None:
    """The whole of a table; None, and a problem, if its letters cannot be told."""
    try:
        data = gzip.decompress(path.read_bytes()) if is_packed(path) else path.read_bytes()
    except _DAMAGED as error:
        notes.problems.append(f"{path} is no whole gzip file ({error}); copy it again.")
        return None
    text, line = encoding.decode(data, western=True)
    if text is None:
        notes.problems.append(f"{path}, line {line}: not UTF-8 text; save the file as UTF-8.")
    elif line:
        shown = re.split(r"\r\n|\n|\r", text)[line - 1].strip()[:40]
        notes.warnings.append(
            f"{path}, line {line}: not UTF-8 text, read as Windows-1252 ({shown!r}); if letters "
            "are wrong, save the file as UTF-8."
        )
    return text


def sample(text: str, delimiter: str, header: str, any_called: Callable[[set[str]], bool]) -> Table:
    """The first rows of a text, without a word on what is wrong with them."""
    rows, lines = list[list[str]](), list[int]()
    for line, fields in _records(text, delimiter):
        if isinstance(fields, list):
            rows.append(fields)
            lines.append(line)
        if len(rows) > _SAMPLE:
            break
    return _headed(delimiter, rows, lines, header, any_called)


def whole(
    path: pathlib.Path,
    text: str,
    head: Table,
    notes: Notes,
) -> tuple[Table, list[tuple[int, str]]]:
    """All rows of a table.

    Args:
        path: the file, for sentences.
        text: of it.
        head: its `sample`.
        notes: gets a warning on rows that end in a comma too many.

    Returns:
        The table, and (line, problem) of each row that is left out.
    """
    rows, lines = list[list[str]](), list[int]()
    problems = list[tuple[int, str]]()
    for line, fields in _records(text, head.delimiter):
        if isinstance(fields, str):
            problems.append((line, f"{path}, line {line}: {fields}"))
        else:
            rows.append(fields)
            lines.append(line)
    if head.named:
        rows, lines = rows[1:], lines[1:]
    width, kept, places = len(head.header), list[list[str]](), list[int]()
    longer = list[int]()
    numbered = _numbers_first(rows, width)
    for line, fields in zip(lines, rows, strict=True):
        if numbered:
            fields = fields[1:]
        elif len(fields) > width and not any(map(str.strip, fields[width:])):
            longer.append(line)
            fields = fields[:width]
        if len(fields) != width:
            problems.append((line, _uneven(path, line, len(fields), head)))
        elif any("\0" in field for field in fields):
            where = f"{path}, line {line}"
            problems.append(
                (line, f"{where}: there is a NUL character; save the file as UTF-8 text.")
            )
        else:
            kept.append(fields)
            places.append(line)
    if longer:
        notes.warnings.append(
            f"{path}: {len(longer):,} row(s) end in a {head.delimiter!r} too many, from line "
            f"{longer[0]} on; it is passed over."
        )
    return head._replace(rows=kept, lines=places), problems


def _uneven(path: pathlib.Path, line: int, count: int, head: Table) -> str:
    has = "the header has" if head.named else "the first row has"
    mend = f"quote fields in which there is a {head.delimiter!r}"
    return Repeated(
        f"{path}, line {line}: {count} field(s), but {has} {len(head.header)}; {mend}.",
        rule=f"{path}: {{n}} rows have another number of fields than the {len(head.header)} that "
        f"{has}; {mend}",
        item=f"line {line}: {count}",
    )


def _numbers_first(rows: Sequence[list[str]], width: int) -> bool:
    """Whether each row begins with its number, of which the header has nothing, as R writes."""
    if not rows or any(len(fields) != width + 1 for fields in rows):
        return False
    first = [fields[0].strip() for fields in rows]
    return all(text.isdigit() for text in first) and len(set(first)) == len(first)


def _headed(
    delimiter: str,
    rows: list[list[str]],
    lines: list[int],
    header: str,
    any_called: Callable[[set[str]], bool],
) -> Table:
    """A table of which the first row is its header, or is not."""
    if not rows:
        return Table(delimiter, [], True, [], [])
    named = header == "true" if header != "auto" else _is_header(rows[0], any_called)
    names = rows[0] if named else [str(i + 1) for i in range(len(rows[0]))]
    rest = rows[1:] if named else rows
    width = len(names)
    # A header of which the last name is empty may be all that its rows have a comma more for.
    fitting = [
        (fields[:width], line)
        for fields, line in zip(rest, lines[1:] if named else lines, strict=True)
        if len(fields) >= width and not any(map(str.strip, fields[width:]))
    ]
    return Table(
        delimiter, names, named, [fields for fields, _ in fitting], [line for _, line in fitting]
    )


def _is_header(first: Sequence[str], any_called: Callable[[set[str]], bool]) -> bool:
    """Whether a first row names columns, and does not tell of an image."""
    cells = [cell.strip() for cell in first]
    if any(map(is_label_or_file, cells)):
        return True
    if any(map(is_image, cells)):
        return False
    return any(map(is_known, cells)) or len(cells) < 2 or not any_called(set(cells) - {""})


def _end_of_remarks(text: str, delimiter: str) -> int:
    """Where the lines end that begin with `#` and name no column, above the header."""
    end = 0
    while text.startswith("#", end) and (line := _LINE.search(text, end)):
        names = text[end : line.start()].lstrip("#").split(delimiter)
        if len(names) > 1 and any(map(is_label_or_file, map(str.strip, names))):
            break
        end = line.end()
    return end


def _records(text: str, delimiter: str) -> Iterator[tuple[int, list[str] | str]]:
    """For each record that is not blank: the line it begins on, and its fields or what is wrong."""
    told = _EXCEL.match(text)
    end = told.end() if told else _end_of_remarks(text, delimiter)
    skipped = len(_LINE.findall(text[:end]))
    text = text[end:]
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    while True:
        line = reader.line_num + 1 + skipped
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield line, f'it is not CSV ({error}); quote fields as "a" and quotes in them as "".'
            if "limit" in str(error):  # the next record would start within this one's field
                return
            continue
        if any(map(str.strip, fields)):
            yield line, fields
