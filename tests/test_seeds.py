"""Several seeds, their runs written by hand: what they come to, what fails and what is refused."""

import fcntl
import json
import math
import os
import pathlib
import subprocess
import sys

import made_runs
import pytest
from made_runs import OTHER_SPLIT, TOTAL, record, scores, write_finished, write_run

from clevit_jax.config import resolve_data
from clevit_jax.data import procedural_leaves
from clevit_jax.data.open import open_data
from clevit_jax.errors import ConfigError, DataError, StorageError, TrainingError
from clevit_jax.sweeps import parallel, seeds
from clevit_jax.sweeps.seeds import train_seeds


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """2 cultivars, an image each for training and for testing."""
    folder = tmp_path_factory.mktemp("data") / "leaves"
    return procedural_leaves.write_dataset(
        folder, classes=2, train_per_class=1, test_per_class=1, size=16
    )


@pytest.fixture
def config(root):
    return made_runs.make_config(data__root=str(root))


def load(path):
    return json.loads(path.read_text())


PLAYER = """#!{python} -IS
import json, pathlib, shutil, sys
order = json.loads(sys.stdin.buffer.readline())
folder, played = pathlib.Path(order["folder"]), pathlib.Path({played!r})
with (played / "asked").open("a") as file:
    print(order["config"]["seed"], file=file)
made = played / folder.name
if made.is_dir():
    shutil.copytree(made, folder, dirs_exist_ok=True)
else:
    code, sentence = json.loads(made.read_text())
    print("error: " + sentence, file=sys.stderr)
    sys.exit(code)
"""


@pytest.fixture
def played(config, tmp_path, monkeypatch):
    """`played({seed: top-1 or (exit code, sentence)})`: what the children will do.

    Returns a function that gives the seeds in the order in which they were asked to train.
    """
    split_hash = open_data(resolve_data(config)).split_hash()
    folder = tmp_path / "played"
    folder.mkdir()
    script = folder / "player"
    script.write_text(PLAYER.format(python=sys.executable, played=str(folder)))
    script.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(script))

    def play(outcomes):
        (folder / "asked").write_text("")
        for seed, outcome in outcomes.items():
            path = folder / f"seed-{seed}"
            if isinstance(outcome, float):
                write_finished(path, outcome, split_hash=split_hash, seed=seed)
            else:
                path.write_text(json.dumps(outcome))
        return lambda: [int(line) for line in (folder / "asked").read_text().split()]

    return play


def test_one_that_diverges_is_named_and_the_others_go_on(config, played, tmp_path, capsys):
    asked = played({0: 0.5, 1: (parallel.DIVERGED, "Too steep."), 2: 0.7})
    with pytest.raises(TrainingError) as error:
        train_seeds(config, tmp_path / "run", seeds=3)
    assert str(error.value) == "Seed 1: Too steep.\n2 of 3 seeds are finished."
    assert asked() == [0, 1, 2]
    last = load(tmp_path / "run" / "seeds.json")["last"]
    assert last["top1"]["mean"] == pytest.approx(0.6)
    assert last["top1"]["deviation"] == pytest.approx(math.sqrt(2 * 0.1**2))
    out = capsys.readouterr().out
    assert "Seed 0 finished: test top-1 50.00 %." in out
    assert out.count(" of 3 seeds are finished. ") == 3  # after each that is finished, and at last
    assert "  seed 1     not begun" in out
    assert "error: Too steep.\nSeed 1 failed: Too steep.\n" in out


def test_any_other_failure_would_be_that_of_all(config, played, tmp_path):
    asked = played({0: 0.5, 1: (parallel.REFUSED, "No."), 2: 0.7})
    with pytest.raises(TrainingError, match=r"^Seed 1: No\.\n1 of 3 seeds are finished\.$"):
        train_seeds(config, tmp_path / "a", seeds=3)
    assert asked() == [0, 1]
    assert not (tmp_path / "a" / "seed-1").exists()


def test_the_first_that_is_refused_leaves_no_folder(config, played, tmp_path):
    played({0: (parallel.REFUSED, "No.")})
    with pytest.raises(TrainingError, match=r"^Seed 0: No\.\n0 of 3 seeds are finished\.$"):
        train_seeds(config, tmp_path / "b", seeds=3)
    assert not (tmp_path / "b").exists()


def test_more_seeds_of_a_finished_folder(config, played, tmp_path, capsys):
    """Finished ones are not asked again; fewer leave the others in the table."""
    asked = played({0: 0.5, 1: 0.7, 2: 0.6})
    for count in (1, 3, 2):
        assert train_seeds(config, tmp_path / "run", seeds=count) == 0
    assert asked() == [0, 1, 2]
    assert [row["seed"] for row in load(tmp_path / "run" / "seeds.json")["seeds"]] == [0, 1, 2]
    assert (tmp_path / "run" / "seeds.txt").read_text().startswith("3 of 3 seeds are finished.")
    assert capsys.readouterr().out.count(" is finished (") == 3


