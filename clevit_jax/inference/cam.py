"""Maps of where a Swin looks for a class: Grad-CAM, HiResCAM and attention roll-out.

A map is named `grad_cam:LAYER`, `hires_cam:LAYER` or `rollout`; `map_names` lists those of a model.
Grad-CAM weighs the channels of a layer by the gradient of the class's logit, averaged over the
positions of the layer. HiResCAM multiplies position by position, which matters where positions play
different roles, as queries and keys of windows do. `analysis.deletion` tests which map fits a
trained model.

Sources: Selvaraju et al., Grad-CAM, ICCV 2017, eq. 1 and 2; Draelos and Carin, HiResCAM,
arXiv 2011.08891, section 3; Abnar and Zuidema, Quantifying Attention Flow in Transformers, ACL
2020, section 3.
"""

from collections.abc import Callable, Sequence
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


def map_names(model: SwinConfig) -> tuple[str, ...]:
    """Names of a model's maps: both CAMs at each stage's end and last `norm1`, and the last norm.

    HiResCAM at the end of the last stage is not among them: nothing but a LayerNorm follows, which
    does not change when a token is scaled, so tokens times gradients are zero there (Euler).
    """
    ends = [f"layers.{s}.blocks.{depth - 1}" for s, depth in enumerate(model.depths)]
    layers = (*ends, *(f"{end}.norm1" for end in ends), "norm")
    cams = [f"{cam}:{layer}" for layer in layers for cam in _CAMS]
    return (*(name for name in cams if name != f"hires_cam:{ends[-1]}"), ROLLOUT)


def default_map(model: SwinConfig) -> str:
    """Name of the map that the deletion test chose on the demo and on photos (docs/answers.md)."""
    return f"hires_cam:layers.{len(model.depths) - 1}.blocks.{model.depths[-1] - 1}.norm1"


def make_maps(
    model: SwinConfig, which: Sequence[str]
) -> Callable[[Any, jax.Array, jax.Array], dict[str, jax.Array]]:
    """The function that computes maps, for `jax.jit`: all CAMs in one forward and backward pass.

    Args:
        model: the architecture.
        which: names of the maps, of `map_names(model)`.

    Returns:
        (parameters, images float32 [B, S, S, 3] normalised, classes int32 [B]) -> dict of
        float32 [B, H, W] by name, not below 0, each on the grid of its layer; roll-out on that of
        the patches, summing to 1, or to 0 where no token speaks for the class.

    Raises:
        ValueError: the model has no map of such a name.
    """
    known = map_names(model)
    for name in which:
        if name not in known:
            raise ValueError(f"There is no map {name!r}; choose one of {', '.join(known)}.")
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

        def logits_of_classes(
            perturbations: dict[str, jax.Array],
        ) -> tuple[jax.Array, dict[str, jax.Array]]:
            tokens = {}

            def tap(name: str, x: jax.Array) -> jax.Array:
                if name not in perturbations:
                    return x
                tokens[name] = x
                return x + perturbations[name].astype(x.dtype)

            logits, _ = swin(images, tap=tap)
            return jnp.take_along_axis(logits, classes[:, None], axis=-1).sum(), tokens

        gradients, tokens = jax.grad(logits_of_classes, has_aux=True)(zeros)
        grids = {}
        for name in which:
            cam, _, layer = name.partition(":")
            if name == ROLLOUT:
                grids[name] = _rollout(swin, images, classes)
                continue
            weights = gradients[layer]  # [B, H, W, C]
            if cam == "grad_cam":
                weights = weights.mean(axis=(1, 2), keepdims=True)  # [B, 1, 1, C]
            grids[name] = jax.nn.relu((weights * tokens[layer].astype(jnp.float32)).sum(-1))
        return grids

    return maps


def _rollout(swin: Swin, images: jax.Array, classes: jax.Array) -> jax.Array:
    """Share of each patch in the logit of a class, through the attention of all windows, [B, H, W].

    The logit is a sum over the last tokens, because the head is linear on their mean. The shares of
    these tokens in it, where positive, are redistributed block by block, the last one first. Half
    of a token's share stays (the residual); half goes to the tokens of its window by the attention,
    mean over the heads. The share of a merged token goes to its four in equal parts. So the
    matrices 0.5 I + 0.5 A of the source are applied from the left, and no matrix over all tokens is
    ever held.
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
    """Attention weights of a block on normalised tokens [B, H, W, C], mean over its heads.

    Returns:
        float32 [B, n, N, N]; rows sum to 1.
    """
    q, k, _ = split_heads(block.attn.qkv(block.to_windows(x)), block.attn.num_heads)
    mask = block.mask((x.shape[1], x.shape[2]))
    return attention_weights(q, k, block.attn.bias(), mask).mean(axis=2)


def _redistribute(block: Block, shares: jax.Array, attention: jax.Array) -> jax.Array:
    """Shares [B, H, W] of the tokens after attention [B, n, N, N] -> shares of those before."""
    after = block.to_windows(shares[..., None])[..., 0]  # [B, n, N]
    before = jnp.einsum("bnq,bnqk->bnk", after, attention)
    return block.to_grid(before[..., None], (shares.shape[1], shares.shape[2]))[..., 0]
