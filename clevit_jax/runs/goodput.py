"""Where the time of a run goes, and its goodput: the share of it that went into updates that count.

Each start keeps its seconds in run.json, by what they were spent on (`SPENT_ON`); together they are
the time since the first start began. What a restart costs stands with the start that follows it.
"""

import contextlib
import datetime
import pathlib
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import psutil

from clevit_jax.distributed import processes
from clevit_jax.errors import ConfigError
from clevit_jax.runs.metrics import read_records
from clevit_jax.runs.workdir import RUN_FILE
from clevit_jax.system.files import read_json_object, write_json

SPENT_ON = {
    "training": "updates that count",
    "evaluating": "evaluations",
    "saving": "waiting for checkpoints to be saved",
    "compiling": "compiling",
    "waiting": "waiting for data",
    "starting": "from the start of the process to its first update",
    "redone": "updates that were lost, and made again",
    "down": "between an end and the next start",
}
_COMPILING = "/jax/core/compile/"  # what JAX's events of tracing, lowering and compiling begin with


def process_began() -> float:
    """When this process began, in seconds since the epoch."""
    try:
        return float(psutil.Process().create_time())
    except psutil.Error:  # where /proc is hidden
        return time.time()


class Clock:
    """Adds up the seconds of one start, each on one thing of `SPENT_ON`.

    Inside the context JAX tells when it compiles, on whatever the time is spent then.

    Args:
        began: when the start began, in seconds since the epoch; None is now.
        now: a clock that never goes back, seconds.
        wall: seconds since the epoch.

    Attributes:
        began: as given.
        newest: seconds of the newest block of `spent`.
    """

    def __init__(
        self,
        began: float | None = None,
        *,
        now: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ):
        self._now, self._wall = now, wall
        self._mark, here = now(), wall()
        self.began = here if began is None else min(began, here)
        self.newest = 0.0
        self._seconds = dict.fromkeys(SPENT_ON, 0.0) | {"starting": here - self.began}
        self._on = "starting"
        self._thread = threading.get_ident()
        self._compiled: list[tuple[float, float]] = []  # disjoint, in order, since the mark

    def __enter__(self) -> "Clock":
        jax.monitoring.register_event_duration_secs_listener(self._heard)
        return self

    def __exit__(self, *_: object) -> None:
        jax.monitoring.unregister_event_duration_listener(self._heard)

    def switch(self, what: str) -> None:
        """From now on time is spent on this."""
        now = self._now()
        self._seconds[self._on] += now - self._mark
        self._on, self._mark = what, now
        self._compiled.clear()

    @contextlib.contextmanager
    def spent(self, what: str) -> Iterator[None]:
        """The time of the block is spent on this."""
        before, begin = self._on, self._now()
        self.switch(what)
        try:
            yield
        finally:
            self.switch(before)
            self.newest = self._mark - begin

    def _heard(self, event: str, duration_secs: float, **_: Any) -> None:
        """Something was compiled, within what the time is spent on; one lies inside another."""
        if not event.startswith(_COMPILING) or threading.get_ident() != self._thread:
            return
        end = self._now()
        begin = first = max(end - duration_secs, self._mark)
        known = 0.0
        while self._compiled and self._compiled[-1][1] > begin:
            inner = self._compiled.pop()
            known += inner[1] - max(inner[0], begin)
            first = min(first, inner[0])
        self._compiled.append((first, end))
        self._seconds["compiling"] += end - begin - known
        self._seconds[self._on] -= end - begin - known

    def record(self, reached: int, *, before: Mapping[str, float] | None = None) -> dict[str, Any]:
        """What a start keeps of its time in run.json.

        Args:
            reached: updates that are made, in all starts together.
            before: what the restart cost, of `lost_before`.
        """
        if before is not None:
            self._seconds |= before
        self.switch(self._on)
        seen = datetime.datetime.fromtimestamp(self._wall(), datetime.UTC)
        return {
            "reached": reached,
            "seen": seen.isoformat(timespec="milliseconds"),
            "seconds": {name: round(spent, 3) for name, spent in self._seconds.items()},
        }


def lost_before(
    starts: list[dict[str, Any]], step: int, began: float, sign: float | None
) -> dict[str, float]:
    """What the restart costs that goes on from a step, in seconds; {} where nobody knows.

    Updates that an earlier start made after that step do not count: they are moved from its
    training to `redone`, in proportion.

    Args:
        starts: the earlier ones, in order; changed.
        step: that the new start goes on from.
        began: when it began, seconds since the epoch.
        sign: when the one before gave the last sign of life after its last record; None where
            there is none of an update that is lost.
    """
    for start in starts:
        kept, reached = max(step, start["step"]), start.get("reached", 0)
        if reached > kept:
            seconds = start["seconds"]
            lost = seconds["training"] * (reached - kept) / (reached - start["step"])
            seconds["training"] = round(seconds["training"] - lost, 3)
            seconds["redone"] = round(seconds["redone"] + lost, 3)
            start["reached"] = kept
    if not starts or "seen" not in starts[-1] or starts[-1].get("finished"):
        return {}
    seen = datetime.datetime.fromisoformat(starts[-1]["seen"]).timestamp()
    away = max(0.0, began - seen)  # the clocks of two hosts may differ
    redone = 0.0 if sign is None else min(away, max(0.0, sign - seen))
    return {"redone": redone, "down": away - redone}


def last_sign(workdir: pathlib.Path, step: int) -> float | None:
    """When metrics.jsonl was last written to, if it tells of updates after a step; else None.

    To be asked before the run goes on, which drops these.
    """
    path = workdir / "metrics.jsonl"
    try:
        if not any(record["step"] > step for record in read_records(path)):
            return None
        return float(path.stat().st_mtime)
    except OSError:
        return None


def goodput(starts: list[dict[str, Any]]) -> dict[str, float]:
    """`share` of training in the `total` of all that the starts know, and the sums; {} of none."""
    known = [start["seconds"] for start in starts if "seconds" in start]
    sums = {name: round(sum(seconds[name] for seconds in known), 3) for name in SPENT_ON}
    total = sum(sums.values())
    if not total > 0:
        return {}
    return {"share": round(sums["training"] / total, 4), "total": round(total, 3), **sums}


def keep_time(workdir: pathlib.Path, clock: Clock, step: int, *, finished: bool = False) -> None:
    """Writes the time of this start into run.json, by process 0.

    Args:
        workdir: of the run, whose run.json has this start.
        clock: of this start.
        step: updates that are made.
        finished: whether the run is; what passes until it is extended is not lost then.
    """
    if processes.index() != 0:
        return
    path = workdir / RUN_FILE
    # A full disk, or a file that somebody damaged, costs this record and no more.
    with contextlib.suppress(ConfigError, OSError, LookupError, TypeError):
        facts = read_json_object(path)
        starts = facts["starts"]
        starts[-1] |= clock.record(step) | ({"finished": True} if finished else {})
        write_json(path, {**facts, "goodput": goodput(starts)})
