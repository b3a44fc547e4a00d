"""Gathers what a report says: computes what the model makes of the test images, reads the rest."""

import datetime
import math
import pathlib
from typing import Any

import jax
import numpy as np
from PIL import Image

from clevit_jax.analysis import explain, neighbours, tsne
from clevit_jax.analysis.deletion import Deletion
from clevit_jax.analysis.feature_file import Features
from clevit_jax.analysis.ood import (
    UNLIKE,
    Reference,
    dataset_outputs,
    make_reference,
    training_features,
)
from clevit_jax.analysis.prediction_table import as_utf8
from clevit_jax.analysis.report import curves, mistakes, pictures
from clevit_jax.analysis.report.content import (
    Content,
    Embedding,
    FactTable,
    Mistake,
    ScoreRow,
    Tile,
)
from clevit_jax.analysis.trained_model import TrainedModel
from clevit_jax.config import flatten, resolve_data
from clevit_jax.data.audit import command
from clevit_jax.data.dataset import Dataset
from clevit_jax.errors import ConfigError, DataError
from clevit_jax.inference import cam, explanation
from clevit_jax.inference.prediction import softmax
from clevit_jax.inference.stream import DatasetOutputs
from clevit_jax.model.swin import abstract_swin
from clevit_jax.runs import results
from clevit_jax.runs.workdir import EVALUATION_FILE, LOAD_REPORT_FILE, RUN_FILE
from clevit_jax.steps.eval_step import Evaluation, evaluation_of
from clevit_jax.system.files import read_json_object

MAX_MISTAKES = 12
_VIEWS_SIDE = 1400  # pixels of the longer side of the picture of the views


def collect_content(trained: TrainedModel) -> Content:
    """Everything that a report says.

    Args:
        trained: a run that was scored (its evaluation.json is there), or any model with a config
            that names a data set of its classes; curves and the like are left out then.

    Raises:
        DataError: the images are not there.
        ConfigError: a file of the run cannot be read, or the classes are others.
    """
    dataset = trained.dataset()
    _check_classes(trained, dataset)
    training = training_features(trained)
    outputs = dataset_outputs(trained, dataset.test, "Test images")
    if outputs.errors:
        raise DataError(outputs.errors)
    reference = make_reference(training)
    found = mistakes.count_confusions(outputs.logits, outputs.labels)
    tested = explain.run_deletion_test(trained)
    scores, seeds, seeds_summary = _scores(trained, outputs)
    facts = read_json_object(trained.path / RUN_FILE) if trained.is_run else {}
    return Content(
        title=as_utf8(trained.path.absolute().name),
        written=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        summary=_summary(trained, dataset, facts),
        scores=scores,
        facts=_result_facts(trained, dataset, facts),
        class_names=[as_utf8(name) for name in dataset.class_names],
        confusion=found,
        classes=found.by_class(),
        seeds=seeds,
        seeds_summary=seeds_summary,
        charts=curves.read_charts(trained.path / "metrics.jsonl") if trained.is_run else (),
        mistakes=_mistakes(trained, dataset, outputs, training, tested.chosen),
        maps=_maps(tested),
        views=_views(trained.path / "views.png") if trained.is_run else "",
        embedding=_embedding(outputs),
        worth=_worth(training, outputs, reference),
        recipe=_recipe(trained),
        environment=_environment(facts),
        **_data_check(trained, dataset.split_hash()),
    )


def _check_classes(trained: TrainedModel, dataset: Dataset) -> None:
    """Raises ConfigError where the columns of the logits are not the classes of the data."""
    classifier = trained.classifier
    known = classifier.class_names != tuple(map(str, range(classifier.model.num_classes)))
    if classifier.model.num_classes != dataset.num_classes or (
        known and classifier.class_names != dataset.class_names
    ):
        raise ConfigError(
            f"{trained.path} tells {classifier.model.num_classes} classes apart, which are not the "
            f"{dataset.num_classes} of the data, so it cannot be scored on them; --mode features "
            "measures its features."
        )


def _summary(trained: TrainedModel, dataset: Dataset, facts: dict[str, Any]) -> list[str]:
    model = trained.classifier.model
    counts = [f"{len(examples)} {split}" for split, examples in dataset.splits.items()]
    parameters = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(abstract_swin(model)[1]))
    updates = f", {facts['updates']} updates of {facts['global_batch']} images" if facts else ""
    return [
        f"{dataset.num_classes} classes, {', '.join(counts)} images of "
        f"{as_utf8(str(trained.config.data.root or trained.config.data.tfds))}."  # type: ignore[union-attr]
        f" Swin of {parameters / 1e6:.2f} M parameters at {model.image_size} pixels{updates}.",
        f"The pictures and tables below are of {as_utf8(trained.classifier.source)}.",
    ]


