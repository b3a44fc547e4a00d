"""`KernelConfig`: where and how Pallas kernels run."""

import dataclasses

from jax.sharding import Mesh

# VMEM of a chip in MiB, by the beginning of JAX's name for it.
# Source: `jax.experimental.pallas.tpu.get_tpu_info` of jax 0.10.2.
_VMEM = {"TPU v4": 16, "TPU v5 lite": 128, "TPU v5e": 128, "TPU v5": 64, "TPU v6": 128, "TPU7": 64}


@dataclasses.dataclass(frozen=True)
class KernelConfig:
    """Where and how kernels run.

    Attributes:
        mesh: the devices that images are divided over, along all its axes; None for one device.
        vmem: bytes of VMEM that a kernel may use.
        interpret: run them in Pallas's interpreter, on any device; for tests.
    """

    mesh: Mesh | None = None
    vmem: int = 56 << 20
    interpret: bool = False


def make_kernel_config(mesh: Mesh, *, interpret: bool) -> KernelConfig:
    """The config for the chips of a mesh; an eighth of their VMEM is left to the compiler."""
    name = mesh.devices.flat[0].device_kind
    size = next((mib for prefix, mib in _VMEM.items() if name.startswith(prefix)), 64)
    return KernelConfig(mesh, (size << 20) // 8 * 7, interpret)
