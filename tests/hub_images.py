"""Image files of several shapes, the same wherever they are made, to ask libraries about."""

import numpy as np
from PIL import Image

SHAPES = ((70, 101), (133, 64), (97, 97), (60, 43))  # height, width


def write_images(folder):
    """PNGs with edges, gradients and noise; returns their paths."""
    paths = []
    for number, (height, width) in enumerate(SHAPES):
        rng = np.random.RandomState(number)
        y, x = np.mgrid[0:height, 0:width]
        waves = [np.sin((x * a + y * b) / 9) for a, b in ((1, 2), (2, -1), (0.3, 1))]
        pixels = 127 + 80 * np.stack(waves, -1) + rng.uniform(-40, 40, (height, width, 3))
        pixels[height // 3 : height // 2, width // 4 : width // 2] = rng.uniform(0, 255, 3)
        path = folder / f"{number}.png"
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path)
        paths.append(path)
    return paths
