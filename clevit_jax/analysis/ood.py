"""The training images as a model sees them: what tells whether another image is unlike them."""

import dataclasses
import pathlib
import sys
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from clevit_jax.analysis import feature_file, neighbours
from clevit_jax.analysis.feature_file import Features
from clevit_jax.analysis.trained_model import TrainedModel
from clevit_jax.data.dataset import Example
from clevit_jax.errors import ConfigError, DataError
from clevit_jax.inference.stream import DatasetOutputs, collect_outputs

TRAINING_FEATURES_FILE = "training_features.npz"  # in the workdir
UNLIKE = 0.99  # share of the training images that must be nearer to another one of them


@dataclasses.dataclass(frozen=True)
class Reference:
    """Features of training images, and how near each is to another one.

    Attributes:
        keys: features of length 1, float32 [M, C].
        nearest: distances to the nearest other one, sorted, float32 [M].
    """

    keys: np.ndarray
    nearest: np.ndarray

    def compare(self, features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Distance to the nearest training image, and the share of them that are nearer, [B] each.

        The distance is 1 - cosine of the features [B, C]. A share of 0.99 says that 99 % of the
        training images have another training image at a smaller distance.
        """
        # By hand: scikit-learn would make all keys of length 1 again with every batch.
        cosines = neighbours.normalised(features) @ self.keys.T
        found = np.maximum(0, 1 - cosines.max(axis=1))
        return found, np.searchsorted(self.nearest, found, side="left") / len(self.nearest)


def make_reference(images: Features) -> Reference | None:
    """None where there are not two images to compare."""
    if len(images.files) < 2:
        return None
    nearest = np.sort(neighbours.nearest_distances(images.features))
    return Reference(neighbours.normalised(images.features), nearest)


def open_reference(trained: TrainedModel, path: pathlib.Path | None) -> Reference | None:
    """The training images of a model: of a file, or of its run.

    Args:
        trained: the model.
        path: a file of `--mode features`; None takes the run's own, which is made and kept in the
            workdir if it is not there.

    Returns:
        None where the images are not known or not there; what is missing is printed.

    Raises:
        ConfigError: the file cannot be read, or is of another model.
    """
    if path is not None:
        found = feature_file.read_feature_file(path)
        if found.fingerprint != trained.classifier.fingerprint:
            raise ConfigError(
                f"{path} was made by another model ({found.source}) than "
                f"{trained.classifier.source}, or at another image size; write it anew: "
                "--mode features."
            )
        return make_reference(found.only("train") if "train" in found.splits else found)
    missing = "so whether an image is unlike the training images is not told."
    if trained.config is None:
        say(f"{trained.path} is no run; its training images are not known, {missing} "
            "--reference takes a file of --mode features.")  # fmt: skip
        return None
    try:
        return make_reference(training_features(trained))
    except DataError as error:
        say(f"The training images are not there ({error.problems[0]}), {missing}")
        return None


def training_features(trained: TrainedModel) -> Features:
    """Of the training images; of a run, kept in its workdir. Raises DataError."""
    kept = trained.path / TRAINING_FEATURES_FILE
    if trained.is_run and kept.is_file():
        try:
            found = feature_file.read_feature_file(kept)
        except ConfigError:  # torn or foreign: it is made anew
            pass
        else:
            if found.fingerprint == trained.classifier.fingerprint:
                return found
    dataset = trained.dataset()
    outputs = dataset_outputs(trained, dataset.train, "Training images")
    if outputs.errors:
        raise DataError(outputs.errors)
    found = to_features(trained, {"train": outputs}, dataset.class_names)
    if trained.is_run:
        try:
            feature_file.write_feature_file(kept, found)
        except ConfigError as error:
            say(f"{error} They will be computed anew the next time.")
    return found


def dataset_outputs(
    trained: TrainedModel, examples: tuple[Example, ...], what: str
) -> DatasetOutputs:
    """Features and logits of labelled images, with a bar."""
    with tqdm(total=len(examples), unit=" images", desc=what) as bar:
        return collect_outputs(
            trained.classifier,
            examples,
            batch_size=trained.batch_size,
            threads=trained.threads,
            progress=bar.update,
        )


def to_features(
    trained: TrainedModel, outputs: dict[str, DatasetOutputs], class_names: tuple[str, ...]
) -> Features:
    """What was computed of some splits, as one table."""
    parts: list[Any] = list(outputs.values())
    return Features(
        files=tuple(name for part in parts for name in part.names),
        splits=tuple(split for split, part in outputs.items() for _ in part.examples),
        labels=np.concatenate([part.labels for part in parts]),
        features=np.concatenate([part.features for part in parts]),
        logits=np.concatenate([part.logits for part in parts]),
        class_names=class_names,
        source=trained.classifier.source,
        fingerprint=trained.classifier.fingerprint,
    )


def say(text: str) -> None:
    """A line for the user, beside what a mode prints as its result."""
    print(text, file=sys.stderr, flush=True)
