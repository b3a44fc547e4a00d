"""One update: views -> Swin -> losses -> optimizer.

Source: Yu, Wang, Gao, CLE-ViT, IJCAI 2023, and its official code.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from clevit_jax.steps import losses
from clevit_jax.steps.losses import LossConfig
from clevit_jax.steps.optim import skipped_in_a_row, skipped_total
from clevit_jax.steps.state import TrainState
from clevit_jax.views.two_views import ViewConfig, example_keys, make_views

Batch = dict[str, jax.Array]
Metrics = dict[str, jax.Array]
StepNumbers = dict[str, Any]  # seed and schedule of a run, see `jitted.JittedSteps.numbers`


def clevit_loss(
    params: Any,
    graphdef: nnx.GraphDef,
    anchors: jax.Array,
    positives: jax.Array | None,
    batch: Batch,
    *,
    config: LossConfig,
    key: jax.Array,
    weights: Any = None,
    noise: jax.Array | None = None,
    scan: bool = False,
) -> tuple[jax.Array, Metrics]:
    """The loss of a batch, over all of its rows at once.

    Args:
        params: nested dict of the Swin that `graphdef` describes.
        graphdef: see `swin.abstract_swin`.
        anchors: float32 [B, S, S, 3], normalised.
        positives: the same shape, or None for anchors alone.
        batch: `label` and `id`, int32 [B].
        config: weights and kinds of the terms; a contrastive term of weight 0 is left out.
        key: draws the negatives of `instance_triplet`.
        weights: float32 scalars by term, in the place of those of `config`.
        noise: uniform float32 [B, views, drop paths], or None for no drop path.
        scan: see `swin.Swin.__call__`.

    Returns:
        The loss and its parts, float32 scalars: `loss`, `loss_anchor`, `loss_positive`,
        `loss_contrast` (those that have a weight) and `accuracy` of the anchors.
    """
    views = anchors[:, None] if positives is None else jnp.stack([anchors, positives], 1)
    count = views.shape[1]
    # Row 2i is an anchor and row 2i + 1 its positive, so that a batch divided over devices stays
    # where it is.
    images = views.reshape(-1, *views.shape[2:])  # [B, views, S, S, 3] -> [B * views, S, S, 3]
    rows = None if noise is None else noise.reshape(images.shape[0], -1)
    logits, features = nnx.merge(graphdef, params)(images, drop_path_noise=rows, scan=scan)
    logits = logits.reshape(-1, count, logits.shape[-1])  # [B, views, K]
    features = features.reshape(-1, count, features.shape[-1])  # [B, views, C]

    with jax.named_scope("losses"):
        return _losses(
            logits, features, batch, config=config, key=key, weights=weights or config.weights()
        )


def _losses(
    logits: jax.Array,
    features: jax.Array,
    batch: Batch,
    *,
    config: LossConfig,
    key: jax.Array,
    weights: Any,
) -> tuple[jax.Array, Metrics]:
    """`clevit_loss` of logits [B, views, K] and features [B, views, C]."""
    labels = batch["label"]
    smoothing = config.label_smoothing
    metrics = {
        "loss_anchor": losses.cross_entropy(logits[:, 0], labels, label_smoothing=smoothing).mean(),
        "accuracy": (logits[:, 0].argmax(-1) == labels).mean(dtype=jnp.float32),
    }
    loss = weights["anchor"] * metrics["loss_anchor"]
    if logits.shape[1] == 2:
        metrics["loss_positive"] = losses.cross_entropy(
            logits[:, 1], labels, label_smoothing=smoothing
        ).mean()
        loss += weights["positive"] * metrics["loss_positive"]
    if config.contrast > 0:
        if config.contrast_kind == "supervised_cosine":
            term = losses.supervised_cosine(
                features.reshape(-1, features.shape[-1]),
                jnp.repeat(labels, features.shape[1]),
                margin=config.cosine_margin,
            )
        else:
            term = losses.instance_triplet(
                key, features[:, 0], features[:, 1], batch["id"], margin=config.triplet_margin
            )
        metrics["loss_contrast"] = term
        loss += weights["contrast"] * term
    return loss, {"loss": loss, **metrics}


def apply_gradients(
    state: TrainState,
    grads: Any,
    optimizer: optax.GradientTransformation,
    *,
    ema_decay: float = 0.0,
) -> tuple[TrainState, Metrics]:
    """One step of the optimizer, and of the average where the state has one.

    Returns:
        The new state, and `grad_norm` (before clipping), `skipped_in_a_row` and `skipped`
        (updates left out because a gradient was not finite).
    """
    updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    ema = state.ema
    if ema is not None:
        ema = optax.incremental_update(params, ema, 1 - ema_decay)
    metrics = {
        "grad_norm": optax.tree.norm(grads),
        "skipped_in_a_row": skipped_in_a_row(opt_state),
        "skipped": skipped_total(opt_state),
    }
    return TrainState(state.step + 1, params, opt_state, ema), metrics


def make_train_step(
    graphdef: nnx.GraphDef,
    optimizer: Callable[[StepNumbers], optax.GradientTransformation],
    *,
    views: ViewConfig,
    loss: LossConfig,
    num_drop_paths: int,
    accumulation: int = 1,
    ema_decay: float = 0.0,
    scan: bool = False,
    gather: Callable[[Any], Any] = lambda params: params,
    scatter: Callable[[Any], Any] = lambda grads: grads,
) -> Callable[[TrainState, Batch, StepNumbers], tuple[TrainState, Metrics]]:
    """The function of one update, for `jax.jit`.

    With `accumulation` k > 1 the batch is cut into k parts that go through the model one after
    the other, and their gradients are averaged. Cross-entropies are then exactly those of the
    whole batch. The contrastive term is not: it compares rows within each of the k parts only,
    so it sees B/k images at a time. Views and drop path do not depend on k.

    Args:
        graphdef: of the Swin.
        optimizer: makes it (see `optim.make_optimizer`) from the numbers of an update.
        views: how the two views are made.
        loss: kinds of the terms, and by its weight whether there is a contrastive one.
        num_drop_paths: `SwinConfig.num_drop_paths`, or 0 for no drop path.
        accumulation: k; divides the batch.
        ema_decay: of the state's average, if it has one.
        scan: see `swin.Swin.__call__`.
        gather: lays out parameters whole on each device before the model sees them, where the
            state is divided; the activations stay divided by rows alone then.
        scatter: lays out gradients as the state is.

    Returns:
        (state, batch, numbers) -> (state, metrics), with batch `image` uint8 [B, S, S, 3] and
        `label`, `id`, `epoch` int32 [B]; numbers `seed` uint32 scalar, of views, drop path and
        negatives, `loss`, the weights of the terms, and what `optimizer` takes; metrics are the
        scalars of `clevit_loss` and `apply_gradients`. The numbers are arguments, so that runs
        share one program.
    """
    part_loss = functools.partial(_part_loss, graphdef=graphdef, views=views, loss=loss, scan=scan)
    gradients = jax.grad(part_loss, has_aux=True)

    def train_step(
        state: TrainState, batch: Batch, numbers: StepNumbers
    ) -> tuple[TrainState, Metrics]:
        seed = numbers["seed"]
        noise_key, key = _step_keys(seed, state.step)
        if num_drop_paths:
            shape = (batch["label"].shape[0], views.count, num_drop_paths)
            batch = {**batch, "noise": jax.random.uniform(noise_key, shape)}
        params = gather(state.params)
        grads, metrics = _accumulate(
            lambda part: gradients(params, part, seed, key, numbers["loss"]), batch, accumulation
        )
        grads = scatter(grads)
        with jax.named_scope("optimizer"):
            state, more = apply_gradients(state, grads, optimizer(numbers), ema_decay=ema_decay)
        return state, {**metrics, **more}

    return train_step


def _step_keys(seed: jax.Array, step: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Keys of the drop paths and of the negatives of an update."""
    # Views draw from (seed, epoch, id); the rest from (seed, step), on a stream of its own.
    root = jax.random.fold_in(jax.random.key(seed, impl="threefry2x32"), 2**31)
    noise_key, key = jax.random.split(jax.random.fold_in(root, step))
    return noise_key, key


