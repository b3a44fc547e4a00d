"""What is saved of a run that goes wrong, and what it says of going on."""

import json
import pathlib
import re
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from absl import logging

from clevit_jax.errors import CheckpointError, TrainingError, UnreachableError
from clevit_jax.runs import saver as saving
from clevit_jax.runs.logger import MetricLogger
from clevit_jax.runs.owner import Owner
from clevit_jax.runs.patience import Patience
from clevit_jax.runs.saver import Saver, advice, unsound
from clevit_jax.steps.eval_step import Evaluation
from clevit_jax.steps.losses import LossConfig
from clevit_jax.steps.state import TrainState

GOOD = {"loss": 2.0, "skipped_in_a_row": 0.0}


def score(top1=0.5, loss=1.0):
    return Evaluation(top1=top1, top5=1.0, mean_per_class=top1, loss=loss, count=8)


def state(step=7, weight=1.0, average=1.0):
    params = {"kernel": jnp.array([0.0, -weight], jnp.float32)}
    return TrainState(jnp.int32(step), params, {}, {"kernel": jnp.float32(average)})


class Disk:
    """Stands for `Checkpoints`: what is saved, with its loss, and a next save that may be lost."""

    def __init__(self, losses, top1=None):
        self.losses, self.top1 = dict(losses), top1 or {}
        self.pending, self.fails = {}, False

    def wait(self):
        pending, self.pending = self.pending, {}
        if pending and self.fails:
            raise self.fails if self.fails is not True else CheckpointError("The disk is full.")
        for step, (loss, top1) in pending.items():
            self.losses[step] = loss
            if top1 is not None:
                self.top1[step] = top1

    def save(self, state, meta, *, top1):
        json.dumps(meta)
        self.pending[int(state.step)] = meta["loss"], top1

    def steps(self):
        return sorted(self.losses)

    def meta(self, step):
        loss = self.losses[step]
        if loss == "damaged":
            raise CheckpointError("Checkpoint cannot be read.")
        return {} if loss is None else {"loss": loss}

    def best(self):
        return max(((step, top1) for step, top1 in self.top1.items()), default=None)

    def kept(self):
        return f"The last good checkpoint is step {self.steps()[-1]}."


def made(**settings):
    settings = {"checkpoint_minutes": 0, "checkpoint_steps": 0, "checkpoint_keep_every": 0,
                "step": types.SimpleNamespace(loss=LossConfig()), **settings}  # fmt: skip
    config = types.SimpleNamespace(optim=types.SimpleNamespace(lr=0.02), to_dict=dict)
    return types.SimpleNamespace(
        workdir=pathlib.Path("runs/my run"),
        config=config,
        settings=types.SimpleNamespace(**settings),
        plan=types.SimpleNamespace(total=48),
        dataset=types.SimpleNamespace(split_hash=lambda: "hash"),
        owner=Owner(),
    )


def saver(disk, **settings):
    return Saver(made(**settings), disk, Patience(0))


@pytest.fixture
def said(monkeypatch):
    lines: list[str] = []
    monkeypatch.setattr(logging, "error", lambda text, *args: lines.append(text % args))
    return lines


@pytest.mark.parametrize(
    ("state", "newest", "score", "why"),
    [
        (state(), GOOD, None, "^$"),
        (state(weight=999), {**GOOD, "loss": 999.0}, score(loss=999.0), "^$"),
        (state(), None, score(), "^$"),
        (state(), {**GOOD, "skipped_in_a_row": 3.0}, None, "last 3 update.* not finite"),
        (state(), {**GOOD, "loss": float("nan")}, None, "training loss is nan"),
        (state(), {**GOOD, "loss": 1e9}, None, r"training loss is 1e\+09"),
        (state(), {**GOOD, "loss": float("-inf")}, None, "training loss is -inf"),
        (state(), GOOD, score(loss=float("nan")), "evaluated is nan"),
        (state(), GOOD, score(loss=1e22), r"evaluated is 1e\+22"),
        (state(weight=1e17), GOOD, None, r"largest weight is 1e\+17"),
        (state(weight=-1e4), GOOD, None, r"largest weight is 1e\+04"),
        (state(weight=np.nan), GOOD, score(), "largest weight is inf"),
        (state(average=np.inf), GOOD, None, "largest weight is inf"),
    ],
)
def test_what_is_sound(state, newest, score, why):
    assert re.search(why, unsound(state, newest, score))


