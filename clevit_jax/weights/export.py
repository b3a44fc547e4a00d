"""Export of weights to PyTorch libraries: files that they load strictly."""

import json
import pathlib

from clevit_jax.errors import WeightsError
from clevit_jax.weights import files
from clevit_jax.weights.convert import Weights, to_dialect
from clevit_jax.weights.converted import TENSORS, check_converted_target, replacing_folder
from clevit_jax.weights.hub_written import hub_files

WRITTEN_DIALECTS = ("microsoft", "timm", "huggingface", "openmmlab")
_WRAPPERS = {"microsoft": "model", "openmmlab": "state_dict"}  # in a .pth
_FIXED_WINDOWS = {"huggingface": "transformers", "openmmlab": "mmpretrain"}
PICKLE_SUFFIXES = (".pth", ".pt", ".bin")
FOLDER_FILES = {  # of the libraries that read folders, what is written into one
    "huggingface": (TENSORS, "config.json", "preprocessor_config.json"),
    "timm": (TENSORS, "config.json"),
}
FILE_SUFFIXES = (".safetensors", *PICKLE_SUFFIXES)
PROGRAM_SUFFIXES = (".stablehlo", ".onnx")  # of files that `inference.export` writes


def check_torch_target(target: pathlib.Path, dialect: str, *, overwrite: bool) -> None:
    """Raises WeightsError unless `write_torch_weights` would write there."""
    is_file = target.suffix.lower() in FILE_SUFFIXES
    if not is_file and dialect not in FOLDER_FILES:
        raise WeightsError(f"{target} must end in .safetensors (needs no torch) or .pth.")
    if not is_file:
        check_converted_target(target, overwrite=overwrite, holds=FOLDER_FILES[dialect])
    elif target.exists() and not overwrite:
        raise WeightsError(f"{target} is there; name another target, or replace it: --overwrite.")


def write_torch_weights(
    weights: Weights, target: str | pathlib.Path, dialect: str, *, overwrite: bool = False
) -> None:
    """Writes a state dict in the names of a library, whole or not at all.

    Args:
        weights: what to write.
        target: a `.safetensors` file, or a `.pth` file, for which torch is needed. For
            "huggingface" also a folder, for `SwinForImageClassification.from_pretrained`, or
            of headless weights for `SwinModel.from_pretrained`, and for "timm" one for
            `timm.create_model("local-dir:FOLDER", pretrained=True)`; these hold what a model does
            to an image, too.
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
        holds = FOLDER_FILES[dialect]
        with replacing_folder(target, overwrite=overwrite, holds=holds) as folder:
            files.write_safetensors(folder / TENSORS, tensors, {"format": "pt"})
            for name, content in hub_files(weights, dialect).items():
                text = json.dumps(content, indent=2) + "\n"
                (folder / name).write_text(text, encoding="utf-8")
