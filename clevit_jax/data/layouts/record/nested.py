"""Records whose fields are objects and lists, as programs for labelling write them, made flat."""

from collections.abc import Mapping, Sequence
from typing import Any

from clevit_jax.data.layouts.columns import (
    BOXES,
    CLASS_NAMES,
    FILES,
    LABELS,
    MAYBE_LABELS,
    plain,
)

_DEEPEST = 6
_LABELS = frozenset(name for group in (*LABELS, *MAYBE_LABELS[:1], *CLASS_NAMES) for name in group)
_FILES = frozenset(name for group in FILES for name in group)
_CANCELLED = "was_cancelled"  # of an annotation of Label Studio


def flat(record: Mapping[str, Any]) -> dict[str, Any]:
    """A record whose fields are numbers and texts, or lists of several of these.

    What is in an object is a field of the record, unless it has one of the name; `category: {id: 3,
    name: oak}` is `category_id` and `category_name`. A list of one is what is in it. Of several
    objects, as annotations are, a field on which they differ is the list of its values.

    >>> choice = {"result": [{"value": {"choices": ["oak"]}}]}
    >>> flat({"data": {"image": "a.jpg"}, "annotations": [choice]})
    {'image': 'a.jpg', 'choices': 'oak'}
    >>> flat({"image": "a.jpg", "annotations": [{"label": "oak"}, {"label": "ash"}]})
    {'image': 'a.jpg', 'label': ['oak', 'ash']}
    """
    if not any(isinstance(value, dict | list) for value in record.values()):
        return dict(record)
    return _flat(record, 0)


def several(records: Sequence[tuple[str, Mapping[str, Any]]], field: str) -> list[str]:
    """Those of flat records that have several values of a field: their places and values."""
    return [
        f"{place}: {', '.join(map(repr, row[field][:3]))}"
        for place, row in records
        if isinstance(row.get(field), list) and len(row[field]) > 1
    ]


def label_like(name: str) -> bool:
    """Whether a field has a name that labels surely have."""
    return plain(name) in _LABELS


def _flat(record: Mapping[str, Any], depth: int) -> dict[str, Any]:
    made, lifted = dict[str, Any](), dict[str, Any]()
    for key, value in record.items():
        if isinstance(value, list):
            value = str(value) if plain(key) in BOXES else _of_list(value, depth)
        if not isinstance(value, dict):
            made[key] = value
        elif depth < _DEEPEST:
            inside = _flat(value, depth + 1)
            for name, each in (_named(key, inside)).items():
                lifted.setdefault(name, each)
    return made | {name: each for name, each in lifted.items() if name not in made}


def _named(key: str, inside: dict[str, Any]) -> dict[str, Any]:
    """The fields of an object as fields of the record."""
    if plain(key) in _FILES:
        file = next((name for name in inside if plain(name) in _FILES), None)
        return {key: inside[file]} if file is not None else inside
    if plain(key) in _LABELS:
        return {key if len(inside) == 1 else f"{key}_{name}": each for name, each in inside.items()}
    return inside


def _of_list(values: list[Any], depth: int) -> Any:
    """What a list says: its only value, or of objects, what they say together."""
    objects = [each for each in values if isinstance(each, dict) and not each.get(_CANCELLED)]
    if not objects:
        once = list(dict.fromkeys(v for v in values if isinstance(v, str | int | float)))
        return once[0] if len(once) == 1 == len(set(map(str, values))) else once
    together = dict[str, list[Any]]()
    for each in objects:
        for name, value in _flat(each, depth + 1).items() if depth < _DEEPEST else ():
            many = value if isinstance(value, list) else [value]
            known = together.setdefault(name, [])
            known += [one for one in many if one not in known]
    return {name: one[0] if len(one) == 1 else one for name, one in together.items()}