def test_an_unsound_state_is_never_saved_nor_the_best(said):
    disk = Disk({4: 1.5}, {4: 0.25})
    keeper = saver(disk, checkpoint_steps=1)
    bad = {"loss": 1.0, "skipped_in_a_row": 1.0}
    keeper.save(state(5), {}, score(top1=0.9), bad, must=False)
    keeper.save(state(6), {}, score(top1=0.9), bad, must=True)  # a signal asks for an end
    assert len(said) == 1  # once for all that follow
    assert "Step 5 is not saved: the gradients of the last 1 update(s)" in said[0]
    assert "good checkpoint is step 4" in said[0]
    assert keeper.stopped(6) == (
        "Stopped at step 6, which is not saved, for the gradients of the last 1 update(s) were not "
        "finite. Step 4 is the newest that is"
    )
    assert keeper.due(7, score(top1=0.3))  # what was not saved is not the best
    keeper.save(state(7), {}, score(top1=0.3), GOOD, must=True)
    assert keeper.stopped(7) == "Stopped and saved at step 7"
    assert disk.top1 == {4: 0.25, 7: 0.3}
    assert saver(Disk({})).stopped(0) == "Stopped before the first update"


def test_the_last_state_is_judged_by_its_own_score():
    """A gradient that was skipped before it did it no harm; a loss that is no number did."""
    disk = Disk({})
    keeper = saver(disk)
    skipped = {"loss": float("inf"), "skipped_in_a_row": 1.0}
    keeper.save(state(48), {}, score(), {**skipped, "loss": 5.0}, must=True)
    disk.wait()
    assert disk.steps() == [48]
    with pytest.raises(TrainingError, match=r"Step 48, the last, is of no use: .* nan\. .*--from"):
        keeper.save(state(48), {}, score(loss=float("nan")), GOOD, must=True)


def test_a_best_that_was_lost_is_not_the_best(said):
    """It failed in the background, so a lower score that follows is saved."""
    disk = Disk({4: 1.5}, {4: 0.25})
    keeper = saver(disk)
    keeper.save(state(8), {}, score(top1=0.9), GOOD, must=False)
    disk.fails = True
    assert not keeper.due(9, score(top1=0.5))
    keeper.save(state(10), {}, score(top1=0.2), GOOD, must=False)
    assert said == ["The disk is full."]
    assert keeper.due(11, score(top1=0.5))


def test_a_loss_is_measured_by_its_weights():
    """Terms that the user weighs by 500 each make a loss of thousands, and no harm."""
    loss = LossConfig(anchor=500.0, positive=500.0, contrast=500.0)
    keeper = saver(disk := Disk({}), step=types.SimpleNamespace(loss=loss))
    keeper.save(state(5), {}, None, {**GOOD, "loss": 3000.0}, must=True)
    disk.wait()
    assert disk.steps() == [5]


def test_multiples_are_due():
    keeper = saver(Disk({}), checkpoint_keep_every=6, checkpoint_steps=4)
    assert [step for step in range(1, 13) if keeper.due(step, None)] == [4, 6, 8, 12]


def test_the_way_on_from_a_run_that_went_wrong(said):
    """The newest that can be read, with its loss; older versions did not write it down."""
    assert advice(made(), Disk({7: 1.25, 14: 2.5})) == (
        "The newest good checkpoint is step 14, with loss 2.5; go on from it in another workdir, "
        "with a lower rate: --from 'runs/my run@14' --workdir NEW --config.optim.lr=0.002"
    )
    assert "step 7, with loss 1.25;" in advice(made(), Disk({7: 1.25, 14: "damaged"}))
    assert "step 7; go on" in advice(made(), Disk({7: None}))
    assert advice(made(), Disk({})) == (
        "No checkpoint is saved yet; start anew with a lower rate and another --workdir: "
        "--workdir NEW --config.optim.lr=0.002"
    )


def test_a_batch_that_cannot_be_kept_hides_nothing(tmp_path):
    logger = MetricLogger.__new__(MetricLogger)
    logger._run = types.SimpleNamespace(workdir=tmp_path / "gone")
    batch = {"label": jax.device_put(np.arange(3))}
    assert "nonfinite_batch.npz: No such file or directory." in logger._keep_batch(batch)


def test_a_bucket_out_of_reach_is_tried_again_until_it_is_too_late(monkeypatch, capsys):
    """Each half a minute; once a save has come through, the time begins anew."""
    clock = [1000.0]
    monkeypatch.setattr(saving.time, "monotonic", lambda: clock[0])
    disk = Disk({})
    one = saver(disk, checkpoint_timeout_minutes=10.0)

    def save(step, *, away):
        disk.fails = away and UnreachableError("The bucket cannot be reached.")
        one.save(state(step), 0, None, GOOD, must=False)

    save(1, away=False)
    assert not one.late()
    clock[0] += 60
    save(2, away=True)  # the first one is lost
    clock[0] += 29
    assert not one.late()
    clock[0] += 2
    assert one.late()
    save(3, away=False)  # and there
    save(4, away=False)
    assert disk.steps() == [2, 3]
    clock[0] += 600
    assert not one.late()
    save(5, away=True)
    clock[0] += 599
    save(6, away=True)
    clock[0] += 2
    with pytest.raises(UnreachableError):
        save(7, away=True)
