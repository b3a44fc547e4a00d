"""The command tools/convert_torch_weights.py, as someone uses it who just downloaded a file."""

import dataclasses
import hashlib
import importlib.util
import json
import pathlib
import shutil
import subprocess
import sys

import jax
import numpy as np
import pytest
import safetensors.numpy
import torch

import clevit_jax
import clevit_jax.convert
from clevit_jax.distributed import sharding
from clevit_jax.model.config import SwinConfig
from clevit_jax.model.swin import abstract_swin
from clevit_jax.runs.checkpoint import Checkpoints
from clevit_jax.runs.workdir import RUN_FILE, claim_workdir
from clevit_jax.steps.state import TrainState
from clevit_jax.system.files import write_json
from clevit_jax.weights import files
from clevit_jax.weights.convert import Weights, read_torch_weights
from clevit_jax.weights.converted import read_converted, write_converted
from configs import base

TOOL = pathlib.Path(__file__).parents[1] / "tools" / "convert_torch_weights.py"


@pytest.fixture(scope="module")
def tool():
    spec = importlib.util.spec_from_file_location("convert_torch_weights", TOOL)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def convert(tool, capsys):
    """`convert(*arguments)` -> (exit code, stdout, stderr)."""

    def run(*arguments):
        code = tool.main(list(map(str, arguments)))
        out, error = capsys.readouterr()
        return code, out, error

    return run


@pytest.fixture(scope="module")
def nano(golden):
    return golden / "swin_nano_224.pth"


@pytest.fixture(scope="module")
def run(nano, tmp_path_factory):
    """A run with the nano's parameters, and an average that is twice as large."""
    read = read_torch_weights(nano)
    workdir = tmp_path_factory.mktemp("runs") / "mine"
    config = base.get_config()
    config.update_from_flattened_dict(
        {
            "image_size": 224, "model.embed_dim": 16, "model.depths": (2, 2, 2, 2),
            "model.num_heads": (1, 2, 4, 8), "optim.ema": 0.9,
        }
    )  # fmt: skip
    claim_workdir(workdir, config)
    names = [f"leaf {index}" for index in range(21)]
    write_json(workdir / RUN_FILE, {"class_names": names})
    checkpoints = Checkpoints(workdir / "checkpoints", keep=5)
    for step, top1, sign in ((3, 0.5, -1), (4, 0.1, 1)):
        mine = jax.tree.map(lambda leaf, sign=sign: sign * leaf, read.params)
        average = jax.tree.map(lambda leaf: 2 * leaf, mine)
        state = TrainState(np.int32(step), mine, {}, average)
        state = jax.device_put(state, sharding.replicated(sharding.make_mesh()))
        checkpoints.save(state, {}, top1=top1)
    checkpoints.wait()
    checkpoints.close()
    return workdir


def kernel_of(path):
    """A tensor that every dialect holds as it is."""
    tensors = safetensors.numpy.load_file(path)
    ends = ("layers.0.blocks.0.norm1.weight", "layers.0.blocks.0.layernorm_before.weight")
    (name,) = [name for name in tensors if name.endswith(ends)]
    return tensors[name]


def test_a_download_becomes_a_checkpoint(convert, nano, tmp_path, golden):
    target = tmp_path / "weights" / "nano"
    code, out, error = convert(nano, target)
    assert (code, error) == (0, "")
    assert "swin_nano_224.pth (microsoft): Swin: embed 16, depths 2-2-2-2, heads 1-2-4-8, " in out
    state = torch.load(nano, weights_only=True)["model"]
    count = sum(value.is_floating_point() and "mask" not in name for name, value in state.items())
    assert f"matched         {count} parameters" in out
    assert "ignored         8 relative position index, 3 attention mask" in out
    assert f"--config.model.pretrained={target}" in out
    facts = json.loads((target / "model.json").read_text())
    assert facts["source"] == "swin_nano_224.pth"
    assert facts["source_sha256"] == hashlib.sha256(nano.read_bytes()).hexdigest()
    assert (facts["dialect"], facts["class_count"]) == ("microsoft", 21)
    logits, features = clevit_jax.load(target)(
        np.random.RandomState(224).standard_normal((2, 224, 224, 3)).astype(np.float32)
    )
    expected = np.load(golden / "swin_nano.npz")
    np.testing.assert_allclose(logits, expected["logits_224"], atol=1e-5, rtol=0)
    np.testing.assert_allclose(features, expected["features_224"], atol=1e-5, rtol=0)


def test_what_lies_beside_the_model_is_said(convert, golden):
    out = convert(golden / "clevit_best_nano.pth")[1]
    assert "8 relative position index, 3 attention mask, beside the model: 'optimizer', 'lr_" in out


