"""Where the time of a run goes, by clocks that are moved by hand, and by what JAX tells."""

import datetime
import json
import os

import jax
import jax.numpy as jnp
import pytest
from jax import monitoring

from clevit_jax.analysis.report.recorded import in_words, time_rows
from clevit_jax.runs.goodput import (
    SPENT_ON,
    Clock,
    goodput,
    keep_time,
    last_sign,
    lost_before,
)

BEGAN = 1_000_000.0  # seconds since the epoch


class Hands:
    """A monotonic clock and one on the wall, which go on when they are told."""

    def __init__(self):
        self.at = 0.0

    def pass_by(self, seconds):
        self.at += seconds

    def clock(self, began=None):
        return Clock(began, now=lambda: self.at, wall=lambda: BEGAN + self.at)


def fail_after(hands, seconds):
    hands.pass_by(seconds)
    raise KeyError


def spent(record):
    return {name: value for name, value in record["seconds"].items() if value}


def seen(record):
    return datetime.datetime.fromisoformat(record["seen"]).timestamp()


def test_every_second_is_spent_on_one_thing():
    hands = Hands()
    clock = hands.clock(BEGAN - 7)  # of Python and its imports
    hands.pass_by(3)
    for _ in range(2):
        clock.switch("training")
        with clock.spent("waiting"):
            hands.pass_by(0.25)
        assert clock.newest == 0.25
        hands.pass_by(10)
    with clock.spent("evaluating"):
        hands.pass_by(4)
    with pytest.raises(KeyError), clock.spent("saving"):
        fail_after(hands, 2)
    record = clock.record(2)
    assert spent(record) == {
        "starting": 10, "training": 20, "waiting": 0.5, "evaluating": 4, "saving": 2,
    }  # fmt: skip
    assert record["reached"] == 2
    assert sum(record["seconds"].values()) == seen(record) - clock.began
    hands.pass_by(1)
    assert spent(clock.record(2))["training"] == 21


def test_compiling_is_counted_once_and_taken_from_what_it_is_within():
    """Tracing inside of tracing, as of a jitted function that another one calls."""
    hands = Hands()
    with hands.clock() as clock:
        clock.switch("training")
        hands.pass_by(5)

        def tell(what, seconds):
            monitoring.record_event_duration_secs(f"/jax/core/compile/{what}", seconds)

        hands.pass_by(3)
        tell("jaxpr_trace_duration", 2)  # from 6 to 8
        hands.pass_by(1)
        tell("jaxpr_trace_duration", 3.5)  # from 5.5 to 9, with the one before in it
        hands.pass_by(4)
        tell("backend_compile_duration", 4)  # from 9 to 13
        monitoring.record_event_duration_secs("/jax/other", 3)
        hands.pass_by(2)
        with clock.spent("evaluating"):
            hands.pass_by(1)
            tell("backend_compile_duration", 9)  # no longer than it is evaluated
        assert spent(clock.record(1)) == {"training": 7.5, "compiling": 8.5}
    tell("backend_compile_duration", 1)  # nobody listens any more
    assert spent(clock.record(1)) == {"training": 7.5, "compiling": 8.5}


def test_jax_tells_when_it_compiles():
    """By events whose names are not promised: of this version they are these."""

    @jax.jit
    def inner(x):
        return jnp.sin(x) * 2.5

    @jax.jit
    def outer(x):
        return inner(x) + inner(x * 3.0)

    x = jnp.ones(3)
    with Clock() as clock:
        clock.switch("training")
        outer(x)
        record = clock.record(1)
        assert record["seconds"]["compiling"] > 0
        assert min(record["seconds"].values()) > -1e-3
        outer(x)
        assert clock.record(2)["seconds"]["compiling"] == record["seconds"]["compiling"]


def start(step, reached=None, at=0.0, **seconds):
    """One of `starts` of run.json, whose last record is `at` seconds after `BEGAN`."""
    if reached is None:
        return {"step": step}  # of an older version
    moment = datetime.datetime.fromtimestamp(BEGAN + at, datetime.UTC).isoformat()
    return {
        "step": step, "reached": reached, "seen": moment,
        "seconds": dict.fromkeys(SPENT_ON, 0.0) | seconds,
    }  # fmt: skip


