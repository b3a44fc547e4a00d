"""The views against Pillow, NumPy written out and the quantiles of the official code."""

import functools
import inspect
import itertools
import json
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image, ImageEnhance

from clevit_jax.kernels.config import KernelConfig
from clevit_jax.views import crop, transforms, two_views
from clevit_jax.views.config import KINDS, ViewConfig

MEAN = np.array([0.485, 0.456, 0.406], np.float32)
STD = np.array([0.229, 0.224, 0.225], np.float32)


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.RandomState(seed).randint(0, 256, shape, np.uint8)


def draws(function, count: int, *arrays: jax.Array, **options) -> np.ndarray:
    """`count` draws of a random function, jitted and vmapped over the key alone."""
    in_axes = (0,) + (None,) * len(arrays)
    drawn = jax.vmap(functools.partial(function, **options), in_axes=in_axes)
    return np.asarray(jax.jit(drawn)(jax.random.split(jax.random.key(0), count), *arrays))


def assert_rank(values: np.ndarray, reference: float, rank: float, tolerance: float) -> None:
    """The reference is the `rank` quantile of the values; equal values span several ranks."""
    lowest, highest = np.mean(values < reference - 1e-6), np.mean(values <= reference + 1e-6)
    assert lowest - tolerance <= rank <= highest + tolerance


@pytest.mark.parametrize(
    ("name", "side", "function", "options"),
    [
        ("crop", 600, transforms.random_crop_box, {"scale": (0.67, 1.0), "ratio": (3 / 4, 4 / 3)}),
        ("erase", 448, transforms.random_erase_box, {"area": (0.15, 0.45), "ratio": (0.3, 3.3)}),
    ],
)
def test_boxes_are_distributed_as_the_official_ones(golden, name, side, function, options):
    boxes = draws(function, 40_000, height=side, width=side, **options).astype(np.float64)
    top, left, height, width = boxes.T
    drawn = {
        "area": height * width / side**2,
        "log_aspect_h_over_w": np.log(height / width),
        "center_y": (top + height / 2) / side,
        "center_x": (left + width / 2) / side,
    }
    official = np.load(golden / "view_distributions.npz")
    for quantity, values in drawn.items():
        quantiles = official[f"{name}_{quantity}"]
        for decile in range(10, 100, 10):
            assert_rank(values, quantiles[decile], official["q"][decile], 0.02)
        # The ends: within a fiftieth of the spread, which a wrong limit would pass.
        spread = quantiles[-1] - quantiles[0]
        assert values.min() == pytest.approx(quantiles[0], abs=0.02 * spread)
        assert values.max() == pytest.approx(quantiles[-1], abs=0.02 * spread)


def test_boxes_reach_every_legal_place_equally():
    options = {"height": 4, "width": 4, "scale": (9 / 16, 9 / 16), "ratio": (1.0, 1.0)}
    boxes = draws(transforms.random_crop_box, 4000, **options)
    assert np.all(boxes[:, 2:] == 3)
    counts = np.bincount(boxes[:, 0] * 2 + boxes[:, 1], minlength=4)
    assert ((counts - 1000) ** 2 / 1000).sum() < 16.27  # chi-square, 3 degrees, one in a thousand


def test_without_a_legal_draw_the_box_is_the_fall_back():
    def boxes(key: jax.Array) -> tuple[jax.Array, ...]:
        return (
            transforms.random_crop_box(
                key, height=100, width=301, scale=(1.0, 1.0), ratio=(0.5, 1.5)
            ),
            transforms.random_crop_box(
                key, height=300, width=100, scale=(1.0, 1.0), ratio=(0.8, 1.5)
            ),
            transforms.random_erase_box(
                key, height=50, width=50, area=(1.0, 1.0), ratio=(1.0, 1.0)
            ),
        )

    wide, tall, empty = jax.jit(boxes)(jax.random.key(0))
    np.testing.assert_array_equal(wide, [0, 75, 100, 150])
    np.testing.assert_array_equal(tall, [87, 0, 125, 100])
    np.testing.assert_array_equal(empty[2:], 0)


def triangle_resize(line: np.ndarray, start: int, length: int, size: int) -> np.ndarray:
    """One axis of an antialiased bilinear resize of a cut, an output pixel at a time, float64."""
    scale = length / size
    out = np.zeros((size, *line.shape[1:]))
    for place in range(size):
        centre, total = start + (place + 0.5) * scale, 0.0
        for source in range(start, start + length):
            weight = max(0.0, 1 - abs(source + 0.5 - centre) / max(scale, 1.0))
            out[place] += weight * line[source]
            total += weight
        out[place] /= total
    return out


