"""Child processes that train one seed each, one or several at a time.

A child reads what to train from its standard input, which the parent then leaves open. When the
parent is gone, however it ended, that input ends too, and the child stops itself as by a signal: it
saves and exits. While a child lives it holds a lock on its log.txt, so that no second process
trains into its folder; on a system without such locks (`fcntl`: Windows) nothing keeps a second
command out.
"""

import codecs
import contextlib
import dataclasses
import getpass
import hashlib
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from ml_collections import ConfigDict

from clevit_jax.config import restore_config
from clevit_jax.distributed.preemption import STOPPED
from clevit_jax.errors import STALLED, ClevitError, ConfigError, StorageError, TrainingError
from clevit_jax.system import compilation_cache, faults, signals
from clevit_jax.system.logging import quiet_command
from clevit_jax.system.output import LOG_FILE as LOG
from clevit_jax.system.places import in_bucket, run_place

try:
    import fcntl
except ModuleNotFoundError:  # Windows
    fcntl = None  # type: ignore[assignment]

# Exit codes of a child besides 0 and `STOPPED`; those of `faults.tell` are 2 and `STALLED`.
REFUSED, DIVERGED = 2, 3


def check_locks() -> None:
    """Raises ConfigError on a system without file locks, where seeds are trained one by one."""
    if fcntl is None:
        raise ConfigError(
            "--parallel needs file locks (Python's fcntl), which this system lacks; leave it out, "
            "and the seeds are trained one at a time."
        )


def _log_of(folder: pathlib.Path) -> pathlib.Path:
    """The log of a child, which is locked while it trains: in its folder, or for a bucket here."""
    if not in_bucket(folder):
        return folder / LOG
    name = hashlib.sha256(str(folder).encode()).hexdigest()[:16]
    here = pathlib.Path(tempfile.gettempdir(), f"clevit_jax-{getpass.getuser()}", name)
    here.mkdir(mode=0o700, parents=True, exist_ok=True)
    return here / LOG


def check_idle(folder: pathlib.Path) -> None:
    """Raises ConfigError when a child is training in the folder."""
    if _log_of(folder).exists():
        with _log_of(folder).open("rb") as file:
            _lock(file, folder)


def _lock(file: Any, folder: pathlib.Path) -> None:
    """Locks an open log, until it and all that inherited it are closed."""
    if fcntl is None:
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise ConfigError(
            f"Another process is training in {folder}; wait until it has ended, or stop it."
        ) from None


class _Echo:
    """Repeats on standard output what a child appends to its log.

    Args:
        log: the log.
        start: bytes to leave out.
    """

    def __init__(self, log: pathlib.Path, start: int):
        self._file = log.open("rb")
        self._file.seek(start)
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._begun = ""  # a line that is not ended
        self._bar = ""  # what a terminal shows of it

    def repeat(self, *, last: bool = False) -> None:
        """Prints what is new: whole lines, and on a terminal the bar below them.

        Args:
            last: nothing will follow; closes the log.
        """
        text = self._begun + self._decoder.decode(self._file.read(), final=last)
        *lines, self._begun = text.split("\n")
        if last:
            self._file.close()
            lines, self._begun = [*lines, *([self._begun] if self._begun else [])], ""
        # A bar is written over itself, with a carriage return before it.
        text = "".join(f"{line.rstrip(chr(13)).rpartition(chr(13))[2]}\n" for line in lines)
        bar = next((part for part in reversed(self._begun.split("\r")) if part.strip()), "")
        if sys.stdout.isatty() and (text or bar != self._bar):
            self.wipe()
            text, self._bar = text + bar[: _columns()], bar
        print(text, end="", flush=True)

    def wipe(self) -> None:
        """Takes the bar away, so that a line may be printed in its place."""
        if self._bar:
            print(f"\r{'':{_columns()}}\r", end="", flush=True)
            self._bar = ""


def _columns() -> int:
    """Characters that fit on a line of the terminal without a new one being begun."""
    return shutil.get_terminal_size().columns - 1


@dataclasses.dataclass(frozen=True)
class _Child:
    """A process that trains one seed."""

    seed: int
    share: int
    folder: pathlib.Path
    process: subprocess.Popen[bytes]
    log_start: int  # bytes that earlier processes wrote
    echo: _Echo | None

    def last_words(self) -> str:
        """Why the child failed: its own sentence, or how it ended."""
        data = _log_of(self.folder).read_bytes()[self.log_start :]
        text = data.decode("utf-8", "replace")
        code = self.process.returncode
        if code in (REFUSED, DIVERGED, STALLED):
            errors = re.split(r"(?:^|[\r\n])error: ", text)
            if len(errors) > 1:
                return errors[-1].strip()
        how = f"it ended with code {code}"
        if code < 0:
            how = f"it was ended by {signal.Signals(-code).name}"
        lines = [line.strip() for line in re.split(r"[\r\n]", text) if line.strip()]
        said = f"its last line is {lines[-1]!r}" if lines else "it said nothing"
        return f"{how}; {said} ({_log_of(self.folder)})."

    def close(self) -> None:
        """Ends its standard input, which stops it if it still runs."""
        if self.process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self.process.stdin.close()

    def repeat(self, *, last: bool = False) -> None:
        """Prints what it wrote to its log since, where that is wanted."""
        if self.echo:
            self.echo.repeat(last=last)

    def forget(self) -> None:
        """Removes the folder if it holds nothing but the log of a refusal, which is passed on."""
        if in_bucket(self.folder):  # it has no folders, and the log is here
            return
        if self.process.returncode == REFUSED and os.listdir(self.folder) == [LOG]:
            _log_of(self.folder).unlink()
            self.folder.rmdir()
            with contextlib.suppress(OSError):  # others have begun
                self.folder.parent.rmdir()


