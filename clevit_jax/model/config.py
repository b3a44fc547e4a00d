"""`SwinConfig`: a Swin's architecture, the published variants, and the legal image sizes."""

import dataclasses
from typing import Any, Literal

import jax.numpy as jnp

from clevit_jax.errors import WeightsError
from clevit_jax.kernels.config import KernelConfig

PATCH = 4  # pixels per side of a patch; fixed in every published Swin
MLP_RATIO = 4
# The fields that say what parameters mean; the others say how they are used.
_SHAPE_FIELDS = ("image_size", "num_classes", "embed_dim", "depths", "num_heads", "window")
# The largest number of each field, and of stages, that a file or a setting may ask for: what is
# read in a moment may ask for more memory and time than there is.
LARGEST = {
    "image_size": 8192,  # int32 holds the products of a crop's sizes up to there
    "num_classes": 10**6,
    "embed_dim": 4096,
    "depths": 100,
    "num_heads": 4096,
    "window": 64,
}
MAX_STAGES = 8

REMATS = ("none", "blocks")
DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}  # of activations
VARIANTS = {
    "tiny": {"embed_dim": 96, "depths": (2, 2, 6, 2), "num_heads": (3, 6, 12, 24)},
    "small": {"embed_dim": 96, "depths": (2, 2, 18, 2), "num_heads": (3, 6, 12, 24)},
    "base": {"embed_dim": 128, "depths": (2, 2, 18, 2), "num_heads": (4, 8, 16, 32)},
    "large": {"embed_dim": 192, "depths": (2, 2, 18, 2), "num_heads": (6, 12, 24, 48)},
}


