"""Runs in a bucket: as on a disk, to the last digit, whatever happens on the way."""

import importlib
import json
import os
import pathlib
import random
import shutil
import subprocess
import sys
import threading
import time

import gcs_emulator
import jax
import numpy as np
import pytest
import test_processes
import test_train
import tiny
from absl import flags
from waiting import wait_until

from clevit_jax import flags as command_line
from clevit_jax import main
from clevit_jax.errors import ClevitError, ConfigError, StorageError, SupersededError
from clevit_jax.evaluate import evaluate_workdir
from clevit_jax.runs import checkpoint_files
from clevit_jax.runs.checkpoint import Checkpoints
from clevit_jax.runs.logger import MetricLogger
from clevit_jax.runs.metrics import read_records
from clevit_jax.runs.owner import check_free
from clevit_jax.runs.setup import prepare_run
from clevit_jax.system import faults, files
from clevit_jax.system.places import run_place
from clevit_jax.train import train_workdir

training = importlib.import_module("clevit_jax.train")  # `clevit_jax.train` is the function

pytestmark = [
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    # Of aiohttp, for what gcsfs hands it.
    pytest.mark.filterwarnings("ignore:Sending a large body:ResourceWarning"),
]
TOTAL = 9  # 3 epochs of 12 images in batches of 4
KILLS = 20


@pytest.fixture(scope="module")
def config(once):
    config = tiny.small()
    config.data.root = str(once("leaves of train", test_train.make_leaves))
    config.epochs = 3
    config.eval.every_epochs = 3
    config.optim.lr = 1.0
    config.optim.warmup_epochs = 1.0
    config.checkpoint.every_steps = 4
    config.checkpoint.keep = 100
    config.log.every_steps = 1
    return config


@pytest.fixture(scope="module")
def on_disk(config, tmp_path_factory):
    """A run that nothing interrupts, on a disk; for looking only."""
    workdir = tmp_path_factory.mktemp("disk") / "run"
    assert train_workdir(config, workdir) == 0
    return workdir


@pytest.fixture(scope="module")
def check_same(config, on_disk):
    """`check_same(workdir)`: state, place in the data, scores and numbers of a run are those of the
    run on a disk, to the last digit."""
    like = prepare_run(config, on_disk).steps.abstract_state

    def state_of(workdir):
        checkpoints = Checkpoints(workdir / "checkpoints", keep=100, read_only=True)
        try:
            return jax.device_get(checkpoints.restore(TOTAL, like))
        finally:
            checkpoints.close()

    wanted = jax.tree.leaves(state_of(on_disk))

    def check(workdir):
        for a, b in zip(jax.tree.leaves(state_of(workdir)), wanted, strict=True):
            np.testing.assert_array_equal(a, b)
        assert _scores(workdir) == _scores(on_disk)
        assert _numbers(workdir) == _numbers(on_disk)

    return check


def _scores(workdir):
    return {**json.loads((workdir / "evaluation.json").read_text()), "written": ""}


def _numbers(workdir):
    speed = ("train/images_per_second", "train/data_wait")
    return [
        {name: value for name, value in record.items() if name not in speed}
        for record in read_records(workdir / "metrics.jsonl")
    ]


def copy_to_bucket(folder, target):
    """As `gcloud storage cp -r`: file by file, in no order."""
    for path in folder.rglob("*"):
        if path.is_file():
            (target / path.relative_to(folder).as_posix()).upload(path)


class Snapshots(threading.Thread):
    """What lies in a bucket at random moments: what a kill at that moment leaves."""

    def __init__(self, server, target, seed):
        super().__init__(daemon=True)
        self._server, self._target, self._random = server, target, random.Random(seed)
        self.over = threading.Event()
        self.taken: list[pathlib.Path] = []

    def run(self):
        while not self.over.wait(self._random.uniform(0, 0.1)):
            with self._server.standing_still():
                self.taken.append(self._target / str(len(self.taken)))
                shutil.copytree(self._server.root, self.taken[-1])


@pytest.fixture(scope="module")
def killed(config, gcs, tmp_path_factory):
    """A run in a bucket, and the bucket as it was at moments of it."""
    workdir = run_place("gs://runs/whole")
    snapshots = Snapshots(gcs, tmp_path_factory.mktemp("snapshots"), seed=0)
    snapshots.start()
    assert train_workdir(config, workdir) == 0
    snapshots.over.set()
    snapshots.join()
    return workdir, snapshots.taken


def test_a_run_in_a_bucket_is_that_on_a_disk(on_disk, killed, check_same):
    workdir, _ = killed
    check_same(workdir)
    left = {path.relative_to(on_disk).parts[0] for path in on_disk.rglob("*")}
    assert {path.name for path in workdir.iterdir()} == left - {".lock"}
    assert (workdir / "log.txt").read_text().startswith("Data: ufg")


