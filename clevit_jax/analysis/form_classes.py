"""What is written for an image into a form: a class, several, or the probability of each.

The form's own rows show which: names of classes, numbers, or a column for each class. Where they
do not show it, the user is asked, by `--form_classes`.
"""

import os
import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from clevit_jax.analysis.submission_form import Form, read_codes
from clevit_jax.data.layouts.listing import first_three
from clevit_jax.errors import ConfigError
from clevit_jax.inference.class_names import find_class, fold, nearest_names
from clevit_jax.system.fetch import local

FLAG = "--form_classes"
_INTEGER, _NUMBER = r"[+-]?[0-9]+", r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?"


class Filling(NamedTuple):
    """How the cells of a row are made.

    Attributes:
        columns: places of the columns that are filled in.
        cells: gives the cells of these columns for the probabilities of an image, [K].
        said: what is written, for the user.
    """

    columns: list[int]
    cells: Callable[[np.ndarray], list[str]]
    said: str


class _Codes(NamedTuple):
    """How a form writes the classes.

    Attributes:
        texts: what stands for each class.
        said: how these are known.
    """

    texts: list[str]
    said: str


def choose_filling(
    form: Form, id_column: int, class_names: Sequence[str], given: str, source: str
) -> Filling:
    """How a form is filled in.

    Args:
        form: the form.
        id_column: place of the column of the ids. A column without a name is left as it is.
        class_names: the classes of the model.
        given: what `--form_classes` says: the number of the first class; a file of what is written
            and classes; the class whose probability is written; or "".
        source: what messages call the model.

    Raises:
        ConfigError: the form can be read in several ways, or has a class that the model lacks.
    """
    columns = [i for i, name in enumerate(form.columns) if i != id_column and name]
    if not columns:
        raise ConfigError(f"{form.path} has no column beside {form.columns[id_column]!r} to fill.")
    codes, only = _given(given, class_names, source)
    if len(columns) > 1 and only is not None:
        raise ConfigError(
            f"{FLAG}={given} is for a form with one column to fill in; {form.path} has "
            f"{len(columns)}."
        )
    if len(columns) > 1:
        return _probabilities(form, columns, class_names, codes, source)
    column = columns[0]
    values = sorted({row[column].strip() for row in form.rows} - {""})
    numeric = bool(values) and all(re.fullmatch(_NUMBER, value) for value in values)
    if only is None and codes is None and numeric:
        only = _class_of_header(form.columns[column], class_names)
    if only is not None:
        said = f"the probability of {class_names[only]!r} in the column {form.columns[column]!r}"
        return Filling([column], lambda row: [_share(row[only])], said)
    codes = codes or _codes_of_values(form, column, values, class_names, source)
    count = _count(values, codes.texts)
    texts = codes.texts

    def best(probabilities: np.ndarray) -> list[str]:
        order = np.argsort(-probabilities, kind="stable")[:count]
        return [" ".join(texts[i] for i in order)]

    what = "the class" if count == 1 else f"the {count} most probable classes"
    return Filling([column], best, f"{what} in the column {form.columns[column]!r}, {codes.said}")


def _given(given: str, class_names: Sequence[str], source: str) -> tuple[_Codes | None, int | None]:
    """What `--form_classes` says: how classes are written, or the one class that is."""
    if not given:
        return None, None
    if given in ("0", "1") and given not in class_names:
        first = int(given)
        texts = [str(first + i) for i in range(len(class_names))]
        ends = f"{texts[0]} = {class_names[0]!r} to {texts[-1]} = {class_names[-1]!r}"
        return _Codes(texts, f"by number in the order of the run: {ends}"), None
    path = local(given, FLAG)
    if not os.path.isfile(path):
        try:
            return None, find_class(given, class_names, source)
        except ValueError as error:
            raise ConfigError(f"{FLAG}: there is no file {path}, and {error}") from error
    pairs = read_codes(path, FLAG)
    known = {_composed(name): name for name in class_names}
    # The names are on the side that has more of them.
    if sum(_composed(a) in known for a, _ in pairs) > sum(_composed(b) in known for _, b in pairs):
        pairs = [(b, a) for a, b in pairs]
    by_name = {_composed(name): code for code, name in pairs}
    lacking = [name for name in class_names if _composed(name) not in by_name]
    if lacking:
        near = nearest_names(lacking[0], [name for _, name in pairs])
        meant = f" (is it {near[0]!r}?)" if near else ""
        raise ConfigError(
            f"{FLAG} {path} lacks {len(lacking)} of the {len(class_names)} classes: "
            f"{first_three(list(map(repr, lacking)))}{meant}; write each as the run calls it."
        )
    return _Codes([by_name[_composed(name)] for name in class_names], f"as {path} says"), None


def _class_of_header(header: str, class_names: Sequence[str]) -> int | None:
    """The class that a column of numbers is named after, None if it is none."""
    found = [i for i, name in enumerate(class_names) if fold(name) == fold(header)]
    return found[0] if len(found) == 1 else None


