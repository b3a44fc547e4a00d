"""Products, LayerNorm and GELU whose gradients are written by hand, for the speed of a step.

Left to itself, XLA on a CPU computes what the backward pass needs of a forward value once for each
use, and transposes whole activations for the gradient of a kernel. All is computed in float32 but
the products, which are in the dtype of their operands. Only first derivatives, in reverse mode.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp

LAYER_NORM_EPSILON = 1e-5


def dot_general(x: jax.Array, kernel: jax.Array, dimension_numbers: Any, **options: Any) -> Any:
    """`jax.lax.dot_general` of tokens with a kernel, for `nnx.Linear(dot_general=...)`.

    Args:
        x: [..., I].
        kernel: [I, O], in the dtype of `x`.
        dimension_numbers: of the product over I, as `nnx.Linear` says them.
        options: of `jax.lax.dot_general`, all at their defaults (None).

    Returns:
        [..., O], in the dtype of `x`.

    Raises:
        ValueError: on any other product or option.
    """
    if dimension_numbers != (((x.ndim - 1,), (0,)), ((), ())) or any(
        option is not None for option in options.values()
    ):
        raise ValueError(f"only tokens times a kernel, not {dimension_numbers} with {options}.")
    return _product(x, kernel)


@jax.custom_vjp
def _product(x: jax.Array, kernel: jax.Array) -> jax.Array:
    return x @ kernel


def _product_forward(x: jax.Array, kernel: jax.Array) -> Any:
    return _product(x, kernel), (x, kernel)


def _product_backward(kept: Any, grad: jax.Array) -> tuple[jax.Array, jax.Array]:
    # On a CPU a sum over several axes makes XLA transpose; on a TPU, merging the axes of tokens
    # costs a copy.
    return jax.lax.platform_dependent(
        *kept, grad, cpu=_product_gradients_of_rows, default=_product_gradients
    )


def _product_gradients(
    x: jax.Array, kernel: jax.Array, grad: jax.Array
) -> tuple[jax.Array, jax.Array]:
    _, pull = jax.vjp(jnp.matmul, x, kernel)
    return pull(grad)


def _product_gradients_of_rows(
    x: jax.Array, kernel: jax.Array, grad: jax.Array
) -> tuple[jax.Array, jax.Array]:
    rows, grad_rows = x.reshape(-1, x.shape[-1]), grad.reshape(-1, grad.shape[-1])
    return (grad_rows @ kernel.T).reshape(x.shape), rows.T @ grad_rows


_product.defvjp(_product_forward, _product_backward)


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
    wide = x.astype(jnp.float32)
    density = jnp.exp(-0.5 * wide * wide) * (1 / math.sqrt(2 * math.pi))
    return ((grad.astype(jnp.float32) * (_below(wide) + wide * density)).astype(x.dtype),)


gelu.defvjp(_gelu_forward, _gelu_backward)
