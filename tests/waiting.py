"""Waiting for what another process does, for as long as CI waits: no test fails by a clock."""

import subprocess
import time
from collections.abc import Callable

LIMIT = 90 * 60  # seconds; after them CI ends the suite


def wait_until(condition: Callable[[], object], *children: subprocess.Popen) -> None:
    """Returns when the condition holds; fails with what a child said if one ends before."""
    limit = time.monotonic() + LIMIT
    while not condition():
        assert time.monotonic() < limit
        if any(child.poll() is not None for child in children):
            raise AssertionError([child.communicate() for child in children])
        time.sleep(0.001)
