"""What Weights & Biases and MLflow are handed: each number once, whatever happens.

The services themselves are tried where their packages are installed, without a server.
"""

import importlib
import importlib.machinery
import importlib.util
import json
import math
import pathlib
import signal
import struct
import threading

import pytest
import tiny

from clevit_jax.config import flatten
from clevit_jax.data import procedural_leaves
from clevit_jax.errors import ConfigError
from clevit_jax.runs import trackers
from clevit_jax.runs.metrics import read_records
from clevit_jax.system.files import read_json_object
from clevit_jax.train import train_workdir

training = importlib.import_module("clevit_jax.train")  # `clevit_jax.train` is the function

SPEEDS = ("train/images_per_second", "train/data_wait")


class Fake:
    """A service that keeps what it is handed; `errors` are raised by its next calls."""

    def __init__(self, runs, key="", errors=()):
        self.key = key or f"run{len(runs)}"
        self.where = f"It is {self.key}."
        self.records = runs.setdefault(self.key, [])
        self.errors = list(errors)
        self.ended = None

    def write(self, records):
        if self.errors and (error := self.errors.pop(0)):
            raise error
        self.records += records

    def finish(self, *, finished):
        self.ended = finished


@pytest.fixture
def there(tmp_path, monkeypatch):
    """`there(step, ...)`: a tracker of a run in `tmp_path`; `there.runs`: what the service has."""
    monkeypatch.setattr(trackers, "GATHER_SECONDS", 0.0)

    def make(step=0, *, open_run=None, name="leaves", **changes):
        config = tiny.small()
        config.update_from_flattened_dict({k.replace("__", "."): v for k, v in changes.items()})
        open_run = open_run or (lambda key: Fake(make.runs, key))
        path = tmp_path / "fake.json"
        return trackers.Tracker(
            "Fake", path, name, config, open_run, lambda error: "Mend it.", step
        )

    make.runs = {}
    return make


def close(tracker, *, finished=True):
    trackers.close([tracker], finished=finished)
    return list(tracker.said())


def train_record(step):
    return {"epoch": step / 2, "train/loss": 1 / step}


def written(path, steps):
    """metrics.jsonl with a record of each step."""
    lines = [json.dumps({"step": step, **train_record(step)}) + "\n" for step in steps]
    (path / "metrics.jsonl").write_text("".join(lines))


def steps_of(records):
    return [step for step, _ in records]


def test_records_come_in_order_and_the_end_is_told(there):
    made = []

    def open_run(key):
        made.append(Fake(there.runs, key))
        return made[0]

    tracker = there(open_run=open_run)
    records = [(step, train_record(step)) for step in range(1, 20)]
    records.insert(4, (4, {"test/top1": 0.5}))
    for step, scalars in records:
        tracker.write(step, scalars)
    assert close(tracker) == ["It is run0."]
    assert made[0].ended is True
    assert there.runs == {"run0": records}
    assert close(tracker, finished=False) == []  # again
    assert made[0].ended is True


def test_a_service_that_fails_gets_all_later_and_is_told_of_once(there):
    errors = [OSError("no route\nto host"), OSError("no route"), None, OSError("no route")]
    tracker = there(open_run=lambda key: Fake(there.runs, key, errors))
    said = []
    for step in range(1, 6):
        tracker.write(step, train_record(step))
        handed = threading.Event()
        while not handed.wait(0.01) and not tracker._failing and tracker._waiting:
            pass
    said += close(tracker)
    assert said[0] == "It is run0."
    assert said[1] == (
        "Fake does not take the numbers: no route. Mend it. Training goes on, metrics.jsonl has "
        "all, and the next start sends what lacks."
    )
    assert steps_of(there.runs["run0"]) == sorted(set(steps_of(there.runs["run0"])))


def test_who_could_not_be_reached_gets_all_from_the_next_start(there, tmp_path):
    def refuse(key):
        raise PermissionError("nobody is logged in.")

    tracker = there(open_run=refuse)
    for step in (1, 2, 3):
        tracker.write(step, train_record(step))
    (sentence,) = close(tracker, finished=False)
    assert sentence.startswith("Fake does not take the numbers: nobody is logged in. Mend it.")
    assert not (tmp_path / "fake.json").exists()
    written(tmp_path, [1, 2, 3])
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 3, "test/loss": null}\n')
    tracker = there(3)
    tracker.write(4, train_record(4))
    close(tracker)
    records = there.runs["run0"]
    assert steps_of(records) == [1, 2, 3, 3, 4]
    assert records[0] == (1, train_record(1))
    assert math.isnan(records[3][1]["test/loss"])


def test_what_a_killed_run_has_sent_does_not_come_twice(there, tmp_path):
    tracker = there()
    for step in (1, 2, 3, 4):
        tracker.write(step, train_record(step))
    close(tracker, finished=False)
    written(tmp_path, [1, 2])  # cut to the checkpoint, as MetricWriter does
    tracker = there(2)
    for step in (3, 4, 5):
        tracker.write(step, train_record(step))
    tracker.write(4, {"test/top1": 0.5})  # which the killed one did not come to
    close(tracker)
    assert list(there.runs) == ["run0"]
    assert sorted(steps_of(there.runs["run0"])) == [1, 2, 3, 4, 4, 5]


