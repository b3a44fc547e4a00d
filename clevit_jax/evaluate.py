"""Scores of the newest and the best checkpoint of a run: computed, printed and written down."""

import contextlib
import dataclasses
import functools
import pathlib
import time
from collections.abc import Iterator
from typing import Any

import jax
from ml_collections import ConfigDict

from clevit_jax.data import pipeline
from clevit_jax.data.dataset import Dataset
from clevit_jax.data.skipped import counts, summary
from clevit_jax.distributed import processes, sharding, watch
from clevit_jax.distributed.preemption import Interrupted, Stop
from clevit_jax.errors import CheckpointError, ConfigError
from clevit_jax.runs.checkpoint import Checkpoints
from clevit_jax.runs.facts import read_run_facts
from clevit_jax.runs.load import Which, check_step
from clevit_jax.runs.results import RunResult, how_chosen, read_result
from clevit_jax.runs.setup import Run, check_agreement, decode_splits, prepare_run
from clevit_jax.runs.workdir import EVALUATION_FILE, check_workdir, load_config
from clevit_jax.steps.eval_step import Evaluation, evaluate_batches
from clevit_jax.system.files import why_not_writable, write_json
from clevit_jax.system.places import run_place


def evaluate_split(run: Run, params: Any, split: str, *, stop: Stop | None = None) -> Evaluation:
    """Scores parameters, which lie on the devices, on the split "test" or "val".

    Raises:
        Interrupted: `stop` asked for an end.
    """
    batches = pipeline.eval_batches(
        run.images[split],
        [example.label for example in run.dataset.splits[split]],
        batch_size=run.settings.step.eval_batch_size,
        process_index=processes.index(),
        process_count=processes.count(),
        threads=run.settings.data.threads,
    )

    def on_devices() -> Iterator[dict[str, jax.Array]]:
        for number, rows in enumerate(batches):
            if stop is not None and stop.asked():
                raise Interrupted
            watch.note(f"batch {number + 1} of an evaluation")
            batch = sharding.to_global(run.steps.mesh, rows)
            if number == 0:
                processes.compile_together(run.steps.eval_step, params, batch)
            yield batch

    def eval_step(params: Any, batch: dict[str, jax.Array]) -> Any:
        with sharding.no_transfers():
            return run.steps.eval_step(params, batch)

    return evaluate_batches(eval_step, params, on_devices(), run.dataset.levels)


def check_split(run: Run, meta: dict[str, Any]) -> None:
    """Raises ConfigError unless the data set is the one that a checkpoint was trained on."""
    if meta["split_hash"] != run.dataset.split_hash():
        raise ConfigError(
            f"{run.settings.data.name} no longer lists the files and labels that {run.workdir} was "
            "trained on; point --config.data.root at the same data set, or score the run on other "
            "images with --mode eval --other_split."
        )


def _check_classes(run: Run) -> None:
    """Raises ConfigError unless the data set has the classes that the run was trained on."""
    trained = read_run_facts(run.workdir, "class_names")["class_names"]
    here = list(run.dataset.class_names)
    if trained == here:
        return
    missing, new = (
        [name for name in a if name not in b] for a, b in ((trained, here), (here, trained))
    )
    differences = [
        f"{what} {', '.join(map(repr, names[:5]))}{', ...' if len(names) > 5 else ''}"
        for what, names in (("missing are", missing), ("new are", new))
        if names
    ] or ["they stand in another order"]
    raise ConfigError(
        f"{run.settings.data.name} does not have the classes that {run.workdir} was trained on: "
        f"{', '.join(differences)}."
    )


@dataclasses.dataclass(frozen=True)
class CheckpointScores:
    """Scores of one checkpoint.

    Attributes:
        step: of the checkpoint.
        test: on the test split.
        val: on the validation split, where there is one.
    """

    step: int
    test: Evaluation
    val: Evaluation | None = None

    def to_json(self) -> dict[str, Any]:
        """`{"step": ..., "top1": ..., ...}` of the test, with `val` inside where there is one."""
        val = {"val": self.val.to_json()} if self.val else {}
        return {"step": self.step, **self.test.to_json(), **val}


def score_params(run: Run, step: int, params: Any, *, stop: Stop | None = None) -> CheckpointScores:
    """Scores parameters on the test split, and on the validation split where there is one.

    Raises:
        Interrupted: see `evaluate_split`.
    """
    val = evaluate_split(run, params, "val", stop=stop) if run.dataset.val else None
    return CheckpointScores(step, evaluate_split(run, params, "test", stop=stop), val)


