"""What test_devices.py runs in processes of their own: on 8 devices, and on 2 processes x 2.

    device_child.py FOLDER RUN...                        one process
    device_child.py FOLDER RUN... --join HOST:PORT I     process I of two, each a slice

A run is named by its mesh, data x fsdp, on the first devices there are; see `RUNS`. Each makes
five updates and an evaluation, and leaves FOLDER/RUN.npz (of process I, FOLDER/RUN-I.npz) and
checkpoints in FOLDER/RUN.
"""

import functools
import pathlib
import sys
from typing import Any

import jax
import numpy as np
import optax
import tiny
from ml_collections import ConfigDict

from clevit_jax.config import resolve
from clevit_jax.data import pipeline
from clevit_jax.distributed import processes, sharding
from clevit_jax.runs.checkpoint import Checkpoints
from clevit_jax.steps.jitted import JittedSteps, make_jitted_steps
from clevit_jax.views import two_views

CLASSES, IMAGES, UPDATES = 5, 24, 5
TRIPLET = {"loss.contrast_kind": "instance_triplet"}
HALVES = {"accumulation": 2}
ALONE = {"1x1": {}, "1x1-triplet": TRIPLET, "1x1-halves": HALVES}
MESHES = ["2x2", "1x8"]
RUNS: dict[str, dict[str, Any]] = ALONE | {name: {} for name in MESHES}
RUNS |= {"2x4-triplet": TRIPLET, "2x4-halves": HALVES}
# Of the evaluation: less than a batch, so that process 1 has none at all, and more than one.
NUMBERS = (3, 13)


def make_config(**changes: Any) -> ConfigDict:
    """Wide enough that fsdp divides something, on every number of devices up to 8."""
    config = tiny.get_config()
    config.batch_size = 16
    config.data.resize = 20
    config.eval.batch_size = 8
    config.model.embed_dim = 48
    config.model.drop_path = 0.4
    config.optim.lr = 1e-2
    config.optim.clip_norm = 0.5
    config.optim.ema = 0.9
    config.update_from_flattened_dict(changes)
    return config


def program_on(mesh: jax.sharding.Mesh, **changes: Any) -> JittedSteps:
    config = make_config(epochs=10, **changes)
    config.model.num_classes = CLASSES
    return make_jitted_steps(resolve(config, None, "cpu").step, mesh)


@functools.cache
def images(side: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.RandomState(side)
    pixels = rng.randint(0, 256, (IMAGES, side, side, 3)).astype(np.uint8)
    return pixels, rng.randint(0, CLASSES, IMAGES).astype(np.int32)


def flat(prefix: str, tree: Any) -> dict[str, Any]:
    """`{"PREFIX['head']['kernel']": array, ...}`"""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {prefix + jax.tree_util.keystr(path): leaf for path, leaf in leaves}


def parts(state: Any) -> dict[str, Any]:
    """The trees of a state that are like its parameters."""
    mu, nu = (optax.tree.get(state.opt_state, name) for name in ("mu", "nu"))
    return {"params": state.params, "mu": mu, "nu": nu, "ema": state.ema}


def run(folder: pathlib.Path, name: str) -> None:
    data, fsdp = map(int, name.partition("-")[0].split("x"))
    mesh = sharding.make_mesh(data, fsdp, devices=jax.devices()[: data * fsdp])
    program = program_on(mesh, **RUNS.get(name, {}))
    config = make_config(**RUNS.get(name, {}))
    here = {"process_index": processes.index(), "process_count": processes.count(), "threads": 1}
    whole = jax.jit(lambda tree: tree, out_shardings=sharding.replicated(mesh))

    def saved(prefix: str, tree: Any) -> dict[str, np.ndarray]:
        if processes.count() > 1:
            tree = whole(tree)
        return flat(prefix, jax.device_get(tree))

    options = {"seed": config.seed, "batch_size": config.batch_size, "prefetch": 0, **here}
    batches = iter(pipeline.train_dataset(*images(config.data.resize), **options))
    state, numbers, found, rows = program.initial_state(), program.numbers(), {}, []
    for update in range(UPDATES):
        batch = sharding.to_global(mesh, next(batches))
        if update == 0:
            keys = jax.jit(two_views.example_keys, static_argnums=0)(
                config.seed, batch["epoch"], batch["id"]
            )
            made = two_views.make_views(keys, batch["image"], config=program.config.views)
            found |= saved("views", dict(zip(("anchor", "positive"), made, strict=True)))
            processes.compile_together(program.train_step, state, batch, numbers)
        state, metrics = program.train_step(state, batch, numbers)
        rows.append(jax.device_get(metrics))
        if update == 0:
            found |= saved("first_mu", optax.tree.get(state.opt_state, "mu"))
    found |= {f"metrics/{key}": np.array([row[key] for row in rows]) for key in rows[0]}
    for part, tree in parts(state).items():
        found |= saved(part, tree)
        shares = jax.tree.map(lambda x: x.size / x.addressable_shards[0].data.size, tree)
        found |= flat(f"divided/{part}", shares)
    for number in NUMBERS:
        pixels, labels = images(config.image_size)
        evaluation = pipeline.eval_batches(
            pixels[:number], labels[:number], batch_size=config.eval.batch_size, **here
        )
        for index, batch in enumerate(evaluation):
            batch = sharding.to_global(mesh, batch)
            if index == 0:
                processes.compile_together(program.eval_step, state.eval_params, batch)
            sums = program.eval_step(state.eval_params, batch)
            found |= flat(f"sums/{number}/{index}", jax.device_get(sums))
    checkpoints = Checkpoints(folder / name, keep=1)
    checkpoints.save(state, {"name": name})
    checkpoints.wait()
    checkpoints.close()
    suffix = f"-{processes.index()}" if processes.count() > 1 else ""
    np.savez(folder / f"{name}{suffix}.npz", **found)


def main() -> None:
    folder, *names = sys.argv[1:]
    if "--join" in names:
        *names, _, coordinator, index = names
        jax.distributed.initialize(coordinator, 2, int(index))
        # CPUs are all of slice 0. Slices in the other order than processes must change no row.
        sharding.slice_of = lambda device: 1 - device.process_index
    for name in names:
        run(pathlib.Path(folder), name)
    if processes.count() > 1:
        jax.distributed.shutdown()


if __name__ == "__main__":
    main()
