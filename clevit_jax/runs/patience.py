"""Early stopping: training ends when the validation top-1 has not risen for long enough.

The count is kept in every checkpoint, so that a run that was stopped ends at the same step.
"""

import dataclasses
import pathlib
from typing import Any

from clevit_jax.distributed import processes
from clevit_jax.errors import ConfigError
from clevit_jax.runs.checkpoint import Checkpoints
from clevit_jax.runs.facts import read_run_facts
from clevit_jax.runs.setup import Run
from clevit_jax.runs.workdir import RUN_FILE
from clevit_jax.system.files import read_json_object, write_json


@dataclasses.dataclass
class Patience:
    """How many evaluations have passed without a better one.

    Attributes:
        limit: so many end the training (`eval.patience`); 0 is off.
        step: of the newest evaluation that is counted.
        best: the highest top-1 so far; None before the first evaluation.
        best_step: where it was reached.
        since: evaluations after it.
    """

    limit: int
    step: int = 0
    best: float | None = None
    best_step: int = 0
    since: int = 0

    @property
    def over(self) -> bool:
        """Whether training ends."""
        return 0 < self.limit <= self.since

    def count(self, step: int, top1: float) -> None:
        """Counts an evaluation; equal is no better."""
        self.step = step
        if self.best is None or top1 > self.best:
            self.best, self.best_step, self.since = top1, step, 0
        else:
            self.since += 1

    def to_json(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {name: value for name, value in vars(self).items() if name != "limit"}

    def sentence(self, total: int) -> str:
        """Why training ended, of a run that would have made `total` updates."""
        times = "evaluation was" if self.since == 1 else f"{self.since} evaluations were"
        return (
            f"Ended early at step {self.step} of {total}: the last {times} no better than the "
            f"validation top-1 of {100 * (self.best or 0):.2f} % at step {self.best_step} "
            f"(eval.patience={self.limit})."
        )


def resume_patience(
    run: Run, checkpoints: Checkpoints, step: int, meta: dict[str, Any] | None, *, anew: bool
) -> Patience:
    """The count to go on with.

    Args:
        run: the run.
        checkpoints: of the run.
        step: that it goes on from.
        meta: of that checkpoint; None where the run begins.
        anew: whether to begin counting again, as when the settings have changed; the best stays.
    """
    patience = Patience(run.settings.patience)
    if meta is None:
        return patience
    # Of an older version's run only the best is known.
    best_step, best = checkpoints.best() or (0, None)
    kept = meta.get("patience", {"step": step, "best": best, "best_step": best_step, "since": 0})
    patience = Patience(run.settings.patience, **kept)
    # Saved before it was scored, and scored when the run went on from it.
    top1 = processes.broadcast("top1", checkpoints.top1(step))
    if top1 is not None and patience.step < step:
        patience.count(step, top1)
    if anew:
        patience.since = 0
    return patience


def ended_at(workdir: pathlib.Path) -> int | None:
    """The step that a run ended early at, None where it did not."""
    path = workdir / RUN_FILE
    try:
        return read_run_facts(workdir).get("ended_at") if path.exists() else None
    except ConfigError:  # it is damaged, and will be made again
        return None


def note_end(run: Run, step: int, patience: Patience) -> None:
    """Says that the run ended early, and notes it in run.json; nothing where it did not."""
    if step >= run.plan.total:
        return
    sentence = patience.sentence(run.plan.total)
    print(sentence, flush=True)
    if processes.index() == 0:
        path = run.workdir / RUN_FILE
        end = {"ended_at": step, "ended_because": sentence}
        run.owner.call(RUN_FILE, lambda: write_json(path, {**read_json_object(path), **end}))
