"""Kernels of the linear layers around window attention, each fused with what surrounds it.

qkv = norm(x) w + b, and y = x + s (o w + b) with the drop path's scale s, on tokens [H, W, B, C].
Where windows are shifted, queries, keys, values and o are those of the rolled grid; x and y are
those of the grid without a roll.
"""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from clevit_jax.kernels import rows
from clevit_jax.kernels.arithmetic import (
    column_sums,
    matmul,
    matmul_nt,
    matmul_tn,
    standardise,
    standardise_gradient,
)
from clevit_jax.kernels.rows import Grid, Tokens, Whole

PART = 512  # lanes of the result at a time


def _qkv_forward(x_ref, w_ref, b_ref, qkv_ref, *, grid: Grid):
    def chunk_body(chunk):
        normal = standardise(chunk.read(x_ref))[0].astype(x_ref.dtype)

        def part_body(start, size):
            part = rows.lane_slice(start, size)
            value = matmul(normal, w_ref[:, part]) + b_ref[:, part]
            chunk.write(qkv_ref, value, part, rolled=True)

        grid.for_parts(w_ref.shape[1], PART, part_body)

    grid.for_chunks(x_ref, chunk_body)


def _qkv_backward(x_ref, dresidual_ref, w_ref, *others, grid: Grid):
    *part_refs, dx_ref, dw_ref, db_ref, total_ref = others
    channels = part_refs[0].shape[-1]

    def chunk_body(chunk):
        normal, inverse = standardise(chunk.read(x_ref))
        narrow = normal.astype(x_ref.dtype)
        total_ref[...] = jnp.zeros_like(normal)
        for which, ref in enumerate(part_refs):

            def part_body(start, size, ref=ref, before=which * channels):
                part = rows.lane_slice(before + start, size)
                grad = chunk.read(ref, rows.lane_slice(start, size), rolled=True)
                db_ref[:, part] += column_sums(grad)
                grad = grad.astype(x_ref.dtype)
                dw_ref[:, part] += matmul_tn(narrow, grad)
                total_ref[...] += matmul_nt(grad, w_ref[:, part])

            grid.for_parts(channels, PART, part_body)
        grad = standardise_gradient(total_ref[...], normal, inverse)
        chunk.write(dx_ref, chunk.read(dresidual_ref) + grad)

    grid.for_chunks(x_ref, chunk_body)


def _projection_forward(x_ref, o_ref, scale_ref, w_ref, b_ref, y_ref, *, grid: Grid):
    def chunk_body(chunk):
        o = chunk.read(o_ref, rolled=True).astype(x_ref.dtype)

        def part_body(start, size):
            part = rows.lane_slice(start, size)
            value = matmul(o, w_ref[:, part]) + b_ref[:, part]
            value = chunk.read(x_ref, part) + chunk.repeat(scale_ref[:, part]) * value
            chunk.write(y_ref, value, part)

        grid.for_parts(w_ref.shape[1], PART, part_body)

    grid.for_chunks(x_ref, chunk_body)


def _projection_backward(o_ref, dy_ref, scale_ref, w_ref, do_ref, dw_ref, db_ref, *, grid: Grid):
    def chunk_body(chunk):
        dz = chunk.read(dy_ref) * chunk.repeat(scale_ref[...])
        db_ref[...] += column_sums(dz)
        dz = dz.astype(do_ref.dtype)

        def part_body(start, size):
            part = rows.lane_slice(start, size)
            o = chunk.read(o_ref, part, rolled=True).astype(do_ref.dtype)
            dw_ref[part, :] += matmul_tn(o, dz)
            chunk.write(do_ref, matmul_nt(dz, w_ref[part, :]), part, rolled=True)

        grid.for_parts(w_ref.shape[0], PART, part_body)

    grid.for_chunks(dy_ref, chunk_body)


