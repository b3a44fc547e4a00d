"""`--mode predict` on images whose names are hard to write, whole, killed and gone on with."""

import csv
import json
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import psutil
import pytest
from answers import CLASSES
from PIL import Image
from waiting import wait_until

import clevit_jax
from clevit_jax.analysis import feature_file, input_files
from clevit_jax.analysis.ood import TRAINING_FEATURES_FILE, open_reference
from clevit_jax.analysis.predict import predict
from clevit_jax.analysis.trained_model import open_trained_model
from clevit_jax.errors import ConfigError
from clevit_jax.inference.stream import stream

pytestmark = [
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture(scope="module")
def images(answered, tmp_path_factory):
    """The 32 test images, one that is torn and one that is empty, in two folders."""
    folder = tmp_path_factory.mktemp("images")
    shutil.copytree(answered.parent / "data" / "test", folder / "b")
    (folder / "a").mkdir()
    whole = next((folder / "b").iterdir()).read_bytes()
    (folder / "a" / "=torn.png").write_bytes(whole[:90])
    (folder / "a" / "empty.jpg").touch()
    (folder / "a" / "notes.txt").write_text("no image")
    (folder / ".hidden.png").write_bytes(whole)
    return folder


def read(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_folder(trained, images, tmp_path, capsys):
    output = tmp_path / "out.csv"
    assert predict(trained, str(images), output, top=2) == 1
    assert "34 images, 2 could not be read (see the column error), " in capsys.readouterr().out
    rows = read(output)
    names = [row["file"].removeprefix("'") for row in rows]
    assert names == [str(path) for path in input_files.find_images(str(images))]
    assert len(names) == len(set(names)) == 34
    errors = {pathlib.Path(row["file"]).name: row for row in rows if row["error"]}
    assert set(errors) == {"=torn.png", "empty.jpg"}
    assert "empty.jpg is an empty file." in errors["empty.jpg"]["error"]
    assert errors["=torn.png"]["class_1"] == errors["=torn.png"]["unlike_training"] == ""
    # Against the classifier, one image at a time.
    model = clevit_jax.load(trained.path)
    for row in rows[2::5]:
        pixels = model.pixels(row["file"])
        probabilities = model.probabilities(pixels[None])[0]
        best = np.argsort(-probabilities)
        assert row["class_1"].removeprefix("'") == model.class_names[best[0]]
        assert row["class_2"].removeprefix("'") == model.class_names[best[1]]
        shares = probabilities[best]
        numbers = [float(row[name]) for name in ("probability_1", "probability_2", "margin")]
        np.testing.assert_allclose(numbers, [*shares[:2], shares[0] - shares[1]], atol=2e-6)
        features = model.features(pixels)[0]
        train = feature_file.read_feature_file(trained.path / TRAINING_FEATURES_FILE).features
        cosine = train @ features / np.linalg.norm(train, axis=1) / np.linalg.norm(features)
        assert float(row["distance"]) == pytest.approx(1 - cosine.max(), abs=2e-6)
        assert row["unlike_training"] == ("yes" if float(row["nearer"]) >= 0.99 else "no")


def test_mirror_images(trained, images, tmp_path):
    output = tmp_path / "out.json"
    path = next((images / "b").iterdir())
    assert predict(trained, str(path), output, flip=True, top=99) == 0
    (row,) = json.loads(output.read_text())
    pixels = trained.classifier.pixels(path)
    both = np.stack([pixels, pixels[:, ::-1]])
    logits = np.asarray(trained.classifier.dispatch(both)()[0], np.float64)
    shares = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    expected = np.sort(shares.mean(0))[::-1]
    found = [row[f"probability_{i}"] for i in range(1, len(CLASSES) + 1)]
    np.testing.assert_allclose(found, expected, atol=1e-6)
    api = trained.classifier.predict(path, flip=True)[0]
    assert api.probability == pytest.approx(found[0], abs=1e-6)


def test_what_is_unlike_the_training_images(trained, images, tmp_path):
    """Noise in colours that no class has."""
    strange = tmp_path / "strange"
    strange.mkdir()
    rng = np.random.default_rng(0)
    for number in range(4):
        noise = rng.integers(0, 2, (16, 16, 3), np.uint8) * np.array([255, 0, 255], np.uint8)
        Image.fromarray(noise).save(strange / f"{number}.png")
    flags = {}
    for folder in (images / "b", strange):
        output = tmp_path / f"{folder.name}.jsonl"
        predict(trained, str(folder), output)
        rows = [json.loads(line) for line in output.read_text().splitlines()]
        flags[folder.name] = np.mean([row["unlike_training"] for row in rows])
    assert flags["strange"] == 1
    assert flags["b"] < 0.25


def test_killed_and_gone_on_with(answered, images, tmp_path):
    """Killed in the midst of 3,000 images, and run again: each file once, as if not killed."""
    many = tmp_path / "many"
    many.mkdir()
    source = next((images / "b").iterdir())
    for number in range(3000):
        (many / f"{number:04}.png").hardlink_to(source)
    output = tmp_path / "out.csv"
    command = [
        sys.executable, "-m", "clevit_jax.main", "--mode", "predict", "--workdir", answered,
        "--input", many, "--output", output, "--resume",
    ]  # fmt: skip
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_until(lambda: output.exists() and output.stat().st_size >= 20_000, child)
    child.send_signal(signal.SIGKILL)
    child.wait()
    before = output.read_bytes()
    assert before.count(b"\n") < 2900
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "were in the table already" in done.stdout
    assert output.read_bytes().startswith(before[: before.rindex(b"\n")])
    assert [row["file"] for row in read(output)] == [str(path) for path in sorted(many.iterdir())]
    again = subprocess.run(command, capture_output=True, text=True)
    assert again.returncode == 0
    assert "0 images, 3000 were in the table already" in again.stdout


def test_memory_is_flat(trained, tmp_path):
    """Ten times the images take no more: none are kept."""
    source = tmp_path / "one.jpg"
    Image.fromarray(np.zeros((448, 448, 3), np.uint8)).save(source)
    held = []
    process = psutil.Process()

    def many():
        for number in range(2000):
            if number in (500, 1999):
                held.append(process.memory_info().rss)
            yield source

    outputs = stream(
        trained.classifier, many(), trained.classifier.pixels, batch_size=16, threads=2
    )
    assert sum(not output.error for output in outputs) == 2000
    assert held[1] - held[0] < 20e6  # a decoded image of 448 pixels has 0.6 MB


def test_order_and_errors_of_a_stream(trained):
    """Items come out as they went in, whatever each takes to read, and none ends the others."""

    def read_one(number):
        time.sleep(0.002 * (number % 3))
        if number == 7:
            raise PermissionError(13, "Permission denied", "seven.png")
        return np.full((16, 16, 3), number, np.uint8)

    for count in (0, 1, 4, 21):
        found = list(stream(trained.classifier, range(count), read_one, batch_size=4, threads=3))
        assert [output.item for output in found] == list(range(count))
    assert found[7].error == "seven.png cannot be read: Permission denied."
    assert [output.item for output in found if output.error] == [7]
    single = trained.classifier.dispatch(np.full((1, 16, 16, 3), 20, np.uint8))()
    np.testing.assert_allclose(found[20].logits, single[0][0], atol=1e-6)


def test_inputs(images, monkeypatch):
    monkeypatch.chdir(images)
    assert len(list(input_files.find_images("b"))) == 32
    assert [str(path) for path in input_files.find_images("a")] == ["a/=torn.png", "a/empty.jpg"]
    assert [str(path) for path in input_files.find_images("a/notes.txt")] == ["a/notes.txt"]
    assert len(list(input_files.find_images("**/*.png"))) == 33
    for text, part in (("none", "There is no file none"), ("*.gif", "There is no file")):
        with pytest.raises(ConfigError, match=part):
            input_files.find_images(text)
    pathlib.Path("bare").mkdir(exist_ok=True)
    with pytest.raises(ConfigError, match="bare holds no image"):
        input_files.find_images("bare")


def test_what_it_refuses(trained, images, tmp_path):
    output = tmp_path / "out.csv"
    output.write_text("mine")
    with pytest.raises(ConfigError, match=r"out.csv exists already; go on with it: --resume"):
        predict(trained, str(images), output)
    with pytest.raises(ConfigError, match="not a table of --mode predict"):
        predict(trained, str(images), output, resume=True)
    assert output.read_text() == "mine"
    for name in ("out.txt", "none/out.csv"):
        with pytest.raises(ConfigError, match="--output"):
            predict(trained, str(images), tmp_path / name)
    assert not (tmp_path / "out.txt").exists()


def test_a_reference_of_another_model(trained, golden, images, tmp_path, capsys):
    """Refused; a model without training images predicts without them, and says so."""
    other = open_trained_model(golden / "demo_leaves.safetensors")
    with pytest.raises(ConfigError, match=r"made by another model \(run \(step 32\)\)"):
        open_reference(other, trained.path / TRAINING_FEATURES_FILE)
    assert open_reference(other, None) is None
    assert "is not a run, so its training images are not known" in capsys.readouterr().err


def test_training_images_that_are_gone(answered, images, tmp_path, capsys):
    """The features in the workdir stand for them; without these, that column is empty."""
    workdir = tmp_path / "run"
    shutil.copytree(answered, workdir)
    config = json.loads((workdir / "config.json").read_text())
    config["data"]["root"] = str(tmp_path / "gone")
    (workdir / "config.json").write_text(json.dumps(config))
    path = next((images / "b").iterdir())
    for number, expected in enumerate(({"yes", "no"}, {""})):
        output = tmp_path / f"{number}.csv"
        assert predict(open_trained_model(workdir), str(path), output) == 0
        assert {row["unlike_training"] for row in read(output)} <= expected
        (workdir / TRAINING_FEATURES_FILE).unlink(missing_ok=True)
    assert "The training images are not there" in capsys.readouterr().err
