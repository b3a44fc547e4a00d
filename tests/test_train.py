"""Runs, from start to end: killed, stopped, resumed, finished, evaluated, and gone wrong.

One small run is made once and looked at by most tests; all share its compiled functions.
"""

import collections
import contextlib
import dataclasses
import datetime
import importlib
import itertools
import json
import pathlib
import shutil
import signal
import subprocess
import sys
import threading
import time
import types

import jax
import numpy as np
import pytest
from absl import logging
from jax import monitoring
from waiting import wait_until

from clevit_jax.data import pipeline, procedural_leaves
from clevit_jax.distributed import preemption, sharding
from clevit_jax.distributed.preemption import Stop
from clevit_jax.distributed.sharding import to_global
from clevit_jax.errors import CheckpointError, ConfigError, NoRoomError, TrainingError
from clevit_jax.evaluate import evaluate_split, evaluate_workdir
from clevit_jax.runs import goodput
from clevit_jax.runs.checkpoint import Checkpoints
from clevit_jax.runs.setup import prepare_run
from clevit_jax.steps.jitted import JittedSteps, _shared_steps
from clevit_jax.steps.schedule import Plan
from clevit_jax.train import train_workdir

training = importlib.import_module("clevit_jax.train")  # `clevit_jax.train` is the function

pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
CONFIG = """
import tiny

def get_config():
    config = tiny.small()
    config.data.root = "leaves"
    config.eval.every_epochs = 5
    config.epochs = 16
    config.optim.lr = 1.0
    config.optim.warmup_epochs = 1.0
    config.checkpoint.every_steps = 7
    config.checkpoint.keep = 100
    config.log.every_steps = 1
    return config
"""
TOTAL = 48  # 16 epochs of 12 images in batches of 4
SAVED = [7, 14, 21, 28, 35, 42]  # besides 15, 30, 45 and 48, where it is evaluated


@pytest.fixture(scope="module")
def root(once):
    """4 cultivars, 3 training images and 2 test images each."""
    return once("leaves of train", make_leaves)


def make_leaves(folder):
    procedural_leaves.write_dataset(folder, classes=4, train_per_class=3, test_per_class=2, size=16)


@pytest.fixture
def data(root, tmp_path):
    """A copy that a test may damage."""
    return pathlib.Path(shutil.copytree(root, tmp_path / "leaves"))


def make_config(root, **changes):
    names: dict = {}
    exec(CONFIG, names)
    config = names["get_config"]()
    config.data.root = str(root)
    for name, value in changes.items():
        config.update_from_flattened_dict({name.replace("__", "."): value})
    return config


@dataclasses.dataclass
class Whole:
    config: object
    workdir: pathlib.Path
    out: str


@pytest.fixture(scope="module")
def whole(root, once):
    """A run that nothing interrupts; for looking only."""
    config = make_config(f"{root}/")  # as a shell completes it

    def make(folder):
        with (folder / "out").open("w") as out, contextlib.redirect_stdout(out):
            assert train_workdir(config, folder / "new" / "run") == 0

    made = once("whole of train", make)
    return Whole(config, made / "new" / "run", (made / "out").read_text())


@pytest.fixture
def copy(whole, tmp_path):
    return pathlib.Path(shutil.copytree(whole.workdir, tmp_path / "run"))


def records(workdir, prefix):
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    return [record for line in lines if f"{prefix}/loss" in (record := json.loads(line))]


def steps(workdir, prefix="train"):
    return [record["step"] for record in records(workdir, prefix)]


def saved(config, workdir, step):
    """State and meta of a checkpoint, as arrays."""
    run = prepare_run(config, workdir)
    checkpoints = Checkpoints(run.checkpoints, keep=100, read_only=True)
    state, meta = checkpoints.restore(step, run.steps.initial_state())
    checkpoints.close()
    return jax.device_get(state), meta


def placed(run, params):
    return jax.device_put(params, sharding.replicated(run.steps.mesh))


