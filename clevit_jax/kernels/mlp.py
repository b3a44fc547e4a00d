"""LayerNorm, linear, GELU, linear, drop path and residual as one kernel, and its gradient.

y = x + s (gelu(norm(x) w1 + b1) w2 + b2) on tokens [H, W, B, C], F hidden channels. The plain path
writes the hidden activations of a block to memory four times; here they live in registers, and the
gradient either computes them again or reads what the forward pass kept of them.
"""

import functools

import jax
import jax.numpy as jnp

from clevit_jax.kernels import rows
from clevit_jax.kernels.arithmetic import (
    column_sums,
    gelu,
    gelu_and_slope,
    layer_norm,
    layer_norm_gradient,
    product,
    product_nt,
    product_tn,
)
from clevit_jax.kernels.rows import Grid, Operand, Tokens, Whole

HIDDEN = 1024  # hidden channels at a time, forward; half of it backward


def _forward(x_ref, scale_ref, w1_ref, b1_ref, w2_ref, b2_ref, y_ref, *others, grid: Grid):
    *kept, total_ref = others
    exact = x_ref.dtype == jnp.float32

    def chunk_body(chunk):
        x = chunk.read(x_ref)
        normal = layer_norm(x)[0].astype(x_ref.dtype)
        total_ref[...] = jnp.broadcast_to(b2_ref[...], x.shape)

        def part_body(start, size):
            part = rows.lanes(start, size)
            hidden = product(normal, w1_ref[:, part]) + b1_ref[:, part]
            for ref in kept:
                chunk.write(ref, hidden, part)
            total_ref[...] += product(
                gelu(hidden, exact=exact).astype(x_ref.dtype), w2_ref[part, :]
            )

        rows.for_parts(w1_ref.shape[1], HIDDEN, part_body)
        chunk.write(y_ref, x + chunk.repeat(scale_ref[...]) * total_ref[...])

    grid.for_chunks(x_ref.shape[-1], chunk_body)


