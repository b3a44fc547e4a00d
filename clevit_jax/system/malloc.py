"""glibc's malloc, set to keep freed memory: on a CPU, XLA allocates each step's memory anew.

Memory fresh from the system costs a page fault for every 4 KiB, which is about a sixth of a step.
"""

import ctypes
import platform

_ARENA_MAX, _MMAP_MAX, _TRIM_THRESHOLD = -8, -4, -1  # of mallopt, <malloc.h>


def keep_freed_memory() -> bool:
    """Lets this process keep the memory that it frees, for what it allocates next.

    For a process that computes on the CPU, before it starts threads. What it holds is then the most
    that it ever needed at once, and all threads allocate from one arena.

    Returns:
        Whether malloc accepted it; False without glibc, and nothing was changed.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    # Blocks of any size, from the one heap that can grow, which is never given back.
    wanted = {_ARENA_MAX: 1, _MMAP_MAX: 0, _TRIM_THRESHOLD: -1}
    done = [mallopt(name, value) for name, value in wanted.items()]  # each, whatever the others say
    return all(done)
