"""Folders of weights in shards, and what else lies in them."""

import hashlib
import json

import numpy as np
import pytest
import safetensors.numpy
import torch

from clevit_jax.errors import WeightsError
from clevit_jax.runs.load import read_weights
from clevit_jax.weights.convert import named_leaves
from clevit_jax.weights.shards import read_weight_files

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 3\n"
ARRAYS = {name: np.full(3, number, np.float32) for number, name in enumerate("abcde")}


def _write(folder, arrays, count=2, kind="model.safetensors", index=True):
    """Shards as `save_pretrained` names them; returns their index."""
    folder.mkdir(exist_ok=True)
    begin, _, end = kind.rpartition(".")
    places = {}
    for number in range(count):
        name = f"{begin}-{number + 1:05}-of-{count:05}.{end}"
        part = dict(list(arrays.items())[number::count])
        places |= dict.fromkeys(part, name)
        if end == "bin":
            torch.save({n: torch.from_numpy(a.copy()) for n, a in part.items()}, folder / name)
        else:
            safetensors.numpy.save_file(part, folder / name)
    path = folder / f"{kind}.index.json"
    if index:
        path.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": places}))
    return path


@pytest.fixture(scope="module")
def nano(golden):
    state = torch.load(golden / "swin_nano_224.pth", weights_only=True)["model"]
    return {name: value.numpy() for name, value in state.items()}


@pytest.mark.parametrize("kind", ["model.safetensors", "pytorch_model.bin"])
def test_shards_are_read_as_the_one_file_is(golden, nano, tmp_path, kind):
    index = _write(tmp_path / "a", nano, 3, kind)
    whole = named_leaves(read_weights(golden / "swin_nano_224.pth").params)
    for path in (tmp_path / "a", index):
        found = read_weights(path)
        assert found.source == index.name
        for name, leaf in named_leaves(found.params).items():
            np.testing.assert_array_equal(leaf, whole[name])
    # What `sha256sum pytorch_model-*.bin | sha256sum` prints.
    shards = sorted(path for path in index.parent.iterdir() if path != index)
    sums = "".join(f"{hashlib.sha256(p.read_bytes()).hexdigest()}  {p.name}\n" for p in shards)
    assert found.source_sha256 == hashlib.sha256(sums.encode()).hexdigest()


def _edited(index, **places):
    content = json.loads(index.read_text())
    content["weight_map"] |= places
    content["weight_map"] = {k: v for k, v in content["weight_map"].items() if v is not None}
    index.write_text(json.dumps(content))


FIRST, SECOND = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"


def _double(index):
    """One tensor in both shards."""
    safetensors.numpy.save_file({n: ARRAYS[n] for n in "abd"}, index.parent / SECOND)


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (lambda i: (i.parent / SECOND).unlink(), f"1 of 2 shards that are not beside it.*{SECOND}"),
        (lambda i: (i.parent / SECOND).write_bytes(b""), f"{SECOND} is empty"),
        (lambda i: (i.parent / SECOND).write_bytes(POINTER), f"{SECOND} .*git lfs pull"),
        (_double, f"for '{SECOND}' holds 1 others .'a'.: .*'{SECOND}'"),
        (lambda i: _edited(i, a=None), f"for '{FIRST}' holds 1 others .'a'."),
        (lambda i: _edited(i, z=SECOND), f"for '{SECOND}' lacks 1 tensors .'z'."),
        (lambda i: _edited(i, a=SECOND), f"{FIRST}' holds 1 others .'a'.: .*{FIRST}', '{SECOND}'"),
        (lambda i: _edited(i, a=f"../{FIRST}"), r"own folder .'\.\./model"),
        (lambda i: _edited(i, a=f"/tmp/{FIRST}"), "own folder"),
        (lambda i: _edited(i, a=f"C:\\{FIRST}"), "own folder"),
        (lambda i: _edited(i, a="..", b=5, c=["x"]), "own folder"),
        (lambda i: i.write_text("{"), "damaged or cut short .it is not JSON"),
        (lambda i: i.write_bytes(b"\xff"), "it is not JSON"),
        (lambda i: i.write_text("[" * 10**6), "it is not JSON"),
        (lambda i: i.write_bytes(b" " * (17 << 20)), "it is too long"),
        (lambda i: i.write_text('{"weight_map": {"a": "b", "a": "c"}}'), "names an entry twice"),
        (lambda i: i.write_text('{"weight_map": {}}'), "no weight_map"),
        (lambda i: i.write_text('{"error": "not found"}'), "no weight_map"),
        (lambda i: i.unlink(), "does not exist"),
    ],
)
def test_shards_that_do_not_fit_are_refused(tmp_path, harm, words):
    index = _write(tmp_path / "a", ARRAYS)
    assert list(read_weight_files(index).tensors) == ["a", "c", "e", "b", "d"]
    harm(index)
    with pytest.raises(WeightsError, match=words) as caught:
        read_weight_files(index)
    sentence = str(caught.value)
    assert sentence.startswith(str(index.parent))
    assert sentence.endswith(".")
    assert sentence.isprintable()
    assert len(sentence) < 500


