"""The three terms of the CLE-ViT loss, written over the global batch.

Every function is plain array arithmetic in float32. Under `jax.jit` with inputs sharded over a
mesh the compiler adds the communication, so one device and many give the same number.
"""

import dataclasses
import math
from collections.abc import Collection

import jax
import jax.numpy as jnp
import numpy as np
import optax

TERMS = ("anchor", "positive", "contrast")  # of the loss, each with a weight of its name
CONTRAST_KINDS = ("supervised_cosine", "instance_triplet")


def cross_entropy(logits: jax.Array, labels: jax.Array, *, label_smoothing: float) -> jax.Array:
    """Cross-entropy of each image against its smoothed label.

    The label's class gets `1 - label_smoothing + label_smoothing / K`, every other class
    `label_smoothing / K`, as in `torch.nn.functional.cross_entropy` and timm's
    `LabelSmoothingCrossEntropy`.

    Args:
        logits: `[B, K]`, any float type; computed in float32.
        labels: `[B]` int32, from 0 to K - 1.
        label_smoothing: from 0 (none) to 1; the recipes use 0.1.

    Returns:
        `[B]` float32, in nats; not yet averaged, so that an evaluation can mask padded rows.

    Source: Szegedy et al. 2016, section 7 (https://arxiv.org/abs/1512.00567).
    """
    targets = jax.nn.one_hot(labels, logits.shape[-1], dtype=jnp.float32)  # [B] -> [B, K]
    targets = optax.smooth_labels(targets, label_smoothing)
    return optax.softmax_cross_entropy(logits.astype(jnp.float32), targets)  # [B, K] -> [B]


def supervised_cosine(features: jax.Array, labels: jax.Array, *, margin: float = 0.4) -> jax.Array:
    """The contrastive loss that the released CLE-ViT code runs.

    Over all R * R ordered pairs of L2-normalised rows: `1 - cos` where the labels are equal, a row
    with itself included, and `max(cos - margin, 0)` where they differ; the mean of it.

    Args:
        features: `[R, C]`, any float type; computed in float32. R = 2B, both views stacked. A row
            of zeros has cosine 0 with every row and takes no gradient.
        labels: `[R]` int32, of the same rows.
        margin: cosine below which rows of different classes are left alone. 0.4 in the released
            code, whatever its `--margin` says.

    Returns:
        A float32 scalar.

    Source: the official code; `tests/golden/supervised_cosine_loss.npz`.
    """
    unit = _normalise_rows(features)
    # HIGHEST: accelerators would otherwise round float32 factors to bfloat16 or TF32.
    cosine = jnp.matmul(unit, unit.T, precision=jax.lax.Precision.HIGHEST)  # [R, C] -> [R, R]
    same_class = labels[:, None] == labels[None, :]
    return jnp.mean(jnp.where(same_class, 1 - cosine, jnp.maximum(cosine - margin, 0)))


def instance_triplet(
    key: jax.Array,
    anchor: jax.Array,
    positive: jax.Array,
    ids: jax.Array,
    *,
    margin: float = 1.0,
) -> jax.Array:
    """The triplet loss that the CLE-ViT paper describes; labels are not used.

    `mean_i max(d(a_i, p_i) - d(a_i, n_i) + margin, 0)` with d the Euclidean distance of
    L2-normalised rows, and n_i the anchor of another image of the batch. Each other image is
    equally likely. The draw depends on `key` and on the two ids alone, so neither the order of
    the batch nor the number of devices changes it; only where the drawn image is in the batch
    more than once does the order decide: its first copy is taken.

    Args:
        key: a typed key (`jax.random.key`); another key draws other negatives.
        anchor: `[B, C]` features of the anchor views, any float type; computed in float32.
        positive: `[B, C]` features of the positive views of the same images.
        ids: `[B]` int32, which image a row is of. Rows of equal id are never each other's negative.
        margin: in units of d, which lies between 0 and 2.

    Returns:
        A float32 scalar. A row without any other image in the batch (always so at B = 1) counts as
        0 in the mean.

    Source: the instance-level contrastive loss of the paper (doi 10.24963/ijcai.2023/504). The
    official code carries a disabled variant that is no distance; it is not reproduced.
    """
    other = ids[:, None] != ids[None, :]  # [B, B]
    drawn = jnp.argmax(jnp.where(other, _pair_scores(key, ids), -1), axis=1)  # [B, B] -> [B]
    anchor, positive = _normalise_rows(anchor), _normalise_rows(positive)
    gap = _distance(anchor, positive) - _distance(anchor, anchor[drawn])  # [B, C] -> [B]
    return jnp.mean(jnp.where(other.any(axis=1), jnp.maximum(gap + margin, 0), 0))


