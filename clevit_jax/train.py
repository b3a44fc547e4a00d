"""One training run, in a line: data, mesh, model, state, steps.

The order inside the loop is what makes a run resumable: at step s the state before update s is
evaluated and saved, with the data iterator as it is before batch s; only then come batch and
update.
"""

import collections
import contextlib
import dataclasses
import functools
import pathlib
import signal
import time
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging
from jax.experimental import multihost_utils
from ml_collections import ConfigDict

from clevit_jax import experiment, rundir, sharding
from clevit_jax.checkpoint import CheckpointError, Checkpoints, check_room
from clevit_jax.data import pipeline
from clevit_jax.evaluate import Evaluation
from clevit_jax.gallery import save_gallery
from clevit_jax.metrics import MetricWriter, Progress
from clevit_jax.run import (
    Interrupted,
    Run,
    check_split,
    decode_all,
    evaluate_test,
    prepare,
    report,
    report_checkpoints,
)
from clevit_jax.state import TrainState
from clevit_jax.views import example_keys, make_views

STOPPED = 75  # exit code after SIGTERM or Ctrl-C: saved, run again to go on (sysexits' EX_TEMPFAIL)
MAX_SKIPPED = 10  # updates in a row with a gradient that is not finite
GALLERY_ROWS = 6


class TrainingError(RuntimeError):
    """A run that cannot go on, in one sentence."""


def train(config: ConfigDict, workdir: pathlib.Path) -> int:
    """Trains, or goes on where a stopped run was saved.

    Returns:
        The exit code: 0 when the run is finished, `STOPPED` when a signal ended it early.

    Raises:
        ConfigError, DataError: before the first step, and before anything is written.
        CheckpointError: nothing can be saved or read.
        TrainingError: the gradients stay non-finite.
    """
    rundir.check(workdir, config)
    run = prepare(config, workdir)
    data = run.dataset
    print(
        f"Data: {data.layout} ({data.recognised_by}); {data.num_classes} classes, "
        f"{len(data.train)} training and {len(data.test)} test images.",
        flush=True,
    )
    for warning in data.warnings:
        print(f"Warning: {warning}", flush=True)
    if _say_finished(run):
        return 0
    decode_all(run)
    if not run.checkpoints.exists():
        check_room(run.checkpoints, run.like)
    rundir.claim(workdir, config)
    with contextlib.ExitStack() as stack:
        checkpoints = Checkpoints(run.checkpoints, keep=config.checkpoint.keep)
        stack.callback(checkpoints.close)
        state, batches = _start(run, checkpoints)
        stack.callback(batches.close)
        if int(state.step) >= run.plan.total:
            print(f"{workdir} is finished: it is at its last step, {run.plan.total}.", flush=True)
            report_checkpoints(run, checkpoints)
            return 0
        _record_run(run, state)
        return _loop(run, checkpoints, state, batches, stack)


def _say_finished(run: Run) -> bool:
    """Whether the result is there already; prints it without decoding an image."""
    path = run.workdir / rundir.RESULT
    if not path.exists():
        return False
    result = rundir.read_json(path)
    last = result["last"]
    if last["step"] < run.plan.total or result["split_hash"] != run.dataset.split_hash():
        return False
    print(
        f"{run.workdir} is finished: it is at its last step, {run.plan.total}, with test top-1 "
        f"{100 * last['top1']:.2f} %; see {path}.",
        flush=True,
    )
    return True


def _start(run: Run, checkpoints: Checkpoints) -> tuple[TrainState, Any]:
    """The state and the batches to go on with: the newest checkpoint's, or those of step 0."""
    batches = _batches(run)
    restored = checkpoints.restore_newest(run.like, functools.partial(check_split, run))
    if restored is None:
        return run.initial_state(), batches
    state, meta = restored
    batches.set_state(meta["iterator"])
    print(f"Going on from step {int(state.step)} of {run.plan.total}.", flush=True)
    return state, batches


def _batches(run: Run) -> Any:
    """A checkpointable iterator of batches that already lie on the devices."""
    dataset = pipeline.train_dataset(
        run.train_images,
        [example.label for example in run.dataset.train],
        seed=run.config.seed,
        batch_size=run.config.batch_size,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
        threads=experiment.threads(run.config),
        prefetch=2,
    )
    put = lambda batch: sharding.to_global(run.mesh, batch)  # noqa: E731
    return iter(pipeline.to_device(dataset, put, buffer=2))


