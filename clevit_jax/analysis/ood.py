"""Out-of-distribution test: is an image unlike the training images, by the model's features?"""

import dataclasses
import pathlib
import sys

import numpy as np

from clevit_jax.analysis import feature_file, neighbours
from clevit_jax.analysis.feature_file import Features
from clevit_jax.analysis.prediction_table import as_utf8
from clevit_jax.analysis.trained_model import TrainedModel
from clevit_jax.data.dataset import Dataset, Example
from clevit_jax.errors import ConfigError, DataError, first_line
from clevit_jax.inference.stream import DatasetOutputs, collect_outputs
from clevit_jax.system.progress import progress_bar

TRAINING_FEATURES_FILE = "training_features.npz"  # in the workdir
# An image is unlike the training images if at least this share of them is nearer to another
# training image than it is to any.
UNLIKE = 0.99


@dataclasses.dataclass(frozen=True)
class Reference:
    """Features of training images, and the distances between nearest ones.

    Attributes:
        keys: features, each normalised to length 1, float32 [M, C].
        nearest: distance from each training image to the nearest other one, sorted, float32 [M].
    """

    keys: np.ndarray
    nearest: np.ndarray

    def compare(self, features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Compares images with the training images.

        Args:
            features: features of the images, [B, C].

        Returns:
            Two arrays [B]: the distance to the nearest training image, 1 - cosine of the features;
            and the share of the training images that are nearer than that to another one. 0.99
            says that 99 % of them have another training image at a smaller distance.
        """
        # By hand: scikit-learn would normalise all keys again with every batch.
        cosines = neighbours.normalised(features) @ self.keys.T
        distances = np.maximum(0, 1 - cosines.max(axis=1))
        return distances, np.searchsorted(self.nearest, distances, side="left") / len(self.nearest)


def make_reference(training: Features) -> Reference | None:
    """The reference of some training images; None if there are fewer than `neighbours.FEW`."""
    if len(training.files) < neighbours.FEW:
        return None
    nearest = np.sort(neighbours.nearest_distances(training.features))
    return Reference(neighbours.normalised(training.features), nearest)


def open_reference(trained: TrainedModel, path: pathlib.Path | None) -> Reference | None:
    """The reference of a model's training images, from a file or from its run.

    Args:
        trained: the model.
        path: a file of `--mode features`; None takes that of the run, which is computed and kept in
            the workdir if it does not exist.

    Returns:
        None where the training images are not known or cannot be read; the reason is printed.

    Raises:
        ConfigError: the file cannot be read, or was made by another model.
    """
    if path is not None:
        features = feature_file.read_feature_file(path)
        if features.fingerprint != trained.classifier.fingerprint:
            raise ConfigError(
                f"{path} was made by another model ({features.source}) than "
                f"{trained.classifier.source}, or at another image size; write it anew: "
                "--mode features."
            )
        has_split = "train" in features.splits
        return _reference_or_word(features.only("train") if has_split else features)
    consequence = "so the column unlike_training stays empty."
    if trained.config is None:
        say(
            f"{trained.path} is not a run, so its training images are not known, {consequence} "
            "To fill it, name a file of --mode features: --reference FILE."
        )
        return None
    try:
        return _reference_or_word(training_features(trained))
    except (ConfigError, DataError) as error:
        why = first_line(error).removesuffix(".")
        say(f"The training images are not there ({why}), {consequence}")
        return None


def _reference_or_word(training: Features) -> Reference | None:
    reference = make_reference(training)
    if reference is None:
        say(
            f"{len(training.files)} training image(s) are too few to tell what is unlike them "
            f"(at least {neighbours.FEW}), so the column unlike_training stays empty."
        )
    return reference


def training_features(trained: TrainedModel, dataset: Dataset | None = None) -> Features:
    """Features of the training images. Those of a run are kept in its workdir.

    Args:
        trained: the model.
        dataset: whose training images they must be; by default, kept ones are taken as they are.

    Raises:
        DataError: the images cannot be read.
    """
    kept = trained.path / TRAINING_FEATURES_FILE
    if trained.is_run and kept.is_file():
        try:
            features = feature_file.read_feature_file(kept)
        except ConfigError:
            say(f"{kept} is damaged, so the features of the training images are made again.")
        else:
            same_model = features.fingerprint == trained.classifier.fingerprint
            names = features.files
            if dataset is not None:
                names = tuple(as_utf8(example.name) for example in dataset.train)
            if same_model and features.files == names:
                return features
    dataset = dataset or trained.dataset()
    outputs = dataset_outputs(trained, dataset.train, "Training images")
    if outputs.errors:
        raise trained.unreadable(outputs.errors)
    features = to_features(trained, {"train": outputs}, dataset.class_names)
    if trained.is_run:
        try:
            feature_file.write_feature_file(kept, features)
        except ConfigError as error:
            say(f"{error} The features of the training images will be computed anew next time.")
    return features


def dataset_outputs(
    trained: TrainedModel, examples: tuple[Example, ...], description: str
) -> DatasetOutputs:
    """Logits and features of labelled images, under a progress bar with this description."""
    with progress_bar(total=len(examples), unit=" images", desc=description) as bar:
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
    """The outputs of several splits (split -> outputs) as one table of features."""
    return Features(
        files=tuple(name for part in outputs.values() for name in part.names),
        splits=tuple(split for split, part in outputs.items() for _ in part.examples),
        labels=np.concatenate([part.labels for part in outputs.values()]),
        features=np.concatenate([part.features for part in outputs.values()]),
        logits=np.concatenate([part.logits for part in outputs.values()]),
        class_names=class_names,
        source=trained.classifier.source,
        fingerprint=trained.classifier.fingerprint,
    )


def say(text: str) -> None:
    """Prints a line to stderr, apart from what a mode prints to stdout."""
    print(text, file=sys.stderr, flush=True)
