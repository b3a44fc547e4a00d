"""The optimizer, and its parameter groups.

Which parameters decay, and which are of the head, is told from their path and rank in the nested
dict of parameters, whose names mirror the official checkpoint.
"""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import optax

OPTIMIZERS = ("adamw", "sgd")


@dataclasses.dataclass(frozen=True)
class OptimConfig:
    """The optimizer of a run, but for its learning rates.

    Attributes:
        name: 'adamw' or 'sgd'.
        weight_decay: applied where `decay_mask` is True, times the learning rate.
        clip_norm: largest global norm of the gradients; `math.inf` clips nothing. Equal to
            `torch.nn.utils.clip_grad_norm_` but for the 1e-6 that torch adds to the norm.
        b1: Adam's decay rate of the first moment ('adamw' alone, like `b2` and `eps`).
        b2: Adam's decay rate of the second moment.
        eps: Adam's term added to the root of the second moment.
        momentum: of 'sgd' alone.
        ema: decay of the average of parameters that is evaluated; 0 is off.

    Raises:
        ValueError: an unknown name or a number out of its range, in one sentence.
    """

    name: str = "adamw"
    weight_decay: float = 0.05
    clip_norm: float = 5.0
    b1: float = 0.9
    b2: float = 0.999
    eps: float = 1e-8
    momentum: float = 0.9
    ema: float = 0.0

    def __post_init__(self) -> None:
        if self.name not in OPTIMIZERS:
            raise ValueError(
                f"optim.name is {self.name!r}; it must be one of {', '.join(OPTIMIZERS)}."
            )
        for name in ("b1", "b2", "momentum", "ema"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"optim.{name} is {getattr(self, name)}; it must be in [0, 1).")
        if not 0 <= self.weight_decay < math.inf:
            raise ValueError(f"optim.weight_decay is {self.weight_decay}; it must be at least 0.")
        if not self.clip_norm > 0:
            raise ValueError(f"optim.clip_norm is {self.clip_norm}; it must be above 0.")
        if not 0 < self.eps < math.inf:
            raise ValueError(f"optim.eps is {self.eps}; it must be above 0.")


def decay_mask(params: Any) -> Any:
    """A tree like `params`, True where weight decay applies.

    False for parameters of rank 1 or less (norms), for every `bias` and for every
    `relative_position_bias_table`. The leaves of `params` need only an `ndim`, so
    `jax.ShapeDtypeStruct` will do. Source: the official code.
    """

    def decays(path: tuple[Any, ...], param: Any) -> bool:
        return param.ndim > 1 and path[-1].key not in ("bias", "relative_position_bias_table")

    return jax.tree_util.tree_map_with_path(decays, params)


def head_labels(params: Any) -> Any:
    """A tree like `params` of 'head' for what lies under `params['head']`, else 'backbone'."""
    return jax.tree_util.tree_map_with_path(
        lambda path, _: "head" if path[0].key == "head" else "backbone", params
    )


def make_optimizer(
    params: Any, config: OptimConfig, schedules: tuple[optax.Schedule, optax.Schedule]
) -> optax.GradientTransformation:
    """AdamW or SGD with the groups of the official code, safe against non-finite gradients.

    Gradients are clipped to a global norm first. 'adamw' then adds its decoupled decay to Adam's
    direction; 'sgd' adds the decay to the gradient before a Nesterov momentum, as torch and timm
    do. The result is multiplied by the learning rate of the parameter's group.

    An update whose gradients hold a NaN or an infinity, or whose norm is above the largest
    float32, changes neither parameters nor moments, however many come in a row; it is counted
    (`skipped_in_a_row`, `skipped_total`). It does use up its place in the schedule, which follows
    the number of updates asked for.

    Args:
        params: nested dict of parameters (or their `jax.ShapeDtypeStruct`), for names and ranks.
        config: name and numbers of the optimizer.
        schedules: learning rates of everything outside `params['head']`, and of the head.

    Returns:
        An `optax.GradientTransformation` for trees like `params`.

    Source: the official code; `tests/golden/train_steps.npz`.
    """
    decay = optax.add_decayed_weights(config.weight_decay, mask=decay_mask(params))
    if config.name == "adamw":
        direction = optax.chain(_scale_by_adam(config.b1, config.b2, config.eps), decay)
    else:
        direction = optax.chain(decay, optax.trace(config.momentum, nesterov=True))
    clipped = optax.chain(optax.clip_by_global_norm(config.clip_norm), direction)
    backbone, head = map(optax.scale_by_learning_rate, schedules)
    return optax.chain(
        _skip_unless_finite(clipped),
        optax.partition({"backbone": backbone, "head": head}, head_labels(params)),
    )


def _scale_by_adam(b1: float, b2: float, eps: float) -> optax.GradientTransformation:
    """`optax.scale_by_adam`, also where JAX's dtype promotion is strict."""
    adam = optax.scale_by_adam(b1, b2, eps)

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        # optax raises a float to the power of its int32 counter, which strict promotion refuses.
        with jax.numpy_dtype_promotion("standard"):
            return adam.update(updates, state, params)

    return optax.GradientTransformation(adam.init, update)


def _skip_unless_finite(inner: optax.GradientTransformation) -> optax.GradientTransformation:
    """`optax.apply_if_finite`, with its state, but without a branch and without a limit.

    XLA fuses nothing across a branch, which was half the time of an update on a TPU
    (docs/performance.md).
    """

    def init(params: Any) -> optax.ApplyIfFiniteState:
        return optax.apply_if_finite(inner, 0).init(params)

    def update(
        grads: Any, state: optax.ApplyIfFiniteState, params: Any = None
    ) -> tuple[Any, optax.ApplyIfFiniteState]:
        # Not finite if any gradient is not; the clipping needs the norm as well.
        finite = jnp.isfinite(optax.tree.norm(grads))
        updates, inner_state = inner.update(grads, state.inner_state, params)

        def choose(applied: jax.Array, skipped: jax.Array) -> jax.Array:
            return jax.lax.select(finite, applied, skipped)

        def count(number: jax.Array, otherwise: jax.Array) -> jax.Array:
            return choose(otherwise, optax.safe_increment(number))

        return (
            jax.tree.map(lambda u: choose(u, jnp.zeros_like(u)), updates),
            optax.ApplyIfFiniteState(
                notfinite_count=count(state.notfinite_count, jnp.zeros((), jnp.int32)),
                last_finite=finite,
                total_notfinite=count(state.total_notfinite, state.total_notfinite),
                inner_state=jax.tree.map(choose, inner_state, state.inner_state),
            ),
        )

    return optax.GradientTransformation(init, update)


def skipped_in_a_row(opt_state: optax.OptState) -> jax.Array:
    """How many of the latest updates were skipped without one applied since; int32 scalar."""
    return optax.tree.get(opt_state, "notfinite_count")


def skipped_total(opt_state: optax.OptState) -> jax.Array:
    """How many updates were skipped since the optimizer was initialised; int32 scalar."""
    return optax.tree.get(opt_state, "total_notfinite")
