"""timm's `config.json`, as `timm.models.push_to_hf_hub` and `save_for_hf` write it.

Source: timm 1.0.31, `data/config.py`, `data/transforms_factory.py` (`transforms_imagenet_eval`).
"""

import math
from collections.abc import Mapping
from typing import Any

from clevit_jax.errors import WeightsError
from clevit_jax.model.config import MLP_RATIO, PATCH
from clevit_jax.model.preprocessing import IMAGENET_MEAN, IMAGENET_STD, Preprocessing
from clevit_jax.weights.hub_told import CONFIG, Told, names_of, pixels, refuse

CROP_PCT = 0.875  # timm's own where the file has none
_CROP_MODES = ("center", "squash")
# Arguments of timm's Swin that are told from the tensors, or change no answer.
_TOLD = {
    *("img_size", "window_size", "embed_dim", "depths", "num_heads", "num_classes", "in_chans"),
    *("qkv_bias", "head_dim", "drop_rate", "proj_drop_rate", "attn_drop_rate", "drop_path_rate"),
    *("strict_img_size", "weight_init", "pretrained", "features_only"),
}
_FIXED = {"patch_size": PATCH, "mlp_ratio": MLP_RATIO, "global_pool": "avg"}


def is_own(config: Mapping[str, Any]) -> bool:
    """Whether a `config.json` is timm's."""
    return isinstance(config.get("architecture"), str)


def told(config: Mapping[str, Any]) -> Told:
    """What it says; older ones have all in one level.

    Raises:
        WeightsError: an option that this network has not, by its name.
    """
    given = config.get("pretrained_cfg", config)
    if not isinstance(given, dict):
        raise WeightsError(f"{CONFIG} is damaged: its pretrained_cfg holds no names with values.")
    _refuse_options(config)
    size = _size(config, given)
    preprocessing, notes = _preprocessing(given, size or 224)
    names = (
        names_of(where.get(name)) for where in (config, given) for name in ("label_names", "labels")
    )
    return Told(
        library="timm",
        image_size=size,
        preprocessing=preprocessing,
        class_names=next(filter(None, names), ()),
        read=(CONFIG,),
        notes=notes,
    )


def _refuse_options(config: Mapping[str, Any]) -> None:
    pool = config.get("global_pool") or "avg"
    if pool != "avg":
        raise refuse("global_pool", pool, "this network takes the mean of the last tokens")
    options = config.get("model_args") or {}
    if not isinstance(options, dict):
        raise WeightsError(f"{CONFIG} is damaged: its model_args holds no names with values.")
    for name, value in options.items():
        fixed = _FIXED.get(name)
        if name not in _TOLD and value not in (None, False, fixed):
            raise refuse(f"model_args.{name}", value, "this network has no such option")


def _size(config: Mapping[str, Any], given: Mapping[str, Any]) -> int | None:
    built = (config.get("model_args") or {}).get("img_size")
    if built is not None and given.get("fixed_input_size"):
        return pixels(built, "model_args.img_size")
    size = given.get("input_size")
    if size is None:
        return None
    if not isinstance(size, list) or len(size) != 3:
        raise WeightsError(
            f"{CONFIG} is damaged: its input_size must be [channels, height, width]."
        )
    return pixels(size[1:], "input_size")


def _preprocessing(
    given: Mapping[str, Any], size: int
) -> tuple[Preprocessing | None, tuple[str, ...]]:
    mode = given.get("crop_mode") or "center"
    if mode not in _CROP_MODES:
        raise refuse("crop_mode", mode, "images are cropped (center) or resized whole (squash)")
    share = given.get("crop_pct") or CROP_PCT
    if not isinstance(share, int | float) or not 0 < share <= 1:
        raise refuse("crop_pct", share, "a crop is at most the whole image")
    mean = _three(given.get("mean") or IMAGENET_MEAN)
    std = _three(given.get("std") or IMAGENET_STD)
    if len(mean) != 3 or len(std) != 3:
        return None, (f"its mean and std are of {len(mean)} channels, and are left out",)
    try:
        return Preprocessing(
            math.floor(size / share),
            squash=mode == "squash",
            interpolation=given.get("interpolation") or "bicubic",
            mean=mean,
            std=std,
        ), ()
    except ValueError as error:
        raise WeightsError(f"{CONFIG}: {error}") from error


def _three(values: Any) -> Any:
    """A mean or deviation; one of a single channel counts for all."""
    return [values[0]] * 3 if isinstance(values, list | tuple) and len(values) == 1 else values
