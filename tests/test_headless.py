"""Networks without a head: features come out, and answers are refused in a sentence."""

import dataclasses
import functools
import json

import jax
import numpy as np
import pytest
import safetensors.numpy
import torch
import transformers
from absl import flags
from flax import nnx
from PIL import Image

import clevit_jax
from clevit_jax import flags as command_line
from clevit_jax import main
from clevit_jax.analysis.feature_file import read_feature_file
from clevit_jax.errors import WeightsError
from clevit_jax.inference.export import export_stablehlo
from clevit_jax.model.swin import abstract_swin
from clevit_jax.runs.load import read_weights
from clevit_jax.weights.convert import HEAD, to_dialect
from clevit_jax.weights.converted import write_converted
from clevit_jax.weights.export import write_torch_weights
from clevit_jax.weights.fit import fit_weights
from clevit_jax.weights.verify import verify

NO_HEAD = "has no head, so it tells no classes apart: train from it"
# What each library calls its head.
HEADS = {"microsoft": "head.", "timm": "head.", "huggingface": "classifier.", "openmmlab": "head."}


@pytest.fixture(scope="module")
def whole(golden):
    return golden / "dialect_timm.safetensors"


@pytest.fixture(scope="module")
def bare(whole, tmp_path_factory):
    """The same network as `num_classes=0` of timm saves it."""
    path = tmp_path_factory.mktemp("bare") / "bare.safetensors"
    tensors = safetensors.numpy.load_file(whole)
    safetensors.numpy.save_file(
        {name: x for name, x in tensors.items() if not name.startswith("head.")}, path
    )
    return path


@pytest.fixture(scope="module")
def model(bare):
    return clevit_jax.load(bare)


@functools.cache
def network(config):
    graphdef = abstract_swin(config)[0]
    return jax.jit(lambda params, images: nnx.merge(graphdef, params)(images))


PIXELS = np.random.RandomState(3).randint(0, 256, (2, 64, 64, 3), np.uint8)


def test_features_are_those_of_the_whole_network(golden, whole, bare, model):
    weights = read_weights(bare)
    images = np.random.RandomState(7).standard_normal((2, 64, 64, 3)).astype(np.float32)
    features = network(weights.model)(weights.params, images)[1]
    reference = np.load(golden / "dialect_timm.npz")["features"]
    np.testing.assert_allclose(features, reference, atol=1e-5, rtol=0)
    np.testing.assert_allclose(
        model.features(PIXELS), clevit_jax.load(whole).features(PIXELS), atol=1e-6, rtol=0
    )
    assert model.class_names == ()
    assert model.dispatch(PIXELS)()[0].shape == (2, 0)


