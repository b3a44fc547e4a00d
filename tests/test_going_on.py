"""A run goes on, and further: its config by its name, --extend, --from, a step, early stopping."""

import dataclasses
import json
import pathlib
import shutil

import numpy as np
import pytest
from absl import flags as absl_flags
from made_runs import make_config, record, scores, write_run

import clevit_jax
from clevit_jax import flags
from clevit_jax.analysis.features import write_features
from clevit_jax.analysis.report.write import write_report
from clevit_jax.analysis.trained_model import TrainedModel
from clevit_jax.config import EXTENDABLE, changed_settings, flatten, unextendable
from clevit_jax.data import procedural_leaves
from clevit_jax.errors import CheckpointError, ConfigError, DataError
from clevit_jax.evaluate import evaluate_workdir
from clevit_jax.runs import named, setup
from clevit_jax.runs.extend import rates_sentence
from clevit_jax.runs.load import read_weights, split_checkpoint
from clevit_jax.runs.origin import begin_from
from clevit_jax.runs.patience import Patience
from clevit_jax.runs.results import read_result
from clevit_jax.runs.workdir import check_workdir, load_config
from clevit_jax.steps.schedule import Schedule
from clevit_jax.train import train_workdir
from clevit_jax.weights.convert import named_leaves

pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


def parse(*args, monkeypatch):
    argv = ["main", *args]
    monkeypatch.setattr("sys.argv", argv)
    values = absl_flags.FlagValues()
    flags.define(values)
    flags.parse(values, argv)
    return values


def test_a_config_by_the_name_of_its_run(tmp_path):
    run = write_run(tmp_path / "run", optim__lr=3.0)
    for name in (run, run / "config.json", f"{run}/"):
        assert clevit_jax.get_config(str(name), epochs=7).optim.lr == 3.0
    write_run(tmp_path / "both" / "seed-10", seed=10)
    write_run(tmp_path / "both" / "seed-9", seed=9)
    assert named.load(str(tmp_path / "both")).seed == 9
    with pytest.raises(ConfigError, match="There is no"):
        named.load(str(tmp_path))


@pytest.mark.parametrize("change", [("--config.epochs=9",), ("--config.epochs", "9")])
def test_settings_change_those_of_the_run_that_is_named(tmp_path, monkeypatch, change):
    run, other = (write_run(tmp_path / name, optim__lr=lr) for name, lr in (("a", 3.0), ("b", 4.0)))
    new = tmp_path / "new"
    for named_by, lr in (
        (("--workdir", str(run)), 3.0),
        ((f"--workdir={other}", f"--from={run}"), 4.0),  # it is begun, and goes on
        ((f"--workdir={new}", f"--from={run}@best"), 3.0),
        ((f"--workdir={new}", f"--config={other}", f"--from={run}"), 4.0),
    ):
        values = parse(*named_by, *change, monkeypatch=monkeypatch)
        assert (values.config.epochs, values.config.optim.lr) == (9, lr)


def test_no_run_to_take_settings_from(tmp_path, monkeypatch, capsys):
    with pytest.raises(SystemExit):
        parse(f"--workdir={tmp_path}", "--config.epochs=9", monkeypatch=monkeypatch)
    said = capsys.readouterr().err
    assert "--config.epochs needs --config FILE before it, or the --workdir of a run." in said


def test_a_checkpoint_in_a_path(tmp_path):
    assert split_checkpoint("runs/a@best") == (pathlib.Path("runs/a"), "best")
    assert split_checkpoint("a@b@120") == (pathlib.Path("a@b"), 120)
    assert split_checkpoint("me@home/run@x") == (pathlib.Path("me@home/run@x"), None)
    (tmp_path / "a@best").mkdir()
    assert split_checkpoint(tmp_path / "a@best") == (tmp_path / "a@best", None)


def test_what_may_be_extended():
    """Each is a setting, or begins the names of some; the rest is named."""
    names = list(flatten(make_config()))
    assert [prefix for prefix in EXTENDABLE if not any(n.startswith(prefix) for n in names)] == []
    changed = {"epochs": 3, "seed": 4, "loss.anchor": 0.5, "views.flip": 0.1}
    assert unextendable(changed_settings({}, changed)) == [
        "seed: not set, 4",
        "views.flip: not set, 0.1",
    ]


