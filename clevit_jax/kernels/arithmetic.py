"""Matmul, LayerNorm and GELU inside the kernels, each with its gradient.

These are functions of values inside a kernel (or outside of one, in tests). Statistics, sums and
the results of matmuls are float32; operands of matmuls are in the dtype of the activations. In
float32 nothing is approximated, so that a kernel can be compared with the plain path.
"""

import jax
import jax.numpy as jnp

LANES = 128  # columns of a vector register
SUBLANES = 8  # its rows of 32 bits
LAYER_NORM_EPSILON = 1e-5
MASKED_LOGIT = -100.0  # added to the score of a forbidden pair; not -inf, as in the official code

# atanh(erf(x / sqrt 2)) / x as a polynomial in x**2: the minimax fit on |x| <= 5 of what a change
# of it does to GELU, relative to its value. It is positive for every x.
_GELU = (0.796137094, 0.0379624218, -0.000497127709, 4.60125557e-06)


def matmul(a: jax.Array, b: jax.Array) -> jax.Array:
    """a b, float32 [m, n], of [m, k] and [k, n]."""
    return _dot(a, b, (1, 0))


def matmul_nt(a: jax.Array, b: jax.Array) -> jax.Array:
    """a b^T, float32 [m, n], of [m, k] and [n, k]."""
    return _dot(a, b, (1, 1))


def matmul_tn(a: jax.Array, b: jax.Array) -> jax.Array:
    """a^T b, float32 [m, n], of [k, m] and [k, n]."""
    return _dot(a, b, (0, 0))


def _dot(a: jax.Array, b: jax.Array, contract: tuple[int, int]) -> jax.Array:
    exact = a.dtype == jnp.float32
    return jax.lax.dot_general(
        a,
        b,
        (((contract[0],), (contract[1],)), ((), ())),
        precision=jax.lax.Precision.HIGHEST if exact else None,
        preferred_element_type=jnp.float32,
    )


def standardise(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Rows float32 [R, C] -> rows of mean 0 and variance 1, and 1 / deviation [R, 1].

    LayerNorm without its scale and shift, which the caller folds into the matmul that follows.
    """
    share = 1 / x.shape[-1]
    centred = x - x.sum(-1, keepdims=True) * share
    variance = (centred * centred).sum(-1, keepdims=True) * share
    inverse = jax.lax.rsqrt(variance + LAYER_NORM_EPSILON)
    return centred * inverse, inverse


def standardise_gradient(grad: jax.Array, normal: jax.Array, inverse: jax.Array) -> jax.Array:
    """The gradient of `standardise`'s input, from that of its rows [R, C] and what it returned."""
    share = 1 / normal.shape[-1]
    mean = grad.sum(-1, keepdims=True) * share
    along = (grad * normal).sum(-1, keepdims=True) * share
    return inverse * (grad - mean - normal * along)


def gelu(x: jax.Array, *, exact: bool) -> jax.Array:
    """x times the probability that a standard normal number is below x, float32.

    Without `exact`, the probability is (1 + tanh(x p(x**2))) / 2: relative error at most 1.7e-3
    above -5 (half a step of bfloat16 is 2.0e-3), absolute 1e-6 below, for half of erf's arithmetic.
    """
    if exact:
        return 0.5 * x * (1 + jax.lax.erf(x * 0.5**0.5))
    half = 0.5 * x
    return half + half * _erf(x, x * x)


def gelu_and_slope(x: jax.Array, *, exact: bool) -> tuple[jax.Array, jax.Array]:
    """`gelu` and its derivative."""
    square = x * x
    odd = jax.lax.erf(x * 0.5**0.5) if exact else _erf(x, square)
    below = 0.5 + 0.5 * odd
    density = 0.3989422804014327 * jnp.exp2(-0.7213475204444817 * square)  # of the normal
    return x * below, below + x * density


def _erf(x: jax.Array, square: jax.Array) -> jax.Array:
    """erf(x / sqrt 2) by a tanh, within the error that `gelu` names."""
    polynomial = jnp.full_like(x, _GELU[-1])
    for coefficient in _GELU[-2::-1]:
        polynomial = polynomial * square + coefficient
    return jnp.tanh(x * polynomial)


def column_sums(x: jax.Array) -> jax.Array:
    """Partial sums over rows, [R, n] -> [8, n]; R is a multiple of 8. Their sum is that of x."""
    return x.reshape(-1, SUBLANES, x.shape[-1]).sum(0)
