"""`load`: a trained Swin, however it is kept, as a `Classifier`."""

import dataclasses
import pathlib
from typing import Literal

from clevit_jax.data.dataset import Level
from clevit_jax.data.decode import Decoding
from clevit_jax.inference.classifier import Classifier
from clevit_jax.model.config import DTYPES
from clevit_jax.weights.fit import fit_weights


def load(
    path: str | pathlib.Path,
    *,
    checkpoint: Literal["last", "best"] | int = "last",
    image_size: int | None = None,
    dtype: str = "float32",
) -> Classifier:
    """Loads a trained Swin as a classifier.

    Args:
        path: a workdir, also as `RUN@best` or `RUN@120`, a converted checkpoint, or a `.pth` or
            `.safetensors` file, or a name on the hub; see `runs.load.read_weights`.
        checkpoint: which checkpoint of a workdir: "last", "best" (of its scores, on validation
            images where there are some), or a step.
        image_size: pixels per side; by default that of the run, or of the file. Another size needs
            no training, but the accuracy changes with it.
        dtype: dtype of activations, "float32" or "bfloat16".

    Raises:
        WeightsError, CheckpointError, ConfigError: in one sentence that names the file.
        ValueError: an image size that the windows do not divide, or an unknown dtype.
    """
    # Imported here: orbax and grain, which read runs, would add half a second to every import.
    from clevit_jax.runs.load import chosen_map, read_weights

    if dtype not in DTYPES:
        raise ValueError(f"dtype is {dtype!r}; it must be {' or '.join(DTYPES)}.")
    if image_size is not None and (type(image_size) is not int or image_size < 1):
        raise ValueError(f"image_size is {image_size!r}; it must be a number of pixels.")
    if checkpoint not in ("last", "best") and type(checkpoint) is not int:
        raise ValueError(f"checkpoint is {checkpoint!r}; it must be last, best or a step, as 120.")
    weights = read_weights(path, checkpoint=checkpoint)
    model = dataclasses.replace(
        weights.model,
        image_size=weights.model.image_size if image_size is None else image_size,
        dtype=DTYPES[dtype],
    )
    given = weights.preprocessing
    return Classifier(
        model,
        fit_weights(weights, model)[0],
        weights.class_names,
        weights.source,
        preprocessing=given and given.at(model.image_size, weights.model.image_size),
        map_name=chosen_map(path),
        levels=[Level(name, groups) for name, groups in weights.levels],
        decoding=Decoding(truncated=weights.truncated, bits=weights.bits),
        headless=weights.headless,
    )
