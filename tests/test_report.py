"""What a report says, against counts by hand, `--mode eval` and what Python's parser reads."""

import dataclasses
import html.parser
import importlib
import json
import re
import shutil

import made_reports
import numpy as np
import pytest
from answers import CLASSES, FILES

from clevit_jax.analysis import explain, feature_file, neighbours, ood
from clevit_jax.analysis.report import collect, curves, mistakes, page, write
from clevit_jax.analysis.trained_model import open_trained_model
from clevit_jax.data.audit import command
from clevit_jax.errors import ConfigError
from clevit_jax.evaluate import evaluate_workdir
from clevit_jax.inference import cam
from clevit_jax.inference.stream import DatasetOutputs
from clevit_jax.runs.workdir import EVALUATION_FILE, RUN_FILE, load_config
from clevit_jax.system.files import read_json, write_json
from clevit_jax.train import train_workdir

evaluation = importlib.import_module("clevit_jax.evaluate")  # `clevit_jax.evaluate` is the function

pytestmark = [
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


class Page(html.parser.HTMLParser):
    """What a browser makes of the page: its elements, and its text by section."""

    def __init__(self, text: str):
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, list[str]] = {}
        self.data = ""
        self._section, self._inside = "", ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        self.elements.append((tag, found))
        self._inside = tag if tag in ("script", "style") else ""
        if self._inside and found.get("id") == "report-data":
            self._inside = "data"
        if tag == "section":
            self._section = found["id"] or ""

    def handle_endtag(self, tag):
        self._inside = ""

    def handle_data(self, data):
        if self._inside == "data":
            self.data += data
        elif not self._inside and data.strip():
            self.texts.setdefault(self._section, []).append(data.strip())


@pytest.fixture(scope="module")
def found(answered):
    """The page that training wrote."""
    return Page((answered / write.REPORT_FILE).read_text(encoding="utf-8"))


def test_the_numbers_are_those_of_eval(answered, found, tmp_path, capsys, monkeypatch):
    """To the last digit: what `--mode eval` prints stands in the page.

    It prints them also where it cannot write them.
    """
    workdir = tmp_path / "run"
    shutil.copytree(answered, workdir)
    (workdir / EVALUATION_FILE).unlink()
    monkeypatch.setattr(evaluation, "why_not_writable", lambda folder: "Read-only file system")
    assert evaluate_workdir(load_config(workdir), workdir) == 0
    out = capsys.readouterr().out
    assert out.endswith(f"since {workdir} cannot be written to: Read-only file system.\n")
    assert not (workdir / EVALUATION_FILE).exists()
    printed = [line for line in out.splitlines() if line.startswith("Test, ")]
    assert len(printed) == 2
    texts = found.texts["result"]
    for line in printed:
        label, numbers = line.removesuffix(".").split("): ")
        assert f"{label})" in texts
        cells = texts[texts.index(f"{label})", texts.index("Images")) + 1 :][:5]
        form = r"top-1 (.*), top-5 (.*), mean per class (.*), loss (.*) \((\d+) images\)"
        shown = re.fullmatch(form, numbers)
        assert shown is not None
        assert cells == list(shown.groups())
    assert not any("recomputed" in text for text in texts)


def test_names_are_text_and_nothing_else(found):
    """No element, attribute or script comes out of a name, and every name is whole."""
    kinds = [tag for tag, _ in found.elements]
    assert kinds.count("script") == 4
    assert not any(name.startswith("on") for _, attrs in found.elements for name in attrs)
    sources = [attrs["src"] for tag, attrs in found.elements if tag == "img"]
    assert sources
    assert all(re.fullmatch(r"data:image/webp;base64,[A-Za-z0-9+/=]+", text) for text in sources)
    assert sorted(json.loads(found.data)["classes"]) == sorted(CLASSES)
    for name in CLASSES:
        assert name in found.texts["classes"]
    files = {name.partition("/")[2] for name in json.loads(found.data)["embedding"]["files"]}
    stems = {re.sub(r"^\d|\d$", "", name.removesuffix(".png")) for name in files}
    assert stems == set(FILES)


def test_nothing_is_fetched(answered):
    text = (answered / write.REPORT_FILE).read_text(encoding="utf-8")
    text = re.sub("base64,[A-Za-z0-9+/=]+", "", text)
    addresses = set(re.findall(r"""(?:https?:)?//[a-z][\w.]+/[\w./]*""", text))
    assert addresses <= {"http://www.w3.org/2000/svg"}  # a name, which nobody opens
    assert "default-src 'none'" in text


