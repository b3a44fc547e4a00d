"""A Swin block made of kernels: its two residual branches, each with a custom VJP.

The second implementation of `swin.Block`, for tokens [H, W, B, C]; a test holds it to the first.
"""

import dataclasses
import functools
import itertools
from typing import Any

import jax
import jax.numpy as jnp

from clevit_jax.kernels import attention, linear, rows
from clevit_jax.kernels import mlp as mlp_kernels
from clevit_jax.kernels.arithmetic import LANES
from clevit_jax.kernels.attention import LOG2_E, Heads
from clevit_jax.kernels.rows import Grid

LARGEST_WINDOW = 12  # tokens per side


@dataclasses.dataclass(frozen=True)
class BlockPlan:
    """How the kernels of a block divide their work.

    Attributes:
        grid: the block's tokens.
        heads: its heads and windows.
        together: how many of the gradients of queries, keys and values a kernel takes: 3 or 1.
        parts: number of kernels that the MLP's hidden channels are divided over.
    """

    grid: Grid
    heads: Heads
    together: int = 3
    parts: int = 1


def plan_block(grid: Grid, *, channels: int, heads: int, window: int) -> BlockPlan | str:
    """The plan of a block, or why no kernel fits it, as the end of a sentence on the block."""
    width = channels // heads
    if LANES % width or width < 8:
        return f"has {width} channels per head, which must be 8, 16, 32, 64 or 128"
    if window > LARGEST_WINDOW:
        return f"has windows of {window} tokens per side, more than {LARGEST_WINDOW}"
    sizes = Heads(heads, width, window)
    least, filled = 0, rows.whole_lanes(channels)
    for smaller in grid.smaller_steps():
        for together, parts in itertools.product((3, 1), (1, 2, 4)):
            least = max(
                linear.vmem_bytes(filled, sizes.channels, smaller, together=together),
                mlp_kernels.vmem_bytes(filled, smaller.without_roll, parts=parts),
                attention.vmem_bytes(sizes, smaller),
            )
            if least <= grid.vmem:
                return BlockPlan(smaller, sizes, together, parts)
    return (
        f"would take {least / 2**20:.0f} MiB of VMEM, of which a kernel may use "
        f"{grid.vmem / 2**20:.0f}"
    )


def run_block(
    x: jax.Array, params: Any, scales: tuple[jax.Array, jax.Array], plan: BlockPlan
) -> jax.Array:
    """Runs one block.

    Args:
        x: [H, W, B, C].
        params: nested dict of the parameters of a `swin.Block`, float32.
        scales: float32 [B] of the attention and of the MLP branch, for drop path.
        plan: of `plan_block`.

    Returns:
        Like x.
    """
    attn, mlp, heads = params["attn"], params["mlp"], plan.heads
    wqkv, bqkv = _fold(params["norm1"], attn["qkv"])
    # Queries in units of ln 2, by the square root of the channels; and heads of zeros at the end.
    parts = jnp.split(jnp.concatenate([wqkv, bqkv[None]]), 3, axis=1)
    parts[0] = parts[0] * (heads.width**-0.5 * LOG2_E)
    spare = heads.channels - parts[0].shape[1]
    wqkv = jnp.concatenate([jnp.pad(part, ((0, 0), (0, spare))) for part in parts], axis=1)
    wproj = jnp.pad(attn["proj"]["kernel"], ((0, spare), (0, 0)))
    bias = attention.relative_bias(attn["relative_position_bias_table"], heads.window)
    x = attention_branch(x, scales[0], wqkv[:-1], wqkv[-1], bias, wproj, attn["proj"]["bias"], plan)
    w1, b1 = _fold(params["norm2"], mlp["fc1"])
    return mlp_branch(x, scales[1], w1, b1, mlp["fc2"]["kernel"], mlp["fc2"]["bias"], plan)


def _fold(norm: Any, layer: Any) -> tuple[jax.Array, jax.Array]:
    """Kernel and bias of a linear layer, with the norm's scale and shift folded in."""
    kernel = layer["kernel"]
    shift = jnp.einsum("c,cn->n", norm["bias"], kernel, precision=jax.lax.Precision.HIGHEST)
    return norm["scale"][:, None] * kernel, layer["bias"] + shift


@functools.partial(jax.custom_vjp, nondiff_argnums=(7,))
def attention_branch(
    x: jax.Array, scale: jax.Array, wqkv: jax.Array, bqkv: jax.Array, bias: jax.Array,
    wproj: jax.Array, bproj: jax.Array, plan: BlockPlan,
) -> jax.Array:  # fmt: skip
    """x + scale (attention(norm(x)) wproj + bproj), as `run_block` prepares the operands."""
    return _attention_forward(x, scale, wqkv, bqkv, bias, wproj, bproj, plan)[0]


def _attention_forward(x, scale, wqkv, bqkv, bias, wproj, bproj, plan):
    qkv = linear.qkv(x, wqkv, bqkv, grid=plan.grid)
    packed = attention.pack_bias(bias, plan.heads, plan.grid.roll)
    out = attention.attend(qkv, packed, grid=plan.grid, heads=plan.heads)
    y = linear.projection(x, out, scale, wproj, bproj, grid=plan.grid)
    return y, (x, scale, wqkv, bias, wproj, qkv, out)


def _attention_backward(plan, saved, dy):
    x, scale, wqkv, bias, wproj, qkv, out = saved
    grid, heads = plan.grid, plan.heads
    dout, dwproj, dbproj = linear.projection_gradient(out, dy, scale, wproj, grid=grid)
    packed = attention.pack_bias(bias, heads, grid.roll)
    *parts, dpacked = attention.attend_gradient(qkv, packed, dout, grid=grid, heads=heads)
    dx, dwqkv, dbqkv = linear.qkv_gradient(x, dy, parts, wqkv, grid=grid, together=plan.together)
    dbias = attention.unpack_bias_gradient(dpacked, heads)
    return dx, jnp.zeros_like(scale), dwqkv, dbqkv, dbias, dwproj, dbproj


attention_branch.defvjp(_attention_forward, _attention_backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(6,))
def mlp_branch(
    x: jax.Array,
    scale: jax.Array,
    w1: jax.Array,
    b1: jax.Array,
    w2: jax.Array,
    b2: jax.Array,
    plan: BlockPlan,
) -> jax.Array:
    """x + scale (gelu(norm(x) w1 + b1) w2 + b2), as `run_block` prepares the operands."""
    return mlp_kernels.mlp(x, scale, w1, b1, w2, b2, grid=plan.grid.without_roll, parts=plan.parts)


def _mlp_forward(x, scale, w1, b1, w2, b2, plan):
    return mlp_branch(x, scale, w1, b1, w2, b2, plan), (x, scale, w1, b1, w2)


def _mlp_backward(plan, saved, dy):
    x, scale, w1, b1, w2 = saved
    dx, *gradients = mlp_kernels.mlp_gradient(
        x, dy, scale, w1, b1, w2, grid=plan.grid.without_roll, parts=plan.parts
    )
    return dx, jnp.zeros_like(scale), *gradients


mlp_branch.defvjp(_mlp_forward, _mlp_backward)