def qkv(x: jax.Array, w: jax.Array, b: jax.Array, *, grid: Grid) -> jax.Array:
    """Queries, keys and values of normalised tokens, in the rolled grid.

    Args:
        x: [H, W, B, C].
        w, b: [C, n], [n]; LayerNorm's scale and shift are in both.
        grid: the tokens.

    Returns:
        [H, W, B, n] in the dtype of x.
    """
    return rows.call(
        _qkv_forward,
        "qkv_forward",
        [Tokens(x), Whole(w.astype(x.dtype)), Whole(b[None])],
        [Tokens(rows.token_shape(grid, w.shape[1], x.dtype), rolled=True)],
        grid=grid,
        flops=2 * x.size * w.shape[1],
    )[0]


def qkv_gradient(
    x: jax.Array,
    dresidual: jax.Array,
    parts: Sequence[jax.Array],
    w: jax.Array,
    *,
    grid: Grid,
    together: int = 3,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Gradients of x, w and b, where x also has another, `dresidual`, past the branch.

    `parts` are the gradients of queries, keys and values, [H, W, B, n / 3] each, in the rolled
    grid. A kernel takes `together` of them, 3 or 1, and adds to the result of the one before.
    """
    channels, outputs = w.shape[0], w.shape[1] // 3 * together
    shape = functools.partial(jax.ShapeDtypeStruct, dtype=jnp.float32)
    dx, gradients = dresidual, []
    for i in range(0, 3, together):
        columns = slice(i // together * outputs, (i // together + 1) * outputs)
        dx, *sums = rows.call(
            _qkv_backward, "qkv_backward",
            [Tokens(x), Tokens(dx), Whole(w[:, columns].astype(x.dtype)),
             *(Tokens(part, rolled=True) for part in parts[i : i + together])],
            [Tokens(rows.token_shape(grid, channels, x.dtype)), Whole(shape((channels, outputs))),
             Whole(shape((8, outputs)))],
            grid=grid, flops=4 * x.size * outputs, scratch=[(grid.rows, channels)],
        )  # fmt: skip
        gradients.append(sums)
    dw, db = zip(*gradients, strict=True)
    return dx, jnp.concatenate(dw, 1), jnp.concatenate(db, 1).sum(0)


def projection(
    x: jax.Array,
    o: jax.Array,
    scale: jax.Array,
    w: jax.Array,
    b: jax.Array,
    *,
    grid: Grid,
) -> jax.Array:
    """x + scale (o w + b), like x; o is [H, W, B, n] in the rolled grid, scale float32 [B]."""
    channels = x.shape[-1]
    return rows.call(
        _projection_forward, "projection_forward",
        [Tokens(x), Tokens(o, rolled=True), rows.per_image(scale, channels),
         Whole(w.astype(x.dtype)), Whole(b[None])],
        [Tokens(rows.token_shape(grid, channels, x.dtype))],
        grid=grid, flops=2 * o.size * channels,
    )[0]  # fmt: skip


def projection_gradient(
    o: jax.Array, dy: jax.Array, scale: jax.Array, w: jax.Array, *, grid: Grid
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Gradients of o (in the rolled grid), w and b; that of x is dy."""
    channels = dy.shape[-1]
    shape = functools.partial(jax.ShapeDtypeStruct, dtype=jnp.float32)
    do, dw, db = rows.call(
        _projection_backward, "projection_backward",
        [Tokens(o, rolled=True), Tokens(dy), rows.per_image(scale, channels),
         Whole(w.astype(o.dtype))],
        [Tokens(rows.token_shape(grid, o.shape[-1], o.dtype), rolled=True), Whole(shape(w.shape)),
         Whole(shape((8, channels)))],
        grid=grid, flops=4 * o.size * channels,
    )  # fmt: skip
    return do, dw, db.sum(0)


def vmem_bytes(channels: int, inner: int, grid: Grid, *, together: int) -> int:
    """VMEM in bytes that `qkv` or its gradient takes; the projection takes less."""
    forward = channels * 3 * inner * grid.itemsize
    gradient = channels * together * inner * (grid.itemsize + 4)
    blocks = grid.lines * grid.width * grid.images * grid.itemsize * 2  # in two buffers
    values = 4 * grid.rows * channels * 4  # of a chunk, in float32
    forward += blocks * (channels + 3 * inner)
    gradient += blocks * (3 * channels + together * inner)
    return max(forward, gradient) + values
