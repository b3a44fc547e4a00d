"""Images a second of training and of inference, by batch size, beside timm's in the same run."""

import importlib.util
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from ml_collections import ConfigDict

from clevit_jax.errors import ConfigError
from clevit_jax.performance import throughput_table, timm_steps
from clevit_jax.performance.throughput_table import OURS, Throughput, ThroughputRow
from clevit_jax.performance.timed_process import TimedProcess
from clevit_jax.system import memory

WORKS = ("training", "inference")
PEERS = ("timm",)
ROUNDS = 3  # in each of which every contestant is timed once, so that a busy machine is fair
LONGEST = 60.0  # seconds of a step; a series that is not asked for by its sizes ends there
_MODULES = {
    OURS: "clevit_jax.performance.timed_steps",
    timm_steps.EAGER: "clevit_jax.performance.timm_steps",
    timm_steps.COMPILED: "clevit_jax.performance.timm_steps",
}
# Else JAX takes three quarters of a GPU at its start, and leaves the peer the rest.
_SHARED = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}


def throughput(
    config: ConfigDict,
    *,
    batch_sizes: Sequence[int] | None = None,
    peer: str | None = None,
    as_json: bool = False,
) -> int:
    """Prints what `measure_in_process` found, as JSON (bytes, seconds, FLOPs) or as a table.

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
    peer: str | None = None,
    works: Sequence[str] = WORKS,
) -> Throughput:
    """Times the very update of training and the forward pass as served.

    No image is read and no file written: the images are random and lie on the device, so what the
    host does (`benchmarks/host_pipeline.py`) is not in the figures. Each step is timed in a process
    of its own. Compilation and the first steps are timed apart; what follows is the median of
    `ROUNDS` rounds of samples, the contestants taking turns.

    Args:
        config: in the form of `configs/base.py`; `model.num_classes` or else 1000 classes.
        batch_sizes: images over all devices. By default they double, from one image a device (and
            a part, with `accumulation`), until memory does not suffice or a step would last over
            `LONGEST` seconds. A size that does not fit ends the series in any case.
        peer: "timm" times timm's Swin beside ours, eager and by torch.compile; see `timm_peer` for
            what is in its step.
        works: of `WORKS`.

    Raises:
        ConfigError: a setting that cannot be used, or a peer that is not installed or cannot run
            here.
    """
    names = [OURS, *_peers(peer)]
    num_classes = config.model.num_classes or config.data.leaves.classes or 1000
    request = {"config": config.to_dict(), "num_classes": num_classes}
    facts = _facts(request, peer)
    unit = facts["devices"] * config.accumulation
    _check_sizes(batch_sizes, unit, facts["devices"], config.accumulation)
    contrast = config.loss.contrast and config.loss.contrast_kind == "instance_triplet"
    rows: list[ThroughputRow] = []
    for work in works:
        first = unit * (2 if contrast and work == "training" else 1)
        sizes = _doubling(first) if batch_sizes is None else iter(batch_sizes)
        rows += _series(work, sizes, names, request, facts, endless=batch_sizes is None)
    return Throughput(facts, rows, peer)


def _peers(peer: str | None) -> list[str]:
    if peer is None:
        return []
    if peer not in PEERS:
        raise ConfigError(f"--peer is {peer!r}; choose of {', '.join(PEERS)}.")
    missing = [name for name in ("torch", "timm") if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigError(
            f"--peer timm needs {' and '.join(missing)}; pip install -e '.[peer]', with the "
            "torchvision that is built for that torch."
        )
    return [timm_steps.EAGER, timm_steps.COMPILED]


def _facts(request: dict[str, Any], peer: str | None) -> dict[str, Any]:
    """What a child says of the machine, which this process must not take itself."""
    child = TimedProcess(_MODULES[OURS], {**request, "work": "describe"})
    child.close()
    if "ready" not in child.reply:
        raise ConfigError(str(child.reply.get("error") or child.reply))
    facts: dict[str, Any] = child.reply["ready"]
    if peer and facts["platform"] not in ("cpu", "gpu"):
        raise ConfigError(
            f"--peer timm runs on CPUs and NVIDIA GPUs, not on {facts['platform']}; leave it out."
        )
    if peer and facts["platform"] == "gpu" and facts["devices"] > 1:
        raise ConfigError(
            f"--peer timm runs on one GPU, and there are {facts['devices']}; show one alone: "
            "CUDA_VISIBLE_DEVICES=0."
        )
    return facts


def _check_sizes(sizes: Sequence[int] | None, unit: int, devices: int, accumulation: int) -> None:
    if sizes is None:
        return
    wrong = [size for size in sizes if size < 1 or size % unit]
    if not sizes or wrong:
        raise ConfigError(
            f"--batch_sizes holds {wrong[0] if wrong else 'none'}; each must be a multiple of "
            f"{unit} ({devices} devices, accumulation {accumulation})."
        )


def _doubling(size: int) -> Iterator[int]:
    while True:
        yield size
        size *= 2


def _series(
    work: str, sizes: Iterator[int], names: list[str], request: dict[str, Any],
    facts: dict[str, Any], *, endless: bool,
) -> list[ThroughputRow]:  # fmt: skip
    """Rows of one kind of work; a contestant that fails leaves it, and ours ends it."""
    rows: list[ThroughputRow] = []
    racing = list(names)
    for size in sizes:
        last = {row.name: row for row in rows}
        ours = last.get(OURS)
        if endless and ours and (expected := ours.median * size / ours.batch) > LONGEST:
            text = f"not tried: a step may last {expected:.0f} s; ask for it by --batch_sizes"
            return [*rows, ThroughputRow(work, OURS, size, problem=text)]
        print(f"Timing {work} at a batch of {size}.", file=sys.stderr, flush=True)
        found = _time_all(work, size, racing, request, facts, last)
        for row in found:
            said = row.problem or f"{row.images_per_second:,.2f} images a second"
            print(f"  {row.name}: {said}", file=sys.stderr, flush=True)
        rows += found
        racing = [row.name for row in found if row.seconds]
        if OURS not in racing:
            break
    return rows


def _time_all(
    work: str, size: int, names: list[str], request: dict[str, Any], facts: dict[str, Any],
    last: dict[str, ThroughputRow],
) -> list[ThroughputRow]:  # fmt: skip
    """All contestants at one batch size, taking turns."""
    rows = _time_alternating(work, size, names, request, facts, last)
    # Beside the others there may have been too little room.
    short = [row.name for row in rows if row.problem.startswith(throughput_table.MEMORY)]
    if short and len(names) > 1 and facts["platform"] != "cpu":
        again = {
            name: _time_alternating(work, size, [name], request, facts, last)[0] for name in short
        }
        rows = [again.get(row.name, row) for row in rows]
    return rows


def _time_alternating(
    work: str, size: int, names: list[str], request: dict[str, Any], facts: dict[str, Any],
    last: dict[str, ThroughputRow],
) -> list[ThroughputRow]:  # fmt: skip
    running: dict[str, TimedProcess] = {}
    replies: dict[str, dict[str, Any]] = {}
    rounds: dict[str, list[list[float]]] = {name: [] for name in names}
    try:
        for name in names:  # one after the other, for they compile
            if problem := _too_large(name, size, facts, last, replies.get(OURS)):
                replies[name] = {"out_of_memory": problem}
                continue
            asked = _request(name, work, size, request, facts)
            child = TimedProcess(_MODULES[name], asked, _SHARED if len(names) > 1 else None)
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
        ThroughputRow.of(work, name, size, replies[name], rounds[name], facts) for name in names
    ]


def _request(
    name: str, work: str, size: int, request: dict[str, Any], facts: dict[str, Any]
) -> dict[str, Any]:
    asked = {"work": work, "batch": size}
    if name == OURS:
        return {**request, **asked}
    shared = ("platform", "threads", "model", "views", "loss")
    compiled = name == timm_steps.COMPILED
    return {**asked, "compiled": compiled, **{key: facts[key] for key in shared}}


def _too_large(
    name: str, size: int, facts: dict[str, Any], last: dict[str, ThroughputRow],
    ours: dict[str, Any] | None,
) -> str:  # fmt: skip
    """Why a peer on the CPU is not started: it has no plan, so it goes by the size before."""
    if name == OURS or facts["platform"] != "cpu":
        return ""
    before = last.get(name)
    known = before.memory * size / before.batch if before and before.memory else 0.0
    expected = max(known, (ours or {}).get("ready", {}).get("memory") or 0.0)
    free = memory.available()
    if expected <= memory.SHARE * free:
        return ""
    return f"{expected / 2**30:.2f} GiB are expected, and {free / 2**30:.2f} are free"


__all__ = ["measure_in_process", "throughput"]
