"""The MLP branch as one kernel, and its gradient: LayerNorm, linear, GELU, linear, residual.

y = x + s (gelu(norm(x) w1 + b1) w2 + b2) on tokens [H, W, B, C], with F hidden channels and the
drop path's scale s. The plain path writes the hidden activations of a block to memory four times;
here they never leave the chip, and the gradient computes them again. Where the weights and their
gradients are too large for VMEM, the hidden channels are divided: a kernel for each part, which
adds to the result of the one before.
"""

import functools

import jax
import jax.numpy as jnp

from clevit_jax.kernels import rows
from clevit_jax.kernels.arithmetic import (
    column_sums,
    gelu,
    gelu_and_slope,
    matmul,
    matmul_nt,
    matmul_tn,
    standardise,
    standardise_gradient,
)
from clevit_jax.kernels.rows import Grid, Tokens, Whole

HIDDEN = 1024  # hidden channels at a time, forward; half of it backward


def _forward(x_ref, scale_ref, w1_ref, b1_ref, w2_ref, b2_ref, *others, grid: Grid):
    *base_refs, y_ref, total_ref = others
    exact = x_ref.dtype == jnp.float32

    def chunk_body(chunk):
        x = chunk.read(x_ref)
        normal = standardise(x)[0].astype(x_ref.dtype)
        total_ref[...] = jnp.broadcast_to(b2_ref[...], x.shape)

        def part_body(start, size):
            part = rows.lane_slice(start, size)
            hidden = matmul(normal, w1_ref[:, part]) + b1_ref[:, part]
            total_ref[...] += matmul(gelu(hidden, exact=exact).astype(x_ref.dtype), w2_ref[part, :])

        grid.for_parts(w1_ref.shape[1], HIDDEN, part_body)
        base = chunk.read(base_refs[0]) if base_refs else x
        chunk.write(y_ref, base + chunk.repeat(scale_ref[...]) * total_ref[...])

    grid.for_chunks(x_ref, chunk_body)


def _backward(x_ref, dy_ref, scale_ref, w1_ref, b1_ref, w2_ref, *others, grid: Grid):
    *base_refs, dx_ref, db1_ref, db2_ref, dw1_ref, dw2_ref, total_ref = others
    dtype, exact = x_ref.dtype, x_ref.dtype == jnp.float32

    def chunk_body(chunk):
        normal, inverse = standardise(chunk.read(x_ref))
        narrow = normal.astype(dtype)
        dy = chunk.read(dy_ref)
        dz = dy * chunk.repeat(scale_ref[...])
        db2_ref[...] += column_sums(dz)
        dz = dz.astype(dtype)
        total_ref[...] = jnp.zeros_like(dy)

        def part_body(start, size):
            part = rows.lane_slice(start, size)
            hidden = matmul(narrow, w1_ref[:, part]) + b1_ref[:, part]
            active, slope = gelu_and_slope(hidden, exact=exact)
            dhidden = matmul_nt(dz, w2_ref[part, :]) * slope
            db1_ref[:, part] += column_sums(dhidden)
            total_ref[...] += matmul_nt(dhidden.astype(dtype), w1_ref[:, part])
            dw1_ref[:, part] += matmul_tn(narrow, dhidden.astype(dtype))
            dw2_ref[part, :] += matmul_tn(active.astype(dtype), dz)

        grid.for_parts(w1_ref.shape[1], HIDDEN // 2, part_body)
        base = chunk.read(base_refs[0]) if base_refs else dy
        chunk.write(dx_ref, base + standardise_gradient(total_ref[...], normal, inverse))

    grid.for_chunks(x_ref, chunk_body)


def mlp(
    x: jax.Array, scale: jax.Array, w1: jax.Array, b1: jax.Array, w2: jax.Array, b2: jax.Array,
    *, grid: Grid, parts: int = 1,
) -> jax.Array:  # fmt: skip
    """The MLP branch and its residual, y, of the shape and dtype of x.

    Args:
        x: [H, W, B, C].
        scale: float32 [B], of the branch, per image.
        w1, b1, w2, b2: [C, F], [F], [F, C], [C]; LayerNorm's scale and shift are in the first two.
        grid: the tokens.
        parts: number of kernels that the hidden channels are divided over.
    """
    channels, hidden = w1.shape[0], w1.shape[1] // parts
    y = x
    for i in range(parts):
        part, later = slice(i * hidden, (i + 1) * hidden), i > 0
        (y,) = rows.call(
            _forward, "mlp_forward",
            [Tokens(x), rows.per_image(scale, channels), Whole(w1[:, part].astype(x.dtype)),
             Whole(b1[None, part]), Whole(w2[part].astype(x.dtype)),
             Whole((jnp.zeros_like(b2) if later else b2)[None]), *[Tokens(y)] * later],
            [Tokens(rows.token_shape(grid, channels, x.dtype))],
            grid=grid, flops=4 * x.size * hidden, scratch=[(grid.rows, channels)],
        )  # fmt: skip
    return y


def mlp_gradient(
    x: jax.Array, dy: jax.Array, scale: jax.Array, w1: jax.Array, b1: jax.Array, w2: jax.Array,
    *, grid: Grid, parts: int = 1,
) -> tuple[jax.Array, ...]:  # fmt: skip
    """Gradients of x (in its dtype), w1, b1, w2 and b2 (float32); see `mlp`.

    Sums over all tokens stay in VMEM until they are complete.
    """
    channels, hidden = w1.shape[0], w1.shape[1] // parts
    shape = functools.partial(jax.ShapeDtypeStruct, dtype=jnp.float32)
    dx, gradients = dy, []
    for i in range(parts):
        part, later = slice(i * hidden, (i + 1) * hidden), i > 0
        dx, *sums = rows.call(
            _backward, "mlp_backward",
            [Tokens(x), Tokens(dy), rows.per_image(scale, channels),
             Whole(w1[:, part].astype(x.dtype)), Whole(b1[None, part]),
             Whole(w2[part].astype(x.dtype)), *[Tokens(dx)] * later],
            [Tokens(rows.token_shape(grid, channels, x.dtype)), Whole(shape((8, hidden))),
             Whole(shape((8, channels))), Whole(shape((channels, hidden))),
             Whole(shape((hidden, channels)))],
            grid=grid, flops=10 * x.size * hidden, scratch=[(grid.rows, channels)],
        )  # fmt: skip
        gradients.append(sums)
    db1, db2, dw1, dw2 = zip(*gradients, strict=True)
    return (
        dx,
        jnp.concatenate(dw1, 1),
        jnp.concatenate(db1, 1).sum(0),
        jnp.concatenate(dw2),
        db2[0].sum(0),
    )


def vmem_bytes(channels: int, grid: Grid, *, parts: int) -> int:
    """VMEM that the gradient takes, in bytes; the forward pass takes less."""
    hidden = 4 * channels // parts
    blocks = grid.lines * grid.width * grid.images * grid.itemsize * 2  # in two buffers
    # Of a chunk, in float32, with what spills from registers: more for matmuls in float32
    # (libtpu 0.0.42.1).
    part = min(hidden, grid.limit(HIDDEN // 2))
    values = ((15 if grid.itemsize == 4 else 2) * channels + 7 * part) * grid.rows * 4
    return 2 * channels * hidden * (grid.itemsize + 4) + blocks * 4 * channels + values
