"""Reports of made numbers, with as many classes as wanted."""

import functools

import numpy as np

from clevit_jax.analysis.report import groups, mistakes, pictures
from clevit_jax.analysis.report.content import (
    Chart,
    Content,
    Curve,
    Embedding,
    FactTable,
    Mistake,
    ScoreRow,
    Tile,
)
from clevit_jax.data.dataset import Level
from clevit_jax.steps.eval_step import evaluation_of


@functools.cache
def content(classes: int, images: int = 3) -> Content:
    """A report on `images` test images a class, two thirds of them named right.

    With 200 classes and more, each ten are a genus, and each 50 a family.
    """
    rng = np.random.RandomState(classes)
    labels = np.repeat(np.arange(classes), images)
    logits = rng.standard_normal((len(labels), classes)).astype(np.float32)
    logits[np.arange(len(labels)), labels] += np.where(rng.rand(len(labels)) < 0.67, 9, 0)
    # Neighbours in number are often confused.
    close = rng.rand(len(labels)) < 0.2
    logits[np.flatnonzero(close), (labels[close] + 1) % classes] += 10
    found = mistakes.count_confusions(logits, labels)
    names = [f"Soja max cultivar {k:04}" for k in range(classes)]
    levels = tuple(
        Level(level, tuple(f"{level} {k // size:03}" for k in range(classes)))
        for level, size in (("family", 50), ("genus", 10))
        if classes >= 200
    )
    steps = np.arange(0, 4000, 20)

    def picture() -> str:
        return pictures.pixels_url(rng.randint(0, 256, (448, 448, 3)).astype(np.uint8))

    shown = [
        Tile("nearest in training, distance 0.123", names[k], picture())
        for k in range(min(5, classes))
    ]
    worst = mistakes.worst_rows(logits, labels, 12)
    return Content(
        title="made",
        written="2026-11-25T00:00:00+00:00",
        summary=["Made numbers."],
        scores=[ScoreRow("Test, last (step 4000)", evaluation_of(logits, labels, levels))],
        facts=[("Seed", "0")],
        class_names=names,
        confusion=found,
        classes=found.by_class(),
        levels=levels,
        groups=groups.by_level(found, levels),
        charts=[
            Chart("Loss", "nats", [Curve(name, [(int(s), float(np.exp(-s / 900)) + shift)
                                                for s in steps])
                                   for name, shift in (("training", 0), ("test", 0.3))]),
        ],
        mistakes=[
            Mistake(f"{row}.jpg", names[labels[row]], names[logits[row].argmax()], 0.01, 0.9, shown)
            for row in worst
        ],
        map_note="Made maps.",
        views=picture(),
        embedding=Embedding(
            points=[(float(x), float(y)) for x, y in rng.rand(min(3000, len(labels)), 2).round(4)],
            labels=labels[:3000].tolist(),
            predicted=logits.argmax(1)[:3000].tolist(),
            files=[f"images/{k}.jpg" for k in range(min(3000, len(labels)))],
            of=len(labels),
        ),
        feature_notes=["Made."],
        recipe=[FactTable("optim", [("lr", "0.001")])],
        time=[("Updates that count", "2 h 3 min", "91.2 %"), ("All", "2 h 15 min", "")],
        environment=[FactTable("Start 1", [("devices", "1 cpu")])],
        data_check=[("layout", "ufg")],
        findings=[("warning", "Made.")],
    )  # fmt: skip
