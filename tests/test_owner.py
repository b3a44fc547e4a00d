"""One run, one writer: a second start is noticed, and the older of two ends and spoils nothing."""

import errno
import importlib
import json
import os
import pathlib
import re
import shutil
import socket
import subprocess
import sys
import threading

import jax
import pytest
import tiny

from clevit_jax.data import procedural_leaves
from clevit_jax.errors import STALLED, ConfigError, StorageError, SupersededError
from clevit_jax.runs import checkpoint_files, lock, metrics, owner
from clevit_jax.runs.checkpoint import Checkpoints
from clevit_jax.runs.logger import MetricLogger
from clevit_jax.runs.owner import Owner, check_free, owned, read_owner, this_process
from clevit_jax.runs.setup import prepare_run
from clevit_jax.system import faults, files
from clevit_jax.train import train_workdir

training = importlib.import_module("clevit_jax.train")  # `clevit_jax.train` is the function


def write_owner(workdir, **facts):
    files.write_json(workdir / "owner.json", {"token": "other", "started": "then", **facts})


def test_who_has_it_is_written_down_and_when_it_ended(tmp_path):
    with owned(tmp_path / "run", seconds=60) as mine:
        mine.check()
        facts = read_owner(tmp_path / "run")
        assert {"pid": os.getpid(), "host": socket.gethostname()}.items() <= facts.items()
        assert "ended" not in facts
        with pytest.raises(ConfigError, match=rf"^Process {os.getpid()} on .* is training in "):
            check_free(tmp_path / "run")
    assert read_owner(tmp_path / "run")["ended"] >= facts["started"]
    check_free(tmp_path / "run")


@pytest.mark.parametrize(
    "change", [{"host": "elsewhere"}, {"process_started": 7.0}, {"pid": 2**22 + 1}, {"pid": "x"}]
)
def test_who_does_not_live_here_keeps_nobody_out(tmp_path, change):
    """Another host, a process that has the number of one that is gone, one that is gone."""
    write_owner(tmp_path, **this_process())
    with pytest.raises(ConfigError, match="is training in"):
        check_free(tmp_path)
    write_owner(tmp_path, **{**this_process(), **change})
    check_free(tmp_path)


def test_a_run_of_a_kernel_that_lives_on_is_over(tmp_path, monkeypatch):
    """Also where the disk was full when it ended."""
    with monkeypatch.context() as patch, owned(tmp_path, seconds=60):
        patch.setattr(owner, "write_json", _no_space)
    assert "ended" not in read_owner(tmp_path)
    check_free(tmp_path)


def _no_space(*args, **kwargs):
    raise OSError(errno.ENOSPC, "No space left on device")


def test_the_older_ends_and_leaves_the_newer_alone(tmp_path):
    with owned(tmp_path, seconds=60) as older, owned(tmp_path, seconds=60) as newer:
        newer.check()
        said = (
            rf"^{re.escape(str(tmp_path))} was taken over at 20.* by process {os.getpid()} on "
            r".*, a newer start of this run\. This one, process .*, ends at step 7 and writes"
        )
        for look in (older.check, older.look, older.look_cheaply):
            with pytest.raises(SupersededError, match=said):
                look("at step 7")
        assert older.superseded
        older.let_it_go()
        assert "ended" not in read_owner(tmp_path)
    assert SupersededError.exit_code == 2


@pytest.mark.parametrize("text", [None, "", "[]", "{"])
def test_what_cannot_be_read_tells_of_nobody(tmp_path, text):
    with owned(tmp_path, seconds=60) as mine:
        (tmp_path / "owner.json").unlink()
        if text is not None:
            (tmp_path / "owner.json").write_text(text)
        mine.check()
    Owner().check()


