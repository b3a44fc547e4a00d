"""A profile of some updates: which are in it, that they are whole, and that nothing changes."""

import json
import pathlib

import jax
import pytest
import tiny

from clevit_jax.data import procedural_leaves
from clevit_jax.errors import ConfigError
from clevit_jax.runs import profile
from clevit_jax.runs.profile import Profile, check_updates, read_steps
from clevit_jax.system.own_files import own_names
from clevit_jax.train import train_workdir

TOTAL = 9  # 3 epochs of 12 images in batches of 4


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    root = tmp_path_factory.mktemp("data") / "leaves"
    procedural_leaves.write_dataset(root, classes=4, train_per_class=3, test_per_class=2, size=16)
    made = tiny.small()
    made.data.root = str(root)
    made.epochs = 3
    made.log.every_steps = 1
    return made


def updates_in(folder: pathlib.Path) -> list[int]:
    """The updates that the traces below a folder are of, as xprof finds them."""
    found = []
    for path in sorted(folder.rglob("*.xplane.pb")):
        data = jax.profiler.ProfileData.from_file(str(path))
        events = (e for plane in data.planes for line in plane.lines for e in line.events)
        found += [dict(event.stats)["step_num"] for event in events if event.name == "update"]
    return found


def losses(workdir: pathlib.Path) -> list[float]:
    lines = map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines())
    return [line["train/loss"] for line in lines if "train/loss" in line]


def test_a_profile_of_a_run(config, tmp_path, capsys):
    """Of updates 3 and 4, and of none that was to come later; the numbers stay."""
    plain, run = tmp_path / "plain", tmp_path / "run"
    assert train_workdir(config, plain) == 0
    assert not (plain / "profile").exists()
    capsys.readouterr()
    assert train_workdir(config, run, profiled=range(3, 5)) == 0
    out = capsys.readouterr().out
    assert f"Updates 3 to 4 profiled: {run / 'profile'}. To look at it: pip install xprof" in out
    assert f"xprof --logdir {run / 'profile'}; or open its .trace.json.gz at" in out
    assert updates_in(run / "profile") == [3, 4]
    # Where TensorBoard's plugin looks for it.
    assert len(list((run / "profile" / "plugins" / "profile").glob("*/*.trace.json.gz"))) == 1
    assert losses(run) == losses(plain)
    assert len(losses(run)) == TOTAL
    assert "profile" in own_names(run, {path.name for path in run.iterdir()}, lambda _: False)


@pytest.fixture
def traced(monkeypatch):
    """What is done to the profiler, and which arrays are waited for."""
    done = []
    monkeypatch.setattr(jax.profiler, "start_trace", lambda folder: done.append("start"))
    monkeypatch.setattr(jax.profiler, "stop_trace", lambda: done.append("stop"))
    monkeypatch.setattr(jax, "block_until_ready", lambda state: done.append(f"wait {state}"))
    return done


def go(workdir, updates, *, first=1, last=9, total=9, traced=()):
    """What is said when updates `first` to `last` are made, of a run of `total`."""
    said: list[str] = []
    made = Profile(workdir, updates, first=first, total=total, say=said.append)
    for update in range(first, last + 1):
        made.before(update, update - 1)
        made.after(update, update)
    made.close(last)
    made.close(last)
    return said


def test_the_device_is_waited_for_at_both_ends(tmp_path, traced):
    said = go(tmp_path, range(3, 6))
    assert traced == ["wait 2", "start", "wait 5", "stop"]
    assert len(said) == 1
    assert said[0].startswith("Updates 3 to 5 profiled: ")


