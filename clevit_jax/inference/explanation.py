"""The explanation of one prediction: a map of where the model looked, drawn over its image."""

import dataclasses
import io

import numpy as np
from PIL import Image

OPACITY = 0.55  # opacity of the colours where the map is 1


@dataclasses.dataclass(frozen=True)
class Explanation:
    """Where a model looked in an image for a class. A notebook shows it as the overlay.

    Attributes:
        image: the square that the model saw, RGB.
        map: the map at the image's size, float32 [S, S] in [0, 1].
        class_name: the class that the map is for.
        probability: probability of that class, in [0, 1].
        name: name of the map; see `inference.cam`.
    """

    image: Image.Image
    map: np.ndarray
    class_name: str
    probability: float
    name: str

    def overlay(self) -> Image.Image:
        """The image in grey under the map in colours, from blue (0) to red (1)."""
        return overlay(np.asarray(self.image), self.map)

    def _repr_png_(self) -> bytes:
        stream = io.BytesIO()
        self.overlay().save(stream, format="PNG")
        return stream.getvalue()

    def __repr__(self) -> str:
        probability = f"{100 * self.probability:.1f} %"
        return f"Explanation({self.class_name!r}, {probability}, {self.name})"


def enlarge(grid: np.ndarray, side: int) -> np.ndarray:
    """A map at the size of its image: bilinear, divided by its maximum.

    Args:
        grid: the map, not below 0, [H, W].
        side: pixels per side of the image.

    Returns:
        float32 [side, side], in [0, 1]; zeros if the map is zero.
    """
    highest = float(grid.max())
    if not highest > 0:
        return np.zeros((side, side), np.float32)
    image = Image.fromarray((grid / highest).astype(np.float32))
    return np.clip(np.asarray(image.resize((side, side), Image.Resampling.BILINEAR)), 0, 1)


def overlay(pixels: np.ndarray, values: np.ndarray) -> Image.Image:
    """A picture of a map over its image.

    Args:
        pixels: the image, uint8 [S, S, 3].
        values: the map at the image's size, in [0, 1], float32 [S, S].
    """
    import matplotlib  # here, because importing it takes a moment

    colours = matplotlib.colormaps["turbo"](values)[..., :3] * 255
    grey = pixels.astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32)
    opacity = OPACITY * (0.3 + 0.7 * values[..., None])
    mixed = (1 - opacity) * grey[..., None] + opacity * colours
    return Image.fromarray(np.clip(np.round(mixed), 0, 255).astype(np.uint8))
