"""The files that lists name: relative to which folder, with or without their ending."""

import pathlib
import posixpath
import unicodedata
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from clevit_jax.data.layouts.listing import (
    Notes,
    files_below,
    find_file,
    first_three,
    is_image,
    points_out,
    say_own,
)
from clevit_jax.data.split_names import split_and_rest

# Folders that people keep the images of lists in, the likelier first.
_KNOWN = (
    "images",
    "image",
    "img",
    "imgs",
    "jpg",
    "jpegimages",
    "all",
    "photos",
    "pictures",
    "data",
)
# Folders of pictures made from the images; they bear the same names.
_DERIVED = ("thumb", "mask", "trimap", "segment", "small", "resized", "saliency", "heatmap", "crop")
_TRIED = 8  # folders for which all files of a list are looked up


class Found(NamedTuple):
    """Where the files of a list are.

    Attributes:
        base: the folder that they are relative to, relative to the root: "" or with a slash.
        files: for each name, the file relative to the root; None if there is none.
        problems: for each name, what is wrong with it, without the place; None if nothing.
    """

    base: str
    files: list[str | None]
    problems: list[str | None]


class ListedFiles:
    """The files below a folder, looked up by what lists call them."""

    def __init__(self, root: pathlib.Path, notes: Notes):
        self._root = root
        self._notes = notes
        own = set[str]()
        self._present = set(files_below(str(root), own=own))
        if own:
            notes.warnings.append(say_own(root, own))
        self._stems: dict[str, list[str]] = {}
        self._called: dict[str, list[str]] = {}

    def has(self, name: str) -> bool:
        """Whether there is an image of this name in any folder; its ending may be left out."""
        name = _plain(name)
        if not self._called:
            for file in self.images():
                self._called.setdefault(posixpath.basename(file), []).append(file)
                self._called.setdefault(_stem(posixpath.basename(file)), []).append(_stem(file))
        return bool(name) and any(
            f"/{file}".endswith(f"/{name}")
            for file in self._called.get(posixpath.basename(name), ())
        )

    def find(self, path: pathlib.Path, split: str, names: Sequence[str]) -> Found:
        """Finds the files of a list.

        All are relative to one folder: the root, the folder of the list, `images/`, that of the
        split, or any other, the first that has them all.

        Args:
            path: the list, for sentences.
            split: its split.
            names: as they are written.
        """
        plain = [_plain(name) for name in names]
        distinct = list(dict.fromkeys(plain))
        (base, hits), prefix = self._base(path, split, distinct), ""
        if hits < len(distinct) and (deeper := self._deeper(path, plain)) is not None:
            return deeper
        if not hits:
            prefix, base = self._moved(distinct)
        if prefix:
            self._notes.warnings.append(
                f"{path} names files as {names[0]!r}; {len(distinct):,} files are read from "
                f"{self._root / base} by what follows {prefix!r}."
            )
        found = Found(base, [], [])
        other = list[str]()
        for name, written in zip(plain, names, strict=True):
            file, problem = self._one(base, name.removeprefix(prefix), written, other)
            found.files.append(file)
            found.problems.append(problem)
        if other:
            self._notes.warnings.append(
                f"{path} names {len(other):,} files with another ending than they have "
                f"({first_three(other)}); these are read."
            )
        return found

    def base_name(self, base: str) -> str:
        """What sentences call the folder that names are relative to."""
        return base or "the data set's folder"

    def images(self) -> Iterator[str]:
        """The images of the data set, relative to its root, in no order."""
        return (file for file in self._present if is_image(file))

    def _with_stem(self, stem: str) -> list[str]:
        """The images that have a name but for its ending."""
        if not self._stems:
            for file in self.images():
                self._stems.setdefault(_stem(file), []).append(file)
        return self._stems.get(stem, [])

    def _is_there(self, file: str, *, loose: bool = False) -> bool:
        """Whether there is a file; without its ending, or with another if `loose`."""
        if file in self._present:
            return True
        if is_image(file):
            return loose and bool(self._with_stem(_stem(file)))
        return bool(self._with_stem(file))

    def _one(
        self, base: str, name: str, written: str, other: list[str]
    ) -> tuple[str | None, str | None]:
        """The file of a name, and what is wrong; `other` gets names whose ending is another."""
        file = base + name
        if file in self._present:
            return file, None
        if not name or points_out(name):
            return None, f"the file {written!r} points out of {self.base_name(base)}."
        if is_image(name):
            form, problem = find_file(file, self._present, self.base_name(base))
            if problem is None:
                return form, None
            alike = self._with_stem(_stem(file))
            if len(alike) == 1:
                other.append(f"{name!r} for {posixpath.basename(alike[0])!r}")
                return alike[0], None
        else:
            alike = self._with_stem(posixpath.normpath(file))
            alike = alike or self._with_stem(unicodedata.normalize("NFC", file))
            alike = alike or self._with_stem(unicodedata.normalize("NFD", file))
            if len(alike) == 1:
                return alike[0], None
            if alike:
                both = ", ".join(map(repr, sorted(alike)))
                return None, f"the file {written!r} may be any of {both}; write its ending."
        return None, f"the file {written!r} is not in {self.base_name(base)}."

    def _base(self, path: pathlib.Path, split: str, names: Sequence[str]) -> tuple[str, int]:
        """The folder that names are relative to, "" or with a slash, and how many it has."""
        if all(map(self._is_there, names)):
            return "", len(names)
        near = path.parent.relative_to(self._root).as_posix()
        near = "" if near == "." else f"{near}/"
        for loose in (False, True):
            bases = set[str]()
            for count in (3, 20):  # the files that are looked for first may be missing
                sample = {names[i * (len(names) - 1) // (count - 1)] for i in range(count)}
                bases = bases or {b for name in sample for b in self._bases_of(name, loose=loose)}
            likely = sorted(bases, key=lambda base: (_rank(base, near, split), base))
            ranked = ["", *likely[:_TRIED]]
            hits = {
                base: sum(self._is_there(base + name, loose=loose) for name in names)
                for base in ranked
            }
            most = max(hits.values())
            best = [base for base in ranked if hits[base] == most]
            if most:
                break
        same = [base for base in best if _rank(base, near, split) == _rank(best[0], near, split)]
        if most == len(names) and len(same) > 1:
            places = " as well as in ".join(same[:2])
            self._notes.problems.append(
                f"{path}: the files that it lists are in {places}; move one of these folders out "
                f"of {self._root}, or write the folder before each file."
            )
        return best[0], most

    def _deeper(self, path: pathlib.Path, names: Sequence[str]) -> Found | None:
        """Files that are named without their folder and lie in several; None if not all do."""
        if any("/" in name or not self.has(name) for name in names):
            return None
        found = Found("", [], [])
        for name in names:
            alike = self._called[name]
            file = alike[0] if is_image(name) else self._with_stem(alike[0])[0]
            several = len(alike) > 1 or (not is_image(name) and len(self._with_stem(alike[0])) > 1)
            found.files.append(None if several else file)
            found.problems.append(
                f"the file {name!r} is in several folders; write the folder before it."
                if several
                else None
            )
        if any(found.files):
            self._notes.warnings.append(
                f"{path} names files without their folder; {len(names):,} are found by their names "
                f"({first_three([file for file in found.files if file])})."
            )
        return found

    def _bases_of(self, name: str, *, loose: bool = False) -> Iterator[str]:
        """The folders that have a file of this name; `loose` as in `_is_there`."""
        if loose and is_image(name):
            name = _stem(name)
        for wanted in {name, *(unicodedata.normalize(form, name) for form in ("NFC", "NFD"))}:
            end = f"/{wanted}"
            if is_image(wanted):
                yield from (f[: -len(wanted)] for f in self._present if f.endswith(end))
            else:
                self._with_stem("")
                yield from (f[: -len(wanted)] for f in self._stems if f.endswith(end))

    def _moved(self, names: Sequence[str]) -> tuple[str, str]:
        """A beginning to leave out of all names, and the folder that they are then relative to.

        Lists that were written on another machine name files from its root on, or from a folder
        that is not there. The shortest beginning counts with which all are there; ("", "") if
        there is none.
        """
        if not names or "/" not in names[0]:
            return "", ""
        parts = names[0].split("/")
        for count in range(1, len(parts)):
            prefix = "/".join(parts[:count]) + "/"
            if not all(name.startswith(prefix) for name in names):
                break
            rest = [name.removeprefix(prefix) for name in names]
            if not rest[0] or points_out(rest[0]):
                continue
            bases = [""] if self._is_there(rest[0]) else sorted(self._bases_of(rest[0]))
            full = [
                base
                for base in bases[:_TRIED]
                if sum(self._is_there(base + name) for name in rest) > 0.9 * len(rest)
            ]
            if len(full) == 1:
                return prefix, full[0]
        return "", ""


def _plain(name: str) -> str:
    """A name with forward slashes, and without `./` or the slash that SUN397 begins with."""
    plain = name.replace("\\", "/")
    while plain.startswith("./"):
        plain = plain[2:]
    return plain.lstrip("/") if plain.startswith("/") else plain


def _stem(file: str) -> str:
    return posixpath.splitext(file)[0]


def _rank(base: str, near: str, split: str) -> tuple[int, int]:
    """How likely a folder is the one that a list of `split` is relative to; less is likelier."""
    folder = posixpath.basename(base.rstrip("/")).lower()
    told = split_and_rest(folder)[0]
    if not base:
        return -1, 0
    if told not in (None, split):
        return 9, 0
    if any(word in base.lower() for word in _DERIVED):
        return 8, 0
    if told == split:
        return 0, 0
    if base == near:
        return 1, 0
    if folder in _KNOWN:
        return 2, _KNOWN.index(folder)
    return 3, 0
