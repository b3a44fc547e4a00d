"""How many CPUs this process may use, which on a shared machine are fewer than there are."""

import math
import os
import pathlib

from clevit_jax.system import control_groups


def usable() -> int:
    """CPUs that the process may use, at least 1: by its affinity, and by its groups' quota.

    Half a CPU of a quota counts as one: a thread more waits, a thread less leaves time unused.
    """
    if hasattr(os, "sched_getaffinity"):
        count = len(os.sched_getaffinity(0))
    else:  # macOS, Windows
        count = os.cpu_count() or 1
    quotas = [_quota(folder) for folder in control_groups.folders("cpu")]
    return max(1, math.ceil(min([count, *filter(None, quotas)])))


def _quota(folder: pathlib.Path) -> float | None:
    """CPUs that a group may use at a time; None where it is free."""
    try:
        words = (folder / "cpu.max").read_text().split()  # version 2: `<quota> <period>`
        quota, period = int(words[0]), int(words[1])
    except (OSError, ValueError, IndexError):
        quota = control_groups.number(folder, "cpu.cfs_quota_us") or 0
        period = control_groups.number(folder, "cpu.cfs_period_us") or 0
    return quota / period if quota > 0 and period > 0 else None  # -1 is none in version 1
