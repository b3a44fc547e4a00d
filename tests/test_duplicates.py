"""Same pixels, and almost the same look: against the definition, and plain Python integers."""

import io
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageEnhance

from clevit_jax.data import procedural_leaves
from clevit_jax.data.audit import duplicates


def noise(seed, size=(48, 40)):
    """Smooth noise of one hue, so that resizing and saving change little."""
    grey = np.random.RandomState(seed).randint(0, 256, (12, 10, 1))
    pixels = (grey * (1.0, 0.8, 0.6)).astype(np.uint8)
    return Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC)


def leaf(class_index, index):
    rng = procedural_leaves.leaf_rng(0, class_index, "train", index)
    return Image.fromarray(
        procedural_leaves.draw_leaf(procedural_leaves.cultivar(class_index), rng, size=64)
    )


def saved(image, kind, **options):
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return Image.open(stream).convert("RGB")


def test_pixel_digest():
    image = noise(0)
    assert len(duplicates.pixel_digest(image)) == 16
    assert duplicates.pixel_digest(image) == duplicates.pixel_digest(saved(image, "BMP"))
    other = image.copy()
    other.putpixel((47, 39), tuple(255 - x for x in image.getpixel((47, 39))))
    assert duplicates.pixel_digest(other) != duplicates.pixel_digest(image)
    turned = Image.frombytes("RGB", (40, 48), image.tobytes())  # the same bytes in another shape
    assert duplicates.pixel_digest(turned) != duplicates.pixel_digest(image)


def test_perceptual_hash_is_the_lowest_frequencies_against_their_median():
    pixels = np.random.RandomState(1).randint(0, 256, (70, 100, 3), np.uint8)
    image = Image.fromarray(pixels)  # with detail that a smaller hash would not see
    small = np.asarray(image.convert("L").resize((64, 64), Image.Resampling.LANCZOS), float)
    n = np.arange(64)
    dct = 2 * np.cos(np.pi * n[:, None] * (2 * n[None, :] + 1) / 128)  # type II
    low = (dct @ small @ dct.T)[:16, :16]
    bits = "".join("1" if value > np.median(low) else "0" for value in low.ravel())
    found = duplicates.perceptual_hash(image)
    assert found.dtype == np.uint64
    assert found.shape == (4,)
    assert found.tobytes() == int(bits, 2).to_bytes(32, "big")


@pytest.mark.parametrize("picture", [noise(2, (320, 240)), leaf(3, 1)], ids=["noise", "leaf"])
@pytest.mark.parametrize(
    "change",
    [
        lambda x: saved(x, "JPEG", quality=60),
        lambda x: x.resize((x.width // 2, x.height // 2), Image.Resampling.BICUBIC),
        lambda x: ImageEnhance.Brightness(x).enhance(0.8),
        lambda x: x.quantize(64).convert("RGB"),
    ],
    ids=["jpeg", "half", "darker", "64 colours"],
)
def test_copies_look_alike(picture, change):
    first, second = (duplicates.perceptual_hash(x) for x in (picture, change(picture)))
    assert duplicates.pixel_digest(picture) != duplicates.pixel_digest(change(picture))
    assert duplicates.distances(first, second) <= duplicates.ALIKE


def test_leaves_do_not_look_alike():
    """Drawn on paper, tip up: with the usual 64 bits, some of them would."""
    hashes = np.stack([duplicates.perceptual_hash(leaf(c, k)) for c in range(8) for k in range(12)])
    assert duplicates.alike_groups(hashes) == []
    assert len(duplicates.alike_groups(hashes, most=256)) == 1


def as_hashes(numbers):
    """uint64 [N, 4] of integers below 2**256."""
    words = [[number >> (64 * k) & (2**64 - 1) for k in range(4)] for number in numbers]
    return np.array(words, np.uint64).reshape(-1, 4)


def apart(x, y):
    return bin(x ^ y).count("1")


@pytest.mark.parametrize("bits", [0, 1, 16, 17])
@pytest.mark.parametrize("shift", [0, 60, 200, 239])
def test_the_threshold_is_reached_in_any_word(bits, shift):
    numbers = [2**255 + 12345, (2**255 + 12345) ^ (((1 << bits) - 1) << shift)]
    hashes = as_hashes(numbers)
    assert duplicates.distances(*hashes) == bits == apart(*numbers)
    assert duplicates.alike_groups(hashes) == ([[0, 1]] if bits <= 16 else [])


@pytest.fixture(scope="module", params=[(256, 2048), (3, 2), (2, 5)], ids=str)
def blocks(request):
    """Blocks of pairs, also so small that there are several."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(duplicates, "_ROWS", request.param[0])
        patch.setattr(duplicates, "_COLUMNS", request.param[1])
        yield


@st.composite
def near_numbers(draw):
    """Integers of 256 bits, of which some differ in few bits."""
    bases = draw(st.lists(st.integers(0, 2**256 - 1), min_size=1, max_size=3))
    flips = st.lists(st.integers(0, 255), max_size=14)
    count = draw(st.integers(0, 12))
    numbers = []
    for _ in range(count):
        number = draw(st.sampled_from(bases + numbers))  # so that there are chains, too
        for bit in draw(flips):
            number ^= 1 << bit
        numbers.append(number)
    return numbers


@settings(max_examples=150, deadline=None, derandomize=True)
@given(numbers=near_numbers(), most=st.sampled_from([0, 6, 16]))
def test_pairs_and_groups_are_those_of_brute_force(blocks, numbers, most):
    wanted = {
        (i, j)
        for i, j in itertools.combinations(range(len(numbers)), 2)
        if apart(numbers[i], numbers[j]) <= most
    }
    hashes = as_hashes(numbers)
    found = [tuple(pair) for block in duplicates.alike_pairs(hashes, most=most) for pair in block]
    assert sorted(found) == sorted(wanted)
    groups = [{i} for i in range(len(numbers))]
    for i, j in wanted:
        first, second = (next(group for group in groups if x in group) for x in (i, j))
        if first is not second:
            groups = [group for group in groups if group not in (first, second)]
            groups.append(first | second)
    linked = sorted(sorted(group) for group in groups if len(group) > 1)
    assert duplicates.alike_groups(hashes, most=most) == linked


def test_a_long_chain_is_one_group(blocks):
    """Each is alike to the next, in an order that takes many steps to follow."""
    chain = [(1 << (16 * k)) - 1 for k in range(17)]
    order = np.random.RandomState(0).permutation(17)
    hashes = as_hashes([chain[k] for k in order])
    assert duplicates.alike_groups(hashes) == [list(range(17))]
    assert duplicates.alike_groups(hashes, most=15) == []
