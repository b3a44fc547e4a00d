"""Matmul, LayerNorm, GELU and attention with custom VJPs, for speed.

Without them, XLA on a CPU computes what the backward pass needs of a forward value once for each
use, and transposes whole activations for the gradient of a kernel. All is computed in float32 but
matmuls, which are in the dtype of their operands. Only reverse mode: JAX refuses `jax.jvp`, and so
`jax.hessian`, of a function with a custom VJP.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp

from clevit_jax.kernels.arithmetic import LAYER_NORM_EPSILON


def dot_general(x: jax.Array, kernel: jax.Array, dimension_numbers: Any, **options: Any) -> Any:
    """`jax.lax.dot_general` of tokens with a kernel, for `nnx.Linear(dot_general=...)`.

    Args:
        x: [..., I].
        kernel: [I, O], in the dtype of `x`.
        dimension_numbers: of a matmul over I, as `nnx.Linear` gives them.
        options: of `jax.lax.dot_general`, all at their defaults (None).

    Returns:
        [..., O], in the dtype of `x`.

    Raises:
        ValueError: another contraction, or an option.
    """
    if dimension_numbers != (((x.ndim - 1,), (0,)), ((), ())) or any(
        option is not None for option in options.values()
    ):
        raise ValueError(
            "dot_general multiplies tokens by a kernel, without options; it was asked for "
            f"{dimension_numbers} with {options}."
        )
    return _matmul(x, kernel)


@jax.custom_vjp
def _matmul(x: jax.Array, kernel: jax.Array) -> jax.Array:
    return x @ kernel


def _matmul_forward(x: jax.Array, kernel: jax.Array) -> Any:
    return _matmul(x, kernel), (x, kernel)


def _matmul_backward(kept: Any, grad: jax.Array) -> tuple[jax.Array, jax.Array]:
    # On a CPU a sum over several axes makes XLA transpose; on a TPU, merging the axes of tokens
    # costs a copy.
    return jax.lax.platform_dependent(
        *kept, grad, cpu=_matmul_gradients_of_rows, default=_matmul_gradients
    )


def _matmul_gradients(
    x: jax.Array, kernel: jax.Array, grad: jax.Array
) -> tuple[jax.Array, jax.Array]:
    _, pull = jax.vjp(jnp.matmul, x, kernel)
    return pull(grad)


def _matmul_gradients_of_rows(
    x: jax.Array, kernel: jax.Array, grad: jax.Array
) -> tuple[jax.Array, jax.Array]:
    rows, grad_rows = x.reshape(-1, x.shape[-1]), grad.reshape(-1, grad.shape[-1])
    return (grad_rows @ kernel.T).reshape(x.shape), rows.T @ grad_rows


_matmul.defvjp(_matmul_forward, _matmul_backward)


@jax.custom_vjp
def layer_norm(x: jax.Array, scale: jax.Array, bias: jax.Array) -> jax.Array:
    """LayerNorm over the last axis.

    Args:
        x: [..., C], of any float dtype.
        scale: float32 [C].
        bias: float32 [C].

    Returns:
        float32 [..., C].
    """
    return _layer_norm_forward(x, scale, bias)[0]


def _layer_norm_forward(x: jax.Array, scale: jax.Array, bias: jax.Array) -> Any:
    wide = x.astype(jnp.float32)
    mean = wide.mean(-1, keepdims=True)
    variance = jnp.square(wide - mean).mean(-1, keepdims=True)
    inverse = jax.lax.rsqrt(variance + LAYER_NORM_EPSILON)  # of the standard deviation
    normal = (wide - mean) * inverse
    return normal * _along(scale, x) + _along(bias, x), (x, mean, inverse, scale)


def _along(channels: jax.Array, x: jax.Array) -> jax.Array:
    return jnp.expand_dims(channels, range(x.ndim - 1))


def _layer_norm_backward(kept: Any, grad: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    x, mean, inverse, scale = kept
    normal = (x.astype(jnp.float32) - mean) * inverse
    scaled = grad * _along(scale, x)
    along = normal * (scaled * normal).mean(-1, keepdims=True)
    grad_x = inverse * (scaled - scaled.mean(-1, keepdims=True) - along)
    tokens = tuple(range(x.ndim - 1))
    return grad_x.astype(x.dtype), (grad * normal).sum(tokens), grad.sum(tokens)


layer_norm.defvjp(_layer_norm_forward, _layer_norm_backward)


@jax.custom_vjp
def gelu(x: jax.Array) -> jax.Array:
    """Exact GELU: x times the probability that a standard normal number is below x.

    Args:
        x: of any shape and float dtype.

    Returns:
        Of the shape and dtype of `x`.
    """
    wide = x.astype(jnp.float32)
    return (wide * _below(wide)).astype(x.dtype)


def _below(x: jax.Array) -> jax.Array:
    return 0.5 * (1 + jax.lax.erf(x * math.sqrt(0.5)))


def _gelu_forward(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    return gelu(x), x


def _gelu_backward(x: jax.Array, grad: jax.Array) -> tuple[jax.Array]:
    # Behind a barrier, or XLA keeps what the forward pass computed of x instead of doing it again.
    wide = jax.lax.optimization_barrier(x).astype(jnp.float32)
    density = jnp.exp(-0.5 * wide * wide) * (1 / math.sqrt(2 * math.pi))
    return ((grad.astype(jnp.float32) * (_below(wide) + wide * density)).astype(x.dtype),)


gelu.defvjp(_gelu_forward, _gelu_backward)


@jax.custom_vjp
def attention(q: jax.Array, k: jax.Array, v: jax.Array, bias: jax.Array, mask: Any) -> jax.Array:
    """softmax(q k^T + bias + mask) v, for every window and head.

    Args:
        q, k, v: [B, n, h, N, D], of one dtype; q is scaled already.
        bias: float32 [h, N, N].
        mask: float32 [n, N, N], or None; has no gradient.

    Returns:
        [B, n, h, N, D] in the dtype of `q`; the softmax is computed in float32.
    """
    return _attention_forward(q, k, v, bias, mask)[0]


def attention_weights(q: jax.Array, k: jax.Array, bias: jax.Array, mask: Any) -> jax.Array:
    """The softmax of `attention`, float32 [B, n, h, N, N]; its last axis sums to 1."""
    scores = _batched(q, k, -1, -1, jnp.float32) + bias[None, None]
    if mask is not None:
        scores = scores + mask[None, :, None]
    return jax.nn.softmax(scores, axis=-1)


def _attention_forward(q: jax.Array, k: jax.Array, v: jax.Array, bias: jax.Array, mask: Any) -> Any:
    weights = attention_weights(q, k, bias, mask)
    return _batched(weights.astype(v.dtype), v, -1, -2), (q, k, v, weights)


def _attention_backward(kept: Any, grad: jax.Array) -> Any:
    q, k, v, weights = kept
    grad_weights = _batched(grad, v, -1, -1, jnp.float32)
    along = (grad_weights * weights).sum(-1, keepdims=True)
    grad_scores = weights * (grad_weights - along)
    narrow = grad_scores.astype(q.dtype)
    grad_q, grad_k = _batched(narrow, k, -1, -2), _over_rows(narrow, q)
    grad_v = _over_rows(weights.astype(v.dtype), grad)
    return grad_q, grad_k, grad_v, grad_scores.sum((0, 1)), None


def _batched(a: jax.Array, b: jax.Array, axis_a: int, axis_b: int, dtype: Any = None) -> jax.Array:
    """Batched matmul over one of the last two axes of each, in `dtype` or theirs."""
    over = ((a.ndim + axis_a,), (b.ndim + axis_b,))
    batch = tuple(range(a.ndim - 2))
    return jax.lax.dot_general(a, b, (over, (batch, batch)), preferred_element_type=dtype)


def _over_rows(a: jax.Array, b: jax.Array) -> jax.Array:
    """a^T b of the last two axes, [..., M, K] and [..., M, N] -> [..., K, N]."""

    def transposed(a: jax.Array, b: jax.Array) -> jax.Array:
        # XLA would fold the transpose into the matmul, which a CPU computes slowly.
        return _batched(jax.lax.optimization_barrier(a.swapaxes(-1, -2)), b, -1, -2)

    def direct(a: jax.Array, b: jax.Array) -> jax.Array:
        return _batched(a, b, -2, -2)

    return jax.lax.platform_dependent(a, b, cpu=transposed, default=direct)


attention.defvjp(_attention_forward, _attention_backward)
