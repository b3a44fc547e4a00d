"""The files that a table names, looked up in the data set, and found by a rule where none is."""

import collections
import pathlib
import posixpath
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from clevit_jax.data.layouts.columns import quoted_names
from clevit_jax.data.layouts.listing import files_below, find_file, is_image, points_out
from clevit_jax.data.split_names import split_called, splits_among

_NUMBER = re.compile(r"0*([0-9]+?)(?:\.0+)?")  # without zeros around it
_SERVED = "/data/local-files/?d="  # before a path, as Label Studio serves it
_STAMPED = re.compile(r"[0-9a-f]{8}-(.+)")  # names that Label Studio gives to what is uploaded
_ALL_BUT = 0.01  # share of the names that a rule need not find


class Wanted(NamedTuple):
    """A file that a row names and that is not where it says.

    Attributes:
        name: as the table writes it.
        split: of the row.
        label: of the row; a folder of that name may hold the file.
    """

    name: str
    split: str
    label: str


class Repair(NamedTuple):
    """What one rule finds of files that are not where a table says.

    Attributes:
        found: file of each wanted one; those that are not found, or not for sure, are left out.
        said: the rule, for a warning, or for the problem where it is not taken.
        is_taken: whether the rule is sure enough to read by it.
    """

    found: dict[Wanted, str]
    said: str
    is_taken: bool


