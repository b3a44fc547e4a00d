"""Records that survive a kill, strict JSON, and the numbers of the bar."""

import json
import math
import time

import pytest

from clevit_jax.runs.metrics import MetricWriter, Progress


def _write(folder, start, steps):
    writer = MetricWriter(folder, step=start)
    for step in steps:
        writer.write(step, {"loss": float(step)})
    writer.close()


def _records(folder):
    def refuse(name):
        raise ValueError(name)  # NaN and Infinity are no JSON

    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line, parse_constant=refuse) for line in lines]


def test_lines_and_tensorboard(tmp_path):
    _write(tmp_path, 0, [1, 2])
    assert _records(tmp_path) == [{"step": 1, "loss": 1.0}, {"step": 2, "loss": 2.0}]
    (board,) = (tmp_path / "tensorboard").iterdir()
    assert b"loss" in board.read_bytes()


def test_each_line_is_on_the_disk_at_once(tmp_path):
    writer = MetricWriter(tmp_path, step=0)
    writer.write(1, {"loss": 1.0})
    assert len(_records(tmp_path)) == 1
    writer.close()


@pytest.mark.parametrize("torn", ['{"step": 3, "lo', "{", "[]\n", "7\n", '{"loss": 1}\n', "\n"])
def test_a_resumed_run_drops_later_and_torn_lines(tmp_path, torn):
    """Killed after step 7, resumed from the checkpoint of step 4: each step is there once."""
    _write(tmp_path, 0, range(1, 8))
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write(torn)
    _write(tmp_path, 4, range(5, 11))
    assert [record["step"] for record in _records(tmp_path)] == list(range(1, 11))
    assert {path.name for path in tmp_path.iterdir()} == {"metrics.jsonl", "tensorboard"}


def test_a_last_line_without_its_end_is_whole(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 3}')
    _write(tmp_path, 3, [4])
    assert [record["step"] for record in _records(tmp_path)] == [3, 4]


def test_from_step_0_nothing_is_kept(tmp_path):
    _write(tmp_path, 0, [1, 2, 3])
    _write(tmp_path, 0, [1])
    assert [record["step"] for record in _records(tmp_path)] == [1]


def test_what_is_not_finite_is_null(tmp_path):
    writer = MetricWriter(tmp_path, step=0)
    writer.write(1, {"a": math.nan, "b": math.inf, "c": -math.inf, "d": 0.5})
    writer.close()
    assert _records(tmp_path) == [{"step": 1, "a": None, "b": None, "c": None, "d": 0.5}]


@pytest.fixture
def clock(monkeypatch):
    """`clock[0]` is the time in seconds."""
    now = [100.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    return now


def test_progress_by_hand(clock, capsys):
    """Five updates of 8 images in 2 s each, of which 0.5 s waiting, and all that is not speed:
    the first, which takes 30 s to compile, and a pause of 60 s."""
    progress = Progress(10, 20, 8)
    progress.pause()
    for seconds, loss in ((30, 3.0), (2, 4.0), (2, 2.0)):
        clock[0] += seconds
        progress.update({"loss": loss, "accuracy": 0.5}, waited=0.5)
    assert progress.mean("loss") == 3
    assert progress.images_per_second == 4
    assert progress.data_share == 0.25
    assert progress.record() == {
        "train/loss": 3, "train/accuracy": 0.5,
        "train/images_per_second": 4, "train/data_wait": 0.25,
    }  # fmt: skip
    clock[0] += 60
    progress.pause()
    for loss in (7.0, 9.0):
        clock[0] += 2
        progress.update({"loss": loss, "accuracy": 1.0}, waited=0.5)
    assert progress.record()["train/loss"] == 8
    assert progress.images_per_second == 4
    progress.say("Epoch 3")
    progress.close()
    progress.close()
    out, err = capsys.readouterr()
    assert out == "Epoch 3\n"
    assert "15/20" in err


def test_speed_is_of_the_last_50_updates(clock):
    progress = Progress(0, 200, 1)
    for seconds in [10] * 51 + [0.5] * 50:
        clock[0] += seconds
        progress.update({"loss": 1.0, "accuracy": 0.0}, waited=0.0)
    assert progress.images_per_second == 2
    progress.close()


def test_progress_without_an_update():
    progress = Progress(0, 1, 1)
    assert (progress.images_per_second, progress.data_share, progress.mean("loss")) == (0, 0, 0)
    progress.close()
