"""Export of weights to PyTorch libraries: files that they load strictly."""

import json
import pathlib
from typing import Any

from clevit_jax.errors import WeightsError
from clevit_jax.kernels.arithmetic import LAYER_NORM_EPSILON
from clevit_jax.model.config import MLP_RATIO, PATCH, SwinConfig
from clevit_jax.weights import files
from clevit_jax.weights.convert import Weights, to_dialect
from clevit_jax.weights.converted import check_converted_target, replacing_folder

WRITTEN_DIALECTS = ("microsoft", "timm", "huggingface", "openmmlab")
_WRAPPERS = {"microsoft": "model", "openmmlab": "state_dict"}  # in a .pth
_FIXED_WINDOWS = {"huggingface": "transformers", "openmmlab": "mmpretrain"}
PICKLE_SUFFIXES = (".pth", ".pt", ".bin")
FILE_SUFFIXES = (".safetensors", *PICKLE_SUFFIXES)
PROGRAM_SUFFIXES = (".stablehlo", ".onnx")  # of files that `inference.export` writes


def check_torch_target(target: pathlib.Path, dialect: str, *, overwrite: bool) -> None:
    """Raises WeightsError unless `write_torch_weights` would write there."""
    is_file = target.suffix.lower() in FILE_SUFFIXES
    if not is_file and dialect != "huggingface":
        raise WeightsError(f"{target} must end in .safetensors (needs no torch) or .pth.")
    if not is_file:
        check_converted_target(target, overwrite=overwrite, holds=HUGGING_FACE_FILES)
    elif target.exists() and not overwrite:
        raise WeightsError(f"{target} is there; name another target, or replace it: --overwrite.")


HUGGING_FACE_FILES = ("model.safetensors", "config.json")


def write_torch_weights(
    weights: Weights, target: str | pathlib.Path, dialect: str, *, overwrite: bool = False
) -> None:
    """Writes a state dict in the names of a library, whole or not at all.

    Args:
        weights: what to write.
        target: a `.safetensors` file, or a `.pth` file, for which torch is needed. For
            "huggingface" also a folder, for `SwinForImageClassification.from_pretrained`, or
            of headless weights for `SwinModel.from_pretrained`.
        dialect: one of `WRITTEN_DIALECTS`; "microsoft" is wrapped in `model` in a `.pth`, and
            holds the masks for the image size of `weights`; "openmmlab" in `state_dict`.
        overwrite: replaces what is there.

    Raises:
        WeightsError: the target is there or cannot be written, or torch is missing.
    """
    target = pathlib.Path(target)
    check_torch_target(target, dialect, overwrite=overwrite)
    model = weights.model
    if dialect in _FIXED_WINDOWS and model.grid(len(model.depths) - 1) < model.window:
        raise WeightsError(
            f"{weights.source} has windows that shrink to the last grid at {model.image_size} "
            f"pixels, and {_FIXED_WINDOWS[dialect]} can load no such network; write for microsoft "
            "or timm."
        )
    tensors = to_dialect(weights, dialect)
    suffix = target.suffix.lower()
    if suffix in PICKLE_SUFFIXES:
        wrapper = _WRAPPERS.get(dialect, "")
        files.write_pth(target, tensors, wrapper=wrapper, overwrite=overwrite)
    elif suffix in FILE_SUFFIXES:
        # "pt" is what transformers asks for.
        metadata = {"format": "pt"}
        files.write_safetensors(target, tensors, metadata, overwrite=overwrite)
    else:
        with replacing_folder(target, overwrite=overwrite, holds=HUGGING_FACE_FILES) as folder:
            files.write_safetensors(folder / HUGGING_FACE_FILES[0], tensors, {"format": "pt"})
            config = hugging_face_config(model, weights.class_names, headless=weights.headless)
            text = json.dumps(config, indent=2) + "\n"
            (folder / HUGGING_FACE_FILES[1]).write_text(text, encoding="utf-8")


def hugging_face_config(
    model: SwinConfig, class_names: tuple[str, ...] = (), *, headless: bool = False
) -> dict[str, Any]:
    """The `config.json` of transformers' `SwinForImageClassification` for an architecture.

    Of a headless one that of `SwinModel`, without classes.
    """
    names = class_names or tuple(f"LABEL_{index}" for index in range(model.num_classes))
    classes = {
        "id2label": {str(index): name for index, name in enumerate(names)},
        "label2id": {name: index for index, name in enumerate(names)},
    }
    return {
        "architectures": ["SwinModel" if headless else "SwinForImageClassification"],
        "model_type": "swin",
        "image_size": model.image_size,
        "patch_size": PATCH,
        "num_channels": 3,
        "embed_dim": model.embed_dim,
        "depths": list(model.depths),
        "num_heads": list(model.num_heads),
        "window_size": model.window,
        "mlp_ratio": float(MLP_RATIO),
        "qkv_bias": True,
        "hidden_act": "gelu",
        "layer_norm_eps": LAYER_NORM_EPSILON,
        "use_absolute_embeddings": False,
        **({} if headless else classes),
    }