def _part_loss(
    params: Any,
    part: Batch,
    seed: jax.Array,
    key: jax.Array,
    weights: Any,
    *,
    graphdef: nnx.GraphDef,
    views: ViewConfig,
    loss: LossConfig,
    scan: bool,
) -> tuple[jax.Array, Metrics]:
    """`clevit_loss` of the views of a part of the batch."""
    keys = example_keys(seed, part["epoch"], part["id"])
    anchors, positives = make_views(keys, part["image"], config=views)
    return clevit_loss(
        params, graphdef, anchors, positives, part,
        config=loss, key=key, weights=weights, noise=part.get("noise"), scan=scan,
    )  # fmt: skip


def _accumulate(f: Callable[[Batch], Any], batch: Batch, parts: int) -> Any:
    """The mean of `f` over `parts` equal parts of the batch, one after the other."""
    if parts == 1:
        return f(batch)
    # Part j is rows j, j + parts, ...: each device then has an equal share of every part.
    stacked = jax.tree.map(
        lambda x: x.reshape(-1, parts, *x.shape[1:]).swapaxes(0, 1), batch
    )  # [B, ...] -> [parts, B / parts, ...]
    shapes = jax.eval_shape(f, jax.tree.map(lambda x: x[0], stacked))
    total = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
    total, _ = jax.lax.scan(
        lambda sums, part: (jax.tree.map(jnp.add, sums, f(part)), None), total, stacked
    )
    return jax.tree.map(lambda s: s / parts, total)
