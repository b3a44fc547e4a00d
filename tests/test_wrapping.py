"""Files of trainers and methods: which network is read, which head, and what is named beside."""

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

    def read(content, **which):
        torch.save(content, tmp_path / "file.pth")
        return read_torch_weights(tmp_path / "file.pth", **which)

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


@pytest.mark.parametrize("kind", ["masked", "backbone", "backbone of transformers 4"])
def test_other_classes_of_transformers(official, read, kind):
    """SwinForMaskedImageModeling, and SwinBackbone, whose own norms are of its outputs."""
    written = to_dialect(read({"model": official}), "huggingface")  # of a bare SwinModel
    state = {name: torch.from_numpy(x) for name, x in written.items()}
    final = {n: state.pop(n) for n in ("layernorm.weight", "layernorm.bias")}
    if kind == "masked":
        state = put("swin.", state | final)
        state |= {"swin.embeddings.mask_token": ONE, "decoder.0.bias": ONE}
        beside = {"mask token": 1, "of 'decoder'": 1}
    else:
        stages = 1 + max(int(n.split(".")[1]) for n in official if n.startswith("layers."))
        last = f"hidden_states_norms.stage{stages}"
        state |= {"hidden_states_norms.stage1.weight": ONE}
        state |= (
            {name.replace("layernorm", last): x for name, x in final.items()}
            if kind.endswith("4")
            else put("swin.", final)
        )
        beside = {"norm of a stage's output": 1}
    weights = read(state)
    ignored = weights.report.ignored.items()
    assert {k: len(n) for k, n in ignored if "index" not in k} == beside
    assert weights.headless
    same(to_dialect(weights, "huggingface"), written)


def test_two_trunks_are_not_guessed(official, read):
    both = put("encoder.", official) | put("model.net.", {n: 2 * x for n, x in official.items()})
    asked = (
        r"64 names under 'encoder\.' and 64 names under 'model\.net\.'\. Say --prefix encoder\. or"
    )
    with pytest.raises(WeightsError, match=asked):
        read(both)
    for prefix, factor in (("encoder.", 1), ("encoder", 1), ("model.net.", 2), ("model", 2)):
        weights = read(both, prefix=prefix)
        left = {1: "of 'model'", 2: "of 'encoder'"}[factor]
        assert {kind: len(n) for kind, n in weights.report.ignored.items()} == {left: 64}
        np.testing.assert_array_equal(
            to_dialect(weights, "timm")["norm.bias"], factor * official["norm.bias"]
        )
    with pytest.raises(WeightsError, match=r"no Swin under 'x\.' alone; there is 64 names under"):
        read(both, prefix="x")


def test_a_trunk_without_a_prefix_beside_another_is_asked_for(official, read):
    both = official | put("encoder.", {n: 2 * x for n, x in official.items()})
    with pytest.raises(WeightsError, match=r"64 names without a prefix and .* Say --prefix '' or"):
        read(both)
    bias = to_dialect(read(both, prefix=""), "timm")["norm.bias"]
    np.testing.assert_array_equal(bias, official["norm.bias"])


def test_blocks_without_a_first_layer_are_no_rival(official, read):
    """Of a decoder made of Swin blocks."""
    blocks = {n: x for n, x in official.items() if n.startswith("layers.0.blocks.")}
    weights = read(put("net.encoder.", official) | put("net.decoder.", blocks))
    assert {k: len(n) for k, n in weights.report.ignored.items()} == {"of 'decoder'": len(blocks)}


def test_what_training_leaves_beside_is_named(official, read):
    counter = {"n_averaged": torch.tensor(5), "criterion.weight": ONE}
    for state in (put("module.", official), official):
        found = read(counter | state).report.ignored
        assert found == {
            "of 'n_averaged'": ("n_averaged",),
            "of 'criterion'": ("criterion.weight",),
        }


def test_what_may_change_the_features_is_left_over(official, read):
    with pytest.raises(WeightsError, match=r"absolute positions .*'absolute_pos_embed'"):
        read(official | {"absolute_pos_embed": ONE})


CHANNELS = 16
WEIGHT, BIAS = torch.ones(3, CHANNELS), torch.ones(3)
MLP = {"head.0.weight": torch.ones(7, CHANNELS), "head.0.bias": torch.ones(7)}
NONE = "warning: none, but beside the network lies"
HEADS = {
    "Linear after Dropout": (
        {"head.1.weight": WEIGHT, "head.1.bias": BIAS}, 3, "the one linear layer of 'head.1'"
    ),
    "without a bias": ({"head.weight": WEIGHT}, 3, "without a bias, which is set to zero"),
    "MLP": (
        MLP | {"head.2.weight": torch.ones(3, 7)}, 0,
        "warning: none is read, for only one linear layer would be, not 'head.0.weight'",
    ),
    "of two levels": ({"head_genus.weight": WEIGHT}, 0, f"{NONE} 'head_genus'"),
    "margin loss": ({"arc.weight": WEIGHT}, 0, f"{NONE} 'arc'"),
    "both": (
        {"head.weight": WEIGHT, "head.bias": BIAS, "arc.weight": ONE}, 3,
        "warning: beside it lies 'arc', which is not read",
    ),
    "none": ({}, 0, "none; training begins with a new one"),
}  # fmt: skip


@pytest.mark.parametrize("kind", HEADS)
def test_heads(kind, official, read):
    head, classes, said = HEADS[kind]
    for state in (official | head, put("backbone.", official) | head):
        weights = read(state)
        assert weights.report.head.startswith(said)
        assert said in str(weights)
        given = weights.params["head"]
        if classes:
            np.testing.assert_array_equal(given["kernel"], np.ones((CHANNELS, classes)))
            np.testing.assert_array_equal(given["bias"], 0 if kind == "without a bias" else 1)
        else:
            assert not given["kernel"].any()
            assert weights.report.reinitialised == ("head.bias", "head.kernel")


def test_masks_of_a_wrapped_model_tell_its_image_size(official, read):
    """128 pixels: a grid of 32 in windows of 4 is 64 of them."""
    mask = {"layers.0.blocks.1.attn_mask": torch.zeros(64, 16, 16)}
    assert read(put("module.", official | mask)).model.image_size == 128
