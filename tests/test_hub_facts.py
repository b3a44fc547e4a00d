"""The JSON beside weights: timm's and transformers' folders answer here as they do there."""

import json
import shutil

import numpy as np
import pytest
from hub_images import write_images
from PIL import Image

import clevit_jax
from clevit_jax.errors import WeightsError
from clevit_jax.model.preprocessing import Preprocessing
from clevit_jax.runs.load import read_weights

TRANSFORMERS = {
    "model_type": "swin",
    "image_size": 64,
    "embed_dim": 4,
    "depths": [2, 1, 1],
    "num_heads": [1, 2, 4],
    "window_size": 4,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-5,
    "id2label": {str(i): name for i, name in enumerate(["abies", "acer", "alnus", "betula", "é"])},
}
NAMES = ("abies", "acer", "alnus", "betula", "é")
IMAGENET = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
PROCESSORS = {
    "old": {"feature_extractor_type": "ViTFeatureExtractor", "size": 64, "resample": 3}
    | {"do_normalize": True, "do_resize": True}
    | IMAGENET,
    "new": {
        "image_processor_type": "ViTImageProcessorFast",
        "size": {"height": 64, "width": 64},
        "crop_size": None,
        "do_center_crop": None,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "resample": 2,
        "image_mean": [0.5] * 3,
        "image_std": [0.5, 0.6, 0.7],
    },
    "defaults": {"image_processor_type": "ViTImageProcessor", "size": {"height": 64, "width": 64}},
    "deit": {"image_processor_type": "DeiTImageProcessor", "size": 73, "crop_size": 64},
    "clip": {"image_processor_type": "CLIPImageProcessor", "size": {"shortest_edge": 67}}
    | {"crop_size": {"height": 64, "width": 64}, "resample": 1}
    | IMAGENET,
    "not normalised": {"image_processor_type": "ViTImageProcessor", "do_normalize": False}
    | {"size": {"height": 64, "width": 64}},
    "another range": {"image_processor_type": "ViTImageProcessor", "rescale_factor": 1 / 127.5}
    | {"size": {"height": 64, "width": 64}, "image_mean": [1.0] * 3, "image_std": [1.0] * 3},
    "not rescaled": {"image_processor_type": "ViTImageProcessor", "do_rescale": False}
    | {"size": {"height": 64, "width": 64}, "image_mean": [120.0] * 3, "image_std": [60.0] * 3},
}


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return write_images(tmp_path_factory.mktemp("images"))