# Top, left, height, width: the whole, corners, smaller, larger and narrower than 31 pixels.
BOXES = [
    (0, 0, 60, 70),
    (0, 0, 31, 31),
    (7, 11, 52, 40),
    (12, 30, 48, 40),
    (20, 20, 9, 33),
    (59, 69, 1, 1),
]


@pytest.fixture(scope="module")
def crops() -> np.ndarray:
    """Each box of one image, 31 pixels a side, in one program."""
    cut = jax.vmap(functools.partial(crop.crop, size=31), in_axes=(None, 0))
    return np.asarray(jax.jit(cut)(noise(60, 70, 3), jnp.array(BOXES)))


@pytest.mark.parametrize("number", range(len(BOXES)))
def test_crop_is_pillows_crop_and_resize(crops, number):
    image = noise(60, 70, 3).astype(np.float32)
    top, left, height, width = BOXES[number]
    channels = [Image.fromarray(np.ascontiguousarray(image[..., c])) for c in range(3)]
    cuts = [c.crop((left, top, left + width, top + height)) for c in channels]
    resized = [c.resize((31, 31), Image.Resampling.BILINEAR) for c in cuts]
    assert {c.mode for c in resized} == {"F"}
    expected = np.stack([np.asarray(c) for c in resized], -1)
    np.testing.assert_allclose(crops[number], expected, atol=255e-5, rtol=0)


@pytest.mark.parametrize("number", range(len(BOXES)))
def test_crop_is_a_triangle_filter(crops, number):
    top, left, height, width = BOXES[number]
    rows = triangle_resize(noise(60, 70, 3), top, height, 31)
    expected = triangle_resize(rows.swapaxes(0, 1), left, width, 31).swapaxes(0, 1)
    np.testing.assert_allclose(crops[number], expected, atol=255e-5, rtol=0)


def test_crop_of_a_box_of_the_size_copies_pixels(crops):
    np.testing.assert_array_equal(crops[1], noise(60, 70, 3)[:31, :31].astype(np.float32))


def test_crop_sees_nothing_outside_the_box():
    image = np.full((40, 40, 3), np.float32(1e6))
    image[10:33, 5:35] = 0.5
    ours = jax.jit(functools.partial(crop.crop, size=12))(image, jnp.array((10, 5, 23, 30)))
    np.testing.assert_allclose(ours, 0.5, rtol=1e-6)


@pytest.mark.parametrize("factor", [0.7, 0.93, 1.0, 1.3])
def test_brightness_is_pillows(factor):
    image = noise(20, 30, 3)
    expected = np.asarray(ImageEnhance.Brightness(Image.fromarray(image)).enhance(factor))
    ours = np.asarray(transforms.adjust_brightness(jnp.asarray(image / np.float32(255)), factor))
    np.testing.assert_allclose(ours, expected / 255, atol=1 / 255 + 1e-6, rtol=0)


def test_random_brightness_is_uniform():
    factors = draws(transforms.random_brightness, 10_000, jnp.full((1, 1, 1), 0.5), brightness=0.3)
    for rank in np.arange(0.1, 1, 0.1):
        assert_rank(factors / 0.5, 0.7 + 0.6 * rank, rank, 0.02)


@pytest.mark.parametrize("shape", [(9, 9), (8, 10), (7, 12)])
def test_rotation_by_0_is_the_identity(shape):
    image = noise(*shape, 3)
    np.testing.assert_array_equal(jax.jit(transforms.rotate)(image, jnp.float32(0)), image)


@pytest.mark.parametrize("shape", [(448, 448), (160, 225)])
def test_rotation_is_pillows(shape):
    # Pillow computes its matrix in float64 and we in float32: a pixel whose source lies within
    # 2**-16 of the border of two may come from the other one. At most one pixel in 5,000.
    image = noise(*shape, 3)
    rotate = jax.jit(transforms.rotate)
    for angle in (-15, -7.3, -0.4, 1, 3.21, 10, 14.9, 15, 60):
        expected = np.asarray(Image.fromarray(image).rotate(angle))
        ours = np.asarray(rotate(jnp.asarray(image), jnp.float32(angle)))
        assert np.mean(np.any(ours != expected, axis=-1)) <= 2e-4, angle


