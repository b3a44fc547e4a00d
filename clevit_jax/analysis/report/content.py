"""The content of a report, as data, before it is a page."""

import dataclasses
from collections.abc import Sequence

from clevit_jax.analysis.report.groups import LevelMetrics
from clevit_jax.analysis.report.mistakes import ClassMetrics, Confusion
from clevit_jax.data.dataset import Level
from clevit_jax.steps.eval_step import Evaluation


@dataclasses.dataclass(frozen=True)
class ScoreRow:
    """A row of the table of scores.

    Attributes:
        label: the split and the checkpoint that were scored.
        evaluation: the scores, as of `--mode eval`.
    """

    label: str
    evaluation: Evaluation


@dataclasses.dataclass(frozen=True)
class Curve:
    """A line of a chart: `points` of (step, value)."""

    name: str
    points: Sequence[tuple[float, float]]


@dataclasses.dataclass(frozen=True)
class Chart:
    """Curves over the updates with a common axis; `unit` is "%", "nats" or ""."""

    title: str
    unit: str
    curves: Sequence[Curve]


@dataclasses.dataclass(frozen=True)
class Tile:
    """A picture with a caption of two lines; `source` is its data URL."""

    heading: str
    text: str
    source: str


@dataclasses.dataclass(frozen=True)
class Mistake:
    """A test image that was predicted as another class.

    Attributes:
        file: name of the image.
        right: name of its true class.
        predicted: name of the predicted class.
        right_share: probability of the true class.
        predicted_share: probability of the predicted class.
        tiles: the image, maps for both classes, and the nearest training images of both.
    """

    file: str
    right: str
    predicted: str
    right_share: float
    predicted_share: float
    tiles: Sequence[Tile]


@dataclasses.dataclass(frozen=True)
class Embedding:
    """A t-SNE of test images.

    Attributes:
        points: x, y in [0, 1] of each image.
        labels: true class of each image.
        predicted: predicted class of each image.
        files: name of each image.
        of: number of all test images, of which these are a sample.
    """

    points: Sequence[tuple[float, float]]
    labels: Sequence[int]
    predicted: Sequence[int]
    files: Sequence[str]
    of: int


@dataclasses.dataclass(frozen=True)
class FactTable:
    """Names and values under a heading."""

    heading: str
    rows: Sequence[tuple[str, str]]


@dataclasses.dataclass(frozen=True)
class Content:
    """Everything that a report shows; the page leaves out what is empty.

    Attributes:
        title: title of the page: name of the run.
        written: date and time of the report, ISO 8601.
        summary: sentences under the title.
        scores: rows of the table of scores, the last checkpoint first.
        facts: names and values under the scores: seed, split hash, numbers of images.
        class_names: names of all classes.
        confusion: confusion matrix of the test images; None where there are no images.
        classes: metrics of every class.
        levels: coarser levels of the classes, the coarsest first.
        groups: metrics of every group of these, one for each level.
        seeds: (seed, top-1) of the runs of the same config with several seeds.
        seeds_summary: a sentence on their mean.
        charts: loss, accuracy, learning rate.
        mistakes: the worst mistakes.
        map_note: sentences on the map that is shown, and on the deletion test.
        views: data URL of the picture of the views, or "".
        embedding: t-SNE of the test images.
        feature_notes: sentences on the features: k-NN, retrieval, images unlike the training set.
        recipe: every setting, one table per group.
        time: what the time of the run was spent on, how much, and its share; of all starts.
        environment: machine and software, one table per start of the run.
        data_check: names and values of the data check.
        findings: (kind, sentence) of the data check; the kind is "error" or "warning".
    """

    title: str
    written: str
    summary: Sequence[str]
    scores: Sequence[ScoreRow]
    facts: Sequence[tuple[str, str]]
    class_names: Sequence[str]
    confusion: Confusion | None = None
    classes: Sequence[ClassMetrics] = ()
    levels: Sequence[Level] = ()
    groups: Sequence[LevelMetrics] = ()
    seeds: Sequence[tuple[str, str]] = ()
    seeds_summary: str = ""
    charts: Sequence[Chart] = ()
    mistakes: Sequence[Mistake] = ()
    map_note: str = ""
    views: str = ""
    embedding: Embedding | None = None
    feature_notes: Sequence[str] = ()
    recipe: Sequence[FactTable] = ()
    time: Sequence[tuple[str, str, str]] = ()
    environment: Sequence[FactTable] = ()
    data_check: Sequence[tuple[str, str]] = ()
    findings: Sequence[tuple[str, str]] = ()
