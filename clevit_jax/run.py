"""What a run is made of, and how its checkpoints are scored."""

import dataclasses
import functools
import pathlib
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
from ml_collections import ConfigDict
from tqdm import tqdm

from clevit_jax import architecture, experiment, pretrained, rundir, sharding, swin, trained
from clevit_jax.checkpoint import CheckpointError, Checkpoints
from clevit_jax.data import pipeline
from clevit_jax.data.dataset import DataError, Dataset
from clevit_jax.data.pipeline import DecodedImages
from clevit_jax.evaluate import Evaluation, evaluate, make_eval_step
from clevit_jax.experiment import ConfigError, Plan
from clevit_jax.state import TrainState, abstract_state, create_state
from clevit_jax.step import make_train_step
from clevit_jax.weights_error import WeightsError


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
    initial_state: Callable[..., TrainState]  # of pre-trained parameters, or random
    like: TrainState  # shapes and shardings of a state
    train_step: Callable[..., Any]
    eval_step: Callable[..., Any]

    @property
    def checkpoints(self) -> pathlib.Path:
        return self.workdir / rundir.CHECKPOINTS


def prepare(config: ConfigDict, workdir: pathlib.Path, *, training: bool = True) -> Run:
    """Checks all that can be checked without decoding an image, and writes no file of the run.

    Args:
        config: in the form of `configs/base.py`.
        workdir: folder of the run.
        training: whether training images will be kept in memory too.

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

    def initial_state(params: Any = None) -> TrainState:
        ema = config.optim.ema > 0
        return create_state(model, optimizer, mesh, seed=config.seed, ema=ema, params=params)

    return Run(
        config=config,
        workdir=workdir,
        dataset=dataset,
        train_images=experiment.training_images(config, dataset),
        test_images=experiment.eval_images(config, dataset, training=training),
        plan=plan,
        mesh=mesh,
        model=model,
        initial_state=initial_state,
        like=abstract_state(abstract, optimizer, mesh, ema=config.optim.ema > 0),
        train_step=train_step,
        eval_step=jax.jit(make_eval_step(graphdef), out_shardings=sharding.replicated(mesh)),
    )


@dataclasses.dataclass(frozen=True)
class Start:
    """Pre-trained parameters, as the model of a run wants them.

    Attributes:
        params: nested dict of float32 NumPy arrays.
        facts: where they come from and what became of each of them, JSON-able.
    """

    params: Any
    facts: dict[str, Any]


def read_start(run: Run) -> Start | None:
    """Reads `model.pretrained` and prints the load report; None where the start is random.

    Raises:
        ConfigError: the weights or the class map cannot be read, or do not fit the model.
        CheckpointError: they are a run that has no readable checkpoint.
    """
    path, class_map = run.config.model.pretrained, run.config.model.class_map
    if not path:
        return None
    try:
        weights = trained.read(path)
        mapping = pretrained.read_class_map(class_map) if class_map else None
        params, report = pretrained.fit(weights, run.model, class_map=mapping)
    except WeightsError as error:
        raise ConfigError(f"model.pretrained: {error}") from error
    print(f"Starting from {dataclasses.replace(weights, report=report)}", flush=True)
    if not report.reinitialised and not report.mapped:
        print(f"  The head is kept: {run.model.num_classes} classes there and here.", flush=True)
    facts = {
        "source": weights.source,
        "path": str(path),
        "sha256": weights.source_sha256,
        "dialect": weights.dialect,
        "architecture": architecture.to_json(weights.model),
        "report": dataclasses.asdict(report),
    }
    return Start(params, facts)


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


class Interrupted(Exception):  # noqa: N818 - no error: the caller asked for it
    """A signal ended an evaluation."""


def evaluate_test(run: Run, params: Any, *, stop: Sequence[int] = ()) -> Evaluation:
    """Scores parameters on the test split.

    Raises:
        Interrupted: `stop` was filled by a signal; several processes finish together instead.
    """
    batches = pipeline.eval_batches(
        run.test_images,
        [example.label for example in run.dataset.test],
        batch_size=run.config.eval.batch_size,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
        threads=experiment.threads(run.config),
    )

    def on_devices() -> Iterator[dict[str, jax.Array]]:
        for batch in batches:
            if stop and jax.process_count() == 1:
                raise Interrupted
            yield sharding.to_global(run.mesh, batch)

    return evaluate(run.eval_step, params, on_devices())


def check_split(run: Run, meta: dict[str, Any]) -> None:
    """Raises ConfigError unless the data set is the one that a checkpoint was trained on."""
    if meta["split_hash"] != run.dataset.split_hash():
        raise ConfigError(
            f"{run.config.data.root} no longer lists the files and labels that {run.workdir} was "
            "trained on; point --config.data.root at the same data set."
        )


def report_checkpoints(run: Run, checkpoints: Checkpoints) -> None:
    """Scores the newest checkpoint and the best one; prints them and writes evaluation.json.

    Raises:
        CheckpointError: there is no checkpoint that can be read.
        ConfigError: the data set is not the one of the run.
    """
    newest = checkpoints.restore_newest(run.like, functools.partial(check_split, run))
    if newest is None:
        raise CheckpointError(f"{run.workdir} has no checkpoint yet; train it first.")
    state, _ = newest
    last, best = int(state.step), checkpoints.best()
    scores = {last: evaluate_test(run, state.eval_params)}
    if best is not None and best[0] not in scores:
        state, _ = checkpoints.restore(best[0], run.like)
        scores[best[0]] = evaluate_test(run, state.eval_params)
    report(run, scores, last, None if best is None else best[0])


def report(run: Run, scores: dict[int, Evaluation], last: int, best: int | None) -> None:
    """Prints the scores of the last and of the best step, and writes them to evaluation.json."""
    label = "" if last == run.plan.total else f" of {run.plan.total}, not finished"
    print(f"Test, last (step {last}{label}): {scores[last]}.")
    result: dict[str, Any] = {"last": {"step": last, **dataclasses.asdict(scores[last])}}
    if best is not None:
        print(f"Test, best (step {best}, chosen on the test set, so it flatters): {scores[best]}.")
        chosen = {"step": best, "chosen_on": "test", **dataclasses.asdict(scores[best])}
        result["best"] = chosen
    result |= {
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
        print(f"  {what:<12} {where}", flush=True)


def evaluate_workdir(config: ConfigDict, workdir: pathlib.Path) -> int:
    """`--mode eval`: scores the newest and the best checkpoint of a run. Returns 0.

    Raises:
        ConfigError, DataError, CheckpointError: in one sentence, nothing is changed.
    """
    rundir.check(workdir, config)
    run = prepare(config, workdir, training=False)
    if not run.checkpoints.exists():
        raise CheckpointError(f"{workdir} has no checkpoint yet; train it first.")
    run.test_images.fill(threads=experiment.threads(config))
    checkpoints = Checkpoints(run.checkpoints, keep=config.checkpoint.keep, read_only=True)
    try:
        report_checkpoints(run, checkpoints)
    finally:
        checkpoints.close()
    return 0
