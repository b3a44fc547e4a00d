"""`--extend`: a run, finished or not, goes on under other settings, and what becomes of its rates.

What changed is told by the config that the checkpoint was saved with, not by config.json: a start
that was killed before its first checkpoint is told of again.
"""

import pathlib
from typing import Any

import jax
from ml_collections import ConfigDict

from clevit_jax.config import changed_settings, flatten, resolve, restore_config, unextendable
from clevit_jax.distributed import processes
from clevit_jax.errors import ConfigError
from clevit_jax.runs.patience import ended_at
from clevit_jax.runs.setup import Run
from clevit_jax.runs.workdir import (
    CONFIG_FILE,
    RUN_FILE,
    has_checkpoints,
    load_config,
    newest_step,
)
from clevit_jax.steps.schedule import Schedule
from clevit_jax.steps.state import TrainState
from clevit_jax.system.files import read_json_object, write_json


def check_extension(workdir: pathlib.Path, config: ConfigDict) -> bool:
    """Whether the settings of a run that is there change; says so where they do not.

    Raises:
        ConfigError: there is no run to extend, or a setting may not change.
    """
    if not has_checkpoints(workdir) or not (workdir / CONFIG_FILE).exists():
        raise ConfigError(
            f"{workdir} holds no run with a checkpoint, so there is nothing to extend; leave "
            "--extend out."
        )
    changes = changed_settings(flatten(load_config(workdir)), flatten(config))
    if fixed := unextendable(changes):
        raise ConfigError(
            "--extend goes on with the state, the images and their order as they are, so these "
            f"cannot change (there, here): {'; '.join(fixed)}. Begin a new run from the weights "
            f"of this one: --from {workdir}@last --workdir NEW."
        )
    if not changes:
        print(
            f"No setting differs from those of {workdir}, so --extend changes nothing.", flush=True
        )
    return bool(changes)


def check_left(run: Run) -> None:
    """Raises ConfigError unless something is left to train of a run that is extended."""
    step, total = newest_step(run.workdir), run.plan.total
    if step >= total:
        raise ConfigError(
            f"{run.workdir} is at step {step}, and {run.plan.epochs} epochs end at step {total}, "
            f"so nothing is left to train; raise epochs above {run.plan.epochs_of(step)}."
        )


def forget_end(workdir: pathlib.Path) -> None:
    """Takes the early end out of run.json, before the config that goes beyond it is written."""
    path = workdir / RUN_FILE
    if processes.index() == 0 and ended_at(workdir) is not None:
        facts = read_json_object(path)
        for name in ("ended_at", "ended_because"):
            facts.pop(name, None)
        write_json(path, facts)


def say_changes(run: Run, state: TrainState, meta: dict[str, Any] | None) -> list[str]:
    """Prints which settings differ from those that a checkpoint was saved with, and the rates.

    Args:
        run: with the settings from now on.
        state: of the checkpoint.
        meta: of the checkpoint; None where the run begins.

    Returns:
        `name: before, now` of each; none where it goes on as it was.
    """
    if meta is None:
        return []
    before = restore_config(meta["config"])
    changes = changed_settings(flatten(before), flatten(run.config))
    if not changes:
        return []
    step = int(state.step)
    print(f"Extended at step {step} (before, now): {'; '.join(changes)}.", flush=True)
    old = resolve(before, run.dataset, jax.default_backend()).step.schedule
    if old != run.settings.step.schedule:
        print(rates_sentence(old, run.settings.step.schedule, step), flush=True)
    return changes


def rates_sentence(old: Schedule, new: Schedule, step: int) -> str:
    """What becomes of the learning rates after `step` updates, from one schedule to another."""

    def rate(schedule: Schedule, update: int) -> str:
        backbone, head = (float(function(update)) for function in schedule.functions())
        return f"{backbone:.2g} (head {head:.2g})"

    peak = new.warmup_updates
    rising = f"{rate(new, peak + 1)} at step {peak}, " if step < peak else ""
    return (
        f"Rate at step {step}: {rate(old, step - 1)} until now, {rate(new, step)} from now on, "
        f"{rising}{rate(new, new.total_updates - 1)} at step {new.total_updates}."
    )
