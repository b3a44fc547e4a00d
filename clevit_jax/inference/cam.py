"""Where a Swin looks for a class: Grad-CAM, HiResCAM and attention roll-out.

A map has a name, `grad_cam:LAYER`, `hires_cam:LAYER` or `rollout`; `names` lists those of a model.
Grad-CAM weighs the channels of a layer by the mean over its places of the gradient of the class's
logit; HiResCAM multiplies place by place, which matters where the places of a layer play different
parts, as the queries and keys of windows do. `deletion` tells which fits a trained model.

Sources: Selvaraju et al., Grad-CAM, ICCV 2017, eq. 1 and 2; Draelos and Carin, HiResCAM,
arXiv 2011.08891, section 3; Abnar and Zuidema, Quantifying Attention Flow in Transformers, ACL
2020, section 3.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from clevit_jax.model.attention import split_heads
from clevit_jax.model.config import SwinConfig
from clevit_jax.model.ops import attention_weights
from clevit_jax.model.swin import Block, Swin, abstract_swin

ROLLOUT = "rollout"
_CAMS = ("hires_cam", "grad_cam")


def names(model: SwinConfig) -> tuple[str, ...]:
    """All maps of a model: both CAMs at each stage's end and last `norm1`, and the last norm.

    HiResCAM at the end of the last stage is not among them: nothing but a LayerNorm follows, which
    does not change when a token is scaled, so tokens times gradients are zero there (Euler).
    """
    ends = [f"layers.{s}.blocks.{depth - 1}" for s, depth in enumerate(model.depths)]
    layers = (*ends, *(f"{end}.norm1" for end in ends), "norm")
    all_of_them = [f"{cam}:{layer}" for layer in layers for cam in _CAMS]
    return (*(name for name in all_of_them if name != f"hires_cam:{ends[-1]}"), ROLLOUT)


def default(model: SwinConfig) -> str:
    """The map that the deletion test preferred on the demo and on photographs (docs/answers.md)."""
    return f"hires_cam:layers.{len(model.depths) - 1}.blocks.{model.depths[-1] - 1}.norm1"


def make_maps(model: SwinConfig, which: Sequence[str]) -> Any:
    """The function of some maps, for `jax.jit`: one forward and one backward pass for all CAMs.

    Args:
        model: the architecture.
        which: of `names`.

    Returns:
        (parameters, images float32 [B, S, S, 3] normalised, classes int32 [B]) -> dict of
        float32 [B, H, W] by name, not below 0, each on the grid of its layer; roll-out on that of
        the patches, summing to 1, or to 0 where no token speaks for the class.

    Raises:
        ValueError: a name is not one of the model's.
    """
    for name in which:
        if name not in names(model):
            raise ValueError(f"There is no map {name!r}; choose of {', '.join(names(model))}.")
    graphdef = abstract_swin(model)[0]
    layers = {name.partition(":")[2] for name in which if name != ROLLOUT}

    def maps(params: Any, images: jax.Array, classes: jax.Array) -> dict[str, jax.Array]:
        swin = nnx.merge(graphdef, params)
        shapes = {layer: model.layer_shapes()[layer] for layer in layers}
        # Zero perturbations: their gradients are those of the tokens.
        zeros = {
            layer: jnp.zeros((images.shape[0], *shape), jnp.float32)
            for layer, shape in shapes.items()
        }

        def logits_of_classes(perturbations: dict[str, jax.Array]) -> Any:
            tokens = {}

            def tap(name: str, x: jax.Array) -> jax.Array:
                if name not in perturbations:
                    return x
                tokens[name] = x
                return x + perturbations[name].astype(x.dtype)

            logits, _ = swin(images, tap=tap)
            return jnp.take_along_axis(logits, classes[:, None], axis=-1).sum(), tokens

        gradients, tokens = jax.grad(logits_of_classes, has_aux=True)(zeros)
        made = {}
        for name in which:
            cam, _, layer = name.partition(":")
            if name == ROLLOUT:
                made[name] = _rollout(swin, images, classes)
                continue
            weights = gradients[layer]  # [B, H, W, C]
            if cam == "grad_cam":
                weights = weights.mean(axis=(1, 2), keepdims=True)  # [B, 1, 1, C]
            made[name] = jax.nn.relu((weights * tokens[layer].astype(jnp.float32)).sum(-1))
        return made

    return maps


def _rollout(swin: Swin, images: jax.Array, classes: jax.Array) -> jax.Array:
    """What of each patch reaches the logit of a class through the windows, [B, H, W].

    The logit is a sum over the last tokens, for the head is linear on their mean. Their shares in
    it, where positive, are redistributed block by block, the last one first: half of a token's
    share stays (the residual), half goes to the tokens of its window by the attention, mean over
    the heads; that of a merged token to its four in equal parts. So the matrices 0.5 I + 0.5 A of
    the source are applied from the left, and none over all tokens is ever held.
    """
    tokens = {}

    def tap(name: str, x: jax.Array) -> jax.Array:
        if name == "norm" or name.endswith(".norm1"):
            tokens[name] = x
        return x

    swin(images, tap=tap)
    weights = swin.head.kernel[...].T[classes]  # [B, C]
    shares = jax.nn.relu((tokens["norm"] * weights[:, None, None]).sum(-1))  # [B, H, W]
    total = shares.sum(axis=(1, 2), keepdims=True)
    shares = shares / jnp.where(total > 0, total, 1.0)
    for s, stage in reversed(list(enumerate(swin.layers))):
        if stage.downsample is not None:
            shares = shares.repeat(2, axis=1).repeat(2, axis=2) / 4
        for i, block in reversed(list(enumerate(stage.blocks))):
            attention = _attention(block, tokens[f"layers.{s}.blocks.{i}.norm1"])
            shares = 0.5 * (shares + _redistribute(block, shares, attention))
    return shares


def _attention(block: Block, x: jax.Array) -> jax.Array:
    """Attention of a block on normalised tokens [B, H, W, C], mean over its heads.

    Returns:
        float32 [B, n, N, N]; rows sum to 1.
    """
    q, k, _ = split_heads(block.attn.qkv(block.to_windows(x)), block.attn.num_heads)
    mask = block.mask((x.shape[1], x.shape[2]))
    return attention_weights(q, k, block.attn.bias(), mask).mean(axis=2)


def _redistribute(block: Block, shares: jax.Array, attention: jax.Array) -> jax.Array:
    """Shares [B, H, W] of the tokens after attention [B, n, N, N] -> of those before."""
    inside = block.to_windows(shares[..., None])[..., 0]  # [B, n, N]
    back = jnp.einsum("bnq,bnqk->bnk", inside, attention)
    return block.to_grid(back[..., None], (shares.shape[1], shares.shape[2]))[..., 0]
