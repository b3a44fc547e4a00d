"""Children that train a seed each. Most are played by a script that only does as told."""

import fcntl
import importlib
import io
import json
import os
import signal
import sys
import time
import types

import jax
import pytest
from ml_collections import ConfigDict

from clevit_jax.errors import CheckpointError, ConfigError, DataError, TrainingError
from clevit_jax.sweeps import parallel

training = importlib.import_module("clevit_jax.train")  # `clevit_jax.train` is the function

PLAYER = """#!{python} -IS
import json, os, pathlib, signal, sys, time

signal.alarm(5400)  # an end, whatever the parent does; see waiting.LIMIT

def wait_for(name):
    while not (folder.parent / name).exists():
        time.sleep(0.005)

def tell(name):
    (folder.parent / name).write_text("")

def note(text):
    with (folder.parent / "events").open("a") as file:
        file.write(text + "\\n")

order = json.loads(sys.stdin.buffer.readline())
folder, share = pathlib.Path(order["folder"]), os.environ.get("SHARE", "")
exec(order["config"]["part"])
"""


@pytest.fixture
def players(tmp_path, monkeypatch):
    """`players(*parts)` -> configs, folders of seeds 0, 1, ...; their code runs as children."""
    script = tmp_path / "player"
    script.write_text(PLAYER.format(python=sys.executable))
    script.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(script))

    def make(*parts):
        configs = {seed: ConfigDict({"part": part}) for seed, part in enumerate(parts)}
        return configs, {seed: tmp_path / "work" / f"seed-{seed}" for seed in configs}

    return make


def play(made, shares=2):
    """Plays all; returns which finished, in this order, and the failures."""
    finished: list[int] = []
    variables = [{"SHARE": str(k)} for k in range(shares)]
    failed = parallel.train_in_children(*made, variables, finished.append)
    return finished, {seed: str(error) for seed, error in failed.items()}


def events(made):
    path = made[1][0].parent / "events"
    return path.read_text().split() if path.exists() else []


def test_as_many_at_a_time_as_there_are_shares(players, capsys):
    """0 and 1 wait for each other, as do 2 and 3; a share is free before it is given again."""
    part = "note(f'+{share}'); tell('%d'); wait_for('%d'); note(f'-{share}')"
    made = players(*(part % pair for pair in ((0, 1), (1, 0), (2, 3), (3, 2))))
    finished, failed = play(made)
    assert (sorted(finished), failed) == ([0, 1, 2, 3], {})
    running: list[str] = []
    for sign, share in events(made):
        if sign == "+":
            assert share not in running
            running.append(share)
        else:
            running.remove(share)
    assert sorted(events(made)) == ["+0", "+0", "+1", "+1", "-0", "-0", "-1", "-1"]
    out = capsys.readouterr().out
    assert all(f"Seed {seed} started, process " in out for seed in range(4))
    assert str(made[1][3] / "log.txt") in out


def test_a_child_is_told_all_and_signals_leave_it_to_the_parent(players, monkeypatch):
    """Ctrl-C goes to all processes of a terminal's group, so a child has one of its own."""
    monkeypatch.setattr(sys, "argv", ["main", "--seeds=1"])
    monkeypatch.setenv("KEPT", "kept")
    code = "print(json.dumps([order, os.environ['KEPT'], os.getpgid(0) == os.getpid()]))"
    configs, folders = players(code)
    configs[0].depths = (1, 2)
    assert play((configs, folders)) == ([0], {})
    order, kept, alone = json.loads((folders[0] / "log.txt").read_text())
    assert order["config"] == {"part": code, "depths": [1, 2]}
    assert (order["folder"], order["command"]) == (str(folders[0]), ["main", "--seeds=1"])
    assert kept == "kept"
    assert alone


@pytest.mark.parametrize("folder", ["/told", None])
def test_a_child_keeps_to_the_compilation_cache(players, monkeypatch, folder):
    """Also where it was told to JAX alone, and not by the environment."""
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "/another")
    settings = {
        "jax_compilation_cache_dir": folder,
        "jax_enable_compilation_cache": True,
        "jax_persistent_cache_min_compile_time_secs": 0.5,
    }
    before = {name: jax.config.values[name] for name in settings}
    made = players("print(json.dumps(dict(os.environ)))")
    try:
        for name, value in settings.items():
            jax.config.update(name, value)
        assert play(made) == ([0], {})
    finally:
        for name, value in before.items():
            jax.config.update(name, value)
    environ = json.loads((made[1][0] / "log.txt").read_text())
    assert environ["JAX_COMPILATION_CACHE_DIR"] == (folder or "")
    assert environ["JAX_ENABLE_COMPILATION_CACHE"] == "True"
    assert environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] == "0.5"


