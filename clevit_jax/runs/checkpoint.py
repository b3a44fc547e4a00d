"""Checkpoints of a run: asynchronous, atomic, the last few and the best.

The only module that imports orbax. It uses the v0 API: docs/decisions.md says what v1 lacks.
"""

import contextlib
import pathlib
from collections.abc import Callable
from logging import WARNING
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from absl import logging
from orbax.checkpoint.checkpoint_managers import preservation_policy

from clevit_jax.distributed import processes
from clevit_jax.errors import CheckpointError, StorageError, UnreachableError, first_line
from clevit_jax.runs import checkpoint_files
from clevit_jax.runs.room import check_bucket, check_room
from clevit_jax.steps.state import TrainState
from clevit_jax.system import faults
from clevit_jax.system.bounded import Bounded
from clevit_jax.system.logging import quiet
from clevit_jax.system.places import in_bucket
from clevit_jax.system.plain_path import PlainPath

_CLOSING_SECONDS = 5.0  # that the end waits for a save that failed already


class Checkpoints:
    """The checkpoints of one run, under `folder/STEP`.

    A checkpoint holds the state and a JSON object `meta` (the data iterator, the config, the
    hash of the split). It is written to a temporary folder, read back, and renamed when whole, so
    that a kill at any moment leaves the ones before it. The hashes of its files are kept with it,
    and compared before it is read. Several processes go by what process 0 sees of the folder,
    since a network disk may show the others less for a while.

    Args:
        folder: created if missing.
        keep: newest checkpoints to keep; the one with the best top-1 is kept, too.
        keep_every: checkpoints at multiples of this step are kept for good; 0 is none.
        timeout: seconds that saving may make the caller wait.
        read_only: changes nothing, so that a run may be looked at while it trains.
        owned: called before a checkpoint gets its name or a torn one goes; may raise against it.

    Raises:
        CheckpointError: no library can read the folder's path, or a score is damaged and
            nothing may be changed.
    """

    def __init__(
        self,
        folder: pathlib.Path,
        *,
        keep: int,
        keep_every: int = 0,
        timeout: float = 600.0,
        read_only: bool = False,
        owned: Callable[[], None] = lambda: None,
    ):
        self.folder = folder.absolute()
        self._plain = PlainPath(folder)
        self._bounded = Bounded(timeout)
        self._read_only = read_only
        self._owned = owned
        self._saving: tuple[int, TrainState] | None = None  # step, shapes: written, not read back
        self._failed_to_save = False
        self._unreadable_steps = set[int]()
        check_bucket(folder)
        if not read_only and processes.index() == 0:
            self.folder.mkdir(parents=True, exist_ok=True)  # orbax would not make it behind a link
            checkpoint_files.remove_torn(self.folder)
        checkpoint_files.check_scores(self.folder, read_only=read_only)
        kept = [
            preservation_policy.LatestN(keep),
            preservation_policy.BestN(
                get_metric_fn=_top1, n=1, keep_checkpoints_without_metrics=False
            ),
        ]
        if keep_every:
            kept.append(preservation_policy.EveryNSteps(keep_every))
        # A folder that is only read is worth no warnings.
        with quiet(WARNING) if read_only else contextlib.nullcontext():
            self._manager = ocp.CheckpointManager(
                self._plain.path(),
                options=ocp.CheckpointManagerOptions(
                    best_fn=_top1,
                    preservation_policy=preservation_policy.AnyPreservationPolicy(kept),
                    create=not read_only,
                    read_only=read_only,
                    async_options=ocp.AsyncOptions(
                        timeout_secs=max(1, round(timeout)),
                        # In the background, one that fails leaves threads that wait 300 s for it.
                        create_directories_asynchronously=False,
                        post_finalization_callback=self._read_back,
                    ),
                ),
                item_handlers={
                    "state": ocp.StandardCheckpointHandler(),
                    "meta": ocp.JsonCheckpointHandler(),
                },
            )

    def steps(self) -> list[int]:
        """Steps of the finished checkpoints, oldest first."""
        unsure = self._saving[0] if self._saving else None
        return sorted(step for step in self._manager.all_steps() if step != unsure)

    def by_score(self) -> list[tuple[int, float]]:
        """Step and top-1 of the evaluated checkpoints, the best first, the latest of equals.

        Those that were found damaged are left out.
        """
        steps = [step for step in self.steps() if step not in self._unreadable_steps]
        scored = [(top1, step) for step in steps if (top1 := self.top1(step)) is not None]
        return [
            (step, top1) for top1, step in processes.broadcast("best", sorted(scored, reverse=True))
        ]

    def best(self) -> tuple[int, float] | None:
        """Step and top-1 of the best evaluated checkpoint, the latest of equals."""
        return next(iter(self.by_score()), None)

    def top1(self, step: int) -> float | None:
        """Top-1 that a checkpoint was saved with, if it was evaluated."""
        metrics = self._manager.metrics(step)
        return _top1(metrics) if metrics and "top1" in metrics else None

    def meta(self, step: int) -> dict[str, Any]:
        """The JSON object of a checkpoint. Raises CheckpointError when it cannot be read."""
        return self._read(step, "meta", ocp.JsonCheckpointHandler, ocp.args.JsonRestore())

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
            if self._bounded.hangs():
                raise
            logging.error("%s", error)
        args = ocp.args.Composite(state=ocp.args.StandardSave(state), meta=ocp.args.JsonSave(meta))
        metrics = None if top1 is None else {"top1": top1}

        def begin() -> None:
            check_room(self.folder, state, self.kept())
            self._saving = step, checkpoint_files.shapes(state)
            self._plain.path()  # makes a link again that was cleaned up
            self._manager.save(step, args=args, metrics=metrics, force=True)

        try:
            self._bounded.call(begin)
        except CheckpointError:
            raise
        except Exception as error:
            raise self._failed(f"Checkpoint {step} could not be written", error) from error

    def _read_back(self) -> None:
        """Called by orbax in process 0, when all is written and before it gets its name.

        What it raises fails the save, so nothing that cannot be read is ever a checkpoint.
        """
        assert self._saving is not None
        step, state = self._saving
        (written,) = checkpoint_files.torn(self._own_path(), step)
        of_orbax = self._plain.path() / written.name / "state"
        there = ocp.StandardCheckpointHandler().metadata(of_orbax).tree
        checkpoint_files.check_shapes(there, state)
        checkpoint_files.write_hashes(written)
        self._owned()

    def _own_path(self) -> pathlib.Path:
        """The folder, by a plain path on a disk."""
        return self.folder if in_bucket(self.folder) else self._plain.path()

    def add_score(self, step: int, top1: float) -> None:
        """Gives a checkpoint that was saved before it was scored its top-1."""
        wanted = step in self.steps() and self.top1(step) is None
        if not processes.broadcast("unscored", wanted):
            return
        if processes.index() == 0:
            checkpoint_files.write_score(self.folder, step, top1)
        processes.barrier("score")
        self._manager.reload()

    def restore_newest(
        self, like: TrainState, check: Callable[[dict[str, Any]], None] | None = None
    ) -> tuple[TrainState, dict[str, Any]] | None:
        """The newest checkpoint that can be read, laid out as `like` is sharded.

        Where one cannot be read, the one before it is tried; the log says so. Once one is read,
        the damaged ones after it are moved aside to `folder/damaged/STEP`.

        Args:
            like: see `restore`.
            check: called with `meta` before the state is read; what it raises is passed on.

        Returns:
            The state and its `meta`, or None when there is no checkpoint.

        Raises:
            CheckpointError: there are checkpoints, and none can be read; all stay where they are.
        """
        steps = processes.broadcast("steps", self.steps())
        restored = self._restore_first(steps[::-1], like, check)
        if steps and restored is None:
            raise CheckpointError(
                f"None of the checkpoints {steps} in {self.folder} can be read; nothing is "
                "changed. Put a copy back, or name another --workdir."
            )
        return restored

    def restore_best(self, like: TrainState) -> tuple[TrainState, dict[str, Any]] | None:
        """The best evaluated checkpoint that can be read, or None; see `restore_newest`."""
        return self._restore_first([step for step, _ in self.by_score()], like, None)

    def _restore_first(
        self,
        steps: list[int],
        like: TrainState,
        check: Callable[[dict[str, Any]], None] | None,
    ) -> tuple[TrainState, dict[str, Any]] | None:
        damaged: list[int] = []
        for step in steps:
            problem, restored = "", None
            try:
                restored = self.restore(step, like, check)
            except UnreachableError:  # the checkpoint may be sound, and stays where it is
                raise
            except CheckpointError as error:
                problem = str(error)
            # What one process cannot read, none takes.
            problem = next(filter(None, processes.gather("restored", problem)), "")
            if restored is None or problem:
                logging.error("%s Trying the one before it.", problem)
                damaged.append(step)
                self._unreadable_steps.add(step)
                continue
            if damaged and not self._read_only:
                self._move_aside(damaged)
            return restored
        return None

    def restore(
        self, step: int, like: TrainState, check: Callable[[dict[str, Any]], None] | None = None
    ) -> tuple[TrainState, dict[str, Any]]:
        """One checkpoint, laid out as `like` (arrays or shapes with shardings) is.

        Raises:
            CheckpointError: it is missing, damaged, or of another shape than `like`.
        """
        if processes.index() == 0:  # one reads all files for it; they are the same for all
            self._check_files(step)
        meta = self.meta(step)
        if check is not None:
            check(meta)
        how = ocp.args.StandardRestore(checkpoint_files.shapes(like))
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
                self._check_files(step)
                params = self._read(step, "state", ocp.PyTreeCheckpointHandler, how)[part]
                if jax.tree.map(np.shape, params) != jax.tree.map(np.shape, like):
                    raise self._unreadable(step, ValueError("its parameters are of another shape"))
            except UnreachableError:
                raise
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
                return reader.restore(self._plain.path() / str(step) / name, args=how)
        # Damage shows in as many exceptions as there are libraries below.
        except Exception as error:
            if faults.is_out_of_memory(error):  # the checkpoint is sound, and stays where it is
                raise
            raise self._unreadable(step, error) from error

    def _check_files(self, step: int) -> None:
        if problem := checkpoint_files.damage(self.folder / str(step)):
            raise self._unreadable(step, ValueError(problem))

    def _move_aside(self, steps: list[int]) -> None:
        aside = self.folder / checkpoint_files.DAMAGED_FOLDER
        logging.error("The damaged checkpoints %s are moved to %s.", sorted(steps), aside)
        if processes.index() == 0:
            for step in steps:
                checkpoint_files.move_aside(self.folder, self.folder / str(step), str(step))
        processes.barrier("aside")
        self._unreadable_steps -= set(steps)
        self._manager.reload()

    def wait(self) -> None:
        """Returns when everything is on the disk and was read back.

        Raises:
            CheckpointError: a write failed, or takes longer than `timeout`. What is there of it
                is removed.
        """

        def settle() -> None:
            self._manager.wait_until_finished()
            self._manager.check_for_errors()

        try:
            self._bounded.call(settle)
        except Exception as error:
            what = f"Checkpoint {self._saving[0]}" if self._saving else "The last checkpoint"
            raise self._failed(f"{what} could not be written", error) from error
        self._saving, self._failed_to_save = None, False

    def close(self) -> None:
        """Ends the background threads, whatever state they are in."""
        try:
            seconds = _CLOSING_SECONDS if self._failed_to_save else None
            self._bounded.call(self._manager.close, seconds=seconds)
        except Exception as error:
            if not self._failed_to_save:  # nobody has heard of it yet
                logging.error("%s", self._failed("The last checkpoint could not be written", error))
        if self._failed_to_save and not self._bounded.hangs():
            with contextlib.suppress(Exception):  # a thread of a failed save may have gone on
                self._bounded.call(self._forget_torn, seconds=_CLOSING_SECONDS)
        self._bounded.close()
        self._plain.close()

    def kept(self) -> str:
        """Which checkpoint a run would go on from, as a sentence."""
        steps = self.steps()
        return (
            f"The last good checkpoint is step {steps[-1]}."
            if steps
            else "No checkpoint is saved yet."
        )

    def _failed(self, what: str, error: Exception) -> CheckpointError:
        """The error to raise, when what is there of the checkpoint has been removed."""
        self._failed_to_save = True
        if not self._bounded.hangs():
            with contextlib.suppress(Exception):  # what remains, the next start removes
                self._bounded.call(self._forget_torn, seconds=_CLOSING_SECONDS)
                self._saving = None
        reason = self._reason(error)
        kind = StorageError if isinstance(error, TimeoutError | StorageError) else CheckpointError
        if checkpoint_files.is_away(self.folder, error):
            kind = UnreachableError
        return kind(f"{what} in {self.folder}: {reason}. {self.kept()}")

    def _forget_torn(self) -> None:
        if processes.index() == 0:
            self._owned()
            checkpoint_files.remove_torn(self.folder)
        self._manager.reload()

    def _unreadable(self, step: int, error: Exception) -> CheckpointError:
        away = checkpoint_files.is_away(self.folder, error)
        kind = UnreachableError if away else CheckpointError
        return kind(f"Checkpoint {step} cannot be read in {self.folder}: {self._reason(error)}.")

    def _reason(self, error: Exception) -> str:
        """What the system says, where a library passes it on, or else the library."""
        if said := faults.passed_on(error):
            return said
        text = self._plain.in_words(first_line(error)).rstrip(".")
        return text if len(text) <= 300 else f"{text[:150]} ... {text[-150:]}"


def _top1(metrics: dict[str, float]) -> float:
    return metrics["top1"]
