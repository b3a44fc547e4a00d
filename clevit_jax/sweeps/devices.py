"""Shares of a machine's devices, for processes that each train one seed.

The process that divides them never takes one: a short process of its own counts them.
"""

import json
import subprocess
import sys
from collections.abc import Mapping

from clevit_jax.errors import ConfigError

_COUNT = """
import jax, json
devices = jax.local_devices()
platform = devices[0].platform
# Some TPU chips are two devices each; chips are what a process can have.
chips = {tuple(d.coords) for d in devices} if platform == "tpu" else devices
print(json.dumps([platform, len(chips)]))
"""
# Chips -> their arrangement, in libtpu's words; it takes no other number of them.
_TPU_BOUNDS = {1: "1,1,1", 2: "1,2,1", 4: "2,2,1", 8: "2,4,1"}
_TPU_PORT = 8476


def count_devices() -> tuple[str, int]:
    """Platform ("cpu", "gpu", "tpu") and number of devices (TPU: chips) of this machine.

    Raises:
        ConfigError: JAX finds none.
    """
    done = subprocess.run([sys.executable, "-c", _COUNT], capture_output=True, text=True)
    if done.returncode:
        said = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise ConfigError(f"--parallel: JAX finds no devices to share: {said[-1]}")
    platform, count = json.loads(done.stdout.strip().splitlines()[-1])
    return platform, count


def share_devices(
    platform: str, count: int, parallel: int, environ: Mapping[str, str]
) -> list[dict[str, str]]:
    """Splits the devices of a machine into equal shares.

    Args:
        platform: "cpu", "gpu" or "tpu".
        count: devices, or chips of a TPU.
        parallel: shares that are wanted.
        environ: the environment; a choice of devices in it is what is split.

    Returns:
        For each share the variables that show a process these devices alone: CUDA's for GPUs, and
        libtpu's, as JAX's own tests of several processes set them, for TPU chips. Nothing for
        CPUs, which the processes share.

    Raises:
        ConfigError: there are fewer devices than shares.
    """
    if platform == "cpu":
        return [{} for _ in range(parallel)]
    if parallel > count:
        raise ConfigError(
            f"--parallel {parallel} needs a device for each seed, but there are only {count} "
            f"({platform}); ask for {count} at most."
        )
    if platform not in ("gpu", "tpu"):
        raise ConfigError(f"--parallel can share CPU, GPU and TPU, not {platform}; leave it out.")
    size = count // parallel
    name = "CUDA_VISIBLE_DEVICES" if platform == "gpu" else "TPU_VISIBLE_CHIPS"
    given = environ.get(name, "")
    visible = [part.strip() for part in given.split(",")] if given else map(str, range(count))
    devices = list(visible)
    if platform == "tpu":
        size = max(chips for chips in _TPU_BOUNDS if chips <= size)
    shares = [{name: ",".join(devices[k * size : (k + 1) * size])} for k in range(parallel)]
    if platform == "tpu":
        for k, share in enumerate(shares):
            share |= {
                "TPU_CHIPS_PER_PROCESS_BOUNDS": _TPU_BOUNDS[size],
                "TPU_PROCESS_BOUNDS": "1,1,1",  # each is a machine of one process to itself
                "TPU_PROCESS_ADDRESSES": f"localhost:{_TPU_PORT + k}",
                "TPU_PROCESS_PORT": str(_TPU_PORT + k),
                "CLOUD_TPU_TASK_ID": "0",
                "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
            }
    return shares
