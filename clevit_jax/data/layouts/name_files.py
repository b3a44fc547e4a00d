"""Files that name classes by number: JSON, tables, and lines of text."""

import csv
import io
import json
import os
import pathlib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from clevit_jax.data.layouts.columns import plain
from clevit_jax.data.layouts.csv import encoding
from clevit_jax.data.layouts.listing import is_image

_LARGEST = 1 << 20  # bytes; a file of class names is small
_MOST = 50  # files of one folder that are looked into
_FOLDERS = ("", "anno", "annotations", "meta", "metadata", "labels", "data", "devkit", "images")
# Words in the name of a file that names classes.
_WORDS = re.compile(
    r"class|label|name|categor|species|breed|cultivar|variet|disease|synset|taxon|map|cat_|"
    r"id2|idx|ind_to|index|legend|key",
    re.IGNORECASE,
)
_LINES = (".txt", ".names", ".lst")
_ENDINGS = (".json", ".csv", ".tsv", *_LINES)
_NUMBERED = re.compile(r"\s*(-?[0-9]{1,18})\s*(?:[:=,;\t]|\.(?=\s)|\s)\s*(\S.*?)\s*")
_ID_NAMES = ("id", "label", "labelid", "classid", "class", "categoryid", "index", "idx", "number",
             "num", "code", "target", "key", "labelnum", "classidx", "classindex", "")  # fmt: skip
_NAME_NAMES = ("name", "classname", "labelname", "categoryname", "label", "class", "species",
               "category", "breed", "disease", "variety", "cultivar", "scientificname", "title",
               "commonname", "value", "text", "description", "diseasename")  # fmt: skip


class Names:
    """What one file names.

    Attributes:
        by_number: label, as a number without zeros before it -> name; empty for a bare list.
        in_order: the names of a bare list.
    """

    def __init__(self, by_number: Mapping[str, str], in_order: Sequence[str] = ()):
        self.by_number = dict(by_number)
        self.in_order = tuple(in_order)


def name_files(
    root: pathlib.Path, folders: Sequence[str] = _FOLDERS
) -> Iterator[tuple[pathlib.Path, Names]]:
    """The files in `root`, and in folders of annotations there, that may name classes."""
    for folder in folders:
        try:
            with os.scandir(root / folder) as entries:
                there = sorted(
                    entry.name
                    for entry in entries
                    if entry.name.lower().endswith(_ENDINGS)
                    and _WORDS.search(entry.name)
                    and not entry.name.startswith(".")
                    and entry.is_file()
                    and entry.stat().st_size <= _LARGEST
                )
        except OSError:
            continue
        for name in there[:_MOST]:
            path = root / folder / name
            names = _read(path)
            if names is not None and (names.by_number or names.in_order):
                yield path, names


def _read(path: pathlib.Path) -> Names | None:
    text = encoding.decode(path.read_bytes(), western=True).text
    if text is None or "\0" in text:
        return None
    ending = path.suffix.lower()
    if ending == ".json":
        try:
            return _of_json(json.loads(text))
        except (ValueError, RecursionError):
            return None
    if ending in (".csv", ".tsv"):
        return _of_table(text)
    return _of_lines(text)


def _of_json(value: Any) -> Names | None:
    """{"0": name}, {name: 0}, [name, ...], or a list of {"id": 0, "name": name}."""
    if isinstance(value, dict):
        for inner in ("categories", "classes", "names", "labels", "id2label", "label2id"):
            if isinstance(value.get(inner), (list, dict)):
                return _of_json(value[inner])
        if all(_number(key) and isinstance(name, str) for key, name in value.items()):
            return Names({str(int(key)): name.strip() for key, name in value.items()})
        if all(type(number) is int or _is_text_number(number) for number in value.values()):
            numbers = [str(int(number)) for number in value.values()]
            if len(set(numbers)) == len(numbers):
                return Names(dict(zip(numbers, map(str.strip, value), strict=True)))
        return None
    if not isinstance(value, list):
        return None
    if value and all(isinstance(name, str) for name in value):
        return Names({}, [name.strip() for name in value])
    named = dict[str, str]()
    for each in value:
        if not isinstance(each, dict) or not isinstance(each.get("name"), str):
            return None
        number = next((each[key] for key in ("id", "label", "index") if key in each), None)
        if type(number) is not int or str(number) in named:
            return None
        named[str(number)] = each["name"].strip()
    return Names(named)


def _of_table(text: str) -> Names | None:
    """A column of numbers and one of names, with or without a header."""
    for delimiter in ",;\t|":
        try:
            reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
            rows = [row for row in reader if any(map(str.strip, row))]
        except csv.Error:
            continue
        if rows and len(rows[0]) > 1 and all(len(row) == len(rows[0]) for row in rows):
            return _of_rows(rows)
    return _of_lines(text)  # of one column, as names.csv of Stanford Cars from Kaggle


def _of_rows(rows: list[list[str]]) -> Names | None:
    has_header = not any(map(_number, rows[0]))
    header = [plain(name) for name in rows[0]] if has_header else [""] * len(rows[0])
    columns = [[row[i].strip() for row in rows[has_header:]] for i in range(len(header))]
    numbers = [i for i, cells in enumerate(columns) if cells and all(map(_number, cells))]
    numbers = [i for i in numbers if len(set(columns[i])) == len(columns[i])]
    texts = [i for i, cells in enumerate(columns) if cells and not all(map(_number, cells))]
    texts = [i for i in texts if not any(map(is_image, columns[i]))]  # a table of images
    if len(numbers) > 1:
        numbers = [i for i in numbers if header[i] in _ID_NAMES]
    if len(texts) > 1:
        texts = sorted(
            (i for i in texts if header[i] in _NAME_NAMES),
            key=lambda i: _NAME_NAMES.index(header[i]),
        )
    if not numbers or not texts:
        return None
    pairs = zip(columns[numbers[0]], columns[texts[0]], strict=True)
    return Names({str(int(float(number))): name for number, name in pairs})


def _of_lines(text: str) -> Names | None:
    """`<number> <name>` or `<name> <number>` in each line, or a name alone."""
    lines = [line.strip() for line in re.split(r"\r\n|\n|\r", text) if line.strip()]
    words = {plain(word) for word in re.split(r"[,;:\t ]+", lines[0])} if len(lines) > 1 else set()
    if words & {"id", *_ID_NAMES} and words <= {*_ID_NAMES, *_NAME_NAMES}:
        is_header = all(map(_NUMBERED.fullmatch, lines[1:]))
        lines = lines[is_header:]
    before = [_NUMBERED.fullmatch(line) for line in lines]
    if lines and all(before):
        named = [(str(int(match[1])), match[2]) for match in before if match]
        return Names(dict(named)) if len(dict(named)) == len(named) else None
    after = [re.fullmatch(r"(.*?\S)[\s,;:=]+([0-9]{1,18})", line) for line in lines]
    if lines and all(after):
        named = [(str(int(match[2])), match[1]) for match in after if match]
        if len(dict(named)) == len(named):
            return Names(dict(named))
    synsets = [re.fullmatch(r"n[0-9]{8}\s+(.*)", line) for line in lines]
    if lines and all(synsets):
        return Names({}, [match[1] for match in synsets if match])
    return Names({}, lines)


def _number(text: Any) -> bool:
    return isinstance(text, str) and bool(re.fullmatch(r"\s*-?[0-9]{1,18}(\.0*)?\s*", text))


def _is_text_number(value: Any) -> bool:
    return isinstance(value, str) and bool(re.fullmatch(r"-?[0-9]{1,18}", value))