def same(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


def test_what_a_run_leaves(whole):
    assert steps(whole.workdir) == list(range(1, TOTAL + 1))
    assert steps(whole.workdir, "test") == [15, 30, 45, 48]  # every 5 epochs of 3 updates, the end
    last = records(whole.workdir, "test")[-1]
    result = json.loads((whole.workdir / "evaluation.json").read_text())
    assert result["last"]["step"] == TOTAL
    assert result["last"]["loss"] == last["test/loss"]
    assert result["last"]["count"] == 8
    best = max(record["test/top1"] for record in records(whole.workdir, "test"))
    assert result["best"]["top1"] == best
    assert "chosen on the test set" in whole.out
    facts = json.loads((whole.workdir / "run.json").read_text())
    assert facts["updates"] == TOTAL
    assert facts["peak_learning_rate"] == pytest.approx(1.0 * 4 / 512)
    assert facts["peak_learning_rate_head"] == pytest.approx(5 * 4 / 512)
    rates = [record["train/lr"] for record in records(whole.workdir, "train")]
    assert max(rates) == pytest.approx(4 / 512)
    names = {"config.json", "run.json", "evaluation.json", "metrics.jsonl", "tensorboard",
             "views.png", "checkpoints", "log.txt", ".lock", "owner.json"}  # fmt: skip
    assert {path.name for path in whole.workdir.iterdir()} == names
    (start,) = facts["starts"]
    assert start["finished"] is True
    assert start["reached"] == TOTAL
    assert facts["goodput"]["redone"] == facts["goodput"]["down"] == 0
    for name in ("training", "evaluating", "saving", "starting", "waiting"):
        assert facts["goodput"][name] > 0


def test_checkpoints_are_the_states_of_their_steps(whole):
    """Made again by a plain loop that saves nothing."""
    run = prepare_run(whole.config, whole.workdir)
    batches = pipeline.train_dataset(
        run.images["train"], [example.label for example in run.dataset.train], seed=0, batch_size=4,
        process_index=0, process_count=1, threads=1, prefetch=0,
    )  # fmt: skip
    iterator = iter(batches)
    state, numbers = run.steps.initial_state(), run.steps.numbers()
    for step in range(15):
        if step in (7, 14):
            kept, meta = saved(whole.config, whole.workdir, step)
            same(kept, jax.tree.map(np.array, state))
            assert meta["split_hash"] == run.dataset.split_hash()
            assert meta["config"]["optim"]["ema"] == 0.9
        batch = to_global(run.steps.mesh, next(iterator))
        state, _ = run.steps.train_step(state, batch, numbers)
    folders = {path.name for path in (whole.workdir / "checkpoints").iterdir()}
    assert set(map(str, [*SAVED, TOTAL])) <= folders <= set(map(str, [*SAVED, 15, 30, 45, TOTAL]))


def _process(folder, root):
    (folder / "config.py").write_text(CONFIG)
    shutil.copy(pathlib.Path(__file__).with_name("tiny.py"), folder)
    command = [sys.executable, "-m", "clevit_jax.main", "--config=config.py", "--workdir=run",
               f"--config.data.root={root}"]  # fmt: skip
    return subprocess.Popen(
        command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def _last(workdir):
    """The last step that metrics.jsonl tells of."""
    path = workdir / "metrics.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    return max((json.loads(line)["step"] for line in lines if line.endswith("}")), default=0)


def test_nothing_is_compiled_twice(tmp_path, monkeypatch):
    """After the first update, save and evaluation nothing more is, nor in a run that goes on.

    Of the 6 test images the second batch of 4 is half empty.
    """
    root = procedural_leaves.write_dataset(
        tmp_path / "leaves", classes=3, train_per_class=4, test_per_class=2, size=16
    )
    made: list[tuple[int, str]] = []
    counts: collections.Counter[tuple[str, str]] = collections.Counter()
    now = [0]

    def listen(name, _, fun_name="", **more):
        if name.startswith("/jax/core/compile/"):
            made.append((now[0], fun_name))
            counts[name.rsplit("/")[-1], fun_name.removeprefix("jit(").removesuffix(")")] += 1

    def once():
        """The steps are traced, lowered and compiled once each."""
        kinds = ("jaxpr_trace", "jaxpr_to_mlir_module", "backend_compile")
        steps = itertools.product(kinds, ("train_step", "eval_step"))
        return all(counts[f"{kind}_duration", step] == 1 for kind, step in steps)

    follow = training.MetricLogger.log_update
    stop_at = 20

    def counted(self, step, *more):
        now[0] = step
        follow(self, step, *more)
        if step == stop_at:
            signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(training.MetricLogger, "log_update", counted)
    monitoring.register_event_duration_secs_listener(listen)
    _shared_steps.cache_clear()  # as in a process of its own
    assert train_workdir(make_config(root), tmp_path / "run") == training.STOPPED
    assert once(), counts
    assert (0, "jit(train_step)") in made
    assert (15, "jit(eval_step)") in made
    # Orbax cuts what it saves into slices, from the first save on.
    rest = {(step, name) for step, name in made if step and name not in ("slice", "jit(slice)")}
    assert {step for step, _ in rest} == {15}
    assert {step for step, name in made if "slice" in name} <= {0, 7}
    counts.clear()
    made.clear()
    _shared_steps.cache_clear()
    assert train_workdir(make_config(root), tmp_path / "run") == 0
    assert once(), counts
    assert {step for step, name in made if "slice" not in name} <= {stop_at, 30}
    assert now[0] == TOTAL
    # Another run of this process that differs in numbers alone has all that there is.
    counts.clear()
    other = make_config(root)
    with other.unlocked():
        other.seed, other.optim.lr, other.loss.anchor = 7, 0.01, 0.3
    assert train_workdir(other, tmp_path / "other") == training.STOPPED
    assert not {step for _, step in counts} & {"train_step", "eval_step"}, counts


def test_nothing_moves_to_the_device_unasked(root, tmp_path, monkeypatch):
    """The loop is guarded: an array of the host that slips into an update is refused."""
    run = prepare_run(make_config(root), tmp_path / "run")
    step = run.steps.train_step

    def careless(state, batch, numbers):
        return step(state, {**batch, "label": np.zeros(batch["label"].shape, np.int32)}, numbers)

    careless_steps = dataclasses.replace(run.steps, train_step=careless)
    careless_run = dataclasses.replace(run, steps=careless_steps)
    monkeypatch.setattr(training, "prepare_run", lambda config, workdir: careless_run)
    with pytest.raises(jax.errors.JaxRuntimeError, match="Disallowed host-to-device transfer"):
        train_workdir(run.config, run.workdir)


def test_killed_twice_stopped_once_and_still_the_same_run(whole, root, tmp_path):
    """SIGKILL between saves, SIGKILL during a save, SIGTERM; every bit as without."""
    run, checkpoints = tmp_path / "run", tmp_path / "run" / "checkpoints"
    begin_all = time.time()
    first = _process(tmp_path, root)
    wait_until(lambda: (checkpoints / "7").exists() and _last(run) > 8, first)
    first.kill()
    first.communicate()
    assert first.returncode == -signal.SIGKILL
    assert 8 < _last(run) < TOTAL

    second = _process(tmp_path, root)
    stale = set(checkpoints.glob("*tmp*"))
    wait_until(lambda: set(checkpoints.glob("*tmp*")) - stale, second)
    second.kill()
    out = second.communicate()[0]
    assert "Going on from step" in out
    assert second.returncode == -signal.SIGKILL

    third = _process(tmp_path, root)
    begin = _last(run)
    wait_until(lambda: _last(run) not in (begin, 0) and _last(run) > 16, third)
    third.terminate()
    out = third.communicate()[0]
    assert third.returncode == 75, out
    assert "Stopped and saved at step" in out
    assert "run the same command to go on" in out
    stopped = max(int(p.name) for p in checkpoints.iterdir() if p.name.isdigit())
    assert f"saved at step {stopped};" in out

    assert train_workdir(make_config(root), run) == 0
    assert steps(run) == list(range(1, TOTAL + 1))
    assert steps(run, "test") == [15, 30, 45, 48]
    same(saved(whole.config, run, TOTAL)[0], saved(whole.config, whole.workdir, TOTAL)[0])
    for name in ("train/loss", "train/grad_norm", "train/lr"):
        a, b = ([r[name] for r in records(w, "train")] for w in (run, whole.workdir))
        assert a == b
    a, b = (json.loads((w / "evaluation.json").read_text()) for w in (run, whole.workdir))
    assert (a["last"], a["best"]) == (b["last"], b["best"])
    _check_time(run, time.time() - begin_all)


def _check_time(run, most):
    """Of four starts, of which two were killed: every second of the wall once, and none more."""
    facts = json.loads((run / "run.json").read_text())
    spent, starts = facts["goodput"], facts["starts"]
    assert len(starts) == 4
    assert [start.get("finished", False) for start in starts] == [False, False, False, True]
    ends = [*(start["step"] for start in starts[1:]), TOTAL]
    assert all(start["reached"] <= end for start, end in zip(starts, ends, strict=True))
    sums = {name: sum(start["seconds"][name] for start in starts) for name in goodput.SPENT_ON}
    assert {name: spent[name] for name in sums} == pytest.approx(sums, abs=0.01)
    assert spent["total"] == pytest.approx(sum(sums.values()), abs=0.01)
    assert spent["share"] == pytest.approx(sums["training"] / spent["total"], abs=1e-3)
    assert min(sums.values()) >= 0
    assert sums["down"] > 0
    first, last = (
        datetime.datetime.fromisoformat(text) for text in (starts[0]["started"], starts[-1]["seen"])
    )
    # A system tells to the second, or not much better, when a process began.
    assert (last - first).total_seconds() - 2 <= spent["total"] <= most + 2


def test_a_finished_run_says_so(whole, copy, capsys):
    before = (copy / "metrics.jsonl").read_bytes()
    with pytest.MonkeyPatch.context() as patch:  # the result is there, so no image is read
        patch.setattr(training, "decode_all", lambda _: pytest.fail("read images"))
        assert train_workdir(whole.config, copy) == 0
    assert f"{copy} is finished" in capsys.readouterr().out
    (copy / "evaluation.json").unlink()
    assert train_workdir(whole.config, copy) == 0
    out = capsys.readouterr().out
    assert f"{copy} is finished: it is at its last step, {TOTAL}." in out
    assert (copy / "metrics.jsonl").read_bytes() == before
    assert json.loads((copy / "evaluation.json").read_text())["last"]["step"] == TOTAL


def test_a_signal_ends_an_evaluation_which_is_made_up_for(whole, tmp_path, monkeypatch):
    """Stopped in the evaluation after step 15, which is saved unscored; then left alone."""
    evaluated = training.evaluate_split

    def signalled(run, params, split, *, stop):
        signal.raise_signal(signal.SIGTERM)
        return evaluated(run, params, split, stop=stop)

    with monkeypatch.context() as patch:
        patch.setattr(training, "evaluate_split", signalled)
        assert train_workdir(whole.config, tmp_path) == 75
    assert steps(tmp_path, "test") == []
    assert _last(tmp_path) == 15
    assert train_workdir(whole.config, tmp_path) == 0
    scores = [[r["test/loss"] for r in records(w, "test")] for w in (tmp_path, whole.workdir)]
    assert scores[0] == scores[1]
    results = [json.loads((w / "evaluation.json").read_text()) for w in (tmp_path, whole.workdir)]
    assert results[0]["best"] == results[1]["best"]
    same(saved(whole.config, tmp_path, TOTAL)[0], saved(whole.config, whole.workdir, TOTAL)[0])


def test_eval_mode_gives_the_numbers_of_the_end(whole, copy):
    """And changes nothing else, so that it may be run while the run trains."""
    (copy / "checkpoints" / "50.orbax-checkpoint-tmp").mkdir()
    first = json.loads((copy / "evaluation.json").read_text())
    (copy / "evaluation.json").unlink()
    before = sorted(copy.rglob("*"))
    assert evaluate_workdir(whole.config, copy) == 0
    again = json.loads((copy / "evaluation.json").read_text())
    assert (again["last"], again["best"]) == (first["last"], first["best"])
    assert sorted(copy.rglob("*")) == sorted([*before, copy / "evaluation.json"])


def test_the_average_is_what_is_evaluated(whole):
    run = prepare_run(whole.config, whole.workdir)
    checkpoints = Checkpoints(run.checkpoints, keep=100, read_only=True)
    state, _ = checkpoints.restore(TOTAL, run.steps.initial_state())
    checkpoints.close()
    result = json.loads((whole.workdir / "evaluation.json").read_text())["last"]
    assert evaluate_split(run, state.ema, "test").loss == result["loss"]
    assert evaluate_split(run, state.params, "test").loss != result["loss"]


def _relabel(data):
    path = data / "anno" / "test.txt"
    lines = path.read_text().splitlines()
    lines[0] = lines[0].rsplit(" ", 1)[0] + " 2"
    path.write_text("\n".join(lines) + "\n")


def _one_class_more(data):
    """Another head, so the checkpoints do not even fit; they are not damaged for that."""
    shutil.copy(data / "images" / "01_01_train.png", data / "images" / "05_01_train.png")
    with (data / "anno" / "train.txt").open("a") as file:
        file.write("05_01_train.png 5\n")
    (data / "classes.txt").unlink()


@pytest.mark.parametrize("change", [_relabel, _one_class_more])
def test_another_split_is_refused(copy, data, change):
    change(data)
    before = sorted(copy.rglob("*"))
    for mode in (evaluate_workdir, train_workdir):
        with pytest.raises(ConfigError, match=r"no longer lists the files and labels .*same data"):
            mode(make_config(data), copy)
    assert sorted(copy.rglob("*")) == before


def test_another_split_is_scored_when_told(whole, copy, data, capsys):
    """Into a file of its own; with other classes there is nothing to score."""
    before = (copy / "evaluation.json").read_bytes()
    _relabel(data)
    config = make_config(data, data__layout="ufg")  # a setting of data may differ, too
    assert evaluate_workdir(config, copy, other_split=True) == 0
    out = capsys.readouterr().out
    assert (copy / "evaluation.json").read_bytes() == before
    run = prepare_run(config, copy)
    path = copy / f"evaluation-{run.dataset.split_hash()[:8]}.json"
    assert f"On other images (split {run.dataset.split_hash()[:8]}) than the run's" in out
    assert str(path) in out
    state = saved(whole.config, copy, TOTAL)[0]
    result = json.loads(path.read_text())
    score = evaluate_split(run, placed(run, state.ema), "test")
    assert result["last"] == {"step": TOTAL, **score.to_json()}
    assert score.loss != json.loads(before)["last"]["loss"]
    with pytest.raises(ConfigError, match=r"another config.*optim.lr"):
        evaluate_workdir(make_config(data, optim__lr=0.5), copy, other_split=True)
    _one_class_more(data)
    with pytest.raises(ConfigError, match=r"not have the classes .*: .*new are .*'5'"):
        evaluate_workdir(make_config(data), copy, other_split=True)


def test_the_best_is_chosen_on_validation_images(root, tmp_path, capsys, monkeypatch):
    """Which are cut from the training images; the test images are not looked at before the end."""
    splits: list[str] = []
    evaluated = training.evaluate_split

    def followed(run, params, split, **more):
        splits.append(split)
        return evaluated(run, params, split, **more)

    monkeypatch.setattr(training, "evaluate_split", followed)
    config = make_config(root, data__val_fraction=1 / 3)
    assert train_workdir(config, tmp_path) == 0
    out = capsys.readouterr().out
    assert "8 training, 4 validation and 8 test images" in out
    assert "33.3333 % of the training images, cut by seed 0" in out
    assert "chosen on the validation images" in out
    assert set(splits) == {"val"}
    scores = {r["step"]: r["val/top1"] for r in records(tmp_path, "val")}
    assert len(scores) == len(splits)
    result = json.loads((tmp_path / "evaluation.json").read_text())
    best = max(scores, key=lambda step: (scores[step], step))
    assert (result["best"]["step"], result["best"]["chosen_on"]) == (best, "val")
    assert result["last"]["val"]["top1"] == scores[result["last"]["step"]]
    assert (result["last"]["count"], result["last"]["val"]["count"]) == (8, 4)
    run = prepare_run(config, tmp_path)
    assert (
        result["best"]["loss"]
        == evaluate_split(run, placed(run, saved(config, tmp_path, best)[0].ema), "test").loss
    )
    assert not {e.name for e in run.dataset.val} & {e.name for e in run.dataset.train}
    facts = json.loads((tmp_path / "run.json").read_text())
    assert (facts["chosen_on"], facts["images"]) == ("val", {"train": 8, "val": 4, "test": 8})
    assert facts["split_hash"] == result["split_hash"] == run.dataset.split_hash()
    (tmp_path / "evaluation.json").unlink()
    assert evaluate_workdir(config, tmp_path) == 0
    again = json.loads((tmp_path / "evaluation.json").read_text())
    assert (again["last"], again["best"]) == (result["last"], result["best"])


def test_another_config_is_refused(copy, root):
    """Both values of all that differs; what only says where and how may differ."""
    config = make_config(root, optim__lr=0.5, model__window=4, data__threads=1, mesh__data=4)
    anew = (
        f"name another --workdir; to begin there from the weights of this one: --from {copy}@last"
    )
    for mode, mend in (
        (evaluate_workdir, "leave --config out, and the run's own is taken"),
        (train_workdir, anew),
    ):
        with pytest.raises(ConfigError) as error:
            mode(config, copy)
        assert str(error.value) == (
            f"{copy} holds a run with another config; {mend}. Differences "
            "(there, here): model.window: 2, 4; optim.lr: 1.0, 0.5."
        )
    assert not (copy / "checkpoints" / "damaged").exists()


def test_a_damaged_newest_checkpoint(whole, copy, monkeypatch):
    said: list[str] = []
    monkeypatch.setattr(logging, "error", lambda text, *args, **_: said.append(text % args))
    (copy / "checkpoints" / str(TOTAL) / "state" / "_METADATA").unlink()
    (copy / "evaluation.json").unlink()
    assert train_workdir(whole.config, copy) == 0
    assert f"Checkpoint {TOTAL} cannot be read" in said[0]
    assert steps(copy) == list(range(1, TOTAL + 1))
    same(saved(whole.config, copy, TOTAL)[0], saved(whole.config, whole.workdir, TOTAL)[0])


def test_a_file_in_both_splits_is_warned_of(data, tmp_path, capsys):
    with (data / "anno" / "test.txt").open("a") as file:
        file.write("01_01_train.png 1\n")
    assert train_workdir(make_config(data), tmp_path / "run") == 0
    out = capsys.readouterr().out
    assert "Warning: " in out
    assert "1 file(s) are listed both for training and for testing (01_01_train.png)" in out
    assert "(9 images)" in out


def test_ten_gradients_that_are_not_finite(root, tmp_path, monkeypatch):
    """The run stops at the tenth; none of its states is saved, and it says how to go on."""
    run = prepare_run(make_config(root), tmp_path / "run")

    def poisoned():
        state = run.steps.initial_state()
        bias = state.params["head"]["bias"] * np.float32(np.nan)
        head = {**state.params["head"], "bias": bias}
        return dataclasses.replace(state, params={**state.params, "head": head})

    class PoisonedSteps(JittedSteps):
        def initial_state(self, params=None):
            return poisoned()

    bad = dataclasses.replace(run, steps=PoisonedSteps(**vars(run.steps)))
    monkeypatch.setattr(training, "prepare_run", lambda config, workdir: bad)
    with pytest.raises(
        TrainingError, match=r"10 updates in a row, up to update 10, .* --config.optim.lr=0.1$"
    ):
        train_workdir(run.config, run.workdir)
    assert steps(run.workdir)[-1] == 10
    assert records(run.workdir, "train")[-1]["train/loss"] is None
    assert not list((run.workdir / "checkpoints").iterdir())  # nothing of it is worth keeping
    batch = np.load(run.workdir / "nonfinite_batch.npz")
    order = np.random.RandomState([0, 3]).permutation(12)  # update 10 is the first of epoch 3
    np.testing.assert_array_equal(batch["id"], order[:4])
    np.testing.assert_array_equal(batch["image"], [run.images["train"][i] for i in order[:4]])


def test_a_save_that_fails(root, tmp_path, monkeypatch):
    """Before the end it is logged and training goes on; at the end it is an error."""
    said: list[str] = []
    monkeypatch.setattr(logging, "error", lambda text, *args, **_: said.append(text % args))
    original = Checkpoints.save
    failing = {7}

    def save(self, state, meta, **more):
        if int(state.step) in failing:
            raise CheckpointError("The disk is full.")
        original(self, state, meta, **more)

    monkeypatch.setattr(Checkpoints, "save", save)
    config = make_config(root)
    assert train_workdir(config, tmp_path / "a") == 0
    assert said == ["The disk is full. Training goes on; the next checkpoint will try again."]
    left = {path.name for path in (tmp_path / "a" / "checkpoints").iterdir()}
    assert "7" not in left
    assert {"14", str(TOTAL)} <= left
    failing = {TOTAL}
    with pytest.raises(CheckpointError, match="The disk is full"):
        train_workdir(config, tmp_path / "b")
    left = {path.name for path in (tmp_path / "b" / "checkpoints").iterdir()}
    assert str(TOTAL) not in left
    assert {"7", "42"} <= left


def test_what_a_kill_left_makes_room_first(root, tmp_path, monkeypatch):
    """A torn checkpoint is gone before the room is looked at, so that it cannot fill the disk."""
    (tmp_path / "checkpoints" / "7.orbax-checkpoint-tmp" / "state").mkdir(parents=True)
    (tmp_path / "config.json").write_text(make_config(root).to_json())
    left = []

    def full(folder, state):
        left.append(list(folder.iterdir()))
        raise NoRoomError("full")

    monkeypatch.setattr(training, "check_room", full)
    with pytest.raises(NoRoomError):
        train_workdir(make_config(root), tmp_path)
    assert left == [[]]


def test_stopped_and_the_save_fails(root, tmp_path, monkeypatch):
    """It must not say that it was saved."""
    asked = itertools.count()
    monkeypatch.setattr(Stop, "asked", lambda self: next(asked) == 2)

    def save(self, state, meta, **more):
        raise CheckpointError("The disk is full.")

    monkeypatch.setattr(Checkpoints, "save", save)
    with pytest.raises(CheckpointError, match="The disk is full"):
        train_workdir(make_config(root), tmp_path / "run")


def test_two_signals():
    """The first is noted, the second ends at once, and then all is as before."""
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    with Stop() as stop:
        assert not stop.asked()
        signal.raise_signal(signal.SIGTERM)
        assert stop.asked()
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before
    code = (
        "import signal; from clevit_jax.distributed.preemption import Stop\n"
        "with Stop():\n"
        "    signal.raise_signal(signal.SIGINT); print('once', flush=True)\n"
        "    signal.raise_signal(signal.SIGINT); print('twice', flush=True)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (-signal.SIGINT, "once\n")


def test_two_signals_in_a_notebook(monkeypatch):
    """The second ends the cell as Ctrl-C ends any other, and the kernel lives."""
    monkeypatch.setattr(preemption, "in_notebook", lambda: True)
    # A suite in the background of a shell is started without it.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with Stop() as stop:
            signal.raise_signal(signal.SIGINT)
            assert stop.asked()
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(signal.SIGINT)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)


def test_signals_of_another_thread():
    """Python sets handlers in the main thread alone; training in another one does without."""
    before = signal.getsignal(signal.SIGINT)
    asked = []

    def train():
        with Stop() as stop:
            asked.append((stop.asked(), signal.getsignal(signal.SIGINT) is before))

    thread = threading.Thread(target=train)
    thread.start()
    thread.join()
    assert asked == [(False, True)]


@pytest.mark.parametrize(("images", "batch", "epochs"), [(12, 4, 6), (10, 4, 7), (3, 8, 9)])
@pytest.mark.parametrize("every", [1, 2, 5])
def test_one_evaluation_for_each_epoch_that_is_due(images, batch, epochs, every):
    """Those epochs that end with the same update share one."""
    plan = Plan(images, batch, epochs)
    settings = types.SimpleNamespace(eval_every_epochs=every, plan=plan)
    run = types.SimpleNamespace(settings=settings, plan=plan)
    due = [s for s in range(1, plan.total + 1) if training._evaluation_due(run, s)]
    ends = {e * images // batch for e in range(every, epochs + 1, every)}
    assert due == sorted((ends | {epochs * images // batch}) - {0})
