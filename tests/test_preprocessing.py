"""Preprocessing belongs to a model: mean, std, resizing and crop decide its answers."""

import dataclasses
import json

import jax
import jax.export
import numpy as np
import pytest
from PIL import Image

import clevit_jax
from clevit_jax.analysis.trained_model import open_trained_model
from clevit_jax.data.decode import centre_crop
from clevit_jax.errors import WeightsError
from clevit_jax.inference import export
from clevit_jax.inference.classifier import Classifier
from clevit_jax.inference.load import load
from clevit_jax.model.config import SwinConfig
from clevit_jax.model.preprocessing import Preprocessing
from clevit_jax.views.transforms import normalize_images
from clevit_jax.weights.convert import Weights
from clevit_jax.weights.converted import read_converted, write_converted

MODEL = SwinConfig(
    image_size=16, num_classes=3, embed_dim=4, depths=(1, 1), num_heads=(1, 2), window=2
)
ODD = Preprocessing(
    20,
    squash=True,
    interpolation="lanczos",
    corner="floor",
    mean=(0.5, 0.25, 0.125),
    std=(0.5, 2.0, 0.25),
)
PIXELS = np.random.default_rng(0).integers(0, 256, (31, 45, 3), np.uint8)


def test_mean_and_std_are_subtracted_and_divided():
    """By hand: (51/255 - 0.5) / 0.5, (0 - 0.25) / 2, (1 - 0.125) / 0.25."""
    image = np.array([[[[51, 0, 255]]]], np.uint8)
    got = normalize_images(image, mean=ODD.mean, std=ODD.std)
    np.testing.assert_allclose(got[0, 0, 0], [-0.6, -0.125, 3.5], rtol=1e-6)


@pytest.mark.parametrize("name", ["nearest", "bilinear", "bicubic", "lanczos", "box", "hamming"])
@pytest.mark.parametrize("shape", [(45, 31), (31, 45), (24, 24)])
def test_resized_as_pillow_does(name, shape):
    image = Image.fromarray(PIXELS).resize(shape)
    method = getattr(Image.Resampling, name.upper())
    whole = Preprocessing(20, squash=True, interpolation=name)
    np.testing.assert_array_equal(
        centre_crop(image, "x", whole, crop=16),
        np.asarray(image.resize((20, 20), method))[2:18, 2:18],
    )
    width, height = shape
    short = min(shape)
    size = (20 * width // short, 20 * height // short)
    left, top = (round((side - 16) / 2) for side in size)
    np.testing.assert_array_equal(
        centre_crop(image, "x", Preprocessing(20, interpolation=name), crop=16),
        np.asarray(image.resize(size, method))[top : top + 16, left : left + 16],
    )


def test_half_a_pixel_is_cut_as_the_library_does():
    """19 - 16 = 3: torchvision begins at round(1.5) = 2, transformers at 3 // 2 = 1."""
    image = Image.fromarray(PIXELS[:19, :19])
    for corner, at in (("even", 2), ("floor", 1)):
        got = centre_crop(image, "x", Preprocessing(19, corner=corner), crop=16)
        np.testing.assert_array_equal(got, PIXELS[at : at + 16, at : at + 16])


def test_another_size_keeps_the_share_that_is_seen():
    assert Preprocessing(256).at(448, 224).resize == 512
    assert ODD.at(16, 16) == ODD
    assert Preprocessing(224, squash=True).at(448, 224).resize == 448


def test_it_is_written_and_read():
    assert Preprocessing.from_json(json.loads(json.dumps(ODD.to_json()))) == ODD


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("resize", 0),
        ("resize", 2.5),
        ("resize", True),
        ("squash", 1),
        ("interpolation", "cubic"),
        ("corner", "left"),
        ("mean", [0.5, 0.5]),
        ("mean", [0.5, 0.5, float("nan")]),
        ("std", [0.5, 0.5, 0.0]),
        ("std", "abc"),
    ],
)
def test_nonsense_is_named(field, value):
    with pytest.raises(ValueError, match=field):
        Preprocessing.from_json(ODD.to_json() | {field: value})


