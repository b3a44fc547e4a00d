"""Machines by name (`v5e:4x4`, `v5e:4x4*2`, `h200:8`), which a step is compiled for elsewhere.

Figures are per device, as JAX counts devices. Peaks, bandwidths and interconnects are those of
Google's pages on each TPU version (docs.cloud.google.com/tpu/docs/v4, v5e, v5p, v6e, tpu7x) and of
NVIDIA's data sheets; the memory of a TPU is what its compiler says that it has. The network between
slices ("data center network") is that of these pages, too: per chip (v5p 50 Gbps, TPU7x 100), or
that of a pod by its 256 chips (v5e 6.4 Tbps, v6e 25.6).

Clocks of TPUs are derived: the peak divided by the FLOPs per cycle of the matrix units, the power
of two above what the compiler's own estimate gives for a matmul of 8192 x 8192 bfloat16
matrices (libtpu 0.0.42.1: v4 117,756 of 131,072; v5e 115,044 of 131,072; v5p 236,349 of 262,144;
v6e 369,231 of 524,288; TPU7x 422,142 of 524,288).
"""

import dataclasses
import importlib.metadata
import math
import os
import re
from collections.abc import Sequence

import jax
import psutil
from jax.experimental import topologies

from clevit_jax.distributed.sharding import slice_of
from clevit_jax.errors import ConfigError, first_line
from clevit_jax.system.logging import quiet

GIB = 2**30
GPU_SHARE = 0.75  # of a GPU's memory that JAX takes unless XLA_PYTHON_CLIENT_MEM_FRACTION is set
_GPUS_PER_HOST = 8


@dataclasses.dataclass(frozen=True)
class Chip:
    """Figures of one device of a kind.

    Attributes:
        peak: dense bfloat16 FLOP per second.
        memory: bytes that a program may use.
        bandwidth: bytes per second of the memory.
        interconnect: bytes per second that a device sends over all its links, or None.
        clock: cycles per second of the compiler's estimates, or None where it gives none.
        network: bytes per second that a device sends to other slices, when all of its host do, or
            None where it is not known.
    """

    peak: float
    memory: float
    bandwidth: float
    interconnect: float | None = None
    clock: float | None = None
    network: float | None = None


TPUS = {
    # libtpu describes v4 as two devices per chip; a Cloud TPU v4 joins them to one.
    "v4": Chip(275e12 / 2, 15.25 * GIB, 1228e9 / 2, 2400e9 / 8 / 2, 275e12 / 2 / 2**17),
    "v5e": Chip(197e12, 15.75 * GIB, 819e9, 1600e9 / 8, 197e12 / 2**17, 25e9 / 8),
    "v5p": Chip(459e12, 95.74 * GIB, 2765e9, 4800e9 / 8, 459e12 / 2**18, 50e9 / 8),
    "v6e": Chip(918e12, 31.25 * GIB, 1640e9, 3584e9 / 8, 918e12 / 2**19, 100e9 / 8),
    # Two devices per chip: half of its figures each.
    "tpu7x": Chip(
        2307e12 / 2, 94.75 * GIB, 7380e9 / 2, 9600e9 / 8 / 2, 2307e12 / 2 / 2**19, 100e9 / 8 / 2
    ),
}
GPUS = {  # SXM; the memory that the driver shows; NVLink one way
    "h100": Chip(989.4e12, 84978434048, 3352.32e9, 450e9),
    "h200": Chip(989.4e12, 150754820096, 4800e9, 450e9),
}
# How the CUDA compiler wants an H100 or H200 described: OpenXLA's published figures of an H100 SXM
# (xla/tools/hlo_opt/gpu_specs/h100_sxm.txtpb), with the memory of the one that is asked for.
_HOPPER = """
gpu_device_info {{
  threads_per_block_limit: 1024 threads_per_warp: 32 threads_per_core_limit: 2048
  shared_memory_per_block: 49152 shared_memory_per_block_optin: 232448
  shared_memory_per_core: 233472 core_count: 132 fpus_per_core: 128
  block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
  memory_bandwidth: {bandwidth} device_memory_size: {memory} l2_cache_size: 52428800
  clock_rate_ghz: 1.98 cuda_compute_capability {{ major: 9 }}
  registers_per_core_limit: 65536 registers_per_block_limit: 65536
}}
platform_name: "CUDA" dnn_version_info {{ major: 9 minor: 8 }}
runtime_version {{ major: 13 }} device_description_str: "{name}"
"""


@dataclasses.dataclass(frozen=True)
class Target:
    """A machine to compile for.

    Attributes:
        name: as it was asked for.
        platform: "tpu", "gpu" or "cpu".
        lowering: the same in the compiler's words: "tpu", "cuda", "cpu".
        devices: JAX's devices, which need not be here.
        chip: figures of one; None where they are not known (`local` CPUs and unknown chips).
        memory: bytes per device that a program may use.
        options: compiler options.
        software: names and versions of the packages that compile.
    """

    name: str
    platform: str
    lowering: str
    devices: Sequence[jax.Device]
    chip: Chip | None
    memory: float
    options: dict[str, object]
    software: str

    @property
    def processes(self) -> int:
        """Hosts, with a process each."""
        return len({device.process_index for device in self.devices})

    @property
    def slices(self) -> int:
        """Slices of TPUs, each with its own links; 1 of other devices."""
        if self.platform != "tpu":
            return 1
        return len({slice_of(device) for device in self.devices})


