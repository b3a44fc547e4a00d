"""Pictures inside a page, as data URLs."""

import base64
import io

import numpy as np
from PIL import Image

SIDE = 200  # pixels of the longer side of a tile
_QUALITY = 82  # quality of WebP, of 100


def data_url(image: Image.Image, *, side: int = SIDE) -> str:
    """Data URL of a WebP of the image, at most `side` pixels long; small images are enlarged."""
    scale = side / max(image.size)
    if scale < 1 or max(image.size) * 2 <= side:
        size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
        image = image.resize(size, Image.Resampling.LANCZOS)
    stream = io.BytesIO()
    image.convert("RGB").save(stream, format="WEBP", quality=_QUALITY)
    return "data:image/webp;base64," + base64.b64encode(stream.getvalue()).decode("ascii")


def pixels_url(pixels: np.ndarray) -> str:
    """Data URL of pixels, uint8 [S, S, 3]."""
    return data_url(Image.fromarray(pixels))
