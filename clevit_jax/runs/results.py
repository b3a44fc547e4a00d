"""Results of runs, read from the small JSON files in their folders; nothing else is opened."""

import dataclasses
import math
import pathlib
import re
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from clevit_jax.config import flatten
from clevit_jax.data.dataset import SPLIT_NAMES
from clevit_jax.errors import ConfigError
from clevit_jax.runs.facts import SCORES, read_evaluation, read_run_facts
from clevit_jax.runs.metrics import read_records
from clevit_jax.runs.workdir import CONFIG_FILE, RUN_FILE, load_config
from clevit_jax.steps.eval_step import LEVEL_PREFIX, Evaluation

SEED = re.compile(r"seed-(0|[1-9][0-9]*)")


@dataclasses.dataclass(frozen=True, repr=False)
class RunResult:
    """The result of one run, so far; a notebook shows its scores, not its settings.

    Attributes:
        folder: of the run.
        config: every setting by its full name.
        step: updates that were made, as far as they are written down.
        total: updates of the whole run; None before it has begun to train.
        split_hash: of its training, validation and test images; None where it is not recorded.
        last: scores of the newest step that was evaluated, `{"step": ..., "top1": ..., ...}`,
            shares in [0, 1], with `accuracy_NAME` for each coarser level of the classes; None
            before the first evaluation.
        scored_on: the split of `last`, "test" or "val".
        best: the same of the best step, on the test split, with `chosen_on`.
        finished: whether evaluation.json has the test of the last step.
        ended_early: whether that is a step before `total`, see `eval.patience`.
        skipped: how many images of each split could not be read and were left out.
    """

    folder: pathlib.Path
    config: dict[str, Any]
    step: int
    total: int | None
    split_hash: str | None
    last: dict[str, Any] | None
    scored_on: str
    best: dict[str, Any] | None
    finished: bool
    ended_early: bool = False
    skipped: dict[str, int] = dataclasses.field(default_factory=dict)

    def __repr__(self) -> str:
        how_far = "not begun"
        if self.total is not None:  # of an unfinished run more steps may be saved than recorded
            what = "finished at" if self.finished else "recorded up to"
            what = "ended early at" if self.ended_early else what
            how_far = f"{what} step {self.step} of {self.total}"
        lines = [f"RunResult({str(self.folder)!r}, {how_far})"]
        for name, split, scores in (
            ("last", self.scored_on, self.last),
            ("best", "test", self.best),
        ):
            if scores is not None:
                numbers = Evaluation.from_json(scores)
                lines.append(f"  {name}, step {scores['step']}: {SPLIT_NAMES[split]} {numbers}")
        if self.best is not None:
            lines[-1] += f", {how_chosen(self.best['chosen_on'])}"
        if self.skipped:
            left_out = ", ".join(f"{n} {SPLIT_NAMES[split]}" for split, n in self.skipped.items())
            lines.append(f"  without images that could not be read: {left_out}")
        return "\n".join(lines)


def read_result(folder: pathlib.Path) -> RunResult:
    """Reads config.json, run.json, evaluation.json and metrics.jsonl, those that there are.

    Raises:
        ConfigError: the folder is not a run, or one of the files was not written by this program.
    """
    config = flatten(load_config(folder))
    facts = read_run_facts(folder) if (folder / RUN_FILE).exists() else {}
    evaluation = read_evaluation(folder)
    last, best = (evaluation.get(name) for name in ("last", "best"))
    total = facts.get("updates")
    # Scores of metrics.jsonl alone finish nothing: their step may not have been saved.
    finished = last is not None and isinstance(total, int) and last["step"] >= total
    ended_early = last is not None and not finished and facts.get("ended_at") == last["step"]
    step, record, split = _newest_record(folder / "metrics.jsonl")
    scored_on = "test"
    if record is not None and (last is None or record["step"] > last["step"]):
        last, scored_on = record, split
    split_hash = evaluation.get("split_hash", facts.get("split_hash"))
    return RunResult(
        folder=folder,
        config=config,
        step=max(step, last["step"] if last else 0),
        total=total if isinstance(total, int) else None,
        split_hash=split_hash if isinstance(split_hash, str) else None,
        last=last,
        scored_on=scored_on,
        best=None if best is None else {"chosen_on": "test", **best},
        finished=finished or ended_early,
        ended_early=ended_early,
        skipped=facts.get("skipped", {}),
    )


def _newest_record(path: pathlib.Path) -> tuple[int, dict[str, Any] | None, str]:
    """The newest step of metrics.jsonl, and its newest scores with their split."""
    step = 0
    try:
        records = read_records(path)
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror or error}.") from error
    for record in reversed(records):
        step = max(step, record["step"])
        for split in ("test", "val"):
            if f"{split}/top1" in record:
                levels = [
                    name.removeprefix(f"{split}/")
                    for name in record
                    if name.startswith(f"{split}/{LEVEL_PREFIX}")
                ]
                names = (*SCORES, "count", *levels)
                scores = {name: record.get(f"{split}/{name}") for name in names}
                numbers = {k: math.nan if v is None else v for k, v in scores.items()}
                return step, {"step": record["step"], **numbers}, split
    return step, None, "test"


def common_levels(scores: Sequence[dict[str, Any]]) -> list[str]:
    """The keys `accuracy_NAME` of the coarser levels that all of these scores have."""
    first, *others = scores
    return [
        name
        for name in first
        if name.startswith(LEVEL_PREFIX) and all(name in other for other in others)
    ]


def how_chosen(chosen_on: str | None) -> str:
    """How the best step was chosen, in words; `chosen_on`: "val", or else "test"."""
    images = "validation images" if chosen_on == "val" else "test set, so it flatters"
    return f"chosen on the {images}"


def seed_folders(workdir: pathlib.Path) -> dict[int, pathlib.Path]:
    """The runs `seed-N` in the folder of `--mode seeds`, by their seeds, in order."""
    folders = {
        int(match[1]): path
        for path in (workdir.iterdir() if workdir.is_dir() else ())
        if (match := SEED.fullmatch(path.name)) and (path / CONFIG_FILE).is_file()
    }
    return dict(sorted(folders.items()))


def common_split(runs: Iterable[RunResult]) -> str | None:
    """The split hash that all these seeds share, None where none recorded one.

    Raises:
        ConfigError: they are not of the same images.
    """
    known = {run.folder.name: run.split_hash for run in runs if run.split_hash}
    if len(set(known.values())) > 1:
        hashes = ", ".join(f"{name}: {split[:8]}" for name, split in known.items())
        raise ConfigError(
            "The seeds cannot be put together: they were not trained and tested on the same images "
            f"({hashes}); move the folders of the other images away."
        )
    return next(iter(known.values()), None)


def mean_and_deviation(values: Sequence[float]) -> tuple[float, float | None]:
    """Mean and sample standard deviation (divided by n - 1); None for that of a single value."""
    deviation = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return float(np.mean(values)), deviation
