"""From a config to what a run is made of: data, model, views, losses, optimizer.

Everything here stops on a senseless setting with one sentence that names it, before anything is
written or computed.
"""

from typing import Any

import jax.numpy as jnp
import optax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from clevit_jax.errors import ConfigError
from clevit_jax.kernels.config import KernelConfig, make_kernel_config
from clevit_jax.model.config import DTYPES, SwinConfig
from clevit_jax.steps.losses import LossConfig
from clevit_jax.steps.optim import make_optimizer
from clevit_jax.steps.schedule import Plan, learning_rate_schedules, peak_learning_rate
from clevit_jax.views.two_views import ViewConfig

KERNELS = ("auto", "xla", "pallas")
SCANS = ("auto", "none", "blocks")


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
    return make_kernel_config(mesh, interpret=platform != "tpu") if wanted else None


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


def build_optimizer(config: ConfigDict, plan: Plan, params: Any) -> optax.GradientTransformation:
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


# Settings that say where and how to compute, and do not change what is computed.
NOT_COMPARED = (
    "data.root", "data.cache_bytes", "data.threads", "checkpoint.", "log.", "mesh.",
    "model.kernels", "model.scan",
)  # fmt: skip

# Settings that may differ from host to host of one run.
PER_HOST = ("data.root", "data.cache_bytes", "data.threads")

# Settings that came later, with what older runs did without them.
DEFAULTS_OF_OLDER_RUNS: dict[str, Any] = {
    "model.pretrained": "",
    "model.class_map": "",
    "data.tfds": "",
    "data.file_column": "",
    "data.label_column": "",
    "data.test_fraction": 0.2,
    "data.val_fraction": 0.0,
    "data.folds": 0,
    "data.fold": 0,
    "data.split_seed": 0,
    "log.report": True,
    "model.kernels": "auto",
    "model.scan": "auto",
}


def restore_config(settings: dict[str, Any]) -> ConfigDict:
    """The config that was written as JSON, locked, with what is in `ADDED` filled in."""
    config = ConfigDict(_with_tuples(settings))
    known = flatten(config)
    missing = {
        k: v
        for k, v in DEFAULTS_OF_OLDER_RUNS.items()
        if k not in known and k.partition(".")[0] in config
    }
    config.update_from_flattened_dict(missing)
    return config.lock()


def _with_tuples(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _with_tuples(inner) for name, inner in value.items()}
    return tuple(value) if isinstance(value, list) else value


def changed_settings(
    before: dict[str, Any], now: dict[str, Any], *, free: tuple[str, ...] = ()
) -> list[str]:
    """`name: before, now` of every setting that differs and is neither of `FREE` nor of `free`."""
    missing = "not set"
    return [
        f"{name}: {str(before.get(name, missing)) or repr('')}, "
        f"{str(now.get(name, missing)) or repr('')}"
        for name in sorted(before.keys() | now.keys())
        if before.get(name, missing) != now.get(name, missing)
        and not name.startswith(NOT_COMPARED + free)
    ]
