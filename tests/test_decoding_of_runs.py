"""`data.bits` and `data.truncated`: training, scores and answers of a run decode alike."""

import dataclasses
import io
import json

import jax
import numpy as np
import pytest
import tiny
from PIL import Image

import clevit_jax
from clevit_jax.analysis.trained_model import open_trained_model
from clevit_jax.config import resolve_data
from clevit_jax.data import decode
from clevit_jax.data.audit.command import audit
from clevit_jax.data.decode import PLAIN, Decoding
from clevit_jax.data.open import decoded_images, open_data
from clevit_jax.distributed import sharding
from clevit_jax.errors import ConfigError, DataError, WeightsError
from clevit_jax.inference.exported import export_facts
from clevit_jax.model.config import SwinConfig
from clevit_jax.runs.checkpoint import Checkpoints
from clevit_jax.runs.load import read_weights
from clevit_jax.runs.odd_images import say_odd
from clevit_jax.runs.workdir import CHECKPOINTS_FOLDER, RUN_FILE, claim_workdir
from clevit_jax.steps.state import TrainState
from clevit_jax.system.files import write_json
from clevit_jax.weights.converted import write_converted

RNG = np.random.default_rng(2)
OWN = Decoding(truncated=True, bits=12)


def deep_png(pixels):
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


@pytest.fixture
def root(tmp_path):
    """Twelve grey images of 12 bits in 16, two classes."""
    for number in range(12):
        split, class_ = ("train", "test")[number % 2], ("a", "b")[number // 2 % 2]
        folder = tmp_path / "data" / split / class_
        folder.mkdir(parents=True, exist_ok=True)
        pixels = RNG.integers(0, 1 << 12, (16, 16)).astype(np.uint16)
        (folder / f"{number}.png").write_bytes(deep_png(pixels))
    return tmp_path / "data"


def config_of(root, **changes):
    config = tiny.get_config()
    config.data.root = str(root)
    config.data.update(changes)
    return config


@pytest.fixture(scope="module")
def run(random_params, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("runs") / "run"
    claim_workdir(workdir, config_of("nowhere", bits=12, truncated=True))
    write_json(workdir / RUN_FILE, {"class_names": ["a", "b"]})
    model = SwinConfig(
        image_size=16, num_classes=2, embed_dim=8, depths=(1, 1), num_heads=(1, 2), window=2
    )
    checkpoints = Checkpoints(workdir / CHECKPOINTS_FOLDER, keep=5)
    state = TrainState(np.int32(1), random_params(model), {}, None)
    checkpoints.save(jax.device_put(state, sharding.replicated(sharding.make_mesh())), {}, top1=0.5)
    checkpoints.wait()
    checkpoints.close()
    return workdir


def test_both_splits_are_decoded_so(root):
    for decoding, shift in ((Decoding(bits=12), 4), (PLAIN, 8)):
        config = resolve_data(config_of(root, bits=decoding.bits))
        dataset = open_data(config)
        images = decoded_images(config, dataset, training=True)
        for split, examples in dataset.splits.items():
            for index, example in enumerate(examples):
                stored = np.asarray(Image.open(io.BytesIO(example.data.read_bytes())))
                np.testing.assert_array_equal(images[split][index][..., 0], stored >> shift)


def test_a_dark_set_is_told_of(root, capsys):
    for bits, told in ((0, True), (12, False), (16, False)):
        config = resolve_data(config_of(root, bits=bits))
        images = decoded_images(config, open_data(config), training=True)
        decode_all(config, images)
        out = capsys.readouterr().out
        assert ("Warning: All 12 16-bit images have no value above 4,0" in out) is told
        assert ("--config.data.bits=12" in out) is told
        kinds = [finding["kind"] for finding in audit(config)["warnings"]]
        assert ("dark_16_bit" in kinds) is told


def decode_all(config, images):
    """As a run does before its first update."""
    for each in images.values():
        each.fill(threads=2)
    say_odd(images, list(images), bits=config.decoding.bits)


def test_images_without_their_end(root, capsys):
    path = next(root.glob("train/a/*"))
    path.write_bytes(path.read_bytes()[:-60])
    for truncated in (False, True):
        config = resolve_data(config_of(root, truncated=truncated))
        images = decoded_images(config, open_data(config), training=True)
        errors = [finding["sentence"] for finding in audit(config)["errors"]]
        if truncated:
            decode_all(config, images)
            said = "1 image lacks its last bytes (train/a/"
            assert f"Warning: {said}" in capsys.readouterr().out
            assert errors == []
            (finding,) = (f for f in audit(config)["warnings"] if f["kind"] == "cut_short")
            assert finding["sentence"].startswith(said)
            assert finding["items"] == [path.relative_to(root).as_posix()]
        else:
            with pytest.raises(DataError, match=r"is truncated, .*--config\.data\.truncated=true"):
                images["train"].fill(threads=1)
            assert "is truncated" in errors[0]


def test_a_run_and_what_is_made_of_it(run, tmp_path):
    """The run, a converted checkpoint and an export say the same."""
    data = deep_png(RNG.integers(0, 1 << 12, (20, 30)).astype(np.uint16))
    write_converted(read_weights(run), tmp_path / "converted")
    models = [clevit_jax.load(path) for path in (run, tmp_path / "converted")]
    for model in models:
        assert model.decoding == OWN
        sizes = {"resize": model.resize, "crop": 16}
        expected = decode.decode_eval(data, decoding=OWN, **sizes)
        np.testing.assert_array_equal(model.pixels(data), expected)
        assert expected.mean() > 8 * decode.decode_eval(data, **sizes).mean()
        facts = json.loads(json.dumps(export_facts(model)))
        assert facts["decoding"] == {"bits": 12, "truncated": True}
        assert "shifted by 4" in facts["inputs"][0]["holds"]
    assert open_trained_model(run).classifier.decoding == OWN
    other = config_of("nowhere", bits=16, truncated=False)
    assert open_trained_model(run, other).classifier.decoding == Decoding(bits=16)
    # Of what is no run, the config that is given beside it says nothing by default.
    named = open_trained_model(tmp_path / "converted", config_of("nowhere"))
    assert named.classifier.decoding.bits == 12
    with pytest.raises(ConfigError, match=r"data\.bits is 40"):
        open_trained_model(run, config_of("nowhere", bits=40))


def test_fingerprints_tell_bits_apart(run):
    """Features of other pixels are other features; those of older files keep their fingerprint."""
    model = clevit_jax.load(run)
    prints = {}
    for bits in (0, 12, 14):
        model.decoding = Decoding(bits=bits)
        model.__dict__.pop("fingerprint", None)
        prints[bits] = model.fingerprint
    assert len(set(prints.values())) == 3


def test_converted_checkpoints_of_before_and_damaged_ones(run, tmp_path):
    write_converted(dataclasses.replace(read_weights(run), bits=0), tmp_path / "x")
    path = tmp_path / "x" / "model.json"
    facts = json.loads(path.read_text())
    del facts["decoding"]
    path.write_text(json.dumps(facts))
    assert clevit_jax.load(tmp_path / "x").decoding == PLAIN
    for wrong in (3, {"bits": "12"}, {"bits": 3}, {"truncated": 1}, {"x": 1}, {"bits": True}):
        path.write_text(json.dumps(facts | {"decoding": wrong}))
        with pytest.raises(WeightsError, match="an entry is missing or of a wrong type"):
            clevit_jax.load(tmp_path / "x")
