"""The range of every number of `configs/base.py`, and the choices of every setting that is a word.

One row each. All are checked before the first step, and before anything is written.
"""

import dataclasses
import math
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from clevit_jax import recipes
from clevit_jax.data.recognise import LAYOUTS
from clevit_jax.errors import ConfigError
from clevit_jax.model.config import DTYPES, LARGEST, REMATS, VARIANTS
from clevit_jax.recipes import flatten
from clevit_jax.steps.losses import CONTRAST_KINDS
from clevit_jax.steps.optim import OPTIMIZERS
from clevit_jax.steps.schedule import SCHEDULES
from clevit_jax.views.config import KINDS

KERNELS = ("auto", "xla", "pallas")
SCANS = ("auto", "none", "blocks")
HEADERS = ("auto", "true", "false")
ON_BAD_IMAGE = ("stop", "skip")
CHOICES: dict[str, tuple[str, ...]] = {
    "data.layout": LAYOUTS,
    "data.header": HEADERS,
    "data.on_bad_image": ON_BAD_IMAGE,
    "model.variant": tuple(VARIANTS),
    "model.dtype": ("auto", *DTYPES),
    "model.kernels": KERNELS,
    "model.scan": SCANS,
    "model.remat": REMATS,
    "views.kind": KINDS,
    "loss.contrast_kind": CONTRAST_KINDS,
    "optim.name": OPTIMIZERS,
    "optim.schedule": SCHEDULES,
}


@dataclasses.dataclass(frozen=True)
class Range:
    """Which numbers a setting may be; whole ones alone, where base.py has a whole number.

    Attributes:
        low: the lowest.
        high: the highest.
        above: `low` itself is out.
        below: `high` itself is out, and so is what float32 rounds to it.
        also: further numbers that are in, such as 0 for "off".
        pair: of a setting that holds numbers: it holds two, the lower one first. Else any many.
    """

    low: float
    high: float
    above: bool = False
    below: bool = False
    also: tuple[float, ...] = ()
    pair: bool = False

    def holds(self, value: float) -> bool:
        """Whether a number is in the range; NaN never is."""
        if value in self.also:
            return True
        if not self.low <= value <= self.high:
            return False
        # What only float64 tells from an end is that end where it is computed with, in float32.
        rounded = float(np.float32(min(value, _FLOAT32)))
        return (not self.above or rounded > self.low) and (not self.below or rounded < self.high)

    def __str__(self) -> str:
        """`at least 0 and below 1`, `0, or at least 2 and at most 1000`."""
        ends = [f"{'above' if self.above else 'at least'} {self.low}"]
        if self.high < math.inf:
            ends.append(f"{'below' if self.below else 'at most'} {self.high}")
        return "".join(f"{value}, or " for value in self.also) + " and ".join(ends)


_FLOAT32 = 3e38  # near the largest
_INT32 = 2**31 - 1  # as steps are counted on the device
_SHARE = Range(0, 1)
_BELOW_ONE = Range(0, 1, below=True)
_STEPS = Range(1, _INT32)
_STEPS_OR_OFF = Range(0, _INT32)
_SEED = Range(0, 2**32 - 1)  # as NumPy and JAX take it
_PIXELS = Range(1, LARGEST["image_size"])  # per side
_IMAGES = Range(1, 10**6)  # of a batch
_WEIGHT = Range(0, 1000)
_AREA = Range(0, 1, above=True, pair=True)
_ASPECT = Range(0.01, 100, pair=True)
_DEVICES = Range(1, 10**6, also=(-1,))

