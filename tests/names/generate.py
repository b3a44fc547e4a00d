"""Writes the names and shapes that each library's own Swin has, and small goldens of each.

    python tests/names/generate.py [--microsoft FOLDER COMMIT]

writes, for the libraries that are installed (timm, transformers, torchvision, mmpretrain with
mmcv-lite; each version in an environment of its own), tables beside this file and goldens into
tests/golden. FOLDER is `models` of a checkout of microsoft/Swin-Transformer at COMMIT; its
swin_transformer.py needs timm.
"""

import argparse
import functools
import importlib
import importlib.util
import pathlib
import sys
import tempfile
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import safetensors.torch
import torch

HERE = pathlib.Path(__file__).parent
GOLDEN = HERE.parent / "golden"
SIZES: dict[str, dict[str, Any]] = {
    "tiny": {"embed_dim": 96, "depths": [2, 2, 6, 2], "num_heads": [3, 6, 12, 24]},
    "small": {"embed_dim": 96, "depths": [2, 2, 18, 2], "num_heads": [3, 6, 12, 24]},
    "base": {"embed_dim": 128, "depths": [2, 2, 18, 2], "num_heads": [4, 8, 16, 32]},
    "large": {"embed_dim": 192, "depths": [2, 2, 18, 2], "num_heads": [6, 12, 24, 48]},
}
ARCHITECTURES: dict[str, dict[str, Any]] = {
    f"{size}_window{window}_{image}": {
        **SIZES[size], "window_size": window, "img_size": image, "num_classes": 1000
    }
    for size in SIZES
    for window, image in ((7, 224), (12, 384))
}  # fmt: skip
# Two shifted blocks, three stages; small enough to be stored.
GOLDEN_ARCHITECTURE: dict[str, Any] = {
    "embed_dim": 4, "depths": [2, 1, 1], "num_heads": [1, 2, 4],
    "window_size": 4, "img_size": 64, "num_classes": 5,
}  # fmt: skip

Build = Callable[..., torch.nn.Module]
States = Mapping[str, torch.Tensor]
GetStates = Callable[..., States]


def build_transformers(img_size: int, num_classes: int, **architecture: Any) -> torch.nn.Module:
    transformers = importlib.import_module("transformers")
    config = transformers.SwinConfig(
        image_size=img_size, num_labels=num_classes, drop_path_rate=0.0, **architecture
    )
    return transformers.SwinForImageClassification(config)


def build_torchvision(img_size: int, **architecture: Any) -> torch.nn.Module:
    """With torchvision's own function where it has one (window 7); `img_size` does not matter."""
    swin = importlib.import_module("torchvision.models.swin_transformer")
    own = {"tiny": swin.swin_t, "small": swin.swin_s, "base": swin.swin_b}
    for size, function in own.items():
        if architecture == {**SIZES[size], "window_size": 7, "num_classes": 1000}:
            return function()
    window = architecture.pop("window_size")
    return swin.SwinTransformer(patch_size=[4, 4], window_size=[window, window], **architecture)


def build_mmpretrain(
    img_size: int, num_classes: int, window_size: int, **architecture: Any
) -> torch.nn.Module:
    """The image classifier that mmpretrain's configs of Swin describe."""
    architecture["embed_dims"] = architecture.pop("embed_dim")
    stages = len(architecture["depths"])
    return importlib.import_module("mmpretrain.models").ImageClassifier(
        backbone={
            "type": "SwinTransformer",
            "arch": architecture,
            "img_size": img_size,
            "window_size": window_size,
            "out_indices": (stages - 1,),
        },
        neck={"type": "GlobalAveragePooling"},
        head={
            "type": "LinearClsHead",
            "num_classes": num_classes,
            "in_channels": architecture["embed_dims"] << (stages - 1),
        },
    )


def names_on_disk(model: torch.nn.Module) -> States:
    """The names that `save_pretrained` of transformers 5 writes, found without writing."""
    loading = importlib.import_module("transformers.core_model_loading")
    return loading.revert_weight_conversion(model, model.state_dict())


