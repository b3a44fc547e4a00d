"""Exported files, run without this library, against the classifier that they come from."""

import dataclasses
import errno
import hashlib
import json
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from clevit_jax import Classifier
from clevit_jax.distributed import sharding
from clevit_jax.errors import ConfigError
from clevit_jax.inference import export, exported
from clevit_jax.model.config import SwinConfig
from clevit_jax.runs.checkpoint import Checkpoints
from clevit_jax.runs.load import read_weights
from clevit_jax.runs.workdir import CHECKPOINTS_FOLDER, RUN_FILE, claim_workdir
from clevit_jax.steps.state import TrainState
from clevit_jax.system.files import write_json
from clevit_jax.weights.converted import write_converted

pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

# With shifted windows and a merge of patches.
MODEL = SwinConfig(
    image_size=32, num_classes=5, embed_dim=8, depths=(2, 1), num_heads=(1, 2), window=4
)
SIZES = (1, 2, 7)  # those between which the compiler's shapes differ
_RUN = """
import sys
sys.modules |= dict.fromkeys(["clevit_jax", "flax", "optax", "orbax", "ml_collections"])
import numpy as np
from jax import export
model = export.deserialize(bytearray(open("model.stablehlo", "rb").read()))
assert model.platforms == ("cpu", "cuda", "tpu"), model.platforms
images = np.load("images.npz")
outs = {name: model.call(images[name]) for name in images}
np.savez("outs.npz", **{f"{n}/{k}": v for n, out in outs.items() for k, v in out.items()})
"""


def images_of(count, size=32):
    return np.random.default_rng(count).integers(0, 256, (count, size, size, 3), np.uint8)


def normalised(images):
    """By NumPy, with torchvision's figures."""
    mean, deviation = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    return ((images / 255 - mean) / deviation).astype(np.float32)


@pytest.fixture(scope="module")
def make(random_params):
    def make(**changes):
        model = dataclasses.replace(MODEL, **changes)
        params = jax.tree.map(lambda leaf: 0.3 * leaf, random_params(model))
        return Classifier(model, params, ("a", "b", "c", "d", "e"), "made by hand")

    return make


@pytest.fixture(scope="module")
def model(make):
    return make()


