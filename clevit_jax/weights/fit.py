"""Pre-trained weights fitted to the network of a run: other windows, other classes, a new head."""

import dataclasses
import functools
import math
import os
import pathlib
import re
from typing import Any

import jax
import numpy as np

from clevit_jax.errors import WeightsError
from clevit_jax.model.config import SwinConfig
from clevit_jax.model.swin import abstract_swin
from clevit_jax.system.fetch import local
from clevit_jax.weights.convert import Weights, parameter_name
from clevit_jax.weights.infer import window_of
from clevit_jax.weights.load_report import LoadReport

_TABLE = "relative_position_bias_table"


def fit_weights(
    weights: Weights,
    model: SwinConfig,
    *,
    class_map: np.ndarray | None = None,
    new_head: bool = False,
) -> tuple[Any, LoadReport]:
    """The parameters that training begins with.

    Bias tables of another window are resized (`resize_bias_table`). The head is kept where the
    numbers of classes are equal, taken by `class_map` where one is given, else zeros, which
    `new_head` asks for.

    Args:
        weights: pre-trained.
        model: the network that is wanted; image size and numerics are free.
        class_map: int [K], the class of `weights` that each class of `model` is.
        new_head: whether the classes are others, however many there are.

    Returns:
        Nested dict of float32 NumPy arrays like `swin.abstract_swin(model)`, and the report of
        `weights` with what was done here.

    Raises:
        WeightsError: the two are different networks, or the map does not fit them.
    """
    fields = ("embed_dim", "depths", "num_heads")
    if any(getattr(weights.model, field) != getattr(model, field) for field in fields):
        raise WeightsError(
            f"{weights.source} holds a {weights.model.describe()}, and the config asks for a "
            f"{model.describe()}; set {_flags(weights.model)}."
        )
    if class_map is not None and weights.headless:
        raise WeightsError(
            f"{weights.source} has no head, so a class map has nothing to take from it; leave the "
            "map out, and a new head is trained."
        )
    if class_map is not None:
        _check_map(class_map, weights.model.num_classes, model.num_classes)
    resized, mapped, anew = list[str](), list[str](), list[str]()

    def fitted(path: jax.tree_util.KeyPath, given: np.ndarray, wanted: Any) -> np.ndarray:
        name = parameter_name(path)
        if name.endswith(_TABLE) and given.shape != wanted.shape:
            old, new = window_of(len(given)), window_of(wanted.shape[0])
            given = resize_bias_table(given, wanted.shape[0])
            resized.append(f"{name}: window {old} -> {new}")
        elif name.startswith("head.") and class_map is not None:
            given = np.ascontiguousarray(given[..., class_map])
            mapped.append(f"{name}: {weights.model.num_classes} -> {model.num_classes} classes")
        elif name.startswith("head.") and (new_head or given.shape != wanted.shape):
            given = np.zeros(wanted.shape, np.float32)
            anew.append(name)
        return given

    params = jax.tree.map_with_path(fitted, weights.params, abstract_swin(model)[1])
    report = dataclasses.replace(
        weights.report,
        matched=tuple(name for name in weights.report.matched if name not in anew),
        transposed=tuple(name for name in weights.report.transposed if name not in anew),
        resized=tuple(resized),
        mapped=tuple(mapped),
        reinitialised=tuple(dict.fromkeys((*weights.report.reinitialised, *anew))),
    )
    return params, report


def _flags(model: SwinConfig) -> str:
    """The flags that ask for this architecture, whatever a config says."""
    return (
        f"--config.model.embed_dim={model.embed_dim} --config.model.depths='{model.depths}' "
        f"--config.model.num_heads='{model.num_heads}'"
    )


def _check_map(class_map: np.ndarray, given: int, wanted: int) -> None:
    if len(class_map) != wanted:
        raise WeightsError(
            f"The class map has {len(class_map)} lines; it must have one for each of the {wanted} "
            "classes wanted."
        )
    outside = np.flatnonzero((class_map < 0) | (class_map >= given)) + 1
    if outside.size:
        raise WeightsError(
            f"The class map must hold classes of the weights, from 0 to {given - 1}; wrong are the "
            f"lines {outside.tolist()}."
        )


def read_class_map(path: str | pathlib.Path, copy_to: str = "") -> np.ndarray:
    """Reads a map of classes: line i holds the number, from 0, of what class i is in the weights.

    The format of `data/map22kto1k.txt` of microsoft/Swin-Transformer.

    Args:
        path: of the file, also an address (`system.fetch`).
        copy_to: folder of the copies of what lies at an address.

    Returns:
        int64 [K].

    Raises:
        WeightsError: with every line that is not a number.
    """
    try:
        file = local(os.fspath(path), "The class map", copy_to)
        lines = file.read_text(encoding="utf-8-sig").split("\n")
    except OSError as error:
        raise WeightsError(f"{path} cannot be read: {error.strerror or error}.") from error
    except UnicodeDecodeError as error:
        raise WeightsError(f"{path} is not a UTF-8 text file.") from error
    while lines and not lines[-1].strip():
        lines.pop()
    if not lines:
        raise WeightsError(f"{path} is empty; it must hold one class number per line.")
    is_number = [re.fullmatch(r"[0-9]{1,9}", line.strip()) is not None for line in lines]
    bad = [number for number, good in enumerate(is_number, start=1) if not good]
    if bad:
        raise WeightsError(
            f"{path} must hold one class number per line; wrong are the lines {bad}."
        )
    return np.array([int(line) for line in lines])


def resize_bias_table(table: np.ndarray, rows: int) -> np.ndarray:
    """A relative position bias table for another window, bicubic over its two offsets.

    Equal to PyTorch's `interpolate(mode="bicubic", align_corners=False)`, which the official code
    uses: a = -0.75, no antialiasing, edges repeated.

    Args:
        table: float32 [(2w - 1)**2, h].
        rows: (2w' - 1)**2 of the window w' that is wanted.

    Returns:
        float32 [rows, h].
    """
    old, new = math.isqrt(len(table)), math.isqrt(rows)  # offsets along one axis, 2w - 1
    weights = _bicubic(old, new)
    square = table.reshape(old, old, -1).astype(np.float64)  # [2w-1, 2w-1, h]
    resized = np.einsum("ai,bj,ijh->abh", weights, weights, square, optimize=True)
    return resized.reshape(rows, -1).astype(np.float32)


@functools.cache
def _bicubic(old: int, new: int) -> np.ndarray:
    """float64 [new, old]: what each old point gives to each new one (Keys 1981, a = -0.75)."""
    centre = (np.arange(new) + 0.5) * old / new - 0.5
    left = np.floor(centre).astype(int)
    matrix = np.zeros((new, old))
    for tap in range(-1, 3):
        x = np.abs(centre - (left + tap))
        near = ((1.25 * x - 2.25) * x) * x + 1
        far = ((-0.75 * x + 3.75) * x - 6) * x + 3
        at = np.clip(left + tap, 0, old - 1)
        np.add.at(matrix, (np.arange(new), at), np.where(x <= 1, near, np.where(x < 2, far, 0)))
    return matrix
