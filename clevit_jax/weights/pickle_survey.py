"""Survey of the pickle in a `.pth`: what it may hold is checked before torch reads it.

Reading a pickle may run code or fill the memory. Its opcodes are followed without building
anything: only what a checkpoint needs passes, and only tensors that lie within their storages.
"""

import collections
import dataclasses
import itertools
import math
import pickletools
import re
from collections.abc import Collection, Iterable, Mapping
from typing import IO, Any

import ml_dtypes
import numpy as np

from clevit_jax.errors import WeightsError
from clevit_jax.system.quoting import quoted
from clevit_jax.weights.stand_ins import FOREIGN, GETATTR, HISTORY, Kind, python_3_name

BF16 = np.dtype(ml_dtypes.bfloat16)
TORCH_DTYPES = {
    code: np.dtype(name)
    for code, name in zip(
        ["Double", "Float", "Half", "Long", "Int", "Short", "Char", "Byte", "Bool"],
        ["f8", "f4", "f2", "i8", "i4", "i2", "i1", "u1", "?"],
        strict=True,
    )
} | {"BFloat16": BF16}


# What the pickle of a checkpoint may name: these, and what has a stand-in.
_STORAGES = {f"torch.{name}Storage": dtype for name, dtype in TORCH_DTYPES.items()}
_KNOWN = frozenset(
    [*_STORAGES, *FOREIGN, "collections.OrderedDict", "collections.Counter", "_codecs.encode"]
    + ["builtins.set", "builtins.bytearray", "builtins.complex", "torch.device", "torch.Size"]
    + ["torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_parameter"]
    + [f"torch.{dtype}" for dtype in ("float32", "float16", "bfloat16", "float64", "int64")]
)
_SPECIAL_TENSORS = re.compile(
    r"torch\.(_utils\._rebuild_\w+|serialization\._get_layout|per_\w+|\w*float\w*|\w+Storage"
    r"|storage\.UntypedStorage)"
)
MAX_PICKLE = 64 << 20
_PICKLE_OPCODES = 1_000_000  # a Swin-L with its optimizer needs a tenth
_TENSORS_PER_FILE = 4  # tied weights may add up to more bytes than the file has, but not many times


@dataclasses.dataclass(frozen=True)
class _Global:
    """A name that the pickle imports."""

    name: str


@dataclasses.dataclass(frozen=True)
class _Storage:
    """The numbers of one or more tensors."""

    dtype: np.dtype
    count: int


class _Foreign:
    """An object of a foreign name, and how many entries it was given."""

    def __init__(self, of: str) -> None:
        self.of, self.entries = of, 0


class _Checked:
    """A tensor that lies within its storage, or another harmless value of no interest."""


def _opcodes(stream: IO[bytes]) -> list[tuple[pickletools.OpcodeInfo, Any, int | None]]:
    opcodes = list(itertools.islice(pickletools.genops(stream), _PICKLE_OPCODES + 1))
    if len(opcodes) > _PICKLE_OPCODES:
        raise WeightsError(f"holds a pickle of over {_PICKLE_OPCODES} steps")
    return opcodes


def _globals(opcodes: Iterable[tuple[pickletools.OpcodeInfo, Any, int | None]]) -> set[str]:
    """All that a pickle of any protocol imports, as `module.name`."""
    # By hand: torch's own list (see `torch_pickle.load_surveyed`) is of zips of protocol 2 only,
    # counts no steps, and leaves out what torch allows but a checkpoint does not need, such as
    # `torch.Tensor`.
    names: set[str] = set()
    pushed: list[Any] = []
    memo: dict[Any, Any] = {}
    for opcode, arg, _ in opcodes:
        if opcode.name in ("GLOBAL", "INST"):
            names.add(python_3_name(arg.replace(" ", ".")))
        elif opcode.name == "STACK_GLOBAL":
            names.add(python_3_name(".".join(str(text) for text in pushed[-2:])))
        if opcode.name == "MEMOIZE" or "PUT" in opcode.name:
            memo[len(memo) if arg is None else arg] = pushed[-1] if pushed else None
        else:
            pushed.append(memo.get(arg) if "GET" in opcode.name else arg)
    return names


def _unknown(opcodes: Iterable[tuple[pickletools.OpcodeInfo, Any, int | None]]) -> set[str]:
    """What a pickle imports that a checkpoint does not need."""
    names = _globals(opcodes)
    return names - _KNOWN - ({GETATTR} if HISTORY in names else set())


def _check_keys(keys: Iterable[Any]) -> None:
    """Refuses keys whose hashes take for ever (nested tuples) or all collide (huge integers)."""

    def plain(key: Any) -> bool:
        if type(key) in (int, float):
            return abs(key) < 1 << 60
        return type(key) in (str, bool, bytes, type(None))

    for key in keys:
        parts = key if type(key) is tuple and len(key) <= 8 else (key,)
        if not all(map(plain, parts)):
            raise WeightsError(
                "holds a dict whose keys are neither text nor numbers, which is not read: save "
                "model.state_dict() alone"
            )


