"""Cycles of each operation of a compiled TPU program, by the compiler's own schedule.

The compiler estimates the cycles of its own operations and writes them into the program's text. Of
a Pallas kernel it knows nothing, but on request it writes down the bundles of instructions that it
has scheduled. A bundle is a cycle, so the cycles of a kernel are counted here from its bundles.

Two rules, which must not be mixed freely, since the estimates charge less bandwidth than there is:

* A: the estimates, and for a kernel the larger of its schedule and its bytes at the bandwidth that
  the estimates charge.
* B, a floor: the bytes of each operation at the bandwidth of the data sheet, its arithmetic free,
  and for a kernel the larger of its schedule and that.
"""

import dataclasses
import math
import pathlib
import re
from collections.abc import Iterator, Mapping

from clevit_jax.performance.hlo import (
    NAMING,
    OPERATION,
    SHAPE,
    bytes_per_element,
    computations_of,
    cycles_of,
    operands_of,
)

_EXIT = re.compile(
    r"%(p\d+)\w* = scmp\.ge\.s32\.totalorder (?:\([^)]*\), )?[^,]*, (\d+) "
    r"/\* loop exit test"
)
_POST = "-packed-bundles-post-ra.txt"  # how the name of a schedule ends
_BUNDLE = re.compile(r"\s*(0x[0-9a-f]+|\d+)\s+(?:[A-Z]{2})?\s*:\s*((?:>\s*)*)\{(.*)")


@dataclasses.dataclass(frozen=True)
class Operation:
    """One operation of a compiled program, on one device.

    Attributes:
        name: its name in HLO.
        source: the JAX operation that it comes from, `jit(step)/layers.0/...`.
        kernel: whether it is a Pallas kernel.
        cycles: the compiler's estimate; for a kernel, counted from its schedule.
        size: bytes that it reads from and writes to the memory of the device.
    """

    name: str
    source: str
    kernel: bool
    cycles: float
    size: float

    def rule_a(self, charged: float) -> float:
        """Cycles by rule A; `charged`: bytes per cycle in the compiler's estimates."""
        return max(self.cycles, self.size / charged) if self.kernel else self.cycles

    def rule_b(self, bandwidth: float) -> float:
        """Cycles by rule B; `bandwidth`: bytes per cycle by the data sheet."""
        moving = self.size / bandwidth
        return max(self.cycles, moving) if self.kernel else moving


def read_operations(text: str, dump: pathlib.Path | None = None) -> list[Operation]:
    """The operations of a compiled program's entry.

    Args:
        text: scheduled HLO for a TPU.
        dump: folder that the compiler wrote its schedules to, for kernels.

    Raises:
        ValueError: the schedule of a kernel is missing, or not understood.
    """
    text = re.sub(r"kernel_metadata=\{\s*([^}]*?)\s*\}", r"kernel_metadata={\1}", text)
    entry = text[text.index("\nENTRY") :]
    computations, _ = computations_of(text)
    shapes: dict[str, str] = {}
    same: dict[str, str] = {}  # a bitcast is the same bytes
    schedules = _schedules(entry, dump) if dump else {}
    operations = []
    for line in entry.splitlines():
        operation = OPERATION.match(line)
        if operation is None:
            continue
        name, shape, kind = operation.groups()
        shapes[name] = shape
        operands = [same.get(o, o) for o in operands_of(line, operation)]
        if kind == "bitcast" and operands:
            same[name] = operands[0]
        if kind in NAMING or kind.endswith(("-done", "-update")):
            continue
        kernel = 'custom_call_target="tpu_custom_call"' in line
        cycles = schedules.get(name, 0.0) if kernel else cycles_of(computations, [line]) or 0.0
        source = re.search(r'op_name="([^"]*)"', line)
        size = _bytes(shape) + sum(_bytes(shapes.get(o, "")) for o in set(operands))
        if kind in ("copy-start", "slice-start"):
            size = _moved(shape)
        elif kind.endswith("-start"):
            size /= 2 if shape.startswith("(") else 1  # a start's result holds its operand again
        operations.append(Operation(name, source[1] if source else "", kernel, cycles, size))
    return operations


