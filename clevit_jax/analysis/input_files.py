"""The image files that `--input` names, and what is left out of them."""

import collections
import dataclasses
import fnmatch
import glob
import os
import pathlib
import re
from collections.abc import Iterator, Sequence

from clevit_jax.data.formats import OTHER_IMAGE_ENDINGS
from clevit_jax.data.layouts.listing import EXTENSIONS, first_three, is_image, say_own
from clevit_jax.data.litter import is_litter
from clevit_jax.errors import ConfigError
from clevit_jax.system import addresses, remote
from clevit_jax.system.addresses import is_fetched
from clevit_jax.system.copied import CopiedPath, ImagePath, below
from clevit_jax.system.fetch import fetched
from clevit_jax.system.own_files import own_names
from clevit_jax.system.quoting import printable

_ENDINGS = 8  # endings that a sentence names


def find_images(text: str, *, say: bool = False, copy_to: str = "") -> Iterator[ImagePath]:
    """Images of a path, or of an address, `gs://BUCKET/FOLDER`, which is copied first.

    Args:
        text, say, Raises: see `_find`. The names of what was copied are addresses.
        copy_to: folder of the copies; see `system.fetch`.
    """
    if not is_fetched(text):
        return _find(text, say=say)
    found = _copied(text, copy_to)
    files = _find(found.wanted, say=say, shown=found.shown)
    if found.is_file:
        return (CopiedPath(path, found.shown) for path in files)
    return (below(found.folder, found.address, path) for path in files)


@dataclasses.dataclass(frozen=True)
class _Copied:
    """Images at an address, copied.

    Attributes:
        folder: of the copy.
        address: of the folder, as messages show it.
        wanted: what the address names, below `folder`: that itself, a file or a pattern.
        shown: the address of what is wanted, as messages show it.
        is_file: whether that is one file.
    """

    folder: pathlib.Path
    address: str
    wanted: str
    shown: str
    is_file: bool = False


def _copied(text: str, copy_to: str) -> _Copied:
    """Copies what an address names, if need be of a pattern what matches it; raises ConfigError."""
    shown, sign = addresses.shown(text), re.search(r"[*?[]", text)
    if addresses.scheme(text) in addresses.WEB or sign is None or remote.is_there(text, "--input"):
        copy = fetched(text, copy_to, "--input")
        if copy.path.is_file():
            parent = shown.rpartition("/")[0]
            return _Copied(copy.path.parent, parent, str(copy.path), shown, is_file=True)
        return _Copied(copy.path, shown, str(copy.path), shown)
    base = text[: text.rindex("/", 0, sign.start())]
    pattern = text[len(base) + 1 :]

    def matching(listing: remote.Listing) -> remote.Listing:
        # A folder that matches stands for what is in it.
        parts = pattern.split("/")
        names = [
            file.name
            for file in listing.files
            if any(_fits(_first(file.name, k), parts) for k in range(1, file.name.count("/") + 2))
        ]
        if not names:
            raise ConfigError(
                f"--input: There is no file {shown}; name a folder, a file or a quoted pattern."
            )
        return listing.only(names)

    copy = fetched(base, copy_to, "--input", named=text, choose=matching)
    wanted = f"{copy.path}/{pattern}"
    return _Copied(copy.path, addresses.shown(base), wanted, shown)


def _first(name: str, count: int) -> list[str]:
    return name.split("/")[:count]


