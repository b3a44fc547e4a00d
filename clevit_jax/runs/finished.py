"""Whether a run is finished, by what it left, before an image is decoded."""

from typing import Any

from clevit_jax.distributed import processes
from clevit_jax.errors import ConfigError
from clevit_jax.runs.facts import read_evaluation, run_facts_are_whole
from clevit_jax.runs.patience import ended_at
from clevit_jax.runs.setup import Run
from clevit_jax.runs.workdir import EVALUATION_FILE, REPORT_FILE


def last_scores(run: Run) -> dict[str, Any] | None:
    """Test scores of the last step on these images, None before they are taken."""
    try:
        evaluation = read_evaluation(run.workdir)
    except ConfigError:
        if processes.index() == 0:
            path = run.workdir / EVALUATION_FILE
            print(f"{path} is damaged; the run is scored again.", flush=True)
        return None
    last = evaluation.get("last")
    if last is None or evaluation.get("split_hash") != run.dataset.split_hash():
        return None
    at_end = last["step"] >= run.plan.total or last["step"] == ended_at(run.workdir)
    return dict(last) if at_end else None


def say_finished(run: Run) -> bool:
    """Whether the run is finished; if so, says so without decoding an image."""
    last = last_scores(run)
    if last is None or not run_facts_are_whole(run.workdir):
        return False
    more = f"; --mode report --workdir {run.workdir} writes a report"
    if (run.workdir / REPORT_FILE).exists():
        more = f" and {REPORT_FILE}"
    elif run.settings.report:  # a signal came while it was written
        return False
    print(
        f"{run.workdir} is finished: it is at its last step, {last['step']}, with test top-1 "
        f"{100 * last['top1']:.2f} %; see {run.workdir / EVALUATION_FILE}{more}.",
        flush=True,
    )
    return True
