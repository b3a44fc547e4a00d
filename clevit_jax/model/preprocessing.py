"""`Preprocessing`: how an image becomes the input of a network; it belongs to the weights."""

import dataclasses
import math
from typing import Any

Colour = tuple[float, float, float]  # of red, green and blue, in units of the range 0..1

IMAGENET_MEAN: Colour = (0.485, 0.456, 0.406)
IMAGENET_STD: Colour = (0.229, 0.224, 0.225)
# Side of the centre crop, as a fraction of the resized shorter side. Official code: 448 of 512.
CROP_FRACTION = 0.875
INTERPOLATIONS = ("nearest", "lanczos", "bilinear", "bicubic", "box", "hamming")  # Pillow's numbers
CORNERS = ("even", "floor")
_LARGEST = 10_000  # pixels that a side is resized to


@dataclasses.dataclass(frozen=True)
class Preprocessing:
    """From upright RGB pixels to what a network takes; the centre crop has its image size.

    Attributes:
        resize: pixels of the shorter side before the crop; with `squash`, of both sides.
        squash: whether the whole image is resized to a square, whatever its shape.
        interpolation: one of `INTERPOLATIONS`, antialiased as Pillow's.
        corner: where the crop begins when half a pixel is left: "even", at the even one, as
            torchvision's and timm's; "floor", before it, as transformers'.
        mean, std: of each channel; pixels in 0..1 less `mean`, over `std`.

    Raises:
        ValueError: a value that makes no sense, in one sentence that names the field.
    """

    resize: int
    squash: bool = False
    interpolation: str = "bicubic"
    corner: str = "even"
    mean: Colour = IMAGENET_MEAN
    std: Colour = IMAGENET_STD

    def __post_init__(self) -> None:
        if type(self.resize) is not int or not 1 <= self.resize <= _LARGEST:
            raise ValueError(f"resize is {self.resize!r}; it must be 1 to {_LARGEST} pixels.")
        if not isinstance(self.squash, bool):
            raise ValueError(f"squash is {self.squash!r}; it must be true or false.")
        for name, choices in {"interpolation": INTERPOLATIONS, "corner": CORNERS}.items():
            if getattr(self, name) not in choices:
                raise ValueError(
                    f"{name} is {getattr(self, name)!r}; it must be one of {', '.join(choices)}."
                )
        for name in ("mean", "std"):
            object.__setattr__(self, name, colour(getattr(self, name), name))

    @classmethod
    def usual(cls, size: int) -> "Preprocessing":
        """What is assumed where nobody says: ImageNet's mean and std, 7/8 of the shorter side."""
        return cls(max(size, round(size / CROP_FRACTION)))

    def at(self, size: int, before: int) -> "Preprocessing":
        """The same for images of another size: `resize` grows as the crop, from `before`."""
        if size == before:
            return self
        return dataclasses.replace(self, resize=max(size, round(self.resize * size / before)))

    def describe(self, size: int) -> str:
        """`shorter side to 256 px (bicubic), centre 224 px; mean 0.485 ..., std ...`."""
        what = "whole image" if self.squash else "shorter side"
        square = f" x {self.resize}" if self.squash else ""
        crop = "" if self.squash and self.resize == size else f", centre {size} px"
        return (
            f"{what} to {self.resize}{square} px ({self.interpolation}){crop}; "
            f"mean {_numbers(self.mean)}, std {_numbers(self.std)}"
        )

    def to_json(self) -> dict[str, Any]:
        """All fields, JSON-able."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, fields: Any) -> "Preprocessing":
        """The inverse of `to_json`; raises ValueError on anything else."""
        names = {field.name for field in dataclasses.fields(cls)}
        if not isinstance(fields, dict) or fields.keys() != names:
            raise ValueError(f"the preprocessing must have {', '.join(sorted(names))}.")
        return cls(**fields)


def colour(values: Any, name: str) -> Colour:
    """Three numbers, of red, green and blue; above 0 for a `name` that ends with std.

    Raises:
        ValueError: they are not.
    """
    numbers = tuple(values) if isinstance(values, list | tuple) else ()
    right = len(numbers) == 3 and all(
        isinstance(x, int | float) and not isinstance(x, bool) and math.isfinite(x) for x in numbers
    )
    if not right or (name.endswith("std") and min(numbers) <= 0):
        above = " above 0" if name.endswith("std") else ""
        raise ValueError(
            f"{name} is {values!r}; it must be three numbers{above}, of red, green and blue."
        )
    red, green, blue = map(float, numbers)
    return red, green, blue


def _numbers(values: Colour) -> str:
    return " ".join(f"{value:.4g}" for value in values)
