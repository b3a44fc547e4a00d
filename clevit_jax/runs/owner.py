"""Who writes to a workdir: the newest start of the run, and none beside it.

`owner.json` of the workdir holds

    token            drawn by each start
    host, pid        of process 0
    process_started  when that process began, by its host's clock (seconds since 1970): another
                     process of this number began at another time
    processes        how many there are
    started          when the run was claimed
    ended            when it was let go of; missing while it is held, and after a kill

A living process of this host is never taken from. Else the last start wins: a host that is gone
would hold its run for ever. The older one looks before whatever it writes, and ends. Between the
look and the end of a write there is a moment in which both may write; it is as long as one small
file takes, since a checkpoint is looked after once more before it gets its name.
"""

import contextlib
import datetime
import json
import os
import pathlib
import socket
import uuid
from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar

import psutil

from clevit_jax.distributed import processes, watch
from clevit_jax.errors import ConfigError, StorageError, SupersededError
from clevit_jax.system.bounded import Bounded
from clevit_jax.system.faults import mend, os_reason
from clevit_jax.system.files import write_json
from clevit_jax.system.places import in_bucket

OWNER_FILE = "owner.json"
_SAME = 2.0  # seconds by which two looks at when a process began may differ
_ENDING_SECONDS = 5.0  # that the end of a run waits for owner.json


