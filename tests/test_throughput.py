"""Throughput: its arithmetic with a clock that is not one, its table, and where a series ends.

One test times the tiny config for real, and looks at no time.
"""

import dataclasses
import io
import json
import math
import sys

import compiling
import pytest
import tiny

from clevit_jax.errors import ConfigError
from clevit_jax.performance import throughput, throughput_table, timed_process, timed_steps
from clevit_jax.performance.throughput import Peer
from clevit_jax.performance.throughput_table import Throughput, ThroughputRow
from clevit_jax.performance.timed_process import OutOfMemory, Prepared
from clevit_jax.system import memory as host_memory


class Clock:
    """Tells what time it was made to be."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


def steps_of(clock, *seconds):
    """A `run` whose steps last these seconds, the last of them for ever."""
    left = list(seconds)
    calls = []

    def run(steps):
        calls.append(steps)
        for _ in range(steps):
            clock.now += left.pop(0) if len(left) > 1 else left[0]

    return run, calls


def test_the_warm_up_is_timed_apart():
    clock = Clock()
    run, calls = steps_of(clock, 9.0, 0.5)
    assert timed_process.warm_up(run, clock) == (9.0, 0.5)
    assert calls == [1, 1]


@pytest.mark.parametrize(
    ("step", "steps", "samples"),
    [(0.0625, 4, 4), (0.001, 200, 5), (0.5, 1, 2), (7.0, 1, 1)],
)
def test_a_sample_is_long_enough_and_a_round_short(step, steps, samples):
    clock = Clock()
    run, calls = steps_of(clock, step)
    found = timed_process.sample(Prepared(run, step, {}), clock)
    assert calls == [steps] * samples
    assert found == pytest.approx([step] * samples)  # of one step, not of the sample


def exchange(prepare, *lines):
    say = io.StringIO()
    timed_process.serve(prepare, io.StringIO("".join(f"{line}\n" for line in lines)), say)
    return [json.loads(line) for line in say.getvalue().splitlines()]


def test_what_a_child_answers():
    asked = []

    def prepare(request):
        asked.append(request)
        return Prepared(lambda steps: None, 1.0, {"memory": 3})

    ready, first, second = exchange(prepare, '{"batch": 2}', '"time"', '"time"')
    assert asked == [{"batch": 2}]
    assert ready == {"ready": {"memory": 3}}
    assert [len(answer["seconds"]) for answer in (first, second)] == [1, 1]


def test_a_child_says_why_not():
    def raising(error):
        def fail(*_):
            raise error

        return fail

    full = OutOfMemory("no room")
    assert exchange(raising(full), "{}") == [{"out_of_memory": "no room"}]
    assert exchange(raising(ConfigError("no such.")), "{}") == [{"error": "no such."}]
    later = exchange(lambda request: Prepared(raising(full), 1.0, {}), "{}", '"time"')
    assert later == [{"ready": {}}, {"out_of_memory": "no room"}]


def test_a_child_that_dies(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "killed.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)\n")
    for module, reply in {
        "killed": {"out_of_memory": "killed, as a system does when its memory runs out"},
        "not_there": {"error": f"ended with code 1: {sys.executable}: No module named not_there"},
    }.items():
        child = timed_process.TimedProcess(module, {"work": "training"})
        child.close()
        assert child.reply == reply


FACTS = {
    "platform": "cpu", "device": "cpu", "devices": 1, "threads": 2, "description": "Swin-small",
    "views": 2, "loss": {}, "model": {"image_size": 64, "dtype": "float32"},
    "flops_an_image": {"training": 6e9, "inference": 1e9},
}  # fmt: skip
PEER = Peer(
    "their.steps", {"timm eager": {"compiled": False}, "timm compiled": {"compiled": True}},
    "their step: without views.", lambda facts: None,
)  # fmt: skip
READY = {
    "compile_seconds": 12.0, "first_seconds": 0.75, "memory": 64 * 2**20, "memory_kind": "plan",
}  # fmt: skip


def row(name, batch, rounds, work="training", **more):
    return ThroughputRow.of(work, name, batch, {"ready": {**READY, **more}}, rounds, FACTS)


def hand_made():
    """Ours takes 0.5 s a step of 4 images, timm 1 s, and 8 images do not fit."""
    ours = row("clevit_jax", 4, [[0.5, 0.4], [0.5], [0.8]], peak_flops=96e9)
    theirs = row("timm eager", 4, [[0.8], [1.0], [1.2]], compile_seconds=None)
    full = ThroughputRow.of("training", "clevit_jax", 8, {"out_of_memory": "9 wanted"}, [], FACTS)
    return Throughput(FACTS, [ours, theirs, full], "their step: without views.")


def test_arithmetic():
    result = hand_made()
    ours, theirs, full = result.rows
    assert ours.median == 0.5  # of 0.4 0.5 0.5 0.8
    assert ours.images_per_second == 8.0
    assert ours.flops == 24e9  # 4 images of 6
    assert result.utilisation(ours) == 0.5  # 48 GFLOP/s of 96
    assert result.utilisation(theirs) == 0.25  # of the same product
    ratio, lowest, highest = result.ratio(theirs)
    assert ratio == pytest.approx(0.8 / 0.45)  # of 0.8 / 0.45, 1.0 / 0.5 and 1.2 / 0.8
    assert (lowest, highest) == pytest.approx((1.5, 2.0))
    assert result.ratio(ours) is None
    assert full.problem == "out of memory: 9 wanted"


def test_the_table():
    lines = throughput_table.throughput_text(hand_made()).splitlines()
    assert lines[0] == (
        "1 x cpu, 2 threads. Swin-small, 64 px, float32; 2 views per image in training."
    )
    assert lines[1].startswith("Matmul: 96.0 GFLOP/s, the most measured in this run")
    table = lines[3:7]
    assert table == [
        "                      batch  images/s  ms / step  compile s  first s   MiB        GFLOP"
        "  utilised            ours / it",
        "training  clevit_jax      4      8.00      500.0       12.0     0.75  64.0  plan     24"
        "    50.0 %",
        "training  timm eager      4      4.00    1,000.0          -     0.75  64.0  plan     24"
        "    25.0 %  1.78 (1.50 to 2.00)",
        "training  clevit_jax      8  out of memory: 9 wanted",
    ]
    text = "\n".join(lines[7:])
    assert "MiB, plan: what the compiler plans per device." in text
    assert "\ntheir step: without views.\nours / it: " in text


def test_the_json():
    facts = json.loads(throughput_table.throughput_json(hand_made()))
    assert facts["matrix_flops_per_second"] == 96e9
    assert facts["peer_step"] == "their step: without views."
    assert facts["platform"] == "cpu"
    ours, theirs, full = facts["rows"]
    assert (ours["images_per_second"], ours["utilisation"], ours["ours_over_it"]) == (8, 0.5, None)
    assert theirs["ours_over_it"]["highest"] == 2.0
    assert theirs["memory_kind"] == "plan"
    assert full["problem"] == "out of memory: 9 wanted"
    assert "images_per_second" not in full


@pytest.fixture
def fake(monkeypatch):
    """`fake(script)`: children that answer `script(name, work, batch)`, and what was asked."""

    class Asked(list):
        in_full: list = []  # noqa: RUF012

    def install(script):
        asked = Asked()
        asked.in_full = []

        class Fake:
            def __init__(self, module, request, environ=None):
                name = "ours" if module == "clevit_jax.performance.timed_steps" else "eager"
                name = "compiled" if request.get("compiled") else name
                work, batch = request["work"], request.get("batch")
                self.alive = True
                if work == "describe":
                    self.reply = {"ready": FACTS}
                    return
                asked.append((name, work, batch))
                asked.in_full.append((module, request, environ and tuple(environ.items())))
                answer = script(name, work, batch)
                self.seconds = answer if isinstance(answer, float) else None
                self.reply = {"ready": {**READY}} if self.seconds else answer

            def time(self):
                assert self.alive
                return {"seconds": [self.seconds]}

            def close(self):
                self.alive = False

        monkeypatch.setattr(throughput, "TimedProcess", Fake)
        return asked

    return install


def config(**changes):
    made = tiny.get_config()
    made.model.num_classes = 5
    made.update_from_flattened_dict({k.replace("__", "."): v for k, v in changes.items()})
    return made


def rows_of(capsys, **options):
    code = throughput.throughput(config(), as_json=True, **options)
    found = json.loads(capsys.readouterr().out)["rows"]
    return code, [(r["work"], r["name"], r["batch"], r["problem"]) for r in found]


def test_a_series_doubles_until_memory_ends(fake, capsys):
    def script(name, work, batch):
        most = 4 if work == "training" else 8
        return 0.5 if batch <= most else {"out_of_memory": "no room"}

    fake(script)
    code, rows = rows_of(capsys)
    assert code == 0
    assert [(work, batch) for work, _, batch, problem in rows if not problem] == [
        ("training", 1), ("training", 2), ("training", 4),
        ("inference", 1), ("inference", 2), ("inference", 4), ("inference", 8),
    ]  # fmt: skip
    assert [row for row in rows if row[3]] == [
        ("training", "clevit_jax", 8, "out of memory: no room"),
        ("inference", "clevit_jax", 16, "out of memory: no room"),
    ]


def test_a_series_ends_before_a_step_takes_minutes(fake, capsys):
    asked = fake(lambda name, work, batch: 20.0 * batch)
    _, rows = rows_of(capsys)
    assert [batch for _, work, batch in asked if work == "training"] == [1, 2]  # 20 s, 40 s
    assert rows[2][2:] == (4, "not tried: a step may last 80 s; to try it, --batch_sizes=4")
    asked.clear()
    rows_of(capsys, batch_sizes=[1, 4])
    assert [batch for _, work, batch in asked if work == "training"] == [1, 4]


def test_a_peer_that_fails_leaves_and_ours_goes_on(fake, capsys):
    def script(name, work, batch):
        if name == "compiled" and batch == 1:
            return {"error": "torch.compile fails: no compiler"}
        if name == "eager" and batch == 4:
            return {"out_of_memory": "no room"}
        return 0.5

    asked = fake(script)
    code, rows = rows_of(capsys, peer=PEER, batch_sizes=[1, 2, 4, 8])
    assert code == 0
    assert [name for name, work, batch in asked if work == "training"] == [
        "ours", "eager", "compiled", "ours", "eager", "ours", "eager", "ours"
    ]  # fmt: skip
    assert ("training", "timm compiled", 1, "torch.compile fails: no compiler") in rows
    assert ("training", "timm eager", 4, "out of memory: no room") in rows


def test_a_peer_that_would_swap_is_not_started(fake, capsys, monkeypatch):
    """READY says 64 MiB at a batch of 1, so 256 are expected at 4; 250 MiB are free."""
    asked = fake(lambda name, work, batch: 0.5)
    monkeypatch.setattr(host_memory, "available", lambda: 250 * 2**20)
    _, rows = rows_of(capsys, peer=PEER, batch_sizes=[1, 4])
    assert ("eager", "training", 1) in asked
    assert ("eager", "training", 4) not in asked
    problems = [row[3] for row in rows if row[1] == "timm eager" and row[2] == 4]
    assert problems == ["out of memory: 0.25 GiB are expected, and 0.24 are free"] * 2


def test_nothing_that_could_be_timed_is_a_failure(fake, capsys):
    fake(lambda name, work, batch: {"out_of_memory": "no room"})
    assert rows_of(capsys)[0] == 1


def test_mistakes_are_one_sentence(fake):
    fake(lambda name, work, batch: 0.5)
    for sizes, said in (([2, 3], "holds 3"), ([0], "holds 0"), ([], "holds no number")):
        with pytest.raises(ConfigError, match=rf"--batch_sizes {said}; .* a multiple of 2 \(1 dev"):
            throughput.throughput(config(accumulation=2, batch_size=4), batch_sizes=sizes)

    def refuse(facts):
        raise ConfigError(f"not on {facts['platform']}")

    with pytest.raises(ConfigError, match=r"^not on cpu$"):
        throughput.throughput(config(), peer=dataclasses.replace(PEER, check=refuse))


def test_a_peer_is_asked_for_our_step_and_shares_the_memory(fake, capsys):
    """Alone, JAX may take a GPU for itself."""
    asked = fake(lambda name, work, batch: 0.5)
    rows_of(capsys, batch_sizes=[1])
    assert {environ for *_, environ in asked.in_full} == {None}
    asked.in_full.clear()
    rows_of(capsys, peer=PEER, batch_sizes=[1])
    (_, _, shared), (module, request, environ), *_ = asked.in_full
    assert shared == environ == (("XLA_PYTHON_CLIENT_PREALLOCATE", "false"),)
    assert module == "their.steps"
    assert request == {"work": "training", "batch": 1, "compiled": False,
                       **{k: FACTS[k] for k in ("platform", "threads", "model", "views", "loss")}
                       }  # fmt: skip


def test_a_step_that_does_not_fit_is_never_run(monkeypatch):
    """The compiler's plan against what is free, before a number is computed."""
    monkeypatch.setattr(host_memory, "available", lambda: 1000)
    monkeypatch.setattr(timed_steps, "_runner", lambda *_: pytest.fail("it was run"))
    request = {"config": config().to_dict(), "num_classes": 5, "work": "inference", "batch": 4}
    with pytest.raises(OutOfMemory, match=r"the compiler plans 0\.\d+ GiB, and 0.00 are free"):
        timed_steps.prepare_our_steps(request)


