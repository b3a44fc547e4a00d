"""Architecture of a Swin, inferred from the shapes of its state dict alone."""

import itertools
import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping

from clevit_jax.errors import WeightsError
from clevit_jax.model.config import MAX_STAGES, PATCH, SwinConfig, is_legal_image_size
from clevit_jax.system.quoting import quoted

_BLOCK = re.compile(r"layers\.(\d{1,2})\.blocks\.(\d{1,2})\.(.+)")


def infer_architecture(shapes: Mapping[str, tuple[int, ...]]) -> SwinConfig:
    """The architecture that most entries agree on, so that a wrong one among them stands out.

    Args:
        shapes: official name -> shape in the official layout, buffers included.

    Returns:
        A float32 config without drop path. The image size is that of the attention masks where
        there are any, else that of pre-training: one window per side in the last stage (224
        for window 7, 384 for window 12).

    Raises:
        WeightsError: there is too little to tell by.
    """
    blocks = [
        (int(m[1]), int(m[2]), m[3], shape)
        for name, shape in shapes.items()
        if (m := _BLOCK.fullmatch(name))
    ]
    tables = [
        (stage, shape)
        for stage, _, rest, shape in blocks
        if rest == "attn.relative_position_bias_table" and len(shape) == 2
    ]
    stages = 1 + max((stage for stage, *_ in blocks), default=-1)
    heads = [_most(shape[1] for at, shape in tables if at == stage) for stage in range(stages)]
    windows = [
        _most(window_of(shape[0]) for at, shape in tables if at == stage) for stage in range(stages)
    ]
    embed_dim = _most(
        _first(shapes, name)
        for name in (
            "patch_embed.proj.weight",
            "patch_embed.norm.weight",
            "patch_embed.norm.bias",
            "layers.0.blocks.0.norm1.weight",
            "layers.0.blocks.0.norm2.weight",
        )
    )
    depths = tuple(
        1 + max((block for at, block, *_ in blocks if at == stage), default=0)
        for stage in range(stages)
    )
    told = stages and embed_dim and all(heads) and all(windows)
    if not told or stages > MAX_STAGES or sum(depths) > len(shapes):
        known = quoted(sorted(shapes)[:5]) or "nothing"
        raise WeightsError(
            "The architecture cannot be told, for the patch embedding or the relative position "
            "bias table of a stage is missing, or is not that of a square window; the file holds "
            f"{known}, ..."
        )
    masks = [
        shape[0]
        for stage, _, rest, shape in blocks
        if stage == 0 and rest == "attn_mask" and len(shape) == 3
    ]
    window = max(windows)
    if not _shrinks(windows):
        raise WeightsError(
            f"The windows of its stages have {', '.join(map(str, windows))} tokens a side, and "
            "those of a Swin all have as many, down to the grid of the last stages: this is "
            "another network, such as timm's swin_s3."
        )
    try:
        return SwinConfig.of_file(
            image_size=_image_size(windows, _most(masks)),
            num_classes=_most(_first(shapes, name) for name in ("head.weight", "head.bias")) or 1,
            embed_dim=embed_dim,
            depths=depths,
            num_heads=tuple(heads),
            window=window,
        )
    except ValueError as error:
        raise WeightsError(f"The shapes are not those of a Swin: {error}") from error


def _most(values: Iterable[int]) -> int:
    """The most frequent value that is not 0, the first of equals; 0 when there is none."""
    counted = Counter(value for value in values if value)
    return counted.most_common(1)[0][0] if counted else 0


def _first(shapes: Mapping[str, tuple[int, ...]], name: str) -> int:
    return (shapes.get(name) or (0,))[0]


def window_of(rows: int) -> int:
    """The window whose bias table has so many rows, (2 window - 1)**2; 0 when there is none."""
    side = math.isqrt(rows)
    return (side + 1) // 2 if side * side == rows and side % 2 else 0


def _shrinks(windows: list[int]) -> bool:
    """Whether windows are one and the same, from some stage on cut to a grid that halves."""
    first = next((s for s, w in enumerate(windows) if w != windows[0]), len(windows))
    cut = windows[first:]
    halves = all(2 * after == before for before, after in itertools.pairwise(cut))
    return halves and all(window < windows[0] for window in cut)


def _image_size(windows: list[int], mask_windows: int) -> int:
    for stage, window in enumerate(windows):
        if window < max(windows):  # it shrank to the grid of its stage
            return window * PATCH * 2**stage
    masked = math.isqrt(mask_windows) * windows[0] * PATCH
    if is_legal_image_size(masked, windows[0], len(windows)):
        return masked
    return windows[0] * PATCH * 2 ** (len(windows) - 1)
