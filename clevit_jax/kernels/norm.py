"""LayerNorm as a kernel, with a custom VJP.

For where no matmul follows that its scale and shift could be folded into.
"""

import functools

import jax
import jax.numpy as jnp

from clevit_jax.kernels import rows
from clevit_jax.kernels.arithmetic import column_sums, standardise, standardise_gradient
from clevit_jax.kernels.rows import Grid, Tokens, Whole


def _forward(x_ref, scale_ref, shift_ref, y_ref, *, grid: Grid):
    def chunk_body(chunk):
        normal, _ = standardise(chunk.read(x_ref))
        chunk.write(y_ref, normal * scale_ref[...] + shift_ref[...])

    grid.for_chunks(x_ref, chunk_body)


def _backward(x_ref, dy_ref, scale_ref, dx_ref, dscale_ref, dshift_ref, *, grid: Grid):
    def chunk_body(chunk):
        normal, inverse = standardise(chunk.read(x_ref))
        dy = chunk.read(dy_ref)
        dscale_ref[...] += column_sums(dy * normal)
        dshift_ref[...] += column_sums(dy)
        chunk.write(dx_ref, standardise_gradient(dy * scale_ref[...], normal, inverse))

    grid.for_chunks(x_ref, chunk_body)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def layer_norm(x: jax.Array, scale: jax.Array, shift: jax.Array, grid: Grid) -> jax.Array:
    """LayerNorm over the last axis.

    Args:
        x: [H, W, B, C].
        scale, shift: float32 [C].
        grid: the tokens, without a roll.

    Returns:
        Like x.
    """
    return rows.call(
        _forward,
        "norm_forward",
        [Tokens(x), Whole(scale[None]), Whole(shift[None])],
        [Tokens(jax.ShapeDtypeStruct(x.shape, x.dtype))],
        grid=grid,
        flops=8 * x.size,
    )[0]


def _layer_norm_forward(x, scale, shift, grid):
    return layer_norm(x, scale, shift, grid), (x, scale)


def _layer_norm_backward(grid, saved, dy):
    x, scale = saved
    sums = jax.ShapeDtypeStruct((8, scale.size), jnp.float32)
    dx, dscale, dshift = rows.call(
        _backward,
        "norm_backward",
        [Tokens(x), Tokens(dy), Whole(scale[None])],
        [Tokens(jax.ShapeDtypeStruct(x.shape, x.dtype)), Whole(sums), Whole(sums)],
        grid=grid,
        flops=14 * x.size,
    )
    return dx, dscale.sum(0), dshift.sum(0)


layer_norm.defvjp(_layer_norm_forward, _layer_norm_backward)
