"""Writes tests/golden/timm_answers.npz: what timm 1.0.31 answers about image files.

    PYTHONPATH=FOLDER_OF_TIMM_AND_TORCHVISION python tests/names/timm_answers.py

The network is tests/golden/dialect_timm.safetensors, each transform that of a `pretrained_cfg`.
"""

import json
import pathlib
import sys
import tempfile

import numpy as np
import safetensors.torch
import torch
from PIL import Image
from timm.data import create_transform, resolve_data_config
from timm.models.swin_transformer import SwinTransformer

TESTS = pathlib.Path(__file__).parents[1]
sys.path.insert(0, str(TESTS))
from hub_images import write_images  # noqa: E402

SIZE = {"input_size": [3, 64, 64]}
CONFIGS = {
    "nothing": SIZE,
    "usual": SIZE
    | {"crop_pct": 0.9, "interpolation": "bicubic", "mean": [0.485, 0.456, 0.406]}
    | {"std": [0.229, 0.224, 0.225], "crop_mode": "center"},
    "half": SIZE
    | {"crop_pct": 1.0, "interpolation": "bilinear", "mean": [0.5] * 3, "std": [0.5] * 3},
    "squash": SIZE | {"crop_pct": 0.95, "crop_mode": "squash", "interpolation": "lanczos"},
    "odd": SIZE | {"crop_pct": 0.6, "mean": [0.1, 0.2, 0.3], "std": [0.9, 0.3, 1.5]},
}

if __name__ == "__main__":
    model = SwinTransformer(
        img_size=64,
        embed_dim=4,
        depths=(2, 1, 1),
        num_heads=(1, 2, 4),
        window_size=4,
        num_classes=5,
    )
    weights = safetensors.torch.load_file(TESTS / "golden" / "dialect_timm.safetensors")
    model.load_state_dict(weights, strict=True)
    model.eval()
    answers = {}
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        paths = write_images(pathlib.Path(folder))
        for name, config in CONFIGS.items():
            transform = create_transform(**resolve_data_config(pretrained_cfg=config))
            images = torch.stack([transform(Image.open(path).convert("RGB")) for path in paths])
            answers[name] = model(images).softmax(-1).numpy()
    configs = {name: np.array(json.dumps(config)) for name, config in CONFIGS.items()}
    named = {f"config_{name}": value for name, value in configs.items()}
    np.savez_compressed(TESTS / "golden" / "timm_answers.npz", **answers, **named)
    print({name: np.round(value.max(-1), 3).tolist() for name, value in answers.items()})