def _backward(
    x_ref, dy_ref, scale_ref, w1_ref, b1_ref, w2_ref, *others, grid: Grid, kept: bool, split: bool
):  # fmt: skip
    hidden_ref = others[0] if kept else None
    # With `split`, what the gradients of the weights are products of; without, those gradients.
    dx_ref, db1_ref, db2_ref, *dweights, total_ref = others[kept:]
    dtype, exact = x_ref.dtype, x_ref.dtype == jnp.float32

    def chunk_body(chunk):
        normal, inverse = layer_norm(chunk.read(x_ref))
        narrow = normal.astype(dtype)
        dy = chunk.read(dy_ref)
        dz = dy * chunk.repeat(scale_ref[...])
        db2_ref[...] += column_sums(dz)
        dz = dz.astype(dtype)
        total_ref[...] = jnp.zeros_like(dy)
        if split:
            chunk.write(dweights[0], normal)

        def part_body(start, size):
            part = rows.lanes(start, size)
            if hidden_ref is None:
                hidden = product(narrow, w1_ref[:, part]) + b1_ref[:, part]
            else:
                hidden = chunk.read(hidden_ref, part)
            active, slope = gelu_and_slope(hidden, exact=exact)
            dhidden = product_nt(dz, w2_ref[part, :]) * slope
            db1_ref[:, part] += column_sums(dhidden)
            total_ref[...] += product_nt(dhidden.astype(dtype), w1_ref[:, part])
            if split:
                chunk.write(dweights[1], dhidden, part)
                chunk.write(dweights[2], active, part)
            else:
                dweights[0][:, part] += product_tn(narrow, dhidden.astype(dtype))
                dweights[1][part, :] += product_tn(active.astype(dtype), dz)

        rows.for_parts(w1_ref.shape[1], HIDDEN // 2, part_body)
        chunk.write(dx_ref, dy + layer_norm_gradient(total_ref[...], normal, inverse))

    grid.for_chunks(x_ref.shape[-1], chunk_body)


def mlp(
    x: jax.Array, scale: jax.Array, w1: jax.Array, b1: jax.Array, w2: jax.Array, b2: jax.Array,
    *, grid: Grid, keep: bool,
) -> tuple[jax.Array, ...]:  # fmt: skip
    """y, and with `keep` the hidden activations before the GELU.

    Args:
        x: [H, W, B, C].
        scale: float32 [B], of the branch of each image.
        w1, b1, w2, b2: [C, F], [F], [F, C], [C]; LayerNorm's scale and shift are in the first two.
        grid: the tokens.
        keep: whether the gradient will read the hidden activations rather than compute them again.

    Returns:
        [H, W, B, C] and, with `keep`, [H, W, B, F], in the dtype of x.
    """
    (channels, hidden), dtype = w1.shape, x.dtype
    results = [rows.like(grid, channels, dtype), *[rows.like(grid, hidden, dtype)] * keep]
    return tuple(rows.call(
        _forward, "mlp_forward",
        [Tokens(x), rows.per_image(scale, channels), Whole(w1.astype(dtype)), Whole(b1[None]),
         Whole(w2.astype(dtype)), Whole(b2[None])],
        [Tokens(result) for result in results],
        grid=grid, flops=4 * x.size * hidden, scratch=[(grid.rows, channels)],
    ))  # fmt: skip


def mlp_gradient(
    x: jax.Array, dy: jax.Array, scale: jax.Array, w1: jax.Array, b1: jax.Array, w2: jax.Array,
    kept: jax.Array | None, *, grid: Grid, split: bool,
) -> tuple[jax.Array, ...]:  # fmt: skip
    """Gradients of x (in its dtype), w1, b1, w2 and b2 (float32); see `mlp`.

    Sums over all tokens stay on the chip. Where those of the weights are too large for it, `split`
    leaves these two products to the compiler.
    """
    (channels, hidden), dtype = w1.shape, x.dtype
    shape = functools.partial(jax.ShapeDtypeStruct, dtype=jnp.float32)
    dweights: list[Operand]
    if split:
        dweights = [Tokens(rows.like(grid, n, dtype)) for n in (channels, hidden, hidden)]
    else:
        dweights = [Whole(shape((channels, hidden))), Whole(shape((hidden, channels)))]
    dx, db1, db2, *products = rows.call(
        functools.partial(_backward, kept=kept is not None, split=split), "mlp_backward",
        [Tokens(x), Tokens(dy), rows.per_image(scale, channels), Whole(w1.astype(dtype)),
         Whole(b1[None]), Whole(w2.astype(dtype)), *([] if kept is None else [Tokens(kept)])],
        [Tokens(rows.like(grid, channels, dtype)), Whole(shape((8, hidden))),
         Whole(shape((8, channels))), *dweights],
        grid=grid, flops=(8 if kept is not None else 10) * x.size * hidden,
        scratch=[(grid.rows, channels)],
    )  # fmt: skip
    if split:
        normal, dhidden, active = products
        dz = (dy.astype(jnp.float32) * scale[:, None]).astype(dtype)
        dw1, dw2 = _token_product(normal, dhidden), _token_product(active, dz)
    else:
        dw1, dw2 = products
    return dx, dw1, db1.sum(0), dw2, db2.sum(0)


def _token_product(a: jax.Array, b: jax.Array) -> jax.Array:
    """float32 [m, n], the sum over all tokens of [H, W, B, m] times [H, W, B, n]."""
    return product_tn(a.reshape(-1, a.shape[-1]), b.reshape(-1, b.shape[-1]))


def vmem_bytes(channels: int, itemsize: int, grid: Grid, *, split: bool) -> int:
    """What the gradient takes of the chip's own memory, the larger of the two directions."""
    hidden = 4 * channels
    weights = 2 * channels * hidden
    blocks = grid.lines * grid.width * grid.images * itemsize * 2  # in two buffers
    if split:
        return weights * itemsize + blocks * (4 * channels + 2 * hidden)
    return weights * (itemsize + 4) + blocks * (3 * channels + hidden)
