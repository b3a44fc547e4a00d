"""Variables of MATLAB files (version 5 to 7.2) as lists of texts and whole numbers.

What is needed of the format is read here: SciPy's reader trusts the sizes that a file names, and a
single wrong byte ends the process with a segmentation fault. Here each size is checked.

Reference: MathWorks, "MAT-File Format", chapter 1, level 5 MAT-files.
"""

import math
import pathlib
import zlib
from collections.abc import Collection, Iterator
from typing import Any

import numpy as np

from clevit_jax.data.layouts.listing import Notes

_MOST = 1 << 28  # bytes of a variable
_DEEPEST = 6  # cells and structs in each other
_HEADER = 128  # bytes
_MATRIX, _COMPRESSED, _UTF8 = 14, 15, 16
_CELL, _STRUCT, _CHAR, _NUMERIC = 1, 2, 4, range(6, 16)
# Type of the bytes of an array -> that of NumPy; 16 to 18 are texts.
_TYPES = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8",
          13: "u8", 17: "u2", 18: "u4"}  # fmt: skip
_NOT = {
    b"version https://git-lfs": "is a Git LFS pointer and not the file itself; run git lfs pull",
    b"<": "is a web page and not a MATLAB file; fetch it again",
    b"MATLAB 7.3": "is of MATLAB 7.3 (HDF5), which is not read; in MATLAB, save it with '-v7'",
}


def load(path: pathlib.Path, names: Collection[str], notes: Notes) -> dict[str, Any]:
    """Variables of a MATLAB file, those that are there; {}, and a problem, if it cannot be read.

    Returns:
        Name -> a list of numbers, a text (a list, if there are several), a list of the values of a
        cell array, or field -> list of values of an array of structs; None for other kinds.
    """
    data = path.read_bytes()
    for start, what in _NOT.items():
        if data[:_HEADER].lstrip().startswith(start):
            notes.problems.append(f"{path} {what}.")
            return {}
    try:
        return dict(_variables(memoryview(data), names))
    except (ValueError, zlib.error) as error:
        notes.problems.append(
            f"{path} is no MATLAB file, or a damaged one ({error}); fetch it again."
        )
        return {}


def texts(value: Any) -> list[str | None]:
    """The texts of a cell array, or of several cells; None for what is no text."""
    values = value if isinstance(value, list) else [value]
    return [x if isinstance(x, str) else None for x in map(_alone, values)]


def numbers(value: Any) -> list[int | None]:
    """The whole numbers of an array, or of a field of structs; None for what is none."""
    values = value if isinstance(value, list) else [value]
    return [
        int(x) if isinstance(x, int) or (isinstance(x, float) and x.is_integer()) else None
        for x in map(_alone, values)
    ]


def _alone(value: Any) -> Any:
    """A value that is wrapped in an array of one."""
    return value[0] if isinstance(value, list) and len(value) == 1 else value


def _variables(data: memoryview, names: Collection[str]) -> Iterator[tuple[str, Any]]:
    if len(data) < _HEADER:
        raise ValueError("it is too short")
    order = {b"IM": "<", b"MI": ">"}.get(bytes(data[126:128]))
    if order is None:
        raise ValueError("it does not begin as one")
    for kind, content in _elements(data[_HEADER:], order):
        if kind == _COMPRESSED:
            opened = zlib.decompressobj()
            plain = opened.decompress(content, _MOST)
            if not opened.eof:
                raise ValueError("a variable ends too early")
            kind, content = next(_elements(memoryview(plain), order), (0, content))
        if kind == _MATRIX:
            name, value = _matrix(content, order, names)
            if name in names:
                yield name, value


