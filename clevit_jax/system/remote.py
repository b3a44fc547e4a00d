"""What lies at an address: listed once, and read piece by piece.

Each scheme that fsspec knows is read by fsspec, but for the web (`system.web`), which has no
folders. What a library raises becomes the OSError that a disk would raise.
"""

import base64
import contextlib
import dataclasses
import errno
import hashlib
import json
from collections.abc import Iterable, Iterator
from typing import Any, Protocol

from clevit_jax.errors import ConfigError, first_line
from clevit_jax.system import addresses, buckets, web
from clevit_jax.system.bounded import Bounded
from clevit_jax.system.quoting import quoted

_PIECE = 16 << 20  # bytes of one request
_LISTING_SECONDS = 600.0  # that a listing may take: a million files take a minute or two
# What tells one state of a file from another, the best first: contents, versions, times.
_MARKS = (
    *("md5Hash", "content_md5", "crc32c", "ETag", "etag", "generation", "checksum", "sha256"),
    *("updated", "LastModified", "last_modified", "mtime", "modify", "created"),
)


@dataclasses.dataclass(frozen=True)
class File:
    """One file at an address.

    Attributes:
        name: below the folder that was listed, with slashes; of a single file, its own.
        size: bytes; -1 where that is not known.
        mark: differs where the contents do; "" where nothing tells that.
        key: by which the source reads it.
        md5: of the contents, hexadecimal; "" where it is not told.
    """

    name: str
    size: int
    mark: str
    key: str
    md5: str = ""


@dataclasses.dataclass(frozen=True)
class Listing:
    """The files at an address, by name.

    Attributes:
        files: sorted by name.
        is_file: whether the address is that of a file, and not of a folder.
    """

    files: tuple[File, ...]
    is_file: bool

    @property
    def size(self) -> int:
        """Bytes of all files, as far as they are known."""
        return sum(max(0, file.size) for file in self.files)

    @property
    def state(self) -> str:
        """Sixteen hexadecimal digits that differ where a name, a size or a mark does."""
        rows = [[file.name, file.size, file.mark] for file in self.files]
        return hashlib.sha256(json.dumps(rows).encode()).hexdigest()[:16]

    def only(self, names: Iterable[str]) -> "Listing":
        """The listing of some of its files."""
        wanted = set(names)
        return dataclasses.replace(
            self, files=tuple(file for file in self.files if file.name in wanted)
        )


class Source(Protocol):
    """Where files are listed and read; what it raises is an OSError, or a ConfigError."""

    def list(self, *, shallow: bool) -> Listing:
        """The files at the address; `shallow`: those of the folder itself alone.

        No file where nothing is there.
        """
        ...

    def pieces(self, file: File, start: int) -> Iterator[bytes]:
        """The contents of a file from a byte on; safe to call from several threads."""
        ...


def open_source(address: str, what: str) -> Source:
    """The source of an address; nothing is asked of it yet.

    Args:
        address: as `addresses.is_fetched` takes it.
        what: what messages call it: `data.root`.

    Raises:
        ConfigError: what reads such addresses is not installed, or refuses the address.
    """
    kind = addresses.scheme(address)
    if kind in addresses.WEB:
        return _OnWeb(web.Page(address))
    if kind in addresses.BUCKETS:
        buckets.check_installed(f"{what} {addresses.shown(address)}")
        return _Objects(address, buckets.filesystem())
    import fsspec

    try:
        filesystem, _ = fsspec.core.url_to_fs(address)
    except ImportError as error:
        package = _package(kind, error)
        raise ConfigError(
            f"{what} is {addresses.shown(address)}, and the package {package}, which reads "
            f"{kind}://, is not installed: pip install {package}."
        ) from error
    except Exception as error:  # credentials and regions, each library in its own way
        raise ConfigError(
            f"{what} is {addresses.shown(address)}, which cannot be opened: "
            f"{first_line(error).rstrip('.')}."
        ) from error
    return _Objects(address, filesystem)


def _package(kind: str, error: ImportError) -> str:
    """The package that a scheme needs."""
    from fsspec.registry import known_implementations

    missing = getattr(error.__cause__, "name", None) or error.name
    module = known_implementations[kind]["class"].partition(".")[0]
    return (missing or module).partition(".")[0] if module == "fsspec" else module


@dataclasses.dataclass(frozen=True)
class _OnWeb:
    """A file on the web."""

    page: web.Page

    def list(self, *, shallow: bool) -> Listing:
        found = self.page.look()
        return Listing((File(found.name, found.size, found.mark, ""),), is_file=True)

    def pieces(self, file: File, start: int) -> Iterator[bytes]:
        return self.page.pieces(start, file.mark)


