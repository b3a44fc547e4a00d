"""What the devices of a compiled program send one another, read from its HLO.

All figures are per device. They are the compiler's; nothing is run.
"""

import dataclasses
import math
import re
from collections.abc import Callable

from clevit_jax.performance.hlo import OPERATION, SHAPE, computations_of, size_of, walk

COLLECTIVES = (
    "all-reduce",
    "all-gather",
    "reduce-scatter",
    "all-to-all",
    "collective-permute",
    "ragged-all-to-all",
    "collective-broadcast",
)
# How much of what it hands to its host a slice of n sends on, by the kind of transfer: rings.
_ACROSS: dict[str, Callable[[int], float]] = {
    "all-reduce": lambda n: 2 * (n - 1) / n,
    "all-gather": lambda n: n - 1,
    "reduce-scatter": lambda n: (n - 1) / n,
    "all-to-all": lambda n: (n - 1) / n,
}


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


def read_traffic(text: str, *, devices: int) -> dict[str, Traffic]:
    """Collectives in HLO by kind; those in loops count as often as the loops are known to run."""
    computations, entry = computations_of(text)
    totals: dict[str, Traffic] = {}
    # The TPU compiler's fusion of an all-reduce with the slice that a device keeps of its result.
    scattered = {
        line
        for name, lines in computations.items()
        for line in lines
        if name.startswith("all-reduce-scatter") and " all-reduce(" in line
    }
    direct = {line for line, _ in walk(computations, entry, loops_only=True)}
    seen: set[str] = set()
    for line, times in walk(computations, entry, loops_only=False):
        operation = OPERATION.match(line)
        kind = operation[3].removesuffix("-start") if operation else ""
        if operation is None or kind not in COLLECTIVES:
            continue
        kind = "reduce-scatter" if line in scattered else kind
        shape = operation[2]
        # One that goes on beside other work stands in the fusions that start, continue and end it.
        # Channels alone do not tell: several collectives may share one.
        if line not in direct:
            marks = re.findall(r'channel_id=(\d+)|chain_id="(\d+)"', line)
            one = str((kind, marks, [array[:2] for array in SHAPE.findall(shape)]))
            if one in seen:
                continue
            seen.add(one)
        if operation[3] != kind and kind in ("all-gather", "collective-permute"):
            shape = shape[shape.rindex(SHAPE.findall(shape)[-1][0] + "[") :]  # (operand, result)
        n = _group_size(line, devices)
        size = times * sum(size_of(*array) for array in SHAPE.findall(shape))
        size *= n if operation[3].startswith("reduce-scatter") else 1
        share = {"all-reduce": 2 * (n - 1) / n, "collective-permute": 1, "collective-broadcast": 1}
        sent = size * share.get(kind, (n - 1) / n)
        old = totals.get(kind, Traffic(0, 0.0, 0.0))
        totals[kind] = Traffic(old.count + times, old.size + size, old.sent + sent)
    return totals


def read_network(text: str, *, slices: int) -> dict[str, Traffic]:
    """What goes over the network between slices, by kind of collective, bytes per device.

    The TPU compiler cuts a collective over several slices in two: one inside each slice, and a
    transfer by the hosts of the devices' shares (its runtime for this is called Megascale). Bytes
    are counted as XProf does (`ComputeTransmittedDataSize`, xprof/convert/
    xspace_to_dcn_slack_analysis.cc).
    """
    computations, entry = computations_of(text)
    totals: dict[str, Traffic] = {}
    for line, times in walk(computations, entry, loops_only=False):
        operation = OPERATION.match(line)
        if operation is None or operation[3] != "send" or "megascale" not in line:
            continue
        told = dict(re.findall(r'_xla_megascale_(\w+)="([^"]*)"', line))
        kind = told.get("transfer_type", "transfer").lower().replace("_", "-")
        n = _slices_of(told.get("target", ""), slices)
        *arrays, _ = SHAPE.findall(operation[2])  # the last one is u32[], a handle
        share = times * sum(size_of(*array) for array in arrays)
        sent = share * _ACROSS.get(kind, lambda _: 1.0)(n)
        size = share * (n if kind == "all-gather" else 1)
        old = totals.get(kind, Traffic(0, 0.0, 0.0))
        totals[kind] = Traffic(old.count + times, old.size + size, old.sent + sent)
    return totals


def _slices_of(target: str, slices: int) -> int:
    """How many slices take part together: 2 of `{1,2}x{0:3}`, and all where it does not say."""
    group = re.match(r"\{([\d,:]+)\}x", target)
    if group is None:
        return slices
    ends = [tuple(map(int, part.split(":"))) for part in group[1].split(",")]
    return sum(part[-1] - part[0] + 1 for part in ends)


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
