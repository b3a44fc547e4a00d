"""The training loop of a run: set up, restore, then evaluate, save and update until the last step.

The order inside the loop is what makes a run resumable: at step s the state before update s is
evaluated and saved, with the data iterator as it is before batch s; only then come batch and
update.
"""

import contextlib
import dataclasses
import functools
import pathlib
from typing import Any

import jax
from ml_collections import ConfigDict

from clevit_jax.analysis.report.write import write_after_training
from clevit_jax.data import pipeline
from clevit_jax.distributed import processes, sharding, watch
from clevit_jax.distributed.preemption import STOPPED, Interrupted, Stop
from clevit_jax.errors import CheckpointError
from clevit_jax.evaluate import (
    CheckpointScores,
    check_split,
    evaluate_split,
    score_checkpoints,
    write_scores,
)
from clevit_jax.runs.beside_images import check_beside_images
from clevit_jax.runs.checkpoint import Checkpoints
from clevit_jax.runs.checkpoint_files import remove_torn
from clevit_jax.runs.extend import check_extension, check_left, forget_end, say_changes
from clevit_jax.runs.facts import run_facts_are_whole
from clevit_jax.runs.finished import last_scores, say_finished
from clevit_jax.runs.goodput import Clock, keep_time
from clevit_jax.runs.lock import locked
from clevit_jax.runs.logger import MetricLogger, write_facts_file, write_run_facts
from clevit_jax.runs.owner import owned, reach
from clevit_jax.runs.patience import Patience, note_end, resume_patience
from clevit_jax.runs.profile import Profile, check_updates
from clevit_jax.runs.results import RunResult, read_result
from clevit_jax.runs.room import check_path, check_room
from clevit_jax.runs.saver import Saver, advice, open_checkpoints
from clevit_jax.runs.setup import (
    Pretrained,
    Run,
    check_agreement,
    decode_all,
    keep_skipped,
    prepare_run,
    read_pretrained,
    say_data,
)
from clevit_jax.runs.workdir import (
    CONFIG_FILE,
    LOAD_REPORT_FILE,
    RUN_FILE,
    check_workdir,
    claim_workdir,
    has_checkpoints,
)
from clevit_jax.steps.eval_step import Evaluation
from clevit_jax.steps.state import TrainState
from clevit_jax.system import compilation_cache, output
from clevit_jax.system.files import write_json
from clevit_jax.system.logging import errors_alone
from clevit_jax.system.places import run_place
from clevit_jax.system.progress import in_notebook

_NOTHING_LOST = "Stopped before an update was made; run the same {} to go on."
_CLOCK_STEPS = 10  # updates between two looks at whether a checkpoint is due by time


def train(config: ConfigDict, workdir: str | pathlib.Path, *, extend: bool = False) -> RunResult:
    """Trains, or goes on where a stopped run was saved; for scripts and notebooks.

    The same as `python -m clevit_jax.main --config ... --workdir ...` in one process: a bar shows
    how far it is, Ctrl-C (or the notebook's stop button) saves and returns, and the same call goes
    on. Compiled programs are kept for the next time.

    Args:
        config: of `get_config`, or in the form of `configs/base.py`.
        workdir: folder of the run; new, or begun with the same config.
        extend: whether a run that is there, finished or not, may go on with other epochs, rates or
            losses (`config.EXTENDABLE`).

    Returns:
        The folder, whether the run is finished, and its scores; see `RunResult`.

    Raises:
        ClevitError: as `train_workdir`.
    """
    compilation_cache.enable(compilation_cache.AUTO)
    workdir = run_place(workdir, "workdir")
    with errors_alone():
        train_workdir(config, workdir, extend=extend)
    return read_result(workdir)


