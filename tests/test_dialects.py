"""Dialects against names, shapes and outputs of the libraries' own models (see names/README.md)."""

import functools
import pathlib
import re

import jax
import numpy as np
import pytest
import safetensors.numpy
import torch
from flax import nnx

from clevit_jax.errors import WeightsError
from clevit_jax.model import swin
from clevit_jax.model.config import SwinConfig
from clevit_jax.weights import dialects

NAMES = pathlib.Path(__file__).parent / "names"
# Table -> (dialect, wrapper of the library's files).
TABLES = {
    "microsoft": ("microsoft", "model"),
    "timm06": ("timm<0.9", ""),
    "timm": ("timm", ""),
    "huggingface": ("huggingface", ""),
    "huggingface4": ("huggingface", ""),
    "huggingface5_memory": ("huggingface", ""),
    "torchvision": ("torchvision", ""),
    "openmmlab": ("openmmlab", "state_dict"),
}
ARCHITECTURES = [
    f"{size}_{window}"
    for size in ("tiny", "small", "base", "large")
    for window in ("window7_224", "window12_384")
]
GOLDENS = {
    "dialect_timm06": "timm<0.9",
    "dialect_timm": "timm",
    "dialect_huggingface": "huggingface",
    "dialect_torchvision": "torchvision",
    "dialect_openmmlab": "openmmlab",
}
GOLDEN_CONFIG = SwinConfig(
    image_size=64, num_classes=5, embed_dim=4, depths=(2, 1, 1), num_heads=(1, 2, 4), window=4
)


@functools.cache
def table(file):
    """Architecture -> name -> shape, as the library wrote it down."""
    lines = (NAMES / f"{file}.tsv").read_text().splitlines()
    rows = [line.split("\t") for line in lines if not line.startswith("#")]
    return {
        architecture: {
            row[0]: tuple(map(int, row[column].split("x")))
            for row in rows[1:]
            if row[column] != "-"
        }
        for column, architecture in enumerate(rows[0])
        if column
    }


def zeros(shapes):
    """Arrays of these shapes that take no memory."""
    return {name: np.broadcast_to(np.uint8(0), shape) for name, shape in shapes.items()}


def shapes_of(tensors):
    return {name: tensor.shape for name, tensor in tensors.items()}


def official_name(path):
    name = jax.tree_util.keystr(path, simple=True, separator=".")
    return re.sub(r"\.(kernel|scale)$", ".weight", name)


@functools.cache
def wanted_with_window7(size):
    """Official name -> official shape of every parameter of our own model."""
    shapes = {}
    config = SwinConfig.variant(size, window=7, image_size=224, num_classes=1000)
    for path, leaf in jax.tree.leaves_with_path(swin.abstract_swin(config)[1]):
        shape = leaf.shape
        if path[-1].key == "kernel":
            shape = (shape[3], shape[2], *shape[:2]) if len(shape) == 4 else shape[::-1]
        shapes[official_name(path)] = shape
    return shapes


def wanted(architecture):
    """The same; tracing takes seconds, so for window 12 only the tables of offsets change."""
    size, window, _ = architecture.split("_")
    rows = {"window7": 13 * 13, "window12": 23 * 23}[window]
    return {
        name: (rows, shape[1]) if name.endswith("bias_table") else shape
        for name, shape in wanted_with_window7(size).items()
    }


def buffers(architecture):
    """Official name -> shape of the buffers that Microsoft's model stores."""
    given = table("microsoft")[architecture]
    return {n: s for n, s in given.items() if n.endswith(("relative_position_index", "attn_mask"))}


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("file", TABLES)
def test_every_name_of_the_library(file, architecture):
    dialect, wrapper = TABLES[file]
    theirs = table(file)[architecture]
    assert dialects.recognise(theirs, wrapper) == dialect
    official, ignored = dialects.to_official_names(zeros(theirs), dialect)
    assert shapes_of(official) == wanted(architecture)
    counts = {kind: len(names) for kind, names in ignored.items()}
    stored = {
        "relative position index": sum(n.endswith("relative_position_index") for n in theirs),
        "attention mask": sum(n.endswith("attn_mask") for n in theirs),
    }
    assert counts == {kind: count for kind, count in stored.items() if count}

    given = wanted(architecture)
    if file not in ("huggingface", "huggingface5_memory"):  # transformers 5 stores no buffer
        given = given | buffers(architecture)
    # Written in the one spelling that both transformers 4 and 5 read.
    expected = table(file.replace("huggingface5_memory", "huggingface"))[architecture]
    assert shapes_of(dialects.from_official_names(zeros(given), dialect)) == expected


