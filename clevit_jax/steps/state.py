"""`TrainState`, which training changes: parameters, optimizer state, average and step."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh

from clevit_jax.distributed.sharding import replicated, state_sharding
from clevit_jax.model.config import SwinConfig
from clevit_jax.model.swin import init_params


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainState:
    """The state of training: plain arrays, so that jit, sharding and checkpoints see nothing else.

    Attributes:
        step: int32 scalar, updates made.
        params: nested dict, float32.
        opt_state: optax's.
        ema: exponential moving average of `params`, or None when it is off.
    """

    step: jax.Array
    params: Any
    opt_state: optax.OptState
    ema: Any = None

    @property
    def eval_params(self) -> Any:
        """The parameters to evaluate and to hand on: the average where there is one."""
        return self.params if self.ema is None else self.ema


def _new_state(params: Any, optimizer: optax.GradientTransformation, ema: bool) -> TrainState:
    average = jax.tree.map(jnp.copy, params) if ema else None
    return TrainState(jnp.zeros((), jnp.int32), params, optimizer.init(params), average)


def abstract_state(
    params: Any, optimizer: optax.GradientTransformation, mesh: Mesh, *, ema: bool = False
) -> TrainState:
    """Shapes, dtypes and shardings of a state (`jax.ShapeDtypeStruct`), to restore onto.

    Args:
        params: shapes and dtypes of the parameters (`swin.abstract_swin`).
        optimizer: its state is part of the state.
        mesh: decides where each array lives (`sharding.state_sharding`).
        ema: whether an average is kept.
    """
    shapes = jax.eval_shape(lambda params: _new_state(params, optimizer, ema), params)
    return jax.tree.map(
        lambda leaf, where: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=where),
        shapes,
        state_sharding(mesh, shapes),
    )


def create_state(
    model: SwinConfig,
    optimizer: optax.GradientTransformation,
    mesh: Mesh,
    *,
    seed: int,
    ema: bool = False,
    params: Any = None,
) -> TrainState:
    """A new state, made on its devices, so that none ever holds more than its share.

    Args:
        model: the architecture.
        optimizer: its state is made for the final parameters.
        mesh: decides where each array lives (`sharding.state_sharding`).
        seed: of the random parameters.
        ema: whether to keep an average.
        params: nested dict of pre-trained parameters, NumPy, the same on every process; random
            ones when None.
    """

    def create(params: Any) -> TrainState:
        return _new_state(params, optimizer, ema)

    if params is None:
        params = init_params(model, seed)
    shardings = state_sharding(mesh, jax.eval_shape(create, params))
    params = jax.tree.map(_place, params, shardings.params)  # each device receives its share alone
    return jax.jit(create, out_shardings=shardings, donate_argnums=0)(params)


def replicate(values: Any, mesh: Mesh) -> Any:
    """Puts a tree of NumPy arrays, the same on every process, whole on each device."""
    return jax.tree.map(lambda value: _place(value, replicated(mesh)), values)


def _place(array: Any, sharding: jax.sharding.Sharding) -> jax.Array:
    """Puts a NumPy array, the same on every process, on the devices."""
    array = np.asarray(array)
    return jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])
