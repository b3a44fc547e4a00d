"""The images of a folder of folders, listed in one walk."""

import dataclasses
from collections.abc import Iterator

from clevit_jax.data.layouts.listing import goes_round, is_image, users_entries
from clevit_jax.data.litter import is_litter


@dataclasses.dataclass(slots=True)
class Folder:
    """What lies in a folder; paths are relative to the data set, with forward slashes.

    Attributes:
        path: its own, with a slash at the end; "" is the data set itself.
        images: of the user.
        others: files with another ending.
        lost: links that lead nowhere.
        litter: names of what a system left there and is not hidden.
        folders: name -> folder in it.
        own: whether there was something of this program's.
    """

    path: str
    images: list[str] = dataclasses.field(default_factory=list)
    others: list[str] = dataclasses.field(default_factory=list)
    lost: list[str] = dataclasses.field(default_factory=list)
    litter: list[str] = dataclasses.field(default_factory=list)
    folders: dict[str, "Folder"] = dataclasses.field(default_factory=dict)
    own: bool = False

    def below(self) -> Iterator["Folder"]:
        """The folder itself, and all below it."""
        yield self
        for folder in self.folders.values():
            yield from folder.below()

    def count(self) -> int:
        """Number of images in it and below."""
        return sum(len(folder.images) for folder in self.below())

    def holds_image(self) -> bool:
        return bool(self.images) or any(each.holds_image() for each in self.folders.values())


def walk(
    place: str,
    path: str = "",
    *,
    leave_out: frozenset[str] = frozenset(),
    above: tuple[str, ...] = (),
) -> Folder:
    """Lists a folder and all below it; links are followed, but not in a circle.

    Args:
        place: where the folder is.
        path: relative to the data set, with a slash at the end.
        leave_out: names of folders in it that are not listed.
        above: where the links lie that led here.
    """
    found = Folder(path)
    own = set[str]()
    for entry in users_entries(place, path, own):
        name = entry.name
        if entry.is_dir():
            if is_litter(name):
                found.litter += [] if name.startswith(".") else [name]
            elif name not in leave_out:
                link = entry.is_symlink()
                if not (link and goes_round(entry.path, (*above, place))):
                    found.folders[name] = walk(
                        entry.path, f"{path}{name}/", above=(*above, place) if link else above
                    )
        elif name[0] == ".":
            continue
        elif is_image(name) and entry.is_file():  # most are, so they are asked first
            found.images.append(path + name)
        elif entry.is_symlink() and not entry.is_file():
            found.lost.append(path + name)
        elif entry.is_file() and not is_litter(name):
            found.others.append(path + name)
    found.own = bool(own)
    found.folders = dict(sorted(found.folders.items()))
    return found
