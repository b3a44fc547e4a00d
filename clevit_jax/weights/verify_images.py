"""Verification from image files to classes: a folder in the library whose JSON it holds, and here.

`verify` compares the networks alone; what is done to an image before it is compared here.
"""

import dataclasses
import pathlib
import tempfile
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from PIL import Image

from clevit_jax.model.preprocessing import Preprocessing
from clevit_jax.system.logging import quiet
from clevit_jax.weights import verify
from clevit_jax.weights.convert import Weights
from clevit_jax.weights.folders import HUB_FILES
from clevit_jax.weights.hub_facts import told_beside
from clevit_jax.weights.torch_models import import_error, without_bars

# Sides of the images over that of the network, (height, width): wide, tall, square, small.
SHAPES = ((1.1, 1.7), (2.1, 1.0), (1.5, 1.5), (0.9, 0.7))


@dataclasses.dataclass(frozen=True)
class ImagesVerification:
    """What became of the image files.

    Attributes:
        unchecked: why nothing was compared; "" where it was.
        library: with its version.
        count: images.
        differing: those of which the library finds another class.
        what: what was compared besides, "logits" or "features".
        apart, largest: the largest difference of these, and their largest value in the library.
    """

    unchecked: str = ""
    library: str = ""
    count: int = 0
    differing: int = 0
    what: str = "logits"
    apart: float = 0.0
    largest: float = 0.0

    @property
    def ok(self) -> bool:
        """Whether nothing that was compared differs."""
        near = self.apart <= verify.TOLERANCE * self.largest
        return bool(self.unchecked) or (not self.differing and near)

    def __str__(self) -> str:
        if self.unchecked:
            return f"Not checked: how images are prepared. {self.unchecked}"
        classes = f"{self.count - self.differing} of them get its class, "
        return (
            f"{'Verified with' if self.ok else 'DIFFERENT from'} {self.library} by its own JSON, "
            f"{self.count} image files of several shapes: "
            f"{classes if self.what == 'logits' else ''}largest difference of {self.what} "
            f"{self.apart:.1e} (of {self.largest:.3g})."
        )


def verify_images(
    weights: Weights,
    source: pathlib.Path,
    pixels: Callable[[pathlib.Path, Preprocessing, int], np.ndarray],
) -> ImagesVerification:
    """Has the library of a folder answer about image files by itself, and compares.

    Args:
        weights: to check.
        source: the folder that they were read from, or a file in it.
        pixels: what evaluations do, (file, preprocessing, S) -> uint8 [S, S, 3].
    """
    size = weights.model.image_size
    if weights.preprocessing is None:
        assumed = Preprocessing.usual(size).describe(size)
        return ImagesVerification(f"The file does not say it, so this is assumed: {assumed}.")
    if not weights.report.beside:
        return ImagesVerification("No other library reads it from there.")
    changed = (weights.report.mapped, weights.report.resized, weights.report.adapted)
    if any(changed):
        return ImagesVerification("The network is another than the file's by now.")
    folder = source if source.is_dir() else source.parent
    told = told_beside(folder / HUB_FILES[0])
    library = told.library if told else "transformers"
    if reason := import_error(library):
        return ImagesVerification(f"{library} cannot be imported ({reason}).")
    with tempfile.TemporaryDirectory() as place:
        paths = _write_images(pathlib.Path(place), size)
        try:
            with quiet():
                ask = _timm if library == "timm" else _transformers
                version, names, wanted = ask(folder, paths, weights.headless)
        except Exception as error:  # whatever a library raises: it is not ours to mend
            text = " ".join(str(error).split())[:200] or type(error).__name__
            return ImagesVerification(f"{library} does not answer about the folder: {text}")
        given = weights.preprocessing
        images = np.stack([pixels(path, given, size) for path in paths]).astype(np.float32) / 255
    normalized = (images - np.array(given.mean, np.float32)) / np.array(given.std, np.float32)
    ours = verify.run_on_cpu(weights, normalized)[1 if weights.headless else 0]
    if ours.shape != wanted.shape:
        return ImagesVerification(f"{library} answers with {list(wanted.shape)} numbers.")
    return ImagesVerification(
        library=f"{library} {version}",
        count=len(paths),
        differing=0 if weights.headless else _differing(weights, ours, wanted, names),
        what="features" if weights.headless else "logits",
        apart=float(np.abs(ours - wanted).max()),
        largest=float(np.abs(wanted).max()),
    )


def _differing(
    weights: Weights, ours: np.ndarray, wanted: np.ndarray, names: Mapping[int, str]
) -> int:
    """Images whose class is another, by number, or by name where both sides have names."""
    here, there = ours.argmax(-1).tolist(), wanted.argmax(-1).tolist()
    return sum(
        a != b or (bool(weights.class_names) and weights.class_names[a] != names.get(b, ""))
        for a, b in zip(here, there, strict=True)
    )


def _write_images(folder: pathlib.Path, size: int) -> list[pathlib.Path]:
    """PNG files with gradients, an edge and noise."""
    paths = []
    for number, (tall, wide) in enumerate(SHAPES):
        rng = np.random.RandomState(number)
        height, width = round(tall * size) + 1, round(wide * size)
        y, x = np.mgrid[0:height, 0:width] * (40 / size)
        waves = np.stack([np.sin(x * a + y * b) for a, b in ((1, 2), (2, -1), (0.3, 1))], -1)
        image = 127 + 80 * waves + rng.uniform(-40, 40, (height, width, 3))
        image[height // 3 : height // 2, width // 4 : width // 2] = rng.uniform(0, 255, 3)
        paths.append(folder / f"{number}.png")
        Image.fromarray(image.clip(0, 255).astype(np.uint8)).save(paths[-1])
    return paths


def _transformers(
    folder: pathlib.Path, paths: list[pathlib.Path], headless: bool
) -> tuple[str, dict[int, str], np.ndarray]:
    """Version, class names, and logits or features, by the folder's own JSON alone."""
    import torch
    import transformers

    # Pillow's arithmetic, which both versions have; torchvision's rounds otherwise.
    newer = int(transformers.__version__.partition(".")[0]) >= 5
    how: dict[str, Any] = {"backend": "pil"} if newer else {"use_fast": False}
    processor = transformers.AutoImageProcessor.from_pretrained(folder, **how)
    kind = transformers.SwinModel if headless else transformers.SwinForImageClassification
    with without_bars(transformers):
        network: Any = kind.from_pretrained(folder)
    network = network.float().eval()
    images = [Image.open(path).convert("RGB") for path in paths]
    with torch.inference_mode():
        out = network(**processor(images, return_tensors="pt"))
    answers = out.pooler_output if headless else out.logits
    return transformers.__version__, dict(network.config.id2label), answers.numpy()


def _timm(
    folder: pathlib.Path, paths: list[pathlib.Path], headless: bool
) -> tuple[str, dict[int, str], np.ndarray]:
    """As `_transformers`, by `local-dir:`; without a head its answers are the features."""
    import timm
    import torch
    from timm.data import create_transform, resolve_data_config

    network = timm.create_model(f"local-dir:{folder.absolute()}", pretrained=True).float().eval()
    transform = create_transform(**resolve_data_config(model=network))
    with torch.inference_mode():
        batch = torch.stack([transform(Image.open(path).convert("RGB")) for path in paths])
        answers = network(batch)
    names = network.pretrained_cfg.get("label_names") or []
    if isinstance(names, dict):
        names = [names[number] for number in sorted(names, key=int)]
    return timm.__version__, dict(enumerate(names)), answers.numpy()
