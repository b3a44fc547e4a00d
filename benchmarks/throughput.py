"""Images per second of training and of inference, beside another library's Swin in the same run.

    python -m benchmarks.throughput --peer timm --config configs/cub.py

`--mode throughput` (docs/throughput.md) with a peer: the same flags, and the same table with the
peer's rows. Ours and its take turns, each in a process of its own. Needs the extra `peer`, with the
torchvision that is built for that torch.
"""

import importlib.util
import pathlib
import sys
from typing import Any

from absl import app
from absl import flags as absl_flags

from benchmarks import timm_steps
from clevit_jax import flags
from clevit_jax.errors import ClevitError, ConfigError
from clevit_jax.performance.throughput import Peer, read_batch_sizes, throughput

PEERS = ("timm",)


def find_peer(name: str) -> Peer:
    """A peer by its name. Raises ConfigError when it is unknown or not installed."""
    if name not in PEERS:
        raise ConfigError(f"--peer is {name!r}; choose one of {', '.join(PEERS)}.")
    missing = [name for name in ("torch", "timm") if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigError(
            f"--peer timm needs {' and '.join(missing)}; pip install -e '.[peer]', with the "
            "torchvision that is built for that torch."
        )
    return Peer(
        module="benchmarks.timm_steps",
        variants={timm_steps.EAGER: {"compiled": False}, timm_steps.COMPILED: {"compiled": True}},
        step=timm_steps.IN_STEP,
        check=check_machine,
    )


def check_machine(facts: dict[str, Any]) -> None:
    """Raises ConfigError where torch cannot use what JAX uses.

    Args:
        facts: `platform` and `devices` of `timed_steps.describe_device`.
    """
    if facts["platform"] not in ("cpu", "gpu"):
        raise ConfigError(
            f"--peer timm runs on CPUs and NVIDIA GPUs, not on {facts['platform']}; leave it out."
        )
    if facts["platform"] == "gpu" and facts["devices"] > 1:
        raise ConfigError(
            f"--peer timm runs on one GPU, and there are {facts['devices']}; show one alone: "
            "CUDA_VISIBLE_DEVICES=0."
        )


def main(argv: list[str], values: absl_flags.FlagValues = absl_flags.FLAGS) -> int:
    """Prints the table or the JSON; a failure is one sentence. Returns the exit code."""
    from clevit_jax.distributed import processes
    from clevit_jax.runs.workdir import load_config
    from clevit_jax.system import compilation_cache
    from clevit_jax.system.logging import quiet

    quiet()
    try:
        if argv[1:]:
            raise ConfigError(f"{argv[1]!r} is not a flag; settings are --config.NAME=VALUE.")
        if values.config is None and not values.workdir:
            raise ConfigError("Name what to time: --config FILE, or --workdir DIR of a run.")
        processes.check_alone("benchmarks.throughput", values.processes)
        if values.compilation_cache != "auto":  # it says how long compiling takes
            compilation_cache.enable(values.compilation_cache)
        config = values.config
        if config is None:
            config = load_config(pathlib.Path(values.workdir))
        sizes = read_batch_sizes(values.batch_sizes)
        peer = find_peer(values.peer) if values.peer else None
        return throughput(config, batch_sizes=sizes, peer=peer, as_json=values.json)
    except (ClevitError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def define(values: absl_flags.FlagValues) -> None:
    """Defines the flags of `--mode throughput`, and `--peer`."""
    flags.define(values, mode="throughput")
    absl_flags.DEFINE_enum(
        "peer", None, list(PEERS), "Also measure this library's Swin.", flag_values=values
    )
    values.register_key_flag_for_module(sys.argv[0], values["peer"])


if __name__ == "__main__":
    define(absl_flags.FLAGS)
    app.run(main, flags_parser=lambda argv: flags.parse(absl_flags.FLAGS, argv))