def test_the_refusal_names_the_way_on(tmp_path):
    run = write_run(tmp_path / "run")
    (run / "checkpoints" / "20").mkdir(parents=True)
    with pytest.raises(ConfigError, match=r"by --extend, or name another --workdir\. .* epochs: "):
        check_workdir(run, make_config(epochs=9))
    with pytest.raises(ConfigError, match=r"--from .*run@last"):
        check_workdir(run, make_config(epochs=9, seed=3))
    with pytest.raises(ConfigError, match="leave --config out"):
        check_workdir(run, make_config(epochs=9), reading=True)


def test_of_a_seed_the_refusal_names_what_mode_seeds_takes(tmp_path):
    """It has no --extend: each seed is extended by a command of its own."""
    run = write_run(tmp_path / "seed-0")
    (run / "checkpoints" / "20").mkdir(parents=True)
    with pytest.raises(ConfigError, match=r"by --workdir .*seed-0 --extend .* without --mode"):
        check_workdir(run, make_config(epochs=9), of_seeds=True)
    with pytest.raises(ConfigError, match="name another --workdir") as refused:
        check_workdir(run, make_config(epochs=9, seed=3), of_seeds=True)
    assert "--extend" not in str(refused.value)
    assert "--from" not in str(refused.value)


def test_the_rates_are_said_by_hand():
    """Linear without a warm-up: update n of T uses peak * (1 - 0.99 * (n - 1) / T)."""
    old, new = (Schedule("linear", peak, 5.0, 0, total) for peak, total in ((1.0, 100), (2.0, 200)))
    assert rates_sentence(old, new, 100) == (
        f"Rate at step 100: {1 - 0.99 * 0.98:.2g} (head {5 * (1 - 0.99 * 0.98):.2g}) until now, "
        f"{2 * (1 - 0.99 * 99 / 200):.2g} (head {10 * (1 - 0.99 * 99 / 200):.2g}) from now on, "
        f"{2 * (1 - 0.99 * 198 / 200):.2g} (head {10 * (1 - 0.99 * 198 / 200):.2g}) at step 200."
    )


def test_patience_counts_evaluations_without_a_better_one():
    patience = Patience(2)
    for step, top1, over in ((2, 0.5, False), (4, 0.5, False), (6, 0.6, False), (8, 0.1, False)):
        patience.count(step, top1)
        assert patience.over == over
    again = Patience(2, **json.loads(json.dumps(patience.to_json())))
    again.count(10, 0.6)
    assert (again.over, again.best_step, again.since) == (True, 6, 2)
    assert (
        "the last 2 evaluations were no better than the validation top-1 of 60.00 % at step 6"
        in (again.sentence(40))
    )
    off = Patience(0, since=99)
    assert not off.over


def test_an_early_end_is_an_end(tmp_path):
    run = write_run(tmp_path / "run", last=scores(20, 0.5))
    assert not read_result(run).finished
    facts = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps({**facts, "ended_at": 20}))
    result = read_result(run)
    assert (result.finished, result.ended_early) == (True, True)
    assert "ended early at step 20 of 60" in repr(result)


@pytest.fixture(scope="module")
def leaves(once):
    def make(folder):
        procedural_leaves.write_dataset(
            folder, classes=2, train_per_class=6, test_per_class=2, size=16
        )

    return once("leaves of going on", make)


def small(leaves, **changes):
    more = {"epochs": 4, "optim__lr": 1.0, "checkpoint__keep": 100, **changes}
    return make_config("small", data__root=str(leaves), **more)


@pytest.fixture(scope="module")
def short(leaves, once):
    """Four epochs of three updates, each evaluated; for looking only."""

    def make(folder):
        config = small(leaves, checkpoint__every_steps=1)
        assert train_workdir(config, folder / "run") == 0

    return once("short of going on", make) / "run"


@pytest.fixture
def copy(short, tmp_path):
    return pathlib.Path(shutil.copytree(short, tmp_path / "run"))


