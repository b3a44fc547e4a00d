"""The table of `--mode predict`: written row by row and resumable, as CSV, JSON or JSON lines.

In CSV a cell that a spreadsheet would take for a formula (it begins with one of `FORMULA`) gets an
apostrophe before it, and so does one that begins with an apostrophe; removing one apostrophe gives
the text back. JSON has the text as it is. Bytes of a name that are not UTF-8 are escaped in all.
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
from clevit_jax.system.files import purpose
from clevit_jax.system.places import in_bucket
from clevit_jax.system.uploaded import GrowingCopy

ENDINGS = (".csv", ".json", ".jsonl")
FORMULA = "=+-@\t\r\n\uff1d\uff0b\uff0d\uff20"  # the last four are the first in full width
_GUARDED = FORMULA + "'"
_WHAT = "The table of predictions"


def guard(text: str) -> str:
    """The text of a cell, such that no spreadsheet takes it for a formula."""
    return "'" + text if text[:1] and text[0] in _GUARDED else text


def as_utf8(text: str) -> str:
    """A name as valid UTF-8: what of it is not (surrogates, from `os.fsdecode`) is escaped."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


class PredictionTable:
    """A file that rows are added to, whole ones only.

    Attributes:
        done: names of the images (column `file`) whose rows the file held when it was opened.

    Args:
        path: the file; its ending decides the format.
        columns: names of the columns, the first one `file`.
        resume: whether to keep the rows of an existing file and write after them.

    Raises:
        ConfigError: the file cannot be written, or is not a table with these columns.
    """

    def __init__(self, path: pathlib.Path, columns: Sequence[str], *, resume: bool):
        self._path, self._columns, self._format = path, list(columns), path.suffix.lower()
        self.done: set[str] = set()
        self._first = True
        self._copy: GrowingCopy | None = None  # of a table in a bucket
        try:
            if in_bucket(path):
                self._copy = GrowingCopy(path, fetch=resume)
                path = self._copy.local
            end = self._read_done(path) if resume and path.exists() and path.stat().st_size else 0
            self._file: TextIO = path.open("r+" if end else "w", encoding="utf-8", newline="")
            self._file.seek(end)
            self._file.truncate()
            if not end:
                self._file.write(self._header())
        except OSError as error:
            raise ConfigError(
                f"{self._path} cannot be written: {error.strerror or error}."
            ) from error

    def write(self, row: dict[str, Any]) -> None:
        """Adds a row; None is an empty cell, or null. Raises ConfigError, as `close`."""
        with purpose(_WHAT, self._path):
            self._write(row)

    def _write(self, row: dict[str, Any]) -> None:
        if self._format == ".csv":
            self._file.write(_csv_row([_csv_cell(row[name]) for name in self._columns]))
            return
        line = json.dumps({name: _json_value(row[name]) for name in self._columns})
        if self._format == ".jsonl":
            self._file.write(line + "\n")
            return
        self._file.write(("\n" if self._first else ",\n") + line)
        self._first = False

    def flush(self) -> None:
        """Hands what was written to the operating system, so that a kill loses none of it.

        Of a table in a bucket it may lose the rows of 15 seconds.
        """
        with purpose(_WHAT, self._path):
            self._file.flush()
            if self._copy is not None:
                self._copy.upload_now_and_then()

    def close(self) -> None:
        """Completes the file and closes it."""
        with purpose(_WHAT, self._path), self._file:
            if self._format == ".json":
                self._file.write("\n]\n")
            self._file.flush()
            os.fsync(self._file.fileno())
            if self._copy is not None:
                self._copy.close()

    def _header(self) -> str:
        return {".csv": _csv_row(self._header_cells()), ".json": "["}.get(self._format, "")

    def _header_cells(self) -> list[str]:
        return [guard(name) for name in self._columns]

    def _read_done(self, path: pathlib.Path) -> int:
        """Fills `done`, and returns the size of the whole rows in bytes: where to write on."""
        not_ours = (
            f"{path} is not a table of --mode predict with these columns, so it cannot be gone on "
            "with; name another --output."
        )
        with path.open(encoding="utf-8", errors="surrogateescape", newline="\n") as file:
            try:
                end = self._read_csv(file) if self._format == ".csv" else self._read_json(file)
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise ConfigError(not_ours) from error
        # Not one whole row: a header that was torn, or a file of somebody else.
        header = self._header() if self._format != ".jsonl" else '{"file": "'
        if not end and not header.encode().startswith(path.read_bytes()[: len(header)]):
            raise ConfigError(not_ours)
        return end

    def _read_csv(self, file: TextIO) -> int:
        taken, end = 0, 0  # bytes of the lines that the reader took; of whole rows

        def lines() -> Iterator[str]:
            nonlocal taken
            for line in file:
                if not line.endswith("\n"):
                    return  # the torn last line of a killed run
                taken += _bytes(line)
                yield line

        with contextlib.suppress(csv.Error):  # the last row was torn inside quotes
            for row in csv.reader(lines(), strict=True):
                if not end and row != self._header_cells():
                    raise ValueError("another header")
                if end:
                    self.done.add(row[0].removeprefix("'"))
                end = taken
        return end

    def _read_json(self, file: TextIO) -> int:
        listed, offset, end = self._format == ".json", 0, 0
        for number, line in enumerate(file):
            line_start, offset = offset, offset + _bytes(line)
            whole, text = line.endswith("\n"), line.rstrip("\n")
            if listed and not number:
                if text != "[":
                    raise ValueError("no list")
                end = _bytes(text)
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
            end = line_start + _bytes(text) if listed else offset
        return end


def _bytes(text: str) -> int:
    return len(text.encode("utf-8", "surrogateescape"))


def _json_value(value: Any) -> Any:
    """A value for JSON: six decimals, because later ones depend on the images in its batch."""
    if isinstance(value, float):
        return round(value, 6)
    return as_utf8(value) if isinstance(value, str) else value


def _csv_cell(value: Any) -> str:
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
