"""Charts of a run's loss, accuracy and learning rate, from its metrics.jsonl."""

import pathlib

from clevit_jax.analysis.report.content import Chart, Curve
from clevit_jax.runs.metrics import read_records

MAX_POINTS = 600  # a curve with more is thinned out evenly
# Title, unit, and name of a metric -> its name in the legend.
_CHARTS = (
    (
        "Loss",
        "nats",
        {
            "train/loss_anchor": "anchor, training",
            "train/loss_positive": "positive, training",
            "train/loss_contrast": "contrastive, training",
            "val/loss": "validation",
            "test/loss": "test",
        },
    ),
    (
        "Accuracy",
        "%",
        {
            "train/accuracy": "anchor, training",
            "val/top1": "validation",
            "test/top1": "test",
        },
    ),
    ("Learning rate", "", {"train/lr": "backbone", "train/lr_head": "head"}),
)


def read_charts(path: pathlib.Path) -> list[Chart]:
    """Charts of loss, accuracy and learning rate over the updates; empty ones are left out."""
    records = read_records(path)
    charts = []
    for title, unit, legend in _CHARTS:
        scale = 100 if unit == "%" else 1
        curves = []
        for metric, name in legend.items():
            points = [
                (record["step"], scale * record[metric])
                for record in records
                if isinstance(record.get(metric), int | float)
            ]
            if points:
                curves.append(Curve(name, _thinned(points)))
        if curves:
            charts.append(Chart(title, unit, curves))
    return charts


def _thinned(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    step = -(-len(points) // MAX_POINTS)
    kept = points[::step]
    return kept if kept[-1] == points[-1] else [*kept, points[-1]]