def test_a_killed_run_that_goes_on():
    """Killed 30 s after its record, begun again 100 s later: the record is also its checkpoint."""
    starts = [start(0, 40, at=100, starting=20.0, training=80.0)]
    lost = lost_before(starts, 40, BEGAN + 230, BEGAN + 130)
    assert lost == {"redone": 30, "down": 100}
    assert starts == [start(0, 40, at=100, starting=20.0, training=80.0)]
    # Without a word after the record, nobody knows how long it lived.
    assert lost_before(starts, 40, BEGAN + 230, None) == {"redone": 0, "down": 130}
    # Clocks of two hosts that differ, either way.
    assert lost_before(starts, 40, BEGAN + 90, BEGAN + 130) == {"redone": 0, "down": 0}
    assert lost_before(starts, 40, BEGAN + 230, BEGAN + 500) == {"redone": 130, "down": 0}


def test_updates_that_are_made_again_do_not_count():
    """Two starts, 0 to 40 and 40 to 60; the checkpoints 60 and 40 are torn, and 30 is taken."""
    starts = [start(0, 40, at=100, training=80.0), start(40, 60, at=200, training=50.0, saving=5.0)]
    lost = lost_before(starts, 30, BEGAN + 210, None)
    assert lost == {"redone": 0, "down": 10}
    assert starts == [
        start(0, 30, at=100, training=60.0, redone=20.0),
        start(40, 40, at=200, redone=50.0, saving=5.0),
    ]
    starts.append(start(30, 50, at=300, training=40.0, **lost))
    assert lost_before(starts, 50, BEGAN + 300, None) == {"redone": 0, "down": 0}  # only once
    found = goodput(starts)
    assert found["training"] == 100
    assert found["redone"] == 70
    assert found["total"] == 185
    assert found["share"] == round(100 / 185, 4)


def test_of_finished_and_older_runs_no_time_is_lost():
    finished = start(0, 40, at=100, training=80.0) | {"finished": True}
    assert lost_before([finished], 40, BEGAN + 9e6, None) == {}
    assert lost_before([start(0)], 40, BEGAN, None) == {}
    assert lost_before([], 0, BEGAN, None) == {}
    assert goodput([start(0)]) == {}
    assert goodput([start(0), start(9, 10, training=4.0, saving=1.0)])["share"] == 0.8


def test_the_last_sign_of_life(tmp_path):
    """The last line of the metrics, if it tells of an update that is lost."""
    assert last_sign(tmp_path, 0) is None
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 30}\n{"step": 40}\n{"st')
    os.utime(path, (BEGAN, BEGAN))
    assert last_sign(tmp_path, 30) == BEGAN
    assert last_sign(tmp_path, 40) is None  # stopped and saved; copied since, who knows when


def test_records_that_cannot_be_written(tmp_path):
    hands = Hands()
    clock = hands.clock()
    path = tmp_path / "run.json"
    for text in (None, "", "[]", "{}", '{"starts": []}', '{"starts": [3]}', '{"starts": 3}'):
        if text is not None:
            path.write_text(text)
        keep_time(tmp_path, clock, 3)
        assert (path.read_text() if path.exists() else None) == text
    path.write_text(json.dumps({"more": 1, "starts": [start(0)]}))
    hands.pass_by(5)
    keep_time(tmp_path, clock, 3, finished=True)
    facts = json.loads(path.read_text())
    assert facts["more"] == 1
    assert facts["starts"][0]["finished"] is True
    assert facts["goodput"]["starting"] == facts["goodput"]["total"] == 5


def test_in_words():
    times = (0, 4.24, 59.94, 60, 368, 3600, 7405, 90_061, 86_400 * 3)
    assert [in_words(seconds) for seconds in times] == [
        "0.0 s", "4.2 s", "59.9 s", "1 min", "6 min 8 s", "1 h", "2 h 3 min", "1 d 1 h", "3 d",
    ]  # fmt: skip
    rows = time_rows({"goodput": goodput([start(0, 1, training=90.0, saving=30.0)])})
    assert rows[0] == ("Updates that count", "1 min 30 s", "75.0 %")
    assert rows[-1] == ("All", "2 min", "")
    assert len(rows) == len(SPENT_ON) + 1
    assert time_rows({}) == time_rows({"goodput": {}}) == []