class TableFiles:
    """The files of a data set, looked up by what tables call them."""

    def __init__(self, root: pathlib.Path, own: set[str] | None = None, *, by_number: bool = True):
        """Lists the files below `root`; `own` as in `files_below`.

        `by_number` says whether `repair` may take 7 for 0007.jpg: where another list has the files
        of numbers, these say nothing.
        """
        self._root = root
        self._may_number = by_number
        present = sorted(files_below(str(root), own=own))
        self._present = present
        self._by_form = list[dict[str, list[str]]]()  # of `_forms_known`, when it is asked for
        self._called = {file: [file] for file in present}  # name -> files it may mean
        for file in present:
            stem = posixpath.splitext(file)[0]
            # `a.png` does not mean `a.png.jpg`, and `a` only means `a.jpg` if there is no `a`.
            if is_image(file) and not is_image(stem) and self._called.get(stem) != [stem]:
                self._called.setdefault(stem, []).append(file)

    @property
    def images(self) -> list[str]:
        """The images, relative to the root, sorted."""
        return list(filter(is_image, self._present))

    def at(self, path: str) -> str | None:
        """The file that a path below the root means, perhaps without its ending; None if none."""
        found = self._called.get(path)
        if found is None and not path.isascii():
            forms = (unicodedata.normalize(form, path) for form in ("NFC", "NFD"))
            found = next((self._called[form] for form in forms if form in self._called), None)
        return found[0] if found is not None and len(found) == 1 else None

    def any_called(self, names: set[str]) -> bool:
        """Whether an image has one of some names, with or without its folder and ending."""
        return any_image_called(self._present, names)

    def alike(self, name: str) -> list[str]:
        """The images of a name in whatever folder, where there are several; else none."""
        parts = _parts(name)
        if not self._by_form:
            self._by_form = self._forms_known()
        meant = zip(self._by_form, _forms(parts[-1]), strict=True) if parts else ()
        found = next((found for known, form in meant if (found := known.get(form))), [])
        return found if len(found) > 1 else []

    def find(self, name: str, split: str) -> tuple[str, str | None]:
        """The file, relative to the root, and what is wrong with it."""
        if points_out(name):
            return find_file(name, (), "the data set's folder")
        folders = ("", "images/", f"{split}/", f"{split}_images/", f"images/{split}/")
        tries = [folder + name for folder in folders]
        known = next((each for each in tries if each in self._called), None)
        if known is None:
            candidates = (find_file(each, self._called) for each in tries)
            known = next((file for file, problem in candidates if problem is None), None)
        if known is None:
            places = f"the data set's folder, {', '.join(folders[1:-1])} or {folders[-1]}"
            return find_file(name, (), places)
        file, *others = self._called[known]
        if others:
            both = quoted_names([file, *others])
            return file, f"the file {name!r} may be any of {both}; write its ending."
        return file, None

    def repair(self, wanted: Sequence[Wanted], there: Iterable[str]) -> Repair | None:
        """Looks for files elsewhere, by one rule for all: another folder, ending, or capitals.

        Of several files of one name, the one whose folders agree longest from the end counts, in a
        folder of the row's own split or class where there is one. No two names may mean one file.

        Args:
            wanted: files that `find` does not find, each once.
            there: files that it does find, of the same table.
        """
        found = {each: file for each, file in self._elsewhere(wanted) if file is not None}
        names: dict[str, set[str]] = collections.defaultdict(set)
        known = set(there)
        for each, file in found.items():
            names[file].add("/".join(_parts(each.name)).casefold())
        sound = {
            each: file
            for each, file in found.items()
            if file not in known and len(names[file]) == 1
        }
        if not sound:
            return None
        rules = collections.Counter(_rule(each.name, file) for each, file in sound.items())
        small = all(not rule.moved for rule in rules)
        outward = all(points_out(each.name) for each in sound)
        most = len(sound) >= (1 - _ALL_BUT) * len(wanted)
        is_taken = most and (small or outward or len(wanted) > len(known))
        return Repair(sound, _say(sound, rules), is_taken)

    def _by_number(self) -> dict[str, list[str]]:
        """The images whose names are numbers: 7 -> a/0007.jpg."""
        found = dict[str, list[str]]()
        for file in filter(is_image, self._present):
            if number := _number(posixpath.splitext(posixpath.basename(file))[0]):
                found.setdefault(number, []).append(file)
        return found

    def splits_of(self, files: Iterable[str]) -> dict[str, str]:
        """File -> the split that its folders mean; empty unless all mean one, and several do."""
        tops = splits_among({file.partition("/")[0] for file in self._present if "/" in file})
        told = {file: _split_in(file, tops) or "" for file in files}
        splits = set(told.values())
        return told if {"train"} < splits and "" not in splits else {}

    def _forms_known(self) -> list[dict[str, list[str]]]:
        """The images by their names, in each of `_forms`."""
        by_form: list[dict[str, list[str]]] = [collections.defaultdict(list) for _ in range(3)]
        for file in self._present:
            if is_image(file):
                for known, form in zip(by_form, _forms(posixpath.basename(file)), strict=True):
                    known[form].append(file)
        return by_form

    def _elsewhere(self, wanted: Sequence[Wanted]) -> Iterator[tuple[Wanted, str | None]]:
        """Each wanted file, and the one file that it may well be."""
        self._by_form = by_form = self._by_form or self._forms_known()
        tops = splits_among({file.partition("/")[0] for file in self._present if "/" in file})
        numbers = (
            self._by_number()
            if self._may_number and any(_number(each.name) for each in wanted)
            else {}
        )
        for each in wanted:
            parts = _parts(each.name)
            if not parts or not parts[-1]:
                yield each, None
                continue
            meant = zip(by_form, _forms(parts[-1]), strict=True)
            same = next((found for known, form in meant if (found := known.get(form))), [])
            if not same and (stamped := _STAMPED.fullmatch(parts[-1])):
                meant = zip(by_form, _forms(stamped[1]), strict=True)
                same = next((found for known, form in meant if (found := known.get(form))), [])
            if not same and (number := _number(parts[-1])):
                same = numbers.get(number, [])
            own = [
                file
                for file in same
                if _split_in(file, tops) in (None, each.split)
                or 0 < len(parts) - 1 == _agree(parts, file)  # the name itself has the folder
            ]
            yield each, _best(parts, own, each.label)


def any_image_called(files: Iterable[str], names: set[str]) -> bool:
    """Whether any of some files is an image called so, with or without its folder and ending."""
    last = {_parts(name)[-1] for name in names if _parts(name)}
    for file in files:
        if is_image(file):
            name = file.rpartition("/")[2]
            if name in last or posixpath.splitext(name)[0] in last:
                return True
    return False


def _parts(name: str) -> list[str]:
    """Folders and name of a path of any system, without a drive, `.` and `..`."""
    plain = re.sub(r"^[A-Za-z]:", "", name.strip()).replace("\\", "/").rpartition(_SERVED)[2]
    return [part for part in plain.split("/") if part not in ("", ".", "..")]


