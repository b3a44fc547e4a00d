"""The mode `features`: features of all images as a file, what they are worth, and a picture.

Beside `--output NAME.npz` (or `.parquet`; see `feature_file`) stand `NAME.png`, a t-SNE of the test
images, and `NAME.json` with, of a labelled data set,

    train, test      numbers of images
    knn              k -> accuracy of the majority of the k nearest training images
    linear_probe     accuracy of a logistic regression on the features
    retrieval        among the test images: recall_at_1, mean_average_precision, queries
    source           of the model

Shares are in [0, 1].
"""

import dataclasses
import pathlib

from clevit_jax.analysis import feature_file, input_files, probe, tsne
from clevit_jax.analysis.feature_file import Features
from clevit_jax.analysis.ood import dataset_outputs, say, to_features
from clevit_jax.analysis.trained_model import TrainedModel
from clevit_jax.data.dataset import Example
from clevit_jax.errors import ConfigError, DataError
from clevit_jax.system.files import write_json


def write_features(
    trained: TrainedModel,
    output: pathlib.Path,
    source: str | None = None,
    *,
    overwrite: bool = False,
) -> int:
    """Computes features of the trained's data set, or of any images, and writes them.

    Args:
        trained: the model.
        output: `.npz` or `.parquet`.
        source: a folder, a file or a pattern (`inputs.find`) of images without labels; None takes
            the data set.
        overwrite: whether files that are there are replaced.

    Returns:
        The exit code: 0, or 1 where an image of `source` could not be read.

    Raises:
        ConfigError, DataError: before anything is written.
    """
    feature_file.check_output_path(output)
    picture, facts = output.with_suffix(".png"), output.with_suffix(".json")
    for path in (output, picture, facts):
        if path.exists() and not overwrite:
            raise ConfigError(
                f"{path} is there; name another --output, or replace it: --overwrite."
            )
    errors: tuple[str, ...] = ()
    if source is None:
        found = _of_dataset(trained)
        shown = found.only("test")
    else:
        found, errors = _of_files(trained, source)
        shown = found
    feature_file.write_feature_file(output, found)
    for error in errors:
        say(error)
    lines = [f"{len(found.files)} images, {found.features.shape[1]} features each: {output}"]
    if source is None:
        lines += _measure(found, facts)
    rows = tsne.sample_rows(len(shown.files))
    what = f"{len(rows)} of {len(shown.files)}" if len(rows) < len(shown.files) else str(len(rows))
    title = f"t-SNE of {what} {'test ' if source is None else ''}images, {found.source}"
    points = tsne.embed(shown.features[rows])
    tsne.save_picture(picture, points, shown.labels[rows], shown.class_names, title=title)
    print("\n".join([*lines, f"Picture: {picture}"]), flush=True)
    return 1 if errors else 0


def _measure(found: Features, path: pathlib.Path) -> list[str]:
    train, test = found.only("train"), found.only("test")
    worth = probe.feature_metrics(train.features, train.labels, test.features, test.labels)
    write_json(path, {**dataclasses.asdict(worth), "source": found.source})
    return [*worth.lines(), f"Numbers: {path}"]


def _of_dataset(trained: TrainedModel) -> Features:
    dataset = trained.dataset()
    outputs = {
        split: dataset_outputs(trained, examples, f"{split.capitalize()} images")
        for split, examples in dataset.splits.items()
    }
    problems = [error for part in outputs.values() for error in part.errors]
    if problems:
        raise DataError(problems)
    return to_features(trained, outputs, dataset.class_names)


def _of_files(trained: TrainedModel, source: str) -> tuple[Features, tuple[str, ...]]:
    paths = list(input_files.find_images(source))
    examples = [Example(path, -1, i, str(path)) for i, path in enumerate(paths)]
    outputs = dataset_outputs(trained, tuple(examples), "Images")
    if not outputs.examples:
        raise DataError(outputs.errors)
    return to_features(trained, {"": outputs}, ()), outputs.errors
