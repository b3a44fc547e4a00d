"""Two processes on loopback as one run: joined, stopped, killed, failed, and gone on alone."""

import itertools
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent import futures

import compiling
import jax
import numpy as np
import pytest

from clevit_jax.data import procedural_leaves
from clevit_jax.runs.checkpoint import Checkpoints
from clevit_jax.runs.setup import prepare_run
from clevit_jax.runs.workdir import load_config

CONFIG = """
import tiny

def get_config():
    config = tiny.get_config()
    config.data.root = "leaves"
    config.batch_size = 8
    config.eval.batch_size = 8
    config.epochs = 40
    config.eval.every_epochs = 8
    config.optim.lr = 0.3
    config.optim.warmup_epochs = 1.0
    config.checkpoint.every_steps = 5
    config.checkpoint.keep = 100
    config.log.every_steps = 1
    return config
"""
# The same for a process that cannot read one of the checkpoints.
BLIND = """
import config
from clevit_jax.runs.checkpoint import Checkpoints

read = Checkpoints._read

def blind(self, step, name, *more):
    if (step, name) == ({}, "state"):
        raise self._unreadable(step, OSError("Stale file handle"))
    return read(self, step, name, *more)

def get_config():
    Checkpoints._read = blind
    return config.get_config()
"""
TOTAL = 60  # 40 epochs of 12 images in batches of 8
MINUTE = 60


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with the config and 12 training and 9 test images."""
    folder = tmp_path_factory.mktemp("two")
    (folder / "config.py").write_text(CONFIG)
    shutil.copy(pathlib.Path(__file__).with_name("tiny.py"), folder)
    procedural_leaves.write_dataset(
        folder / "leaves", classes=3, train_per_class=4, test_per_class=3, size=16
    )
    return folder


def free_port():
    with socket.socket() as held:
        held.bind(("localhost", 0))
        return held.getsockname()[1]


class Pair:
    """Two processes, or some of them, that are one run."""

    def __init__(
        self, place, workdir, *more, processes=(0, 1), count=2, devices=2, differing=(),
        configs=("config.py", "config.py"),
    ):  # fmt: skip
        self.port = free_port()
        environ = {
            **os.environ,
            "XLA_FLAGS": compiling.xla_flags(devices),
            "PYTHONUNBUFFERED": "1",
        }
        self.children = [
            subprocess.Popen(
                [sys.executable, "-m", "clevit_jax.main", f"--config={configs[process]}",
                 f"--workdir={workdir}", f"--coordinator=localhost:{self.port}",
                 f"--processes={count}", f"--process={process}", *more,
                 *(differing if process else ())],
                cwd=place, env=environ, text=True,
                stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            )
            for process in processes
        ]  # fmt: skip

    def wait_for(self, path):
        """Until a file or folder is there, while both live."""
        until = time.monotonic() + 2 * MINUTE
        while not path.exists():
            assert time.monotonic() < until, path
            if any(child.poll() is not None for child in self.children):
                raise AssertionError([child.communicate() for child in self.children])
            time.sleep(0.02)

    def ends(self, seconds=3 * MINUTE):
        """Exit codes, standard outputs and standard errors, of those too that had to be killed."""
        ended = threading.Timer(seconds, lambda: [child.kill() for child in self.children])
        ended.start()
        # All at once: one whose pipe is full waits for its reader, and the others for it.
        with futures.ThreadPoolExecutor() as pool:
            said = list(pool.map(subprocess.Popen.communicate, self.children))
        ended.cancel()
        return [child.returncode for child in self.children], *zip(*said, strict=True)


def alone(place, workdir, *more, devices=1):
    """The same run in one process."""
    return subprocess.run(
        [sys.executable, "-m", "clevit_jax.main", "--config=config.py",
         f"--workdir={workdir}", *more],
        cwd=place, capture_output=True, text=True,
        env={**os.environ, "XLA_FLAGS": compiling.xla_flags(devices)},
    )  # fmt: skip


@pytest.fixture(scope="module")
def whole(place, tmp_path_factory):
    """A run of two processes that nothing disturbs."""
    workdir = tmp_path_factory.mktemp("whole") / "run"
    codes, out, err = Pair(place, workdir).ends()
    assert codes == [0, 0], err
    return workdir, out, err


def params(place, workdir, step=TOTAL):
    config = load_config(workdir).unlock()
    config.data.root = str(place / "leaves")
    found = Checkpoints(workdir / "checkpoints", keep=100, read_only=True)
    try:
        like = prepare_run(config, workdir).steps.abstract_state
        return jax.device_get(found.restore(step, like)[0].params)
    finally:
        found.close()


def losses(workdir):
    lines = map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines())
    return [(line["step"], line["train/loss"]) for line in lines if "train/loss" in line]


def newest(workdir):
    return max(int(p.name) for p in (workdir / "checkpoints").iterdir() if p.name.isdigit())


def test_two_processes_are_one_run(whole, place, tmp_path):
    workdir, out, err = whole
    assert "4 cpu device(s) of 2 processes" in out[0]
    # One speaks for all, but for the library of the collectives, whose words may be torn apart.
    said = {line for line in out[0].splitlines() if line and "Gloo" not in line}
    assert len(said) > 5
    assert not said & set(out[1].splitlines())
    assert "Reading" not in err[1]
    assert [step for step, _ in losses(workdir)] == list(range(1, TOTAL + 1))
    result = json.loads((workdir / "evaluation.json").read_text())
    assert result["last"]["count"] == 9
    done = alone(place, tmp_path / "run", "--config.mesh.fsdp=2", devices=4)
    assert done.returncode == 0, done.stderr
    one = json.loads((tmp_path / "run" / "evaluation.json").read_text())
    assert one["last"]["top1"] == result["last"]["top1"]
    assert one["last"]["loss"] == pytest.approx(result["last"]["loss"], rel=1e-4)
    np.testing.assert_allclose(losses(tmp_path / "run"), losses(workdir), rtol=1e-4)


def test_one_is_killed_in_the_middle_of_an_epoch(whole, place, tmp_path):
    """The other ends by itself; both started again end with the bits of the undisturbed run."""
    workdirs = [tmp_path / "run0", tmp_path / "run1"]  # in the one process 0 is killed, ...
    pairs = [Pair(place, workdir) for workdir in workdirs]
    for victim, pair in enumerate(pairs):
        pair.wait_for(workdirs[victim] / "checkpoints" / "10")
        pair.children[victim].kill()
    started = time.monotonic()
    for victim, pair in enumerate(pairs):
        code = pair.children[1 - victim].wait(MINUTE)
        assert code not in (0, 75)
    assert time.monotonic() - started < MINUTE
    for pair in pairs:
        pair.ends()
    assert all(newest(workdir) < TOTAL for workdir in workdirs)
    for pair, workdir in [(Pair(place, workdir), workdir) for workdir in workdirs]:
        codes, out, err = pair.ends()
        assert codes == [0, 0], err
        assert "Going on from step" in out[0]
        jax.tree.map(np.testing.assert_array_equal, params(place, workdir), params(place, whole[0]))
        assert losses(workdir) == losses(whole[0])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_one_stops_both_at_one_step(whole, place, tmp_path, number):
    """And one process on one device goes on from there, with no image lost and none twice."""
    for attempt in range(5):
        workdir = tmp_path / f"run{attempt}"
        pair = Pair(place, workdir)
        pair.wait_for(workdir / "checkpoints" / "5")
        pair.children[1].send_signal(number)
        codes, out, err = pair.ends()
        if codes != [0, 0]:  # on a busy machine the run may end before this process has its turn
            break
    assert codes == [75, 75], err
    step = newest(workdir)
    assert f"Stopped and saved at step {step};" in out[0]
    assert losses(workdir) == losses(whole[0])[:step]
    if number == signal.SIGINT:
        return
    done = alone(place, workdir)
    assert done.returncode == 0, done.stderr
    assert f"Going on from step {step} " in done.stdout
    np.testing.assert_allclose(losses(workdir), losses(whole[0]), rtol=1e-4)


def test_an_image_goes_bad_in_the_middle_of_an_epoch(place, tmp_path):
    """It is read anew each time, for nothing is kept; both say its name within a minute."""
    data = shutil.copytree(place / "leaves", tmp_path / "leaves")
    workdir = tmp_path / "run"
    pair = Pair(place, workdir, f"--config.data.root={data}", "--config.data.cache_bytes=0",
                "--config.epochs=4000", "--config.eval.every_epochs=4000")  # fmt: skip
    pair.wait_for(workdir / "checkpoints" / "5")
    bad = sorted(data.rglob("*_train.png"))[0]
    bad.write_bytes(b"no image")
    codes, _, err = pair.ends(MINUTE)
    assert codes == [2, 2]
    assert all(f"{bad.name} is no image of a known format" in text for text in err)
    assert all("Traceback" not in text for text in err)


def test_bad_images_are_named_by_all_wherever_they_are_read(place, tmp_path):
    data = shutil.copytree(place / "leaves", tmp_path / "leaves")
    bad = sorted(data.rglob("*_train.png"))[:3]
    for path in bad:
        path.write_bytes(b"no image")
    codes, _, err = Pair(place, tmp_path / "run", f"--config.data.root={data}").ends(MINUTE)
    assert codes == [2, 2]
    for text, path in itertools.product(err, bad):
        assert path.name in text
    assert not (tmp_path / "run").exists()


def test_another_command_in_another_process(place, tmp_path):
    pair = Pair(place, tmp_path / "run", differing=["--config.epochs=41", "--config.optim.lr=0.1"])
    codes, _, err = pair.ends(MINUTE)
    assert codes == [2, 2]
    for text in err:
        assert "Process 1 was started for another run than process 0" in text
        assert "epochs: 40, 41; optim.lr: 0.3, 0.1." in text
    assert not (tmp_path / "run").exists()


def test_a_torn_checkpoint_of_two_processes(place, tmp_path, whole):
    """Torn for both, and the one before for one process alone: both take the third."""
    workdir = tmp_path / "run"
    divided = ["--config.mesh.fsdp=4", "--config.model.embed_dim=64"]
    codes, _, err = Pair(place, workdir, *divided).ends()
    assert codes == [0, 0], err
    (workdir / "evaluation.json").unlink()  # which says that it is finished
    step = newest(workdir)
    parts = (workdir / "checkpoints" / str(step) / "state").glob("ocdbt.process_1/d/*")
    largest = max(parts, key=lambda path: path.stat().st_size)
    os.truncate(largest, largest.stat().st_size // 2)
    (place / "blind.py").write_text(BLIND.format(step - 5))
    configs = ("config.py", "blind.py")
    codes, out, err = Pair(place, workdir, *divided, configs=configs).ends()
    assert codes == [0, 0], err
    for gone in (step, step - 5):
        assert f"Checkpoint {gone} cannot be read" in err[0]
        assert (workdir / "checkpoints-damaged" / str(gone)).exists()
    begun = int(out[0].split("Going on from step ")[1].split()[0])
    assert begun == TOTAL - 10
    assert [step for step, _ in losses(workdir)] == list(range(1, TOTAL + 1))


def test_some_do_not_come(place, tmp_path):
    """Each says what it knows, and what to run; at the same time, to save it."""
    late = ["--wait=10"]
    first = Pair(place, tmp_path / "a", *late, processes=(0, 1), count=3)
    second = Pair(place, tmp_path / "b", *late, processes=(1,), count=2)
    codes, _, err = first.ends(MINUTE)
    assert codes == [2, 2]
    assert "Only 2 of 3 processes came within 10 s (process 0, and 1 other(s), from" in err[0]
    assert "--processes 3 and --process 0 to 2" in err[0]
    assert "Not all 3 processes came within 10 s: this is process 1, and process 0 " in err[1]
    assert f"localhost:{first.port}" in err[1]
    codes, _, err = second.ends(MINUTE)
    assert codes == [2]
    assert f"process 0 does not answer at localhost:{second.port}, or no more" in err[0]
    assert not (tmp_path / "a").exists()
    assert not (tmp_path / "b").exists()


def test_eval_by_two_processes(whole, place, tmp_path):
    workdir = pathlib.Path(shutil.copytree(whole[0], tmp_path / "run"))
    before = json.loads((workdir / "evaluation.json").read_text())
    (workdir / "evaluation.json").unlink()
    codes, _, err = Pair(place, workdir, "--mode=eval").ends()
    assert codes == [0, 0], err
    after = json.loads((workdir / "evaluation.json").read_text())
    assert after["last"] == before["last"]
    assert after["best"] == before["best"]
