"""What a run hands to Weights & Biases and to MLflow, as `log.wandb` and `log.mlflow` ask.

Nothing there may cost the run an update: each service has a thread of its own, which alone waits
for it. What a service was handed is noted in a small file of the workdir, `wandb.json` or
`mlflow.json`:

    name       project or experiment
    key        of the run there
    until      by group of numbers ("train", "test"), the newest step that was handed over
    settings   the config, as it was then

so that the next start, on whatever host, goes on with the same run there: without a number twice,
and with what that lacks.
"""

import collections
import contextlib
import importlib.util
import json
import math
import pathlib
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

from ml_collections import ConfigDict

from clevit_jax.config import changed_settings, flatten
from clevit_jax.errors import ConfigError, first_line
from clevit_jax.runs import mlflow_run, wandb_run
from clevit_jax.runs.metrics import read_records
from clevit_jax.system.append import WAITING
from clevit_jax.system.files import read_json_object, write_json
from clevit_jax.system.places import in_bucket

Record = tuple[int, Mapping[str, float]]  # step, and scalars by name
GATHER_SECONDS = 1.0  # records of this long are handed over together, and noted
BUCKET_SECONDS = 15.0  # the same where the note lies in a bucket, which takes few writes
END_SECONDS = 30.0  # that the end of a run waits for all services


class Service(Protocol):
    """A run of a service: `WandbRun`, `MlflowRun`. Any call may raise whatever the service does.

    Attributes:
        key: by which a later start finds it.
        where: a sentence that says where a user does.
    """

    key: str
    where: str

    def write(self, records: Sequence[Record]) -> None: ...

    def finish(self, *, finished: bool) -> None: ...


def check_packages(config: ConfigDict) -> None:
    """Raises ConfigError where a service is asked for whose package is not installed."""
    for package in ("wandb", "mlflow"):  # which are the names of settings and extras, too
        if not (name := config.log[package]):
            continue
        spec = importlib.util.find_spec(package)
        if spec is None or spec.origin is None:  # wandb keeps its runs in a folder of its name
            raise ConfigError(
                f"log.{package} is {name!r}, and the package {package}, which sends the numbers, "
                f"is not installed: pip install 'clevit_jax[{package}]'. Or leave log.{package} "
                "out."
            )


def begin(config: ConfigDict, workdir: pathlib.Path, step: int) -> list["Tracker"]:
    """The trackers that a run asks for. Process 0 has them; metrics.jsonl is cut to `step`."""
    settings = config.to_dict()
    trackers = []
    if project := config.log.wandb:
        trackers.append(
            Tracker(
                "Weights & Biases", workdir / "wandb.json", project, config,
                lambda key: wandb_run.WandbRun(workdir, project, settings, key),
                wandb_run.mend, step,
            )
        )  # fmt: skip
    if experiment := config.log.mlflow:
        trackers.append(
            Tracker(
                "MLflow", workdir / "mlflow.json", experiment, config,
                lambda key: mlflow_run.MlflowRun(workdir, experiment, settings, key, step),
                mlflow_run.mend, step,
            )
        )  # fmt: skip
    return trackers


def close(trackers: Iterable["Tracker"], *, finished: bool) -> None:
    """Ends all of them, together within `END_SECONDS`; may be called again. See `Tracker.end`."""
    trackers = list(trackers)
    for tracker in trackers:
        tracker.end(finished=finished)
    until = time.monotonic() + END_SECONDS
    for tracker in trackers:
        tracker.join(max(0.0, until - time.monotonic()))


