"""Copies of buckets and of files on the web: made once on this host, and used again.

    COPIES/gs-BUCKET-leaves-1f2e3d4c5b/    one folder for each address
        lock                               held by the process that looks and copies
        0123456789abcdef/                  one state of it: names, sizes and marks (ETag, MD5 ...)
            manifest.json                  what it is a copy of
            in_use                         locked by every process that reads it
            leaves/...                     the files
        0123456789abcdef.partial/          the same, as far as it has come

A state appears whole, by a rename, and is never changed afterwards. When the address has another
one by now, what is the same in both is linked and not copied, and older states go, unless another
process reads them.
"""

import contextlib
import dataclasses
import hashlib
import json
import os
import pathlib
import re
import secrets
import shutil
from collections.abc import Callable
from typing import Any

from clevit_jax.errors import ConfigError
from clevit_jax.system import addresses, faults, memory
from clevit_jax.system.download import ChangedError, DiskError, download
from clevit_jax.system.file_locks import alone, try_lock
from clevit_jax.system.places import expand
from clevit_jax.system.progress import progress_bar
from clevit_jax.system.remote import Listing, Source, open_source

MANIFEST = "manifest.json"
_PARTIAL = ".partial"
_OTHER_DISK = (
    "name a folder on another disk: --config.data.copy_to=DIR, or export XDG_CACHE_HOME=DIR"
)


@dataclasses.dataclass(frozen=True)
class Copy:
    """What lies at an address, on this disk.

    Attributes:
        address: as messages show it.
        path: of the file or the folder.
        state: differs where what lies at the address does.
    """

    address: str
    path: pathlib.Path
    state: str

    def said(self, text: str) -> str:
        """A text in which the address stands for the path of the copy."""
        return text.replace(str(self.path), self.address)


class _UnfinishedError(ConfigError):
    """A file did not come; `__cause__` is the OSError of the source."""


_known: dict[
    tuple[str, str, str, bool], Copy
] = {}  # by this process, which keeps to one state of each
_in_use: list[int] = []  # descriptors, which hold the locks of these states until the end


def fetched(
    address: str,
    into: str = "",
    what: str = "The address",
    *,
    named: str = "",
    shallow: bool = False,
    choose: Callable[[Listing], Listing] = lambda listing: listing,
) -> Copy:
    """A copy of what lies at an address; what is there already is not copied again.

    A process asks once for each address, and keeps to that state of it.

    Args:
        address: of a folder or a file, as `addresses.is_fetched` takes it.
        into: folder of the copies; "" is `users_folder`.
        what: what messages call the address: `data.root`.
        named: what the copy is of, where not all of the address is wanted: a pattern.
        shallow: whether what lies in folders of the folder is left out.
        choose: which of the files are wanted; may raise ConfigError.

    Raises:
        ConfigError: nothing is there, it cannot be read, this disk has not the room, or it changes
            all the time; in one sentence.
    """
    if not address.endswith("://"):
        address = address.rstrip("/")
    named = named or address
    key = (named, into, address, shallow)
    if key in _known:
        return _known[key]
    shown = addresses.shown(named)
    source = open_source(address, what)
    home = pathlib.Path(into or users_folder(), _slug(named, shallow))
    try:
        home.mkdir(parents=True, exist_ok=True)
        with alone(home / "lock", f"copies {shown}") as locked:
            copy = _newest(source, home, shown, what, shallow, choose, locked=locked)
    except DiskError as error:
        raise _no_disk(error.__cause__ or error, shown, home) from error
    except OSError as error:
        raise _no_disk(error, shown, home) from error
    _known[key] = copy
    return copy


def local(path: str, what: str, into: str = "") -> pathlib.Path:
    """A file of this disk: that of a path, or the copy of the file at an address.

    Raises:
        ConfigError: as `places.expand` and `fetched`; or the address is that of a folder.
    """
    text = expand(path, what, fetched=True)
    if not addresses.is_fetched(text):
        return pathlib.Path(text)
    copy = fetched(text, into, what)
    if not copy.path.is_file():
        raise ConfigError(f"{what} is {copy.address}, a folder, and a file is wanted; name it.")
    return copy.path


def users_folder() -> pathlib.Path:
    """The folder of copies that a user has by default, beside those of the hub's library.

    Raises:
        ConfigError: the home folder is not known.
    """
    named = os.environ.get("XDG_CACHE_HOME", "")
    try:
        root = pathlib.Path(named) if os.path.isabs(named) else pathlib.Path.home() / ".cache"
    except RuntimeError as error:
        raise ConfigError(
            "No home folder is known for copies of what lies elsewhere; name one: "
            "--config.data.copy_to=DIR, or export XDG_CACHE_HOME=DIR."
        ) from error
    return root / "clevit_jax" / "copies"


