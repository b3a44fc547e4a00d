"""Runs on a data set in which images cannot be read: stopped, or gone on without them.

The reference is a run on the same images whose bad ones are not listed at all.
"""

import collections
import json
import pathlib
import shutil
import signal

import jax
import numpy as np
import pytest
import tiny

from clevit_jax.analysis.report import collect, recorded
from clevit_jax.analysis.trained_model import TrainedModel
from clevit_jax.data import decode, procedural_leaves
from clevit_jax.distributed import processes
from clevit_jax.errors import ConfigError, DataError
from clevit_jax.evaluate import evaluate_workdir
from clevit_jax.runs import results, setup
from clevit_jax.runs.checkpoint import Checkpoints
from clevit_jax.runs.setup import prepare_run
from clevit_jax.runs.skipped import known_skipped, read_skipped
from clevit_jax.runs.workdir import load_config
from clevit_jax.sweeps import seeds
from clevit_jax.train import MetricLogger, train_workdir

pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
BAD = ("02_01_train.png", "03_02_test.png")
TOTAL = 11  # 4 epochs of 11 images in batches of 4


@pytest.fixture(scope="module")
def leaves(once):
    """4 cultivars, 3 training images and 2 test images each."""
    return once("leaves of train", make_leaves)


def make_leaves(folder):
    procedural_leaves.write_dataset(folder, classes=4, train_per_class=3, test_per_class=2, size=16)


@pytest.fixture
def data(leaves, tmp_path):
    """A copy in which a training image is empty and a test image is a text."""
    folder = pathlib.Path(shutil.copytree(leaves, tmp_path / "leaves"))
    spoil(folder)
    return folder


def spoil(folder, names=BAD):
    for name in names:
        (folder / "images" / name).write_bytes(b"" if "train" in name else b"no image")


def mend(folder, leaves, names=BAD):
    for name in names:
        shutil.copy(leaves / "images" / name, folder / "images" / name)


def make_config(root, **changes):
    config = tiny.small()
    config.data.root = str(root)
    config.data.on_bad_image = "skip"
    config.epochs = 4
    config.eval.every_epochs = 4
    config.checkpoint.every_steps = 3
    config.checkpoint.keep = 100
    config.log.every_steps = 1
    config.optim.lr = 1.0
    config.update_from_flattened_dict({k.replace("__", "."): v for k, v in changes.items()})
    return config


def load(path):
    return json.loads(path.read_text())


def last_state(config, workdir):
    run = prepare_run(config, workdir)
    checkpoints = Checkpoints(run.checkpoints, keep=100, read_only=True)
    state, meta = checkpoints.restore(TOTAL, run.steps.abstract_state)
    checkpoints.close()
    return jax.device_get(state), meta


@pytest.fixture(scope="module")
def whole(leaves, once):
    """A run without the bad images that nothing interrupts, and its data; for looking only."""

    def make(folder):
        shutil.copytree(leaves, folder / "leaves")
        spoil(folder / "leaves")
        assert train_workdir(make_config(folder / "leaves"), folder / "run") == 0

    return once("whole of bad images", make)


@pytest.fixture
def copy(whole, tmp_path):
    """The run and its data, which a test may damage; `config` finds the data."""
    shutil.copytree(whole, tmp_path / "copy")
    return tmp_path / "copy"


def test_a_bad_image_stops_and_says_how_to_go_on(data, tmp_path):
    with pytest.raises(DataError) as error:
        train_workdir(make_config(data, data__on_bad_image="stop"), tmp_path / "run")
    lines = str(error.value).splitlines()
    assert lines[0] == (
        "1 of 12 training images and 1 of 8 test images cannot be read; mend or remove them, or go "
        "on without them: --config.data.on_bad_image=skip."
    )
    assert [any(name in line for line in lines[1:]) for name in BAD] == [True, True]
    assert not (tmp_path / "run").exists()


def test_a_run_without_them_is_that_of_a_list_without_them(whole, tmp_path, leaves):
    """Every bit of it, and each update."""
    folder = pathlib.Path(shutil.copytree(leaves, tmp_path / "leaves"))
    for name in BAD:
        (folder / "images" / name).unlink()
        listing = folder / "anno" / f"{'train' if 'train' in name else 'test'}.txt"
        lines = listing.read_text().splitlines(keepends=True)
        listing.write_text("".join(line for line in lines if not line.startswith(name)))
    config = make_config(folder, data__on_bad_image="stop")
    assert train_workdir(config, tmp_path / "run") == 0
    (one, meta), (two, other) = (
        last_state(config, tmp_path / "run"),
        last_state(load_config(whole / "run"), whole / "run"),
    )
    jax.tree.map(np.testing.assert_array_equal, one, two)
    assert meta["split_hash"] == other["split_hash"]
    a, b = (load(folder / "evaluation.json") for folder in (tmp_path / "run", whole / "run"))
    assert (a["last"], a["best"], a["split_hash"]) == (b["last"], b["best"], b["split_hash"])
    assert a["last"]["count"] == 7
    assert "skipped" not in a