def test_one_at_a_time_is_repeated(players, capsys):
    """What it prints, without what an earlier process printed and without a bar."""
    bar = "sys.stderr.write('\\r 50 %'); sys.stderr.flush()"
    made = players(
        f"{bar}; print('\\r      \\rEpoch 1', flush=True); {bar}; print('\\rübrig', end='')", ""
    )
    made[1][0].mkdir(parents=True)
    (made[1][0] / "log.txt").write_text("Long ago.\n")
    assert play(made, shares=1) == ([0, 1], {})
    first, *lines = capsys.readouterr().out.splitlines()
    assert first.startswith("Seed 0 started, process ")
    assert lines[:2] == ["Epoch 1", "übrig"]
    assert lines[2].startswith("Seed 1 started")
    assert len(lines) == 3
    play(made, shares=2)
    assert "Epoch 1" not in capsys.readouterr().out  # of several the lines would be mixed


def test_what_a_terminal_shows(tmp_path, monkeypatch, capsys):
    """The newest bar, cut to the width, below the lines; it is wiped out before the next line."""
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", "8")
    log = tmp_path / "log.txt"
    log.write_bytes(b"old")
    echo = parallel._Echo(log, 3)

    def shown(text, **more):
        with log.open("ab") as file:
            file.write(text)
        echo.repeat(**more)
        return capsys.readouterr().out

    gone = "\r       \r"
    assert shown(b"One\n") == "One\n"
    assert shown(b"\r 10 %|\xe2") == " 10 %|\ufffd"[:6]  # half a character is not shown yet
    assert shown(b"\x96\x88| 123456\r 20 %") == f"{gone} 20 %"
    assert shown(b"") == ""
    assert shown(b"\r     \rTwo\n\r 30 %") == f"{gone}Two\n 30 %"
    assert shown(b"\r 40 %| 1234567\r   ") == f"{gone} 40 %| "
    echo.wipe()
    assert capsys.readouterr().out == gone
    assert shown(b"") == " 40 %| "
    assert shown(b"\r100 %", last=True) == f"{gone}100 %\n"


def test_a_system_without_locks(players, monkeypatch):
    """One at a time is trained there, and nothing keeps a second process out."""
    monkeypatch.setattr(parallel, "fcntl", None)
    made = players("note('trained')", "note('trained')")
    made[1][0].mkdir(parents=True)
    with (made[1][0] / "log.txt").open("ab") as log:
        fcntl.flock(log, fcntl.LOCK_EX)
        parallel.check_idle(made[1][0])
        assert play(made, shares=1) == ([0, 1], {})
    with pytest.raises(ConfigError, match=r"^--parallel needs file locks .*; leave it out, and"):
        parallel.check_locks()


SAYS = "print({!r}, file=sys.stderr); sys.exit({})"
ENDS = {
    "diverged": (SAYS.format("error: Too steep.", 3), "Too steep."),
    "stalled": (SAYS.format("error: The disk hangs.", 77), "The disk hangs."),
    "refused": (SAYS.format("error: No such file.", 2), "No such file."),
    "two lines": (SAYS.format("error: A is torn.\nB is torn.", 2), "A is torn.\nB is torn."),
    "after a bar": (SAYS.format("x\r 50 %\rerror: Too steep.", 3), "Too steep."),
    "usage": (SAYS.format("python: what?", 2), "it ended with code 2; its last line is 'python: "),
    "traceback": (
        "raise KeyError('seed')",
        "it ended with code 1; its last line is \"KeyError: 'seed'\" (",
    ),
    "killed": (
        "print('at 7', flush=True); os.kill(os.getpid(), signal.SIGKILL)",
        "it was ended by SIGKILL; its last line is 'at 7' (",
    ),
    "ended by hand": (
        "os.kill(os.getpid(), signal.SIGTERM)",
        "it was ended by SIGTERM; it said no",
    ),
    "silent": ("sys.exit(7)", "it ended with code 7; it said nothing ("),
}


@pytest.mark.parametrize("name", ENDS)
def test_why_a_child_failed(players, name, capsys):
    """What an earlier process said into the same log is not repeated."""
    part, sentence = ENDS[name]
    made = players(part)
    log = made[1][0] / "log.txt"
    log.parent.mkdir(parents=True)
    log.write_text("error: Long ago.\n")
    finished, failed = play(made)
    assert finished == []
    assert failed.keys() == {0}
    assert failed[0] == sentence or failed[0].startswith(sentence)
    assert failed[0].endswith(f" ({log})." if "it " in sentence else sentence)
    assert f"Seed 0 failed: {failed[0]}" in capsys.readouterr().out


def test_one_that_diverges_does_not_keep_the_others(players):
    made = players(SAYS.format("error: Too steep.", 3), "", "")
    assert play(made, shares=1) == ([1, 2], {0: "Too steep."})
    assert (made[1][0] / "log.txt").exists()


@pytest.mark.parametrize("end", ["sys.exit(2)", "sys.exit(1)", "os.kill(os.getpid(), 9)"])
def test_after_any_other_failure_none_is_begun(players, end):
    """But the one that runs beside is left to finish."""
    made = players(f"wait_for('one'); {end}", "tell('one'); wait_for('two')", "note('begun')")
    finished: list[int] = []

    def say(seed, event, log=None):
        if seed == 0 and event.startswith("failed"):
            (made[1][0].parent / "two").write_text("")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parallel, "_say", say)
        failed = parallel.train_in_children(*made, [{}, {}], finished.append)
    assert (finished, failed.keys()) == ([1], {0})
    assert not made[1][2].exists()
    assert events(made) == []


