"""The products with kernels of the step that `cpu_steps` makes, and nothing else.

Of each linear layer of a Swin-T's blocks and mergings: its forward product and both gradients, as
often as the step computes them. What they take is what no order of the other work can save.
"""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from clevit_jax.model.config import MLP_RATIO, SwinConfig

OVER_CHANNELS = (((1,), (0,)), ((), ()))


def shapes(batch: int, size: int) -> Iterator[tuple[int, int, int, int]]:
    """Tokens, channels in, channels out and number of each kind of layer."""
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
    """By XLA, as `gradients.dot_general` has them."""
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
    """By torch, as its autograd has them."""
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
