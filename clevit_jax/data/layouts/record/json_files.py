"""JSON files that list images: which there are, of which form, and what is in them."""

import json
import os
import pathlib
import re
from typing import Any

from clevit_jax.data import no_image
from clevit_jax.data.layouts.columns import choose_columns
from clevit_jax.data.layouts.listing import EXTENSIONS, Notes, Request, is_image
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
_BY_KEY = re.compile(r'\s*\{\s*"[^"\\]+"\s*:\s*(?=\{)')
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


def form_of(path: pathlib.Path, request: Request) -> str:
    """The form of a file, told from its beginning.

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
        if _is_by_image(text, request):
            return "map"
        return "records" if _LINES.search(text) and _is_record(f"[{text}", request) else ""
    return "records" if _is_record(text, request) else ""


def _is_record(text: str, request: Request) -> bool:
    """Whether a list begins with an object that has a file, or with a list that has an image."""
    if not (match := _RECORDS.match(text)):
        return False
    try:
        first, _ = json.JSONDecoder().raw_decode(text, match.end())
    except (ValueError, RecursionError):
        return False
    if isinstance(first, list):
        return len(first) > 1 and any(isinstance(part, str) and is_image(part) for part in first)
    columns, _ = choose_columns([str(name) for name in first], request)
    return columns.file is not None


def _is_by_image(text: str, request: Request) -> bool:
    """Whether an object begins with the key of an image, as its id, and its label and split."""
    if not (match := _BY_KEY.match(text)):
        return False
    try:
        first, _ = json.JSONDecoder().raw_decode(text, match.end())
    except (ValueError, RecursionError):
        return False
    columns, _ = choose_columns(["image_id", *map(str, first)], request)
    return columns.label is not None and columns.split is not None


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
