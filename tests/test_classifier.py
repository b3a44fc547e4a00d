"""A trained Swin as a user holds it, whatever it was kept in."""

import dataclasses
import doctest
import json
import pathlib
import shutil

import jax
import numpy as np
import pytest
import tiny
from PIL import Image

import clevit_jax
from clevit_jax.data import procedural_leaves
from clevit_jax.distributed import sharding
from clevit_jax.errors import CheckpointError, ConfigError, DecodeError, WeightsError
from clevit_jax.inference import classifier
from clevit_jax.model.config import SwinConfig
from clevit_jax.runs.checkpoint import Checkpoints
from clevit_jax.runs.load import read_run
from clevit_jax.runs.workdir import RUN_FILE, claim_workdir
from clevit_jax.steps.state import TrainState
from clevit_jax.system.files import write_json
from clevit_jax.weights.convert import read_torch_weights
from clevit_jax.weights.converted import write_converted

pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


def images_of(seed, size):
    return np.random.RandomState(seed).standard_normal((2, size, size, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def best(golden, tmp_path_factory):
    """What the official script saved, as it is and converted."""
    folder = tmp_path_factory.mktemp("converted") / "best"
    write_converted(read_torch_weights(golden / "clevit_best_nano.pth"), folder)
    return golden / "clevit_best_nano.pth", folder


def test_golden_numbers(best, golden):
    """The official code's logits and features, within 1e-5, from its file and from ours."""
    expected = np.load(golden / "clevit_best_nano.npz")
    file, folder = (clevit_jax.load(path) for path in best)
    logits, features = folder(images_of(42, 224))
    assert isinstance(logits, jax.Array)
    np.testing.assert_allclose(logits, expected["logits"], atol=1e-5, rtol=0)
    np.testing.assert_allclose(features, expected["features"], atol=1e-5, rtol=0)
    jax.tree.map(np.testing.assert_array_equal, file._params, folder._params)
    assert file.model == folder.model == SwinConfig(
        image_size=224, num_classes=80, embed_dim=8, num_heads=(1, 2, 2, 4), depths=(2, 2, 2, 2)
    )  # fmt: skip


def test_what_it_says_of_wrong_images(best):
    model = clevit_jax.load(best[1])
    for images in (images_of(0, 96), images_of(0, 224)[0], images_of(0, 224).astype(np.float64),
                   np.zeros((1, 224, 224, 3), np.uint8), images_of(0, 224)[:0]):  # fmt: skip
        with pytest.raises(ValueError, match=r"normalised images, float32 \[B, 224, 224, 3\], not"):
            model(images)


def test_options(best):
    assert clevit_jax.load(best[1], image_size=448).model.image_size == 448
    assert clevit_jax.load(best[1], dtype="bfloat16").model.dtype == jax.numpy.bfloat16
    with pytest.raises(ValueError, match=r"image_size 300 .* 224 and 448"):
        clevit_jax.load(best[1], image_size=300)
    for size in (0, -64, "64"):
        with pytest.raises(ValueError, match=r"image_size is .*; it must be a number of pixels"):
            clevit_jax.load(best[1], image_size=size)
    with pytest.raises(
        WeightsError, match="is not a run, so there are no checkpoints to choose the best one from"
    ):
        clevit_jax.load(best[1], checkpoint="best")
    with pytest.raises(ValueError, match="dtype"):
        clevit_jax.load(best[1], dtype="float16")
    with pytest.raises(ValueError, match="checkpoint"):
        clevit_jax.load(best[1], checkpoint="newest")


MODEL = SwinConfig(
    image_size=16, num_classes=3, embed_dim=8, depths=(1, 1), num_heads=(1, 2), window=2
)


@pytest.fixture(scope="module")
def params(random_params):
    """Parameters and average of the steps 5 (the best), 8 and 9."""
    return {
        step: (random_params(MODEL, seed=step), random_params(MODEL, seed=10 + step))
        for step in (5, 8, 9)
    }


@pytest.fixture(scope="module")
def make_run(params, tmp_path_factory):
    def make(ema):
        workdir = tmp_path_factory.mktemp("runs") / "run"
        config = tiny.get_config()
        config.optim.ema = ema
        claim_workdir(workdir, config)
        write_json(workdir / RUN_FILE, {"class_names": ["a", "b", "c"]})
        checkpoints = Checkpoints(workdir / "checkpoints", keep=5)
        for step, (mine, average) in params.items():
            state = TrainState(np.int32(step), mine, {"mu": mine}, average if ema else None)
            state = jax.device_put(state, sharding.replicated(sharding.make_mesh()))
            checkpoints.save(state, {}, top1=0.9 if step == 5 else 0.5)
        checkpoints.wait()
        checkpoints.close()
        return workdir

    return make


@pytest.fixture(scope="module")
def runs(make_run):
    return make_run(0.0), make_run(0.9)


def equal(a, b):
    return all(jax.tree.leaves(jax.tree.map(np.array_equal, a, b)))


def test_a_run_gives_its_last_or_its_best(runs, params):
    for run, which in ((runs[0], 0), (runs[1], 1)):  # the average, where there is one
        last, best = clevit_jax.load(run), clevit_jax.load(run, checkpoint="best")
        assert equal(last._params, params[9][which])
        assert equal(best._params, params[5][which])
        assert last.class_names == ("a", "b", "c")
        assert last.model == MODEL
        logits, features = last(images_of(0, 16))
        assert (logits.shape, features.shape) == ((2, 3), (2, 16))
    assert equal(read_run(runs[1], checkpoint="last", average=False).params, params[9][0])
    with pytest.raises(ConfigError, match="keeps no average"):
        read_run(runs[0], checkpoint="last", average=True)


def test_a_damaged_checkpoint_gives_way_to_the_one_before(make_run, params, caplog):
    run = make_run(0.0)
    for path in (run / "checkpoints" / "9" / "state").rglob("*"):
        if path.is_file():
            path.write_bytes(b"")
    assert equal(clevit_jax.load(run)._params, params[8][0])
    assert "Checkpoint 9 cannot be read" in caplog.text
    for path in (run / "checkpoints").rglob("d/*"):
        path.unlink()
    with pytest.raises(CheckpointError, match="cannot be read"):
        clevit_jax.load(run)


def test_a_run_of_another_shape_is_refused(make_run):
    run = make_run(0.0)
    facts = json.loads((run / RUN_FILE).read_text())
    write_json(run / RUN_FILE, facts | {"class_names": ["a", "b"]})
    with pytest.raises(CheckpointError, match="shape"):
        clevit_jax.load(run)


def test_a_run_that_has_not_begun(make_run):
    run = make_run(0.0)
    (run / RUN_FILE).unlink()
    with pytest.raises(CheckpointError, match="has no checkpoint yet; train it first"):
        clevit_jax.load(run)


def test_paths_that_hold_no_model(tmp_path):
    (tmp_path / "text").write_text("x")
    for path in (tmp_path, tmp_path / "missing", tmp_path / "text"):
        with pytest.raises(WeightsError, match=str(path)):
            clevit_jax.load(path)


@pytest.fixture(scope="module")
def leaf_model(golden, tmp_path_factory):
    """The demo's model as a converted checkpoint with class names, and leaves of four classes."""
    folder = tmp_path_factory.mktemp("leaf")
    weights_ = read_torch_weights(golden / "demo_leaves.safetensors")
    names = tuple(f"cultivar-{k:02}" for k in range(1, 11))
    model = dataclasses.replace(weights_.model, image_size=64)
    write_converted(dataclasses.replace(weights_, model=model, class_names=names), folder / "model")
    procedural_leaves.write_dataset(
        folder / "data", classes=10, train_per_class=1, test_per_class=1, size=128, seed=0,
        difficulty=0.5,
    )  # fmt: skip
    for name, number in (("leaf", 4), ("other", 9)):
        shutil.copy(folder / "data" / "images" / f"{number:02}_01_test.png", folder / f"{name}.png")
    shutil.rmtree(folder / "data")
    return folder


class TestAsANotebookHasIt:
    def test_images_in_any_form(self, leaf_model):
        """A path, a Pillow image, pixels and bytes of one file are one image."""
        model = clevit_jax.load(leaf_model / "model")
        path = leaf_model / "leaf.png"
        with Image.open(path) as image:
            forms = [str(path), path, image.convert("RGB"), np.asarray(image.convert("RGB"))]
        seen = [model.pixels(form) for form in (*forms, path.read_bytes())]
        for pixels in seen:
            np.testing.assert_array_equal(pixels, seen[0])
        assert seen[0].shape == (64, 64, 3)
        assert [len(model.predict(form)) for form in forms] == [1] * 4
        assert len(model.predict(forms)) == 4

    def test_more_than_a_batch(self, leaf_model):
        """Predictions and features do not depend on what stands beside an image."""
        model = clevit_jax.load(leaf_model / "model")
        paths = [leaf_model / "leaf.png", leaf_model / "other.png"] * 20
        many = model.features(paths)
        assert many.shape == (40, 128)
        single = model.features(paths[1])
        np.testing.assert_allclose(many[1::2], np.repeat(single, 20, axis=0), atol=1e-5)

    def test_predictions_are_the_softmax(self, leaf_model):
        model = clevit_jax.load(leaf_model / "model")
        pixels = model.pixels(leaf_model / "leaf.png")
        normal = (pixels / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
        logits = np.asarray(model(normal[None].astype(np.float32))[0][0], np.float64)
        shares = np.exp(logits) / np.exp(logits).sum()
        (found,) = model.predict(leaf_model / "leaf.png", top=3)
        order = np.argsort(-shares)
        assert found.class_names == tuple(model.class_names[k] for k in order[:3])
        np.testing.assert_allclose(found.probabilities, shares[order[:3]], atol=1e-5)
        assert found.margin == pytest.approx(shares[order[0]] - shares[order[1]], abs=1e-5)
        assert len(model.predict(leaf_model / "leaf.png", top=99)[0].class_names) == 10

    def test_what_it_says_of_images_that_are_none(self, leaf_model, tmp_path):
        model = clevit_jax.load(leaf_model / "model")
        for image, part in (
            (np.zeros((4, 4, 3), np.float32), r"uint8 \[H, W, 3\], not float32 \[4, 4, 3\]"),
            (np.zeros(4, np.uint8), r"not uint8 \[4\]"),
            ([leaf_model / "leaf.png", np.zeros((4, 4, 5), np.uint8)], r"^images\[1\] must be"),
            ([], "There is no image"),
        ):
            with pytest.raises(ValueError, match=part):
                model.predict(image)
        with pytest.raises(ValueError, match="top is 0"):
            model.predict(leaf_model / "leaf.png", top=0)
        (tmp_path / "no.png").write_text("no image")
        for path in (tmp_path / "no.png", tmp_path / "missing.png"):
            with pytest.raises(DecodeError, match=path.name):
                model.features(path)

    def test_fingerprints(self, leaf_model, golden):
        """The same for the same features, another for others."""
        model = clevit_jax.load(leaf_model / "model")
        assert model.fingerprint == clevit_jax.load(leaf_model / "model").fingerprint
        others = [
            clevit_jax.load(leaf_model / "model", image_size=128),
            clevit_jax.load(leaf_model / "model", dtype="bfloat16"),
            clevit_jax.load(golden / "dialect_timm.safetensors"),
        ]
        assert len({model.fingerprint, *(other.fingerprint for other in others)}) == 4

    @pytest.mark.parametrize("where", ["classifier", "docs/answers.md"])
    def test_examples(self, leaf_model, monkeypatch, where):
        """What the docstrings and the page show is what happens."""
        monkeypatch.chdir(leaf_model)
        options = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS
        if where == "classifier":
            names = {"clevit_jax": clevit_jax}
            found = doctest.testmod(classifier, extraglobs=names, optionflags=options)
        else:
            page = pathlib.Path(__file__).parents[1] / where
            found = doctest.testfile(str(page), module_relative=False, optionflags=options)
        assert found.attempted > 5
        assert found.failed == 0
