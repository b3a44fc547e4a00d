"""Learning-rate schedules, and the `Plan` by which epochs become updates.

The numbers of a schedule are arguments of the jitted step, not constants of its program, so that
runs that differ in them share what is compiled.
"""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

SCHEDULES = ("linear", "cosine", "constant")
RateNumbers = dict[str, Any]  # float32 and int32 scalars of one parameter group


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

    def epochs_of(self, step: int) -> int:
        """The largest number of epochs that end with this update or before it."""
        # The inverse of end_of: the largest e with e * images // batch <= step.
        return ((step + 1) * self.batch - 1) // self.images

    def epochs_done(self, step: int) -> int:
        """Whole epochs that are over after `step` updates."""
        return min(self.epochs, self.epochs_of(step))


def peak_learning_rate(lr: float, global_batch: int) -> float:
    """The backbone's peak learning rate, `lr * global_batch / 512`.

    `lr` is the recipe's number, `global_batch` the images of one update over all devices and
    accumulation steps. Source: the official code.
    """
    return lr * global_batch / 512


def schedule_numbers(
    *,
    peak: float,
    warmup_start: float,
    warmup_updates: int,
    total_updates: int,
    end_fraction: float = 0.01,
) -> RateNumbers:
    """The numbers that `learning_rate_schedule` computes with, for one parameter group.

    Args:
        peak: learning rate at the end of the warm-up.
        warmup_start: learning rate of the first update; not used where W is 0.
        warmup_updates: W >= 0.
        total_updates: T > W.
        end_fraction: of the peak, at T; not used by 'constant'.

    Returns:
        NumPy scalars, int32 and float32; divisions and products of constants are made here, in
        the order in which XLA would fold them, so that the bits of a rate are those of a program
        that has the numbers as constants.

    Raises:
        ValueError: a negative warm-up, or one that leaves no update to decay over.
    """
    if not 0 <= warmup_updates < total_updates:
        raise ValueError(
            f"optim.warmup_epochs makes {warmup_updates} updates, which must be at least 0 and "
            f"fewer than the {total_updates} of the whole run; lower it or raise epochs."
        )
    one = np.float32(1)
    per_warmup = one / np.float32(max(warmup_updates, 1))
    per_decay = one / np.float32(total_updates - warmup_updates)
    span = np.float32(peak * (1 - end_fraction))
    return {
        "warmup": np.int32(warmup_updates),
        "total": np.int32(total_updates),
        "start": np.float32(warmup_start),
        "per_warmup": per_warmup,
        "rise": per_warmup * np.float32(peak),  # per update, up to the peak
        "end": np.float32(peak * end_fraction),
        "span": span,
        "fall": per_decay * span,  # per update, down from the peak
        "quarter": per_decay * np.float32(math.pi / 2),  # of a circle, per update
    }


def learning_rate_schedule(shape: str, numbers: RateNumbers) -> optax.Schedule:
    """The learning rate of one parameter group at each update.

    With W and T the updates of the warm-up and of the run: linear from `warmup_start` at t = 0 to
    `peak` at t = W, then from `peak` to `end_fraction * peak` at t = T along `shape`, and constant
    from there. Update n, counted from 0, uses t = max(n - 1, 0): the official code steps its
    scheduler after an update, with the index of the update just done, so the first two updates
    see the same value.

    Args:
        shape: 'linear', 'cosine' (half a period from W to T) or 'constant' (the peak, no decay).
        numbers: of `schedule_numbers`, or traced arrays in their place.

    Returns:
        A function of the update's index (an int or an int32 array of any shape) that gives float32
        of that shape, within a relative 1e-6 of the exact number.

    Raises:
        ValueError: an unknown shape.

    Source: the official code, for 'linear'; `tests/golden/lr_cotton80.npz`.
    """
    if shape not in SCHEDULES:
        raise ValueError(f"optim.schedule is {shape!r}; it must be one of {', '.join(SCHEDULES)}.")

    def schedule(update: jax.typing.ArrayLike) -> jax.Array:
        t = jnp.clip(jnp.asarray(update, jnp.int32) - 1, 0, numbers["total"])
        # Only sums of numbers >= 0: `1 - 0.99 * t / T` would lose two digits in float32 near T.
        done = t.astype(jnp.float32)
        rising = numbers["start"] * (1 - done * numbers["per_warmup"]) + done * numbers["rise"]
        left = (numbers["total"] - t).astype(jnp.float32)
        if shape == "linear":
            falling = numbers["end"] + left * numbers["fall"]
        elif shape == "cosine":  # (1 - cos(x)) / 2 = sin(x / 2)^2
            wave = jnp.square(jnp.sin(left * numbers["quarter"]))
            falling = numbers["end"] + numbers["span"] * wave
        else:
            falling = jnp.full_like(left, numbers["end"] + numbers["span"])
        return jnp.where(t < numbers["warmup"], rising, falling)

    return schedule


@dataclasses.dataclass(frozen=True)
class Schedule:
    """The learning rates of a run, of backbone and head.

    The head peaks at `head_multiplier * peak` (5 in the recipes) and ends at `end_fraction` of
    that, but its warm-up starts where the backbone's does, at `warmup_start_fraction * peak`.

    Attributes:
        shape: see `learning_rate_schedule`.
        peak: learning rate of the backbone at the end of the warm-up.
        head_multiplier: peak of the head over that of the backbone.
        warmup_updates, total_updates, end_fraction: see `schedule_numbers`.
        warmup_start_fraction: first rate of both groups, over the backbone's peak.

    Raises:
        ValueError: see `learning_rate_schedule` and `schedule_numbers`.
    """

    shape: str
    peak: float
    head_multiplier: float
    warmup_updates: int
    total_updates: int
    warmup_start_fraction: float = 1e-3
    end_fraction: float = 0.01

    def __post_init__(self) -> None:
        self.functions()

    def numbers(self) -> dict[str, RateNumbers]:
        """The `schedule_numbers` of "backbone" and "head"."""
        return {
            group: schedule_numbers(
                peak=peak,
                warmup_start=self.warmup_start_fraction * self.peak,
                warmup_updates=self.warmup_updates,
                total_updates=self.total_updates,
                end_fraction=self.end_fraction,
            )
            for group, peak in (
                ("backbone", self.peak),
                ("head", self.head_multiplier * self.peak),
            )
        }

    def functions(
        self, numbers: dict[str, RateNumbers] | None = None
    ) -> tuple[optax.Schedule, optax.Schedule]:
        """Learning rates of backbone and head by update, with these numbers or its own."""
        numbers = numbers or self.numbers()
        backbone, head = (
            learning_rate_schedule(self.shape, numbers[group]) for group in ("backbone", "head")
        )
        return backbone, head
