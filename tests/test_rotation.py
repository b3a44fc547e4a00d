"""The rotation's kernel for TPUs against its gather, bit by bit, and the views made with it."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from clevit_jax.config import resolve
from clevit_jax.distributed import sharding
from clevit_jax.kernels.config import KernelConfig
from clevit_jax.kernels.rotation import (
    MAX_DEGREES,
    _table,
    can_shuffle,
    fits_vmem,
    plane_shape,
    rotate_planes,
)
from clevit_jax.steps import jitted
from clevit_jax.steps.jitted import make_jitted_steps, make_train_step
from clevit_jax.views import crop, rotation, transforms, two_views, two_views_tpu
from clevit_jax.views.config import KINDS, ViewConfig

ANGLES = np.float32([0, 0.001, -0.4, 3.21, -7.3, 14.9, 15, -15, 29.3, 40, -40])
SMALL = ViewConfig(size=24, kernel=KernelConfig(interpret=True))


def images(number: int, side: int) -> np.ndarray:
    return np.random.RandomState(0).randint(0, 256, (number, side, side, 3), np.uint8)


def planes(turned: np.ndarray, size: int) -> np.ndarray:
    """[N, S, S, C] -> [N, C, R, P] with numbers beyond the image that no pixel may take."""
    rows, columns = plane_shape(size)
    spare = ((0, 0), (0, 0), (0, rows - size), (0, columns - size))
    return np.pad(turned.transpose(0, 3, 1, 2), spare, constant_values=-7)


# One, two and three tiles of 128 lanes; of sizes that fill whole tiles and that do not.
@pytest.mark.parametrize("size", [1, 60, 128, 131, 300])
def test_the_kernel_picks_what_the_gather_picks(size):
    angles = np.repeat(ANGLES if size < 300 else np.float32([15, -15, 40]), 2)
    flipped = np.arange(len(angles)) % 2 == 1
    picks = jax.vmap(functools.partial(rotation.rotation_picks, shape=(size, size)))(
        angles, flipped
    )
    image = np.random.RandomState(0).rand(len(angles), size, size, 3).astype(np.float32)
    expected = jax.jit(jax.vmap(rotation.gather_pixels))(image, picks)
    kernel = functools.partial(
        rotate_planes, size=size, mean=(0.0,) * 3, deviation=(1.0,) * 3, interpret=True
    )
    nothing = np.zeros((len(angles), 4), np.int32), np.zeros((len(angles), 1), np.int32)
    ours = jax.jit(kernel)(planes(image, size), picks, *nothing)
    np.testing.assert_array_equal(np.moveaxis(np.asarray(ours), 1, -1), expected)


@pytest.mark.parametrize("shape", [(20, 31), (32, 32)])
def test_flipped_picks_are_those_of_the_turned_image_flipped(shape):
    image = np.random.RandomState(1).rand(*shape, 3).astype(np.float32)
    for angle in (-15.0, 0.0, 7.3, 100.0):
        turned = transforms.flip_horizontal(transforms.rotate(jnp.asarray(image), angle))
        ours = rotation.gather_pixels(
            jnp.asarray(image), rotation.rotation_picks(angle, True, shape=shape)
        )
        np.testing.assert_array_equal(ours, turned)


def test_two_tables_hold_every_pixel_at_448():
    """What the kernel rests on, at the recipe's size and up to its steepest angle."""
    size = 448
    row, column = np.mgrid[:size, :size].astype(np.int32)
    for angle in np.linspace(-MAX_DEGREES, MAX_DEGREES, 81, dtype=np.float32):
        for flipped in (False, True):
            at = rotation.rotation_picks(angle, flipped, shape=(size, size))
            e_at = np.asarray(_table(at))
            at = np.asarray(at)
            y = (at[0] + at[1] * column + at[2] * row) >> 16
            x = (at[3] + at[4] * column + at[5] * row) >> 16
            table = x - ((e_at[0] + e_at[1] * column + e_at[2] * y) >> 16)
            assert set(np.unique(table)) <= {0, 1}, (angle, flipped)


def test_crop_in_planes_is_the_crop():
    image = images(1, 180)[0]  # some weights are larger than 256, and so two numbers in bfloat16
    flat = jnp.asarray(image.transpose(2, 0, 1), jnp.bfloat16)
    for box in ((0, 0, 180, 180), (7, 11, 152, 140), (20, 20, 9, 33), (179, 179, 1, 1)):
        ours = two_views_tpu.crop_planes(flat, jnp.array(box), size=31)
        assert ours.shape == (3, 32, 128)
        expected = crop.crop(jnp.asarray(image / np.float32(255)), jnp.array(box), size=31)
        inner = np.asarray(ours[:, :31, :31]).transpose(1, 2, 0)
        np.testing.assert_allclose(inner, expected, atol=5e-7, rtol=0)


