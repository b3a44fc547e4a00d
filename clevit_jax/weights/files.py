"""Weight files: `.pth` and `.safetensors`, read without trust and written atomically.

`torch_pickle` reads a `.pth`; `pickle_survey` says what its pickle may hold.
"""

import collections
import contextlib
import dataclasses
import hashlib
import io
import json
import os
import pathlib
import re
import stat
import warnings
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy

from clevit_jax.errors import WeightsError
from clevit_jax.system.faults import mend, os_reason
from clevit_jax.system.files import replacing
from clevit_jax.system.quoting import printable, quoted
from clevit_jax.weights import entries, pickle_survey, stand_ins, torch_pickle
from clevit_jax.weights.looks import looks_like
from clevit_jax.weights.pickle_survey import BF16, damaged

_SAFETENSORS_DTYPES = {
    code: np.dtype(name)
    for code, name in zip(
        ["F64", "F32", "F16", "I64", "I32", "I16", "I8", "U64", "U32", "U16", "U8", "BOOL"],
        ["f8", "f4", "f2", "i8", "i4", "i2", "i1", "u8", "u4", "u2", "u1", "?"],
        strict=True,
    )
} | {"BF16": BF16}
_HEADER_BYTES = 100_000_000  # as in the safetensors library
_LEGACY = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # how torch.save began before torch 1.6


@dataclasses.dataclass(frozen=True)
class WeightFile:
    """What a file of weights holds.

    Attributes:
        tensors: name as in the file, without the wrapper -> array of the file's shape and dtype
            (bfloat16 is that of ml_dtypes). Tied weights share memory.
        wrapper: the entry of the file that held the state dict; "" where the file is one.
        other_entries: the rest of the file, such as "optimizer" and "config".
        sha256: of the file's bytes, in hex.
    """

    tensors: dict[str, np.ndarray]
    wrapper: str
    other_entries: tuple[str, ...]
    sha256: str


def read_weight_file(path: str | os.PathLike[str], entry: str | None = None) -> WeightFile:
    """Reads a `.pth` (zip or older) or `.safetensors`, whatever its suffix, and runs no code.

    The state dict of a `.pth` is its `entry`, or the one that `entries.choose` finds, or else the
    file itself.

    Raises:
        WeightsError: where the file is not there, something else, damaged, would run code, or has
            no state dict of plain dense tensors; and where a `.pth` is read without torch.
    """
    with _one_sentence(path, "read"), _open(path) as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        size = file.seek(0, os.SEEK_END)
        file.seek(0)
        head = file.read(4096)
        file.seek(0)
        if head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= max(size, _HEADER_BYTES):
            if entry is not None:
                raise WeightsError(
                    f"has no entries, for it is a .safetensors: drop --entry {entry}"
                )
            return WeightFile(_read_safetensors(path, file), "", (), digest)
        if head.startswith(b"PK\x03\x04"):
            kinds = torch_pickle.survey_zip(file, size)
        elif head.startswith(_LEGACY):
            kinds = torch_pickle.survey_legacy(file, size)
        else:
            raise WeightsError(looks_like(file, head))
        content = torch_pickle.load_surveyed(file, kinds)
        return WeightFile(*_state_dict(content, entry), digest)


