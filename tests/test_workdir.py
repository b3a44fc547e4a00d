"""The folder of a run belongs to one config, and its files are whole."""

import json
import os
import pathlib

import pytest

from clevit_jax.config import changed_settings, flatten
from clevit_jax.errors import ConfigError
from clevit_jax.runs.workdir import (
    PACKAGES,
    check_workdir,
    claim_workdir,
    describe_environment,
    load_config,
)
from clevit_jax.system.files import read_json, write_json
from configs import base

FREE = {
    "data.root", "data.copy_to", "data.cache_bytes", "data.threads", "checkpoint.every_minutes",
    "checkpoint.every_steps", "checkpoint.keep", "checkpoint.keep_every",
    "checkpoint.timeout_minutes", "log.every_steps", "log.mlflow", "log.report",
    "log.wandb", "mesh.data", "mesh.fsdp", "model.kernels", "model.scan",
}  # fmt: skip


def make_config(**changes):
    config = base.get_config()
    config.update_from_flattened_dict({k.replace("__", "."): v for k, v in changes.items()})
    return config


@pytest.fixture
def begun(tmp_path):
    """A folder where the base config has begun to train."""
    claim_workdir(tmp_path / "run", make_config())
    (tmp_path / "run" / "checkpoints" / "20").mkdir(parents=True)
    return tmp_path / "run"


def test_a_config_comes_back_as_it_was(begun):
    """Tuples, empty tuples, floats and whole numbers included."""
    loaded = load_config(begun)
    assert flatten(loaded) == flatten(make_config())
    types = {name: type(value) for name, value in flatten(make_config()).items()}
    assert {name: type(value) for name, value in flatten(loaded).items()} == types
    assert loaded.is_locked


def test_the_same_config_may_go_on(begun):
    check_workdir(begun, make_config())


@pytest.mark.parametrize(
    "change",
    [
        {"data__root": "elsewhere"}, {"data__threads": 3}, {"data__cache_bytes": 1},
        {"checkpoint__keep": 9}, {"checkpoint__every_minutes": 1.0}, {"log__every_steps": 1},
        {"log__report": False},
        {"mesh__fsdp": 2},
    ],
)  # fmt: skip
def test_what_does_not_change_the_numbers_may_differ(begun, change):
    check_workdir(begun, make_config(**change))


def test_what_does_may_not(begun):
    """Every other setting, one at a time, with both values."""
    for name, value in flatten(make_config()).items():
        if name in FREE:
            continue
        others = {str: "x", int: 3456, float: 0.123, tuple: (1.5, 2.5), bool: not value}
        other = others[type(value)]
        with pytest.raises(ConfigError) as error:
            check_workdir(begun, make_config(**{name: other}))
        before = value or repr(value)
        assert str(error.value).endswith(f"(there, here): {name}: {before}, {other}.")
        assert str(begun) in str(error.value)


def test_a_setting_that_one_of_the_two_does_not_have():
    assert changed_settings({"a": 1, "b": 2}, {"b": 2, "c": 3}) == [
        "a: 1, not set",
        "c: not set, 3",
    ]
    assert changed_settings({"data.root": "x"}, {"mesh.data": 1}) == []


def test_the_root_of_the_data_is_kept_in_full(tmp_path, monkeypatch):
    """So that the run finds its images from any folder; that of TFDS's default stays empty."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DATA", "/data")
    for typed, kept in (("x/../photos", f"{tmp_path}/photos"), ("$DATA/a", "/data/a"), ("", "")):
        config = make_config(data__root=typed)
        claim_workdir(tmp_path / "run", config)
        assert load_config(tmp_path / "run").data.root == kept
        assert config.data.root == typed  # that of the caller


def test_paths_are_compared_by_where_they_lead(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("UNSET", raising=False)

    def changed(before, now):
        name = "model.pretrained"
        return changed_settings({name: before}, {name: now})

    for now in ("w.pth", "~/w.pth", "$HOME/w.pth", f"{tmp_path}/w.pth", "./w.pth"):
        assert changed("w.pth", now) == []
    assert changed("gone/$UNSET", "gone/$UNSET") == []
    for now in ("", "v.pth", "$UNSET/w.pth", "/w.pth"):
        assert len(changed("w.pth", now)) == 1
    assert len(changed_settings({"data.layout": "a"}, {"data.layout": "./a"})) == 1


def test_a_folder_that_has_not_begun_is_free(tmp_path):
    check_workdir(tmp_path / "new", make_config())
    claim_workdir(tmp_path, make_config())
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "metrics.jsonl").touch()
    check_workdir(tmp_path, make_config(seed=1))  # claimed, but no update was ever recorded


@pytest.mark.parametrize("name", ["checkpoints/20/state", "metrics.jsonl"])
def test_results_without_a_config_are_somebody_elses(tmp_path, name):
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).write_text("something")
    with pytest.raises(ConfigError, match=r"holds results but no config.json; name another --work"):
        check_workdir(tmp_path, make_config())


def test_a_config_that_is_damaged_or_missing(begun):
    (begun / "config.json").write_text('{"seed": 0')
    with pytest.raises(ConfigError, match=r"config.json is not JSON"):
        check_workdir(begun, make_config())
    (begun / "config.json").unlink()
    with pytest.raises(ConfigError, match=r"holds no run .* start one with --config FILE"):
        load_config(begun)
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        read_json(begun / "config.json")


def test_json_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "a.json"
    write_json(path, {"a": 1})
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError("killed")))
        with pytest.raises(OSError, match="killed"):
            write_json(path, {"a": [2] * 10})
    assert read_json(path) == {"a": 1}


def test_a_folder_that_cannot_be_written(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(ConfigError, match=r"--workdir .* cannot be written: "):
            claim_workdir(folder, make_config())

    def refuse(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(pathlib.Path, "write_text", refuse)
    with pytest.raises(ConfigError, match="cannot be written: Permission denied"):
        claim_workdir(tmp_path / "read-only", make_config())


def test_what_run_json_says_of_the_machine():
    facts = describe_environment()
    assert facts["versions"]["jax"]
    assert set(facts["versions"]) == set(PACKAGES)
    assert facts["devices"] == ["cpu", 4]
    assert facts["processes"] == 1
    json.dumps(facts)


@pytest.mark.parametrize(
    ("text", "said"),
    [("[]", "is not a JSON object"), ("3", "is not a JSON object"), ("{}", "holds no settings")],
)
def test_a_config_of_another_program_is_named(tmp_path, text, said):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_config(tmp_path)
    assert str(caught.value).startswith(f"{tmp_path / 'config.json'} {said}")
