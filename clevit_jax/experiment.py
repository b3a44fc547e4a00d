"""From a config to what a run is made of: data, model, views, losses, optimizer.

Everything here stops on a senseless setting with one sentence that names it, before anything is
written or computed.
"""

import dataclasses
import functools
import os
import pathlib
from typing import Any

import jax.numpy as jnp
import optax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from clevit_jax import processes
from clevit_jax.data import decode, leaves, sources
from clevit_jax.data.dataset import DataError, Dataset
from clevit_jax.data.layouts.listing import Request
from clevit_jax.data.pipeline import DecodedImages
from clevit_jax.kernels import network
from clevit_jax.kernels.network import KernelConfig
from clevit_jax.optim import learning_rate_schedules, make_optimizer, peak_learning_rate
from clevit_jax.step import LossConfig
from clevit_jax.swin_config import DTYPES, SwinConfig
from clevit_jax.views import ViewConfig

KERNELS = ("auto", "xla", "pallas")
SCANS = ("auto", "none", "blocks")


class ConfigError(ValueError):
    """A setting that cannot be used, in one sentence."""


def check_numbers(config: ConfigDict) -> None:
    """Raises ConfigError naming the first setting that is out of its range."""
    lowest = {
        "seed": 0, "epochs": 1, "batch_size": 1, "accumulation": 1, "image_size": 1,
        "data.resize": 1, "data.cache_bytes": 0, "data.threads": 0, "optim.lr": 0,
        "optim.head_multiplier": 0, "optim.warmup_epochs": 0, "optim.warmup_start": 0,
        "optim.end": 0, "optim.weight_decay": 0, "optim.ema": 0, "eval.every_epochs": 1,
        "eval.batch_size": 1, "eval.resize": config.image_size, "checkpoint.every_minutes": 0,
        "checkpoint.every_steps": 0, "checkpoint.keep": 1, "log.every_steps": 1,
        "model.num_classes": 0,
    }  # fmt: skip
    flat = flatten(config)
    for name, low in lowest.items():
        if not flat[name] >= low:
            raise ConfigError(f"{name} is {flat[name]}; it must be at least {low}.")
    if config.seed >= 2**32:
        raise ConfigError(f"seed is {config.seed}; it must be below 2**32.")
    if config.optim.ema >= 1:
        raise ConfigError(f"optim.ema is {config.optim.ema}; it must be below 1.")
    if config.model.class_map and not config.model.pretrained:
        raise ConfigError("model.class_map maps the classes of model.pretrained, which is empty.")
    if config.optim.clip_norm <= 0:
        raise ConfigError(f"optim.clip_norm is {config.optim.clip_norm}; it must be above 0.")
    for name in ("model.depths", "model.num_heads", "views.crop_scale", "views.crop_ratio",
                 "views.erase_area", "views.erase_ratio"):  # fmt: skip
        if not all(isinstance(x, int | float) for x in flat[name]):
            raise ConfigError(f"{name} is {flat[name]}; it must hold numbers alone.")


def flatten(config: ConfigDict) -> dict[str, Any]:
    """`{"model.window": 7, ...}`, tuples as they are."""
    flat: dict[str, Any] = {}
    for name, value in config.items():
        if isinstance(value, ConfigDict):
            flat |= {f"{name}.{inner}": x for inner, x in flatten(value).items()}
        else:
            flat[name] = value
    return flat


