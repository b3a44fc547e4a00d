"""Verification of weights against PyTorch: the same Swin in the library that they come from.

timm, transformers, torchvision or mmpretrain build the network and read the weights; whichever of
them is installed will do.
"""

import dataclasses
import os
import pathlib
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from clevit_jax.errors import WeightsError
from clevit_jax.model.config import SwinConfig
from clevit_jax.model.swin import abstract_swin
from clevit_jax.weights import dialects
from clevit_jax.weights.convert import Weights, to_official
from clevit_jax.weights.converted import is_converted
from clevit_jax.weights.folders import weights_in
from clevit_jax.weights.shards import read_weight_files
from clevit_jax.weights.torch_models import TorchSwin, build, import_error

TOLERANCE = 1e-4  # of the largest absolute value

# The library that reads a dialect with code of its own, and the dialect that it is written to.
_READS = {
    "microsoft": "timm",
    "timm<0.9": "timm",
    "timm": "timm",
    "huggingface": "transformers",
    "torchvision": "torchvision",
    "openmmlab": "mmpretrain",
}
_WRITTEN = {
    "timm": "timm",
    "transformers": "huggingface",
    "torchvision": "torchvision",
    "mmpretrain": "openmmlab",
}


@dataclasses.dataclass(frozen=True)
class Verification:
    """The differences between the answers of PyTorch and ours.

    Attributes:
        library: with its version, `timm 1.0.31`.
        names: who gave the tensors their names in that library.
        image_size: pixels per side of the image that both were given.
        differences: `logits` and `features` -> largest absolute difference, and largest absolute
            value in PyTorch.
    """

    library: str
    names: str
    image_size: int
    differences: Mapping[str, tuple[float, float]]

    @property
    def ok(self) -> bool:
        """Whether no difference is over `TOLERANCE` of the largest value, or is NaN."""
        return all(apart <= TOLERANCE * largest for apart, largest in self.differences.values())

    def __str__(self) -> str:
        shown = ", of ".join(
            f"{what} {apart:.1e} (of {largest:.3g})"
            for what, (apart, largest) in self.differences.items()
        )
        return (
            f"{'Verified with' if self.ok else 'DIFFERENT from'} {self.library} ({self.names}), "
            f"1 random image of {self.image_size} px, normalised: largest difference of {shown}."
        )


def verify(weights: Weights, source: str | os.PathLike[str], *, seed: int = 0) -> Verification:
    """Runs one random image through the original in PyTorch and through ours, on the CPU.

    The original is, where that can be, the file itself in the library of its dialect, which reads
    it without our name tables (timm also reads Microsoft's names); else the file's tensors under
    the names that our tables give them in a library that is installed. For weights of a run, of a
    converted checkpoint, or with another head than their file has, the parameters themselves.

    Args:
        weights: to check; the image has their image size.
        source: the file that they were read from, or the folder.
        seed: of the image, float32 from the standard normal distribution.

    Raises:
        WeightsError: none of the libraries is installed, or none can hold this network.
    """
    tensors = _file_tensors(weights, pathlib.Path(source))
    original, names = _read_by_its_library(weights, tensors) or _by_our_table(weights, tensors)
    del tensors
    size = weights.model.image_size
    images = np.random.RandomState(seed).standard_normal((1, size, size, 3)).astype(np.float32)
    wanted = original(images)
    library = original.library
    del original  # the memory is wanted below
    ours = run_on_cpu(weights, images)
    differences = {
        what: (float(np.abs(a - b).max()), float(np.abs(b).max()))
        for what, a, b in zip(("logits", "features"), ours, wanted, strict=True)
        if what == "features" or not weights.headless
    }
    return Verification(library, names, size, differences)


def run_on_cpu(weights: Weights, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Logits [B, K] and features [B, C] of our own network, plain and in float32."""
    model = dataclasses.replace(weights.model, dtype=jnp.float32, remat="none", kernels=None)
    graphdef = abstract_swin(model)[0]
    params = jax.device_get(weights.params)
    with jax.default_device(jax.devices("cpu")[0]):
        forward = jax.jit(lambda params, images: nnx.merge(graphdef, params)(images))
        return jax.device_get(forward(params, images))


def build_torch_swin(weights: Weights, library: str) -> TorchSwin:
    """The network of `weights` in a PyTorch library, every tensor loaded strictly.

    Args:
        weights: any; they are given the library's names by `dialects`.
        library: "timm" (0.9 or newer), "transformers", "torchvision" or "mmpretrain".

    Raises:
        WeightsError: it is not installed, or cannot hold this network; the last three have no
            window that shrinks to the grid of a stage.
    """
    return _build_by_table(weights.model, to_official(weights.params), library)


def _build_by_table(
    model: SwinConfig, official: Mapping[str, np.ndarray], library: str
) -> TorchSwin:
    if reason := import_error(library):
        raise WeightsError(f"{library} cannot be imported ({reason}); install it with PyTorch.")
    return build(library, model, dialects.from_official_names(official, _WRITTEN[library]))


def _file_tensors(weights: Weights, source: pathlib.Path) -> dict[str, np.ndarray] | None:
    """The tensors of another library's file, under its names; None where there is none."""
    report = weights.report
    changed = (report.mapped, report.resized, report.adapted, report.filled, report.reinitialised)
    if any(changed) or weights.dialect not in _READS or is_converted(source):
        return None
    file = weights_in(source)[0] if source.is_dir() else source
    if file is None or not file.is_file():
        return None
    return read_weight_files(file, weights.entry).tensors


def _read_by_its_library(
    weights: Weights, tensors: Mapping[str, np.ndarray] | None
) -> tuple[TorchSwin, str] | None:
    """None where the library of the file's dialect is not there or does not know the names."""
    library = _READS.get(weights.dialect, "")
    if tensors is None or import_error(library):
        return None
    try:
        return build(library, weights.model, tensors), f"names read by {library} itself"
    except WeightsError:
        return None


def _by_our_table(
    weights: Weights, tensors: Mapping[str, np.ndarray] | None
) -> tuple[TorchSwin, str]:
    """The file's tensors, or the parameters where there is no file, in any library there is."""
    official = (
        to_official(weights.params)
        if tensors is None
        else dialects.to_official_names(tensors, weights.dialect, weights.prefix)[0]
    )
    names = "names by our own table"
    if tensors is not None:
        names += ": no library read the file itself"
    refusals = []
    for library in _WRITTEN:
        try:
            return _build_by_table(weights.model, official, library), names
        except WeightsError as error:
            refusals.append(str(error))
    raise WeightsError(
        "--verify needs PyTorch and a library whose Swin can hold these weights; install "
        f"them: pip install 'clevit_jax[convert]' timm (or transformers). {' '.join(refusals)}"
    )
