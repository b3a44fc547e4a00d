"""Two processes on loopback as one run: joined, stopped, killed, failed, and gone on alone."""

import itertools
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
from concurrent import futures

import compiling
import jax
import numpy as np
import pytest
from waiting import LIMIT, wait_until

from clevit_jax.data import procedural_leaves
from clevit_jax.runs.checkpoint import Checkpoints
from clevit_jax.runs.setup import prepare_run
from clevit_jax.runs.workdir import load_config

CONFIG = """
import os
import time

import jax
import tiny
from clevit_jax.distributed import watch
from clevit_jax.train import MetricLogger

log_update = MetricLogger.log_update
judges, see = [], watch.Judge.see

def kept(self, *words):
    judges[:] = [self]
    return see(self, *words)

def held(self, step, *more):
    hold_at = int(os.environ["HOLD_AT"])
    if step == hold_at and os.environ.get("HANGS") == str(jax.process_index()):
        judges[0]._seconds = 10.0
        while True:  # as in a call to a disk that is gone; other threads go on
            time.sleep(0.01)
    while step == hold_at and os.path.exists("hold"):
        time.sleep(0.01)
    if 0 < hold_at < step:
        time.sleep(2)  # so that the processes agree on a stop before the end
    log_update(self, step, *more)

def get_config():
    MetricLogger.log_update = held
    watch.Judge.see, watch._PERIOD = kept, 0.5
    config = tiny.get_config()
    config.data.root = "leaves"
    config.batch_size = 8
    config.eval.batch_size = 8
    config.epochs = 30
    config.eval.every_epochs = 10
    config.model.embed_dim = 64
    config.mesh.fsdp = 4
    config.optim.lr = 0.3
    config.optim.warmup_epochs = 1.0
    config.checkpoint.every_steps = 5
    config.checkpoint.keep = 100
    config.log.every_steps = 1
    # The views and their losses are not what is tested here; tests/test_devices.py has them.
    config.views.kind = "base"
    config.views.degrees = 0.0
    config.loss.positive = config.loss.contrast = 0.0
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
TOTAL = 45  # 30 epochs of 12 images in batches of 8


@pytest.fixture
def place(once, tmp_path):
    """A folder of the test's own with the config, and 12 training and 9 test images."""
    return pathlib.Path(shutil.copytree(once("two", make_place), tmp_path / "place"))


def make_place(folder):
    (folder / "config.py").write_text(CONFIG)
    shutil.copy(pathlib.Path(__file__).with_name("tiny.py"), folder)
    procedural_leaves.write_dataset(
        folder / "leaves", classes=3, train_per_class=4, test_per_class=3, size=16
    )


def free_port():
    with socket.socket() as held:
        held.bind(("localhost", 0))
        return held.getsockname()[1]


def environment(devices, hold_at=0):
    """Of a process on that many devices, which at this step waits for `hold` to go."""
    more = {"XLA_FLAGS": compiling.xla_flags(devices), "PYTHONUNBUFFERED": "1"}
    return {**os.environ, **more, "HOLD_AT": str(hold_at)}


class Pair:
    """Two processes, or some of them, that are one run."""

    def __init__(
        self, place, workdir, *more, processes=(0, 1), count=2, devices=2, differing=(),
        configs=("config.py", "config.py"), hold_at=0,
    ):  # fmt: skip
        self.port, self.hold = free_port(), place / "hold"
        if hold_at:
            self.hold.touch()
        self.children = [
            subprocess.Popen(
                [sys.executable, "-m", "clevit_jax.main", f"--config={configs[process]}",
                 f"--workdir={workdir}", f"--coordinator=localhost:{self.port}",
                 f"--processes={count}", f"--process={process}", *more,
                 *(differing if process else ())],
                cwd=place, env=environment(devices, hold_at), text=True,
                stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            )
            for process in processes
        ]  # fmt: skip

    def wait_for(self, path):
        """Until a file or folder is there, while both live."""
        wait_until(path.exists, *self.children)

    def send(self, process, number):
        """Sends a signal while the run is held, and lets it go on."""
        self.children[process].send_signal(number)
        self.hold.unlink()

    def ends(self):
        """Exit codes, standard outputs and standard errors, of those too that had to be killed."""
        ended = threading.Timer(LIMIT, lambda: [child.kill() for child in self.children])
        ended.start()
        # All at once: one whose pipe is full waits for its reader, and the others for it.
        with futures.ThreadPoolExecutor() as pool:
            said = list(pool.map(subprocess.Popen.communicate, self.children))
        ended.cancel()
        return [child.returncode for child in self.children], *zip(*said, strict=True)


