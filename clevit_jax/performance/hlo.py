"""Memory, FLOPs, cycles and traffic of a compiled program, read from it and its HLO.

All figures are per device. They are the compiler's; nothing is run.
"""

import dataclasses
import math
import re
from collections.abc import Iterator
from typing import Any

COLLECTIVES = (
    "all-reduce",
    "all-gather",
    "reduce-scatter",
    "all-to-all",
    "collective-permute",
    "ragged-all-to-all",
    "collective-broadcast",
)
_BYTES = {"pred": 1, "s4": 0.5, "u4": 0.5, "bf16": 2, "f16": 2, "c64": 8, "c128": 16}
# Operations that only name what is there.
NAMING = frozenset({"parameter", "constant", "tuple", "get-tuple-element", "bitcast"})
_FREE = NAMING | {"while", "conditional", "call", "after-all"}  # move nothing by themselves
# An array: dtype, dimensions, and where they are printed the order of the dimensions and the tiles.
SHAPE = re.compile(r"\b(pred|bf16|[sufc]\d+|f8\w+)\[([\d,]*)\](?:\{([\d,]*)(?::([^}]*))?\})?")
# Name, shape and kind; the operands follow.
OPERATION = re.compile(r"^\s*(?:ROOT )?%?(\S+) = (.+?) ([a-z][\w-]*)\(")


@dataclasses.dataclass(frozen=True)
class Memory:
    """Bytes per device, as the compiler plans them.

    Attributes:
        arguments: state and batch.
        temporaries: the most that is alive at once inside the program.
        outputs: what it returns, but for outputs that take the place of an argument.
        code: the program itself.
    """

    arguments: float
    temporaries: float
    outputs: float
    code: float

    @property
    def peak(self) -> float:
        """The sum of these."""
        return self.arguments + self.temporaries + self.outputs + self.code


@dataclasses.dataclass(frozen=True)
class Traffic:
    """Bytes that a device sends by one kind of collective in a step.

    Attributes:
        count: operations.
        size: bytes of their results (reduce-scatter: of their operands).
        sent: bytes that a device sends if they go round a ring of n devices: 2 (n - 1) / n of the
            size for all-reduce, (n - 1) / n for the others, all of it for a permute or broadcast.
    """

    count: int
    size: float
    sent: float


@dataclasses.dataclass(frozen=True)
class Kernel:
    """A Pallas kernel as its caller describes it.

    Attributes:
        flops: floating-point operations of its matmuls.
        bytes_accessed: bytes that it reads from and writes to the memory of the device.
    """

    flops: float
    bytes_accessed: float


@dataclasses.dataclass(frozen=True)
class Cost:
    """Cost of a compiled program, per device.

    Attributes:
        memory: see `Memory`.
        flops: floating-point operations, recomputed ones too; None where the compiler does not
            count them.
        bytes_accessed: bytes that its operations read and write; not all of them reach the memory.
        cycles: the compiler's estimate for all but collectives and kernels; None where there is
            none.
        traffic: by kind of collective.
        kernels: Pallas kernels as they describe themselves; the compiler estimates nothing of them.
    """

    memory: Memory
    flops: float | None
    bytes_accessed: float
    cycles: float | None
    traffic: dict[str, Traffic]
    kernels: tuple[Kernel, ...] = ()


def read_memory(compiled: Any) -> Memory:
    """Memory per device that the compiler plans for a `jax.stages.Compiled`."""
    plan = compiled.memory_analysis()
    return Memory(
        arguments=plan.argument_size_in_bytes,
        temporaries=plan.temp_size_in_bytes,
        outputs=plan.output_size_in_bytes - plan.alias_size_in_bytes,
        code=plan.generated_code_size_in_bytes,
    )


