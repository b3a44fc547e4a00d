"""Learning-rate schedules, parameter groups and the optimizer.

What counts as decayed or as head is told from a parameter's path and rank in the nested dict of
parameters, whose names mirror the official checkpoint.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
import optax

SCHEDULES = ("linear", "cosine", "constant")
OPTIMIZERS = ("adamw", "sgd")


def peak_learning_rate(lr: float, global_batch: int) -> float:
    """The backbone's peak learning rate, `lr * global_batch / 512`.

    `lr` is the recipe's number, `global_batch` the images of one update over all devices and
    accumulation steps. Source: the official code.
    """
    return lr * global_batch / 512


def learning_rate_schedule(
    shape: str,
    *,
    peak: float,
    warmup_start: float,
    warmup_updates: int,
    total_updates: int,
    end_fraction: float = 0.01,
) -> optax.Schedule:
    """The learning rate in force at each update of one parameter group.

    With W = `warmup_updates` and T = `total_updates`: linear from `warmup_start` at t = 0 to
    `peak` at t = W, then from `peak` to `end_fraction * peak` at t = T along `shape`, and constant
    from there. Update n, counted from 0, uses t = max(n - 1, 0): the official code steps its
    scheduler after an update, with the index of the update just done, so the first two updates
    see the same value.

    Args:
      shape: 'linear', 'cosine' (half a period from W to T) or 'constant' (the peak, no decay).
      peak: learning rate at the end of the warm-up.
      warmup_start: learning rate of the first update; not used where W is 0.
      warmup_updates: W >= 0.
      total_updates: T > W.
      end_fraction: of the peak, at T; not used by 'constant'.

    Returns:
      A function of the update's index (an int or an int32 array of any shape) that gives float32
      of that shape, within a relative 1e-6 of the exact number.

    Raises:
      ValueError: an unknown shape, a negative warm-up, or one that leaves no update to decay over.

    Source: the official code, for 'linear'; `tests/golden/lr_cotton80.npz`.
    """
    if shape not in SCHEDULES:
        raise ValueError(f"optim.schedule is {shape!r}; it must be one of {', '.join(SCHEDULES)}.")
    if not 0 <= warmup_updates < total_updates:
        raise ValueError(
            f"optim.warmup_epochs makes {warmup_updates} updates, which must be at least 0 and "
            f"fewer than the {total_updates} of the whole run; lower it or raise epochs."
        )
    decay_updates = total_updates - warmup_updates

    def schedule(update: jax.typing.ArrayLike) -> jax.Array:
        t = jnp.clip(jnp.asarray(update, jnp.int32) - 1, 0, total_updates)
        # Only sums of numbers >= 0: `1 - 0.99 * t / T` would lose two digits in float32 near T.
        warm = t.astype(jnp.float32) / max(warmup_updates, 1)
        rising = warmup_start * (1 - warm) + peak * warm
        left = (total_updates - t).astype(jnp.float32) / decay_updates  # 1 at W, 0 at T
        if shape == "cosine":
            left = jnp.square(jnp.sin(math.pi / 2 * left))  # (1 - cos(pi * left)) / 2
        elif shape == "constant":
            left = jnp.ones_like(left)
        falling = peak * end_fraction + peak * (1 - end_fraction) * left
        return jnp.where(t < warmup_updates, rising, falling)

    return schedule


def learning_rate_schedules(
    shape: str,
    *,
    peak: float,
    head_multiplier: float,
    warmup_updates: int,
    total_updates: int,
    warmup_start_fraction: float = 1e-3,
    end_fraction: float = 0.01,
) -> tuple[optax.Schedule, optax.Schedule]:
    """The schedules of the backbone and of the head, in this order.

    The head peaks at `head_multiplier * peak` (5 in the recipes) and ends at `end_fraction` of
    that, but its warm-up starts where the backbone's does, at `warmup_start_fraction * peak`.
    Everything else, and the errors, are as in `learning_rate_schedule`.
    """
    backbone, head = (
        learning_rate_schedule(
            shape,
            peak=group_peak,
            warmup_start=warmup_start_fraction * peak,
            warmup_updates=warmup_updates,
            total_updates=total_updates,
            end_fraction=end_fraction,
        )
        for group_peak in (peak, head_multiplier * peak)
    )
    return backbone, head


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