# Limits far above what anybody needs keep slips of the pen from running out of int32, float32,
# memory or disk in the middle of a run.
RANGES: dict[str, Range] = {
    "seed": _SEED,
    "epochs": _STEPS,
    "batch_size": _IMAGES,
    "accumulation": _IMAGES,
    "image_size": _PIXELS,
    "data.test_fraction": _BELOW_ONE,
    "data.val_fraction": _BELOW_ONE,
    "data.folds": Range(2, 10**6, also=(0,)),
    "data.fold": Range(0, 10**6),
    "data.split_seed": _SEED,
    "data.resize": _PIXELS,
    "data.cache_bytes": Range(0, 2**63 - 1),
    "data.threads": Range(0, 1024),
    "data.max_bad": _BELOW_ONE,
    "data.bits": Range(8, 16, also=(0,)),
    "data.leaves.classes": Range(0, 10**4),
    "data.leaves.train_per_class": Range(1, 10**5),
    "data.leaves.test_per_class": Range(0, 10**5),
    "data.leaves.size": Range(16, 8192),
    "data.leaves.seed": _SEED,
    "data.leaves.difficulty": _SHARE,
    "model.embed_dim": Range(0, LARGEST["embed_dim"]),
    "model.depths": Range(1, LARGEST["depths"]),
    "model.num_heads": Range(1, LARGEST["num_heads"]),
    "model.window": Range(2, LARGEST["window"]),
    "model.num_classes": Range(0, LARGEST["num_classes"]),
    "model.drop_path": _BELOW_ONE,
    "views.crop_scale": _AREA,
    "views.crop_ratio": _ASPECT,
    "views.brightness": _SHARE,
    "views.degrees": Range(0, 180),
    "views.flip": _SHARE,
    "views.erase_area": _AREA,
    "views.erase_ratio": _ASPECT,
    "views.mean": Range(-1000, 1000),
    "views.std": Range(1e-6, 1000),
    "views.parts": Range(1, 1024),
    "loss.anchor": _WEIGHT,
    "loss.positive": _WEIGHT,
    "loss.contrast": _WEIGHT,
    "loss.label_smoothing": _BELOW_ONE,
    "loss.cosine_margin": Range(-1, 1),
    "loss.triplet_margin": Range(0, 4),  # two distances of unit vectors differ by 2 at most
    "optim.lr": Range(0, 1000),
    "optim.head_multiplier": Range(0, 10**4),
    "optim.warmup_epochs": Range(0, _INT32),
    "optim.warmup_start": _SHARE,
    "optim.end": _SHARE,
    "optim.weight_decay": Range(0, 1000),
    "optim.clip_norm": Range(0, math.inf, above=True),  # inf clips nothing
    "optim.b1": _BELOW_ONE,
    "optim.b2": _BELOW_ONE,
    "optim.eps": Range(1e-30, 1),  # 0 divides by zero; what is near it is 0 in float32
    "optim.momentum": _BELOW_ONE,
    "optim.ema": _BELOW_ONE,
    "eval.every_epochs": _STEPS,
    "eval.batch_size": _IMAGES,
    "eval.resize": _PIXELS,
    "eval.patience": _STEPS_OR_OFF,
    "checkpoint.every_minutes": Range(0, 10**6),
    "checkpoint.every_steps": _STEPS_OR_OFF,
    "checkpoint.keep": Range(1, 10**6),
    "checkpoint.keep_every": _STEPS_OR_OFF,
    "checkpoint.timeout_minutes": Range(0.1, 10**6),
    "log.every_steps": _STEPS,
    "mesh.data": _DEVICES,
    "mesh.fsdp": _DEVICES,
}


def check_names(config: ConfigDict) -> None:
    """Raises ConfigError on a setting that `configs/base.py` does not have, or one that is lacking.

    A config file that starts from base.py has them all; it may have been unlocked, or made anew.
    """
    names, known = flatten(config), recipes.defaults()
    if unknown := [name for name in names if name not in known]:
        raise ConfigError(recipes.no_such_setting(unknown[0], list(known)))
    if missing := [name for name in known if name not in names]:
        raise ConfigError(
            f"The config lacks {', '.join(missing)}; start from base.get_config() of "
            "configs/base.py."
        )