def _find(text: str, *, say: bool = False, shown: str = "") -> Iterator[pathlib.Path]:
    """Paths of the images that a folder, a file or a pattern names, sorted folder by folder.

    A folder stands for all files in it with the ending of an image, at any depth and through links,
    except hidden ones and pictures that this program wrote (`system.own_files`). Images of kinds
    that are not read and links to nothing are among them: whoever reads them says why they cannot
    be. So it is with what matches a pattern, where anything matches that has such an ending or the
    pattern names the ending. A file that is named is taken whatever its ending, and whoever wrote
    it.

    Args:
        text: path of a folder or a file, or a pattern with `*`, `?`, `[...]` or `**`. What exists
            under the name as it stands goes first, also folders at the beginning of a pattern.
        say: whether to print, at the end, what was left out.
        shown: what messages call it, where not as it stands.

    Raises:
        ConfigError: there is no image; raised by the call, not by the first `next`.
    """
    shown = shown or text
    left = _LeftOut(text, shown)
    if os.path.isdir(text):
        files = _below(text, left)
        problem = f"{shown} holds no image (a file that ends in {', '.join(EXTENSIONS)})"
    elif os.path.exists(text):
        files, problem = iter([text]), ""
    elif os.path.islink(text):
        raise ConfigError(
            f"--input: {text} is a link to {os.readlink(text)}, which is not there; fetch it."
        )
    else:
        files = _matching(text, left)
        problem = f"There is no file {shown}"
    first = next(files, None)
    if first is None:
        but = f"; left out: {words}" if (words := left.words()) else ""
        raise ConfigError(f"--input: {problem}{but}; name a folder, a file or a quoted pattern.")
    return _chain(first, files, left if say else None)


def base_folder(text: str, copy_to: str = "") -> ImagePath:
    """The folder that all images of `find_images` lie below, the same whichever there are.

    It is the folder that is named, that of the file, or the beginning of the pattern.
    """
    if is_fetched(text):
        found = _copied(text, copy_to)
        return below(found.folder, found.address, _base(found.wanted))
    return _base(text)


def _base(text: str) -> pathlib.Path:
    if os.path.isdir(text):
        return pathlib.Path(text)
    if os.path.lexists(text):
        return pathlib.Path(text).parent
    return pathlib.Path(_literal(text))


@dataclasses.dataclass
class _LeftOut:
    """What `find_images` passes over in `text`, which messages call `shown`, if that is set."""

    text: str
    shown: str = ""
    endings: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    folders: list[str] = dataclasses.field(default_factory=list)  # that match a pattern of files
    others: list[str] = dataclasses.field(default_factory=list)  # each said by itself
    own: set[str] = dataclasses.field(default_factory=set)  # folders with pictures of ours

    def words(self) -> str:
        """`3 .txt, 1 .mp4` and so on; "" for nothing."""
        most = sorted(self.endings.items(), key=lambda item: (-item[1], not item[0], item[0]))
        parts = [f"{n} {ending or 'without an ending'}" for ending, n in most[:_ENDINGS]]
        if len(most) > _ENDINGS:
            parts.append(f"{sum(n for _, n in most[_ENDINGS:])} with other endings")
        if self.folders:
            parts.append(
                f"{len(self.folders)} folder(s) ({first_three(self.folders)}); to take what is in "
                "them, name the folder above"
            )
        return ", ".join(parts + self.others[:3]) + (", ..." if len(self.others) > 3 else "")

    def say(self) -> None:
        if words := self.words():
            print(
                f"{printable(self.shown or self.text)}: left out: {printable(words)}.", flush=True
            )
        if self.own:
            print(printable(say_own(self.shown or self.text, self.own)), flush=True)

    def count(self, name: str) -> None:
        self.endings[os.path.splitext(name)[1].lower()] += 1


def _chain(first: str, rest: Iterator[str], left: _LeftOut | None) -> Iterator[pathlib.Path]:
    yield pathlib.Path(first)
    yield from map(pathlib.Path, rest)
    if left is not None:
        left.say()


def _is_taken(name: str) -> bool:
    return is_image(name) or os.path.splitext(name)[1].lower() in OTHER_IMAGE_ENDINGS