def scan_data(config: ConfigDict) -> tuple[Dataset, list[str]]:
    """Finds which images there are; writes the procedural leaves first if the config asks.

    Returns:
        The data set, as far as problems allow, and a sentence for each thing wrong with it.

    Raises:
        ConfigError: no data is named, or a setting cannot be used.
        DataError: the layout of the files cannot be told.
    """
    data = config.data
    if not (data.root or data.tfds):
        raise ConfigError("data.root is empty; name the folder of images: --config.data.root=DIR.")
    wanted = data.leaves.to_dict()
    if wanted["classes"]:
        try:
            if processes.index() == 0:
                leaves.write_dataset(pathlib.Path(data.root), **wanted)
        except (OSError, ValueError) as error:
            raise ConfigError(str(error)) from error
        processes.barrier("leaves")
    request = Request(
        num_classes=config.model.num_classes or None,
        file_column=data.file_column,
        label_column=data.label_column,
        tfds=data.tfds,
    )
    return sources.scan(data.root, layout=data.layout, request=request, split=split_config(config))


def open_data(config: ConfigDict) -> Dataset:
    """As `scan_data`; DataError lists everything that is wrong with the files."""
    dataset, problems = scan_data(config)
    if problems:
        raise DataError(problems)
    return dataset


def split_config(config: ConfigDict) -> sources.SplitConfig:
    """How splits are cut. Raises ValueError, see `SplitConfig`."""
    data = config.data
    return sources.SplitConfig(
        test_fraction=data.test_fraction,
        val_fraction=data.val_fraction,
        folds=data.folds,
        fold=data.fold,
        seed=data.split_seed,
    )


def decoded_images(
    config: ConfigDict, dataset: Dataset, *, training: bool
) -> dict[str, DecodedImages]:
    """The images of each split, decoded when they are asked for.

    Those of "train" are uint8 squares, `data.resize` pixels a side; the others uint8 centre crops,
    `image_size` pixels a side. `data.cache_bytes` goes to the splits in turn: to the training
    images first, if there is `training`; what they leave to the others.
    """
    free = config.data.cache_bytes
    images = {}
    for split, examples in dataset.splits.items():
        if split == "train":
            side = config.data.resize
            decoder = functools.partial(decode.decode_train, size=side)
        else:
            side = config.image_size
            decoder = functools.partial(decode.decode_eval, resize=config.eval.resize, crop=side)
        images[split] = DecodedImages(examples, decoder, cache_bytes=free)
        if split != "train" or training:
            free = max(0, free - 3 * side**2 * len(examples))
    return images


def threads(config: ConfigDict) -> int:
    """Threads that decode."""
    return config.data.threads or all_threads()


def all_threads() -> int:
    """As many as there are cores."""
    return os.cpu_count() or 1


def model_config(config: ConfigDict, num_classes: int, *, platform: str) -> SwinConfig:
    """The architecture, for "cpu", "gpu" or "tpu". Raises ValueError, see `SwinConfig`."""
    model = config.model
    if model.dtype not in ("auto", *DTYPES):
        raise ConfigError(f"model.dtype is {model.dtype!r}; choose of auto, {', '.join(DTYPES)}.")
    if model.kernels not in KERNELS:
        raise ConfigError(f"model.kernels is {model.kernels!r}; choose of {', '.join(KERNELS)}.")
    if model.scan not in SCANS:
        raise ConfigError(f"model.scan is {model.scan!r}; choose of {', '.join(SCANS)}.")
    if model.kernels == "pallas" and platform == "gpu":
        raise ConfigError("model.kernels is 'pallas', which is for TPUs; take auto or xla on GPUs.")
    automatic = jnp.float32 if platform == "cpu" else jnp.bfloat16
    overrides = {
        name: tuple(model[name]) if name != "embed_dim" else model[name]
        for name in ("embed_dim", "depths", "num_heads")
        if model[name]
    }
    return SwinConfig.variant(
        model.variant,
        **overrides,
        image_size=config.image_size,
        num_classes=num_classes,
        window=model.window,
        drop_path=model.drop_path,
        dtype=DTYPES.get(model.dtype, automatic),
        remat=model.remat,
    )


