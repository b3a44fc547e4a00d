"""Time and memory of converting a Swin-B of 21841 classes, beside the least that torch could do.

    python -m benchmarks.convert_weights

Writes a `.pth` in the official format with random numbers, and converts it in a process of its
own. The peer is a process that reads the same file with `torch.load` and writes a `.safetensors`
of the same tensors: no check, no renaming, no transposing, no hash.
"""

import pathlib
import resource
import subprocess
import sys
import tempfile
import time

import numpy as np

from clevit_jax.model.config import SwinConfig
from clevit_jax.model.swin import abstract_swin
from clevit_jax.weights import files
from clevit_jax.weights.convert import named_leaves, official_name

TOOL = pathlib.Path(__file__).parents[1] / "tools" / "convert_torch_weights.py"
PEER = """
import sys, torch, safetensors.torch
tensors = torch.load(sys.argv[1], weights_only=True)["model"]
safetensors.torch.save_file(tensors, sys.argv[2])
"""


def write_official(path: pathlib.Path) -> float:
    """Writes a checkpoint of Swin-B with a 22k head; returns its size in MB."""
    model = SwinConfig.variant("base", image_size=224, num_classes=21841)
    rng = np.random.default_rng(0)
    params = named_leaves(abstract_swin(model)[1])
    drawn = {name: rng.standard_normal(leaf.shape, np.float32) for name, leaf in params.items()}
    official = {official_name(name): _transposed(name, value) for name, value in drawn.items()}
    files.write_pth(path, official, wrapper="model")
    return path.stat().st_size / 1e6


def _transposed(name: str, value: np.ndarray) -> np.ndarray:
    """A parameter in torch's order of axes."""
    if value.ndim == 4:
        return value.transpose(3, 2, 0, 1)
    return value.T if value.ndim == 2 and name.endswith("kernel") else value


def measure(*command: str) -> tuple[float, float]:
    """Wall seconds of a command, and the largest memory of any child so far, MB."""
    start = time.perf_counter()
    subprocess.run([sys.executable, *command], check=True)
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    return time.perf_counter() - start, peak


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        size = write_official(folder / "official.pth")
        # The lighter one first, since memory is the largest of all children so far.
        peer = measure("-c", PEER, str(folder / "official.pth"), str(folder / "peer.safetensors"))
        ours = measure(str(TOOL), str(folder / "official.pth"), str(folder / "converted"))
    print(f"A .pth of {size:.0f} MB (Swin-B, 21841 classes):")
    print(f"  converted {ours[0]:.1f} s, at most {ours[1]:.0f} MB")
    print(f"  peer      {peer[0]:.1f} s, at most {peer[1]:.0f} MB")
    print(f"  ratio     {ours[0] / peer[0]:.2f} of its time")


if __name__ == "__main__":
    main()
