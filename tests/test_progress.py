"""Bars: lines where nobody sees them move."""

import io
import sys
import types

from clevit_jax.runs.metrics import Progress
from clevit_jax.system import progress
from clevit_jax.system.progress import progress_bar


def test_a_file_gets_a_last_line_alone(capsys):
    """However often the bar moved."""
    for _ in progress_bar(range(5000), desc="Reading", unit=" images"):
        pass
    err = capsys.readouterr().err
    (line,) = err.splitlines()
    assert line.startswith("Reading: 100%|")
    assert "5000/5000" in line
    assert "\r" not in err
    assert err.endswith("\n")


def test_a_line_now_and_then(capsys):
    clock = types.SimpleNamespace(now=1000.0)
    bar = progress_bar(total=200, desc="Reading")
    bar._time = lambda: clock.now
    bar.start_t = bar.last_print_t = clock.now
    for _ in range(200):
        clock.now += 1
        bar.update()
    bar.close()
    lines = capsys.readouterr().err.splitlines()
    assert 3 <= len(lines) <= 200 / progress.LINES_SECONDS + 1
    assert len(set(lines)) == len(lines)
    assert "200/200" in lines[-1]


def test_the_bar_of_training_too(capsys):
    bar = Progress(0, 100, 4)
    for _ in range(100):
        bar.update({"loss": 1.0, "accuracy": 0.5}, waited=0.0)
        bar.say("Epoch 1")
    bar.close()
    (line,) = capsys.readouterr().err.splitlines()
    assert "100/100" in line
    assert "loss 1.000" in line


def test_no_stderr_at_all(monkeypatch):
    monkeypatch.setattr(sys, "stderr", None)
    assert sum(progress_bar(range(3))) == 3


def test_a_terminal_sees_it_move(monkeypatch):
    terminal = io.StringIO()
    terminal.isatty = lambda: True  # type: ignore[method-assign]
    monkeypatch.setattr(sys, "stderr", terminal)
    bar = progress_bar(total=2, mininterval=0)
    bar.update()
    bar.update()
    bar.close()
    assert terminal.getvalue().count("\r") >= 2
