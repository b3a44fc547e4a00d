"""The evaluation step, with a mask: each example counts exactly once, on any number of devices."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import scipy.special
from flax import nnx

from clevit_jax.data.dataset import Level
from clevit_jax.model.preprocessing import IMAGENET_MEAN, IMAGENET_STD, Colour
from clevit_jax.steps.losses import cross_entropy
from clevit_jax.views.transforms import normalize_images

Batch = dict[str, jax.Array]
Sums = dict[str, jax.Array]
Array = TypeVar("Array", jax.Array, np.ndarray)
LEVEL_PREFIX = "accuracy_"  # before the name of a level, where its score stands beside others


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """Metrics of a model on a split; fractions are in [0, 1].

    Attributes:
        top1: fraction of examples whose label has the largest logit.
        top5: fraction whose label is among the five largest (or all, with fewer classes).
        mean_per_class: mean over the classes that occur of their own top-1.
        loss: mean cross-entropy without label smoothing, in nats.
        count: examples.
        levels: for each coarser level of the classes, by its name, the fraction of examples whose
            predicted class is in the right group.
    """

    top1: float
    top5: float
    mean_per_class: float
    loss: float
    count: int
    levels: Mapping[str, float] = dataclasses.field(default_factory=dict, hash=False)

    def __str__(self) -> str:
        levels = "".join(f"{name} {100 * share:.2f} %, " for name, share in self.levels.items())
        return (
            f"top-1 {100 * self.top1:.2f} %, top-5 {100 * self.top5:.2f} %, mean per class "
            f"{100 * self.mean_per_class:.2f} %, {levels}loss {self.loss:.4f} ({self.count} images)"
        )

    def to_json(self) -> dict[str, float]:
        """`{"top1": ..., ..., "count": ...}`, and `accuracy_NAME` for each level."""
        scores = dataclasses.asdict(self)
        levels = scores.pop("levels")
        return scores | {LEVEL_PREFIX + name: share for name, share in levels.items()}

    @classmethod
    def from_json(cls, scores: Mapping[str, Any]) -> "Evaluation":
        """What `to_json` gave; entries of other names are passed over."""
        names = [field.name for field in dataclasses.fields(cls) if field.name != "levels"]
        levels = {
            name.removeprefix(LEVEL_PREFIX): share
            for name, share in scores.items()
            if name.startswith(LEVEL_PREFIX)
        }
        return cls(**{name: scores[name] for name in names}, levels=levels)


def rank_of_label(logits: Array, labels: Array) -> Array:
    """Rank of each label: how many classes come before it, int32 [B]. For NumPy and JAX arrays.

    Of equal logits the lower class comes first, so that equal logits for all are not right by
    default; a label whose logit is NaN comes last.
    """
    xp = logits.__array_namespace__()
    classes = logits.shape[-1]
    own = xp.take_along_axis(logits, labels[:, None], axis=-1)  # [B, 1]
    before = (logits > own) | ((logits == own) & (xp.arange(classes)[None] < labels[:, None]))
    return xp.where(xp.isnan(own[:, 0]), classes, before.sum(-1, dtype=xp.int32))


def group_is_right(logits: Array, labels: Array, level: Level) -> Array:
    """Whether the predicted class is in the group of the label, bool [B]. For NumPy and JAX arrays.

    The predicted class is the one of `rank_of_label` 0; where all logits are NaN there is none.
    """
    xp = logits.__array_namespace__()
    groups = xp.asarray(level.group_numbers, dtype=xp.int32)  # [K]
    predicted = xp.where(xp.isnan(logits), -xp.inf, logits).argmax(-1)
    return (groups[predicted] == groups[labels]) & ~xp.isnan(logits).all(-1)


def loss_of_label(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Cross-entropy of each image in nats, float64 [B], of logits [B, K] and labels [B]."""
    log_p = scipy.special.log_softmax(logits.astype(np.float64), axis=-1)
    return -np.take_along_axis(log_p, labels[:, None], axis=-1)[:, 0]


