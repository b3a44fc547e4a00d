"""SIGTERM and Ctrl-C: a stop that all processes make at the same place."""

import os
import signal
import threading
from types import TracebackType
from typing import Any

from jax.experimental import multihost_utils

from clevit_jax.distributed import processes
from clevit_jax.system.progress import in_notebook

STOPPED = 75  # exit code after SIGTERM or Ctrl-C: saved, run again to go on (sysexits' EX_TEMPFAIL)


class Stop:
    """While entered, SIGTERM and Ctrl-C ask for a stop instead of ending the process.

    One process looks at its own signals; a second signal ends it at once. In a notebook a second
    Ctrl-C ends the cell alone, since the kernel holds the user's other variables. Among several,
    JAX's preemption service takes SIGTERM (and what else it hears of a machine that is to be taken
    away) and picks a place that no process has passed yet; Ctrl-C counts as SIGTERM. A place is
    a call of `asked`.

    Outside the main thread, where Python sets no handlers, nothing is changed.
    """

    def __init__(self) -> None:
        self._received = self._agreed = False
        self._places = 0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "Stop":
        numbers = [signal.SIGINT] if processes.count() > 1 else [signal.SIGINT, signal.SIGTERM]
        if threading.current_thread() is not threading.main_thread():
            numbers = []
        self._before = {number: signal.signal(number, self._handle) for number in numbers}
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, number: int, _: Any) -> None:
        if self._received:
            signal.signal(number, self._before[number] if in_notebook() else signal.SIG_DFL)
            signal.raise_signal(number)
        self._received = True
        if processes.count() > 1:
            os.kill(os.getpid(), signal.SIGTERM)

    def asked(self) -> bool:
        """Whether to stop here. Several processes must ask at the same places in the same order."""
        if processes.count() == 1:
            return self._received
        self._places += 1
        self._agreed |= multihost_utils.reached_preemption_sync_point(self._places)
        return self._agreed
