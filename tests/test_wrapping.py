"""Files of self-supervised methods: which trunk is read, and what is named beside it."""

import numpy as np
import pytest
import safetensors.torch
import torch

from clevit_jax.errors import WeightsError
from clevit_jax.weights.convert import read_torch_weights, to_dialect


@pytest.fixture(scope="module")
def official(golden):
    """A trunk with Microsoft's names, and no buffers."""
    state = safetensors.torch.load_file(golden / "dialect_timm06.safetensors")
    beside = ("head.", "relative_position_index", "attn_mask")
    return {n: x for n, x in state.items() if not any(part in n for part in beside)}


@pytest.fixture
def read(tmp_path):
    """A state dict, or what holds one -> the weights that are read from its `.pth`."""

    def read(content):
        torch.save(content, tmp_path / "file.pth")
        return read_torch_weights(tmp_path / "file.pth")

    return read


def put(prefix, state):
    return {prefix + name: value for name, value in state.items()}


def same(got, wanted):
    assert got.keys() == wanted.keys()
    for name, value in wanted.items():
        np.testing.assert_array_equal(got[name], value, err_msg=name)


ONE = torch.ones(2)
FILES = {
    "SimMIM": (
        lambda s: {"model": put("encoder.", s | {"mask_token": ONE}) | {"decoder.0.bias": ONE}},
        {"mask token": ("encoder.mask_token",), "of 'decoder'": ("decoder.0.bias",)},
    ),
    "SimMIM, its encoder alone": (
        lambda s: {"model": s | {"mask_token": ONE}},
        {"mask token": ("mask_token",)},
    ),
    "MoBY": (
        lambda s: {
            "model": put("encoder.", s)
            | put("encoder_k.", {n: 2 * x for n, x in s.items()})
            | {"projector.linear1.bias": ONE, "predictor.bn1.bias": ONE, "queue1": ONE}
        },
        {
            "of 'projector'": ("projector.linear1.bias",),
            "of 'predictor'": ("predictor.bn1.bias",),
            "of 'queue1'": ("queue1",),
        },
    ),
    "EsViT": (
        lambda s: {
            "student": put("module.", {n: 2 * x for n, x in s.items()}),
            "teacher": put("module.", s | {"head.mlp.0.bias": ONE, "head.last_layer.weight_g": ONE,
                                           "head_dense.mlp.0.bias": ONE}),
            "optimizer": {},
        },
        {
            "of 'head'": ("module.head.mlp.0.bias", "module.head.last_layer.weight_g"),
            "of 'head_dense'": ("module.head_dense.mlp.0.bias",),
            "beside the model:": ("student", "optimizer"),
        },
    ),
    "DINO, the student of many crops": (
        lambda s: {
            "student": put("module.", put("backbone.", s) | {"head.mlp.0.bias": ONE}),
            "epoch": 3,
        },
        {"of 'head'": ("module.head.mlp.0.bias",), "beside the model:": ("epoch",)},
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", FILES)
def test_encoder_among_what_trained_it(kind, official, read):
    wrap, ignored = FILES[kind]
    weights = read(wrap(official))
    assert weights.dialect == "microsoft"
    found = dict(weights.report.ignored)
    assert len(found.pop("of 'encoder_k'", ())) == (len(official) if kind == "MoBY" else 0)
    assert found == ignored
    assert weights.report.reinitialised == ("head.bias", "head.kernel")
    same(
        {n: x for n, x in to_dialect(weights, "microsoft").items() if n in official},
        {n: x.numpy() for n, x in official.items()},
    )


def test_two_trunks_are_not_guessed(official, read):
    with pytest.raises(WeightsError, match=r"64 names under 'backbone\.' and 64 names under 'enc"):
        read(put("encoder.", official) | put("backbone.", official))
    with pytest.raises(WeightsError, match=r"left over 'encoder\.layers\.0"):
        read(official | put("encoder.", official))


def test_masks_of_a_wrapped_model_tell_its_image_size(official, read):
    """128 pixels: a grid of 32 in windows of 4 is 64 of them."""
    mask = {"layers.0.blocks.1.attn_mask": torch.zeros(64, 16, 16)}
    assert read(put("module.", official | mask)).model.image_size == 128
