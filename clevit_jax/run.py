"""What a run is made of, and how its checkpoints are scored."""

import dataclasses
import functools
import pathlib
import time
from collections.abc import Callable
from typing import Any

import jax
from ml_collections import ConfigDict
from tqdm import tqdm

from clevit_jax import experiment, rundir, sharding, swin
from clevit_jax.checkpoint import CheckpointError, Checkpoints
from clevit_jax.data import pipeline
from clevit_jax.data.pipeline import DecodedImages
from clevit_jax.data.sources import DataError, Dataset
from clevit_jax.evaluate import Evaluation, evaluate, make_eval_step
from clevit_jax.experiment import ConfigError, Plan
from clevit_jax.state import TrainState, create_state
from clevit_jax.step import make_train_step


@dataclasses.dataclass(frozen=True)
class Run:
    """What a run is made of, whether it trains or evaluates; nothing is computed yet."""

    config: ConfigDict
    workdir: pathlib.Path
    dataset: Dataset
    train_images: DecodedImages
    test_images: DecodedImages
    plan: Plan
    mesh: jax.sharding.Mesh
    model: swin.SwinConfig
    initial_state: Callable[[], TrainState]
    train_step: Callable[..., Any]
    eval_step: Callable[..., Any]

    @property
    def checkpoints(self) -> pathlib.Path:
        return self.workdir / "checkpoints"


def prepare(config: ConfigDict, workdir: pathlib.Path) -> Run:
    """Checks all that can be checked without decoding an image, and writes no file of the run.

    Args:
        config: in the form of `configs/base.py`.
        workdir: folder of the run.

    Raises:
        ConfigError: a setting that cannot be used.
        DataError: everything wrong with the data set.
    """
    try:
        experiment.check_numbers(config)
        views, loss = experiment.view_config(config), experiment.loss_config(config)
        experiment.model_config(config, num_classes=1)  # before the data set is looked at
        mesh = sharding.make_mesh(config.mesh.data, config.mesh.fsdp)
        parts = mesh.size * config.accumulation
        sharding.check_batch_size("batch_size", config.batch_size, parts)
        sharding.check_batch_size("eval.batch_size", config.eval.batch_size, mesh.size)
        dataset = experiment.open_data(config)
        plan = experiment.make_plan(config, len(dataset.train))
        model = experiment.model_config(config, dataset.num_classes)
        graphdef, abstract = swin.abstract_swin(model)
        optimizer = experiment.optimizer(config, plan, abstract)
    except DataError:
        raise
    except ValueError as error:
        raise ConfigError(str(error)) from error
    train_step = make_train_step(
        graphdef, optimizer, views=views, loss=loss, seed=config.seed,
        num_drop_paths=model.num_drop_paths if model.drop_path else 0,
        accumulation=config.accumulation, ema_decay=config.optim.ema,
    )  # fmt: skip

    def initial_state() -> TrainState:
        return create_state(model, optimizer, mesh, seed=config.seed, ema=config.optim.ema > 0)

    return Run(
        config=config,
        workdir=workdir,
        dataset=dataset,
        train_images=experiment.training_images(config, dataset),
        test_images=experiment.test_images(config, dataset),
        plan=plan,
        mesh=mesh,
        model=model,
        initial_state=initial_state,
        train_step=train_step,
        eval_step=jax.jit(make_eval_step(graphdef), out_shardings=sharding.replicated(mesh)),
    )


def decode_all(run: Run) -> None:
    """Decodes every image once, into memory while it lasts. Raises DataError with all bad ones."""
    problems: list[str] = []
    for split, images in (("training", run.train_images), ("test", run.test_images)):
        with tqdm(total=len(images), unit=" images", desc=f"Reading {split} images") as bar:

            def advance(done: int, _: int, bar: tqdm = bar) -> None:
                bar.update(done - bar.n)

            try:
                images.fill(threads=experiment.threads(run.config), progress=advance)
            except DataError as error:
                problems += error.problems
    if problems:
        raise DataError(problems)


def evaluate_test(run: Run, params: Any) -> Evaluation:
    """Scores parameters on the test split."""
    batches = pipeline.eval_batches(
        run.test_images,
        [example.label for example in run.dataset.test],
        batch_size=run.config.eval.batch_size,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
        threads=experiment.threads(run.config),
    )
    return evaluate(
        run.eval_step, params, (sharding.to_global(run.mesh, batch) for batch in batches)
    )


def check_split(run: Run, meta: dict[str, Any]) -> None:
    """Raises ConfigError unless the data set is the one that a checkpoint was trained on."""
    if meta["split_hash"] != run.dataset.split_hash():
        raise ConfigError(
            f"{run.config.data.root} no longer lists the files and labels that {run.workdir} was "
            "trained on; point --config.data.root at the same data set."
        )


def report_checkpoints(run: Run, checkpoints: Checkpoints, like: TrainState) -> dict[str, Any]:
    """Scores the newest checkpoint and the best one; prints them and writes evaluation.json.

    Raises:
        CheckpointError: there is no checkpoint that can be read.
        ConfigError: the data set is not the one of the run.
    """
    newest = checkpoints.restore_newest(like, functools.partial(check_split, run))
    if newest is None:
        raise CheckpointError(f"{run.workdir} has no checkpoint yet; train it first.")
    state, _ = newest
    last, best = int(state.step), checkpoints.best()
    scores = {last: evaluate_test(run, state.eval_params)}
    if best is not None and best[0] not in scores:
        state, _ = checkpoints.restore(best[0], like)
        scores[best[0]] = evaluate_test(run, state.eval_params)
    return report(run, scores, last, last if best is None else best[0])


def report(run: Run, scores: dict[int, Evaluation], last: int, best: int) -> dict[str, Any]:
    """Prints the scores of the last and of the best step, and writes them to evaluation.json."""
    label = "" if last == run.plan.total else f" of {run.plan.total}, not finished"
    print(f"Test, last (step {last}{label}): {scores[last]}.")
    print(f"Test, best (step {best}, chosen on the test set, so it flatters): {scores[best]}.")
    result = {
        "last": {"step": last, **dataclasses.asdict(scores[last])},
        "best": {"step": best, "chosen_on": "test", **dataclasses.asdict(scores[best])},
        "split_hash": run.dataset.split_hash(),
        "written": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
    if jax.process_index() == 0:
        rundir.write_json(run.workdir / rundir.RESULT, result)
    for what, where in (
        ("checkpoints", run.checkpoints),
        ("metrics", run.workdir / "metrics.jsonl"),
        ("TensorBoard", run.workdir / "tensorboard"),
        ("views", run.workdir / "views.png"),
        ("result", run.workdir / rundir.RESULT),
    ):
        print(f"  {what:<12} {where}")
    return result


def evaluate_workdir(config: ConfigDict, workdir: pathlib.Path) -> int:
    """`--mode eval`: scores the newest and the best checkpoint of a run. Returns 0.

    Raises:
        ConfigError, DataError, CheckpointError: in one sentence, nothing is changed.
    """
    rundir.check(workdir, config)
    run = prepare(config, workdir)
    if not run.checkpoints.exists():
        raise CheckpointError(f"{workdir} has no checkpoint yet; train it first.")
    run.test_images.fill(threads=experiment.threads(config))
    checkpoints = Checkpoints(run.checkpoints, keep=config.checkpoint.keep, read_only=True)
    try:
        report_checkpoints(run, checkpoints, run.initial_state())
    finally:
        checkpoints.close()
    return 0