def _scores(
    trained: TrainedModel, outputs: DatasetOutputs
) -> tuple[list[ScoreRow], list[tuple[str, str]], str]:
    """Lines of the result as evaluation.json has them, and those of the other seeds."""
    found = read_json_object(trained.path / EVALUATION_FILE) if trained.is_run else {}
    scores = []
    for name in ("last", "best"):
        line = found.get(name)
        if line is None:
            continue
        how = f", {results.how_chosen(line.get('chosen_on'))}" if name == "best" else ""
        scores.append(ScoreRow(f"Test, {name} (step {line['step']}{how})", _evaluation(line)))
        if "val" in line:
            label = f"Validation, {name} (step {line['step']})"
            scores.append(ScoreRow(label, _evaluation(line["val"])))
    counted = evaluation_of(outputs.logits, outputs.labels)
    own = found.get(trained.checkpoint)
    if own is None or str(_evaluation(own)) != str(counted):  # as far as digits are shown
        label = f"Test, counted anew for this page ({as_utf8(trained.classifier.source)})"
        scores.append(ScoreRow(label, counted))
    siblings = results.seed_folders(trained.path.absolute().parent)
    if trained.path.absolute() not in {path.absolute() for path in siblings.values()}:
        return scores, [], ""
    finished = {seed: run.last for seed, path in siblings.items()
                if (run := results.read_result(path)).finished and run.last}  # fmt: skip
    rows = [(str(seed), f"{100 * line['top1']:.2f} %") for seed, line in finished.items()]
    if len(rows) < 2:
        return scores, [], ""
    mean, deviation = results.mean_and_deviation([line["top1"] for line in finished.values()])
    spread = f", deviation {100 * deviation:.2f}" if deviation is not None else ""
    return scores, rows, f"Mean of {len(rows)} seeds {100 * mean:.2f} %{spread} (last step, top-1)."


def _evaluation(line: dict[str, Any]) -> Evaluation:
    names = ("top1", "top5", "mean_per_class", "loss", "count")
    return Evaluation(**{name: line[name] for name in names})


def _result_facts(
    trained: TrainedModel, dataset: Dataset, facts: dict[str, Any]
) -> list[tuple[str, str]]:
    assert trained.config is not None
    images = {split: str(len(examples)) for split, examples in dataset.splits.items()}
    rows = [
        ("Split", f"{dataset.split_hash()[:8]} ({dataset.recognised_by})"),
        ("Seed of the split", str(trained.config.data.split_seed)),
        ("Images", ", ".join(f"{count} {split}" for split, count in images.items())),
    ]
    if not facts:
        return rows
    return [
        ("Seed", str(trained.config.seed)),
        *rows,
        ("Best step chosen on", {"val": "validation", "test": "test"}[facts["chosen_on"]]),
        ("Peak learning rate", f"{facts['peak_learning_rate']:.3g}, "
         f"head {facts['peak_learning_rate_head']:.3g}"),
        ("Start", _load_report(trained)),
    ]  # fmt: skip


def _load_report(trained: TrainedModel) -> str:
    path = trained.path / LOAD_REPORT_FILE
    if not path.is_file():
        return "random parameters"
    facts = read_json_object(path)
    return f"{as_utf8(str(facts.get('source')))} ({facts.get('dialect')})"


def _mistakes(
    trained: TrainedModel, dataset: Dataset, outputs: DatasetOutputs, training: Features, name: str
) -> list[Mistake]:
    """The worst mistakes, each with its CAMs and the nearest training images of both classes."""
    classifier = trained.classifier
    rows = mistakes.worst_rows(outputs.logits, outputs.labels, MAX_MISTAKES)
    if not rows:
        return []
    examples = [outputs.examples[row] for row in rows]
    seen = np.stack([classifier.pixels(example.data, example.name) for example in examples])
    labels, predicted = outputs.labels[rows], outputs.logits[rows].argmax(-1)
    maps = [classifier.maps(seen, classes, (name,))[name] for classes in (predicted, labels)]
    shares = softmax(outputs.logits[rows])
    found = []
    for i, (row, example) in enumerate(zip(rows, examples, strict=True)):
        right, wrong = (as_utf8(dataset.class_names[k]) for k in (labels[i], predicted[i]))
        tiles = [Tile("test image", right, pictures.pixels_url(seen[i]))]
        for heading, class_name, grids in (
            ("speaks for", wrong, maps[0]),
            ("speaks for", right, maps[1]),
        ):
            grid = explanation.enlarge(grids[i], classifier.model.image_size)
            shown = pictures.data_url(explanation.overlay(seen[i], grid))
            tiles.append(Tile(heading, class_name, shown))
        for label, class_name in ((predicted[i], wrong), (labels[i], right)):
            near = neighbours.nearest_of_class(
                outputs.features[row], training.features, training.labels, int(label)
            )
            if near is None:
                continue
            other = dataset.train[near[0]]
            pixels = classifier.pixels(other.data, other.name)
            heading = f"nearest in training, distance {near[1]:.3f}"
            tiles.append(Tile(heading, class_name, pictures.pixels_url(pixels)))
        shared = [float(shares[i, k]) for k in (labels[i], predicted[i])]
        found.append(
            Mistake(as_utf8(example.name), right, wrong, shared[0], shared[1], tuple(tiles))
        )
    return found


