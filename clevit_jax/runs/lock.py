"""The lock of a workdir: of the processes of one host, one trains in it.

It is a lock of the system on an open file (`flock`), so it goes with the process, however that
ends. The file stays, since removing it would let two processes lock two files of one name. Where
there are no locks (a bucket, some network disks), `runs.owner` tells by what is written down. A
lock that another host has keeps nobody out: a host that is gone may leave it for long, so there the
last start wins, and the older one ends (`runs.owner`).
"""

import contextlib
import json
import os
import pathlib
from collections.abc import Iterator
from typing import Any

from clevit_jax.distributed import processes
from clevit_jax.errors import ConfigError
from clevit_jax.runs.owner import OWNER_FILE, check_free, lives_here, now, this_process
from clevit_jax.system.faults import mend, os_reason
from clevit_jax.system.files import why_not_writable
from clevit_jax.system.places import in_bucket

try:
    import fcntl
except ModuleNotFoundError:  # Windows
    fcntl = None  # type: ignore[assignment]

LOCK_FILE = ".lock"


@contextlib.contextmanager
def locked(workdir: pathlib.Path) -> Iterator[None]:
    """Keeps others of this host from training in a folder; of several processes, process 0 does.

    The folder is made. If nothing but lock and owner is in it at the end, it is as it was before.

    Raises:
        ConfigError: a living process of this host trains there, or the folder cannot be written.
    """
    if processes.index() != 0:
        yield
        return
    if in_bucket(workdir):
        if reason := why_not_writable(workdir):
            raise ConfigError(f"--workdir {workdir} cannot be written: {reason}.")
        check_free(workdir)
        yield
        return
    made = [path for path in (workdir, *workdir.parents) if not path.exists()]
    try:
        descriptor = _open(workdir)
    except OSError as error:
        raise ConfigError(
            f"--workdir {workdir} cannot be written: {os_reason(error)}{mend(error)}."
        ) from error
    try:
        check_free(workdir)  # where the disk has no locks, or none that hold
        yield
    finally:
        if made:
            with contextlib.suppress(OSError):  # the folder holds more
                if set(os.listdir(workdir)) <= {LOCK_FILE, OWNER_FILE}:
                    (workdir / OWNER_FILE).unlink(missing_ok=True)
                    (workdir / LOCK_FILE).unlink()
                for folder in made:
                    folder.rmdir()
        os.close(descriptor)


def _open(workdir: pathlib.Path) -> int:
    """The descriptor of the lock of a folder, which is made. Raises ConfigError, see `locked`."""
    while True:
        workdir.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(workdir / LOCK_FILE, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            _take(descriptor, workdir)
            # The process before may have removed the file between the two lines above.
            if os.fstat(descriptor).st_nlink:
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _take(descriptor: int, workdir: pathlib.Path) -> None:
    """Locks an open file and writes who has it. Raises ConfigError when one of this host has it."""
    if fcntl is None:
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = _holder(descriptor)
        if holder is not None and not lives_here(holder):
            print(
                f"{_named(holder)} has the lock of {workdir}, and is not of this host, or gone; "
                "this start takes the run over, and an older one ends before it saves again.",
                flush=True,
            )
            return
        raise ConfigError(
            f"{_named(holder)} is training in {workdir}; wait until it has ended, stop it, or "
            "name another --workdir. Nothing is changed."
        ) from None
    except OSError as error:
        print(
            f"Warning: the disk of {workdir} has no locks ({error.strerror or error}), so a start "
            "of this run on another host is noticed only when this one saves; it ends then.",
            flush=True,
        )
        return
    facts = {**this_process(), "since": now()}
    with contextlib.suppress(OSError):  # a full disk; the lock holds without
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps(facts).encode() + b"\n", 0)


def _holder(descriptor: int) -> dict[str, Any] | None:
    """Who has the lock, None where its file does not say."""
    try:
        facts = json.loads(os.pread(descriptor, 4096, 0))
        return {name: facts[name] for name in ("pid", "host", "process_started", "since")}
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _named(holder: dict[str, Any] | None) -> str:
    if holder is None:
        return "Another process"
    return f"Process {holder['pid']} on {holder['host']} (since {holder['since']})"
