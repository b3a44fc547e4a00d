"""Signals that ask for an end: noted while there is work to save, and obeyed at once before.

Ctrl-C, SIGTERM, and the warnings that Slurm, submitit and a closed terminal send. Python runs a
handler only when the main thread is between two of its instructions, which a compilation keeps it
from for minutes; so a command hears its signals in a thread of its own.
"""

import os
import signal
import threading
from collections.abc import Callable, Collection
from types import FrameType
from typing import Any

from clevit_jax.system import output

STOPPED = 75  # exit code: what was done is saved, run again to go on (sysexits' EX_TEMPFAIL)
_NAMES = ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGXCPU", "SIGQUIT")
ENDING = tuple(getattr(signal, name) for name in _NAMES if hasattr(signal, name))  # of this system
# A second one of these ends a process at once. Of the others, two in a row say no more than one: a
# terminal that is closed sends SIGHUP, and so does its shell.
_INSISTING = (signal.SIGINT, signal.SIGTERM)


class Signals:
    """While entered, the signals of `ENDING` are noted instead of ending the process.

    A signal that the process was started without (`nohup` takes SIGHUP away) is left alone, but
    for Ctrl-C and SIGTERM. Outside the main thread, where Python sets no handlers, nothing is
    changed.

    Args:
        again: what a second Ctrl-C or SIGTERM does; called with the number of the signal. It ends
            the process when None.
        but: signals that are left alone.

    Attributes:
        received: whether one has come.
    """

    def __init__(
        self, again: Callable[[int], None] | None = None, *, but: Collection[int] = ()
    ) -> None:
        self.received = False
        self._numbers = [number for number in ENDING if number not in but]
        self._again = again or _end_by
        self._heard: Callable[[], None] = lambda: None
        self._seen: set[int] = set()
        self._before: dict[int, Any] = {}
        self._lock = threading.Lock()
        self._sentence = ""  # said when a signal ends the process at once; "" notes it only
        self._threaded = False

    def __enter__(self) -> "Signals":
        if threading.current_thread() is threading.main_thread():
            for number in self._numbers:
                ignored = signal.getsignal(number) == signal.SIG_IGN
                if number in _INSISTING or not ignored:
                    self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before.clear()

    def handler_before(self, number: int) -> Any:
        """The handler that a signal had before this was entered."""
        return self._before.get(number, signal.SIG_DFL)

    def tell(self, heard: Callable[[], None], again: Callable[[int], None] | None = None) -> None:
        """From now on calls `heard` at the first signal, and `again` as `Signals` does."""
        self._heard, self._again = heard, again or self._again

    def listen(self) -> None:
        """Hears signals in a thread from now on, whatever the main thread does."""
        reading, writing = os.pipe()
        os.set_blocking(writing, False)
        signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
        self._threaded = True
        threading.Thread(target=self._follow, args=(reading,), daemon=True).start()

    def end_at_once(self, sentence: str) -> None:
        """From now on a signal prints this and ends the process: there is nothing to save.

        The exit code is `STOPPED`. Only where signals are heard in a thread.
        """
        with self._lock:
            self._sentence = sentence

    def note_only(self) -> None:
        """From now on a signal is noted: there is something to save."""
        with self._lock:
            self._sentence = ""

    def _handle(self, number: int, _: FrameType | None) -> None:
        if not self._threaded:
            self._note(number)

    def _follow(self, reading: int) -> None:
        while numbers := os.read(reading, 64):
            for number in numbers:
                self._note(number)

    def _note(self, number: int) -> None:
        if number not in self._before:  # another's, such as a timer
            return
        if number in self._seen and number in _INSISTING:
            self._again(number)
        self._seen.add(number)
        self.ask()

    def ask(self) -> None:
        """Asks for an end, as a first signal does."""
        if self._threaded:
            with self._lock:
                if self._sentence:
                    end(self._sentence, STOPPED)
        if not self.received:
            self.received = True
            self._heard()


_taken: Signals | None = None  # those of a command, from its start to its end


def take() -> None:
    """Takes the signals of a command, from its first line to its end. For the main thread."""
    global _taken
    _taken = Signals(_end_now)
    _taken.end_at_once("Stopped before it began; run the same command to go on.")
    _taken.__enter__()
    _taken.listen()


def taken() -> Signals | None:
    """The signals that the command of this process took, None where there is none."""
    return _taken


def give_back() -> None:
    """Undoes `take`, for a command with nothing to save: signals end it, as they end any.

    But for Ctrl-C inside XLA's compiler: an exception there ends jaxlib 0.10.2 in a segmentation
    fault, so the process ends by itself.
    """
    global _taken
    if _taken is None:
        return
    _taken.__exit__()
    signal.set_wakeup_fd(-1)
    _taken = None
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _interrupt)


def _interrupt(number: int, frame: FrameType | None) -> None:
    """Python's own handler of Ctrl-C, but inside XLA's compiler."""
    caller = frame
    while caller is not None:
        if caller.f_globals.get("__name__") == "jax._src.compiler":
            end("Stopped; run the same command to go on.", 128 + number)
        caller = caller.f_back
    signal.default_int_handler(number, frame)


def _end_by(number: int) -> None:
    """Ends this process by a signal."""
    signal.signal(number, signal.SIG_DFL)
    signal.raise_signal(number)


def _end_now(number: int) -> None:
    """The same from a thread, which can set no handlers: a shell sees one code for both."""
    output.last_words()
    os._exit(128 + number)


def end(sentence: str, code: int) -> None:
    """Prints a sentence and ends this process, from any thread and whatever the others do."""
    output.last_words(f"\n{sentence}")
    os._exit(code)