def test_what_is_left_out_is_counted_and_listed_everywhere(whole):
    kept = load(whole / "run" / "skipped_images.json")
    assert [(row["split"], row["file"]) for row in kept["skipped"]] == [
        ("train", BAD[0]), ("test", BAD[1]),
    ]  # fmt: skip
    assert "is an empty file" in kept["skipped"][0]["reason"]
    facts, evaluation = (load(whole / "run" / f"{k}.json") for k in ("run", "evaluation"))
    assert facts["skipped"] == evaluation["skipped"] == {"train": 1, "test": 1}
    assert facts["images"] == {"train": 11, "test": 7}
    assert facts["updates"] == TOTAL
    result = results.read_result(whole / "run")
    assert result.skipped == {"train": 1, "test": 1}
    assert "without images that could not be read: 1 training, 1 test" in repr(result)
    log = (whole / "run" / "log.txt").read_text()
    assert "Warning: 2 of 20 images could not be read and were left out" in log
    assert all(name in log for name in BAD)


def test_a_run_goes_on_without_them_though_they_are_mended(
    whole, data, leaves, tmp_path, monkeypatch, capsys
):
    """Stopped at step 4; bit by bit the run that was left alone."""
    follow = MetricLogger.log_update

    def stopping(self, step, *more):
        follow(self, step, *more)
        if step == 4:
            signal.raise_signal(signal.SIGTERM)

    config = make_config(data)
    with monkeypatch.context() as patch:
        patch.setattr(MetricLogger, "log_update", stopping)
        assert train_workdir(config, tmp_path / "run") == 75
    mend(data, leaves)
    kept = (tmp_path / "run" / "skipped_images.json").read_bytes()
    capsys.readouterr()
    assert train_workdir(config, tmp_path / "run") == 0
    out = capsys.readouterr().out
    assert "2 of the images that" in out
    assert "can be read by now" in out
    jax.tree.map(
        np.testing.assert_array_equal,
        last_state(config, tmp_path / "run")[0],
        last_state(load_config(whole / "run"), whole / "run")[0],
    )
    assert (tmp_path / "run" / "skipped_images.json").read_bytes() == kept
    before = load(tmp_path / "run" / "evaluation.json")["last"]
    assert evaluate_workdir(config, tmp_path / "run") == 0
    assert load(tmp_path / "run" / "evaluation.json")["last"] == before
    assert "could not be read and were left out" in capsys.readouterr().out


def test_an_image_that_goes_bad_later_is_not_left_out(copy):
    config = make_config(copy / "leaves")
    spoil(copy / "leaves", ("01_01_test.png",))
    before = (copy / "run" / "evaluation.json").read_bytes()
    with pytest.raises(DataError) as error:
        evaluate_workdir(config, copy / "run")
    assert "was begun with an image that cannot be read any more; put the files back" in str(
        error.value
    )
    assert "01_01_test.png is a text file, not an image" in str(error.value)
    assert (copy / "run" / "evaluation.json").read_bytes() == before
    # On what is left it is scored by a command of its own, into a file of its own.
    config.data.max_bad = 0.3
    assert evaluate_workdir(config, copy / "run", other_split=True) == 0
    (path,) = (copy / "run").glob("evaluation-*.json")
    scores = load(path)
    assert (scores["last"]["count"], scores["skipped"]) == (6, {"test": 2})
    assert scores["skipped_images"] == ["01_01_test.png", BAD[1]]
    assert (copy / "run" / "evaluation.json").read_bytes() == before


def test_a_lost_record_is_made_again_where_the_images_are_the_same(copy, leaves, capsys):
    config = make_config(copy / "leaves")
    path = copy / "run" / "skipped_images.json"
    kept = load(path)
    path.write_text("{")
    (copy / "run" / "evaluation.json").unlink()
    assert evaluate_workdir(config, copy / "run") == 0
    assert load(copy / "run" / "evaluation.json")["last"]["count"] == 7
    assert train_workdir(config, copy / "run") == 0
    again = load(path)
    assert (again["split_hash"], len(again["skipped"])) == (kept["split_hash"], 2)
    path.unlink()
    mend(copy / "leaves", leaves)  # so that nothing tells which they were
    (copy / "run" / "evaluation.json").unlink()
    with pytest.raises(ConfigError, match="no longer lists the files and labels"):
        evaluate_workdir(config, copy / "run")


