"""Swin against the official code's outputs and gradients (golden/swin_nano.npz)."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx

from clevit_jax.model import attention, swin
from clevit_jax.model.config import SwinConfig
from clevit_jax.weights.convert import from_official, to_official

NANO: dict[str, Any] = {
    "embed_dim": 16,
    "depths": (2, 2, 2, 2),
    "num_heads": (1, 2, 4, 8),
    "window": 7,
    "num_classes": 21,
}


def build(**overrides):
    return swin.abstract_swin(SwinConfig(**{**NANO, "image_size": 224, **overrides}))


@pytest.fixture(scope="session")
def official(golden):
    return torch.load(golden / "swin_nano_224.pth", weights_only=True)["model"]


@pytest.fixture(scope="session")
def reference(golden):
    return dict(np.load(golden / "swin_nano.npz"))


def images_of(size):
    return np.random.RandomState(size).standard_normal((2, size, size, 3)).astype(np.float32)


@functools.partial(jax.jit, static_argnums=0)
def forward(graphdef, params, images):
    return nnx.merge(graphdef, params)(images)


def run(graphdef, params, images):
    """Logits, features, every block output and the gradients of the golden's scalar."""

    places = [(i, j) for i, depth in enumerate(NANO["depths"]) for j in range(depth)]

    def scalar(params):
        layers = {}

        def tap(name, x):
            layers[name] = x
            return x

        logits, features = nnx.merge(graphdef, params)(images, tap=tap)
        blocks = {(i, j): layers[f"layers.{i}.blocks.{j}"] for i, j in places}
        weight1 = np.random.RandomState(1).standard_normal(logits.shape).astype(np.float32)
        weight2 = np.random.RandomState(2).standard_normal(features.shape).astype(np.float32)
        value = (logits * weight1).sum() + (features * weight2).sum()
        return value, (logits, features, blocks)

    grads, (logits, features, blocks) = jax.grad(scalar, has_aux=True)(params)
    return logits, features, blocks, grads


@pytest.fixture(scope="session", params=[224, 448])
def result(request, official):
    size = request.param
    graphdef, params = build(image_size=size)
    params = from_official(official, params)
    return size, jax.device_get(jax.jit(run, static_argnums=0)(graphdef, params, images_of(size)))


def test_logits_and_features(result, reference):
    size, (logits, features, _, _) = result
    np.testing.assert_allclose(logits, reference[f"logits_{size}"], atol=1e-5, rtol=0)
    np.testing.assert_allclose(features, reference[f"features_{size}"], atol=1e-5, rtol=0)


