"""The form of a submission, such as Kaggle's sample_submission.csv, and tables like it."""

import csv
import dataclasses
import io
import json
import pathlib
from typing import Any

from clevit_jax.errors import ConfigError
from clevit_jax.system.faults import os_reason

_DELIMITERS = ",;\t|"


@dataclasses.dataclass(frozen=True)
class Form:
    """A table to be filled in.

    Attributes:
        path: its file.
        columns: names of the columns.
        rows: their cells, each row as many as there are columns.
        header: the first line as it stands, with what ends the line.
        delimiter: between the cells.
    """

    path: pathlib.Path
    columns: tuple[str, ...]
    rows: list[list[str]]
    header: str
    delimiter: str

    def line(self, cells: list[str]) -> str:
        """A row as a line of the form."""
        stream = io.StringIO()
        end = "\r\n" if self.header.endswith("\r\n") else "\n"
        csv.writer(stream, delimiter=self.delimiter, lineterminator=end).writerow(cells)
        return stream.getvalue()


def read_form(path: pathlib.Path, flag: str = "--submission") -> Form:
    """Reads a form, or any other table with a header.

    Raises:
        ConfigError: it is no table with two columns or more, or a row has other cells than the
            header has names.
    """
    text = _read_text(path, flag)
    first = text.partition("\n")[0]
    delimiter = max(_DELIMITERS, key=first.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        columns = next(reader, [])
        header = "".join(io.StringIO(text, newline="").readlines()[: reader.line_num])
        rows = []
        for row in reader:
            if len(row) not in (0, len(columns)):
                raise ConfigError(
                    f"{flag} {path}, line {reader.line_num}: {len(row)} cells, but the header has "
                    f"{len(columns)}; mend that line."
                )
            rows += [row] if row else []
    except csv.Error as error:
        raise ConfigError(f"{flag} {path}, line {reader.line_num}: {error}.") from error
    if len(columns) < 2 or not rows:
        what = "one column" if rows else "no rows"
        raise ConfigError(
            f"{flag} {path} has {what}; give a table whose first line names the columns, of the "
            "images and of what is to be written for each, such as sample_submission.csv."
        )
    if not header.endswith("\n"):
        header += "\n"
    return Form(path, tuple(name.strip() for name in columns), rows, header, delimiter)


def read_codes(path: pathlib.Path, flag: str) -> list[tuple[str, str]]:
    """Pairs of a file that says how classes are written: JSON, a table, or a name on each line.

    In a list, or in lines without a delimiter, the first is 0.

    Raises:
        ConfigError: it is none of these.
    """
    text = _read_text(path, flag)
    if path.suffix.lower() == ".json":
        try:
            value: Any = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ConfigError(f"{flag} {path} is not JSON: {error}.") from error
        items = value.items() if isinstance(value, dict) else enumerate(value)
        pairs = [(str(code), str(name)) for code, name in items if isinstance(name, str | int)]
        if not pairs or len(pairs) != len(value):
            raise ConfigError(f'{flag} {path} must be like {{"0": "ash", "1": "oak"}}.')
        return pairs
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    delimiter = max(_DELIMITERS, key=lines[0].count) if lines else ","
    rows = [[cell.strip() for cell in row] for row in csv.reader(lines, delimiter=delimiter)]
    if {len(row) for row in rows} == {1}:
        return [(str(i), row[0]) for i, row in enumerate(rows)]
    if not rows or any(len(row) < 2 for row in rows):
        raise ConfigError(f"{flag} {path} must have two columns: what is written, and the class.")
    return [(row[0], row[1]) for row in rows]


def _read_text(path: pathlib.Path, flag: str) -> str:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{flag} {path} cannot be read: {os_reason(error)}.") from error
    if data.startswith((b"PK\x03\x04", b"\x1f\x8b")):
        raise ConfigError(f"{flag} {path} is an archive; unpack it, and name the table in it.")
    encoding = "utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        raise ConfigError(f"{flag} {path} is not UTF-8 text; save it as UTF-8.") from error
