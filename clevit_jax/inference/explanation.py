"""A map over its image, as a picture."""

import dataclasses
import io

import numpy as np
from PIL import Image

OPACITY = 0.55  # of the colours where the map is 1


@dataclasses.dataclass(frozen=True)
class Explanation:
    """Where a model looked in an image for a class. A notebook shows it as the overlay.

    Attributes:
        image: the square that the model saw, RGB.
        map: float32 [S, S], the map brought to the image's size, 0 at least and 1 at most.
        class_name: the class it is for.
        probability: of that class, in [0, 1].
        name: of the map; see `inference.cam`.
    """

    image: Image.Image
    map: np.ndarray
    class_name: str
    probability: float
    name: str

    def overlay(self) -> Image.Image:
        """The image, greyed, with the map in colours: blue little, red much."""
        return overlay(np.asarray(self.image), self.map)

    def _repr_png_(self) -> bytes:
        stream = io.BytesIO()
        self.overlay().save(stream, format="PNG")
        return stream.getvalue()

    def __repr__(self) -> str:
        share = f"{100 * self.probability:.1f} %"
        return f"Explanation({self.class_name!r}, {share}, {self.name})"


def enlarge(grid: np.ndarray, side: int) -> np.ndarray:
    """A map [H, W], not below 0 -> float32 [side, side], bilinear, divided by its maximum."""
    top = float(grid.max())
    if not top > 0:
        return np.zeros((side, side), np.float32)
    image = Image.fromarray((grid / top).astype(np.float32))
    return np.clip(np.asarray(image.resize((side, side), Image.Resampling.BILINEAR)), 0, 1)


def overlay(pixels: np.ndarray, values: np.ndarray) -> Image.Image:
    """The map `values` float32 [S, S] in [0, 1] over `pixels` uint8 [S, S, 3]."""
    import matplotlib  # here, for it takes a moment

    colours = matplotlib.colormaps["turbo"](values)[..., :3] * 255
    grey = pixels.astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32)
    share = OPACITY * (0.3 + 0.7 * values[..., None])
    mixed = (1 - share) * grey[..., None] + share * colours
    return Image.fromarray(np.clip(np.round(mixed), 0, 255).astype(np.uint8))
