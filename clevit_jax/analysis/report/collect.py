"""The content of a report: outputs of the model on the test images, and what the run recorded."""

import dataclasses
import datetime
import math
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

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
from clevit_jax.analysis.report import curves, groups, mistakes, pictures
from clevit_jax.analysis.report.content import (
    Content,
    Embedding,
    Mistake,
    ScoreRow,
    Tile,
)
from clevit_jax.analysis.report.recorded import (
    environment_tables,
    initial_weights,
    recipe_tables,
    recorded_scores,
    time_rows,
    views_url,
)
from clevit_jax.analysis.trained_model import TrainedModel
from clevit_jax.config import resolve_data
from clevit_jax.data.audit import command
from clevit_jax.data.dataset import Dataset, Level, describe_levels
from clevit_jax.data.skipped import listed, summary
from clevit_jax.errors import ConfigError
from clevit_jax.inference import cam, explanation
from clevit_jax.inference.prediction import softmax
from clevit_jax.inference.stream import DatasetOutputs
from clevit_jax.model.swin import abstract_swin
from clevit_jax.runs import results
from clevit_jax.runs.facts import read_evaluation, read_run_facts
from clevit_jax.steps.eval_step import Evaluation, evaluation_of
from clevit_jax.system.files import read_json_object

MAX_MISTAKES = 12
# What a report says of run.json.
_FACTS = ("updates", "global_batch", "chosen_on", "peak_learning_rate", "peak_learning_rate_head")


def collect_content(trained: TrainedModel) -> Content:
    """Everything that a report says.

    Args:
        trained: a run that has its evaluation.json, or any model with a config that names a data
            set of its classes; what only runs have, such as curves, is left out then.

    Raises:
        DataError: the images cannot be read.
        ConfigError: a file of the run cannot be read, or the data has other classes.
    """
    dataset = trained.dataset()
    _check_classes(trained, dataset)
    dataset = dataclasses.replace(dataset, levels=dataset.levels or trained.classifier.levels)
    training = training_features(trained, dataset)
    outputs = dataset_outputs(trained, dataset.test, "Test images")
    if outputs.errors:
        raise trained.unreadable(outputs.errors)
    reference = make_reference(training)
    confusion = mistakes.count_confusions(outputs.logits, outputs.labels)
    few = min(len(dataset.train), len(dataset.test)) < neighbours.FEW
    tested = None if few else explain.run_deletion_test(trained)
    shown = tested.chosen if tested else cam.default_map(trained.classifier.model)
    scores, seeds, seeds_summary = _scores(trained, outputs, dataset.levels)
    facts = read_run_facts(trained.path, *_FACTS) if trained.is_run else {}
    return Content(
        title=as_utf8(trained.path.absolute().name),
        written=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        summary=_summary(trained, dataset, facts) + ([_too_few(dataset)] if few else []),
        scores=scores,
        facts=_key_facts(trained, dataset, facts),
        class_names=[as_utf8(name) for name in dataset.class_names],
        confusion=confusion,
        classes=confusion.by_class(),
        levels=dataset.levels,
        groups=groups.by_level(confusion, dataset.levels),
        seeds=seeds,
        seeds_summary=seeds_summary,
        charts=curves.read_charts(trained.path / "metrics.jsonl") if trained.is_run else (),
        mistakes=_mistakes(trained, dataset, outputs, training, shown),
        map_note=_map_note(tested) if tested else "",
        views=views_url(trained.path / "views.png") if trained.is_run else "",
        embedding=None if few else _embedding(outputs),
        feature_notes=() if few else _feature_notes(training, outputs, reference),
        recipe=recipe_tables(trained),
        time=time_rows(facts),
        environment=environment_tables(facts),
        **_data_check(trained, listed(dataset).split_hash()),
    )


def _check_classes(trained: TrainedModel, dataset: Dataset) -> None:
    """Raises ConfigError if the columns of the logits are not the classes of the data."""
    classifier = trained.classifier
    classifier.check_head()
    has_names = classifier.class_names != tuple(map(str, range(classifier.model.num_classes)))
    if classifier.model.num_classes != dataset.num_classes or (
        has_names and classifier.class_names != dataset.class_names
    ):
        raise ConfigError(
            f"{trained.path} tells {classifier.model.num_classes} classes apart, which are not the "
            f"{dataset.num_classes} of the data, so it cannot be scored on them. Its features can "
            "be measured: --mode features."
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
        *([summary(dataset)] if dataset.skipped else []),
        *([as_utf8(facts["ended_because"])] if facts.get("ended_because") else []),
        f"Pictures and tables below show the model {as_utf8(trained.classifier.source)}.",
    ]


def _too_few(dataset: Dataset) -> str:
    return (
        f"{len(dataset.train)} training and {len(dataset.test)} test images are too few for the "
        f"tests of this page, which need {neighbours.FEW} of each: the deletion test (a map below "
        "is the usual one), neighbours, retrieval and t-SNE are left out, and the scores tell "
        "little."
    )


