"""Swin-T training on a CPU: our plain path against timm's and Hugging Face's, in the same run.

    python -m benchmarks.cpu [--batch 8] [--rounds 7] [--threads 2] [--products]

Times forward and backward at 224 in float32, see `cpu_steps`; peers are eager, and those that are
not installed are left out. Each child lives in a process of its own, and in every round each
is timed once. Printed are the medians, and the ratio theirs / ours in seconds of the same round:
its median, least and most; above 1, ours is faster.

`--products` times the matmuls of the step's linear layers alone (`cpu_products`), beside torch's.

Our process keeps freed memory, as our training does on a CPU; `--keep none` leaves it out, and
`--keep all` does it for the peers as well.
"""

import argparse
import datetime
import importlib.util
import os
import platform
import statistics
import sys

from benchmarks.cpu_steps import HUGGING_FACE, OURS, TIMM, TORCH
from clevit_jax.performance.timed_process import TimedProcess


def compare(args: argparse.Namespace) -> int:
    peers = (TORCH,) if args.products else (TIMM, HUGGING_FACE)
    installed = [name for name in peers if importlib.util.find_spec(name)]
    names = [OURS, *installed] if importlib.util.find_spec("torch") else [OURS]
    environ = {"JAX_PLATFORMS": "cpu"}
    running: dict[str, TimedProcess] = {}
    seconds: dict[str, list[float]] = {name: [] for name in names}
    try:
        for name in names:
            keep = args.keep == "all" or (args.keep == "ours" and name == OURS)
            request = {
                "name": name,
                "products": args.products,
                "batch": args.batch,
                "threads": args.threads,
                "keep": keep,
            }
            running[name] = TimedProcess("benchmarks.cpu_steps", request, environ)
            if "ready" not in running[name].reply:
                print(f"{name}: {running[name].reply}", file=sys.stderr)
                return 1
        for _ in range(args.rounds):
            for name, child in running.items():
                seconds[name].append(statistics.median(child.time()["seconds"]))
            latest = ", ".join(f"{name} {times[-1]:.3f} s" for name, times in seconds.items())
            print(latest, file=sys.stderr, flush=True)  # for a run that is cut short
        show(args, seconds, {name: child.reply["ready"] for name, child in running.items()})
    finally:
        for child in running.values():
            child.close()
    return 0


def show(args: argparse.Namespace, seconds: dict[str, list[float]], facts: dict[str, dict]) -> None:
    machine = f"{platform.machine()}, {args.threads} of {os.cpu_count()} cores"
    what = "forward and backward" + (", matmuls alone" if args.products else "")
    print(
        f"{machine}, load {os.getloadavg()[0]:.1f}, {datetime.date.today()}. Swin-T, 224 px, batch "
        f"{args.batch}, float32, {what}; {args.rounds} rounds; keep {args.keep}."
    )
    print(f"{'':14}{'ms / step':>10}{'MiB resident':>14}  theirs / ours")
    for name, times in seconds.items():
        ratios = [their / our for their, our in zip(times, seconds[OURS], strict=True)]
        spread = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        median, resident = statistics.median(times) * 1e3, facts[name]["resident_mib"]
        print(
            f"{name:14}{median:10,.0f}{resident:14,}  {'' if name == OURS else spread:22}"
            f"{facts[name]['versions']}"
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--products", action="store_true")
    parser.add_argument("--keep", choices=("ours", "none", "all"), default="ours")
    arguments = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):  # XLA has as many threads as it may use cores
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: arguments.threads])
    sys.exit(compare(arguments))