def _loop(
    run: Run, checkpoints: Checkpoints, state: TrainState, batches: Any, stack: contextlib.ExitStack
) -> int:
    """Updates until the last step or a signal; returns the exit code."""
    total, start = run.plan.total, int(state.step)
    shardings = jax.tree.map(lambda leaf: leaf.sharding, state)
    step_function = jax.jit(
        run.train_step,
        donate_argnums=0,
        out_shardings=(shardings, sharding.replicated(run.mesh)),
    )
    follower = _Follower(run, start)
    stack.callback(follower.close)
    stop = stack.enter_context(_stop_signals())
    saver = _Saver(run, checkpoints)
    scores: dict[int, Evaluation] = {}
    # An evaluation that a signal ended is made up for when the run goes on.
    scored = start == 0 or checkpoints.top1(start) is not None
    for step in range(start, total + 1):
        score = None
        if (step > start or not scored) and _evaluation_due(run, step):
            follower.finish()
            with contextlib.suppress(Interrupted):
                score = scores[step] = evaluate_test(run, state.eval_params, stop=stop)
                follower.evaluated(step, score)
        stopping, late = _agreed(step, bool(stop), saver.late())
        if step > start and (stopping or late or step == total or saver.due(step, score)):
            follower.finish()
            must = stopping or step == total
            saver.save(state, batches.get_state(), score, must=must)
        if stopping and (step < total or score is None):
            checkpoints.wait()
            where = f"and saved at step {step}" if step else "before the first update"
            follower.say(f"Stopped {where}; run the same command to go on.")
            return STOPPED
        if step == total:
            break
        waiting = time.perf_counter()
        batch = next(batches)
        waited = time.perf_counter() - waiting
        state, metrics = step_function(state, batch)
        follower.follow(step + 1, metrics, batch, waited)
    checkpoints.wait()
    follower.close()
    best = checkpoints.best()
    if best is None or best[0] not in scores:  # reached before this run was last stopped
        report_checkpoints(run, checkpoints)
    else:
        report(run, scores, total, best[0])
    return 0


def _evaluation_due(run: Run, step: int) -> bool:
    """Whether an epoch that asks for an evaluation ends with this step."""
    every = run.config.eval.every_epochs
    done, before = run.plan.epochs_done(step) // every, run.plan.epochs_done(step - 1) // every
    return step == run.plan.total or done > before


class _Saver:
    """Decides when to save, and goes on training when there is no room."""

    def __init__(self, run: Run, checkpoints: Checkpoints):
        self._run, self._checkpoints = run, checkpoints
        best = checkpoints.best()
        self._best = best[1] if best else -1.0
        self._saved_at = time.monotonic()

    def late(self) -> bool:
        """Whether the time between two checkpoints is over."""
        minutes = self._run.config.checkpoint.every_minutes
        return minutes > 0 and time.monotonic() - self._saved_at >= 60 * minutes

    def due(self, step: int, score: Evaluation | None) -> bool:
        """Whether this step is to be saved: by its number, or as the best so far."""
        every = self._run.config.checkpoint.every_steps
        return bool(every and step % every == 0) or (score is not None and score.top1 > self._best)

    def save(
        self, state: TrainState, iterator: Any, score: Evaluation | None, *, must: bool
    ) -> None:
        """Saves; a failure is logged and the run goes on without, unless the run ends here."""
        meta = {
            "iterator": iterator,
            "config": self._run.config.to_dict(),
            "split_hash": self._run.dataset.split_hash(),
        }
        self._saved_at = time.monotonic()
        try:
            self._checkpoints.save(state, meta, top1=None if score is None else score.top1)
        except CheckpointError as error:
            if must:
                raise
            logging.error("%s Training goes on; the next checkpoint will try again.", error)
            return
        if score is not None:
            self._best = max(self._best, score.top1)


