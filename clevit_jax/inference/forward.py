"""Forward passes from uint8 pixels to logits and features, or to the tokens of one layer.

The normalisation is inside. Batches are padded to few sizes, for each is compiled.
"""

import difflib
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from clevit_jax.errors import ConfigError
from clevit_jax.model.config import SwinConfig
from clevit_jax.model.preprocessing import Preprocessing
from clevit_jax.model.swin import abstract_swin
from clevit_jax.views.transforms import normalize_images


def make_forward(
    model: SwinConfig, preprocessing: Preprocessing
) -> Callable[[Any, jax.Array], tuple[jax.Array, jax.Array]]:
    """The forward pass of a model, from pixels to logits and features; for `jax.jit`.

    Args:
        model: the architecture.
        preprocessing: whose mean and std normalise the pixels.

    Returns:
        (parameters, images uint8 [B, S, S, 3]) -> logits float32 [B, K], features float32 [B, C].
        The images are as `data.decode.centre_crop` makes them.
    """
    graphdef, normalized = abstract_swin(model)[0], normalizer(preprocessing)
    return lambda params, images: nnx.merge(graphdef, params)(normalized(images))


def normalizer(preprocessing: Preprocessing) -> Callable[[jax.Array], jax.Array]:
    """`normalize_images` by the mean and std of a model."""
    return functools.partial(normalize_images, mean=preprocessing.mean, std=preprocessing.std)


def make_layer_forward(
    model: SwinConfig, preprocessing: Preprocessing, layer: str
) -> Callable[[Any, jax.Array], jax.Array]:
    """The forward pass of a model, from pixels to the tokens of one layer; for `jax.jit`.

    Args:
        model: the architecture.
        preprocessing: whose mean and std normalise the pixels.
        layer: a name in `model.layer_shapes()`.

    Returns:
        (parameters, images uint8 [B, S, S, 3]) -> tokens float32 [B, H, W, C].

    Raises:
        ConfigError: the model has no such layer; the message names the nearest ones.
    """
    layers = model.layer_shapes()
    if layer not in layers:
        near = difflib.get_close_matches(layer, layers, n=3, cutoff=0)
        raise ConfigError(
            f"The model has no layer {layer!r}; the nearest names are {', '.join(near)}. "
            "`Classifier.layers` lists them all with their shapes."
        )
    graphdef, normalized = abstract_swin(model)[0], normalizer(preprocessing)

    def forward(params: Any, images: jax.Array) -> jax.Array:
        tapped = {}

        def tap(name: str, x: jax.Array) -> jax.Array:
            if name == layer:
                tapped[name] = x
            return x

        nnx.merge(graphdef, params)(normalized(images), tap=tap)
        return tapped[layer].astype(jnp.float32)

    return forward


def padded(rows: np.ndarray, size: int = 0, *, devices: int) -> np.ndarray:
    """Rows with zeros after them, so that few sizes are compiled and the devices share them.

    Args:
        rows: [B, ...].
        size: wanted number of rows; if below B, a power of two times `devices`.
        devices: the result has a multiple of these.
    """
    if size < len(rows):
        size = devices
        while size < len(rows):
            size *= 2
    size = -(-size // devices) * devices
    return np.concatenate([rows, np.zeros_like(rows, shape=(size - len(rows), *rows.shape[1:]))])
