"""The evaluation step, with a mask: each example counts exactly once, on any number of devices."""

import dataclasses
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import scipy.special
from flax import nnx

from clevit_jax.steps.losses import cross_entropy
from clevit_jax.views.transforms import normalize_images

Batch = dict[str, jax.Array]
Sums = dict[str, jax.Array]
Array = TypeVar("Array", jax.Array, np.ndarray)


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """Metrics of a model on a split; fractions are in [0, 1].

    Attributes:
        top1: fraction of examples whose label has the largest logit.
        top5: fraction whose label is among the five largest (or all, with fewer classes).
        mean_per_class: mean over the classes that occur of their own top-1.
        loss: mean cross-entropy without label smoothing, in nats.
        count: examples.
    """

    top1: float
    top5: float
    mean_per_class: float
    loss: float
    count: int

    def __str__(self) -> str:
        return (
            f"top-1 {100 * self.top1:.2f} %, top-5 {100 * self.top5:.2f} %, mean per class "
            f"{100 * self.mean_per_class:.2f} %, loss {self.loss:.4f} ({self.count} images)"
        )


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


def loss_of_label(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Cross-entropy of each image in nats, float64 [B], of logits [B, K] and labels [B]."""
    log_p = scipy.special.log_softmax(logits.astype(np.float64), axis=-1)
    return -np.take_along_axis(log_p, labels[:, None], axis=-1)[:, 0]


def make_eval_step(
    graphdef: nnx.GraphDef, gather: Callable[[Any], Any] = lambda params: params
) -> Callable[[Any, Batch], Sums]:
    """The function of one evaluation batch, for `jax.jit`.

    Args:
        graphdef: of the Swin.
        gather: see `train_step.make_train_step`.

    Returns:
        (params, batch) -> sums, with `batch` `image` uint8 [B, S, S, 3], `label` int32 [B] and
        `mask` bool [B], False for padding; the sums are over the examples of a class, [K]: `count`,
        `top1`, `top5` int32 and `loss` float32.
    """

    def eval_step(params: Any, batch: Batch) -> Sums:
        logits, _ = nnx.merge(graphdef, gather(params))(normalize_images(batch["image"]))
        rank = rank_of_label(logits, batch["label"])
        loss = cross_entropy(logits, batch["label"], label_smoothing=0.0)
        # Padding gets a class of its own that is then cut off, so not even a NaN leaks from it.
        classes = logits.shape[-1]
        owner = jnp.where(batch["mask"], batch["label"], classes)

        def by_class(values: jax.Array) -> jax.Array:
            return jax.ops.segment_sum(values, owner, classes + 1)[:classes]

        return {
            "count": by_class(jnp.ones_like(rank)),
            "top1": by_class((rank < 1).astype(jnp.int32)),
            "top5": by_class((rank < 5).astype(jnp.int32)),
            "loss": by_class(loss),
        }

    return eval_step


def evaluate_batches(
    eval_step: Callable[[Any, Batch], Sums], params: Any, batches: Iterable[Batch]
) -> Evaluation:
    """Runs `eval_step` over all batches, and divides the sums once.

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
    return _evaluation(totals)


def evaluation_of(logits: np.ndarray, labels: np.ndarray) -> Evaluation:
    """The `Evaluation` of logits [N, K] and labels [N] that are there already."""
    rank = rank_of_label(logits, labels)
    per_image = {"count": rank >= 0, "top1": rank < 1, "top5": rank < 5}
    per_image["loss"] = loss_of_label(logits, labels)
    return _evaluation({name: np.bincount(labels, value) for name, value in per_image.items()})


def _evaluation(totals: dict[str, np.ndarray]) -> Evaluation:
    """The `Evaluation` of sums per class, [K] each, as `make_eval_step` names them."""
    count = totals["count"]
    present = count > 0
    return Evaluation(
        top1=float(totals["top1"].sum() / count.sum()),
        top5=float(totals["top5"].sum() / count.sum()),
        mean_per_class=float((totals["top1"][present] / count[present]).mean()),
        loss=float(totals["loss"].sum() / count.sum()),
        count=int(count.sum()),
    )
