"""CAMs against PyTorch's autograd, roll-out against whole matrices, and the deletion test."""

import jax
import numpy as np
import pytest
import torch

import clevit_jax
from clevit_jax.analysis import deletion
from clevit_jax.data import procedural_leaves, sources
from clevit_jax.inference import cam, explanation
from clevit_jax.inference.classifier import Classifier
from clevit_jax.model.config import SwinConfig
from clevit_jax.model.preprocessing import Preprocessing
from clevit_jax.weights import verify
from clevit_jax.weights.convert import Weights

# Grids 28 and 14, windows of 7: the second block of each stage shifts its windows.
MODEL = SwinConfig(
    image_size=112, num_classes=5, embed_dim=8, depths=(2, 2), num_heads=(2, 4), window=7
)
CLASSES = np.array([3, 0])


@pytest.fixture(scope="module")
def params(random_params):
    return jax.tree.map(lambda leaf: 0.3 * leaf, random_params(MODEL, 5))


@pytest.fixture(scope="module")
def pixels():
    return np.random.RandomState(7).randint(0, 256, (2, 112, 112, 3)).astype(np.uint8)


@pytest.fixture(scope="module")
def ours(params, pixels):
    """Every map of the model, by name."""
    return Classifier(MODEL, params, (), "made").maps(pixels, CLASSES, cam.map_names(MODEL))


@pytest.fixture(scope="module")
def theirs(params):
    """transformers' Swin with the same weights."""
    weights = Weights(MODEL, params, "clevit_jax", "made")
    model = verify.build_torch_swin(weights, "transformers").module
    model.set_attn_implementation("eager")  # the one that tells its attention
    return model


@pytest.fixture(scope="module")
def seen(theirs, pixels):
    """Tokens and gradients of every layer, and the attention of every block, by PyTorch."""
    found, attention = {}, {}

    def keep(name, store=found, part=None):
        def hook(module, inputs, output):
            store[name] = output if part is None else output[part]
            if store is found:
                found[name].retain_grad()

        return hook

    handles = []
    for s, stage in enumerate(theirs.swin.encoder.layers):
        for i, block in enumerate(stage.blocks):
            name = f"layers.{s}.blocks.{i}"
            handles += [
                block.register_forward_hook(keep(name, part=0)),
                block.register_forward_hook(keep((s, i), attention, 1)),
                block.layernorm_before.register_forward_hook(keep(f"{name}.norm1")),
            ]
    handles.append(theirs.swin.layernorm.register_forward_hook(keep("norm")))
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    images = ((pixels / 255 - mean) / std).astype(np.float32).transpose(0, 3, 1, 2)
    logits = theirs(torch.from_numpy(images)).logits
    logits[torch.arange(2), torch.from_numpy(CLASSES)].sum().backward()
    for handle in handles:
        handle.remove()
    return found, attention, theirs.classifier.weight.detach().numpy()


def test_no_hires_cam_before_the_last_norm(seen):
    """It would be zero, for a LayerNorm does not change when its input is scaled."""
    tokens = seen[0]["layers.1.blocks.1"]
    products = (tokens * tokens.grad).sum(-1).abs().max()
    assert products < 1e-4 * (tokens.abs() * tokens.grad.abs()).sum(-1).max()


def test_which_maps_there_are():
    assert cam.default_map(MODEL) == "hires_cam:layers.1.blocks.1.norm1"
    assert cam.default_map(MODEL) in cam.map_names(MODEL)
    assert len(cam.map_names(MODEL)) == 2 * 5 - 1 + 1
    assert "hires_cam:layers.1.blocks.1" not in cam.map_names(MODEL)
    with pytest.raises(ValueError, match=r"no map 'grad_cam:layers.2'; choose one of hires_cam:"):
        cam.make_maps(MODEL, ("grad_cam:layers.2",))


@pytest.mark.parametrize("name", [name for name in cam.map_names(MODEL) if name != cam.ROLLOUT])
def test_cams_equal_autograd(name, ours, seen):
    kind, layer = name.split(":")
    tokens, gradient = seen[0][layer], seen[0][layer].grad
    if kind == "grad_cam":
        gradient = gradient.mean(dim=tuple(range(1, gradient.ndim - 1)), keepdim=True)
    expected = torch.relu((tokens * gradient).sum(-1)).detach().numpy()
    side = round(expected[0].size ** 0.5)
    expected = expected.reshape(2, side, side)
    assert ours[name].shape == expected.shape
    assert expected.max() > 0
    np.testing.assert_allclose(ours[name], expected, atol=1e-4 * expected.max(), rtol=0)


def dense(attention, side, window, shift):
    """0.5 I + 0.5 A over all tokens of one image, from its windows [n, h, N, N]."""
    matrix = np.zeros((side * side, side * side))
    per_row = side // window
    for number, inside in enumerate(attention.mean(1)):
        rows = number // per_row * window + np.arange(window)
        columns = number % per_row * window + np.arange(window)
        tokens = ((rows[:, None] + shift) % side * side + (columns[None] + shift) % side).ravel()
        matrix[np.ix_(tokens, tokens)] = inside
    return 0.5 * np.eye(side * side) + 0.5 * matrix