def sha256(path: str | os.PathLike[str]) -> str:
    """The SHA-256 of a file's bytes, in hex; WeightsError where the file cannot be read."""
    with _one_sentence(path, "read"), _open(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_safetensors(
    path: str | os.PathLike[str],
    tensors: Mapping[str, np.ndarray],
    metadata: Mapping[str, str] | None = None,
    *,
    overwrite: bool = False,
) -> None:
    """Writes arrays of any strides, dtypes kept, as a `.safetensors`: whole, or not at all.

    Missing parent folders are made.

    Raises:
        WeightsError: where the file exists and `overwrite` is False, the format lacks the dtype of
            an array, or the file cannot be written.
    """
    with _one_sentence(path, "written"), _replacing(path, overwrite) as unfinished:
        arrays = _contiguous(tensors, _SAFETENSORS_DTYPES.values())
        safetensors.numpy.save_file(arrays, unfinished, dict(metadata) if metadata else None)


def write_pth(
    path: str | os.PathLike[str],
    tensors: Mapping[str, np.ndarray],
    *,
    wrapper: str = "",
    overwrite: bool = False,
) -> None:
    """Writes arrays of any strides, dtypes kept, as a state dict for `torch.load`.

    Whole or not at all, with missing parent folders made, as `write_safetensors`. With a
    `wrapper` the file holds `{wrapper: state dict}`.

    Raises:
        WeightsError: as `write_safetensors`, and without torch.
    """
    with _one_sentence(path, "written"), _replacing(path, overwrite) as unfinished:
        torch = torch_pickle.import_torch()
        state = collections.OrderedDict()
        for name, array in _contiguous(tensors, pickle_survey.TORCH_DTYPES.values()).items():
            raw = array.view(np.int16) if array.dtype == BF16 else array
            tensor = torch.from_numpy(raw)
            state[name] = tensor.view(torch.bfloat16) if array.dtype == BF16 else tensor
        with open(unfinished, "wb") as file:  # given a path, torch writes its name into the file
            torch.save({wrapper: state} if wrapper else state, file)


@contextlib.contextmanager
def _one_sentence(path: str | os.PathLike[str], done: str) -> Iterator[None]:
    """Turns what goes wrong into one sentence that names the file; lets no warning out."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
            return
    except WeightsError as error:
        reason = str(error)
    except MemoryError:
        reason = f"cannot be {done}: there is not enough memory"
    except OSError as error:
        missing = isinstance(error, FileNotFoundError) and done == "read"
        reason = "does not exist" if missing else f"cannot be {done} ({_os_words(error)})"
    except Exception as error:
        if done == "written" and not isinstance(error, RuntimeError | safetensors.SafetensorError):
            raise
        # Only the kind of error: the words of torch tell the user to switch the safety off.
        behind = _os_error(error)
        reason = f"cannot be {done} ({_os_words(behind) if behind else type(error).__name__})"
        if done == "read":
            reason = damaged(type(error).__name__)
    raise WeightsError(f"{printable(os.fspath(path))} {reason}.") from None


def _os_words(error: OSError) -> str:
    return f"{os_reason(error)}{mend(error)}"


def _os_error(error: BaseException) -> OSError | None:
    """The error of the system behind a library's own: in torch's context, in safetensors' words."""
    if number := re.search(r"\(os error (\d+)\)", str(error)):
        return OSError(int(number[1]), os.strerror(int(number[1])))
    behind: BaseException | None = error
    while behind is not None and not isinstance(behind, OSError):
        behind = behind.__cause__ or behind.__context__
    return behind


def _open(path: str | os.PathLike[str]) -> io.BufferedReader:
    mode = os.stat(path).st_mode
    if not stat.S_ISREG(mode):  # opening a pipe would wait for ever
        raise WeightsError("is a folder" if stat.S_ISDIR(mode) else "is not a regular file")
    return open(path, "rb")


# --- .safetensors


def _read_safetensors(path: Any, file: io.BufferedReader) -> dict[str, np.ndarray]:
    try:
        with safetensors.safe_open(path, framework="np") as opened:  # checks all of the header
            _check_entries(file)
            dtypes = {name: opened.get_slice(name).get_dtype() for name in opened.offset_keys()}
            if unread := [
                name for name, dtype in dtypes.items() if dtype not in _SAFETENSORS_DTYPES
            ]:
                listed = ", ".join(
                    f"{quoted([name])} as {quoted([dtypes[name]])}" for name in unread[:9]
                )
                raise WeightsError(
                    f"holds {listed}, but only {', '.join(_SAFETENSORS_DTYPES)} are read"
                )
            if not dtypes:
                raise WeightsError("holds no tensors")
            return {name: opened.get_tensor(name) for name in dtypes}
    except safetensors.SafetensorError as error:
        text = str(error).removeprefix("Error while deserializing header: ")
        raise WeightsError(damaged(repr(text)[1:-1][:200])) from None  # it may hold any name


def _check_entries(file: io.BufferedReader) -> None:
    """Raises WeightsError where two readers could take an entry for different things."""
    # By hand: safetensors takes the last of two entries of one name, and reads over what it does
    # not know.

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        entries = dict(pairs)
        if len(entries) < len(pairs):
            raise WeightsError(damaged("its header names an entry twice"))
        return entries

    text = file.read(int.from_bytes(file.read(8), "little")).decode("utf-8")
    for name, entry in json.loads(text, object_pairs_hook=unique).items():
        if name != "__metadata__" and len(entry) > 3:
            raise WeightsError(damaged(f"{quoted([name])} has more than dtype, shape and place"))


def _state_dict(
    content: Any, entry: str | None
) -> tuple[dict[str, np.ndarray], str, tuple[str, ...]]:
    """Tensors, wrapper and other entries of what torch has read."""
    torch = torch_pickle.import_torch()

    def items(value: Any) -> dict[Any, Any]:
        # By the type's own method: a file may give an OrderedDict attributes of any name.
        return dict(type(value).items(value)) if isinstance(value, dict) else {}

    def is_tensor(value: Any) -> bool:
        return isinstance(value, torch.Tensor)

    state = top = items(content)
    path = entries.choose(content, items, is_tensor, entry)
    for name in path:
        state = items(state[name])
    if not any(map(is_tensor, state.values())):
        _refuse_arrays(top)
        what = f"its entries are {quoted(top)}" if top else f"it is a {type(content).__name__}"
        wanted = ", ".join(entries.WRAPPERS)
        raise WeightsError(
            f"holds no state dict of tensors, alone or in an entry such as {wanted}: {what}"
        )
    strange = [n for n, v in state.items() if type(n) is not str or not is_tensor(v)]
    if strange:
        raise WeightsError(f"holds in its state dict what is not a tensor: {quoted(strange)}")

    def array(tensor: Any) -> np.ndarray:  # shares the memory
        if tensor.dtype is torch.bfloat16:
            return tensor.detach().view(torch.int16).numpy().view(BF16)
        return tensor.detach().numpy()

    others = tuple(str(name) for name in top if name != path[0]) if path else ()
    return {name: array(tensor) for name, tensor in state.items()}, ".".join(path), others


def _refuse_arrays(top: Mapping[Any, Any]) -> None:
    """Raises WeightsError where arrays stand in the place of tensors, alone or in one entry."""
    for held in (top, *(value for value in top.values() if isinstance(value, dict))):
        values = list(type(held).values(held))
        if len(values) > 1 and all(isinstance(value, stand_ins.Inert) for value in values):
            raise WeightsError(
                f"holds arrays of NumPy, or other objects, for tensors ({quoted(held, 3)}): save "
                "them by safetensors.numpy.save_file(arrays, 'weights.safetensors')"
            )


# --- writing


def _contiguous(
    tensors: Mapping[str, np.ndarray], dtypes: Iterable[np.dtype]
) -> dict[str, np.ndarray]:
    """The arrays in C order and this machine's byte order, copied only where they are not."""
    arrays = {name: np.asarray(array) for name, array in tensors.items()}
    native = {name: array.dtype.newbyteorder("=") for name, array in arrays.items()}
    if wrong := [name for name, dtype in native.items() if dtype not in dtypes]:
        listed = ", ".join(f"{quoted([name])} ({native[name]})" for name in wrong[:20])
        raise WeightsError(f"cannot be written, for the format lacks the dtype of {listed}")
    return {name: np.asarray(a, native[name], order="C") for name, a in arrays.items()}


@contextlib.contextmanager
def _replacing(path: str | os.PathLike[str], overwrite: bool) -> Iterator[pathlib.Path]:
    """`files.replacing` of a durable file, with its parent folders, refusing one that is there."""
    target = pathlib.Path(path)
    if not overwrite and os.path.lexists(target):
        raise WeightsError("exists already: give another path, or allow overwriting it")
    target.parent.mkdir(parents=True, exist_ok=True)
    with replacing(target, durable=True) as unfinished:
        yield unfinished
