"""Faults of the machine, told from bugs: memory, disks, devices; a sentence says what to do."""

import errno
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import pytest

from clevit_jax.errors import ConfigError
from clevit_jax.system import environment, faults


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
