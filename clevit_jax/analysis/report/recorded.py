"""What a run recorded of itself: the parts of a report that need no image.

Where the images are gone, they are the whole report.
"""

import datetime
import pathlib
from typing import Any

from PIL import Image

from clevit_jax.analysis.prediction_table import as_utf8
from clevit_jax.analysis.report import curves, pictures
from clevit_jax.analysis.report.content import Content, FactTable, ScoreRow
from clevit_jax.analysis.trained_model import TrainedModel
from clevit_jax.config import flatten
from clevit_jax.data.dataset import SPLIT_NAMES, describe_levels
from clevit_jax.data.skipped import summary_of
from clevit_jax.errors import ConfigError
from clevit_jax.runs import results
from clevit_jax.runs.facts import levels_of, read_evaluation, read_run_facts
from clevit_jax.runs.goodput import SPENT_ON
from clevit_jax.runs.workdir import LOAD_REPORT_FILE
from clevit_jax.steps.eval_step import Evaluation
from clevit_jax.system.files import read_json_object

_VIEWS_SIDE = 1400  # longest side of the picture of the views, pixels


def collect_recorded(trained: TrainedModel, missing: str) -> Content:
    """A report on a run whose images cannot be reached: curves, scores and settings.

    Args:
        trained: a run.
        missing: why there are no images, a sentence.

    Raises:
        ConfigError: a file of the run cannot be read.
    """
    facts = read_run_facts(trained.path, "class_names")
    scores = recorded_scores(read_evaluation(trained.path))
    if not scores:
        result = results.read_result(trained.path)
        if result.last is not None:  # of metrics.jsonl
            split = SPLIT_NAMES[result.scored_on].capitalize()
            label = f"{split}, during training (step {result.last['step']})"
            scores = [ScoreRow(label, Evaluation.from_json(result.last))]
    images, levels = facts.get("images", {}), levels_of(facts)
    return Content(
        title=as_utf8(trained.path.absolute().name),
        written=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        summary=[
            f"{len(facts['class_names'])} classes; "
            f"{', '.join(f'{count} {split}' for split, count in images.items())} images.",
            *([summary_of(images, facts["skipped"])] if facts.get("skipped") else []),
            *([as_utf8(facts["ended_because"])] if facts.get("ended_because") else []),
            as_utf8(missing),
        ],
        scores=scores,
        facts=[
            ("Split", str(facts.get("split_hash"))[:8]),
            *([("Levels of the classes", as_utf8(describe_levels(levels)))] if levels else []),
            ("Initial weights", initial_weights(trained)),
        ],
        class_names=[as_utf8(name) for name in facts["class_names"]],
        charts=curves.read_charts(trained.path / "metrics.jsonl"),
        views=views_url(trained.path / "views.png"),
        recipe=recipe_tables(trained),
        time=time_rows(facts),
        environment=environment_tables(facts),
    )


def recorded_scores(evaluations: dict[str, Any]) -> list[ScoreRow]:
    """Rows of what evaluation.json holds."""
    scores = list[ScoreRow]()
    for name in ("last", "best"):
        scored = evaluations.get(name)
        if scored is None:
            continue
        how = f", {results.how_chosen(scored.get('chosen_on'))}" if name == "best" else ""
        label = f"Test, {name} (step {scored['step']}{how})"
        scores.append(ScoreRow(label, Evaluation.from_json(scored)))
        if "val" in scored:
            label = f"Validation, {name} (step {scored['step']})"
            scores.append(ScoreRow(label, Evaluation.from_json(scored["val"])))
    return scores


def initial_weights(trained: TrainedModel) -> str:
    """Where the first parameters came from, in words."""
    path = trained.path / LOAD_REPORT_FILE
    if not path.is_file():
        return "random"
    try:
        report = read_json_object(path)
    except ConfigError:
        return f"not known ({LOAD_REPORT_FILE} is damaged)"
    return f"{as_utf8(str(report.get('source')))} ({report.get('dialect')})"


def views_url(path: pathlib.Path) -> str:
    """The picture of the views as a data URL, "" where there is none."""
    if not path.is_file():
        return ""
    with path.open("rb") as file, Image.open(file) as image:
        side = min(_VIEWS_SIDE, max(image.size))
        return pictures.data_url(image, side=side)


def recipe_tables(trained: TrainedModel) -> list[FactTable]:
    """Every setting, one table per group."""
    groups: dict[str, list[tuple[str, str]]] = {}
    for name, value in flatten(trained.config).items():
        group, _, rest = name.rpartition(".")
        text = f"{value:g}" if isinstance(value, float) else str(value) or '""'
        if isinstance(value, tuple):
            text = ", ".join(f"{x:g}" for x in value) or "()"
        groups.setdefault(group or "experiment", []).append((rest, as_utf8(text)))
    return [FactTable(group, rows) for group, rows in groups.items()]


def time_rows(facts: dict[str, Any]) -> list[tuple[str, str, str]]:
    """What the time of a run was spent on, how much, and its share; none of older runs."""
    spent = facts.get("goodput")
    if not spent:
        return []
    total = spent["total"]
    rows = [
        (words.capitalize(), in_words(spent[name]), f"{100 * spent[name] / total:.1f} %")
        for name, words in SPENT_ON.items()
    ]
    return [*rows, ("All", in_words(total), "")]


def in_words(seconds: float) -> str:
    """A time by its two largest units: `2 d 3 h`, `6 min 8 s`, `4.2 s`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    left, parts = round(seconds), list[tuple[int, str]]()
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60), ("s", 1)):
        parts.append((left // length, unit))
        left %= length
    first = next(k for k, (count, _) in enumerate(parts) if count)
    return " ".join(f"{count} {unit}" for count, unit in parts[first : first + 2] if count)


def environment_tables(facts: dict[str, Any]) -> list[FactTable]:
    """Machine and software, one table per start of the run."""
    tables = []
    for number, start in enumerate(facts.get("starts", ()), start=1):
        device, count = start["devices"]
        rows = [
            ("started", start["started"]),
            ("from step", str(start["step"])),
            ("devices", f"{count} {device}"),
            ("processes", str(start["processes"])),
            ("command", as_utf8(" ".join(start["command"]))),
            ("python", start["python"]),
            *((name, str(version)) for name, version in start["versions"].items()),
        ]
        tables.append(FactTable(f"Start {number}", rows))
    return tables
