"""A run that starts from real weights: what it evaluates first is what PyTorch evaluates."""

import ast
import importlib
import json
import re
import shutil

import jax
import numpy as np
import PIL.Image
import pytest
import tiny
import torch
import transformers

from clevit_jax.data import procedural_leaves
from clevit_jax.distributed import processes, sharding
from clevit_jax.errors import ConfigError
from clevit_jax.evaluate import evaluate_split
from clevit_jax.runs.checkpoint import Checkpoints
from clevit_jax.runs.load import read_weights
from clevit_jax.runs.setup import prepare_run, read_pretrained
from clevit_jax.runs.workdir import CONFIG_FILE, check_workdir, pathlib
from clevit_jax.system.files import write_json
from clevit_jax.train import train_workdir
from clevit_jax.weights.convert import read_torch_weights
from clevit_jax.weights.converted import write_converted

training = importlib.import_module("clevit_jax.train")  # `clevit_jax.train` is the function

CLASSES = 4


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "leaves"
    return procedural_leaves.write_dataset(
        folder, classes=CLASSES, train_per_class=2, test_per_class=5, size=16
    )


@pytest.fixture(scope="module")
def original():
    """A Swin of Hugging Face's with random numbers everywhere."""
    model = transformers.SwinForImageClassification(
        transformers.SwinConfig(
            image_size=16, embed_dim=64, depths=[1, 1], num_heads=[1, 2], window_size=2,
            num_labels=CLASSES,
        )
    ).eval()  # fmt: skip
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
    return model


@pytest.fixture(scope="module")
def file(original, tmp_path_factory):
    folder = tmp_path_factory.mktemp("original")
    original.save_pretrained(folder)
    return folder / "model.safetensors"


def make_config(root, file, **changes):
    config = tiny.get_config()
    config.update_from_flattened_dict(
        {
            "data.root": str(root), "eval.batch_size": 8, "model.pretrained": str(file),
            "model.embed_dim": 64, "log.every_steps": 1,
            "views.kind": "base", "loss.positive": 0.0, "loss.contrast": 0.0,
        }
        | {name.replace("__", "."): value for name, value in changes.items()}
    )  # fmt: skip
    return config


def pytorch_scores(original, root):
    """Top-1 and mean loss over the test images, by Pillow and PyTorch alone."""
    rows = [line.split() for line in (root / "anno" / "test.txt").read_text().splitlines()]
    pixels = np.stack([np.asarray(PIL.Image.open(root / "images" / name)) for name, _ in rows])
    images = (pixels / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    with torch.no_grad():
        logits = original(torch.from_numpy(images).permute(0, 3, 1, 2).float()).logits
    labels = torch.tensor([int(label) - 1 for _, label in rows])
    loss = torch.nn.functional.cross_entropy(logits, labels).item()
    return (logits.argmax(1) == labels).float().mean().item(), loss


@pytest.fixture(scope="module")
def first(root, file, tmp_path_factory):
    """A run that changes nothing, by a learning rate of 0: its evaluation is of the start."""
    workdir = tmp_path_factory.mktemp("first") / "run"
    lines: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("builtins.print", lambda *args, **_: lines.append(" ".join(map(str, args))))
        assert train_workdir(make_config(root, file, optim__lr=0.0), workdir) == 0
    return workdir, "\n".join(lines)


def test_the_first_evaluation_is_pytorchs(first, original, root):
    workdir, _ = first
    top1, loss = pytorch_scores(original, root)
    result = json.loads((workdir / "evaluation.json").read_text())["last"]
    assert result["top1"] == pytest.approx(top1)
    assert result["loss"] == pytest.approx(loss, rel=1e-5)
    assert loss > 1.5 * np.log(CLASSES)  # of such a head; a head of zeros gives log(classes)


def test_the_load_report_is_kept_and_said(first, file):
    workdir, out = first
    facts = json.loads((workdir / "load_report.json").read_text())
    assert facts["dialect"] == "huggingface"
    assert facts["path"] == str(file)
    assert facts["sha256"] == read_torch_weights(file).source_sha256
    assert len(facts["report"]["matched"]) == len(set(facts["report"]["matched"])) == 37
    assert facts["report"]["reinitialised"] == []
    assert "matched         37 parameters" in out
    assert f"The head is kept: {CLASSES} classes" in out


def test_the_file_is_not_needed_to_go_on(first, root, tmp_path, capsys):
    workdir = shutil.copytree(first[0], tmp_path / "run")
    config = make_config(root, tmp_path / "gone.pth", optim__lr=0.0)
    write_json(workdir / CONFIG_FILE, config.to_dict())
    (workdir / "evaluation.json").unlink()
    assert train_workdir(config, workdir) == 0
    assert "is finished" in capsys.readouterr().out
    shutil.rmtree(workdir / "checkpoints")
    (workdir / "evaluation.json").unlink()
    with pytest.raises(ConfigError, match=r"model\.pretrained: .*gone\.pth"):
        train_workdir(config, workdir)


def test_a_first_save_that_was_cut_off_starts_from_the_weights(root, file, tmp_path):
    """Its unfinished folder looks like a run that has begun."""
    run = prepare_run(make_config(root, file), tmp_path / "run")
    (run.checkpoints / "5.orbax-checkpoint-tmp").mkdir(parents=True)
    checkpoints = Checkpoints(run.checkpoints, keep=1)
    state, batches, _ = training._initial_state(run, checkpoints, None)
    batches.close()
    checkpoints.close()
    jax.tree.map(
        np.testing.assert_array_equal, jax.device_get(state.params), read_pretrained(run).params
    )


def test_the_flags_of_the_error_make_it_fit(root, file, tmp_path):
    """Also over a config that sets its own shape."""
    config = make_config(root, file)
    config.model.embed_dim = 16
    with pytest.raises(ConfigError) as error:
        read_pretrained(prepare_run(config, tmp_path / "run"))
    flags = re.findall(r"--config\.(\S+?)=('[^']*'|\w+)", str(error.value))
    assert len(flags) == 3
    for name, value in flags:
        config.update_from_flattened_dict({name: ast.literal_eval(value.strip("'"))})
    assert read_pretrained(prepare_run(config, tmp_path / "run")) is not None


def test_every_device_gets_its_share_alone(root, file, monkeypatch):
    """No array that the rule divides is ever whole on a device; the average starts equal."""
    handed = []
    make = jax.make_array_from_callback

    def watch(shape, where, callback):
        return make(
            shape, where, lambda index: handed.append(callback(index).size) or callback(index)
        )

    config = make_config(root, file, mesh__data=2, mesh__fsdp=2, optim__ema=0.9)
    run = prepare_run(config, pathlib.Path("unused"))
    start = read_pretrained(run)
    monkeypatch.setattr(jax, "make_array_from_callback", watch)
    state = run.steps.initial_state(start.params)
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(state.params), start.params)
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(state.ema), start.params)
    expected = sharding.state_sharding(run.steps.mesh, state)
    same = jax.tree.map(
        lambda leaf, where: leaf.sharding.is_equivalent_to(where, leaf.ndim), state, expected
    )
    assert all(jax.tree.leaves(same))
    largest = max(leaf.size for leaf in jax.tree.leaves(start.params))
    assert largest >= 2**14
    assert max(handed) == largest // 2
    moments = [leaf for leaf in jax.tree.leaves(state.opt_state) if leaf.ndim]
    assert moments
    assert not any(leaf.any() for leaf in moments)


