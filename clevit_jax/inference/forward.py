"""The forward pass as it is served: from pixels, with the normalisation inside."""

from collections.abc import Callable
from typing import Any

import jax
from flax import nnx

from clevit_jax.model.config import SwinConfig
from clevit_jax.model.swin import abstract_swin
from clevit_jax.views.transforms import normalize_images


def make_forward(model: SwinConfig) -> Callable[[Any, jax.Array], tuple[jax.Array, jax.Array]]:
    """(parameters, images uint8 [B, S, S, 3]) -> logits float32 [B, K], features float32 [B, C].

    The images are as `data.decode.decode_eval` makes them; the normalisation is inside.
    """
    graphdef = abstract_swin(model)[0]
    return lambda params, images: nnx.merge(graphdef, params)(normalize_images(images))
