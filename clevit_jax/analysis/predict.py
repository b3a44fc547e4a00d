"""The mode `predict`: a table of the most probable classes of many images.

One row per image, in the order of their names, folder by folder:

    file                     path of the image, as it was reached from `--input`
    class_1, probability_1   the most probable class, and so on to class_K of `--top K`
    LEVEL, LEVEL_probability   where the model knows coarser levels of its classes: the most
                             probable group of each, and the sum of its classes' probabilities
    margin                   probability of the first class minus that of the second
    distance                 1 - cosine between its features and those of the nearest training image
    nearer                   share of the training images that are nearer than that to another one
    unlike_training          whether that share is at least `ood.UNLIKE`: 99 %
    error                    why the image could not be read; the other cells are empty then

`distance`, `nearer` and `unlike_training` are empty where the training images are not known
(`ood.open_reference`).
"""

import dataclasses
import itertools
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from clevit_jax.analysis import input_files, prediction_table
from clevit_jax.analysis.feature_file import check_output_path
from clevit_jax.analysis.ood import UNLIKE, Reference, open_reference
from clevit_jax.analysis.prediction_table import PredictionTable
from clevit_jax.analysis.trained_model import TrainedModel
from clevit_jax.data.dataset import Level
from clevit_jax.errors import ConfigError
from clevit_jax.inference import prediction
from clevit_jax.inference.stream import ItemOutput, stream
from clevit_jax.system.copied import ImagePath
from clevit_jax.system.progress import progress_bar


@dataclasses.dataclass
class _Counts:
    images: int = 0
    errors: int = 0
    unlike: int = 0


def predict(
    trained: TrainedModel,
    source: str,
    output: pathlib.Path,
    *,
    top: int = 5,
    flip: bool = False,
    resume: bool = False,
    reference: pathlib.Path | None = None,
) -> int:
    """Predicts the classes of every image and writes a table, in memory that does not grow.

    Args:
        trained: the model.
        source: a folder, a file or a pattern; see `input_files.find_images`.
        output: the table, `.csv`, `.json` or `.jsonl`; see `prediction_table`.
        top: classes per row.
        flip: whether probabilities and features are means over the image and its mirror image.
        resume: whether to add to an existing table the images that it lacks.
        reference: a file of `--mode features` with the training images; by default those of the
            run.

    Returns:
        The exit code: 0, or 1 where an image could not be read.

    Raises:
        ConfigError: there is no image, or the table cannot be written; nothing is written then.
        WeightsError: the model has no head.
    """
    trained.classifier.check_head()
    check_output_path(output, prediction_table.ENDINGS)
    if output.exists() and not resume:
        raise ConfigError(
            f"--output {output} exists already; go on with it: --resume, or name another."
        )
    total = sum(1 for _ in input_files.find_images(source, say=True, copy_to=trained.copy_to))
    training = open_reference(trained, reference)
    top = min(top, trained.classifier.model.num_classes)
    table = PredictionTable(output, _columns(top, trained.classifier.levels), resume=resume)
    counts = _Counts()
    try:
        with progress_bar(total=total, unit=" images", desc="Predicting") as bar:

            def missing() -> Iterator[ImagePath]:
                for path in input_files.find_images(source, copy_to=trained.copy_to):
                    if prediction_table.as_utf8(str(path)) in table.done:
                        bar.update()
                    else:
                        yield path

            outputs = stream(
                trained.classifier,
                missing(),
                trained.classifier.pixels,
                batch_size=trained.batch_size,
                threads=trained.threads,
                flip=flip,
            )
            for batch in _in_batches(outputs, trained.batch_size):
                for row in _rows(trained, batch, training, top, counts):
                    table.write(row)
                table.flush()
                bar.update(len(batch))
    finally:
        table.close()
    _print_summary(output, counts, training, skipped=total - counts.images)
    return 1 if counts.errors else 0


def _columns(top: int, levels: Sequence[Level] = ()) -> list[str]:
    ranked = [f"{column}_{i}" for i in range(1, top + 1) for column in ("class", "probability")]
    grouped = itertools.chain.from_iterable(_level_columns(top, levels))
    return ["file", *ranked, *grouped, "margin", "distance", "nearer", "unlike_training", "error"]


def _level_columns(top: int, levels: Sequence[Level]) -> list[tuple[str, str]]:
    """Two columns for each level; one whose name is taken is called `level NAME`."""
    pairs, used = list[tuple[str, str]](), set(_columns(top) if levels else ())
    for level in levels:
        name = prediction_table.as_utf8(level.name)
        while used & {name, f"{name}_probability"}:
            name = f"level {name}"
        pairs.append((name, f"{name}_probability"))
        used.update(pairs[-1])
    return pairs


def _in_batches(outputs: Iterator[ItemOutput], size: int) -> Iterator[list[ItemOutput]]:
    batch = []
    for output in outputs:
        batch.append(output)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def _rows(
    trained: TrainedModel,
    batch: Sequence[ItemOutput],
    training: Reference | None,
    top: int,
    counts: _Counts,
) -> Iterator[dict[str, Any]]:
    """Rows of the table for a batch of images; `counts` is kept."""
    levels = trained.classifier.levels
    features = [output.features for output in batch if not output.error]
    comparisons = iter(
        np.stack(training.compare(np.stack(features)), axis=1) if training and features else ()
    )
    for output in batch:
        counts.images += 1
        row: dict[str, Any] = dict.fromkeys(_columns(top, levels))
        row |= {"file": str(output.item), "error": output.error or None}
        if output.error:
            counts.errors += 1
            yield row
            continue
        probabilities = prediction.softmax(output.logits)
        if probabilities.ndim == 2:  # an image and its mirror image
            probabilities = probabilities.mean(axis=0)
        ranked = trained.classifier.rank(probabilities, top)
        row["margin"] = ranked.margin
        for i in range(top):
            row[f"class_{i + 1}"] = ranked.class_names[i]
            row[f"probability_{i + 1}"] = ranked.probabilities[i]
        for pair, level in zip(_level_columns(top, levels), levels, strict=True):
            row |= dict(zip(pair, ranked.levels[level.name], strict=True))
        if training:
            row["distance"], row["nearer"] = map(float, next(comparisons))
            row["unlike_training"] = row["nearer"] >= UNLIKE
            counts.unlike += row["unlike_training"]
        yield row


def _print_summary(
    output: pathlib.Path, counts: _Counts, training: Reference | None, *, skipped: int
) -> None:
    parts = [f"{counts.images} images"]
    if skipped > 0:
        parts.append(f"{skipped} were in the table already")
    if counts.errors:
        parts.append(f"{counts.errors} could not be read (see the column error)")
    if training:
        parts.append(f"{counts.unlike} unlike the training images")
    print(f"{', '.join(parts)}: {output}")
