"""What a run is made of, whether it trains or evaluates."""

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import Any

import jax
from ml_collections import ConfigDict
from tqdm import tqdm

from clevit_jax import (
    architecture,
    experiment,
    pretrained,
    processes,
    rundir,
    sharding,
    trained,
)
from clevit_jax.data import pipeline
from clevit_jax.data.dataset import DataError, Dataset
from clevit_jax.data.pipeline import DecodedImages
from clevit_jax.experiment import ConfigError, Plan
from clevit_jax.program import Program, check_batches, make_program
from clevit_jax.weights_error import WeightsError

SPLIT_NAMES = {"train": "training", "val": "validation", "test": "test"}


@dataclasses.dataclass(frozen=True)
class Run:
    """What a run is made of, whether it trains or evaluates; nothing is computed yet."""

    config: ConfigDict
    workdir: pathlib.Path
    dataset: Dataset
    images: dict[str, DecodedImages]  # of each split
    plan: Plan
    program: Program

    @property
    def chosen_on(self) -> str:
        """The split that the best checkpoint is chosen on: "val" where there is one, or "test"."""
        return "val" if self.dataset.val else "test"

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
    platform = jax.default_backend()
    try:
        experiment.check_numbers(config)
        experiment.view_config(config)  # these three before the data set is looked at
        experiment.loss_config(config)
        experiment.model_config(config, num_classes=1, platform=platform)
        mesh = sharding.make_mesh(config.mesh.data, config.mesh.fsdp)
        check_batches(config, mesh)
        dataset = experiment.open_data(config)
        plan = experiment.make_plan(config, len(dataset.train))
        program = make_program(
            config, mesh, num_classes=dataset.num_classes, plan=plan, platform=platform
        )
    except DataError:
        raise
    except ValueError as error:
        raise ConfigError(str(error)) from error
    return Run(
        config=config,
        workdir=workdir,
        dataset=dataset,
        images=experiment.decoded_images(config, dataset, training=training),
        plan=plan,
        program=program,
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
        ConfigError: the weights or the class map cannot be read, do not fit the model, or are
            not the same on all processes.
        CheckpointError: they are a run that has no readable checkpoint.
    """
    path, class_map = run.config.model.pretrained, run.config.model.class_map
    if not path:
        return None
    try:
        weights = trained.read(path)
        mapping = pretrained.read_class_map(class_map) if class_map else None
        params, report = pretrained.fit(weights, run.program.model, class_map=mapping)
    except WeightsError as error:
        raise ConfigError(f"model.pretrained: {error}") from error
    print(f"Starting from {dataclasses.replace(weights, report=report)}", flush=True)
    if not report.reinitialised and not report.mapped:
        classes = run.program.model.num_classes
        print(f"  The head is kept: {classes} classes there and here.", flush=True)
    facts = {
        "source": weights.source,
        "path": str(path),
        "sha256": weights.source_sha256,
        "dialect": weights.dialect,
        "architecture": architecture.to_json(weights.model),
        "report": dataclasses.asdict(report),
    }
    found = processes.gather("start", facts)
    if different := [number for number, other in enumerate(found) if other != found[0]]:
        raise ConfigError(
            f"model.pretrained: process {different[0]} found other weights in {path} than process "
            "0; put the same file on all hosts."
        )
    return Start(params, facts)


def check_agreement(run: Run) -> None:
    """Raises ConfigError unless all processes were asked for the same run, on the same images."""
    settings = experiment.flatten(run.config)
    here = {name: str(value) for name, value in settings.items() if name not in rundir.LOCAL}
    here |= {"the workdir": str(run.workdir.absolute())}
    here |= {"the images and labels (split hash)": run.dataset.split_hash()}
    here |= {"the version of jax": jax.__version__}
    first, *others = processes.gather("settings", here)
    for number, other in enumerate(others, start=1):
        different = [
            f"{name}: {first.get(name)}, {other.get(name)}"
            for name in sorted(first.keys() | other.keys())
            if first.get(name) != other.get(name)
        ]
        if different:
            raise ConfigError(
                f"Process {number} was started for another run than process 0; give all the same "
                f"command. Different are (process 0, process {number}): {'; '.join(different)}."
            )


def decode_all(run: Run) -> None:
    """Decodes every image once, into memory while it lasts. Raises DataError with all bad ones."""
    fill(run, list(run.images))


def fill(run: Run, splits: list[str]) -> None:
    """Decodes the images of some splits, into memory while it lasts.

    Of several processes each decodes its share; what of the training images falls to it later in
    an epoch, it decodes then.

    Raises:
        DataError: names all that cannot be decoded, by whatever process.
    """
    problems: list[str] = []
    me, count = processes.index(), processes.count()
    for split in splits:
        images = run.images[split]
        rows: Sequence[int] = range(me, len(images), count)
        if split != "train":
            rows = pipeline.eval_rows(len(images), run.config.eval.batch_size, me, count)
        desc = f"Reading {SPLIT_NAMES[split]} images"
        with tqdm(total=len(rows), unit=" images", desc=desc, disable=me > 0) as bar:

            def advance(done: int, _: int, bar: tqdm = bar) -> None:
                bar.update(done - bar.n)

            try:
                images.fill(rows, threads=experiment.threads(run.config), progress=advance)
            except DataError as error:
                problems += error.problems
    found = [problem for part in processes.gather("problems", problems) for problem in part]
    if found:
        raise DataError(found)
