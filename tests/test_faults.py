"""Faults of the machine, told from bugs: memory, disks, devices; a sentence says what to do."""

import errno
import os
import subprocess
import sys
import types

import jax
import jax.numpy as jnp
import pytest

from clevit_jax import main
from clevit_jax.data import decode
from clevit_jax.distributed import processes
from clevit_jax.errors import ConfigError
from clevit_jax.runs import checkpoint
from clevit_jax.system import environment, faults, files

SHORT = "RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes."


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        MemoryError("std::bad_alloc"),
        jax.errors.JaxRuntimeError(
            "RESOURCE_EXHAUSTED: Out of memory allocating 137438953472 bytes."
        ),
        jax.errors.JaxRuntimeError("INTERNAL: CUDA_ERROR_OUT_OF_MEMORY: out of memory"),
        jax.errors.JaxRuntimeError("INTERNAL: CUBLAS_STATUS_ALLOC_FAILED"),
        RuntimeError("std::bad_alloc"),
        ImportError("x.so: failed to map segment from shared object"),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
    ],
)
def test_memory_that_does_not_suffice(error):
    assert faults.is_out_of_memory(error)
    said = faults.sentence(error)
    assert said.startswith("Memory does not suffice: ")
    for mend in ("--config.batch_size", "--config.accumulation", "remat", "--mode preflight"):
        assert mend in said


def test_memory_of_xla_itself():
    """As XLA says it for an array that no machine holds."""
    with pytest.raises(jax.errors.JaxRuntimeError) as error:
        jax.jit(lambda: jnp.zeros((1 << 40, 1 << 10)))().block_until_ready()
    assert faults.sentence(error.value).startswith("Memory does not suffice: ")


def test_what_is_no_fault_of_the_machine():
    for error in (
        KeyError("step"),
        ValueError("shapes"),
        jax.errors.JaxRuntimeError("INVALID_ARGUMENT: Executable expected"),
        RuntimeError("of ours"),
        AssertionError(),
    ):
        assert faults.sentence(error) is None
    assert faults.sentence(ConfigError("epochs is 0.")) == "epochs is 0."


@pytest.mark.parametrize("number", sorted(faults._MENDS))
def test_an_error_of_the_system_names_path_purpose_and_mend(number):
    said = faults.sentence(OSError(number, os.strerror(number), "runs/a/x.json"), "--mode eval")
    assert said == (f"runs/a/x.json: {os.strerror(number)} (--mode eval); {faults._MENDS[number]}.")


def test_two_paths_and_none():
    error = OSError(errno.EXDEV, "Invalid cross-device link", "a", None, "b")
    assert faults.sentence(error).startswith("a -> b: Invalid cross-device link; ")
    assert faults.sentence(OSError("odd")) == "odd."


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("JAX_PLATFORMS", "cuda"),
        ("JAX_PLATFORMS", "nonsense"),
        ("XLA_FLAGS", "--xla_no_such_flag=1"),
        ("JAX_TRANSFER_GUARD", "never"),
        ("JAX_ENABLE_X64", "perhaps"),
    ],
)
def test_a_variable_that_jax_or_xla_refuses(variable, value):
    """One sentence with its name and value, and what to type, in the place of a traceback."""
    code = (
        "from clevit_jax.system import environment, faults\n"
        "try:\n"
        "    environment.check()\n"
        "    import jax; jax.devices()\n"
        "except Exception as error:\n"
        "    print(faults.sentence(error))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, variable: value}, capture_output=True,
        text=True,
    )  # fmt: skip
    said = done.stdout
    assert said.startswith((f"{variable} is {value!r}, ", f"{variable} is {value}, "))
    assert f"unset {variable}" in said


