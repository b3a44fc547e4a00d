"""An exported file: written whole, run before it takes its place, and described beside."""

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
from clevit_jax.system.files import replacing

FORMAT = "clevit_jax export 1"
CHECKED = (1, 3)  # batch sizes that a file is run at before it takes its place
# Largest difference that is let through, by dtype, as a share of the largest value.
TOLERANCE = {"float32": 1e-4, "bfloat16": 5e-2}


@dataclasses.dataclass(frozen=True)
class Exported:
    """What was written.

    Attributes:
        path: the file; `facts_path(path)` is beside it.
        size: bytes of the file.
        difference: largest absolute difference of a logit from the classifier's, over `CHECKED`.
        checked_with: what ran the file, with its version.
    """

    path: pathlib.Path
    size: int
    difference: float
    checked_with: str


def facts_path(path: pathlib.Path) -> pathlib.Path:
    """`model.stablehlo.json` for `model.stablehlo`."""
    return path.with_name(path.name + ".json")


def write_checked(
    model: Classifier, path: str | pathlib.Path, write: Callable[[pathlib.Path], None],
    run: Callable[[pathlib.Path], Callable[[np.ndarray], Any]], *, kind: str, checker: str,
    overwrite: bool, packages: tuple[str, ...], more: dict[str, Any],
) -> Exported:  # fmt: skip
    """Writes beside, runs what was written, and puts both files in their place.

    Args:
        model: what is exported.
        path: of the file.
        write: writes the format to a path.
        run: of such a path, (images uint8 [B, S, S, 3]) -> logits [B, K], computed on the CPU.
        kind: of the format, for the JSON.
        checker: the package that `run` uses.
        overwrite: replaces what is there.
        packages: whose versions the JSON gives.
        more: entries of the JSON.

    Raises:
        ConfigError: a file is there or cannot be written, or gives other logits.
    """
    path = pathlib.Path(path)
    check_export_target(path, overwrite=overwrite)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # The file takes its place first: what ends last is named first.
        with replacing(facts_path(path)) as new_facts, replacing(path) as new:
            write(new)
            difference = check_export(model, run(new), path)
            facts = {
                "format": FORMAT,
                "kind": kind,
                "file": path.name,
                "sha256": hashlib.sha256(new.read_bytes()).hexdigest(),
                **export_facts(model),
                **more,
                "versions": {name: version(name) for name in ("clevit_jax", *packages)},
            }
            new_facts.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
            size = new.stat().st_size
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror or error}.") from error
    return Exported(path, size, difference, f"{checker} {version(checker)}")


def export_facts(model: Classifier) -> dict[str, Any]:
    """What the JSON beside an exported file says of the model, whatever the format."""
    config = model.model
    size, resize = config.image_size, model.resize
    images = (
        f"RGB, 0 to 255, not normalised: the shorter side resized to {resize} pixels (bicubic, "
        f"antialiased as Pillow's), then the {size} x {size} in the centre"
    )
    return {
        "source": model.source,
        "architecture": config.to_json(),
        "dtype": jnp.dtype(config.dtype).name,
        "image_size": size,
        "resize": resize,
        "class_names": list(model.class_names),
        "inputs": [
            {"name": "images", "dtype": "uint8", "shape": ["b", size, size, 3], "holds": images}
        ],
        "outputs": [
            {"name": "logits", "dtype": "float32", "shape": ["b", config.num_classes],
             "holds": "a number a class, before the softmax; larger is likelier"},
            {"name": "features", "dtype": "float32", "shape": ["b", config.channels(-1)],
             "holds": "the mean over the last tokens, which the head sees"},
        ],
    }  # fmt: skip


def check_export_target(path: pathlib.Path, *, overwrite: bool) -> None:
    """Raises ConfigError unless both files may be written there."""
    for file in (path, facts_path(path)):
        if file.is_dir():
            raise ConfigError(f"{file} is a folder; name a file.")
        if file.exists() and not overwrite:
            raise ConfigError(f"{file} is there; name another output, or replace it: --overwrite.")


def check_export(model: Classifier, run: Callable[[np.ndarray], Any], path: pathlib.Path) -> float:
    """The largest difference of a logit; raises ConfigError when a file gives other numbers."""
    size, dtype = model.model.image_size, jnp.dtype(model.model.dtype).name
    # On the CPU, for accelerators multiply float32 with fewer bits than the file's runner.
    cpu = jax.devices("cpu")[0]
    params, forward = jax.device_put(model.params, cpu), jax.jit(make_forward(model.model))
    worst = 0.0
    for count in CHECKED:
        rng = np.random.default_rng(count)
        images = rng.integers(0, 256, (count, size, size, 3), np.uint8)
        wanted = np.asarray(forward(params, jax.device_put(images, cpu))[0])
        apart = float(np.abs(np.asarray(run(images)) - wanted).max())
        # Written so that a NaN is a difference too.
        if not apart <= TOLERANCE[dtype] * max(1.0, float(np.abs(wanted).max())):
            raise ConfigError(
                f"{path} is not written, for what was exported gives other logits than the "
                f"classifier (by {apart:.1e} on {count} images); report this, with your versions."
            )
        worst = max(worst, apart)
    return worst


def version(package: str) -> str:
    """Of an installed package, `1.2.3`."""
    return importlib.metadata.version(package)
