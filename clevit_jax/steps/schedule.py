"""Learning-rate schedules, and how epochs become updates."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import optax


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


SCHEDULES = ("linear", "cosine", "constant")


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