def test_flags_that_xla_takes(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--xla_force_host_platform_device_count=2")
    environment._check_xla_flags()


def test_transfers_are_allowed_where_they_are_meant(monkeypatch, capfd):
    monkeypatch.setenv("JAX_TRANSFER_GUARD", "disallow")
    with jax.transfer_guard("disallow"):
        environment._allow_transfers()
    assert "forbid transfers by themselves" in capfd.readouterr().err
    assert jax.config.values["jax_transfer_guard"] == "allow"
    jax.config.update("jax_transfer_guard", None)


@pytest.mark.parametrize(
    ("message", "variable"),
    [
        ('Invalid value "x" for JAX flag jax_default_matmul_precision',
         "JAX_DEFAULT_MATMUL_PRECISION"),
        ("jax.default_device must be passed either a Device", "JAX_DEFAULT_DEVICE"),
        ("something else", None),
    ],
)  # fmt: skip
def test_whose_value_it_was(monkeypatch, message, variable):
    for name in ("JAX_DEFAULT_MATMUL_PRECISION", "JAX_DEFAULT_DEVICE"):
        monkeypatch.setenv(name, "x")
    assert environment._variable_in(message) == variable


def test_no_further_thread():
    says = faults.sentence(RuntimeError("can't start new thread"))
    assert "ulimit -u" in says
    assert "data.threads" in says


def test_the_first_number_that_is_not_finite():
    error = FloatingPointError("invalid value (nan) encountered in mul")
    assert faults.sentence(error) is None
    jax.config.update("jax_debug_nans", True)
    try:
        says = faults.sentence(error)
    finally:
        jax.config.update("jax_debug_nans", False)
    assert says.startswith("JAX_DEBUG_NANS ended this at the first number that is not finite: ")
    assert "left out and counted" in says


def test_a_device_that_is_not_there(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7")
    reason = "Unable to initialize backend 'cuda': no such. (set JAX_PLATFORMS='' to choose)"
    before = jax.config.jax_platforms
    jax.config.update("jax_platforms", "cuda")
    try:
        says = faults.sentence(RuntimeError(reason))
        jax.config.update("jax_platforms", None)
        other = faults.sentence(RuntimeError(reason))
    finally:
        jax.config.update("jax_platforms", before)
    assert says.startswith(
        "JAX_PLATFORMS is cuda, and JAX finds no such device here: Unable to initialize backend "
        "'cuda': no such. CUDA_VISIBLE_DEVICES=7 may hide them."
    )
    assert other.startswith("JAX cannot use the devices of this machine: Unable")


def test_the_command_ends_with_2(monkeypatch, capsys):
    from absl import flags

    from clevit_jax import flags as command_line
    from clevit_jax import modes

    values = flags.FlagValues()
    command_line.define(values)
    values(["main"])
    for error in (
        jax.errors.JaxRuntimeError(SHORT),
        MemoryError(),
        OSError(5, "it", "a"),
    ):

        def fail(*_, error=error):
            raise error

        monkeypatch.setattr(modes, "run", fail)
        assert main.main(["main"], values) == 2
        assert capsys.readouterr().err == f"error: {faults.sentence(error, '--mode train')}\n"
    monkeypatch.setattr(modes, "run", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        main.main(["main"], values)


def test_among_several_processes_memory_is_2_and_not_76(monkeypatch, capsys):
    """76 would have a restart loop try it for ever."""
    ended = list[int]()
    monkeypatch.setattr(processes, "_end", ended.append)
    monkeypatch.setattr(processes, "_POLL_SECONDS", 0)
    processes._fail(jax.errors.JaxRuntimeError(SHORT))
    processes._fail(jax.errors.JaxRuntimeError("UNAVAILABLE: coordination service"))
    assert ended == [2, processes.LOST]
    assert "process 0 of 1" in capsys.readouterr().err


def test_an_image_that_memory_does_not_hold_is_named(tmp_path, monkeypatch):
    def fail(*_, **__):
        raise MemoryError

    monkeypatch.setattr(decode.Image, "open", fail)
    with pytest.raises(MemoryError, match=r"to decode leaf\.png"):
        decode.read_rgb(b"x", "leaf.png")


def test_a_write_names_the_file_and_not_the_temporary_one(tmp_path):
    path = tmp_path / "scores.json"
    for error in (OSError(errno.ENOSPC, "No space"), OSError(errno.EIO, "I/O error")):
        with pytest.raises(OSError, match=r"scores\.json") as raised, files.replacing(path):
            raise error
        assert raised.value.filename == str(path)
    gone = tmp_path / "gone" / "scores.json"
    with pytest.raises(FileNotFoundError) as raised:
        files.write_text(gone, "x")
    assert raised.value.filename == str(gone)
    (tmp_path / "folder").mkdir()
    with pytest.raises(IsADirectoryError) as raised:
        files.write_text(tmp_path / "folder", "x")
    assert faults.sentence(raised.value) == f"{tmp_path}/folder: Is a directory; name a file."
    (tmp_path / "folder").rmdir()
    assert list(tmp_path.iterdir()) == []


def test_a_purpose_is_said(tmp_path):
    with (
        pytest.raises(ConfigError) as error,
        files.purpose("The table of predictions", tmp_path / "o.csv"),
    ):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert str(error.value) == (
        f"The table of predictions cannot be written: {tmp_path}/o.csv: No space left on device; "
        "free some space there, or name another place."
    )


def test_a_checkpoint_that_memory_does_not_hold_is_not_damaged(tmp_path, monkeypatch):
    """It would be moved aside, and the one before it taken."""

    class Reader:
        def __init__(self, *_, **__):
            raise jax.errors.JaxRuntimeError(SHORT)

    monkeypatch.setattr(checkpoint.ocp, "Checkpointer", Reader)
    checkpoints = types.SimpleNamespace(folder=tmp_path, _unreadable=lambda *_: ConfigError("bad"))
    with pytest.raises(jax.errors.JaxRuntimeError):
        checkpoint.Checkpoints._read(checkpoints, 3, "state", lambda: None, None)
