"""A trained Swin as a user holds it: images in, logits and features out."""

import dataclasses
import pathlib
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from clevit_jax.pretrained import fit
from clevit_jax.swin import DTYPES, SwinConfig, abstract_swin


class Classifier:
    """A Swin and its parameters, compiled once for each batch size.

    Attributes:
        model: the architecture; `model.image_size` is the side of the images it takes.
        class_names: of the columns of the logits; () where they are not known.
        source: the file or the run that the parameters come from.
    """

    def __init__(
        self, model: SwinConfig, params: Any, class_names: tuple[str, ...], source: str
    ) -> None:
        self.model, self.class_names, self.source = model, class_names, source
        self._params = jax.device_put(params)
        graphdef = abstract_swin(model)[0]
        self._apply = jax.jit(lambda params, images: nnx.merge(graphdef, params)(images))

    def __call__(self, images: jax.typing.ArrayLike) -> tuple[jax.Array, jax.Array]:
        """Classifies images.

        Args:
            images: float32 [B, S, S, 3], S = `model.image_size`, RGB in [0, 1] less the ImageNet
                mean (0.485, 0.456, 0.406), over its deviation (0.229, 0.224, 0.225).

        Returns:
            logits float32 [B, K] and features float32 [B, C], the mean over the last tokens.

        Raises:
            ValueError: images of another shape or dtype.
        """
        size = self.model.image_size
        images = images if isinstance(images, jax.Array) else np.asarray(images)
        right = images.ndim == 4 and images.shape[1:] == (size, size, 3) and len(images) > 0
        if images.dtype != np.float32 or not right:
            raise ValueError(
                f"{self.source} takes normalised images, float32 [B, {size}, {size}, 3], not "
                f"{images.dtype} {list(images.shape)}; clevit_jax.load(..., image_size=S) takes "
                "another size."
            )
        return self._apply(self._params, jnp.asarray(images))

    @property
    def params(self) -> Any:
        """The parameters, nested dict of float32 arrays as `swin.abstract_swin` shapes it."""
        return self._params

    def __repr__(self) -> str:
        return f"Classifier({self.source!r}, {self.model})"


def load(
    path: str | pathlib.Path,
    *,
    checkpoint: Literal["last", "best"] = "last",
    image_size: int | None = None,
    dtype: str = "float32",
) -> Classifier:
    """Loads a trained Swin.

    Args:
        path: a workdir, a converted checkpoint, or a `.pth` or `.safetensors` file; see
            `trained.read`.
        checkpoint: of a workdir, "last" or "best" (of its scores on the test set).
        image_size: pixels a side; by default that of the run, or of the file. Another one needs no
            training, but the accuracy at it is another too.
        dtype: of activations, "float32" or "bfloat16".

    Raises:
        WeightsError, CheckpointError, ConfigError: in one sentence that names the file.
        ValueError: an image size that the windows do not divide, or an unknown dtype.
    """
    # Here, since what reads runs (orbax, grain) would add half a second to every import.
    from clevit_jax import trained

    if dtype not in DTYPES:
        raise ValueError(f"dtype is {dtype!r}; choose of {', '.join(DTYPES)}.")
    if image_size is not None and (type(image_size) is not int or image_size < 1):
        raise ValueError(f"image_size is {image_size!r}; it must be a number of pixels.")
    if checkpoint not in ("last", "best"):
        raise ValueError(f"checkpoint is {checkpoint!r}; choose of last, best.")
    weights = trained.read(path, checkpoint=checkpoint)
    model = dataclasses.replace(
        weights.model,
        image_size=weights.model.image_size if image_size is None else image_size,
        dtype=DTYPES[dtype],
    )
    return Classifier(model, fit(weights, model)[0], weights.class_names, weights.source)
