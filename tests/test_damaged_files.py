"""The small files of a run, damaged: made again with a word, or named with what to do."""

import contextlib
import gc
import json
import shutil
import types
import warnings

import numpy as np
import pytest
from made_runs import make_config, write_finished

from clevit_jax.analysis import feature_file
from clevit_jax.analysis.deletion import Deletion
from clevit_jax.analysis.report import curves, recorded, write
from clevit_jax.errors import ClevitError, ConfigError
from clevit_jax.runs import facts, finished, goodput, load, logger, results
from clevit_jax.runs.metrics import MetricWriter
from clevit_jax.runs.workdir import check_workdir, load_config
from clevit_jax.sweeps.compare import compare_runs

DAMAGES = {
    "empty": b"",
    "cut": None,  # half of what was there
    "list": b"[]",
    "object": b"{}",
    "null": b"null",
    "text": b'"text"',
    "other object": b'{"a": 1}',
    "binary": b"\xff\xfe\x00PK\x03\x04",
    "deep": b"[" * 100_000,
    "folder": None,
}
START = {
    "step": 0, "started": "2026", "command": ["main"], "python": "3.11", "processes": 1,
    "versions": {"clevit_jax": "0.2.0"}, "devices": ["cpu", 1],
}  # fmt: skip
TIMED = START | {
    "reached": 20, "seen": "2026-11-30T20:35:29.609+00:00", "finished": True,
    "seconds": dict.fromkeys(goodput.SPENT_ON, 1.5),
}  # fmt: skip
FACTS = {
    "parameters": 9, "global_batch": 4, "updates": 60, "peak_learning_rate": 0.1,
    "peak_learning_rate_head": 0.5, "chosen_on": "test", "split_hash": "5011" * 16,
    "class_names": ["a", "b"], "starts": [START, TIMED], "goodput": goodput.goodput([START, TIMED]),
}  # fmt: skip
MAPS = {"drops": {"norm": 0.2}, "random": 0.1, "images": 3, "cells": 4, "deleted": 2}
FILES = ("config.json", "run.json", "evaluation.json", "metrics.jsonl", "maps.json",
         "load_report.json", "training_features.npz")  # fmt: skip


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = write_finished(tmp_path_factory.mktemp("runs") / "whole", 0.5)
    for name, value in (("run.json", FACTS), ("maps.json", MAPS), ("load_report.json", {"a": 1})):
        (folder / name).write_text(json.dumps(value))
    (folder / "metrics.jsonl").write_text('{"step": 20, "train/loss": 1.0}\n')
    np.savez_compressed(folder / "training_features.npz", features=np.zeros((3, 2), np.float32))
    (folder / "checkpoints" / "20").mkdir(parents=True)
    return folder


