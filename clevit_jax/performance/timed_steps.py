"""Our steps, to be timed: the update of `jitted.make_jitted_steps`, and the forward pass.

`python -m clevit_jax.performance.timed_steps` is the child of `timed_process.TimedProcess`.
"""

import collections
import os
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from clevit_jax.config import resolve, restore_config
from clevit_jax.distributed import sharding
from clevit_jax.errors import first_line
from clevit_jax.inference.forward import make_forward
from clevit_jax.model import swin
from clevit_jax.model.preprocessing import Preprocessing
from clevit_jax.performance import timed_process
from clevit_jax.performance.cost import read_memory
from clevit_jax.performance.flops import forward_flops, training_flops
from clevit_jax.performance.timed_process import OutOfMemory, Prepared
from clevit_jax.steps.jitted import StepConfig, make_jitted_steps
from clevit_jax.steps.state import replicate
from clevit_jax.system import memory
from clevit_jax.system.faults import is_out_of_memory
from clevit_jax.system.malloc import keep_freed_memory

GIB = 2**30
MATMUL_SIDE = {"cpu": 2048}  # of the square matmul that the peak is measured by
LARGE_MATMUL_SIDE = 8192  # on accelerators
# Steps that are begun before the first of them has ended. On several devices of one CPU, XLA waits
# for ever on some dozens (jaxlib 0.10: each device waits in another's queue).
_IN_FLIGHT = 4


def prepare_our_steps(request: dict[str, Any]) -> Prepared:
    """Compiles and warms up a step.

    Args:
        request: `config`, as JSON; `num_classes`; `work`: "training", "inference", or "describe",
            for the facts alone; `batch`, images over all devices.

    Raises:
        OutOfMemory: it does not fit; on a CPU this is told from the compiler's plan.
        ValueError: a setting that cannot be used, in one sentence.
    """
    config = restore_config(request["config"]).copy_and_resolve_references()
    config.unlock()
    work = request["work"]
    config.batch_size = request.get("batch", config.batch_size)
    platform = jax.default_backend()
    if platform == "cpu":
        keep_freed_memory()  # as `train` does
    config.model.num_classes = request["num_classes"]
    settings = resolve(config, None, platform)
    mesh = sharding.make_mesh(*settings.mesh)
    step = settings.step
    facts = describe_device(step, mesh)
    if work == "describe":
        return Prepared(lambda steps: None, 1.0, facts)
    try:
        started = time.perf_counter()
        make = _training if work == "training" else _inference
        compiled, arguments, advance = make(step, mesh)
        facts["compile_seconds"] = time.perf_counter() - started
        planned = read_memory(compiled).peak
        _check_plan(planned, platform)
        run = _runner(compiled, arguments(), advance)
        facts["first_seconds"], second = timed_process.warm_up(run)
        facts["memory"], facts["memory_kind"] = _memory(planned)
        facts["peak_flops"] = measure_peak(step.model.dtype, mesh)
    except jax.errors.JaxRuntimeError as error:
        if not is_out_of_memory(error):
            raise ValueError(first_line(error)) from error
        raise OutOfMemory(first_line(error)[:200]) from error
    return Prepared(run, second, facts)


def describe_device(config: StepConfig, mesh: Mesh) -> dict[str, Any]:
    """The machine, the model and its FLOPs, as a JSON object."""
    device = mesh.devices.flat[0]
    model, views = config.model, config.views.count
    cosine = config.loss.contrast_kind == "supervised_cosine"  # the one that the peer has, too
    return {
        "platform": device.platform,
        "device": device.device_kind,
        "devices": mesh.size,
        "threads": threads(),
        "model": {
            **model.to_json(),
            "drop_path": model.drop_path,
            "dtype": jnp.dtype(model.dtype).name,
        },
        "description": model.describe(),
        "views": views,
        "loss": {
            "label_smoothing": config.loss.label_smoothing,
            "contrast": config.loss.contrast if views == 2 and cosine else 0.0,
            "cosine_margin": config.loss.cosine_margin,
            "clip_norm": config.optim.clip_norm,
        },
        "flops_an_image": {
            "training": training_flops(model, 1, views),
            "inference": forward_flops(model),
        },
    }


