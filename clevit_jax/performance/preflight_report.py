"""Preflight in text and JSON: whether a step fits, what it costs, and what to change."""

import dataclasses
import math
from typing import Any

from clevit_jax.model.config import SwinConfig
from clevit_jax.performance.collectives import Traffic
from clevit_jax.performance.cost import Cost, Memory
from clevit_jax.performance.flops import training_flops
from clevit_jax.performance.topologies import GIB, Target
from clevit_jax.steps.jitted import StepConfig
from clevit_jax.system.tables import align

_STATIC = "Static figures of the compiler, not measured."
_OTHERWISE = "a machine with more memory per device, or a smaller model.variant."


@dataclasses.dataclass(frozen=True)
class PreflightResult:
    """Costs of the compiled steps on a machine.

    Attributes:
        target: the machine.
        config: settings of the steps.
        model: the architecture.
        mesh: devices along data and fsdp.
        train: cost of an update, or None when the compiler found no room for it.
        evaluation: the same of a batch of the evaluation.
        kernels: a sentence on the blocks that run as fused kernels; "" where none does.
        problems: what the compiler said where it gave up.
        seconds: time that compiling took.
        largest_batch: the largest that fits, if it was looked for.
    """

    target: Target
    config: StepConfig
    model: SwinConfig
    mesh: tuple[int, int]
    train: Cost | None
    evaluation: Cost | None
    kernels: str
    problems: list[str]
    seconds: float
    largest_batch: int | None = None

    @property
    def fits(self) -> bool:
        """Whether both steps fit."""
        return _fits(self.train, self.target) and _fits(self.evaluation, self.target)

    @property
    def model_flops(self) -> float:
        """FLOPs of an update, on all devices."""
        return training_flops(self.model, self.config.batch_size, self.config.views.count)

    def times(self) -> dict[str, float]:
        """Seconds of an update, each by one rule; see `preflight_json`."""
        chip, cost = self.target.chip, self.train
        if chip is None or cost is None:
            return {}
        sent = sum(traffic.sent for traffic in cost.traffic.values())
        ring = sent / chip.interconnect if chip.interconnect else 0.0
        # The GPU compiler does not count what it leaves to libraries.
        flops = max(cost.flops or 0.0, self.model_flops / len(self.target.devices))
        across = sum(traffic.sent for traffic in cost.network.values())
        network = across / chip.network if chip.network else 0.0
        seconds = {
            "interconnect": ring,
            "network": network,
            "arithmetic_bound": flops / chip.peak,
            "bytes": cost.bytes_accessed / chip.bandwidth,
        }
        longest = max(seconds["arithmetic_bound"], seconds["bytes"])
        if chip.clock and cost.cycles:
            seconds["compiler"] = cost.cycles / chip.clock
            seconds["kernels"] = sum(
                max(kernel.flops / chip.peak, kernel.bytes_accessed / chip.bandwidth)
                for kernel in cost.kernels
            )
            longest = seconds["compiler"] + seconds["kernels"]
        seconds["step"] = longest + ring + network
        return seconds


