"""Folders and files in a bucket, `gs://BUCKET/...`, with the methods of `pathlib.Path`.

A bucket has no folders, cannot append and cannot rename. An object is there when its upload is
whole, and then every host sees it. What is written goes up in one piece; what must grow is kept
here and goes up now and then (`system.append`).

Google Cloud Storage is reached by gcsfs, which Orbax uses for it, too. `system.places` is the only
module that makes these paths.
"""

import contextlib
import errno
import fnmatch
import functools
import importlib.util
import io
import logging
import os
import pathlib
import posixpath
import secrets
import types
from collections.abc import Iterator
from typing import Any

from etils.epath import gpath

from clevit_jax.errors import ConfigError, first_line

_SECONDS = 120  # that one request may take, before it is tried again
_SIGN_IN = (
    "sign in by gcloud auth application-default login, or give the machine a service account with "
    "roles/storage.objectUser on the bucket"
)


def check_installed(what: str) -> None:
    """Raises ConfigError, with what to type, unless buckets can be read and written here."""
    if importlib.util.find_spec("gcsfs") is None:
        raise ConfigError(
            f"{what} lies in a bucket, and the package gcsfs, which reads and writes it, is not "
            "installed: pip install 'clevit_jax[gcs]'."
        )


@functools.cache
def prepare() -> None:
    """Sets what gcsfs and Orbax go by, before either is first used in a process."""
    # Plain objects are all that is used; otherwise gcsfs asks for the type of each bucket first.
    os.environ.setdefault("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
    os.environ.setdefault("EPATH_USE_TF", "false")  # Orbax would take TensorFlow where there is one
    import fsspec.config

    # A listing never expires: what another host writes would not be there, and a file that grew
    # would be read up to its old size.
    options = {"use_listings_cache": False, "requests_timeout": _SECONDS}
    fsspec.config.conf["gcs"] = {**fsspec.config.conf.get("gcs", {}), **options}
    logging.getLogger("google.auth").setLevel("ERROR")  # what lacks is said when it is needed
    logging.getLogger("gcsfs").setLevel("CRITICAL")  # pages of tracebacks beside what it raises


@functools.cache
def filesystem() -> Any:
    """The file system of all buckets (fsspec's `AbstractFileSystem`)."""
    prepare()
    import fsspec

    return fsspec.filesystem("gcs")


class BucketPath(gpath.PosixGPath):
    """A folder or file in a bucket, as `gs://BUCKET/...`.

    What the methods of `pathlib.Path` raise, these raise: OSError with its number, path and reason,
    whatever the library below raised.
    """

    @property
    def bucket(self) -> str:
        """The name of the bucket."""
        return self.parts[2] if len(self.parts) > 2 else ""

    def exists(self) -> bool:
        return self._info() is not None

    def is_dir(self) -> bool:
        return (self._info() or {}).get("type") == "directory"

    def is_file(self) -> bool:
        return (self._info() or {}).get("type") == "file"

    def is_symlink(self) -> bool:
        return False

    def _info(self) -> dict[str, Any] | None:
        try:
            with told(self):
                return filesystem().info(str(self))
        except FileNotFoundError:
            return None

    def stat(self) -> Any:
        """With `st_size` in bytes and `st_mtime` in seconds since 1970."""
        with told(self):
            info = filesystem().info(str(self))
        changed = info.get("mtime") or info.get("updated")
        seconds = changed.timestamp() if hasattr(changed, "timestamp") else 0.0
        return types.SimpleNamespace(st_size=info["size"], st_mtime=seconds)

    def iterdir(self) -> Iterator["BucketPath"]:
        with told(self):
            names = filesystem().ls(str(self), detail=False)
        for name in sorted(names):
            if (end := name.rstrip("/").rpartition("/")[2]) and name.rstrip("/") != self._key():
                yield self / end

    def glob(self, pattern: str) -> Iterator["BucketPath"]:
        """As pathlib's, `**` included; what is below a folder that is not there is nothing."""
        first, _, rest = pattern.partition("/")
        if "**" in first:
            yield from self._below(rest or "*")
            return
        if not any(sign in first for sign in "*?["):
            found = [self / first] if rest or (self / first).exists() else []
        else:
            found = [path for path in self._children() if fnmatch.fnmatchcase(path.name, first)]
        for path in found:
            if rest:
                yield from path.glob(rest)
            else:
                yield path

    def _children(self) -> list["BucketPath"]:
        try:
            return list(self.iterdir())
        except (FileNotFoundError, NotADirectoryError):
            return []

    def _below(self, pattern: str) -> Iterator["BucketPath"]:
        depth = pattern.count("/") + 1
        for path in self.files():
            end = "/".join(path.parts[-depth:])
            if len(path.parts) - depth >= len(self.parts) and fnmatch.fnmatchcase(end, pattern):
                yield path

    def files(self) -> list["BucketPath"]:
        """All files below, at whatever depth, in the order of their names."""
        with told(self):
            names = filesystem().find(str(self))
        start = len(self._key()) + 1
        return [self / name[start:] for name in names if name[start:] and not name.endswith("/")]

    def _key(self) -> str:
        """`BUCKET/...`, as the file system lists it."""
        return str(self).partition("://")[2]

    def absolute(self) -> "BucketPath":
        return self

    def resolve(self, strict: bool = False) -> "BucketPath":
        return self

    def expanduser(self) -> "BucketPath":
        return self

    def open(
        self,
        mode: str = "r",
        buffering: int = -1,
        encoding: str | None = None,
        errors: str | None = None,
        newline: str | None = None,
    ) -> Any:
        """To read. A file is written in one piece: see `system.files.replacing`."""
        if mode not in ("r", "rb", "rt"):
            raise io.UnsupportedOperation(f"{self}: a file in a bucket is written in one piece")
        data = io.BytesIO(self.read_bytes())
        data.name = str(self)
        if mode == "rb":
            return data
        return io.TextIOWrapper(data, encoding=encoding, errors=errors, newline=newline)

    def read_bytes(self) -> bytes:
        with told(self):
            return filesystem().cat_file(str(self))

    def chunks(self, size: int = 16 << 20) -> Iterator[bytes]:
        """The bytes of the file, `size` at a time."""
        start, end = 0, self.stat().st_size
        while start < end:
            with told(self):
                yield filesystem().cat_file(str(self), start=start, end=min(start + size, end))
            start += size

    def read_text(self, encoding: str | None = None, errors: str | None = None) -> str:
        return self.read_bytes().decode(encoding or "utf-8", errors or "strict")

    def write_bytes(self, data: bytes) -> int:
        with told(self, writing=True):
            filesystem().pipe_file(str(self), bytes(data))
        return len(data)

    def write_text(
        self,
        data: str,
        encoding: str | None = None,
        errors: str | None = None,
        newline: str | None = None,
    ) -> int:
        return self.write_bytes(data.encode(encoding or "utf-8", errors or "strict"))

    def upload(self, source: pathlib.Path) -> None:
        """Makes this file of one on the disk, in one piece."""
        with told(self, writing=True):
            filesystem().put_file(str(source), str(self))

    def download(self, target: pathlib.Path) -> None:
        """Makes a file on the disk of this one."""
        with told(self):
            filesystem().get_file(str(self), str(target))

    def touch(self, mode: int = 0o666, exist_ok: bool = True) -> None:
        if self.exists():
            if not exist_ok:
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(self))
            return
        self.write_bytes(b"")

    def mkdir(self, mode: int | None = None, parents: bool = False, exist_ok: bool = False) -> None:
        """Does nothing: a folder is there when a file in it is. The bucket must be there."""
        if not exist_ok and self.exists():
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(self))

    def unlink(self, missing_ok: bool = False) -> None:
        try:
            with told(self):
                filesystem().rm_file(str(self))
        except FileNotFoundError:
            if not missing_ok:
                raise

    def rmdir(self) -> None:
        """Does nothing unless a file is in it, which raises OSError."""
        if self._children():
            raise OSError(errno.ENOTEMPTY, os.strerror(errno.ENOTEMPTY), str(self))

    def rmtree(self, missing_ok: bool = False) -> None:
        """Removes all files below. One that is killed on the way leaves some."""
        files = self.files()
        if not files and not missing_ok and not self.exists():
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(self))
        for path in files:
            path.unlink(missing_ok=True)

    def copy_folder(self, target: "BucketPath") -> None:
        """Copies all files below into another folder, within the bucket."""
        for path in self.files():
            with told(path):
                name = path.parts[len(self.parts) :]
                filesystem().cp_file(str(path), str(target.joinpath(*name)))

    def rename(self, target: Any) -> "BucketPath":
        """A copy and a removal, of a file: not at one moment, as on a disk."""
        with told(self):
            filesystem().cp_file(str(self), str(target))
        self.unlink()
        return type(self)(target)

    replace = rename