@dataclasses.dataclass(frozen=True)
class SwinConfig:
    """Architecture and numerics of a Swin.

    Attributes:
        image_size: pixels per side; see `legal_image_sizes`.
        num_classes: rows of the head.
        embed_dim: channels of the first stage; doubled by every later one.
        depths: blocks of each stage.
        num_heads: attention heads of each stage; divide its channels.
        window: tokens per side of a window.
        drop_path: rate of the last block; rises linearly from 0 at the first.
        dtype: of activations; parameters, statistics, features and logits are float32.
        remat: `blocks` recomputes each block's inside in the backward pass.
        kernels: where fused kernels for TPUs take the place of `swin.Block`; None for nowhere.

    Raises:
        ValueError: on values that make no network, with the nearest image sizes that would.
    """

    image_size: int = 448
    num_classes: int = 1000
    embed_dim: int = 128
    depths: tuple[int, ...] = (2, 2, 18, 2)
    num_heads: tuple[int, ...] = (4, 8, 16, 32)
    window: int = 7
    drop_path: float = 0.0
    dtype: Any = jnp.float32
    remat: Literal["none", "blocks"] = "none"
    kernels: KernelConfig | None = None

    @classmethod
    def variant(cls, name: str, **overrides: Any) -> "SwinConfig":
        """The published `tiny`, `small`, `base` or `large`, with any field overridden."""
        if name not in VARIANTS:
            known = ", ".join(VARIANTS)
            raise ValueError(f"model.variant is {name!r}; it must be one of {known}.")
        return cls(**{**VARIANTS[name], **overrides})

    def __post_init__(self) -> None:
        if not self.depths or len(self.depths) != len(self.num_heads):
            raise ValueError(
                f"model.depths is {self.depths} and model.num_heads {self.num_heads}; each must "
                "have one entry per stage."
            )
        if min(self.depths) < 1:
            raise ValueError(f"model.depths is {self.depths}; each stage must have a block.")
        if self.window < 2 or self.embed_dim < 1 or self.num_classes < 1:
            raise ValueError(
                f"model.window ({self.window}) must be at least 2, model.embed_dim "
                f"({self.embed_dim}) and the number of classes ({self.num_classes}) at least 1."
            )
        for stage, heads in enumerate(self.num_heads):
            if heads < 1 or self.channels(stage) % heads:
                raise ValueError(
                    f"model.num_heads[{stage}] is {heads}; it must divide the "
                    f"{self.channels(stage)} channels of that stage."
                )
        if not 0 <= self.drop_path < 1:
            raise ValueError(f"model.drop_path is {self.drop_path}; it must be in [0, 1).")
        if self.remat not in REMATS:
            raise ValueError(f"model.remat is {self.remat!r}; it must be 'none' or 'blocks'.")
        if not is_legal_image_size(self.image_size, self.window, len(self.depths)):
            near = legal_image_sizes(self.image_size, self.window, len(self.depths))
            raise ValueError(
                f"image_size {self.image_size} does not fit model.window {self.window} with "
                f"{len(self.depths)} stages; the nearest sizes that do are "
                f"{' and '.join(map(str, near))}."
            )

    def channels(self, stage: int) -> int:
        """Channels of a stage, counted from 0; stage -1 is the last."""
        return self.embed_dim * 2 ** (stage % len(self.depths))

    def grid(self, stage: int) -> int:
        """Tokens per side at a stage."""
        return self.image_size // PATCH // 2**stage

    def window_and_shift(self, stage: int, index: int) -> tuple[int, int]:
        """Side of the windows of block `index` of a stage, and their shift, in tokens."""
        grid = self.grid(stage)
        # A grid that is a single window has no neighbours to shift to.
        shift = self.window // 2 if index % 2 and grid > self.window else 0
        return min(self.window, grid), shift

    @property
    def num_drop_paths(self) -> int:
        """Columns of the `drop_path_noise` that the model takes: two per block."""
        return 2 * sum(self.depths)

    def layer_shapes(self) -> dict[str, tuple[int, int, int]]:
        """The layers that a `tap` of `swin.Swin` is called with, in their order.

        Returns:
            Name -> (H, W, C), the grid and the channels of its tokens.
        """
        shapes = {"patch_embed": (self.grid(0), self.grid(0), self.channels(0))}
        last = len(self.depths) - 1
        for stage, depth in enumerate(self.depths):
            shape = (self.grid(stage), self.grid(stage), self.channels(stage))
            for index in range(depth):
                block = f"layers.{stage}.blocks.{index}"
                parts = ("norm1", "attn", "norm2", "mlp")
                shapes |= {f"{block}.{part}": shape for part in parts} | {block: shape}
            if stage < last:
                merged = (self.grid(stage + 1), self.grid(stage + 1), self.channels(stage + 1))
                shapes[f"layers.{stage}.downsample"] = merged
        return shapes | {"norm": (self.grid(last), self.grid(last), self.channels(last))}

    def describe(self) -> str:
        """`Swin-base: embed 128, depths 2-2-18-2, heads 4-8-16-32, window 7, 21841 classes`."""
        names = [
            name
            for name, shape in VARIANTS.items()
            if all(getattr(self, field) == value for field, value in shape.items())
        ]
        return (
            f"Swin{'-' + names[0] if names else ''}: embed {self.embed_dim}, "
            f"depths {_dashes(self.depths)}, heads {_dashes(self.num_heads)}, "
            f"window {self.window}, {self.num_classes} classes"
        )

    def to_json(self) -> dict[str, Any]:
        """The fields that say what the parameters mean, JSON-able; no dtype and no drop path."""
        return {field: getattr(self, field) for field in _SHAPE_FIELDS}

    @classmethod
    def from_json(cls, fields: Any) -> "SwinConfig":
        """The inverse of `to_json`, in float32 and without drop path.

        Raises:
            WeightsError: fields that `to_json` does not write, or that make no network.
        """
        try:
            if set(fields) != set(_SHAPE_FIELDS):
                raise ValueError(f"it must have {', '.join(_SHAPE_FIELDS)}")
            values: Any = {
                name: tuple(value) if isinstance(value, list) else value
                for name, value in fields.items()
            }
            whole = all(
                isinstance(x, int) and not isinstance(x, bool)
                for value in values.values()
                for x in (value if isinstance(value, tuple) else (value,))
            )
            if not whole:
                raise ValueError("it must hold whole numbers alone")
            return cls.of_file(**values)
        except (TypeError, ValueError) as error:
            raise WeightsError(f"The architecture cannot be used: {error}") from error

    @classmethod
    def of_file(cls, **fields: Any) -> "SwinConfig":
        """A config by numbers that a file holds, and so may be any; none is over `LARGEST`.

        Raises:
            ValueError: on such numbers, and as `SwinConfig`.
        """
        stages = len(fields["depths"])
        if stages > MAX_STAGES:
            raise ValueError(f"it has {stages} stages; at most {MAX_STAGES} are read")
        for name, value in fields.items():
            largest = max(value) if isinstance(value, tuple) and value else value
            if isinstance(largest, int) and largest > LARGEST[name]:
                raise ValueError(f"{name} is {largest:.3g}; at most {LARGEST[name]:,} is read")
        return cls(**fields)


def is_legal_image_size(size: int, window: int, stages: int) -> bool:
    """Whether each stage has a whole number of windows, or a grid smaller than one."""
    if size < 1 or size % (PATCH * 2 ** (stages - 1)):
        return False
    grids = [size // PATCH // 2**stage for stage in range(stages)]
    return all(grid <= window or grid % window == 0 for grid in grids)


def legal_image_sizes(size: int, window: int, stages: int) -> list[int]:
    """The nearest legal image sizes below (if there is one) and above `size`, in pixels."""
    step = PATCH * 2 ** (stages - 1)
    below = range(size // step * step, 0, -step)
    # Multiples of step * window are always legal, so the search upwards ends.
    above = range(max(size, 0) // step * step + step, max(size, 0) + step * (window + 1), step)
    nearest = (
        next((s for s in sizes if is_legal_image_size(s, window, stages)), None)
        for sizes in (below, above)
    )
    return [s for s in nearest if s is not None]


def _dashes(numbers: tuple[int, ...]) -> str:
    return "-".join(map(str, numbers))
