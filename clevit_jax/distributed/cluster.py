"""The group of processes of one run: how they find each other, or say who did not come.

JAX's own runtime connects them (`jax.distributed`): from what a TPU pod, Slurm, Open MPI or an
indexed Kubernetes Job tell each process, or from the command line. JAX aborts a process that waited
in vain; here the user is told before who is missing.

This is the only module that uses what is private to JAX (`jax._src`): its detection of clusters,
and the state of its runtime, since `jax.process_count()` and `jax.process_index()` take the devices
first.
"""

import dataclasses
import importlib.util
import os
import socket
import threading
import time
from collections.abc import Mapping
from typing import Any

import jax
import psutil
from jax._src import clusters
from jax._src.distributed import global_state

from clevit_jax.errors import ProcessError, first_line
from clevit_jax.system import output

_POLL_SECONDS = 1.0  # between two looks at who has come
_GRACE = 60  # seconds that JAX waits longer than we do, so that our sentence comes first


@dataclasses.dataclass(frozen=True)
class Group:
    """A group of processes, and which of them this one is.

    Attributes:
        coordinator: "host:port" of process 0, or None where the environment knows it.
        processes: how many there are.
        process: this one, from 0.
        found_by: "the command line", or the environment that told.
        local_devices: as `jax.distributed.initialize` wants them; None leaves it to JAX, [] is all.
    """

    coordinator: str | None
    processes: int
    process: int
    found_by: str
    local_devices: list[int] | None = None


def find_group(
    coordinator: str | None,
    processes: int | None,
    process: int | None,
    environ: Mapping[str, str] = os.environ,
) -> Group | None:
    """Which group this process belongs to; None where it is alone.

    Args:
        coordinator: "host:port" of process 0, which must be reachable from all.
        processes: how many there are; 1 ignores what the environment says.
        process: which one this is, from 0.
        environ: the environment.

    Raises:
        ProcessError: some of the three are missing or senseless, or the environment speaks of
            several processes and does not say which.
    """
    given = {"coordinator": coordinator, "processes": processes, "process": process}
    missing = [f"--{name}" for name, value in given.items() if value is None]
    if processes == 1 and not coordinator:
        return None
    if len(missing) == 3:
        return _from_environment(environ)
    if coordinator is None or processes is None or process is None:
        raise ProcessError(
            f"{' and '.join(missing)} must be given too: --coordinator HOST:PORT of process 0, "
            "--processes N and --process I on every process, with I from 0 to N-1."
        )
    if not coordinator.rpartition(":")[0] or not coordinator.rpartition(":")[2].isdigit():
        raise ProcessError(f"--coordinator is {coordinator!r}; it must be HOST:PORT.")
    if not 0 <= process < processes:
        raise ProcessError(f"--process is {process}; it must be in 0 to {processes - 1}.")
    if processes == 1:
        return None
    return Group(coordinator, processes, process, "the command line")


def _from_environment(environ: Mapping[str, str]) -> Group | None:
    """The group that JAX's detection finds. Raises ProcessError, see `find_group`."""
    known = clusters.ClusterEnv._cluster_types
    cluster = next((env for env in known if _present(env, environ)), None)
    if cluster is None:
        if "JOB_COMPLETION_INDEX" in environ and importlib.util.find_spec("kubernetes") is None:
            raise ProcessError(
                "This is a pod of an indexed Kubernetes Job, and the package kubernetes, by which "
                "it finds the others, is missing: pip install kubernetes. Or give --coordinator, "
                "--processes and --process, or --processes 1 to train alone."
            )
        return None
    name = cluster.name if isinstance(cluster.name, str) else cluster.__name__
    try:
        processes, process = cluster.get_process_count(), cluster.get_process_id()
    except Exception as error:  # of requests, kubernetes and others
        raise ProcessError(
            f"The environment ({cluster.__name__}) does not tell which processes there are: "
            f"{error}. Give --coordinator, --processes and --process, or --processes 1 to train "
            "alone."
        ) from error
    if processes == 1:
        return None
    # Slurm and Open MPI: JAX gives each process the one device of its number on the node, which
    # is wrong for the only process of a node.
    alone = environ.get("SLURM_STEP_TASKS_PER_NODE", "").split("(")[0] == "1" or (
        environ.get("OMPI_COMM_WORLD_LOCAL_SIZE") == "1"
    )
    return Group(None, processes, process, name, [] if alone else None)


