"""Where files lie that a list names: beside it, in folders of splits, or by one rule for all."""

import pathlib
import posixpath
import types
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from clevit_jax.data.layouts.table_files import Repair, TableFiles, Wanted
from clevit_jax.data.split_names import splits_among


class Found(NamedTuple):
    """What became of the names in a list.

    Attributes:
        files: name -> file, relative to the folder of the data set; names that are not there lack.
        repair: what a rule finds of the others; None where nothing does, or none is lacking.
    """

    files: dict[str, str]
    repair: Repair | None


_NO_SPLITS: Mapping[str, str] = types.MappingProxyType({})


class FilePlaces:
    """The files of a data set, for lists that name them; nothing outside of them is ever found."""

    def __init__(self, root: pathlib.Path, own: set[str] | None = None):
        """Lists the files below the folder of the data set; `own` as in `listing.files_below`."""
        self._files = TableFiles(root, own)
        self.images = self._files.images
        folders = {file.partition("/")[0] for file in self.images if "/" in file}
        self._splits = splits_among(sorted(folders))
        self._called: set[str] | None = None  # names of the images, without their folders

    def is_called(self, name: str) -> bool:
        """Whether there is an image of the name, in whatever folder."""
        if self._called is None:
            self._called = {posixpath.basename(file) for file in self.images}
        return posixpath.basename(_plain(name)) in self._called

    def any_called(self, names: set[str]) -> bool:
        """Whether an image has one of some names, with or without its folder and ending."""
        return self._files.any_called(names)

    def splits_of(self, files: Iterable[str]) -> dict[str, str]:
        """File -> the split that its folders mean; empty unless all mean one, and several do."""
        return self._files.splits_of(files)

    def find(
        self,
        names: Sequence[str],
        *,
        beside: str = "",
        split: str = "",
        of_rows: Mapping[str, str] = _NO_SPLITS,
    ) -> Found:
        """Finds the files that a list names.

        They are looked for beside the list, in folders that are called as the split, in the folder
        of the data set, and in images/ and the like: in the first that has them all, else each in
        the first that has it. What is in none of these is looked for by `TableFiles.repair`.

        Args:
            names: as the list writes them.
            beside: folder of the list below that of the data set, "" or with a slash at the end.
            split: of the list, "train", "val" or "test", or "" for none.
            of_rows: name -> split of its row, where the list tells these.
        """
        plain = {name: _plain(name) for name in dict.fromkeys(names)}
        usual = self._usual(beside, split)
        at = self._files.at
        best, most = usual[0], -1
        for base in usual:
            count = sum(at(base + text) is not None for text in plain.values())
            if count > most:
                best, most = base, count
            if count == len(plain):
                break
        files = dict[str, str]()
        for name, text in plain.items():
            tries = (at(base + text) for base in (best, *usual))
            if (file := next(filter(None, tries), None)) is not None:
                files[name] = file
        wanted = [
            Wanted(name, of_rows.get(name) or split or "train", "")
            for name in plain
            if name not in files
        ]
        repair = self._files.repair(wanted, set(files.values())) if wanted else None
        return Found(files, repair)

    def _usual(self, beside: str, split: str) -> list[str]:
        """Folders in which lists mean their files, the likely ones first."""
        called = [f"{name}/" for name, told in self._splits.items() if told == split]
        doubled = [folder * 2 for folder in called]
        near = [beside, *(beside + folder for folder in called)] if beside else []
        in_images = [f"images/{split}/"] if split else []
        bases = [*near, *called, *doubled, *in_images, "", "images/", "jpg/", "data/"]
        return list(dict.fromkeys(bases))


def _plain(name: str) -> str:
    """A name with forward slashes, without `.`, and with nothing that leads out of the folder."""
    text = posixpath.normpath(name.replace("\\", "/")).lstrip("/")
    while text.startswith("../"):
        text = text[3:]
    return text
