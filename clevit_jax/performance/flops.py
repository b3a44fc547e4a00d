"""FLOPs of a Swin, counted by hand: the numerator of utilisation."""

from clevit_jax.model.config import MLP_RATIO, PATCH, SwinConfig


def forward_flops(model: SwinConfig) -> float:
    """FLOPs of the matmuls of one image's forward pass; a multiply-add counts as two."""
    tokens = model.grid(0) ** 2
    total = tokens * 3 * PATCH**2 * model.channels(0)
    for stage, depth in enumerate(model.depths):
        channels, tokens = model.channels(stage), model.grid(stage) ** 2
        window, _ = model.window_and_shift(stage, 0)
        linear = (4 + 2 * MLP_RATIO) * channels**2  # qkv, projection, and the two of the MLP
        attention = 2 * window**2 * channels  # queries by keys, and weights by values
        total += depth * tokens * (linear + attention)
        if stage + 1 < len(model.depths):
            total += tokens // 4 * 4 * channels * 2 * channels  # merging four tokens to one
    return 2.0 * (total + model.channels(-1) * model.num_classes)


def training_flops(model: SwinConfig, images: int, views: int) -> float:
    """FLOPs of an update: the backward pass is twice the forward, and nothing is recomputed."""
    return 3 * forward_flops(model) * images * views