def check_usable(folder: Any, *, writing: bool) -> None:
    """Raises OSError, with what to do, where a run cannot be kept in a folder of a bucket.

    Args:
        folder: a `BucketPath`; it need not be there.
        writing: whether anything is to be written.
    """
    from google.cloud import storage  # by which Orbax asks what kind of bucket it is

    try:
        with told(folder, writing=True):
            storage.Client().get_bucket(folder.bucket, timeout=_SECONDS)
    except PermissionError as error:
        more = "the right storage.buckets.get is needed, as of roles/storage.bucketViewer"
        raise PermissionError(errno.EACCES, f"{error.strerror}; {more}", str(folder)) from error
    if writing:
        probe = folder / f".writable-{secrets.token_hex(4)}"
        probe.write_bytes(b"")
        probe.unlink()


@contextlib.contextmanager
def told(path: BucketPath, *, writing: bool = False) -> Iterator[None]:
    """Turns whatever the libraries below raise into the OSError that a disk would raise."""
    try:
        yield
    except Exception as error:
        raise os_error(error, path, writing=writing) from error


def os_error(error: Exception, path: BucketPath, *, writing: bool = False) -> OSError:
    """The OSError that a disk would raise, with number, reason and path.

    Args:
        error: of gcsfs, aiohttp, requests or google.auth.
        path: that was asked for.
        writing: whether it was to be written: what is missing then is the bucket.
    """
    text = first_line(error).rstrip(".")
    answer = str(getattr(error, "code", None) or getattr(error, "status", None))
    code = int(answer) if answer.isdecimal() else 0
    kind = type(error)
    if isinstance(error, FileNotFoundError) or code == 404:
        reason = f"there is no bucket {path.bucket}, or this user may not see it"
        return FileNotFoundError(
            errno.ENOENT, reason if writing else os.strerror(errno.ENOENT), str(path)
        )
    if isinstance(error, FileExistsError):
        return FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))
    if "Forbidden" in text or code == 403:
        said = [line for line in str(error).splitlines() if line.strip()][-1]
        return PermissionError(
            errno.EACCES, f"the bucket refuses it ({said.strip(' .')})", str(path)
        )
    if "Project was not passed" in text:
        return OSError(errno.EINVAL, f"{text}; export GOOGLE_CLOUD_PROJECT=PROJECT", str(path))
    if code == 401 or kind.__module__.startswith("google.auth"):
        return PermissionError(errno.EACCES, f"{text}; {_SIGN_IN}", str(path))
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return error  # of this disk, which a download fills
    if code == 429 or code >= 500:
        return OSError(errno.EIO, f"the bucket answers {code} ({text})", str(path))
    if isinstance(error, TimeoutError):
        return TimeoutError(errno.ETIMEDOUT, "the bucket does not answer", str(path))
    if isinstance(error, OSError) or kind.__module__.partition(".")[0] in ("aiohttp", "requests"):
        return OSError(errno.EHOSTUNREACH, f"the bucket cannot be reached ({text})", str(path))
    return OSError(errno.EIO, text or kind.__name__, str(path))


def is_bucket_name(name: str) -> bool:
    """Whether a bucket may be called so: 3 to 222 signs, small letters, digits and `-_.`."""
    inner = posixpath.normpath(name) == name and 3 <= len(name) <= 222
    return inner and all(sign.isdigit() or sign.islower() or sign in "-_." for sign in name)