def _elements(data: memoryview, order: str) -> Iterator[tuple[int, memoryview]]:
    """(type, content) of each element; sizes that go beyond the end are a ValueError."""
    place = 0
    while place < len(data):
        if len(data) - place < 8:
            raise ValueError("an element ends too early")
        kind, size = (int(x) for x in np.frombuffer(data[place : place + 8], f"{order}u4"))
        if kind >> 16:  # a small one: type and size in four bytes, the content in the others
            kind, size = kind & 0xFFFF, kind >> 16
            start, following = place + 4, place + 8
        else:
            start = place + 8
            following = start + (size if kind == _COMPRESSED else -(-size // 8) * 8)
        if start + size > len(data) or (following == place + 8 and size > 4):
            raise ValueError("an element is longer than what holds it")
        yield kind, data[start : start + size]
        place = following


def _matrix(
    data: memoryview, order: str, names: Collection[str] | None = None, depth: int = 0
) -> tuple[str, Any]:
    """Name and value of an array; no value where the name is not one of `names`."""
    if not data:
        return "", []
    if depth > _DEEPEST:
        raise ValueError("arrays lie too deep in each other")
    parts = _elements(data, order)
    kind = _first(parts, order) & 0xFF
    shape = [int(x) for x in _numbers(*_next(parts), order)]
    name = bytes(_next(parts)[1]).decode("latin-1")
    count = math.prod(shape)
    if len(shape) < 2 or min(shape) < 0 or count > len(data):
        raise ValueError("an array is larger than what holds it")
    if names is not None and name not in names:
        return name, None
    if kind == _CELL:
        return name, [_inner(parts, order, depth) for _ in range(count)]
    if kind == _STRUCT:
        width = _first(parts, order)
        called = bytes(_next(parts)[1])
        if width < 1:
            raise ValueError("a struct has fields without names")
        cut = [called[i : i + width] for i in range(0, len(called), width)]
        fields = [each.split(b"\0")[0].decode("latin-1") for each in cut]
        rows = [[_inner(parts, order, depth) for _ in fields] for _ in range(count)]
        return name, {field: [row[i] for row in rows] for i, field in enumerate(fields)}
    if kind == _CHAR:
        return name, _text(*_next(parts), shape, order)
    if kind in _NUMERIC:
        values = _numbers(*_next(parts), order)
        if len(values) != count:
            raise ValueError("an array has another size than it says")
        return name, values
    return name, None


def _next(parts: Iterator[tuple[int, memoryview]]) -> tuple[int, memoryview]:
    part = next(parts, None)
    if part is None:
        raise ValueError("an array ends too early")
    return part


def _first(parts: Iterator[tuple[int, memoryview]], order: str) -> int:
    found = _numbers(*_next(parts), order)
    if not found:
        raise ValueError("a number is missing")
    return int(found[0])


def _inner(parts: Iterator[tuple[int, memoryview]], order: str, depth: int) -> Any:
    kind, content = _next(parts)
    if kind != _MATRIX:
        raise ValueError("what is in a cell is no array")
    return _matrix(content, order, None, depth + 1)[1]


def _numbers(kind: int, content: memoryview, order: str) -> list[Any]:
    """The numbers of an element."""
    if kind not in _TYPES:
        raise ValueError(f"there are no numbers of type {kind}")
    dtype = np.dtype(order + _TYPES[kind])
    if len(content) % dtype.itemsize:
        raise ValueError("numbers end too early")
    return np.frombuffer(content, dtype).tolist()


def _text(kind: int, content: memoryview, shape: list[int], order: str) -> str | list[str]:
    """The text of an array of characters; a list of its rows, if there are several."""
    if kind == _UTF8:
        text = bytes(content).decode("utf-8")
        if shape[0] <= 1:
            return text.rstrip()
        values: list[Any] = list(map(ord, text))
    else:
        values = _numbers(kind, content, order)
    codes = np.array(values, np.int64)
    if len(codes) != math.prod(shape):
        raise ValueError("a text has another size than it says")
    codes = np.where((codes >= 0) & (codes < 0x110000), codes, 0xFFFD)  # no character
    rows = codes.reshape(shape[0], -1, order="F") if shape[0] > 1 else codes[None]
    said = [row.astype("<u4").tobytes().decode("utf-32-le", "replace").rstrip() for row in rows]
    return said if len(said) > 1 else said[0]
