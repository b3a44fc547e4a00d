"""Signals: noted while there is work to save, obeyed at once before, also beside compiled code."""

import signal
import subprocess
import sys

import pytest

from clevit_jax.system import signals
from clevit_jax.system.signals import ENDING, Signals

# `threading.Lock().acquire()` is compiled code that no handler interrupts, as a compilation is.
_TAKEN = """
import signal, sys, threading, time
from clevit_jax.system import signals

if {anew}:  # a suite in the background of a shell, or of nohup, is started without some of them
    for number in signals.ENDING: signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
signals.take()
taken = signals.taken()
"""


def run(code: str, *sent: int, before: str = _TAKEN) -> tuple[int, str, str]:
    """A process that runs `code`, and is sent signals when it has printed a line for each."""
    child = subprocess.Popen(
        [sys.executable, "-c", before.replace("{anew}", "True") + code],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert child.stdout
    for number in sent:
        assert child.stdout.readline() == "ready\n"
        child.send_signal(number)
    out, err = child.communicate()
    return child.returncode, out, err


@pytest.mark.parametrize("number", ENDING)
def test_ends_at_once_where_nothing_is_to_be_saved(number):
    """Also while the main thread is in compiled code for minutes."""
    code = (
        "taken.end_at_once('Stopped before an update was made.')\n"
        "lock = threading.Lock(); lock.acquire(); print('ready', flush=True)\n"
        "lock.acquire()"
    )
    assert run(code, number) == (75, "", "\nStopped before an update was made.\n")


@pytest.mark.parametrize("number", ENDING)
def test_noted_where_something_is_to_be_saved(number):
    code = (
        "taken.note_only(); print('ready', flush=True)\n"
        "while not taken.received: time.sleep(0.01)\n"
        "print('saved')"
    )
    assert run(code, number) == (0, "saved\n", "")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_second_one_that_insists_ends_at_once(number):
    code = "taken.note_only(); print('ready', flush=True)\n"
    code += "while not taken.received: time.sleep(0.01)\n"
    code += "print('ready', flush=True); threading.Event().wait()"
    assert run(code, number, number) == (128 + number, "", "")


def test_two_of_one_cause_are_one():
    """A closed terminal sends SIGHUP, and so does its shell; Slurm warns, and then ends."""
    code = (
        "heard = []\n"
        "taken.tell(lambda: heard.append(1)); taken.note_only()\n"
        "taken._note(signal.SIGHUP); taken._note(signal.SIGHUP)\n"
        "taken._note(signal.SIGUSR2); taken._note(signal.SIGTERM)\n"
        "print('alive', heard)"
    )
    assert run(code) == (0, "alive [1]\n", "")


def test_nohup_is_respected():
    before = "import signal\nsignal.signal(signal.SIGHUP, signal.SIG_IGN)\n"
    before += _TAKEN.replace("{anew}", "False")
    code = (
        "print('ready', flush=True)\n"
        "signal.sigtimedwait([], 0.2); print('ready', flush=True); threading.Event().wait()"
    )
    code, _, err = run(code, signal.SIGHUP, signal.SIGTERM, before=before)
    assert (code, err) == (75, "\nStopped before it began; run the same command to go on.\n")


def test_a_full_pipe_does_not_keep_it():
    """Whose reader sleeps, such as a pager."""
    code = (
        "import os\n"
        "os.set_blocking(2, False)\n"
        "try:\n"
        "    while True: os.write(2, b'x' * 4096)\n"
        "except BlockingIOError: os.set_blocking(2, True)\n"
        "print('ready', flush=True); threading.Event().wait()"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", _TAKEN.replace("{anew}", "True") + code],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert child.stdout
    assert child.stdout.readline() == b"ready\n"
    child.send_signal(signal.SIGTERM)
    assert child.wait() == 75
    child.communicate()


def test_given_back_they_end_a_process_as_any():
    code = "signals.give_back(); print('ready', flush=True); threading.Event().wait()"
    assert run(code, signal.SIGTERM)[0] == -signal.SIGTERM
    code, _, err = run(code, signal.SIGINT)
    assert code == -signal.SIGINT
    assert err.endswith("KeyboardInterrupt\n")


def test_ctrl_c_inside_the_compiler_raises_nothing():
    """An exception there is a segmentation fault in jaxlib 0.10.2."""
    code = (
        "signals.give_back()\n"
        "compiler = {'__name__': 'jax._src.compiler', 'time': time}\n"
        "body = 'print(\"ready\", flush=True); time.sleep(60)'\n"
        "exec(f'def compile_it(): {body}', compiler)\n"
        "compiler['compile_it']()"
    )
    assert run(code, signal.SIGINT) == (130, "", "\nStopped; run the same command to go on.\n")


def test_handlers_come_back():
    before = [signal.getsignal(number) for number in ENDING]
    with Signals() as heard:
        signal.raise_signal(signal.SIGTERM)
        assert heard.received
    assert [signal.getsignal(number) for number in ENDING] == before
    assert signals.taken() is None
