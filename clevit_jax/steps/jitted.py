"""The jitted steps of a run, and the shapes that go into them.

Training, evaluation and preflight all take them from here, so that preflight compiles what runs.
"""

import dataclasses
import functools
from collections.abc import Collection
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from clevit_jax.data.dataset import Level
from clevit_jax.distributed import sharding
from clevit_jax.kernels.config import make_kernel_config
from clevit_jax.kernels.rotation import fits_vmem
from clevit_jax.model import swin, swin_tpu
from clevit_jax.model.config import SwinConfig
from clevit_jax.steps.eval_step import make_eval_step
from clevit_jax.steps.losses import LossConfig
from clevit_jax.steps.optim import OptimConfig, make_optimizer
from clevit_jax.steps.schedule import Schedule
from clevit_jax.steps.state import TrainState, abstract_state, create_state, replicate
from clevit_jax.steps.train_step import make_train_step
from clevit_jax.views.config import ViewConfig


@dataclasses.dataclass(frozen=True)
class StepConfig:
    """Settings of the steps of a run.

    Attributes:
        seed: of the random parameters, views, drop path and negatives.
        model: the architecture, without kernels.
        views: how the two views are made, without kernels.
        loss: weights and kinds of the loss's terms.
        optim: the optimizer.
        schedule: the learning rates.
        batch_size: images of one update, over all devices.
        accumulation: number of parts that a batch is cut into.
        resize: pixels per side of the training images.
        eval_batch_size: images of one evaluation step, over all devices.
        scan: whether the blocks of a long stage are compiled once for all.
        kernels: whether blocks and views run as fused kernels; on CPUs these are interpreted.
        platform: "cpu", "gpu" or "tpu".
        levels: coarser levels of the classes, which evaluations score as well.
    """

    seed: int
    model: SwinConfig
    views: ViewConfig
    loss: LossConfig
    optim: OptimConfig
    schedule: Schedule
    batch_size: int
    accumulation: int
    resize: int
    eval_batch_size: int
    scan: bool
    kernels: bool
    platform: str
    levels: tuple[Level, ...]


@dataclasses.dataclass(frozen=True)
class JittedSteps:
    """The jitted steps of a config on a mesh; each is compiled when it is first called.

    Attributes:
        mesh: the devices that they run on.
        config: what they were made of.
        model: the architecture, with its kernels.
        optimizer: the optimizer with the numbers of the config, to make states by.
        abstract_state: shapes, dtypes and shardings of a state.
        train_step: jitted, (state, batch, numbers) -> (state, metrics); the state is donated.
        eval_step: jitted, (parameters, batch) -> sums.
        train_batch: shapes, dtypes and shardings of a batch of `train_step`.
        eval_batch: likewise of `eval_step`.
        abstract_numbers: likewise of the numbers.
        kernels: a sentence on how many blocks run as fused kernels, and why others do not; ""
            where kernels are off.
    """

    mesh: Mesh
    config: StepConfig
    model: SwinConfig
    optimizer: Any
    abstract_state: TrainState
    train_step: Any
    eval_step: Any
    train_batch: dict[str, jax.ShapeDtypeStruct]
    eval_batch: dict[str, jax.ShapeDtypeStruct]
    abstract_numbers: Any
    kernels: str

    def initial_state(self, params: Any = None) -> TrainState:
        """A state of pre-trained parameters (see `state.create_state`), or of random ones."""
        config = self.config
        return create_state(
            self.model,
            self.optimizer,
            self.mesh,
            seed=config.seed,
            ema=config.optim.ema > 0,
            params=params,
        )

    def numbers(self) -> Any:
        """Seed and schedule on the devices: what `train_step` takes besides state and batch."""
        return replicate(_numbers(self.config), self.mesh)


def _numbers(config: StepConfig) -> dict[str, Any]:
    """The numbers that two runs may differ in and still share the compiled step."""
    schedule = config.schedule.numbers()
    return {"seed": np.uint32(config.seed), "loss": config.loss.weights(), **schedule}


def _without_numbers(config: StepConfig, terms: Collection[str]) -> StepConfig:
    """The config, the same for all that differ in `_numbers` alone and compute these terms."""
    shape = config.schedule.shape
    schedule = Schedule(shape, peak=1, head_multiplier=1, warmup_updates=0, total_updates=1)
    loss = config.loss.with_terms(terms)
    return dataclasses.replace(config, seed=0, schedule=schedule, loss=loss)