_TRAIN = """
import pathlib, sys
from clevit_jax.runs.lock import locked
from clevit_jax.runs.owner import owned

if sys.argv[2:]:
    from clevit_jax.runs import lock
    lock.fcntl.flock = lambda *_: None
with locked(pathlib.Path(sys.argv[1])), owned(pathlib.Path(sys.argv[1]), seconds=60):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.mark.parametrize("locks", [True, False])
def test_a_second_start_on_one_host_is_refused(tmp_path, monkeypatch, locks):
    """By the lock, or where it does not hold by who is written down; a kill frees both."""
    if not locks:
        monkeypatch.setattr(lock.fcntl, "flock", lambda *_: None)
    child = subprocess.Popen(
        [sys.executable, "-c", _TRAIN, tmp_path / "run", *["no locks"] * (not locks)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert child.stdout
    assert child.stdout.readline() == "held\n"
    said = f"Process {child.pid} on {socket.gethostname()} (since "
    with pytest.raises(ConfigError, match=re.escape(said)), lock.locked(tmp_path / "run"):
        pass
    child.kill()
    child.communicate()
    with lock.locked(tmp_path / "run"):
        pass


def test_a_lock_of_another_host_keeps_nobody_out(tmp_path, capsys):
    """A network disk may keep the lock of a host that is gone."""
    with lock.locked(tmp_path):
        facts = {**this_process(), "host": "gone", "since": "then"}
        (tmp_path / lock.LOCK_FILE).write_text(json.dumps(facts))
        with lock.locked(tmp_path):
            pass
    assert "on gone (since then) has the lock of" in capsys.readouterr().out


TOTAL = 12


@pytest.fixture(scope="module")
def place(once):
    """Leaves, and a run of them that nothing disturbs, in `run`; for looking only."""

    def make(folder):
        leaves = {"classes": 4, "train_per_class": 3, "test_per_class": 2, "size": 16}
        procedural_leaves.write_dataset(folder / "leaves", **leaves)
        assert train_workdir(make_config(folder), folder / "run") == 0

    return once("owner", make)


def make_config(place, **changes):
    config = tiny.small()
    config.data.root = str(place / "leaves")
    config.epochs = 4
    config.eval.every_epochs = 4
    config.checkpoint.every_steps = 4
    config.checkpoint.keep = 100
    config.log.every_steps = 1
    config.update_from_flattened_dict(changes)
    return config


def everything(place, workdir):
    """What two runs must have alike: scores, steps, arrays of the last, and losses."""
    scores = json.loads((workdir / "evaluation.json").read_text())["last"]
    found = Checkpoints(workdir / "checkpoints", keep=100, read_only=True)
    try:
        like = prepare_run(make_config(place), workdir).steps.abstract_state
        arrays = jax.device_get(found.restore(TOTAL, like)[0])
        steps = found.steps()
    finally:
        found.close()
    losses = [
        (record["step"], record.get("train/loss"), record.get("test/loss"))
        for record in metrics.read_records(workdir / "metrics.jsonl")
    ]
    return scores, steps, losses, [leaf.tobytes() for leaf in jax.tree.leaves(arrays)]


def test_the_older_ends_by_its_numbers_and_the_newer_is_undisturbed(place, tmp_path, monkeypatch):
    """The newer claims it while the older trains, and goes on where that has saved."""
    run = tmp_path / "run"
    log_update = MetricLogger.log_update

    def log(self, step, *more):
        if step == 7:
            write_owner(run, host="newer", pid=3)
        log_update(self, step, *more)

    with monkeypatch.context() as patch:
        patch.setattr(MetricLogger, "log_update", log)
        said = "process 3 on newer, .* ends at step 6 and writes"  # one update later
        with pytest.raises(SupersededError, match=said):
            train_workdir(make_config(place), run)
    assert read_owner(run)["token"] == "other"
    assert [record["step"] for record in metrics.read_records(run / "metrics.jsonl")][-1] == 5
    assert train_workdir(make_config(place), run) == 0
    assert everything(place, run) == everything(place, place / "run")


def test_a_save_that_is_under_way_when_the_newer_starts(place, tmp_path, monkeypatch):
    """It gets no name, nothing half written of the newer is removed, and no score is written."""
    run = tmp_path / "run"
    write_hashes = checkpoint_files.write_hashes

    def taken(folder):
        write_hashes(folder)
        if folder.name.startswith("8."):
            write_owner(run, host="newer", pid=3)
            (run / "checkpoints" / "12.orbax-checkpoint-tmp").mkdir()

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint_files, "write_hashes", taken)
        with pytest.raises(SupersededError, match="process 3 on newer"):
            train_workdir(make_config(place, **{"log.every_steps": 1000}), run)
    left = {path.name.partition(".")[0] for path in (run / "checkpoints").iterdir()}
    assert {"4", "12"} <= left
    assert not (run / "checkpoints" / "8").exists()
    assert not (run / "evaluation.json").exists()
    assert train_workdir(make_config(place), run) == 0
    assert everything(place, run)[1] == everything(place, place / "run")[1]
    assert everything(place, run)[3] == everything(place, place / "run")[3]


def test_taken_over_at_its_last_step(place, tmp_path, monkeypatch):
    """All is saved, and the scores are for the newer to write."""
    run = pathlib.Path(shutil.copytree(place / "run", tmp_path / "run"))
    (run / "evaluation.json").unlink()
    scored = training.score_checkpoints

    def claimed(*args, **more):
        write_owner(run, host="newer", pid=3)
        scored(*args, **more)

    monkeypatch.setattr(training, "score_checkpoints", claimed)
    with pytest.raises(SupersededError, match="ends before its scores are written and"):
        train_workdir(make_config(place), run)
    assert not (run / "evaluation.json").exists()


def test_storage_that_does_not_answer_ends_a_run(place, tmp_path, monkeypatch):
    """With a code of its own; what was saved before is whole."""
    answers, write = threading.Event(), metrics.MetricWriter.write

    def hanging(self, step, scalars):
        if step == 6:
            answers.wait()
        write(self, step, scalars)

    monkeypatch.setattr(metrics.MetricWriter, "write", hanging)
    config = make_config(place, **{"checkpoint.timeout_minutes": 0.1})
    try:
        with pytest.raises(StorageError, match=r"not answered for 0\.1 minutes \(metrics") as told:
            train_workdir(config, tmp_path)
    finally:
        answers.set()
    assert faults.tell(told.value) == STALLED == 77
    assert (tmp_path / "checkpoints" / "4" / "sha256.json").exists()


def test_no_call_waits_longer_than_it_may(tmp_path):
    """Nor do those after it; one inside of another is part of it."""
    answers = threading.Event()
    with owned(tmp_path, seconds=60) as mine:
        assert mine.call("a", lambda: mine.call("b", lambda: 3)) == 3
        with pytest.raises(KeyError):
            mine.call("a", lambda: {}["b"])
        mine._bounded._seconds = 0.1
        for _ in range(2):
            with pytest.raises(StorageError, match=r"^The storage of .* \(run\.json\)"):
                mine.call("run.json", answers.wait)
        with pytest.raises(StorageError):
            mine.check()
        answers.set()
    assert Owner().call("anything", lambda: 3) == 3


def test_a_folder_that_does_not_answer_at_the_start(tmp_path, monkeypatch):
    answers = threading.Event()
    monkeypatch.setattr(pathlib.Path, "exists", lambda *_: answers.wait())
    with pytest.raises(StorageError, match=r"^The storage of .* not answered for 0\.001 minutes"):
        owner.reach(tmp_path, minutes=0.001)
    answers.set()
    owner.reach(tmp_path, minutes=float("nan"))  # refused elsewhere, in a sentence
