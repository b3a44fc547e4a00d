"""`--mode predict --submission FORM`: the classes of images, in the form that somebody asks for.

The form is a table such as Kaggle's sample_submission.csv. What is written has its header, its
rows in their order and its ids as they are; only what stands for the classes is new.
"""

import pathlib
from collections.abc import Sequence
from typing import TextIO

from clevit_jax.analysis import input_files
from clevit_jax.analysis.feature_file import check_output_path
from clevit_jax.analysis.form_classes import Filling, choose_filling
from clevit_jax.analysis.form_images import ImagesById, find_ids
from clevit_jax.analysis.ood import say
from clevit_jax.analysis.submission_form import Form, read_form
from clevit_jax.analysis.trained_model import TrainedModel
from clevit_jax.errors import ConfigError, said_once
from clevit_jax.inference import prediction
from clevit_jax.inference.stream import stream
from clevit_jax.system.copied import ImagePath
from clevit_jax.system.files import purpose, replacing
from clevit_jax.system.progress import progress_bar


def write_submission(
    trained: TrainedModel,
    source: str,
    output: pathlib.Path,
    form_path: pathlib.Path,
    *,
    classes: str = "",
    flip: bool = False,
) -> int:
    """Fills in a form; the file appears whole or not at all.

    Args:
        trained: the model.
        source: where the images are: a folder, a file or a pattern.
        output: the file that is written, `.csv` or with the ending of the form.
        form_path: the form.
        classes: how it writes the classes, where it does not show that; see
            `form_classes.choose_filling`.
        flip: whether probabilities are means over the image and its mirror image.

    Returns:
        The exit code: 0, or 1 where an image could not be read; its row is left as the form has it.

    Raises:
        ConfigError: an id has no image, the form has a class that the model lacks, or can be read
            in several ways; nothing is written then.
    """
    trained.classifier.check_head()
    check_output_path(output, tuple(dict.fromkeys((".csv", form_path.suffix.lower()))))
    if output.exists():
        raise ConfigError(f"--output {output} exists already; name another.")
    form = read_form(form_path)
    classifier = trained.classifier
    images = ImagesById(input_files.find_images(source, say=True, copy_to=trained.copy_to))
    id_column, paths = find_ids(form, images, source)
    filling = choose_filling(form, id_column, classifier.class_names, classes, classifier.source)
    print(f"Writes {filling.said}.", flush=True)
    others = len(set(images.paths).difference(paths))
    if others:
        print(f"{others} image(s) of {source} are not in {form_path}: left out.", flush=True)
    with (
        purpose("The submission", output),
        replacing(output) as new,
        new.open("w", encoding="utf-8", newline="") as file,
    ):
        file.write(form.header)
        errors = _write_rows(trained, form, paths, filling, file, flip=flip)
    for error in said_once(errors):
        say(error)
    summary = f"{len(paths)} rows, in the order of {form_path}"
    if errors:
        summary += f", {len(errors)} of images that cannot be read are left as they were there"
    print(f"{summary}: {output}")
    return 1 if errors else 0


def _write_rows(
    trained: TrainedModel,
    form: Form,
    paths: Sequence[ImagePath],
    filling: Filling,
    file: TextIO,
    *,
    flip: bool,
) -> list[str]:
    """Writes the rows, each with the image of its place in `paths`; returns what could not be."""
    classifier, errors = trained.classifier, list[str]()
    outputs = stream(
        classifier,
        paths,
        classifier.pixels,
        batch_size=trained.batch_size,
        threads=trained.threads,
        flip=flip,
    )
    bar = progress_bar(outputs, total=len(paths), unit=" images", desc="Predicting")
    for row, image in zip(form.rows, bar, strict=True):
        cells = list(row)
        if image.error:
            errors.append(image.error)
        else:
            shares = prediction.softmax(image.logits)
            filled = filling.cells(shares.mean(axis=0) if flip else shares)
            for column, cell in zip(filling.columns, filled, strict=True):
                cells[column] = cell
        file.write(form.line(cells))
    return errors