def _slug(named: str, shallow: bool) -> str:
    """`gs-BUCKET-leaves-1f2e3d4c5b`: readable, and another one for each address."""
    digest = hashlib.sha256(
        f"{addresses.public(named)}{' shallow' * shallow}".encode()
    ).hexdigest()[:10]
    words = re.sub(r"[^A-Za-z0-9._]+", "-", addresses.shown(named)).strip("-.")
    return f"{words[:60]}-{digest}"


def _newest(
    source: Source,
    home: pathlib.Path,
    shown: str,
    what: str,
    shallow: bool,
    choose: Callable[[Listing], Listing],
    *,
    locked: bool,
) -> Copy:
    """The copy of the state that the address has now, made where it is not there."""

    def look() -> Listing:
        listing = _listed(source, shown, what, shallow)
        if not listing.files:
            raise ConfigError(
                f"{what} is {shown}, and nothing is there; look at its spelling, and whether this "
                "user may see it."
            )
        return choose(listing)

    listing, said = look(), ""
    for _ in range(2):
        why, new = "", 0
        state = home / listing.state
        name = _name(shown, listing)
        size = f"{len(listing.files):,} file{'s' * (len(listing.files) > 1)}"
        size += f", {memory.size(listing.size)}"
        copy = Copy(shown, state / name, listing.state)
        told = all(file.mark or file.size >= 0 for file in listing.files)
        if told and (state / MANIFEST).is_file() and not _lacks(listing, copy.path):
            _use(state)
            print(f"{shown}: the copy in {state} is up to date ({size}).", flush=True)
            return copy
        partial = home / (listing.state + (_PARTIAL if locked else f".{secrets.token_hex(4)}"))
        try:
            new = _fill(source, listing, partial, home, copy, what)
        except ChangedError as error:
            why = said = f" ({error})"
        except _UnfinishedError as error:
            if not _is_another(look, listing.state):
                raise
            why = said = f" ({_reason(error.__cause__)})"
        now = look()
        if now.state == listing.state and not why:
            _take_place(partial, state)
            _use(state)
            if locked:
                _remove_others(home, state)
            there = len(listing.files) - new
            also = f"; {there:,} of them were here already" if there else ""
            print(f"Copied {size}, of {shown} to {state}{also}.", flush=True)
            return copy
        print(f"{shown} was changed while it was copied{why}; looking again.", flush=True)
        listing = now
    raise ConfigError(
        f"{what} is {shown}, which changes while it is copied{said}; wait until nothing is written "
        "there any more, and run the same command: it goes on from what is copied."
    )


def _is_another(look: Callable[[], Listing], state: str) -> bool:
    """Whether an address has another state by now."""
    try:
        return look().state != state
    except ConfigError:
        return False


def _listed(source: Source, shown: str, what: str, shallow: bool) -> Listing:
    try:
        return source.list(shallow=shallow)
    except OSError as error:
        raise ConfigError(f"{what} is {shown}, and cannot be read: {_reason(error)}.") from error


def _name(shown: str, listing: Listing) -> str:
    """Of the file or the folder in a state: much goes by names."""
    if listing.is_file:
        return listing.files[0].name
    return re.sub(r"[\0/]", "_", addresses.last_name(shown)) or "files"


def _lacks(listing: Listing, path: pathlib.Path) -> list:
    """The files that a copy does not have in their size."""
    folder = path.parent if listing.is_file else path
    return [file for file in listing.files if not _is_there(folder / file.name, file.size)]


def _is_there(path: pathlib.Path, size: int) -> bool:
    try:
        return path.is_file() and size in (-1, path.stat().st_size)
    except OSError:
        return False


