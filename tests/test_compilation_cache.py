"""What is compiled is kept for the next process, and nothing that is wrong with it ends a run."""

import json
import os
import pathlib
import stat
import subprocess
import sys
import types

import jax
import pytest
import tiny

from clevit_jax import flags, modes
from clevit_jax.performance import preflight, throughput
from clevit_jax.system import compilation_cache

# A process that compiles one function and says where JAX keeps it and whether it was there.
CHILD = """
import collections, json, os, sys
import jax
from clevit_jax.system import compilation_cache
compilation_cache.enable(sys.argv[1], alone=sys.argv[2] == "alone")
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
seen = collections.Counter()
jax.monitoring.register_event_listener(lambda name, **_: seen.update([name.rsplit("/")[-1]]))
value = float(jax.jit(lambda x: x * 3 + 1)(2.0))
told = os.environ.get("JAX_COMPILATION_CACHE_DIR")
print(json.dumps([value, jax.config.jax_compilation_cache_dir, told, seen["cache_hits"]]))
"""


@pytest.fixture
def child(tmp_path):
    """`child(folder, alone, **environ)` -> JAX's folder, that of children, hits, stderr."""

    def run(folder="auto", alone="alone", **environ):
        names = ("JAX_ENABLE_COMPILATION_CACHE", "JAX_COMPILATION_CACHE_DIR")
        kept = {name: text for name, text in os.environ.items() if name not in names}
        home = {"HOME": str(tmp_path / "home"), "XDG_CACHE_HOME": str(tmp_path / "cache")}
        done = subprocess.run(
            [sys.executable, "-c", CHILD, folder, alone],
            capture_output=True, text=True, env={**kept, **home, **environ},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        value, *facts = json.loads(done.stdout)
        assert value == 7
        return *facts, done.stderr

    return run


def entries(folder):
    return sorted(path.name for path in pathlib.Path(folder).rglob("*-cache"))


def test_the_next_process_finds_what_was_compiled(child, tmp_path):
    used, told, hits, err = child()
    assert used == told == str(next((tmp_path / "cache" / "clevit_jax" / "compiled").iterdir()))
    assert (hits, err) == (0, "")
    assert stat.S_IMODE(os.stat(used).st_mode) == 0o700  # who may write there may run code
    kept = entries(used)
    assert kept
    *_, hits, err = child()
    assert hits == len(kept)
    assert err == ""
    assert entries(tmp_path) == kept


def test_without_a_setting_it_is_in_the_home_folder(child, tmp_path):
    used, *_ = child(XDG_CACHE_HOME="")
    assert pathlib.Path(used).parent == tmp_path / "home" / ".cache" / "clevit_jax" / "compiled"


@pytest.mark.parametrize(
    ("folder", "environ"),
    [("", {}), ("auto", {"JAX_ENABLE_COMPILATION_CACHE": "0"}), ("auto", {"alone": "several"})],
    ids=["by the flag", "by JAX's switch", "one of several processes"],
)
def test_it_is_off(child, tmp_path, folder, environ):
    assert child(folder, **environ)[2:] == (0, "")
    assert entries(tmp_path) == []
    assert not (tmp_path / "cache").exists()


def test_another_folder(child, tmp_path):
    """That of JAX's own variable, before which goes the flag."""
    mine, other = tmp_path / "mine", tmp_path / "other"
    assert child(JAX_COMPILATION_CACHE_DIR=str(mine))[0] == str(mine)
    assert entries(mine) == entries(tmp_path) != []
    used = child(str(other), "several", JAX_COMPILATION_CACHE_DIR=str(mine))[:2]
    assert used == (str(other), str(other))
    assert entries(other)


@pytest.mark.parametrize("folder", ["auto", "taken/mine"])
def test_a_folder_that_cannot_be_written_costs_a_line(child, tmp_path, folder):
    (tmp_path / "taken").write_text("")
    folder = folder if folder == "auto" else str(tmp_path / folder)
    used, told, _, err = child(folder, XDG_CACHE_HOME=str(tmp_path / "taken"))
    assert (used, told) == (None, None)
    assert err.startswith("Warning: the next run will compile everything again, because ")
    assert str(tmp_path / "taken") in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(("before", "after"), [(1.0, 0.1), (5.0, 5.0)])
def test_small_programs_are_kept_unless_the_user_says_otherwise(
    monkeypatch, tmp_path, before, after
):
    names = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")
    kept = {name: jax.config.values[name] for name in names}
    for name in names:
        monkeypatch.setenv(name.upper(), "")  # restored after the test
        monkeypatch.delenv(name.upper())
    try:
        jax.config.update(names[1], before)
        compilation_cache.enable(str(tmp_path))
        assert jax.config.values[names[1]] == after
        assert compilation_cache.child_environment()[names[1].upper()] == str(after)
    finally:
        for name, value in kept.items():
            jax.config.update(name, value)


def test_no_home(monkeypatch, capsys):
    monkeypatch.setattr(pathlib.Path, "home", lambda: (_ for _ in ()).throw(RuntimeError("none")))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    folder = jax.config.jax_compilation_cache_dir
    jax.config.update("jax_compilation_cache_dir", None)
    try:
        compilation_cache.enable("auto")
    finally:
        jax.config.update("jax_compilation_cache_dir", folder)
    assert "because no home folder is known." in capsys.readouterr().err


def test_an_entry_that_is_torn_is_compiled_again(child):
    used, *_ = child()
    for name in entries(used):
        path = pathlib.Path(used, name)
        path.write_bytes(path.read_bytes()[:-20])
    *_, hits, err = child()
    assert hits == 0
    assert "Error reading persistent compilation cache entry" in err


def test_a_folder_belongs_to_a_kind_of_processor(monkeypatch):
    here = compilation_cache.users_folder()
    assert compilation_cache.users_folder() == here
    cpuinfo = "model name : another\nflags : fpu\ncpu MHz : 1\n"
    monkeypatch.setattr(pathlib.Path, "read_text", lambda *_, **__: cpuinfo)
    there = compilation_cache.users_folder()
    assert there != here
    assert there.parent == here.parent
    cpuinfo = cpuinfo.replace("MHz : 1", "MHz : 2")  # which changes with the load
    assert compilation_cache.users_folder() == there


def test_what_was_used_longest_ago_goes_first(tmp_path):
    (tmp_path / "autotuning").mkdir()
    for age, name in enumerate(["d", "c", "autotuning/b", "a"]):
        (tmp_path / name).write_bytes(bytes(10))
        os.utime(tmp_path / name, (1e9 - age, 1e8))
    compilation_cache.prune(tmp_path, 40)
    assert len([path for path in tmp_path.rglob("*") if path.is_file()]) == 4
    compilation_cache.prune(tmp_path, 29)
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_file()) == ["c", "d"]
    compilation_cache.prune(tmp_path / "none", 0)


