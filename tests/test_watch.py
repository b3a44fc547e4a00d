"""Who stands still is named, and nobody who works: by words of processes and a clock of numbers."""

import pytest

from clevit_jax.distributed import watch
from clevit_jax.distributed.watch import PATIENCE, Judge

LIMIT = 600.0


def word(place, *, at="step 3", idle=0.0, patient=False, done=False, pid=7, host="a"):
    return {
        "place": place, "at": at, "idle": idle, "patient": patient, "done": done, "pid": pid,
        "host": host,
    }  # fmt: skip


def test_the_one_behind_is_named():
    """The others have gone on to where they need it, and stand there."""
    judge = Judge(LIMIT, 3, now=0.0)
    words = {0: word(9, pid=1), 1: word(8, at="step 120", pid=2, host="b"), 2: word(9, pid=3)}
    assert not judge.see(words, 10.0)
    still = {process: {**said, "idle": 595.0} for process, said in words.items()}
    assert not judge.see(still, 600.0)
    says = judge.see(still, 606.0)
    assert says.startswith(
        "process 1 of 3 (process id 2 on b) has not moved for 10 minutes, since step 120, and the "
        "others wait for it, so all end. `py-spy dump --pid 2` there shows where it stands. Start"
    )


def test_while_one_moves_nobody_is_named():
    """It may be slow, or write what the others wait for."""
    judge = Judge(LIMIT, 2, now=0.0)
    for now in range(0, 5000, 100):
        words = {0: word(3, idle=float(now)), 1: word(3, idle=now % 7 / 10)}
        assert not judge.see(words, float(now))


def test_a_process_that_says_nothing_any_more_stands_still():
    judge = Judge(LIMIT, 2, now=0.0)
    silent = word(3, at="step 2")
    says = ""
    for now in range(0, 700, 100):
        says = judge.see({0: word(4, idle=float(now)), 1: silent}, float(now))
        assert bool(says) == (now >= LIMIT)
    assert says.startswith("process 1 of 2")


@pytest.mark.parametrize("unheard", [False, True])
def test_who_compiles_may_take_long(unheard):
    """So may one that has said nothing yet."""
    judge = Judge(LIMIT, 2, now=0.0)
    for now in (0.0, LIMIT, PATIENCE * LIMIT - 1, PATIENCE * LIMIT):
        words = {0: word(4, idle=now)}
        if not unheard:
            words[1] = word(3, at="compiling", idle=now, patient=True)
        says = judge.see(words, now)
        assert bool(says) == (now >= PATIENCE * LIMIT)
    where = "the start" if unheard else "compiling"
    assert f"has not moved for 60 minutes, since {where}, and the others wait" in says


def test_who_has_left_is_not_waited_for():
    judge = Judge(LIMIT, 2, now=0.0)
    words = {0: word(9, done=True, idle=LIMIT), 1: word(8, idle=0.0)}
    assert not judge.see(words, LIMIT)
    says = judge.see({**words, 1: word(8, idle=LIMIT)}, LIMIT + 1)
    assert says.startswith("process 1 of 2")
    assert not judge.see({process: word(9, done=True) for process in range(2)}, 2 * LIMIT)


def test_all_at_one_place():
    """As when what joins them fails: nobody is blamed before the others."""
    judge = Judge(LIMIT, 2, now=0.0)
    says = judge.see({0: word(8, pid=1, idle=LIMIT), 1: word(8, pid=2, idle=LIMIT)}, 1.0)
    assert says.startswith(
        "process 0 of 2 (process id 1 on a), process 1 of 2 (process id 2 on a) "
    )
    assert "have not moved for 10 minutes, since step 3, so all end." in says


def test_words_of_this_process(monkeypatch):
    monkeypatch.setattr(watch, "_moves", watch._Moves())
    assert '"patient": true' in watch._word()  # until it has said where it is
    watch.note("step 1")
    assert '"patient": false' in watch._word()
    with watch.patiently("compiling"):
        assert '"at": "compiling", "patient": true' in watch._word()
    assert '"place": 3' in watch._word()
    assert watch._word() != watch._word()
    monkeypatch.setattr(watch._moves, "moved", -1e6)
    watch.touch()
    assert watch._moves.moved > 0


def test_one_process_is_not_watched():
    """It may take as long as it wants, whatever it does."""
    with watch.watched(0.0, pytest.fail):
        pass