def now() -> str:
    """The time in UTC, to the second."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def this_process() -> dict[str, Any]:
    """What tells this process from all others: pid, host and when it began."""
    began = psutil.Process().create_time()
    return {"pid": os.getpid(), "host": socket.gethostname(), "process_started": began}


def lives_here(facts: Mapping[str, Any]) -> bool:
    """Whether a process is one of this host and still there; see `this_process`."""
    if facts.get("host") != socket.gethostname():
        return False
    try:
        process = psutil.Process(facts["pid"])
        same = abs(process.create_time() - facts["process_started"]) < _SAME
        return same and process.status() != psutil.STATUS_ZOMBIE
    except (psutil.Error, KeyError, TypeError, ValueError):
        return False


def read_owner(workdir: pathlib.Path) -> dict[str, Any] | None:
    """The content of owner.json; None where there is none, or none that can be read."""
    try:
        facts = json.loads((workdir / OWNER_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return facts if isinstance(facts, dict) else None


def check_free(workdir: pathlib.Path) -> None:
    """Raises ConfigError when a living process of this host has the run."""
    facts = read_owner(workdir) or {}
    held = "ended" not in facts and facts.get("token") not in Owner.let_go
    if held and lives_here(facts):
        raise ConfigError(
            f"Process {facts['pid']} on {facts['host']} (since {facts.get('started')}) is training "
            f"in {workdir}; wait until it has ended, stop it, or name another --workdir. Nothing "
            "is changed."
        )


class Owner:
    """A start's hold on its workdir: whether it still has it, and writes that end in time.

    Process 0 of a run looks at the folder; the others hear of it. One that only reads a run has
    `Owner()`, which looks at nothing and sets no limit.

    Args:
        workdir: of the run; None for who only reads.
        token: of owner.json; "" in processes that did not write it.
        seconds: that the storage may take to answer.

    Attributes:
        superseded: whether a newer start was seen, after which this one writes nothing.
    """

    let_go: ClassVar[set[str]] = set()  # tokens of this process; a kernel lives on after its run

    def __init__(
        self, workdir: pathlib.Path | None = None, token: str = "", *, seconds: float = 600.0
    ):
        self._workdir, self._token, self._seconds = workdir, token, seconds
        self._bounded = Bounded(seconds)
        self.superseded = False

    def call(self, what: str, function: Callable[[], Any]) -> Any:
        """What `function()` returns or raises; it reads or writes the workdir.

        Raises:
            StorageError: it takes longer than the storage may.
        """
        if self._workdir is None:
            return function()
        try:
            return self._bounded.call(function)
        except TimeoutError as error:
            raise _stalled(what, self._workdir, self._seconds) from error
        finally:
            watch.touch()

    def check(self, at: str = "") -> None:
        """Raises SupersededError when a newer start has the run; all processes call it together.

        Args:
            at: where this one is, in words: "at step 120".
        """
        if self._workdir is None:
            return
        self._raise(processes.broadcast("owner", self._newer(at)))

    def look(self, at: str = "") -> None:
        """As `check`, in process 0 alone; the others are told how it ended."""
        self._raise(self._newer(at))

    def look_cheaply(self, at: str = "") -> None:
        """As `look`, but not in a bucket, where a look is a request that takes its time."""
        if self._workdir is not None and not in_bucket(self._workdir):
            self.look(at)

    def look_within(self) -> None:
        """As `look`, inside of a call that ends in time by itself."""
        if self._token and self._workdir is not None:
            self._raise(self._says(read_owner(self._workdir), ""))

    def holds_it(self) -> bool:
        """Whether this start still has its workdir; looks, as `look_within`."""
        with contextlib.suppress(SupersededError):
            self.look_within()
        return not self.superseded

    def _raise(self, says: str) -> None:
        if says:
            self.superseded = True
            raise SupersededError(says)

    def _newer(self, at: str) -> str:
        """What to say of a newer start; "" where there is none, or where nothing tells."""
        if not self._token or self._workdir is None:
            return ""
        workdir = self._workdir
        return self._says(self.call(OWNER_FILE, lambda: read_owner(workdir)), at)

    def _says(self, facts: dict[str, Any] | None, at: str) -> str:
        if facts is None or facts.get("token") == self._token:
            return ""
        return (
            f"{self._workdir} was taken over at {facts.get('started')} by process "
            f"{facts.get('pid')} on {facts.get('host')}, a newer start of this run. This one, "
            f"process {os.getpid()} on {socket.gethostname()}, ends{f' {at}' if at else ''} and "
            "writes nothing more; what was saved is there, and the newer one goes on from it."
        )

    def let_it_go(self) -> None:
        """Notes in owner.json that the run is no longer held, unless another has it."""
        if not self._token or self._workdir is None:
            return
        self.let_go.add(self._token)
        workdir = self._workdir

        def end() -> None:
            facts = read_owner(workdir)
            if facts is not None and facts.get("token") == self._token:
                write_json(workdir / OWNER_FILE, {**facts, "ended": now()})

        if not self.superseded:
            with contextlib.suppress(Exception):  # what ended the run is told, not this
                self._bounded.call(end, seconds=_ENDING_SECONDS)
        self._bounded.close()


@contextlib.contextmanager
def owned(workdir: pathlib.Path, *, seconds: float) -> Iterator[Owner]:
    """Takes the run over; an older start of it ends before it writes again. All processes enter.

    Args:
        workdir: of the run; made if missing.
        seconds: that its storage may take to answer.

    Raises:
        ConfigError: owner.json cannot be written.
        StorageError: the storage does not answer.
    """
    token = uuid.uuid4().hex if processes.index() == 0 else ""
    owner = Owner(workdir, token, seconds=seconds)

    def claim() -> None:
        workdir.mkdir(parents=True, exist_ok=True)
        facts = {**this_process(), "processes": processes.count(), "started": now()}
        write_json(workdir / OWNER_FILE, {"token": token, **facts})

    try:
        if token:
            owner.call(OWNER_FILE, claim)
    except OSError as error:
        raise ConfigError(
            f"--workdir {workdir} cannot be written: {os_reason(error)}{mend(error)}."
        ) from error
    try:
        yield owner
    finally:
        owner.let_it_go()


def reach(workdir: pathlib.Path, *, minutes: float) -> None:
    """Returns when the storage of a workdir answers. Raises StorageError when it does not."""
    if not 0 < minutes < 1e7:  # the setting is refused in a moment
        return
    seconds = 60 * minutes
    bounded = Bounded(seconds)
    try:
        bounded.call(workdir.exists)
    except TimeoutError as error:
        raise _stalled("the folder", workdir, seconds) from error
    except OSError:  # who reads it has a sentence for this
        pass
    finally:
        bounded.close()


def _stalled(what: str, workdir: pathlib.Path, seconds: float) -> StorageError:
    return StorageError(
        f"The storage of {workdir} has not answered for {seconds / 60:.3g} minutes ({what}), so "
        "this ends here. What was saved before is whole; run the same command when it answers. "
        "checkpoint.timeout_minutes is how long it may take."
    )