def _fill(
    source: Source,
    listing: Listing,
    partial: pathlib.Path,
    home: pathlib.Path,
    copy: Copy,
    what: str,
) -> int:
    """Copies what a state lacks; the number of files. Raises ChangedError, ConfigError."""
    path = partial / copy.path.name
    folder, parts = (partial if listing.is_file else path), partial / "parts"
    for made in (folder, parts):
        made.mkdir(parents=True, exist_ok=True)
    if not (partial / MANIFEST).is_file():
        rows = [[file.name, file.size, file.mark] for file in listing.files]
        facts = {"address": copy.address, "name": path.name, "is_file": listing.is_file}
        _write(partial / MANIFEST, json.dumps(facts | {"files": rows}, indent=1))
    _link_same(listing, folder, home)
    lacking = _lacks(listing, path)
    there = sum(part.stat().st_size for part in parts.iterdir())
    wanted, free = sum(max(0, file.size) for file in lacking), shutil.disk_usage(partial).free
    if wanted - there > free:
        raise ConfigError(
            f"{copy.address} takes {memory.size(wanted)} more, and {home.parent} has "
            f"{memory.size(free)} left: free some space, or {_OTHER_DISK}."
        )
    done = [len(listing.files) - len(lacking), listing.size - wanted + there]
    total = listing.size if all(file.size >= 0 for file in listing.files) else None
    options = {"unit": "B", "unit_scale": True, "unit_divisor": 1024, "desc": "Copying"}
    with progress_bar(total=total, initial=done[1], **options) as bar:

        def progress(bytes_: int, files: int) -> None:
            done[0], done[1] = done[0] + files, done[1] + bytes_
            bar.set_postfix_str(f"{done[0]:,} of {len(listing.files):,} files", refresh=False)
            bar.update(bytes_)

        try:
            download(source, lacking, folder, parts, progress)
        except OSError as error:
            raise _UnfinishedError(
                f"{what} is {copy.address}, and cannot be copied to the end: {_reason(error)}. "
                f"{done[0]:,} of {len(listing.files):,} files are in {partial}, and the same "
                "command goes on from there."
            ) from error
    return len(lacking)


def _link_same(listing: Listing, folder: pathlib.Path, home: pathlib.Path) -> None:
    """Links what another state of the address has, and this one, too."""
    lacking = [f for f in listing.files if f.mark and not _is_there(folder / f.name, f.size)]
    for manifest in home.glob(f"*/{MANIFEST}"):
        if not lacking:
            return
        facts = _read(manifest)
        other = manifest.parent / ("" if facts.get("is_file") else facts.get("name", ""))
        if other == folder:
            continue
        same = {tuple(row) for row in facts.get("files", ())}
        for file in lacking:
            old = other / file.name
            if (file.name, file.size, file.mark) in same and _is_there(old, file.size):
                with contextlib.suppress(OSError):  # a disk without links: it is copied
                    (folder / file.name).parent.mkdir(parents=True, exist_ok=True)
                    os.link(old, folder / file.name)


def _read(manifest: pathlib.Path) -> dict[str, Any]:
    try:
        facts = json.loads(manifest.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return facts if isinstance(facts, dict) else {}


def _write(path: pathlib.Path, text: str) -> None:
    new = path.with_name(f".{path.name}")
    new.write_text(text, encoding="utf-8")
    os.replace(new, path)


def _take_place(partial: pathlib.Path, state: pathlib.Path) -> None:
    """Makes a whole copy of what was a part of one."""
    shutil.rmtree(partial / "parts", ignore_errors=True)
    if state.exists():  # it lost a file, or another process without a lock was faster
        gone = state.with_name(f".{secrets.token_hex(4)}.gone")
        os.rename(state, gone)
        shutil.rmtree(gone, ignore_errors=True)
    os.rename(partial, state)


def _remove_others(home: pathlib.Path, state: pathlib.Path) -> None:
    """Removes the other states of an address, but for those that another process reads."""
    for other in home.iterdir():
        if other == state or not other.is_dir():
            continue
        whole = not other.name.endswith((_PARTIAL, ".gone"))
        descriptor = try_lock(other / "in_use", shared=False) if whole else None
        if whole and descriptor is None:
            continue
        gone = home / f".{secrets.token_hex(4)}.gone"
        with contextlib.suppress(OSError):
            os.rename(other, gone)
            shutil.rmtree(gone, ignore_errors=True)
        if descriptor is not None:
            os.close(descriptor)


def _use(state: pathlib.Path) -> None:
    """Keeps a state from being removed until this process ends."""
    if (descriptor := try_lock(state / "in_use", shared=True)) is not None:
        _in_use.append(descriptor)


def _reason(error: BaseException | None) -> str:
    return (getattr(error, "strerror", None) or str(error)).rstrip(".")


def _no_disk(error: BaseException, shown: str, home: pathlib.Path) -> ConfigError:
    reason = faults.os_reason(error) if isinstance(error, OSError) else str(error)
    return ConfigError(f"{shown} cannot be copied to {home}: {reason}; {_OTHER_DISK}.")
