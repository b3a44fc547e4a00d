"""The compiled part of an experiment: its two jitted functions and what goes into them.

Training, evaluation and preflight all take them from here, so that what preflight compiles is what
runs.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from ml_collections import ConfigDict

from clevit_jax.config import (
    build_optimizer,
    kernel_config,
    loss_config,
    model_config,
    scans,
    view_config,
)
from clevit_jax.distributed import sharding
from clevit_jax.kernels.rotation import fits_vmem
from clevit_jax.model import swin, swin_tpu
from clevit_jax.model.config import SwinConfig
from clevit_jax.steps.eval_step import make_eval_step
from clevit_jax.steps.schedule import Plan
from clevit_jax.steps.state import TrainState, abstract_state, create_state
from clevit_jax.steps.train_step import make_train_step


@dataclasses.dataclass(frozen=True)
class JittedSteps:
    """What is compiled for a config on a mesh; nothing is computed yet.

    Attributes:
        mesh: where it runs.
        model: the architecture.
        like: shapes, dtypes and shardings of a state.
        initial_state: of pre-trained parameters (see `state.create_state`), or random.
        train_step: jitted, (state, batch) -> (state, metrics); the state is donated.
        eval_step: jitted, (parameters, batch) -> sums.
        train_batch: shapes, dtypes and shardings of a batch of `train_step`.
        eval_batch: likewise of `eval_step`.
        kernels: how many blocks run as fused kernels, and why others do not; "" where none shall.
    """

    mesh: Mesh
    model: SwinConfig
    like: TrainState
    initial_state: Callable[..., TrainState]
    train_step: Any
    eval_step: Any
    train_batch: dict[str, jax.ShapeDtypeStruct]
    eval_batch: dict[str, jax.ShapeDtypeStruct]
    kernels: str


def check_batches(config: ConfigDict, mesh: Mesh) -> None:
    """Raises ValueError unless both batches divide over the devices."""
    parts = mesh.size * config.accumulation
    sharding.check_batch_size("batch_size", config.batch_size, parts)
    sharding.check_batch_size("eval.batch_size", config.eval.batch_size, mesh.size)


def make_jitted_steps(
    config: ConfigDict, mesh: Mesh, *, num_classes: int, plan: Plan, platform: str
) -> JittedSteps:
    """Builds the functions of a config.

    Args:
        config: in the form of `configs/base.py`.
        mesh: of `sharding.make_mesh`; its devices need not be here.
        num_classes: outputs of the head.
        plan: how many updates there are, for the learning rate.
        platform: "cpu", "gpu" or "tpu", where the mesh is; decides what `model.dtype=auto` means.

    Raises:
        ValueError: a setting that cannot be used.
    """
    views, loss = view_config(config), loss_config(config)
    model = model_config(config, num_classes, platform=platform)
    kernels = kernel_config(config, mesh, platform=platform)
    model = dataclasses.replace(model, kernels=kernels)
    if kernels and fits_vmem(views.size, degrees=views.degrees, vmem=kernels.vmem):
        views = dataclasses.replace(views, kernel=kernels)
    rows = views.count * config.batch_size // (mesh.size * config.accumulation)  # of a device
    graphdef, abstract = swin.abstract_swin(model)
    optimizer = build_optimizer(config, plan, abstract)
    ema = config.optim.ema > 0
    like = abstract_state(abstract, optimizer, mesh, ema=ema)
    scalars = sharding.replicated(mesh)
    divided = jax.tree.map(lambda leaf: leaf.sharding, like)
    # Left to itself, the compiler divides activations as the parameters are, and moves those.
    constrain = jax.lax.with_sharding_constraint
    gather = functools.partial(constrain, shardings=scalars)
    scatter = functools.partial(constrain, shardings=divided.params)
    train_step = make_train_step(
        graphdef, optimizer, views=views, loss=loss, seed=config.seed,
        num_drop_paths=model.num_drop_paths if model.drop_path else 0,
        accumulation=config.accumulation, ema_decay=config.optim.ema,
        scan=scans(config, platform=platform),
        gather=gather, scatter=scatter,
    )  # fmt: skip

    def initial_state(params: Any = None) -> TrainState:
        return create_state(model, optimizer, mesh, seed=config.seed, ema=ema, params=params)

    def batch(size: int, side: int, **others: Any) -> dict[str, jax.ShapeDtypeStruct]:
        where = sharding.batch_sharding(mesh)
        shapes = {"image": ((size, side, side, 3), jnp.uint8), "label": ((size,), jnp.int32)}
        shapes |= {name: ((size,), dtype) for name, dtype in others.items()}
        return {
            name: jax.ShapeDtypeStruct(shape, dtype, sharding=where)
            for name, (shape, dtype) in shapes.items()
        }

    return JittedSteps(
        mesh=mesh,
        model=model,
        like=like,
        initial_state=initial_state,
        train_step=jax.jit(
            train_step,
            donate_argnums=0,
            out_shardings=(divided, scalars),
        ),
        eval_step=jax.jit(make_eval_step(graphdef, gather), out_shardings=scalars),
        train_batch=batch(config.batch_size, config.data.resize, id=jnp.int32, epoch=jnp.int32),
        kernels=swin_tpu.describe_kernels(model, rows) if kernels else "",
        eval_batch=batch(config.eval.batch_size, config.image_size, mask=jnp.bool_),
    )