def test_before_the_first_checkpoint_the_list_is_made_anew(copy, leaves):
    config = make_config(copy / "leaves")
    shutil.rmtree(copy / "run" / "checkpoints")
    assert known_skipped(copy / "run", config) is None
    assert known_skipped(copy / "run" / "none", config) is None


def test_seeds_leave_out_the_same(copy, leaves, tmp_path):
    """One that is begun later does, although the files are mended; of other data it does not."""
    folder = tmp_path / "seeds"
    shutil.copytree(copy / "run", folder / "seed-0")
    config = make_config(copy / "leaves")
    mend(copy / "leaves", leaves)
    spoil(copy / "leaves", ("04_01_train.png",))
    record = read_skipped(folder / "seed-0")
    assert known_skipped(folder / "seed-1", config) == record
    assert known_skipped(folder / "other", config) is None
    other = make_config(copy / "leaves", data__split_seed=3)
    assert known_skipped(folder / "seed-1", other) is None
    begun = results.seed_folders(folder).values()
    assert seeds._split_hash(config, begun) == record["split_hash"]
    with pytest.raises(DataError, match=r"The other seeds in .* were begun with an image"):
        train_workdir(make_config(copy / "leaves", seed=1), folder / "seed-1")
    assert not (folder / "seed-1").exists()


def test_processes_agree_on_what_is_left_out(data, tmp_path, monkeypatch):
    """Process 0 of two, the other of which reads half of the images; each finds the same list."""
    config = make_config(data)
    alone = setup.decode_all(prepare_run(config, tmp_path / "run"))

    def share_of(me, gathered=None):
        """The run as process `me` of two has it, and what it found; `gathered` by both."""
        found = []

        def gather(name, value):
            if name != "bad images":
                return [value, value]
            found.extend(value)
            return gathered or [[], []]

        with monkeypatch.context() as patch:
            patch.setattr(processes, "count", lambda: 2)
            patch.setattr(processes, "index", lambda: me)
            patch.setattr(processes, "broadcast", lambda _, value: value)
            patch.setattr(processes, "gather", gather)
            run = setup.decode_all(prepare_run(config, tmp_path / "run"))
        return run, json.loads(json.dumps(found))

    parts = [share_of(me)[1] for me in (0, 1)]
    assert sum(map(len, parts)) == 2  # each was read by one of them
    for me in (0, 1):
        run, _ = share_of(me, parts)
        assert run.dataset == alone.dataset
        assert run.plan == alone.plan
        for split, images in alone.images.items():
            for row in range(len(images)):
                np.testing.assert_array_equal(run.images[split][row], images[row])


def test_no_image_is_decoded_twice(data, tmp_path, monkeypatch):
    """Neither to find the bad ones, nor after; what is left out is not looked at again."""
    seen = collections.Counter()

    def counted(real):
        def counting(path, name, **options):
            seen[name] += 1
            return real(path, name, **options)

        return counting

    monkeypatch.setattr(decode, "decode_train", counted(decode.decode_train))
    monkeypatch.setattr(decode, "decode_eval", counted(decode.decode_eval))
    run = setup.decode_all(prepare_run(make_config(data), tmp_path / "run"))
    for images in run.images.values():
        for row in range(len(images)):
            assert images[row].shape == (16, 16, 3)
    assert len(seen) == 20
    assert set(seen.values()) == {1}


def test_a_report_has_a_line_on_them(copy, leaves):
    line = (
        "2 of 20 images could not be read and were left out: 1 of 12 training images and 1 of 8 "
        "test images."
    )
    mend(copy / "leaves", leaves)
    trained = TrainedModel(copy / "run", Named(), make_config(copy / "leaves"), is_run=True)
    dataset = trained.dataset()
    assert [len(examples) for examples in dataset.splits.values()] == [11, 7]
    assert line in collect._summary(trained, dataset, {})
    assert line in recorded.collect_recorded(trained, "gone").summary
    # Whoever looks at a run that stopped on nothing may leave out what is bad by now.
    spoil(copy / "leaves", ("01_01_test.png",))
    (copy / "run" / "skipped_images.json").unlink()
    dataset = TrainedModel(
        copy / "run", Named(), make_config(copy / "leaves"), is_run=True
    ).dataset()
    assert [len(examples) for examples in dataset.splits.values()] == [12, 7]
    stopping = make_config(copy / "leaves", data__on_bad_image="stop")
    trained = TrainedModel(copy / "run", Named(), stopping, is_run=True)
    assert "--config.data.on_bad_image=skip" in str(trained.unreadable(["x.png is bad."]))


class Named:
    """What of a classifier a summary says."""

    source = "run (step 11)"

    @property
    def model(self):
        from clevit_jax.config import model_config

        return model_config(tiny.small(), 4, platform="cpu")
