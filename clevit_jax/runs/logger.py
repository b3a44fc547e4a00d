"""Metric logger of a run, and the files that a run begins with: run.json and views.png."""

import collections
import math
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from clevit_jax.data.dataset import SPLIT_NAMES
from clevit_jax.data.skipped import counts
from clevit_jax.distributed import processes
from clevit_jax.errors import ConfigError, TrainingError
from clevit_jax.runs import trackers
from clevit_jax.runs.facts import read_run_facts
from clevit_jax.runs.goodput import Clock, goodput, last_sign, lost_before
from clevit_jax.runs.metrics import MetricWriter, Progress
from clevit_jax.runs.setup import Run
from clevit_jax.runs.workdir import RUN_FILE, describe_environment
from clevit_jax.steps.eval_step import Evaluation
from clevit_jax.steps.state import TrainState
from clevit_jax.system.files import replacing, write_json
from clevit_jax.views.gallery import save_gallery
from clevit_jax.views.two_views import example_keys, make_views

MAX_SKIPPED = 10  # updates in a row with a gradient that is not finite
GALLERY_ROWS = 6


class MetricLogger:
    """Logs the metrics of each update one update later, so that the device never waits for it.

    Args:
        run: which writes to its workdir.
        start: update that it continues from.
        advice: gives the sentence on how to go on, when the gradients stay non-finite.

    Attributes:
        newest: `loss` and `skipped_in_a_row` of the newest update that was read.
    """

    def __init__(self, run: Run, start: int, *, advice: Callable[[], str]):
        self._run = run
        self._advice = advice
        self.newest = {"loss": math.nan, "skipped_in_a_row": 0.0}
        first = processes.index() == 0  # the one that prints and writes
        ours = run.owner.holds_it
        self._writer = (
            run.owner.call("metrics", lambda: MetricWriter(run.workdir, step=start, ours=ours))
            if first
            else None
        )
        self._trackers = trackers.begin(run.config, run.workdir, start) if first else []
        self._progress = Progress(start, run.plan.total, run.settings.step.batch_size, shown=first)
        updates = np.arange(run.plan.total, dtype=np.int32)
        self._rates = [np.asarray(f(updates)) for f in run.settings.step.schedule.functions()]
        self._pending: collections.deque[tuple[int, Any, Any, float]] = collections.deque()

    def log_update(self, step: int, metrics: Any, batch: Any, waited: float) -> None:
        """Takes the metrics of update `step`, counted from 1, and reads those of the one before."""
        self._pending.append((step, metrics, batch, waited))
        if len(self._pending) > 1:
            self._read()

    def finish(self) -> None:
        """Reads all that is left."""
        while self._pending:
            self._read()

    def flush(self) -> None:
        """Reads and writes all that is left, so that no checkpoint is newer than its numbers."""
        self.finish()
        if self._writer:
            self._run.owner.look()
            self._run.owner.call("metrics", self._writer.flush)

    def _read(self) -> None:
        step, metrics, batch, waited = self._pending.popleft()
        values = {name: float(value) for name, value in jax.device_get(metrics).items()}
        in_a_row, skipped = int(values.pop("skipped_in_a_row")), values.pop("skipped")
        self.newest = {"loss": values["loss"], "skipped_in_a_row": float(in_a_row)}
        self._progress.update(values, waited=waited)
        if self._writer and step % self._run.settings.log_steps == 0:
            more = {
                "train/lr": float(self._rates[0][step - 1]),
                "train/lr_head": float(self._rates[1][step - 1]),
                "train/skipped": skipped,  # since the beginning, while the others are means
            }
            epoch = step * self._run.plan.batch / self._run.plan.images
            self._write(step, {"epoch": epoch, **self._progress.record(), **more})
        if in_a_row >= MAX_SKIPPED:
            raise TrainingError(
                f"The gradients of {in_a_row} updates in a row, up to update {step}, were not "
                f"finite, and none of them was applied. {self._keep_batch(batch)} {self._advice()}"
            )

    def _write(self, step: int, scalars: Mapping[str, float]) -> None:
        """Writes numbers where no newer start does, which would lose its own by it."""
        assert self._writer is not None
        writer, owner = self._writer, self._run.owner
        owner.look_cheaply(f"at step {step}")
        owner.call("metrics", lambda: writer.write(step, scalars))
        for tracker in self._trackers:
            tracker.write(step, scalars)
        self._say_trackers()

    def _say_trackers(self) -> None:
        for tracker in self._trackers:
            for sentence in tracker.said():
                self.say(sentence)

    def _keep_batch(self, batch: Any) -> str:
        """Writes a batch down, and says where it is."""
        suffix = f"-{processes.index()}" if processes.index() else ""
        path = self._run.workdir / f"nonfinite_batch{suffix}.npz"
        rows = {name: _local_rows(array) for name, array in batch.items()}
        try:
            with replacing(path) as new, new.open("wb") as file:
                np.savez(file, allow_pickle=False, **rows)
        except OSError as error:  # a full disk must not hide what went wrong
            return f"The last batch cannot be kept in {path}: {error.strerror or error}."
        return f"The last batch is in {path}."

    def log_evaluation(self, step: int, score: Evaluation) -> None:
        """Writes and prints a score on the split that the best is chosen on."""
        split = self._run.chosen_on
        if self._writer:
            named = {f"{split}/{name}": value for name, value in score.to_json().items()}
            self._write(step, named)
        epochs = self._run.plan.epochs_done(step)
        self.say(f"Epoch {epochs}, step {step}: {SPLIT_NAMES[split]} {score}")

    def say(self, text: str) -> None:
        """Prints a line above the bar."""
        self._progress.say(text)
        self.pause()

    def pause(self) -> None:
        """Leaves what was done since the last update out of the speed."""
        self._progress.pause()

    def close(self, *, finished: bool = False) -> None:
        """Ends trackers, bar and files; may be called twice.

        Args:
            finished: whether the run is at its end.
        """
        trackers.close(self._trackers, finished=finished)
        self._say_trackers()
        self._progress.close()
        if self._writer and not self._run.owner.superseded:  # the newer start writes them again
            self._run.owner.call("metrics", self._writer.close)


