"""Patch merging as a kernel, with a custom VJP.

y = norm(the four neighbours side by side) w, from tokens [H, W, B, C] to [H/2, W/2, B, 2C]. The
plain path lays the neighbours side by side in memory; here a step reads each where it lies, in the
view [H/2, 2, W/2, 2, B, C], which is the same memory.
"""

import functools

import jax
import jax.numpy as jnp

from clevit_jax.kernels import rows
from clevit_jax.kernels.arithmetic import (
    LAYER_NORM_EPSILON,
    column_sums,
    matmul,
    matmul_nt,
    matmul_tn,
)
from clevit_jax.kernels.rows import Grid, Neighbours, Tokens, Whole

PART = 512  # channels of the result at a time
CORNERS = ((0, 0), (1, 0), (0, 1), (1, 1))  # (row, column), in the official order


def _normal(chunk, x_ref) -> tuple[list[jax.Array], jax.Array]:
    """float32 [R, C] of each neighbour, normalised over all four, and 1 / deviation [R, 1]."""
    four = [chunk.read_corner(x_ref, *corner) for corner in CORNERS]
    share = 1 / (4 * four[0].shape[-1])
    mean = sum(x.sum(-1, keepdims=True) for x in four) * share
    four = [x - mean for x in four]
    variance = sum((x * x).sum(-1, keepdims=True) for x in four) * share
    inverse = jax.lax.rsqrt(variance + LAYER_NORM_EPSILON)
    return [x * inverse for x in four], inverse


def _forward(x_ref, w_ref, b_ref, y_ref, *, grid: Grid):
    channels = x_ref.shape[-1]

    def chunk_body(chunk):
        four = [normal.astype(x_ref.dtype) for normal in _normal(chunk, x_ref)[0]]

        def part_body(start, size):
            part = rows.lane_slice(start, size)
            value = b_ref[:, part]
            for i, normal in enumerate(four):
                value = value + matmul(normal, w_ref[i * channels : (i + 1) * channels, part])
            chunk.write(y_ref, value, part)

        grid.for_parts(w_ref.shape[1], PART, part_body)

    grid.for_chunks(x_ref, chunk_body)


def _backward(x_ref, dy_ref, w_ref, dx_ref, dw_ref, db_ref, *, grid: Grid):
    channels, dtype = x_ref.shape[-1], x_ref.dtype
    share = 1 / (4 * channels)

    def chunk_body(chunk):
        four, inverse = _normal(chunk, x_ref)
        dy = chunk.read(dy_ref)
        db_ref[...] += column_sums(dy)
        dy = dy.astype(dtype)
        mean = along = jnp.float32(0)
        grads = []
        for i, normal in enumerate(four):
            part = slice(i * channels, (i + 1) * channels)
            grads.append(matmul_nt(dy, w_ref[part, :]))
            dw_ref[part, :] += matmul_tn(normal.astype(dtype), dy)
            mean += grads[i].sum(-1, keepdims=True) * share
            along += (grads[i] * normal).sum(-1, keepdims=True) * share
        for grad, normal, corner in zip(grads, four, CORNERS, strict=True):
            chunk.write_corner(dx_ref, inverse * (grad - mean - normal * along), *corner)

    grid.for_chunks(x_ref, chunk_body)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def merge(x: jax.Array, w: jax.Array, b: jax.Array, grid: Grid) -> jax.Array:
    """The merged tokens.

    Args:
        x: [H, W, B, C].
        w, b: float32 [4C, 2C], [2C]; LayerNorm's scale and shift are in both.
        grid: the merged tokens, H/2 and W/2.

    Returns:
        [H/2, W/2, B, 2C] in the dtype of x.
    """
    return rows.call(
        _forward,
        "merge_forward",
        [Neighbours(_view(x)), Whole(w.astype(x.dtype)), Whole(b[None])],
        [Tokens(rows.token_shape(grid, w.shape[1], x.dtype))],
        grid=grid,
        flops=2 * x.size * w.shape[1],
    )[0]


def _view(x: jax.Array) -> jax.Array:
    """Tokens [H, W, B, C] as [H/2, 2, W/2, 2, B, C]."""
    height, width, batch, channels = x.shape
    return x.reshape(height // 2, 2, width // 2, 2, batch, channels)


def _merge_forward(x, w, b, grid):
    return merge(x, w, b, grid), (x, w)


def _merge_backward(grid, saved, dy):
    x, w = saved
    view = _view(x)
    shape = functools.partial(jax.ShapeDtypeStruct, dtype=jnp.float32)
    dx, dw, db = rows.call(
        _backward, "merge_backward", [Neighbours(view), Tokens(dy), Whole(w.astype(x.dtype))],
        [Neighbours(jax.ShapeDtypeStruct(view.shape, x.dtype)), Whole(shape(w.shape)),
         Whole(shape((8, w.shape[1])))],
        grid=grid, flops=4 * x.size * w.shape[1],
    )  # fmt: skip
    return dx.reshape(x.shape), dw, db.sum(0)


merge.defvjp(_merge_forward, _merge_backward)


def make_grid(grid: Grid, *, channels: int) -> Grid | None:
    """Merged tokens, cut so that a step of the gradient fits VMEM; None where no cut does.

    Args:
        grid: the merged tokens.
        channels: of a token before the merge.
    """
    channels = rows.whole_lanes(channels)
    weights = 8 * channels**2 * (grid.itemsize + 4)
    for smaller in grid.smaller_steps():
        blocks = 2 * smaller.lines * smaller.width * smaller.images * 10 * channels * grid.itemsize
        values = 12 * smaller.rows * channels * 4
        if weights + blocks + values <= grid.vmem:
            return smaller
    return None
