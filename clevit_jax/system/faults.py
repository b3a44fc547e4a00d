"""Faults of the machine, told from faults of the program: one sentence each, or none.

Memory that does not suffice, a disk that is full, a device that is not there: they reach us as
errors of many kinds and out of any library. `main.main` and `distributed.processes` ask here what
an error means.
"""

import errno
import os
import re
import sys
import traceback

from clevit_jax.errors import STALLED, ClevitError, first_line
from clevit_jax.system.quoting import printable

_MEMORY = (
    "resource_exhausted",
    "out of memory",
    "std::bad_alloc",
    "alloc_failed",
    "cannot allocate memory",
    "out_of_memory",
    "failed to map segment",  # of a library
)
_BYTES = re.compile(r"alloc\w*\s+(?:of\s+)?(\d+)\s*bytes", re.IGNORECASE)
_FIT = (
    "For training, lower --config.batch_size, raise --config.accumulation (parts that a batch is "
    "cut into) or set --config.model.remat=blocks; for scores and answers, lower "
    "--config.eval.batch_size; --config.data.cache_bytes bounds the images that are kept in "
    "memory. --mode preflight says beforehand what fits."
)
# What to do about an error of the operating system.
_MENDS = {
    errno.ENOSPC: "free some space there, or name another place",
    errno.EDQUOT: "your quota there is used up: free some space, or name another place",
    errno.EROFS: "it can only be read: name another place",
    errno.EACCES: "this user may not: change its permissions, or name another place",
    errno.EPERM: "this user may not: change its permissions, or name another place",
    errno.ENOENT: "it, or a folder above it, is not there",
    errno.ENOTDIR: "what should be a folder on the way to it is a file",
    errno.EISDIR: "name a file",
    errno.ENAMETOOLONG: "shorten it",
    errno.ELOOP: "links there lead in a circle: mend them",
    errno.EMFILE: "raise the limit, ulimit -n 4096, or lower --config.data.threads",
    errno.ENFILE: "the machine has too many files open: end other programs",
    errno.EIO: "the disk, or the way to it, failed: try again, or name another place",
    errno.ESTALE: "the network disk changed under it: try again",
    errno.EXDEV: "it leads to another disk",
}

# What disks refuse with; tensorstore says it behind two paths of its own.
_OF_THE_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ESTALE, errno.EROFS, errno.EACCES)
# What of a file alone may bring forth; any other error of a read is one of the disk, the network
# or the machine.
_OF_ONE_FILE = {
    errno.ENOENT,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.EACCES,
    errno.EPERM,
    errno.ELOOP,
    errno.ENAMETOOLONG,
    errno.EINVAL,  # a damaged file says where to look, and that place cannot be
    errno.EOVERFLOW,
    errno.EILSEQ,
}


def sentence(error: BaseException, doing: str = "") -> str | None:
    """What a user is told of an error; None where it is a fault of the program.

    Args:
        error: whatever was raised.
        doing: what was being done, for errors that say nothing of it: "--mode predict".
    """
    if isinstance(error, ClevitError):
        return str(error)
    if is_out_of_memory(error):
        return _memory_sentence(error)
    if isinstance(error, OSError):
        return os_sentence(error, doing)
    if isinstance(error, FloatingPointError):
        return _not_finite(error)
    if isinstance(error, RuntimeError) and "can't start new thread" in str(error):
        return (
            "No further thread can be started, by a limit on processes or on memory (ulimit -u, "
            "ulimit -v, or that of the container); raise it, or lower --config.data.threads."
        )
    return _no_device(error)


def tell(error: Exception, doing: str = "", *, with_traceback: bool = False) -> int:
    """Prints what a user is told of an error that ends a command; returns its exit code.

    Args:
        error, doing: see `sentence`.
        with_traceback: whether to print where it came from, too.

    Raises:
        Exception: the error itself, where it is a fault of the program.
    """
    says = sentence(error, doing)
    if says is None:
        raise error
    if with_traceback:
        traceback.print_exception(error)
    lines = map(printable, says.split("\n"))  # a name in it may hold anything
    print("error: " + "\n".join(lines), file=sys.stderr)
    return exit_code(error)


def exit_code(error: BaseException) -> int:
    """Of a command that ends by an error which has a sentence.

    What a bucket out of reach brings forth, of whatever kind, ends with `STALLED`.
    """
    code = error.exit_code if isinstance(error, ClevitError) else ClevitError.exit_code
    away = code == ClevitError.exit_code and "gs://" in str(error) and is_out_of_reach(error)
    return STALLED if away else code


def is_out_of_memory(error: BaseException | str) -> bool:
    """Whether an error, or its text, of the runtime or a compiler says that memory is short."""
    if isinstance(error, MemoryError):
        return True
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    if isinstance(error, str | RuntimeError | ImportError):  # XLA's is a RuntimeError
        return any(word in str(error).lower() for word in _MEMORY)
    return False


def fault_of_machine(error: BaseException | None) -> OSError | None:
    """The error of the disk, the network or the machine that lies behind another one, or None."""
    while error is not None:
        if isinstance(error, OSError) and error.errno and error.errno not in _OF_ONE_FILE:
            return error
        error = error.__cause__
    return None