@pytest.fixture(scope="module")
def stablehlo(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("stablehlo") / "model.stablehlo"
    export.export_stablehlo(model, path)
    return path


@pytest.fixture(scope="module")
def wanted(model):
    """Logits and features of the classifier for each of `SIZES`."""
    every = np.concatenate([images_of(count) for count in SIZES])
    ends = np.cumsum(SIZES)[:-1]
    both = [np.split(np.asarray(out), ends) for out in model(normalised(every))]
    return dict(zip(SIZES, zip(*both, strict=True), strict=True))


def assert_same(outs, wanted, atol):
    assert outs[0].shape == (len(wanted[0]), 5)
    for out, right in zip(outs, wanted, strict=True):
        assert out.dtype == np.float32
        np.testing.assert_allclose(out, right, atol=atol, rtol=0)


def test_stablehlo_runs_where_neither_this_library_nor_flax_is(wanted, stablehlo):
    folder = stablehlo.parent
    np.savez(folder / "images.npz", **{str(count): images_of(count) for count in SIZES})
    command = [sys.executable, "-c", _RUN]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    outs = np.load(folder / "outs.npz")
    for count in SIZES:
        pair = outs[f"{count}/logits"], outs[f"{count}/features"]
        assert_same(pair, wanted[count], 1e-5)
    assert np.ptp(outs["7/logits"], axis=0).min() > 1e-2  # else the images would not matter


def test_stablehlo_keeps_bfloat16(make, tmp_path):
    # A CPU takes long to compile bfloat16.
    model = make(dtype=jnp.bfloat16, depths=(1,), num_heads=(1,))
    model.dispatch(images_of(1))()  # JAX may remember the places of what it lowered
    export.export_stablehlo(model, tmp_path / "model.stablehlo")
    file = jax.export.deserialize(bytearray((tmp_path / "model.stablehlo").read_bytes()))
    assert "bf16" in file.mlir_module()
    out = file.call(images_of(3))
    assert_same((out["logits"], out["features"]), model(normalised(images_of(3))), 2e-2)
    facts = json.loads((tmp_path / "model.stablehlo.json").read_text())
    assert facts["dtype"] == "bfloat16"
    # No place on the machine that made it, here or in the packages.
    data = (tmp_path / "model.stablehlo").read_bytes()
    assert b".py" not in data
    assert not jax.config.values["jax_hlo_source_file_canonicalization_regex"]


@pytest.fixture(scope="module")
def onnx(model, tmp_path_factory):
    pytest.importorskip("jax2onnx", reason="the extra onnx is not installed")
    path = tmp_path_factory.mktemp("onnx") / "model.onnx"
    export.export_onnx(model, path)
    return path


def test_onnx_gives_the_same(wanted, onnx):
    import onnxruntime

    session = onnxruntime.InferenceSession(str(onnx))
    assert [put.name for put in session.get_outputs()] == ["logits", "features"]
    for count in SIZES:
        outs = session.run(None, {"images": images_of(count)})
        assert_same(outs, wanted[count], 1e-4)


# The formats that ONNX's table of versions has for these opsets; the default's is the newest here.
@pytest.mark.parametrize(("opset", "form"), [(18, 8), (20, 9), (23, 10)])
def test_onnx_of_another_opset_gives_the_same(opset, form, run, tmp_path, capsys):
    pytest.importorskip("jax2onnx", reason="the extra onnx is not installed")
    import onnx
    import onnxruntime

    export.export_workdir(run, tmp_path / "model.onnx", checkpoint="best", opset=opset)
    proto = onnx.load(tmp_path / "model.onnx")
    assert [(each.domain, each.version) for each in proto.opset_import] == [("", opset)]
    assert proto.ir_version == form
    onnx.checker.check_model(proto, full_check=True)
    assert json.loads((tmp_path / "model.onnx.json").read_text())["opset"] == opset
    logits, _ = onnxruntime.InferenceSession(str(tmp_path / "model.onnx")).run(
        None, {"images": images_of(2, 16)}
    )
    wanted = Classifier(*_weights(run))(normalised(images_of(2, 16)))[0]
    np.testing.assert_allclose(logits, wanted, atol=1e-4)


def test_opsets_that_cannot_be_are_refused_in_one_sentence(model, run, tmp_path, monkeypatch):
    with pytest.raises(ConfigError, match=r"^--opset is for an \.onnx; .*model\.stablehlo"):
        export.export_workdir(run, tmp_path / "model.stablehlo", opset=18)
    pytest.importorskip("jax2onnx", reason="the extra onnx is not installed")
    import onnx
    import onnxruntime

    newest = onnx.defs.onnx_opset_version()
    for opset in (-1, 0, 17, newest + 1):
        with pytest.raises(ConfigError, match=f"^--opset is {opset}; .* 18, .* to {newest}, "):
            export.export_workdir(run, tmp_path / "model.onnx", opset=opset)

    def refuse(*_, **__):
        raise RuntimeError("ONNX Runtime only guarantees support\nup to opset 22")

    monkeypatch.setattr(onnxruntime, "InferenceSession", refuse)
    with pytest.raises(ConfigError, match=r"not open it; opset 23 may .* support up to opset 22"):
        export.export_onnx(model, tmp_path / "model.onnx", opset=23)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("kind", ["stablehlo", "onnx"])
def test_the_json_says_what_the_file_is(kind, request):
    path = request.getfixturevalue(kind)
    assert sorted(file.name for file in path.parent.iterdir() if file.suffix != ".npz") == [
        f"model.{kind}", f"model.{kind}.json"
    ]  # fmt: skip
    facts = json.loads(exported.facts_path(path).read_text())
    assert facts["kind"] == kind
    assert facts["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert facts["class_names"] == ["a", "b", "c", "d", "e"]
    assert (facts["image_size"], facts["resize"]) == (32, 37)  # 32 * 8 / 7 = 36.6
    assert facts["source"] == "made by hand"
    assert facts["versions"]["jax"] == jax.__version__
    assert facts["inputs"][0]["shape"] == ["b", 32, 32, 3]
    assert [put["shape"] for put in facts["outputs"]] == [["b", 5], ["b", 16]]


def test_onnx_is_refused_in_one_sentence(make, model, tmp_path, monkeypatch):
    with pytest.raises(ConfigError, match=r"float32 alone.*write a \.stablehlo"):
        export.export_onnx(make(dtype=jnp.bfloat16), tmp_path / "model.onnx")
    monkeypatch.setitem(sys.modules, "jax2onnx", None)
    with pytest.raises(ConfigError, match=r"^jax2onnx is not installed.*'\.\[onnx\]'"):
        export.export_onnx(model, tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())


def test_what_is_there_stays(model, stablehlo, tmp_path, monkeypatch):
    """Unless it is to be replaced, and then until the new file is whole."""
    path = tmp_path / "model.stablehlo"
    path.write_text("old")
    with pytest.raises(ConfigError, match=r"model.stablehlo exists already; .* --overwrite"):
        export.export_stablehlo(model, path)

    def fail(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(exported, "check_export", fail)
        with pytest.raises(ConfigError, match="cannot be written: No space left on device"):
            export.export_stablehlo(model, path, overwrite=True)
    assert [file.name for file in tmp_path.iterdir()] == ["model.stablehlo"]
    assert path.read_text() == "old"
    export.export_stablehlo(model, path, overwrite=True)
    assert path.read_bytes() != b"old"


def test_a_file_that_gives_other_numbers_is_refused(model, tmp_path):
    def right(images):
        return np.asarray(model(normalised(images))[0])

    assert exported.check_export(model, right, tmp_path / "model.onnx") < 1e-5
    for wrong in (lambda images: right(images) + 1e-2, lambda images: right(images) * np.nan):
        with pytest.raises(ConfigError, match=r"model.onnx is not written: .* other logits"):
            exported.check_export(model, wrong, tmp_path / "model.onnx")


@pytest.fixture(scope="module")
def run(random_params, tmp_path_factory):
    """A run of the tiny config, with its best at step 5 and its last at 9."""
    workdir = tmp_path_factory.mktemp("runs") / "run"
    config = tiny.get_config()
    config.eval.resize = 20
    claim_workdir(workdir, config)
    write_json(workdir / RUN_FILE, {"class_names": ["x", "y", "z"]})
    model = SwinConfig(
        image_size=16, num_classes=3, embed_dim=8, depths=(1, 1), num_heads=(1, 2), window=2
    )
    checkpoints = Checkpoints(workdir / CHECKPOINTS_FOLDER, keep=5)
    for step, top1 in ((5, 0.9), (9, 0.5)):
        state = TrainState(np.int32(step), random_params(model, seed=step), {}, None)
        state = jax.device_put(state, sharding.replicated(sharding.make_mesh()))
        checkpoints.save(state, {}, top1=top1)
    checkpoints.wait()
    checkpoints.close()
    return workdir


@pytest.mark.parametrize("name", ["model.stablehlo", "model.onnx"])
def test_the_printed_lines_run_it(run, name, tmp_path, monkeypatch, capsys):
    """A run, by the command's function; `B` images go through what it printed."""
    if name.endswith("onnx"):
        pytest.importorskip("jax2onnx", reason="the extra onnx is not installed")
    monkeypatch.chdir(tmp_path)
    assert export.export_workdir(run, f"new/{name}", checkpoint="best") == 0
    out = capsys.readouterr().out
    assert f"Wrote new/{name} (0." in out
    assert "run (step 5)" in out
    lines = [line.strip() for line in out.splitlines() if line.startswith("    ")]
    names = {"images": images_of(2, 16)}
    exec("\n".join(lines), names)
    wanted = Classifier(*_weights(run))(normalised(images_of(2, 16)))[0]
    np.testing.assert_allclose(names["logits"], wanted, atol=1e-4)
    facts = json.loads((tmp_path / "new" / f"{name}.json").read_text())
    assert (facts["class_names"], facts["resize"]) == (["x", "y", "z"], 20)
    assert sorted(os.listdir(tmp_path / "new")) == [name, f"{name}.json"]


def _weights(run):
    best = read_weights(run, checkpoint="best")
    return best.model, best.params, best.class_names, best.source


def test_another_image_size_scales_the_resizing(run, tmp_path, capsys):
    export.export_workdir(run, tmp_path / "model.stablehlo", image_size=32)
    facts = json.loads((tmp_path / "model.stablehlo.json").read_text())
    assert (facts["image_size"], facts["resize"]) == (32, 40)


def test_classes_without_names_have_numbers(run, tmp_path, capsys):
    folder, output = tmp_path / "converted", tmp_path / "model.stablehlo"
    nameless = dataclasses.replace(read_weights(run), class_names=(), preprocessing=None)
    write_converted(nameless, folder)
    export.export_workdir(folder, output)
    facts = json.loads(exported.facts_path(output).read_text())
    assert (facts["class_names"], facts["resize"]) == (["0", "1", "2"], 18)  # 16 * 8 / 7


def test_mistakes_are_one_sentence_and_write_nothing(run, tmp_path):
    cases = {
        "must end in .stablehlo or .onnx": (run, tmp_path / "model.pb"),
        "missing": (tmp_path / "missing", tmp_path / "model.onnx"),
        "is a folder; name a file": (run, tmp_path / "folder.onnx"),
    }
    (tmp_path / "folder.onnx").mkdir()
    for part, (path, output) in cases.items():
        with pytest.raises(ConfigError, match=part):
            export.export_workdir(path, output)
    for options in ({"image_size": 20}, {"dtype": "float16"}, {"checkpoint": "newest"}):
        with pytest.raises(ConfigError):
            export.export_workdir(run, tmp_path / "model.stablehlo", **options)
    assert [file.name for file in tmp_path.iterdir()] == ["folder.onnx"]