@pytest.fixture
def damaged(whole, tmp_path, request):
    file, damage = request.param
    folder = tmp_path / "run"
    shutil.copytree(whole, folder)
    path = folder / file
    before = path.read_bytes()
    if damage == "folder":
        path.unlink()
        path.mkdir()
    else:
        content = DAMAGES[damage]
        path.write_bytes(before[: len(before) // 2] if content is None else content)
    return path


def run_of(folder):
    """What `train` asks of a run for its scores."""
    dataset = types.SimpleNamespace(split_hash=lambda: "5011" * 16)
    plan = types.SimpleNamespace(total=60)
    return types.SimpleNamespace(workdir=folder, dataset=dataset, plan=plan)


READERS = {
    "config": load_config,
    "the same command": lambda folder: check_workdir(folder, make_config()),
    "result": results.read_result,
    "compare": lambda folder: compare_runs([folder]),
    "run facts": lambda folder: facts.read_run_facts(folder, "class_names"),
    "are whole": facts.run_facts_are_whole,
    "starts": logger._starts,
    "predict": load.read_weights,
    "evaluation": facts.read_evaluation,
    "finished": lambda folder: finished.last_scores(run_of(folder)),
    "report's scores": write._has_scores,
    "map": load.chosen_map,
    "deletion test": lambda folder: Deletion.from_json(load.read_maps(folder)),
    "weights": lambda folder: recorded.initial_weights(types.SimpleNamespace(path=folder)),
    "charts": lambda folder: curves.read_charts(folder / "metrics.jsonl"),
    "writer": lambda folder: MetricWriter(folder, step=20).close(),
    "features": lambda folder: feature_file.read_feature_file(folder / "training_features.npz"),
}
MADE_AGAIN = {"are whole", "starts", "finished", "report's scores", "map", "deletion test",
              "weights"}  # fmt: skip


@pytest.mark.parametrize(
    "damaged", [(f, d) for f in FILES for d in DAMAGES], indirect=True, ids=lambda x: "-".join(x)
)
def test_damage_is_named_or_mended(damaged):
    for name, read in READERS.items():
        failure = None
        try:
            read(damaged.parent)
        except (ClevitError, OSError) as error:
            failure = error
        says = str(failure or "")
        if isinstance(failure, ConfigError):
            assert name not in MADE_AGAIN, says
            assert len(says) < 1000
            no_run = name == "compare" and "config.json" in says  # where that is a folder
            # The file of features here has no names of files, damaged or not.
            assert name == "features" or str(damaged) in says or no_run
        elif isinstance(failure, ClevitError):  # there is no checkpoint in these folders
            assert name == "predict"
        elif failure:  # main's sentence has its path
            assert name in ("charts", "writer")
            assert failure.filename


def test_an_archive_that_is_none_is_closed(tmp_path):
    """Left open, it would be in the way on some disks, and warned of by whoever comes next."""
    path = tmp_path / "training_features.npz"
    np.savez(path, features=np.zeros(9))
    path.write_bytes(path.read_bytes()[:99])
    gc.collect()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with contextlib.suppress(ConfigError):
            feature_file.read_feature_file(path)
        gc.collect()
    assert [str(warning.message) for warning in caught] == []


def test_nothing_is_damaged_to_begin_with(whole):
    for name in READERS.keys() - {"predict", "features", "writer"}:
        READERS[name](whole)
    assert READERS["finished"](whole)["top1"] == 0.5
    assert READERS["starts"](whole) == [START, TIMED]
    assert READERS["are whole"](whole) is True
    assert READERS["deletion test"](whole) == Deletion(**MAPS)
    assert facts.read_run_facts(whole) == FACTS


@pytest.mark.parametrize("value", [None, 3, "x", [3], [{}], {"a": 1}])
@pytest.mark.parametrize("name", FACTS)
def test_a_fact_of_another_type_is_named(tmp_path, name, value, capsys):
    wrong = {**FACTS, name: value}
    (tmp_path / "run.json").write_text(json.dumps(wrong))
    number = isinstance(FACTS[name], int | float)
    if (number and value == 3) or (name == "split_hash" and value == "x"):
        facts.read_run_facts(tmp_path)
        return
    with pytest.raises(ConfigError, match=rf"run\.json is damaged: its {name} is .* --mode train"):
        facts.read_run_facts(tmp_path)
    assert not facts.run_facts_are_whole(tmp_path)
    if name == "starts":
        assert logger._starts(tmp_path) == []
        assert "made again, without the earlier starts" in capsys.readouterr().out


@pytest.mark.parametrize(
    "wrong",
    [
        {"reached": "x"}, {"seen": 3}, {"seen": "2026"}, {"seen": "2026-11-30T20:35:29"},
        {"finished": 1}, {"seconds": 3}, {"seconds": {}},
        {"seconds": {**TIMED["seconds"], "down": -1}},
        {"seconds": {**TIMED["seconds"], "down": float("nan")}},
    ],
)  # fmt: skip
def test_a_time_of_another_type_is_named(tmp_path, wrong):
    (tmp_path / "run.json").write_text(json.dumps({**FACTS, "starts": [TIMED | wrong]}))
    with pytest.raises(ConfigError, match=r"run\.json is damaged: its starts is "):
        facts.read_run_facts(tmp_path)


@pytest.mark.parametrize("missing", ["reached", "seen", "seconds"])
def test_a_time_that_lacks_a_part_is_named(tmp_path, missing):
    start = {name: value for name, value in TIMED.items() if name != missing}
    (tmp_path / "run.json").write_text(json.dumps({**FACTS, "starts": [start]}))
    assert not facts.run_facts_are_whole(tmp_path)


@pytest.mark.parametrize("value", [None, "x", [0.5], True])
@pytest.mark.parametrize("name", ["top1", "step", "count", "loss", "val"])
def test_a_score_of_another_type_is_scored_again(tmp_path, name, value, capsys):
    write_finished(tmp_path, 0.5)
    path = tmp_path / "evaluation.json"
    evaluation = json.loads(path.read_text())
    evaluation["last"][name] = value
    path.write_text(json.dumps(evaluation))
    if name == "val" and value is None:
        facts.read_evaluation(tmp_path)
        return
    with pytest.raises(ConfigError, match=r"lacks a number .*; score the run again: --mode eval"):
        facts.read_evaluation(tmp_path)
    assert finished.last_scores(run_of(tmp_path)) is None
    assert "evaluation.json is damaged; the run is scored again." in capsys.readouterr().out
