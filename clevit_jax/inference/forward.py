"""Forward passes from pixels, with the normalisation inside: to logits, or to one layer."""

import difflib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from clevit_jax.errors import ConfigError
from clevit_jax.model.config import SwinConfig
from clevit_jax.model.swin import abstract_swin
from clevit_jax.views.transforms import normalize_images


def make_forward(model: SwinConfig) -> Callable[[Any, jax.Array], tuple[jax.Array, jax.Array]]:
    """(parameters, images uint8 [B, S, S, 3]) -> logits float32 [B, K], features float32 [B, C].

    The images are as `data.decode.decode_eval` makes them; the normalisation is inside.
    """
    graphdef = abstract_swin(model)[0]
    return lambda params, images: nnx.merge(graphdef, params)(normalize_images(images))


def make_layer_forward(model: SwinConfig, layer: str) -> Callable[[Any, jax.Array], jax.Array]:
    """(parameters, images uint8 [B, S, S, 3]) -> tokens of a layer, float32 [B, H, W, C].

    Args:
        model: the architecture.
        layer: one of `model.layer_shapes()`.

    Raises:
        ConfigError: the model has no such layer; with the nearest names.
    """
    layers = model.layer_shapes()
    if layer not in layers:
        near = difflib.get_close_matches(layer, layers, n=3, cutoff=0)
        raise ConfigError(
            f"The model has no layer {layer!r}; the nearest names are {', '.join(near)}; "
            "`Classifier.layers` lists them all with their shapes."
        )
    graphdef = abstract_swin(model)[0]

    def forward(params: Any, images: jax.Array) -> jax.Array:
        found = {}

        def tap(name: str, x: jax.Array) -> jax.Array:
            if name == layer:
                found[name] = x
            return x

        nnx.merge(graphdef, params)(normalize_images(images), tap=tap)
        return found[layer].astype(jnp.float32)

    return forward
