"""transformers' `config.json` and `preprocessor_config.json`, of versions 4 and 5 and before.

Source: transformers 5.23.0, `image_processing_backends.py` and the processors named here.
"""

from collections.abc import Mapping
from typing import Any

from clevit_jax.errors import WeightsError
from clevit_jax.kernels.arithmetic import LAYER_NORM_EPSILON
from clevit_jax.model.preprocessing import INTERPOLATIONS, Preprocessing
from clevit_jax.weights.hub_told import CONFIG, Told, names_of, pixels, refuse

_HALF = (0.5, 0.5, 0.5)
_CLIP = {
    "resample": 3,
    "size": {"shortest_edge": 224},
    "crop_size": 224,
    "do_center_crop": True,
    "image_mean": (0.48145466, 0.4578275, 0.40821073),
    "image_std": (0.26862954, 0.26130258, 0.27577711),
}
_VIT = {"resample": 2, "size": 224, "image_mean": _HALF, "image_std": _HALF}
# What each processor does where its file does not say.
_DEFAULTS: dict[str, dict[str, Any]] = {
    "ViT": _VIT,
    "DeiT": _VIT | {"resample": 3, "size": 256, "crop_size": 224, "do_center_crop": True},
    "CLIP": _CLIP,
    "Bit": _CLIP,
}
_BY_SHORTER_SIDE = ("CLIP", "Bit")  # those whose size is the shorter side's where it is one number
_GELU = ("gelu", "gelu_python")  # the same function


def is_own(config: Mapping[str, Any]) -> bool:
    """Whether a `config.json` is transformers'."""
    return isinstance(config.get("model_type"), str)


def told(config: Mapping[str, Any], processor: Mapping[str, Any] | None) -> Told:
    """What they say.

    Args:
        config: content of `config.json`.
        processor: that of `preprocessor_config.json`; None where there is none.

    Raises:
        WeightsError: an option that this network has not, by its name.
    """
    _refuse_options(config)
    size = pixels(config["image_size"], "image_size") if config.get("image_size") else None
    preprocessing = None
    read: tuple[str, ...] = (CONFIG,)
    if processor is not None:
        size, preprocessing = _preprocessing(processor)
        read += ("preprocessor_config.json",)
    names = names_of(config.get("id2label"))
    unnamed = names == tuple(f"LABEL_{number}" for number in range(len(names)))
    return Told("transformers", size, preprocessing, () if unnamed else names, read)


def _refuse_options(config: Mapping[str, Any]) -> None:
    act = config.get("hidden_act", "gelu")
    if act not in _GELU:
        raise refuse("hidden_act", act, "this network has gelu")
    epsilon = config.get("layer_norm_eps", LAYER_NORM_EPSILON)
    if epsilon != LAYER_NORM_EPSILON:
        raise refuse("layer_norm_eps", epsilon, f"this network has {LAYER_NORM_EPSILON}")
    if config.get("use_absolute_embeddings"):
        raise refuse("use_absolute_embeddings", True, "this network has no such embeddings")


def _kind(processor: Mapping[str, Any]) -> str:
    """`ViT` for ViTImageProcessor, ViTImageProcessorFast, ViTFeatureExtractor."""
    name = processor.get("image_processor_type") or processor.get("feature_extractor_type")
    kind = str(name or "ViTImageProcessor")
    for end in ("Pil", "Fast", "ImageProcessor", "FeatureExtractor"):
        kind = kind.removesuffix(end)
    if kind not in _DEFAULTS:
        known = ", ".join(f"{name}ImageProcessor" for name in _DEFAULTS)
        raise refuse("image_processor_type", name, f"it is none of {known}")
    return kind


def _preprocessing(processor: Mapping[str, Any]) -> tuple[int, Preprocessing]:
    """The size of what the network is given, and how it comes about."""
    kind = _kind(processor)
    given = {**_DEFAULTS[kind], **{k: v for k, v in processor.items() if v is not None}}
    for name, wanted in {"do_resize": True, "do_pad": False}.items():
        if given.get(name, wanted) is not wanted:
            raise refuse(name, given[name], "images of any size are resized here")
    size, shorter = given["size"], False
    if isinstance(size, dict) and "shortest_edge" in size:
        if size.get("longest_edge"):
            raise refuse("size.longest_edge", size["longest_edge"], "the shorter side decides here")
        size, shorter = size["shortest_edge"], True
    elif isinstance(size, int) and kind in _BY_SHORTER_SIDE:
        shorter = True
    resize = pixels(size, "size")
    crop = pixels(given["crop_size"], "crop_size") if given.get("do_center_crop") else resize
    if crop > resize:
        raise refuse("crop_size", crop, f"images are resized to {resize} px and never padded here")
    if shorter and not given.get("do_center_crop"):
        raise refuse("do_center_crop", False, "images must be square here")
    mean, std = _colours(given)
    resample = given["resample"]
    if type(resample) is not int or not 0 <= resample < len(INTERPOLATIONS):
        raise refuse("resample", resample, f"Pillow's filters are 0 to {len(INTERPOLATIONS) - 1}")
    try:
        return crop, Preprocessing(
            resize,
            squash=not shorter,
            interpolation=INTERPOLATIONS[resample],
            corner="floor",
            mean=mean,
            std=std,
        )
    except ValueError as error:
        raise WeightsError(f"preprocessor_config.json: {error}") from error


def _colours(given: Mapping[str, Any]) -> tuple[Any, Any]:
    """Mean and std for pixels in 0..1, whatever range the processor rescales them to."""
    mean, std = (
        [given[name]] * 3 if isinstance(given[name], int | float) else given[name]
        for name in ("image_mean", "image_std")
    )
    if given.get("do_normalize") is False:
        mean, std = [0.0] * 3, [1.0] * 3
    factor = 1.0 if given.get("do_rescale") is False else given.get("rescale_factor", 1 / 255)
    if isinstance(factor, bool) or not isinstance(factor, int | float) or factor <= 0:
        raise refuse("rescale_factor", factor, "it must be a number above 0")
    largest = factor * 255  # (x * largest - mean) / std for x in 0..1
    if abs(largest - 1) > 1e-6:
        mean, std = ([value / largest for value in values] for values in (mean, std))
    return mean, std