def _forms(name: str) -> tuple[str, str, str]:
    """A name, as it is compared first, second (capitals) and last (endings)."""
    plain = unicodedata.normalize("NFC", name)
    stem, ending = posixpath.splitext(plain)
    is_ending = not ending or is_image(plain)
    return plain, plain.casefold(), (stem if is_ending else plain).casefold()


def _number(name: str) -> str:
    """The number that a name without an ending is, without the zeros around it; "" if it is none.

    >>> _number("0007"), _number("7.0"), _number("a7")
    ('7', '7', '')
    """
    match = _NUMBER.fullmatch(name.strip())
    return match[1] if match else ""


def _split_in(file: str, tops: dict[str, str]) -> str | None:
    """The split that the folders of a file mean, or None."""
    folders = file.split("/")[:-1]
    told = (tops.get(folders[0]) if folders else None, *map(split_called, folders[1:]))
    return next((split for split in told if split is not None), None)


def _best(parts: list[str], files: list[str], label: str) -> str | None:
    """The file whose folders agree longest with a path, from the end; None where several do."""
    if len(files) == 1:
        return files[0]
    lengths = {file: _agree(parts, file) for file in files}
    best = [file for file in files if lengths[file] == max(lengths.values())]
    if len(best) > 1 and label:
        best = [file for file in best if label in file.split("/")[:-1]]
    return best[0] if len(best) == 1 else None


def _agree(parts: list[str], file: str) -> int:
    """Number of folders that a path and a file have in common, from the end."""
    count = 0
    for one, other in zip(parts[-2::-1], file.split("/")[-2::-1], strict=False):
        if one.casefold() != other.casefold():
            break
        count += 1
    return count


class _Rule(NamedTuple):
    """How a name differs from its file: folders left out, folders added, and another ending.

    `zeros` says that both are one number, as `7`, `7.0` and `0007.jpg` are; `stamp`, that the name
    begins with letters that the file lacks.
    """

    dropped: str
    added: str
    ending: tuple[str, str] | None
    capitals: bool
    zeros: bool
    stamp: bool

    @property
    def moved(self) -> bool:
        return bool(self.dropped or self.added)


def _rule(name: str, file: str) -> _Rule:
    parts, others = _parts(name), file.split("/")
    same = _agree(parts, file)
    dropped = name.strip().replace("\\", "/").split("/")[: -1 - same]
    stems = posixpath.splitext(parts[-1]), posixpath.splitext(others[-1])
    stem = stems[1][0]
    zeros = parts[-1] != stem and _number(parts[-1]) == _number(stem) != ""
    stamped = _STAMPED.fullmatch(parts[-1])
    stamp = stamped is not None and stamped[1].casefold() == others[-1].casefold()
    ending = None
    if (
        not zeros
        and stems[0][1].casefold() != stems[1][1].casefold()
        and stems[0][0].casefold() == stems[1][0].casefold()
    ):
        ending = (stems[0][1], stems[1][1])
    capitals = parts[-1 - same :] != others[-1 - same :] and ending is None and not (zeros or stamp)
    folder = "/".join(part for part in dropped if part != ".")
    return _Rule(folder, "/".join(others[: -1 - same]), ending, capitals, zeros, stamp)


def _say(found: dict[Wanted, str], rules: collections.Counter[_Rule]) -> str:
    """The rule in words, with one example."""
    said = list[str]()
    dropped, added = {rule.dropped for rule in rules}, {rule.added for rule in rules}
    if dropped - {""}:
        what = repr(f"{next(iter(dropped))}/") if len(dropped) == 1 else "the folders before them"
        said.append(f"with {what} left out")
    if added - {""}:
        where = repr(f"{next(iter(added))}/")
        said.append(f"in {where}" if len(added) == 1 else "by their names alone")
    if endings := sorted({rule.ending for rule in rules if rule.ending and rule.ending[0]}):
        said.append(f"with the ending {endings[0][1]} for {endings[0][0]}")
    if any(rule.capitals for rule in rules):
        said.append("with other capitals")
    if any(rule.stamp for rule in rules):
        said.append("without the letters that Label Studio puts before names")
    if any(rule.zeros for rule in rules):
        said.append("by their numbers")
    each, file = next(iter(found.items()))
    return f"{', '.join(said) or 'in another spelling'} ({each.name!r} is {file!r})"
