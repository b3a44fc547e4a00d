"""A watch over several processes that are one run: who stands still is named, and all end.

A process that is dead is missed by JAX within seconds. One whose disk or lock blocks goes on
beating, and the others would wait in a collective for it for ever. So each says where it is in
JAX's key-value store, and each looks whether all have stood still for too long. With one process
there is no watch.
"""

import contextlib
import dataclasses
import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from clevit_jax.distributed import cluster

# Where nothing is said of how far it is (compiling, reading weights), a process may stand still so
# many times as long; and it does not stand still while it takes this share of a processor.
PATIENCE = 6
_WORKING = 0.05
_KEY = "clevit_jax/moves"
_PERIOD = 10.0  # seconds between two words of a process


@dataclasses.dataclass
class _Moves:
    """What this process does.

    Attributes:
        place: how many of the places it has passed that all processes pass in the same order.
        at: the newest of them, in words.
        patient: how many phases without a word it is in.
        moved: when it did anything, by time.monotonic().
    """

    place: int = 0
    at: str = "the start"
    patient: int = 0
    moved: float = dataclasses.field(default_factory=time.monotonic)


_moves = _Moves()


def note(at: str) -> None:
    """Says that this process is at a place, which all processes pass in the same order."""
    _moves.place, _moves.at, _moves.moved = _moves.place + 1, at, time.monotonic()


def touch() -> None:
    """Says that this process has moved, without a place: by its own share of the work."""
    _moves.moved = time.monotonic()


@contextlib.contextmanager
def patiently(at: str) -> Iterator[None]:
    """While entered, this process does what may take long, and says nothing meanwhile."""
    note(at)
    _moves.patient += 1
    try:
        yield
    finally:
        _moves.patient -= 1
        note(f"the end of {at}")


class Judge:
    """Tells from the words of all processes whether they stand still.

    Args:
        seconds: that all may stand still.
        count: how many processes there are.
        now: seconds of a clock, here as in `see`.
    """

    def __init__(self, seconds: float, count: int, now: float):
        self._seconds, self._count = seconds, count
        silent = {"place": -1, "at": "the start", "patient": True, "idle": 0.0, "done": False}
        self._words: dict[int, Mapping[str, Any]] = dict.fromkeys(range(count), silent)
        self._heard = dict.fromkeys(range(count), now)

    def see(self, words: Mapping[int, Mapping[str, Any]], now: float) -> str:
        """Why all must end, in words; "" while they need not.

        Args:
            words: the newest of each process that has said any, see `_word`.
            now: seconds of the clock.
        """
        for process, word in words.items():
            if word != self._words[process]:
                self._words[process], self._heard[process] = word, now
        here = {process: word for process, word in self._words.items() if not word["done"]}
        if not here:
            return ""
        limit = self._seconds
        if any(word["patient"] for word in here.values()):
            limit *= PATIENCE
        idle = {p: word["idle"] + now - self._heard[p] for p, word in here.items()}
        if min(idle.values()) < limit:
            return ""
        least = min(word["place"] for word in here.values())
        behind = {process: word for process, word in here.items() if word["place"] == least}
        return self._sentence(behind, idle, alone=len(behind) < len(here))

    def _sentence(
        self, behind: Mapping[int, Mapping[str, Any]], idle: Mapping[int, float], *, alone: bool
    ) -> str:
        who = [
            f"process {p} of {self._count}"
            + (f" (process id {word['pid']} on {word['host']})" if "pid" in word else "")
            for p, word in behind.items()
        ]
        at = next(iter(behind.values()))["at"]
        minutes = f"{min(idle[p] for p in behind) / 60:.3g} minutes"
        verb = "has" if len(behind) == 1 else "have"
        waits = ", and the others wait for it" if alone and len(behind) == 1 else ""
        waits = ", and the others wait for them" if alone and len(behind) > 1 else waits
        pids = [word["pid"] for word in behind.values() if "pid" in word]
        look = f" `py-spy dump --pid {pids[0]}` there shows where it stands." if pids else ""
        return (
            f"{', '.join(who)} {verb} not moved for {minutes}, since {at}{waits}, so all end."
            f"{look} Start all of them again: the run goes on from its newest checkpoint "
            "(checkpoint.timeout_minutes is how long they may stand still)."
        )


def _is_patient() -> bool:
    return _moves.patient > 0 or _moves.place == 0  # it has said nothing yet


def _word(*, done: bool = False) -> str:
    """What this process says of itself; another text each time, so that it is heard."""
    now = time.monotonic()
    return json.dumps(
        {
            "place": _moves.place,
            "at": _moves.at,
            "patient": _is_patient(),
            "idle": now - _moves.moved,
            "done": done,
            "pid": os.getpid(),
            "host": socket.gethostname(),
        }
    )


@contextlib.contextmanager
def watched(seconds: float, give_up: Callable[[str], None]) -> Iterator[None]:
    """While entered, calls `give_up` with a sentence when all processes have stood still so long.

    All processes enter and leave; one that has left is no longer waited for. Until the first
    `note` they are in a phase that may take long.

    Args:
        seconds: that they may stand still, `PATIENCE` times as long in phases without a word.
        give_up: called in another thread; ends the process.
    """
    if cluster.process_count() == 1:
        yield
        return
    left = threading.Event()
    thread = threading.Thread(
        target=_watch, args=(seconds, give_up, left), name="clevit_jax_watch", daemon=True
    )
    touch()
    thread.start()
    try:
        yield
    finally:
        left.set()
        thread.join(_PERIOD)  # the service may be gone


def _watch(seconds: float, give_up: Callable[[str], None], left: threading.Event) -> None:
    period = min(_PERIOD, seconds / 10)
    # Somewhat later than what ends by itself after this time, whose sentence says more.
    judge = Judge(seconds + 2 * period, cluster.process_count(), time.monotonic())
    store, key = cluster.key_value_store(), f"{_KEY}/{cluster.process_index()}"
    worked = time.process_time()
    while not left.wait(period):
        # A compiler says nothing, and works: of a phase without a word, that counts as a move.
        if _is_patient() and time.process_time() - worked > _WORKING * period:
            touch()
        worked = time.process_time()
        with contextlib.suppress(Exception):  # the service is ending, and JAX tells
            store.key_value_set(key, _word(), allow_overwrite=True)
            found = store.key_value_dir_get(f"{_KEY}/")
            words = {int(name.rpartition("/")[2]): json.loads(word) for name, word in found}
            if says := judge.see(words, time.monotonic()):
                give_up(says)
                return
    with contextlib.suppress(Exception):
        store.key_value_set(key, _word(done=True), allow_overwrite=True)