def folder_of(folder, weights, config, processor=None):
    folder.mkdir(parents=True)
    shutil.copy(weights, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config))
    if processor is not None:
        (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    return folder


@pytest.fixture
def hugging_face(golden, tmp_path):
    def made(processor=None, **config):
        weights = golden / "dialect_huggingface.safetensors"
        return folder_of(tmp_path / "hf", weights, TRANSFORMERS | config, processor)

    return made


@pytest.fixture
def timm_folder(golden, tmp_path):
    def made(pretrained_cfg, **config):
        whole = {"architecture": "swin_tiny_patch4_window7_224", "pretrained_cfg": pretrained_cfg}
        return folder_of(tmp_path / "timm", golden / "dialect_timm.safetensors", whole | config)

    return made


def probabilities(model, images):
    return model.probabilities(np.stack([model.pixels(path) for path in images]))


@pytest.mark.parametrize("name", PROCESSORS)
def test_transformers_answers_the_same(name, hugging_face, images):
    """Live: its processor and its network, from files to probabilities and names."""
    torch, transformers = (pytest.importorskip(name) for name in ("torch", "transformers"))
    folder = hugging_face(PROCESSORS[name])
    processor = transformers.AutoImageProcessor.from_pretrained(folder, backend="pil")
    network = transformers.SwinForImageClassification.from_pretrained(folder).eval()
    opened = [Image.open(path).convert("RGB") for path in images]
    with torch.inference_mode():
        wanted = network(**processor(opened, return_tensors="pt")).logits.softmax(-1).numpy()
    model = clevit_jax.load(folder)
    np.testing.assert_allclose(probabilities(model, images), wanted, rtol=2e-4)
    best = [NAMES[row.argmax()] for row in wanted]
    assert [found.class_name for found in model.predict(images)] == best


def test_timm_answers_the_same(golden, timm_folder, images):
    """What its transform and its network gave once, by tests/names/timm_answers.py."""
    with np.load(golden / "timm_answers.npz") as stored:
        answers = dict(stored)
    for name in ("nothing", "usual", "half", "squash", "odd"):
        folder = timm_folder(json.loads(str(answers[f"config_{name}"])), label_names=list(NAMES))
        model = clevit_jax.load(folder)
        np.testing.assert_allclose(probabilities(model, images), answers[name], rtol=2e-4)
        assert model.class_names == NAMES
        shutil.rmtree(folder)


def test_older_files_of_timm_have_one_level(golden, tmp_path):
    config = {"architecture": "swin_x", "input_size": [3, 64, 64], "crop_pct": 1.0}
    more = {"mean": [0.5] * 3, "labels": list(NAMES)}
    weights = golden / "dialect_timm.safetensors"
    read = read_weights(folder_of(tmp_path / "x", weights, config | more))
    assert read.preprocessing == Preprocessing(64, mean=(0.5, 0.5, 0.5))
    assert read.class_names == NAMES


def test_the_size_of_the_file_is_the_networks(hugging_face, timm_folder):
    """448 of a window that divides it; what it does not divide is said, and not refused."""
    read = read_weights(hugging_face(image_size=128))
    assert (read.model.image_size, read.preprocessing) == (128, None)
    assert "read beside it  config.json" in str(read)
    assert "128 px; shorter side to 146 px" in str(read)
    assert "assumed: not in the file" in str(read)
    read = read_weights(timm_folder({"input_size": [3, 96, 96], "crop_pct": 0.75}))
    assert (read.model.image_size, read.preprocessing.resize) == (64, 85)
    assert "it asks for 96 px, which windows of 4 do not divide (timm pads them)" in str(read)
    assert "image_size=64 or 128 is nearest" in str(read)


def test_names_that_are_none_or_too_many_are_left_out(hugging_face, tmp_path):
    read = read_weights(hugging_face(id2label={str(i): f"LABEL_{i}" for i in range(5)}))
    assert read.class_names == ()
    shutil.rmtree(tmp_path / "hf")
    read = read_weights(hugging_face(id2label={"0": "a", "1": "b"}))
    assert read.class_names == ()
    assert "its 2 class names are left out, for the head has 5" in str(read)


def test_a_file_is_read_with_what_lies_beside_it(hugging_face, golden, tmp_path):
    """Under the hub's name; another may lie beside anybody's config.json."""
    folder = hugging_face(PROCESSORS["new"])
    assert read_weights(folder / "model.safetensors").preprocessing.mean == (0.5, 0.5, 0.5)
    (folder / "model.safetensors").rename(folder / "mine.safetensors")
    assert read_weights(folder / "mine.safetensors").preprocessing is None
    (folder / "mine.safetensors").rename(folder / "model.safetensors")
    (folder / "config.json").write_text('{"learning_rate": 1}')
    assert read_weights(folder).preprocessing is None


VIT = {"image_processor_type": "ViTImageProcessor", "size": 64}


@pytest.mark.parametrize(
    ("processor", "config", "match"),
    [
        (None, {"hidden_act": "relu"}, "hidden_act is 'relu'"),
        (None, {"layer_norm_eps": 0.1}, "layer_norm_eps is '0.1'"),
        (None, {"use_absolute_embeddings": True}, "use_absolute_embeddings is 'True'"),
        (None, {"image_size": [64, 128]}, "image_size is .*square"),
        (VIT | {"image_processor_type": "BlipImageProcessor"}, {}, "image_processor_type is 'Blip"),
        (VIT | {"do_resize": False}, {}, "do_resize is 'False'"),
        (VIT | {"do_pad": True}, {}, "do_pad is 'True'"),
        (VIT | {"size": {"height": 64, "width": 32}}, {}, "size is .*square"),
        (VIT | {"size": {"shortest_edge": 64}}, {}, "do_center_crop is 'False'"),
        (VIT | {"do_center_crop": True, "crop_size": 80}, {}, "crop_size is '80'"),
        (VIT | {"resample": 9}, {}, "resample is '9'"),
        (VIT | {"rescale_factor": 0}, {}, "rescale_factor is '0'"),
        (VIT | {"image_std": [0, 1, 1]}, {}, "std is .*three numbers above 0"),
    ],
)
def test_what_transformers_does_otherwise_is_refused_by_name(
    processor, config, match, hugging_face
):
    with pytest.raises(WeightsError, match=match):
        read_weights(hugging_face(processor, **config))


@pytest.mark.parametrize(
    ("given", "config", "match"),
    [
        ({"crop_mode": "border"}, {}, "crop_mode is 'border'"),
        ({"input_size": [3, 64, 32]}, {}, "input_size is .*square"),
        ({"interpolation": "random"}, {}, "interpolation is 'random'"),
        ({"crop_pct": 2}, {}, "crop_pct is '2'"),
        ({}, {"global_pool": "max"}, "global_pool is 'max'"),
        ({}, {"model_args": {"act_layer": "relu"}}, "model_args.act_layer is 'relu'"),
        ({}, {"model_args": {"mlp_ratio": 2.0}}, "model_args.mlp_ratio is '2.0'"),
    ],
)
def test_what_timm_does_otherwise_is_refused_by_name(given, config, match, timm_folder):
    with pytest.raises(WeightsError, match=match):
        read_weights(timm_folder(given, **config))


def test_damage_is_named(hugging_face):
    folder = hugging_face(VIT)
    (folder / "preprocessor_config.json").write_text("{")
    with pytest.raises(WeightsError, match=r"preprocessor_config\.json is damaged: it is not JSON"):
        read_weights(folder)
