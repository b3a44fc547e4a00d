"""Window attention: softmax(q k^T / sqrt(D) + bias + mask) v inside each window.

Shapes: B images, n windows per image, N tokens per window, C channels, h heads, D = C / h.
Source: Liu et al., Swin Transformer, ICCV 2021, section 3.2; official `swin_transformer.py`.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from clevit_jax.kernels.arithmetic import MASKED_LOGIT
from clevit_jax.model.ops import attention


@functools.cache
def relative_position_index(window: int) -> np.ndarray:
    """Row of the bias table for each ordered pair of tokens of a window.

    Returns:
        int32 [N, N], N = window**2; values in [0, (2 * window - 1)**2).
    """
    position = np.stack(np.meshgrid(np.arange(window), np.arange(window), indexing="ij"))
    position = position.reshape(2, -1)  # [2, N] row and column of each token
    offset = position[:, :, None] - position[:, None, :] + window - 1  # [2, N, N]
    return (offset[0] * (2 * window - 1) + offset[1]).astype(np.int32)


@functools.cache
def shift_mask(grid: tuple[int, int], window: int, shift: int) -> np.ndarray:
    """Mask added to the scores of a shifted grid, so that only true neighbours meet.

    After the cyclic shift the last windows hold tokens of up to four distant regions of the
    image; pairs from different regions get -100.

    Args:
        grid: tokens in height and width.
        window: side of a window in tokens; divides both.
        shift: tokens by which the grid is rolled up and left; 0 < shift < window.

    Returns:
        float32 [n, N, N].
    """
    height, width = grid

    def band(size: int) -> np.ndarray:  # 0, 1 or 2: which of the three bands a coordinate is in
        index = np.arange(size)
        return (index >= size - window).astype(np.int32) + (index >= size - shift)

    region = 3 * band(height)[:, None] + band(width)[None, :]  # [H, W]
    region = region.reshape(height // window, window, width // window, window)
    region = region.transpose(0, 2, 1, 3).reshape(-1, window * window)  # [n, N]
    different = region[:, :, None] != region[:, None, :]
    return np.where(different, np.float32(MASKED_LOGIT), np.float32(0))


def split_heads(qkv: jax.Array, num_heads: int) -> list[jax.Array]:
    """Queries (scaled by D^-1/2), keys and values, each [B, n, h, N, D], of qkv [B, n, N, 3C]."""
    shape = (*qkv.shape[:-1], num_heads, qkv.shape[-1] // (3 * num_heads))
    q, k, v = jnp.split(qkv, 3, axis=-1)
    q = q * jnp.asarray(shape[-1] ** -0.5, q.dtype)
    return [x.reshape(shape).swapaxes(2, 3) for x in (q, k, v)]


def window_attention(
    qkv: jax.Array, bias: jax.Array, *, num_heads: int, mask: np.ndarray | None = None
) -> jax.Array:
    """Multi-head attention inside windows.

    Args:
        qkv: [B, n, N, 3C], queries, keys and values side by side, heads within each.
        bias: float32 [h, N, N], the relative position bias.
        num_heads: h; divides C.
        mask: float32 [n, N, N] from `shift_mask`, or None for an unshifted grid.

    Returns:
        [B, n, N, C] in the dtype of `qkv`; the softmax is computed in float32.
    """
    out = attention(*split_heads(qkv, num_heads), bias, mask)  # [B, n, h, N, D]
    return out.swapaxes(2, 3).reshape(*qkv.shape[:-1], qkv.shape[-1] // 3)
