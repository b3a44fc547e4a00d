"""The layers of a Swin, read and replaced by a tap, against forward hooks in PyTorch."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx
from transformers.models.swin import modeling_swin

from clevit_jax.errors import ConfigError
from clevit_jax.inference import classifier
from clevit_jax.inference.classifier import Classifier
from clevit_jax.inference.forward import make_layer_forward
from clevit_jax.kernels.config import KernelConfig
from clevit_jax.model.config import SwinConfig
from clevit_jax.model.preprocessing import Preprocessing
from clevit_jax.model.swin import abstract_swin
from clevit_jax.weights import verify
from clevit_jax.weights.convert import Weights

# Grids 28 and 14, windows of 7: the second block of each stage shifts its windows.
MODEL = SwinConfig(
    image_size=112, num_classes=5, embed_dim=8, depths=(2, 2), num_heads=(2, 4), window=7
)
LAYERS = list(MODEL.layer_shapes())
FACTOR = 1.5  # a layer is replaced by itself times this
MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])


@pytest.fixture(scope="module")
def params(random_params):
    return jax.tree.map(lambda leaf: 0.3 * leaf, random_params(MODEL, 5))


@pytest.fixture(scope="module")
def pixels():
    return np.random.RandomState(7).randint(0, 256, (2, 112, 112, 3)).astype(np.uint8)


@pytest.fixture(scope="module")
def images(pixels):
    return ((pixels / 255 - MEAN) / STD).astype(np.float32)


@pytest.fixture(scope="module")
def theirs(params):
    """transformers' Swin with the same weights."""
    return verify.build_torch_swin(
        Weights(MODEL, params, "clevit_jax", "made"), "transformers"
    ).module


def modules(theirs):
    """Name of a layer -> the module of transformers that returns it."""
    named = {"patch_embed": theirs.swin.embeddings, "norm": theirs.swin.layernorm}
    for s, stage in enumerate(theirs.swin.encoder.layers):
        for i, block in enumerate(stage.blocks):
            name = f"layers.{s}.blocks.{i}"
            named |= {
                f"{name}.norm1": block.layernorm_before,
                f"{name}.attn": block.attention,
                f"{name}.norm2": block.layernorm_after,
                f"{name}.mlp": block.mlp if hasattr(block, "mlp") else block.output,  # before 5
                name: block,
            }
        if stage.downsample is not None:
            named[f"layers.{s}.downsample"] = stage.downsample
    return named


def by_hooks(theirs, images, replaced=None):
    """Logits, and the tokens of every layer by its name; of `replaced`, before it is."""
    tokens = {}

    def keep(name):
        def hook(module, inputs, output):
            x, *rest = output if isinstance(output, tuple) else (output,)
            tokens[name] = x.clone()
            x = x * FACTOR if name == replaced else x
            return (x, *rest) if isinstance(output, tuple) else x

        return hook

    handles = [m.register_forward_hook(keep(name)) for name, m in modules(theirs).items()]
    with torch.inference_mode():
        logits = theirs(torch.from_numpy(images.transpose(0, 3, 1, 2))).logits.numpy()
    for handle in handles:
        handle.remove()
    return logits, {name: on_grid(name, x) for name, x in tokens.items()}


