"""Images for the benchmarks of the host side."""

import pathlib

import numpy as np
from PIL import Image


def write(root: pathlib.Path, count: int, side: int) -> None:
    """Writes JPEGs of smooth colour with some grain, which compress about as photographs do.

    Args:
        root: gets class folders.
        count: number of images.
        side: of each, pixels.
    """
    rng = np.random.default_rng(0)
    for i in range(count):
        folder = root / f"class {i % 4}"
        folder.mkdir(parents=True, exist_ok=True)
        coarse = Image.fromarray(rng.integers(0, 256, (12, 12, 3), np.uint8))
        smooth = np.asarray(coarse.resize((side, side), Image.Resampling.BICUBIC))
        pixels = np.clip(smooth + rng.integers(-6, 7, smooth.shape, np.int8), 0, 255).astype(
            np.uint8
        )
        Image.fromarray(pixels).save(folder / f"{i}.jpg", quality=90)