def test_more_epochs_are_those_of_a_longer_run(leaves, copy, tmp_path, capsys):
    """At a constant rate an extended run ends with the bits of one that was longer at once."""
    constant = {"optim__end": 1.0}
    config = small(leaves, **constant)
    assert train_workdir(config, tmp_path / "a") == 0
    longer = small(leaves, **constant, epochs=6)
    assert train_workdir(longer, tmp_path / "b") == 0
    capsys.readouterr()
    assert train_workdir(longer, tmp_path / "a", extend=True) == 0
    said = capsys.readouterr().out
    assert "Extended at step 12 (before, now): epochs: 4, 6." in said
    a, b = (dict(named_leaves(read_weights(tmp_path / name).params)) for name in "ab")
    for name, value in a.items():
        np.testing.assert_array_equal(value, b[name], err_msg=name)
    starts = json.loads((tmp_path / "a" / "run.json").read_text())["starts"]
    assert [start.get("changed") for start in starts] == [None, ["epochs: 4, 6"]]
    assert read_result(tmp_path / "a").finished
    assert train_workdir(longer, tmp_path / "a", extend=True) == 0  # of a restart, say
    assert "No setting differs" in capsys.readouterr().out


def test_what_cannot_be_extended(leaves, copy, tmp_path):
    for change, said in (
        ({"seed": 3}, r"these cannot change .* seed: 0, 3\. .*--from"),
        ({"optim__lr": 0.5}, "at step 12, and 4 epochs end at step 12, .* raise epochs above 4"),
    ):
        with pytest.raises(ConfigError, match=said):
            train_workdir(small(leaves, **change), copy, extend=True)
    with pytest.raises(ConfigError, match="nothing to extend; leave --extend out"):
        train_workdir(small(leaves), tmp_path / "new", extend=True)


def test_a_new_run_from_a_step(short, leaves, tmp_path):
    workdir = tmp_path / "new"
    config = begin_from(small(leaves), f"{short}@5", workdir)
    assert config.model.pretrained == f"{short.resolve()}@5"
    run = setup.prepare_run(config, workdir)
    begun = dict(named_leaves(setup.read_pretrained(run).params))
    for name, value in named_leaves(read_weights(short, checkpoint=5).params).items():
        np.testing.assert_array_equal(value, begun[name])  # the head, too: the same classes
    for origin, said in (
        (f"{tmp_path / 'none'}", "there is no"),
        (f"{leaves}@best", "is not a run, so it has no checkpoints"),
    ):
        with pytest.raises(ConfigError, match=said):
            begin_from(small(leaves), origin, workdir)
    with pytest.raises(ConfigError, match="holds a run already, which began from random"):
        begin_from(small(leaves), f"{short}@best", short)


def test_classes_of_the_same_number_are_not_the_same_classes(short, leaves, tmp_path, capsys):
    config = small(leaves, model__pretrained=f"{short}@last")
    run = setup.prepare_run(config, tmp_path / "new")
    there = dict(named_leaves(read_weights(short).params))
    heads = {}
    for kind, names in (("other", ("x", "y")), ("turned", run.dataset.class_names[::-1])):
        dataset = dataclasses.replace(run.dataset, class_names=names)
        params = setup.read_pretrained(dataclasses.replace(run, dataset=dataset)).params
        heads[kind] = dict(named_leaves(params))["head.kernel"]
    assert not heads["other"].any()
    assert sorted(heads["turned"].ravel()) == sorted(there["head.kernel"].ravel())
    assert "taken by name: 2 of 2" in capsys.readouterr().out
    assert not np.array_equal(heads["turned"], there["head.kernel"])


def test_the_scores_of_a_step(copy, leaves, capsys):
    assert evaluate_workdir(small(leaves), copy, checkpoint=6) == 0
    assert "Test, step 6 of 12: " in capsys.readouterr().out
    written = json.loads((copy / "evaluation-step-6.json").read_text())
    metrics = [json.loads(line) for line in (copy / "metrics.jsonl").read_text().splitlines()]
    (then,) = (r for r in metrics if r["step"] == 6 and "test/loss" in r)
    assert written["loss"] == then["test/loss"]
    with pytest.raises(CheckpointError, match=r"no checkpoint of step 99; there are: 1, 2, 3, "):
        evaluate_workdir(small(leaves), copy, checkpoint=99)
    with pytest.raises(CheckpointError, match="no checkpoint of step 99"):
        clevit_jax.load(copy, checkpoint=99)
    assert "step 6" in clevit_jax.load(f"{copy}@6").source