def test_killed_at_any_moment_it_goes_on(config, killed, check_same):
    _, snapshots = killed
    for number, moment in enumerate(random.Random(1).sample(snapshots, KILLS)):
        workdir = run_place(f"gs://runs/again-{number}")
        copy_to_bucket(moment / "runs" / "whole", workdir)
        assert train_workdir(config, workdir) == 0
        check_same(workdir)


@pytest.mark.parametrize("harm", ["mark", "bytes"])
def test_a_damaged_checkpoint_is_passed_over(config, on_disk, bucket, check_same, harm, capsys):
    copy_to_bucket(on_disk, bucket)
    newest = bucket / "checkpoints" / str(TOTAL)
    if harm == "mark":
        (newest / "commit_success.txt").unlink()
    else:
        for path in (newest / "state").files():
            path.write_bytes(b"rubbish")
    (bucket / "evaluation.json").unlink()
    assert train_workdir(config, bucket) == 0
    assert "Going on from step 8 of 9." in capsys.readouterr().out
    assert (bucket / "checkpoints" / "damaged" / str(TOTAL) / "state").exists()
    check_same(bucket)


def test_a_copy_to_a_bucket_and_back_keeps_its_checkpoints(on_disk, bucket, tmp_path, check_same):
    copy_to_bucket(on_disk, bucket)
    steps = sorted(int(path.name) for path in (on_disk / "checkpoints").iterdir())
    checkpoints = Checkpoints(bucket / "checkpoints", keep=100)
    assert checkpoints.steps() == steps
    checkpoints.close()
    for path in bucket.files():
        target = tmp_path.joinpath(*path.parts[len(bucket.parts) :])
        target.parent.mkdir(parents=True, exist_ok=True)
        path.download(target)
    assert all(not checkpoint_files.damage(path) for path in (tmp_path / "checkpoints").iterdir())
    check_same(tmp_path)


def test_a_bucket_that_is_away_for_8_seconds_is_not_noticed(
    config, gcs, bucket, check_same, capsys
):
    away = threading.Event()

    def leave():
        away.wait()
        gcs.stop()
        time.sleep(8)
        gcs.start()

    thread = threading.Thread(target=leave)
    thread.start()
    (bucket / "probe").write_bytes(b"")
    threading.Timer(0.5, away.set).start()
    try:
        assert train_workdir(config, bucket) == 0
    finally:
        away.set()
        thread.join()
    assert "error" not in capsys.readouterr().err
    check_same(bucket)


@pytest.fixture
def at_step(monkeypatch):
    """`at_step(step, what)` calls `what()` once, after an update, and before it is logged."""
    log_update = MetricLogger.log_update

    def call(step, what):
        left = [what]

        def logged(self, now, *more):
            if now == step and left:
                left.pop()()
            log_update(self, now, *more)

        monkeypatch.setattr(MetricLogger, "log_update", logged)

    return call


def test_a_bucket_that_is_gone_for_good_is_said(
    config, gcs, bucket, check_same, at_step, monkeypatch, capsys
):

    def leave():
        wait_until((bucket / "checkpoints" / "4" / "commit_success.txt").exists)
        gcs.stop()

    gcs_emulator.retry_at_once(monkeypatch)
    at_step(6, leave)
    hasty = config.copy_and_resolve_references()
    hasty.checkpoint.timeout_minutes = 0.1
    try:
        with pytest.raises(StorageError) as raised:
            train_workdir(hasty, bucket)
    finally:
        gcs.start()
    assert faults.exit_code(raised.value) == 77
    assert train_workdir(config, bucket) == 0
    assert "Going on from step 4 of 9." in capsys.readouterr().out
    check_same(bucket)


def test_a_newer_start_on_another_host_takes_the_run_over(config, bucket, check_same, at_step):
    newer = {"token": "of another", "host": "newer", "pid": 3, "started": "2026-01-01T00:00:00"}
    at_step(6, lambda: files.write_json(bucket / "owner.json", newer))
    with pytest.raises(SupersededError, match=r"taken over at .* by process 3 on newer"):
        train_workdir(config, bucket)
    assert sorted(path.name for path in (bucket / "checkpoints").iterdir()) == ["4"]
    assert files.read_json(bucket / "owner.json") == newer
    assert train_workdir(config, bucket) == 0
    check_same(bucket)


def test_a_living_process_of_this_host_keeps_a_second_start_out(config, bucket, at_step):
    """As from another terminal, for which this process is another one."""

    def start_again():
        with pytest.raises(ConfigError, match=f"Process {os.getpid()} on .* is training in gs://"):
            check_free(bucket)

    at_step(6, start_again)
    assert train_workdir(config, bucket) == 0
    check_free(bucket)


def test_a_missing_bucket_is_said_before_an_image_is_decoded(config, gcs, monkeypatch):
    monkeypatch.setattr(training, "decode_all", None)
    with pytest.raises(ClevitError, match="there is no bucket nowhere-at-all"):
        train_workdir(config, run_place("gs://nowhere-at-all/run"))


CONFIG = """
import tiny

def get_config():
    config = tiny.small()
    config.data.root = {root!r}
    return config
"""


