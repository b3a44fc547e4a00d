"""Free memory of the host: what runs on a CPU must never swap."""

import pathlib

import psutil

SHARE = 0.9  # of the free memory, that a step may plan for: the compiler does not count all
_CONTROL_GROUP = pathlib.Path("/sys/fs/cgroup")  # version 2; what a container is held to


def available() -> int:
    """Bytes that this process may still take: what the system has free, or its container."""
    free = psutil.virtual_memory().available
    try:
        limit = (_CONTROL_GROUP / "memory.max").read_text().strip()
        used = int((_CONTROL_GROUP / "memory.current").read_text())
    except (OSError, ValueError):
        return free
    return min(free, max(0, int(limit) - used)) if limit.isdigit() else free