def test_a_start_that_begins_or_ends_within(tmp_path, traced, capsys):
    assert go(tmp_path, range(3, 6), first=5)[0].startswith("Update 5 profiled: ")
    assert go(tmp_path, range(8, 20))[0].startswith("Updates 8 to 9 profiled: ")
    assert traced == ["wait 4", "start", "wait 5", "stop", "wait 7", "start", "wait 9", "stop"]
    assert go(tmp_path, range(3, 6), last=3)[0].startswith("Update 3 profiled: ")  # a signal came
    assert traced[8:] == ["wait 2", "start", "stop"]
    del traced[:]
    passed = "Updates 3 to 5 passed before this start, which goes on with update 7: no profile."
    assert go(tmp_path, range(3, 6), first=7) == [passed]
    assert capsys.readouterr().out == ""
    assert go(tmp_path, range(6, 9), last=4) == []
    assert capsys.readouterr().out == "The run ended before update 6: no profile.\n"
    assert go(tmp_path, range(0)) == []
    assert traced == []


def test_other_processes_trace_nothing(tmp_path, traced, monkeypatch):
    monkeypatch.setattr(profile.processes, "index", lambda: 1)
    assert go(tmp_path, range(3, 6)) == go(tmp_path, range(3, 6), first=7) == traced == []


def test_a_profile_that_fails_ends_nothing(tmp_path, traced, monkeypatch, caplog):
    def fail(*_):
        raise RuntimeError("Profile has already been started.\nmore")

    monkeypatch.setattr(jax.profiler, "start_trace", fail)
    assert go(tmp_path, range(3, 6)) == []
    assert "No profile could be made: Profile has already been started. Training" in caplog.text
    assert traced == ["wait 2"]


def test_a_full_disk_costs_the_profile_alone(tmp_path, traced, monkeypatch, caplog):
    def full(source, target):
        raise OSError(28, "No space left on device", str(target))

    monkeypatch.setattr(profile, "_copy", full)
    assert go(tmp_path, range(3, 6)) == []
    assert "No space left on device" in caplog.text
    assert traced == ["wait 2", "start", "wait 5", "stop"]


def test_read_steps():
    assert list(read_steps("10:13")) == [10, 11, 12]
    for text in ("", "10", "10:", ":13", "13:10", "3:3", "0:3", "-1:3", "a:b", "1:2:3", " 1:2",
                 "1.0:2", "\N{ARABIC-INDIC DIGIT ONE}:9", "1:1" + 99 * "0"):  # fmt: skip
        with pytest.raises(
            ConfigError, match=r"^--profile_steps is .*, such as 10:13 for"
        ) as error:
            read_steps(text)
        assert repr(text) in str(error.value)


def test_what_there_can_be_no_profile_of(tmp_path):
    check_updates(range(9, 20), tmp_path, 9)
    with pytest.raises(ConfigError, match=r"10:13 begins after the last .*, 9, .*_steps=9:10\."):
        check_updates(range(10, 13), tmp_path, 9)
    with pytest.raises(ConfigError, match=r"such as --profile_steps=10:13\."):
        check_updates(range(5000, 5003), tmp_path, 4800)


def test_a_class_that_is_called_profile(tmp_path):
    """In the folder of images that is also the workdir: not written into, and still a class."""
    (tmp_path / "profile").mkdir()
    (tmp_path / "profile" / "1.png").touch()
    with pytest.raises(ConfigError, match=r"profile is there and holds no profile"):
        check_updates(range(1, 3), tmp_path, 9)
    (tmp_path / "config.json").write_text('{"data": {}, "model": {}}')
    (tmp_path / "run.json").touch()
    names = {path.name for path in tmp_path.iterdir()}
    assert own_names(tmp_path, names, lambda _: False) == {"config.json", "run.json"}


def test_a_profile_in_a_bucket(bucket, tmp_path):
    """Its bytes are put there, and another one beside it later."""
    folder = tmp_path / "plugins" / "profile" / "2026_11_30"
    folder.mkdir(parents=True)
    (folder / "host.xplane.pb").write_bytes(b"\x00\xff")
    profile._copy(tmp_path, bucket / "profile")
    there = bucket / "profile" / "plugins" / "profile" / "2026_11_30" / "host.xplane.pb"
    assert there.read_bytes() == b"\x00\xff"
    check_updates(range(1, 3), bucket, 9)