def write_table(
    file: str, source: str, build: Build, states: GetStates = torch.nn.Module.state_dict
) -> None:
    """One line a name, one column an architecture, `-` where it has no such name."""
    columns = []
    cpu_linspace = functools.partial(torch.linspace, device="cpu")  # its numbers are asked for
    for architecture in ARCHITECTURES.values():
        original, torch.linspace = torch.linspace, cpu_linspace
        try:
            with torch.device("meta"):
                model = build(**architecture)
        finally:
            torch.linspace = original
        columns.append({n: "x".join(map(str, t.shape)) for n, t in states(model).items()})
    names = list(dict.fromkeys(name for column in reversed(columns) for name in column))
    lines = [f"# {source}; written by tests/names/generate.py", "\t".join(["name", *ARCHITECTURES])]
    lines += ["\t".join([name, *(c.get(name, "-") for c in columns)]) for name in names]
    (HERE / file).write_text("\n".join(lines) + "\n")
    print(f"{file}: {len(names)} names")


def golden_model(build: Build) -> torch.nn.Module:
    """Every parameter away from its initial value, so that none can be forgotten."""
    torch.manual_seed(0)
    model = build(**GOLDEN_ARCHITECTURE).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return model


@torch.no_grad()
def write_golden(
    file: str,
    build: Build,
    features: Callable[..., Any],
    states: GetStates = torch.nn.Module.state_dict,
) -> None:
    """Weights as the library stores them, and what its model gives for the images below."""
    model = golden_model(build)
    size = GOLDEN_ARCHITECTURE["img_size"]
    images = np.random.RandomState(7).standard_normal((2, size, size, 3)).astype(np.float32)
    inputs = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous()
    logits = model(inputs)
    logits = getattr(logits, "logits", logits)
    safetensors.torch.save_file(dict(states(model)), GOLDEN / f"{file}.safetensors")
    np.savez(
        GOLDEN / f"{file}.npz", logits=logits.numpy(), features=features(model, inputs).numpy()
    )


def as_saved(model: torch.nn.Module) -> States:
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)  # type: ignore[operator]
        return safetensors.torch.load_file(pathlib.Path(folder, "model.safetensors"))


def write_timm() -> None:
    timm = importlib.import_module("timm")
    build = importlib.import_module("timm.models.swin_transformer").SwinTransformer
    old = timm.__version__.startswith("0.")
    file = "timm06" if old else "timm"
    write_table(f"{file}.tsv", f"timm {timm.__version__}, state_dict of SwinTransformer", build)
    write_golden(
        f"dialect_{file}",
        build,
        lambda model, x: model.forward_head(model.forward_features(x), pre_logits=True),
    )


def write_transformers() -> None:
    version = importlib.import_module("transformers").__version__
    what = f"transformers {version}, SwinForImageClassification"
    if version.startswith("4."):
        write_table("huggingface4.tsv", f"{what}, state_dict", build_transformers)
        return
    on_disk = f"{what}, as save_pretrained writes it"
    write_table("huggingface.tsv", on_disk, build_transformers, names_on_disk)
    write_table("huggingface5_memory.tsv", f"{what}, state_dict", build_transformers)
    write_golden(
        "dialect_huggingface",
        build_transformers,
        lambda model, x: model.swin(x).pooler_output,
        as_saved,
    )


def write_torchvision() -> None:
    version = importlib.import_module("torchvision").__version__
    what = f"torchvision {version}, state_dict of swin_t, swin_s, swin_b and SwinTransformer"
    write_table("torchvision.tsv", what, build_torchvision)
    write_golden(
        "dialect_torchvision",
        build_torchvision,
        lambda model, x: model.norm(model.features(x)).mean(dim=(1, 2)),
    )


def write_mmpretrain() -> None:
    version = importlib.import_module("mmpretrain").__version__
    what = f"mmpretrain {version}, state_dict of ImageClassifier with SwinTransformer"
    write_table("openmmlab.tsv", what, build_mmpretrain)
    write_golden("dialect_openmmlab", build_mmpretrain, lambda model, x: model.extract_feat(x)[-1])


def write_microsoft(folder: str, commit: str) -> None:
    sys.path.insert(0, folder)
    write_table(
        "microsoft.tsv",
        f"microsoft/Swin-Transformer {commit}, models/swin_transformer.py, state_dict",
        importlib.import_module("swin_transformer").SwinTransformer,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--microsoft", nargs=2, metavar=("FOLDER", "COMMIT"))
    microsoft = parser.parse_args().microsoft
    if microsoft:
        write_microsoft(*microsoft)
    writers = (
        ("timm", write_timm),
        ("transformers", write_transformers),
        ("torchvision", write_torchvision),
        ("mmpretrain", write_mmpretrain),
    )
    for library, write in writers:
        if importlib.util.find_spec(library):
            write()


if __name__ == "__main__":
    main()