def test_tables_are_whole():
    """Eight tables of eight architectures; a file of the library has no more and no less."""
    assert {path.stem for path in NAMES.glob("*.tsv")} == set(TABLES)
    for file in TABLES:
        assert list(table(file)) == ARCHITECTURES
    tiny = table("torchvision")["tiny_window7_224"]
    assert len(tiny) == 173 + 12  # parameters of Swin-T, indices of its twelve blocks
    assert tiny["features.5.5.attn.relative_position_index"] == (49 * 49,)


@pytest.fixture(scope="module")
def nano(golden):
    """Official names and numbers, with buffers."""
    state = torch.load(golden / "swin_nano_224.pth", weights_only=True)["model"]
    return {name: tensor.numpy() for name, tensor in state.items()}


def is_buffer(name):
    return name.endswith(("relative_position_index", "attn_mask"))


@pytest.mark.parametrize("dialect", dialects.DIALECTS)
def test_round_trip_is_bitwise(nano, dialect):
    official, ignored = dialects.to_official_names(nano, "microsoft")
    assert official.keys() | {n for names in ignored.values() for n in names} == nano.keys()
    assert not any(map(is_buffer, official))
    written = dialects.from_official_names(nano, dialect)
    assert dialects.recognise(written, "model" if dialect == "microsoft" else "") == dialect
    back, _ = dialects.to_official_names(written, dialect)
    assert back.keys() == official.keys()
    for name, value in official.items():
        assert back[name].dtype == value.dtype
        np.testing.assert_array_equal(back[name], value, err_msg=name)


@pytest.mark.parametrize(
    ("dialect", "index", "mask"),
    [
        ("microsoft", "layers.1.blocks.1.attn.{}", "layers.1.blocks.1.attn_mask"),
        ("timm<0.9", "layers.1.blocks.1.attn.{}", "layers.1.blocks.1.attn_mask"),
        ("timm", None, None),
        ("huggingface", "swin.encoder.layers.1.blocks.1.attention.self.{}", None),
        ("torchvision", "features.3.1.attn.{}", None),
        ("openmmlab", "backbone.stages.1.blocks.1.attn.w_msa.{}", None),
    ],
)
def test_buffers_go_where_the_library_stores_them(nano, dialect, index, mask):
    written = {n: v for n, v in dialects.from_official_names(nano, dialect).items() if is_buffer(n)}
    assert len(written) == (8 if index else 0) + (3 if mask else 0)
    if index:
        index = index.format("relative_position_index")
        value = nano["layers.1.blocks.1.attn.relative_position_index"]
        value = value.ravel() if dialect == "torchvision" else value
        np.testing.assert_array_equal(written[index], value)
        assert written[index].dtype == np.int64
    if mask:
        np.testing.assert_array_equal(written[mask], nano["layers.1.blocks.1.attn_mask"])


@pytest.fixture(scope="module")
def forward():
    """Our model of the goldens, compiled once: official tensors, images -> logits, features."""
    graphdef, abstract = swin.abstract_swin(GOLDEN_CONFIG)

    @jax.jit
    def compiled(params, images):
        return nnx.merge(graphdef, params)(images)

    def run(official, images):
        rest = dict(official)

        def take(path, leaf):
            value = rest.pop(official_name(path))
            if path[-1].key == "kernel":
                value = value.transpose(2, 3, 1, 0) if value.ndim == 4 else value.T
            assert value.shape == leaf.shape
            return value

        params = jax.tree.map_with_path(take, abstract)
        assert not rest
        return compiled(params, images)

    return run


