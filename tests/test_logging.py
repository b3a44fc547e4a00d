"""What is kept back of what libraries say, and that it is told again afterwards."""

import logging
import os
import sys
import types
import warnings
from unittest import mock

import pytest
from absl import logging as absl_logging

from clevit_jax.system.logging import errors_alone, quiet, quiet_command


def test_logs_and_warnings_are_kept_back(caplog):
    logger = logging.getLogger("somebody")

    def speak():
        for level in (logging.WARNING, logging.ERROR, logging.CRITICAL):
            logger.log(level, "level %d", level)
        absl_logging.warning("of absl")
        warnings.warn("deprecated", stacklevel=1)

    told = ["level 30", "level 40", "level 50", "of absl"]
    for inside, expected in ((quiet(), told[2:3]), (quiet(logging.WARNING), told[1:3])):
        caplog.clear()
        with inside:
            speak()
        assert caplog.messages == expected
        caplog.clear()
        with pytest.warns(UserWarning, match="deprecated"):
            speak()
        assert caplog.messages == told


def test_errors_alone(caplog):
    with errors_alone():
        absl_logging.warning("kept back")
        absl_logging.error("told")
    absl_logging.warning("told again")
    assert caplog.messages == ["told", "told again"]


def test_what_compiled_code_writes(capfd):
    """It writes to the file descriptor, whatever Python does with `sys.stderr`."""
    with quiet(stderr=True):
        os.write(2, b"kept back")
    with quiet():
        os.write(2, b"told")
    with pytest.raises(KeyError), quiet(stderr=True):
        raise KeyError
    os.write(2, b" again")
    assert capfd.readouterr().err == "told again"


def test_reads_that_orbax_gave_up_are_not_told(monkeypatch):
    """Of what goes wrong where nobody can catch it, only what is not orbax's is printed."""
    told: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)
    monkeypatch.setattr(sys, "__unraisablehook__", told.append)
    monkeypatch.setattr(absl_logging, "set_verbosity", mock.Mock())
    monkeypatch.setattr(logging.getLogger("asyncio"), "setLevel", mock.Mock())
    quiet_command()
    for path in ("site-packages/orbax/serialization.py", "site-packages/grain/reader.py"):
        code = types.SimpleNamespace(co_filename=path)
        sys.unraisablehook(types.SimpleNamespace(object=types.SimpleNamespace(cr_code=code)))
    sys.unraisablehook(types.SimpleNamespace(object=None))
    assert len(told) == 2
    sys.unraisablehook(
        types.SimpleNamespace(object=None, exc_value=RuntimeError("Event loop is closed"))
    )
    assert len(told) == 2


def test_what_orbax_says_of_a_failed_save_is_not_told(caplog, monkeypatch):
    """Pages of tracebacks of its threads, beside the sentence that we make of them."""
    monkeypatch.setattr(absl_logging.get_absl_logger(), "filters", [])
    said = "def say(logging):\n    logging.error('words')\n"
    spaces: list[dict] = []
    for path in ("/site-packages/orbax/checkpoint/manager.py", "/clevit_jax/runs/saver.py"):
        spaces.append({})
        exec(compile(said, path, "exec"), spaces[-1])
    with errors_alone():
        for space in spaces:
            space["say"](absl_logging)
    assert caplog.messages == ["words"]