@dataclasses.dataclass(frozen=True)
class _Objects:
    """Files of a file system of fsspec."""

    address: str
    filesystem: Any

    def list(self, *, shallow: bool) -> Listing:
        root = self.filesystem._strip_protocol(self.address).rstrip("/")
        if addresses.scheme(self.address) in addresses.BUCKETS and not root:
            raise ConfigError(f"{self.address} names no bucket; write gs://BUCKET/FOLDER.")
        with self._told(listing=True):
            self.filesystem.invalidate_cache()
            asking = Bounded(_LISTING_SECONDS)
            try:
                found = asking.call(lambda: self._found(root, shallow=shallow))
            finally:
                asking.close()
        if list(found) == [root]:
            file = _file(root.rpartition("/")[2], root, found[root])
            return Listing((file,), is_file=True)
        start = len(root) + 1
        files = [
            _file(key[start:], key, info) for key, info in found.items() if not key.endswith("/")
        ]
        return Listing(_checked(files, addresses.shown(self.address)), is_file=False)

    def _found(self, root: str, *, shallow: bool) -> dict[str, dict]:
        if not shallow:
            return self.filesystem.find(root, detail=True)
        try:
            rows = self.filesystem.ls(root, detail=True)
        except (FileNotFoundError, NotADirectoryError):
            return {}
        return {row["name"]: row for row in rows if row["type"] == "file"}

    def pieces(self, file: File, start: int) -> Iterator[bytes]:
        while start < file.size:
            end = min(file.size, start + _PIECE)
            with self._told():
                whole = (start, end) == (0, file.size)
                part = {} if whole else {"start": start, "end": end}
                piece = self.filesystem.cat_file(file.key, **part)
            yield piece
            start = end

    @contextlib.contextmanager
    def _told(self, *, listing: bool = False) -> Iterator[None]:
        try:
            yield
        except ConfigError:
            raise
        except Exception as error:
            if addresses.scheme(self.address) in addresses.BUCKETS:
                path = buckets.BucketPath("gs://" + self.address.partition("://")[2])
                # What a listing lacks is the bucket: a folder without files is no error.
                raise buckets.os_error(error, path, writing=listing) from error
            raise _os_error(error, addresses.shown(self.address)) from error


def _file(name: str, key: str, info: dict) -> File:
    mark = next((str(info[name]) for name in _MARKS if info.get(name)), "")
    return File(name, int(info.get("size") or 0), mark, key, _md5(info))


def _md5(info: dict) -> str:
    """The MD5 of an object, in hexadecimal, as Google and Azure tell it; S3's is another thing."""
    told = info.get("md5Hash") or info.get("content_md5") or ""
    try:
        digest = told if isinstance(told, bytes | bytearray) else base64.b64decode(told)
    except ValueError:
        return ""
    return bytes(digest).hex() if len(digest) == 16 else ""


def _checked(files: list[File], shown: str) -> tuple[File, ...]:
    """Files whose names can be names on a disk. Raises ConfigError where some cannot."""
    above = {
        "/".join(parts[:k])
        for parts in (file.name.split("/") for file in files)
        for k in range(1, len(parts))
    }
    # Some tools mark a folder by an empty object of its name.
    files = [file for file in files if file.size or file.name not in above]
    odd = [
        file.name
        for file in files
        if file.name in above
        or "\0" in file.name
        or any(part in ("", ".", "..") for part in file.name.split("/"))
    ]
    if odd:
        raise ConfigError(
            f"{shown} holds {len(odd)} object(s) whose names cannot be files on a disk: "
            f"{quoted(odd, 3)}; rename or remove them there."
        )
    return tuple(sorted(files, key=lambda file: file.name))


def _os_error(error: Exception, shown: str) -> OSError:
    if isinstance(error, FileNotFoundError):
        return FileNotFoundError(errno.ENOENT, "nothing is there", shown)
    if isinstance(error, PermissionError):
        return PermissionError(errno.EACCES, first_line(error).rstrip(".") or "refused", shown)
    if isinstance(error, TimeoutError):
        return TimeoutError(errno.ETIMEDOUT, "no answer comes", shown)
    said = first_line(error).rstrip(".") or type(error).__name__
    return OSError(errno.EIO, f"{type(error).__name__}: {said}", shown)


def is_there(address: str, what: str) -> bool:
    """Whether something lies at an address, as it stands. Raises ConfigError."""
    with _sentence(address, what):
        return bool(open_source(address, what).list(shallow=True).files)


def content(address: str, what: str) -> bytes:
    """The contents of one file, which is kept nowhere.

    Raises:
        ConfigError: there is no such file, or it cannot be read; one sentence.
    """
    source = open_source(address, what)
    with _sentence(address, what):
        listing = source.list(shallow=True)
        if not listing.is_file:
            raise ConfigError(f"{what} is {addresses.shown(address)}, and there is no such file.")
        return b"".join(source.pieces(listing.files[0], 0))


@contextlib.contextmanager
def _sentence(address: str, what: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ConfigError(
            f"{what} is {addresses.shown(address)}, and cannot be read: "
            f"{(error.strerror or str(error)).rstrip('.')}."
        ) from error
