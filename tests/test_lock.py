"""The lock of a workdir: one writer, whoever else looks, and free when its process is gone."""

import errno
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys

import pytest

from clevit_jax.errors import ConfigError
from clevit_jax.runs import lock
from clevit_jax.runs.lock import LOCK_FILE, locked

_HOLD = """
import pathlib, sys
from clevit_jax.runs.lock import locked

with locked(pathlib.Path(sys.argv[1])):
    (pathlib.Path(sys.argv[1]) / "config.json").touch()
    print("held", flush=True)
    sys.stdin.read()
"""


def test_the_second_is_refused_until_the_first_is_gone(tmp_path):
    """However the first ends; the sentence says who it is."""
    run = tmp_path / "run"
    child = subprocess.Popen(
        [sys.executable, "-c", _HOLD, run], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert child.stdout
    assert child.stdout.readline() == "held\n"
    said = f"Process {child.pid} on {socket.gethostname()} (since "
    with pytest.raises(ConfigError, match=re.escape(said)), locked(run):
        pass
    child.send_signal(signal.SIGKILL)
    child.communicate()
    with locked(run):
        pass
    assert (run / "config.json").exists()


def test_twice_in_one_process(tmp_path):
    """As two threads of a notebook."""
    with locked(tmp_path / "run"):
        own = re.escape(f"Process {os.getpid()} on ")
        with pytest.raises(ConfigError, match=own), locked(tmp_path / "run"):
            pass
    assert not (tmp_path / "run").exists()  # it holds nothing


def test_folders_are_as_they_were(tmp_path):
    """A run that was refused for its images leaves nothing; what was there stays."""
    with pytest.raises(ValueError, match="bad image"), locked(tmp_path / "runs" / "a"):
        raise ValueError("bad image")
    assert not (tmp_path / "runs").exists()
    with locked(tmp_path):
        pass
    assert os.listdir(tmp_path) == [LOCK_FILE]


def test_a_lock_file_that_went_is_not_trusted(tmp_path, monkeypatch):
    """The process before removes its file while this one waits to lock it."""
    taken = []

    def take(descriptor: int, workdir: pathlib.Path) -> None:
        if not taken:
            (workdir / LOCK_FILE).unlink()
        taken.append(descriptor)

    monkeypatch.setattr(lock, "_take", take)
    with locked(tmp_path / "run"):
        assert len(taken) == 2
        assert (tmp_path / "run" / LOCK_FILE).exists()


def test_a_disk_without_locks_warns(tmp_path, monkeypatch, capsys):
    def refuse(descriptor: int, how: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(lock.fcntl, "flock", refuse)
    with locked(tmp_path):
        pass
    assert "has no locks (No locks available), so a start" in capsys.readouterr().out


@pytest.mark.parametrize("text", ["", "{", "[]", '{"pid": 3}'])
def test_who_has_it_is_not_known(tmp_path, text):
    with locked(tmp_path):
        (tmp_path / LOCK_FILE).write_text(text)
        with (
            pytest.raises(ConfigError, match=r"^Another process is training in "),
            locked(tmp_path),
        ):
            pass


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="cannot be written: Not a directory"):
        locked(tmp_path / "file" / "run").__enter__()
