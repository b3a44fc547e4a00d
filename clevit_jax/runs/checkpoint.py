"""Checkpoints of a run: asynchronous, atomic, the last few and the best.

The only module that imports orbax. It uses the v0 API: docs/decisions.md says what v1 lacks.
"""

import contextlib
import json
import pathlib
import shutil
from collections.abc import Callable
from logging import WARNING
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from absl import logging
from orbax.checkpoint.checkpoint_managers import preservation_policy

from clevit_jax.distributed import processes
from clevit_jax.errors import CheckpointError, NoRoomError, first_line
from clevit_jax.steps.state import TrainState
from clevit_jax.system.logging import quiet


class Checkpoints:
    """The checkpoints of one run, under `folder/STEP`.

    A checkpoint holds the state and a JSON object `meta` (the data iterator, the config, the
    hash of the split). It is written to a temporary folder and renamed when whole, so that a kill
    at any moment leaves the ones before it. Several processes go by what process 0 sees of the
    folder, since a network disk may show the others less for a while.

    Args:
        folder: created if missing.
        keep: newest checkpoints to keep; the one with the best top-1 is kept, too.
        read_only: changes nothing, so that a run may be looked at while it trains.
    """

    def __init__(self, folder: pathlib.Path, *, keep: int, read_only: bool = False):
        self.folder = folder.absolute()
        self._read_only = read_only
        _check_scores(self.folder, read_only=read_only)
        newest = preservation_policy.LatestN(keep)
        best = preservation_policy.BestN(
            get_metric_fn=_top1, n=1, keep_checkpoints_without_metrics=False
        )
        # A folder that is only read is worth no warnings.
        with quiet(WARNING) if read_only else contextlib.nullcontext():
            self._manager = ocp.CheckpointManager(
                self.folder,
                options=ocp.CheckpointManagerOptions(
                    best_fn=_top1,
                    preservation_policy=preservation_policy.AnyPreservationPolicy([newest, best]),
                    cleanup_tmp_directories=not read_only,
                    create=not read_only,
                    read_only=read_only,
                ),
                item_handlers={
                    "state": ocp.StandardCheckpointHandler(),
                    "meta": ocp.JsonCheckpointHandler(),
                },
            )

    def steps(self) -> list[int]:
        """Steps of the finished checkpoints, oldest first."""
        return sorted(self._manager.all_steps())

    def best(self) -> tuple[int, float] | None:
        """Step and top-1 of the best evaluated checkpoint, the latest of equals."""
        scored = [(top1, step) for step in self.steps() if (top1 := self.top1(step)) is not None]
        top1, step = processes.broadcast("best", max(scored, default=(None, None)))
        return None if step is None else (step, top1)

    def top1(self, step: int) -> float | None:
        """Top-1 that a checkpoint was saved with, if it was evaluated."""
        metrics = self._manager.metrics(step)
        return _top1(metrics) if metrics and "top1" in metrics else None

    def save(self, state: TrainState, meta: dict[str, Any], *, top1: float | None = None) -> None:
        """Starts to write the state; returns when it has been copied off the devices.

        Args:
            state: before the update that belongs to its step.
            meta: a JSON object that is kept with it.
            top1: of this state, if it has just been evaluated.

        Raises:
            CheckpointError: there is no room, or it cannot be written. Earlier checkpoints are as
                they were. That the background failed shows in the log at the next save, or raises
                in `wait`.
        """
        step = int(state.step)
        try:
            self.wait()
        except CheckpointError as error:  # an earlier one is lost; this one may succeed
            logging.error("%s", error)
        check_room(self.folder, state, self._kept())
        try:
            self._manager.save(
                step,
                args=ocp.args.Composite(
                    state=ocp.args.StandardSave(state), meta=ocp.args.JsonSave(meta)
                ),
                metrics=None if top1 is None else {"top1": top1},
                force=True,
            )
        except (OSError, ValueError, RuntimeError) as error:
            raise self._failed(f"Checkpoint {step} could not be written", error) from error

    def add_score(self, step: int, top1: float) -> None:
        """Gives a checkpoint that was saved before it was scored its top-1."""
        wanted = step in self.steps() and self.top1(step) is None
        if not processes.broadcast("unscored", wanted):
            return
        if processes.index() == 0:
            temporary = self.folder / f"score-{step}.tmp"
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir()
            (temporary / "metrics").write_text(json.dumps({"top1": top1}), encoding="utf-8")
            temporary.rename(self.folder / str(step) / "metrics")  # whole or not at all
        processes.barrier("score")
        self._manager.reload()

    def restore_newest(
        self, like: TrainState, check: Callable[[dict[str, Any]], None] | None = None
    ) -> tuple[TrainState, dict[str, Any]] | None:
        """The newest checkpoint that can be read, laid out as `like` is sharded.

        Where one cannot be read, the one before it is tried; the log says so. Once one is read,
        the damaged ones after it are moved aside to `folder-damaged/STEP`.

        Args:
            like: see `restore`.
            check: called with `meta` before the state is read; what it raises is passed on.

        Returns:
            The state and its `meta`, or None when there is no checkpoint.

        Raises:
            CheckpointError: there are checkpoints, and none can be read; all stay where they are.
        """
        steps, damaged = processes.broadcast("steps", self.steps()), list[int]()
        for step in reversed(steps):
            problem, restored = "", None
            try:
                restored = self.restore(step, like, check)
            except CheckpointError as error:
                problem = str(error)
            # What one process cannot read, none takes.
            problem = next(filter(None, processes.gather("restored", problem)), "")
            if restored is None or problem:
                logging.error("%s Trying the one before it.", problem)
                damaged.append(step)
                continue
            if damaged and not self._read_only:
                self._move_aside(damaged)
            return restored
        if steps:
            raise CheckpointError(
                f"None of the checkpoints {steps} in {self.folder} can be read; nothing is "
                "changed. Put a copy back, or name another --workdir."
            )
        return None

    def restore(
        self, step: int, like: TrainState, check: Callable[[dict[str, Any]], None] | None = None
    ) -> tuple[TrainState, dict[str, Any]]:
        """One checkpoint, laid out as `like` (arrays or shapes with shardings) is.

        Raises:
            CheckpointError: it is missing, damaged, or of another shape than `like`.
        """
        meta = self._read(step, "meta", ocp.JsonCheckpointHandler, ocp.args.JsonRestore())
        if check is not None:
            check(meta)
        how = ocp.args.StandardRestore(_abstract(like))
        return self._read(step, "state", ocp.StandardCheckpointHandler, how), meta

    def restore_params(self, steps: list[int], like: Any, *, average: bool) -> tuple[int, Any]:
        """The parameters alone, of the first of `steps` that can be read.

        Args:
            steps: checkpoints to try in turn; the log says which cannot be read.
            like: nested dict of arrays or shapes.
            average: whether to read the moving average of the parameters.

        Returns:
            The step, and a nested dict like `like` of NumPy arrays.

        Raises:
            CheckpointError: none can be read, or they are of another shape than `like`.
        """
        part = "ema" if average else "params"
        as_numpy = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), like)
        how = ocp.args.PyTreeRestore(
            item={part: like}, restore_args={part: as_numpy}, partial_restore=True
        )
        problem = CheckpointError(f"{self.folder} has no checkpoint.")
        for step in steps:
            try:
                params = self._read(step, "state", ocp.PyTreeCheckpointHandler, how)[part]
                if jax.tree.map(np.shape, params) != jax.tree.map(np.shape, like):
                    raise self._unreadable(step, ValueError("its parameters are of another shape"))
            except CheckpointError as error:
                problem = error
                logging.error("%s", problem)
                continue
            return step, params
        raise problem

    def _read(self, step: int, name: str, handler: Callable[[], Any], how: Any) -> Any:
        # Each process by itself: one that cannot read it would leave the others waiting in orbax.
        own = ocp.options.MultiprocessingOptions(
            primary_host=processes.index(), active_processes={processes.index()}
        )
        try:
            with ocp.Checkpointer(handler(), multiprocessing_options=own) as reader:
                return reader.restore(self.folder / str(step) / name, args=how)
        # Damage shows in as many exceptions as there are libraries below.
        except Exception as error:
            raise self._unreadable(step, error) from error

    def _move_aside(self, steps: list[int]) -> None:
        aside = _aside(self.folder)
        logging.error("The damaged checkpoints %s are moved to %s.", sorted(steps), aside)
        if processes.index() == 0:
            aside.mkdir(exist_ok=True)
            for step in steps:
                shutil.rmtree(aside / str(step), ignore_errors=True)
                (self.folder / str(step)).rename(aside / str(step))
        processes.barrier("aside")
        self._manager.reload()

    def wait(self) -> None:
        """Returns when everything is on the disk. Raises CheckpointError if a write failed."""
        try:
            self._manager.wait_until_finished()
            self._manager.check_for_errors()
        except (OSError, ValueError, RuntimeError) as error:
            raise self._failed("The last checkpoint could not be written", error) from error

    def close(self) -> None:
        """Ends the background threads, whatever state they are in."""
        self._manager.close()

    def _kept(self) -> str:
        steps = self.steps()
        return (
            f"The last good checkpoint is step {steps[-1]}."
            if steps
            else "No checkpoint is saved yet."
        )

    def _failed(self, what: str, error: Exception) -> CheckpointError:
        return CheckpointError(
            f"{what} in {self.folder}: {first_line(error)[:300]}. {self._kept()}"
        )

    def _unreadable(self, step: int, error: Exception) -> CheckpointError:
        return CheckpointError(
            f"Checkpoint {step} cannot be read in {self.folder}: {first_line(error)[:300]}."
        )


