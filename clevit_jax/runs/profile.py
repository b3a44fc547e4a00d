"""A profile of some updates of a run, as xprof and Perfetto read it (`--profile_steps`)."""

import pathlib
import re
import tempfile
from collections.abc import Callable
from typing import Any

import jax
from absl import logging

from clevit_jax.distributed import processes
from clevit_jax.errors import ConfigError, first_line
from clevit_jax.system.own_files import OF_PROFILE, PROFILE_FOLDER


def read_steps(text: str) -> range:
    """`10:13` as the updates 10, 11 and 12, counted from 1 as in metrics.jsonl.

    Raises:
        ConfigError: it is something else.
    """
    found = re.fullmatch(r"([0-9]{1,18}):([0-9]{1,18})", text)
    updates = range(int(found[1]), int(found[2])) if found else range(0)
    if not updates or updates.start < 1:
        raise ConfigError(
            f"--profile_steps is {text!r}; it must be START:STOP with STOP above START and START "
            "at least 1, such as 10:13 for the updates 10, 11 and 12."
        )
    return updates


def check_updates(updates: range, workdir: pathlib.Path, total: int) -> None:
    """Raises ConfigError when there can be no profile of these updates, of a run of `total`."""
    if updates.start > total:
        first = min(10, total)
        raise ConfigError(
            f"--profile_steps={updates.start}:{updates.stop} begins after the last update of this "
            f"run, {total}, so there would be no profile; name earlier ones, such as "
            f"--profile_steps={first}:{min(first + 3, total + 1)}."
        )
    folder = workdir / PROFILE_FOLDER
    if folder.exists() and not (folder / OF_PROFILE).is_dir():
        raise ConfigError(
            f"{folder} is there and holds no profile, so none is written into it; name another "
            "--workdir, or leave --profile_steps out."
        )


class Profile:
    """Traces some updates of process 0, with all that the device does for them, and no others.

    The trace is taken on a disk of this machine and then put into the workdir. One that cannot be
    taken or written costs a word, not the run. What is computed is the same.

    Args:
        workdir: of the run.
        updates: which ones, counted from 1; those before `first` are past, and left out.
        first: the first update that this start makes.
        total: the last one.
        say: prints a line.
    """

    def __init__(
        self,
        workdir: pathlib.Path,
        updates: range,
        *,
        first: int,
        total: int,
        say: Callable[[str], None],
    ):
        self._folder = workdir / PROFILE_FOLDER
        self._say = say
        mine = updates if processes.index() == 0 else range(0)
        self._left = range(max(mine.start, first), min(mine.stop, total + 1))
        self._begun: int | None = None  # the first update in the trace that is being taken
        self._local: tempfile.TemporaryDirectory[str] | None = None
        if mine and not self._left:
            say(
                f"{_named(updates)} passed before this start, which goes on with update {first}: "
                "no profile."
            )

    def before(self, update: int, state: Any) -> None:
        """Begins the trace if this update is the first in it; `state` is what it starts from."""
        if update != self._left.start or not self._left:
            return
        jax.block_until_ready(state)  # what belongs to the updates before
        self._local = tempfile.TemporaryDirectory(prefix="clevit_jax_profile_")
        try:
            jax.profiler.start_trace(self._local.name)
        except RuntimeError as error:  # another trace is being taken
            self._give_up(error)
            return
        self._begun = update

    def after(self, update: int, state: Any) -> None:
        """Ends the trace if this update, which gave `state`, is the last in it."""
        if self._begun is not None and update == self._left.stop - 1:
            jax.block_until_ready(state)  # it was only begun
            self._end(update)

    def close(self, newest: int) -> None:
        """Ends a trace that the end of the run cut short, after the update `newest`."""
        if self._begun is not None:
            self._end(newest)
        elif self._left:
            print(f"The run ended before update {self._left.start}: no profile.", flush=True)
            self._left = range(0)

    def _end(self, last: int) -> None:
        assert self._begun is not None
        assert self._local is not None
        updates, self._begun, self._left = range(self._begun, last + 1), None, range(0)
        try:
            jax.profiler.stop_trace()
            _copy(pathlib.Path(self._local.name), self._folder)
        except (RuntimeError, OSError) as error:
            self._give_up(error)
            return
        self._local.cleanup()
        self._say(
            f"{_named(updates)} profiled: {self._folder}. To look at it: pip install xprof, then "
            f"xprof --logdir {self._folder}; or open its .trace.json.gz at https://ui.perfetto.dev."
        )

    def _give_up(self, error: Exception) -> None:
        assert self._local is not None
        self._left = range(0)
        self._local.cleanup()
        reason = first_line(error).rstrip(".")
        logging.error("No profile could be made: %s. Training goes on.", reason)


def _named(updates: range) -> str:
    if len(updates) == 1:
        return f"Update {updates.start}"
    return f"Updates {updates.start} to {updates.stop - 1}"


def _copy(source: pathlib.Path, target: pathlib.Path) -> None:
    """Puts the files of one folder into another, which may be in a bucket, by their bytes."""
    for path in sorted(source.rglob("*")):
        if path.is_file():
            copy = target / path.relative_to(source).as_posix()
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(path.read_bytes())
