"""Forward pass of a Swin on TPUs: tokens [H, W, B, C] and fused kernels for its blocks.

Parameters and results are those of `swin.Swin`, which stays the definition. Blocks that no kernel
fits run as they are defined, on their tokens transposed to [B, H, W, C] and back.

This is the one other walk over the blocks: a fused block has no layers inside it that a `tap` could
be called with, so `Swin.__call__` with a tap runs the plain blocks. A new option of a block is
needed here as well.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from clevit_jax.distributed.sharding import on_each_device
from clevit_jax.kernels import block as block_kernels
from clevit_jax.kernels import merge as merge_kernels
from clevit_jax.kernels import norm as norm_kernels
from clevit_jax.kernels.arithmetic import SUBLANES
from clevit_jax.kernels.rows import Grid
from clevit_jax.model.config import SwinConfig


def plan_blocks(config: SwinConfig, images: int) -> list[list[block_kernels.BlockPlan | str]]:
    """The plan of each block of each stage, or why no kernel fits it.

    Args:
        config: with `kernels`.
        images: per device.
    """

    def plan(stage: int, index: int) -> block_kernels.BlockPlan | str:
        window, shift = config.window_and_shift(stage, index)
        side = config.grid(stage)
        grid = dataclasses.replace(_grid(config, side, side, _padded(images)), roll=shift)
        channels, heads = config.channels(stage), config.num_heads[stage]
        return block_kernels.plan_block(grid, channels=channels, heads=heads, window=window)

    return [[plan(stage, i) for i in range(depth)] for stage, depth in enumerate(config.depths)]


def describe_kernels(config: SwinConfig, images: int) -> str:
    """One sentence: how many blocks run as kernels, and which do not and why.

    Args:
        config: with `kernels`.
        images: per device.
    """
    plans = plan_blocks(config, images)
    total = sum(len(stage_plans) for stage_plans in plans)
    why: dict[str, list[str]] = {}
    for stage, stage_plans in enumerate(plans):
        for index, plan in enumerate(stage_plans):
            if isinstance(plan, str):
                why.setdefault(plan, []).append(f"{stage}.{index}")
    plain = sum(len(names) for names in why.values())
    text = f"Kernels: {total - plain} of {total} blocks run fused"
    for reason, names in why.items():
        text += f"; blocks {', '.join(names)} (stage.block) do not: each {reason}"
    if (padded := _padded(images)) > images:
        text += f"; {images} images per device are padded to {padded}"
    return text + "."


def features(model: Any, images: jax.Array, noise: jax.Array | None) -> jax.Array:
    """The features of images, as `swin.Swin` returns them.

    Args:
        model: the `swin.Swin`, whose config has `kernels`.
        images: float32 [B, S, S, 3], normalised; B is divided over the mesh.
        noise: float32 [B, drop paths], uniform, or None.

    Returns:
        float32 [B, C], the mean over the last tokens.
    """
    graphdef, params = nnx.split(model)

    def local(params: Any, images: jax.Array, *noise: jax.Array) -> jax.Array:
        return _features(nnx.merge(graphdef, params), images, noise[0] if noise else None)

    operands = (images,) if noise is None else (images, noise)
    run = on_each_device(local, model.config.kernels.mesh, whole=1)
    return run(params, *operands)


def _features(model: Any, images: jax.Array, noise: jax.Array | None) -> jax.Array:
    """`features` of the images of one device."""
    config, count = model.config, images.shape[0]
    if spare := _padded(count) - count:
        images = jnp.pad(images, ((0, spare), (0, 0), (0, 0), (0, 0)))
        noise = None if noise is None else jnp.pad(noise, ((0, spare), (0, 0)))
    with jax.named_scope("patch_embed"):
        x = _embed(model.patch_embed, images, config)  # [H, W, B, C]
    used = 0
    plans = plan_blocks(config, count)
    for i, (stage, stage_plans) in enumerate(zip(model.layers, plans, strict=True)):
        for block, plan in zip(stage.blocks, stage_plans, strict=True):
            pair = None if noise is None else noise[:, used : used + 2]
            run: Callable[..., jax.Array] = _run_plainly
            if isinstance(plan, block_kernels.BlockPlan):
                run = functools.partial(_run_block, plan=plan)
            with jax.named_scope(f"layers.{i}/blocks"):
                x = (jax.checkpoint(run) if stage.remat else run)(block, x, pair)
            used += 2
        if stage.downsample is not None:
            with jax.named_scope(f"layers.{i}/downsample"):
                x = _merge(stage.downsample, x, config)
    return model.norm(x).mean(axis=(0, 1))[:count]


def _padded(images: int) -> int:
    """Images in whole registers."""
    return -(-images // SUBLANES) * SUBLANES


def _run_block(
    block: Any, x: jax.Array, noise: jax.Array | None, *, plan: block_kernels.BlockPlan
) -> jax.Array:
    params = nnx.to_pure_dict(nnx.state(block, nnx.Param))

    def scale(branch: int) -> jax.Array:
        if noise is None or not block.rate:
            return jnp.ones(x.shape[2], jnp.float32)
        return jnp.where(noise[:, branch] >= block.rate, 1 / (1 - block.rate), 0.0)

    return block_kernels.run_block(x, params, (scale(0), scale(1)), plan)


def _run_plainly(block: Any, x: jax.Array, noise: jax.Array | None) -> jax.Array:
    return block(x.transpose(2, 0, 1, 3), noise).transpose(1, 2, 0, 3)


def _embed(embed: Any, images: jax.Array, config: SwinConfig) -> jax.Array:
    """Images [B, S, S, 3] -> tokens [S/4, S/4, B, C], in the order that the convolution writes."""
    kernel, dtype = embed.proj.kernel[...].astype(config.dtype), config.dtype
    side = kernel.shape[:2]
    x = jax.lax.conv_general_dilated(
        images.astype(dtype),
        kernel,
        side,
        "VALID",
        dimension_numbers=("NHWC", "HWIO", "HWNC"),
        precision=embed.proj.precision,
    )
    x += embed.proj.bias[...].astype(dtype).reshape(1, 1, 1, -1)
    return norm_kernels.layer_norm(
        x, embed.norm.scale[...], embed.norm.bias[...], _grid(config, *x.shape[:3])
    )


def _merge(merging: Any, x: jax.Array, config: SwinConfig) -> jax.Array:
    """Tokens [H, W, B, C] -> [H/2, W/2, B, 2C]."""
    height, width, batch, channels = x.shape
    merged = _grid(config, height // 2, width // 2, batch)
    grid = merge_kernels.make_grid(merged, channels=channels)
    if grid is None:
        return merging(x.transpose(2, 0, 1, 3)).transpose(1, 2, 0, 3)
    kernel, shift = merging.reduction.kernel[...], merging.norm.bias[...]
    bias = jnp.einsum("c,cn->n", shift, kernel, precision=jax.lax.Precision.HIGHEST)
    return merge_kernels.merge(x, merging.norm.scale[...][:, None] * kernel, bias, grid)


def _grid(config: SwinConfig, height: int, width: int, batch: int) -> Grid:
    """The grid of tokens of images, without a roll."""
    kernels = config.kernels
    assert kernels is not None
    return Grid(
        height,
        width,
        batch,
        vmem=kernels.vmem,
        interpret=kernels.interpret,
        itemsize=jnp.dtype(config.dtype).itemsize,
    )
