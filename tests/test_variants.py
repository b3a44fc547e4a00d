"""Swins that differ from ours: other channels of input, no bias of queries, other networks."""

import math

import numpy as np
import pytest
import safetensors.numpy
import torch

import clevit_jax
from clevit_jax.convert import main
from clevit_jax.errors import WeightsError
from clevit_jax.weights import variants
from clevit_jax.weights.convert import named_leaves, read_torch_weights
from clevit_jax.weights.verify import _file_tensors

KERNEL = "patch_embed.proj.weight"


@pytest.fixture(scope="module")
def nano(golden):
    state = torch.load(golden / "swin_nano_224.pth", weights_only=True)["model"]
    return {name: value.numpy() for name, value in state.items()}


@pytest.fixture
def written(tmp_path, nano):
    """Writes the nano with some entries changed, None to leave one out; returns the path."""

    def write(**changes):
        state = {n: np.ascontiguousarray(v) for n, v in (nano | changes).items() if v is not None}
        safetensors.numpy.save_file(state, tmp_path / "file.safetensors")
        return tmp_path / "file.safetensors"

    return write


def _timms(kernel, channels):
    """timm's `adapt_input_conv`, of a kernel of three channels, written down again."""
    if channels == 1:
        return kernel.sum(axis=1, keepdims=True)
    times = math.ceil(channels / 3)
    return np.tile(kernel, (1, times, 1, 1))[:, :channels] * (3 / channels)


def _answers(kernel, image):
    """A convolution whose only step is one patch: [C]."""
    weight = torch.from_numpy(np.ascontiguousarray(kernel))
    return torch.nn.functional.conv2d(torch.from_numpy(image)[None], weight)[0, :, 0, 0].numpy()


def _drawn(n):
    return np.random.RandomState(n).randn(8, n, 4, 4).astype(np.float32)


@pytest.mark.parametrize(
    ("n", "channels", "same"),
    [
        (1, "sum", "grey"), (1, "repeat", "grey"), (2, "sum", "grey"), (4, "sum", "grey"),
        (6, "sum", "grey"), (4, "first", "colour"), (12, "first", "colour"), (6, "repeat", None),
    ],
)  # fmt: skip
def test_the_answers_stay_where_they_can(n, channels, same):
    kernel = _drawn(n)
    official = {KERNEL: kernel}
    assert variants.to_three_channels(official, channels) == (
        f"patch_embed.proj.kernel: {n} -> 3 channels ({channels})",
    )
    ours = official[KERNEL]
    assert (ours.shape, ours.dtype) == ((8, 3, 4, 4), np.float32)
    grey, colour = (np.random.RandomState(5).randn(c, 4, 4).astype(np.float32) for c in (1, 3))
    if same == "grey":
        before = _answers(kernel, grey.repeat(n, 0))
        np.testing.assert_allclose(_answers(ours, grey.repeat(3, 0)), before, atol=1e-5)
    if same == "colour":
        rest = np.zeros((n - 3, 4, 4), np.float32)
        before = _answers(kernel, np.concatenate([colour, rest]))
        np.testing.assert_allclose(_answers(ours, colour), before, atol=1e-5)


def test_timms_way_there_and_back():
    """timm's rule of a network for one channel, undone, and of one for six taken again."""
    kernel = _drawn(3)
    for channels in ("sum", "repeat"):
        one = {KERNEL: _timms(kernel, 1)}
        variants.to_three_channels(one, channels)
        np.testing.assert_allclose(_timms(one[KERNEL], 1), _timms(kernel, 1), atol=1e-5)
    six = {KERNEL: _timms(kernel, 6)}
    variants.to_three_channels(six, "repeat")  # half the kernel, twice; its first three, doubled
    np.testing.assert_allclose(six[KERNEL], kernel, atol=1e-6)
    two = {KERNEL: _drawn(2)}
    variants.to_three_channels(two, "repeat")
    by_hand = np.tile(_drawn(2), (1, 2, 1, 1))[:, :3] * (2 / 3)
    np.testing.assert_allclose(two[KERNEL], by_hand, atol=1e-6)