def run(place, config, workdir, environment, *more):
    """The command in a process of its own, in the folder `place`."""
    (place / "config.py").write_text(CONFIG.format(root=config.data.root))
    shutil.copy(pathlib.Path(tiny.__file__), place)
    return subprocess.run(
        [sys.executable, "-m", "clevit_jax.main", "--config=config.py", f"--workdir={workdir}",
         *more],
        cwd=place, env={**os.environ, **environment}, capture_output=True, text=True, timeout=1800,
    )  # fmt: skip


def test_a_bucket_that_can_only_be_read_is_said_at_once(config, gcs, bucket, tmp_path):
    with gcs_emulator.read_only(gcs.url) as environment:
        ended = run(tmp_path, config, bucket / "run", environment)
    assert ended.returncode == 2, ended.stderr
    assert "pod@project does not have storage.objects.create access" in ended.stderr
    assert "Reading" not in ended.stderr  # of images
    assert not bucket.exists()


def test_scores_are_taken_again_in_a_bucket(config, on_disk, bucket):
    copy_to_bucket(on_disk, bucket)
    (bucket / "evaluation.json").unlink()
    assert evaluate_workdir(config, bucket) == 0
    assert _scores(bucket) == _scores(on_disk)


def command(*arguments):
    """The exit code of main.py with its own flags."""
    values = flags.FlagValues()
    command_line.define(values)
    argv = ["main", *map(str, arguments)]
    return main.main(command_line.parse(values, argv), values)


@pytest.mark.parametrize("output", ["table.csv", "table.json", "features.npz"])
def test_answers_of_a_run_in_a_bucket_are_those_on_a_disk(
    config, on_disk, bucket, tmp_path, output
):
    copy_to_bucket(on_disk, bucket / "run")
    mode = "features" if output.endswith(".npz") else "predict"
    wanted = [f"--mode={mode}", f"--input={config.data.root}/images"]
    assert command(*wanted, f"--workdir={on_disk}", f"--output={tmp_path / output}") == 0
    assert command(*wanted, f"--workdir={bucket}/run", f"--output={bucket}/{output}") == 0
    assert (bucket / output).read_bytes() == (tmp_path / output).read_bytes()


def test_a_table_in_a_bucket_is_gone_on_with(config, on_disk, bucket):
    wanted = [
        "--mode=predict", f"--workdir={on_disk}", f"--input={config.data.root}/images",
        f"--output={bucket}/table.csv",
    ]  # fmt: skip
    assert command(*wanted) == 0
    whole = (bucket / "table.csv").read_bytes()
    (bucket / "table.csv").write_bytes(whole[: len(whole) // 2])
    assert command(*wanted, "--resume") == 0
    assert (bucket / "table.csv").read_bytes() == whole


def test_pages_and_pictures_of_a_run_in_a_bucket(config, on_disk, bucket, capsys):
    copy_to_bucket(on_disk, bucket / "run")
    assert command("--mode=report", f"--workdir={bucket}/run") == 0
    page = (bucket / "run" / "report.html").read_text()
    assert "<html" in page
    assert "top-1" in page
    image = sorted(pathlib.Path(config.data.root, "images").rglob("*.png"))[0]
    ask = ["--mode=explain", f"--workdir={bucket}/run", f"--input={image}"]
    assert command(*ask, f"--output={bucket}/pictures") == 0
    assert [path.name for path in (bucket / "pictures").iterdir()] == [f"{image.name}.png"]
    export = ["--mode=export", f"--workdir={bucket}/run", f"--output={bucket}/model.stablehlo"]
    assert command(*export) == 0
    assert (bucket / "model.stablehlo").stat().st_size > 1000
    capsys.readouterr()
    assert command("--mode=compare", on_disk, f"{bucket}/run") == 0
    said = capsys.readouterr().out.splitlines()
    rows = [line.split() for line in said if "/run" in line]
    assert len(rows) == 2
    assert rows[0][2:] == rows[1][2:]


def test_two_processes_go_on_in_a_bucket(once, gcs, bucket, tmp_path):
    """From a copy of what two had at step 40; they end as two that nothing disturbs."""
    whole = once("whole of two", test_processes.make_whole) / "run"
    place = pathlib.Path(
        shutil.copytree(once("two", test_processes.make_place), tmp_path / "place")
    )
    begun = pathlib.Path(shutil.copytree(whole, tmp_path / "begun"))
    (begun / "evaluation.json").unlink()
    shutil.rmtree(begun / "checkpoints" / "45")
    copy_to_bucket(begun, bucket)
    codes, out, err = test_processes.Pair(place, bucket).ends()
    assert codes == [0, 0], err
    assert "Going on from step 40 of 45." in out[0]
    assert _numbers(bucket) == _numbers(whole)
    assert _scores(bucket) == _scores(whole)
    assert {"log.txt", "log-1.txt"} <= {path.name for path in bucket.iterdir()}
