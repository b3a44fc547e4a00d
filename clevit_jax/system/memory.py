"""Memory of the host that this process may take: what runs on a CPU must never swap."""

import pathlib

import psutil

from clevit_jax.system import control_groups

SHARE = 0.9  # of the free memory, that a step may plan for: the compiler does not count all
# Files with the limit and with the bytes in use, and the entry of memory.stat with the bytes in use
# that hold files, which the kernel gives away when a process asks for more; versions 2 and 1.
_FILES = (
    ("memory.max", "memory.current", "inactive_file"),
    ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)


def available() -> int:
    """Bytes that this process may still take: what the system has free, or its control groups."""
    free = [psutil.virtual_memory().available]
    for folder in control_groups.folders("memory"):
        for limit_file, used_file, entry in _FILES:
            limit = control_groups.number(folder, limit_file)
            used = control_groups.number(folder, used_file)
            if limit is not None and used is not None:
                free.append(max(0, limit - max(0, used - _entry(folder / "memory.stat", entry))))
    return min(free)


def total() -> int:
    """Bytes that this process may take in all: what the machine has, or its control groups."""
    limits = [
        control_groups.number(folder, name)
        for folder in control_groups.folders("memory")
        for name, _, _ in _FILES
    ]
    return min([psutil.virtual_memory().total, *(limit for limit in limits if limit is not None)])


def _entry(path: pathlib.Path, name: str) -> int:
    """The number of an entry of memory.stat; 0 where there is none."""
    try:
        lines = path.read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.split()[:1] == [name])
    except (OSError, ValueError, IndexError, StopIteration):
        return 0


def size(count: int) -> str:
    """A number of bytes, for a sentence."""
    for unit, scale in (("GiB", 1 << 30), ("MiB", 1 << 20)):
        if count >= scale:
            return f"{count / scale:,.1f} {unit}"
    return f"{count:,} bytes"
