"""Kills of a small run at random moments, for tools/try_mishaps.py."""

import collections
import contextlib
import dataclasses
import hashlib
import json
import pathlib
import random
import signal
import sys
import threading
import time
from typing import Any

from tools.mishap_run import LIMIT, PHASES, STOPPED, TINY, TOTAL, Process

SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
# Every start has these, so the second signal of a run may come in them, wherever the first did.
EARLY = PHASES[:3]
TIMING = ("train/images_per_second", "train/data_wait")  # numbers that two runs never share
STARTS = 6  # of one run, at most
LOOK = 0.003  # seconds between two looks at a run


@dataclasses.dataclass(eq=False)
class Shot:
    """One signal.

    Attributes:
        number: of the signal.
        phase: that it is meant for.
        hit: that it came in; "" as long as it has not.
        outcome: the exit code, and what was wrong.
    """

    number: signal.Signals
    phase: str
    hit: str = ""
    outcome: str = ""

    @property
    def failed(self) -> bool:
        return bool(self.outcome) and not self.outcome.endswith("ok")


class Kills:
    """The trial `kills`; `place` is a folder that is there for it alone."""

    def __init__(self, place: pathlib.Path, seed: int, count: int):
        self._place = place
        self._random = random.Random(seed)
        self._lock = threading.Lock()  # JAX reads one checkpoint at a time
        # Each signal comes in each phase after 32.
        shots = [
            Shot(SIGNALS[k % len(SIGNALS)], PHASES[(k + k // len(SIGNALS)) % len(PHASES)])
            for k in range(count)
        ]
        self._random.shuffle(shots)
        pairs = [shots[k : k + 2] for k in range(0, count, 2)]
        # A phase that only comes once is shot at first.
        self.runs = [sorted(pair, key=lambda shot: shot.phase in EARLY) for pair in pairs]
        self._seconds: dict[str, float] = {}
        self._alone: dict[str, Any] = {}
        self._like: Any = None  # shapes of the state

    def leave_alone(self) -> None:
        """The run to compare with; a first one compiles."""
        for name in ("compiling", "alone"):
            start, now = time.monotonic(), "import"
            seconds = collections.defaultdict[str, float](float)
            process = Process(self._place / name, TINY, self._place)
            while process.code() is None:
                phase = process.phase()
                if phase != now:
                    seconds[now] += time.monotonic() - start
                    start, now = time.monotonic(), phase
                time.sleep(LOOK)
            seconds[now] += time.monotonic() - start
            if process.end() != 0:
                raise SystemExit(f"The run that was left alone failed:\n{process.text()}")
        # A save is one of many, the others of a phase come together.
        seconds["saving"] /= TOTAL / TINY["checkpoint.every_steps"]
        self._seconds = dict(seconds)
        self._alone = self._results(self._place / "alone")
        print("Seconds of its phases:", {k: round(v, 2) for k, v in self._seconds.items()})

    def again(self) -> range:
        """Enters a run for each signal that has missed; returns their indices."""
        first = len(self.runs)
        missed = [shot for run in self.runs for shot in run if not (shot.hit or shot.outcome)]
        self.runs = [[shot for shot in run if shot not in missed] for run in self.runs]
        self.runs += [[shot] for shot in missed]
        return range(first, len(self.runs))

    def run(self, index: int) -> None:
        """One run with its two signals, or with one."""
        workdir, shots = self._place / f"run{index}", self.runs[index]
        waiting = list(shots)
        for _ in range(STARTS):
            process = Process(workdir, TINY, self._place)
            shot = waiting.pop(0) if waiting else None
            if shot is not None and self._shoot(process, shot):
                self._judge(process, shot)
                continue
            code = process.end()
            if code == 0 and "Traceback" not in process.text():
                break  # what is left waiting gets a run of its own
            if code != 0:
                shots[-1].outcome += f" goes on with {code}: {process.text()[-300:]}"
                break
        else:
            shots[-1].outcome += f" is not finished after {STARTS} starts"
        self._compare(workdir, shots[-1])

    def _shoot(self, process: Process, shot: Shot) -> bool:
        """Sends the signal somewhere in its phase; False when the process ended before."""
        limit = time.monotonic() + LIMIT
        while process.code() is None and time.monotonic() < limit:
            if process.phase() == shot.phase:
                time.sleep(self._random.random() * self._seconds.get(shot.phase, 0.01))
                shot.hit = process.phase() if process.hears() else "Python"
                if process.code() is not None:
                    shot.hit = ""
                    return False
                process.send(shot.number)
                return True
            time.sleep(LOOK)
        return False

    def _judge(self, process: Process, shot: Shot) -> None:
        code = process.end()
        expected: tuple[int | None, ...] = (STOPPED, 0)  # 0: it was about to end
        if shot.number == signal.SIGKILL:
            expected = (-signal.SIGKILL, 0)
        known = code in expected or (shot.hit == "Python" and code is not None)
        shot.outcome = f"{code}" if code is not None else "hangs"
        if not known:
            shot.outcome += f" UNEXPECTED: {process.text()[-300:]!r}"
        elif shot.hit != "Python" and "Traceback" in process.text():
            shot.outcome += f" TRACEBACK: {process.text()[-300:]!r}"
        else:
            shot.outcome += " ok"

    def _compare(self, workdir: pathlib.Path, shot: Shot) -> None:
        try:
            results = self._results(workdir)
        except Exception as error:  # whatever is wrong with the run is what is looked for
            shot.outcome += f" UNREADABLE: {error!r}"
            return
        for name, value in self._alone.items():
            if results[name] != value:
                shot.outcome += f" OTHER {name}"
                print(f"{workdir.name}, {name}: {results[name]}\nalone: {value}", file=sys.stderr)

    def _results(self, workdir: pathlib.Path) -> dict[str, Any]:
        """What must be the same: arrays of the last checkpoint, metrics, scores."""
        lines = (workdir / "metrics.jsonl").read_text().splitlines()
        metrics = [{k: v for k, v in json.loads(x).items() if k not in TIMING} for x in lines]
        evaluation = json.loads((workdir / "evaluation.json").read_text())
        del evaluation["written"]  # when
        if not (workdir / "report.html").stat().st_size:
            raise ValueError("report.html is empty")
        with self._lock:
            arrays = self._digests(workdir)
        return {"arrays": arrays, "metrics": metrics, "evaluation": evaluation}

    def _digests(self, workdir: pathlib.Path) -> dict[str, str]:
        """A hash of every array of the last checkpoint, by name."""
        import jax
        import numpy as np

        from clevit_jax.runs.checkpoint import Checkpoints
        from clevit_jax.runs.setup import prepare_run
        from clevit_jax.runs.workdir import load_config

        if self._like is None:
            self._like = prepare_run(load_config(workdir), workdir).steps.abstract_state
        folder = workdir / "checkpoints"
        with contextlib.closing(Checkpoints(folder, keep=1, read_only=True)) as checkpoints:
            state, _ = checkpoints.restore(TOTAL, self._like)
        leaves = jax.tree_util.tree_leaves_with_path(jax.device_get(state))
        return {
            jax.tree_util.keystr(path): hashlib.sha256(np.asarray(leaf).tobytes()).hexdigest()
            for path, leaf in leaves
        }
