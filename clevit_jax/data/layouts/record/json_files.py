"""JSON files that list images: which there are, of which form, and what is in them."""

import json
import os
import pathlib
from typing import Any

from clevit_jax.data import no_image
from clevit_jax.data.layouts.listing import Notes
from clevit_jax.data.layouts.record.json_forms import Forms, begun, may_go_on
from clevit_jax.data.split_names import splits_among

_HEAD = 1 << 16  # bytes that tell the form of a file
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


def lists_images(path: pathlib.Path, forms: Forms) -> bool:
    """Whether a file lists images, told from its beginning."""
    with path.open("rb") as file:
        head = file.read(_HEAD)
    text = head.decode("utf-16" if head[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8", "replace")
    content = begun(text)
    return bool(forms.of(content)) or (len(head) == _HEAD and may_go_on(content))


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
