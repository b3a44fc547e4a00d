"""The matmuls of the linear layers in the step of `cpu_steps`, and nothing else.

For each linear layer of a Swin-T's blocks and mergings: the forward matmul and those of both
gradients, as often as the step computes them. Their time is a floor: no order of the other work can
save it.
"""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from clevit_jax.model.config import MLP_RATIO, SwinConfig

OVER_CHANNELS = (((1,), (0,)), ((), ()))


def shapes(batch: int, size: int) -> Iterator[tuple[int, int, int, int]]:
    """(tokens, channels in, channels out, number of layers) of each kind of layer."""
    config = SwinConfig.variant("tiny", image_size=size, num_classes=1)
    for stage, depth in enumerate(config.depths):
        tokens, c = batch * config.grid(stage) ** 2, config.channels(stage)
        wide = MLP_RATIO * c
        for i, o in ((c, 3 * c), (c, c), (c, wide), (wide, c)):
            yield tokens, i, o, depth
        if stage < len(config.depths) - 1:
            yield tokens // 4, 4 * c, 2 * c, 1


def _arrays(tokens: int, i: int, o: int) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.standard_normal(s, np.float32) for s in ((tokens, i), (i, o), (tokens, o))]


def ours(batch: int, size: int) -> tuple[Callable[[], Any], str]:
    """The matmuls by XLA, as in `ops.dot_general`."""
    import jax
    import jax.numpy as jnp

    from clevit_jax.model import ops

    def layer(x: jax.Array, kernel: jax.Array, grad: jax.Array) -> Any:
        out, pull = jax.vjp(lambda x, k: ops.dot_general(x, k, OVER_CHANNELS), x, kernel)
        return out, pull(grad)

    layers = []
    for *shape, count in shapes(batch, size):
        arguments = [jnp.asarray(a) for a in _arrays(*shape)]
        compiled = jax.jit(layer).lower(*arguments).compile()
        layers += [(compiled, arguments)] * count

    def step() -> None:
        for compiled, arguments in layers:
            jax.block_until_ready(compiled(*arguments))

    return step, f"jax {jax.__version__}"


def theirs(batch: int, size: int, threads: int) -> tuple[Callable[[], Any], str]:
    """The matmuls by torch, as in its autograd."""
    import torch

    torch.set_num_threads(threads)
    layers = []
    for *shape, count in shapes(batch, size):
        x, kernel, grad = (torch.from_numpy(a) for a in _arrays(*shape))
        layers += [(x, kernel.T.contiguous(), grad)] * count

    def step() -> None:
        for x, weight, grad in layers:
            torch.nn.functional.linear(x, weight), grad @ weight, grad.T @ x

    return step, f"torch {torch.__version__}"