def threads() -> int:
    """Cores that this process may use, which is how many threads XLA's CPU client has."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _training(config: StepConfig, mesh: Mesh) -> Any:
    """Compiled update, its arguments, and how the result of one becomes those of the next."""
    steps = make_jitted_steps(config, mesh)
    abstract = (steps.abstract_state, steps.train_batch, steps.abstract_numbers)
    compiled = steps.train_step.trace(*abstract).lower().compile()

    def arguments() -> tuple[Any, ...]:
        shapes = steps.train_batch
        rng = np.random.default_rng(0)
        batch = {
            "image": rng.integers(0, 256, shapes["image"].shape, np.uint8),
            "label": rng.integers(0, config.model.num_classes, config.batch_size).astype(np.int32),
            "id": np.arange(config.batch_size, dtype=np.int32),
            "epoch": np.zeros(config.batch_size, np.int32),
        }
        batch = {name: jax.device_put(x, shapes[name].sharding) for name, x in batch.items()}
        return steps.initial_state(), batch, steps.numbers()

    return compiled, arguments, lambda result, arguments: (result[0], *arguments[1:])


def _inference(config: StepConfig, mesh: Mesh) -> Any:
    """Compiled forward pass, its arguments, and the same arguments for the next."""
    model = config.model
    whole, rows = sharding.replicated(mesh), sharding.batch_sharding(mesh)
    shape = (config.batch_size, model.image_size, model.image_size, 3)
    like = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=whole),
        swin.abstract_swin(model)[1],
    )
    images = jax.ShapeDtypeStruct(shape, jnp.uint8, sharding=rows)
    forward = jax.jit(
        make_forward(model, Preprocessing.usual(model.image_size)), out_shardings=rows
    )
    compiled = forward.lower(like, images).compile()

    def arguments() -> tuple[Any, ...]:
        params = replicate(swin.init_params(model, config.seed), mesh)
        pixels = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
        return params, jax.device_put(pixels, rows)

    return compiled, arguments, lambda result, arguments: arguments


def _runner(compiled: Any, arguments: tuple[Any, ...], advance: Any) -> Callable[[int], None]:
    held = [arguments]  # the state is donated, so each step takes that of the one before

    def run(steps: int) -> None:
        begun: collections.deque[Any] = collections.deque()
        for _ in range(steps):
            result = compiled(*held[0])
            held[0] = advance(result, held[0])
            begun.append(jax.tree.leaves(result)[-1])  # no part of the state, which is donated
            if len(begun) > _IN_FLIGHT:
                jax.block_until_ready(begun.popleft())
        jax.block_until_ready(result)

    return run


def _check_plan(planned: float, platform: str) -> None:
    if platform != "cpu":
        return
    free = memory.available()
    # All CPU devices live in the same memory.
    wanted = planned * jax.local_device_count()
    if wanted > memory.SHARE * free:
        raise OutOfMemory(
            f"the compiler plans {wanted / GIB:.2f} GiB, and {free / GIB:.2f} are free"
        )


def _memory(planned: float) -> tuple[float, str]:
    """Bytes of the device that needs most; "peak" where they were measured, else "plan"."""
    stats = [device.memory_stats() or {} for device in jax.local_devices()]
    key = "peak_bytes_in_use"
    peaks = [device[key] for device in stats if key in device]
    return (float(max(peaks)), "peak") if peaks else (planned, "plan")


def measure_peak(dtype: Any, mesh: Mesh) -> float:
    """FLOP/s of all devices in a large matmul, the best of several.

    0 where the step that is to be timed leaves no room for the matrices.
    """
    side = MATMUL_SIDE.get(mesh.devices.flat[0].platform, LARGE_MATMUL_SIDE)
    rows = NamedSharding(mesh, PartitionSpec(sharding.AXES))
    whole = sharding.replicated(mesh)

    def ones(count: int, where: NamedSharding) -> jax.Array:
        return jax.jit(lambda: jnp.ones((count, side), dtype), out_shardings=where)()

    best = float("inf")
    try:
        a, b = ones(side * mesh.size, rows), ones(side, whole)
        matmul = jax.jit(jnp.matmul, out_shardings=rows)
        matmul(a, b).block_until_ready()
        for _ in range(5):
            started = time.perf_counter()
            matmul(a, b).block_until_ready()
            best = min(best, time.perf_counter() - started)
    except jax.errors.JaxRuntimeError as error:
        if not is_out_of_memory(error):
            raise
    return 2 * side**3 * mesh.size / best


if __name__ == "__main__":
    timed_process.serve_process(prepare_our_steps)