def train_workdir(
    config: ConfigDict,
    workdir: pathlib.Path,
    *,
    extend: bool = False,
    profiled: range = range(0),
    began: float | None = None,
) -> int:
    """`--mode train`: trains, or goes on where a stopped run was saved.

    Args:
        config, workdir, extend: see `train`.
        profiled: updates to profile, see `runs.profile`.
        began: when the command began, in seconds since the epoch; None is now.

    Returns:
        The exit code: 0 when the run is finished, `STOPPED` when a signal ended it early.

    Raises:
        ConfigError, DataError: before the first step, and before anything is written.
        CheckpointError: nothing can be saved or read; `StorageError` where it does not answer.
        SupersededError: a newer start has taken the run over.
        TrainingError: the gradients stay non-finite.
    """
    with output.unbreakable(), Stop() as stop, Clock(began) as clock:
        try:
            return _train(config, workdir, stop, clock, extend=extend, profiled=profiled)
        except Interrupted:
            print(_NOTHING_LOST.format(_what_ran()), flush=True)
            return STOPPED


def _train(
    config: ConfigDict,
    workdir: pathlib.Path,
    stop: Stop,
    clock: Clock,
    *,
    extend: bool,
    profiled: range,
) -> int:
    """`train_workdir` within its `Stop`. Raises Interrupted while there is nothing to save."""
    stop.nothing_to_save(_NOTHING_LOST.format(_what_ran()))
    reach(workdir, minutes=config.checkpoint.timeout_minutes)
    extended = extend and check_extension(workdir, config)
    if not extended:
        check_workdir(workdir, config)
    run = prepare_run(config, workdir)
    if extended:
        check_left(run)
    if profiled:
        check_updates(profiled, workdir, run.plan.total)
    check_agreement(run)
    check_beside_images(run)
    say_data(run)
    # A network disk may show other hosts less for a while, so process 0 looks for all.
    if processes.broadcast("finished", not extended and say_finished(run)):
        return 0
    seconds = 60 * run.settings.checkpoint_timeout_minutes
    with contextlib.ExitStack() as stack:
        stack.enter_context(locked(workdir))
        watching = stack.enter_context(contextlib.ExitStack())
        watching.enter_context(watch.watched(seconds, processes.lost))
        check_path(run.checkpoints)
        begun = processes.broadcast("begun", has_checkpoints(workdir))
        pretrained = None if begun else read_pretrained(run)  # before images are read
        found_anew = not run.decided
        run = decode_all(run, stop)
        # Not before: a start that its images keep from training takes the run from nobody.
        owner = stack.enter_context(owned(workdir, seconds=seconds))
        run = dataclasses.replace(run, owner=owner)
        if processes.index() == 0:  # before the room is looked at
            owner.call("checkpoints", lambda: remove_torn(run.checkpoints))
        begun = processes.broadcast("begun", has_checkpoints(workdir))
        if not begun:
            check_room(run.checkpoints, run.steps.abstract_state)
        if extended:
            owner.call(RUN_FILE, lambda: forget_end(workdir))
        owner.call(CONFIG_FILE, lambda: claim_workdir(workdir, config))
        log = workdir / output.log_file(processes.index())
        stack.enter_context(output.logged(log, ours=owner.holds_it))
        checkpoints = owner.call("checkpoints", lambda: open_checkpoints(run))
        stack.callback(checkpoints.close)
        state, batches, meta = _initial_state(run, checkpoints, pretrained)
        keep_skipped(
            run, anew=found_anew or not begun
        )  # once the data set is known to be that of the run
        del pretrained  # a copy of the parameters that the host need not keep
        stack.callback(batches.close)
        changes, step = say_changes(run, state, meta), int(state.step)
        patience = resume_patience(run, checkpoints, step, meta, anew=bool(changes))
        if step >= run.plan.total or patience.over:
            code = _at_its_end(run, checkpoints, state, patience)
        else:
            write_run_facts(run, state, clock, changes)
            stop.check()
            logger = MetricLogger(run, step, advice=functools.partial(advice, run, checkpoints))
            stack.callback(logger.close)
            profile = Profile(
                workdir, profiled, first=step + 1, total=run.plan.total, say=logger.say
            )
            code, state = _go_on(
                run, checkpoints, state, batches, patience, logger, stop, clock, profile
            )
        watching.close()  # what the report takes is unknown, and the run is whole without it
        if code == 0 and run.settings.report:
            owner.check("before its report is written")
            stop.nothing_to_save(
                f"Stopped while the report was written; run the same {_what_ran()} to write it."
            )
            write_after_training(run, state)
        return code