def _spawn(
    seed: int,
    config: ConfigDict,
    folder: pathlib.Path,
    share: int,
    variables: dict[str, str],
    *,
    echo: bool = False,
) -> _Child:
    """Starts a child. Raises ConfigError when another trains in its folder, or none can."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{folder} cannot be written: {error.strerror or error}.") from error
    with _log_of(folder).open("ab") as log:
        _lock(log, folder)
        process = subprocess.Popen(
            [sys.executable, "-m", "clevit_jax.sweeps.parallel"],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, **compilation_cache.child_environment(), **variables},
            # Ctrl-C reaches the parent alone, or a child would get two signals and not save.
            start_new_session=True,
        )
        start = log.tell()
    assert process.stdin is not None
    order = {"config": config.to_dict(), "folder": str(folder), "command": sys.argv}
    with contextlib.suppress(BrokenPipeError):  # it ended at once; its exit code tells
        process.stdin.write(json.dumps(order).encode() + b"\n")
        process.stdin.flush()
    repeated = _Echo(_log_of(folder), start) if echo else None
    return _Child(seed, share, folder, process, start, repeated)


def train_in_children(
    configs: Mapping[int, ConfigDict],
    folders: Mapping[int, pathlib.Path],
    shares: list[dict[str, str]],
    finished: Callable[[int], None],
) -> dict[int, ClevitError]:
    """Trains seeds, as many at a time as there are shares; prints a line for each event.

    Where there is one share, what the child prints is repeated here. Signals are passed on to the
    children, which save, and are waited for. A seed whose gradients stay non-finite
    fails by itself; after any other failure no seed is begun any more.

    Args:
        configs: by seed.
        folders: by seed.
        shares: environment variables of each, see `share_devices`.
        finished: called with each seed that is finished.

    Returns:
        For each seed that failed, an error that says why. Those that are neither finished nor
        failed were stopped or not begun.

    Raises:
        ConfigError: a folder cannot be written, or another process trains in it. Children that
            run are stopped, and waited for.
    """
    waiting, free = list(configs), list(range(len(shares)))
    running: list[_Child] = []
    failed: dict[int, ClevitError] = {}
    single, hopeless, passed = len(shares) == 1, False, 0
    with _signals() as received:
        try:
            while running or (waiting and not received and not hopeless):
                while waiting and free and not received and not hopeless:
                    seed, share = waiting.pop(0), free.pop(0)
                    config, folder = configs[seed], folders[seed]
                    child = _spawn(seed, config, folder, share, shares[share], echo=single)
                    running.append(child)
                    _say(seed, f"started, process {child.process.pid}", _log_of(child.folder))
                for child in [c for c in running if c.process.poll() is not None]:
                    running.remove(child)
                    free.append(child.share)
                    hopeless |= _end(child, failed, finished, signalled=bool(received))
                for child in running:
                    child.repeat()
                if len(received) > passed:
                    passed = len(received)
                    _stop(running)
                time.sleep(0.1)
        finally:  # with an error of the parent's own, too
            for child in running:
                child.close()
                child.process.wait()
    return failed


def _end(
    child: _Child,
    failed: dict[int, ClevitError],
    finished: Callable[[int], None],
    *,
    signalled: bool,
) -> bool:
    """Prints how a child ended, and adds it to `failed`; returns whether the others would fail."""
    child.close()
    child.repeat(last=True)
    code = child.process.returncode
    if code == 0:
        finished(child.seed)
    elif code == STOPPED or (signalled and code == -signal.SIGTERM):
        _say(child.seed, "stopped", _log_of(child.folder))
    else:
        kind = StorageError if code == STALLED else TrainingError
        failed[child.seed] = kind(child.last_words())
        child.forget()
        _say(child.seed, f"failed: {failed[child.seed]}")
        return code != DIVERGED
    return False


def _stop(running: list[_Child]) -> None:
    """Asks the children to save and to exit."""
    for child in running:
        if child.echo:
            child.echo.wipe()
    print(f"Stopping {len(running)} seed(s); each saves first.", flush=True)
    for child in running:
        child.process.terminate()


def _say(seed: int, event: str, log: pathlib.Path | None = None) -> None:
    print(f"Seed {seed} {event}{f' ({log})' if log else ''}", flush=True)


@contextlib.contextmanager
def _signals() -> Iterator[list[int]]:
    """A list that grows with the first signal that asks for an end, and with each that insists."""
    received: list[int] = []
    taken = signals.taken()
    with contextlib.nullcontext(taken) if taken else signals.Signals() as heard:
        heard.tell(lambda: received.append(0), received.append)
        heard.note_only()
        yield received


def _child() -> int:
    """The process of one seed: what to train comes by standard input. Returns the exit code."""
    signals.take()
    order = json.loads(sys.stdin.buffer.readline())
    sys.argv = order["command"]  # for run.json
    threading.Thread(target=_follow_parent, daemon=True).start()
    # Not in the parent, which needs none of it.
    from clevit_jax.runs.goodput import process_began
    from clevit_jax.train import train_workdir

    quiet_command()
    try:
        config, folder = restore_config(order["config"]), run_place(order["folder"])
        return train_workdir(config, folder, began=process_began())
    except TrainingError as error:
        print(f"error: {error}", file=sys.stderr)
        return DIVERGED
    except Exception as error:
        return faults.tell(error)


def _follow_parent() -> None:
    """Stops this process, as a signal does, when the parent is gone.

    Not by a signal: the parent may have sent SIGTERM before, and a second one ends a process
    unsaved.
    """
    while os.read(0, 1):  # not by sys.stdin, which would be locked when the process ends
        pass
    if (taken := signals.taken()) is not None:
        taken.ask()


if __name__ == "__main__":
    sys.exit(_child())