@pytest.mark.parametrize("hash_there", [None, "0" * 64])
def test_other_weights_on_another_host(root, file, tmp_path, monkeypatch, hash_there):
    """Process 0 of two, the other of which has a file of its own under the same name."""

    def gather(_, facts):
        return [facts, {**facts, "sha256": hash_there or facts["sha256"]}]

    run = prepare_run(make_config(root, file), tmp_path / "run")
    monkeypatch.setattr(processes, "gather", gather)
    if hash_there is None:
        assert read_pretrained(run) is not None
    else:
        with pytest.raises(ConfigError, match=r"process 1 found other weights in .* than p"):
            read_pretrained(run)


def test_another_head_starts_at_zero(file, tmp_path, capsys):
    """With zeros in the head every class is as likely: the loss is log(classes)."""
    five = procedural_leaves.write_dataset(
        tmp_path / "five", classes=5, train_per_class=1, test_per_class=1, size=16
    )
    run = prepare_run(make_config(five, file), tmp_path / "run")
    state = run.steps.initial_state(read_pretrained(run).params)
    assert evaluate_split(run, state.eval_params, "test").loss == pytest.approx(np.log(5), rel=1e-6)
    assert "re-initialised  2: head.bias, head.kernel" in capsys.readouterr().out


def test_a_start_from_a_run_and_from_a_converted_checkpoint(first, root, file, tmp_path):
    workdir, _ = first
    write_converted(read_torch_weights(file), tmp_path / "converted")
    starts = [
        read_pretrained(prepare_run(make_config(root, path), tmp_path / "new"))
        for path in (file, workdir, tmp_path / "converted")
    ]
    for start in starts[1:]:
        jax.tree.map(np.testing.assert_array_equal, start.params, starts[0].params)
    assert [start.facts["dialect"] for start in starts] == ["huggingface", "clevit_jax"] + [
        "huggingface"
    ]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"model__pretrained": "missing.pth"}, "missing.pth"),
        ({"model__embed_dim": 16}, "--config.model.embed_dim=64"),
        ({"model__class_map": "missing.txt"}, "missing.txt"),
        ({"model__pretrained": "", "model__class_map": "x"}, "model.pretrained, which is empty"),
    ],
)
def test_a_start_that_cannot_be_stops_before_anything(root, file, tmp_path, changes, says):
    with pytest.raises(ConfigError) as error:
        train_workdir(make_config(root, file, **changes), tmp_path / "run")
    assert says in str(error.value)
    assert not (tmp_path / "run").exists()


def test_a_run_from_before_these_settings_goes_on(first, root, file, tmp_path):
    workdir = tmp_path / "run"
    config = make_config(root, "", optim__lr=0.0)
    shutil.copytree(first[0], workdir)
    old = config.to_dict()
    del old["model"]["pretrained"], old["model"]["class_map"]
    write_json(workdir / CONFIG_FILE, old)
    check_workdir(workdir, config)
    assert read_weights(workdir).model.num_classes == CLASSES
    with pytest.raises(ConfigError, match=r"model\.pretrained: '', "):
        check_workdir(workdir, make_config(root, file, optim__lr=0.0))
