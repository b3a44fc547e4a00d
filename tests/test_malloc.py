"""In a process of its own, for what it changes cannot be changed back."""

import platform
import subprocess
import sys

import pytest

CODE = """
import resource, sys
import numpy as np
from clevit_jax.system import malloc

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

if sys.argv[1] == "keep":
    assert malloc.keep_freed_memory()
np.ones(64 << 20, np.uint8)  # freed at once
before = faults()
np.ones(64 << 20, np.uint8)
print(faults() - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's malloc alone is told")
def test_freed_memory_is_kept():
    def faults(mode):
        done = subprocess.run([sys.executable, "-c", CODE, mode], capture_output=True, text=True,
                              check=True)  # fmt: skip
        return int(done.stdout)

    # 16384 pages of 4 KiB; numpy may ask for large pages, of which there are 32.
    assert faults("keep") < 16 <= faults("leave")


def test_other_systems_are_left_alone(monkeypatch):
    from clevit_jax.system.malloc import keep_freed_memory

    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
    assert not keep_freed_memory()
