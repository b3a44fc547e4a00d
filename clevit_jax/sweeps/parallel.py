"""Several seeds at a time, each a process with devices of its own.

The parent never touches a device: a short process of its own counts them. A child reads what to
train from its standard input, which the parent then leaves open. When the parent is gone, however
it ended, that input ends too, and the child stops itself as by SIGTERM: it saves and exits. While
a child lives it holds a lock on its log.txt, so that no second process trains into its folder.
"""

import contextlib
import dataclasses
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from ml_collections import ConfigDict

from clevit_jax import train
from clevit_jax.config import restore_config
from clevit_jax.errors import CheckpointError, ConfigError, DataError, TrainingError
from clevit_jax.system.logging import quiet

LOG = "log.txt"
REFUSED, DIVERGED = 2, 3  # exit codes of a child beside those of `train.train`
_COUNT = """
import jax, json
devices = jax.local_devices()
platform = devices[0].platform
# Some TPU chips are two devices each; chips are what a process can have.
chips = {tuple(d.coords) for d in devices} if platform == "tpu" else devices
print(json.dumps([platform, len(chips)]))
"""
# How so many chips lie, as libtpu wants it said; no other number of them can be had.
_TPU_BOUNDS = {1: "1,1,1", 2: "1,2,1", 4: "2,2,1", 8: "2,4,1"}
_TPU_PORT = 8476


def count_devices() -> tuple[str, int]:
    """Platform ("cpu", "gpu", "tpu") and number of devices (TPU: chips) of this machine.

    Raises:
        ConfigError: JAX finds none.
    """
    done = subprocess.run([sys.executable, "-c", _COUNT], capture_output=True, text=True)
    if done.returncode:
        said = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise ConfigError(f"The devices cannot be counted: {said[-1]}")
    platform, count = json.loads(done.stdout.strip().splitlines()[-1])
    return platform, count


def share_devices(
    platform: str, count: int, parallel: int, environ: Mapping[str, str]
) -> list[dict[str, str]]:
    """Splits the devices of a machine into equal shares.

    Args:
        platform: "cpu", "gpu" or "tpu".
        count: devices, or chips of a TPU.
        parallel: shares that are wanted.
        environ: the environment; a choice of devices in it is what is split.

    Returns:
        For each share the variables that show a process these devices alone: CUDA's for GPUs, and
        libtpu's, as JAX's own tests of several processes set them, for TPU chips. Nothing for
        CPUs, which the processes share.

    Raises:
        ConfigError: there are fewer devices than shares.
    """
    if platform == "cpu":
        return [{} for _ in range(parallel)]
    if parallel > count:
        raise ConfigError(
            f"--parallel {parallel} needs a device for each seed, but there are only {count} "
            f"({platform}); ask for {count} at most."
        )
    if platform not in ("gpu", "tpu"):
        raise ConfigError(f"--parallel can share CPU, GPU and TPU, not {platform}; leave it out.")
    size = count // parallel
    name = "CUDA_VISIBLE_DEVICES" if platform == "gpu" else "TPU_VISIBLE_CHIPS"
    given = environ.get(name, "")
    visible = [part.strip() for part in given.split(",")] if given else map(str, range(count))
    devices = list(visible)
    if platform == "tpu":
        size = max(chips for chips in _TPU_BOUNDS if chips <= size)
    shares = [{name: ",".join(devices[k * size : (k + 1) * size])} for k in range(parallel)]
    if platform == "tpu":
        for k, share in enumerate(shares):
            share |= {
                "TPU_CHIPS_PER_PROCESS_BOUNDS": _TPU_BOUNDS[size],
                "TPU_PROCESS_BOUNDS": "1,1,1",  # each is a machine of one process to itself
                "TPU_PROCESS_ADDRESSES": f"localhost:{_TPU_PORT + k}",
                "TPU_PROCESS_PORT": str(_TPU_PORT + k),
                "CLOUD_TPU_TASK_ID": "0",
                "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
            }
    return shares


def check_idle(folder: pathlib.Path) -> None:
    """Raises ConfigError when a child is training in the folder."""
    if (folder / LOG).exists():
        with (folder / LOG).open("rb") as file:
            _lock(file, folder)


def _lock(file: Any, folder: pathlib.Path) -> None:
    """Locks an open log, until it and all that inherited it are closed."""
    import fcntl  # not on every system that can train one seed after the other

    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise ConfigError(
            f"Another process is training in {folder}; wait until it has ended, or stop it."
        ) from None


