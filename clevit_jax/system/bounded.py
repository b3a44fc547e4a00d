"""Calls that end in time, whatever the disk does."""

import concurrent.futures
import queue
import threading
from collections.abc import Callable
from typing import Any


class Bounded:
    """Calls functions one after the other, and waits for none longer than it may take.

    What hangs (a network disk that is gone) cannot be ended; it is left behind in its thread, and
    until it returns every further call is refused at once. One thread makes all calls, since some
    libraries keep what they have told to whom by thread; a call inside of a call is made there.

    Args:
        seconds: that a call may take.
    """

    def __init__(self, seconds: float):
        self._seconds = seconds
        self._tasks = queue.SimpleQueue[tuple[concurrent.futures.Future, Callable] | None]()
        self._thread: threading.Thread | None = None
        self._late: concurrent.futures.Future | None = None  # the call that took too long

    def hangs(self) -> bool:
        """Whether a call that took too long has still not returned."""
        return self._late is not None and not self._late.done()

    def call(self, function: Callable[[], Any], *, seconds: float | None = None) -> Any:
        """What `function()` returns or raises.

        Args:
            function: called in another thread.
            seconds: that it may take, where it is another time than usual.

        Raises:
            TimeoutError: it has not returned in time, or an earlier one still has not.
        """
        if threading.current_thread() is self._thread:
            return function()
        if self.hangs():
            raise TimeoutError("the disk still does not answer an earlier request")
        if self._thread is None:
            # A daemon, so that what hangs does not keep the process.
            self._thread = threading.Thread(
                target=_work, args=(self._tasks,), name="clevit_jax_bounded", daemon=True
            )
            self._thread.start()
        limit = self._seconds if seconds is None else seconds
        answer = concurrent.futures.Future[Any]()
        self._tasks.put((answer, function))
        done, _ = concurrent.futures.wait([answer], timeout=limit)
        if not done:
            self._late = answer
            raise TimeoutError(f"the disk does not answer for {limit:.0f} seconds")
        return answer.result()

    def close(self) -> None:
        """Ends the thread, as soon as what hangs in it returns; may be called twice."""
        if self._thread is not None:
            self._tasks.put(None)
            self._thread = None


def _work(tasks: queue.SimpleQueue) -> None:
    while (task := tasks.get()) is not None:
        future, function = task
        try:
            future.set_result(function())
        except BaseException as error:  # raised where it was called
            future.set_exception(error)
        del task, future, function  # what a call held goes with it, not with the next one
