"""The same numbers on 1, 4 and 8 devices and on two processes, however the state is divided.

`device_child.py` makes the runs, in processes of their own.
"""

import os
import pathlib
import socket
import subprocess
import sys

import compiling
import device_child
import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clevit_jax.data import pipeline
from clevit_jax.distributed import sharding
from clevit_jax.runs.checkpoint import Checkpoints

ON_TWO = ["4x1", "2x2"]  # by two processes of two devices


def _child(folder, names, devices, *join):
    command = [sys.executable, device_child.__file__, str(folder), *names, *join]
    flags = compiling.xla_flags(devices)
    root = pathlib.Path(__file__).parents[1]
    paths = os.pathsep.join(map(str, (root, root / "tests")))
    environ = {**os.environ, "XLA_FLAGS": flags, "PYTHONPATH": paths}
    return subprocess.Popen(
        command, env=environ, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )


@pytest.fixture(scope="module")
def folder(once):
    """All runs: of one process with 8 devices, and under two/ of two processes with 2 each."""
    return once("devices", make_runs)


def make_runs(made):
    (made / "two").mkdir()
    with socket.socket() as held:
        held.bind(("localhost", 0))
        port = held.getsockname()[1]
    two = [_child(made / "two", ON_TWO, 2, "--join", f"localhost:{port}", str(i))
           for i in (0, 1)]  # fmt: skip
    children = [*two, _child(made, list(device_child.RUNS), 8)]
    try:
        for child in children:
            said, _ = child.communicate()
            assert child.returncode == 0, said
    finally:
        for child in children:
            if child.poll() is None:  # another failed
                child.kill()
                child.communicate()


@pytest.fixture(scope="module")
def runs(folder):
    """What each run saved, by its name."""
    return {path.relative_to(folder).with_suffix("").as_posix(): dict(np.load(path))
            for path in folder.rglob("*.npz")}  # fmt: skip


def part(run, name):
    """One tree of a run as a vector."""
    found = [value.ravel() for key, value in sorted(run.items()) if key.startswith(name + "[")]
    return np.concatenate(found).astype(np.float64)


def away(run, reference, name):
    """Distance in norm, relative."""
    a, b = part(run, name), part(reference, name)
    return np.linalg.norm(a - b) / np.linalg.norm(b)


OTHERS = [
    *device_child.MESHES, "2x4-triplet", "2x4-halves",
    *(f"two/{name}-{process}" for name in ON_TWO for process in (0, 1)),
]  # fmt: skip


def reference_of(name):
    kind = name.partition("-")[2]
    return f"1x1-{kind}" if kind in ("triplet", "halves") else "1x1"


@pytest.mark.parametrize("name", OTHERS)
def test_five_updates_are_those_of_one_device(runs, name):
    run, reference = runs[name], runs[reference_of(name)]
    losses = [key for key in reference if key.startswith("metrics/loss")]
    assert len(losses) == 4
    for key in losses:
        assert reference[key].shape == (device_child.UPDATES,)
        # The loss all the way; its terms while the parameters are the same to the bit.
        rows = slice(None) if key == "metrics/loss" else slice(1)
        np.testing.assert_allclose(run[key][rows], reference[key][rows], rtol=1e-6, err_msg=key)
    np.testing.assert_allclose(run["metrics/accuracy"], reference["metrics/accuracy"], rtol=1e-6)
    # After one update Adam's first moment is a tenth of the clipped gradient.
    assert away(run, reference, "first_mu") < 1e-5
    np.testing.assert_allclose(run["metrics/grad_norm"], reference["metrics/grad_norm"], rtol=1e-5)
    for tree in ("params", "ema"):
        assert away(run, reference, tree) < 1e-5


@pytest.mark.parametrize("name", OTHERS)
def test_the_views_are_the_same_bits(runs, name):
    reference = runs["1x1"]
    for view in ("views['anchor']", "views['positive']"):
        assert reference[view].std() > 0.1
        np.testing.assert_array_equal(runs[name][view], reference[view])