def test_a_refusal_leaves_nothing(players):
    """Neither the folder of the seed nor that of all; what is not empty stays."""
    refuse = SAYS.format("error: No.", 2)
    made = players(refuse)
    play(made)
    assert not made[1][0].parent.exists()
    made = players(f"(folder / 'config.json').write_text(''); {refuse}")
    play(made)
    assert sorted(os.listdir(made[1][0])) == ["config.json", "log.txt"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_passed_on_and_the_children_are_waited_for(players, number, capsys):
    """One that is not in its updates dies of it, and while the other saves none is begun."""
    made = players(
        "signal.signal(signal.SIGTERM, lambda *_: (time.sleep(0.3), note('saved'), sys.exit(75)))\n"
        f"wait_for('up-1'); os.kill(os.getppid(), {number}); signal.pause()",
        "tell('up-1'); signal.pause()",
        "note('begun')",
    )
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    assert play(made) == ([], {})
    assert events(made) == ["saved"]
    out = capsys.readouterr().out
    assert out.count("Stopping 2 seed(s); each saves first.") == 1
    assert "Seed 0 stopped" in out
    assert "Seed 1 stopped" in out
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before


def test_a_second_signal_is_passed_on_too(players):
    made = players(
        "def first(*_):\n"
        "    note('first')\n"
        "    signal.signal(signal.SIGTERM, lambda *_: (note('second'), sys.exit(75)))\n"
        "    os.kill(os.getppid(), signal.SIGINT)\n"
        "signal.signal(signal.SIGTERM, first)\n"
        "os.kill(os.getppid(), signal.SIGINT)\n"
        "while True: signal.pause()\n"
    )
    assert play(made) == ([], {})
    assert events(made) == ["first", "second"]


def test_a_child_that_was_stopped_by_hand_is_not_failed(players):
    """The others go on."""
    assert play(players("sys.exit(75)", ""), shares=1) == ([1], {})


FOLLOWS = "note('up'); os.read(0, 1); note('down')"


def test_no_second_process_trains_into_a_folder(players):
    """While a child lives, though its parent may be gone; it ends with its standard input."""
    configs, folders = players(FOLLOWS)
    parallel.check_idle(folders[0])
    child = parallel._spawn(0, configs[0], folders[0], 0, {})
    try:
        for refused in (
            lambda: parallel.check_idle(folders[0]),
            lambda: parallel._spawn(0, configs[0], folders[0], 0, {}),
            lambda: play((configs, folders)),
        ):
            with pytest.raises(ConfigError, match=r"training in .*seed-0; wait .* or stop it"):
                refused()
    finally:
        child.close()
    assert child.process.wait(600) == 0
    assert events((configs, folders)) == ["up", "down"]
    parallel.check_idle(folders[0])


def test_children_end_with_an_error_of_the_parent(players):
    """Here another process trains seed 1; seed 0 is not left behind."""
    made = players(FOLLOWS, "")
    made[1][1].mkdir(parents=True)
    with (made[1][1] / "log.txt").open("ab") as log:
        fcntl.flock(log, fcntl.LOCK_EX)
        with pytest.raises(ConfigError, match=r"Another process is training in .*seed-1"):
            play(made)
    assert events(made) == ["up", "down"]


def test_a_folder_that_cannot_be_made(players):
    made = players("")
    made[1][0].parent.write_text("a file")
    with pytest.raises(ConfigError, match=r"seed-0 cannot be written: Not a directory\."):
        play(made)


@pytest.mark.parametrize(
    ("outcome", "code"),
    [
        (0, 0),
        (75, 75),
        (TrainingError("Too steep."), 3),
        (ConfigError("No such setting."), 2),
        (DataError(["a.png is torn.", "b.png is torn."]), 2),
        (CheckpointError("No room."), 2),
        (OSError("No room."), 2),
    ],
)
def test_what_a_child_says(tmp_path, monkeypatch, capsys, outcome, code):
    """Its exit code and its sentence, which `last_words` reads."""
    seen = []

    def train(config, folder, *, began):
        assert began <= time.time()
        seen.append((config.model.depths, folder, sys.argv))
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    settings = {"model": {"depths": [1, 2]}, "data": {"root": "x"}}
    order = {"config": settings, "folder": str(tmp_path), "command": ["main", "--mode=seeds"]}
    stdin = types.SimpleNamespace(buffer=io.BytesIO(json.dumps(order).encode() + b"\n"))
    monkeypatch.setattr(sys, "stdin", stdin)
    monkeypatch.setattr(sys, "argv", [])
    monkeypatch.setattr(parallel, "_follow_parent", lambda: None)
    monkeypatch.setattr(parallel, "quiet_command", lambda: None)
    monkeypatch.setattr(training, "train_workdir", train)
    assert parallel._child() == code
    assert seen == [((1, 2), tmp_path, ["main", "--mode=seeds"])]
    said = f"error: {outcome}\n" if isinstance(outcome, Exception) else ""
    assert capsys.readouterr().err == said
