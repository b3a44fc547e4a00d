"""A stop that a signal asks for, and that all processes make at the same place."""

import os
import signal
from types import TracebackType

from clevit_jax.distributed import processes
from clevit_jax.system import signals
from clevit_jax.system.progress import in_notebook
from clevit_jax.system.signals import STOPPED, Signals

__all__ = ["STOPPED", "Interrupted", "Stop"]


class Interrupted(Exception):  # noqa: N818 - not an error: the caller asked for it
    """A signal ended what was being done."""


class Stop:
    """While entered, signals (`signals.ENDING`) ask for a stop instead of ending the process.

    One process looks at its own signals; a second Ctrl-C or SIGTERM ends it at once. In a notebook
    a second Ctrl-C ends the cell alone, since the kernel holds the user's other variables. Among
    several, JAX's preemption service takes SIGTERM (and what else it hears of a machine that is to
    be taken away) and picks a place that no process has passed yet; the other signals count as
    SIGTERM. A place is a call of `asked`.

    Where the command took the signals (`signals.take`), they are those: one that came before is
    not lost, and before there is anything to save, one ends the process at once.

    Outside the main thread, where Python sets no handlers, nothing is changed.
    """

    def __init__(self) -> None:
        taken = signals.taken()
        # JAX has taken SIGTERM of several processes.
        but = (signal.SIGTERM,) if processes.count() > 1 else ()
        self._own = Signals(self._again, but=but) if taken is None else None
        self._signals = self._own or taken or Signals()
        self._agreed = False
        self._places = 0

    def __enter__(self) -> "Stop":
        if self._own is not None:
            self._own.__enter__()
        if processes.count() > 1:
            self._signals.tell(_pass_on)
            if self._signals.received:  # before JAX listened
                _pass_on()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._signals.tell(lambda: None)
        if self._own is not None:
            self._own.__exit__()

    def _again(self, number: int) -> None:
        handler = self._signals.handler_before(number) if in_notebook() else signal.SIG_DFL
        signal.signal(number, handler)
        signal.raise_signal(number)

    def nothing_to_save(self, sentence: str) -> None:
        """From now on a signal ends a command of one process at once, with this sentence."""
        if processes.count() == 1:
            self._signals.end_at_once(sentence)
        else:
            self._signals.note_only()

    def something_to_save(self) -> None:
        """From now on a signal is noted, and `asked` tells."""
        self._signals.note_only()

    def asked(self) -> bool:
        """Whether to stop here. Several processes must ask at the same places in the same order."""
        if processes.count() == 1:
            return self._signals.received
        # Imported here, since it asks for JAX's devices, which one process takes later.
        from jax.experimental import multihost_utils

        self._places += 1
        self._agreed |= multihost_utils.reached_preemption_sync_point(self._places)
        return self._agreed

    def check(self) -> None:
        """Raises Interrupted when one process is to stop here; several stop at `asked` alone."""
        if processes.count() == 1 and self._signals.received:
            raise Interrupted


def _pass_on() -> None:
    """Hands a signal to JAX's preemption service, which takes SIGTERM."""
    os.kill(os.getpid(), signal.SIGTERM)