@pytest.mark.parametrize("file", GOLDENS)
def test_outputs_of_the_library(golden, forward, file):
    tensors = safetensors.numpy.load_file(golden / f"{file}.safetensors")
    dialect = dialects.recognise(tensors)
    assert dialect == GOLDENS[file]
    official, _ = dialects.to_official_names(tensors, dialect)
    images = np.random.RandomState(7).standard_normal((2, 64, 64, 3)).astype(np.float32)
    logits, features = forward(official, images)
    reference = np.load(golden / f"{file}.npz")
    np.testing.assert_allclose(logits, reference["logits"], atol=1e-5, rtol=0)
    np.testing.assert_allclose(features, reference["features"], atol=1e-5, rtol=0)


def test_both_spellings_of_transformers_mean_the_same(golden):
    """The pairs are those of transformers 5.23.0, conversion_mapping.py, "swin"."""
    spellings = {
        "attention.self.query": "attention.q_proj",
        "attention.self.key": "attention.k_proj",
        "attention.self.value": "attention.v_proj",
        "attention.self.relative_position_bias_table": (
            "attention.relative_position_bias.relative_position_bias_table"
        ),
        "attention.output.dense": "attention.o_proj",
        "intermediate.dense": "mlp.fc1",
        ".output.dense": ".mlp.fc2",
    }
    hub = safetensors.numpy.load_file(golden / "dialect_huggingface.safetensors")
    memory = dict(hub)
    for old, new in spellings.items():
        memory = {name.replace(old, new): value for name, value in memory.items()}
    assert len(memory.keys() & hub.keys()) == 4 + 4 * 4 + 6 + 4  # all but those of the blocks
    official, _ = dialects.to_official_names(hub, "huggingface")
    same, _ = dialects.to_official_names(memory, "huggingface")
    assert same.keys() == official.keys()
    for name, value in official.items():
        np.testing.assert_array_equal(same[name], value, err_msg=name)


def tiny(file):
    return zeros(table(file)["tiny_window7_224"])


@pytest.mark.parametrize(
    "prefix",
    ["module.", "_orig_mod.module.", "model.", "module.net.", "base_model.", "model.vit.", "0.",
     "student._fsdp_wrapped_module.swin.", "transformer.encoder."],
)  # fmt: skip
def test_what_an_outer_module_puts_before_all_names_is_taken_off(prefix):
    wrapped = {prefix + name: value for name, value in tiny("timm").items()}
    assert dialects.recognise(wrapped) == "timm"
    official, _ = dialects.to_official_names(wrapped | {prefix + "extra": np.zeros(1)}, "timm")
    assert shapes_of(official) == wanted("tiny_window7_224") | {prefix + "extra": (1,)}


@pytest.mark.parametrize("file", TABLES)
def test_what_wrappers_put_between_words_is_taken_off(file):
    word = {"huggingface": "layers.1.", "torchvision": "features.3."}.get(file[:11], "s.1.")
    wrapped = {
        n.replace(word, f"{word}_checkpoint_wrapped_module."): x for n, x in tiny(file).items()
    }
    assert wrapped.keys() != tiny(file).keys()
    dialect = dialects.recognise(wrapped, TABLES[file][1])
    assert dialect == TABLES[file][0]
    assert shapes_of(dialects.to_official_names(wrapped, dialect)[0]) == wanted("tiny_window7_224")


@pytest.mark.parametrize(("file", "dialect"), [("timm", "timm"), ("timm06", "timm<0.9")])
@pytest.mark.parametrize("head", ["head", "head.fc", "head.1", "head.fc.1"])
def test_timm_is_told_by_where_it_merges_whatever_the_head(file, dialect, head):
    given = {n: x for n, x in tiny(file).items() if not n.startswith("head.")}
    given |= zeros({f"{head}.weight": (1000, 768), f"{head}.bias": (1000,)})
    assert dialects.recognise(given) == dialect
    assert shapes_of(dialects.to_official_names(given, dialect)[0]) == wanted("tiny_window7_224")


