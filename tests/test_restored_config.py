"""Configs as other versions wrote them, and as damage left them: restored, or named."""

import json

import pytest

from clevit_jax.config import DEFAULTS_OF_OLDER_RUNS, check_config, flatten, restore_config
from clevit_jax.errors import ConfigError
from clevit_jax.runs.workdir import check_workdir, load_config
from configs import base

BASE = flatten(base.get_config())
GROUPS = ("data", "data.leaves", "model", "views", "loss", "optim", "eval", "checkpoint", "log",
          "mesh")  # fmt: skip


def without(name):
    settings = json.loads(base.get_config().to_json())
    *groups, leaf = name.split(".")
    owner = settings
    for group in groups:
        owner = owner[group]
    del owner[leaf]
    return settings


def write(folder, content):
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(
        content if isinstance(content, str) else json.dumps(content)
    )
    return folder


@pytest.mark.parametrize("name", [*BASE, *GROUPS])
def test_what_an_older_run_lacks_is_filled_in(name):
    flat = flatten(restore_config(without(name)))
    assert list(flat) == list(BASE)
    for known, default in BASE.items():
        lacking = known == name or known.startswith(f"{name}.")
        assert flat[known] == (DEFAULTS_OF_OLDER_RUNS.get(known, default) if lacking else default)
    check_config(restore_config(without(name)), "cpu")


def test_defaults_of_older_runs_are_settings():
    assert DEFAULTS_OF_OLDER_RUNS.keys() <= BASE.keys()


def test_a_whole_number_is_a_float_where_base_has_one():
    settings = json.loads(base.get_config().to_json())
    settings["optim"]["clip_norm"] = 5
    assert isinstance(restore_config(settings).optim.clip_norm, float)


def test_a_newer_run_is_refused_by_that_word(tmp_path):
    settings = json.loads(base.get_config().to_json())
    settings["optim"]["lookahead"] = 5
    write(tmp_path, settings)
    says = r"newer version of clevit_jax \(unknown settings: optim\.lookahead\); pip install --upg"
    with pytest.raises(ConfigError, match=says):
        load_config(tmp_path)
    (tmp_path / "run.json").write_text(
        json.dumps({"starts": [{"versions": {"clevit_jax": "99.1"}}]})
    )
    (tmp_path / "checkpoints" / "3").mkdir(parents=True)
    for call in (lambda: load_config(tmp_path), lambda: check_workdir(tmp_path, base.get_config())):
        with pytest.raises(ConfigError, match=r"\(99\.1 there, .* here; unknown settings: optim"):
            call()


@pytest.mark.parametrize(("version", "newer"), [("99.1", True), ("0.0.1", False), (None, False)])
def test_a_word_of_a_newer_version_is_told_of_by_that_word(tmp_path, version, newer):
    settings = json.loads(base.get_config().to_json())
    settings["optim"]["name"] = "lion"
    write(tmp_path, settings)
    starts = [{"versions": {"clevit_jax": version}}] if version else []
    (tmp_path / "run.json").write_text(json.dumps({"starts": starts}))
    says = r"newer version .*\(99\.1 there, .* here; optim.name is 'lion'; choose .*\); pip install"
    with pytest.raises(ConfigError, match=says if newer else "config.json: optim.name is 'lion'"):
        load_config(tmp_path)


def test_a_run_answers_whatever_it_was_trained_with(tmp_path):
    """An older version took these; the weights are as good as they are."""
    settings = json.loads(base.get_config().to_json())
    settings["optim"] |= {"b1": 1.5, "end": 3.0}
    settings["checkpoint"]["every_minutes"] = float("inf")
    assert load_config(write(tmp_path, settings)).optim.b1 == 1.5


@pytest.mark.parametrize(
    ("group", "name", "value", "says"),
    [
        ("optim", "lr", "fast", "config.json: optim.lr is 'fast'; it must be a number"),
        ("optim", "lr", {"a": 1}, "config.json: optim.lr is a group of settings"),
        ("optim", "b1", None, "config.json: optim.b1 is None"),
        (None, "optim", 3, "config.json: optim is 3; it must be a group of settings."),
        (None, "data", 3, "config.json holds no settings"),
        (None, "epochs", 1.5, "config.json: epochs is 1.5; it must be a whole number"),
        ("model", "depths", [1, "a"], "config.json: model.depths is"),
        ("model", "window", -3, "config.json: model.window is -3; it must be at least 2"),
        ("model", "num_heads", [3, 3, 3, 3], "config.json: model.num_heads[0] is 3; it must"),
        ("model", "depths", [2], "config.json: model.depths is (2,) and model.num_heads"),
        ("model", "variant", "huge", "config.json: model.variant is 'huge'; choose one of tiny"),
        ("model", "dtype", "half", "config.json: model.dtype is 'half'; choose one of auto"),
        ("optim", "name", "lion", "config.json: optim.name is 'lion'; choose one of adamw, sgd."),
        ("eval", "resize", 0, "config.json: eval.resize is 0; it must be at least 1"),
        ("eval", "batch_size", -1, "config.json: eval.batch_size is -1"),
        (None, "image_size", 450, "config.json: image_size 450 does not fit model.window 7"),
    ],
)
def test_a_value_that_cannot_be_is_named(tmp_path, group, name, value, says):
    settings = json.loads(base.get_config().to_json())
    (settings[group] if group else settings)[name] = value
    with pytest.raises(ConfigError) as error:
        load_config(write(tmp_path, settings))
    assert says in str(error.value)


@pytest.mark.parametrize("damaged", ["", "{", "[]", "{}", '{"a.b": 1}', '{"optim": 3}', "\udcff"])
def test_a_damaged_config_is_taken_from_the_newest_checkpoint(tmp_path, damaged, capsys):
    (tmp_path / "config.json").write_bytes(damaged.encode(errors="surrogateescape"))
    for step in (3, 9, 12):
        (tmp_path / "checkpoints" / str(step) / "meta").mkdir(parents=True)
        config = base.get_config()
        config.epochs = 100 + step
        meta = json.dumps({"config": config.to_dict()}) if step < 12 else "{"
        (tmp_path / "checkpoints" / str(step) / "meta" / "metadata").write_text(meta)
    assert load_config(tmp_path).epochs == 109
    load_config(tmp_path)
    printed = capsys.readouterr().err
    assert printed.count("The copy in checkpoint 9 is taken.") == 1
    assert str(tmp_path / "config.json") in printed