def test_other_settings_begin_another_run_where_steps_are_gone_back(there, tmp_path):
    tracker = there()
    for step in (1, 2, 3, 4):
        tracker.write(step, train_record(step))
    close(tracker, finished=False)
    written(tmp_path, [1, 2, 3, 4])
    close(there(4, optim__lr=0.5))  # nothing is taken back
    assert list(there.runs) == ["run0"]
    written(tmp_path, [1, 2])
    close(there(2, optim__lr=0.5, log__every_steps=7))  # as it was before
    assert list(there.runs) == ["run0"]
    close(there(2, optim__lr=0.25))
    assert {key: steps_of(records) for key, records in there.runs.items()} == {
        "run0": [1, 2, 3, 4],
        "run1": [1, 2],
    }


@pytest.mark.parametrize(
    "damage", ["", "[]", '{"name": "leaves", "key": "a", "until": 3}', "other"]
)
def test_a_damaged_file_and_another_name_begin_anew(there, tmp_path, damage):
    close(there())
    if damage != "other":
        (tmp_path / "fake.json").write_text(damage)
    close(there(name=damage or "leaves"))
    assert list(there.runs) == ["run0", "run1"]
    assert read_json_object(tmp_path / "fake.json")["key"] == "run1"


def test_a_service_that_hangs_is_left_behind(there, monkeypatch):
    monkeypatch.setattr(trackers, "END_SECONDS", 0.05)
    monkeypatch.setattr(trackers, "WAITING", 10)
    free = threading.Event()

    def hang(key):
        free.wait(60)
        return Fake(there.runs, key)

    tracker = there(open_run=hang)
    for step in range(1, 50):
        tracker.write(step, train_record(step))
    assert len(tracker._waiting) == 10  # the rest is for the next start
    assert close(tracker) == [
        "Fake does not answer, and is left alone. Mend it. Training goes on, metrics.jsonl has "
        "all, and the next start sends what lacks."
    ]
    free.set()
    tracker.join(60)
    assert steps_of(there.runs["run0"]) == list(range(1, 11))


@pytest.mark.parametrize("package", ["wandb", "mlflow"])
@pytest.mark.parametrize("spec", [None, importlib.machinery.ModuleSpec("folder", None)])
def test_a_missing_package_is_told_before_the_data_is_looked_at(
    package, spec, tmp_path, monkeypatch
):
    """Also where a folder of its name is beside the command."""
    find = importlib.util.find_spec

    def lacking(name, *more):
        return spec if name == package else find(name, *more)

    monkeypatch.setattr(importlib.util, "find_spec", lacking)
    config = tiny.small()
    config.data.root = str(tmp_path / "nothing")
    config.log[package] = "leaves"
    with pytest.raises(ConfigError, match=rf"pip install 'clevit_jax\[{package}\]'") as error:
        train_workdir(config, tmp_path / "run")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()


# --- The services themselves, without a server.


@pytest.fixture(scope="module")
def root(once):
    return once("leaves of trackers", make_leaves)


def make_leaves(folder):
    procedural_leaves.write_dataset(folder, classes=4, train_per_class=3, test_per_class=2, size=16)


def make_config(root, **changes):
    config = tiny.small()
    config.data.root = str(root)
    config.eval.every_epochs = 5
    config.epochs = 10  # 30 updates
    config.checkpoint.every_steps = 7
    config.log.every_steps = 1
    config.update_from_flattened_dict({k.replace("__", "."): v for k, v in changes.items()})
    return config


class BrokenError(Exception):
    pass