def _schedules(entry: str, dump: pathlib.Path) -> dict[str, float]:
    """Cycles of all steps of each kernel, by name.

    The compiler makes, and writes down, only one of equal kernels.
    """
    same: dict[str, list[tuple[str, int]]] = {}
    for name, rest in re.findall(r"%?([\w.\-]+) = (.*\"tpu_custom_call\".*)", entry):
        body = re.search(r'"body":"([^"]*)"', rest)
        steps = re.search(r'"steps":"(\d+)"', rest)
        if steps is None:
            raise ValueError(f"the kernel {name} does not say how many steps it has.")
        same.setdefault(body[1] if body else name, []).append((name, int(steps[1])))
    cycles: dict[str, float] = {}
    for kernels in same.values():
        files = [file for name, _ in kernels for file in dump.glob(f"*-{name}-*{_POST}")]
        files = [file for file in files if "schedule-analysis" not in file.name]
        if not files:
            raise ValueError(f"the compiler left no schedule of the kernel {kernels[0][0]}.")
        once, step = count_bundles(files[0].read_text(errors="replace"))
        cycles |= {name: once + steps * step for name, steps in kernels}
    return cycles


def count_bundles(text: str) -> tuple[float, float]:
    """Bundles outside of the loop over a kernel's steps, and those of one step.

    Bundles of an inner loop count as often as it runs. A loop is a branch back; how often it runs
    is the constant that its exit test compares with. Both sides of a condition count.

    Raises:
        ValueError: a loop's exit test is not understood.
    """
    bundles = []  # (depth, instructions)
    tests: dict[str, int] = {}
    for line in text.splitlines():
        if bundle := _BUNDLE.match(line):
            bundles.append((int(bundle[1], 0), bundle[2].count(">"), bundle[3]))
            for test in _EXIT.finditer(bundle[3]):
                tests[test[1]] = int(test[2])
    loops = []
    for address, depth, instructions in bundles:
        back = re.search(r"sbr\.rel \(!?%(p\d+)\w*\) target bundleno = (\d+)", instructions)
        if back and int(back[2]) <= address:
            if back[1] not in tests and depth > 1:
                raise ValueError(f"the loop that ends in bundle {address:#x} has no known count.")
            loops.append((int(back[2]), address, tests.get(back[1], 1)))
    steps = max(loops, key=lambda loop: loop[1] - loop[0], default=None)
    once = step = 0.0
    for address, depth, _ in bundles:
        inside = [n for first, last, n in loops if first <= address <= last]
        if steps and depth and steps[0] <= address <= steps[1]:
            step += math.prod(inside) / steps[2]
        else:
            once += math.prod(inside)
    return once, step


def _bytes(shape: str) -> float:
    """Bytes in the device's memory: padded to whole tiles, and 0 for what lies in VMEM."""
    return sum(_array_bytes(*array) for array in SHAPE.findall(shape))


def _moved(shape: str) -> float:
    """Bytes that a copy moves; `shape` is a tuple of the source, whole or sliced, and the copy."""
    source, (dtype, dimensions, order, layout), *_ = SHAPE.findall(shape)
    size = _array_bytes(dtype, dimensions, order, layout.replace("S(1)", ""))
    return size * (("S(1)" not in source[3]) + ("S(1)" not in layout))


def _array_bytes(dtype: str, dimensions: str, order: str, layout: str) -> float:
    sizes = [int(d) for d in dimensions.split(",") if d]
    if "S(1)" in layout or not sizes:
        return 0.0
    minor = [int(d) for d in order.split(",") if d] or list(range(len(sizes)))[::-1]
    if tile := re.search(r"T\((\d+)(?:,(\d+))?\)", layout):
        for axis, side in zip(minor, [int(t) for t in tile.groups() if t][::-1], strict=False):
            sizes[axis] = -(-sizes[axis] // side) * side
    return bytes_per_element(dtype) * math.prod(sizes)


def by_part(operations: list[Operation], parts: Mapping[str, str]) -> Iterator[tuple[str, list]]:
    """Groups operations by the first pattern that their source matches; the rest is `other`."""
    left = operations
    for part, pattern in parts.items():
        yield part, [o for o in left if re.search(pattern, o.source)]
        left = [o for o in left if not re.search(pattern, o.source)]
    yield "other", left
