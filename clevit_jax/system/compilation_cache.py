"""JAX's persistent compilation cache: compiled programs on disk, for the next process."""

import contextlib
import hashlib
import os
import pathlib
import platform
import sys
import tempfile

import jax

from clevit_jax.system.places import run_place

AUTO = "auto"
MAX_BYTES = 4 << 30  # of the folder that `auto` names; what was used longest ago goes first
MIN_SECONDS = (
    0.1  # that compiling took what is kept; JAX's own second leaves out most of a small run
)
_SETTING = "jax_compilation_cache_dir"
_OF_XLA = "jax_persistent_cache_enable_xla_caches"
_MIN_SECONDS = "jax_persistent_cache_min_compile_time_secs"
_SETTINGS = (
    "jax_enable_compilation_cache",
    _SETTING,
    _MIN_SECONDS,
    "jax_persistent_cache_min_entry_size_bytes",
)


def enable(folder: str, *, alone: bool = True) -> None:
    """Turns the cache on for this process and those that it starts.

    JAX keeps what took it `MIN_SECONDS` or more to compile, under a hash of program, compiler,
    its options and the devices. It is neither locked nor bounded by JAX: its own bound
    (`jax_compilation_cache_max_size`) needs a file that a killed process may leave out, after which
    nothing is kept any more.

    Args:
        folder: of the cache; "" for none; `AUTO` for what JAX was told (JAX_COMPILATION_CACHE_DIR),
            or else for a folder of the user, which is kept below `MAX_BYTES`. JAX's own switch,
            JAX_ENABLE_COMPILATION_CACHE=0, goes before all.
        alone: whether this is the only process of the run. Of several, JAX lets the first alone
            write, and on GPUs they compile together; so `AUTO` makes no folder then, for not all
            might see it.
    """
    told = jax.config.values[_SETTING] is not None
    if not jax.config.values["jax_enable_compilation_cache"] or (folder == AUTO and told):
        return
    if folder == AUTO:
        if not alone:
            return
        try:
            folder = str(users_folder())
        except RuntimeError:  # of pathlib: there is no home
            _warn("no home folder is known")
            return
        if _can_write(folder):
            prune(pathlib.Path(folder), MAX_BYTES)
            _use(folder)
    elif not folder or "://" in folder or _can_write(folder):
        _use(folder or None)


def place_of(folder: str) -> str:
    """The folder that `--compilation_cache` names, on a disk or in a bucket. Raises ConfigError."""
    if folder in ("", AUTO):
        return folder
    return os.fspath(run_place(folder, "--compilation_cache"))


def child_environment() -> dict[str, str]:
    """Environment variables by which a child process keeps to the cache of this one.

    `enable` sets the folder's; here is also what was set by `jax.config.update` alone.
    """
    values = {name: jax.config.values[name] for name in _SETTINGS}
    return {name.upper(): "" if value is None else str(value) for name, value in values.items()}


def users_folder() -> pathlib.Path:
    """The folder of a user's cache for this kind of processor: code for one may not run on another.

    Raises:
        RuntimeError: the home folder is not known.
    """
    named = os.environ.get("XDG_CACHE_HOME", "")
    root = pathlib.Path(named) if os.path.isabs(named) else pathlib.Path.home() / ".cache"
    return root / "clevit_jax" / "compiled" / _processor()


def _processor() -> str:
    """A name such as `x86_64-1f2e3d4c`: architecture, and hash of the model and its features."""
    traits = {platform.processor()}
    with contextlib.suppress(OSError):
        lines = pathlib.Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        # "flags" and "model name" on x86, "Features" and "CPU part" on Arm.
        names = ("flags", "model name", "Features", "CPU part")
        traits |= {line for line in lines if line.startswith(names)}
    digest = hashlib.sha256("\n".join(sorted(traits)).encode()).hexdigest()
    return f"{platform.machine() or 'unknown'}-{digest[:8]}"


def prune(folder: pathlib.Path, most: int) -> None:
    """Removes what was used longest ago until the files in `folder` take at most `most` bytes."""
    files = []
    with contextlib.suppress(OSError):
        for path in folder.rglob("*"):
            with contextlib.suppress(OSError):  # another process was faster
                stat = path.stat()
                if path.is_file():
                    files.append((max(stat.st_atime, stat.st_mtime), stat.st_size, path))
    total = sum(size for _, size, _ in files)
    for _, size, path in sorted(files):
        if total <= most:
            return
        with contextlib.suppress(OSError):
            path.unlink()
            total -= size


def _use(folder: str | None) -> None:
    jax.config.update(_SETTING, folder)
    os.environ[_SETTING.upper()] = folder or ""  # of processes that this one starts
    if folder and "://" in folder:  # XLA's own caches, on GPUs, know no buckets
        jax.config.update(_OF_XLA, "none")
        os.environ[_OF_XLA.upper()] = "none"
    if jax.config.values[_MIN_SECONDS] == 1.0 and _MIN_SECONDS.upper() not in os.environ:
        jax.config.update(_MIN_SECONDS, MIN_SECONDS)
        os.environ[_MIN_SECONDS.upper()] = str(MIN_SECONDS)


def _can_write(folder: str) -> bool:
    """Makes the folder, for this user alone; warns where it cannot be written."""
    try:
        pathlib.Path(folder).mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError as error:
        _warn(f"{folder} cannot be written: {error.strerror or error}")
        return False


def _warn(reason: str) -> None:
    print(
        f"Warning: the next run will compile everything again, because {reason}. "
        "Name another folder with --compilation_cache FOLDER.",
        file=sys.stderr,
        flush=True,
    )