def test_random_angle_is_uniform():
    # The pixel above the centre comes from 100 sin(angle) columns beside it: half a degree each.
    columns = jnp.tile(jnp.arange(61, dtype=jnp.float32)[None, :, None], (201, 1, 1))
    top = draws(
        lambda key, image: transforms.random_rotate(key, image, degrees=15)[0, 30], 2000, columns
    )
    offsets = np.abs(top[:, 0] - 30), top[:, 0] - 30
    assert offsets[0].max() in (25, 26)
    for rank in np.arange(0.1, 1, 0.1):
        reference = np.round(100 * np.sin(np.deg2rad(-15 + 30 * rank)))
        assert_rank(offsets[1], reference, rank, 0.04)


def test_flip_exchanges_left_and_right():
    image = noise(5, 7, 3)
    expected = np.stack([image[:, 6 - column] for column in range(7)], axis=1)
    np.testing.assert_array_equal(transforms.flip_horizontal(jnp.asarray(image)), expected)


def test_random_flip_has_its_probability():
    image = jnp.arange(2.0).reshape(1, 2, 1)
    flipped = draws(transforms.random_flip_horizontal, 4000, image, probability=0.3)[:, 0, 0, 0]
    assert abs(flipped.mean() - 0.3) < 0.03


@pytest.mark.parametrize("box", [(0, 0, 2, 3), (3, 1, 5, 4), (4, 5, 6, 6), (2, 2, 0, 0)])
def test_erase_puts_0_in_the_box(box):
    image = noise(10, 11, 3).astype(np.float32) + 1
    top, left, height, width = box
    expected = image.copy()
    expected[top : top + height, left : left + width] = 0
    np.testing.assert_array_equal(transforms.erase(jnp.asarray(image), jnp.array(box)), expected)


def test_shuffle_puts_parts_in_order():
    image, order = noise(6, 9, 3), np.random.RandomState(1).permutation(9)
    expected = np.zeros_like(image)
    for place, part in enumerate(order):
        (y, x), (v, u) = divmod(place, 3), divmod(part, 3)
        expected[2 * y : 2 * y + 2, 3 * x : 3 * x + 3] = image[2 * v : 2 * v + 2, 3 * u : 3 * u + 3]
    ours = transforms.shuffle_parts(jnp.asarray(image), jnp.asarray(order), parts=3)
    np.testing.assert_array_equal(ours, expected)


def test_all_24_orders_are_equally_frequent():
    image = jnp.arange(4.0).reshape(2, 2, 1)
    orders = draws(transforms.random_shuffle_parts, 9600, image, parts=2).reshape(-1, 4).astype(int)
    counts = [np.all(orders == order, axis=1).sum() for order in itertools.permutations(range(4))]
    assert sum(counts) == 9600
    chi_square = sum((count - 400) ** 2 / 400 for count in counts)
    assert chi_square < 49.73  # 23 degrees of freedom, one in a thousand


def test_normalize_images_is_that_of_imagenet():
    images = noise(2, 4, 5, 3)
    expected = (images.astype(np.float64) / 255 - MEAN) / STD
    ours = transforms.normalize_images(jnp.asarray(images))
    assert ours.dtype == jnp.float32
    np.testing.assert_allclose(ours, expected, atol=1e-6)


SMALL = ViewConfig(size=32)
SIDE = 48
BATCH = 8


def small_keys(seed: int = 0, epoch: int = 3, first: int = 0) -> jax.Array:
    ids = jnp.arange(first, first + BATCH, dtype=jnp.int32)
    return two_views.example_keys(seed, jnp.full(BATCH, epoch, jnp.int32), ids)


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return noise(BATCH, SIDE, SIDE, 3)


@jax.jit
def make_kinds(keys: jax.Array, images: jax.Array) -> dict[str, tuple[jax.Array, Any]]:
    """Anchors and positives of each kind, in one program: compiling them is what costs."""
    configs = {kind: ViewConfig(kind=kind, size=32) for kind in KINDS}
    return {kind: two_views.make_views(keys, images, config=c) for kind, c in configs.items()}


@pytest.fixture(scope="module")
def kinds(images) -> dict[str, tuple[np.ndarray, Any]]:
    return jax.device_get(make_kinds(small_keys(), images))


@pytest.fixture(scope="module")
def full(kinds) -> tuple[np.ndarray, np.ndarray]:
    return kinds["full"]


def test_views_have_their_shape(full):
    for view in full:
        assert view.shape == (BATCH, 32, 32, 3)
        assert view.dtype == np.float32