def test_wrapping_of_some_names_is_their_own():
    given = tiny("timm")
    given["module.norm.bias"] = given.pop("norm.bias")
    official, _ = dialects.to_official_names(given, "timm")
    expected = wanted("tiny_window7_224")
    expected["module.norm.bias"] = expected.pop("norm.bias")
    assert shapes_of(official) == expected


@pytest.mark.parametrize("file", ["huggingface", "huggingface4", "huggingface5_memory"])
def test_bare_swin_model_has_no_head(file):
    given = tiny(file).items()
    bare = {n.removeprefix("swin."): v for n, v in given if not n.startswith("classifier.")}
    assert dialects.recognise(bare) == "huggingface"
    official, _ = dialects.to_official_names(bare, "huggingface")
    expected = wanted("tiny_window7_224")
    assert shapes_of(official) == {n: s for n, s in expected.items() if not n.startswith("head.")}


@pytest.mark.parametrize(("file", "dialect"), [("timm", "timm"), ("timm06", "timm<0.9")])
def test_timm_without_a_head_is_told_by_where_it_merges(file, dialect):
    assert dialects.recognise(n for n in tiny(file) if not n.startswith("head.")) == dialect


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["layers.0.blocks.0.attn.qkv.weight", "layers.0.blocks.0.attn.logit_scale"], "a Swin V2"),
        (["features.1.0.attn.qkv.weight", "features.1.0.attn.cpb_mlp.0.weight"], "a Swin V2"),
        (["swinv2.encoder.layers.0.blocks.0.attention.self.logit_scale"], "a Swin V2"),
        (["layers.0.blocks.0.norm1.weight", "layers.0.blocks.0.spatial_mlp.weight"], "a Swin-MLP"),
        (["conv1.weight", "layer1.0.conv1.weight", "fc.bias"], "'conv1.weight', 'fc.bias', 'lay"),
        (["patch_embed.proj.weight", "blocks.0.attn.qkv.weight", "head.weight"], "blocks.0.attn"),
        (["features.0.0.weight", "features.1.0.block.0.weight"], "features.0.0.weight"),
        (["trunk.layers.0.blocks.0.attn.logit_scale", "trunk.layers.0.blocks.0.attn.qkv.weight"],
         "a Swin V2"),
        (["backbone.stages.0.blocks.0.attn.w_msa.qkv.bias",
          "backbone.stages.0.blocks.0.attn.w_msa.logit_scale", "head.fc.bias"], "a Swin V2"),
        ([], "no tensor at all"),
    ],
)  # fmt: skip
def test_another_network_is_refused(names, message):
    with pytest.raises(WeightsError, match=re.escape(message)):
        dialects.recognise(names)


@pytest.mark.parametrize(
    ("dialect", "name"),
    [
        ("microsoft", "absolute_pos_embed"),
        ("microsoft", "norm0.weight"),
        ("microsoft", "layers.0.downsample.reduction.bias"),
        ("microsoft", "layers.00.blocks.0.norm1.weight"),
        ("microsoft", "layers.0.blocks.0.norm1.weight.scale"),
        ("microsoft", "layers.0.blocks.9999999999.norm1.weight"),
        ("timm", "layers.0.blocks.0.norm1.running_mean"),
        ("huggingface", "swin.embeddings.position_embeddings"),
        ("huggingface", "swin.embeddings.position_token"),
        ("torchvision", "features.2.0.norm1.weight"),
        ("torchvision", "features.1.norm.weight"),
        ("torchvision", "features.0.norm.weight"),
        ("torchvision", "features.1.0.mlp.2.weight"),
        ("torchvision", "features.0.1.weight"),
        ("openmmlab", "backbone.norm3.weight"),
        ("openmmlab", "absolute_pos_embed"),
        ("openmmlab", "stages.0.blocks.0.ffn.layers.0.1.weight"),
    ],
)
def test_what_the_dialect_has_not_stays_as_it_is(dialect, name):
    value = np.arange(3)
    official, ignored = dialects.to_official_names({name: value}, dialect)
    assert list(official) == [name]
    assert official[name] is value
    assert not ignored