def make_eval_step(
    graphdef: nnx.GraphDef,
    gather: Callable[[Any], Any] = lambda params: params,
    levels: Sequence[Level] = (),
    *,
    mean: Colour = IMAGENET_MEAN,
    std: Colour = IMAGENET_STD,
) -> Callable[[Any, Batch], Sums]:
    """The function of one evaluation batch, for `jax.jit`.

    Args:
        graphdef: of the Swin.
        gather: see `train_step.make_train_step`.
        levels: coarser levels of the classes.
        mean, std: by which images are normalised.

    Returns:
        (params, batch) -> sums, with `batch` `image` uint8 [B, S, S, 3], `label` int32 [B] and
        `mask` bool [B], False for padding; the sums are over the examples of a class, [K]: `count`,
        `top1`, `top5`, `accuracy_NAME` for each level int32 and `loss` float32.
    """

    def eval_step(params: Any, batch: Batch) -> Sums:
        images = normalize_images(batch["image"], mean=mean, std=std)
        logits, _ = nnx.merge(graphdef, gather(params))(images)
        rank = rank_of_label(logits, batch["label"])
        loss = cross_entropy(logits, batch["label"], label_smoothing=0.0)
        # Padding gets a class of its own that is then cut off, so not even a NaN leaks from it.
        classes = logits.shape[-1]
        owner = jnp.where(batch["mask"], batch["label"], classes)

        def by_class(values: jax.Array) -> jax.Array:
            return jax.ops.segment_sum(values, owner, classes + 1)[:classes]

        sums = {
            "count": by_class(jnp.ones_like(rank)),
            "top1": by_class((rank < 1).astype(jnp.int32)),
            "top5": by_class((rank < 5).astype(jnp.int32)),
            "loss": by_class(loss),
        }
        for level in levels:
            right = group_is_right(logits, batch["label"], level)
            sums[LEVEL_PREFIX + level.name] = by_class(right.astype(jnp.int32))
        return sums

    return eval_step


def evaluate_batches(
    eval_step: Callable[[Any, Batch], Sums],
    params: Any,
    batches: Iterable[Batch],
    levels: Sequence[Level] = (),
) -> Evaluation:
    """Runs `eval_step`, which was made with these levels, over all batches; divides the sums once.

    Raises:
        ValueError: there is no example at all.
    """
    totals: dict[str, np.ndarray] = {}

    def add(sums: Sums) -> None:
        for name, value in jax.device_get(sums).items():
            totals[name] = totals.get(name, 0) + value.astype(np.float64)

    running = None  # read one batch later, so that the device never waits for the host
    for batch in batches:
        previous, running = running, eval_step(params, batch)
        if previous is not None:
            add(previous)
    if running is not None:
        add(running)
    if not totals or totals["count"].sum() == 0:
        raise ValueError("There is nothing to evaluate: the split holds no image.")
    return _evaluation(totals, levels)


def evaluation_of(
    logits: np.ndarray, labels: np.ndarray, levels: Sequence[Level] = ()
) -> Evaluation:
    """The `Evaluation` of logits [N, K] and labels [N] that are there already."""
    rank = rank_of_label(logits, labels)
    per_image = {"count": rank >= 0, "top1": rank < 1, "top5": rank < 5}
    per_image["loss"] = loss_of_label(logits, labels)
    for level in levels:
        per_image[LEVEL_PREFIX + level.name] = group_is_right(logits, labels, level)
    totals = {name: np.bincount(labels, value) for name, value in per_image.items()}
    return _evaluation(totals, levels)


def _evaluation(totals: dict[str, np.ndarray], levels: Sequence[Level]) -> Evaluation:
    """The `Evaluation` of sums per class, [K] each, as `make_eval_step` names them."""
    count = totals["count"]
    present = count > 0
    return Evaluation(
        top1=float(totals["top1"].sum() / count.sum()),
        top5=float(totals["top5"].sum() / count.sum()),
        mean_per_class=float((totals["top1"][present] / count[present]).mean()),
        loss=float(totals["loss"].sum() / count.sum()),
        count=int(count.sum()),
        levels={
            level.name: float(totals[LEVEL_PREFIX + level.name].sum() / count.sum())
            for level in levels
        },
    )