def read_cost(compiled: Any, *, devices: int) -> Cost:
    """Cost of a `jax.stages.Compiled` that runs on `devices` devices."""
    costs = compiled.cost_analysis() or {}
    text = compiled.as_text()
    return Cost(
        memory=read_memory(compiled),
        flops=costs.get("flops"),
        bytes_accessed=costs.get("bytes accessed") or read_bytes(text),
        cycles=read_cycles(text),
        traffic=read_traffic(text, devices=devices),
        kernels=read_kernels(text),
    )


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
        for line, times in _walk({**computations, "": lines}, "", loops_only=True)
        if (estimate := re.search(r'"estimated_cycles":"(\d+)"', line))
    ]
    return float(sum(cycles)) if cycles else None


def read_kernels(text: str) -> tuple[Kernel, ...]:
    """The Pallas kernels of scheduled HLO; those in loops as often as `read_cycles` counts them."""
    computations, entry = computations_of(text)
    kernels = []
    for line, times in _walk(computations, entry, loops_only=True):
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
                _size(*array)
                for array in SHAPE.findall(operation[2])
                if operation[3] != "custom-call" or array[0] not in ("s8", "u8")
            )
    total = 0.0
    for line, times in _walk(computations, entry, loops_only=True):
        operation = OPERATION.match(line)
        if operation is None or operation[3] in _FREE or operation[3].endswith("-done"):
            continue
        operands = operands_of(line, operation)
        moved = [sizes[operation[1]], *(sizes.get(operand, 0.0) for operand in operands)]
        total += times * sum(moved)
    return total


def read_traffic(text: str, *, devices: int) -> dict[str, Traffic]:
    """Collectives in HLO by kind; those in loops count as often as the loops are known to run."""
    computations, entry = computations_of(text)
    totals: dict[str, Traffic] = {}
    seen: set[str] = set()
    for line, times in _walk(computations, entry, loops_only=False):
        operation = OPERATION.match(line)
        kind = operation[3].removesuffix("-start") if operation else ""
        if operation is None or kind not in COLLECTIVES:
            continue
        # A collective that is started and ended in two computations stands in both.
        channel = re.search(r"channel_id=(\d+)", line)
        if channel and channel[1] in seen:
            continue
        seen |= {channel[1]} if channel else set()
        shape = operation[2]
        if operation[3] != kind and kind in ("all-gather", "collective-permute"):
            shape = shape[shape.rindex(SHAPE.findall(shape)[-1][0] + "[") :]  # (operand, result)
        n = _group_size(line, devices)
        size = times * sum(_size(*array) for array in SHAPE.findall(shape))
        size *= n if kind == "reduce-scatter" else 1
        share = {"all-reduce": 2 * (n - 1) / n, "collective-permute": 1, "collective-broadcast": 1}
        sent = size * share.get(kind, (n - 1) / n)
        old = totals.get(kind, Traffic(0, 0.0, 0.0))
        totals[kind] = Traffic(old.count + times, old.size + size, old.sent + sent)
    return totals


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


def _walk(
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
                yield from _walk(computations, body[1], loops_only=loops_only, times=often)
        elif operation[3] in ("call", "conditional") or not loops_only:
            called = re.findall(r"(?:calls|to_apply|_computation)=%?([\w.\-]+)", line)
            several = re.search(r"branch_computations=\{([^}]*)\}", line)
            called += re.findall(r"[\w.\-]+", several[1]) if several else []
            for other in called:
                yield from _walk(computations, other, loops_only=loops_only, times=times)


def _size(dtype: str, dimensions: str, *_: str) -> float:
    return bytes_per_element(dtype) * math.prod(int(d) for d in dimensions.split(",") if d)


def _group_size(line: str, devices: int) -> int:
    """How many devices take part together."""
    if mesh := re.search(r"replica_groups=mesh\[([^\]]*)\]\s*\{([^}]*)\}", line):
        sizes = dict(re.findall(r"'(\w+)'=(\d+)", mesh[1]))
        return math.prod(int(sizes[axis]) for axis in re.findall(r"'(\w+)'", mesh[2]))
    if iota := re.search(r"replica_groups=\[(\d+),(\d+)\]<=", line):
        return int(iota[2])
    if groups := re.search(r"replica_groups=\{\{([\d,]*)\}", line):
        return len(groups[1].split(","))
    return devices