def _local_rows(array: jax.Array) -> np.ndarray:
    """The rows of a batch that this process holds."""
    return np.concatenate([np.asarray(shard.data) for shard in array.addressable_shards])


def write_run_facts(run: Run, state: TrainState, clock: Clock, changes: Sequence[str] = ()) -> None:
    """Writes run.json and views.png.

    Args:
        run: the run.
        state: that it goes on from.
        clock: of this start.
        changes: settings that differ from the former start's.
    """
    if processes.index() != 0:
        return
    _say_start(run, write_facts_file(run, state, changes, clock))
    _write_views(run)


def write_facts_file(
    run: Run, state: TrainState, changes: Sequence[str] = (), clock: Clock | None = None
) -> dict[str, Any]:
    """Writes run.json; returns its content but for `starts`. For process 0 alone.

    Without a `clock`, as of a run that has nothing left to do, no time is kept of this start.
    """
    step, schedule = run.settings.step, run.settings.step.schedule
    rates = schedule.functions()
    peak = schedule.warmup_updates + 1
    parameters = sum(leaf.size for leaf in jax.tree.leaves(state.params))
    facts = {
        "parameters": parameters,
        "global_batch": step.batch_size,
        "updates": run.plan.total,
        "peak_learning_rate": float(rates[0](peak)),
        "peak_learning_rate_head": float(rates[1](peak)),
        "layout": run.dataset.layout,
        "recognised_by": run.dataset.recognised_by,
        "images": {split: len(examples) for split, examples in run.dataset.splits.items()},
        "skipped": counts(run.dataset),
        "chosen_on": run.chosen_on,
        "split_hash": run.dataset.split_hash(),
        "class_names": run.dataset.class_names,
        "mean": step.views.mean,
        "std": step.views.std,
        "levels": {level.name: level.groups for level in run.dataset.levels},
    }
    starts = _starts(run.workdir)
    changed = {"changed": list(changes)} if changes else {}
    at, spent = int(state.step), dict[str, Any]()
    if clock is not None:
        sign = last_sign(run.workdir, at)
        spent = clock.record(at, before=lost_before(starts, at, clock.began, sign))
    starts.append({"step": at, **changed, **describe_environment(), **spent})
    facts_of_all = {**facts, "starts": starts, "goodput": goodput(starts)}
    run.owner.call(RUN_FILE, lambda: write_json(run.workdir / RUN_FILE, facts_of_all))
    return facts


def _starts(workdir: pathlib.Path) -> list[dict[str, Any]]:
    """The earlier starts of a run; none where run.json is not there, or damaged, which it says."""
    if not (workdir / RUN_FILE).exists():
        return []
    try:
        return list(read_run_facts(workdir, "starts")["starts"])
    except ConfigError:
        path = workdir / RUN_FILE
        print(f"{path} is damaged; it is made again, without the earlier starts.", flush=True)
        return []


def _say_start(run: Run, facts: dict[str, Any]) -> None:
    several = f" of {processes.count()} processes" if processes.count() > 1 else ""
    print(
        f"Swin with {facts['parameters'] / 1e6:.2f} M parameters on {jax.device_count()} "
        f"{jax.devices()[0].device_kind} device(s){several}, {run.plan.total} updates of "
        f"{facts['global_batch']} images, peak learning rate {facts['peak_learning_rate']:.3g} "
        f"(head {facts['peak_learning_rate_head']:.3g}). The first step compiles, "
        "which takes seconds to minutes.",
        flush=True,
    )


def _write_views(run: Run) -> None:
    count = min(GALLERY_ROWS, len(run.dataset.train))
    rows = np.linspace(0, len(run.dataset.train) - 1, count).astype(np.int32)
    images = np.stack([run.images["train"][int(row)] for row in rows])
    keys = example_keys(run.settings.step.seed, jnp.zeros_like(rows), jnp.asarray(rows))
    views = make_views(keys, jnp.asarray(images), config=run.settings.step.views)
    drawn = run.settings.step.views
    save_gallery(
        run.workdir / "views.png", images, *jax.device_get(views), mean=drawn.mean, std=drawn.std
    )