def _below(folder: str, left: _LeftOut, way: tuple[str, ...] = ()) -> Iterator[str]:
    """Images below a folder; `way` has the true places of the folders whose links led here."""
    try:
        with os.scandir(folder) as opened:
            entries = sorted(opened, key=lambda entry: entry.name)
    except OSError as error:
        left.others.append(f"{folder}, which cannot be read ({error.strerror})")
        return
    ours = own_names(folder, {entry.name for entry in entries}, is_image)
    if any(map(is_image, ours)):
        left.own.add(os.path.relpath(folder, left.text))
    folders = []
    for entry in entries:
        if is_litter(entry.name):  # no word is said of it
            continue
        if _is_folder(entry):
            folders.append(entry)
        elif _is_taken(entry.name):
            if entry.name not in ours:
                yield entry.path
        elif entry.is_symlink() and not os.path.exists(entry.path):
            left.others.append(f"{entry.path}, a link to nothing")
        elif entry.name not in ours:
            left.count(entry.name)
    for entry in folders:
        if not entry.is_symlink():
            yield from _below(entry.path, left, way)
        elif _leads_back(entry.path, (*way, os.path.realpath(folder))):
            left.others.append(f"{entry.path}, a link that leads back to where it is")
        else:
            yield from _below(entry.path, left, (*way, os.path.realpath(folder)))


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _leads_back(link: str, way: Sequence[str]) -> bool:
    """Whether what a link leads to holds one of the folders on the way to it."""
    target = os.path.realpath(link)
    return any(os.path.commonpath([target, folder]) == target for folder in way)


def _literal(text: str) -> str:
    """The beginning of a pattern, of whole names, that exists as it stands; "" or with a slash."""
    end = text.rfind("/")
    while end > 0 and not os.path.isdir(text[:end]):
        end = text.rfind("/", 0, end)
    return text[: end + 1]


def _at_any_depth(
    folder: str, pattern: Sequence[str], above: tuple[str, ...] = (), way: tuple[str, ...] = ()
) -> Iterator[str]:
    """Files whose path below a folder matches a pattern with `**`, through links.

    `glob` goes round in links that lead back, some 40 deep in each of them.

    Args:
        folder: "" or with a slash at the end.
        pattern: its parts.
        above: the folders between the one that was named and this one.
        way: the true places of the folders whose links led here.
    """
    try:
        with os.scandir(folder or ".") as opened:
            entries = list(opened)
    except OSError:
        return
    for entry in entries:
        path, parts = folder + entry.name, (*above, entry.name)
        if not _is_folder(entry):
            if _fits(parts, pattern):
                yield path
        elif not entry.is_symlink():
            yield from _at_any_depth(f"{path}/", pattern, parts, way)
        elif not _leads_back(path, (*way, os.path.realpath(folder or "."))):
            here = os.path.realpath(folder or ".")
            yield from _at_any_depth(f"{path}/", pattern, parts, (*way, here))


def _fits(parts: Sequence[str], pattern: Sequence[str]) -> bool:
    """Whether a path matches a pattern; `**` stands for any folders that are not hidden."""
    if not pattern or not parts:
        return not pattern and not parts
    first, rest = pattern[0], pattern[1:]
    is_hidden = parts[0].startswith(".")
    if first == "**":
        if not rest:
            return not any(part.startswith(".") for part in parts)
        return _fits(parts, rest) or (not is_hidden and _fits(parts[1:], pattern))
    if is_hidden and not first.startswith("."):
        return False
    return fnmatch.fnmatchcase(parts[0], first) and _fits(parts[1:], rest)


def _matching(text: str, left: _LeftOut) -> Iterator[str]:
    literal = _literal(text)
    pattern = text[len(literal) :]
    if "**" in pattern.split("/"):
        matches = sorted(_at_any_depth(literal, pattern.split("/")))
    else:
        matches = sorted(glob.glob(glob.escape(literal) + pattern))
    files = [path for path in matches if not os.path.isdir(path)]
    # A hidden file matches only what asks for hidden ones.
    files = [p for p in files if not is_litter(os.path.basename(p).lstrip("."))]
    folders = [path for path in matches if os.path.isdir(path)]
    if not files:
        for folder in folders:
            yield from _below(folder, left)
        return
    if "**" not in text:
        left.folders = folders
    known, ending = any(map(_is_taken, files)), os.path.splitext(text)[1].lower()
    for path in files:
        if not known or _is_taken(path) or (ending and path.lower().endswith(ending)):
            yield path
        else:
            left.count(path)