@pytest.mark.parametrize("kind", [TrainingError, StorageError])
def test_several_at_a_time(config, played, tmp_path, monkeypatch, capsys, kind):
    """What is left of them, the shares of the machine, and the failures in order.

    A disk that hung under one is worth another try of all, which the exit code tells.
    """
    given = []
    hashed = open_data(resolve_data(config)).split_hash()
    write_finished(tmp_path / "seed-1", 0.5, seed=1, split_hash=hashed)

    def train_in_children(configs, folders, shares, finished):
        given.append(({seed: config.seed for seed, config in configs.items()}, shares))
        write_finished(folders[0], 0.25, split_hash=hashed)
        finished(0)
        return {3: kind("Too steep."), 2: TrainingError("Also.")}

    monkeypatch.setattr(seeds, "count_devices", lambda: ("gpu", 8))
    monkeypatch.setattr(seeds, "train_in_children", train_in_children)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    with pytest.raises(kind) as error:
        train_seeds(config, tmp_path, seeds=4, parallel=4)
    assert str(error.value) == "Seed 2: Also.\nSeed 3: Too steep.\n2 of 4 seeds are finished."
    (seen,) = given
    assert seen[0] == {0: 0, 2: 2, 3: 3}
    assert [share["CUDA_VISIBLE_DEVICES"] for share in seen[1]] == ["0,1", "2,3", "4,5"]
    out = capsys.readouterr().out
    assert f"Seed 1 is finished ({tmp_path / 'seed-1'})." in out
    assert "Seed 0 finished: test top-1 25.00 %." in out
    monkeypatch.setattr(seeds, "train_in_children", lambda *_: {})
    assert train_seeds(config, tmp_path, seeds=4, parallel=4) == 75


def test_a_parent_of_children_touches_no_device(root, tmp_path):
    """It would keep a GPU's memory from them; here it would find no platform."""
    code = (
        "import pathlib, sys; import made_runs; from clevit_jax.sweeps import seeds\n"
        "seeds.count_devices = lambda: ('cpu', 1)\n"
        "seeds.train_in_children = lambda *_: {}\n"
        "config = made_runs.make_config(data__root=sys.argv[1], data__leaves__classes=2,\n"
        "    data__leaves__train_per_class=1, data__leaves__test_per_class=1,\n"
        "    data__leaves__size=16)\n"
        "code = seeds.train_seeds(config, pathlib.Path(sys.argv[2]), seeds=2, parallel=2)\n"
        "print(sorted({'clevit_jax.train', 'clevit_jax.runs.checkpoint'} & {*sys.modules}))"
        "\nsys.exit(code)\n"
    )
    folder = pathlib.Path(__file__).parent
    environ = {**os.environ, "JAX_PLATFORMS": "nosuch", "PYTHONPATH": f"{folder}:{folder.parent}"}
    command = [sys.executable, "-c", code, str(root), str(tmp_path / "run")]
    done = subprocess.run(command, capture_output=True, text=True, env=environ)
    assert (done.returncode, done.stderr) == (75, "")
    assert done.stdout.splitlines()[-1] == "[]"  # it is light: what trains is the children's


def _a_run(folder, config):
    write_run(folder)
    return config, "holds a run, not seeds; name another --workdir, nothing is changed"


def _checkpoints(folder, config):
    (folder / "checkpoints" / "20").mkdir(parents=True)
    return config, "holds a run, not seeds"


def _another_config(folder, config):
    write_run(folder / "seed-6", records=[{"step": 1}], optim__lr=0.5, seed=6)
    return config, r"seed-6 holds a run with another config; .*optim.lr: 0.5, 0.001\.$"


def _other_images(folder, config):
    write_finished(folder / "seed-1", 0.5, split_hash=OTHER_SPLIT)
    return config, r"no longer lists the files and labels that the seeds in .* were trained on"


def _two_kinds_of_images(folder, config):
    write_finished(folder / "seed-1", 0.5)
    write_finished(folder / "seed-2", 0.5, split_hash=OTHER_SPLIT)
    return config, "cannot be put together"


def _a_torn_file(folder, config):
    (write_finished(folder / "seed-1", 0.5) / "run.json").write_text('{"upd')
    return config, r"seed-1/run.json is not JSON"


def _a_number(folder, config):
    config.optim.lr = -1.0
    return config, "optim.lr is -1.0"


def _no_data(folder, config):
    config.data.root = f"{config.data.root}/nowhere"
    return config, "There is no folder "


def _leaves_over_files(folder, config):
    config.data.leaves.classes = 7
    return config, "holds another leaf set"


