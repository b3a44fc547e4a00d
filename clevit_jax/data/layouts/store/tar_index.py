"""What lies where in a tar file: its headers are read, and nothing else.

As `tarfile` does it, at a fifth of its time: data sets have millions of members.
"""

import os
import pathlib
from collections.abc import Iterator
from typing import NamedTuple

from clevit_jax.data import no_image
from clevit_jax.system.quoting import printable

_BLOCK = 512
_MOST = 1 << 20  # bytes of a name that is kept in a member of its own
_FILES, _LINKS = (b"0", b"\0", b"7"), (b"1", b"2")
_LONG_NAME, _LONG_LINK, _PAX, _PAX_FOR_ALL, _SPARSE = b"L", b"K", b"x", b"g", b"S"


class TarError(ValueError):
    """A file is no whole tar."""


class Member(NamedTuple):
    """A file in a tar.

    Attributes:
        name: with forward slashes, without `./` in front.
        start: where its bytes begin; -1 of a link, which has none.
        size: bytes.
    """

    name: str
    start: int
    size: int


def members(path: pathlib.Path) -> Iterator[Member]:
    """The files and links in a tar, in their order; folders and devices are passed over.

    Raises:
        TarError: it is compressed, or damaged, or ends early; the message says which.
        OSError: it cannot be read.
    """
    with path.open("rb", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        if size < _BLOCK and (told := no_image.pointer_at(path)):
            raise TarError(f"it is {told}")
        yield from _members(file.fileno(), size)


def _members(file: int, size: int) -> Iterator[Member]:
    place = 0
    name: str | None = None  # that a member of its own gave to the next one
    longer: int | None = None  # size, likewise
    while place < size:
        header = os.pread(file, _BLOCK, place)
        if header.count(0) == _BLOCK:
            return
        if len(header) < _BLOCK or not _is_sound(header):
            raise TarError(_what_it_is(header) if place == 0 else "it is damaged, or ends early")
        kind = header[156:157]
        length = _number(header[124:136]) if longer is None else longer
        start = place + _BLOCK
        place = start + -(-length // _BLOCK) * _BLOCK
        if kind in _LINKS:
            place = start
        elif length < 0 or start + length > size:
            raise TarError("it is damaged, or ends early")
        if kind in (_LONG_NAME, _PAX):
            if length > _MOST:
                raise TarError("it is damaged: a name has more than a million letters")
            data = os.pread(file, length, start)
            if kind == _LONG_NAME:
                name = _text(data.partition(b"\0")[0])
            else:
                name, longer = _pax(data, name)
            continue
        if kind in (_LONG_LINK, _PAX_FOR_ALL):
            continue
        called = (_name(header) if name is None else name).removeprefix("./")
        name = longer = None
        if kind in _LINKS:
            yield Member(called, -1, 0)
        elif kind == _SPARSE:
            raise TarError("it has sparse files; pack it without --sparse")
        elif kind in _FILES and not called.endswith("/"):
            yield Member(called, start, length)


def _is_sound(header: bytes) -> bool:
    """Whether the sum over a header is the one that it names."""
    try:
        told = _number(header[148:156])
    except TarError:
        return False
    return told == sum(header) - sum(header[148:156]) + 8 * ord(" ")


def _what_it_is(header: bytes) -> str:
    magics = {
        b"\x1f\x8b": "gunzip",
        b"BZh": "bunzip2",
        b"\xfd7zXZ": "unxz",
        b"(\xb5/\xfd": "unzstd",
    }
    for magic, command in magics.items():
        if header.startswith(magic):
            return (
                f"it is compressed, so no image in it can be read alone; unpack it with {command}"
            )
    return "it is no tar file"


def _number(field: bytes) -> int:
    """An octal number, or for large ones a binary one."""
    if field[0] in (0o200, 0o377):
        return int.from_bytes(field[1:]) - (256 ** (len(field) - 1) if field[0] == 0o377 else 0)
    text = field.partition(b"\0")[0].strip()
    if not text.isdigit():
        if not text:
            return 0
        raise TarError("it is damaged")
    try:
        return int(text, 8)
    except ValueError as error:
        raise TarError("it is damaged") from error


def _name(header: bytes) -> str:
    name = header[:100].partition(b"\0")[0]
    prefix = header[345:500].partition(b"\0")[0] if header[257:263] == b"ustar\0" else b""
    return _text(prefix + b"/" + name if prefix else name)


def _text(name: bytes) -> str:
    r"""A name that can be printed: bytes that are no UTF-8 and line ends become `\xe9` and `\n`."""
    return printable(name.decode("utf-8", "backslashreplace"))


def _pax(data: bytes, name: str | None) -> tuple[str | None, int | None]:
    """The name and the size that an extended header tells; `name` where it tells none."""
    size: int | None = None
    while data:
        length, blank, _ = data.partition(b" ")
        if not blank or not length.isdigit() or not 5 <= int(length[:8]) <= len(data):
            raise TarError("it is damaged")
        record = data[len(length) + 1 : int(length)]
        data = data[int(length) :]
        key, _, value = record.removesuffix(b"\n").partition(b"=")
        if key == b"path":
            name = _text(value)
        elif key == b"size" and value.isdigit() and len(value) < 20:
            size = int(value)
        elif key.startswith(b"GNU.sparse"):
            raise TarError("it has sparse files; pack it without --sparse")
    return name, size