@pytest.mark.parametrize(
    ("n", "words"),
    [
        (1, "has 1 channel of input.* --channels repeat, or sum, .*a third"),
        (2, "has 2 channels of input.* --channels sum .* or --channels repeat"),
        (4, "has 4 channels of input.* --channels sum .* or --channels first .*the first three"),
    ],
)
def test_other_channels_are_asked_about(written, nano, tmp_path, capsys, n, words):
    path = written(**{KERNEL: nano[KERNEL][:, np.arange(n) % 3]})
    with pytest.raises(WeightsError, match=words):
        clevit_jax.read_weights(path)
    if n < 3:
        with pytest.raises(WeightsError, match=words):
            read_torch_weights(path, channels="first")
    assert main([str(path), "--channels", "sum"]) == 0
    assert f"patch_embed.proj.kernel: {n} -> 3 channels (sum)" in capsys.readouterr().out
    found = clevit_jax.convert_weights(path, tmp_path / "mine", channels="sum")
    kernel = found.params["patch_embed"]["proj"]["kernel"]  # [4, 4, 3, C]
    total = nano[KERNEL][:, np.arange(n) % 3].sum(1).transpose(1, 2, 0)
    for colour in range(3):
        np.testing.assert_allclose(kernel[:, :, colour], total / 3, atol=1e-6)
    with pytest.raises(WeightsError, match="drop the choice of channels"):
        clevit_jax.read_weights(tmp_path / "mine", channels="sum")
    assert _file_tensors(found, path) is None  # what is verified are the parameters


def test_a_choice_that_does_nothing_is_refused(written):
    with pytest.raises(WeightsError, match=r"three channels of input.*drop the choice .*sum"):
        read_torch_weights(written(), channels="sum")
    with pytest.raises(WeightsError, match="must be sum, repeat, first, or None, not 'mean'"):
        read_torch_weights(written(), channels="mean")


def test_no_bias_of_the_attention_is_one_of_zeros(written, nano):
    without = {name: None for name in nano if name.endswith("attn.qkv.bias")}
    path = written(**without)
    found = read_torch_weights(path)
    assert set(found.report.filled) == set(without)
    assert "  filled          8 attn.qkv.bias with 0\n" in str(found)
    assert not set(without) & set(found.report.matched)
    biases = {n: v for n, v in named_leaves(found.params).items() if n in without}
    for name, bias in biases.items():
        assert bias.shape == nano[name].shape
        assert not bias.any()
    assert set(biases) == set(without)
    assert _file_tensors(found, path) is None
    first = min(without)
    with pytest.raises(WeightsError, match=f"in 1 place.*missing {first}"):
        read_torch_weights(written(**{first: None}))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            lambda name, value: value[: len(value) // 2] if ".mlp.fc1." in name
            else value[:, : value.shape[1] // 2] if name.endswith("mlp.fc2.weight") else value,
            r"widens its MLPs by 2 \(mlp_ratio\), and ours by 4",
        ),
        (
            lambda name, value: value[:, :, :2, :2] if name == KERNEL else value,
            "has patches of 2 pixels a side, and ours of 4",
        ),
    ],
)  # fmt: skip
def test_another_network_is_named_in_one_sentence(written, nano, change, words):
    path = written(**{name: change(name, value) for name, value in nano.items()})
    with pytest.raises(WeightsError, match=f"This Swin {words}: it is another network") as caught:
        read_torch_weights(path)
    assert len(str(caught.value)) < len(str(path)) + 200


@pytest.mark.parametrize("name", ["absolute_pos_embed", "swin.embeddings.position_embeddings"])
def test_absolute_positions_are_another_network(written, name):
    with pytest.raises(WeightsError, match=f"adds absolute positions.*'{name}'.*another network"):
        read_torch_weights(written(**{name: np.zeros((1, 3136, 16), np.float32)}))


def test_one_wrong_mlp_is_a_wrong_shape_still(written, nano):
    name = "layers.0.blocks.0.mlp.fc1.weight"
    with pytest.raises(WeightsError, match=f"in 1 place.*{name} has shape"):
        read_torch_weights(written(**{name: nano[name][:5]}))