def test_confusion_and_classes_by_hand():
    labels = np.array([0, 0, 0, 1, 1, 2, 2, 2, 3])
    predicted = [0, 1, 1, 1, 2, 0, 2, 2, 4]
    found = mistakes.count_confusions(np.eye(6, dtype=np.float32)[predicted], labels)
    cells = [[0, 0, 1], [0, 1, 2], [1, 1, 1], [1, 2, 1], [2, 0, 1], [2, 2, 2], [3, 4, 1]]
    assert found.cells.tolist() == cells
    assert found.by_class() == [  # label, images, right, recall, precision, mistaken for, times
        (0, 3, 1, pytest.approx(1 / 3), pytest.approx(1 / 2), 1, 2),
        (1, 2, 1, pytest.approx(1 / 2), pytest.approx(1 / 3), 2, 1),
        (2, 3, 2, pytest.approx(2 / 3), pytest.approx(2 / 3), 0, 1),
        (3, 1, 0, 0, None, 4, 1),
        (4, 0, 0, None, 0, None, 0),
        (5, 0, 0, None, None, None, 0),
    ]
    third = pytest.approx(1 / 3)
    assert found.pairs() == [
        (0, 1, 2, pytest.approx(2 / 3)),
        (3, 4, 1, 1),
        (1, 2, 1, 1 / 2),
        (2, 0, 1, third),
    ]


def test_the_most_confused_classes_come_first():
    cells = np.array([[0, 0, 5], [1, 3, 2], [3, 1, 2], [2, 4, 3], [4, 4, 1]])
    found = mistakes.Confusion(cells, 6)
    assert found.order() == [1, 3, 2, 4, 0, 5]  # 1 and 3: 2 + 2 images; 2 and 4: 3


def test_the_worst_images_are_wrong_and_of_the_highest_loss():
    logits = np.array([[0, 9, 5], [3, 2, 1], [3, 2, 1], [4, 2, 0]], np.float32)
    labels = np.array([1, 0, 1, 2])
    assert mistakes.worst_rows(logits, labels, 5) == [3, 2]
    assert mistakes.worst_rows(logits, labels, 1) == [3]


def test_mistakes_show_the_nearest_training_images(trained):
    """Of the right and of the wrong class, found again by brute force."""
    content = collect.collect_content(trained)
    assert 0 < len(content.mistakes) <= collect.MAX_MISTAKES
    train_features = feature_file.read_feature_file(trained.path / ood.TRAINING_FEATURES_FILE)
    dataset = trained.dataset()
    for mistake in content.mistakes:
        assert mistake.right_share < mistake.predicted_share
        headings = [tile.heading.partition(",")[0] for tile in mistake.tiles]
        assert (
            headings == ["test image", "evidence for", "evidence for"] + ["nearest in training"] * 2
        )
        assert [tile.text for tile in mistake.tiles] == [
            mistake.right, mistake.predicted, mistake.right, mistake.predicted, mistake.right,
        ]  # fmt: skip
        example = next(e for e in dataset.test if e.name == mistake.file)
        features = trained.classifier.features(trained.classifier.pixels(example.data))[0]
        for tile in mistake.tiles[3:]:
            rows = [k for k, label in enumerate(train_features.labels)
                    if dataset.class_names[label] == tile.text]  # fmt: skip
            keys = train_features.features[rows]
            cosine = keys @ features / np.linalg.norm(keys, axis=1) / np.linalg.norm(features)
            assert float(tile.heading.rpartition(" ")[2]) == pytest.approx(
                1 - cosine.max(), abs=6e-4
            )


def test_few_images_are_too_few_for_the_tests(trained, monkeypatch):
    """The page says so, and shows none of them."""
    monkeypatch.setattr(neighbours, "FEW", 33)
    monkeypatch.setattr(explain, "run_deletion_test", lambda _: pytest.fail("tested"))
    maps = []
    monkeypatch.setattr(collect, "_mistakes", lambda *args: maps.append(args[-1]) or [])
    content = collect.collect_content(trained)
    assert (content.embedding, content.feature_notes, content.map_note) == (None, (), "")
    assert maps == [cam.default_map(trained.classifier.model)]
    assert maps[0] in cam.map_names(trained.classifier.model)
    text = page.render_page(content)
    assert " and 32 test images are too few for the tests of this page, which need 33" in text
    assert "features" not in Page(text).texts


def test_parts_of_the_page(answered, found):
    assert list(found.texts)[1:] == [
        "result", "curves", "confusion", "classes", "mistakes", "features", "views", "data",
        "recipe", "time", "environment",
    ]  # fmt: skip
    settings = found.texts["recipe"]
    assert settings[settings.index("label_smoothing") + 1] == "0.1"
    split = read_json(answered / RUN_FILE)["split_hash"]
    assert any(text.startswith(split[:8]) for text in found.texts["result"])
    check = json.loads((answered / command.JSON).read_text())
    for finding in (*check["errors"], *check["warnings"]):
        assert finding["sentence"] in found.texts["data"]
    named = {chart["title"] for chart in json.loads(found.data)["charts"]}
    assert named == {"Loss", "Accuracy", "Learning rate"}


def test_curves_are_those_of_the_metrics(answered):
    records = [json.loads(line) for line in (answered / "metrics.jsonl").read_text().splitlines()]
    drawn = {chart.title: {c.name: c.points for c in chart.curves}
             for chart in curves.read_charts(answered / "metrics.jsonl")}  # fmt: skip
    rates = [(r["step"], r["train/lr"]) for r in records if "train/lr" in r]
    assert drawn["Learning rate"]["backbone"] == rates
    top1 = [(r["step"], 100 * r["test/top1"]) for r in records if "test/top1" in r]
    assert drawn["Accuracy"]["test"] == top1


