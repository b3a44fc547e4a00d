"""The mesh of devices, where parameters live on it, and batches that span processes."""

import collections
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

    Slices of TPUs lie one after another along `data`, and `fsdp` stays inside a slice: only
    gradients, features and sums go over the slower network between slices, never parameters.

    Args:
        data: devices along `data`; -1 for all that `fsdp` leaves.
        fsdp: devices that share one copy of the parameters; -1 for all that `data` leaves.
        devices: to make the mesh of; all of JAX's by default.

    Raises:
        ValueError: the two do not multiply to the number of devices, `fsdp` does not divide a
            slice, or slices differ in size.
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
    _check_slices(devices, fsdp)
    # Not `jax.make_mesh`, which orders TPUs by their place in the torus: here the devices of a
    # process lie side by side, so that the rows it loads are a block of the batch, and so do those
    # of a slice. Slices stand in the order of their processes: where these are numbered slice by
    # slice, as JAX numbers them on TPUs, rows lie as if there were no slices.
    first = dict[int, int]()
    for device in devices:
        index = slice_of(device)
        first[index] = min(device.process_index, first.get(index, device.process_index))
    devices.sort(key=lambda d: (first[slice_of(d)], slice_of(d), d.process_index, d.id))
    grid = np.array(devices).reshape(data, fsdp)
    return Mesh(grid, AXES, axis_types=(AxisType.Auto,) * len(AXES))


def slice_of(device: jax.Device) -> int:
    """The slice of a device, from 0; 0 where JAX tells none, as it does not where there is one."""
    return getattr(device, "slice_index", None) or 0


def _check_slices(devices: Sequence[jax.Device], fsdp: int) -> None:
    """Raises ValueError where slices of TPUs cannot hold whole groups of `fsdp` devices.

    JAX calls hosts of GPUs slices, too. Parameters may be divided over several of these, for their
    network is made for it.
    """
    sizes = collections.Counter(slice_of(d) for d in devices if d.platform == "tpu")
    if len(set(sizes.values())) > 1:
        found = ", ".join(f"slice {index} has {size}" for index, size in sorted(sizes.items()))
        raise ValueError(
            f"The slices differ in their number of devices ({found}), and what they compute "
            "together needs equal ones; start it on slices of one shape."
        )
    size = next(iter(sizes.values()), fsdp)
    if size % fsdp:
        fits = max(n for n in range(1, min(size, fsdp) + 1) if size % n == 0)
        raise ValueError(
            f"mesh.fsdp is {fsdp}, which does not divide the {size} devices of each of the "
            f"{len(sizes)} slices, and parameters divided over slices would cross the network "
            f"between them in every layer; set --config.mesh.data=-1 --config.mesh.fsdp={fits}."
        )


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