def _pair_scores(key: jax.Array, ids: jax.Array) -> jax.Array:
    """Random int32 `[B, B]` >= 0: a hash of (key, ids[i], ids[j]) and of nothing else."""

    def score(row_id: jax.Array, column_id: jax.Array) -> jax.Array:
        bits = jax.random.bits(jax.random.fold_in(jax.random.fold_in(key, row_id), column_id))
        return (bits >> 1).astype(jnp.int32)  # 31 bits, so that -1 ranks below all of them

    return jax.vmap(jax.vmap(score, (None, 0)), (0, None))(ids, ids)


def _normalise_rows(x: jax.Array) -> jax.Array:
    """Float32 rows of Euclidean length 1; rows shorter than 1e-12 become 0, with gradient 0."""
    x = x.astype(jnp.float32)
    squared = jnp.sum(x * x, axis=1, keepdims=True)  # [R, C] -> [R, 1]
    # Without the inner `where`, the unused branch gives 0 * inf = NaN in the backward pass.
    zero = squared <= 1e-24
    return x * jnp.where(zero, 0, jax.lax.rsqrt(jnp.where(zero, 1, squared)))


def _distance(x: jax.Array, y: jax.Array) -> jax.Array:
    """Euclidean distance of paired rows, `[B, C]` -> `[B]`; gradient 0 where it is 0."""
    squared = jnp.sum(jnp.square(x - y), axis=1)
    zero = squared == 0
    return jnp.where(zero, 0, jnp.sqrt(jnp.where(zero, 1, squared)))


@dataclasses.dataclass(frozen=True)
class LossConfig:
    """Weights and kinds of the three terms.

    Attributes:
        anchor: weight of the anchor's cross-entropy.
        positive: weight of the positive's cross-entropy; 0 without a positive view.
        contrast: weight of the contrastive term; 0 leaves it out.
        contrast_kind: `supervised_cosine` (the released code) or `instance_triplet` (the paper).
        label_smoothing: of both cross-entropies.
        cosine_margin: of `supervised_cosine`, a cosine.
        triplet_margin: of `instance_triplet`, a distance between unit vectors.

    Raises:
        ValueError: on an unknown kind or a number out of its range, in one sentence.
    """

    anchor: float = 1.0
    positive: float = 1.0
    contrast: float = 1.0
    contrast_kind: str = "supervised_cosine"
    label_smoothing: float = 0.1
    cosine_margin: float = 0.4
    triplet_margin: float = 1.0

    def __post_init__(self) -> None:
        if self.contrast_kind not in CONTRAST_KINDS:
            raise ValueError(
                f"loss.contrast_kind is {self.contrast_kind!r}; it must be one of "
                f"{', '.join(CONTRAST_KINDS)}."
            )
        for name in TERMS:
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"loss.{name} is {getattr(self, name)}; it must be at least 0.")
        if not 0 <= self.label_smoothing < 1:
            raise ValueError(
                f"loss.label_smoothing is {self.label_smoothing}; it must be in [0, 1)."
            )
        for name in ("cosine_margin", "triplet_margin"):
            if not math.isfinite(getattr(self, name)):
                raise ValueError(f"loss.{name} is {getattr(self, name)}; it must be finite.")

    def weights(self) -> dict[str, np.float32]:
        """The weight of each term, by its name: the numbers that a jitted update takes."""
        return {name: np.float32(getattr(self, name)) for name in TERMS}

    def with_terms(self, names: Collection[str]) -> "LossConfig":
        """What a program is compiled for: weight 1 for each of its terms, 0 for one that it lacks.

        The cross-entropies are in every program, for their metrics. The contrastive term is where
        it has a weight, or where `names` has it: of a run that shares its program with such runs.
        """
        contrast = float("contrast" in names or self.contrast > 0)
        return dataclasses.replace(self, anchor=1.0, positive=1.0, contrast=contrast)