def test_keys_are_folded_from_seed_epoch_and_id():
    keys = two_views.example_keys(5, jnp.array([2, 7], jnp.int32), jnp.array([11, 0], jnp.int32))
    for key, epoch, example_id in zip(keys, (2, 7), (11, 0), strict=True):
        expected = jax.random.fold_in(jax.random.fold_in(jax.random.key(5), epoch), example_id)
        np.testing.assert_array_equal(jax.random.key_data(key), jax.random.key_data(expected))


def test_views_do_not_depend_on_order(images, full):
    backward = make_kinds(small_keys()[::-1], images[::-1])["full"]
    for whole, turned in zip(full, backward, strict=True):
        np.testing.assert_allclose(turned[::-1], whole, atol=1e-6, rtol=0)


def test_views_do_not_depend_on_batch_or_devices(images, full):
    # Four images on four devices: a batch of one on each. XLA may block the products of the crop
    # by the batch: equal to 1e-6, not bit for bit.
    mesh = jax.make_mesh((4,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    chosen = np.array([5, 2, 3, 7])
    arguments = jax.device_put((small_keys()[chosen], images[chosen]), sharding)
    compiled = two_views.make_views.lower(*arguments, config=SMALL).compile()
    text = compiled.as_text()
    assert text
    for collective in ("all-gather", "all-reduce", "all-to-all", "collective-permute"):
        assert collective not in text
    for ours, whole in zip(compiled(*arguments), full, strict=True):
        assert len(ours.sharding.device_set) == 4
        np.testing.assert_allclose(ours, whole[chosen], atol=1e-6, rtol=0)


@pytest.mark.parametrize("other", [{"seed": 1}, {"epoch": 4}, {"first": BATCH}])
def test_another_seed_epoch_or_id_gives_other_views(images, full, other):
    others = make_kinds(small_keys(**other), images)["full"]
    for ours, view in zip(others, full, strict=True):
        assert np.all(np.abs(np.asarray(ours) - view).max(axis=(1, 2, 3)) > 0.5)


def quarters(view: np.ndarray) -> np.ndarray:
    """[32, 32, 3] -> [4, 16, 16, 3], row by row."""
    return np.stack([view[y : y + 16, x : x + 16] for y in (0, 16) for x in (0, 16)])


def test_kinds(kinds, full):
    base_anchors, nothing = kinds["base"]
    assert nothing is None
    anchors, masked = kinds["mask_only"]
    swap_anchors, swapped = kinds["swap_only"]
    for anchors_of_kind in (base_anchors, anchors, swap_anchors):
        np.testing.assert_allclose(anchors_of_kind, full[0], atol=1e-6, rtol=0)

    orders = set()
    for mask, swap, both, anchor in zip(masked, swapped, full[1], anchors, strict=True):
        erased = np.all(mask == 0, axis=-1)
        rows, columns = erased.any(axis=1), erased.any(axis=0)
        assert np.array_equal(erased, rows[:, None] & columns[None, :])  # one box
        assert 0.14 < erased.mean() < 0.47
        assert not np.any(np.all(swap == 0, axis=-1))
        # One order turns the erased view into `full`, and the view without erasing into `swap`.
        order = [
            order
            for order in map(list, itertools.permutations(range(4)))
            if np.allclose(quarters(mask)[order], quarters(both), atol=1e-6)
        ]
        assert order
        plain = np.zeros((4, 16, 16, 3), np.float32)
        plain[order[0]] = quarters(swap)
        kept = ~np.all(quarters(mask) == 0, axis=-1)
        np.testing.assert_allclose(plain[kept], quarters(mask)[kept], atol=1e-6)
        # Drawn afresh, not the anchor again.
        assert np.abs(plain - quarters(anchor)).max() > 0.5
        orders.add(tuple(order[0]))
    assert len(orders) > 2


def test_corners_are_black_before_normalising(full):
    anchors = full[0]
    corners = np.all(np.abs(anchors - (-MEAN / STD)) < 1e-6, axis=-1)
    inner = np.zeros((32, 32), bool)
    inner[8:24, 8:24] = True
    assert corners[:, ~inner].mean() > 0.01
    assert not corners[:, inner].any()


def test_with_every_step_off_a_view_is_the_normalised_image(images):
    config = ViewConfig(
        kind="base",
        size=SIDE,
        crop_scale=(1, 1),
        crop_ratio=(1, 1),
        brightness=0,
        degrees=0,
        flip=0,
    )
    anchors, _ = two_views.make_views(small_keys(), images, config=config)
    expected = (images.astype(np.float64) / 255 - MEAN) / STD
    np.testing.assert_allclose(anchors, expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("core", "parameter"),
    [(functools.partial(crop.crop, size=16), (2, 3, 17, 19)), (transforms.rotate, 9.3)],
)
def test_eager_is_jitted(core, parameter):
    """Of those that the tests above jit."""
    image = jnp.asarray(noise(20, 24, 3).astype(np.float32) / 255)
    jitted = jax.jit(core)(image, jnp.array(parameter))
    np.testing.assert_allclose(core(image, jnp.array(parameter)), jitted, atol=1e-6, rtol=0)


def test_jitted_is_vmapped():
    """Each random step in turn, and with it each core with parameters that are traced."""
    keys = jax.random.split(jax.random.key(4), 3)
    image = noise(20, 24, 3).astype(np.float32) / 255

    def chain(key: jax.Array, image: jax.Array) -> jax.Array:
        view = transforms.random_resized_crop(key, image, size=16, scale=(0.5, 1), ratio=(0.7, 1.4))
        view = transforms.random_brightness(key, view, brightness=0.3)
        view = transforms.random_rotate(key, view, degrees=15)
        view = transforms.random_flip_horizontal(key, view, probability=0.5)
        view = transforms.normalize(view)
        view = transforms.random_erase(key, view, area=(0.15, 0.45), ratio=(0.3, 3.3))
        return transforms.random_shuffle_parts(key, view, parts=2)

    jitted = jax.jit(chain)
    vmapped = jax.jit(jax.vmap(chain, in_axes=(0, None)))(keys, image)
    expected = np.stack([jitted(key, image) for key in keys])
    # Pixels to 1e-6, which normalising multiplies by 4.4.
    np.testing.assert_allclose(vmapped, expected, atol=5e-6, rtol=0)


def test_key_comes_first_and_options_are_keyword_only():
    arrays = {"image", "images", "box", "factor", "angle", "order", "seed", "epoch", "ids"}
    functions = {
        name: function
        for module in (transforms, two_views)
        for name, function in vars(module).items()
        if not name.startswith("_")
        and not inspect.isclass(function)
        and getattr(function, "__module__", None) == module.__name__
    }
    functions["crop"] = crop.crop
    assert len(functions) == 18
    for name, function in functions.items():
        parameters = list(inspect.signature(function).parameters.values())
        if name.startswith("random_") or name == "make_views":
            assert parameters.pop(0).name == ("keys" if name == "make_views" else "key"), name
        for parameter in parameters:
            by_keyword = parameter.kind is inspect.Parameter.KEYWORD_ONLY
            assert by_keyword != (parameter.name in arrays), (name, parameter.name)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"kind": "both"}, "'both'; it must be one of full, base, mask_only, swap_only"),
        ({"size": 0}, "image_size is 0"),
        ({"size": 448, "parts": 3}, "views.parts is 3, which does not divide image_size 448"),
        ({"parts": 0}, "views.parts is 0"),
        ({"crop_scale": (0.9, 0.5)}, "views.crop_scale is"),
        ({"crop_scale": (0.5, 1.2)}, "views.crop_scale is"),
        ({"crop_ratio": (0, 1)}, "views.crop_ratio is"),
        ({"erase_area": (0.1, 2)}, "views.erase_area is"),
        ({"erase_ratio": (1,)}, "views.erase_ratio is"),
        ({"brightness": -0.1}, "views.brightness is -0.1; it must lie in 0..1"),
        ({"degrees": 41, "kernel": KernelConfig()}, "the kernel rotates by 40.0 at most"),
        ({"degrees": 181}, "views.degrees is 181"),
        ({"flip": 1.5}, "views.flip is 1.5"),
    ],
)
def test_senseless_options_are_refused(values, words):
    with pytest.raises(ValueError, match=words):
        ViewConfig(**values)


def test_options_from_json_are_options():
    values: dict[str, Any] = json.loads('{"crop_scale": [0.67, 1.0]}')
    assert hash(ViewConfig(**values)) == hash(ViewConfig())
    assert ViewConfig(kind="base", size=225).size == 225  # nothing is shuffled


def test_wrong_arrays_are_refused(images):
    with pytest.raises(ValueError, match="they must be uint8"):
        two_views.make_views(small_keys(), images.astype(np.float32), config=SMALL)
    with pytest.raises(ValueError, match=r"keys have the shape \(8,\); it must be \(4,\)"):
        two_views.make_views(small_keys(), images[:4], config=SMALL)
    with pytest.raises(ValueError, match="4 parts do not divide an image of 6x8 pixels"):
        transforms.shuffle_parts(jnp.zeros((6, 8, 3)), jnp.arange(16), parts=4)
