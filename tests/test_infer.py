"""The architecture from shapes alone, also where some of them are wrong."""

import pytest
import torch

from clevit_jax.errors import WeightsError
from clevit_jax.model.config import VARIANTS, SwinConfig
from clevit_jax.model.swin import abstract_swin
from clevit_jax.weights.convert import Weights, named_leaves, official_name, to_dialect
from clevit_jax.weights.infer import infer_architecture


def shapes_of(model):
    """Official names and shapes of the network, by PyTorch's order of axes."""
    shapes = {}
    for name, leaf in named_leaves(abstract_swin(model)[1]).items():
        order = {2: (1, 0), 4: (3, 2, 0, 1)}.get(leaf.ndim if name.endswith("kernel") else 0)
        shape = leaf.shape if order is None else tuple(leaf.shape[axis] for axis in order)
        shapes[official_name(name)] = shape
    return shapes


TINY = SwinConfig.variant("tiny", image_size=224)


@pytest.fixture(scope="module")
def shapes():
    return shapes_of(TINY)


@pytest.mark.parametrize(
    ("variant", "window", "size", "classes"),
    [("small", 7, 224, 1000), ("base", 12, 384, 21841), ("large", 7, 224, 2)],
)
def test_published(variant, window, size, classes):
    model = SwinConfig.variant(variant, image_size=size, window=window, num_classes=classes)
    assert infer_architecture(shapes_of(model)) == model
    assert f"Swin-{variant}: embed {VARIANTS[variant]['embed_dim']}," in model.describe()


def test_golden_with_its_masks(golden):
    official = torch.load(golden / "swin_nano_224.pth", weights_only=True)["model"]
    found = infer_architecture({name: tuple(value.shape) for name, value in official.items()})
    assert found == SwinConfig(
        image_size=224, num_classes=21, embed_dim=16, depths=(2, 2, 2, 2), num_heads=(1, 2, 4, 8)
    )
    assert found.describe().startswith("Swin: embed 16, depths 2-2-2-2, heads 1-2-4-8")


def test_masks_tell_the_image_size(shapes):
    """448 pixels: a grid of 112 in windows of 7 is 256 windows."""
    masks = {"layers.0.blocks.1.attn_mask": (256, 49, 49)}
    assert infer_architecture(shapes | masks).image_size == 448
    nonsense = {"layers.0.blocks.1.attn_mask": (255, 49, 49)}
    assert infer_architecture(shapes | nonsense).image_size == 224


def test_a_table_that_shrank_tells_the_image_size():
    """At 96 the last grid is 3, where a window of 6 cannot be."""
    model = SwinConfig(image_size=96, window=6, embed_dim=8, num_heads=(1, 1, 1, 1))
    assert infer_architecture(shapes_of(model)) == model


def test_a_few_wrong_entries_do_not_mislead(shapes):
    wrong = dict(shapes)
    wrong["patch_embed.norm.bias"] = (97,)
    wrong["layers.2.blocks.3.attn.relative_position_bias_table"] = (225, 13)
    wrong["head.bias"] = (7,)
    del wrong["layers.2.blocks.2.norm1.weight"]
    assert infer_architecture(wrong) == TINY


def test_without_head_or_with_headless_classes(shapes):
    bare = {name: shape for name, shape in shapes.items() if not name.startswith("head")}
    assert infer_architecture(bare).num_classes == 1
    assert infer_architecture(bare | {"head.bias": (9,)}).num_classes == 9


@pytest.mark.parametrize(
    "change",
    [
        lambda s: {},
        lambda s: {"fc.weight": (3, 4)},
        lambda s: {n: x for n, x in s.items() if "patch_embed" not in n and "blocks.0.n" not in n},
        lambda s: {n: x for n, x in s.items() if "layers.1." not in n},
        lambda s: s | {f"layers.2.blocks.{i}.attn.relative_position_bias_table": (100, 12)
                       for i in range(6)},
        lambda s: s | {f"layers.2.blocks.{i}.attn.relative_position_bias_table": (170, 12)
                       for i in range(6)},
        # Numbers that would make a network of millions of blocks.
        lambda s: s | {f"layers.{i}.blocks.99.attn.relative_position_bias_table": (169, 3)
                       for i in range(100)},
        lambda s: s | {f"layers.{i}.blocks.99.attn.relative_position_bias_table": (169, 3)
                       for i in range(4)},
        lambda s: s | {"layers.0.blocks.0.attn.relative_position_bias_table": (169, 0),
                       "layers.0.blocks.1.attn.relative_position_bias_table": (169, 5)},
    ],
)  # fmt: skip
def test_no_swin(shapes, change):
    with pytest.raises(WeightsError):
        infer_architecture(change(shapes))


def test_json():
    fields = TINY.to_json()
    assert SwinConfig.from_json({**fields, "depths": list(fields["depths"])}) == TINY
    for bad in (
        None,
        [],
        "x",
        {},
        fields | {"window": "7"},
        fields | {"window": 7.5},
        fields | {"depths": 3},
        fields | {"image_size": 225},
        fields | {"more": 1},
    ):
        with pytest.raises(WeightsError):
            SwinConfig.from_json(bad)  # fmt: skip


def test_windows_that_nobody_trains_are_not_built():
    """A table of 2.5 MB would stand for masks of 381 GiB."""
    shapes = {
        "patch_embed.proj.weight": (4, 3, 4, 4),
        "layers.0.blocks.0.attn.relative_position_bias_table": (799**2, 1),
        "layers.0.blocks.1.attn.relative_position_bias_table": (799**2, 1),
    }
    with pytest.raises(WeightsError, match=r"window is 400; at most 64 is read"):
        infer_architecture(shapes)


def test_masks_without_measure_are_not_written():
    model = SwinConfig(
        image_size=8192, window=64, embed_dim=4, depths=(2,) * 4, num_heads=(1,) * 4, num_classes=1
    )
    weights = Weights(model, {}, "clevit_jax", "x")
    # One shifted block a stage, of (grid * window)**2 numbers in float32.
    gib = sum((grid * 64) ** 2 * 4 for grid in (2048, 1024, 512, 256)) / 2**30
    with pytest.raises(WeightsError, match=rf"masks .* take {gib:.0f} GiB"):
        to_dialect(weights, "microsoft")
    assert to_dialect(weights, "timm") == {}


def test_windows_that_differ_are_another_network(shapes):
    """Of timm's swin_s3_tiny_224: 7, 7, 14, 7."""
    changed = {
        name: ((27**2, shape[1]) if name.startswith("layers.1") and "table" in name else shape)
        for name, shape in shapes.items()
    }
    with pytest.raises(WeightsError, match=r"windows of its stages have .*, 14.*swin_s3"):
        infer_architecture(changed)
