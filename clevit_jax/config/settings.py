"""Typed `Settings` of a run, from its `ConfigDict`.

A setting that cannot be used is named in one sentence, before anything is written or computed.
"""

import contextlib
import dataclasses
from collections.abc import Iterator

import jax.numpy as jnp
from ml_collections import ConfigDict

from clevit_jax.config.ranges import check_choices, check_trackers, check_values
from clevit_jax.data.dataset import Dataset, Level
from clevit_jax.data.decode import Decoding
from clevit_jax.data.layouts.listing import Request
from clevit_jax.data.open import DataConfig
from clevit_jax.data.sources import SplitConfig
from clevit_jax.errors import ClevitError, ConfigError
from clevit_jax.model.config import DTYPES, SwinConfig
from clevit_jax.model.preprocessing import IMAGENET_MEAN, IMAGENET_STD
from clevit_jax.steps.jitted import StepConfig
from clevit_jax.steps.losses import LossConfig
from clevit_jax.steps.optim import OptimConfig
from clevit_jax.steps.schedule import Plan, Schedule, peak_learning_rate
from clevit_jax.system import cpus
from clevit_jax.system.places import expand
from clevit_jax.views.config import ViewConfig

# What `resolve_data` looks at.
_OF_DATA = ("data.", "image_size", "eval.resize", "model.num_classes")
MOST_UPDATES = 10**8  # of a run: the rates of all are kept in memory


@dataclasses.dataclass(frozen=True)
class Settings:
    """All settings of a run, typed and checked. Below `runs.setup` nobody sees a ConfigDict.

    Attributes:
        data: which images there are, and how they are decoded.
        step: what the jitted steps are made of.
        plan: how epochs become updates.
        mesh: devices along the axes `data` (-1: what is left) and `fsdp`.
        pretrained: path of the parameters to start from; "" is random ones.
        class_map: path of a file that says which class of `pretrained` each class is; "" is none.
        eval_every_epochs: epochs between two evaluations.
        patience: evaluations without a better one after which training ends; 0 is off.
        checkpoint_minutes: minutes between two checkpoints; 0 is off.
        checkpoint_steps: a checkpoint at every multiple of this step, too; 0 is off.
        checkpoint_keep_every: a checkpoint at every multiple of this step is kept for good; 0: off.
        checkpoint_timeout_minutes: minutes that storage, or one of several processes, may hang.
        keep: newest checkpoints that are kept, besides the best.
        log_steps: updates between two records of metrics.
        report: whether a report is written at the end.
    """

    data: DataConfig
    step: StepConfig
    plan: Plan
    mesh: tuple[int, int]
    pretrained: str
    class_map: str
    eval_every_epochs: int
    patience: int
    checkpoint_minutes: float
    checkpoint_steps: int
    checkpoint_keep_every: int
    checkpoint_timeout_minutes: float
    keep: int
    log_steps: int
    report: bool


def resolve(config: ConfigDict, dataset: Dataset | None, platform: str) -> Settings:
    """The settings of a config.

    Args:
        config: in the form of `configs/base.py`.
        dataset: the images of `resolve_data`; None where steps are compiled only, and not run:
            classes are those that the config names, or 1, and images ten batches, since how many
            there are shapes nothing but numbers.
        platform: "cpu", "gpu" or "tpu"; decides what `auto` means.

    Raises:
        ConfigError: a setting that cannot be used.
    """
    _check_values(config)
    with _config_errors():
        data = _data_config(config)
        levels: tuple[Level, ...] = ()
        if dataset is None:
            classes, images = config.model.num_classes or 1, 10 * config.batch_size
        else:
            classes, images = dataset.num_classes, len(dataset.train)
            levels = dataset.levels
            if config.eval.patience and not dataset.val:
                raise ConfigError(
                    f"eval.patience is {config.eval.patience}, and there are no validation images "
                    "to end training by (the test set must not decide it); cut some from the "
                    "training images, such as --config.data.val_fraction=0.15, or set "
                    "eval.patience=0."
                )
        plan = make_plan(config, images)
        step = _step_config(config, plan, classes, levels, platform)
    return Settings(
        data=data,
        step=step,
        plan=plan,
        mesh=(config.mesh.data, config.mesh.fsdp),
        pretrained=expand(config.model.pretrained, "model.pretrained", hub=True, fetched=True),
        class_map=expand(config.model.class_map, "model.class_map", fetched=True),
        eval_every_epochs=config.eval.every_epochs,
        patience=config.eval.patience,
        checkpoint_minutes=config.checkpoint.every_minutes,
        checkpoint_steps=config.checkpoint.every_steps,
        checkpoint_keep_every=config.checkpoint.keep_every,
        checkpoint_timeout_minutes=config.checkpoint.timeout_minutes,
        keep=config.checkpoint.keep,
        log_steps=config.log.every_steps,
        report=config.log.report,
    )


def resolve_data(config: ConfigDict) -> DataConfig:
    """The settings of the data set alone. Raises ConfigError, as `resolve`."""
    check_values(config, only=_OF_DATA)
    with _config_errors():
        return _data_config(config)


def resolve_decoding(config: ConfigDict) -> Decoding:
    """How images are decoded where their files do not tell. Raises ConfigError."""
    check_values(config, only=("data.bits",))
    return Decoding(truncated=config.data.truncated, bits=config.data.bits)