@jax.jit
def make_both(keys: jax.Array, images: jax.Array) -> list[tuple[Any, Any]]:
    """The views with the kernel and without: of each kind, and parts that it does not shuffle."""
    made = []
    for kind, size, parts in [*((kind, 32, 2) for kind in KINDS), ("full", 30, 3)]:
        ours = dataclasses.replace(SMALL, kind=kind, size=size, parts=parts)
        assert can_shuffle(size, parts) == (size == 32)
        if kind == "full":
            ours = dataclasses.replace(ours, mean=(0.5, 0.25, 0.125), std=(0.5, 2.0, 0.25))
        plain = dataclasses.replace(ours, kernel=None)
        made.append(tuple(two_views.make_views(keys, images, config=c) for c in (ours, plain)))
    return made


def test_views_are_the_same_with_the_kernel():
    keys = jax.random.split(jax.random.key(3), 6)
    for ours, plain in make_both(keys, images(6, 30)):
        assert (ours[1] is None) == (plain[1] is None)
        for view, expected in zip(ours, plain, strict=True):
            if view is not None:
                np.testing.assert_allclose(view, expected, atol=5e-6, rtol=0)


def test_each_device_turns_its_own_images():
    mesh = jax.make_mesh((4,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    where = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    arguments = jax.random.split(jax.random.key(3), 4), images(4, 30)
    config = dataclasses.replace(SMALL, kernel=KernelConfig(mesh, interpret=True))
    divided = jax.device_put(arguments, where)
    compiled = two_views.make_views.lower(*divided, config=config).compile()
    text = compiled.as_text()
    for collective in ("all-gather", "all-reduce", "all-to-all", "collective-permute"):
        assert collective not in text
    whole = two_views.make_views(*arguments, config=SMALL)
    for ours, expected in zip(compiled(*divided), whole, strict=True):
        assert len(ours.sharding.device_set) == 4
        np.testing.assert_allclose(ours, expected, atol=5e-6, rtol=0)


def test_the_kernel_fits_or_does_not():
    assert fits_vmem(448, degrees=15, vmem=56 << 20)
    assert not fits_vmem(448, degrees=41, vmem=56 << 20)
    assert not fits_vmem(448, degrees=15, vmem=14 << 20)  # a v4


@pytest.mark.parametrize(("size", "parts"), [(192, 3), (144, 2), (32, 4)])
def test_the_kernel_erases_and_shuffles(size, parts):
    """Parts whose edges lie within a tile of lanes, too."""
    random = np.random.RandomState(4)
    image = random.rand(3, size, size, 3).astype(np.float32) + 1
    boxes = np.int32([[0, 0, 0, 0], [5, 9, size // 2, 20], [size - 9, 3, 9, size - 3]])
    orders = np.int32([random.permutation(parts * parts) for _ in boxes])
    angles, flipped = np.float32([0, 12, -15]), np.array([False, True, False])
    picks = jax.vmap(functools.partial(rotation.rotation_picks, shape=(size, size)))(
        angles, flipped
    )
    kernel = functools.partial(
        rotate_planes, size=size, mean=(0.5, 1.0, 1.5), deviation=(0.5, 1.0, 2.0), interpret=True
    )
    ours = jax.jit(kernel)(planes(image, size), picks, boxes, orders)
    rotated = np.asarray(jax.vmap(rotation.gather_pixels)(image, picks))
    normalised = (rotated - [0.5, 1.0, 1.5]) / [0.5, 1, 2]
    erased = jax.vmap(transforms.erase)(jnp.asarray(normalised, jnp.float32), boxes)
    shuffled = jax.vmap(functools.partial(transforms.shuffle_parts, parts=parts))(erased, orders)
    np.testing.assert_allclose(np.moveaxis(np.asarray(ours), 1, -1), shuffled, atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("kernels", "degrees", "platform", "expected"),
    [
        ("auto", 15.0, "tpu", True),
        ("auto", 15.0, "cpu", False),
        ("xla", 15.0, "tpu", False),
        ("auto", 90.0, "tpu", False),  # the gather turns by any angle
    ],
)
def test_tpus_take_the_kernel(monkeypatch, kernels, degrees, platform, expected):
    taken = []
    make = make_train_step
    monkeypatch.setattr(
        jitted, "make_train_step",
        lambda *arguments, views, **options: (
            taken.append(views) or make(*arguments, views=views, **options)
        ),
    )  # fmt: skip
    config = tiny.get_config()
    with config.unlocked():
        config.model.kernels, config.views.degrees = kernels, degrees
    mesh = sharding.make_mesh(1, 1, devices=jax.devices()[:1])
    jitted._shared_steps.cache_clear()  # other tests may have made the same
    make_jitted_steps(resolve(config, None, platform).step, mesh)
    (view_config,) = taken
    assert (view_config.kernel is not None) == expected
    if expected:
        assert (view_config.kernel.mesh, view_config.kernel.interpret) == (mesh, False)
