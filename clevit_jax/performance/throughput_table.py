"""Table and JSON of timed steps."""

import dataclasses
import json
import statistics
from typing import Any

from clevit_jax.system.tables import align

OURS = "clevit_jax"
MEMORY = "out of memory: "
MIB = 2**20
_KINDS = {
    "peak": "the most that was in use on a device",
    "plan": "what the compiler plans per device",
    "resident": "the most that the process held, with its libraries",
}


@dataclasses.dataclass(frozen=True)
class ThroughputRow:
    """A row of the table: an implementation at a batch size.

    Attributes:
        work: "training" or "inference".
        name: "clevit_jax", or a peer's variant.
        batch: images of a step, over all devices.
        problem: why there are no times; "" where there are.
        rounds: seconds per step of the samples of each round.
        compile_seconds: None where nothing is compiled.
        first_seconds: of the first step after compiling.
        memory: bytes, or None.
        memory_kind: "peak", "plan" or "resident".
        flops: FLOPs of a step, counted by hand (`performance.flops`).
        peak_flops: FLOP/s of the matmul that was timed beside it; 0 where none was.
    """

    work: str
    name: str
    batch: int
    problem: str = ""
    rounds: tuple[tuple[float, ...], ...] = ()
    compile_seconds: float | None = None
    first_seconds: float | None = None
    memory: float | None = None
    memory_kind: str = ""
    flops: float = 0.0
    peak_flops: float = 0.0

    @classmethod
    def of(
        cls,
        work: str,
        name: str,
        batch: int,
        reply: dict[str, Any],
        rounds: list[list[float]],
        facts: dict[str, Any],
    ) -> "ThroughputRow":
        """A row from a child's reply; `facts`: of `timed_steps.describe_device`."""
        if "ready" not in reply:
            problem = reply.get("error", "")
            if "out_of_memory" in reply:
                problem = MEMORY + reply["out_of_memory"]
            return cls(work, name, batch, problem=problem)
        ready = reply["ready"]
        return cls(
            work,
            name,
            batch,
            rounds=tuple(map(tuple, rounds)),
            compile_seconds=ready["compile_seconds"],
            first_seconds=ready["first_seconds"],
            memory=ready["memory"],
            memory_kind=ready["memory_kind"],
            flops=facts["flops_an_image"][work] * batch,
            peak_flops=ready.get("peak_flops", 0.0),
        )

    @property
    def seconds(self) -> list[float]:
        """Seconds of a step, by sample."""
        return [second for samples in self.rounds for second in samples]

    @property
    def median(self) -> float:
        """Median seconds of a step."""
        return statistics.median(self.seconds)

    @property
    def images_per_second(self) -> float:
        return self.batch / self.median


@dataclasses.dataclass(frozen=True)
class Throughput:
    """All rows that were timed.

    Attributes:
        facts: machine and model, see `timed_steps.describe_device`.
        rows: in the order in which they were timed.
        peer_step: a sentence on the training step of the peer; "" without one.
    """

    facts: dict[str, Any]
    rows: list[ThroughputRow]
    peer_step: str = ""

    @property
    def peak_flops(self) -> float:
        """FLOP/s, the most that any matmul of this run reached."""
        return max((row.peak_flops for row in self.rows), default=0.0)

    def utilisation(self, row: ThroughputRow) -> float | None:
        """FLOP/s of a step over that of a matmul; None where none was timed."""
        return row.flops / row.median / self.peak_flops if self.peak_flops else None

    def ratio(self, row: ThroughputRow) -> tuple[float, float, float] | None:
        """Our images per second over those of a peer: the median, least and most of the rounds.

        By round, so that work of others on the machine falls to both.
        """
        same = (row.work, row.batch)
        ours = next((r for r in self.rows if r.name == OURS and (r.work, r.batch) == same), None)
        if row.name == OURS or ours is None or not ours.seconds or not row.seconds:
            return None
        by_round = [
            statistics.median(theirs) / statistics.median(mine)
            for mine, theirs in zip(ours.rounds, row.rounds, strict=False)
        ]
        return statistics.median(by_round), min(by_round), max(by_round)


def throughput_json(result: Throughput) -> str:
    """All rows, in bytes, seconds and FLOPs; images per second are over all devices."""
    rows = []
    for row in result.rows:
        facts = dataclasses.asdict(row)
        if row.seconds:
            ratio = result.ratio(row)
            facts |= {
                "median_seconds": row.median,
                "images_per_second": row.images_per_second,
                "utilisation": result.utilisation(row),
                "ours_over_it": None if ratio is None else _named_ratio(ratio),
            }
        rows.append(facts)
    more = {"peer_step": result.peer_step} if result.peer_step else {}
    return json.dumps(
        {**result.facts, "matrix_flops_per_second": result.peak_flops, **more, "rows": rows},
        indent=2,
    )


def _named_ratio(ratio: tuple[float, float, float]) -> dict[str, float]:
    return dict(zip(("median", "lowest", "highest"), ratio, strict=True))


def throughput_text(result: Throughput) -> str:
    """An aligned table, and notes on its columns."""
    facts = result.facts
    peered = bool(result.peer_step)
    head = ["", "", "batch", "images/s", "ms / step", "compile s", "first s", "MiB", "",
            "GFLOP", "utilised", *(["ours / it"] if peered else [])]  # fmt: skip
    table = [head, *(_cells(result, row, peered) for row in result.rows)]
    threads = f", {facts['threads']} threads" if facts["platform"] == "cpu" else ""
    kinds = {row.memory_kind: None for row in result.rows if row.seconds}
    notes = [
        f"{facts['devices']} x {facts['device']}{threads}. {facts['description']}, "
        f"{facts['model']['image_size']} px, {facts['model']['dtype']}; "
        f"{facts['views']} views per image in training.",
        f"Matmul: {result.peak_flops / 1e9:,.1f} GFLOP/s, the most measured in this run; "
        "utilised is of that.",
    ]
    below = ["", *(f"MiB, {kind}: {_KINDS[kind]}." for kind in kinds)]
    if peered:
        below += [
            result.peer_step,
            "ours / it: our images per second over its in the same round; median, least and most.",
        ]
    return "\n".join([*notes, "", *align(table, left=(0, 1, 8)), *below])


def _cells(result: Throughput, row: ThroughputRow, peered: bool) -> list[str]:
    start = [row.work, row.name, str(row.batch)]
    if not row.seconds:
        return [*start, row.problem]
    used, ratio = result.utilisation(row), result.ratio(row)
    return [
        *start,
        f"{row.images_per_second:,.2f}",
        f"{1e3 * row.median:,.1f}",
        _or_dash(row.compile_seconds, ".1f"),
        _or_dash(row.first_seconds, ".2f"),
        _or_dash(None if row.memory is None else row.memory / MIB, ",.1f"),
        row.memory_kind,
        f"{row.flops / 1e9:,.4g}",
        "-" if used is None else f"{100 * used:.1f} %",
        *([_ratio(ratio)] if peered else []),
    ]


def _or_dash(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def _ratio(ratio: tuple[float, float, float] | None) -> str:
    return "" if ratio is None else "{:.2f} ({:.2f} to {:.2f})".format(*ratio)
