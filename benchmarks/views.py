"""Cost of the two views of an image: milliseconds here, and static cycles on a TPU.

    python -m benchmarks.views
    python -m benchmarks.views --cycles     # pip install -e '.[tpu]'; needs no TPU

The recipe's views: 448 pixels out of images of 600. Milliseconds are of one device, the median of
seven rounds. The cycles are those of 12 images on one v5e, counted as `benchmarks/tpu_static.py`
does, with and without the kernel of `clevit_jax/kernels/rotation.py`. One such process at a time.
"""

import argparse
import os
import pathlib
import shutil
import statistics
import tempfile
import time

DUMP = pathlib.Path(tempfile.mkdtemp(prefix="schedules_"))
os.environ["LIBTPU_INIT_ARGS"] = f"--xla_jf_dump_to={DUMP} --xla_jf_dump_llo_text=true"

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402

from benchmarks import tpu_schedule  # noqa: E402
from clevit_jax.kernels.config import KernelConfig  # noqa: E402
from clevit_jax.performance import topologies  # noqa: E402
from clevit_jax.views import two_views  # noqa: E402
from clevit_jax.views.config import ViewConfig  # noqa: E402

IMAGES, SIDE, ROUNDS = 12, 600, 7
CHARGED = 222  # bytes per cycle that the compiler charges on a v5e, see tpu_static.py


def time_here() -> None:
    random = np.random.RandomState(0)
    images = jnp.asarray(random.randint(0, 256, (IMAGES, SIDE, SIDE, 3), np.uint8))
    keys = jax.random.split(jax.random.key(0), IMAGES)
    config = ViewConfig()
    jax.block_until_ready(two_views.make_views(keys, images, config=config))
    times = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        jax.block_until_ready(two_views.make_views(keys, images, config=config))
        times.append((time.perf_counter() - start) * 1000 / IMAGES)
    print(
        f"{jax.devices()[0].device_kind}: {statistics.median(times):.1f} ms per image "
        f"({min(times):.1f} to {max(times):.1f})"
    )


def count_cycles(name: str, config: ViewConfig, top: int) -> None:
    target = topologies.find_target("v5e:2x2")
    chip = target.chip
    assert chip is not None
    assert chip.clock is not None
    where = jax.sharding.SingleDeviceSharding(target.devices[0])
    keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), IMAGES))
    images = jax.ShapeDtypeStruct((IMAGES, SIDE, SIDE, 3), jnp.uint8)

    def stacked(keys: jax.Array, images: jax.Array) -> jax.Array:
        # As the step hands them to the network.
        return jnp.stack(two_views.make_views(keys, images, config=config), 1)

    done = (
        jax.jit(stacked, in_shardings=where, out_shardings=where)
        .trace(keys, images)
        .lower(lowering_platforms=("tpu",))
        .compile()
    )
    operations = tpu_schedule.read_operations(done.as_text(), DUMP)
    bandwidth = chip.bandwidth / chip.clock
    costs = [(o.rule_a(CHARGED) / 1e6, o.rule_b(bandwidth) / 1e6, o) for o in operations]
    unknown = [o.name for o in operations if not o.cycles and o.size / bandwidth > 10_000]
    print(
        f"{name}: {sum(a for a, _, _ in costs):.2f} / {sum(b for _, b, _ in costs):.2f} M cycles "
        f"by rules A / B; without an estimate, and so free in A: {', '.join(unknown) or 'none'}"
    )
    for a, b, operation in sorted(costs, key=lambda cost: -cost[0])[:top]:
        print(f"  {a:7.3f} / {b:6.3f}  {operation.name[:30]:<30} {operation.source[-60:]}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cycles", action="store_true", help="static cycles on a v5e, too")
    parser.add_argument("--top", type=int, default=0, help="print so many costly operations")
    arguments = parser.parse_args()
    time_here()
    if arguments.cycles:
        count_cycles("kernel", ViewConfig(kernel=KernelConfig()), arguments.top)
        count_cycles("gather", ViewConfig(), arguments.top)
    shutil.rmtree(DUMP, ignore_errors=True)


if __name__ == "__main__":
    main()
