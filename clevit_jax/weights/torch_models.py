"""The Swin of each PyTorch library that is installed, with given weights in it.

timm, transformers, torchvision and mmpretrain are imported here alone, and only when they are asked
for. Nothing is downloaded.
"""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from clevit_jax.errors import WeightsError
from clevit_jax.model.config import MLP_RATIO, PATCH, SwinConfig
from clevit_jax.system.logging import quiet
from clevit_jax.weights.hub_written import hugging_face_config

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


def import_error(library: str) -> str:
    """Why a library cannot be used; empty where it can."""
    # Any exception: torchvision raises a RuntimeError beside a torch that it was not built for.
    try:
        with quiet():
            import torch  # noqa: F401

            if library == "timm":
                from timm.models import clean_state_dict  # noqa: F401  # since 0.9
            elif library == "transformers":
                from transformers import SwinForImageClassification  # noqa: F401
            elif library == "mmpretrain":
                from mmpretrain.models import ImageClassifier  # noqa: F401
            else:
                from torchvision.models.swin_transformer import SwinTransformer  # noqa: F401
    except Exception as error:
        return " ".join(str(error).split())[:100] or type(error).__name__
    return ""


def build(library: str, model: SwinConfig, tensors: Mapping[str, np.ndarray]) -> TorchSwin:
    """The network of a library with weights in it.

    Args:
        library: one for which `import_error` is empty.
        model: the architecture.
        tensors: name in the library -> array in its layout.

    Raises:
        WeightsError: unless these tensors are all the parameters of the library's model.
    """
    import torch

    make = {
        "timm": _timm,
        "transformers": _transformers,
        "torchvision": _torchvision,
        "mmpretrain": _mmpretrain,
    }[library]
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


@contextlib.contextmanager
def without_bars(transformers: Any) -> Iterator[None]:
    """Nothing that transformers loads meanwhile draws a progress bar."""
    bars = transformers.utils.logging.is_progress_bar_enabled()
    transformers.utils.logging.disable_progress_bar()
    try:
        yield
    finally:
        if bars:
            transformers.utils.logging.enable_progress_bar()


def _transformers(model: SwinConfig, state: dict[str, Any]) -> tuple[Any, str, _Forward]:
    import transformers

    config = transformers.SwinConfig.from_dict(hugging_face_config(model))
    buffers = _stored_buffers(transformers.SwinForImageClassification(config))
    with without_bars(transformers):
        # Unlike load_state_dict, this knows the names of older versions. What does not fit is
        # in the loading info, not in an error without names.
        loaded: Any = transformers.SwinForImageClassification.from_pretrained(
            None,
            config=config,
            state_dict=state | buffers,
            output_loading_info=True,
            ignore_mismatched_sizes=True,
        )
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


def _mmpretrain(model: SwinConfig, state: dict[str, Any]) -> tuple[Any, str, _Forward]:
    import mmpretrain
    from mmpretrain.models import ImageClassifier

    last = len(model.depths) - 1
    if model.grid(last) < model.window:
        raise ValueError("its windows do not shrink to the grid of a stage")
    module = ImageClassifier(
        backbone={
            "type": "SwinTransformer",
            "arch": {
                "embed_dims": model.embed_dim,
                "depths": list(model.depths),
                "num_heads": list(model.num_heads),
            },
            "img_size": model.image_size,
            "window_size": model.window,
            "out_indices": (last,),
        },
        neck={"type": "GlobalAveragePooling"},
        head={
            "type": "LinearClsHead",
            "num_classes": model.num_classes,
            "in_channels": model.channels(-1),
        },
    )
    module.load_state_dict(state | _stored_buffers(module), strict=True)

    def forward(images: Any) -> tuple[Any, Any]:
        features = module.extract_feat(images)[-1]
        return module.head.fc(features), features

    return module, mmpretrain.__version__, forward
