"""Forms of lists of images in JSON: what a content is, or what it begins with."""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from clevit_jax.data.layouts.columns import FILES, plain
from clevit_jax.data.layouts.listing import Request, is_image
from clevit_jax.data.layouts.record.nested import flat
from clevit_jax.data.layouts.record.record_table import choose_fields, text_table
from clevit_jax.data.split_names import split_called

_SOME = 50  # entries that tell the form
_DEEPEST = 4  # levels of which the beginning is looked at
_NEXT = re.compile(r"\s*,?\s*")
_KEY = re.compile(r"\s*:\s*")
_LINES = re.compile(r"\}[ \t]*\r?\n[ \t]*\{")  # an object a line
# Lists of classes beside a list of images, as they are called.
_CLASSES = ("classes", "classnames", "categories", "labelnames", "names", "labelmap", "idtoclass",
            "idtolabel", "id2label", "id2class", "classtoidx", "label2id", "labels")  # fmt: skip


class Forms(NamedTuple):
    """What tells the form of a list.

    Attributes:
        request: settings that name columns.
        any_called: whether any image of the data set has one of some names.
    """

    request: Request
    any_called: Callable[[set[str]], bool]

    def of(self, content: Any, depth: int = 0) -> str:
        """The form of what a JSON file holds, or begins with.

        Returns:
            "coco", with lists of images and the like; "map", of files to labels; "classes", of
            classes to files; "objects", of files or ids to objects; "records", a list of one for
            each image; "columns", of files and labels; "splits", each with one of these;
            "wrapped", one of these with something beside; or "" for something else.
        """
        if isinstance(content, list):
            return "records" if self._are_records(content, labelled=depth > 0) else ""
        if not isinstance(content, dict) or not content:
            return ""
        if _is_coco(content):
            return "coco"
        if self._is_map(content):
            return "map"
        lists = [value for value in content.values() if isinstance(value, list | dict)]
        if all(map(split_called, content)) and len(lists) == len(content):
            return "splits" if any(self.of(each, depth + 1) for each in lists) else ""
        if self._is_of_classes(content):
            return "classes"
        if self._are_objects(content):
            return "objects"
        if self._are_records(transposed(content), labelled=True):
            return "columns"
        return "wrapped" if depth < 2 and self.inside(content, depth + 1) else ""

    def inside(self, content: Mapping[str, Any], depth: int = 1) -> list[str]:
        """The keys of an object whose values are lists of images, where something is beside."""
        keys = [key for key, value in content.items() if isinstance(value, list | dict) and value]
        found = [key for key in keys if self.of(content[key], depth)]
        if not found and len(keys) > 1:  # as FiftyOne has them: files lack their endings
            found = [
                key
                for key in keys
                if isinstance(content[key], dict)
                and any(plain(other) in _CLASSES for other in keys if other != key)
                and all(isinstance(value, str | int) for value in content[key].values())
                and self.any_called(set(list(content[key])[:_SOME]))
            ]
        return found

    def _are_records(self, content: Sequence[Any], *, labelled: bool = False) -> bool:
        first = content[:_SOME]
        if first and isinstance(first[0], list):
            return len(first[0]) > 1 and any(isinstance(p, str) and is_image(p) for p in first[0])
        records = [("", flat(each)) for each in first if isinstance(each, dict)]
        table, _ = text_table(records)
        if not table.header:
            return False
        columns = choose_fields(table, self.request, self.any_called)
        if columns.file is None:
            return False
        name = table.header[columns.file]
        is_called = any(plain(name) in group for group in FILES)
        if labelled or not (is_called or name == self.request.file_column):
            return columns.labelled
        return True

    def _is_map(self, content: Mapping[str, Any]) -> bool:
        """Whether keys are images; or are called so, and values repeat, unlike those of names."""
        if all(map(is_image, content)):
            return True
        values = [value for value in content.values() if isinstance(value, str | int)]
        repeats = len(values) == len(content) and 1 < 2 * len(set(values)) <= len(values)
        return repeats and self._are_stems(list(content)[:_SOME])

    def _are_stems(self, names: Sequence[str]) -> bool:
        """Whether names are those of images without their endings; 1, 2, 3 may well be classes."""
        is_counted = all(name.isdecimal() and name[:-1][:1] != "0" for name in names)
        return not is_counted and self.any_called(set(names))

    def _is_of_classes(self, content: Mapping[str, Any]) -> bool:
        values = list(content.values())
        if not all(isinstance(value, list) for value in values):
            return False
        lists = [value[:_SOME] for value in values if value]
        if not lists or not all(isinstance(file, str) for files in lists for file in files):
            return False
        return all(all(map(is_image, files)) or self._are_stems(files) for files in lists)

    def _are_objects(self, content: Mapping[str, Any]) -> bool:
        """Whether values are objects with labels, of files that are their keys or inside."""
        if not all(isinstance(value, dict) for value in content.values()):
            return False
        some = dict(list(content.items())[:_SOME])
        records = [
            ("", flat(each)) for each in with_keys(some, lambda names: self._are_stems([*names]))
        ]
        table, _ = text_table(records)
        columns = choose_fields(table, self.request, self.any_called)
        return (
            columns.file is not None
            and columns.labelled
            and all(row[columns.file] for row in table.rows)
        )


