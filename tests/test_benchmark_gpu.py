"""What the GPU benchmark makes of its measurements, and what it measures; nothing is timed."""

import json
import sys

import pytest

from benchmarks import gpu
from clevit_jax.errors import ConfigError
from clevit_jax.performance import throughput, throughput_table
from clevit_jax.performance.throughput_table import OURS, Throughput, ThroughputRow

FACTS = {
    "platform": "gpu", "device": "a GPU", "devices": 1, "threads": 2, "description": "Swin-base",
    "views": 2, "model": {"image_size": 448, "dtype": "bfloat16"},
    "flops_an_image": {"training": 1e9},
}  # fmt: skip


def row(name, batch, seconds, problem=""):
    rounds = ((seconds,), (seconds,), (seconds,)) if seconds else ()
    return ThroughputRow(
        "training", name, batch, problem, rounds, 1.0, 1.0, batch * 2.0**30, "peak",
        flops=1e9 * batch, peak_flops=100e9,
    )  # fmt: skip


def measured():
    """Ours makes 40, 48 and 50 pairs a second, timm 20 and 24, compiled 40 once."""
    return Throughput(FACTS, [
        row(OURS, 4, 0.1), row(gpu.EAGER, 4, 0.2), row(gpu.COMPILED, 4, 0.1),
        row(OURS, 8, 1 / 6), row(gpu.EAGER, 8, 1 / 3), row(gpu.COMPILED, 8, 0, "out of memory: 1"),
        row(OURS, 16, 0.32), row(gpu.EAGER, 16, 0, "out of memory: 2"),
        row(OURS, 32, 0, "out of memory: 3"),
    ], "timm's step")  # fmt: skip


def test_the_summary():
    facts = gpu.summarise(measured())
    assert facts["best"][OURS] == {
        "pairs_per_second": 50, "batch": 16, "bytes": 2**34, "utilisation": pytest.approx(0.5),
    }  # fmt: skip
    assert {name: best["batch"] for name, best in facts["best"].items()} == {
        OURS: 16, gpu.EAGER: 8, gpu.COMPILED: 4,
    }  # fmt: skip
    assert facts["ratios"] == pytest.approx({gpu.EAGER: 50 / 24, gpu.COMPILED: 1.25})
    assert facts["same_batch"][gpu.EAGER]["batch"] == 8
    assert facts["same_batch"][gpu.EAGER]["median"] == pytest.approx(2)
    assert facts["same_batch"][gpu.COMPILED]["batch"] == 4
    assert facts["met"] == {"utilisation": True, gpu.EAGER: True, gpu.COMPILED: False}
    lines = gpu.to_text(facts).splitlines()
    assert "50.00 pairs/s at a batch of 16, 16.00 GiB, 50.0 % utilised" in lines[1]
    assert lines[4] == (
        f"{OURS} / timm eager: 2.08, target 2.0 met; at a batch of 8 2.00 (2.00 to 2.00)"
    )
    assert "1.25, target 1.3 missed" in lines[5]
    assert lines[6] == "Utilisation: target 40 % met"


def test_nothing_of_ours_could_be_timed():
    facts = gpu.summarise(Throughput(FACTS, [row(OURS, 1, 0, "out of memory: 1")], "timm's step"))
    assert (facts["best"], facts["ratios"], facts["met"]) == ({}, {}, {})
    assert gpu.to_text(facts) == "Each at its best batch:"


def test_the_command(monkeypatch, tmp_path, capsys):
    """A Swin-B at 448 in bfloat16 with all three losses; all that was measured is written."""
    asked = []

    def measure(config, **options):
        asked.append((config, options))
        return measured()

    monkeypatch.setattr(throughput, "measure_in_process", measure)
    monkeypatch.setattr(gpu, "find_peer", lambda name: f"the peer {name}")
    monkeypatch.setattr(gpu, "versions", lambda: {"jax": "1"})
    out = tmp_path / "gpu.json"
    monkeypatch.setattr(sys, "argv", ["gpu", "--out", str(out), "--batch_sizes", "4,8"])
    assert gpu.main() == 0
    config, options = asked[0]
    assert options == {"batch_sizes": [4, 8], "peer": "the peer timm", "works": ["training"]}
    assert (config.model.variant, config.image_size, config.model.dtype) == (
        "base", 448, "bfloat16",
    )  # fmt: skip
    assert (config.views.kind, config.loss.anchor, config.loss.positive, config.loss.contrast) == (
        "full", 1, 1, 1,
    )  # fmt: skip
    assert throughput_table.throughput_text(measured()) in capsys.readouterr().out
    facts = json.loads(out.read_text())
    assert facts["summary"] == gpu.summarise(measured())
    assert len(facts["rows"]) == 9


def test_what_cannot_be_is_a_sentence(monkeypatch, tmp_path, capsys):
    def find(_):
        raise ConfigError("--peer timm needs timm.")

    monkeypatch.setattr(gpu, "find_peer", find)
    for argument, said in {
        "--out=x.json": "error: --peer timm needs timm.\n",
        "--batch_sizes=a": "error: --batch_sizes is a; it must be numbers, as in 8,16,32.\n",
        f"--out={tmp_path}/none/x.json": f"error: The folder of --out {tmp_path}/none/",
    }.items():
        monkeypatch.setattr(sys, "argv", ["gpu", argument])
        assert gpu.main() == 2
        assert capsys.readouterr().err.startswith(said)
