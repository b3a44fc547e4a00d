"""Runs in a bucket: as on a disk, to the last digit, whatever happens on the way."""

import functools
import importlib
import json
import pathlib
import random
import shutil
import threading
import time

import jax
import numpy as np
import pytest
import tiny

from clevit_jax.data import procedural_leaves
from clevit_jax.errors import ClevitError
from clevit_jax.evaluate import evaluate_workdir
from clevit_jax.runs import checkpoint_files, setup
from clevit_jax.runs.checkpoint import Checkpoints
from clevit_jax.runs.metrics import read_records
from clevit_jax.runs.setup import prepare_run
from clevit_jax.system.places import run_place
from clevit_jax.train import train_workdir

training = importlib.import_module("clevit_jax.train")  # `clevit_jax.train` is the function

pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
TOTAL = 12  # 4 epochs of 12 images in batches of 4
KILLS = 20


@pytest.fixture(scope="module", autouse=True)
def _compiled_once():
    """All runs here take the steps that the first one made, which trace and lower once."""
    made = functools.cache(setup.make_jitted_steps)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(setup, "make_jitted_steps", made)
        yield


@pytest.fixture(scope="module")
def config(once):
    def make(folder):
        procedural_leaves.write_dataset(
            folder, classes=4, train_per_class=3, test_per_class=2, size=16
        )

    config = tiny.small()
    config.data.root = str(once("leaves of train", make))
    config.epochs = 4
    config.eval.every_epochs = 2
    config.optim.lr = 1.0
    config.optim.warmup_epochs = 1.0
    config.checkpoint.every_steps = 5
    config.checkpoint.keep = 100
    config.log.every_steps = 1
    return config


@pytest.fixture(scope="module")
def on_disk(config, tmp_path_factory):
    """A run that nothing interrupts, on a disk; for looking only."""
    workdir = tmp_path_factory.mktemp("disk") / "run"
    assert train_workdir(config, workdir) == 0
    return workdir


def state_of(config, workdir, step=TOTAL):
    run = prepare_run(config, workdir)
    checkpoints = Checkpoints(run.checkpoints, keep=100, read_only=True)
    state, meta = checkpoints.restore(step, run.steps.abstract_state)
    checkpoints.close()
    return jax.device_get(state), meta


def check_same(config, workdir, other):
    """State, place in the data, scores and numbers of two runs are the same, to the last digit."""
    for a, b in zip(*(jax.tree.leaves(state_of(config, w)) for w in (workdir, other)), strict=True):
        np.testing.assert_array_equal(a, b)
    assert _scores(workdir) == _scores(other)
    assert _numbers(workdir) == _numbers(other)


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


def test_a_run_in_a_bucket_is_that_on_a_disk(config, on_disk, killed):
    workdir, _ = killed
    check_same(config, workdir, on_disk)
    left = {path.relative_to(on_disk).parts[0] for path in on_disk.rglob("*")}
    assert {path.name for path in workdir.iterdir()} == left - {".lock"}


def test_killed_at_any_moment_it_goes_on(config, on_disk, killed, gcs):
    _, snapshots = killed
    for number, moment in enumerate(random.Random(1).sample(snapshots, KILLS)):
        workdir = run_place(f"gs://runs/again-{number}")
        copy_to_bucket(moment / "runs" / "whole", workdir)
        assert train_workdir(config, workdir) == 0
        check_same(config, workdir, on_disk)


@pytest.mark.parametrize("harm", ["mark", "bytes"])
def test_a_damaged_checkpoint_is_passed_over(config, on_disk, bucket, harm, capsys):
    copy_to_bucket(on_disk, bucket)
    newest = bucket / "checkpoints" / str(TOTAL)
    if harm == "mark":
        (newest / "commit_success.txt").unlink()
    else:
        for path in (newest / "state").files():
            path.write_bytes(b"rubbish")
    (bucket / "evaluation.json").unlink()
    assert train_workdir(config, bucket) == 0
    assert "Going on from step 10 of 12." in capsys.readouterr().out
    assert (bucket / "checkpoints" / "damaged" / str(TOTAL) / "state").exists()
    check_same(config, bucket, on_disk)


def test_a_copy_to_a_bucket_and_back_keeps_its_checkpoints(config, on_disk, bucket, tmp_path):
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
    check_same(config, tmp_path, on_disk)


def test_a_bucket_that_is_away_for_8_seconds_is_not_noticed(config, on_disk, gcs, bucket, capsys):
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
    check_same(config, bucket, on_disk)


def test_a_missing_bucket_is_said_before_an_image_is_decoded(config, gcs, monkeypatch):
    monkeypatch.setattr(training, "decode_all", None)
    with pytest.raises(ClevitError, match="there is no bucket nowhere-at-all"):
        train_workdir(config, run_place("gs://nowhere-at-all/run"))


def test_scores_are_taken_again_in_a_bucket(config, on_disk, bucket):
    copy_to_bucket(on_disk, bucket)
    (bucket / "evaluation.json").unlink()
    assert evaluate_workdir(config, bucket) == 0
    assert _scores(bucket) == _scores(on_disk)
