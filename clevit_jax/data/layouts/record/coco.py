"""Lists in JSON: of COCO, iNaturalist and Herbarium, of files and labels, and of records."""

import pathlib
import posixpath
from collections.abc import Mapping, Sequence
from typing import Any

from clevit_jax.data.dataset import SPLIT_WORDS
from clevit_jax.data.layouts import table
from clevit_jax.data.layouts.csv.made_rows import Read, joined, with_folds
from clevit_jax.data.layouts.file_places import FilePlaces
from clevit_jax.data.layouts.image_names import ImageNames
from clevit_jax.data.layouts.listing import Contents, Notes, Request, first_three, is_image
from clevit_jax.data.layouts.record import coco_lists
from clevit_jax.data.layouts.record.json_files import form_of, json_files, load_json
from clevit_jax.data.layouts.record.record_table import choose_fields, text_of, text_table
from clevit_jax.data.layouts.record.records import (
    RecordReader,
    Records,
    choose_lists,
    find_files,
    open_places,
    split_by_folder,
)
from clevit_jax.data.split_names import split_called, splits_among

LOOKS_FOR = (
    "*.json with images, annotations and categories, as COCO and iNaturalist have; or of files and "
    "labels"
)


def fits(root: pathlib.Path, request: Request) -> str | None:
    """What the layout is recognised by, or None. Only the beginning of each file is read."""
    return first_three(list(_lists(root, request))) or None


def _lists(root: pathlib.Path, request: Request) -> dict[str, str]:
    """JSON list below `root` -> the split that its folder or name means, or ""."""
    any_called = ImageNames(root).any_called
    found = {
        name: split
        for name, split in json_files(root).items()
        if form_of(root / name, request, any_called)
    }
    stems = {name: posixpath.splitext(posixpath.basename(name))[0] for name in found}
    splits = splits_among(stems.values())
    return {name: split or splits.get(stems[name], "") for name, split in found.items()}


def read(root: pathlib.Path, request: Request, notes: Notes) -> Contents:
    """Reads the JSON lists in `root`, in its folders of splits, and in annotations/ and alike.

    COCO and what is made like it (iNaturalist, Herbarium, Roboflow) have `images`, `annotations`
    and `categories`: classes are the categories, and what is above them (`supercategory`, `genus`
    and the like) is kept as levels. Of several annotations of one image, as boxes are, all must be
    of one category. Other lists are {file: label}, {class: [file, ...]}, or a list of objects with
    a file and a label, or of [file, label, name]; or {split: one of these}. The split is told by
    the folder or the name of the list, else by a field `split`, else by the folder of the image. A
    list for testing without labels is left out.
    """
    places = open_places(root, notes)
    lists = _lists(root, request)
    if not lists:
        notes.problems.append(f"{root} holds no list of images in JSON; looked for {LOOKS_FOR}.")
    loaded = {name: load_json(root / name, notes) for name in lists}
    for name in [name for name, content in loaded.items() if coco_lists.is_unlabelled(content)]:
        if len(lists) > 1 and lists[name] != "train":
            notes.warnings.append(f"{root / name} has no annotations, and is not read.")
            del lists[name]
    chosen = choose_lists(lists, str(root), notes)
    if notes.problems:
        return Contents((), {"train": []})
    reader = _JsonReader(root, request, places, notes)
    said = [each for name in chosen for each in reader.read(name, chosen[name], loaded.pop(name))]
    rows, levels = joined(said)
    if not rows and notes.problems:
        return Contents((), {"train": []})
    rows = split_by_folder(rows, places, request, root, notes)
    if reader.categories:
        rows, levels = coco_lists.with_levels(rows, reader.categories)
    if unused := coco_lists.unused(rows, reader.categories):
        notes.warnings.append(
            f"{root}: {len(unused)} categories of the lists have no training image, and are no "
            f"classes ({first_three(unused)})."
        )
    ids = bool(reader.categories)
    contents = table.to_contents(rows, str(root), notes, levels=levels, ids=ids)
    return with_folds(contents, said, notes)


def _objects(content: Sequence[Any]) -> Sequence[Any]:
    """Entries [file, label] or [file, label, name] as objects, the parts told by the first one."""
    if not content or not all(isinstance(each, list) and each for each in content):
        return content
    first = content[0]
    if any(len(each) != len(first) for each in content):
        return content
    files = [i for i, part in enumerate(first) if isinstance(part, str) and is_image(part)]
    others = [i for i, part in enumerate(first) if isinstance(part, str | int) and i not in files]
    numbers = [i for i in others if isinstance(first[i], int)]
    if len(files) != 1 or (len(others), len(numbers)) not in ((1, 0), (1, 1), (2, 1)):
        return content
    label = (numbers or others)[0]
    names = [i for i in others if i != label]
    fields = {"file": files[0], "label": label} | ({"class_name": names[0]} if names else {})
    return [{field: each[i] for field, i in fields.items()} for each in content]