def test_a_run_is_read_on_other_devices(copy, leaves, capsys):
    config = small(leaves, mesh__data=3, mesh__fsdp=7, eval__batch_size=6)
    shutil.copy(copy / "config.json", copy / "own.json")
    run = setup.prepare_run(config, copy, training=False)
    assert dict(run.steps.mesh.shape) == {"data": 4, "fsdp": 1}
    assert run.settings.step.eval_batch_size == 8
    assert "mesh.data=-1 and mesh.fsdp=1 instead of 3 and 7" in capsys.readouterr().out
    with pytest.raises(ConfigError, match="must use all 4 devices"):
        setup.prepare_run(config, copy)


def test_training_ends_early_and_at_the_same_step_when_stopped(leaves, tmp_path, capsys):
    """A rate of 0 gets no better, so the first evaluation stays the best."""
    config = small(leaves, optim__lr=0.0, eval__patience=3, data__val_fraction=0.34, epochs=20,
                   checkpoint__every_steps=5)  # fmt: skip
    with pytest.raises(ConfigError, match=r"no validation images .*--config.data.val_fraction"):
        train_workdir(small(leaves, eval__patience=3), tmp_path / "none")
    assert train_workdir(config, tmp_path / "run") == 0
    result = read_result(tmp_path / "run")
    assert (result.step, result.total, result.ended_early) == (8, 40, True)
    said = capsys.readouterr().out
    assert "Ended early at step 8 of 40: the last 3 evaluations were no better than" in said
    assert "(step 8 of 40, ended early)" in said
    assert train_workdir(config, tmp_path / "run") == 0
    assert "is finished: it is at its last step, 8" in capsys.readouterr().out
    # As killed after step 5, when one evaluation was no better: what came later is not there.
    facts = json.loads((tmp_path / "run" / "run.json").read_text())
    for name in ("ended_at", "ended_because"):
        del facts[name]
    (tmp_path / "run" / "run.json").write_text(json.dumps(facts))
    (tmp_path / "run" / "evaluation.json").unlink()
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "8")
    assert train_workdir(config, tmp_path / "run") == 0
    again = read_result(tmp_path / "run")
    assert (again.step, again.ended_early) == (8, True)
    longer = small(leaves, optim__lr=0.0, data__val_fraction=0.34, epochs=5)
    assert train_workdir(longer, tmp_path / "run", extend=True) == 0
    assert (read_result(tmp_path / "run").step, read_result(tmp_path / "run").ended_early) == (
        10, False,
    )  # fmt: skip


def test_without_its_images_a_run_still_says_what_it_recorded(tmp_path, capsys):
    gone = tmp_path / "gone"
    run = write_run(tmp_path / "run", records=[record(20, 0.5)], data__root=str(gone))
    facts = json.loads((run / "run.json").read_text())
    more = {"class_names": ["a<b", "c"], "images": {"train": 8, "test": 4}, "ended_because": "Why."}
    (run / "run.json").write_text(json.dumps({**facts, **more}))
    trained = TrainedModel(run, None, load_config(run), True)
    page = write_report(trained).read_text()
    said = capsys.readouterr().err
    for part in ("The images are not there", str(gone), "--config.data.root=DIR"):
        assert part in page
        assert part in said
    for part in (
        "50.00 %",
        "Test, during training (step 20)",
        "Why.",
        "8 train, 4 test",
        "<h3>optim",
    ):
        assert part in page
    assert "data-matrix" not in page.partition("<script")[0]
    with pytest.raises(ConfigError, match=r"(?s)gone.*or other images with --input PATH"):
        write_features(trained, tmp_path / "f.npz")
    (run / "run.json").unlink()
    with pytest.raises((ConfigError, DataError), match="gone"):
        write_report(trained)