def check_types(settings: dict[str, Any]) -> None:
    """Raises ConfigError on the first setting whose value is of another type than in base.py."""
    for name, default in recipes.defaults().items():
        value = settings[name]
        if isinstance(default, tuple):
            right = isinstance(value, tuple | list) and all(_is_number(x) for x in value)
            right = right and (name not in _WHOLE_TUPLES or all(isinstance(x, int) for x in value))
        elif isinstance(default, bool | str):
            right = isinstance(value, type(default))
        else:
            right = _is_number(value) and (isinstance(default, float) or isinstance(value, int))
        if not right:
            raise ConfigError(of_another_type(name, value))


def of_another_type(name: str, value: Any) -> str:
    """The sentence for a value of another type than in base.py."""
    default = recipes.defaults()[name]
    kinds = {bool: "be True or False", int: "be a whole number", float: "be a number",
             str: "be text", tuple: "hold numbers"}  # fmt: skip
    kind = "hold whole numbers" if name in _WHOLE_TUPLES else kinds[type(default)]
    like = f", like {default!r}" if default not in ("", ()) else ""
    return f"{name} is {value!r}; it must {kind}{like}."


_WHOLE_TUPLES = ("model.depths", "model.num_heads")  # base.py leaves them empty


def check_values(config: ConfigDict, *, only: tuple[str, ...] = ("",)) -> None:
    """Checks names, types, ranges and choices.

    Args:
        config: in the form of `configs/base.py`.
        only: prefixes of the settings whose ranges and choices matter; all of them by default.

    Raises:
        ConfigError: names the first setting that cannot be used, its value and what it may be.
    """
    check_names(config)
    settings = flatten(config)
    check_types(settings)
    for name, span in RANGES.items():
        if name in settings and name.startswith(only):
            _check_range(name, settings[name], span)
    check_choices(config, only=only)
    if "eval.resize".startswith(only) and config.eval.resize < config.image_size:
        raise ConfigError(
            f"eval.resize is {config.eval.resize}; it must be at least image_size, "
            f"{config.image_size}, which is cropped from it."
        )


def check_choices(config: ConfigDict, *, only: tuple[str, ...] = ("",)) -> None:
    """Raises ConfigError on the first word that is none of its `CHOICES`; `only`: prefixes."""
    settings = flatten(config)
    for name, choices in CHOICES.items():
        if name.startswith(only) and settings[name] not in choices:
            raise ConfigError(f"{name} is {settings[name]!r}; choose one of {', '.join(choices)}.")


def check_trackers(project: str, experiment: str) -> None:
    """Raises ConfigError unless `log.wandb` and `log.mlflow` can be names there; "" is none."""
    for name, value, what in (
        ("log.wandb", project, "project"),
        ("log.mlflow", experiment, "experiment"),
    ):
        if value.lower() in ("true", "false") or (value and not value.strip()):
            raise ConfigError(
                f"{name} is {value!r}; it is the name of the {what} that gets the numbers, such as "
                f"{name}=leaves, and empty for none."
            )
    if wrong := sorted(set(project) & set("/\\#?%:")):
        raise ConfigError(
            f"log.wandb is {project!r}; the name of a project has no {' '.join(wrong)}. Its owner "
            "stands in WANDB_ENTITY."
        )
    if len(project) > 128:
        raise ConfigError(
            f"log.wandb has {len(project)} characters; the name of a project has 128 at most."
        )


def _check_range(name: str, value: Any, span: Range) -> None:
    if not isinstance(value, tuple | list):
        if not span.holds(value):
            inside = span.low < value < span.high  # as float64, which nothing computes with
            rounded = f", and is {float(np.float32(value)):g} in float32" if inside else ""
            raise ConfigError(f"{name} is {value}{rounded}; it must be {span}.")
        return
    if span.pair and not (len(value) == 2 and value[0] <= value[1] and all(map(span.holds, value))):
        raise ConfigError(
            f"{name} is {tuple(value)}; it must be (low, high), low <= high, each {span}."
        )
    if not all(map(span.holds, value)):
        raise ConfigError(f"{name} is {tuple(value)}; each must be {span}.")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
