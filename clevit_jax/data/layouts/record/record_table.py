"""Records as a table of text, whose columns are told by the rules for CSV."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from clevit_jax.data.layouts.csv import csv_columns
from clevit_jax.data.layouts.csv.csv_columns import CsvColumns
from clevit_jax.data.layouts.csv.csv_form import Table
from clevit_jax.data.layouts.listing import BLANKS, Request

_LARGE = 10**100  # numbers from which on Python may refuse to write all digits
_FIRST = 100  # records that tell which fields there are

Row = tuple[str, Mapping[str, Any]]  # the place of a record, for sentences, and its fields


def text_of(value: Any) -> str:
    """A number or a text, as text; "" for null, NaN, and what is neither.

    >>> text_of(3.0), text_of(" oak "), text_of(None), text_of([1])
    ('3', 'oak', '', '')
    """
    if type(value) is str and value.isascii():  # most are
        return value.strip(BLANKS)
    if type(value) is int and -_LARGE < value < _LARGE:
        return str(value)
    if value is None or value != value or isinstance(value, list | dict):
        return ""
    if isinstance(value, bool):
        value = int(value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, int):
        return hex(value) if abs(value) >= _LARGE else str(value)
    text = str(value).strip(BLANKS)
    # JSON may hold halves of characters, which nothing can print.
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


def plain_fields(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The fields of the first records that hold a number or a text, in their order."""
    fields: dict[str, bool] = {}
    for row in rows[:_FIRST]:
        for name, value in row.items():
            fields[name] = fields.get(name, False) or isinstance(value, str | int | float)
    return [name for name, is_plain in fields.items() if is_plain]


def text_table(records: Sequence[Row]) -> tuple[Table, list[str]]:
    """Records as rows of text, of the fields that hold a number or a text; and their places.

    The `lines` of the table are positions in the list of places.
    """
    header = plain_fields([row for _, row in records])
    rows = [[text_of(row.get(name)) for name in header] for _, row in records]
    return Table("", header, True, rows, list(range(len(rows)))), [place for place, _ in records]


def choose_fields(
    table: Table, request: Request, any_called: Callable[[set[str]], bool]
) -> CsvColumns:
    """Which fields are which; `file_name`, as Hugging Face calls it, goes before others.

    Args:
        table: all records, or the first of them.
        request: settings that name columns.
        any_called: whether any image of the data set has one of some names, with or without ending.
    """
    if not request.file_column:
        named = [name for name in table.header if name == "file_name"]
        named = named or [name for name in table.header if name.endswith("_file_name")]
        if len(named) == 1:
            request = request._replace(file_column=named[0])
    return csv_columns.choose(table, request, any_called)
