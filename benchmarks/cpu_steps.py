"""The steps that `cpu.py` times, each in a process of its own (`timed_process.TimedProcess`).

A step: forward of a Swin-T at 224 in training mode without drop path, the mean cross-entropy of
1000 classes, and the gradient of all parameters, in float32. No optimizer. Or the matmuls of its
linear layers alone, see `cpu_products`.
"""

import resource
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks import cpu_products
from clevit_jax.performance import timed_process
from clevit_jax.performance.timed_process import Prepared
from clevit_jax.system.malloc import keep_freed_memory

OURS, TIMM, HUGGING_FACE, TORCH = "clevit_jax", "timm", "transformers", "torch"
SIZE, CLASSES = 224, 1000


def prepare_cpu_steps(request: dict[str, Any]) -> Prepared:
    """Builds and warms up a step.

    Args:
        request: `name` of the implementation; `products`, whether to time matmuls alone; `batch`,
            images; `threads`; `keep`, whether the process keeps freed memory, see `system.malloc`.
    """
    if request["keep"]:
        keep_freed_memory()
    name, batch, threads = request["name"], request["batch"], request["threads"]
    if name == TORCH:
        step, versions = cpu_products.theirs(batch, SIZE, threads)
    elif request["products"]:
        step, versions = cpu_products.ours(batch, SIZE)
    else:
        rng = np.random.default_rng(0)
        images = rng.standard_normal((batch, SIZE, SIZE, 3)).astype(np.float32)
        labels = rng.integers(0, CLASSES, batch)
        if name == OURS:
            step, versions = ours(images, labels)
        else:
            step, versions = theirs(name, images, labels, threads)

    def run(steps: int) -> None:
        for _ in range(steps):
            step()

    _, second = timed_process.warm_up(run)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    return Prepared(run, second, {"versions": versions, "resident_mib": peak})


def ours(images: np.ndarray, labels: np.ndarray) -> tuple[Callable[[], Any], str]:
    """The plain path of `swin.Swin`, compiled."""
    import jax
    import jax.numpy as jnp
    from flax import nnx

    from clevit_jax.model import swin
    from clevit_jax.model.config import SwinConfig

    config = SwinConfig.variant("tiny", image_size=SIZE, num_classes=CLASSES)
    graphdef, _ = swin.abstract_swin(config)

    def loss(params: Any, images: jax.Array, labels: jax.Array) -> jax.Array:
        logits, _ = nnx.merge(graphdef, params)(images)
        chosen = jnp.take_along_axis(jax.nn.log_softmax(logits), labels[:, None], axis=1)
        return -chosen.mean()

    params = swin.init_params(config, 0)
    arguments = params, jnp.asarray(images), jnp.asarray(labels, jnp.int32)
    compiled = jax.jit(jax.value_and_grad(loss)).lower(*arguments).compile()
    return lambda: jax.block_until_ready(compiled(*arguments)), f"jax {jax.__version__}"


def theirs(
    name: str, images: np.ndarray, labels: np.ndarray, threads: int
) -> tuple[Callable[[], Any], str]:
    """A PyTorch Swin of the same shape, eager."""
    import torch

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    if name == TIMM:
        import timm as library

        module = library.create_model(
            "swin_tiny_patch4_window7_224", num_classes=CLASSES, drop_path_rate=0.0
        )
    else:
        import transformers as library

        config = library.SwinConfig(num_labels=CLASSES, drop_path_rate=0.0)
        module = library.SwinForImageClassification(config)
    module.train()
    pixels = torch.from_numpy(images.transpose(0, 3, 1, 2).copy())
    wanted = torch.from_numpy(labels)

    def step() -> None:
        module.zero_grad(set_to_none=True)
        output = module(pixels)
        logits = output if name == TIMM else output.logits
        torch.nn.functional.cross_entropy(logits, wanted).backward()

    return step, f"{name} {library.__version__}, torch {torch.__version__}"


if __name__ == "__main__":
    timed_process.serve_process(prepare_cpu_steps)