# How libraries below say that a bucket, or the way to it, is gone: tensorstore, aiohttp, requests,
# google-api-core, and `system.buckets`.
_AWAY = (
    "cannot connect to host",
    "server disconnected",
    "connection reset",
    "connection aborted",
    "max retries exceeded",
    "curl error",
    "could not resolve host",
    "couldn't connect",
    "could not connect",
    "cannot be reached",
    "bucket does not answer",
    "service unavailable",
)
_AWAY_NUMBERS = {
    errno.EHOSTUNREACH,
    errno.ENETUNREACH,
    errno.ETIMEDOUT,
    errno.ECONNREFUSED,
    errno.ECONNRESET,
}


def is_out_of_reach(error: BaseException | None) -> bool:
    """Whether an error, or one that it comes from, says that a bucket cannot be reached."""
    while error is not None:
        number = error.errno if isinstance(error, OSError) else None
        if number in _AWAY_NUMBERS or any(word in str(error).lower() for word in _AWAY):
            return True
        error = error.__cause__ or error.__context__
    return False


def _memory_sentence(error: BaseException) -> str:
    text = first_line(error).rstrip(".")
    size = _BYTES.search(str(error))
    what = f"{int(size[1]) / 1e9:,.2f} GB more were wanted" if size else text[:300]
    if isinstance(error, OSError):
        what = os_reason(error)
    elif text in ("MemoryError", "std::bad_alloc"):
        what = "the system gives this process no more"
    return f"Memory does not suffice: {what}. {_FIT}"


def os_reason(error: OSError) -> str:
    """The reason alone, "No space left on device", without number and path."""
    return error.strerror or first_line(error)


def passed_on(error: Exception) -> str:
    """The system's reason in an error of a library about a disk; "" where it has none."""
    known = (os.strerror(code) for code in _OF_THE_DISK)
    said = (reason for reason in known if reason in str(error))
    return "" if isinstance(error, OSError) else next(said, "")


def mend(error: OSError) -> str:
    """What to do about an error of the operating system, after a semicolon; "" if not known."""
    name = error.filename if isinstance(error.filename, str) else ""
    if error.errno in (errno.ENOENT, errno.ELOOP) and os.path.islink(name):
        return f"; it is a link to {os.readlink(name)}, so fetch that file or mend the link"
    return f"; {known}" if (known := _MENDS.get(error.errno or 0)) else ""


def os_sentence(error: OSError, doing: str = "") -> str:
    """The sentence for an OSError that nobody gave a better one: path, reason, purpose, mend."""
    paths = [
        os.fsdecode(p) for p in (error.filename, error.filename2) if isinstance(p, str | bytes)
    ]
    where = f"{' -> '.join(dict.fromkeys(paths))}: " if paths else ""
    during = f" ({doing})" if doing else ""
    return f"{where}{os_reason(error).rstrip('.')}{during}{mend(error)}."


def _not_finite(error: FloatingPointError) -> str | None:
    """Of JAX_DEBUG_NANS and JAX_DEBUG_INFS, which end the process where training would go on."""
    import jax

    names = {"jax_debug_nans": "JAX_DEBUG_NANS", "jax_debug_infs": "JAX_DEBUG_INFS"}
    on = [variable for name, variable in names.items() if jax.config.values.get(name)]
    if not on:
        return None
    return (
        f"{' and '.join(on)} ended this at the first number that is not finite: "
        f"{first_line(error).rstrip('.')}. --traceback shows where it arose; without the variable "
        "such an update is left out and counted, and ten in a row end the run."
    )


def _no_device(error: BaseException) -> str | None:
    """Of JAX, where it cannot take the devices that it was told to take, or any."""
    frames = traceback.extract_tb(error.__traceback__)
    if not isinstance(error, RuntimeError | AssertionError):
        return None
    in_bridge = any(frame.filename.endswith("xla_bridge.py") for frame in frames[-3:])
    if not in_bridge and "initialize backend" not in str(error):
        return None
    import jax

    reason = first_line(error).partition(" (set JAX_PLATFORMS")[0].rstrip(".")
    reason = "" if isinstance(error, AssertionError) else f": {reason}"
    wanted = jax.config.values["jax_platforms"]
    hidden = [
        f"{name}={os.environ[name]}"
        for name in ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "TPU_VISIBLE_CHIPS")
        if name in os.environ
    ]
    note = f" {' and '.join(hidden)} may hide them." if hidden else ""
    if wanted:
        return (
            f"JAX_PLATFORMS is {wanted}, and JAX finds no such device here{reason}.{note} Unset it "
            "to take what is there (unset JAX_PLATFORMS), or set JAX_PLATFORMS=cpu. For GPUs JAX "
            "needs its plugin: pip install 'jax[cuda13]'."
        )
    return (
        f"JAX cannot use the devices of this machine{reason}.{note} Does another process hold "
        "them? JAX_PLATFORMS=cpu does without."
    )
