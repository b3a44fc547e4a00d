"""The deletion test: does a map show what the prediction depends on?

The fifth of an image that a map highlights most is painted over with the image's mean colour, and
the probability of the predicted class falls. It also falls when a random fifth is painted over, in
pieces of the same size. The ratio of the two falls, over many images, says how far to trust a map,
and the map with the largest ratio is chosen for a run. Pieces are the cells of the model's coarsest
grid (at least 2 x 2), so that all maps delete the same shapes.

Source: the deletion game of Petsiuk, Das, Saenko, RISE, BMVC 2018, section 4.2, at one share.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from clevit_jax.inference import cam
from clevit_jax.inference.classifier import Classifier

SHARE = 0.2  # share of an image that is painted over
IMAGES = 50  # a test of so many images is enough
DRAWS = 4  # random fifths per image


@dataclasses.dataclass(frozen=True)
class Deletion:
    """The numbers of a deletion test.

    Attributes:
        drops: map -> mean fall of the probability when its most highlighted cells are painted over.
        random: mean fall when random cells are painted over.
        images: number of images.
        cells: cells per side of an image.
        deleted: cells per image that are painted over.
    """

    drops: dict[str, float]
    random: float
    images: int
    cells: int
    deleted: int

    @property
    def chosen(self) -> str:
        """Name of the CAM (never the roll-out) with the largest fall."""
        cams = {name: drop for name, drop in self.drops.items() if name != cam.ROLLOUT}
        return max(cams, key=lambda name: cams[name])

    def ratio(self, name: str) -> float:
        """Fall of a map over that of random cells; nan if random cells lower nothing."""
        return self.drops[name] / self.random if self.random > 0 else float("nan")

    def __str__(self) -> str:
        random = f"a random fifth by {100 * self.random:.1f} ({self.images} images)"
        if self.random > 0:
            times = f"{self.ratio(self.chosen):.1f} times as much as"
            random = f"{times} a random fifth ({100 * self.random:.1f}; {self.images} images)"
        return (
            f"painting over the fifth of an image that {self.chosen} highlights most lowers the "
            f"probability of the prediction by {100 * self.drops[self.chosen]:.1f} points, {random}"
        )

    def to_json(self) -> dict[str, Any]:
        """The content of `maps.json`: `{"chosen": ..., "drops": {...}, ...}`."""
        return {"chosen": self.chosen, **dataclasses.asdict(self)}

    @classmethod
    def from_json(cls, facts: dict[str, Any]) -> "Deletion | None":
        """The reverse of `to_json`, further names aside; None where something is damaged."""
        found = {field.name: facts.get(field.name) for field in dataclasses.fields(cls)}
        drops = found.pop("drops")
        numbers = [*drops.values()] if isinstance(drops, dict) and drops else [None]
        if not all(isinstance(number, int | float) for number in (*numbers, *found.values())):
            return None
        return cls(drops=drops, **found)  # type: ignore[arg-type]


def compare_maps(
    classifier: Classifier,
    pixels: np.ndarray,
    *,
    names: Sequence[str] | None = None,
    seed: int = 0,
    batch_size: int = 16,
) -> Deletion:
    """Runs the deletion test on some maps of a model.

    Args:
        classifier: the model.
        pixels: uint8 [B, S, S, 3]; `IMAGES` are enough.
        names: names of the maps; by default all of `cam.map_names`.
        seed: seed of the random cells.
        batch_size: images at a time.

    Raises:
        ValueError: there is no image.
    """
    which = tuple(names or cam.map_names(classifier.model))
    cells = max(2, classifier.model.grid(len(classifier.model.depths) - 1))
    deleted = round(SHARE * cells**2)
    if not len(pixels):
        raise ValueError("The deletion test needs an image, and there is none.")
    rng = np.random.RandomState(seed)
    falls: dict[str, list[np.ndarray]] = {name: [] for name in ("random", *which)}
    for begin in range(0, len(pixels), batch_size):
        part = pixels[begin : begin + batch_size]
        probabilities = classifier.probabilities(part)
        classes = probabilities.argmax(-1)
        before = probabilities.max(-1)

        def fall(painted: np.ndarray, part=part, classes=classes, before=before) -> np.ndarray:
            after = classifier.probabilities(paint_over(part, painted))
            return before - after[np.arange(len(part)), classes]

        for name, maps in classifier.maps(part, classes, which).items():
            falls[name].append(fall(np.stack([top_cells(grid, cells, deleted) for grid in maps])))
        for _ in range(DRAWS):
            order = np.stack([rng.permutation(cells**2) for _ in part])
            falls["random"].append(fall((order < deleted).reshape(-1, cells, cells)))
    means = {name: float(np.concatenate(values).mean()) for name, values in falls.items()}
    return Deletion(means, means.pop("random"), len(pixels), cells, deleted)


def top_cells(grid: np.ndarray, cells: int, count: int) -> np.ndarray:
    """The `count` cells with the largest mean of a map [H, W], as bool [cells, cells].

    Of equal cells the first in reading order come first.
    """
    side = -(-max(grid.shape) // cells) * cells  # a multiple of the cells, not below the map
    image = Image.fromarray(grid.astype(np.float32))
    resized = np.asarray(image.resize((side, side), Image.Resampling.BILINEAR))
    step = side // cells
    means = resized.reshape(cells, step, cells, step).mean(axis=(1, 3))
    highest = np.zeros(cells**2, bool)
    highest[np.argsort(-means.ravel(), kind="stable")[:count]] = True
    return highest.reshape(cells, cells)


def paint_over(pixels: np.ndarray, painted: np.ndarray) -> np.ndarray:
    """Images uint8 [B, S, S, 3] with the cells bool [B, n, n] in each image's mean colour."""
    side, cells = pixels.shape[1], painted.shape[1]
    index = np.arange(side) * cells // side  # the cell of each row and column
    mask = painted[:, index][:, :, index][..., None]  # [B, S, S, 1]
    mean = pixels.mean(axis=(1, 2), keepdims=True).round().astype(np.uint8)
    return np.where(mask, mean, pixels)
