"""What of a run is saved, and when: on time, by number, the best so far, and sound states alone."""

import math
import shlex
import time
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from absl import logging

from clevit_jax.distributed import processes
from clevit_jax.errors import (
    CheckpointError,
    NoRoomError,
    StorageError,
    TrainingError,
    UnreachableError,
)
from clevit_jax.runs.checkpoint import Checkpoints
from clevit_jax.runs.patience import Patience
from clevit_jax.runs.setup import Run
from clevit_jax.steps.eval_step import Evaluation
from clevit_jax.steps.state import TrainState

# A state beyond these is of no use, though its gradients are finite: a Swin's losses begin near
# ln K and its weights stay below 100, while a rate that is too large takes both past 1e15.
SOUND_LOSS = 1e3
SOUND_WEIGHT = 1e3
_AGAIN_MINUTES = 0.5  # between two tries to save while a bucket is out of reach


def open_checkpoints(run: Run) -> Checkpoints:
    """The checkpoints of a run that trains, as its settings want them."""
    return Checkpoints(
        run.checkpoints,
        keep=run.settings.keep,
        keep_every=run.settings.checkpoint_keep_every,
        timeout=60 * run.settings.checkpoint_timeout_minutes,
        owned=run.owner.look_within,
    )


def unsound(
    state: TrainState,
    newest: Mapping[str, float] | None,
    score: Evaluation | None,
    *,
    largest_loss: float = SOUND_LOSS,
) -> str:
    """Why a state is not worth keeping, in words; "" where it is.

    Args:
        state: whose parameters, and their average, are looked at.
        newest: metrics of the update that made it, `loss` and `skipped_in_a_row`; None where they
            say nothing of it.
        score: of this very state, if it has one.
        largest_loss: of training, where its terms have weights.
    """
    if newest is not None:
        if skipped := int(newest["skipped_in_a_row"]):
            return f"the gradients of the last {skipped} update(s) were not finite"
        if not abs(newest["loss"]) <= largest_loss:
            return f"its training loss is {newest['loss']:.3g}"
    if score is not None and not abs(score.loss) <= SOUND_LOSS:
        return f"its loss when evaluated is {score.loss:.3g}"
    largest = max(processes.gather("largest", _largest(state)))
    return "" if largest <= SOUND_WEIGHT else f"its largest weight is {largest:.3g}"


def _largest(state: TrainState) -> float:
    """Largest magnitude in the parameters that this process holds; inf where one is no number."""
    shards = [
        np.asarray(shard.data)
        for leaf in jax.tree.leaves((state.params, state.ema))
        for shard in leaf.addressable_shards
    ]
    ends = [float(end) for shard in shards if shard.size for end in (shard.max(), -shard.min())]
    return max((end if math.isfinite(end) else math.inf for end in ends), default=0.0)


