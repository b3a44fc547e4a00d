"""What a report says, before it is a page."""

import dataclasses
from collections.abc import Sequence

from clevit_jax.analysis.report.mistakes import ClassMetrics, Confusion
from clevit_jax.steps.eval_step import Evaluation


@dataclasses.dataclass(frozen=True)
class ScoreRow:
    """A line of the result.

    Attributes:
        label: what was scored, and on what.
        evaluation: the numbers of `--mode eval`.
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
    """Curves over the updates that share an axis; `unit` is "%", "nats" or ""."""

    title: str
    unit: str
    curves: Sequence[Curve]


@dataclasses.dataclass(frozen=True)
class Tile:
    """A picture with its words; `source` is a `data:` address."""

    heading: str
    text: str
    source: str


@dataclasses.dataclass(frozen=True)
class Mistake:
    """A test image that was taken for another class, with what tells why; see `tiles`."""

    file: str
    right: str
    predicted: str
    right_share: float
    predicted_share: float
    tiles: Sequence[Tile]


@dataclasses.dataclass(frozen=True)
class Embedding:
    """Test images in two dimensions: `points` of x, y in [0, 1], and for each the rest."""

    points: Sequence[tuple[float, float]]
    labels: Sequence[int]
    predicted: Sequence[int]
    files: Sequence[str]
    of: int  # test images, of which these are a sample


@dataclasses.dataclass(frozen=True)
class FactTable:
    """A table of names and values under a heading."""

    heading: str
    rows: Sequence[tuple[str, str]]


@dataclasses.dataclass(frozen=True)
class Content:
    """Everything that a report shows; a part that is empty is left out of the page.

    Attributes:
        title: of the page: the run.
        written: when, ISO 8601.
        summary: sentences under the title.
        scores: the result, that of the last checkpoint first.
        seeds: runs of the same config with other seeds: (seed, top-1), and what they come to.
        seeds_summary: in a sentence.
        facts: small tables of the result: seed, split hash, numbers of images.
        charts: loss, accuracy, learning rate.
        class_names: of all classes.
        confusion: on the test images.
        classes: the scores of every class.
        mistakes: the worst ones.
        maps: in a sentence, which map is shown, and what the deletion test found.
        views: a `data:` address of the picture of the views, or "".
        embedding: of the test images.
        worth: sentences on the features: neighbours, retrieval, images unlike the training set.
        recipe: every setting.
        environment: machine, software, starts.
        data_check: what was found in the data set.
        findings: sentences of the data check, (kind, sentence), "error" or "warning".
    """

    title: str
    written: str
    summary: Sequence[str]
    scores: Sequence[ScoreRow]
    facts: Sequence[tuple[str, str]]
    class_names: Sequence[str]
    confusion: Confusion
    classes: Sequence[ClassMetrics]
    seeds: Sequence[tuple[str, str]] = ()
    seeds_summary: str = ""
    charts: Sequence[Chart] = ()
    mistakes: Sequence[Mistake] = ()
    maps: str = ""
    views: str = ""
    embedding: Embedding | None = None
    worth: Sequence[str] = ()
    recipe: Sequence[FactTable] = ()
    environment: Sequence[FactTable] = ()
    data_check: Sequence[tuple[str, str]] = ()
    findings: Sequence[tuple[str, str]] = ()
