"""Timing a step in a process of its own, so that no framework holds another's memory.

The parent sends lines of JSON to the child's standard input and reads one for each: first the
request, which the child answers when its step is compiled and warm; then, as often as it likes,
"time", answered by the seconds of a step. When the input ends, the child does.
"""

import contextlib
import dataclasses
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from typing import Any, TextIO

SAMPLE_SECONDS = 0.2  # at least, so that neither the clock nor a dispatch counts
ROUND_SECONDS = 1.0  # that the samples of a round shall last
MAX_SAMPLES = 5  # of a round
_CLOSE_SECONDS = 30  # that a child may take to end


class OutOfMemory(Exception):  # noqa: N818 - the end of a series, not a mistake
    """A step does not fit; the message is a sentence without its full stop."""


@dataclasses.dataclass(frozen=True)
class Prepared:
    """A step that is compiled and warm.

    Attributes:
        run: runs a number of steps and waits until the device is done.
        step_seconds: of the last step of the warm-up, to plan samples by.
        facts: a JSON object for the parent.
    """

    run: Callable[[int], None]
    step_seconds: float
    facts: dict[str, Any]


def warm_up(
    run: Callable[[int], None], clock: Callable[[], float] = time.perf_counter
) -> tuple[float, float]:
    """Runs two steps; returns the seconds of each."""
    times = [clock()]
    for _ in range(2):
        run(1)
        times.append(clock())
    return times[1] - times[0], times[2] - times[1]


def sample(prepared: Prepared, clock: Callable[[], float] = time.perf_counter) -> list[float]:
    """Seconds per step of a few samples; each is one step, or as many as fill `SAMPLE_SECONDS`.

    Within a sample the host does not wait for each step, as it does not in training.
    """
    step = max(prepared.step_seconds, 1e-6)
    steps = max(1, math.ceil(SAMPLE_SECONDS / step))
    samples = min(MAX_SAMPLES, max(1, round(ROUND_SECONDS / (steps * step))))
    seconds = []
    for _ in range(samples):
        started = clock()
        prepared.run(steps)
        seconds.append((clock() - started) / steps)
    return seconds


def serve(prepare: Callable[[dict[str, Any]], Prepared], lines: TextIO, say: TextIO) -> None:
    """The child's side: answers a request, then times its step as often as it is asked.

    Args:
        prepare: makes the step of a request; raises OutOfMemory where it does not fit, and
            ValueError, in one sentence, where it cannot be made.
        lines: from the parent.
        say: to the parent; nothing else may write to it.
    """

    def answer(reply: dict[str, Any]) -> None:
        say.write(json.dumps(reply) + "\n")
        say.flush()

    try:
        prepared = prepare(json.loads(lines.readline()))
        answer({"ready": prepared.facts})
        for _ in lines:
            answer({"seconds": sample(prepared)})
    except OutOfMemory as error:
        answer({"out_of_memory": str(error)})
    except ValueError as error:
        answer({"error": str(error)})


def serve_process(prepare: Callable[[dict[str, Any]], Prepared]) -> None:
    """`serve` on the standard streams; what libraries print goes to the standard error."""
    say = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    serve(prepare, sys.stdin, say)


class TimedProcess:
    """The parent's side of a child, which `close` ends.

    Args:
        module: that calls `serve_process`.
        request: what to prepare.
        environ: variables to set for the child.
    """

    def __init__(
        self, module: str, request: dict[str, Any], environ: Mapping[str, str] | None = None
    ) -> None:
        self._errors = tempfile.TemporaryFile("w+", errors="replace")  # noqa: SIM115 - see `close`
        self._child = subprocess.Popen(
            [sys.executable, "-m", module],
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env={**os.environ, **(environ or {})},
        )
        self.reply = self._ask(request)

    def time(self) -> dict[str, Any]:
        """`seconds`, a list, or why there are none; see `serve`."""
        return self._ask("time")

    def _ask(self, message: Any) -> dict[str, Any]:
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            self._child.stdin.write(json.dumps(message) + "\n")
            self._child.stdin.flush()
        line = self._child.stdout.readline()
        return json.loads(line) if line else self._death()

    def _death(self) -> dict[str, Any]:
        code = self._child.wait()
        if code == -9:
            return {"out_of_memory": "killed, as a system does when its memory runs out"}
        self._errors.seek(0)
        said = self._errors.read().strip().splitlines() or ["it said nothing"]
        return {"error": f"ended with code {code}: {said[-1][:300]}"}

    def close(self) -> None:
        """Ends the child."""
        for stream in (self._child.stdin, self._child.stdout):
            if stream is not None:
                with contextlib.suppress(BrokenPipeError):
                    stream.close()
        try:
            self._child.wait(_CLOSE_SECONDS)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()
        self._errors.close()