def _is_coco(content: Mapping[str, Any]) -> bool:
    images = content.get("images")
    if isinstance(images, list):
        return not images or isinstance(images[0], dict)
    return isinstance(content.get("annotations"), list) and "categories" in content


def may_go_on(content: Any) -> bool:
    """Whether a list of images may follow what a file begins with.

    Categories alone are the names of classes, unless images come after; of files, labels may come.
    """
    if not isinstance(content, dict):
        return False
    files = [
        value
        for key, value in content.items()
        if any(plain(key) in group for group in FILES) and isinstance(value, list)
    ]
    return "categories" in content or any(
        all(isinstance(file, str) and is_image(file) for file in names) for names in files if names
    )


def with_keys(
    content: Mapping[str, Any], any_called: Callable[[set[str]], bool]
) -> list[dict[str, Any]]:
    """The objects of {file: object}, each with its file, where keys are files.

    >>> with_keys({"a.jpg": {"label": "oak"}}, lambda names: False)
    [{'file_name': 'a.jpg', 'label': 'oak'}]
    """
    if any(map(is_image, content)):
        return [{"file_name": key} | each for key, each in content.items()]
    if any_called(set(content)):
        return [{"image_id": key} | each for key, each in content.items()]
    return [dict(each) for each in content.values()]


def transposed(content: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The rows of {column: [value, ...]} or {column: {row: value}}, as pandas writes them; or none.

    Columns are those of numbers and texts that have as many values as most have.

    >>> transposed({"image": ["a.jpg", "b.jpg"], "label": [0, 1], "classes": ["ash"]})
    [{'image': 'a.jpg', 'label': 0}, {'image': 'b.jpg', 'label': 1}]
    """
    lists = {
        key: list(value.values()) if isinstance(value, dict) else value
        for key, value in content.items()
        if isinstance(value, list | dict) and value
    }
    plain_lists = {
        key: values
        for key, values in lists.items()
        if all(isinstance(value, str | int | float | None) for value in values)
    }
    count = max(map(len, plain_lists.values()), default=0)
    columns = {key: values for key, values in plain_lists.items() if len(values) == count}
    if len(columns) < 2:
        return []
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def class_names(content: Mapping[str, Any], key: str) -> dict[str, str]:
    """Number -> name of the classes that are listed beside the images under `key`."""
    for other, listed in content.items():
        if other == key or plain(other) not in _CLASSES or not listed:
            continue
        if isinstance(listed, list) and all(isinstance(each, str) for each in listed):
            return {str(i): name for i, name in enumerate(listed)}
        if isinstance(listed, dict) and all(isinstance(each, str) for each in listed.values()):
            return {str(number): name for number, name in listed.items()}
        if isinstance(listed, dict) and all(type(each) is int for each in listed.values()):
            return {str(number): name for name, number in listed.items()}
    return {}


def begun(text: str) -> Any:
    """What a text of JSON holds of which perhaps the end lacks; None where it is none.

    >>> begun('{"a": [{"b": 1}, {"b": 2}, {"b"')
    {'a': [{'b': 1}, {'b': 2}]}
    """
    text = text.removeprefix("\ufeff").lstrip()
    if text.startswith("{") and _LINES.search(text):
        lines = _begun(f"[{_LINES.sub('},{', text)}", 0, 0)
        if isinstance(lines, list) and len(lines) > 1:
            return lines
    return _begun(text, 0, 0)


def _begun(text: str, start: int, depth: int) -> Any:
    """The value that begins at `start`: all of it, or the first entries of a list or an object."""
    decoder = json.JSONDecoder()
    try:
        return decoder.raw_decode(text, start)[0]
    except (ValueError, RecursionError):
        pass
    if depth > _DEEPEST or text[start : start + 1] not in ("[", "{"):
        return None
    is_object = text[start] == "{"
    entries, made = list[Any](), dict[str, Any]()
    at = start + 1
    while True:
        match = _NEXT.match(text, at)
        at = match.end() if match else at
        key = ""
        if is_object:
            try:
                key, at = decoder.raw_decode(text, at)
            except (ValueError, RecursionError):
                break
            colon = _KEY.match(text, at)
            if not isinstance(key, str) or colon is None:
                break
            at = colon.end()
        try:
            value, at = decoder.raw_decode(text, at)
        except (ValueError, RecursionError):
            value = _begun(text, at, depth + 1)
            if value is not None and value != {}:
                entries.append(value)
                made[key] = value
            break
        entries.append(value)
        made[key] = value
    return made if is_object else entries
