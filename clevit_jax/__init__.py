"""CLE-ViT in JAX: ultra-fine-grained image classification from a handful of images per class.

The command is `python -m clevit_jax.main`. The parts, for use by themselves:

* `get_config`: the config of a recipe or a file, as the command reads it.
* `train`, `evaluate`: a run, from a notebook or a script.
* `load`: a trained model, a `Classifier`, with `.predict`, `.features` and `.explain` of images as
  they are, and `logits, features = load(path)(images)` of prepared ones.
* `Swin`, `SwinConfig`: the network.
* `ViewConfig`, `example_keys`, `make_views`: the two views, on the device.
* `LossConfig`, `cross_entropy`, `supervised_cosine`, `instance_triplet`: the terms of the loss.
* `read_weights`, `convert_weights`: weights of this library or another, with a load report.
* `ClevitError`: what every error that a user can mend is.

Names are imported when they are first used, so `import clevit_jax` costs no JAX.
"""

# This file alone is written so that any Python can read it, down to 2.7: it is the first that a
# command from a clone comes to, and says what is wrong there.
import sys

if sys.version_info < (3, 11):  # noqa: UP036
    _problem = "CLE-ViT needs Python 3.11 or newer, and {} is {}.{}; type: {}".format(
        sys.executable, sys.version_info[0], sys.version_info[1], "make demo PYTHON=python3.12"
    )
    if sys.argv[:1] == ["-m"]:  # `python -m clevit_jax.main`: a sentence, no traceback
        sys.stderr.write("error: " + _problem + "\n")
        sys.exit(2)
    raise ImportError(_problem)

import importlib
import importlib.util
import types
from typing import TYPE_CHECKING

if sys.argv[:1] == ["-m"]:
    _missing = [
        name
        for name in ("absl", "flax", "grain", "jax", "ml_collections", "optax", "orbax")
        if importlib.util.find_spec(name) is None
    ]
    if _missing:
        sys.stderr.write(
            "error: {} lacks what CLE-ViT needs ({}); in a clone, type: make demo\n".format(
                sys.executable, ", ".join(_missing)
            )
        )
        sys.exit(2)

if TYPE_CHECKING:
    from clevit_jax import data, inference, model, steps, views, weights
    from clevit_jax.convert import convert_weights
    from clevit_jax.errors import ClevitError
    from clevit_jax.evaluate import evaluate
    from clevit_jax.inference.classifier import Classifier
    from clevit_jax.inference.explanation import Explanation
    from clevit_jax.inference.prediction import Prediction
    from clevit_jax.model.config import SwinConfig
    from clevit_jax.model.swin import Swin
    from clevit_jax.runs.load import read_weights
    from clevit_jax.runs.named import get_config
    from clevit_jax.steps.losses import (
        LossConfig,
        cross_entropy,
        instance_triplet,
        supervised_cosine,
    )
    from clevit_jax.train import train
    from clevit_jax.views.config import ViewConfig
    from clevit_jax.views.two_views import example_keys, make_views

_HOMES = {
    "ClevitError": "errors",
    "convert_weights": "convert",
    "evaluate": "evaluate",
    "train": "train",
    "Classifier": "inference.classifier",
    "load": "inference.load",
    "Explanation": "inference.explanation",
    "Prediction": "inference.prediction",
    "SwinConfig": "model.config",
    "Swin": "model.swin",
    "get_config": "runs.named",
    "read_weights": "runs.load",
    "LossConfig": "steps.losses",
    "cross_entropy": "steps.losses",
    "instance_triplet": "steps.losses",
    "supervised_cosine": "steps.losses",
    "ViewConfig": "views.config",
    "example_keys": "views.two_views",
    "make_views": "views.two_views",
}
_WINGS = ("data", "inference", "model", "steps", "views", "weights")

__all__ = [
    "Classifier",
    "ClevitError",
    "Explanation",
    "LossConfig",
    "Prediction",
    "Swin",
    "SwinConfig",
    "ViewConfig",
    "convert_weights",
    "cross_entropy",
    "data",
    "evaluate",
    "example_keys",
    "get_config",
    "inference",
    "instance_triplet",
    "load",
    "make_views",
    "model",
    "read_weights",
    "steps",
    "supervised_cosine",
    "train",
    "views",
    "weights",
]


def __getattr__(name):
    if name in _WINGS:
        return importlib.import_module("clevit_jax." + name)
    if name in _HOMES:
        value = getattr(importlib.import_module("clevit_jax." + _HOMES[name]), name)
        globals()[name] = value
        return value
    raise AttributeError("module 'clevit_jax' has no attribute " + repr(name))


def __dir__():
    return sorted(set(globals()).union(__all__))


class _Package(types.ModuleType):
    """Keeps `train` and `evaluate` the functions, also when the modules of these names come in."""

    def __setattr__(self, name, value):
        if not (name in ("train", "evaluate") and isinstance(value, types.ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
