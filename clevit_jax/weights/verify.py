"""Verification of weights against PyTorch: the same Swin in the library that they come from.

timm, transformers or torchvision build the network and read the weights; whichever of them is
installed will do. Nothing is downloaded.
"""

import dataclasses
import os
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from clevit_jax.errors import WeightsError
from clevit_jax.model.config import MLP_RATIO, PATCH, SwinConfig
from clevit_jax.model.swin import abstract_swin
from clevit_jax.system.logging import quiet
from clevit_jax.weights import dialects, files
from clevit_jax.weights.convert import Weights, to_official
from clevit_jax.weights.export import hugging_face_config

TOLERANCE = 1e-4  # of the largest absolute value

# The library that reads a dialect with code of its own, and the dialect that it is written to.
_READS = {
    "microsoft": "timm",
    "timm<0.9": "timm",
    "timm": "timm",
    "huggingface": "transformers",
    "torchvision": "torchvision",
}
_WRITTEN = {"timm": "timm", "transformers": "huggingface", "torchvision": "torchvision"}

# torch tensor [B, 3, S, S] -> logits [B, K], features [B, C]
_Forward = Callable[[Any], tuple[Any, Any]]


@dataclasses.dataclass(frozen=True)
class TorchSwin:
    """A Swin of a PyTorch library, in float32 on the CPU and in evaluation mode.

    Attributes:
        module: the library's own, with the weights in it.
        library: with its version, `timm 1.0.31`.
    """

    module: Any
    library: str
    forward: _Forward

    def __call__(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Float32 [B, S, S, 3] -> logits float32 [B, K] and features float32 [B, C]."""
        import torch

        nchw = torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))
        with torch.inference_mode(), quiet():
            logits, features = self.forward(nchw)
        return logits.numpy(), features.numpy()


@dataclasses.dataclass(frozen=True)
class Verification:
    """The differences between the answers of PyTorch and ours.

    Attributes:
        library: with its version, `timm 1.0.31`.
        names: who gave the tensors their names in that library.
        image_size: pixels per side of the image that both were given.
        differences: `logits` and `features` -> largest absolute difference, and largest absolute
            value in PyTorch.
    """

    library: str
    names: str
    image_size: int
    differences: Mapping[str, tuple[float, float]]

    @property
    def ok(self) -> bool:
        """Whether no difference is over `TOLERANCE` of the largest value, or is NaN."""
        return all(apart <= TOLERANCE * largest for apart, largest in self.differences.values())

    def __str__(self) -> str:
        shown = ", of ".join(
            f"{what} {apart:.1e} (of {largest:.3g})"
            for what, (apart, largest) in self.differences.items()
        )
        return (
            f"{'Verified with' if self.ok else 'DIFFERENT from'} {self.library} ({self.names}), "
            f"1 random image of {self.image_size} px: largest difference of {shown}."
        )


def verify(weights: Weights, source: str | os.PathLike[str], *, seed: int = 0) -> Verification:
    """Runs one random image through the original in PyTorch and through ours, on the CPU.

    The original is, where that can be, the file itself in the library of its dialect, which reads
    it without our name tables (timm also reads Microsoft's names); else the file's tensors under
    the names that our tables give them in a library that is installed. For weights of a run, of a
    converted checkpoint, or with another head than their file has, the parameters themselves.

    Args:
        weights: to check; the image has their image size.
        source: the file that they were read from, or the folder.
        seed: of the image, float32 from the standard normal distribution.

    Raises:
        WeightsError: none of the libraries is installed, or none can hold this network.
    """
    tensors = _file_tensors(weights, pathlib.Path(source))
    original, names = _read_by_its_library(weights, tensors) or _by_our_table(weights, tensors)
    del tensors
    size = weights.model.image_size
    images = np.random.RandomState(seed).standard_normal((1, size, size, 3)).astype(np.float32)
    wanted = original(images)
    library = original.library
    del original  # the memory is wanted below
    ours = _run_on_cpu(weights, images)
    differences = {
        what: (float(np.abs(a - b).max()), float(np.abs(b).max()))
        for what, a, b in zip(("logits", "features"), ours, wanted, strict=True)
    }
    return Verification(library, names, size, differences)


def _run_on_cpu(weights: Weights, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Logits [B, K] and features [B, C] of our own network, plain and in float32."""
    model = dataclasses.replace(weights.model, dtype=jnp.float32, remat="none", kernels=None)
    graphdef = abstract_swin(model)[0]
    params = jax.device_get(weights.params)
    with jax.default_device(jax.devices("cpu")[0]):
        forward = jax.jit(lambda params, images: nnx.merge(graphdef, params)(images))
        return jax.device_get(forward(params, images))


def build_torch_swin(weights: Weights, library: str) -> TorchSwin:
    """The network of `weights` in a PyTorch library, every tensor loaded strictly.

    Args:
        weights: any; they are given the library's names by `dialects`.
        library: "timm" (0.9 or newer), "transformers" or "torchvision".

    Raises:
        WeightsError: it is not installed, or cannot hold this network; transformers and
            torchvision have no window that shrinks to the grid of a stage.
    """
    return _build_by_table(weights.model, to_official(weights.params), library)


def _build_by_table(
    model: SwinConfig, official: Mapping[str, np.ndarray], library: str
) -> TorchSwin:
    if reason := _import_error(library):
        raise WeightsError(f"{library} cannot be imported ({reason}); install it with PyTorch.")
    return _build(library, model, dialects.from_official_names(official, _WRITTEN[library]))


def _file_tensors(weights: Weights, source: pathlib.Path) -> dict[str, np.ndarray] | None:
    """The tensors of another library's file, under its names; None where there is none."""
    changed = weights.report.mapped or weights.report.resized or weights.report.reinitialised
    if changed or weights.dialect not in _READS or not source.is_file():
        return None
    return files.read_weight_file(source).tensors


def _read_by_its_library(
    weights: Weights, tensors: Mapping[str, np.ndarray] | None
) -> tuple[TorchSwin, str] | None:
    """None where the library of the file's dialect is not there or does not know the names."""
    library = _READS.get(weights.dialect, "")
    if tensors is None or _import_error(library):
        return None
    try:
        return _build(library, weights.model, tensors), f"names read by {library} itself"
    except WeightsError:
        return None


def _by_our_table(
    weights: Weights, tensors: Mapping[str, np.ndarray] | None
) -> tuple[TorchSwin, str]:
    """The file's tensors, or the parameters where there is no file, in any library there is."""
    official = (
        to_official(weights.params)
        if tensors is None
        else dialects.to_official_names(tensors, weights.dialect)[0]
    )
    refusals = []
    for library in _WRITTEN:
        try:
            return _build_by_table(weights.model, official, library), "names by our own table"
        except WeightsError as error:
            refusals.append(str(error))
    raise WeightsError(
        "--verify needs PyTorch and a library whose Swin can hold these weights; install "
        f"them: pip install 'clevit_jax[convert]' timm (or transformers). {' '.join(refusals)}"
    )


def _import_error(library: str) -> str:
    """Why a library cannot be used; empty where it can."""
    # Any exception: torchvision raises a RuntimeError beside a torch that it was not built for.
    try:
        with quiet():
            import torch  # noqa: F401

            if library == "timm":
                from timm.models import clean_state_dict  # noqa: F401  # since 0.9
            elif library == "transformers":
                from transformers import SwinForImageClassification  # noqa: F401
            else:
                from torchvision.models.swin_transformer import SwinTransformer  # noqa: F401
    except Exception as error:
        return " ".join(str(error).split())[:100] or type(error).__name__
    return ""


def _build(library: str, model: SwinConfig, tensors: Mapping[str, np.ndarray]) -> TorchSwin:
    """Raises WeightsError unless these tensors are all the parameters of the library's model."""
    import torch

    make = {"timm": _timm, "transformers": _transformers, "torchvision": _torchvision}[library]
    with quiet():
        # float32 of all, for transformers makes a half-precision model of half-precision weights.
        state = {
            name: torch.from_numpy(np.array(x if x.dtype.kind in "iub" else x.astype(np.float32)))
            for name, x in tensors.items()
        }
        try:
            module, version, forward = make(model, state)
        except (RuntimeError, ValueError, LookupError, AttributeError) as error:
            text = " ".join(str(error).split())[:300]
            raise WeightsError(f"{library} does not load them: {text}") from error
        return TorchSwin(module.eval(), f"{library} {version}", forward)


def _stored_buffers(module: Any) -> dict[str, Any]:
    """The index and mask tables that a new module stores: some versions do, for one image size."""
    stored = module.state_dict()
    return {name: stored[name] for name, _ in module.named_buffers() if name in stored}


def _timm(model: SwinConfig, state: dict[str, Any]) -> tuple[Any, str, _Forward]:
    import timm
    from timm.models import clean_state_dict
    from timm.models.swin_transformer import SwinTransformer, checkpoint_filter_fn

    module = SwinTransformer(
        img_size=model.image_size,
        num_classes=model.num_classes,
        embed_dim=model.embed_dim,
        depths=model.depths,
        num_heads=model.num_heads,
        window_size=model.window,
        mlp_ratio=float(MLP_RATIO),
        weight_init="skip",
    )
    state = checkpoint_filter_fn(clean_state_dict(state), module)
    module.load_state_dict(state | _stored_buffers(module), strict=True)

    def forward(images: Any) -> tuple[Any, Any]:
        tokens = module.forward_features(images)  # [B, H, W, C]
        return module.forward_head(tokens), module.forward_head(tokens, pre_logits=True)

    return module, timm.__version__, forward


def _transformers(model: SwinConfig, state: dict[str, Any]) -> tuple[Any, str, _Forward]:
    import transformers

    config = transformers.SwinConfig.from_dict(hugging_face_config(model))
    buffers = _stored_buffers(transformers.SwinForImageClassification(config))
    bars = transformers.utils.logging.is_progress_bar_enabled()
    transformers.utils.logging.disable_progress_bar()
    try:
        # Unlike load_state_dict, this knows the names of older versions. What does not fit is
        # in the loading info, not in an error without names.
        loaded: Any = transformers.SwinForImageClassification.from_pretrained(
            None,
            config=config,
            state_dict=state | buffers,
            output_loading_info=True,
            ignore_mismatched_sizes=True,
        )
    finally:
        if bars:
            transformers.utils.logging.enable_progress_bar()
    module, loading_info = loaded
    problems = {kind: names for kind, names in loading_info.items() if names}
    if problems:
        raise ValueError(str(problems))

    def forward(images: Any) -> tuple[Any, Any]:
        features = module.swin(images).pooler_output
        return module.classifier(features), features

    return module, transformers.__version__, forward


def _torchvision(model: SwinConfig, state: dict[str, Any]) -> tuple[Any, str, _Forward]:
    import torch
    import torchvision
    from torchvision.models.swin_transformer import SwinTransformer

    module = SwinTransformer(
        patch_size=[PATCH] * 2,
        embed_dim=model.embed_dim,
        depths=list(model.depths),
        num_heads=list(model.num_heads),
        window_size=[model.window] * 2,
        mlp_ratio=float(MLP_RATIO),
        num_classes=model.num_classes,
    )
    module.load_state_dict(state | _stored_buffers(module), strict=True)

    def forward(images: Any) -> tuple[Any, Any]:
        tokens = module.norm(module.features(images))  # [B, H, W, C]
        features = torch.flatten(module.avgpool(module.permute(tokens)), 1)
        return module.head(features), features

    return module, torchvision.__version__, forward
