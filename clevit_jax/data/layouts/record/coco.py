"""Lists in JSON: of COCO, iNaturalist and Herbarium, of files and labels, and of records."""

import pathlib
import posixpath
from collections.abc import Mapping, Sequence
from typing import Any

from clevit_jax.data.dataset import SPLIT_WORDS
from clevit_jax.data.layouts import table
from clevit_jax.data.layouts.columns import quoted_names
from clevit_jax.data.layouts.csv.made_rows import Read, joined, with_folds
from clevit_jax.data.layouts.file_places import FilePlaces
from clevit_jax.data.layouts.image_names import ImageNames
from clevit_jax.data.layouts.listing import Contents, Notes, Request, first_three, is_image
from clevit_jax.data.layouts.record import coco_lists
from clevit_jax.data.layouts.record.json_files import json_files, lists_images, load_json
from clevit_jax.data.layouts.record.json_forms import (
    Forms,
    class_names,
    transposed,
    with_keys,
)
from clevit_jax.data.layouts.record.nested import flat, label_like, several
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
    forms = Forms(request, ImageNames(root).any_called)
    found = {
        name: split for name, split in json_files(root).items() if lists_images(root / name, forms)
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
    rows = _with_names(root, rows, reader.names, notes)
    contents = table.to_contents(rows, str(root), notes, levels=levels, ids=ids)
    return with_folds(contents, said, notes)


def _with_names(
    root: pathlib.Path, rows: list[table.TableRow], names: Mapping[str, str], notes: Notes
) -> list[table.TableRow]:
    """Rows of numbers with the names of their classes, where the lists have these for all."""
    labels = {row.label for row in rows}
    if not names or any(row.class_name for row in rows) or not all(map(str.isdecimal, labels)):
        return rows
    shift = 0 if labels <= names.keys() else 1
    named = {label: names.get(str(int(label) - shift), "") for label in labels}
    if not all(named.values()):
        notes.warnings.append(
            f"{root}: the classes keep their numbers: the list of {len(names)} names beside the "
            f"images does not name label {next(n for n, name in named.items() if not name)}."
        )
        return rows
    return [row._replace(class_name=named[row.label]) for row in rows]


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
        self._forms = Forms(request, places.any_called)
        self.names: dict[str, str] = {}  # number -> name of the classes, where lists have them
        self.categories: dict[str, Mapping[str, Any]] = {}  # label -> category, of all COCO lists

    def read(self, name: str, split: str, content: Any) -> list[Read]:
        """What a list says, as far as it is right; the notes get what is wrong."""
        path, beside = self._root / name, posixpath.join(posixpath.dirname(name), "")
        if not isinstance(content, dict) or not content or not all(map(split_called, content)):
            return self._of_split(path, split, beside, content)
        return self._of_splits(path, beside, content, {key: split_called(key) for key in content})

    def _of_splits(
        self,
        path: pathlib.Path,
        beside: str,
        content: Mapping[str, Any],
        splits: Mapping[str, str | None],
    ) -> list[Read]:
        said = list[Read]()
        for each in SPLIT_WORDS:  # so that training images come first
            for key in [key for key, split in splits.items() if split == each]:
                if content[key] or not any(content.values()):  # else a split that is not used
                    said += self._of_split(path, each, beside, content[key])
        return said

    def _of_split(self, path: pathlib.Path, split: str, beside: str, content: Any) -> list[Read]:
        if isinstance(content, list):
            return [self._records(path, split, beside, _objects(content))]
        if not isinstance(content, dict):
            self._notes.problems.append(f"{path} holds no list of images.")
            return []
        match self._forms.of(content):
            case "coco":
                return [self._coco(path, split, beside, content)]
            case "columns":
                self.names |= class_names(content, "")
                return [self._records(path, split, beside, transposed(content))]
            case "wrapped":
                return self._wrapped(path, split, beside, content)
        if content and all(isinstance(value, dict) for value in content.values()):
            objects = with_keys(content, self._places.any_called)
            return [self._records(path, split, beside, objects)]
        return [self._pairs(path, split, beside, content)]

    def _wrapped(
        self, path: pathlib.Path, split: str, beside: str, content: Mapping[str, Any]
    ) -> list[Read]:
        """A list with something beside, as the names of the classes; or one for each split."""
        keys = self._forms.inside(content)
        splits = splits_among(keys)
        self.names |= class_names(content, keys[0])
        if len(keys) == 1:
            return self._of_split(path, split or splits.get(keys[0], ""), beside, content[keys[0]])
        if len(splits) == len(keys):
            return self._of_splits(path, beside, content, splits)
        self._notes.problems.append(
            f"{path} holds several lists of images ({quoted_names(keys)}), and which are of which "
            "split is not told; keep one, or call them train, val and test."
        )
        return []

    def _has_labels(self, content: Mapping[str, Any]) -> bool:
        """Whether images have labels themselves, surely or because there is no other list."""
        images = content["images"][:100]
        objects = [("", flat(image)) for image in images if isinstance(image, dict)]
        columns = choose_fields(text_table(objects)[0], self._request, self._places.any_called)
        is_sure = bool(columns.label.label) and columns.label.is_sure
        is_bare = "annotations" not in content and "categories" not in content
        return is_sure or is_bare or ("annotations" not in content and columns.labelled)

    def _records(self, path: pathlib.Path, split: str, beside: str, content: Sequence[Any]) -> Read:
        rows = [(f"image {i}", flat(row)) for i, row in enumerate(content) if isinstance(row, dict)]
        if len(rows) < len(content):
            self._notes.problems.append(
                f"{path}: {len(content) - len(rows)} of its {len(content)} entries are no objects "
                "with a file and a label."
            )
            return Read([])
        table_, places = text_table(rows)
        columns = choose_fields(table_, self._request, self._places.any_called)
        labels = [table_.header[i] for i in columns.label.label]
        labels = labels or list(
            filter(label_like, dict.fromkeys(k for _, row in rows for k in row))
        )
        mixed = {label: many for label in labels if (many := several(rows, label))}
        for label, many in mixed.items():
            self._notes.problems.append(
                f"{path}: {len(many):,} of its {len(rows):,} entries have several values of "
                f"{label!r} ({first_three(many)}), and one class is learned for each image here: "
                "write one for each, or remove these."
            )
        if mixed:
            return Read([])
        return self._records_reader.read(Records(path, split, beside, table_, places))

    def _pairs(
        self, path: pathlib.Path, split: str, beside: str, content: Mapping[str, Any]
    ) -> Read:
        """{file: label}, {file: [label]}, or {class: [file, ...]}."""
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
        problems, images = self._notes.problems, content.get("images")
        if not content.get("annotations") and images and self._has_labels(content):
            said = self._records(path, split, beside, images)
            self.names |= class_names(content, "images")
            categories = [c for c in content.get("categories") or () if isinstance(c, dict)]
            by_id = coco_lists.categories_of(categories)
            if all(row.label in by_id for row in said.rows):
                self.categories |= by_id
            return said
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
