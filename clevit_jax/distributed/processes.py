"""Several processes as one run: what they tell each other, and how they end together.

They talk through the key-value store of JAX's coordination service, which process 0 holds; arrays
go through JAX's collectives alone. With one process each function is a no-op.
"""

import contextlib
import json
import os
import socket
import threading
import time
import traceback
from collections.abc import Iterator
from typing import Any

import jax

from clevit_jax.distributed import cluster, watch
from clevit_jax.errors import ProcessError, first_line
from clevit_jax.system import faults, output

LOST = 76  # exit code when another process was lost: run all again to go on (sysexits' EX_PROTOCOL)
_FOREVER = 7 * 24 * 3600 * 1000  # milliseconds; a lost process ends the wait long before
_FAILURE, _ACK_KEY = "clevit_jax/failure", "clevit_jax/heard"
_POLL_SECONDS = 0.5  # between two looks for a failure
_ACK_TIMEOUT = 10.0  # seconds that a failed process waits until all others have heard of it

_uses: dict[str, int] = {}  # how often each name was used: a key is written once


def count() -> int:
    """How many processes this run has."""
    return cluster.process_count()


def index() -> int:
    """Which process this is, from 0."""
    return cluster.process_index()


def _key(name: str) -> str:
    """A key of the store that was not used before; the same on all processes."""
    _uses[name] = _uses.get(name, -1) + 1
    return f"clevit_jax/{name}/{_uses[name]}"


def barrier(name: str) -> None:
    """Waits until all processes are here. All must call it in the same order."""
    if count() > 1:
        cluster.key_value_store().wait_at_barrier(_key(name), _FOREVER)


def gather(name: str, value: Any) -> list[Any]:
    """The JSON-able values of all processes, by process, on each of them."""
    if count() == 1:
        return [value]
    key = _key(name)
    store = cluster.key_value_store()
    store.key_value_set(f"{key}/{index()}", json.dumps(value))
    store.wait_at_barrier(f"{key}/all", _FOREVER)
    values = {int(k.rpartition("/")[2]): v for k, v in store.key_value_dir_get(f"{key}/")}
    return [json.loads(values[process]) for process in range(count())]


def broadcast(name: str, value: Any) -> Any:
    """The JSON-able value of process 0, on all; those of the others are ignored."""
    if count() == 1:
        return value
    key = _key(name)
    if index() == 0:
        cluster.key_value_store().key_value_set(key, json.dumps(value))
        return value
    return json.loads(cluster.key_value_store().blocking_key_value_get(key, _FOREVER))


def check_alone(what: str, processes: int | None) -> None:
    """Raises ProcessError when this is one of several processes; `processes=1` says it is not."""
    group = cluster.find_group(None, processes, None) if processes != 1 else None
    if group is not None:
        raise ProcessError(
            f"{what} runs in one process, and this is one of {group.processes} "
            f"({group.found_by}). Run it on one host only, with --processes 1."
        )


def compile_together(function: Any, *arguments: Any) -> None:
    """Compiles a jitted function on all processes before any of them calls it.

    The first collective of a program waits for the others for seconds only (gloo: 30), and a
    slower host, or one whose compilation cache is empty, may compile minutes longer.
    """
    if count() > 1:
        with watch.patiently("compiling"):
            function.lower(*arguments).compile()
            barrier("compiled")


@contextlib.contextmanager
def joined(
    *,
    coordinator: str | None,
    processes: int | None,
    process: int | None,
    wait: int,
    heartbeat: int,
) -> Iterator[None]:
    """Joins the other processes, if there are any; all leave together.

    An error inside reaches all processes, whatever they wait for: each says it, and ends with the
    same exit code. Process 0 alone prints to standard output; of the others the log has it.

    Args:
        coordinator, processes, process: see `cluster.find_group`.
        wait, heartbeat: see `cluster.connect`.

    Raises:
        ProcessError: they do not come together.
    """
    group = cluster.find_group(coordinator, processes, process)
    if group is None:
        yield
        return
    cluster.connect(group, wait=wait, heartbeat=heartbeat)
    left = threading.Event()
    listener = threading.Thread(target=_listen, args=(left,), daemon=True)
    listener.start()
    with contextlib.ExitStack() as stack:
        if group.process:
            stack.enter_context(output.unseen())
        try:
            yield
            barrier("end")
        except BaseException as error:
            _fail(error)
        left.set()
        listener.join()
        jax.distributed.shutdown()


def _listen(left: threading.Event) -> None:
    """Ends this process when another one says that it failed."""
    while not left.wait(_POLL_SECONDS):
        with contextlib.suppress(Exception):  # not there, or the service is ending
            failure = json.loads(cluster.key_value_store().key_value_try_get(_FAILURE))
            if failure["process"] != index():
                _say(failure["says"])
                _end(failure["code"])
            return


def _fail(error: BaseException) -> None:
    """Tells the others why this process ends, and ends it."""
    me = f"process {index()} of {count()} ({socket.gethostname()})"
    code, says = faults.exit_code(error), f"{me}: {error}"
    if isinstance(error, KeyboardInterrupt):
        code, says = 130, f"{me} was stopped by Ctrl-C; run the same command to go on."
    elif (known := faults.sentence(error)) is not None:
        says = f"{me}: {known}"
    elif isinstance(error, jax.errors.JaxRuntimeError):
        if "oordination" not in str(error):  # when that is lost, JAX ends this process in a moment
            time.sleep(4 * _POLL_SECONDS)  # the word of one that failed by itself comes first
        code = LOST
        says = (
            f"{me} cannot go on: {first_line(error)}. If another process was killed, start all of "
            "them again: the run goes on from its newest checkpoint."
        )
    else:
        code, says = 1, f"{me} failed: {type(error).__name__}: {error}"
        traceback.print_exception(error)
    give_up(says, code)


def lost(says: str) -> None:
    """Ends this process and the others, since one of them stands still; see `watch.watched`."""
    give_up(says, LOST)


def give_up(says: str, code: int) -> None:
    """Says why, tells the others, and ends this process at once; from any thread."""
    _say(says)
    failure = {"process": index(), "says": says, "code": code}
    with contextlib.suppress(Exception):  # another was first, or the service has ended
        cluster.key_value_store().key_value_set(_FAILURE, json.dumps(failure))
    _end(code)


def _say(failure: str) -> None:
    output.last_words(f"\nerror: {failure}")


def _end(code: int) -> None:
    """Ends this process at once: the main thread may wait inside a collective for ever.

    Process 0 holds what the others have to hear, so it ends last.
    """
    with contextlib.suppress(Exception):
        store = cluster.key_value_store()
        store.key_value_set(f"{_ACK_KEY}/{index()}", "")
        until = time.monotonic() + _ACK_TIMEOUT
        while index() == 0 and time.monotonic() < until:
            if len(store.key_value_dir_get(f"{_ACK_KEY}/")) == count():
                break
            time.sleep(_POLL_SECONDS / 5)
    os._exit(code)