def _with_file(content: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The objects of {file: object}, each with its file."""
    field = "file_name" if any(map(is_image, content)) else "image_id"
    return [{field: key} | each for key, each in content.items()]


class _JsonReader:
    """Reader of lists, of whatever form."""

    def __init__(self, root: pathlib.Path, request: Request, places: FilePlaces, notes: Notes):
        self._root = root
        self._request = request
        self._places = places
        self._notes = notes
        self._records_reader = RecordReader(root, request, places, notes)
        self._pairs_reader = RecordReader(
            root, request._replace(file_column="", label_column=""), places, notes
        )
        self.categories: dict[str, Mapping[str, Any]] = {}  # label -> category, of all COCO lists

    def read(self, name: str, split: str, content: Any) -> list[Read]:
        """What a list says, as far as it is right; the notes get what is wrong."""
        path, beside = self._root / name, posixpath.join(posixpath.dirname(name), "")
        if not isinstance(content, dict) or not content or not all(map(split_called, content)):
            return [self._of_split(path, split, beside, content)]
        said = list[Read]()
        for each in SPLIT_WORDS:  # so that training images come first
            for key in [key for key in content if split_called(key) == each]:
                if content[key] or not any(content.values()):  # else a split that is not used
                    said.append(self._of_split(path, each, beside, content[key]))
        return said

    def _of_split(self, path: pathlib.Path, split: str, beside: str, content: Any) -> Read:
        if isinstance(content, list):
            return self._records(path, split, beside, _objects(content))
        if not isinstance(content, dict):
            self._notes.problems.append(f"{path} holds no list of images.")
            return Read([])
        if isinstance(content.get("images"), list):
            images = content["images"]
            if not content.get("annotations") and self._has_labels(images):
                return self._records(path, split, beside, images)
            return self._coco(path, split, beside, content)
        return self._pairs(path, split, beside, content)

    def _has_labels(self, images: Sequence[Any]) -> bool:
        objects = [("", image) for image in images[:100] if isinstance(image, dict)]
        columns = choose_fields(text_table(objects)[0], self._request, self._places.any_called)
        return bool(columns.label.label) and columns.label.is_sure

    def _records(self, path: pathlib.Path, split: str, beside: str, content: Sequence[Any]) -> Read:
        rows = [(f"image {i}", row) for i, row in enumerate(content) if isinstance(row, dict)]
        if len(rows) < len(content):
            self._notes.problems.append(
                f"{path}: {len(content) - len(rows)} of its {len(content)} entries are no objects "
                "with a file and a label."
            )
            return Read([])
        return self._records_reader.read(Records(path, split, beside, *text_table(rows)))

    def _pairs(
        self, path: pathlib.Path, split: str, beside: str, content: Mapping[str, Any]
    ) -> Read:
        """{file: label}, {file: [label]}, {file: {"label": label}}, or {class: [file, ...]}."""
        if content and all(isinstance(value, dict) for value in content.values()):
            return self._records(path, split, beside, _with_file(content))
        of_files = bool(content) and all(map(is_image, content))
        pairs, strange = list[tuple[str, str]](), list[str]()
        for key, value in content.items():
            if of_files and isinstance(value, list) and len(value) == 1:
                value = value[0]
            if isinstance(value, str | int | float) and text_of(value):
                pairs.append((text_of(key), text_of(value)))
            elif (
                not of_files
                and isinstance(value, list)
                and all(isinstance(each, str) for each in value)
            ):
                pairs.extend((text_of(file), text_of(key)) for file in value)
            else:
                strange.append(key)
        if strange:
            self._notes.problems.append(
                f"{path}: {len(strange)} of its {len(content)} entries have no label that is one "
                f"number or one text ({first_three([repr(key) for key in strange])}); one class is "
                "learned for each image here: write one, or remove these."
            )
            return Read([])
        rows = [(f"image {file!r}", {"file": file, "label": label}) for file, label in pairs]
        return self._pairs_reader.read(Records(path, split, beside, *text_table(rows)))

    def _coco(
        self, path: pathlib.Path, split: str, beside: str, content: Mapping[str, Any]
    ) -> Read:
        problems = self._notes.problems
        listed = coco_lists.listed(path, content, self._notes)
        if listed is None:
            return Read([])
        for label, category in listed.categories.items():
            known = self.categories.setdefault(label, category)
            if coco_lists.name_of(known) != coco_lists.name_of(category):
                problems.append(
                    f"{path}: the category {label} is {coco_lists.name_of(category)!r} here, but "
                    f"{coco_lists.name_of(known)!r} in another list."
                )
        names = [image.name for image in listed.images]
        files = find_files(names, path, beside, split, self._places, self._notes)
        rows = list[table.TableRow]()
        for image in listed.images:
            if image.name in files:
                file = files[image.name]
                where = f"{path}, image {image.id}"
                rows.append(table.TableRow(where, split, image.label, "", self._root / file, file))
        return Read(rows)