def test_a_shard_alone_and_shards_without_index_are_told(tmp_path):
    index = _write(tmp_path / "a", ARRAYS, index=False)
    with pytest.raises(WeightsError, match=f"is one of 2 shards.*'{index.name}'"):
        read_weights(index.parent / FIRST)
    with pytest.raises(WeightsError, match=r"shards .*without their index.*bring model\.safetens"):
        read_weights(index.parent)
    only = tmp_path / "model-00001-of-00001.safetensors"
    safetensors.numpy.save_file(ARRAYS, only)
    assert set(read_weight_files(only).tensors) == set(ARRAYS)


def test_a_file_that_git_lfs_has_not_fetched_is_passed_over_for_one_that_is_there(nano, tmp_path):
    (tmp_path / "model.safetensors").write_bytes(POINTER)
    with pytest.raises(WeightsError, match=r"model\.safetensors .*git lfs pull"):
        read_weights(tmp_path)
    torch.save({n: torch.from_numpy(a) for n, a in nano.items()}, tmp_path / "pytorch_model.bin")
    found = read_weights(tmp_path)
    assert found.source == "pytorch_model.bin"
    said = "model.safetensors: a git-lfs pointer, read was pytorch_model.bin"
    assert found.report.passed_over == (said,)
    assert f"  passed over     {said}" in str(found)
    safetensors.numpy.save_file(nano, tmp_path / "model.safetensors")
    assert read_weights(tmp_path).report.passed_over == ()
    assert "passed over" not in str(read_weights(tmp_path))


def test_what_a_trainer_leaves_beside_is_no_weight(nano, tmp_path):
    safetensors.numpy.save_file(nano, tmp_path / "model.safetensors")
    for name in ("optimizer.pt", "scheduler.pt", "training_args.bin", "rng_state.pth"):
        torch.save({"state": {0: {"step": torch.ones(1)}}}, tmp_path / name)
        with pytest.raises(WeightsError, match=f"{name} is what .*Trainer.* holds none: name"):
            read_weights(tmp_path / name)
    assert read_weights(tmp_path).source == "model.safetensors"
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(WeightsError, match=r"holds no model\.safetensors or .*index\.json"):
        read_weights(tmp_path)


def test_an_adapter_is_to_be_merged_first(tmp_path):
    safetensors.numpy.save_file(
        {
            f"base_model.model.swin.encoder.layers.0.blocks.0.attention.self.query.lora_{x}.weight":
            ARRAYS["a"] for x in "AB"
        },
        tmp_path / "adapter_model.safetensors",
    )  # fmt: skip
    words = r"merge it into its network first, by peft's model\.merge_and_unload"
    with pytest.raises(WeightsError, match=r"LoRA; 2 tensors such as 'base_model.*" + words):
        read_weights(tmp_path / "adapter_model.safetensors")
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(WeightsError, match=r"adapter of peft .LoRA.*" + words):
        read_weights(tmp_path)
