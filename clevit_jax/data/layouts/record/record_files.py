"""Files of records: tables of metadata in CSV or Parquet, and JSON lines."""

import json
import pathlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from clevit_jax.data.layouts.csv import csv_columns, csv_form
from clevit_jax.data.layouts.csv.csv_form import Table
from clevit_jax.data.layouts.listing import Notes, Request, read_lines
from clevit_jax.data.layouts.record.record_table import Row, text_table
from clevit_jax.errors import Repeated, first_line

ENDINGS = (".csv", ".jsonl", ".ndjson", ".manifest", ".parquet")
_HEAD = 1 << 16  # bytes, enough for the first records
_SOME = 50  # records that tell which fields are which
_NOTHING = Table("", [], True, [], [])

AnyCalled = Callable[[set[str]], bool]


def head_of(path: pathlib.Path, request: Request, any_called: AnyCalled) -> Table:
    """The first records, or the header alone; empty where it is no such file.

    Args:
        path: a table with one of `ENDINGS`.
        request: settings that name columns.
        any_called: whether any image of the data set has one of some names.
    """
    match path.suffix.lower():
        case ".parquet":
            records = list(_parquet(path, Notes([], []), rows=_SOME))
            table = text_table(records)[0]
            if len(records) == 1 and not table.header:  # no row: there is only the header to see
                return table._replace(header=list(records[0][1]), rows=[], lines=[])
            return table
        case ".csv":
            return csv_columns.head(csv_form.peek(path), request, any_called)[0]
    with path.open("rb") as file:
        lines = file.read(_HEAD).decode("utf-8-sig", "replace").splitlines()
    records = list[Row]()
    for line in filter(str.strip, lines):
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            break
        if not isinstance(record, dict) or len(records) == _SOME:
            break
        records.append(("", known_form(record)))
    return text_table(records)[0]


def read_records(
    path: pathlib.Path, request: Request, any_called: AnyCalled, notes: Notes
) -> tuple[Table, list[str]]:
    """All records, and the place of each, for sentences.

    Args:
        path, request, any_called: as for `head_of`.
        notes: gets what is wrong with the file, or with a line of it.
    """
    match path.suffix.lower():
        case ".parquet":
            return text_table(list(_parquet(path, notes)))
        case ".csv":
            return _csv(path, request, any_called, notes)
    return text_table(list(_json_lines(path, notes)))


def known_form(record: Mapping[str, Any]) -> dict[str, Any]:
    """A record of Google's Vertex AI or Amazon's Ground Truth with plain fields; others as it is.

    >>> label = {"displayName": "oak"}
    >>> known_form({"imageGcsUri": "gs://b/a.jpg", "classificationAnnotation": label})
    {'image': 'gs://b/a.jpg', 'label': 'oak'}
    """
    vertex, source = record.get("classificationAnnotation"), record.get("source-ref")
    if isinstance(vertex, dict) and "imageGcsUri" in record:
        found = {"image": record["imageGcsUri"], "label": vertex.get("displayName")}
        told = record.get("dataItemResourceLabels")
        split = told.get("aiplatform.googleapis.com/ml_use") if isinstance(told, dict) else None
        return found | ({"split": split} if split is not None else {})
    if isinstance(source, str):
        for key in [key for key in record if key.endswith("-metadata")]:
            about, label = record[key], record.get(key.removesuffix("-metadata"))
            if isinstance(about, dict) and isinstance(label, int) and "class-name" in about:
                return {"image": source, "label": label, "class_name": about["class-name"]}
    return dict(record)


def _csv(
    path: pathlib.Path, request: Request, any_called: AnyCalled, notes: Notes
) -> tuple[Table, list[str]]:
    text = csv_form.text_of(path, notes)
    if text is None:
        return _NOTHING, []
    head, _ = csv_columns.head(text, request, any_called)
    whole, uneven = csv_form.whole(path, text, head, notes)
    notes.problems.extend(sentence for _, sentence in uneven)
    places = [f"line {line}" for line in whole.lines]
    return whole._replace(lines=list(range(len(places)))), places


def _json_lines(path: pathlib.Path, notes: Notes) -> Iterator[Row]:
    for number, line in read_lines(path, notes):
        place = f"line {number}"
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            record, why = None, f"it is not JSON ({first_line(error).removesuffix('.')})"
        else:
            why = "it is no JSON object"
        if isinstance(record, dict):
            yield place, known_form(record)
        else:
            rule = f"{path}: {{n}} of its lines are no JSON objects"
            notes.problems.append(Repeated(f"{path}, {place}: {why}.", rule=rule, item=place))


def _parquet(path: pathlib.Path, notes: Notes, rows: int | None = None) -> Iterator[Row]:
    """The rows of a Parquet file, of its columns of numbers and texts; the first `rows` of them."""
    import pyarrow.parquet

    from clevit_jax.data.layouts.store.parquet_schema import is_plain

    try:
        with pyarrow.parquet.ParquetFile(path) as source:
            schema = source.schema_arrow
            plain = [field.name for field in schema if is_plain(field.type)]
            names = [name for name in plain if schema.names.count(name) == 1]
            read: list[dict[str, Any]]
            if rows is None:
                read = source.read(columns=names, use_threads=False).to_pylist()
            else:
                batches = source.iter_batches(rows, columns=names, use_threads=False)
                read = next((batch.to_pylist() for batch in batches), [])
                read = read or [dict.fromkeys(names)]
    except Exception as error:  # whatever its parsers raise on damaged files
        reason = first_line(error).removesuffix(".")
        notes.problems.append(f"{path} is not a whole Parquet file ({reason}); copy it again.")
        return
    for number, row in enumerate(read):
        yield f"row {number}", row
