"""Learning-rate schedules, parameter groups and the optimizer.

What counts as decayed or as head is told from a parameter's path and rank in the nested dict of
parameters, whose names mirror the official checkpoint.
"""

from typing import Any

import jax
import jax.numpy as jnp
import optax

OPTIMIZERS = ("adamw", "sgd")


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
    params: Any,
    *,
    name: str,
    backbone_schedule: optax.Schedule,
    head_schedule: optax.Schedule,
    weight_decay: float,
    clip_norm: float,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    momentum: float = 0.9,
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
      name: 'adamw' or 'sgd'.
      backbone_schedule: learning rate of everything outside `params['head']`.
      head_schedule: learning rate of `params['head']`.
      weight_decay: applied where `decay_mask` is True, times the learning rate.
      clip_norm: largest global norm of the gradients; `math.inf` clips nothing. Equal to
        `torch.nn.utils.clip_grad_norm_` but for the 1e-6 that torch adds to the norm it divides by.
      b1: Adam's decay rate of the first moment ('adamw' alone, like `b2` and `eps`).
      b2: Adam's decay rate of the second moment.
      eps: Adam's term added to the root of the second moment.
      momentum: of 'sgd' alone.

    Returns:
      An `optax.GradientTransformation` for trees like `params`.

    Raises:
      ValueError: an unknown name.

    Source: the official code; `tests/golden/train_steps.npz`.
    """
    decay = optax.add_decayed_weights(weight_decay, mask=decay_mask(params))
    if name == "adamw":
        direction = optax.chain(_scale_by_adam(b1, b2, eps), decay)
    elif name == "sgd":
        direction = optax.chain(decay, optax.trace(momentum, nesterov=True))
    else:
        raise ValueError(f"optim.name is {name!r}; it must be one of {', '.join(OPTIMIZERS)}.")
    return optax.chain(
        _skip_unless_finite(optax.chain(optax.clip_by_global_norm(clip_norm), direction)),
        optax.partition(
            {
                "backbone": optax.scale_by_learning_rate(backbone_schedule),
                "head": optax.scale_by_learning_rate(head_schedule),
            },
            head_labels(params),
        ),
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
    """`optax.apply_if_finite` without a branch, without end, and with its state.

    What a branch holds is not fused with what stands before and after it, which was half the time
    of an update on a TPU (docs/performance.md).
    """

    def init(params: Any) -> optax.ApplyIfFiniteState:
        return optax.apply_if_finite(inner, 0).init(params)

    def update(
        grads: Any, state: optax.ApplyIfFiniteState, params: Any = None
    ) -> tuple[Any, optax.ApplyIfFiniteState]:
        # Not finite if any gradient is not; the clipping needs the norm as well.
        finite = jnp.isfinite(optax.tree.norm(grads))
        updates, inner_state = inner.update(grads, state.inner_state, params)

        def choose(done: jax.Array, left: jax.Array) -> jax.Array:
            return jax.lax.select(finite, done, left)

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