def test_long_curves_keep_both_ends(tmp_path):
    path = tmp_path / "metrics.jsonl"
    lines = [json.dumps({"step": step, "train/lr": step / 7}) for step in range(5000)]
    path.write_text("\n".join([*lines, '{"step": 5000, "tra']))
    (chart,) = curves.read_charts(path)
    points = chart.curves[0].points
    assert len(points) <= curves.MAX_POINTS + 1
    assert points[0] == (0, 0)
    assert points[-1] == (4999, 4999 / 7)
    assert curves.read_charts(tmp_path / "none.jsonl") == []


def test_other_seeds(answered, tmp_path):
    """A run of `--mode seeds` tells of the others."""
    for seed, top1 in ((0, 0.21), (1, 0.71)):
        workdir = tmp_path / f"seed-{seed}"
        shutil.copytree(answered, workdir)
        result = read_json(workdir / EVALUATION_FILE)
        result["last"]["top1"] = top1
        write_json(workdir / EVALUATION_FILE, result)
    path = write.write_report(open_trained_model(tmp_path / "seed-0"))
    texts = " ".join(Page(path.read_text()).texts["result"])
    assert "Mean of 2 seeds 46.00 %, deviation 35.36 (last step, top-1)." in texts
    assert "seed 0: 21.00 %, seed 1: 71.00 %." in texts
    # This very run's result was changed by hand, and the page does not hide it.
    assert "recomputed" in texts


def test_a_converted_checkpoint(answered, tmp_path):
    """With a config that names images of its classes; without, one sentence."""
    from clevit_jax.runs.load import read_weights
    from clevit_jax.weights.converted import write_converted

    folder = tmp_path / "converted"
    write_converted(read_weights(answered), folder)
    config = load_config(answered)
    output = tmp_path / "report.html"
    with pytest.raises(ConfigError, match=r"is not a run, so a report on it needs --config"):
        write.write_report(open_trained_model(folder), output)
    page_ = Page(write.write_report(open_trained_model(folder, config), output).read_text())
    result = read_json(answered / EVALUATION_FILE)["last"]
    assert f"{100 * result['top1']:.2f} %" in page_.texts["result"]
    assert "curves" not in page_.texts
    assert sorted(path.name for path in tmp_path.iterdir()) == ["converted", "report.html"]
    other = tmp_path / "other"
    shutil.copytree(answered.parent / "data", other)
    for name in ("train.csv", "test.csv"):
        (other / name).write_text((other / name).read_text().replace("=1+1", "two"))
    config.unlock()
    config.data.root = str(other)
    with pytest.raises(ConfigError, match="4 classes apart, which are not the 4 of the data"):
        write.write_report(open_trained_model(folder, config), output)


def test_a_report_that_fails_ends_no_run(answered, tmp_path, monkeypatch, caplog):
    """It is said, and the run is finished all the same."""
    workdir = tmp_path / "run"
    shutil.copytree(answered, workdir)
    (workdir / EVALUATION_FILE).unlink()
    (workdir / write.REPORT_FILE).unlink()
    monkeypatch.setattr(write, "render_page", lambda _: 1 / 0)
    assert train_workdir(load_config(workdir), workdir) == 0
    assert not (workdir / write.REPORT_FILE).exists()
    assert "The report could not be written: ZeroDivisionError(" in caplog.text
    assert not list(workdir.glob(".report*"))


def test_beside_a_run_that_cannot_be_written_to(trained, tmp_path, monkeypatch, capsys):
    """A run of somebody else: the report goes to the folder one is in."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(write, "why_not_writable", lambda folder: "Read-only file system")
    monkeypatch.setattr(write, "collect_content", lambda trained: None)
    monkeypatch.setattr(write, "render_page", lambda content: "<html>")
    path = write.write_report(trained)
    assert path.read_text() == "<html>"
    assert path.absolute().parent == tmp_path
    assert path.name == f"{trained.path.name}-report.html"
    assert f"The report goes to {path} here." in capsys.readouterr().out


def test_a_run_that_was_never_scored(trained, tmp_path):
    """And may only be read: its scores are computed for the page."""
    outputs = DatasetOutputs(
        tuple(trained.dataset().test[::8]),
        np.eye(4, dtype=np.float32),
        np.zeros((4, 2), np.float32),
        (),
    )
    (row,) = collect._scores(dataclasses.replace(trained, path=tmp_path), outputs)[0]
    assert row.label.startswith("Test, recomputed for this page")
    assert row.evaluation.count == 4


def test_where_it_may_be_written(trained, tmp_path):
    says = {"report.pdf": "must end in .html", "none/report.html": "make it first"}
    for name, sentence in says.items():
        with pytest.raises(ConfigError, match=sentence):
            write.write_report(trained, tmp_path / name)


@pytest.mark.parametrize("classes", [2, 200, 1938])
def test_size(classes):
    text = page.render_page(made_reports.content(classes))
    assert len(text.encode()) < 10e6
    assert len(json.loads(Page(text).data)["classes"]) == classes