class Saver:
    """Decides what is saved, and goes on training when a save fails."""

    def __init__(self, run: Run, checkpoints: Checkpoints, patience: Patience):
        self._run, self._checkpoints, self._patience = run, checkpoints, patience
        self._best = self._best_saved()
        self._saved_at = time.monotonic()
        loss = run.settings.step.loss
        self._largest_loss = SOUND_LOSS * max(1.0, loss.anchor + loss.positive + loss.contrast)
        self._saving = False  # whether a save was begun whose end is not known
        self._away_since: float | None = None  # when the bucket was first out of reach
        self._unsound = ""  # why the newest state was not saved
        self._meta = {"config": run.config.to_dict(), "split_hash": run.dataset.split_hash()}

    def late(self) -> bool:
        """Whether a checkpoint is due by the clock."""
        minutes = self._run.settings.checkpoint_minutes
        if self._away_since is not None:  # it may be back
            minutes = min(_AGAIN_MINUTES, minutes or _AGAIN_MINUTES)
        return minutes > 0 and time.monotonic() - self._saved_at >= 60 * minutes

    def due(self, step: int, score: Evaluation | None) -> bool:
        """Whether this step is to be saved: by its number, or as the best so far."""
        settings = self._run.settings
        multiples = (settings.checkpoint_steps, settings.checkpoint_keep_every)
        if any(every and step % every == 0 for every in multiples):
            return True
        return score is not None and score.top1 > self._best

    def save(
        self,
        state: TrainState,
        iterator: Any,
        score: Evaluation | None,
        newest: Mapping[str, float],
        *,
        must: bool,
    ) -> None:
        """Saves a sound state; a failure is logged and the run goes on, unless it ends here.

        Args:
            state: before the update that belongs to its step.
            iterator: of the data, as it is before the batch of that step.
            score: of this state, if it has just been evaluated.
            newest: see `unsound`.
            must: the run ends here, so that a failure is raised.

        Raises:
            CheckpointError: it must be saved, or another process may have saved it.
            StorageError: the storage does not answer, at any step.
            SupersededError: a newer start has the run.
            TrainingError: it is the last step, and not sound.
        """
        last = int(state.step) == self._run.plan.total or self._patience.over
        # The last state is evaluated itself, which says more than the gradients before it.
        judged = None if last and score is not None else newest
        problem = unsound(state, judged, score, largest_loss=self._largest_loss)
        if problem:
            self._refuse(int(state.step), problem, last=last)
            return
        self._unsound = ""
        more = {"loss": float(newest["loss"]), "patience": self._patience.to_json()}
        meta = {"iterator": iterator, **more, **self._meta}
        self._saved_at = time.monotonic()
        at = f"at step {int(state.step)}"
        try:
            self._settle()
            self._run.owner.check(at)
            self._checkpoints.save(state, meta, top1=None if score is None else score.top1)
        except CheckpointError as error:
            self._run.owner.look(at)  # who took the run over may have removed what was half written
            # Several processes agree on the room; what else fails may have failed on one alone.
            one_alone = processes.count() > 1 and not isinstance(error, NoRoomError)
            if must or one_alone or self._for_good(error):
                raise
            logging.error("%s Training goes on; the next checkpoint will try again.", error)
            return
        self._saving = True
        if score is not None:
            self._best = max(self._best, score.top1)

    def _refuse(self, step: int, problem: str, *, last: bool) -> None:
        if last:
            way_on = advice(self._run, self._checkpoints)
            raise TrainingError(f"Step {step}, the last, is of no use: {problem}. {way_on}")
        if not self._unsound:  # once for all that follow
            logging.error(
                "Step %d is not saved: %s. Training goes on, and saves again when it recovers. %s",
                step, problem, self._checkpoints.kept(),
            )  # fmt: skip
        self._unsound = problem

    def _settle(self) -> None:
        """Waits for the save before; one that was lost no longer counts as the best."""
        try:
            self._checkpoints.wait()
        except CheckpointError as error:
            if processes.count() > 1 or self._for_good(error):
                raise
            self._best = self._best_saved()
            logging.error("%s", error)
        else:
            if self._saving:
                self._away_since = None
        self._saving = False

    def _for_good(self, error: CheckpointError) -> bool:
        """Whether the storage is gone: it hangs, or is out of reach for as long as it may be."""
        if not isinstance(error, UnreachableError):
            return isinstance(error, StorageError)
        now = time.monotonic()
        self._away_since = now if self._away_since is None else self._away_since
        return now - self._away_since >= 60 * self._run.settings.checkpoint_timeout_minutes

    def _best_saved(self) -> float:
        best = self._checkpoints.best()
        return best[1] if best else -1.0

    def add_score(self, step: int, score: Evaluation) -> None:
        """Notes the score of the checkpoint that the run went on from, saved before it had one."""
        if math.isfinite(score.loss):
            owner, add = self._run.owner, self._checkpoints.add_score
            owner.check(f"at step {step}")
            owner.call("the score of a checkpoint", lambda: add(step, score.top1))
            self._best = max(self._best, score.top1)

    def stopped(self, step: int) -> str:
        """Where a run that is stopped at a step goes on, in words, when all is on the disk.

        Raises:
            CheckpointError: the step could not be saved.
        """
        self._checkpoints.wait()
        steps = self._checkpoints.steps()
        if step in steps:
            return f"Stopped and saved at step {step}"
        if step == 0:
            return "Stopped before the first update"
        before = f"Step {steps[-1]} is the newest that is" if steps else "None is saved yet"
        return f"Stopped at step {step}, which is not saved, for {self._unsound}. {before}"


def advice(run: Run, checkpoints: Checkpoints) -> str:
    """Which checkpoint of a run that went wrong is good, and the command to go on from it."""
    try:
        checkpoints.wait()
    except CheckpointError as error:
        logging.error("%s", error)
    rate = run.config.optim.lr
    for step in reversed(checkpoints.steps()):
        try:
            loss = checkpoints.meta(step).get("loss", 0.0)
        except CheckpointError as error:
            logging.error("%s", error)
            continue
        known = f", with loss {loss:.3g}" if loss else ""
        source = shlex.quote(f"{run.workdir}@{step}")
        return (
            f"The newest good checkpoint is step {step}{known}; go on from it in another "
            f"workdir, with a lower rate: --from {source} --workdir NEW "
            f"--config.optim.lr={rate / 10:.3g}"
        )
    return (
        "No checkpoint is saved yet; start anew with a lower rate and another --workdir: "
        f"--workdir NEW --config.optim.lr={rate / 10:.3g}"
    )
