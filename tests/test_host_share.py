"""What a process may use of its machine: CPUs and memory, by affinity and control groups."""

import os
import types

import pytest
import tiny

from clevit_jax.config import resolve_data
from clevit_jax.data import open as data_open
from clevit_jax.data.dataset import Dataset, Example
from clevit_jax.system import control_groups, cpus, memory

GIB = 1 << 30


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """`machine(membership, {file: text})`: 16 CPUs, 32 GiB of which 24 are free, and groups."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)), raising=False)
    monkeypatch.setattr(
        memory.psutil,
        "virtual_memory",
        lambda: types.SimpleNamespace(available=24 * GIB, total=32 * GIB),
    )
    monkeypatch.setattr(control_groups, "_MEMBERSHIP", tmp_path / "membership")
    monkeypatch.setattr(control_groups, "_MOUNT", tmp_path / "mount")

    def make(membership="", files=()):
        (tmp_path / "membership").write_text(membership)
        for name, text in dict(files).items():
            (tmp_path / "mount" / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "mount" / name).write_text(f"{text}\n")

    return make


SLURM = "0::/system.slice/slurmstepd.scope/job_7/step_0/user/task_0"
OWN = SLURM.removeprefix("0::/")
V1 = "5:memory:/docker/abc\n4:cpu,cpuacct:/docker/abc\n1:name=systemd:/\n0::/"


@pytest.mark.parametrize(
    ("membership", "files", "expected"),
    [
        ("", {}, 16),  # no groups, as on macOS
        ("0::/", {"cpu.max": "max 100000"}, 16),
        ("0::/", {"cpu.max": "400000 100000"}, 4),  # docker run --cpus 4
        ("0::/", {"cpu.max": "150000 100000"}, 2),
        ("0::/", {"cpu.max": "20000 100000"}, 1),
        ("0::/", {"cpu.max": "9900000 100000"}, 16),
        (SLURM, {f"{OWN}/cpu.max": "max 100000",
                 "system.slice/slurmstepd.scope/job_7/cpu.max": "300000 100000"}, 3),
        (SLURM, {f"{OWN}/cpu.max": "200000 100000",
                 "system.slice/slurmstepd.scope/job_7/cpu.max": "300000 100000"}, 2),
        (V1, {"cpu/cpu.cfs_quota_us": "250000", "cpu/cpu.cfs_period_us": "100000"}, 3),
        (V1, {"cpu,cpuacct/docker/abc/cpu.cfs_quota_us": "500000",
              "cpu,cpuacct/docker/abc/cpu.cfs_period_us": "100000"}, 5),
        (V1, {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, 16),
        ("0::/../..", {"cpu.max": "200000 100000"}, 2),
        ("nonsense", {"cpu.max": ""}, 16),
    ],
)  # fmt: skip
def test_cpus_by_quota(machine, membership, files, expected):
    machine(membership, files)
    assert cpus.usable() == expected


def test_cpus_by_affinity(machine, monkeypatch):
    machine("0::/", {"cpu.max": "400000 100000"})
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3})
    assert cpus.usable() == 1
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert cpus.usable() == 1


def test_as_many_threads_as_there_are_cpus(machine):
    machine("0::/", {"cpu.max": "400000 100000"})
    config = tiny.small()
    assert resolve_data(config).threads == 4
    config.data.threads = 9
    assert resolve_data(config).threads == 9


@pytest.mark.parametrize(
    ("membership", "files", "available", "total"),
    [
        ("", {}, 24, 32),
        ("0::/", {"memory.max": "max", "memory.current": GIB}, 24, 32),
        ("0::/", {"memory.max": 8 * GIB, "memory.current": 3 * GIB}, 5, 8),
        # What holds files is given away again.
        ("0::/", {"memory.max": 8 * GIB, "memory.current": 7 * GIB,
                  "memory.stat": f"anon 5\ninactive_file {4 * GIB}"}, 5, 8),
        ("0::/", {"memory.max": 2 * GIB, "memory.current": 3 * GIB}, 0, 2),
        ("0::/", {"memory.max": 64 * GIB, "memory.current": 0}, 24, 32),
        (SLURM, {"system.slice/slurmstepd.scope/job_7/memory.max": 4 * GIB,
                 "system.slice/slurmstepd.scope/job_7/memory.current": GIB,
                 f"{OWN}/memory.max": "max", f"{OWN}/memory.current": GIB}, 3, 4),
        (V1, {"memory/memory.limit_in_bytes": 6 * GIB, "memory/memory.usage_in_bytes": 5 * GIB,
              "memory/memory.stat": f"total_inactive_file {GIB}"}, 2, 6),
        (V1, {"memory/docker/abc/memory.limit_in_bytes": 6 * GIB,
              "memory/docker/abc/memory.usage_in_bytes": 5 * GIB}, 1, 6),
        (V1, {"memory/memory.limit_in_bytes": 2**63 - 4096, "memory/memory.usage_in_bytes": 0},
         24, 32),
    ],
)  # fmt: skip
def test_memory(machine, membership, files, available, total):
    machine(membership, files)
    assert (memory.available(), memory.total()) == (available * GIB, total * GIB)


def test_images_take_half_of_the_free_memory_at_most(monkeypatch, capsys):
    config = tiny.small()
    config.data.resize = 20
    settings = resolve_data(config)
    train, test = 3 * 20 * 20, 3 * 16 * 16
    examples = tuple(Example(b"", 0, i, str(i)) for i in range(4))
    dataset = Dataset("folders", "", ("a",), examples, examples[:2], ())

    def kept(free, *, training=True):
        monkeypatch.setattr(memory, "available", lambda: free)
        images = data_open.decoded_images(settings, dataset, training=training)
        return images["train"]._free, images["test"]._free, capsys.readouterr().out

    everything = 4 * train + 2 * test
    assert kept(2 * everything) == (everything, 2 * test, "")  # it fits: nothing is said
    first, second, said = kept(2 * (4 * train + 5))
    assert (first, second) == (4 * train + 5, 5)
    assert said == (
        "data.cache_bytes is lowered from 8.0 GiB to 4,805 bytes, half of the memory that is free: "
        "images beyond that are decoded in every epoch.\n"
    )
    assert kept(4 * test, training=False)[1:] == (2 * test, "")
    assert kept(0)[0] == 0