def test_the_masks_tell_the_image_size(convert, nano, tmp_path):
    read = read_torch_weights(nano)
    larger = dataclasses.replace(read, model=dataclasses.replace(read.model, image_size=448))
    write_converted(larger, tmp_path / "x")
    for dialect, size in (("microsoft", 448), ("timm", 224)):  # timm stores none
        target = tmp_path / f"{dialect}.safetensors"
        assert convert(tmp_path / "x", target, "--to", dialect)[0] == 0
        assert read_torch_weights(target).model.image_size == size


def test_a_target_that_is_there_stays(convert, nano, tmp_path):
    assert convert(nano, tmp_path / "x")[0] == 0
    before = (tmp_path / "x" / "model.json").stat().st_mtime_ns
    code, out, error = convert(nano, tmp_path / "x")
    assert (code, out) == (2, "")  # before anything is read
    assert "--overwrite" in error
    assert (tmp_path / "x" / "model.json").stat().st_mtime_ns == before
    assert convert(nano, tmp_path / "x", "--overwrite")[0] == 0
    file = tmp_path / "y.safetensors"
    assert convert(nano, file, "--to", "timm")[0] == 0
    code, out, error = convert(nano, file, "--to", "timm")
    assert (code, out) == (2, "")
    assert "y.safetensors is there" in error
    assert convert(nano, file, "--to", "timm", "--overwrite")[0] == 0


def test_everything_wrong_is_listed_at_once(convert, nano, tmp_path):
    state = torch.load(nano, weights_only=True)["model"]
    state["extra.weight"] = torch.zeros(3)
    del state["layers.2.blocks.1.norm2.bias"], state["norm.weight"]
    state["layers.1.blocks.0.mlp.fc1.weight"] = torch.zeros(7, 32)
    state["layers.0.blocks.0.attn.proj.bias"] = torch.zeros(16, dtype=torch.int64)
    state["layers.0.blocks.0.norm1.bias"] = torch.full((16,), torch.nan)
    torch.save(state, tmp_path / "broken.pth")
    code, out, error = convert(tmp_path / "broken.pth", tmp_path / "x")
    assert (code, out) == (2, "")
    assert error.startswith(f"error: {tmp_path / 'broken.pth'}: ")
    assert error.count("\n") == 1
    for text in (
        "in 6 place(s)",
        "left over 'extra.weight'",
        "missing layers.2.blocks.1.norm2.bias",
        "missing norm.weight",
        "layers.1.blocks.0.mlp.fc1.weight has shape [7, 32], wanted [128, 32]",
        "layers.0.blocks.0.attn.proj.bias holds int64",
        "layers.0.blocks.0.norm1.bias holds numbers that are not finite",
    ):
        assert text in error
    assert [path.name for path in tmp_path.iterdir()] == ["broken.pth"]


def test_errors_use_the_names_of_the_file(convert, nano, tmp_path):
    assert convert(nano, tmp_path / "hf.safetensors", "--to", "huggingface")[0] == 0
    tensors = safetensors.numpy.load_file(tmp_path / "hf.safetensors")
    for part in ("query", "key", "value"):
        del tensors[f"swin.encoder.layers.0.blocks.1.attention.self.{part}.weight"]
    safetensors.numpy.save_file(tensors, tmp_path / "broken.safetensors")
    code, _, error = convert(tmp_path / "broken.safetensors")
    assert code == 2
    assert "missing swin.encoder.layers.0.blocks.1.attention.self.query.weight" in error
    assert "qkv" not in error