def test_query_without_key_and_value_is_left_over():
    given = tiny("huggingface")
    lone = "swin.encoder.layers.1.blocks.0.attention.self.query.weight"
    del given[lone.replace("query", "key")], given[lone.replace("query", "value")]
    official, _ = dialects.to_official_names(given, "huggingface")
    expected = wanted("tiny_window7_224")
    del expected["layers.1.blocks.0.attn.qkv.weight"]
    assert shapes_of(official) == expected | {lone: (192, 192)}


def test_query_key_and_value_must_fit():
    given = tiny("huggingface")
    start = "swin.encoder.layers.1.blocks.0.attention.self"
    given[f"{start}.key.bias"] = np.zeros(6, np.uint8)
    given[f"{start}.value.weight"] = np.zeros((192, 192), np.float32)
    with pytest.raises(WeightsError) as error:
        dialects.to_official_names(given, "huggingface")
    assert "layers.1.blocks.0.attn.*.bias are uint8[192] and uint8[6] and uint8[192]" in str(
        error.value
    )
    assert "layers.1.blocks.0.attn.*.weight are uint8[192, 192]" in str(error.value)


@pytest.mark.parametrize(
    ("file", "extra", "culprits"),
    [
        ("timm", "layers.0.downsample.norm.weight",
         "'layers.1.downsample.norm.weight' and 'layers.0.downsample.norm.weight'"),
        ("timm", "head.weight", "'head.fc.weight' and 'head.weight'"),
        ("huggingface", "swin.encoder.layers.1.blocks.0.mlp.fc1.bias",
         "'swin.encoder.layers.1.blocks.0.intermediate.dense.bias' and "
         "'swin.encoder.layers.1.blocks.0.mlp.fc1.bias'"),
        ("huggingface", "layernorm.bias", "'swin.layernorm.bias' and 'layernorm.bias'"),
        ("huggingface", "layers.1.blocks.0.attn.qkv.bias", "'layers.1.blocks.0.attn.qkv.bias'"),
        ("openmmlab", "backbone.norm.bias", "'backbone.norm3.bias' and 'backbone.norm.bias'"),
        ("torchvision", "layers.1.blocks.0.norm1.bias",
         "'features.3.0.norm1.bias' and 'layers.1.blocks.0.norm1.bias'"),
    ],
)  # fmt: skip
def test_a_mixture_of_dialects_is_refused(file, extra, culprits):
    given = tiny(file) | {extra: np.zeros(3)}
    with pytest.raises(WeightsError, match=re.escape(culprits)):
        dialects.to_official_names(given, TABLES[file][0])


def test_all_mixed_names_are_told_at_once():
    given = tiny("torchvision") | {"layers.0.blocks.0.norm1.bias": np.zeros(3)}
    given |= {"layers.0.blocks.0.norm2.bias": np.zeros(3)}
    with pytest.raises(WeightsError, match=r"norm1\.bias.*norm2\.bias"):
        dialects.to_official_names(given, "torchvision")


def test_writing_names_every_stranger():
    given = {"norm.weight": np.zeros(3), "norm.scale": np.zeros(3), "layers.x": np.zeros(3)}
    with pytest.raises(WeightsError, match=r"'norm\.scale', 'layers\.x'\."):
        dialects.from_official_names(given, "torchvision")


def test_qkv_that_cannot_be_cut():
    with pytest.raises(WeightsError, match=r"attn\.qkv\.bias \[4\]"):
        dialects.from_official_names(
            {"layers.0.blocks.0.attn.qkv.bias": np.zeros(4)}, "huggingface"
        )


def test_unknown_dialect():
    with pytest.raises(WeightsError, match=r"'keras'.*microsoft, timm<0.9, timm, huggingface"):
        dialects.to_official_names({}, "keras")
    with pytest.raises(WeightsError, match="'keras'"):
        dialects.from_official_names({}, "keras")