@pytest.fixture
def whole(once):
    """Workdir and outputs of a run of two processes that nothing disturbs; for looking only."""
    made = once("whole of two", make_whole)
    out, err = json.loads((made / "said.json").read_text())
    return made / "run", out, err


def make_whole(folder):
    make_place(folder)
    codes, out, err = Pair(folder, folder / "run").ends()
    assert codes == [0, 0], err
    (folder / "said.json").write_text(json.dumps([out, err]))


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
    # What the other one would have said is in its log, as the first one's is.
    logs = [(workdir / name).read_text() for name in ("log.txt", "log-1.txt")]
    for log in logs:
        assert log.startswith("Waiting for 2" if log is logs[0] else "Data: ufg")
        assert "Test, last (step 45): top-1" in log
    assert set(logs[1].splitlines()) < set(logs[0].splitlines())
    assert [step for step, _ in losses(workdir)] == list(range(1, TOTAL + 1))
    result = json.loads((workdir / "evaluation.json").read_text())
    assert result["last"]["count"] == 9


def test_killed_and_stopped_and_still_the_same_run(whole, place):
    """One of two is killed, then the other, then one is stopped; at last one goes on alone.

    Each time the other process ends by itself, and no image is lost and none seen twice.
    """
    workdir = place / "run"
    for victim, step in ((0, 5), (1, 10)):
        pair = Pair(place, workdir, hold_at=step + 2)
        pair.wait_for(workdir / "checkpoints" / str(step))
        pair.send(victim, signal.SIGKILL)
        codes, out, _ = pair.ends()
        assert codes[victim] == -signal.SIGKILL
        assert codes[1 - victim] not in (0, 75)
        assert ("Going on from step" in out[0]) == (victim == 1)
    step = newest(workdir) // 5 * 5 + 5  # of the first checkpoint that is not there yet
    pair = Pair(place, workdir, hold_at=step + 2)
    pair.wait_for(workdir / "checkpoints" / str(step))
    pair.send(1, signal.SIGTERM)
    codes, out, err = pair.ends()
    assert codes == [75, 75], err
    stopped = newest(workdir)
    assert f"Stopped and saved at step {stopped};" in out[0]
    assert losses(workdir) == losses(whole[0])[:stopped]
    jax.tree.map(
        np.testing.assert_array_equal,
        params(place, workdir, step),
        params(place, whole[0], step),
    )
    done = subprocess.run(
        [sys.executable, "-m", "clevit_jax.main", "--config=config.py", f"--workdir={workdir}",
         "--config.mesh.fsdp=1"],
        cwd=place, capture_output=True, text=True, env=environment(1),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert f"Going on from step {stopped} " in done.stdout
    np.testing.assert_allclose(losses(workdir), losses(whole[0]), rtol=1e-4)
    one, two = (json.loads((w / "evaluation.json").read_text()) for w in (workdir, whole[0]))
    assert one["last"]["top1"] == two["last"]["top1"]
    assert one["last"]["loss"] == pytest.approx(two["last"]["loss"], rel=1e-4)


def test_one_that_hangs_is_named_by_all(place, tmp_path, monkeypatch):
    """It lives, so JAX does not miss it; what was saved stays."""
    monkeypatch.setenv("HANGS", "1")
    workdir = tmp_path / "run"
    pair = Pair(place, workdir, hold_at=12)
    pair.hold.unlink()
    codes, _, err = pair.ends()
    assert codes == [76, 76], err
    pid = pair.children[1].pid
    said = (
        rf"process 1 of 2 \(process id {pid} on .*\) has not moved for 0\.\d+ minutes, since step"
    )
    for text in err:
        assert re.search(said, text), text
    assert "10" in {path.name for path in (workdir / "checkpoints").iterdir()}


def test_an_image_goes_bad_in_the_middle_of_an_epoch(place, tmp_path):
    """It is read anew each time, for nothing is kept; both say its name."""
    data = place / "leaves"
    workdir = tmp_path / "run"
    pair = Pair(place, workdir, "--config.data.cache_bytes=0", "--config.epochs=4000",
                "--config.eval.every_epochs=4000")  # fmt: skip
    pair.wait_for(workdir / "checkpoints" / "5")
    bad = sorted(data.rglob("*_train.png"))[0]
    bad.write_bytes(b"no image")
    codes, _, err = pair.ends()
    assert codes == [2, 2]
    logs = [(workdir / name).read_text() for name in ("log.txt", "log-1.txt")]
    for text in (*err, *logs):
        assert f"{bad.name} is a text file, not an image" in text
        assert "Traceback" not in text


def test_bad_images_are_named_by_all_wherever_they_are_read(place, tmp_path):
    bad = sorted((place / "leaves").rglob("*_train.png"))[:3]
    for path in bad:
        path.write_bytes(b"no image")
    codes, _, err = Pair(place, tmp_path / "run").ends()
    assert codes == [2, 2]
    for text, path in itertools.product(err, bad):
        assert path.name in text
    assert not (tmp_path / "run").exists()


def test_another_command_in_another_process(place, tmp_path):
    pair = Pair(place, tmp_path / "run", differing=["--config.epochs=31", "--config.optim.lr=0.1"])
    codes, _, err = pair.ends()
    assert codes == [2, 2]
    for text in err:
        assert "Process 1 was started for another run than process 0" in text
        assert "epochs: 30, 31; optim.lr: 0.3, 0.1." in text
    assert not (tmp_path / "run").exists()


def test_a_torn_checkpoint_of_two_processes(place, whole):
    """Torn for both, and the one before for one process alone: both take the third."""
    workdir = pathlib.Path(shutil.copytree(whole[0], place / "run"))
    (workdir / "evaluation.json").unlink()  # which says that it is finished
    step = newest(workdir)
    parts = (workdir / "checkpoints" / str(step) / "state").glob("ocdbt.process_1/d/*")
    largest = max(parts, key=lambda path: path.stat().st_size)
    os.truncate(largest, largest.stat().st_size // 2)
    (place / "blind.py").write_text(BLIND.format(step - 5))
    configs = ("config.py", "blind.py")
    codes, out, err = Pair(place, workdir, configs=configs).ends()
    assert codes == [0, 0], err
    for gone in (step, step - 5):
        assert f"Checkpoint {gone} cannot be read" in err[0]
        assert (workdir / "checkpoints" / "damaged" / str(gone)).exists()
    begun = int(out[0].split("Going on from step ")[1].split()[0])
    assert begun == TOTAL - 10
    assert [step for step, _ in losses(workdir)] == list(range(1, TOTAL + 1))


def test_some_do_not_come(place, tmp_path):
    """Each says what it knows, and what to run; at the same time, to save it."""
    for wait in (10, 60, 600):  # on a busy machine they may come at different times
        late = [f"--wait={wait}"]
        first = Pair(place, tmp_path / "a", *late, processes=(0, 1), count=3)
        second = Pair(place, tmp_path / "b", *late, processes=(1,), count=2)
        ends = first.ends(), second.ends()
        if "Only 1 of 3" not in ends[0][2][0]:
            break
    codes, _, err = ends[0]
    assert codes == [2, 2]
    assert f"Only 2 of 3 processes came within {wait} s (process 0, and 1 other(s), from" in err[0]
    assert "--processes 3 and --process 0 to 2" in err[0]
    assert f"Not all 3 processes came within {wait} s: this is process 1, and process 0 " in err[1]
    assert f"localhost:{first.port}" in err[1]
    codes, _, err = ends[1]
    assert codes == [2]
    assert f"process 0 does not answer at localhost:{second.port}, or no longer" in err[0]
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
