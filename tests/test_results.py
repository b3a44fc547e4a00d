"""What the JSON files of a run are read as, whole, half-written and wrong."""

import json
import math
import statistics

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_runs import OTHER_SPLIT, SPLIT, TOTAL, record, scores, write_finished, write_run

from clevit_jax.data.dataset import Level
from clevit_jax.errors import ConfigError
from clevit_jax.runs import results
from clevit_jax.runs.facts import levels_of, read_run_facts
from clevit_jax.system.files import write_json


def test_a_finished_run(tmp_path):
    folder = write_run(
        tmp_path / "run", last=scores(60, 0.25), best=scores(40, 0.5), chosen_on="val", seed=3,
        records=[{"step": 60, "train/loss": 0.1}, record(60, 0.75, split="val", count=7)],
    )  # fmt: skip
    run = results.read_result(folder)
    assert (run.folder, run.step, run.total, run.split_hash) == (folder, 60, 60, SPLIT)
    assert run.finished
    # The validation score of the same step does not stand in for the test.
    assert (run.last, run.scored_on) == (scores(60, 0.25), "test")
    assert run.best == {"chosen_on": "val", **scores(40, 0.5)}
    assert (run.config["seed"], run.config["model.depths"]) == (3, (1, 1))


def test_what_a_notebook_shows(tmp_path):
    """How far the run is and its scores; none of its settings."""
    folder = write_run(tmp_path / "run", last=scores(60, 0.25), best=scores(40, 0.5))
    assert repr(results.read_result(folder)).splitlines() == [
        f"RunResult({str(folder)!r}, finished at step 60 of 60)",
        "  last, step 60: test top-1 25.00 %, top-5 100.00 %, mean per class 12.50 %, loss 1.5000 "
        "(20 images)",
        "  best, step 40: test top-1 50.00 %, top-5 100.00 %, mean per class 25.00 %, loss 1.5000 "
        "(20 images), chosen on the test set, so it flatters",
    ]
    training = write_run(tmp_path / "training", records=[record(40, 0.3, split="val")])
    assert repr(results.read_result(training)).splitlines() == [
        f"RunResult({str(training)!r}, recorded up to step 40 of 60)",
        "  last, step 40: validation top-1 30.00 %, top-5 100.00 %, mean per class 15.00 %, "
        "loss 1.5000 (20 images)",
    ]
    begun = results.read_result(write_run(tmp_path / "begun", begun=False))
    assert repr(begun) == f"RunResult({str(begun.folder)!r}, not begun)"


def test_scores_by_level(tmp_path):
    """Of evaluation.json, and of the newest evaluation in metrics.jsonl, with what is shown."""
    levels = {"accuracy_genus": 0.5, "accuracy_a b": 0.75}
    scored = {**scores(60, 0.25), **levels}
    run = results.read_result(write_run(tmp_path / "a", last=scored, best=scored))
    assert run.last == scored
    assert "mean per class 12.50 %, genus 50.00 %, a b 75.00 %, loss" in repr(run)
    newest = record(40, 0.25, split="val") | {f"val/{name}": n for name, n in levels.items()}
    newest |= {"train/accuracy": 1.0, "train/accuracy_x": 1.0}
    run = results.read_result(write_run(tmp_path / "b", records=[newest]))
    assert run.last == {**scores(40, 0.25), **levels}
    assert results.common_levels([run.last, scored, {"accuracy_a b": 1}]) == ["accuracy_a b"]
    assert results.common_levels([scores(60, 0.25), scored]) == []
    scored["accuracy_genus"] = "0.5"
    with pytest.raises(ConfigError, match=r"evaluation\.json lacks a number among .* of 'last'"):
        results.read_result(write_run(tmp_path / "c", last=scored))


WRONG_LEVELS = {
    "a list": [["genus", ["p", "q"]]],
    "a text": {"genus": "pq"},
    "a number": {"genus": ["p", 1]},
    "too few": {"genus": ["p"]},
}


def test_levels_of_a_run(tmp_path):
    """Older runs have none; what does not fit the classes is damage."""
    write_json(tmp_path / "run.json", {"class_names": ["a", "b"]})
    assert levels_of(read_run_facts(tmp_path)) == ()
    write_json(tmp_path / "run.json", {"class_names": ["a", "b"], "levels": {"genus": ["p", "q"]}})
    assert levels_of(read_run_facts(tmp_path)) == (Level("genus", ("p", "q")),)


