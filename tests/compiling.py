"""How the suite compiles: hastily, and what one process has compiled all others find.

Most of a test's time is XLA's. So its optimisation is off, but for the tests that are marked
`optimised`, and JAX's compilation cache is on for every test and every process that a test
starts. The cache lies beside pytest's own and so serves the next session, too; its key is a hash
of the program and the compiler's options, so it holds nothing stale.

To be imported before JAX.
"""

import contextlib
import os
import pathlib
from collections.abc import Iterator


def xla_flags(devices: int) -> str:
    """For a process with this many devices of the CPU.

    On a busy machine one device may wait long for another, and XLA ends a process after 40 s of it.
    """
    return (
        f"--xla_force_host_platform_device_count={devices} "
        "--xla_cpu_collective_call_terminate_timeout_seconds=1800"
    )


# Removed by `pytest --cache-clear` and by `make clean`.
FOLDER = pathlib.Path(__file__).parents[1] / ".pytest_cache" / "d" / "compiled"
HASTY = "jax_disable_most_optimizations"

# Also for the processes that tests start.
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {xla_flags(4)}".strip()
os.environ["JAX_ENABLE_COMPILATION_CACHE"] = "1"
os.environ["JAX_COMPILATION_CACHE_DIR"] = str(FOLDER)
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"
os.environ[HASTY.upper()] = "1"


def optimise(wanted: bool) -> None:
    """Turns XLA's optimisation on or off, here and in the processes that are started from now on.

    What is compiled already is forgotten, for JAX takes no notice of this setting there.
    """
    import jax  # which reads the above

    if jax.config.values[HASTY] == wanted:
        jax.config.update(HASTY, not wanted)
        os.environ[HASTY.upper()] = str(int(not wanted))
        jax.clear_caches()


@contextlib.contextmanager
def cache_of_its_own(folder: pathlib.Path) -> Iterator[None]:
    """An empty cache, here and in processes, for who looks at what is compiled."""
    _use(folder)
    try:
        yield
    finally:
        _use(FOLDER)


def _use(folder: pathlib.Path) -> None:
    import jax

    jax.config.update("jax_compilation_cache_dir", str(folder))
    os.environ["JAX_COMPILATION_CACHE_DIR"] = str(folder)
    jax.experimental.compilation_cache.compilation_cache.reset_cache()