@pytest.mark.parametrize(
    "change",
    [_a_run, _checkpoints, _another_config, _other_images, _two_kinds_of_images, _a_torn_file,
     _a_number, _no_data, _leaves_over_files],
)  # fmt: skip
def test_what_is_refused(config, tmp_path, monkeypatch, change):
    """Before a process is started, and before anything is written."""
    monkeypatch.setattr(subprocess, "Popen", lambda *_, **__: pytest.fail("started a process"))
    config, sentence = change(tmp_path / "run", config)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises((ConfigError, DataError), match=sentence):
        train_seeds(config, tmp_path / "run", seeds=2, parallel=2)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("seed", [1, 7])
def test_a_folder_in_which_a_process_trains_is_refused(config, tmp_path, monkeypatch, seed):
    """Before a process is started; also one of a seed that is not asked for now."""
    monkeypatch.setattr(subprocess, "Popen", lambda *_, **__: pytest.fail("started a process"))
    folder = tmp_path / f"seed-{seed}"
    hashed = open_data(resolve_data(config)).split_hash()
    write_run(folder, split_hash=hashed, seed=seed)
    with (folder / parallel.LOG).open("ab") as log:
        fcntl.flock(log, fcntl.LOCK_EX)
        with pytest.raises(ConfigError, match=rf"Another process is training in .*seed-{seed};"):
            train_seeds(config, tmp_path, seeds=2)


def test_the_table(tmp_path):
    """By hand: of 50 and 60 the mean is 55 and the deviation 10 / sqrt(2), half of it by class."""
    write_finished(tmp_path / "seed-0", 0.5, best=0.75, loss=1.5)
    write_finished(tmp_path / "seed-2", 0.6, best=0.75, loss=1.25, seed=2)
    write_run(tmp_path / "seed-3", records=[record(20, 0.9), {"step": 31}], seed=3)
    write_run(tmp_path / "seed-4", begun=False, seed=4)
    summary = seeds.summarise(tmp_path)
    assert seeds.seeds_text(summary, wanted=range(3)) == (
        """\
2 of 5 seeds are finished. Scores on 20 test images in %; one image is 5.00 points (split 50115011).

             top-1   top-5  mean per class    loss
last epoch
  mean       55.00  100.00           27.50  1.3750
  deviation   7.07    0.00            3.54  0.1768
  seed 0     50.00  100.00           25.00  1.5000
  seed 2     60.00  100.00           30.00  1.2500
best epoch, chosen on the test set, so it flatters
  mean       75.00  100.00           37.50  1.3750
  deviation   0.00    0.00            0.00  0.1768
  seed 0     75.00  100.00           37.50  1.5000
  seed 2     75.00  100.00           37.50  1.2500
  seed 1     not begun
  seed 3     not finished, step 31 of 60
  seed 4     not finished, step 0"""
    )


def test_levels_that_all_seeds_have(tmp_path):
    """By hand: of 70 and 90 the mean is 80, the deviation 20 / sqrt(2); one has no family."""
    for seed, share in enumerate((0.7, 0.9)):
        last = scores(TOTAL, 0.5) | {"accuracy_genus": share}
        last |= {"accuracy_family": 1.0} if seed else {}
        write_run(tmp_path / f"seed-{seed}", last=last, best=scores(40, 0.5), seed=seed)
    summary = seeds.summarise(tmp_path)
    assert summary["last"]["accuracy_genus"] == pytest.approx(
        {"mean": 0.8, "deviation": 0.2 / math.sqrt(2)}
    )
    lines = [line.split() for line in seeds.seeds_text(summary).splitlines()]
    assert lines[2] == ["top-1", "top-5", "mean", "per", "class", "loss", "genus"]
    assert [line[-1] for line in lines[4:8]] == ["80.00", "14.14", "70.00", "90.00"]
    assert [line[-1] for line in lines[9:13]] == 4 * ["-"]


def test_the_table_of_one_and_of_none(tmp_path):
    write_run(tmp_path / "seed-0", records=[record(20, 0.5)])
    assert seeds.seeds_text(seeds.summarise(tmp_path), [0, 1]) == (
        "0 of 2 seeds are finished.\n  seed 0  not finished, step 20 of 60\n  seed 1  not begun"
    )
    write_run(tmp_path / "seed-0", last=scores(TOTAL, 0.5))
    assert "best epoch" not in seeds.seeds_text(seeds.summarise(tmp_path))
    write_finished(tmp_path / "seed-0", 0.5, chosen_on="val")
    summary = seeds.summarise(tmp_path)
    assert summary["last"]["top1"] == {"mean": 0.5, "deviation": None}
    lines = seeds.seeds_text(summary).splitlines()
    assert "best epoch, chosen on the validation images" in lines
    assert [line.split() for line in lines].count(["deviation", "-", "-", "-", "-"]) == 2
