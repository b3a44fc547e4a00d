"""What the environment tells JAX and XLA, checked before they take it: JAX_*, XLA_FLAGS.

A value that they do not know ends in a traceback when JAX is imported, and in the end of the
process, from C++, when XLA is first used.
"""

import os
import re
import subprocess
import sys

from clevit_jax.errors import ConfigError

_SECONDS = 60  # that a process which only reads XLA_FLAGS is given
_GUARDS = (
    "jax_transfer_guard",
    "jax_transfer_guard_host_to_device",
    "jax_transfer_guard_device_to_device",
    "jax_transfer_guard_device_to_host",
)


def check() -> None:
    """Imports JAX, or says which variable of the environment keeps it from that.

    For the beginning of a command. Where JAX is imported already, it took what it found.

    Raises:
        ConfigError: a variable has a value that JAX or XLA does not take.
    """
    if "jax" not in sys.modules:
        _import_jax()
        _check_xla_flags()
    _allow_transfers()


def _import_jax() -> None:
    try:
        import jax  # noqa: F401
    except ValueError as error:
        culprit = _variable_in(str(error))
        if culprit is None:
            raise
        raise ConfigError(
            f"{culprit} is {os.environ[culprit]!r}, which JAX does not take ({error}); "
            f"unset it: unset {culprit}."
        ) from error


def _variable_in(message: str) -> str | None:
    """The variable of the environment that an error of JAX's settings speaks of."""
    said = message.upper().replace("JAX.", "JAX_")
    found = [name for name in re.findall(r"JAX_[A-Z0-9_]+", said) if name in os.environ]
    return found[0] if found else None


def _check_xla_flags() -> None:
    """Raises ConfigError where XLA would end this process for its flags.

    It is asked in a process of its own, which reads the flags and takes no device.
    """
    flags = os.environ.get("XLA_FLAGS", "")
    if not flags.strip():
        return
    command = [sys.executable, "-c", "from jaxlib import xla_client; xla_client.CompileOptions()"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS)
    except (OSError, subprocess.TimeoutExpired):
        return  # it cannot be asked
    if done.returncode and (problem := _xla_problem(done.stderr)):
        raise ConfigError(
            f"XLA_FLAGS is {flags!r}, which XLA refuses: {problem}. Correct it, or unset it: "
            "unset XLA_FLAGS. Flags that begin with --xla_tpu belong in LIBTPU_INIT_ARGS."
        )


def _xla_problem(stderr: str) -> str:
    """What XLA says of its flags before it ends the process; "" where it says nothing of them."""
    said = [line.partition("] ")[2] for line in stderr.splitlines() if re.match(r"[EF]\d", line)]
    named = [line for line in said if "XLA_FLAGS" in line or "flag" in line]
    return named[0].strip().rstrip(".")[:300] if named else ""


def _allow_transfers() -> None:
    """Lets this command move data where it means to, whatever JAX_TRANSFER_GUARD says.

    Updates and evaluations, where a transfer would be a fault, forbid it by themselves.
    """
    import jax

    for name in _GUARDS:
        value = os.environ.get(name.upper(), "")
        if value.startswith("disallow"):
            jax.config.update(name, "allow")
            print(
                f"{name.upper()}={value}: updates and evaluations forbid transfers by themselves; "
                "elsewhere, where data is moved on purpose, they are allowed.",
                file=sys.stderr,
                flush=True,
            )