def score_checkpoints(
    run: Run,
    checkpoints: Checkpoints,
    *,
    other_split: bool = False,
    stop: Stop | None = None,
    written: bool = True,
) -> None:
    """Scores the newest checkpoint and the best one; prints them and writes evaluation.json.

    Args:
        run: the run, with the data set to score on.
        checkpoints: of the run.
        other_split: whether the data set may be another than the run's. The scores are then
            written to a file of their own, named by the hash of the split.
        stop: see `evaluate_split`.
        written: whether to write them at all.

    Raises:
        CheckpointError: there is no checkpoint that can be read.
        ConfigError: the data set is not the one of the run.
        Interrupted: see `evaluate_split`.
    """
    check = None if other_split else functools.partial(check_split, run)
    like = run.steps.abstract_state
    newest = run.owner.call("checkpoints", lambda: checkpoints.restore_newest(like, check))
    if newest is None:
        raise CheckpointError(f"{run.workdir} has no checkpoint yet; train it first.")
    state, meta = newest
    last = score_params(run, int(state.step), state.eval_params, stop=stop)
    best, step_and_top1 = None, checkpoints.best()
    if step_and_top1 is not None:
        best = last
        if step_and_top1[0] != last.step:
            # One that is damaged must not keep a run from its scores.
            found = run.owner.call("checkpoints", lambda: checkpoints.restore_best(like))
            best = found and score_params(run, int(found[0].step), found[0].eval_params, stop=stop)
    write_scores(run, last, best, trained_on=meta["split_hash"], written=written)


def score_checkpoint(
    run: Run,
    checkpoints: Checkpoints,
    which: Which,
    *,
    other_split: bool = False,
    written: bool = True,
) -> None:
    """Scores one checkpoint; prints it and writes evaluation-step-STEP.json.

    Args:
        run, checkpoints, other_split, written: see `score_checkpoints`.
        which: the newest that can be read, the best, or the one of a step.

    Raises:
        CheckpointError: there is no such checkpoint, or it cannot be read.
        ConfigError: the data set is not the one of the run.
    """
    check = None if other_split else functools.partial(check_split, run)
    like = run.steps.abstract_state
    if which == "last":
        restored = checkpoints.restore_newest(like, check)
        if restored is None:
            raise CheckpointError(f"{run.workdir} has no checkpoint yet; train it first.")
    else:
        best = checkpoints.best() if which == "best" else None
        if which == "best" and best is None:
            raise CheckpointError(f"{run.workdir} has no evaluated checkpoint yet; take its last.")
        step = best[0] if best is not None else int(which)
        check_step(checkpoints, step)
        restored = checkpoints.restore(step, like, check)
    state, meta = restored
    scores = score_params(run, int(state.step), state.eval_params)
    split_hash, trained_on = run.dataset.split_hash(), meta["split_hash"]
    _say_images(run.dataset, trained_on)
    print(f"Test, step {scores.step} of {run.plan.total}: {scores.test}.")
    if scores.val is not None:
        print(f"Validation, step {scores.step}: {scores.val}.")
    path = _scores_path(run, split_hash, trained_on, f"-step-{scores.step}")
    if written:
        _write(path, scores.to_json(), run.dataset)
        print(f"  {'scores':<12} {path}", flush=True)


def _say_images(dataset: Dataset, trained_on: str) -> None:
    if (split_hash := dataset.split_hash()) != trained_on:
        print(f"On other images (split {split_hash[:8]}) than the run's ({trained_on[:8]}):")
    if dataset.skipped:
        print(f"Scored on what could be read; {summary(dataset)}")


def _scores_path(run: Run, split_hash: str, trained_on: str, which: str = "") -> pathlib.Path:
    path = run.workdir / EVALUATION_FILE
    other = f"-{split_hash[:8]}" if split_hash != trained_on else ""
    return path.with_name(f"{path.stem}{which}{other}{path.suffix}")


def _write(path: pathlib.Path, scores: dict[str, Any], dataset: Dataset) -> None:
    if processes.index() != 0:
        return
    facts = {**scores, "split_hash": dataset.split_hash()}
    if dataset.skipped:
        facts["skipped"] = counts(dataset)
        facts["skipped_images"] = [skipped.example.name for skipped in dataset.skipped]
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    write_json(path, {**facts, "written": now})


