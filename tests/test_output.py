"""What is printed: nothing that happens to a stream ends a process, and the log has it all."""

import io
import os
import pathlib
import subprocess
import sys
import threading

import pytest
from waiting import wait_until

from clevit_jax.system import output

_BEGIN = """
import errno, io, os, pathlib, sys
from clevit_jax.system import output

def after(): pathlib.Path("after").write_text("alive")
"""


def run(code: str, tmp_path: pathlib.Path, **options) -> subprocess.CompletedProcess:
    done = subprocess.run(
        [sys.executable, "-c", _BEGIN + code],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **options.pop("env", {})},
        **options,
    )
    assert (tmp_path / "after").read_text() == "alive"
    return done


_SPEAK = """
with output.unbreakable(), output.logged(pathlib.Path("log.txt")):
    for k in range(3):
        print("line", k, flush=True)
        print("\\rbar", k, end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    after()
"""


def test_nobody_reads_any_more(tmp_path):
    """`| head`: what is printed goes nowhere, and the process ends as if it had been read."""
    reading, writing = os.pipe()
    os.close(reading)
    done = run(_SPEAK, tmp_path, stdout=writing, stderr=writing)
    os.close(writing)
    assert done.returncode == 0
    assert (tmp_path / "log.txt").read_text() == "line 0\nline 1\nline 2\nbar 2\n"


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full")
def test_a_full_disk_behind_stdout(tmp_path):
    with open("/dev/full", "w") as full:
        done = run(_SPEAK, tmp_path, stdout=full, stderr=full)
    assert done.returncode == 0
    assert (tmp_path / "log.txt").read_text() == "line 0\nline 1\nline 2\nbar 2\n"


def test_no_streams_at_all(tmp_path):
    """A file that is opened then must not become the place that libraries print to."""
    code = "output.open_standard_streams(); file = open('mine', 'w')\n"
    code += "print('to libraries', file=open(2, 'w', closefd=False))\n" + _SPEAK
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    script = tmp_path / "script.py"
    script.write_text(_BEGIN + code)
    shell = f"exec '{sys.executable}' script.py <&- >&- 2>&-"
    assert subprocess.run(["sh", "-c", shell], cwd=tmp_path, env=env).returncode == 0
    assert (tmp_path / "after").read_text() == "alive"
    assert (tmp_path / "mine").read_text() == ""


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252"])
def test_letters_that_a_stream_lacks(tmp_path, encoding):
    code = "with output.unbreakable():\n    print('ü 叶 \\udcff')\n    after()"
    done = run(code, tmp_path, capture_output=True, env={"PYTHONIOENCODING": encoding})
    assert done.returncode == 0
    shown = "ü 叶 \udcff".encode(encoding, "backslashreplace")
    assert done.stdout.strip() == shown


def test_a_stream_that_cannot_be_told(monkeypatch):
    """As the streams of some notebooks and test runners."""

    class Plain(io.StringIO):
        encoding = "ascii"

        def write(self, text):
            return super().write(text.encode("ascii").decode())

    stream = Plain()
    monkeypatch.setattr(sys, "stdout", stream)
    with output.unbreakable():
        print("叶")
    assert stream.getvalue() == "\\u53f6\n"
    assert sys.stdout is stream


def test_the_log_begins_with_the_first_line_and_goes_on(tmp_path, monkeypatch):
    log = tmp_path / "log.txt"
    log.write_text("of the start before\n")
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    with output.unbreakable():
        print("before the folder is known")
        with output.unbreakable(), output.logged(log):  # as `train` inside the command
            print("inside")
        print("after")
    assert log.read_text().splitlines() == [
        "of the start before",
        "before the folder is known",
        "inside",
    ]


def test_a_log_that_is_stdout_is_written_once(tmp_path):
    """The children of `--mode seeds` print to their log."""
    with (tmp_path / "log.txt").open("w") as log:
        assert run(_SPEAK, tmp_path, stdout=log, stderr=subprocess.DEVNULL).returncode == 0
    assert (tmp_path / "log.txt").read_text() == "line 0\nline 1\nline 2\n"


def test_what_a_full_disk_refused_is_logged_later(tmp_path, monkeypatch):
    folder = tmp_path / "gone"
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    with output.unbreakable(), output.logged(folder / "log.txt"):
        print("one")
        folder.mkdir()
        print("two")
    assert (folder / "log.txt").read_text() == "one\ntwo\n"


def test_what_is_said_of_an_error_is_logged(tmp_path, monkeypatch):
    """It is said when the run has ended, by the command or by the one who ends all processes."""
    log = tmp_path / "log.txt"
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    with output.unbreakable():
        with pytest.raises(KeyError), output.logged(log):
            raise KeyError
        print("error: it was a key", file=sys.stderr)
        other = tmp_path / "other.txt"
        with output.logged(other):  # the next run of the same process has its own
            print("next", file=sys.stderr)
    assert log.read_text() == "error: it was a key\n"
    assert other.read_text() == "next\n"


def test_what_is_not_shown_is_logged(tmp_path, capsys):
    with output.unbreakable():
        with output.unseen():
            print("before the folder is known")
            with output.logged(tmp_path / "log-1.txt"):
                print("inside")
                print("aloud", file=sys.stderr)
        print("after")
    said = capsys.readouterr()
    assert (said.out, said.err) == ("after\n", "aloud\n")
    assert (tmp_path / "log-1.txt").read_text() == "before the folder is known\ninside\naloud\n"


def test_names_of_logs():
    assert [output.log_file(process) for process in (0, 1, 12)] == [
        "log.txt", "log-1.txt", "log-12.txt",
    ]  # fmt: skip


_LAST = """
with output.unbreakable(), output.logged(pathlib.Path("log.txt")):
    print("one", flush=True)
    after()
    {}
    output.last_words("the last")
    os._exit(5)
"""


@pytest.mark.parametrize("hangs", [False, True])
def test_last_words(tmp_path, hangs):
    """They are in the log before a process ends by itself, and it ends if the log hangs."""
    code = _LAST.format("output._log._lock.acquire()" if hangs else "")
    done = run(code, tmp_path, capture_output=True, text=True)
    assert done.returncode == 5
    assert (tmp_path / "log.txt").read_text() == ("one\n" if hangs else "one\nthe last\n")
    assert done.stderr == ("" if hangs else "the last\n")


def test_a_log_whose_disk_does_not_answer_keeps_nobody_from_printing(tmp_path, monkeypatch, capsys):
    """It gets what waited when the disk is back."""
    answers = threading.Event()
    append = output._Log._append

    def hanging(self, data):
        answers.wait()
        return append(self, data)

    monkeypatch.setattr(output, "_DISK_SECONDS", 0.1)
    with output.unbreakable(), output.logged(tmp_path / "log.txt"):
        print("one")
        log = output._log
        monkeypatch.setattr(output._Log, "_append", hanging)
        for line in ("two", "three"):
            print(line)
        assert (tmp_path / "log.txt").read_text() == "one\n"
        answers.set()
        wait_until(lambda: not log._disk.hangs())
        print("four")
    assert capsys.readouterr().out == "one\ntwo\nthree\nfour\n"
    assert (tmp_path / "log.txt").read_text().endswith("two\nthree\nfour\n")