def test_without_a_target_it_only_looks(convert, nano, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, _ = convert(nano)
    assert code == 0
    assert "window 7, 21 classes" in out
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("options", [[], ["--checkpoint", "best"], ["--ema"]])
def test_a_run_is_handed_on(convert, run, tmp_path, options, nano):
    factor = {"best": -1, "--ema": 2}.get(options[-1] if options else "", 1)
    scale = read_torch_weights(nano).params["layers"][0]["blocks"][0]["norm1"]["scale"]
    for dialect in ("microsoft", "timm", "huggingface"):
        target = tmp_path / f"{dialect}.safetensors"
        code, out, _ = convert(run, target, "--to", dialect, *options)
        assert code == 0
        assert ("keeps an average" in out) == ("--ema" not in options)
        np.testing.assert_array_equal(kernel_of(target), factor * scale)
        assert read_torch_weights(target).dialect == dialect.replace("microsoft", "timm<0.9")
    assert convert(run, tmp_path / "m.pth", "--to", "microsoft", *options)[0] == 0
    state = torch.load(tmp_path / "m.pth", weights_only=True)["model"]
    np.testing.assert_array_equal(state["layers.0.blocks.0.norm1.weight"], factor * scale)
    assert convert(run, tmp_path / "converted", *options)[0] == 0
    assert read_converted(tmp_path / "converted").class_names[3] == "leaf 3"


def test_a_class_map(convert, nano, tmp_path):
    (tmp_path / "map.txt").write_text("20\n0\n")
    code, out, _ = convert(nano, tmp_path / "x", "--class-map", tmp_path / "map.txt")
    assert code == 0
    assert "head.kernel: 21 -> 2 classes" in out
    head, whole = (
        read_converted(tmp_path / "x").params["head"],
        read_torch_weights(nano).params["head"],
    )
    np.testing.assert_array_equal(head["kernel"], whole["kernel"][:, [20, 0]])
    (tmp_path / "map.txt").write_text("21\n0\n")
    code, _, error = convert(nano, tmp_path / "y", "--class-map", tmp_path / "map.txt")
    assert code == 2
    assert "from 0 to 20; wrong are the lines [1]" in error


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--ema"], "--ema and --checkpoint are for a run"),
        (["--checkpoint", "best"], "--ema and --checkpoint are for a run"),
        (["--to", "timm"], "need a target"),
        (["--overwrite"], "need a target"),
        (["x.bin2", "--to", "openmmlab"], "must end in .safetensors"),
        (["x.safetensors"], "--to microsoft|timm|huggingface"),
        (["x", "--to", "microsoft"], "must end in .safetensors"),
        (["x", "--class-map", "missing.txt"], "missing.txt cannot be read"),
    ],
)
def test_options_that_would_do_nothing(convert, nano, tmp_path, monkeypatch, arguments, says):
    monkeypatch.chdir(tmp_path)
    code, _, error = convert(nano, *arguments)
    assert code == 2
    assert says in error
    assert list(tmp_path.iterdir()) == []


def test_windows_that_shrink_are_not_for_transformers(convert, tmp_path):
    model = SwinConfig(
        image_size=16, num_classes=3, embed_dim=4, depths=(1, 1), num_heads=(1, 2), window=4
    )
    params = jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), abstract_swin(model)[1])
    write_converted(Weights(model, params, "timm", "x"), tmp_path / "x")
    code, _, error = convert(tmp_path / "x", tmp_path / "hf", "--to", "huggingface")
    assert code == 2
    assert "transformers can load no such network" in error
    assert not (tmp_path / "hf").exists()
    assert convert(tmp_path / "x", tmp_path / "y.safetensors", "--to", "timm")[0] == 0
    assert read_torch_weights(tmp_path / "y.safetensors").model == model


def test_a_source_is_not_its_own_target(convert, nano, tmp_path):
    path = pathlib.Path(shutil.copy(nano, tmp_path / "nano.pth"))
    code, _, error = convert(path, tmp_path / "." / "nano.pth", "--to", "timm", "--overwrite")
    assert code == 2
    assert "is the source itself" in error
    assert path.read_bytes() == nano.read_bytes()


def test_a_folder_for_transformers_may_have_a_dot_in_its_name(convert, nano, tmp_path):
    assert convert(nano, tmp_path / "hf_v1.0", "--to", "huggingface")[0] == 0
    assert {path.name for path in (tmp_path / "hf_v1.0").iterdir()} == {
        "config.json", "model.safetensors", "preprocessor_config.json",
    }  # fmt: skip
    code, out, _ = convert(tmp_path / "hf_v1.0")  # and is read as the hub's folders are
    assert code == 0
    assert "model.safetensors (huggingface)" in out
    code, _, error = convert(tmp_path)
    assert code == 2
    assert "neither a run" in error


def test_a_backbone_alone_is_headless(convert, nano, tmp_path):
    assert convert(nano, tmp_path / "whole.safetensors", "--to", "timm")[0] == 0
    tensors = safetensors.numpy.load_file(tmp_path / "whole.safetensors")
    del tensors["head.fc.weight"]
    safetensors.numpy.save_file(tensors, tmp_path / "half.safetensors")
    code, _, error = convert(tmp_path / "half.safetensors")
    assert code == 2
    assert "missing head.fc.weight" in error
    del tensors["head.fc.bias"]
    safetensors.numpy.save_file(tensors, tmp_path / "bare.safetensors")
    code, out, _ = convert(tmp_path / "bare.safetensors", tmp_path / "bare")
    assert code == 0
    assert "re-initialised  2: head.bias, head.kernel" in out
    assert not read_converted(tmp_path / "bare").params["head"]["kernel"].any()


def test_ctrl_c_is_no_traceback(convert, nano, tmp_path, monkeypatch):
    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(files, "write_safetensors", stop)
    code, _, error = convert(nano, tmp_path / "x")
    assert (code, error) == (130, "Stopped; nothing was written.\n")
    assert list(tmp_path.iterdir()) == []