def flags_of(mode, **given):
    """As absl has them after `main --mode MODE --config FILE --workdir DIR`."""
    names = [flag.name for flag in flags.FLAGS]
    values = {name: types.SimpleNamespace(present=False, value=None) for name in names}
    facts = {"mode": mode, "workdir": "none", "config": tiny.get_config(), "compilation_cache": "x"}

    class Flags:
        __getitem__ = staticmethod(values.__getitem__)
        __getattr__ = staticmethod(lambda name: {**facts, **given}.get(name))

    return Flags()


@pytest.mark.parametrize("mode", [mode for mode in flags.MODES if mode != "compare"])
def test_every_mode_turns_it_on(monkeypatch, mode):
    """But those that say how long compiling takes, unless a folder is named."""
    asked = []

    def enable(folder, *, alone=True):
        asked.append((folder, alone))
        raise InterruptedError

    monkeypatch.setattr(compilation_cache, "enable", enable)
    with pytest.raises(InterruptedError):
        modes.run(flags_of(mode, compilation_cache="mine"), [])
    assert asked == [("mine", True)]
    for module in (preflight, throughput):
        monkeypatch.setattr(module, mode, enable, raising=False)
    with pytest.raises((InterruptedError, TypeError)):
        modes.run(flags_of(mode, compilation_cache="auto"), [])
    assert asked[1:] == ([] if mode in ("preflight", "throughput") else [("auto", True)])
