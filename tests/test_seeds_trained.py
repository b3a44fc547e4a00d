"""Several seeds, trained for real: what they leave, and that they may be killed and stopped.

Two of them are trained once and looked at by all tests; `test_seeds.py` has those without training.
"""

import functools
import json
import pathlib
import statistics
import subprocess
import sys

import compiling
import jax
import made_runs
import numpy as np
import pytest
from made_runs import record, write_finished
from waiting import wait_until

from clevit_jax.data import procedural_leaves
from clevit_jax.errors import ConfigError
from clevit_jax.runs import results
from clevit_jax.runs.checkpoint import Checkpoints
from clevit_jax.runs.facts import SCORES
from clevit_jax.runs.setup import prepare_run
from clevit_jax.runs.workdir import load_config
from clevit_jax.sweeps import parallel, seeds
from clevit_jax.sweeps.seeds import train_seeds

pytestmark = [
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings(r"ignore:the load_module\(\) method:DeprecationWarning"),
]
CHANGES = {
    "epochs": 16, "optim__lr": 1.0, "optim__warmup_epochs": 1.0, "eval__every_epochs": 4,
    "checkpoint__keep": 100, "log__every_steps": 1,
}  # fmt: skip
UPDATES = 48  # 16 epochs of 12 images in batches of 4


@pytest.fixture(scope="module")
def root(once):
    """4 cultivars, 3 training images and 2 test images each."""
    return once("leaves of seeds", make_leaves)


def make_leaves(folder):
    procedural_leaves.write_dataset(folder, classes=4, train_per_class=3, test_per_class=2, size=16)


@pytest.fixture
def config(root):
    return make_config(root)


def make_config(root):
    config = made_runs.make_config(kind="small", **CHANGES)
    config.data.root = str(root)
    config.seed = 3
    return config


@pytest.fixture(scope="module")
def whole(root, once):
    """Seeds 3 and 4, which nothing interrupts; for looking only."""

    def make(folder):
        with compiling.cache_of_its_own(folder / "compiled"):
            assert train_seeds(make_config(root), folder / "new" / "seeds", seeds=2) == 0

    return once("whole of seeds", make) / "new" / "seeds"


def load(path):
    return json.loads(path.read_text())


def state(folder):
    """The last one, as arrays."""
    run = prepare_run(load_config(folder), folder)
    checkpoints = Checkpoints(run.checkpoints, keep=100, read_only=True)
    found, _ = checkpoints.restore(UPDATES, run.steps.abstract_state)
    checkpoints.close()
    return jax.device_get(found)


def same(a, b, *which):
    """Asserts that two folders of seeds 3 and 4 came to the same, bit by bit."""
    for name in ("seed-3", "seed-4"):
        jax.tree.map(np.testing.assert_array_equal, state(a / name), state(b / name))
    one, two = (load(folder / "seeds.json") for folder in (a, b))
    for name in which:
        assert one[name] == two[name]


def test_what_two_seeds_leave(whole):
    """Mean and deviation are those of the `statistics` module, of what each run wrote itself."""
    assert sorted(path.name for path in whole.iterdir()) == [
        "seed-3", "seed-4", "seeds.json", "seeds.txt",
    ]  # fmt: skip
    summary = load(whole / "seeds.json")
    runs = [load(whole / name / "evaluation.json") for name in ("seed-3", "seed-4")]
    for which in ("last", "best"):
        for name in ("top1", "top5", "mean_per_class", "loss"):
            values = [run[which][name] for run in runs]
            spread = summary[which][name]
            assert spread["mean"] == pytest.approx(statistics.mean(values), rel=1e-12)
            assert spread["deviation"] == pytest.approx(statistics.stdev(values), abs=1e-12)
    assert summary["last"]["loss"]["deviation"] > 0
    assert summary["best"]["chosen_on"] == "test"
    assert (summary["test_images"], summary["one_image"]) == (8, 12.5)
    assert summary["seeds"][1] == {
        "seed": 4, "folder": "seed-4", "finished": True, "step": UPDATES, "total": UPDATES,
        "last": runs[1]["last"], "best": runs[1]["best"],
    }  # fmt: skip
    assert (whole / "seeds.txt").read_text() == seeds.seeds_text(summary) + "\n"


def test_all_see_the_same_images_and_differ_in_their_seed_alone(whole):
    one, two = (load(whole / name / "config.json") for name in ("seed-3", "seed-4"))
    assert (one.pop("seed"), two.pop("seed")) == (3, 4)
    assert one == two
    hashes = {load(whole / n / "run.json")["split_hash"] for n in ("seed-3", "seed-4")}
    assert hashes == {load(whole / "seeds.json")["split_hash"]}
    a, b = (state(whole / name).params["head"]["kernel"] for name in ("seed-3", "seed-4"))
    assert np.any(a != b)


