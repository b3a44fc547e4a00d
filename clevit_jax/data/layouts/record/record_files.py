"""Files of records: tables of metadata in CSV or Parquet, and JSON lines."""

import csv
import io
import itertools
import json
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

from clevit_jax.data.layouts.listing import Notes, read_lines, read_text
from clevit_jax.data.layouts.record.records import plain_fields
from clevit_jax.errors import Repeated, first_line

ENDINGS = (".csv", ".jsonl", ".ndjson", ".manifest", ".parquet")
_HEAD = 1 << 16  # bytes, enough for a header or the first record

Row = tuple[str, Mapping[str, Any]]  # its place, for sentences, and its fields


def first_record(path: pathlib.Path) -> dict[str, Any]:
    """The fields of the first record, or those of the header; empty where it is no such file."""
    ending = path.suffix.lower()
    if ending == ".parquet":
        return dict(next((row for _, row in _parquet(path, Notes([], []), rows=1)), {}))
    with path.open("rb") as file:
        text = file.read(_HEAD).decode("utf-8-sig", "replace")
    if ending == ".csv":
        records = csv.reader(io.StringIO(text, newline=""))
        try:
            header = [name.strip() for name in next(records, [])]
            return dict(itertools.zip_longest(header, next(records, [])[: len(header)]))
        except csv.Error:
            return {}
    line = next(filter(str.strip, text.splitlines()), "")
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return flat(record) if isinstance(record, dict) else {}


def read_records(path: pathlib.Path, notes: Notes) -> tuple[list[str], list[Row]]:
    """The names of the fields that hold numbers or texts, and all records.

    Args:
        path: a table with one of `ENDINGS`.
        notes: gets what is wrong with the file, or with a line of it.
    """
    match path.suffix.lower():
        case ".parquet":
            rows = list(_parquet(path, notes))
        case ".csv":
            rows = list(_csv(path, notes))
            return list(rows[0][1]) if rows else [], rows
        case _:
            rows = list(_json_lines(path, notes))
    return plain_fields([row for _, row in rows]), rows


def _csv(path: pathlib.Path, notes: Notes) -> Iterator[Row]:
    text = read_text(path, notes)
    records = csv.reader(io.StringIO(text or "", newline=""), strict=True)
    try:
        header = [name.strip() for name in next(records, [])]
        for fields in records:
            place = f"line {records.line_num}"
            if len(fields) == len(header):
                yield place, dict(zip(header, fields, strict=True))
            elif fields:
                notes.problems.append(
                    _bad_line(
                        path,
                        place,
                        f"{len(fields)} field(s), but the header has {len(header)}; quote fields "
                        "in which there is a ','",
                        "have more or fewer fields than the header",
                    )
                )
    except csv.Error as error:
        notes.problems.append(f"{path}, line {records.line_num}: it is not CSV ({error}).")


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
            yield place, flat(record)
        else:
            notes.problems.append(_bad_line(path, place, why, "are no JSON objects"))


def flat(record: Mapping[str, Any]) -> dict[str, Any]:
    """A record of Google's Vertex AI or Amazon's Ground Truth with plain fields; others as it is.

    >>> flat({"imageGcsUri": "gs://b/a.jpg", "classificationAnnotation": {"displayName": "oak"}})
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


def _bad_line(path: pathlib.Path, place: str, what: str, of_many: str) -> Repeated:
    return Repeated(
        f"{path}, {place}: {what}.", rule=f"{path}: {{n}} of its lines {of_many}", item=place
    )


def _parquet(path: pathlib.Path, notes: Notes, rows: int | None = None) -> Iterator[Row]:
    """The rows of a Parquet file, of its columns of numbers and texts; the first `rows` of them."""
    import pyarrow.parquet

    from clevit_jax.data.layouts.store.parquet_schema import is_plain

    try:
        with pyarrow.parquet.ParquetFile(path) as source:
            schema = source.schema_arrow
            plain = [field.name for field in schema if is_plain(field.type)]
            names = [name for name in plain if schema.names.count(name) == 1]
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