def test_safetensors_need_no_torch(nano, tmp_path, convert):
    """As the command, with torch out of reach."""
    assert convert(nano, tmp_path / "timm.safetensors", "--to", "timm")[0] == 0
    code = (
        "import runpy, sys\n"
        "sys.modules['torch'] = None\n"
        "del sys.argv[0]\n"
        "runpy.run_path(sys.argv[0], run_name='__main__')"
    )

    def command(*arguments):
        return subprocess.run(
            [sys.executable, "-c", code, str(TOOL), *map(str, arguments)],
            capture_output=True, text=True, check=False,
        )  # fmt: skip

    done = command(tmp_path / "timm.safetensors", tmp_path / "x")
    assert (done.returncode, done.stderr) == (0, "")
    kept = read_torch_weights(nano)
    jax.tree.map(np.testing.assert_array_equal, read_converted(tmp_path / "x").params, kept.params)
    done = command(nano, tmp_path / "y")
    assert done.returncode == 2
    assert "clevit_jax[convert]" in done.stderr
    assert done.stderr.count("\n") == 1


def test_channels_are_for_other_libraries(convert, run):
    code, out, error = convert(run, "--channels", "sum")
    assert (code, out) == (2, "")
    assert "--channels is for files of other libraries" in error
    with pytest.raises(clevit_jax.ClevitError, match=r"drop the choice of channels .sum"):
        clevit_jax.read_weights(run, channels="sum")


def test_verify(convert, nano, monkeypatch):
    code, out, _ = convert(nano, "--verify")
    assert code == 0
    assert "Verified with" in out
    read = clevit_jax.convert.read_weights

    def wrong(path, **which):
        found = read(path, **which)
        params = jax.tree.map(np.copy, found.params)
        params["layers"][1]["blocks"][1]["mlp"]["fc1"]["bias"] += 1
        return dataclasses.replace(found, params=params)

    monkeypatch.setattr(clevit_jax.convert, "read_weights", wrong)
    code, out, _ = convert(nano, "--verify")
    assert code == 1
    assert "DIFFERENT" in out


def test_which_of_several_networks(convert, run, nano, tmp_path):
    state = torch.load(nano, weights_only=True)["model"]
    twice = {name: 2 * x if x.is_floating_point() else x for name, x in state.items()}
    both = {f"{p}.{n}": x for p, held in (("a", state), ("b", twice)) for n, x in held.items()}
    path = tmp_path / "both.pth"
    torch.save({"mine": state, "yours": both}, path)
    code, _, error = convert(path, tmp_path / "x")
    assert code == 2
    assert "names in 'yours'. Say --entry mine or --entry yours when you convert it" in error
    code, _, error = convert(path, tmp_path / "x", "--entry", "yours")
    assert code == 2
    assert "Say --prefix a. or --prefix b. when you convert it." in error
    weights = clevit_jax.convert_weights(path, tmp_path / "x", entry="yours", prefix="b")
    np.testing.assert_array_equal(weights.params["norm"]["scale"], twice["norm.weight"])
    code, out, _ = convert(path, "--entry", "yours", "--prefix", "b.", "--verify")
    assert code == 0
    assert "Verified with" in out
    for source in (run, tmp_path / "x"):
        code, _, error = convert(source, "--prefix", "a.")
        assert code == 2
        assert "--entry and --prefix are for a file of another library" in error
    assert convert(nano, tmp_path / "n.safetensors", "--to", "timm")[0] == 0
    code, _, error = convert(tmp_path / "n.safetensors", "--entry", "model")
    assert code == 2
    assert "drop --entry model" in error


def test_the_tensors_of_a_converted_checkpoint_by_themselves(convert, nano, tmp_path):
    assert convert(nano, tmp_path / "x")[0] == 0
    tensors = tmp_path / "x" / "model.safetensors"
    assert "Swin: embed" in convert(tensors)[1]  # with the model.json beside it
    (tmp_path / "x" / "model.json").unlink()
    code, _, error = convert(tensors)
    assert code == 2
    assert "tensors of a converted checkpoint, whose model.json is not beside them" in error
    assert len(error) < 400


@pytest.mark.parametrize("ending", ["onnx", "stablehlo"])
def test_a_program_is_written_by_another_command(convert, nano, tmp_path, ending):
    code, _, error = convert(nano, tmp_path / f"x.{ending}")
    assert code == 2
    assert f"--mode export --workdir {nano} --output {tmp_path / f'x.{ending}'}" in error
    assert not list(tmp_path.iterdir())


def test_a_full_disk_names_the_folder_that_was_asked_for(convert, nano, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(safetensors.numpy, "save_file", full)
    code, _, error = convert(nano, tmp_path / "x")
    assert code == 2
    assert f"{tmp_path / 'x' / 'model.safetensors'} cannot be written (No space left" in error
    assert not list(tmp_path.iterdir())