def _at_its_end(run: Run, checkpoints: Checkpoints, state: TrainState, patience: Patience) -> int:
    """Makes what a run at its last step lacks of its files; returns the exit code."""
    step = int(state.step)
    print(f"{run.workdir} is finished: it is at its last step, {step}.", flush=True)
    if processes.index() == 0 and not run_facts_are_whole(run.workdir):
        write_facts_file(run, state)
    run.owner.check()
    note_end(run, step, patience)
    if processes.broadcast("unscored", last_scores(run) is None):
        score_checkpoints(run, checkpoints)
    return 0


def _go_on(
    run: Run,
    checkpoints: Checkpoints,
    state: TrainState,
    batches: Any,
    patience: Patience,
    logger: MetricLogger,
    stop: Stop,
    clock: Clock,
    profile: Profile,
) -> tuple[int, TrainState]:
    """`_loop`, and the time that it took in run.json."""
    try:
        code, state = _loop(
            run, checkpoints, state, batches, patience, logger, stop, clock, profile
        )
    except CheckpointError:
        run.owner.look()  # who took the run over may have removed what was half written
        raise
    reached, done = int(state.step), code == 0
    run.owner.call(RUN_FILE, lambda: keep_time(run.workdir, clock, reached, finished=done))
    return code, state


def _initial_state(
    run: Run, checkpoints: Checkpoints, pretrained: Pretrained | None
) -> tuple[TrainState, Any, dict[str, Any] | None]:
    """State, batches and `meta` of the newest checkpoint, or those of step 0, without a `meta`."""
    batches = _train_batches(run)
    like, check = run.steps.abstract_state, functools.partial(check_split, run)
    restored = run.owner.call("checkpoints", lambda: checkpoints.restore_newest(like, check))
    if restored is None:
        pretrained = pretrained or read_pretrained(run)
        if pretrained and processes.index() == 0:
            path, facts = run.workdir / LOAD_REPORT_FILE, pretrained.facts
            run.owner.call(LOAD_REPORT_FILE, lambda: write_json(path, facts))
        return run.steps.initial_state(pretrained.params if pretrained else None), batches, None
    state, meta = restored
    batches.set_state(meta["iterator"])
    print(f"Going on from step {int(state.step)} of {run.plan.total}.", flush=True)
    return state, batches, meta


def _train_batches(run: Run) -> Any:
    """A checkpointable iterator of batches that already lie on the devices."""
    dataset = pipeline.train_dataset(
        run.images["train"],
        [example.label for example in run.dataset.train],
        seed=run.settings.step.seed,
        batch_size=run.settings.step.batch_size,
        process_index=processes.index(),
        process_count=processes.count(),
        threads=run.settings.data.threads,
        prefetch=2,
    )
    put = functools.partial(sharding.to_global, run.steps.mesh)
    return iter(pipeline.to_device(dataset, put, buffer=2))