class Tracker:
    """Hands the numbers of a run to a service, in a thread of its own.

    A service that cannot be reached costs the run nothing: a sentence says so, and what it lacks
    is sent as soon as it answers, or by the next start, which is left all where more than
    `append.WAITING` records wait.

    `close` ends it.

    Args:
        title: of the service.
        path: of the file that remembers, beside metrics.jsonl.
        name: of the project or experiment.
        config: of the run.
        open_run: makes the run there, from the key of an earlier one or "".
        mend: what to type against an error of it.
        step: update that the run continues from.
    """

    def __init__(
        self,
        title: str,
        path: pathlib.Path,
        name: str,
        config: ConfigDict,
        open_run: Callable[[str], Service],
        mend: Callable[[Exception], str],
        step: int,
    ):
        self._title, self._path, self._open_run, self._mend = title, path, open_run, mend
        self._memory = _remembered(path, name, flatten(config), step)
        self._waiting = collections.deque[Record]()
        self._sentences = collections.deque[str]()
        self._behind = self._failing = self._finished = self._left = False
        self._more, self._end = threading.Event(), threading.Event()
        self._more.set()
        self._had: dict[str, int] = {}
        self._waiting += map(_scalars, read_records(path.with_name("metrics.jsonl")))
        self._most = len(self._waiting) + WAITING
        # A daemon, so that a service that hangs does not keep the process.
        self._thread = threading.Thread(
            target=self._work, name=f"clevit_jax_{path.stem}", daemon=True
        )
        self._thread.start()

    def write(self, step: int, scalars: Mapping[str, float]) -> None:
        """Takes one record, which is handed over later. Never waits, and never raises."""
        self._behind |= len(self._waiting) >= self._most
        if not self._behind:
            self._waiting.append((step, dict(scalars)))
            self._more.set()

    def said(self) -> Iterable[str]:
        """Sentences for the user since the last call."""
        while self._sentences:
            yield self._sentences.popleft()

    def end(self, *, finished: bool) -> None:
        """Lets it hand over the rest, and end the run there; `join` waits for it.

        Args:
            finished: whether the run is at its end; else it may go on.
        """
        if not self._end.is_set():
            self._finished = finished
            self._end.set()
            self._more.set()

    def join(self, seconds: float) -> None:
        """Waits for what `end` began. What has not answered by then is left behind, and said."""
        self._thread.join(seconds)
        if self._thread.is_alive() and not self._left:
            self._left = True
            self._sentences.append(
                f"{self._title} does not answer, and is left alone. {self._mend(TimeoutError())} "
                f"{self._kept()}"
            )

    def _work(self) -> None:
        try:
            run = self._open_run(self._memory["key"])
        except Exception as error:
            self._fail(error)
            self._behind = True  # for good: who has no login will not get one now
            self._waiting.clear()
            return
        if run.key != self._memory["key"]:  # the first, or the one that was known is gone
            self._memory |= {"key": run.key, "until": {}}
        # What an earlier start has handed over, maybe further than this one begins.
        self._had = dict(self._memory["until"])
        self._remember()
        self._sentences.append(run.where)
        while not self._end.is_set():
            self._more.wait()
            self._end.wait(BUCKET_SECONDS if in_bucket(self._path) else GATHER_SECONDS)
            self._more.clear()
            self._hand_over(run)
        self._hand_over(run)
        try:
            run.finish(finished=self._finished)
        except Exception as error:
            self._fail(error)

    def _hand_over(self, run: Service) -> None:
        """Hands over what waits, and remembers it. What fails waits for the next time."""
        taken = list(self._waiting)
        records = [
            (step, scalars) for step, scalars in taken if step > self._had.get(_group(scalars), -1)
        ]
        try:
            if records:
                run.write(records)
        except Exception as error:
            self._fail(error)
            return
        self._failing = False
        for _ in taken:
            self._waiting.popleft()
        if records:  # in order: the last of a group counts
            newest = {_group(scalars): step for step, scalars in records}
            self._memory["until"] = {**self._memory["until"], **newest}
            self._remember()

    def _remember(self) -> None:
        with contextlib.suppress(OSError):  # a number may come twice then
            write_json(self._path, self._memory)

    def _fail(self, error: Exception) -> None:
        """Says once that the service does not take what it is given."""
        if not self._failing:
            reason = first_line(error).rstrip(".")
            self._sentences.append(
                f"{self._title} does not take the numbers: {reason}. {self._mend(error)} "
                f"{self._kept()}"
            )
        self._failing = True

    def _kept(self) -> str:
        return "Training goes on, metrics.jsonl has all, and the next start sends what lacks."


def _remembered(
    path: pathlib.Path, name: str, settings: dict[str, Any], step: int
) -> dict[str, Any]:
    """What the file of a service says of the run there, or that there is none yet.

    A run that goes back and on under other settings begins another one there: what comes differs
    from what was handed over for the same steps, and cannot be taken back.
    """
    settings = json.loads(json.dumps(settings))  # as it is read: tuples are lists
    fresh = {"name": name, "key": "", "until": {}, "settings": settings}
    try:
        there = read_json_object(path)
        key, until, before = str(there["key"]), dict(there["until"]), dict(there["settings"])
        ahead = any(int(newest) > step for newest in until.values())
    except (ConfigError, LookupError, TypeError, ValueError):  # not there, or damaged
        return fresh
    both = {known: settings[known] for known in before.keys() & settings.keys()}
    changed = changed_settings({known: before[known] for known in both}, both)
    if there.get("name") != name or (ahead and changed):
        return fresh
    return {**fresh, "key": key, "until": until}


def _scalars(record: dict[str, Any]) -> Record:
    """A line of metrics.jsonl as it was written."""
    scalars = {
        name: math.nan if value is None else value
        for name, value in record.items()
        if name != "step"
    }
    return record["step"], scalars


def _group(scalars: Mapping[str, float]) -> str:
    """`train` or `test`: of one step there may be a record of each."""
    return next((name.partition("/")[0] for name in scalars if "/" in name), "")
