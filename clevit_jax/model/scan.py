"""The blocks of a stage as a `jax.lax.scan` over pairs, which compiles one pair for all."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

FEWEST = 6  # blocks of a stage for which a scan is worth it


def scan_blocks(
    blocks: Sequence[Any], x: jax.Array, noise: jax.Array | None, *, remat: bool
) -> jax.Array:
    """Runs blocks that are alike but for their parameters and their rate, in pairs.

    The parameters are stacked here, inside the traced function, so that they keep their names
    outside; that takes room for them, and for their gradients, once more.

    Args:
        blocks: `swin.Block`s of a stage; those at even indices are alike, and those at odd ones.
            A last one without a partner runs by itself.
        x: tokens [B, H, W, C].
        noise: float32 [B, 2 * blocks], uniform, for drop path; or None.
        remat: whether to recompute each block in the backward pass.

    Returns:
        Tokens [B, H, W, C].
    """
    count = len(blocks) // 2
    graphs = [nnx.split(block)[0] for block in blocks[:2]]
    params = [
        jax.tree.map(
            lambda *leaves: jnp.stack(leaves),
            *(nnx.to_pure_dict(nnx.state(block)) for block in blocks[parity : 2 * count : 2]),
        )
        for parity in (0, 1)
    ]
    # The two constants of a block, rounded from float64 as they are where it runs by itself.
    rates = np.array([block.rate for block in blocks[: 2 * count]])
    drops = np.stack([rates, 1 / (1 - rates)], 1).astype(np.float32).reshape(count, 2, 2)
    batch = x.shape[0]
    noises = None
    if noise is not None:  # [B, pairs * 2 * 2] -> [pairs, 2, B, 2]
        noises = noise[:, : 4 * count].reshape(batch, count, 2, 2).transpose(1, 2, 0, 3)

    def pair(x: jax.Array, given: Any) -> tuple[jax.Array, None]:
        params, drop, noise = given
        for parity in (0, 1):

            def block(x: Any, params: Any, noise: Any, drop: Any, graph: Any = graphs[parity]):
                return nnx.merge(graph, params)(x, noise, drop)

            run = jax.checkpoint(block, prevent_cse=False) if remat else block
            x = run(x, params[parity], None if noise is None else noise[parity], drop[parity])
        return x, None

    x, _ = jax.lax.scan(pair, x, (params, jnp.asarray(drops), noises))
    for index in range(2 * count, len(blocks)):
        last = None if noise is None else noise[:, 2 * index : 2 * index + 2]
        x = jax.checkpoint(blocks[index].__call__)(x, last) if remat else blocks[index](x, last)
    return x