@pytest.mark.parametrize("name", OTHERS)
def test_the_evaluation_counts_each_image_once(runs, name):
    run, reference = runs[name], runs[reference_of(name)]
    for number in device_child.NUMBERS:
        for what in ("count", "top1", "loss"):
            sums = [
                sum(value for key, value in r.items()
                    if key.startswith(f"sums/{number}/") and f"'{what}'" in key)
                for r in (run, reference)
            ]  # fmt: skip
            if what == "loss":
                np.testing.assert_allclose(*sums, rtol=1e-5, atol=1e-5)
            else:
                np.testing.assert_array_equal(*sums)
            assert what != "count" or sums[0].sum() == number


@pytest.mark.parametrize("name", OTHERS)
def test_what_is_divided(runs, name):
    """Parameters, moments and average by one rule; what is small stays whole."""
    run = runs[name]
    fsdp = int(name.removeprefix("two/").partition("-")[0].partition("x")[2])
    divided = 0
    for key in run:
        if not key.startswith("divided/params"):
            continue
        path = key.removeprefix("divided/params")
        shape = run[f"params{path}"].shape
        big = np.prod(shape) >= 2**14 and any(length % fsdp == 0 for length in shape)
        for tree in ("params", "mu", "nu", "ema"):
            assert run[f"divided/{tree}{path}"] == (fsdp if big else 1), path
        divided += big
    assert divided >= 4


def test_accumulation_promises(runs):
    """As docs/training.md has it; on several devices, above, it is held to one device with it."""
    whole, halves = runs["1x1"], runs["1x1-halves"]
    for key in ("metrics/loss_anchor", "metrics/loss_positive", "metrics/accuracy"):
        np.testing.assert_allclose(halves[key][0], whole[key][0], rtol=1e-6)
    assert halves["metrics/loss_contrast"][0] != pytest.approx(
        whole["metrics/loss_contrast"][0], rel=1e-4
    )
    np.testing.assert_array_equal(halves["views['positive']"], whole["views['positive']"])


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        *(("1x8", shape) for shape in ((1, 1), (4, 1), (2, 2))),
        *(("2x4-halves", shape) for shape in ((1, 2), (4, 1))),
        *(("two/2x2", shape) for shape in ((1, 1), (2, 1), (2, 2))),
    ],
)
def test_a_checkpoint_goes_to_another_number_of_devices(folder, runs, name, shape):
    """Of 8 devices to 1, 2 and 4, and of two processes to one."""
    devices = jax.devices()[: shape[0] * shape[1]]
    mesh = sharding.make_mesh(*shape, devices=devices)
    like = device_child.program_on(mesh).abstract_state
    checkpoints = Checkpoints(folder / name, keep=1, read_only=True)
    try:
        state, meta = checkpoints.restore(device_child.UPDATES, like)
    finally:
        checkpoints.close()
    assert meta["name"] == pathlib.Path(name).name
    run = runs[f"{name}-0" if name.startswith("two/") else name]
    for tree, leaves in device_child.parts(state).items():
        for key, value in device_child.flat(tree, leaves).items():
            np.testing.assert_array_equal(run[key], value)
            assert set(value.sharding.device_set) == set(devices)


@given(
    number=st.integers(1, 60),
    rows=st.integers(1, 7),
    count=st.integers(1, 9),
)
def test_however_many_processes_evaluate(number, rows, count):
    """Each example is loaded by one process, once; all processes make as many batches."""
    images = np.arange(number, dtype=np.uint8)[:, None, None, None] * np.ones((1, 1, 3), np.uint8)
    labels = np.arange(number, dtype=np.int32)
    batches = [
        list(pipeline.eval_batches(
            images, labels, batch_size=rows * count, process_index=process, process_count=count,
            threads=1,
        ))
        for process in range(count)
    ]  # fmt: skip
    assert len({len(own) for own in batches}) == 1
    loaded = []
    for process, own in enumerate(batches):
        mine = [label for b in own for label in b["label"][b["mask"]].tolist()]
        assert mine == pipeline.eval_rows(number, rows * count, process, count)
        for b in own:
            np.testing.assert_array_equal(b["image"][b["mask"], 0, 0, 0], b["label"][b["mask"]])
        loaded += mine
    assert sorted(loaded) == labels.tolist()