def test_every_block(result, reference):
    size, (_, _, blocks, _) = result
    assert len(blocks) == 8
    for (i, j), x in blocks.items():
        step = max(1, x.shape[1] // 7)
        np.testing.assert_allclose(
            x[:1, ::step, ::step], reference[f"block_{size}_{i}_{j}"], atol=1e-4, rtol=0
        )


def test_every_gradient(result, reference):
    size, (_, _, _, grads) = result
    grads = to_official(grads)
    norms = {n.split("/")[1]: v for n, v in reference.items() if n.startswith(f"gradnorm_{size}/")}
    assert norms.keys() == grads.keys()
    for name, norm in norms.items():
        np.testing.assert_allclose(np.linalg.norm(grads[name]), norm, rtol=1e-5, err_msg=name)
    whole = {n.split("/")[1]: v for n, v in reference.items() if n.startswith(f"grad_{size}/")}
    assert whole
    for name, grad in whole.items():
        np.testing.assert_allclose(
            grads[name], grad, atol=2e-5 * np.abs(grad).max(), rtol=1e-4, err_msg=name
        )


def _wrong_shift(monkeypatch):
    build_block = swin.Block.__init__

    def init(self, config, stage, index, rngs):
        build_block(self, config, stage, index, rngs)
        self.shift = max(0, self.shift - 1)

    monkeypatch.setattr(swin.Block, "__init__", init)


def _wrong_mask(monkeypatch):
    monkeypatch.setattr(swin, "shift_mask", lambda *a: np.zeros_like(attention.shift_mask(*a)))


def _wrong_merging(monkeypatch):
    def merge(self, x):
        b, h, w, c = x.shape
        x = x.reshape(b, h // 2, 2, w // 2, 2, c).transpose(0, 1, 3, 2, 4, 5)
        return self.reduction(self.norm(x.reshape(b, h // 2, w // 2, 4 * c)))

    monkeypatch.setattr(swin.PatchMerging, "__call__", merge)


def first_blocks(params, images):
    """Outputs of the first blocks, up to the one behind the first merging."""
    model = nnx.merge(build()[0], params)
    x, outputs = model.patch_embed(images), {}
    for j, block in enumerate(model.layers[0].blocks):
        outputs[0, j] = x = block(x)
    outputs[1, 0] = model.layers[1].blocks[0](model.layers[0].downsample(x))
    return outputs


def test_the_goldens_catch_what_ports_get_wrong(official, reference):
    """In one program: each mistake puts the blocks it touches far beyond their tolerance."""
    touched = {_wrong_shift: [(0, 1), (1, 0)], _wrong_mask: [(0, 1), (1, 0)],
               _wrong_merging: [(1, 0)]}  # fmt: skip

    @jax.jit
    def wrong_blocks(params, image):
        made = {}
        for mistake in touched:
            with pytest.MonkeyPatch.context() as patch:
                mistake(patch)
                swin._traced_swin.cache_clear()
                made[mistake.__name__] = first_blocks(params, image)
        swin._traced_swin.cache_clear()
        return made

    params = from_official(official, build()[1])
    made = wrong_blocks(params, images_of(224)[:1])
    for mistake, places in touched.items():
        for (i, j), x in made[mistake.__name__].items():
            step = x.shape[1] // 7
            error = np.abs(x[:, ::step, ::step] - reference[f"block_224_{i}_{j}"]).max()
            assert error > 1e-3 if (i, j) in places else error < 1e-4, (mistake, i, j)


def test_the_goldens_catch_the_wrong_gelu(official, reference, monkeypatch):
    """Which is so near the right one that it shows in the logits alone."""
    monkeypatch.setattr(swin, "gelu", lambda x: jax.nn.gelu(x, approximate=True))
    graphdef, params = build()
    params = from_official(official, params)
    logits, _ = forward(graphdef, params, images_of(224))
    assert np.abs(logits - reference["logits_224"]).max() > 1e-4


def test_stage_four_shifts_at_448_and_not_at_224():
    def shifts(size):
        graphdef, params = swin.abstract_swin(SwinConfig.variant("tiny", image_size=size))
        model = nnx.merge(graphdef, params)
        return [[block.shift for block in stage.blocks] for stage in model.layers]

    assert shifts(448) == [[0, 3], [0, 3], [0, 3] * 3, [0, 3]]
    assert shifts(224) == [[0, 3], [0, 3], [0, 3] * 3, [0, 0]]


# Counts published in Liu et al., table 1 (28M, 50M, 88M, 197M), with a 1000-class head.
@pytest.mark.parametrize(
    ("name", "millions"), [("tiny", 28.3), ("small", 49.6), ("base", 87.8), ("large", 196.5)]
)
def test_published_sizes(name, millions):
    _, params = swin.abstract_swin(SwinConfig.variant(name, image_size=224))
    count = sum(x.size for x in jax.tree.leaves(params))
    assert round(count / 1e6, 1) == millions


@pytest.mark.parametrize(
    ("size", "window", "near"), [(300, 7, (224, 448)), (450, 12, (384, 768)), (100, 6, (96, 192))]
)
def test_illegal_image_size_names_the_nearest(size, window, near):
    with pytest.raises(ValueError, match=f"{near[0]} and {near[1]}"):
        SwinConfig(image_size=size, window=window)
    for good in near:
        SwinConfig(image_size=good, window=window)


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        ({"num_heads": (3, 2, 4, 8)}, "num_heads\\[0\\]"),
        ({"depths": (2, 2)}, "one entry per stage"),
        ({"drop_path": 1.0}, "drop_path"),
        ({"remat": "all"}, "remat"),
    ],
)
def test_senseless_architectures_are_refused(bad, says):
    with pytest.raises(ValueError, match=says):
        SwinConfig(**{**NANO, "image_size": 224, **bad})


def test_wrong_input_shape_is_refused():
    model = nnx.merge(*build())
    with pytest.raises(ValueError, match="224, 224, 3"):
        model(np.zeros((1, 448, 448, 3), np.float32))


SMALL = {"embed_dim": 8, "depths": (2,), "num_heads": (2,), "window": 4, "image_size": 32}


def test_remat_changes_nothing():
    rng = np.random.RandomState(0)
    x = rng.standard_normal((4, 32, 32, 3)).astype(np.float32)
    noise = rng.uniform(size=(4, 4)).astype(np.float32)
    _, shapes = build(**SMALL)
    params = jax.tree.map(lambda s: rng.normal(0, 0.5, s.shape).astype(s.dtype), shapes)

    def grads(remat):
        graphdef, _ = build(**SMALL, remat=remat, drop_path=0.5)

        def loss(p):
            return (nnx.merge(graphdef, p)(x, drop_path_noise=noise)[0] ** 2).mean()

        traced = jax.jit(jax.grad(loss)).trace(params)
        return traced.lower().compile()(params), str(traced.jaxpr)

    (plain, text), (remat, remat_text) = grads("none"), grads("blocks")
    assert "remat" in remat_text
    assert "remat" not in text
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), plain, remat)


def test_drop_path_is_per_sample_and_keeps_the_mean():
    x = jnp.ones((3, 2, 2, 4))
    out = swin.drop_path(x, 0.25, jnp.array([0.2, 0.25, 0.9]))
    np.testing.assert_allclose(out[0], 0)
    np.testing.assert_allclose(out[1:], 4 / 3, rtol=1e-6)
    noise = jax.random.uniform(jax.random.key(0), (20_000,))
    mean = swin.drop_path(jnp.ones((20_000, 1)), 0.25, noise).mean()
    assert abs(mean - 1) < 0.02


def test_drop_path_rates_rise_linearly():
    graphdef, params = build(drop_path=0.7)
    model = nnx.merge(graphdef, params)
    rates = [block.rate for stage in model.layers for block in stage.blocks]
    np.testing.assert_allclose(rates, np.linspace(0, 0.7, 8), rtol=1e-6)


def test_bfloat16_keeps_float32_outside_and_stays_near(official, reference):
    graphdef, params = build(dtype=jnp.bfloat16)
    params = from_official(official, params)
    logits, features = forward(graphdef, params, images_of(224))
    assert logits.dtype == features.dtype == jnp.float32
    scale = np.abs(reference["features_224"]).max()
    assert np.abs(features - reference["features_224"]).max() < 0.05 * scale


def test_window_attention_against_a_loop():
    rng = np.random.RandomState(0)
    qkv = rng.standard_normal((1, 2, 9, 12)).astype(np.float32)
    bias = rng.standard_normal((2, 9, 9)).astype(np.float32)
    mask = np.where(rng.uniform(size=(2, 9, 9)) < 0.3, -100, 0).astype(np.float32)
    expected = np.zeros((1, 2, 9, 4), np.float64)
    for n in range(2):
        for h in range(2):
            q, k, v = (qkv[0, n, :, 4 * i + 2 * h : 4 * i + 2 * h + 2] for i in range(3))
            s = q @ k.T / np.sqrt(2) + bias[h] + mask[n]
            p = np.exp(s) / np.exp(s).sum(1, keepdims=True)
            expected[0, n, :, 2 * h : 2 * h + 2] = p @ v
    out = attention.window_attention(jnp.asarray(qkv), jnp.asarray(bias), num_heads=2, mask=mask)
    np.testing.assert_allclose(out, expected, atol=1e-5)


def test_left_over_missing_and_misshapen_weights_are_all_named(official):
    _, params = build()
    broken = dict(official)
    del broken["norm.weight"]
    broken["extra.bias"] = torch.zeros(3)
    broken["head.weight"] = torch.zeros(5, 128)
    with pytest.raises(ValueError, match=r"missing norm\.weight") as error:
        from_official(broken, params)
    assert "left over 'extra.bias'" in str(error.value)
    assert "head.weight" in str(error.value)