@pytest.mark.parametrize("name", WRONG_LEVELS)
def test_damaged_levels_are_named(tmp_path, name):
    write_json(tmp_path / "run.json", {"class_names": ["a", "b"], "levels": WRONG_LEVELS[name]})
    with pytest.raises(ConfigError, match=r"run\.json is damaged: its level.* --mode train"):
        read_run_facts(tmp_path)


def test_a_run_without_a_checkpoint_to_choose(tmp_path):
    run = results.read_result(write_run(tmp_path, last=scores(60, 0.25)))
    assert run.finished
    assert run.best is None


def test_a_run_that_is_reading_its_images(tmp_path):
    run = results.read_result(write_run(tmp_path, begun=False))
    assert (run.step, run.total, run.split_hash, run.last, run.best) == (0, None, None, None, None)
    assert not run.finished


@pytest.mark.parametrize("split", ["test", "val"])
def test_a_run_that_is_training(tmp_path, split):
    """Its scores are those of the newest evaluation, its step that of the newest record."""
    records = [record(20, 0.1, split=split), record(40, 0.3, split=split), {"step": 45}]
    run = results.read_result(write_run(tmp_path, records=records))
    assert (run.step, run.last, run.scored_on) == (45, scores(40, 0.3), split)
    assert run.split_hash == SPLIT
    assert not run.finished


def test_a_run_that_was_scored_and_went_on(tmp_path):
    """By `--mode eval` at step 20; the best is still what that found."""
    evaluated = {"last": scores(20, 0.2), "best": scores(20, 0.2)}
    assert results.read_result(write_run(tmp_path, **evaluated)).step == 20
    run = results.read_result(write_run(tmp_path, **evaluated, records=[record(20, 0.9)]))
    assert (run.step, run.last, run.finished) == (20, scores(20, 0.2), False)
    run = results.read_result(write_run(tmp_path, **evaluated, records=[record(40, 0.4)]))
    assert (run.step, run.last, run.scored_on) == (40, scores(40, 0.4), "test")
    assert run.best == {"chosen_on": "test", **scores(20, 0.2)}
    assert not run.finished


def test_a_last_score_that_was_not_saved_finishes_nothing(tmp_path):
    """Killed between the last evaluation and the last checkpoint: training must go on."""
    run = results.read_result(write_run(tmp_path, records=[record(TOTAL, 0.4)]))
    assert (run.step, run.total, run.last) == (60, 60, scores(60, 0.4))
    assert not run.finished


def test_torn_lines_and_missing_numbers_of_the_metrics(tmp_path):
    lines = ["", json.dumps({"step": 20, "test/top1": 0.5, "test/loss": None}), "7", "[]", '"x"']
    lines += ["{}", json.dumps({"step": 30}), '{"step": 40, "test/top1": 0.7, "test/lo']
    write_run(tmp_path)
    (tmp_path / "metrics.jsonl").write_bytes("\n".join(lines).encode() + b"\xff")
    run = results.read_result(tmp_path)
    assert run.step == 30
    assert run.last.pop("top1") == 0.5
    assert run.last.pop("step") == 20
    assert run.last.keys() == {"top5", "mean_per_class", "loss", "count"}
    assert all(math.isnan(value) for value in run.last.values())


