"""The text of a compiled program (HLO): its computations, and cycles, kernels and bytes in it.

All figures are per device. They are the compiler's; nothing is run.
"""

import dataclasses
import math
import re
from collections.abc import Iterator

_BYTES = {"pred": 1, "s4": 0.5, "u4": 0.5, "bf16": 2, "f16": 2, "c64": 8, "c128": 16}
# Operations that only name what is there.
NAMING = frozenset({"parameter", "constant", "tuple", "get-tuple-element", "bitcast"})
_FREE = NAMING | {"while", "conditional", "call", "after-all"}  # move nothing by themselves
# An array: dtype, dimensions, and where they are printed the order of the dimensions and the tiles.
SHAPE = re.compile(r"\b(pred|bf16|[sufc]\d+|f8\w+)\[([\d,]*)\](?:\{([\d,]*)(?::([^}]*))?\})?")
# Name, shape and kind; the operands follow.
OPERATION = re.compile(r"^\s*(?:ROOT )?%?(\S+) = (.+?) ([a-z][\w-]*)\(")


@dataclasses.dataclass(frozen=True)
class Kernel:
    """A Pallas kernel as its caller describes it.

    Attributes:
        flops: floating-point operations of its matmuls.
        bytes_accessed: bytes that it reads from and writes to the memory of the device.
    """

    flops: float
    bytes_accessed: float


def read_cycles(text: str) -> float | None:
    """The sum of the cycles in scheduled HLO that the compiler estimates; None without estimates.

    An operation inside a loop counts as often as the loop is known to run, or once.
    """
    computations, entry = computations_of(text)
    return cycles_of(computations, computations[entry])


def cycles_of(computations: dict[str, list[str]], lines: list[str]) -> float | None:
    """Cycles of some lines of a program and of what they call, as `read_cycles`."""
    cycles = [
        times * int(estimate[1])
        for line, times in walk({**computations, "": lines}, "", loops_only=True)
        if (estimate := re.search(r'"estimated_cycles":"(\d+)"', line))
    ]
    return float(sum(cycles)) if cycles else None


def read_kernels(text: str) -> tuple[Kernel, ...]:
    """The Pallas kernels of scheduled HLO; those in loops as often as `read_cycles` counts them."""
    computations, entry = computations_of(text)
    kernels = []
    for line, times in walk(computations, entry, loops_only=True):
        if estimate := re.search(
            r'"cost_estimate":\{"flops":"(\d+)".*?"bytes_accessed":"(\d+)"', line
        ):
            kernels += [Kernel(float(estimate[1]), float(estimate[2]))] * times
    return tuple(kernels)


def read_bytes(text: str) -> float:
    """Bytes of the operands and results of every operation in scheduled HLO.

    What happens inside a fusion stays on the chip, and the workspaces of library calls (bytes
    beside their results) are left out. Loops count as `read_cycles` counts them.
    """
    computations, entry = computations_of(text)
    sizes: dict[str, float] = {}
    for line in text.splitlines():
        if operation := OPERATION.match(line):
            sizes[operation[1]] = sum(
                size_of(*array)
                for array in SHAPE.findall(operation[2])
                if operation[3] != "custom-call" or array[0] not in ("s8", "u8")
            )
    total = 0.0
    for line, times in walk(computations, entry, loops_only=True):
        operation = OPERATION.match(line)
        if operation is None or operation[3] in _FREE or operation[3].endswith("-done"):
            continue
        operands = operands_of(line, operation)
        moved = [sizes[operation[1]], *(sizes.get(operand, 0.0) for operand in operands)]
        total += times * sum(moved)
    return total


def operands_of(line: str, operation: re.Match[str]) -> list[str]:
    """Names of the operands in a line, of which `operation` is the match of `OPERATION`."""
    # Shapes of operands, where they are printed, hold parentheses: `f32[8,128]{1,0:T(8,128)} %x`.
    return re.findall(r"%([\w.\-]+)", line[operation.end() :].split("), ")[0])


def bytes_per_element(dtype: str) -> float:
    """0.5 for int4, 2 for bf16, and so on, of the dtypes that `SHAPE` finds."""
    return _BYTES.get(dtype) or (1 if dtype.startswith("f8") else int(dtype[1:]) / 8)


def computations_of(text: str) -> tuple[dict[str, list[str]], str]:
    """Lines by computation, and the name of the entry."""
    computations: dict[str, list[str]] = {}
    entry, lines = "", list[str]()
    for line in text.splitlines():
        head = re.match(r"^(ENTRY )?%?([\w.\-]+) \(.*\{\s*$", line)
        if head:
            lines = computations.setdefault(head[2], [])
            entry = head[2] if head[1] else entry
        else:
            lines.append(line)
    return computations, entry


def walk(
    computations: dict[str, list[str]], name: str, *, loops_only: bool, times: int = 1
) -> Iterator[tuple[str, int]]:
    """Lines of a computation and of what it calls, with how often they run.

    With `loops_only`, fusions and the like are not entered, for their caller speaks for them.
    """
    for line in computations.get(name, []):
        yield line, times
        operation = OPERATION.match(line)
        if operation is None or operation[3].endswith(("-done", "-update")):
            continue
        if operation[3] == "while":
            trips = re.search(r'known_trip_count"?[:=]\{"?n"?[:=]"?(\d+)', line)
            body = re.search(r"body=%?([\w.\-]+)", line)
            if body:
                often = times * (int(trips[1]) if trips else 1)
                yield from walk(computations, body[1], loops_only=loops_only, times=often)
        elif operation[3] in ("call", "conditional") or not loops_only:
            called = re.findall(r"(?:calls|to_apply|_computation)=%?([\w.\-]+)", line)
            several = re.search(r"branch_computations=\{([^}]*)\}", line)
            called += re.findall(r"[\w.\-]+", several[1]) if several else []
            for other in called:
                yield from walk(computations, other, loops_only=loops_only, times=times)


def size_of(dtype: str, dimensions: str, *_: str) -> float:
    """Bytes of an array that `SHAPE` finds."""
    return bytes_per_element(dtype) * math.prod(int(d) for d in dimensions.split(",") if d)