def _codes_of_values(
    form: Form, column: int, values: list[str], class_names: Sequence[str], source: str
) -> _Codes:
    """How the classes are written, by what the form shows. Raises ConfigError where it does not."""
    name = form.columns[column]
    known = set(map(_composed, class_names))
    words = [word for value in values for word in _words(value, known)]
    unknown = sorted({word for word in words if _composed(word) not in known})
    if len(unknown) < len(set(words)) or not values:
        said = "by its name in the run"
        if unknown:
            said += f" ({first_three(list(map(repr, unknown)))} in the form is none of the classes)"
        return _Codes(list(class_names), said)
    if all(re.fullmatch(_INTEGER, word) for word in words):
        if all(re.fullmatch(_INTEGER, name) for name in class_names):
            said = f"by its number in the data ({first_three(unknown)} in the form is none of them)"
            return _Codes(list(class_names), said)
        first, last = class_names[0], class_names[-1]
        raise ConfigError(
            f"{form.path}: the column {name!r} holds numbers ({first_three(unknown)}), and "
            f"{source} calls its classes {first!r} to {last!r}; say how these are numbered: "
            f"{FLAG}=0 (or 1) if {first!r} is 0 (or 1) and the others follow in the order of their "
            f"names, or {FLAG}=FILE, a JSON or CSV file of number and class."
        )
    if all(re.fullmatch(_NUMBER, word) for word in words):
        raise ConfigError(
            f"{form.path}: the column {name!r} holds {first_three(unknown)}, which looks like a "
            f"probability; say of which class: {FLAG}={class_names[-1]!r}."
        )
    folded = {fold(word): word for word in words}
    if all(fold(name) in folded for name in class_names):
        return _Codes([folded[fold(name)] for name in class_names], "as the form spells it")
    near = nearest_names(unknown[0], class_names)
    meant = f" (is it {near[0]!r}?)" if near else ""
    raise ConfigError(
        f"{form.path}: the column {name!r} holds {first_three(list(map(repr, unknown)))}, and "
        f"{source} has no such class{meant}; say how the form writes each class: {FLAG}=FILE, a "
        "JSON or CSV file of what is written and the class."
    )


def _words(value: str, known: set[str]) -> list[str]:
    """The classes in a cell: the whole of it, or several with blanks between."""
    parts = value.split()
    if _composed(value) in known or len(parts) < 2:
        return [value]
    several = any(_composed(part) in known for part in parts)
    several |= all(re.fullmatch(_INTEGER, part) for part in parts)
    return parts if several else [value]


def _count(values: list[str], texts: list[str]) -> int:
    """How many classes the form shows in a cell; at most those that there are."""
    known = set(map(_composed, texts))
    return min(len(texts), max((len(_words(value, known)) for value in values), default=1))


def _probabilities(
    form: Form, columns: list[int], class_names: Sequence[str], codes: _Codes | None, source: str
) -> Filling:
    """A column of probabilities for each class."""
    heads = [form.columns[i] for i in columns]
    texts = codes.texts if codes else list(class_names)
    found = _match(heads, texts)
    unknown = [head for head in heads if head not in found]
    if unknown and not codes:
        numbered = all(re.search(r"[0-9]+$", head) for head in heads)
        if len(unknown) == len(heads) and numbered:
            raise ConfigError(
                f"{form.path}: its columns {heads[0]!r} to {heads[-1]!r} are numbered, and "
                f"{source} calls its classes {class_names[0]!r} to {class_names[-1]!r}; say how "
                f"these are numbered: {FLAG}=0 (or 1) if {class_names[0]!r} is 0 (or 1) and the "
                f"others follow in the order of their names, or {FLAG}=FILE, a JSON or CSV file of "
                "number and class."
            )
    if unknown:
        near = nearest_names(unknown[0], texts)
        meant = f" (is it {near[0]!r}?)" if near else ""
        raise ConfigError(
            f"{form.path}: {len(unknown)} of its {len(heads)} columns are no class of {source}: "
            f"{first_three(list(map(repr, unknown)))}{meant}; rename them, or say how the form "
            f"writes each class: {FLAG}=FILE, a JSON or CSV file of what is written and the class."
        )
    order = [found[head] for head in heads]
    said = f"the probability of each class in its column, {heads[0]!r} to {heads[-1]!r}"
    lacking = [class_names[i] for i in range(len(class_names)) if i not in order]
    if lacking:
        said += (
            f" (the form has no column for {len(lacking)} of the classes: "
            f"{first_three(list(map(repr, lacking)))})"
        )
    return Filling(columns, lambda row: [_share(row[i]) for i in order], said)


def _match(heads: Sequence[str], texts: Sequence[str]) -> Mapping[str, int]:
    """The class of each heading, in whatever spelling, perhaps without what all have in common.

    That goes before or after all of them, as in `p_ash, p_oak` or `c0, c1`. It stays where the
    others would not all be known without it.
    """
    exact = {_composed(text): i for i, text in enumerate(texts)}
    alike: dict[str, list[int]] = {}
    for i, text in enumerate(texts):
        alike.setdefault(fold(text), []).append(i)
    spelt = {key: found[0] for key, found in alike.items() if len(found) == 1}

    def known(parts: Mapping[str, str]) -> dict[str, int]:
        """The class of each heading by a part of it, where that is one that no other has."""
        found = {h: exact[part] for h, part in parts.items() if part in exact}
        for heading, part in parts.items():
            if heading not in found and spelt.get(fold(part)) not in (None, *found.values()):
                found[heading] = spelt[fold(part)]
        return found

    whole = known({h: _composed(h) for h in heads})
    for cut in range(min(map(len, heads)) - 1, 0, -1) if len(whole) < len(heads) else ():
        for common, rest in ((slice(0, cut), slice(cut, None)), (slice(-cut, None), slice(-cut))):
            if len({h[common] for h in heads}) == 1:
                found = known({h: _composed(h[rest]) for h in heads})
                if len(found) == len(heads):
                    return found
    return whole


def _share(probability: float) -> str:
    return f"{probability:.8g}"


def _composed(text: str) -> str:
    return unicodedata.normalize("NFC", text)