def kernel_config(config: ConfigDict, mesh: Mesh, *, platform: str) -> KernelConfig | None:
    """Where the model's kernels run; None for the compiler's own way everywhere.

    `auto` takes them on TPUs. `pallas` on a CPU interprets them, which is slow and for tests.
    """
    wanted = config.model.kernels == "pallas" or (
        config.model.kernels == "auto" and platform == "tpu"
    )
    return network.kernel_config(mesh, interpret=platform != "tpu") if wanted else None


def scans(config: ConfigDict, *, platform: str) -> bool:
    """Whether the training step scans over the blocks of a stage; `auto` does on CPUs."""
    return config.model.scan == "blocks" or (config.model.scan == "auto" and platform == "cpu")


def view_config(config: ConfigDict) -> ViewConfig:
    """How views are made. Raises ValueError, see `ViewConfig`."""
    return ViewConfig(size=config.image_size, **config.views)


def loss_config(config: ConfigDict) -> LossConfig:
    """The loss. Raises ValueError, see `LossConfig`, and on a term that its views cannot feed."""
    loss = LossConfig(**config.loss)
    if config.views.kind == "base" and (loss.positive or loss.contrast):
        raise ConfigError(
            "views.kind=base makes no positive view, so set loss.positive=0 and loss.contrast=0."
        )
    if not (loss.anchor or loss.positive or loss.contrast):
        raise ConfigError("loss.anchor, loss.positive and loss.contrast are all 0; raise one.")
    triplets = loss.contrast and loss.contrast_kind == "instance_triplet"
    if triplets and config.batch_size // config.accumulation < 2:
        raise ConfigError(
            f"batch_size {config.batch_size} in {config.accumulation} parts leaves no other image "
            "for instance_triplet to push away; raise batch_size or lower accumulation."
        )
    return loss


@dataclasses.dataclass(frozen=True)
class Plan:
    """How epochs become updates: epoch e ends with update `e * images // batch`.

    Attributes:
        images: training images.
        batch: images of one update.
        epochs: passes over the images.
    """

    images: int
    batch: int
    epochs: int

    @property
    def total(self) -> int:
        """Updates of the whole run."""
        return self.end_of(self.epochs)

    def end_of(self, epochs: float) -> int:
        """Updates made when so many epochs are over."""
        return int(epochs * self.images // self.batch)

    def epochs_done(self, step: int) -> int:
        """Whole epochs that are over after `step` updates."""
        # The inverse of end_of: the largest e with e * images // batch <= step.
        return min(self.epochs, ((step + 1) * self.batch - 1) // self.images)


def make_plan(config: ConfigDict, images: int) -> Plan:
    """Raises ConfigError when the run would not make a single update."""
    plan = Plan(images, config.batch_size, config.epochs)
    if plan.total < 1:
        raise ConfigError(
            f"{plan.epochs} epochs of {images} images make no update of batch_size {plan.batch}; "
            "lower batch_size or raise epochs."
        )
    return plan


def schedules(config: ConfigDict, plan: Plan) -> tuple[optax.Schedule, optax.Schedule]:
    """Learning rates of backbone and head by update. Raises ValueError on a senseless one."""
    optim = config.optim
    return learning_rate_schedules(
        optim.schedule,
        peak=peak_learning_rate(optim.lr, config.batch_size),
        head_multiplier=optim.head_multiplier,
        warmup_updates=plan.end_of(optim.warmup_epochs),
        total_updates=plan.total,
        warmup_start_fraction=optim.warmup_start,
        end_fraction=optim.end,
    )


def optimizer(config: ConfigDict, plan: Plan, params: Any) -> optax.GradientTransformation:
    """The optimizer for parameters of these names and shapes."""
    optim = config.optim
    backbone, head = schedules(config, plan)
    return make_optimizer(
        params,
        name=optim.name,
        backbone_schedule=backbone,
        head_schedule=head,
        weight_decay=optim.weight_decay,
        clip_norm=optim.clip_norm,
        b1=optim.b1,
        b2=optim.b2,
        eps=optim.eps,
        momentum=optim.momentum,
    )
