"""Variables of MATLAB files as lists of texts and whole numbers."""

import math
import os
import pathlib
import warnings
from typing import Any

from clevit_jax.data.layouts.listing import Notes

_MOST = 50_000_000  # elements of a variable; more are a damaged number
_NOT = {
    b"version https://git-lfs": "is a Git LFS pointer and not the file itself; run git lfs pull",
    b"<": "is a web page and not a MATLAB file; fetch it again",
}


def load(path: pathlib.Path, names: list[str], notes: Notes) -> dict[str, Any]:
    """Variables of a MATLAB file, those that are there; {}, and a problem, if it cannot be read.

    Arrays without axes of length 1, as `scipy.io.loadmat` gives them.
    """
    from scipy import io  # here, for it takes its time

    begin = b""
    try:
        with path.open("rb") as file:
            begin = file.read(128)
        what = next((what for start, what in _NOT.items() if begin.lstrip().startswith(start)), "")
        if what:
            notes.problems.append(f"{path} {what}.")
            return {}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for name, shape, _ in io.whosmat(path):
                if math.prod(shape) > min(_MOST, 1100 * os.path.getsize(path)):
                    raise ValueError(f"{name} would have {math.prod(shape)} elements")
            found = io.loadmat(path, variable_names=names, squeeze_me=True)
    except NotImplementedError:
        notes.problems.append(
            f"{path} is of MATLAB 7.3 (HDF5), which is not read; in MATLAB, "
            f"save('{path.name}', '-v7') writes one that is."
        )
        return {}
    except OSError as error:
        notes.problems.append(f"{path} cannot be read: {error.strerror or error}.")
        return {}
    except Exception as error:  # whatever a damaged file makes SciPy raise
        said = " ".join(str(error).split()) or type(error).__name__
        said = said[:100].rstrip(".")
        notes.problems.append(
            f"{path} is no MATLAB file, or a damaged one ({said}); fetch it again."
        )
        return {}
    return {name: found[name] for name in names if name in found}


def texts(value: Any) -> list[str | None]:
    """The texts of a cell array; None for what is no text."""
    return [str(x) if isinstance(x, str) else None for x in _flat(value)]


def numbers(value: Any) -> list[int | None]:
    """The whole numbers of an array; None for what is none."""
    return [_number(x) for x in _flat(value)]


def fields(value: Any) -> dict[str, Any]:
    """Field -> array, of an array of structs; {} if it is none."""
    names = getattr(getattr(value, "dtype", None), "names", None)
    return {name: value[name] for name in names or ()}


def _flat(value: Any) -> list[Any]:
    """The elements of an array of any shape; a scalar is one."""
    if value is None:
        return []
    if isinstance(value, str):
        return [value]
    flat = value.ravel().tolist() if hasattr(value, "ravel") else [value]
    return flat if isinstance(flat, list) else [flat]


def _number(value: Any) -> int | None:
    if hasattr(value, "ravel"):  # a number within a struct, wrapped again
        inside = value.ravel().tolist()
        value = inside[0] if len(inside) == 1 else None
    if isinstance(value, bool | int):
        return int(value)
    return int(value) if isinstance(value, float) and value.is_integer() else None