def unsafe_pickle(stream: IO[bytes]) -> str:
    """The refusal of a pickle of any protocol that would run code; "" if it would not.

    Raises:
        Exception: of many kinds, where it is not a pickle.
    """
    unknown = _unknown(_opcodes(stream))
    return unsafe_names(unknown) if unknown else ""


def unsafe_names(names: Collection[str]) -> str:
    """The refusal of a pickle that imports these names."""
    listed = quoted(sorted(names))
    if all(_SPECIAL_TENSORS.fullmatch(name) for name in names):
        return f"holds tensors that are not plain dense numbers ({listed}): save them as float32"
    mend = "take a .safetensors of these weights, or save model.state_dict() alone"
    return f"asks for {listed}, which could run code when it is read: {mend}"


def _two_ways(name: str) -> str:
    return (
        f"holds objects of {quoted([name])} that are not only a dict or a list, which is not read: "
        "save model.state_dict() alone"
    )


class PickleSurvey:
    """Follows the opcodes of a pickle, builds no objects, and refuses what is not a checkpoint.

    Args:
        size: bytes of the file.
        records: key -> bytes of the storages in a zip; None for the older format.
    """

    def __init__(self, size: int, records: Mapping[str, int] | None) -> None:
        self.storages: dict[str, _Storage] = {}
        self._size, self._records = size, records
        self._tensor_bytes = self._handed = 0
        self._uses: dict[str, set[str]] = {}  # foreign name -> what it is filled and built as
        self._states: set[tuple[str, str]] = set()  # foreign names whose state is a foreign object

    def run(self, stream: IO[bytes]) -> Any:
        """What the pickle holds, with marks in the place of tensors and foreign objects."""
        opcodes = _opcodes(stream)
        if unknown := _unknown(opcodes):
            raise WeightsError(unsafe_names(unknown))
        stack: list[Any] = []
        marks: list[list[Any]] = []
        memo: dict[int, Any] = {}
        for opcode, arg, _ in opcodes:
            match opcode.name:
                case "PROTO" if arg == 2:
                    pass
                case "BINUNICODE" | "BININT" | "BININT1" | "BININT2" | "LONG1" | "BINFLOAT":
                    stack.append(arg)
                case "NONE" | "NEWTRUE" | "NEWFALSE":
                    stack.append({"NONE": None, "NEWTRUE": True, "NEWFALSE": False}[opcode.name])
                case "EMPTY_TUPLE" | "EMPTY_LIST" | "EMPTY_DICT":
                    stack.append({"T": tuple, "L": list, "D": dict}[opcode.name[6]]())
                case "GLOBAL":
                    stack.append(_Global(python_3_name(arg.replace(" ", "."))))
                case "BINPUT" | "LONG_BINPUT":
                    memo[arg] = stack[-1]
                case "BINGET" | "LONG_BINGET":
                    stack.append(memo[arg])
                case "MARK":
                    marks.append(stack)
                    stack = []
                case "TUPLE1" | "TUPLE2" | "TUPLE3":
                    count = int(opcode.name[-1])
                    stack[-count:] = [tuple(stack[-count:])]
                case "TUPLE" | "APPENDS" | "SETITEMS":
                    items, stack = stack, marks.pop()
                    if opcode.name == "TUPLE":
                        stack.append(tuple(items))
                    else:
                        self._extend(stack[-1], items, opcode.name == "SETITEMS")
                case "APPEND":
                    item = stack.pop()
                    self._extend(stack[-1], [item], False)
                case "SETITEM":
                    value, key = stack.pop(), stack.pop()
                    self._extend(stack[-1], [key, value], True)
                case "REDUCE" | "NEWOBJ":
                    args = stack.pop()
                    stack[-1] = self._call(stack[-1].name, args, opcode.name == "NEWOBJ")
                case "BUILD":
                    state = stack.pop()
                    self._build(stack[-1], state)
                case "BINPERSID":
                    stack[-1] = self._storage(*stack[-1])
                case "STOP":
                    return stack.pop()
                case name:
                    what = f"protocol {arg}" if name == "PROTO" else name
                    raise WeightsError(
                        f"holds a pickle of another kind ({what}): save it by a plain torch.save"
                    )
        raise EOFError

    def _extend(self, target: Any, items: list[Any], pairs: bool) -> None:
        if type(target) is _Foreign:
            if pairs:
                _check_keys(items[::2])
            self._uses.setdefault(target.of, set()).add("dict" if pairs else "list")
            target.entries += len(items)
        elif not pairs and type(target) is list:
            target.extend(items)
        elif pairs and type(target) in (dict, collections.OrderedDict):
            _check_keys(items[::2])
            target.update(zip(items[::2], items[1::2], strict=True))
        else:
            raise TypeError

    def _build(self, target: Any, state: Any) -> None:
        self._hand(state)
        if type(target) is _Foreign:
            if type(state) is _Foreign:
                self._states.add((target.of, state.of))
            use = "state" if isinstance(state, dict | _Foreign) else "odd state"
            self._uses.setdefault(target.of, set()).add(use)
        elif type(target) is not collections.OrderedDict or not isinstance(state, dict):
            raise TypeError

    def kinds(self) -> dict[str, Kind]:
        """What each foreign name must be, after `run`: a dict, a list, or an object.

        Raises:
            WeightsError: a name is used as more than one of these, which torch does not read.
        """
        kinds: dict[str, Kind] = {}
        for name, uses in self._uses.items():
            kinds[name] = "dict" if "dict" in uses else "list" if "list" in uses else "object"
            # torch gives a dict no state but a dict, and a list none at all.
            never = {"dict": {"list", "odd state"}, "list": {"state", "odd state"}, "object": set()}
            if uses & never[kinds[name]]:
                raise WeightsError(_two_ways(name))
        for name, state in self._states:
            if kinds[name] == "dict" != kinds.get(state, "object"):
                raise WeightsError(_two_ways(name))
        return kinds

    def _call(self, name: str, args: tuple[Any, ...], new: bool) -> Any:
        if type(args) is not tuple:
            raise TypeError
        self._hand(args, *args)
        if name in FOREIGN:
            return _Foreign(name)
        if name == GETATTR:
            if new or len(args) != 2 or args[0] != _Global(HISTORY) or type(args[1]) is not str:
                raise WeightsError(unsafe_names([name]))
            return _Foreign(name)
        match name, args:
            case "collections.OrderedDict", ():
                return collections.OrderedDict()
            case "torch._utils._rebuild_tensor_v2", _ if not new:
                return self._tensor(*args)
            case "torch._utils._rebuild_parameter", (_Checked(), bool(), collections.OrderedDict()):
                return _Checked()
            case "builtins.set", (list(values),):
                _check_keys(values)
                return _Checked()
            case "builtins.bytearray", () | (bytes(),) | (str(), "latin-1") if not new:
                return _Checked()
            case "builtins.complex", (float(), float()) if not new:
                return _Checked()
            case "collections.Counter", (dict(),):
                return _Checked()
            case "_codecs.encode", (str(text), "latin1"):
                return text.encode("latin1")
            case (("torch.device" | "torch.Size"), (str() | tuple(), *_)):
                return _Checked()
        raise TypeError

    def _hand(self, *values: Any) -> None:
        """Counts what calls get: the same long value, given again and again, would take hours."""
        sized = str | bytes | tuple | list | dict
        self._handed += sum(len(v) for v in values if isinstance(v, sized))
        self._handed += sum(v.entries for v in values if type(v) is _Foreign)
        if self._handed > MAX_PICKLE:
            raise WeightsError("holds a pickle that repeats itself without end")

    def _storage(self, kind: str, type_: _Global, key: str, _: str, count: int, *view: None) -> Any:
        storage = _Storage(_STORAGES[type_.name], count)
        room = self._size if self._records is None else self._records[key]
        if kind != "storage" or type(key) is not str or type(count) is not int or any(view):
            raise TypeError
        # torch itself would read beyond the end of a record, or set aside any number of bytes.
        if not 0 <= count * storage.dtype.itemsize <= room:
            raise WeightsError(damaged(f"a storage of {count} numbers in {room} bytes"))
        if self.storages.setdefault(key, storage) != storage:
            raise WeightsError(damaged(f"storage {quoted([key])} is given two sizes"))
        return storage

    def _tensor(
        self,
        storage: _Storage,
        offset: int,
        size: tuple[int, ...],
        stride: tuple[int, ...],
        requires_grad: bool,
        hooks: Any,
    ) -> _Checked:
        if type(size) is not tuple or type(stride) is not tuple or len(size) > 64:
            raise TypeError
        if not all(type(n) is int and 0 <= n < 1 << 48 for n in (offset, *size, *stride)):
            raise TypeError
        if type(requires_grad) is not bool or hooks:
            raise TypeError
        count = math.prod(size)
        last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
        if count > storage.count or (count and last >= storage.count):
            raise WeightsError("holds a tensor that is larger than its data: save it contiguous")
        self._tensor_bytes += count * storage.dtype.itemsize
        if self._tensor_bytes > _TENSORS_PER_FILE * self._size:
            raise WeightsError("holds tensors of many times its own size: they share their data")
        return _Checked()


def damaged(detail: str) -> str:
    """The end of a sentence about a file that is not as it was written."""
    return f"is damaged or cut short ({detail}): download or copy it again"