def preflight_json(result: PreflightResult) -> dict[str, Any]:
    """The result as JSON, in bytes, seconds and FLOPs, per device unless a name says `all`.

    `seconds.compiler` is the compiler's estimate of all but collectives and Pallas kernels, where
    it makes one; `kernels` is the least that these can take, by their FLOPs and the peak or by
    their bytes and the bandwidth; `interconnect` is what collectives send over all links at their
    full speed; `network` is what goes from slice to slice, at the full speed of the hosts' network
    cards (0 where this is not known); `arithmetic_bound` is FLOPs by the peak, which no step can
    beat; `bytes` is what the operations read and write by the bandwidth of the memory, as if there
    were no caches. `step` is the compiler's estimate and the kernels, or else the longer of the
    last two, and the interconnect and the network.
    """
    target, config = result.target, result.config
    times = result.times()
    performance: dict[str, Any] = {}
    if times and target.chip is not None:
        whole = times["step"] * target.chip.peak * len(target.devices)
        performance = {
            "images_per_second_all": config.batch_size / times["step"],
            "model_flop_utilisation": result.model_flops / whole,
        }
    return {
        "topology": target.name,
        "devices": len(target.devices),
        "processes": target.processes,
        "slices": target.slices,
        "device_kind": target.devices[0].device_kind,
        "software": target.software,
        "mesh": {"data": result.mesh[0], "fsdp": result.mesh[1]},
        "batch_size_all": config.batch_size,
        "accumulation": config.accumulation,
        "remat": config.model.remat,
        "dtype": result.model.dtype.__name__,
        "kernels": result.kernels,
        "num_classes": result.model.num_classes,
        "fits": result.fits,
        "memory_limit": target.memory,
        "train": _cost_json(result.train),
        "evaluation": _cost_json(result.evaluation),
        "model_flops_all": result.model_flops,
        "seconds": times,
        **performance,
        "largest_batch_all": result.largest_batch,
        "problems": result.problems,
        "advice": [] if result.fits else advice(result),
        "compile_seconds": result.seconds,
    }


def _cost_json(cost: Cost | None) -> dict[str, Any] | None:
    if cost is None:
        return None
    kernels = {
        "count": len(cost.kernels),
        "flops": sum(kernel.flops for kernel in cost.kernels),
        "bytes_accessed": sum(kernel.bytes_accessed for kernel in cost.kernels),
    }
    return {**dataclasses.asdict(cost), "kernels": kernels, "peak_memory": cost.memory.peak}


def preflight_text(result: PreflightResult) -> str:
    """The result as text: whether it fits, what it costs, and what to change."""
    target, config = result.target, result.config
    count = len(target.devices)
    hosts = f" on {target.processes} hosts" if target.processes > 1 else ""
    hosts += f" in {target.slices} slices" if target.slices > 1 else ""
    lines = [
        f"{target.name}: {count} x {target.devices[0].device_kind}{hosts}, mesh "
        f"{result.mesh[0]} x {result.mesh[1]} (data x fsdp); {target.software}; compiled in "
        f"{result.seconds:.0f} s",
        f"Batch {config.batch_size} ({config.batch_size / count:g} per device), accumulation "
        f"{config.accumulation}, remat {config.model.remat}, {result.model.dtype.__name__}",
        *filter(None, [result.kernels]),
        "",
        *_verdict(result),
        "",
    ]
    table = [["per device", "training", "evaluation"]]
    costs = [result.train, result.evaluation]

    def add(name: str, of: Any, digits: int = 2) -> None:
        figures = [None if cost is None else of(cost) for cost in costs]
        cells = ["-" if figure is None else f"{figure:,.{digits}f}" for figure in figures]
        table.append([f"  {name}", *cells])

    for field in dataclasses.fields(Memory):
        add(f"{field.name}, GiB", lambda c, n=field.name: getattr(c.memory, n) / GIB)
    add("peak, GiB", lambda c: c.memory.peak / GIB)
    add("arithmetic, GFLOP", lambda c: c.flops and c.flops / 1e9, 0)
    add("read and written, GB", lambda c: c.bytes_accessed / 1e9, 1)
    for where, traffic in (
        ("", lambda c: c.traffic),
        (" from slice to slice", lambda c: c.network),
    ):
        for kind in sorted({kind for cost in costs if cost for kind in traffic(cost)}):
            add(f"{kind}, MB sent{where}", lambda c, k=kind, t=traffic: _sent(t(c), k) / 1e6, 1)
    if any(cost and cost.cycles for cost in costs):
        add("estimate, M cycles", lambda c: (c.cycles or 0) / 1e6, 1)
    if any(cost and cost.kernels for cost in costs):
        add("kernels beside it", lambda c: len(c.kernels), 0)
    lines += [*align(table), "", *_speed(result)]
    if result.largest_batch is not None:
        lines += ["", f"The largest batch that fits: {result.largest_batch}."]
    return "\n".join(lines)


