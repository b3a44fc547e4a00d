"""Checks the conversion tool on full-size files of other libraries, with random numbers.

    python -m benchmarks.verify_weights

Each installed library (timm, transformers, torchvision, mmpretrain) builds its own Swin, every
parameter is moved away from its initial value, its state dict is saved, and
`convert_torch_weights.py --verify` reads it. No network is needed. A torchvision that is built for
CUDA does beside a CPU torch, for timm and transformers import it, too.
"""

import contextlib
import importlib
import pathlib
import subprocess
import sys
import tempfile
from collections.abc import Callable
from typing import Any

import torch

from benchmarks.official_loader import import_torchvision

ROOT = pathlib.Path(__file__).parents[1]
TOOL = ROOT / "tools" / "convert_torch_weights.py"
# The tool as a user runs it, but where torchvision can be imported.
RUN_TOOL = """
import runpy, sys
from benchmarks.verify_weights import prepare_torchvision
prepare_torchvision()
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def prepare_torchvision() -> None:
    """Imports torchvision, if it is there, as it can be imported beside this torch."""
    with contextlib.suppress(SystemExit):
        import_torchvision()


def _timm(name: str, classes: int) -> Any:
    return importlib.import_module("timm").create_model(name, num_classes=classes)


def _transformers(classes: int) -> Any:
    library = importlib.import_module("transformers")
    config = library.SwinConfig(
        embed_dim=128, depths=[2, 2, 18, 2], num_heads=[4, 8, 16, 32], num_labels=classes
    )
    return library.SwinForImageClassification(config)


def _mmpretrain(classes: int) -> Any:
    return importlib.import_module("mmpretrain.models").ImageClassifier(
        backbone={"type": "SwinTransformer", "arch": "base"},
        neck={"type": "GlobalAveragePooling"},
        head={"type": "LinearClsHead", "num_classes": classes, "in_channels": 1024},
    )


FILES: dict[str, Callable[[], Any]] = {
    "timm, Swin-B window 7, 21841 classes": lambda: _timm("swin_base_patch4_window7_224", 21841),
    "timm, Swin-B window 12, 1000 classes": lambda: _timm("swin_base_patch4_window12_384", 1000),
    "transformers, Swin-B window 7, 21841 classes": lambda: _transformers(21841),
    "torchvision, swin_t": lambda: importlib.import_module("torchvision").models.swin_t(),
    "torchvision, swin_b": lambda: importlib.import_module("torchvision").models.swin_b(),
    "mmpretrain, Swin-B window 7, 1000 classes": lambda: _mmpretrain(1000),
}


def main() -> None:
    prepare_torchvision()
    with tempfile.TemporaryDirectory() as folder:
        for what, make in FILES.items():
            try:
                module = make()
            except Exception as error:
                print(f"{what}: skipped, {type(error).__name__}: {str(error)[:80]}")
                continue
            torch.manual_seed(0)
            with torch.no_grad():
                for parameter in module.parameters():
                    parameter += 0.02 * torch.randn_like(parameter)
            path = pathlib.Path(folder) / "file.pth"
            torch.save(module.state_dict(), path)
            del module
            command = [sys.executable, "-c", RUN_TOOL, str(TOOL), str(path), "--verify"]
            done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
            print(f"{what}: {(done.stdout + done.stderr).strip().splitlines()[-1]}", flush=True)


if __name__ == "__main__":
    main()
