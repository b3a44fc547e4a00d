"""Coarser levels of the classes: in predictions and their tables, in pages, and in what is kept."""

import csv
import dataclasses
import json
import pathlib
import re

import numpy as np
import pytest
import tiny
from PIL import Image
from sklearn.metrics import accuracy_score

import clevit_jax
from clevit_jax.analysis.predict import predict
from clevit_jax.analysis.report import collect, groups, mistakes, page
from clevit_jax.analysis.report.recorded import collect_recorded
from clevit_jax.analysis.trained_model import TrainedModel, open_trained_model
from clevit_jax.config import resolve_data
from clevit_jax.data.audit import command
from clevit_jax.data.dataset import Level, describe_levels
from clevit_jax.errors import ConfigError
from clevit_jax.evaluate import evaluate_workdir
from clevit_jax.inference.classifier import Classifier
from clevit_jax.inference.exported import export_facts
from clevit_jax.inference.prediction import Group, Grouping, Prediction, rank
from clevit_jax.model.config import SwinConfig
from clevit_jax.model.preprocessing import Preprocessing
from clevit_jax.runs.facts import read_run_facts
from clevit_jax.runs.load import read_weights
from clevit_jax.runs.workdir import load_config
from clevit_jax.train import train_workdir
from clevit_jax.weights.converted import write_converted

CLASSES = ("beech", "oak", "tulip", "rose", "yew")
KIND = Level("kind", ("tree", "tree", "flower", "flower", "tree"))
GENUS = Level("genus", ("Fagus", "Quercus", "Tulipa", "Rosa", "Taxus"))
ODD = Level("=class_1", ("=a", "=a", "b", "b", "b"))  # a formula, and a name beside `class_1`


def best_by_hand(shares, level):
    """The most probable group and its probability, summed one class at a time."""
    sums = {}
    for share, group in zip(shares, level.groups, strict=True):
        sums[group] = sums.get(group, 0.0) + float(share)
    return max(sums.items(), key=lambda item: item[1])


def test_groups_are_numbered_by_their_first_classes():
    assert KIND.group_names == ("tree", "flower")
    assert KIND.group_numbers == (0, 0, 1, 1, 0)
    assert describe_levels([KIND, GENUS]) == "kind (2 groups), genus (5 groups)"
    assert describe_levels([]) == ""


def test_probabilities_of_a_group_are_summed():
    """The most probable group need not be that of the most probable class."""
    rng = np.random.default_rng(0)
    levels = (KIND, ODD, GENUS)
    groupings = [Grouping(level) for level in levels]
    differ = 0
    for _ in range(50):
        shares = rng.dirichlet(np.full(5, 0.5))
        found = rank(shares, CLASSES, 2, groupings)
        for level in levels:
            name, share = best_by_hand(shares, level)
            assert found.levels[level.name] == (name, pytest.approx(share))
        assert found.levels["genus"].name == GENUS.groups[int(shares.argmax())]
        differ += found.levels["kind"].name != KIND.groups[int(shares.argmax())]
    assert differ > 3
    assert list(found.levels) == [level.name for level in levels]


def test_of_equal_groups_the_first_one():
    found = rank(np.array([0.25, 0.0, 0.5, 0.0, 0.25]), CLASSES, 1, [Grouping(KIND)])
    assert found == Prediction(("tulip",), (0.5,), 0.25, {"kind": Group("tree", 0.5)})
    assert str(found) == "tulip 50.0 %; kind tree 50.0 %"
    assert str(dataclasses.replace(found, levels={})) == "tulip 50.0 %"
    assert hash(found) == hash(dataclasses.replace(found, levels={}))


MODEL = SwinConfig(image_size=16, num_classes=5, embed_dim=8, depths=(1,), num_heads=(1,), window=2)


@pytest.fixture(scope="module")
def classifier(random_params):
    return Classifier(
        MODEL,
        random_params(MODEL),
        CLASSES,
        "made",
        preprocessing=Preprocessing(16),
        levels=(KIND, ODD),
    )