def write_scores(
    run: Run,
    last: CheckpointScores,
    best: CheckpointScores | None,
    *,
    trained_on: str,
    written: bool = True,
) -> None:
    """Prints the scores of the last and of the best step, and writes them to evaluation.json."""
    split_hash = run.dataset.split_hash()
    known: dict[str, Any] = {}
    with contextlib.suppress(ConfigError):  # a damaged run.json keeps nobody from the scores
        known = read_run_facts(run.workdir)
    same = split_hash == trained_on
    chosen_on = run.chosen_on if same else known.get("chosen_on", "test")
    path = _scores_path(run, split_hash, trained_on)
    _say_images(run.dataset, trained_on)
    label = "" if last.step == run.plan.total else f" of {run.plan.total}, not finished"
    if known.get("ended_at") == last.step:
        label = f" of {run.plan.total}, ended early"
    print(f"Test, last (step {last.step}{label}): {last.test}.")
    facts: dict[str, Any] = {"last": last.to_json()}
    if best is not None:
        print(f"Test, best (step {best.step}, {how_chosen(chosen_on)}): {best.test}.")
        facts["best"] = {"chosen_on": chosen_on, **best.to_json()}
    for name, scores in (("last", last), ("best", best)):
        if scores is not None and scores.val is not None:
            print(f"Validation, {name} (step {scores.step}): {scores.val}.")
    if not written:
        return
    run.owner.check("before its scores are written")
    run.owner.call(EVALUATION_FILE, lambda: _write(path, facts, run.dataset))
    for what, where in (
        ("checkpoints", run.checkpoints),
        ("metrics", run.workdir / "metrics.jsonl"),
        ("TensorBoard", run.workdir / "tensorboard"),
        ("views", run.workdir / "views.png"),
        ("scores", path),
    ):
        print(f"  {what:<12} {where}", flush=True)


def evaluate(config: ConfigDict | None, workdir: str | pathlib.Path) -> RunResult:
    """Scores the newest and the best checkpoint of a run; for scripts and notebooks.

    Args:
        config: of the run; None for the one that it was made with.
        workdir: of the run.

    Returns:
        The scores, see `RunResult`; they are written to evaluation.json, too.

    Raises:
        ClevitError: as `evaluate_workdir`.
    """
    workdir = run_place(workdir, "workdir")
    evaluate_workdir(config if config is not None else load_config(workdir), workdir)
    return read_result(workdir)


def evaluate_workdir(
    config: ConfigDict,
    workdir: pathlib.Path,
    *,
    other_split: bool = False,
    checkpoint: Which | None = None,
) -> int:
    """`--mode eval`: scores the newest and the best checkpoint of a run. Returns 0.

    Args:
        config: of the run; with `other_split`, its settings of `data` may be others.
        workdir: of the run.
        other_split: whether to score on images that are not the run's.
        checkpoint: the one to score, see `score_checkpoint`; None for the newest and the best.

    Raises:
        ConfigError, DataError, CheckpointError: in one sentence, nothing is changed.
    """
    check_workdir(workdir, config, free=("data.",) if other_split else (), reading=True)
    run = prepare_run(config, workdir, training=False, other_split=other_split)
    if not run.checkpoints.exists():
        raise CheckpointError(f"{workdir} has no checkpoint yet; train it first.")
    if other_split:
        _check_classes(run)
    check_agreement(run)
    checkpoints = Checkpoints(run.checkpoints, keep=config.checkpoint.keep, read_only=True)
    reason = processes.broadcast("writable", why_not_writable(workdir))
    try:
        if isinstance(checkpoint, int):
            check_step(checkpoints, checkpoint)  # before images are read
        # Which images a run leaves out is told by all of them, where it is not written down.
        every = not run.decided and not other_split
        splits = [split for split in run.dataset.splits if every or split != "train"]
        run = decode_splits(run, splits, other_split=other_split)
        written = not reason
        if checkpoint is None:
            score_checkpoints(run, checkpoints, other_split=other_split, written=written)
        else:
            score_checkpoint(run, checkpoints, checkpoint, other_split=other_split, written=written)
    finally:
        checkpoints.close()
    if reason:  # as of another's run
        print(f"The scores are not written, since {workdir} cannot be written to: {reason}.")
    return 0
