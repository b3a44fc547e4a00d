"""Setup of a run, shared by training and evaluation: settings, data set and jitted steps."""

import contextlib
import dataclasses
import pathlib
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
from clevit_jax.data.dataset import SPLIT_NAMES, Dataset, Level
from clevit_jax.data.from_address import copied
from clevit_jax.data.layouts.listing import first_three
from clevit_jax.data.open import decoded_images, open_data
from clevit_jax.data.pipeline import DecodedImages
from clevit_jax.data.skipped import check_limit, how_to_go_on, leave_out, summary
from clevit_jax.distributed import processes, sharding
from clevit_jax.distributed.preemption import Stop
from clevit_jax.errors import ConfigError, DataError, WeightsError
from clevit_jax.model.preprocessing import IMAGENET_MEAN, IMAGENET_STD
from clevit_jax.runs import trackers
from clevit_jax.runs.facts import levels_of, read_run_facts
from clevit_jax.runs.load import read_weights
from clevit_jax.runs.normalisation import mean_and_std
from clevit_jax.runs.odd_images import say_odd
from clevit_jax.runs.owner import Owner
from clevit_jax.runs.reading import fit_devices, readable
from clevit_jax.runs.skipped import (
    SKIPPED_FILE,
    as_recorded,
    find_bad,
    known_skipped,
    put_back,
    readable_again,
    say_skipped,
    write_skipped,
)
from clevit_jax.runs.workdir import CHECKPOINTS_FOLDER, has_checkpoints
from clevit_jax.steps.jitted import JittedSteps, check_batches, make_jitted_steps
from clevit_jax.steps.schedule import Plan
from clevit_jax.system import addresses
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
        decided: whether it is known which images are left out; else `decode_splits` finds out.
        owner: this start's hold on the workdir, where it writes.
    """

    config: ConfigDict
    settings: Settings
    workdir: pathlib.Path
    dataset: Dataset
    images: dict[str, DecodedImages]
    steps: JittedSteps
    decided: bool = True
    owner: Owner = dataclasses.field(default_factory=Owner)

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


def prepare_run(
    config: ConfigDict, workdir: pathlib.Path, *, training: bool = True, other_split: bool = False
) -> Run:
    """Checks all that can be checked without decoding an image, and writes no file of the run.

    Args:
        config: in the form of `configs/base.py`.
        workdir: folder of the run.
        training: whether training images will be kept in memory too. A run that is not trained
            fits itself to the devices that are here (`reading`).
        other_split: whether the images need not be those of the run.

    Raises:
        ConfigError: a setting that cannot be used.
        DataError: everything wrong with the data set.
    """
    platform = jax.default_backend()
    if not training:
        config = readable(config, platform)
    check_config(config, platform)
    if training:
        if processes.index() == 0:
            trackers.check_packages(config)
        try:
            mesh = sharding.make_mesh(config.mesh.data, config.mesh.fsdp)
            check_batches(config.batch_size, config.eval.batch_size, config.accumulation, mesh)
        except ValueError as error:
            raise ConfigError(str(error)) from error
    dataset = open_data(resolve_data(config))
    skipping = config.data.on_bad_image == "skip"
    record = known_skipped(workdir, config) if skipping and not other_split else None
    # Also where nothing is skipped: processes that were given other settings must not wait here.
    record = processes.broadcast("skipped", record)
    if skipping and record is not None:
        dataset = as_recorded(dataset, record)
    if not training and not dataset.levels:
        dataset = dataclasses.replace(dataset, levels=_recorded_levels(workdir, dataset))
    settings = resolve(config, dataset, platform)
    settings = _normalised(settings, config, workdir, training=training)
    if not training:
        settings, mesh = fit_devices(settings)
    return Run(
        config=config,
        settings=settings,
        workdir=workdir,
        dataset=dataset,
        images=decoded_images(settings.data, dataset, training=training),
        steps=make_jitted_steps(settings.step, mesh),
        decided=not skipping or record is not None,
    )


def _normalised(
    settings: Settings, config: ConfigDict, workdir: pathlib.Path, *, training: bool
) -> Settings:
    """Settings with the mean and std of the run."""
    copy_to = settings.data.copy_to
    found = mean_and_std(config, workdir, settings.pretrained, copy_to)
    mean, std = processes.broadcast("mean and std", found)  # files may be process 0's alone
    views = dataclasses.replace(settings.step.views, mean=mean, std=std)
    if training and (views.mean, views.std) != (IMAGENET_MEAN, IMAGENET_STD):
        print(f"Images are normalised by mean {views.mean} and std {views.std}.", flush=True)
    return dataclasses.replace(settings, step=dataclasses.replace(settings.step, views=views))


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
        copies = run.settings.data.copy_to
        weights = read_weights(path, copy_to=copies)
        mapping = (
            read_class_map(class_map, copies) if class_map else _map_by_name(weights, run.dataset)
        )
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
        "path": addresses.shown(path),
        "sha256": weights.source_sha256,
        "dialect": weights.dialect,
        "architecture": weights.model.to_json(),
        "report": dataclasses.asdict(report),
    }
    by_process = processes.gather("start", facts)
    if different := [k for k, other in enumerate(by_process) if other != by_process[0]]:
        raise ConfigError(
            f"model.pretrained: process {different[0]} found other weights in "
            f"{addresses.shown(path)} than process 0; put the same file on all hosts."
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
    data = run.settings.data
    copy = copied(data.root, data.request, data.copy_to)
    if len(set(processes.gather("copies", copy and copy.state)) - {None}) > 1:
        raise ConfigError(
            f"data.root was changed while the hosts copied it ({data.root}): they have different "
            "states of it; wait until nothing is written there any more, and start all again."
        )
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


def decode_all(run: Run, stop: Stop | None = None) -> Run:
    """Decodes every image once, into memory while it lasts. See `decode_splits`."""
    return decode_splits(run, list(run.images), stop)


def decode_splits(
    run: Run, splits: list[str], stop: Stop | None = None, *, other_split: bool = False
) -> Run:
    """Decodes the images of some splits, into memory while it lasts.

    Where `data.on_bad_image=skip` has to be decided, bad images are left out, and said. A run that
    is under way keeps to those that it was begun with: one that can be read by now is said, and one
    that cannot be read any more is an error.

    Args:
        run: the run.
        splits: of its data set.
        stop: asked now and then.
        other_split: whether the images need not be those of the run.

    Returns:
        The run with the images that it has.

    Raises:
        DataError: names every image that cannot be decoded, by whatever process, or more than
            `data.max_bad` of them.
        Interrupted: `stop` asked for an end.
    """
    batch, data = run.settings.step.eval_batch_size, run.settings.data
    found = find_bad(
        run.dataset, run.images, splits, eval_batch=batch, threads=data.threads, stop=stop
    )
    say_odd(run.images, splits, bits=data.decoding.bits)
    if not run.decided:
        reduced = leave_out(run.dataset, found)
        check_limit(reduced, data.max_bad)
        say_skipped(reduced, None if other_split else run.workdir / SKIPPED_FILE)
        return _with_dataset(run, reduced)
    if found:
        fixed = data.on_bad_image == "skip" or has_checkpoints(run.workdir)
        begun = fixed and not other_split
        way_on = put_back(run.workdir, found) if begun else how_to_go_on(found, run.dataset, data)
        raise DataError([way_on, *(skipped.reason for skipped in found)])
    again = readable_again(run.dataset, run.images, splits, threads=data.threads)
    if again:
        print(
            f"{len(again):,} of the images that {run.workdir} leaves out can be read by now "
            f"({first_three(again)}); they stay left out, so that batches and scores remain what "
            "they were.",
            flush=True,
        )
    return run


def keep_skipped(run: Run, *, anew: bool) -> None:
    """Writes what the run leaves out, for all that follows; `anew`: also over what is there."""
    if run.config.data.on_bad_image != "skip" or processes.index() != 0:
        return
    if anew or not (run.workdir / SKIPPED_FILE).is_file():
        run.owner.call(SKIPPED_FILE, lambda: write_skipped(run.workdir, run.dataset))


def _with_dataset(run: Run, dataset: Dataset) -> Run:
    """The run on what was left of its data set, with what was decoded of it."""
    if not dataset.skipped:
        return dataclasses.replace(run, decided=True)
    fewer = resolve(run.config, dataset, jax.default_backend())
    step = dataclasses.replace(run.settings.step, schedule=fewer.step.schedule)
    gone: dict[str, list[int]] = {split: [] for split in run.images}
    for skipped in dataset.skipped:
        gone[skipped.split].append(skipped.example.id)
    return dataclasses.replace(
        run,
        settings=dataclasses.replace(run.settings, plan=fewer.plan, step=step),
        dataset=dataset,
        images={split: images.without(gone[split]) for split, images in run.images.items()},
        steps=make_jitted_steps(step, run.steps.mesh),
        decided=True,
    )


def say_data(run: Run) -> None:
    """Prints what was found, and what is odd about it."""
    data = run.dataset
    counts = [f"{len(inside)} {SPLIT_NAMES[name]}" for name, inside in data.splits.items()]
    print(
        f"Data: {data.layout} ({data.recognised_by}); {data.num_classes} classes, "
        f"{', '.join(counts[:-1])} and {counts[-1]} images.",
        flush=True,
    )
    for warning in data.warnings:
        print(f"Warning: {warning}", flush=True)
    if data.skipped:
        print(f"Warning: {summary(data)} They are in {run.workdir / SKIPPED_FILE}.", flush=True)
    if run.steps.kernels:
        print(run.steps.kernels, flush=True)
