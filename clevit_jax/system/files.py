"""Files that appear whole or not at all, and JSON in them."""

import contextlib
import errno
import json
import os
import pathlib
import secrets
import tempfile
from collections.abc import Iterator
from typing import Any

from clevit_jax.errors import ConfigError
from clevit_jax.system import faults
from clevit_jax.system.places import in_bucket


@contextlib.contextmanager
def replacing(path: pathlib.Path, *, durable: bool = False) -> Iterator[pathlib.Path]:
    """A temporary file to write to, which replaces `path` at the end, or goes on failure.

    It lies beside `path`. Its name is drawn at random, so that no two processes write to one, on
    whatever machines. It exists and is empty at the beginning. It has the permissions of any new
    file, whoever writes it. For a path in a bucket it lies on this disk, and goes up in one piece.

    Args:
        path: the file; its folder exists.
        durable: returns when the file and its name are on the disk, which survive a power cut.

    Raises:
        OSError: as writing and moving raise it.
    """
    if in_bucket(path):
        with _uploading(path) as temporary:
            yield temporary
        return
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        temporary.touch(exist_ok=False)
        mode = temporary.stat().st_mode
        yield temporary
        if temporary.stat().st_mode != mode:  # safetensors leaves a file to its owner alone
            temporary.chmod(mode)
        if durable:
            sync(temporary)
        os.replace(temporary, path)
        if durable:
            sync(path.parent)
    except OSError as error:
        # A full disk names no file, and the temporary one says nothing to anybody.
        if error.errno is not None and error.filename in (None, str(temporary)):
            error.filename = str(path)
        raise
    finally:
        with contextlib.suppress(OSError):  # what raised is told, not this
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def _uploading(path: Any) -> Iterator[pathlib.Path]:
    with tempfile.TemporaryDirectory(prefix="clevit_jax-") as folder:
        temporary = pathlib.Path(folder, path.name)  # libraries go by the ending
        temporary.touch()
        yield temporary
        path.upload(temporary)


@contextlib.contextmanager
def purpose(what: str, path: pathlib.Path, *, done: str = "written") -> Iterator[None]:
    """Turns an OSError inside into a ConfigError that says what the file was for.

    Args:
        what: the file was to hold, "The table of predictions".
        path: of the file, where the error names none.
        done: "written" or "read".
    """
    try:
        yield
    except OSError as error:
        where = os.fsdecode(error.filename) if isinstance(error.filename, str | bytes) else path
        raise ConfigError(
            f"{what} cannot be {done}: {where}: {faults.os_reason(error)}{faults.mend(error)}."
        ) from error


def sync(path: pathlib.Path) -> None:
    """Returns when a file, or the names in a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def why_not_writable(folder: pathlib.Path) -> str:
    """Why no file can be made in a folder, "Read-only file system"; "" where one can."""
    if in_bucket(folder):
        return _why_not_writable_bucket(folder)
    try:
        with tempfile.TemporaryFile(dir=folder):
            return ""
    except OSError as error:
        return error.strerror or str(error)


def why_not_there(folder: pathlib.Path) -> str:
    """Why a folder that is to hold a file is not there, and what to do; "" where it is.

    A bucket has no folders; there it is why nothing can be written.
    """
    if in_bucket(folder):
        return _why_not_writable_bucket(folder)
    return "" if folder.is_dir() else f"there is no folder {folder}; make it first"


def _why_not_writable_bucket(folder: Any) -> str:
    from clevit_jax.system import buckets

    try:
        buckets.check_usable(folder, writing=True)
        return ""
    except OSError as error:
        return error.strerror or str(error)


def check_can_be_made(folder: pathlib.Path) -> None:
    """Raises OSError unless there is such a folder, or it can be made; leaves none behind.

    Not even an empty one: in a folder of images it would be taken for a class.
    """
    if in_bucket(folder):
        if reason := _why_not_writable_bucket(folder):
            raise PermissionError(errno.EACCES, reason, str(folder))
        return
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    finally:
        for path in made:
            with contextlib.suppress(OSError):  # it could not be made, or another put a file there
                path.rmdir()


def write_text(path: pathlib.Path, text: str) -> None:
    """Writes UTF-8, whole or not at all."""
    with replacing(path) as new:
        new.write_text(text, encoding="utf-8")


def write_json(path: pathlib.Path, value: Any) -> None:
    """Writes indented JSON, whole or not at all."""
    write_text(path, json.dumps(value, indent=2) + "\n")


def read_json(path: pathlib.Path) -> Any:
    """The value in a JSON file. Raises ConfigError when the file is missing or is not JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror or error}.") from error
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path} is not JSON: {error}.") from error


def read_json_object(path: pathlib.Path) -> dict[str, Any]:
    """The object in a JSON file. Raises ConfigError when there is none."""
    value = read_json(path)
    if not isinstance(value, dict):
        raise ConfigError(f"{path} is not a JSON object; it was not written by this program.")
    return value
