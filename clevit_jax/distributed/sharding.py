"""The mesh of devices, where parameters live on it, and batches that span processes."""

import contextlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

AXES = ("data", "fsdp")


def make_mesh(
    data: int = -1, fsdp: int = 1, *, devices: Sequence[jax.Device] | None = None
) -> Mesh:
    """A mesh with axes `data` and `fsdp`; a batch is divided over both.

    Args:
        data: devices along `data`; -1 for all that `fsdp` leaves.
        fsdp: devices that share one copy of the parameters; -1 for all that `data` leaves.
        devices: to make the mesh of; all of JAX's by default.

    Raises:
        ValueError: the two do not multiply to the number of devices.
    """
    devices = list(jax.devices() if devices is None else devices)
    count = len(devices)
    if data == -1 and fsdp > 0:
        data = count // fsdp
    elif fsdp == -1 and data > 0:
        fsdp = count // data
    if data < 1 or fsdp < 1 or data * fsdp != count:
        raise ValueError(
            f"mesh.data x mesh.fsdp must use all {count} devices, not {data} x {fsdp}; "
            "set one of them to -1 to take what is left."
        )
    # Not `jax.make_mesh`, which orders TPUs by their place in the torus: here the devices of a
    # process lie side by side, so that the rows it loads are a block of the batch.
    devices.sort(key=lambda device: (device.process_index, device.id))
    grid = np.array(devices).reshape(data, fsdp)
    return Mesh(grid, AXES, axis_types=(AxisType.Auto,) * len(AXES))


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """The sharding of a batch: its first axis is divided over every device."""
    return NamedSharding(mesh, PartitionSpec(AXES))


def replicated(mesh: Mesh) -> NamedSharding:
    """The sharding of what every device has a whole copy of."""
    return NamedSharding(mesh, PartitionSpec())


def on_each_device(
    function: Callable[..., Any], mesh: Mesh | None, *, whole: int = 0
) -> Callable[..., Any]:
    """A function of a batch, run by each device on its own rows.

    Otherwise XLA would divide what is inside, and it cannot divide a Pallas kernel.

    Args:
        function: takes and returns trees of arrays [B, ...], each row by itself.
        mesh: whose devices the batch is divided over; None for one device.
        whole: number of the first arguments that every device takes whole, as parameters.
    """
    if mesh is None or mesh.size == 1:
        return function
    rows = PartitionSpec(mesh.axis_names)

    def run(*arguments: Any) -> Any:
        specs = [PartitionSpec()] * whole + [rows] * (len(arguments) - whole)
        return jax.shard_map(
            function, mesh=mesh, in_specs=tuple(specs), out_specs=rows, check_vma=False
        )(*arguments)

    return run


def state_sharding(mesh: Mesh, tree: Any) -> Any:
    """Shardings for a tree of arrays: replicated, or divided along `fsdp`.

    With more than one device along `fsdp`, an array is divided along its largest axis that the
    number divides; arrays under 2**14 numbers stay whole, since moving them costs more than they
    weigh. Parameters, moments and their average follow this one rule.
    """
    size = mesh.shape["fsdp"]

    def rule(leaf: Any) -> NamedSharding:
        axes = [axis for axis, length in enumerate(leaf.shape) if length % size == 0]
        if size == 1 or not axes or leaf.size < 2**14:
            return replicated(mesh)
        largest = max(axes, key=lambda axis: leaf.shape[axis])
        return NamedSharding(mesh, PartitionSpec(*[None] * largest, "fsdp"))

    return jax.tree.map(rule, tree)


def to_global(mesh: Mesh, batch: Mapping[str, np.ndarray]) -> dict[str, jax.Array]:
    """This process's rows of a batch -> arrays of the whole batch, divided over the mesh."""
    sharding = batch_sharding(mesh)
    return {
        name: jax.make_array_from_process_local_data(sharding, rows) for name, rows in batch.items()
    }


def no_transfers() -> contextlib.AbstractContextManager[None]:
    """Forbids what moves between host and device unasked; nothing where JAX_DISABLE_JIT is set.

    Without jit each constant is moved when it is met.
    """
    if jax.config.values["jax_disable_jit"]:
        return contextlib.nullcontext()
    return jax.transfer_guard("disallow")


def check_batch_size(name: str, size: int, parts: int) -> None:
    """Raises ValueError unless `size` images divide into `parts` equal shares."""
    if size < 1 or size % parts:
        near = [s for s in (size // parts * parts, (size // parts + 1) * parts) if s > 0]
        raise ValueError(
            f"{name} is {size}, which does not divide over {parts} devices x accumulation steps; "
            f"the nearest that does is {' or '.join(map(str, near))}."
        )