def on_grid(name, x):
    """[B, H * W, C], or windows of attention [B * n, N, C] -> [B, H, W, C]."""
    side = round((x.shape[0] * x.shape[1] // 2) ** 0.5)  # of two images
    if name.endswith(".attn"):
        x = modeling_swin.window_reverse(x.reshape(-1, 7, 7, x.shape[-1]), 7, side, side)
        x = torch.roll(x, (3, 3), (1, 2)) if ".blocks.1." in name else x
    return x.reshape(2, side, side, -1).numpy()


@pytest.fixture(scope="module")
def ours(params, images):
    """`ours(replaced=None)`: what `by_hooks` gives, by a tap; compiled once for all layers."""
    graphdef = abstract_swin(MODEL)[0]

    def run(params, factors):
        tokens = {}

        def tap(name, x):
            tokens[name] = x
            return x * factors[name]

        return nnx.merge(graphdef, params)(images, tap=tap)[0], tokens

    # Without optimisation it compiles in half the time.
    jitted = jax.jit(run, compiler_options={"xla_backend_optimization_level": 0})

    def by_tap(replaced=None):
        factors = {name: np.float32(FACTOR if name == replaced else 1) for name in LAYERS}
        return jax.device_get(jitted(params, factors))

    return by_tap


def close(got, expected):
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def test_every_layer_equals_a_forward_hook(ours, theirs, images):
    logits, tokens = ours()
    expected_logits, expected = by_hooks(theirs, images)
    assert set(expected) == set(tokens) == set(LAYERS)
    close(logits, expected_logits)
    for name in LAYERS:
        assert tokens[name].shape == expected[name].shape == (2, *MODEL.layer_shapes()[name])
        close(tokens[name], expected[name])


@pytest.mark.parametrize("replaced", LAYERS)
def test_a_replaced_layer_is_what_the_network_goes_on_with(replaced, ours, theirs, images):
    logits, tokens = ours(replaced)
    expected_logits, expected = by_hooks(theirs, images, replaced)
    close(logits, expected_logits)
    for name in LAYERS:
        close(tokens[name], expected[name])


def test_layers_are_listed_in_their_order_with_their_shapes():
    model = SwinConfig(
        image_size=48, num_classes=3, embed_dim=4, depths=(1, 3, 2), num_heads=(1, 1, 2), window=3
    )
    seen = {}

    def tap(name, x):
        assert name not in seen
        seen[name] = x.shape[1:]
        return x

    graphdef, params = abstract_swin(model)
    batch = jax.ShapeDtypeStruct((1, model.image_size, model.image_size, 3), jnp.float32)
    jax.eval_shape(lambda params, x: nnx.merge(graphdef, params)(x, tap=tap), params, batch)
    assert list(seen.items()) == list(model.layer_shapes().items())


def test_a_tap_takes_the_plain_path():
    """Whatever else is asked for, it is the program of a Swin without scan, remat and kernels."""
    model = SwinConfig(
        image_size=32, num_classes=3, embed_dim=8, depths=(6,), num_heads=(2,), window=4,
        drop_path=0.5,
    )  # fmt: skip
    shapes = abstract_swin(model)[1]
    images = jnp.zeros((8, 32, 32, 3))
    noise = jnp.zeros((8, model.num_drop_paths))

    def program(model, **options):
        graphdef = abstract_swin(model)[0]
        run = lambda params: nnx.merge(graphdef, params)(images, drop_path_noise=noise, **options)  # noqa: E731
        return str(jax.make_jaxpr(run)(shapes))

    plain = program(model)
    assert program(model, scan=True, tap=lambda name, x: x) == plain
    assert program(model, scan=True) != plain
    for changes in ({"remat": "blocks"}, {"kernels": KernelConfig(interpret=True)}):
        other = dataclasses.replace(model, **changes)
        assert program(other, tap=lambda name, x: x) == plain
        assert program(other) != plain


def test_features_of_a_layer(params, pixels, theirs, images, monkeypatch):
    """From pixels, also of more images than fit one batch; and as float32 whatever it is inside."""
    monkeypatch.setattr(classifier, "BATCH_SIZE", 2)
    model = Classifier(MODEL, params, (), "made", preprocessing=Preprocessing(112))
    _, expected = by_hooks(theirs, images)
    for layer in ("layers.1.blocks.1.norm1", "patch_embed"):
        got = model.features([pixels[0], pixels[1], pixels[0]], layer=layer)
        assert got.shape == (3, *model.layers[layer])
        close(got, expected[layer][[0, 1, 0]])
    narrow = dataclasses.replace(MODEL, dtype=jnp.bfloat16)
    run = make_layer_forward(narrow, Preprocessing.usual(narrow.image_size), "layers.0.blocks.0")
    assert jax.eval_shape(run, params, jnp.asarray(pixels)).dtype == jnp.float32


def test_a_wrong_layer_is_told_the_nearest(params, pixels):
    model = Classifier(MODEL, params, (), "made")
    with pytest.raises(ConfigError) as error:
        model.features(pixels[0], layer="layers.1.block.1.norm1")
    assert str(error.value).startswith(
        "The model has no layer 'layers.1.block.1.norm1'; the nearest names are "
        "layers.1.blocks.1.norm1, "
    )
    assert "`Classifier.layers` lists them all" in str(error.value)
    with pytest.raises(ConfigError, match="no layer 'x'; the nearest names are "):
        model.features(pixels[0], layer="x")
