"""Setup of a run, shared by training and evaluation: settings, data set and jitted steps."""

import contextlib
import dataclasses
import pathlib
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from clevit_jax.config import (
    PER_HOST,
    Settings,
    check_config,
    flatten,
    resolve,
    resolve_data,
)
from clevit_jax.data import pipeline
from clevit_jax.data.dataset import SPLIT_NAMES, Dataset, Level
from clevit_jax.data.open import decoded_images, open_data
from clevit_jax.data.pipeline import DecodedImages
from clevit_jax.distributed import processes, sharding
from clevit_jax.distributed.preemption import Stop
from clevit_jax.errors import ConfigError, DataError, WeightsError
from clevit_jax.runs.facts import levels_of, read_run_facts
from clevit_jax.runs.load import read_weights
from clevit_jax.runs.reading import fit_devices, readable
from clevit_jax.runs.workdir import CHECKPOINTS_FOLDER
from clevit_jax.steps.jitted import JittedSteps, check_batches, make_jitted_steps
from clevit_jax.steps.schedule import Plan
from clevit_jax.system.progress import progress_bar
from clevit_jax.weights.convert import Weights
from clevit_jax.weights.fit import fit_weights, read_class_map


@dataclasses.dataclass(frozen=True)
class Run:
    """A run, set up to train or to be scored; nothing is computed yet.

    Attributes:
        config: as the user gave it; only written down and compared with others.
        settings: the same, typed and checked.
        workdir: folder of the run.
        dataset: its examples.
        images: of each split, decoded when they are asked for.
        steps: the jitted steps.
    """

    config: ConfigDict
    settings: Settings
    workdir: pathlib.Path
    dataset: Dataset
    images: dict[str, DecodedImages]
    steps: JittedSteps

    @property
    def plan(self) -> Plan:
        """How epochs become updates."""
        return self.settings.plan

    @property
    def chosen_on(self) -> str:
        """The split that the best checkpoint is chosen on: "val" where there is one, or "test"."""
        return "val" if self.dataset.val else "test"

    @property
    def checkpoints(self) -> pathlib.Path:
        return self.workdir / CHECKPOINTS_FOLDER


def prepare_run(config: ConfigDict, workdir: pathlib.Path, *, training: bool = True) -> Run:
    """Checks all that can be checked without decoding an image, and writes no file of the run.

    Args:
        config: in the form of `configs/base.py`.
        workdir: folder of the run.
        training: whether training images will be kept in memory too. A run that is not trained
            fits itself to the devices that are here (`reading`).

    Raises:
        ConfigError: a setting that cannot be used.
        DataError: everything wrong with the data set.
    """
    platform = jax.default_backend()
    if not training:
        config = readable(config, platform)
    check_config(config, platform)
    if training:
        try:
            mesh = sharding.make_mesh(config.mesh.data, config.mesh.fsdp)
            check_batches(config.batch_size, config.eval.batch_size, config.accumulation, mesh)
        except ValueError as error:
            raise ConfigError(str(error)) from error
    dataset = open_data(resolve_data(config))
    if not training and not dataset.levels:
        dataset = dataclasses.replace(dataset, levels=_recorded_levels(workdir, dataset))
    settings = resolve(config, dataset, platform)
    if not training:
        settings, mesh = fit_devices(settings)
    return Run(
        config=config,
        settings=settings,
        workdir=workdir,
        dataset=dataset,
        images=decoded_images(settings.data, dataset, training=training),
        steps=make_jitted_steps(settings.step, mesh),
    )


def _recorded_levels(workdir: pathlib.Path, dataset: Dataset) -> tuple[Level, ...]:
    """The coarser levels that a run knows its classes by, where other images do not tell them."""
    with contextlib.suppress(ConfigError):  # a damaged run.json keeps nobody from the scores
        facts = read_run_facts(workdir, "class_names")
        if tuple(facts["class_names"]) == dataset.class_names:
            return levels_of(facts)
    return ()


@dataclasses.dataclass(frozen=True)
class Pretrained:
    """Pre-trained parameters, fitted to the model of a run.

    Attributes:
        params: nested dict of float32 NumPy arrays.
        facts: where they come from and what became of each of them, JSON-able.
    """

    params: Any
    facts: dict[str, Any]