@pytest.fixture(scope="module")
def weights(random_params):
    return Weights(
        MODEL, random_params(MODEL), "timm", "x.pth", class_names=("a", "b", "c"), preprocessing=ODD
    )


def test_a_classifier_prepares_images_by_it(weights, tmp_path):
    """Through a converted checkpoint; the reference is Pillow and the network by itself."""
    write_converted(weights, tmp_path / "x")
    assert read_converted(tmp_path / "x").preprocessing == ODD
    model = load(tmp_path / "x")
    resized = Image.fromarray(PIXELS).resize((20, 20), Image.Resampling.LANCZOS)
    image = np.asarray(resized, np.float32)[2:18, 2:18] / 255
    image = (image - np.float32(ODD.mean)) / np.float32(ODD.std)
    logits, features = model(image[None])
    wanted = jax.nn.softmax(logits[0])
    best = model.predict(PIXELS)[0]
    by_name = dict(zip(best.class_names, best.probabilities, strict=True))
    np.testing.assert_allclose([by_name[name] for name in "abc"], wanted, rtol=1e-4)
    np.testing.assert_allclose(model.features(PIXELS), features, rtol=1e-4, atol=1e-6)
    tokens = model.features(PIXELS, layer="norm")[0].mean((0, 1))
    np.testing.assert_allclose(tokens, features[0], rtol=1e-4, atol=1e-5)


def test_other_preprocessing_has_another_fingerprint(weights):
    def of(preprocessing):
        return Classifier(MODEL, weights.params, (), "x", preprocessing=preprocessing).fingerprint

    plain = Preprocessing(20)
    others = [
        dataclasses.replace(plain, **{k: v}) for k, v in ODD.to_json().items() if k != "resize"
    ]
    assert len({of(given) for given in (plain, *others)}) == 6


def test_older_checkpoints_say_nothing_and_it_is_assumed(weights, tmp_path):
    write_converted(weights, tmp_path / "x")
    path = tmp_path / "x" / "model.json"
    facts = json.loads(path.read_text())
    del facts["preprocessing"]
    path.write_text(json.dumps(facts))
    read = read_converted(tmp_path / "x")
    assert read.preprocessing is None
    assert "16 px; shorter side to 18 px (bicubic), centre 16 px; mean 0.485 0.456 0.406" in str(
        read
    )
    assert "assumed: not in the file" in str(read)
    assert load(tmp_path / "x").preprocessing == Preprocessing(18)
    path.write_text(json.dumps(facts | {"preprocessing": {"resize": 20}}))
    with pytest.raises(WeightsError, match=r"model\.json is damaged: the preprocessing must have"):
        read_converted(tmp_path / "x")


def test_an_export_holds_it(weights, tmp_path):
    """The file takes pixels, so mean and std are in it; resizing and crop stand beside it."""
    write_converted(weights, tmp_path / "x")
    model = load(tmp_path / "x")
    export.export_stablehlo(model, tmp_path / "x.stablehlo")
    pixels = model.pixels(PIXELS)[None]
    exported = jax.export.deserialize(bytearray((tmp_path / "x.stablehlo").read_bytes()))
    image = (pixels.astype(np.float32) / 255 - np.float32(ODD.mean)) / np.float32(ODD.std)
    np.testing.assert_allclose(exported.call(pixels)["logits"], model(image)[0], rtol=1e-4)
    facts = json.loads((tmp_path / "x.stablehlo.json").read_text())
    assert Preprocessing.from_json(facts["preprocessing"]) == ODD
    assert "the whole image resized to 20 x 20 pixels (lanczos" in facts["inputs"][0]["holds"]


def test_a_config_says_how_to_resize_only_where_the_model_does_not(weights, tmp_path):
    config = clevit_jax.get_config("folder", image_size=32, **{"eval.resize": 33})
    for given, resize in ((ODD, 40), (None, 33)):
        folder = tmp_path / str(resize)
        write_converted(dataclasses.replace(weights, preprocessing=given), folder)
        opened = open_trained_model(folder, config).classifier
        assert opened.model.image_size == 32
        wanted = dataclasses.replace(given or Preprocessing.usual(32), resize=resize)
        assert opened.preprocessing == wanted
