"""The images that the ids of a form name, found by path, name or name without ending."""

import collections
import os
import unicodedata
from collections.abc import Iterable, Sequence

from clevit_jax.analysis.submission_form import Form
from clevit_jax.data.layouts.listing import first_three
from clevit_jax.errors import ConfigError
from clevit_jax.system.copied import ImagePath

_PEEK = 1000  # rows that tell which column has the ids


class ImagesById:
    """Images by what a form may call them.

    That is a path or its end, the name, or the name without its ending; else the same with other
    capitals, with another ending, or a number with fewer zeros before it (7 for 0007.jpg).
    """

    def __init__(self, paths: Iterable[ImagePath]):
        self.paths = list(paths)
        self._by_key: dict[tuple[str, str], list[ImagePath]] = collections.defaultdict(list)
        for path in self.paths:
            stem = os.path.splitext(_composed(path.name))[0]
            for kind, key in (
                ("name", _composed(path.name)),
                ("stem", stem),
                ("capitals", _composed(path.name).casefold()),
                ("capitals", stem.casefold()),
                *((("number", stem.lstrip("0")),) if stem.isdecimal() else ()),
            ):
                self._by_key[kind, key].append(path)

    def find(self, name: str) -> list[ImagePath]:
        """The images that an id may mean: one, none, or several that cannot be told apart."""
        name = _composed(name.strip()).replace("\\", "/")
        base = name.rpartition("/")[2]
        for kind, key in (
            ("name", base),
            ("stem", base),
            ("stem", os.path.splitext(base)[0]),
            ("capitals", base.casefold()),
            ("number", base.lstrip("0") if base.isdecimal() else base),
        ):
            found = self._by_key.get((kind, key), [])
            if len(found) > 1 and "/" in name:
                found = [path for path in found if _ends(path, name)] or found
            if found:
                return found
        return []


def find_ids(form: Form, images: ImagesById, source: str) -> tuple[int, list[ImagePath]]:
    """The column of a form that has the ids of images, and the image of each row.

    Raises:
        ConfigError: an id has no image, or several.
    """
    column = _id_column(form, images, source)
    name = form.columns[column]
    found = [images.find(row[column]) for row in form.rows]
    missing = [row[column] for row, paths in zip(form.rows, found, strict=True) if not paths]
    if missing:
        raise ConfigError(
            f"{form.path}: {len(missing)} of {len(found)} ids of the column {name!r} have no image "
            f"in {source}: {first_three(_quoted(missing))}; name with --input the folder that "
            "holds them all."
        )
    several = [
        (row[column], paths) for row, paths in zip(form.rows, found, strict=True) if len(paths) > 1
    ]
    if several:
        id_, paths = several[0]
        raise ConfigError(
            f"{form.path}: {len(several)} of {len(found)} ids of the column {name!r} fit more than "
            f"one image, such as {id_!r}: {first_three(list(map(str, paths)))}; name with --input "
            "the folder of the images that are meant."
        )
    return column, [paths[0] for paths in found]


def _id_column(form: Form, images: ImagesById, source: str) -> int:
    rows = form.rows[:_PEEK]
    # Different ones: a column of classes may hold a 0 in every row, and an image be called 0.jpg.
    hits = [
        sum(bool(images.find(id_)) for id_ in {row[i] for row in rows}) if name else 0
        for i, name in enumerate(form.columns)
    ]
    best = max(range(len(hits)), key=lambda i: (hits[i], -i))
    if not hits[best]:
        raise ConfigError(
            f"{form.path}: no row names an image of {source}: {form.columns[0]!r} holds "
            f"{first_three(_quoted([row[0] for row in rows]))}, and images are called "
            f"{first_three(_quoted([path.name for path in images.paths[:4]]))}; name with --input "
            "the folder of the images that are meant."
        )
    if images.find(form.columns[best]):
        raise ConfigError(
            f"{form.path} has no header: its first line names the image {form.columns[best]!r}; "
            "put a line before it that names the columns, such as image,label."
        )
    return best


def _quoted(names: Sequence[str]) -> list[str]:
    return [repr(name) for name in names[:4]]


def _ends(path: ImagePath, name: str) -> bool:
    """Whether a path ends in a name of several folders, with or without the ending."""
    whole = _composed(path.absolute().as_posix())
    return whole.endswith(f"/{name}") or os.path.splitext(whole)[0].endswith(f"/{name}")


def _composed(text: str) -> str:
    return unicodedata.normalize("NFC", text)