def _maps(tested: Deletion) -> str:
    rollout = f"{tested.ratio(cam.ROLLOUT):.1f} times" if tested.random > 0 else "no more"
    return (
        f"The deletion test chose the map that is shown: {tested}. Attention roll-out: {rollout}."
    )


def _views(path: pathlib.Path) -> str:
    if not path.is_file():
        return ""
    with Image.open(path) as image:
        side = min(_VIEWS_SIDE, max(image.size))
        return pictures.data_url(image, side=side)


def _embedding(outputs: DatasetOutputs) -> Embedding:
    rows = tsne.sample_rows(len(outputs.examples))
    points = tsne.embed(outputs.features[rows]).astype(np.float64)
    points -= points.min(axis=0)
    points /= np.maximum(points.max(), 1e-9)
    names = outputs.names
    return Embedding(
        points=[(round(float(x), 4), round(float(y), 4)) for x, y in points],
        labels=outputs.labels[rows].tolist(),
        predicted=outputs.logits[rows].argmax(-1).tolist(),
        files=[as_utf8(names[row]) for row in rows],
        of=len(outputs.examples),
    )


def _worth(training: Features, outputs: DatasetOutputs, reference: Reference | None) -> list[str]:
    knn = neighbours.knn_accuracy(
        training.features, training.labels, outputs.features, outputs.labels
    )
    shares = ", ".join(f"k = {k} {100 * share:.2f} %" for k, share in knn.items())
    lines = [f"Test accuracy of the nearest training images, by the cosine of features: {shares}."]
    retrieved = neighbours.retrieval(outputs.features, outputs.labels)
    if retrieved:
        lines.append(
            "Retrieval among the test images: R@1 "
            f"{100 * retrieved.recall_at_1:.2f} %, mAP "
            f"{100 * retrieved.mean_average_precision:.2f} %."
        )
    if reference:
        _, nearer = reference.compare(outputs.features)
        unlike = int((nearer >= UNLIKE).sum())
        lines.append(
            f"{unlike} of {len(nearer)} test images ({100 * unlike / len(nearer):.1f} %) are "
            f"farther from the training images than {100 * UNLIKE:.0f} % of these are from each "
            "other; --mode predict would mark them as unlike."
        )
    return lines


def _recipe(trained: TrainedModel) -> list[FactTable]:
    groups: dict[str, list[tuple[str, str]]] = {}
    for name, value in flatten(trained.config).items():
        group, _, rest = name.rpartition(".")
        text = f"{value:g}" if isinstance(value, float) else str(value) or '""'
        if isinstance(value, tuple):
            text = ", ".join(f"{x:g}" for x in value) or "()"
        groups.setdefault(group or "experiment", []).append((rest, as_utf8(text)))
    return [FactTable(group, rows) for group, rows in groups.items()]


def _environment(facts: dict[str, Any]) -> list[FactTable]:
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


def _data_check(trained: TrainedModel, split_hash: str) -> dict[str, Any]:
    """What `--mode check_data` wrote; it is run where that was not done."""
    assert trained.config is not None
    path = trained.path / command.JSON
    found = read_json_object(path) if trained.is_run and path.is_file() else {}
    if found.get("split_hash") != split_hash:
        found = (
            command.write_audit(resolve_data(trained.config), trained.path)
            if trained.is_run
            else command.audit(resolve_data(trained.config))
        )
    images = found.get("images") or {}
    rows = [("layout", str(found.get("layout")))]
    rows += [
        (f"images {name}", str(images.get(name))) for name in ("read", "unreadable", "missing")
    ]
    for side in ("width", "height"):
        if isinstance(images.get(side), dict):
            low, middle, high = (images[side][name] for name in ("min", "median", "max"))
            rows.append((f"{side}, pixels", f"{low} to {high}, median {middle:g}"))
    findings = [
        (kind, as_utf8(finding["sentence"]))
        for kind, name in (("error", "errors"), ("warning", "warnings"))
        for finding in found.get(name, [])
    ]
    return {"data_check": rows, "findings": findings}
