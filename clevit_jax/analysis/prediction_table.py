"""A table of predictions that grows row by row, and can be gone on with: CSV, JSON, JSON lines.

In CSV a cell that a spreadsheet would take for a formula (it begins with one of `FORMULA`) gets an
apostrophe before it, and so does one that begins with an apostrophe; taking it away gives the text
back. JSON has the text as it is. What of a name is no UTF-8 is written as an escape in all of them.
"""

import contextlib
import csv
import io
import json
import os
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any, TextIO

from clevit_jax.errors import ConfigError

ENDINGS = (".csv", ".json", ".jsonl")
FORMULA = "=+-@\t\r\n\uff1d\uff0b\uff0d\uff20"  # the last four are the first in full width
_GUARDED = FORMULA + "'"


def guard(text: str) -> str:
    """A cell that no spreadsheet takes for a formula."""
    return "'" + text if text[:1] and text[0] in _GUARDED else text


def as_utf8(text: str) -> str:
    """A name as UTF-8, with an escape for what of it is none."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


class PredictionTable:
    """Writes rows to a file, each one whole; `done` are the files that it holds already.

    Args:
        path: the file; its ending says the form.
        columns: their names, the first one `file`.
        resume: go on with a file that is there, after the rows that it holds.

    Raises:
        ConfigError: the file cannot be written, or cannot be gone on with.
    """

    def __init__(self, path: pathlib.Path, columns: Sequence[str], *, resume: bool):
        self._columns, self._form = list(columns), path.suffix.lower()
        self.done: set[str] = set()
        self._first = True
        try:
            end = self._read(path) if resume and path.exists() and path.stat().st_size else 0
            self._file: TextIO = path.open("r+" if end else "w", encoding="utf-8", newline="")
            self._file.seek(end)
            self._file.truncate()
            if not end:
                self._file.write(self._header())
        except OSError as error:
            raise ConfigError(f"{path} cannot be written: {error.strerror or error}.") from error

    def write(self, row: dict[str, Any]) -> None:
        """Adds a row; None is an empty cell, or null."""
        if self._form == ".csv":
            self._file.write(_csv_row([_cell(row[name]) for name in self._columns]))
            return
        line = json.dumps({name: _value(row[name]) for name in self._columns})
        if self._form == ".jsonl":
            self._file.write(line + "\n")
            return
        self._file.write(("\n" if self._first else ",\n") + line)
        self._first = False

    def flush(self) -> None:
        """Hands what was written to the system, so that a kill loses none of it."""
        self._file.flush()

    def close(self) -> None:
        """Ends the file."""
        if self._form == ".json":
            self._file.write("\n]\n")
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()

    def _header(self) -> str:
        return {".csv": _csv_row(self._columns), ".json": "["}.get(self._form, "")

    def _read(self, path: pathlib.Path) -> int:
        """Fills `done`; returns the bytes of whole rows, after which to go on."""
        other = f"{path} is no table of this command with these columns; name another --output."
        with path.open(encoding="utf-8", errors="surrogateescape", newline="\n") as file:
            try:
                end = self._read_csv(file) if self._form == ".csv" else self._read_json(file)
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise ConfigError(other) from error
        # Not one whole row: a header that was torn, or a file of somebody else.
        begun = self._header() if self._form != ".jsonl" else '{"file": "'
        start = path.read_bytes()[: len(begun)]
        if not end and not begun.encode().startswith(start):
            raise ConfigError(other)
        return end

    def _read_csv(self, file: TextIO) -> int:
        taken, end = 0, 0  # bytes of the lines that the reader took; of whole rows

        def lines() -> Iterator[str]:
            nonlocal taken
            for line in file:
                if not line.endswith("\n"):
                    return  # the torn last line of a killed run
                taken += _size(line)
                yield line

        with contextlib.suppress(csv.Error):  # the last row was torn inside quotes
            for row in csv.reader(lines(), strict=True):
                if not end and row != self._columns:
                    raise ValueError("another header")
                if end:
                    self.done.add(row[0].removeprefix("'"))
                end = taken
        return end

    def _read_json(self, file: TextIO) -> int:
        listed, offset, end = self._form == ".json", 0, 0
        for number, line in enumerate(file):
            start, offset = offset, offset + _size(line)
            whole, text = line.endswith("\n"), line.rstrip("\n")
            if listed and not number:
                if text != "[":
                    raise ValueError("no list")
                end = _size(text)
                continue
            # In a list the comma is written with the row after it.
            text = text.removesuffix(",") if listed else text
            if (listed and text == "]") or not (listed or whole):
                break
            try:
                row = json.loads(text)
            except ValueError:
                if whole:
                    raise
                break  # torn
            if list(row) != self._columns:
                raise ValueError("other columns")
            self.done.add(row["file"])
            self._first = False
            end = start + _size(text) if listed else offset
        return end


def _size(text: str) -> int:
    return len(text.encode("utf-8", "surrogateescape"))


def _value(value: Any) -> Any:
    """As JSON has it; more digits than these depend on the images beside it."""
    if isinstance(value, float):
        return round(value, 6)
    return as_utf8(value) if isinstance(value, str) else value


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.6f}" if isinstance(value, float) else guard(as_utf8(str(value)))


def _csv_row(cells: Sequence[str]) -> str:
    stream = io.StringIO()
    # Python quotes a carriage return only where it ends lines, and readers end lines at it.
    if any("\r" in cell for cell in cells):
        csv.writer(stream, lineterminator="\n", quoting=csv.QUOTE_ALL).writerow(cells)
    else:
        csv.writer(stream, lineterminator="\n").writerow(cells)
    return stream.getvalue()
