"""Mean and std of a run: its settings, or what it keeps, or those of the weights it starts from."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import PIL.Image
import pytest
import tiny

import clevit_jax
from clevit_jax.data import procedural_leaves
from clevit_jax.errors import ConfigError
from clevit_jax.model.config import SwinConfig
from clevit_jax.model.preprocessing import IMAGENET_MEAN, IMAGENET_STD, Preprocessing
from clevit_jax.model.swin import abstract_swin
from clevit_jax.runs.load import read_weights
from clevit_jax.runs.setup import prepare_run
from clevit_jax.runs.workdir import CHECKPOINTS_FOLDER, RUN_FILE
from clevit_jax.steps.eval_step import make_eval_step
from clevit_jax.system.files import write_json
from clevit_jax.train import train_workdir
from clevit_jax.views.gallery import save_gallery
from clevit_jax.views.two_views import ViewConfig, example_keys, make_views
from clevit_jax.weights.convert import Weights
from clevit_jax.weights.converted import write_converted
from clevit_jax.weights.export import write_torch_weights

MEAN, STD = (0.5, 0.25, 0.125), (0.5, 2.0, 0.25)
MODEL = SwinConfig(image_size=16, num_classes=2, embed_dim=8, depths=(1,), num_heads=(1,), window=2)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return procedural_leaves.write_dataset(
        tmp_path_factory.mktemp("data") / "leaves",
        classes=2, train_per_class=2, test_per_class=2, size=16,
    )  # fmt: skip


@pytest.fixture(scope="module")
def weights(random_params):
    given = Preprocessing(16, squash=True, mean=MEAN, std=STD)
    return Weights(MODEL, random_params(MODEL), "timm", "x.pth", preprocessing=given)


def config_of(root, pretrained="", **settings):
    config = tiny.small()
    config.update_from_flattened_dict(
        {"data.root": str(root), "model.pretrained": str(pretrained)} | settings
    )
    return config


def normalised_by(config, workdir):
    views = prepare_run(config, workdir).settings.step.views
    return views.mean, views.std


def test_those_of_the_weights_are_taken(root, weights, tmp_path, capsys):
    write_converted(weights, tmp_path / "ours")
    write_torch_weights(weights, tmp_path / "hf", "huggingface")
    write_torch_weights(weights, tmp_path / "timm", "timm")
    for name in ("ours", "ours/model.safetensors", "hf", "timm", "hf/model.safetensors"):
        assert normalised_by(config_of(root, tmp_path / name), tmp_path / "run") == (MEAN, STD)
        assert f"Images are normalised by mean {MEAN} and std {STD}." in capsys.readouterr().out


def test_without_any_they_are_imagenets(root, weights, tmp_path):
    usual = (IMAGENET_MEAN, IMAGENET_STD)
    write_converted(dataclasses.replace(weights, preprocessing=None), tmp_path / "bare")
    assert normalised_by(config_of(root), tmp_path / "run") == usual
    assert normalised_by(config_of(root, tmp_path / "bare"), tmp_path / "run") == usual
    assert normalised_by(config_of(root, tmp_path / "missing"), tmp_path / "run") == usual


def test_a_setting_counts_first(root, weights, tmp_path):
    write_converted(weights, tmp_path / "x")
    other = (0.1, 0.2, 0.3)
    config = config_of(root, tmp_path / "x", **{"views.mean": other})
    assert normalised_by(config, tmp_path / "run") == (other, STD)
    for wrong, says in (((0.5,), "three numbers"), ((0.5, 0.5, 2000.0), "each must be")):
        with pytest.raises(ConfigError, match=f"views.mean is .*{says}"):
            prepare_run(config_of(root, **{"views.mean": wrong}), tmp_path / "run")
    with pytest.raises(ConfigError, match=r"views\.std is .*each must be"):
        prepare_run(config_of(root, **{"views.std": (0.0, 1.0, 1.0)}), tmp_path / "run")


def test_a_run_goes_on_with_its_own(root, weights, tmp_path):
    """Whatever lies where its weights lay; older runs, which keep none, with ImageNet's."""
    write_converted(weights, tmp_path / "x")
    config, workdir = config_of(root, tmp_path / "x"), tmp_path / "run"
    (workdir / CHECKPOINTS_FOLDER / "5").mkdir(parents=True)
    own = [0.25, 0.5, 0.75]
    write_json(workdir / RUN_FILE, {"class_names": ["a", "b"], "mean": own, "std": own})
    assert normalised_by(config, workdir) == (tuple(own), tuple(own))
    write_json(workdir / RUN_FILE, {"class_names": ["a", "b"]})
    assert normalised_by(config, workdir) == (IMAGENET_MEAN, IMAGENET_STD)


def test_views_are_normalised_by_them():
    images = np.random.default_rng(0).integers(0, 256, (2, 16, 16, 3), np.uint8)
    keys = example_keys(0, jnp.zeros(2, jnp.int32), jnp.arange(2))
    plain = ViewConfig("base", size=16)
    other = dataclasses.replace(plain, mean=MEAN, std=STD)
    usual, _ = jax.device_get(make_views(keys, images, config=plain))
    found, _ = jax.device_get(make_views(keys, images, config=other))
    pixels = usual * np.array(IMAGENET_STD, np.float32) + np.array(IMAGENET_MEAN, np.float32)
    wanted = (pixels - np.array(MEAN, np.float32)) / np.array(STD, np.float32)
    np.testing.assert_allclose(found, wanted, atol=1e-5)


def test_the_gallery_shows_the_pixels(tmp_path):
    original = np.full((1, 16, 16, 3), 51, np.uint8)
    view = (np.full((1, 16, 16, 3), 0.2, np.float32) - np.float32(MEAN)) / np.float32(STD)
    save_gallery(tmp_path / "x.png", original, view, None, mean=MEAN, std=STD)
    sheet = np.asarray(PIL.Image.open(tmp_path / "x.png"))
    assert {tuple(sheet[-16, at]) for at in (12, 36)} == {(51, 51, 51)}


def test_evaluations_are_normalised_by_them(weights):
    pixels = np.random.default_rng(1).integers(0, 256, (2, 16, 16, 3), np.uint8)
    batch = {"image": pixels, "label": np.array([0, 1]), "mask": np.array([True, True])}
    step = make_eval_step(abstract_swin(MODEL)[0], mean=MEAN, std=STD)
    found = step(weights.params, {name: jnp.asarray(rows) for name, rows in batch.items()})
    model = clevit_jax.Classifier(MODEL, weights.params, (), "x")
    normalized = (pixels.astype(np.float32) / 255 - np.float32(MEAN)) / np.float32(STD)
    log_p = jax.nn.log_softmax(model(normalized)[0])
    np.testing.assert_allclose(found["loss"], -np.diag(log_p), rtol=1e-4)


def test_a_trained_run_keeps_them(root, weights, tmp_path):
    """In run.json, so in what is read of it and in what is converted from it."""
    write_converted(weights, tmp_path / "x")
    config = config_of(root, tmp_path / "x", **{"eval.resize": 20})
    train_workdir(config, tmp_path / "run")
    facts = json.loads((tmp_path / "run" / RUN_FILE).read_text())
    assert (facts["mean"], facts["std"]) == (list(MEAN), list(STD))
    wanted = Preprocessing(20, mean=MEAN, std=STD)
    assert read_weights(tmp_path / "run").preprocessing == wanted
    assert clevit_jax.load(tmp_path / "run").preprocessing == wanted
    assert normalised_by(config_of(root, tmp_path / "run"), tmp_path / "next") == (MEAN, STD)
