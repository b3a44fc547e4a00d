"""JSON files that list images: which there are, of which form, and what is in them."""

import json
import os
import pathlib
import re
from collections.abc import Callable
from typing import Any

from clevit_jax.data import no_image
from clevit_jax.data.layouts.columns import FILES, plain
from clevit_jax.data.layouts.listing import EXTENSIONS, Notes, Request, is_image
from clevit_jax.data.layouts.record.record_table import choose_fields, text_table
from clevit_jax.data.split_names import split_called, splits_among

_HEAD = 1 << 16  # bytes that tell the form of a file
_IMAGE = r"\.(?:" + "|".join(ending[1:] for ending in EXTENSIONS) + ")"
_COCO = re.compile(r'"(?:images|annotations|categories)"\s*:\s*\[')
_LISTED = re.compile(r'"(?:images|annotations)"\s*:\s*\[')
_MAP = re.compile(rf'\s*\{{\s*"(?:[^"\\]|\\.)+{_IMAGE}"\s*:', re.IGNORECASE)
_OF_CLASSES = re.compile(
    rf'\s*\{{\s*"(?:[^"\\]|\\.)*"\s*:\s*\[\s*"(?:[^"\\]|\\.)+{_IMAGE}"\s*[,\]]', re.IGNORECASE
)
_OF_SPLITS = re.compile(r'\s*\{\s*"([^"\\]+)"\s*:\s*[\[{]')
_NAMED = re.compile(rf'{_IMAGE}"', re.IGNORECASE)
_LINES = re.compile(r"\}[ \t]*\r?\n[ \t]*\{")  # an object a line
_RECORDS = re.compile(r"\s*\[\s*(?=[\[{])")
_NEXT = re.compile(r"\s*,\s*(?=[\[{])")
_SOME = 50  # records that tell which fields are which
_FOLDERS = ("annotations", "annotation", "anno", "meta", "metadata", "labels", "json")


def json_files(root: pathlib.Path) -> dict[str, str]:
    """JSON file below `root` -> the split that its folder means, or "".

    Looked for in `root`, in folders there that are called as splits, and in annotations/ and alike.
    """
    with os.scandir(root) as entries:
        names = sorted(entry.name for entry in entries if entry.is_dir() and entry.name[0] != ".")
    splits = splits_among(names)
    folders = {name: splits.get(name, "") for name in names if name in splits}
    folders |= {name: "" for name in names if name.lower() in _FOLDERS}
    found = dict.fromkeys(_in(root), "")
    for name, split in folders.items():
        found |= dict.fromkeys((f"{name}/{file}" for file in _in(root / name)), split)
    return found


def _in(folder: pathlib.Path) -> list[str]:
    with os.scandir(folder) as entries:
        return sorted(
            entry.name
            for entry in entries
            if entry.name.lower().endswith(".json")
            and not entry.name.startswith(".")
            and entry.is_file()
        )


def form_of(path: pathlib.Path, request: Request, any_called: Callable[[set[str]], bool]) -> str:
    """The form of a file, told from its beginning.

    Args:
        path: of the file.
        request: settings that name columns.
        any_called: whether any image of the data set has one of some names.

    Returns:
        "coco", with lists of images and the like; "map", of files to labels; "classes", of classes
        to files; "splits", each with a list or a map; "records", one for each image; or "" for
        something else.
    """
    with path.open("rb") as file:
        head = file.read(_HEAD)
    text = head.decode("utf-16" if head[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8", "replace")
    text = text.removeprefix("\ufeff")
    if text.lstrip().startswith("{"):
        if _COCO.search(text):
            # Categories alone are the names of classes.
            return "coco" if len(head) == _HEAD or _LISTED.search(text) else ""
        if _MAP.match(text):
            return "map"
        first = _OF_SPLITS.match(text)
        if first and split_called(first[1]) and _NAMED.search(text):
            return "splits"
        if _OF_CLASSES.match(text):
            return "classes"
        if not _LINES.search(text):
            return ""
        text = f"[{_LINES.sub('},{', text)}"
    return "records" if _are_records(text, request, any_called) else ""


def _are_records(text: str, request: Request, any_called: Callable[[set[str]], bool]) -> bool:
    """Whether a list begins with objects that have a file, or with a list that has an image."""
    first = _first_entries(text)
    if first and isinstance(first[0], list):
        return len(first[0]) > 1 and any(isinstance(p, str) and is_image(p) for p in first[0])
    records = [("", each) for each in first if isinstance(each, dict)]
    table, _ = text_table(records)
    if not table.header:
        return False
    columns = choose_fields(table, request, any_called)
    if columns.file is None:
        return False
    is_called = any(plain(table.header[columns.file]) in group for group in FILES)
    return is_called or columns.labelled or table.header[columns.file] == request.file_column


def _first_entries(text: str) -> list[Any]:
    """The first objects or lists of a list of JSON of which only the beginning is there."""
    entries = list[Any]()
    decoder, match = json.JSONDecoder(), _RECORDS.match(text)
    while match and len(entries) < _SOME:
        try:
            entry, end = decoder.raw_decode(text, match.end())
        except (ValueError, RecursionError):
            break
        entries.append(entry)
        match = _NEXT.match(text, end)
    return entries


def load_json(path: pathlib.Path, notes: Notes) -> Any:
    """What a JSON file holds; None, and a problem, if it is not JSON."""
    try:
        return json.loads(path.read_bytes())
    except RecursionError:
        notes.problems.append(f"{path} is not a list of images: it is nested too deep.")
    except ValueError as error:
        if (lines := _json_lines(path)) is not None:
            return lines
        if told := no_image.pointer_at(path):
            notes.problems.append(f"{path} is {told}.")
            return None
        reason = str(error).splitlines()[0].removesuffix(".")
        notes.problems.append(f"{path} is not whole JSON ({reason}); copy it again.")
    return None


def _json_lines(path: pathlib.Path) -> list[Any] | None:
    """The objects of a file that has one a line, or None where it is none of these."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
        objects = [json.loads(line) for line in text.split("\n") if line.strip()]
    except (ValueError, RecursionError):
        return None
    return objects if all(isinstance(each, dict) for each in objects) else None
