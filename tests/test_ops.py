"""The gradients written by hand against those that JAX derives of the same functions."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from clevit_jax.model import ops


def normal(*shape):
    return np.random.default_rng(len(shape)).standard_normal(shape).astype(np.float32)


def product(x, kernel):
    return ops.dot_general(x, kernel, (((x.ndim - 1,), (0,)), ((), ())), precision=None)


def plain_layer_norm(x, scale, bias):
    x = x - x.mean(-1, keepdims=True)
    return (
        x / jnp.sqrt(jnp.square(x).mean(-1, keepdims=True) + 1e-5) * scale[None, None]
        + bias[None, None]
    )


def attention(q, k, v, bias):
    return ops.attention(q, k, v, bias, MASK)


def plain_attention(q, k, v, bias):
    scores = jnp.einsum("bnhqd,bnhkd->bnhqk", q, k) + bias[None, None] + MASK[None, :, None]
    weights = jnp.exp(scores) / jnp.exp(scores).sum(-1, keepdims=True)
    return jnp.einsum("bnhqk,bnhkd->bnhqd", weights, v)


MASK = np.where(np.arange(2 * 9 * 9) % 7 < 2, np.float32(-100), 0).reshape(2, 9, 9)
FLOAT32 = {"layer_norm": (1, 2), "attention": (3,)}  # arguments that are so beside narrow ones
CASES = {
    "product": (product, jnp.matmul, (normal(2, 3, 5, 8), normal(8, 6))),
    "layer_norm": (
        ops.layer_norm, plain_layer_norm, (3 * normal(2, 7, 16) + 1, normal(16), normal(16)),
    ),
    "gelu": (
        ops.gelu, functools.partial(jax.nn.gelu, approximate=False),
        (np.linspace(-12, 12, 4801, dtype=np.float32),),
    ),
    "attention": (
        attention, plain_attention,
        (*(normal(4, 2, 2, 3, 9, 5)[i] for i in range(3)), normal(3, 9, 9)),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_values_and_gradients(name):
    ours, plain, arguments = CASES[name]
    made, pull = jax.vjp(jax.jit(ours), *arguments)
    wanted, pull_wanted = jax.vjp(plain, *arguments)
    np.testing.assert_allclose(made, wanted, atol=2e-6, rtol=2e-6)
    cotangent = jnp.cos(jnp.arange(made.size, dtype=jnp.float32)).reshape(made.shape)
    for grad, grad_wanted in zip(pull(cotangent), pull_wanted(cotangent), strict=True):
        np.testing.assert_allclose(grad, grad_wanted, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", CASES)
def test_bfloat16(name):
    """Values and gradients to the rounding of their dtypes."""
    ours, plain, arguments = CASES[name]
    wide = FLOAT32.get(name, ())
    narrow = [a if i in wide else jnp.asarray(a, jnp.bfloat16) for i, a in enumerate(arguments)]
    made, pull = jax.vjp(ours, *narrow)
    assert made.dtype == (jnp.float32 if name == "layer_norm" else jnp.bfloat16)
    wanted, pull_wanted = jax.vjp(plain, *(jnp.asarray(a, jnp.float32) for a in narrow))
    np.testing.assert_allclose(made.astype(jnp.float32), wanted, atol=1e-2, rtol=1e-2)
    cotangent = jnp.cos(jnp.arange(made.size)).reshape(made.shape).astype(made.dtype)
    grads, wanted_grads = pull(cotangent), pull_wanted(cotangent.astype(jnp.float32))
    for grad, grad_wanted, argument in zip(grads, wanted_grads, narrow, strict=True):
        assert grad.dtype == argument.dtype
        error = jnp.linalg.norm(grad.astype(jnp.float32) - grad_wanted)
        bound = 1e-5 if grad.dtype == jnp.float32 else 5e-3
        assert error < bound * jnp.linalg.norm(grad_wanted)


def test_each_platform_gets_its_own_product_gradient_and_both_agree():
    x, kernel = CASES["product"][2]
    grad = normal(2, 3, 5, 6)
    made = ops._matmul_gradients_of_rows(x, kernel, grad)
    for ours, plain in zip(made, ops._matmul_gradients(x, kernel, grad), strict=True):
        np.testing.assert_allclose(ours, plain, atol=1e-5)
    traced = jax.jit(lambda *a: jax.vjp(product, *a[:2])[1](a[2])).trace(x, kernel, grad)
    merged = "30x8"  # the axes of tokens as one
    assert merged in traced.lower(lowering_platforms=("cpu",)).as_text()
    assert merged not in traced.lower(lowering_platforms=("tpu",)).as_text()
    assert merged not in traced.lower(lowering_platforms=("cuda",)).as_text()


def test_a_cpu_writes_the_transpose_of_attention_weights_and_other_platforms_do_not():
    arguments = CASES["attention"][2]
    traced = jax.jit(lambda *a: jax.vjp(attention, *a)[1](a[0])).trace(*arguments)
    texts = {p: traced.lower(lowering_platforms=(p,)).as_text() for p in ("cpu", "tpu", "cuda")}
    assert texts["cpu"].count("optimization_barrier") == 2
    assert "optimization_barrier" not in texts["tpu"] + texts["cuda"]


def test_gelu_keeps_its_argument_alone_for_the_backward_pass():
    x = CASES["gelu"][2][0]
    step = jax.jit(lambda x, grad: jax.vjp(ops.gelu, x)[1](grad) + (ops.gelu(x),))
    assert step.lower(x, x).compile().as_text().count(" erf(") == 2  # one would be kept


@pytest.mark.parametrize("name", CASES)
def test_reverse_mode_alone(name):
    """Forward mode is refused; a second derivative is had by reverse mode twice."""
    ours, plain, arguments = CASES[name]
    with pytest.raises(TypeError, match="forward-mode"):
        jax.jvp(ours, arguments, arguments)

    def second(function):
        first = jax.grad(lambda *a: jnp.square(function(*a)).sum())
        return jax.jit(jax.grad(lambda *a: jnp.square(first(*a)).sum()))(*arguments)

    wanted = second(plain)
    np.testing.assert_allclose(second(ours), wanted, atol=1e-5 * np.abs(wanted).max(), rtol=0)


def test_other_products_and_options_are_refused():
    x, kernel = normal(2, 3), normal(3, 3)
    with pytest.raises(ValueError, match="multiplies tokens by a kernel"):
        ops.dot_general(x, kernel, (((0,), (0,)), ((), ())))
    with pytest.raises(ValueError, match="multiplies tokens by a kernel"):
        ops.dot_general(x, kernel, (((1,), (0,)), ((), ())), precision="highest")