def check_batches(batch: int, eval_batch: int, accumulation: int, mesh: Mesh) -> None:
    """Raises ValueError unless both batches divide over the devices."""
    sharding.check_batch_size("batch_size", batch, mesh.size * accumulation)
    sharding.check_batch_size("eval.batch_size", eval_batch, mesh.size)


def make_jitted_steps(
    config: StepConfig, mesh: Mesh, *, terms: Collection[str] = ()
) -> JittedSteps:
    """Builds the steps of a config.

    Configs that differ in numbers alone, those of `JittedSteps.numbers`, get the same steps, so
    within a process these are compiled once.

    Args:
        config: what they are made of.
        mesh: of `sharding.make_mesh`; its devices need not be here.
        terms: of the loss, computed even where their weight is 0; see `LossConfig.with_terms`.

    Raises:
        ValueError: a batch that does not divide over the devices.
    """
    check_batches(config.batch_size, config.eval_batch_size, config.accumulation, mesh)
    shared = _shared_steps(_without_numbers(config, terms), mesh)
    return dataclasses.replace(shared, config=config)


@functools.lru_cache(maxsize=8)
def _shared_steps(config: StepConfig, mesh: Mesh) -> JittedSteps:
    """`make_jitted_steps` of a config that is `_without_numbers`."""
    model, views = _with_kernels(config, mesh)
    graphdef, abstract = swin.abstract_swin(model)
    optimizer = make_optimizer(abstract, config.optim, config.schedule.functions())
    whole = sharding.replicated(mesh)
    state = abstract_state(abstract, optimizer, mesh, ema=config.optim.ema > 0)
    divided = jax.tree.map(lambda leaf: leaf.sharding, state)
    # Left to itself, the compiler divides activations as the parameters are, and moves those.
    constrain = jax.lax.with_sharding_constraint
    gather = functools.partial(constrain, shardings=whole)
    train_step = make_train_step(
        graphdef,
        lambda numbers: make_optimizer(abstract, config.optim, config.schedule.functions(numbers)),
        views=views,
        loss=config.loss,
        num_drop_paths=model.num_drop_paths if model.drop_path else 0,
        accumulation=config.accumulation,
        ema_decay=config.optim.ema,
        scan=config.scan,
        gather=gather,
        scatter=functools.partial(constrain, shardings=divided.params),
    )
    rows = views.count * config.batch_size // (mesh.size * config.accumulation)  # per device
    return JittedSteps(
        mesh=mesh,
        config=config,
        model=model,
        optimizer=optimizer,
        abstract_state=state,
        train_step=jax.jit(train_step, donate_argnums=0, out_shardings=(divided, whole)),
        eval_step=jax.jit(
            make_eval_step(
                graphdef, gather, config.levels, mean=config.views.mean, std=config.views.std
            ),
            out_shardings=whole,
        ),
        train_batch=_abstract_batch(
            mesh, config.batch_size, config.resize, id=jnp.int32, epoch=jnp.int32
        ),
        eval_batch=_abstract_batch(mesh, config.eval_batch_size, model.image_size, mask=jnp.bool_),
        abstract_numbers=jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=whole), _numbers(config)
        ),
        kernels=swin_tpu.describe_kernels(model, rows) if config.kernels else "",
    )


def _with_kernels(config: StepConfig, mesh: Mesh) -> tuple[SwinConfig, ViewConfig]:
    """The model and the views, with their kernels where these are on and fit."""
    if not config.kernels:
        return config.model, config.views
    kernels = make_kernel_config(mesh, interpret=config.platform != "tpu")
    views = config.views
    if fits_vmem(views.size, degrees=views.degrees, vmem=kernels.vmem):
        views = dataclasses.replace(views, kernel=kernels)
    return dataclasses.replace(config.model, kernels=kernels), views


def _abstract_batch(
    mesh: Mesh, size: int, side: int, **others: Any
) -> dict[str, jax.ShapeDtypeStruct]:
    """Shapes, dtypes and shardings of a batch of `size` images of `side` pixels per side.

    Beside `image` and `label`, it holds one number per image for each of `others`: name=dtype.
    """
    shapes = {"image": ((size, side, side, 3), jnp.uint8), "label": ((size,), jnp.int32)}
    shapes |= {name: ((size,), dtype) for name, dtype in others.items()}
    return {
        name: jax.ShapeDtypeStruct(shape, dtype, sharding=sharding.batch_sharding(mesh))
        for name, (shape, dtype) in shapes.items()
    }