def test_the_tiny_config_for_real(capsys, monkeypatch):
    """Whole, in child processes on two CPU devices; a Swin of 16 px has 4 x 4 and 2 x 2 tokens."""
    monkeypatch.setenv("XLA_FLAGS", compiling.xla_flags(2))
    monkeypatch.setattr(throughput, "ROUNDS", 2)
    timed = config(views__kind="swap_only")
    assert throughput.throughput(timed, batch_sizes=[4], as_json=True) == 0
    facts = json.loads(capsys.readouterr().out)
    assert [row["problem"] for row in facts["rows"]] == ["", ""]
    assert (facts["devices"], facts["model"]["dtype"]) == (2, "float32")
    assert facts["matrix_flops_per_second"] > 0
    embed = 16 * 48 * 8
    first = 16 * ((4 + 8) * 8**2 + 2 * 4 * 8) + 4 * 32 * 16  # a block, and the merge
    second = 4 * ((4 + 8) * 16**2 + 2 * 4 * 16)
    forward = 2 * (embed + first + second + 16 * 5)
    for row, flops in zip(facts["rows"], (3 * 2 * 4 * forward, 4 * forward), strict=True):
        assert row["problem"] == ""
        assert row["flops"] == flops
        assert row["memory_kind"] == "plan"
        assert row["memory"] > 2 * 16 * 16 * 3  # two images per device
        assert len(row["rounds"]) == 2
        assert row["images_per_second"] == pytest.approx(4 / row["median_seconds"])
        assert math.isfinite(row["compile_seconds"] + row["first_seconds"])
