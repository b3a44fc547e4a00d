"""`--mode throughput`: images per second of training and inference, alone or beside a peer's."""

import dataclasses
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from ml_collections import ConfigDict

from clevit_jax.errors import ConfigError
from clevit_jax.performance import throughput_table
from clevit_jax.performance.throughput_table import OURS, Throughput, ThroughputRow
from clevit_jax.performance.timed_process import TimedProcess
from clevit_jax.system import memory

WORKS = ("training", "inference")  # what is timed
ROUNDS = 3  # in each, everything is timed once, so that a busy machine is fair to all
LONGEST = 60.0  # seconds of a step; batch sizes that were not asked for end there
_OUR_STEPS = "clevit_jax.performance.timed_steps"
# Without it, JAX takes three quarters of a GPU at once, and leaves the peer the rest.
_SHARED = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}


@dataclasses.dataclass(frozen=True)
class Peer:
    """Another implementation of the same steps, to be timed in turn with ours.

    Attributes:
        module: run by `python -m`; calls `timed_process.serve_process`. Its request holds `work`,
            `batch`, and `platform`, `threads`, `model`, `views` and `loss` of
            `timed_steps.describe_device`.
        variants: name in the table -> what the request holds besides.
        step: one sentence on what its training step does and does not do.
        check: called with `timed_steps.describe_device`; raises ConfigError where it cannot run.
    """

    module: str
    variants: Mapping[str, Mapping[str, Any]]
    step: str
    check: Callable[[dict[str, Any]], None]


@dataclasses.dataclass(frozen=True)
class _Setup:
    """What is timed, and on which machine.

    Attributes:
        request: config and number of classes, for the processes of our steps.
        facts: machine and model, see `timed_steps.describe_device`.
        peer: what is timed beside ours, or None.
    """

    request: dict[str, Any]
    facts: dict[str, Any]
    peer: Peer | None

    @property
    def names(self) -> list[str]:
        """Names in the table: ours, and the peer's variants."""
        return [OURS, *(self.peer.variants if self.peer else ())]

    def start(self, name: str, work: str, size: int, *, alone: bool) -> TimedProcess:
        """A process whose step is compiled and warm; its `reply` says why where it is not."""
        wanted = {"work": work, "batch": size}
        environ = None if alone else _SHARED
        if name == OURS:
            return TimedProcess(_OUR_STEPS, {**self.request, **wanted}, environ)
        assert self.peer is not None
        shared = {key: self.facts[key] for key in ("platform", "threads", "model", "views", "loss")}
        return TimedProcess(
            self.peer.module, {**wanted, **self.peer.variants[name], **shared}, environ
        )


def read_batch_sizes(texts: Sequence[str] | None) -> list[int] | None:
    """The numbers of `--batch_sizes`, None where it is not given. Raises ConfigError."""
    try:
        return [int(size) for size in texts or ()] or None
    except ValueError:
        raise ConfigError(
            f"--batch_sizes is {','.join(texts or ())}; it must be numbers, as in 8,16,32."
        ) from None


def throughput(
    config: ConfigDict,
    *,
    batch_sizes: Sequence[int] | None = None,
    peer: Peer | None = None,
    as_json: bool = False,
) -> int:
    """Prints what `measure_in_process` measures, as JSON (bytes, seconds, FLOPs) or as a table.

    Returns:
        0; 1 when not a single step of ours could be timed.

    Raises:
        ConfigError: see `measure_in_process`.
    """
    result = measure_in_process(config, batch_sizes=batch_sizes, peer=peer)
    print(
        throughput_table.throughput_json(result)
        if as_json
        else throughput_table.throughput_text(result)
    )
    return 0 if any(row.seconds for row in result.rows if row.name == OURS) else 1


def measure_in_process(
    config: ConfigDict,
    *,
    batch_sizes: Sequence[int] | None = None,
    peer: Peer | None = None,
    works: Sequence[str] = WORKS,
) -> Throughput:
    """Times the very update of training, and the forward pass of inference.

    No image is read and no file written: the images are random and lie on the device, so what the
    host does (`benchmarks/host_pipeline.py`) is not in the figures. Each step is timed in a process
    of its own. Compilation and the first steps are timed apart; what follows is the median of
    `ROUNDS` rounds of samples, ours and the peer's taking turns.

    Args:
        config: in the form of `configs/base.py`; `model.num_classes` or else 1000 classes.
        batch_sizes: images over all devices. By default they double, from one image per device (and
            part, with `accumulation`), until memory does not suffice or a step would last over
            `LONGEST` seconds. A size that does not fit ends the series in any case.
        peer: what is timed beside ours.
        works: of `WORKS`.

    Raises:
        ConfigError: a setting that cannot be used, or a peer that cannot run here.
    """
    num_classes = config.model.num_classes or config.data.leaves.classes or 1000
    request = {"config": config.to_dict(), "num_classes": num_classes}
    facts = _describe(request)
    if peer:
        peer.check(facts)
    setup = _Setup(request, facts, peer)
    unit = facts["devices"] * config.accumulation
    _check_sizes(batch_sizes, unit, facts["devices"], config.accumulation)
    contrast = config.loss.contrast and config.loss.contrast_kind == "instance_triplet"
    rows: list[ThroughputRow] = []
    for work in works:
        first = unit * (2 if contrast and work == "training" else 1)
        sizes = _doubling(first) if batch_sizes is None else iter(batch_sizes)
        rows += _time_series(work, sizes, setup, endless=batch_sizes is None)
    return Throughput(facts, rows, peer.step if peer else "")


