"""What a user is told when the hub, the way to it, or the disk behind it fails."""

import errno

from clevit_jax.errors import first_line
from clevit_jax.system.faults import os_reason

# Whose errors are of the connection. The library changed from requests to httpx to httpx2.
_TRANSPORTS = {"httpx", "httpx2", "httpcore", "httpcore2", "requests", "urllib3"}


def _name(error: BaseException) -> set[str]:
    """The names of the classes of an error, of the library or above."""
    return {kind.__name__ for kind in type(error).__mro__}


def status(error: BaseException) -> int | None:
    """The number that the hub answered with, where it did."""
    return getattr(getattr(error, "response", None), "status_code", None)


def is_unreachable(error: BaseException) -> bool:
    """Whether the hub was not asked or did not answer, so that the cache may be taken instead."""
    number = status(error)
    if number is not None:
        return number >= 500 or number == 429
    transport = type(error).__module__.partition(".")[0] in _TRANSPORTS
    return transport or isinstance(error, ConnectionError | TimeoutError)


def unreachable(error: BaseException, endpoint: str) -> str:
    """Why the hub cannot be reached, as part of a sentence."""
    if "OfflineModeIsEnabled" in _name(error):
        return "HF_HUB_OFFLINE is set"
    if (number := status(error)) is not None:
        return f"{endpoint} answers with error {number} at this time"
    reason = first_line(error).rstrip(".") or type(error).__name__
    return f"{endpoint} cannot be reached ({reason})"


def sentence(
    error: BaseException, name: str, *, page: str, endpoint: str, cache: str
) -> str | None:
    """What happened, and the mend, without what to bring by hand; None for a fault of the program.

    Args:
        error: what huggingface_hub raised.
        name: of the repository, as it was typed.
        page: its address.
        endpoint: address of the hub.
        cache: folder of the cache.
    """
    kinds, number = _name(error), status(error)
    login = "log in (hf auth login, or export HF_TOKEN=...)"
    if "GatedRepoError" in kinds:
        return f"{name} is open to those alone who were let in: ask at {page}, and {login}."
    if "RevisionNotFoundError" in kinds:
        return f"{name}: the repository has no such revision; see {page}/tree/main."
    if "RemoteEntryNotFoundError" in kinds:
        return f"{name}: the repository has no such file; see {page}/tree/main."
    if "RepositoryNotFoundError" in kinds:
        return (
            f"{name}: the hub has no such repository, or shows it to some alone: correct the name, "
            f"or {login}."
        )
    if number in (401, 403):
        return f"{name}: the hub refuses the token that you have ({number}): {login}."
    cause = error.__cause__
    if "LocalEntryNotFoundError" in kinds and cause is not None and is_unreachable(cause):
        error = cause
    if is_unreachable(error) and "RemoteProtocolError" not in kinds:
        why = unreachable(error, endpoint)
        return f"{name} cannot be fetched, since {why}, and the cache {cache} has no whole copy."
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return (
            f"{name} does not fit: {cache}: {os_reason(error)}; free some space, or name another "
            "place (export HF_HOME=DIR). Of a file that did not fit nothing is kept."
        )
    if isinstance(error, OSError) and error.errno is not None:
        return (
            f"{name} cannot be kept: {error.filename or cache}: {os_reason(error)}; name another "
            "place for the cache (export HF_HOME=DIR)."
        )
    if kinds & {"OSError", "RuntimeError", "RemoteProtocolError", "XetDownloadError"}:
        return (
            f"{name} was cut off while it was fetched ({first_line(error).rstrip('.')}); start "
            "again: whole files are kept, and parts are not read."
        )
    if type(error).__module__.startswith("huggingface_hub"):
        return f"{name} cannot be fetched: {first_line(error).rstrip('.')}."
    return None
