"""Exported files: written whole, checked by running them, with a description in a JSON beside."""

import dataclasses
import hashlib
import importlib.metadata
import json
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from clevit_jax.errors import ConfigError
from clevit_jax.inference.classifier import Classifier
from clevit_jax.inference.forward import make_forward
from clevit_jax.system.faults import mend, os_reason
from clevit_jax.system.files import replacing
from clevit_jax.system.places import run_place

FORMAT = "clevit_jax export 1"
CHECKED_BATCH_SIZES = (1, 3)  # a file is run at these before it takes its place
# Largest difference that is let through, by dtype, relative to the largest logit.
TOLERANCE = {"float32": 1e-4, "bfloat16": 5e-2}


@dataclasses.dataclass(frozen=True)
class Exported:
    """An exported file that was written and checked.

    Attributes:
        path: the file; `facts_path(path)` is beside it.
        size: bytes of the file.
        difference: largest absolute difference of a logit from the classifier's.
        checked_with: package that ran the file, with its version.
    """

    path: pathlib.Path
    size: int
    difference: float
    checked_with: str


def facts_path(path: pathlib.Path) -> pathlib.Path:
    """The JSON that describes an exported file: `model.stablehlo.json` for `model.stablehlo`."""
    return path.with_name(path.name + ".json")


def write_checked(
    model: Classifier,
    path: str | pathlib.Path,
    write: Callable[[pathlib.Path], None],
    open_exported: Callable[[pathlib.Path], Callable[[np.ndarray], np.typing.ArrayLike]],
    *,
    kind: str,
    checker: str,
    overwrite: bool,
    packages: tuple[str, ...],
    more: dict[str, Any],
) -> Exported:
    """Writes a temporary file, checks it by running it, and moves it and its JSON into place.

    Args:
        model: the classifier that is exported.
        path: the file.
        write: writes the format to a path.
        open_exported: opens what `write` wrote, as a function (images uint8 [B, S, S, 3]) -> logits
            [B, K], computed on the CPU.
        kind: name of the format, for the JSON.
        checker: the package that `open_exported` uses.
        overwrite: whether existing files are replaced.
        packages: packages whose versions the JSON gives.
        more: further entries of the JSON.

    Raises:
        ConfigError: a file exists already or cannot be written, or it gives other logits.
        WeightsError: the model has no head.
    """
    model.check_head()
    path = run_place(path)
    check_export_target(path, overwrite=overwrite)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # `new` is the inner one, so the file takes its place before the JSON that describes it.
        with replacing(facts_path(path)) as new_facts, replacing(path) as new:
            write(new)
            difference = check_export(model, open_exported(new), path)
            facts = {
                "format": FORMAT,
                "kind": kind,
                "file": path.name,
                "sha256": hashlib.sha256(new.read_bytes()).hexdigest(),
                **export_facts(model),
                **more,
                "versions": {name: package_version(name) for name in ("clevit_jax", *packages)},
            }
            new_facts.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
            size = new.stat().st_size
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {os_reason(error)}{mend(error)}.") from error
    return Exported(path, size, difference, f"{checker} {package_version(checker)}")


def export_facts(model: Classifier) -> dict[str, Any]:
    """Entries of the JSON beside an exported file that are the same for all formats."""
    config = model.model
    size, given = config.image_size, model.preprocessing
    images = (
        f"RGB, 0 to 255, not normalised: the {'whole image' if given.squash else 'shorter side'} "
        f"resized to {given.resize}{f' x {given.resize}' if given.squash else ''} pixels "
        f"({given.interpolation}, antialiased as Pillow's), then the {size} x {size} in the centre"
    )
    if bits := model.decoding.bits:
        images += f"; of 16-bit images, which hold {bits} bits, values are shifted by {bits - 8}"
    return {
        "source": model.source,
        "architecture": config.to_json(),
        "dtype": jnp.dtype(config.dtype).name,
        "image_size": size,
        "resize": given.resize,
        "preprocessing": given.to_json(),
        "decoding": dataclasses.asdict(model.decoding),
        "class_names": list(model.class_names),
        "levels": {level.name: list(level.groups) for level in model.levels},
        "inputs": [
            {"name": "images", "dtype": "uint8", "shape": ["b", size, size, 3], "holds": images}
        ],
        "outputs": [
            {
                "name": "logits",
                "dtype": "float32",
                "shape": ["b", config.num_classes],
                "holds": "one number per class, before the softmax; larger is likelier",
            },
            {
                "name": "features",
                "dtype": "float32",
                "shape": ["b", config.channels(-1)],
                "holds": "the mean over the last tokens, which the head takes",
            },
        ],
    }


def check_export_target(path: pathlib.Path, *, overwrite: bool) -> None:
    """Raises ConfigError unless an exported file and its JSON may be written at a path."""
    for file in (path, facts_path(path)):
        if file.is_dir():
            raise ConfigError(f"{file} is a folder; name a file: --output FILE.")
        if file.exists() and not overwrite:
            raise ConfigError(
                f"{file} exists already; name another --output, or replace it: --overwrite."
            )


def check_export(
    model: Classifier,
    exported: Callable[[np.ndarray], np.typing.ArrayLike],
    path: pathlib.Path,
) -> float:
    """Compares the logits of an exported file with the classifier's, on random images.

    Args:
        model: the classifier that was exported.
        exported: the file, opened; see `write_checked`.
        path: the file, for the message.

    Returns:
        The largest absolute difference of a logit.

    Raises:
        ConfigError: the difference is above `TOLERANCE`.
    """
    size, dtype = model.model.image_size, jnp.dtype(model.model.dtype).name
    # On the CPU, because accelerators multiply float32 with fewer bits than what runs the file.
    cpu = jax.devices("cpu")[0]
    params = jax.device_put(model.params, cpu)
    forward = jax.jit(make_forward(model.model, model.preprocessing))
    largest = 0.0
    for count in CHECKED_BATCH_SIZES:
        rng = np.random.default_rng(count)
        images = rng.integers(0, 256, (count, size, size, 3), np.uint8)
        expected = np.asarray(forward(params, jax.device_put(images, cpu))[0])
        difference = float(np.abs(np.asarray(exported(images)) - expected).max())
        # Not `>`: a NaN is a difference, too.
        if not difference <= TOLERANCE[dtype] * max(1.0, float(np.abs(expected).max())):
            raise ConfigError(
                f"{path} is not written: the exported model gives other logits than the classifier "
                f"(by {difference:.1e} on {count} images). This is a bug; please report it, with "
                "the output of `pip freeze`."
            )
        largest = max(largest, difference)
    return largest


def package_version(package: str) -> str:
    """Version of an installed package, such as "1.2.3"."""
    return importlib.metadata.version(package)
