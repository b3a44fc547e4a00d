"""Where the files lie that a list names: one rule for a whole list, found among the files below."""

import collections
import posixpath
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from clevit_jax.data.layouts.listing import first_three, is_image
from clevit_jax.data.split_names import splits_among


class Found(NamedTuple):
    """What became of the names in a list.

    Attributes:
        files: name -> file, relative to the folder of the data set; names that are not there lack.
        said: a sentence on the rule, where it is not a usual one; else "".
        doubt: folders that have all the files, where more than one has and none is a usual one.
    """

    files: dict[str, str]
    said: str = ""
    doubt: tuple[str, ...] = ()


class _Rule(NamedTuple):
    """How a name becomes a file: some folders off its front, and another put before it."""

    dropped: int
    base: str

    def apply(self, name: str) -> str:
        return self.base + "/".join(name.split("/")[self.dropped :])


class FilePlaces:
    """The files of a data set, for lists that name them; nothing outside of them is ever found."""

    def __init__(self, present: Iterable[str]):
        """Takes the files below the folder of the data set, as `listing.files_below` gives them."""
        self._called = {file: file for file in sorted(present)}  # what names a file -> the file
        self.images = [file for file in self._called if is_image(file)]
        folders = {file.partition("/")[0] for file in self._called if "/" in file}
        self._splits = splits_among(sorted(folders))
        # `a` means `a.jpg` where there is nothing else that it may mean.
        stems = collections.Counter(posixpath.splitext(file)[0] for file in self.images)
        for file in self.images:
            stem = posixpath.splitext(file)[0]
            if stems[stem] == 1 and not is_image(stem):
                self._called.setdefault(stem, file)
        self._by_base: dict[str, list[str]] | None = None

    def find(self, names: Sequence[str], *, beside: str = "", split: str = "") -> Found:
        """Finds the files that a list names.

        They are looked for beside the list, in folders that are called as the split, in the folder
        of the data set, and in images/ and the like; else wherever all of them are, perhaps without
        the first folders of their names, as where a list was made on another machine.

        Args:
            names: as the list writes them.
            beside: folder of the list below that of the data set, "" or with a slash at the end.
            split: of the list, "train", "val" or "test", or "" for none.
        """
        plain = {name: _plain(name) for name in dict.fromkeys(names)}
        texts = list(dict.fromkeys(plain.values()))
        usual = [_Rule(0, base) for base in self._usual(beside, split)]
        best, most = usual[0], 0
        for rule in usual:
            if (count := self._count(rule, texts)) > most:
                best, most = rule, count
            if count == len(texts):
                break
        said, doubt = "", list[str]()
        if most < len(texts):
            counts = {rule: self._count(rule, texts) for rule in self._others(texts)}
            highest = max(counts.values(), default=0)
            if highest > most:
                top = [rule for rule, count in counts.items() if count == highest]
                fewest = min(rule.dropped for rule in top)
                top = [rule for rule in top if rule.dropped == fewest]
                best = top[0]
                doubt = [rule.base for rule in top] if len(top) > 1 else []
                said = _say(best, highest, next(text for text in texts if self._get(best, text)))
        files = dict[str, str]()
        for name, text in plain.items():
            for rule in (best, *usual):
                if (file := self._get(rule, text)) is not None:
                    files[name] = file
                    break
        return Found(files, said, tuple(doubt))

    def split_of(self, file: str) -> str:
        """The split that the first folder of a file means among its neighbours, or ""."""
        return self._splits.get(file.partition("/")[0], "")

    def _usual(self, beside: str, split: str) -> list[str]:
        """Folders in which lists mean their files, the likely ones first."""
        called = [f"{name}/" for name, told in self._splits.items() if told == split]
        doubled = [folder * 2 for folder in called]
        near = [beside, *(beside + folder for folder in called)] if beside else []
        in_images = [f"images/{split}/"] if split else []
        bases = [*near, *called, *doubled, *in_images, "", "images/", "jpg/", "data/"]
        return list(dict.fromkeys(bases))

    def _others(self, texts: Sequence[str]) -> Iterator[_Rule]:
        """Rules by which the first of the names that are there at all are found."""
        if self._by_base is None:
            self._by_base = collections.defaultdict(list)
            for name in self._called:
                self._by_base[posixpath.basename(name)].append(name)
        seen = set[_Rule]()
        tried = 0
        for text in texts[:1000]:
            parts = text.split("/")
            known = self._by_base.get(parts[-1], [])
            for dropped in range(len(parts) if known else 0):
                end = "/".join(parts[dropped:])
                for file in known:
                    if file == end or file.endswith(f"/{end}"):
                        rule = _Rule(dropped, file.removesuffix(end))
                        if rule not in seen:
                            seen.add(rule)
                            yield rule
            tried += bool(known)
            if tried == 3 or len(seen) > 50:
                return

    def _count(self, rule: _Rule, texts: Sequence[str]) -> int:
        if rule.dropped == 0:
            base, called = rule.base, self._called
            count = sum(base + text in called for text in texts)
            if count == len(texts):
                return count
        return sum(self._get(rule, text) is not None for text in texts)

    def _get(self, rule: _Rule, text: str) -> str | None:
        name = rule.apply(text)
        found = self._called.get(name)
        if found is None and not name.isascii():
            forms = (unicodedata.normalize(form, name) for form in ("NFC", "NFD"))
            found = next((self._called[form] for form in forms if form in self._called), None)
        return found


def _plain(name: str) -> str:
    """A name with forward slashes, without `.`, and with nothing that leads out of the folder."""
    text = posixpath.normpath(name.replace("\\", "/")).lstrip("/")
    while text.startswith("../"):
        text = text[3:]
    return text


def _say(rule: _Rule, count: int, example: str) -> str:
    folder = rule.base or "the folder itself"
    without = ""
    if rule.dropped:
        lost = "/".join(example.split("/")[: rule.dropped])
        without = f" without the first folders of their names ({lost}/)"
    return f"{count:,} of the files that it names are found in {folder}{without}"


def both_places(doubt: Sequence[str]) -> str:
    """Folders, for a sentence."""
    return first_three([folder or "the folder itself" for folder in doubt])