def check_room(folder: pathlib.Path, state: Any, kept: str = "No checkpoint is saved yet.") -> None:
    """Raises NoRoomError unless the disk of `folder`, which may not exist, has room for one.

    All processes go by what process 0 sees.
    """
    problem = ""
    needed = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state))
    folder = folder.absolute()
    free = shutil.disk_usage(next(p for p in (folder, *folder.parents) if p.is_dir())).free
    if free < 1.1 * needed:
        problem = (
            f"There is no room for a checkpoint: {folder} has {free / 1e6:.0f} MB free "
            f"and one takes {1.1 * needed / 1e6:.0f} MB; free some space. {kept}"
        )
    if problem := processes.broadcast("room", problem):
        raise NoRoomError(problem)


def _check_scores(folder: pathlib.Path, *, read_only: bool) -> None:
    """Moves a damaged score, which orbax reads unasked, aside: its checkpoint has none then.

    Raises:
        CheckpointError: one is damaged, and nothing may be changed.
    """
    for path in sorted(folder.glob("[0-9]*/metrics/metrics")):
        try:
            _top1(json.loads(path.read_text()))
        except (OSError, ValueError, KeyError, TypeError) as error:
            problem = f"{path}, the score of a checkpoint, is damaged"
            if read_only:
                raise CheckpointError(
                    f"{problem}; delete the folder {path.parent}, and the checkpoint counts as "
                    "one without a score."
                ) from error
            if processes.index() == 0:
                logging.error("%s; the checkpoint counts as one without a score.", problem)
                aside = _aside(folder)
                aside.mkdir(exist_ok=True)
                shutil.rmtree(aside / f"{path.parts[-3]}-metrics", ignore_errors=True)
                path.parent.rename(aside / f"{path.parts[-3]}-metrics")
    if not read_only:
        processes.barrier("scores")


def _aside(folder: pathlib.Path) -> pathlib.Path:
    """The folder that damaged checkpoints are moved to."""
    return folder.with_name(folder.name + "-damaged")


def _top1(metrics: dict[str, float]) -> float:
    return metrics["top1"]


def _abstract(tree: Any) -> Any:
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding), tree
    )