NO_OBJECT = "is not a JSON object; it was not written by this program"
WRONG = {
    "torn config": ("config.json", '{"seed": 0, "mod', "is not JSON"),
    "config is a list": ("config.json", "[]", NO_OBJECT),
    "config is a number": ("config.json", "3", NO_OBJECT),
    "empty config": ("config.json", "{}", "holds no settings"),
    "config of another program": (
        "config.json",
        '{"model": "vit", "data": {}}',
        "holds no settings",
    ),
    "torn run": ("run.json", '{"updates": 6', "is not JSON"),
    "run is null": ("run.json", "null", NO_OBJECT),
    "torn evaluation": ("evaluation.json", '{"last": {', "is not JSON"),
    "binary evaluation": ("evaluation.json", "\udcff", "is not JSON"),
    "empty evaluation": ("evaluation.json", "", "is not JSON"),
    "no last": (
        "evaluation.json",
        '{"best": null}',
        "lacks 'last'; score the run again: --mode eval",
    ),
    "last is a number": ("evaluation.json", '{"last": 3}', "lacks a number .* of 'last'"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_file_is_named(tmp_path, name):
    file, text, sentence = WRONG[name]
    write_finished(tmp_path, 0.5)
    (tmp_path / file).write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(ConfigError, match=rf"{file} {sentence}"):
        results.read_result(tmp_path)


@pytest.mark.parametrize("which", ["last", "best"])
@pytest.mark.parametrize("name", ["step", "count", "top1", "top5", "mean_per_class", "loss"])
def test_a_missing_score_is_an_error(tmp_path, which, name):
    write_finished(tmp_path, 0.5)
    evaluation = json.loads((tmp_path / "evaluation.json").read_text())
    for wrong in ("0.5", None):
        evaluation[which][name] = wrong
        (tmp_path / "evaluation.json").write_text(json.dumps(evaluation))
        with pytest.raises(ConfigError, match=rf"lacks a number among .*{name}.* of '{which}'"):
            results.read_result(tmp_path)


def test_facts_of_a_wrong_kind_are_named(tmp_path):
    write_run(tmp_path, records=[record(20, 0.5)])
    (tmp_path / "run.json").write_text('{"updates": "60", "split_hash": 3}')
    with pytest.raises(ConfigError, match=r"run\.json is damaged: its updates is '60'\. The comm"):
        results.read_result(tmp_path)
    (tmp_path / "run.json").write_text("{}")
    run = results.read_result(tmp_path)
    assert (run.total, run.split_hash, run.finished) == (None, None, False)


def test_no_run(tmp_path):
    with pytest.raises(ConfigError, match=r"holds no run \(config.json is missing\)"):
        results.read_result(tmp_path)


def test_seed_folders(tmp_path):
    """By number, not by letter; only `seed-N` as the mode writes it, with a config inside."""
    for name in ("seed-10", "seed-9", "seed-0", "seed-01", "seed-", "seed-x", "seed-3-old", "run"):
        write_run(tmp_path / name)
    (tmp_path / "seed-4").mkdir()
    (tmp_path / "seed-5").write_text("")
    found = results.seed_folders(tmp_path)
    assert list(found.items()) == [(n, tmp_path / f"seed-{n}") for n in (0, 9, 10)]
    assert results.seed_folders(tmp_path / "seed-5") == {}
    assert results.seed_folders(tmp_path / "nowhere") == {}


def test_the_split_that_seeds_share(tmp_path):
    one, two = (results.read_result(write_finished(tmp_path / f"seed-{n}", 0.5)) for n in (0, 1))
    fresh = results.read_result(write_run(tmp_path / "seed-2", begun=False))
    assert results.common_split([]) is None
    assert results.common_split([fresh]) is None
    assert results.common_split([fresh, one, two]) == SPLIT
    other = results.read_result(write_finished(tmp_path / "seed-3", 0.5, split_hash=OTHER_SPLIT))
    with pytest.raises(ConfigError) as error:
        results.common_split([one, fresh, other])
    assert f"(seed-0: {SPLIT[:8]}, seed-3: {OTHER_SPLIT[:8]})" in str(error.value)
    assert "move the folders of the other images away" in str(error.value)


@given(st.lists(st.floats(0, 1), min_size=2, max_size=9))
def test_mean_and_deviation(values):
    mean, deviation = results.mean_and_deviation(values)
    np.testing.assert_allclose(mean, statistics.mean(values), rtol=1e-12)
    np.testing.assert_allclose(deviation, statistics.stdev(values), rtol=1e-9, atol=1e-12)


def test_mean_and_deviation_by_hand():
    """Of 2, 4, 9: mean 5, squares 9 + 1 + 16 = 26, over n - 1 = 2 is 13."""
    assert results.mean_and_deviation([2.0, 4.0, 9.0]) == (5.0, pytest.approx(math.sqrt(13)))
    assert results.mean_and_deviation([0.25]) == (0.25, None)
