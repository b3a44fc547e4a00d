"""Images, annotations and categories of one JSON list, as COCO, iNaturalist and Herbarium have."""

import collections
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from clevit_jax.data.layouts import table
from clevit_jax.data.layouts.listing import Notes, first_three
from clevit_jax.data.layouts.record.record_table import text_of

_NAMES = ("name", "scientificName", "scientific_name", "category_name", "common_name")
_LABELS = ("category_id", "label_id", "class_id", "label", "category", "class", "species")
# Ranks above a category, the coarsest first.
_RANKS = ("supercategory", "kingdom", "phylum", "class", "order", "family", "genus")


class Image(NamedTuple):
    """An image of a list: its id and file as the list has them, and the label of its category."""

    id: str
    name: str
    label: str


class Listed(NamedTuple):
    """The labelled images of a list, and its categories by label."""

    images: list[Image]
    categories: dict[str, Mapping[str, Any]]


def is_unlabelled(content: Any) -> bool:
    """Whether what a JSON file holds is a list of images, of which none has a label."""
    images = content.get("images") if isinstance(content, dict) else content
    if not isinstance(images, list) or not images:
        return False
    if isinstance(content, dict) and content.get("annotations"):
        return False
    fields = {key for image in images[:100] if isinstance(image, dict) for key in image}
    return "file_name" in fields and not any("label" in key or "categ" in key for key in fields)


def name_of(category: Mapping[str, Any]) -> str:
    """The name of a category, "" if it has none."""
    return next((text for key in _NAMES if (text := text_of(category.get(key)))), "")


def listed(path: pathlib.Path, content: Mapping[str, Any], notes: Notes) -> Listed | None:
    """The images of a list with their categories; None, and a problem, where it is none.

    Ids are those of COCO (`id`), or those of Herbarium (`image_id`, `category_id`).
    """
    parts = {}
    for part in ("images", "annotations", "categories"):
        objects = content.get(part) or []
        if not isinstance(objects, list) or not all(isinstance(each, dict) for each in objects):
            notes.problems.append(f"{path}: {part!r} is no list of objects; copy the file again.")
            return None
        parts[part] = objects
    empty = [part for part in ("images", "annotations") if not parts[part]]
    if empty:
        missing = " and ".join(f"{part!r}" for part in empty)
        notes.problems.append(
            f"{path} has an empty list of {missing}, so no class; copy the whole "
            "file there, or set data.layout=folders if folders are the classes."
        )
        return None
    categories = categories_of(parts["categories"])
    labels = _labels(path, parts["annotations"], notes)
    if categories:
        unknown = sorted(
            {label for inside in labels.values() for label in inside} - set(categories)
        )
        if unknown:
            notes.problems.append(
                f"{path}: {len(unknown)} categories of its annotations are not in its list of "
                f"categories ({first_three(unknown)})."
            )
    return Listed(_images(path, parts["images"], labels, notes), categories)


