"""The mode `features`: a file of features, metrics of how well they separate classes, a picture.

Beside `--output NAME.npz` (or `.parquet`; see `feature_file`) it writes `NAME.png`, a t-SNE of the
test images, and for a labelled data set `NAME.json`:

    train, test      numbers of images
    knn              k -> accuracy of the majority of the k nearest training images
    linear_probe     accuracy of a logistic regression on the features
    retrieval        among the test images: recall_at_1, mean_average_precision, queries
    source           the run or the file that the model comes from

Accuracies and recalls are fractions in [0, 1]. Of fewer than `neighbours.FEW` images there is no
picture.
"""

import dataclasses
import pathlib

from clevit_jax.analysis import feature_file, input_files, neighbours, probe, tsne
from clevit_jax.analysis.feature_file import Features
from clevit_jax.analysis.ood import dataset_outputs, say, to_features
from clevit_jax.analysis.trained_model import TrainedModel
from clevit_jax.data.dataset import Example
from clevit_jax.data.skipped import summary
from clevit_jax.errors import ConfigError, DataError, first_line, said_once
from clevit_jax.system.files import write_json


def write_features(
    trained: TrainedModel,
    output: pathlib.Path,
    source: str | None = None,
    *,
    overwrite: bool = False,
) -> int:
    """Computes features of the model's data set, or of any images, and writes them.

    Args:
        trained: the model.
        output: the file, `.npz` or `.parquet`.
        source: images without labels: a folder, a file or a pattern, see
            `input_files.find_images`; None takes the data set.
        overwrite: whether existing files are replaced.

    Returns:
        The exit code: 0, or 1 where an image of `source` could not be read.

    Raises:
        ConfigError, DataError: in one sentence; nothing is written then.
    """
    feature_file.check_output_path(output)
    picture, numbers = output.with_suffix(".png"), output.with_suffix(".json")
    for path in (output, picture, numbers):
        if path.exists() and not overwrite:
            raise ConfigError(
                f"{path} exists already; name another --output, or replace it: --overwrite."
            )
    errors: tuple[str, ...] = ()
    if source is None:
        features = _dataset_features(trained)
        shown = features.only("test")
    else:
        features, errors = _file_features(trained, source)
        shown = features
    feature_file.write_feature_file(output, features)
    for error in said_once(errors):
        say(error)
    lines = [f"{len(features.files)} images, {features.features.shape[1]} features each: {output}"]
    if source is None:
        lines += _write_metrics(features, numbers)
    rows = tsne.sample_rows(len(shown.files))
    count = f"{len(rows)} of {len(shown.files)}" if len(rows) < len(shown.files) else str(len(rows))
    title = f"t-SNE of {count} {'test ' if source is None else ''}images, {features.source}"
    if len(rows) < neighbours.FEW:
        picture.unlink(missing_ok=True)  # of what is overwritten
        few = f"{count} image(s) are too few for t-SNE (at least {neighbours.FEW})"
        lines.append(f"No picture: {few}.")
    else:
        points = tsne.embed(shown.features[rows])
        classes = (shown.labels[rows], shown.class_names)
        if legend := tsne.save_picture(picture, points, *classes, title=title):
            say(legend)
        lines.append(f"Picture: {picture}")
    print("\n".join(lines), flush=True)
    return 1 if errors else 0


def _write_metrics(features: Features, path: pathlib.Path) -> list[str]:
    """Writes the metrics of labelled features as JSON; returns them as lines for the terminal."""
    train, test = features.only("train"), features.only("test")
    metrics = probe.feature_metrics(train.features, train.labels, test.features, test.labels)
    write_json(path, {**dataclasses.asdict(metrics), "source": features.source})
    return [*metrics.lines(), f"Numbers: {path}"]


def _dataset_features(trained: TrainedModel) -> Features:
    try:
        dataset = trained.dataset()
    except (ConfigError, DataError) as error:
        if not trained.is_run:
            raise
        raise ConfigError(
            f"{first_line(error)} The features of the run's images need them; name the folder with "
            "--config.data.root=DIR, or other images with --input PATH."
        ) from error
    outputs = {
        split: dataset_outputs(trained, examples, f"{split.capitalize()} images")
        for split, examples in dataset.splits.items()
    }
    problems = [error for split in outputs.values() for error in split.errors]
    if problems:
        raise trained.unreadable(problems)
    if dataset.skipped:
        say(f"Features of what could be read; {summary(dataset)}")
    return to_features(trained, outputs, dataset.class_names)


def _file_features(trained: TrainedModel, source: str) -> tuple[Features, tuple[str, ...]]:
    """Features of the files that could be read, and a sentence per file that could not."""
    paths = list(input_files.find_images(source, say=True, copy_to=trained.copy_to))
    examples = [Example(path, -1, i, str(path)) for i, path in enumerate(paths)]
    outputs = dataset_outputs(trained, tuple(examples), "Images")
    if not outputs.examples:
        raise DataError(outputs.errors)
    return to_features(trained, {"": outputs}, ()), outputs.errors