def _scores(
    trained: TrainedModel, outputs: DatasetOutputs, levels: Sequence[Level] = ()
) -> tuple[list[ScoreRow], list[tuple[str, str]], str]:
    """Rows of scores of evaluation.json; (seed, top-1) of all seeds, and a sentence on these."""
    evaluations = read_evaluation(trained.path) if trained.is_run else {}
    scores = recorded_scores(evaluations)
    recomputed = evaluation_of(outputs.logits, outputs.labels, levels)
    recorded = evaluations.get(str(trained.checkpoint))
    if isinstance(trained.checkpoint, int):
        both = [evaluations[name] for name in ("last", "best") if evaluations.get(name)]
        recorded = next((one for one in both if one["step"] == trained.checkpoint), None)
    # Compared as text: as far as digits are shown.
    if recorded is None or str(Evaluation.from_json(recorded)) != str(recomputed):
        label = f"Test, recomputed for this page ({as_utf8(trained.classifier.source)})"
        scores.append(ScoreRow(label, recomputed))
    siblings = results.seed_folders(trained.path.absolute().parent)
    if trained.path.absolute() not in {path.absolute() for path in siblings.values()}:
        return scores, [], ""
    runs = {seed: results.read_result(path) for seed, path in siblings.items()}
    top1 = {seed: run.last["top1"] for seed, run in runs.items() if run.finished and run.last}
    rows = [(str(seed), f"{100 * value:.2f} %") for seed, value in top1.items()]
    if len(rows) < 2:
        return scores, [], ""
    mean, deviation = results.mean_and_deviation(list(top1.values()))
    spread = f", deviation {100 * deviation:.2f}" if deviation is not None else ""
    return scores, rows, f"Mean of {len(rows)} seeds {100 * mean:.2f} %{spread} (last step, top-1)."


def _key_facts(
    trained: TrainedModel, dataset: Dataset, facts: dict[str, Any]
) -> list[tuple[str, str]]:
    """Names and values that stand under the scores."""
    assert trained.config is not None
    images = {split: str(len(examples)) for split, examples in dataset.splits.items()}
    rows = [
        ("Split", f"{dataset.split_hash()[:8]} ({dataset.recognised_by})"),
        ("Seed of the split", str(trained.config.data.split_seed)),
        ("Images", ", ".join(f"{count} {split}" for split, count in images.items())),
    ]
    if dataset.levels:
        rows.append(("Levels of the classes", as_utf8(describe_levels(dataset.levels))))
    if not facts:
        return rows
    return [
        ("Seed", str(trained.config.seed)),
        *rows,
        ("Best step chosen on", {"val": "validation", "test": "test"}[facts["chosen_on"]]),
        (
            "Peak learning rate",
            f"{facts['peak_learning_rate']:.3g}, head {facts['peak_learning_rate_head']:.3g}",
        ),
        ("Initial weights", initial_weights(trained)),
    ]


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
    probabilities = softmax(outputs.logits[rows])
    shown = []
    for i, (row, example) in enumerate(zip(rows, examples, strict=True)):
        right, wrong = (as_utf8(dataset.class_names[k]) for k in (labels[i], predicted[i]))
        tiles = [Tile("test image", right, pictures.pixels_url(seen[i]))]
        for heading, class_name, grids in (
            ("evidence for", wrong, maps[0]),
            ("evidence for", right, maps[1]),
        ):
            grid = explanation.enlarge(grids[i], classifier.model.image_size)
            overlay = pictures.data_url(explanation.overlay(seen[i], grid))
            tiles.append(Tile(heading, class_name, overlay))
        for label, class_name in ((predicted[i], wrong), (labels[i], right)):
            nearest = neighbours.nearest_of_class(
                outputs.features[row], training.features, training.labels, int(label)
            )
            if nearest is None:
                continue
            neighbour = dataset.train[nearest[0]]
            pixels = classifier.pixels(neighbour.data, neighbour.name)
            heading = f"nearest in training, distance {nearest[1]:.3f}"
            tiles.append(Tile(heading, class_name, pictures.pixels_url(pixels)))
        shown.append(
            Mistake(
                file=as_utf8(example.name),
                right=right,
                predicted=wrong,
                right_share=float(probabilities[i, labels[i]]),
                predicted_share=float(probabilities[i, predicted[i]]),
                tiles=tuple(tiles),
            )
        )
    return shown


def _map_note(tested: Deletion) -> str:
    note = f"The deletion test chose the map that is shown: {tested}."
    if tested.random > 0:
        note += f" Attention roll-out: {tested.ratio(cam.ROLLOUT):.1f} times as much."
    return note


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


def _feature_notes(
    training: Features, outputs: DatasetOutputs, reference: Reference | None
) -> list[str]:
    knn = neighbours.knn_accuracy(
        training.features, training.labels, outputs.features, outputs.labels
    )
    accuracies = ", ".join(f"k = {k}: {100 * accuracy:.2f} %" for k, accuracy in knn.items())
    notes = [f"Test accuracy by the k nearest training images (cosine of features): {accuracies}."]
    retrieved = neighbours.retrieval(outputs.features, outputs.labels)
    if retrieved:
        notes.append(
            "Retrieval among the test images: R@1 "
            f"{100 * retrieved.recall_at_1:.2f} %, mAP "
            f"{100 * retrieved.mean_average_precision:.2f} %."
        )
    if reference:
        _, nearer = reference.compare(outputs.features)
        unlike = int((nearer >= UNLIKE).sum())
        notes.append(
            f"{unlike} of {len(nearer)} test images ({100 * unlike / len(nearer):.1f} %) are "
            f"unlike the training images: farther from them than {100 * UNLIKE:.0f} % of these are "
            "from each other. --mode predict marks such images (column unlike_training)."
        )
    return notes


def _data_check(trained: TrainedModel, split_hash: str) -> dict[str, Any]:
    """`data_check` and `findings` of the content, by `--mode check_data`; runs it if need be."""
    assert trained.config is not None
    path = trained.path / command.JSON
    try:
        audit = read_json_object(path) if trained.is_run and path.is_file() else {}
    except ConfigError:  # damaged: it is made again
        audit = {}
    if audit.get("split_hash") != split_hash:
        settings = resolve_data(trained.config)
        if trained.is_run:
            audit = command.write_audit(settings, trained.path)
        else:
            audit = command.audit(settings)
    images = audit.get("images") or {}
    rows = [("layout", str(audit.get("layout")))]
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
        for finding in audit.get(name, [])
    ]
    return {"data_check": rows, "findings": findings}