def _sent(traffic: dict[str, Traffic], kind: str) -> float:
    return traffic[kind].sent if kind in traffic else 0.0


def _verdict(result: PreflightResult) -> list[str]:
    limit = result.target.memory
    if result.fits:
        assert result.train is not None
        peak = result.train.memory.peak
        return [f"FITS: {peak / GIB:.2f} of {limit / GIB:.2f} GiB ({100 * peak / limit:.0f} %)."]
    lines = [f"DOES NOT FIT into {limit / GIB:.2f} GiB per device."]
    lines += [f"  The compiler: {problem}" for problem in result.problems]
    return lines + ["What would help:"] + [f"  * {line}" for line in advice(result)]


def _speed(result: PreflightResult) -> list[str]:
    facts, times = preflight_json(result), result.times()
    if not times:
        return ["No times: the figures of this device are not known here."]
    bound = f"{1e3 * times['arithmetic_bound']:.1f} ms if arithmetic at its peak were all"
    best = times.get("kernels")
    kernels = f", {1e3 * best:.1f} for kernels at their best" if best else ""
    how = (
        f"{1e3 * times['compiler']:.1f} by its cycles{kernels}"
        if "compiler" in times
        else f"it estimates no cycles: {1e3 * times['bytes']:.1f} by bytes read and written"
    )
    return [
        f"{_STATIC} An update: {1e3 * times['step']:.1f} ms ({how}, "
        f"{1e3 * times['interconnect']:.1f} for the interconnect{_network(result)}; {bound}).",
        f"{facts['images_per_second_all']:,.0f} images per second in all, model FLOP utilisation "
        f"{100 * facts['model_flop_utilisation']:.1f} %.",
    ]


def _network(result: PreflightResult) -> str:
    """What the network between slices adds, as a part of a sentence; "" where there is one."""
    if result.target.slices == 1:
        return ""
    if result.target.chip is None or result.target.chip.network is None:
        return ", nothing for the network between slices, whose speed is not known here"
    return f", {1e3 * result.times()['network']:.1f} for the network between slices"


def advice(result: PreflightResult) -> list[str]:
    """What to change so that it fits, one sentence each, the harmless first."""
    config, target = result.config, result.target
    count = len(target.devices)
    lines = list[str]()
    if not _fits(result.evaluation, target):
        smaller = max(count, config.eval_batch_size // 2 // count * count)
        if smaller < config.eval_batch_size:
            lines.append(f"--config.eval.batch_size={smaller}, for the evaluation.")
    if _fits(result.train, target):
        return lines or [_OTHERWISE]
    if config.model.remat == "none":
        lines.append(
            "--config.model.remat=blocks recomputes each block: the same numbers, about a third "
            "more arithmetic."
        )
    state = result.train.memory.arguments if result.train else 0
    linked = count // target.slices
    if result.mesh[1] == 1 and linked % 2 == 0 and (not state or state > target.memory / 10):
        fsdp = math.gcd(linked, 8)
        lines.append(
            f"--config.mesh.fsdp={fsdp} divides parameters, moments and average over {fsdp} "
            "devices."
        )
    unit = count * config.accumulation
    if config.batch_size > unit:
        smaller = max(unit, config.batch_size // 2 // unit * unit)
        lines.append(f"--config.batch_size={smaller}; the learning rate follows the batch.")
    more_parts = range(2 * config.accumulation, config.batch_size + 1)
    parts = next((k for k in more_parts if config.batch_size % (count * k) == 0), None)
    if parts:
        lines.append(
            f"--config.accumulation={parts}; the contrastive term then compares only the "
            f"{config.batch_size // parts} images of a part with one another."
        )
    return lines or [_OTHERWISE]


def _fits(cost: Cost | None, target: Target) -> bool:
    return cost is not None and cost.memory.peak <= target.memory
