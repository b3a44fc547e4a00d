"""Files of OpenMMLab and of self-supervised methods: what is read of them, and what lies beside."""

import collections
import dataclasses
import sys
import types

import jax
import numpy as np
import openmmlab_swin
import pytest
import safetensors.torch
import torch
from flax import nnx

from clevit_jax.errors import WeightsError
from clevit_jax.model.attention import relative_position_index
from clevit_jax.model.config import SwinConfig
from clevit_jax.model.swin import abstract_swin
from clevit_jax.weights import dialects, openmmlab
from clevit_jax.weights.convert import Weights, named_leaves, read_torch_weights, to_dialect
from clevit_jax.weights.export import write_torch_weights
from clevit_jax.weights.verify import verify

# That of the goldens: shifted windows, two merges; it is compiled already.
MODEL = SwinConfig(
    image_size=64, num_classes=5, embed_dim=4, depths=(2, 1, 1), num_heads=(1, 2, 4), window=4
)
IMAGES = np.random.RandomState(7).standard_normal((2, 64, 64, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def theirs():
    return openmmlab_swin.Classifier(MODEL)


@pytest.fixture(scope="module")
def answers():
    """Logits and features of our network with some parameters."""
    graphdef = abstract_swin(MODEL)[0]
    compiled = jax.jit(lambda params, images: nnx.merge(graphdef, params)(images))
    return lambda weights: compiled(weights.params, IMAGES)


@pytest.fixture
def read(tmp_path):
    """A state dict, or what holds one -> the weights that are read from its `.pth`."""

    def read(content):
        torch.save(content, tmp_path / "file.pth")
        return read_torch_weights(tmp_path / "file.pth")

    return read


@pytest.fixture(scope="module")
def official(theirs):
    """Microsoft's names, with all buffers and without a head."""
    params = {n: x.numpy() for n, x in theirs.state_dict().items()}
    own, _ = dialects.to_official_names(params, "openmmlab")
    return {n: torch.from_numpy(x.copy()) for n, x in own.items() if not n.startswith("head.")}


def put(prefix, state):
    return {prefix + name: value for name, value in state.items()}


def close(got, wanted):
    for ours, expected in zip(got, wanted, strict=True):
        np.testing.assert_allclose(ours, expected, atol=1e-5, rtol=0)


def same(got, wanted):
    assert got.keys() == wanted.keys()
    for name, value in wanted.items():
        assert got[name].dtype == value.dtype, name
        np.testing.assert_array_equal(got[name], value, err_msg=name)


def trunk(module, prefix=""):
    return {prefix + name: value for name, value in module.backbone.state_dict().items()}


def test_logits_and_features_equal_a_swin_that_unfolds(theirs, answers, read):
    weights = read({"meta": {"epoch": 3}, "state_dict": theirs.state_dict()})
    assert (weights.dialect, weights.model) == ("openmmlab", MODEL)
    assert weights.report.ignored == {
        "relative position index": tuple(n for n in theirs.state_dict() if n.endswith("index")),
        "beside the model:": ("meta",),
    }
    close(answers(weights), theirs(IMAGES))


def test_what_is_written_is_what_was_read(theirs, read):
    """With the index, which is computed in another way there."""
    written = to_dialect(read(theirs.state_dict()), "openmmlab")
    same(written, {name: value.numpy() for name, value in theirs.state_dict().items()})


@pytest.mark.parametrize("window", [1, 2, 7, 12])
def test_index_is_the_same(window):
    ours = relative_position_index(window)
    np.testing.assert_array_equal(openmmlab_swin.position_index(window).numpy(), ours)


def test_order_of_merged_patches_by_hand():
    """Two channels: number 10 c + 2 row + column belongs to channel c of the patch there."""
    unfolded = np.array([0, 1, 2, 3, 10, 11, 12, 13])
    official = np.array([0, 10, 2, 12, 1, 11, 3, 13])
    for name, given, wanted in [
        ("layers.0.downsample.norm.weight", unfolded, official),
        ("layers.0.downsample.norm.bias", unfolded, official),
        ("layers.11.downsample.reduction.weight", np.stack([unfolded, -unfolded]),
         np.stack([official, -official])),
        ("layers.0.blocks.0.norm1.weight", unfolded, unfolded),
        ("layers.0.downsample.norm.weight", unfolded[:6], unfolded[:6]),
    ]:  # fmt: skip
        read = openmmlab.to_official_order({name: given})
        np.testing.assert_array_equal(read[name], wanted)
        np.testing.assert_array_equal(openmmlab.to_openmmlab_order(read)[name], given)


def test_a_file_of_mmpretrain_goes_through_our_network_and_back(golden):
    path = golden / "dialect_openmmlab.safetensors"
    same(to_dialect(read_torch_weights(path), "openmmlab"), read_arrays(path))


def read_arrays(path):
    return {name: x.numpy() for name, x in safetensors.torch.load_file(path).items()}


def test_trunk_alone_has_no_prefix_and_no_head(theirs, read):
    weights = read(trunk(theirs))
    assert (weights.dialect, weights.model.num_classes) == ("openmmlab", 1)
    assert weights.report.reinitialised == ("head.bias", "head.kernel")
    whole = named_leaves(read(theirs.state_dict()).params)
    for name, leaf in named_leaves(weights.params).items():
        np.testing.assert_array_equal(leaf, np.zeros_like(leaf) if "head" in name else whole[name])


def test_final_norm_of_the_first_mmcls_has_no_number(theirs, read):
    old = {n.replace("norm2.", "norm.") if n.startswith("backbone.norm2.") else n: x
           for n, x in theirs.state_dict().items()}  # fmt: skip
    assert "backbone.norm.bias" in old
    same(named_leaves(read(old).params), named_leaves(read(theirs.state_dict()).params))


@pytest.mark.parametrize("norms", [(0, 1, 2), (0, 1)])
def test_detector(norms, answers, read):
    """Modules beside the backbone are named; a final norm that it lacks scales by 1."""
    module = openmmlab_swin.Classifier(MODEL, norms)
    names = ("neck.lateral.conv.weight", "bbox_head.fc_cls.weight", "ema_backbone_norm0_bias")
    beside = {name: torch.ones(2) for name in names}
    weights = read({"state_dict": trunk(module, "backbone.") | beside})
    assert weights.report.ignored["of 'neck'"] == ("neck.lateral.conv.weight",)
    assert weights.report.ignored["of 'bbox_head'"] == ("bbox_head.fc_cls.weight",)
    assert weights.report.ignored["of 'ema_*'"] == ("ema_backbone_norm0_bias",)
    earlier = weights.report.ignored["norm of an earlier stage"]
    assert set(earlier) == {f"backbone.norm{i}.{x}" for i in (0, 1) for x in ("weight", "bias")}
    anew = {"head.bias", "head.kernel"} | (set() if 2 in norms else {"norm.bias", "norm.scale"})
    assert set(weights.report.reinitialised) == anew
    assert set(named_leaves(weights.params)) == anew | set(weights.report.matched)
    assert "1 of 'neck', 1 of 'bbox_head', 1 of 'ema_*', 4 norm of an earlier stage" in str(
        weights.report
    )
    if 2 in norms:
        one = dataclasses.replace(weights, model=MODEL)
        one.params["head"]["kernel"] = np.zeros((16, 5), np.float32)
        one.params["head"]["bias"] = np.zeros(5, np.float32)
        close(answers(one)[1:], module(IMAGES)[1:])


def test_odd_and_many_modules_are_one_short_line(theirs, read):
    odd = {f"\x1b[31m{i}.weight": torch.ones(1) for i in range(1000)}
    report = str(read(theirs.state_dict() | odd).report)
    assert len(report) < 2000
    assert "\x1b" not in report
    assert r"1 of '\x1b[31m0'" in report
    assert "and 981 more" in report


def test_detector_of_microsoft_has_numbered_norms_too(official, read):
    trunk = {f"norm2.{n[5:]}" if n.startswith("norm.") else n: x for n, x in official.items()}
    trunk["norm0.weight"] = torch.ones(4)
    weights = read(put("backbone.", trunk) | {"neck.x": torch.ones(1)})
    assert weights.dialect == "timm<0.9"
    assert weights.report.ignored["norm of an earlier stage"] == ("backbone.norm0.weight",)
    np.testing.assert_array_equal(weights.params["norm"]["bias"], official["norm.bias"].numpy())


def test_a_norm_that_a_classifier_lacks_is_missing(theirs, read):
    given = {n: x for n, x in theirs.state_dict().items() if "norm2.bias" not in n}
    given = {n: x for n, x in given.items() if "backbone.norm2." not in n}
    with pytest.raises(WeightsError, match=r"missing backbone\.norm2\.bias; .*norm2\.weight"):
        read(given)


def test_a_norm_that_a_detector_would_lack_is_missing_elsewhere(theirs, official, read):
    """A classifier needs it, with whatever norms it has besides; so does a trunk of Microsoft."""
    norms = {f"backbone.norm0.{part}": torch.ones(4) for part in ("weight", "bias")}
    given = {n: x for n, x in theirs.state_dict().items() if "backbone.norm2." not in n}
    for lacking in (given | norms, {n: x for n, x in official.items() if n[:5] != "norm."}):
        with pytest.raises(WeightsError, match=r"missing .*norm.*bias; missing .*norm.*weight"):
            read(lacking)
    bare = {n: x for n, x in trunk(theirs).items() if not n.startswith("norm2.")}
    assert {"norm.bias", "norm.scale"} < set(read(bare).report.reinitialised)


def test_reduction_of_another_width_is_refused_by_its_name(theirs, read):
    name = "backbone.stages.0.downsample.reduction.weight"
    with pytest.raises(WeightsError, match=rf"{name} has shape \[8, 15\], wanted \[8, 16\]"):
        read(theirs.state_dict() | {name: torch.zeros(8, 15)})


def test_written_pth_is_wrapped_as_mmengine_wants_it(theirs, read, tmp_path):
    weights = read(theirs.state_dict())
    write_torch_weights(weights, tmp_path / "mine.pth", "openmmlab")
    content = torch.load(tmp_path / "mine.pth", weights_only=True)
    assert list(content) == ["state_dict"]
    theirs.load_state_dict(content["state_dict"], strict=True)
    again = read_torch_weights(tmp_path / "mine.pth")
    assert again.dialect == "openmmlab"
    same(named_leaves(again.params), named_leaves(weights.params))


def test_windows_that_shrink_are_not_written(tmp_path):
    model = dataclasses.replace(MODEL, image_size=32)  # grids 8, 4, 2
    params = jax.tree.map(lambda leaf: np.ones(leaf.shape, np.float32), abstract_swin(model)[1])
    with pytest.raises(WeightsError, match="mmpretrain can load no such network"):
        write_torch_weights(
            Weights(model, params, "clevit_jax", "run"), tmp_path / "a.pth", "openmmlab"
        )


def test_verify_says_that_no_library_read_the_file(golden, monkeypatch):
    path = golden / "dialect_openmmlab.safetensors"
    monkeypatch.setitem(sys.modules, "mmpretrain.models", None)
    found = verify(read_torch_weights(path), path)
    assert found.ok
    assert "(names by our own table: no library read the file itself)" in str(found)


def test_verify_with_mmpretrain(golden):
    pytest.importorskip("mmpretrain.models", reason="mmpretrain is not installed")
    path = golden / "dialect_openmmlab.safetensors"
    found = verify(read_torch_weights(path), path)
    assert found.ok
    assert "Verified with mmpretrain" in str(found)
    assert "(names read by mmpretrain itself)" in str(found)


def history_buffer(monkeypatch):
    """As mmengine's: it keeps arrays, and methods of its own by their names."""

    class HistoryBuffer:
        def mean(self):
            return 0

        def __getstate__(self):
            return {"_log_history": np.ones(3), "statistics_methods": {"mean": type(self).mean}}

    module = types.ModuleType("mmengine.logging.history_buffer")
    module.HistoryBuffer = HistoryBuffer
    HistoryBuffer.__module__, HistoryBuffer.__qualname__ = module.__name__, "HistoryBuffer"
    HistoryBuffer.mean.__module__ = module.__name__
    HistoryBuffer.mean.__qualname__ = "HistoryBuffer.mean"
    for name in ("mmengine", "mmengine.logging", module.__name__):
        monkeypatch.setitem(sys.modules, name, module)
    return HistoryBuffer()


def test_training_state_of_mmengine_is_read(theirs, read, monkeypatch):
    """`epoch_1.pth` holds the history of its losses."""
    hub = {"log_scalars": collections.OrderedDict(loss=history_buffer(monkeypatch))}
    weights = read({"meta": {"iter": 1}, "state_dict": theirs.state_dict(), "message_hub": hub})
    assert weights.report.ignored["beside the model:"] == ("meta", "message_hub")


@pytest.mark.parametrize("history", [True, False])
def test_no_other_attribute_is_asked_for(history, theirs, read, monkeypatch):
    class Asks:
        def __reduce__(self):
            return getattr, (collections.OrderedDict, "__class__")

    beside = [history_buffer(monkeypatch)] if history else []
    with pytest.raises(WeightsError, match=r"asks for '\w+\.getattr', which could run code"):
        read({"meta": [*beside, Asks()], "state_dict": theirs.state_dict()})
