"""The JSON beside weights, as timm and transformers write it: size, preprocessing, classes."""

import dataclasses
import json
import pathlib
from typing import Any

from clevit_jax.errors import WeightsError
from clevit_jax.model.config import SwinConfig, legal_image_sizes
from clevit_jax.system.quoting import quoted
from clevit_jax.weights import hub_huggingface, hub_timm
from clevit_jax.weights.convert import Weights
from clevit_jax.weights.folders import HUB_FILES
from clevit_jax.weights.hub_told import CONFIG, Told

PROCESSOR = "preprocessor_config.json"
_LARGEST = 1 << 26  # bytes; config.json of 21,841 named classes takes 2 MB


def told_beside(file: pathlib.Path) -> Told | None:
    """What the JSON beside a file of weights says of the network that they belong to.

    Args:
        file: of weights, or an index of shards. Of another name than the hub's none is looked for,
            for a `config.json` beside such a one may be anything's.

    Returns:
        None where there is no `config.json` of timm or transformers.

    Raises:
        WeightsError: it is damaged, or asks for what this network has not; the option is named.
    """
    folder = file.parent
    if file.name not in HUB_FILES or not (folder / CONFIG).is_file():
        return None
    config = _read(folder / CONFIG)
    try:
        if hub_timm.is_own(config):
            return hub_timm.told(config)
        if not hub_huggingface.is_own(config):
            return None
        processor = _read(folder / PROCESSOR) if (folder / PROCESSOR).is_file() else None
        return hub_huggingface.told(config, processor)
    except WeightsError as error:
        raise WeightsError(f"{folder}: {error}") from error


def with_told(weights: Weights, file: pathlib.Path) -> Weights:
    """Weights with what the JSON beside their file says; see `told_beside`."""
    told = told_beside(file)
    if told is None:
        return weights
    notes = list(told.notes)
    model, preprocessing = weights.model, told.preprocessing
    size = told.image_size or model.image_size
    if size != model.image_size:
        try:
            model = dataclasses.replace(model, image_size=size)
        except ValueError:
            near = legal_image_sizes(size, model.window, len(model.depths))
            notes.append(
                f"it asks for {size} px, which windows of {model.window} do not divide ("
                f"{told.library} pads them): read at {model.image_size} px, which gives other "
                f"answers; image_size={' or '.join(map(str, near))} is nearest"
            )
            preprocessing = preprocessing and preprocessing.at(model.image_size, size)
    return dataclasses.replace(
        weights,
        model=model,
        preprocessing=preprocessing,
        class_names=_names(told, model, weights, notes),
        report=dataclasses.replace(weights.report, beside=(*told.read, *notes)),
    )


def _names(told: Told, model: SwinConfig, weights: Weights, notes: list[str]) -> tuple[str, ...]:
    names = told.class_names
    if weights.headless or not names:
        return ()
    if len(names) != model.num_classes:
        notes.append(
            f"its {len(names)} class names are left out, for the head has {model.num_classes}"
        )
        return ()
    return names


def _read(path: pathlib.Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > _LARGEST:
            raise WeightsError(f"{path} is damaged: it is larger than such a file can be.")
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise WeightsError(f"{path} cannot be read: {error.strerror or error}.") from error
    except (ValueError, RecursionError) as error:
        raise WeightsError(
            f"{path} is damaged: it is not JSON ({quoted([str(error)[:80]])}); it says how images "
            "are prepared, so bring it again, or name the file of weights under another name."
        ) from error
    if not isinstance(content, dict):
        raise WeightsError(f"{path} is damaged: it holds no names with values.")
    return content