def train_in_three(config, workdir, monkeypatch):
    """A run that fails at update 10, goes on from 7, is stopped at 20 and goes on to its end."""
    follow, failed = training.MetricLogger.log_update, []

    def interrupted(self, step, *more):
        follow(self, step, *more)
        if step == 10 and not failed:
            failed.append(step)
            self.finish()
            raise BrokenError
        if step == 20:
            signal.raise_signal(signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(training.MetricLogger, "log_update", interrupted)
        with pytest.raises(BrokenError):
            train_workdir(config, workdir)
        assert train_workdir(config, workdir) == training.STOPPED
    assert train_workdir(config, workdir) == 0


def expected(workdir):
    """`[(step, {name: value})]` of metrics.jsonl: updates 1 to 30 and two scores."""
    records = [(record.pop("step"), record) for record in read_records(workdir / "metrics.jsonl")]
    assert steps_of(records) == [*range(1, 16), 15, *range(16, 31), 30]
    return records


def slow(records):
    """Without what the clock says, which differs where updates were made twice."""
    return [(s, {k: v for k, v in row.items() if k not in SPEEDS}) for s, row in records]


def read_wandb(path):
    """Records of a .wandb file, by its format: that of LevelDB's log behind a header of 7 bytes."""
    from wandb.proto import wandb_internal_pb2

    data = path.read_bytes()
    assert data[:4] == b":W&B"
    at, whole = 7, b""
    while at + 7 <= len(data):
        if (left := 32768 - at % 32768) < 7:
            at += left
            continue
        _, length, kind = struct.unpack("<IHB", data[at : at + 7])
        if kind == 0:
            break
        whole += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # full, last
            record = wandb_internal_pb2.Record()
            record.ParseFromString(whole)
            yield record
            whole = b""


def wandb_history(path):
    """`[(step, {name: value})]`."""
    for record in read_wandb(path):
        if record.WhichOneof("record_type") != "history":
            continue
        row = {
            item.key or "/".join(item.nested_key): json.loads(item.value_json)
            for item in record.history.item
        }
        yield row.pop("step"), {name: x for name, x in row.items() if not name.startswith("_")}


@pytest.fixture
def wandb():
    """The package, which knows nothing of the test before."""
    package = pytest.importorskip("wandb")
    package.teardown()
    yield package
    package.teardown()


@pytest.mark.usefixtures("wandb")
def test_wandb_has_the_numbers_of_a_run_that_went_on(root, tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.delenv("WANDB_DIR", raising=False)
    config, workdir = make_config(root, log__wandb="leaves"), tmp_path / "run"
    train_in_three(config, workdir, monkeypatch)
    key = read_json_object(workdir / "wandb.json")["key"]
    files = sorted(
        (workdir / "wandb").glob(f"offline-run-*/run-{key}.wandb"),
        key=lambda path: path.stat().st_mtime_ns,
    )
    assert len(list((workdir / "wandb").glob("offline-run-*"))) == 3
    history = [row for path in files for row in wandb_history(path)]
    assert slow(history) == slow(expected(workdir))
    assert history[15:] == expected(workdir)[15:]
    assert set(SPEEDS) < history[0][1].keys()
    (run,) = (r.run for r in read_wandb(files[0]) if r.WhichOneof("record_type") == "run")
    assert (run.project, run.run_id, run.display_name) == ("leaves", key, "run")
    settings = {update.key: json.loads(update.value_json) for update in run.config.update}
    assert settings["optim"]["lr"] == config.optim.lr
    kinds = {record.WhichOneof("record_type") for path in files for record in read_wandb(path)}
    assert "output" not in kinds
    assert "output_raw" not in kinds
    out, err = capfd.readouterr()
    assert "wandb:" not in out + err
    assert out.count("Weights & Biases keeps the run in") == 3
    assert not (pathlib.Path(files[0]).parent / "files" / "diff.patch").exists()


@pytest.mark.usefixtures("wandb")
def test_wandb_without_a_login_asks_nobody(root, tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("WANDB_MODE", "online")
    for name in ("WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("HOME", str(tmp_path))
    config = make_config(root, log__wandb="leaves", epochs=1)
    assert train_workdir(config, tmp_path / "run") == 0
    out, err = capfd.readouterr()
    assert "nobody is logged in. Type wandb login, or set WANDB_MODE=offline" in out
    assert "wandb:" not in out + err


@pytest.mark.filterwarnings("ignore:.*noload:DeprecationWarning")
def test_mlflow_has_the_numbers_of_a_run_that_went_on(root, tmp_path, monkeypatch, capfd):
    pytest.importorskip("mlflow")
    pytest.importorskip("sqlalchemy")
    from mlflow.tracking import MlflowClient

    address = f"sqlite:///{tmp_path}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    config, workdir = make_config(root, log__mlflow="leaves"), tmp_path / "run"
    train_in_three(config, workdir, monkeypatch)
    client = MlflowClient()
    experiment = client.get_experiment_by_name("leaves")
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.run_id == read_json_object(workdir / "mlflow.json")["key"]
    assert (run.info.run_name, run.info.status) == ("run", "FINISHED")
    assert run.data.params == {name: str(value) for name, value in flatten(config).items()}
    records = expected(workdir)
    for name in {name for _, row in records for name in row}:
        history = [(m.step, m.value) for m in client.get_metric_history(run.info.run_id, name)]
        there = [(step, row[name]) for step, row in records if name in row]
        made_twice = 10 if name in SPEEDS else 0
        assert sorted(history)[made_twice:] == there[made_twice:]
    assert "INFO" not in "".join(capfd.readouterr())
    goes_on = make_config(root, log__mlflow="leaves", epochs=11)
    assert train_workdir(goes_on, workdir, extend=True) == 0
    run = client.get_run(run.info.run_id)
    assert run.data.params["epochs"] == "10"
    assert run.data.tags["epochs from step 30"] == "11"
    client.delete_run(run.info.run_id)
    longer = make_config(root, log__mlflow="leaves", epochs=12)
    assert train_workdir(longer, workdir, extend=True) == 0
    (another,) = client.search_runs([experiment.experiment_id])
    assert len(client.get_metric_history(another.info.run_id, "train/loss")) == 36