def check_config(config: ConfigDict, platform: str) -> None:
    """Raises ConfigError on what can be told without the data set, so before it is looked at."""
    _check_values(config)
    with _config_errors():
        _data_config(config)
        _view_config(config)
        _loss_config(config)
        model_config(config, 1, platform=platform)


def check_model(config: ConfigDict) -> None:
    """Raises ConfigError unless a trained model can be made of the config, and asked.

    How it was trained is another matter: a run answers also where an older version took numbers
    that are out of their range by now.
    """
    check_values(config, only=("image_size", "model.", "data.resize", "eval."))
    check_choices(config)
    with _config_errors():
        model_config(config, 1, platform="cpu")


def _check_values(config: ConfigDict) -> None:
    """Each setting by itself, then those that must fit together."""
    check_values(config)
    if config.model.class_map and not config.model.pretrained:
        raise ConfigError(
            "model.class_map maps the classes of model.pretrained, which is empty; set both."
        )
    check_trackers(config.log.wandb, config.log.mlflow)
    if config.optim.warmup_epochs >= config.epochs:
        raise ConfigError(
            f"optim.warmup_epochs is {config.optim.warmup_epochs}, and epochs is {config.epochs}, "
            "which leaves none to train at full rate; lower the one or raise the other."
        )


@contextlib.contextmanager
def _config_errors() -> Iterator[None]:
    """Turns the ValueError of a wing that knows no config into a ConfigError."""
    try:
        yield
    except ClevitError:
        raise
    except ValueError as error:
        raise ConfigError(str(error)) from error


def _data_config(config: ConfigDict) -> DataConfig:
    data = config.data
    return DataConfig(
        root=expand(data.root, "data.root", hub=True, fetched=True),
        layout=data.layout,
        request=Request(
            num_classes=config.model.num_classes or None,
            file_column=data.file_column,
            label_column=data.label_column,
            tfds=data.tfds,
            split_column=data.split_column,
            header=data.header,
            class_level=data.class_level,
            label_pattern=data.label_pattern,
        ),
        split=SplitConfig(
            test_fraction=data.test_fraction,
            val_fraction=data.val_fraction,
            folds=data.folds,
            fold=data.fold,
            seed=data.split_seed,
        ),
        leaves=data.leaves.to_dict(),
        resize=data.resize,
        image_size=config.image_size,
        eval_resize=config.eval.resize,
        cache_bytes=data.cache_bytes,
        threads=data.threads or cpus.usable(),
        on_bad_image=data.on_bad_image,
        max_bad=data.max_bad,
        decoding=resolve_decoding(config),
        copy_to=expand(data.copy_to, "data.copy_to"),
    )


def _step_config(
    config: ConfigDict, plan: Plan, num_classes: int, levels: tuple[Level, ...], platform: str
) -> StepConfig:
    optim, model = config.optim, config.model
    return StepConfig(
        seed=config.seed,
        model=model_config(config, num_classes, platform=platform),
        views=_view_config(config),
        loss=_loss_config(config),
        optim=OptimConfig(
            name=optim.name,
            weight_decay=optim.weight_decay,
            clip_norm=optim.clip_norm,
            b1=optim.b1,
            b2=optim.b2,
            eps=optim.eps,
            momentum=optim.momentum,
            ema=optim.ema,
        ),
        schedule=Schedule(
            optim.schedule,
            peak=peak_learning_rate(optim.lr, config.batch_size),
            head_multiplier=optim.head_multiplier,
            warmup_updates=plan.end_of(optim.warmup_epochs),
            total_updates=plan.total,
            warmup_start_fraction=optim.warmup_start,
            end_fraction=optim.end,
        ),
        batch_size=config.batch_size,
        accumulation=config.accumulation,
        resize=config.data.resize,
        eval_batch_size=config.eval.batch_size,
        scan=model.scan == "blocks" or (model.scan == "auto" and platform == "cpu"),
        # `pallas` on a CPU interprets them, which is slow and for tests.
        kernels=model.kernels == "pallas" or (model.kernels == "auto" and platform == "tpu"),
        platform=platform,
        levels=levels,
    )


def model_config(config: ConfigDict, num_classes: int, *, platform: str) -> SwinConfig:
    """The architecture of a run on "cpu", "gpu" or "tpu". Raises ValueError, see `SwinConfig`."""
    model = config.model
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


def _view_config(config: ConfigDict) -> ViewConfig:
    """The views of a run. Raises ValueError, see `ViewConfig`."""
    # Where nothing is set `runs.normalisation` knows more, which reads what a run starts from.
    colours = {
        "mean": tuple(config.views.mean) or IMAGENET_MEAN,
        "std": tuple(config.views.std) or IMAGENET_STD,
    }
    return ViewConfig(**{"size": config.image_size, **config.views, **colours})


def _loss_config(config: ConfigDict) -> LossConfig:
    """The loss of a run. Raises ValueError, see `LossConfig`, and on a term that lacks its view."""
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
    """How epochs become updates. Raises ConfigError on no update, or on too many."""
    plan = Plan(images, config.batch_size, config.epochs)
    if plan.total < 1:
        raise ConfigError(
            f"{plan.epochs} epochs of {images} images make no update of batch_size {plan.batch}; "
            "lower batch_size or raise epochs."
        )
    if plan.total > MOST_UPDATES:
        raise ConfigError(
            f"{plan.epochs} epochs of {images} images are {plan.total} updates of batch_size "
            f"{plan.batch}; a run makes {MOST_UPDATES} at most. Lower epochs."
        )
    return plan