def find_target(name: str) -> Target:
    """A machine by its name: `v5e:4x4`, `v5e:4x4*2` (two slices of 4x4), `h200:8`, `local`.

    Raises:
        ConfigError: there is no such machine, or what compiles for it is not installed.
    """
    kind, _, shape = "".join(name.lower().split()).partition(":")
    if kind == "local":
        return _local()
    shape, star, slices = shape.partition("*")
    if kind in GPUS and star:
        raise ConfigError(
            f"--topology is {name!r}; slices are of TPUs: give the number of all GPUs, such as "
            f"{kind}:16, two hosts of {_GPUS_PER_HOST}."
        )
    if kind in TPUS and re.fullmatch(r"\d+(x\d+){1,2}", shape):
        if star and not re.fullmatch(r"0*[1-9]\d{0,3}", slices):
            raise ConfigError(
                f"--topology is {name!r}; after * stands how many slices there are, from 1 to "
                f"9999: {kind}:{shape}*2."
            )
        return _tpu(name, kind, shape, int(slices or 1))
    if kind in GPUS and shape.isdigit() and int(shape):
        return _gpu(name, kind, int(shape))
    tpus = [f"{k}:2x2x1" if k in ("v4", "v5p", "tpu7x") else f"{k}:4x4" for k in TPUS]
    known = ", ".join([*tpus, *(f"{k}:8" for k in GPUS)])
    raise ConfigError(
        f"--topology is {name!r}; it must be local, or a kind of chip and its shape, as {known}; "
        "v5e:4x4*2 is two slices."
    )


def _local() -> Target:
    devices = jax.devices()
    stats = devices[0].memory_stats() or {}
    total = psutil.virtual_memory().total / jax.local_device_count()
    platform = jax.default_backend()
    kind = devices[0].device_kind.lower()
    chip = {"tpu v4": "v4", "tpu v5 lite": "v5e", "tpu v5": "v5p", "tpu v6 lite": "v6e"}.get(kind)
    chip = chip or next((gpu for gpu in GPUS if gpu in kind), None)
    return Target(
        name="local",
        platform=platform,
        lowering="cuda" if platform == "gpu" else platform,
        devices=devices,
        chip=(TPUS | GPUS).get(chip or ""),
        memory=stats.get("bytes_limit", total),
        options={},
        software=f"jax {jax.__version__}",
    )


def _tpu(name: str, kind: str, shape: str, slices: int) -> Target:
    _need("libtpu", "tpu")
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")  # there is no metadata server to ask
    os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")
    os.environ.setdefault("TPU_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")  # no chip is touched
    jax.config.update("jax_platforms", "cpu")
    try:
        with quiet(stderr=True):
            topology = topologies.get_topology_desc(
                platform="tpu", topology_name=f"{kind}:{shape}", num_slices=slices
            )
    except Exception as error:  # the plugin raises other kinds in other versions
        said = first_line(error)
        if "lockfile" in said or "already in use" in said:
            said = (
                "libtpu is in use by another process, and serves one at a time; wait for it to end"
            )
        raise ConfigError(f"--topology {name} cannot be compiled for: {said}.") from error
    chip = TPUS[kind]
    version = importlib.metadata.version("libtpu")
    return Target(
        name=name,
        platform="tpu",
        lowering="tpu",
        devices=topology.devices,
        chip=chip,
        memory=chip.memory,
        options={},
        software=f"jax {jax.__version__}, libtpu {version}",
    )


def _gpu(name: str, kind: str, count: int) -> Target:
    _need("jax-cuda13-plugin", "cuda")
    os.environ.setdefault("JAX_SKIP_CUDA_CONSTRAINTS_CHECK", "1")  # there need be no driver
    jax.config.update("jax_platforms", "cpu")
    hosts = math.ceil(count / _GPUS_PER_HOST)
    if count % hosts:
        raise ConfigError(f"--topology {name}: more than {_GPUS_PER_HOST} must fill whole hosts.")
    chip = GPUS[kind]
    described = _HOPPER.format(
        bandwidth=round(chip.bandwidth), memory=round(chip.memory), name=f"NVIDIA {kind.upper()}"
    )
    try:
        with quiet(stderr=True):
            topology = topologies.get_topology_desc(
                platform="cuda",
                topology_name="",
                topology=f"1x{hosts}x{count // hosts}",
                target_config=described,
            )
    except Exception as error:  # the plugin raises other kinds in other versions
        said = first_line(error)
        raise ConfigError(f"--topology {name} cannot be compiled for: {said}.") from error
    share = float(os.environ.get("XLA_PYTHON_CLIENT_MEM_FRACTION", GPU_SHARE))
    version = importlib.metadata.version("jax-cuda13-plugin")
    return Target(
        name=name,
        platform="gpu",
        lowering="cuda",
        devices=topology.devices,
        chip=chip,
        memory=share * chip.memory,
        # Autotuning would run what it compiles; Triton's matmuls need it to find tiles that work.
        options={"xla_gpu_autotune_level": 0, "xla_gpu_enable_triton_gemm": False},
        software=f"jax {jax.__version__}, jax-cuda13-plugin {version}",
    )


def _need(package: str, extra: str) -> None:
    try:
        importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        raise ConfigError(
            f"{package} is not installed, and this --topology needs it to compile; "
            f"pip install -e '.[{extra}]' -c constraints.txt."
        ) from None