def test_rollout_equals_whole_matrices(ours, seen):
    tokens, attention, head = seen
    merge = np.zeros((14 * 14, 28 * 28))
    for row, column in np.ndindex(28, 28):
        merge[row // 2 * 14 + column // 2, row * 28 + column] = 1 / 4
    for image in range(2):
        last = tokens["norm"].detach().numpy()[image].reshape(14 * 14, -1)
        share = np.maximum(0, last @ head[CLASSES[image]])
        share = share / share.sum()
        for stage, side in ((1, 14), (0, 28)):
            for block in (1, 0):
                windows = attention[stage, block].detach().numpy()
                windows = windows.reshape(2, -1, *windows.shape[1:])[image]
                share = share @ dense(windows, side, 7, 3 if block else 0)
            share = share @ merge if stage else share
        np.testing.assert_allclose(ours[cam.ROLLOUT][image].ravel(), share, atol=1e-6, rtol=1e-4)
    np.testing.assert_allclose(ours[cam.ROLLOUT].sum((1, 2)), 1, atol=1e-5)


def test_a_class_that_no_token_speaks_for(params):
    """Zero, and not a NaN."""
    silent = jax.tree.map(np.array, params)
    silent["head"]["kernel"][:] = 0
    model = Classifier(MODEL, silent, (), "silent")
    maps = model.maps(np.zeros((1, 112, 112, 3), np.uint8), np.array([1]), cam.map_names(MODEL))
    assert all(np.array_equal(grid, np.zeros_like(grid)) for grid in maps.values())
    assert not explanation.enlarge(maps[cam.ROLLOUT][0], 112).any()


def test_top_cells_and_paint_over():
    grid = np.zeros((4, 4), np.float32)
    grid[0, 1], grid[3, 2], grid[2, 0] = 3, 2, 1
    np.testing.assert_array_equal(np.argwhere(deletion.top_cells(grid, 4, 2)), [[0, 1], [3, 2]])
    # A finer map: the mean of a cell counts, not its peak.
    fine = np.zeros((4, 4), np.float32)
    fine[:2, :2], fine[3, 3] = 1, 3
    np.testing.assert_array_equal(np.argwhere(deletion.top_cells(fine, 2, 1)), [[0, 0]])
    image = np.arange(4 * 4 * 3, dtype=np.uint8).reshape(1, 4, 4, 3)
    chosen = np.array([[[True, False], [False, False]]])
    painted = deletion.paint_over(image, chosen)
    np.testing.assert_array_equal(painted[0, :2, :2], np.broadcast_to([22, 24, 24], (2, 2, 3)))
    unchanged = np.ones((4, 4), bool)
    unchanged[:2, :2] = False
    np.testing.assert_array_equal(painted[0][unchanged], image[0][unchanged])


@pytest.fixture(scope="module")
def demo(golden, tmp_path_factory):
    """The trained model of the demo, and its test images in a random order."""
    folder = tmp_path_factory.mktemp("leaves")
    procedural_leaves.write_dataset(
        folder, classes=10, train_per_class=20, test_per_class=20, size=128, seed=0, difficulty=0.5
    )
    model = clevit_jax.load(golden / "demo_leaves.safetensors", image_size=64)
    model.preprocessing = Preprocessing(72)
    test = sources.load_dataset(folder).test
    order = np.random.RandomState(0).permutation(len(test))
    seen = np.stack([model.pixels(test[i].data) for i in order])
    labels = np.array([test[i].label for i in order])
    # The model that docs/results.md tells of: 62 % of the test images.
    assert (model.probabilities(seen).argmax(-1) == labels).mean() == pytest.approx(0.62, abs=0.01)
    return model, seen


def test_the_demo_looks_where_it_matters(demo):
    """The map is chosen on 50 images, and on 50 others its top fifth counts twice a random one."""
    model, seen = demo
    chosen = deletion.compare_maps(model, seen[:50]).chosen
    assert chosen == model.map_name  # what `explain` draws without a test
    found = deletion.compare_maps(model, seen[50:100], names=(chosen, cam.ROLLOUT))
    assert found.images == 50
    assert found.deleted == round(0.2 * found.cells**2)
    assert found.random > 0.05
    assert found.ratio(chosen) >= 2, found


def test_the_deletion_test_catches_a_wrong_map(demo, monkeypatch):
    """Maps that are turned upside down highlight no better than chance."""
    model, seen = demo
    maps = model.maps

    def upside_down(*args):
        return {name: grid[:, ::-1, ::-1] for name, grid in maps(*args).items()}

    monkeypatch.setattr(model, "maps", upside_down)
    found = deletion.compare_maps(model, seen[50:100], names=(model.map_name,))
    assert found.ratio(model.map_name) < 2


def test_deletion_of_few(demo, random_params):
    """Of no image, and of a model whose last grid is a single token: quarters are deleted."""
    model, seen = demo
    with pytest.raises(ValueError, match="needs an image"):
        deletion.compare_maps(model, seen[:0])
    single = SwinConfig(
        image_size=8, num_classes=2, embed_dim=8, depths=(1, 1), num_heads=(1, 1), window=2
    )
    one = Classifier(single, random_params(single), (), "one token")
    found = deletion.compare_maps(one, np.ones((1, 8, 8, 3), np.uint8))
    assert (found.cells, found.deleted) == (2, 1)


def test_a_map_as_a_picture():
    grid = np.array([[0, 1], [1, 4]], np.float32)
    large = explanation.enlarge(grid, 64)
    assert large.shape == (64, 64)
    assert large.max() == 1
    assert large[0, 0] < large[-1, 0] < large[-1, -1]
    picture = np.asarray(explanation.overlay(np.full((64, 64, 3), 120, np.uint8), large))
    blue_corner, red_corner = picture[0, 0].astype(int), picture[-1, -1].astype(int)
    assert blue_corner[2] >= blue_corner[0]
    assert red_corner[0] > red_corner[2]