def read_pretrained(run: Run) -> Pretrained | None:
    """Reads `model.pretrained` and prints the load report; None where parameters are drawn.

    Raises:
        ConfigError: the weights or the class map cannot be read, do not fit the model, or are
            not the same on all processes.
        CheckpointError: the path is a run without a readable checkpoint.
    """
    path, class_map = run.settings.pretrained, run.settings.class_map
    if not path:
        return None
    try:
        weights = read_weights(path)
        mapping = read_class_map(class_map) if class_map else _map_by_name(weights, run.dataset)
        anew = mapping is None and _other_classes(weights, run.dataset)
        params, report = fit_weights(weights, run.steps.model, class_map=mapping, new_head=anew)
    except WeightsError as error:
        raise ConfigError(f"model.pretrained: {error}") from error
    print(f"Starting from {dataclasses.replace(weights, report=report)}", flush=True)
    if not report.reinitialised and not report.mapped:
        classes = run.steps.model.num_classes
        print(f"  The head is kept: {classes} classes there and here.", flush=True)
    facts = {
        "source": weights.source,
        "path": str(path),
        "sha256": weights.source_sha256,
        "dialect": weights.dialect,
        "architecture": weights.model.to_json(),
        "report": dataclasses.asdict(report),
    }
    by_process = processes.gather("start", facts)
    if different := [k for k, other in enumerate(by_process) if other != by_process[0]]:
        raise ConfigError(
            f"model.pretrained: process {different[0]} found other weights in {path} than process "
            "0; put the same file on all hosts."
        )
    return Pretrained(params, facts)


def _map_by_name(weights: Weights, dataset: Dataset) -> np.ndarray | None:
    """For each class its number in the weights, where they name all of them but order otherwise."""
    there, here = list(weights.class_names), list(dataset.class_names)
    # Numbers are no names: class 3 of another data set is another class.
    if there == here or not set(here) <= set(there) or all(name.isdecimal() for name in here):
        return None
    print(f"  The head's classes are taken by name: {len(here)} of {len(there)}.", flush=True)
    return np.array([there.index(name) for name in here])


def _other_classes(weights: Weights, dataset: Dataset) -> bool:
    """Whether the weights name classes that are not those of the data set."""
    there = weights.class_names
    named = bool(there) and there != tuple(map(str, range(len(there))))
    return named and there != dataset.class_names


def check_agreement(run: Run) -> None:
    """Raises ConfigError unless all processes were asked for the same run, on the same images."""
    settings = flatten(run.config)
    here = {name: str(value) for name, value in settings.items() if name not in PER_HOST}
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
                f"command. Differences (process 0, process {number}): {'; '.join(different)}."
            )


def decode_all(run: Run, stop: Stop | None = None) -> None:
    """Decodes every image once, into memory while it lasts. Raises as `decode_splits` does."""
    decode_splits(run, list(run.images), stop)


def decode_splits(run: Run, splits: list[str], stop: Stop | None = None) -> None:
    """Decodes the images of some splits, into memory while it lasts.

    With several processes, each decodes its share. A training image that falls to a process later,
    in another epoch, it decodes then.

    Raises:
        DataError: names every image that cannot be decoded, by whatever process.
        Interrupted: `stop` asked for an end.
    """
    problems: list[str] = []
    me, count = processes.index(), processes.count()
    for split in splits:
        images = run.images[split]
        rows: Sequence[int] = range(me, len(images), count)
        if split != "train":
            rows = pipeline.eval_rows(len(images), run.settings.step.eval_batch_size, me, count)
        desc = f"Reading {SPLIT_NAMES[split]} images"
        with progress_bar(total=len(rows), unit=" images", desc=desc, disable=me > 0) as bar:

            def advance(done: int, _: int, bar: Any = bar) -> None:
                bar.update(done - bar.n)
                if stop is not None:
                    stop.check()

            try:
                images.fill(rows, threads=run.settings.data.threads, progress=advance)
            except DataError as error:
                problems += error.problems
    of_all = [problem for part in processes.gather("problems", problems) for problem in part]
    if of_all:
        raise DataError(of_all)