def _present(env: type[clusters.ClusterEnv], environ: Mapping[str, str]) -> bool:
    """Whether a kind of cluster is the one that this process runs in."""
    if env.opt_in_only_method:
        return False
    # JAX's detection asks for a Job in whatever pod it runs, such as one of a notebook.
    if env is clusters.K8sCluster and (
        "JOB_COMPLETION_INDEX" not in environ or importlib.util.find_spec("kubernetes") is None
    ):
        return False
    return env.is_env_present()


def connect(group: Group, *, wait: int, heartbeat: int) -> None:
    """Joins the others; ends this process, exit code 2, when they have not come in time.

    Args:
        group: of `find_group`.
        wait: seconds for all to come.
        heartbeat: seconds without a sign of life, after which a process is given up.

    Raises:
        ProcessError: JAX cannot connect, and says why.
    """
    if group.process == 0:
        print(f"Waiting for {group.processes} processes ({group.found_by}).", flush=True)
    everyone = threading.Event()
    threading.Thread(target=_watch, args=(group, wait, everyone), daemon=True).start()
    try:
        jax.distributed.initialize(
            group.coordinator,
            # All three or none: the environment knows the rest.
            group.processes if group.coordinator else None,
            group.process if group.coordinator else None,
            local_device_ids=group.local_devices,
            initialization_timeout=wait + _GRACE,
            heartbeat_timeout_seconds=heartbeat,
        )
    except (RuntimeError, ValueError, OSError) as error:
        raise ProcessError(
            f"Process {group.process} of {group.processes} cannot join: {first_line(error)}"
        ) from error
    finally:
        everyone.set()


def _watch(group: Group, wait: int, everyone: threading.Event) -> None:
    """Ends the process, and says who is missing, unless all come in time."""
    came, until = list[str](), time.monotonic() + wait
    while (left := until - time.monotonic()) > 0:
        if everyone.wait(min(_POLL_SECONDS, left)):
            return
        if group.process == 0:  # others that wait as long may have given up before it looks
            came = max(came, _callers(_port(group)), key=len)
    output.last_words(f"error: {_missing(group, wait, came)}")
    os._exit(2)  # the main thread waits inside JAX, and would be aborted


def _missing(group: Group, wait: int, came: list[str]) -> str:
    """Who is missing, as far as a process that waited in vain knows, and what to run.

    Args:
        group: the group that it waited for.
        wait: seconds that it waited.
        came: addresses from which others called process 0.
    """
    address = group.coordinator or global_state.coordinator_address
    advice = (
        f"start the same command on each, with --processes {group.processes} and --process 0 to "
        f"{group.processes - 1}"
        if group.coordinator
        else f"start the same command in all {group.processes}"
    )
    if group.process:
        host, _, port = (address or "").rpartition(":")
        try:
            socket.create_connection((host, int(port)), timeout=5).close()
            reached = f"process 0 answers at {address}, and says how many came"
        except (OSError, ValueError) as error:
            reached = f"process 0 does not answer at {address}, or no longer ({error})"
        return (
            f"Not all {group.processes} processes came within {wait} s: this is process "
            f"{group.process}, and {reached}. Is each started, and can they reach each other? "
            f"If not all run, {advice}."
        )
    others = f", from {', '.join(sorted(set(came)))}" if came else ""
    return (
        f"Only {1 + len(came)} of {group.processes} processes came within {wait} s (process 0, "
        f"and {len(came)} other(s){others}). Is each of the others started, and can it reach "
        f"{address}? If not all run, {advice}."
    )


def process_count() -> int:
    """How many processes are connected; 1 before `connect`. No device is taken."""
    return global_state.num_processes if jax.distributed.is_initialized() else 1


def process_index() -> int:
    """Which of them this is, from 0. No device is taken."""
    return global_state.process_id if jax.distributed.is_initialized() else 0


def key_value_store() -> Any:
    """The client of the store that process 0 holds; None before `connect`."""
    return global_state.client


def _port(group: Group) -> int:
    return int((group.coordinator or global_state.coordinator_address or ":0").rpartition(":")[2])


def _callers(port: int) -> list[str]:
    """Addresses of the other processes that are connected to a port of this one."""
    connections = psutil.Process().net_connections("tcp")
    ours = {tuple(c.laddr) for c in connections}  # process 0 calls itself, too
    here = [c for c in connections if c.laddr.port == port]
    calls = [c for c in here if c.status == psutil.CONN_ESTABLISHED]
    return [call.raddr.ip for call in calls if tuple(call.raddr) not in ours]