@dataclasses.dataclass(frozen=True)
class _Child:
    """A process that trains one seed."""

    seed: int
    share: int
    folder: pathlib.Path
    process: subprocess.Popen[bytes]
    log_start: int  # bytes that earlier processes wrote

    def last_words(self) -> str:
        """Why it failed, in a sentence where it said one."""
        data = (self.folder / LOG).read_bytes()[self.log_start :]
        text = data.decode("utf-8", "replace")
        code = self.process.returncode
        if code in (REFUSED, DIVERGED):
            errors = re.split(r"(?:^|[\r\n])error: ", text)
            if len(errors) > 1:
                return errors[-1].strip()
        how = f"it ended with code {code}"
        if code < 0:
            how = f"it was ended by {signal.Signals(-code).name}"
        lines = [line.strip() for line in re.split(r"[\r\n]", text) if line.strip()]
        said = f"its last line is {lines[-1]!r}" if lines else "it said nothing"
        return f"{how}; {said} ({self.folder / LOG})."

    def close(self) -> None:
        """Ends its standard input, which stops it if it still runs."""
        if self.process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self.process.stdin.close()

    def forget(self) -> None:
        """Removes the folder if it holds nothing but the log of a refusal, which is passed on."""
        if self.process.returncode == REFUSED and os.listdir(self.folder) == [LOG]:
            (self.folder / LOG).unlink()
            self.folder.rmdir()
            with contextlib.suppress(OSError):  # others have begun
                self.folder.parent.rmdir()


def _spawn(
    seed: int, config: ConfigDict, folder: pathlib.Path, share: int, variables: dict[str, str]
) -> _Child:
    """Starts a child. Raises ConfigError when another trains in its folder, or none can."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{folder} cannot be written: {error.strerror or error}.") from error
    with (folder / LOG).open("ab") as log:
        _lock(log, folder)
        process = subprocess.Popen(
            [sys.executable, "-m", "clevit_jax.sweeps.parallel"],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, **variables},
            # Ctrl-C reaches the parent alone, or a child would get two signals and not save.
            start_new_session=True,
        )
        start = log.tell()
    assert process.stdin is not None
    order = {"config": config.to_dict(), "folder": str(folder), "command": sys.argv}
    with contextlib.suppress(BrokenPipeError):  # it ended at once; its exit code tells
        process.stdin.write(json.dumps(order).encode() + b"\n")
        process.stdin.flush()
    return _Child(seed, share, folder, process, start)


def train_in_parallel(
    configs: Mapping[int, ConfigDict],
    folders: Mapping[int, pathlib.Path],
    shares: list[dict[str, str]],
    finished: Callable[[int], None],
) -> dict[int, str]:
    """Trains seeds, as many at a time as there are shares; prints a line for each event.

    SIGTERM and Ctrl-C are passed on to the children, which save, and are waited for. A seed whose
    gradients stay non-finite fails by itself; after any other failure no seed is begun any more.

    Args:
        configs: of each seed.
        folders: of each seed.
        shares: of `share_devices`.
        finished: called with each seed that is finished.

    Returns:
        For each seed that failed its sentence. Those that are neither finished nor failed were
        stopped or not begun.
    """
    waiting, free = list(configs), list(range(len(shares)))
    running: list[_Child] = []
    failed: dict[int, str] = {}
    hopeless, passed = False, 0
    with _signals() as received:
        try:
            while running or (waiting and not received and not hopeless):
                while waiting and free and not received and not hopeless:
                    seed, share = waiting.pop(0), free.pop(0)
                    child = _spawn(seed, configs[seed], folders[seed], share, shares[share])
                    running.append(child)
                    _say(seed, f"started, process {child.process.pid}", child.folder / LOG)
                for child in [c for c in running if c.process.poll() is not None]:
                    running.remove(child)
                    child.close()
                    free.append(child.share)
                    code = child.process.returncode
                    if code == 0:
                        finished(child.seed)
                    elif code == train.STOPPED or (received and code == -signal.SIGTERM):
                        _say(child.seed, "stopped", child.folder / LOG)
                    else:
                        failed[child.seed] = child.last_words()
                        hopeless |= code != DIVERGED
                        child.forget()
                        _say(child.seed, f"failed: {failed[child.seed]}")
                if len(received) > passed:
                    passed = len(received)
                    print(f"Stopping {len(running)} seed(s), which save first.", flush=True)
                    for child in running:
                        child.process.terminate()
                time.sleep(0.1)
        finally:  # with an error of the parent's own, too
            for child in running:
                child.close()
                child.process.wait()
    return failed


def _say(seed: int, event: str, log: pathlib.Path | None = None) -> None:
    print(f"Seed {seed} {event}{f' ({log})' if log else ''}", flush=True)


@contextlib.contextmanager
def _signals() -> Iterator[list[int]]:
    """A list of the SIGTERM and Ctrl-C that came."""
    received: list[int] = []
    before = {
        number: signal.signal(number, lambda number, _: received.append(number))
        for number in (signal.SIGTERM, signal.SIGINT)
    }
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _child() -> int:
    """The process of one seed: what to train comes by standard input. Returns the exit code."""
    order = json.loads(sys.stdin.buffer.readline())
    sys.argv = order["command"]  # for run.json
    threading.Thread(target=_follow_parent, daemon=True).start()
    quiet()
    try:
        return train.train(restore_config(order["config"]), pathlib.Path(order["folder"]))
    except TrainingError as error:
        print(f"error: {error}", file=sys.stderr)
        return DIVERGED
    except (ConfigError, DataError, CheckpointError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return REFUSED


def _follow_parent() -> None:
    """Stops this process, as a signal would, when the parent is gone."""
    while os.read(0, 1):  # not by sys.stdin, which would be locked when the process ends
        pass
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(_child())