def _loop(
    run: Run,
    checkpoints: Checkpoints,
    state: TrainState,
    batches: Any,
    patience: Patience,
    logger: MetricLogger,
    stop: Stop,
    clock: Clock,
    profile: Profile,
) -> tuple[int, TrainState]:
    """Updates until the last step or a signal; returns the exit code and the state."""
    total, start = run.plan.total, int(state.step)
    numbers = run.steps.numbers()
    saver = Saver(run, checkpoints, patience)
    scores: dict[int, Evaluation] = {}
    # An evaluation that a signal ended is made up for when the run goes on.
    scored = start == 0 or processes.broadcast("scored", checkpoints.top1(start) is not None)
    for step in range(start, total + 1):
        watch.note(f"step {step}")
        score = None
        if (step > start or not scored) and _evaluation_due(run, step):
            logger.finish()
            with contextlib.suppress(Interrupted), clock.spent("evaluating"):
                score = scores[step] = evaluate_split(
                    run, state.eval_params, run.chosen_on, stop=stop
                )
                logger.log_evaluation(step, score)
                patience.count(step, score.top1)
        over = step == total or patience.over
        stopping = stop.asked()
        # Each process has a clock, and one of them counts.
        late = step % _CLOCK_STEPS == 0 and processes.broadcast("late", saver.late())
        if step > start and (stopping or late or over or saver.due(step, score)):
            logger.flush()
            must = stopping or over
            with clock.spent("saving"):
                saver.save(state, batches.get_state(), score, logger.newest, must=must)
                run.owner.call(RUN_FILE, functools.partial(keep_time, run.workdir, clock, step))
            watch.note(f"the save at step {step}")
            logger.pause()
        elif score is not None:
            saver.add_score(step, score)
        if stopping and (not over or score is None):
            profile.close(step)
            logger.say(f"{saver.stopped(step)}; run the same {_what_ran()} to go on.")
            return STOPPED, state
        if over:
            break
        profile.before(step + 1, state)
        clock.switch("training")
        state = _update(run, state, batches, numbers, logger, clock, step, first=step == start)
        stop.something_to_save()
        profile.after(step + 1, state)
    profile.close(step)
    with clock.spent("saving"):
        checkpoints.wait()
    run.owner.check(f"at step {step}, its last")
    logger.close(finished=True)
    note_end(run, step, patience)
    with clock.spent("evaluating"):
        return _final_scores(run, checkpoints, step, scores, stop), state


def _update(
    run: Run,
    state: TrainState,
    batches: Any,
    numbers: Any,
    logger: MetricLogger,
    clock: Clock,
    step: int,
    *,
    first: bool,
) -> TrainState:
    """The state after one update more; `first`: of this start, so that it compiles."""
    # Nothing moves between host and device here but what is moved on purpose.
    with sharding.no_transfers(), jax.profiler.StepTraceAnnotation("update", step_num=step + 1):
        with clock.spent("waiting"):
            batch = next(batches)
        waited = clock.newest
        if first:
            with clock.spent("compiling"):
                processes.compile_together(run.steps.train_step, state, batch, numbers)
        state, metrics = run.steps.train_step(state, batch, numbers)
        logger.log_update(step + 1, metrics, batch, waited)
    return state


def _final_scores(
    run: Run, checkpoints: Checkpoints, last: int, scores: dict[int, Evaluation], stop: Stop
) -> int:
    """Prints and writes the scores of a finished run, from `scores` (by step) if they suffice."""
    best = checkpoints.best()
    if run.chosen_on == "test" and best is not None and best[0] in scores:
        pair = (CheckpointScores(step, scores[step]) for step in (last, best[0]))
        write_scores(run, *pair, trained_on=run.dataset.split_hash())
        return 0
    try:  # the test is still to be taken, or the best was reached before the last stop
        score_checkpoints(run, checkpoints, stop=stop)
    except Interrupted:
        print(f"Stopped before the final scores; run the same {_what_ran()} to go on.", flush=True)
        return STOPPED
    return 0


def _what_ran() -> str:
    return "cell" if in_notebook() else "command"


def _evaluation_due(run: Run, step: int) -> bool:
    """Whether an epoch that asks for an evaluation ends with this step."""
    every = run.settings.eval_every_epochs
    done, before = run.plan.epochs_done(step) // every, run.plan.epochs_done(step - 1) // every
    return step == run.plan.total or done > before