@pytest.mark.parametrize(
    "ask",
    [
        lambda model, _: model(np.zeros((1, 64, 64, 3), np.float32)),
        lambda model, _: model.predict(PIXELS),
        lambda model, _: model.probabilities(PIXELS),
        lambda model, _: model.rank(np.ones(1), 1),
        lambda model, _: model.explain(PIXELS[0]),
        lambda model, _: model.class_number("0"),
        lambda model, folder: export_stablehlo(model, folder / "new" / "x.stablehlo"),
    ],
    ids=["logits", "predict", "probabilities", "rank", "explain", "class", "export"],
)
def test_answers_are_refused(model, tmp_path, ask):
    with pytest.raises(WeightsError, match=NO_HEAD):
        ask(model, tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_converted_checkpoint_stays_headless(bare, tmp_path):
    weights = clevit_jax.convert_weights(bare, tmp_path / "x")
    assert str(weights).splitlines()[0].endswith("window 4, no head")
    facts = json.loads((tmp_path / "x" / "model.json").read_text())
    assert (facts["headless"], facts["class_count"], facts["class_names"]) == (True, 0, [])
    tensors = safetensors.numpy.load_file(tmp_path / "x" / "model.safetensors")
    assert not tensors.keys() & set(HEAD)
    again = read_weights(tmp_path / "x")
    assert again.headless
    assert again.report.reinitialised == HEAD
    jax.tree.map(np.testing.assert_array_equal, again.params, weights.params)
    with pytest.raises(WeightsError, match=NO_HEAD):
        clevit_jax.load(tmp_path / "x").predict(PIXELS)
    (tmp_path / "x" / "model.json").write_text(json.dumps(facts | {"class_names": ["a"]}))
    with pytest.raises(WeightsError, match="is damaged: an entry"):
        read_weights(tmp_path / "x")


def test_a_converted_checkpoint_of_before_reads_as_before(whole, tmp_path):
    written = read_weights(whole)
    write_converted(written, tmp_path / "x")
    facts = json.loads((tmp_path / "x" / "model.json").read_text())
    assert facts.pop("headless") is False
    (tmp_path / "x" / "model.json").write_text(json.dumps(facts))
    again = read_weights(tmp_path / "x")
    assert not again.headless
    jax.tree.map(np.testing.assert_array_equal, again.params, written.params)


@pytest.mark.parametrize("dialect", HEADS)
def test_it_is_handed_on_without_a_head(whole, bare, tmp_path, dialect):
    ours = to_dialect(read_weights(bare), dialect)
    theirs = to_dialect(read_weights(whole), dialect)
    kept = {
        n.removeprefix("swin."): x for n, x in theirs.items() if not n.startswith(HEADS[dialect])
    }
    assert ours.keys() == kept.keys()
    clevit_jax.convert_weights(bare, tmp_path / "x.safetensors", to=dialect)
    again = read_weights(tmp_path / "x.safetensors")
    assert again.headless
    assert again.dialect == dialect.replace("microsoft", "timm<0.9")


def test_transformers_loads_it_strictly(bare, tmp_path):
    model = dataclasses.replace(read_weights(bare).model, image_size=128)  # no window shrinks
    weights = dataclasses.replace(read_weights(bare), model=model)
    write_torch_weights(weights, tmp_path / "hf", "huggingface")
    theirs, info = transformers.SwinModel.from_pretrained(tmp_path / "hf", output_loading_info=True)
    assert not any(info.values())
    images = np.random.RandomState(5).standard_normal((2, 128, 128, 3)).astype(np.float32)
    with torch.inference_mode():
        wanted = theirs.eval()(torch.from_numpy(images.transpose(0, 3, 1, 2).copy())).pooler_output
    np.testing.assert_allclose(
        network(model)(weights.params, images)[1], wanted.numpy(), atol=1e-5, rtol=0
    )
    found = verify(weights, bare)
    assert found.ok
    assert list(found.differences) == ["features"]
    config = json.loads((tmp_path / "hf" / "config.json").read_text())
    assert config["architectures"] == ["SwinModel"]
    assert "id2label" not in config


@pytest.mark.parametrize("classes", [1, 3])
def test_training_begins_with_a_new_head(bare, classes):
    weights = read_weights(bare)
    wanted = dataclasses.replace(weights.model, num_classes=classes)
    params, report = fit_weights(weights, wanted)
    assert params["head"]["kernel"].shape == (wanted.channels(-1), classes)
    assert not params["head"]["kernel"].any()
    assert report.reinitialised == HEAD
    with pytest.raises(WeightsError, match="so a class map has nothing to take from it"):
        fit_weights(weights, wanted, class_map=np.zeros(classes, int))


def command(*arguments):
    """The exit code of main.py with its own flags."""
    values = flags.FlagValues()
    command_line.define(values)
    argv = ["main", *map(str, arguments)]
    return main.main(command_line.parse(values, argv), values)


@pytest.fixture
def leaf(tmp_path):
    Image.fromarray(PIXELS[0]).save(tmp_path / "leaf.png")
    return tmp_path / "leaf.png"


@pytest.mark.parametrize(("mode", "output"), [("predict", "x.csv"), ("explain", "x")])
def test_modes_that_answer_say_so(bare, leaf, capsys, mode, output):
    target = leaf.with_name(output)
    arguments = [f"--mode={mode}", f"--workdir={bare}", f"--input={leaf}", f"--output={target}"]
    assert command(*arguments) == 2
    error = capsys.readouterr().err
    assert NO_HEAD in error
    assert error.count("\n") == 1
    assert not target.exists()


@pytest.mark.parametrize("ending", ["npz", "parquet"])
def test_a_file_of_features_has_no_logits(bare, leaf, ending):
    target = leaf.with_name(f"f.{ending}")
    arguments = [f"--workdir={bare}", f"--input={leaf}", f"--output={target}"]
    assert command("--mode=features", *arguments) == 0
    read = read_feature_file(target)
    assert read.features.shape == (1, 16)
    assert read.logits.shape == (1, 0)
