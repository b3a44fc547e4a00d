"""The lock of a workdir: one run has one writer.

It is a lock of the system on an open file (`flock`), so it goes with the process, however that
ends. The file stays, since removing it would let two processes lock two files of one name.
"""

import contextlib
import datetime
import json
import os
import pathlib
import socket
from collections.abc import Iterator

from clevit_jax.distributed import processes
from clevit_jax.errors import ConfigError
from clevit_jax.system.faults import mend, os_reason
from clevit_jax.system.places import in_bucket

try:
    import fcntl
except ModuleNotFoundError:  # Windows
    fcntl = None  # type: ignore[assignment]

LOCK_FILE = ".lock"


@contextlib.contextmanager
def locked(workdir: pathlib.Path) -> Iterator[None]:
    """Keeps other processes from training in a folder; of several processes, process 0 does.

    The folder is made. If nothing but the lock is in it at the end, it is as it was before.

    Raises:
        ConfigError: another process has the lock, or the folder cannot be written.
    """
    if processes.index() != 0 or in_bucket(workdir):
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
        yield
    finally:
        if made:
            with contextlib.suppress(OSError):  # the folder holds more
                if os.listdir(workdir) == [LOCK_FILE]:
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
    """Locks an open file and writes who has it. Raises ConfigError when another process has it."""
    if fcntl is None:
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise ConfigError(
            f"{_holder(descriptor)} is training in {workdir}; wait until it has ended, stop it, or "
            "name another --workdir. Nothing is changed."
        ) from None
    except OSError as error:
        print(
            f"Warning: the disk of {workdir} has no locks ({error.strerror or error}), so a second "
            "start of this run would not be noticed.",
            flush=True,
        )
        return
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    facts = {"pid": os.getpid(), "host": socket.gethostname(), "since": now}
    with contextlib.suppress(OSError):  # a full disk; the lock holds without
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps(facts).encode() + b"\n", 0)


def _holder(descriptor: int) -> str:
    """Who has the lock, as far as its file says."""
    try:
        facts = json.loads(os.pread(descriptor, 4096, 0))
        return f"Process {facts['pid']} on {facts['host']} (since {facts['since']})"
    except (OSError, ValueError, KeyError, TypeError):
        return "Another process"