class _Follower:
    """Reads the metrics of each update one update later, so that the device never waits for it."""

    def __init__(self, run: Run, start: int):
        self._run = run
        self._writer = MetricWriter(run.workdir, step=start)
        self._progress = Progress(start, run.plan.total, run.config.batch_size)
        updates = np.arange(run.plan.total, dtype=np.int32)
        self._rates = [np.asarray(f(updates)) for f in experiment.schedules(run.config, run.plan)]
        self._pending: collections.deque[tuple[int, Any, Any, float]] = collections.deque()

    def follow(self, step: int, metrics: Any, batch: Any, waited: float) -> None:
        """Takes the metrics of update `step`, counted from 1, and reads those of the one before."""
        self._pending.append((step, metrics, batch, waited))
        if len(self._pending) > 1:
            self._read()

    def finish(self) -> None:
        """Reads all that is left."""
        while self._pending:
            self._read()

    def _read(self) -> None:
        step, metrics, batch, waited = self._pending.popleft()
        values = {name: float(value) for name, value in jax.device_get(metrics).items()}
        in_a_row, skipped = int(values.pop("skipped_in_a_row")), values.pop("skipped")
        self._progress.update(values, waited=waited)
        if step % self._run.config.log.every_steps == 0:
            more = {
                "train/lr": float(self._rates[0][step - 1]),
                "train/lr_head": float(self._rates[1][step - 1]),
                "train/skipped": skipped,  # since the beginning, while the others are means
            }
            epoch = step * self._run.plan.batch / self._run.plan.images
            self._writer.write(step, {"epoch": epoch, **self._progress.record(), **more})
        if in_a_row >= MAX_SKIPPED:
            path = self._run.workdir / "nonfinite_batch.npz"
            rows = {name: _local_rows(array) for name, array in batch.items()}
            np.savez(path, allow_pickle=False, **rows)
            raise TrainingError(
                f"The gradients of {in_a_row} updates in a row, up to update {step}, were not "
                f"finite, and none of them was applied. The last batch is in {path}; lower "
                "optim.lr, or look at that batch. The newest checkpoint is unharmed."
            )

    def evaluated(self, step: int, score: Evaluation) -> None:
        """Writes and prints a score."""
        numbers = dataclasses.asdict(score)
        self._writer.write(step, {f"test/{name}": value for name, value in numbers.items()})
        epochs = self._run.plan.epochs_done(step)
        self.say(f"Epoch {epochs}, step {step}: test {score}")

    def say(self, text: str) -> None:
        """Prints a line above the bar."""
        self._progress.say(text)
        self._progress.pause()

    def close(self) -> None:
        """Ends bar and files; may be called twice."""
        self._progress.close()
        self._writer.close()


def _local_rows(array: jax.Array) -> np.ndarray:
    """The rows of a batch that this process holds."""
    return np.concatenate([np.asarray(shard.data) for shard in array.addressable_shards])


@contextlib.contextmanager
def _stop_signals() -> Iterator[list[int]]:
    """A list that fills when SIGTERM or Ctrl-C asks for an end; a second one ends at once."""
    received: list[int] = []

    def handle(number: int, _: Any) -> None:
        if received:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        received.append(number)

    before = {number: signal.signal(number, handle) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _agreed(step: int, *wishes: bool) -> list[bool]:
    """What any process wishes; several processes ask each other every tenth step."""
    if jax.process_count() == 1:
        return list(wishes)
    if step % 10:
        return [False] * len(wishes)
    return multihost_utils.process_allgather(np.array(wishes)).any(axis=0).tolist()


def _record_run(run: Run, state: TrainState) -> None:
    """Writes run.json and views.png."""
    if jax.process_index() != 0:
        return
    rates = experiment.schedules(run.config, run.plan)
    peak = run.plan.end_of(run.config.optim.warmup_epochs) + 1
    parameters = sum(leaf.size for leaf in jax.tree.leaves(state.params))
    facts = {
        "parameters": parameters,
        "global_batch": run.config.batch_size,
        "updates": run.plan.total,
        "peak_learning_rate": float(rates[0](peak)),
        "peak_learning_rate_head": float(rates[1](peak)),
        "layout": run.dataset.layout,
        "split_hash": run.dataset.split_hash(),
        "class_names": run.dataset.class_names,
    }
    path = run.workdir / rundir.RUN
    starts = rundir.read_json(path)["starts"] if path.exists() else []
    starts.append({"step": int(state.step), **rundir.describe_start()})
    rundir.write_json(path, {**facts, "starts": starts})
    print(
        f"Swin with {parameters / 1e6:.2f} M parameters on {jax.device_count()} "
        f"{jax.devices()[0].device_kind} device(s), {run.plan.total} updates of "
        f"{run.config.batch_size} images, peak learning rate {facts['peak_learning_rate']:.3g} "
        f"(head {facts['peak_learning_rate_head']:.3g}). The first step compiles.",
        flush=True,
    )
    count = min(GALLERY_ROWS, len(run.dataset.train))
    rows = np.linspace(0, len(run.dataset.train) - 1, count).astype(np.int32)
    images = np.stack([run.train_images[int(row)] for row in rows])
    keys = example_keys(run.config.seed, jnp.zeros_like(rows), jnp.asarray(rows))
    views = make_views(keys, jnp.asarray(images), config=experiment.view_config(run.config))
    save_gallery(run.workdir / "views.png", images, *jax.device_get(views))