def test_the_second_seed_compiles_nothing(whole):
    """Its process finds the programs of the first one in the parent's compilation cache."""

    def made(name):
        folder = whole / name
        begin, end = ((folder / n).stat().st_mtime for n in ("config.json", "evaluation.json"))
        files = (whole.parents[1] / "compiled").rglob("*-cache")
        return [file.name for file in files if begin <= file.stat().st_mtime <= end]

    assert any(name.startswith("jit_train_step") for name in made("seed-3")), made("seed-3")
    assert made("seed-4") == []


def test_runs_by_hand_are_like_a_real_one(whole, tmp_path):
    """What the tests of results.py and compare.py read is what is written."""
    made = write_finished(tmp_path, 0.5, records=[record(20, 0.5)])
    real = whole / "seed-3"
    for name in ("last", "best"):
        one, two = (load(folder / "evaluation.json")[name] for folder in (made, real))
        assert one.keys() == two.keys()
    assert load(made / "evaluation.json").keys() <= load(real / "evaluation.json").keys()
    assert load(made / "run.json").keys() <= load(real / "run.json").keys()
    assert set(SCORES) == two.keys() - {"chosen_on", "step", "count"}
    lines = [json.loads(line) for line in (real / "metrics.jsonl").read_text().splitlines()]
    tests = [line for line in lines if "test/loss" in line]
    assert record(20, 0.5).keys() <= tests[-1].keys()
    run = results.read_result(real)
    assert (run.finished, run.step, run.total, run.scored_on) == (True, UPDATES, UPDATES, "test")
    assert run.last == load(real / "evaluation.json")["last"]
    (real / "evaluation.json").rename(tmp_path / "kept")
    try:  # the newest record of the metrics says the same
        assert results.read_result(real).last == run.last
    finally:
        (tmp_path / "kept").rename(real / "evaluation.json")


def test_finished_seeds_are_left_alone(whole, config, monkeypatch, capsys):
    monkeypatch.setattr(subprocess, "Popen", lambda *_, **__: pytest.fail("started a process"))
    files = [path for path in whole.rglob("*") if path.is_file() and path.parent != whole]
    before = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in files}
    for parallel_seeds in (1, 2):
        assert train_seeds(config, whole, seeds=2, parallel=parallel_seeds) == 0
        out = capsys.readouterr().out
        assert out.count("is finished (") == 2
        assert "2 of 2 seeds are finished. Scores on 8 test images in %; one image is 12.50" in out
    assert {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in files} == before


def test_killed_then_stopped_and_gone_on(whole, config, root, tmp_path, capsys):
    """Two at a time, whose parent is killed; one at a time, stopped; then on, bit by bit the same.

    Children of the killed parent save and stop; meanwhile a second command is refused.
    """
    here = pathlib.Path(__file__).parent
    values = {**CHANGES, "seed": 3, "data__root": root}
    overrides = [f"--config.{name.replace('__', '.')}={value}" for name, value in values.items()]
    command = [sys.executable, "-m", "clevit_jax.main", f"--config={here / 'tiny.py'}:small",
               *overrides,
               f"--workdir={tmp_path / 'run'}", "--mode=seeds", "--seeds=2"]  # fmt: skip
    start = functools.partial(
        subprocess.Popen, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    folders = [tmp_path / "run" / f"seed-{seed}" for seed in (3, 4)]
    parent = start([*command, "--parallel=2"])
    try:
        # Before it reads the first image, a child has no config.json, but a lock.
        wait_until(lambda: all((folder / "log.txt").exists() for folder in folders), parent)
        assert not any((folder / "config.json").exists() for folder in folders)
        with pytest.raises(ConfigError, match=r"Another process is training in .*seed-3"):
            train_seeds(config, tmp_path / "run", seeds=2)
        wait_until(lambda: any(step(folder) > 8 for folder in folders), parent)
    finally:
        parent.kill()
        parent.communicate()

    def idle():
        try:
            for folder in folders:
                parallel.check_idle(folder)
        except ConfigError:
            return False
        return True

    wait_until(idle)
    logs = [(folder / "log.txt").read_text() for folder in folders]
    assert any("Stopped and saved at step" in log for log in logs), logs
    assert not any(results.read_result(folder).finished for folder in begun(folders))

    before = step(folders[0])
    parent = start(command)
    wait_until(lambda: step(folders[0]) > before, parent)
    parent.terminate()
    out = parent.communicate()[0]
    assert parent.returncode == 75
    assert "Stopping 1 seed(s); each saves first.\n" in out
    assert "of 2 seeds are finished; run the same command to go on.\n" in out
    # What the child says is repeated.
    assert (
        f"Going on from step {before} of 48.\n" in out if before else "The first step comp" in out
    )

    assert train_seeds(config, tmp_path / "run", seeds=2) == 0
    assert "Going on from step" in capsys.readouterr().out
    # The best may have been forgotten, where a signal met its evaluation.
    same(tmp_path / "run", whole, "split_hash", "test_images", "last")


def begun(folders):
    return [folder for folder in folders if (folder / "run.json").exists()]


def step(folder):
    """The newest update in its metrics."""
    return results.read_result(folder).step if begun([folder]) else 0
