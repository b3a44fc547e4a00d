"""Static cycles and memory of a config's training step on a TPU, by the compiler's figures.

    python -m benchmarks.tpu_static --config configs/base.py --config.model.num_classes=80 \
        --topology v5e:2x2 --kernels=pallas,xla

Nothing runs and no TPU is needed (`pip install -e '.[tpu]'`). The step is compiled for the machine
that is named, and its operations are added up by the two rules of
`benchmarks/tpu_schedule.py`. One such process at a time: libtpu serves one.
"""

import os
import pathlib
import shutil
import tempfile
import time

DUMP = pathlib.Path(tempfile.mkdtemp(prefix="schedules_"))
os.environ["LIBTPU_INIT_ARGS"] = (
    f"--xla_jf_dump_to={DUMP} --xla_jf_dump_llo_text=true "
    "--xla_jf_dump_llo_pass_label_regex=packed-bundles-post-ra"
)

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
from absl import app, flags  # noqa: E402
from ml_collections import config_flags  # noqa: E402

from benchmarks import tpu_schedule  # noqa: E402
from clevit_jax import flags as command_line  # noqa: E402
from clevit_jax.distributed import sharding  # noqa: E402
from clevit_jax.performance import topologies  # noqa: E402
from clevit_jax.performance.cost import read_memory  # noqa: E402
from clevit_jax.performance.preflight import make_steps  # noqa: E402

_CONFIG = config_flags.DEFINE_config_file("config", None, "File of the config.")
_TOPOLOGY = flags.DEFINE_string("topology", "v5e:2x2", "Kind of chip and shape, as preflight's.")
_KERNELS = flags.DEFINE_list("kernels", ["pallas", "xla"], "Which of model.kernels to compile.")
_TOP = flags.DEFINE_integer("top", 0, "Print so many of the costliest operations, too.")

# Parts of a step, by the first pattern that the source of an operation matches.
PARTS = {
    "views": r"make_views|views",
    "stage 1": r"layers\.0\)*/blocks",
    "stage 2": r"layers\.1\)*/blocks",
    "stage 3": r"layers\.2\)*/blocks",
    "stage 4": r"layers\.3\)*/blocks",
    "embedding": r"patch_embed",
    "merging": r"downsample",
    "losses": r"losses",
    "optimizer": r"optimizer",
}


def charged_bandwidth(target: topologies.Target) -> float:
    """Bytes per cycle that the compiler charges its own operations, from 2 x in bfloat16."""
    x = jax.ShapeDtypeStruct((2**13, 2**13), jnp.bfloat16)
    where = jax.sharding.SingleDeviceSharding(target.devices[0])
    done = (
        jax.jit(lambda x: 2 * x, in_shardings=where, out_shardings=where)
        .trace(x)
        .lower(lowering_platforms=("tpu",))
        .compile()
    )
    (operation,) = tpu_schedule.read_operations(done.as_text())
    return operation.size / operation.cycles


def compile_step(config, target: topologies.Target, kernels: str):
    """Compiles the training step: its operations, its memory, and the seconds that it took."""
    with config.unlocked():
        config.model.kernels = kernels
    mesh = sharding.make_mesh(config.mesh.data, config.mesh.fsdp, devices=target.devices)
    made = make_steps(config, mesh, target, config.model.num_classes)
    print(made.kernels or "Kernels: none.", flush=True)
    for file in DUMP.iterdir():
        file.unlink()
    start = time.monotonic()
    lowered = made.train_step.trace(
        made.abstract_state, made.train_batch, made.abstract_numbers
    ).lower(lowering_platforms=("tpu",))
    done = lowered.compile()
    seconds = time.monotonic() - start
    return tpu_schedule.read_operations(done.as_text(), DUMP), read_memory(done), seconds


def main(argv: list[str]) -> None:
    del argv
    config = _CONFIG.value
    target = topologies.find_target(_TOPOLOGY.value)
    chip = target.chip
    assert chip is not None
    assert chip.clock is not None  # every TPU has one
    charged, bandwidth = charged_bandwidth(target), chip.bandwidth / chip.clock
    print(
        f"{target.software}; {_TOPOLOGY.value}: {chip.clock / 1e9:.3f} GHz, "
        f"{chip.peak / chip.clock:.0f} FLOP per cycle, {bandwidth:.0f} bytes per cycle by the data "
        f"sheet and {charged:.0f} in the compiler's estimates. M cycles per device, rules A / B:"
    )
    for kernels in _KERNELS.value:
        operations, memory, seconds = compile_step(config, target, kernels)
        groups = list(tpu_schedule.by_part(operations, PARTS))
        for part, group in [*groups, ("all", operations)]:
            a = sum(o.rule_a(charged) for o in group) / 1e6
            b = sum(o.rule_b(bandwidth) for o in group) / 1e6
            print(f"  {kernels:<7}{part:<16}{a:9.2f} / {b:7.2f}")
        print(
            f"  {kernels:<7}temporaries {memory.temporaries / 1e9:.2f} GB, all "
            f"{memory.peak / 1e9:.2f} GB; compiled in {seconds:.0f} s",
            flush=True,
        )
        costly = sorted(operations, key=lambda o: -o.rule_a(charged))[: _TOP.value]
        for o in costly:
            print(
                f"    {o.rule_a(charged) / 1e6:7.3f} / {o.rule_b(bandwidth) / 1e6:6.3f}  "
                f"{o.name[:40]:<40} {o.source[-60:]}"
            )
    shutil.rmtree(DUMP, ignore_errors=True)


if __name__ == "__main__":
    app.run(main, flags_parser=lambda argv: command_line.parse(flags.FLAGS, argv))
