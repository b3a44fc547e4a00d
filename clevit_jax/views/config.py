"""`ViewConfig`: the options of `make_views`, by which the two views of CLE-ViT are made."""

import dataclasses

from clevit_jax.kernels.config import KernelConfig
from clevit_jax.kernels.rotation import MAX_DEGREES
from clevit_jax.model.preprocessing import IMAGENET_MEAN, IMAGENET_STD, Colour, colour

KINDS = ("full", "base", "mask_only", "swap_only")
ERASING_KINDS = ("full", "mask_only")
SHUFFLING_KINDS = ("full", "swap_only")


@dataclasses.dataclass(frozen=True)
class ViewConfig:
    """The options of `make_views`; the defaults are those of the official code.

    Raises:
        ValueError: a value that makes no sense, in one sentence that names the field.
    """

    kind: str = "full"  # full | base (anchor alone) | mask_only | swap_only
    size: int = 448  # side of a view, pixels; the config's `image_size`
    crop_scale: tuple[float, float] = (0.67, 1.0)  # area of the crop over that of the image
    crop_ratio: tuple[float, float] = (3 / 4, 4 / 3)  # width over height of the crop
    brightness: float = 0.3  # factor uniform in 1 +- this; 0 switches it off
    degrees: float = 15.0  # angle uniform in +- this; 0 switches it off
    flip: float = 0.5  # probability of the horizontal flip
    erase_area: tuple[float, float] = (0.15, 0.45)  # area of the box over that of the view
    erase_ratio: tuple[float, float] = (0.3, 3.3)  # height over width of the erased box
    mean: Colour = IMAGENET_MEAN  # of each channel, for pixels in 0..1
    std: Colour = IMAGENET_STD
    parts: int = 2  # the positive is shuffled in parts x parts pieces
    # How a TPU crops and rotates, where a gather is slow; None for what XLA makes of it.
    kernel: KernelConfig | None = None

    @property
    def count(self) -> int:
        """Views per image: the anchor, and the positive where there is one."""
        return 1 if self.kind == "base" else 2

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"views.kind is {self.kind!r}; it must be one of {', '.join(KINDS)}.")
        if self.size < 1:
            raise ValueError(f"image_size is {self.size}; it must be at least 1 pixel.")
        for name in ("mean", "std"):
            object.__setattr__(self, name, colour(getattr(self, name), f"views.{name}"))
        pairs = {"crop_scale": 1, "crop_ratio": 100, "erase_area": 1, "erase_ratio": 100}
        for name, highest in pairs.items():
            pair = tuple(getattr(self, name))  # a list, as read from JSON, would not hash
            object.__setattr__(self, name, pair)
            if len(pair) != 2 or not 0 < pair[0] <= pair[1] <= highest:
                raise ValueError(
                    f"views.{name} is {pair}; it must be (low, high), 0 < low <= high <= {highest}."
                )
        for name, highest in {"brightness": 1, "degrees": 180, "flip": 1}.items():
            value = getattr(self, name)
            if not 0 <= value <= highest:
                raise ValueError(f"views.{name} is {value}; it must lie in 0..{highest}.")
        if self.kernel is not None and self.degrees > MAX_DEGREES:
            raise ValueError(
                f"views.degrees is {self.degrees}; the kernel rotates by {MAX_DEGREES} at most."
            )
        if self.parts < 1:
            raise ValueError(f"views.parts is {self.parts}; it must be at least 1.")
        if self.kind in SHUFFLING_KINDS and self.size % self.parts:
            raise ValueError(
                f"views.parts is {self.parts}, which does not divide image_size {self.size}."
            )
