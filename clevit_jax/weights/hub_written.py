"""The JSON beside weights that is written, for timm and transformers to read."""

import math
from typing import Any

from clevit_jax.kernels.arithmetic import LAYER_NORM_EPSILON
from clevit_jax.model.config import MLP_RATIO, PATCH, VARIANTS, SwinConfig
from clevit_jax.model.preprocessing import INTERPOLATIONS, Preprocessing
from clevit_jax.weights.convert import Weights


def hub_files(weights: Weights, dialect: str) -> dict[str, dict[str, Any]]:
    """The JSON of a folder of "huggingface" or "timm": name of the file -> content.

    Where nobody says how images are prepared, it is what this library assumes.
    """
    given = weights.preprocessing or Preprocessing.usual(weights.model.image_size)
    if dialect == "timm":
        return {"config.json": timm_config(weights, given)}
    return {
        "config.json": hugging_face_config(
            weights.model, weights.class_names, headless=weights.headless
        ),
        "preprocessor_config.json": hugging_face_processor(given, weights.model.image_size),
    }


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


def hugging_face_processor(given: Preprocessing, size: int) -> dict[str, Any]:
    """A `preprocessor_config.json`, of a processor that transformers 4 and 5 have.

    transformers begins a crop one pixel earlier than `Preprocessing.corner` "even" where half a
    pixel is left; it has no option for that.
    """
    square = {"height": given.resize, "width": given.resize}
    if not given.squash:
        kind, resize = "CLIP", {"shortest_edge": given.resize}
    else:
        kind, resize = ("ViT" if given.resize == size else "DeiT"), square
    crop = {"do_center_crop": True, "crop_size": {"height": size, "width": size}}
    return {
        "image_processor_type": f"{kind}ImageProcessor",
        "do_resize": True,
        "size": resize,
        "resample": INTERPOLATIONS.index(given.interpolation),
        **({} if kind == "ViT" else crop),
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(given.mean),
        "image_std": list(given.std),
    }


def timm_config(weights: Weights, given: Preprocessing) -> dict[str, Any]:
    """A `config.json` for `timm.create_model("local-dir:FOLDER", pretrained=True)`."""
    model, size = weights.model, weights.model.image_size
    # Any of timm's own Swins will do, since what it is made of is overridden.
    variants = (name for name, shape in VARIANTS.items() if shape["embed_dim"] == model.embed_dim)
    classes = 0 if weights.headless else model.num_classes
    return {
        "architecture": f"swin_{next(variants, 'tiny')}_patch4_window7_224",
        "num_classes": classes,
        "num_features": model.channels(-1),
        **({"label_names": list(weights.class_names)} if weights.class_names else {}),
        "model_args": {
            "img_size": size,
            "window_size": model.window,
            "embed_dim": model.embed_dim,
            "depths": list(model.depths),
            "num_heads": list(model.num_heads),
            "num_classes": classes,
        },
        "pretrained_cfg": {
            "input_size": [3, size, size],
            "fixed_input_size": True,
            "interpolation": given.interpolation,
            "crop_pct": _crop_pct(size, given.resize),
            "crop_mode": "squash" if given.squash else "center",
            "mean": list(given.mean),
            "std": list(given.std),
            "num_classes": classes,
            "pool_size": [model.grid(len(model.depths) - 1)] * 2,
            "first_conv": "patch_embed.proj",
            "classifier": "head.fc",
        },
    }


def _crop_pct(size: int, resize: int) -> float:
    """The share of which timm makes `resize` again, which is `floor(size / share)`."""
    share = size / resize
    while math.floor(size / share) < resize:
        share = math.nextafter(share, 0)
    return share