def categories_of(listed: Sequence[Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """Label -> category, of those that have an id."""
    return {label: each for each in listed if (label := _id(each, "id", "category_id", "label_id"))}


def _id(one: Mapping[str, Any], *keys: str) -> str:
    for key in keys:
        if text := text_of(one.get(key)):
            return text
    return ""


def _labels(
    path: pathlib.Path, annotations: Sequence[Mapping[str, Any]], notes: Notes
) -> dict[str, list[str]]:
    """Id of each image -> the different labels that it has."""
    labels: dict[str, list[str]] = {}
    nameless = 0
    for one in annotations:
        image, label = _id(one, "image_id"), _id(one, *_LABELS)
        if not image or not label:
            nameless += 1
        elif label not in labels.setdefault(image, []):
            labels[image].append(label)
    if nameless:
        notes.problems.append(
            f"{path}: {nameless} of its {len(annotations)} annotations have no image_id or no "
            "category_id."
        )
    return labels


def _images(
    path: pathlib.Path,
    objects: Sequence[Mapping[str, Any]],
    labels: Mapping[str, Sequence[str]],
    notes: Notes,
) -> list[Image]:
    """The images with one label; the notes get those with none, and those with several."""
    images, unlabelled, mixed, nameless = [], list[str](), list[str](), 0
    ids = set[str]()
    for one in objects:
        key, name = _id(one, "id", "image_id"), text_of(one.get("file_name"))
        name = name or key  # as iMaterialist has them: the file is called as the id
        if not key or not name:
            nameless += 1
            continue
        ids.add(key)
        inside = labels.get(key, ())
        if len(inside) == 1:
            images.append(Image(key, name, inside[0]))
        else:
            (mixed if inside else unlabelled).append(name)
    if nameless:
        notes.problems.append(f"{path}: {nameless} of its {len(objects)} images have no id.")
    if mixed:
        notes.problems.append(
            f"{path}: {len(mixed)} of its {len(objects)} images have annotations of several "
            f"categories ({first_three(mixed)}), so no one class; remove these images from the "
            "list, or cut the boxes out as images of their own."
        )
    if unlabelled:
        notes.warnings.append(
            f"{path}: {len(unlabelled)} of its {len(objects)} images have no annotation and are "
            f"not read ({first_three(unlabelled)})."
        )
    lost = sorted(set(labels) - ids)
    if lost:
        notes.problems.append(
            f"{path}: {len(lost)} images that annotations name are not in its list of images "
            f"({first_three(lost)})."
        )
    return images


def unused(
    rows: Sequence[table.TableRow], categories: Mapping[str, Mapping[str, Any]]
) -> list[str]:
    """Names of the categories without a training image, less those that only group others."""
    used = {row.label for row in rows if row.split == "train"}
    groups = {text_of(each.get("supercategory")) for each in categories.values()}
    names = {label: name_of(each) or label for label, each in categories.items()}
    return [name for label, name in names.items() if label not in used and name not in groups]


def with_levels(
    rows: Sequence[table.TableRow], categories: Mapping[str, Mapping[str, Any]]
) -> tuple[list[table.TableRow], tuple[str, ...]]:
    """Rows with the names of their categories and the groups above them, and names of the levels.

    A name that two categories have gets what is above it, or its number, behind it.
    """
    used = {row.label: categories[row.label] for row in rows if row.label in categories}
    if not used or len(used) < len({row.label for row in rows}):
        return list(rows), ()
    names = _distinct({label: name_of(each) or label for label, each in used.items()}, used)
    groups = _levels(used)
    return [
        row._replace(
            class_name=names[row.label],
            groups=tuple(inside[row.label] for inside in groups.values()),
        )
        for row in rows
    ], tuple(groups)


def _distinct(
    names: Mapping[str, str], categories: Mapping[str, Mapping[str, Any]]
) -> dict[str, str]:
    counts = collections.Counter(names.values())
    again = [label for label, name in names.items() if counts[name] > 1]
    made = dict(names)
    for rank in (*reversed(_RANKS), ""):
        if len(set(made.values())) == len(made):
            break
        for label in again:
            above = text_of(categories[label].get(rank)) if rank else label
            made[label] = f"{names[label]} ({above})"
    return made


def _levels(categories: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, str]]:
    """Rank -> label -> group, the coarsest first; a rank that says nothing new is left out."""
    levels: dict[str, dict[str, str]] = {}
    partitions = list[tuple[int, ...]]()
    for rank in _RANKS:
        groups = {label: text_of(each.get(rank)) for label, each in categories.items()}
        numbers = {group: i for i, group in enumerate(dict.fromkeys(groups.values()))}
        partition = tuple(numbers[group] for group in groups.values())
        sensible = 1 < len(numbers) < len(categories) and all(groups.values())
        if sensible and partition not in partitions:
            partitions.append(partition)
            levels[rank] = groups
    return dict(sorted(levels.items(), key=lambda level: len(set(level[1].values()))))