@pytest.fixture
def pictures(tmp_path):
    """Nine images, and one that is none."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    rng = np.random.default_rng(1)
    for number in range(9):
        pixels = rng.integers(0, 256, (16, 16, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    (folder / "torn.png").write_bytes(b"\x89PNG")
    return folder


def probabilities(classifier, path):
    return classifier.probabilities(classifier.pixels(path)[None])[0]


def test_a_classifier_gives_the_groups(classifier, pictures):
    paths = sorted(pictures.glob("[0-9].png"))
    for path, found in zip(paths, classifier.predict(paths, top=1), strict=True):
        name, share = best_by_hand(probabilities(classifier, path), KIND)
        assert found.levels["kind"] == (name, pytest.approx(share))
    assert export_facts(classifier)["levels"] == {
        "kind": list(KIND.groups), "=class_1": list(ODD.groups),
    }  # fmt: skip


@pytest.mark.parametrize("ending", [".csv", ".json", ".jsonl"])
def test_the_table_has_two_columns_a_level(classifier, pictures, tmp_path, capsys, ending):
    """After those of the classes; a name that is taken is told apart, a formula is none."""
    model = Classifier(
        MODEL, classifier.params, CLASSES, "made", preprocessing=Preprocessing(16),
        levels=(KIND, ODD, Level("class_1", KIND.groups), Level("error", ODD.groups)),
    )  # fmt: skip
    trained = TrainedModel(pathlib.Path("made"), model, None, False)
    output = tmp_path / f"out{ending}"
    for resume in (False, True):  # the second time nothing is left to do, and the header is known
        code = predict(trained, str(pictures), output, top=2, resume=resume)
        assert code == (0 if resume else 1)
    assert "10 were in the table already" in capsys.readouterr().out
    text = output.read_text()
    if ending == ".csv":
        rows = list(csv.DictReader(text.splitlines()))
    else:
        rows = json.loads(text) if ending == ".json" else list(map(json.loads, text.splitlines()))
    formula = "'=class_1" if ending == ".csv" else "=class_1"
    names = ["kind", formula, "level class_1", "level error"]
    columns = [column for name in names for column in (name, f"{name}_probability")]
    assert list(rows[0]) == [
        "file", "class_1", "probability_1", "class_2", "probability_2", *columns,
        "margin", "distance", "nearer", "unlike_training", "error",
    ]  # fmt: skip
    assert len(rows) == 10
    for row in rows:
        if row["error"]:
            assert not any(row[name] for name in columns)
            continue
        shares = probabilities(classifier, row["file"])
        for name, level in zip(names, model.levels, strict=True):
            group, share = best_by_hand(shares, level)
            guard = "'" if ending == ".csv" and group.startswith("=") else ""
            assert row[name] == guard + group
            assert float(row[f"{name}_probability"]) == pytest.approx(share, abs=2e-6)
    older = tmp_path / f"older{ending}"
    plain = Classifier(MODEL, classifier.params, CLASSES, "made", preprocessing=Preprocessing(16))
    predict(dataclasses.replace(trained, classifier=plain), str(pictures), older, top=2)
    with pytest.raises(ConfigError, match="not a table of --mode predict with these columns"):
        predict(trained, str(pictures), older, top=2, resume=True)


def test_groups_of_a_report_by_hand():
    """Of 9 images 5 are wrong, and 3 of these stay in their kind."""
    labels = np.array([0, 0, 0, 1, 1, 2, 2, 3, 3])
    predicted = [0, 1, 4, 1, 2, 3, 2, 0, 3]
    found = mistakes.count_confusions(np.eye(5, dtype=np.float32)[predicted], labels)
    kind, genus = groups.by_level(found, [KIND, GENUS])
    tree, flower = kind.rows
    assert (tree.name, tree.classes, tree.right, tree.mistaken_for) == ("tree", 3, 2, "flower")
    assert tree.metrics == (0, 5, 4, pytest.approx(4 / 5), pytest.approx(4 / 5), 1, 1)
    assert (flower.name, flower.classes, flower.right, flower.mistaken_for) == (
        "flower", 2, 2, "tree",
    )  # fmt: skip
    assert flower.metrics == (1, 4, 3, pytest.approx(3 / 4), pytest.approx(3 / 4), 0, 1)
    assert (kind.mistakes, kind.mistakes_inside) == (5, 3)
    assert (genus.mistakes, genus.mistakes_inside) == (5, 0)
    yew = genus.rows[4]
    assert (yew.metrics.images, yew.metrics.recall, yew.mistaken_for) == (0, None, "")
    shared = groups.shared_groups(found.pairs(), [KIND, GENUS])
    assert dict(zip([pair[:2] for pair in found.pairs()], shared, strict=True)) == {
        (0, 1): "tree (kind)", (0, 4): "tree (kind)", (2, 3): "flower (kind)",
        (1, 2): "", (3, 0): "",
    }  # fmt: skip


FOOD = {"Apple": "Fruit", "Leek": "Vegetables", "Onion": "Vegetables", "Pear": "Fruit"}


def draw(folder, split, count):
    """`count` images of each class of `FOOD` in the folders of a split; their names below it."""
    rng = np.random.default_rng(2)
    for name in FOOD:
        (folder / split / name).mkdir(parents=True)
        for number in range(count):
            pixels = rng.integers(0, 256, (16, 16, 3), np.uint8)
            Image.fromarray(pixels).save(folder / split / name / f"{split}{number}.png")
            yield f"{split}/{name}/{split}{number}.png", name


def train(tmp_path):
    """The folder of a trained run, on 4 training and 8 test images of a list with levels."""
    data = tmp_path / "data"
    categories = [
        {"id": number, "name": name, "supercategory": FOOD[name]}
        for number, name in enumerate(FOOD)
    ]
    numbers = {category["name"]: category["id"] for category in categories}
    for split, count in (("train", 1), ("val", 1), ("test", 2)):
        rows = list(enumerate(draw(data, split, count)))
        content = {
            "categories": categories,
            "images": [{"id": row, "file_name": file} for row, (file, _) in rows],
            "annotations": [
                {"id": row, "image_id": row, "category_id": numbers[name]}
                for row, (_, name) in rows
            ],
        }
        (data / f"{split}.json").write_text(json.dumps(content))
    config = tiny.small()
    config.data.root = str(data)
    config.optim.ema = 0.0
    config.epochs = 2
    assert train_workdir(config, tmp_path / "run") == 0
    return tmp_path / "run"


def test_a_run_from_a_list_to_answers(tmp_path, monkeypatch, capsys):
    """Its scores, records and pages have the level; by scikit-learn, on what it answers itself."""
    run = train(tmp_path)
    trained = open_trained_model(run)
    (level,) = trained.classifier.levels
    assert level == Level("supercategory", ("Fruit", "Vegetables", "Vegetables", "Fruit"))
    dataset = trained.dataset()
    evaluation = json.loads((run / "evaluation.json").read_text())
    out = capsys.readouterr().out
    for split in ("test", "val"):
        last = evaluation["last"] if split == "test" else evaluation["last"]["val"]
        found = [
            probabilities(trained.classifier, example.data).argmax()
            for example in dataset.splits[split]
        ]
        labels = [example.label for example in dataset.splits[split]]
        assert last["top1"] == pytest.approx(accuracy_score(labels, found))
        right = accuracy_score(*([level.groups[k] for k in part] for part in (labels, found)))
        assert last["accuracy_supercategory"] == pytest.approx(right)
        assert f"supercategory {100 * right:.2f} %, loss" in out
    best = evaluation["best"]
    assert "accuracy_supercategory" in best.keys() & best["val"].keys()
    metrics = (run / "metrics.jsonl").read_text().splitlines()
    assert any("val/accuracy_supercategory" in json.loads(line) for line in metrics)
    facts = read_run_facts(run, "class_names")
    assert facts["levels"] == {"supercategory": list(level.groups)}
    # Converted, it still knows the level.
    write_converted(read_weights(run), tmp_path / "converted")
    assert clevit_jax.load(tmp_path / "converted").levels == (level,)
    check = command.audit(resolve_data(trained.config))
    assert check["levels"] == {"supercategory": 2}
    assert re.search(
        r"^Levels +supercategory \(2 groups\)$", command.render_audit(check), re.MULTILINE
    )
    monkeypatch.setattr(collect, "_mistakes", lambda *_: [])
    content = collect.collect_content(trained)
    text = page.render_page(content)
    assert [row.evaluation.levels.keys() for row in content.scores] == 4 * [{"supercategory"}]
    share = content.scores[0].evaluation.levels["supercategory"]
    assert f"In the right group: supercategory {100 * share:.2f} %." in text
    (shown,) = content.groups
    inside = f"Mistakes that stay inside their group: {shown.mistakes_inside} of {shown.mistakes}."
    assert inside in text
    images = sum(row.metrics.images for row in shown.rows)
    assert (images - shown.mistakes + shown.mistakes_inside) / images == pytest.approx(share)
    recorded = page.render_page(collect_recorded(trained, "The images are gone."))
    assert "<dt>Levels of the classes</dt><dd>supercategory (2 groups)</dd>" in recorded
    assert f"In the right group: supercategory {100 * share:.2f} %." in recorded
    # Other images, in class folders alone: the run knows the level.
    for split, count in (("train", 1), ("test", 3)):
        list(draw(tmp_path / "other", split, count))
    config = load_config(run)
    config.data.root = str(tmp_path / "other")
    assert evaluate_workdir(config, run, other_split=True) == 0
    shares = re.findall(r"supercategory ([0-9.]+) %.* \(12 images\)", capsys.readouterr().out)
    (path,) = run.glob("evaluation-*.json")
    last = json.loads(path.read_text())["last"]
    assert float(shares[0]) == pytest.approx(100 * last["accuracy_supercategory"], abs=0.01)