def _describe(request: dict[str, Any]) -> dict[str, Any]:
    """Machine and model, from a child: this process must not take the devices itself."""
    child = TimedProcess(_OUR_STEPS, {**request, "work": "describe"})
    child.close()
    if "ready" not in child.reply:
        raise ConfigError(str(child.reply.get("error") or child.reply))
    facts: dict[str, Any] = child.reply["ready"]
    return facts


def _check_sizes(sizes: Sequence[int] | None, unit: int, devices: int, accumulation: int) -> None:
    if sizes is None:
        return
    wrong = [size for size in sizes if size < 1 or size % unit]
    if not sizes or wrong:
        raise ConfigError(
            f"--batch_sizes holds {wrong[0] if wrong else 'no number'}; each must be a multiple of "
            f"{unit} ({devices} devices, accumulation {accumulation})."
        )


def _doubling(size: int) -> Iterator[int]:
    while True:
        yield size
        size *= 2


def _time_series(
    work: str, sizes: Iterator[int], setup: _Setup, *, endless: bool
) -> list[ThroughputRow]:
    """Rows of one kind of work. A peer that fails is left out of the rest; ours ends the series."""
    rows: list[ThroughputRow] = []
    active = setup.names
    for size in sizes:
        last = {row.name: row for row in rows}
        ours = last.get(OURS)
        if endless and ours and (expected := ours.median * size / ours.batch) > LONGEST:
            text = f"not tried: a step may last {expected:.0f} s; to try it, --batch_sizes={size}"
            return [*rows, ThroughputRow(work, OURS, size, problem=text)]
        print(f"Timing {work} at a batch of {size} images.", file=sys.stderr, flush=True)
        timed = _time_all(work, size, active, setup, last)
        for row in timed:
            outcome = row.problem or f"{row.images_per_second:,.2f} images per second"
            print(f"  {row.name}: {outcome}", file=sys.stderr, flush=True)
        rows += timed
        active = [row.name for row in timed if row.seconds]
        if OURS not in active:
            break
    return rows


def _time_all(
    work: str, size: int, names: list[str], setup: _Setup, last: dict[str, ThroughputRow]
) -> list[ThroughputRow]:
    """All of `names` at one batch size, taking turns."""
    rows = _time_alternating(work, size, names, setup, last)
    # Beside the others there may have been too little room.
    short = [row.name for row in rows if row.problem.startswith(throughput_table.MEMORY)]
    if short and len(names) > 1 and setup.facts["platform"] != "cpu":
        again = {name: _time_alternating(work, size, [name], setup, last)[0] for name in short}
        rows = [again.get(row.name, row) for row in rows]
    return rows


def _time_alternating(
    work: str, size: int, names: list[str], setup: _Setup, last: dict[str, ThroughputRow]
) -> list[ThroughputRow]:
    running: dict[str, TimedProcess] = {}
    replies: dict[str, dict[str, Any]] = {}
    rounds: dict[str, list[list[float]]] = {name: [] for name in names}
    try:
        for name in names:  # one after the other: each compiles
            if problem := _too_large(name, size, setup.facts, last, replies.get(OURS)):
                replies[name] = {"out_of_memory": problem}
                continue
            child = setup.start(name, work, size, alone=len(names) == 1)
            running[name], replies[name] = child, child.reply
        for _ in range(ROUNDS):
            for name, child in running.items():
                if "ready" not in replies[name] or len(replies[name]) > 1:
                    continue
                answer = child.time()
                if "seconds" in answer:
                    rounds[name].append(answer["seconds"])
                else:
                    replies[name] = answer
    finally:
        for child in running.values():
            child.close()
    return [
        ThroughputRow.of(work, name, size, replies[name], rounds[name], setup.facts)
        for name in names
    ]


def _too_large(
    name: str,
    size: int,
    facts: dict[str, Any],
    last: dict[str, ThroughputRow],
    ours: dict[str, Any] | None,
) -> str:
    """Why a peer on the CPU is not started, or "": by its memory at the size before."""
    if name == OURS or facts["platform"] != "cpu":
        return ""
    before = last.get(name)
    known = before.memory * size / before.batch if before and before.memory else 0.0
    expected = max(known, (ours or {}).get("ready", {}).get("memory") or 0.0)
    free = memory.available()
    if expected <= memory.SHARE * free:
        return ""
    return f"{expected / 2**30:.2f} GiB are expected, and {free / 2**30:.2f} are free"
