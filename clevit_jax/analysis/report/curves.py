"""The curves of a run, out of its metrics.jsonl."""

import pathlib

from clevit_jax.analysis.report.content import Chart, Curve
from clevit_jax.runs.metrics import read_records

MAX_POINTS = 600  # points of a curve; more are thinned out evenly
# Title, unit and the names of metrics with what the legend calls them.
_CHARTS = (
    ("Loss", "nats", {
        "train/loss_anchor": "anchor, training", "train/loss_positive": "positive, training",
        "train/loss_contrast": "contrastive, training", "val/loss": "validation",
        "test/loss": "test",
    }),
    ("Accuracy", "%", {
        "train/accuracy": "anchor, training", "val/top1": "validation", "test/top1": "test",
    }),
    ("Learning rate", "", {"train/lr": "backbone", "train/lr_head": "head"}),
)  # fmt: skip


def read_charts(path: pathlib.Path) -> list[Chart]:
    """Loss, accuracy and learning rate by update; charts without a point are left out."""
    records = read_records(path)
    found = []
    for title, unit, named in _CHARTS:
        scale = 100 if unit == "%" else 1
        curves = []
        for metric, name in named.items():
            points = [
                (record["step"], scale * record[metric])
                for record in records
                if isinstance(record.get(metric), int | float)
            ]
            if points:
                curves.append(Curve(name, _thinned(points)))
        if curves:
            found.append(Chart(title, unit, curves))
    return found


def _thinned(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    step = -(-len(points) // MAX_POINTS)
    kept = points[::step]
    return kept if kept[-1] == points[-1] else [*kept, points[-1]]
