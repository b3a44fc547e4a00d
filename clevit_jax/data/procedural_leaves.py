"""Procedural leaves: a small ultra-fine-grained set that needs no network and no licence.

A leaf is drawn in one coordinate system. With `u` along the midrib (0 at the base, 1 at the tip)
and `v` across it, the number `q` says at which point of the midrib the secondary vein through
`(u, v)` starts: `u = q + lean(q) |v| + curvature v^2`. The secondary veins are the lines of equal
q, the outline is a half-width w(q), and lobes and teeth are periodic in q: so they point where
the veins go, as on a real leaf.

Every number comes from `(seed, class, split, index)` through PCG64 uniforms and float64
arithmetic, so the pixels do not depend on the order of drawing or on the number of images. The
bytes of a PNG file also depend on the zlib that Pillow was built with; its pixels do not.
"""

import colorsys
import dataclasses
import functools
import io
import json
import math
import os
import pathlib
from collections.abc import Callable, Iterator

import numpy as np
from PIL import Image

from clevit_jax.system.files import replacing

# Raise it when a change of the drawing changes pixels: an older set on disk is then not reused.
VERSION = 1
SPLITS = ("train", "test")

# Range (low, high) of each parameter of a cultivar, in the order of Cultivar's fields.
_RANGES = {
    "width": (0.17, 0.48),
    "widest": (0.28, 0.64),
    "taper": (0.55, 1.15),
    "base_lean": (-0.55, 0.55),
    "tip_lean": (0.30, 1.10),
    "curvature": (-0.30, 0.60),
    "lobes": (1.6, 5.0),
    "lobe_depth": (-0.25, 0.55),
    "teeth": (4.0, 15.0),
    "tooth_depth": (-0.02, 0.09),
    "veins": (4.0, 11.0),
    "vein_contrast": (0.15, 0.55),
    "texture": (6.0, 20.0),
    "petiole": (0.08, 0.30),
    "hue": (0.255, 0.285),
}


@dataclasses.dataclass(frozen=True)
class Cultivar:
    """What makes a cultivar; lengths are in units of the midrib's length, counts are per side."""

    width: float  # greatest half-width
    widest: float  # where along the midrib that is
    taper: float  # exponent of the outline; small is blunt at both ends, large is pointed
    base_lean: float  # du/dv of the first secondary vein; negative gives a heart-shaped base
    tip_lean: float  # du/dv of the last one
    curvature: float  # of the secondary veins, towards the tip
    lobes: float  # count
    lobe_depth: float  # share of the half-width that is cut between lobes; none below 0
    teeth: float  # count
    tooth_depth: float  # none below 0
    veins: float  # count
    vein_contrast: float  # how much lighter the veins are than the blade
    texture: float  # cells of the surface noise along the picture
    petiole: float  # length of the stalk
    hue: float  # of the blade, in [0, 1); nearly the same in all cultivars, on purpose


def _check_difficulty(difficulty: float) -> None:
    if not 0.0 <= difficulty <= 1.0:
        raise ValueError(f"difficulty is {difficulty}; it has to lie in [0, 1].")


def cultivar(class_index: int, *, seed: int = 0, difficulty: float = 0.5) -> Cultivar:
    """Returns the cultivar of a class, counted from 0; it does not depend on how many there are.

    The classes are points of a Kronecker sequence, one irrational step per parameter, which keeps
    any number of them apart; `difficulty` draws them together. Raises ValueError if
    `class_index` is negative or `difficulty` is outside [0, 1].
    """
    _check_difficulty(difficulty)
    if class_index < 0:
        raise ValueError(f"class_index is {class_index}; classes are counted from 0.")
    primes = np.array([2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47])
    rng = np.random.default_rng([seed, 0])
    steps = np.sqrt(primes[np.argsort(rng.random(len(primes)))])
    place = (rng.random(len(primes)) + class_index * steps) % 1.0
    place = 0.5 + (1.0 - 0.8 * difficulty) * (place - 0.5)
    low, high = np.array(list(_RANGES.values())).T
    return Cultivar(*(low + place * (high - low)).tolist())


def _individual(kind: Cultivar, rng: np.random.Generator, difficulty: float) -> Cultivar:
    """One leaf of the cultivar: each parameter a little off, by a share of its whole range."""
    amount = 0.04 + 0.12 * difficulty
    low, high = np.array(list(_RANGES.values())).T
    off = amount * (high - low) * rng.uniform(-1.0, 1.0, len(low))
    return Cultivar(*(np.array(dataclasses.astuple(kind)) + off).tolist())


def _noise(rng: np.random.Generator, cells: float, side: int) -> np.ndarray:
    """Smooth noise [side, side] in about [-1, 1] with `cells` periods along the picture."""
    n = max(2, round(cells))
    grid = rng.uniform(-1.0, 1.0, (n, n)).astype(np.float32)
    return np.asarray(Image.fromarray(grid).resize((side, side), Image.Resampling.BICUBIC), float)


def _blur(layer: np.ndarray, cells: int) -> np.ndarray:
    """The layer [side, side] at `cells` cells along the picture, and smoothly back."""
    image = Image.fromarray(layer.astype(np.float32))
    small = image.resize((cells, cells), Image.Resampling.BOX)
    return np.asarray(small.resize(image.size, Image.Resampling.BICUBIC), float)


def _half_width(leaf: Cultivar, rng: np.random.Generator) -> np.ndarray:
    """Half-width w(q) of the left and the right side at 513 points of q in [0, 1]: [2, 513]."""
    q = np.linspace(0.0, 1.0, 513)
    a, b = 2 * leaf.taper * leaf.widest, 2 * leaf.taper * (1.0 - leaf.widest)
    envelope = (q / leaf.widest) ** a * ((1.0 - q) / (1.0 - leaf.widest)) ** b
    sides = []
    for _ in range(2):
        drift = 0.02 * np.sin(2 * np.pi * (q * rng.uniform(1.0, 3.0) + rng.random()))
        cut = 0.5 - 0.5 * np.cos(2 * np.pi * (leaf.lobes * (q + drift) + 0.5))
        lobed = 1.0 - max(leaf.lobe_depth, 0.0) * cut
        # A tooth rises slowly and falls fast towards the tip.
        phase = (leaf.teeth * (q + drift) + rng.random()) % 1.0
        tooth = np.minimum(phase / 0.75, (1.0 - phase) / 0.25) - 0.5
        ends = np.minimum(1.0, 6.0 * np.minimum(q, 1.0 - q))
        w = envelope * lobed * leaf.width * rng.uniform(0.95, 1.05)
        sides.append(w + max(leaf.tooth_depth, 0.0) * tooth * ends)
    return np.stack(sides)


def _pose(
    leaf: Cultivar, outline: np.ndarray, rng: np.random.Generator, side: int, difficulty: float
) -> tuple[np.ndarray, np.ndarray, float]:
    """u and v of each pixel, both [side, side], and the length of a pixel in their unit."""
    q = np.linspace(0.0, 1.0, outline.shape[1])
    w = outline.max(axis=0)
    along = q + (leaf.base_lean + (leaf.tip_lean - leaf.base_lean) * q) * w + leaf.curvature * w**2
    low, high = min(along.min(), -0.5 * leaf.petiole), along.max()
    half = max(high - low, 2.0 * w.max()) / 2.0  # the leaf's box, so that each fills the frame

    strength = 0.3 + 1.4 * difficulty
    scale = half / (0.95 - 0.10 * strength * rng.random())
    angle = math.radians(12.0) * strength * rng.uniform(-1.0, 1.0)
    dx, dy, tilt_x, tilt_y, bend = 0.06 * strength * rng.uniform(-1.0, 1.0, 5)

    axis = (np.arange(side) + 0.5) / side * 2.0 - 1.0
    x, y = axis[None, :] - dx, dy - axis[:, None]
    depth = 1.0 + tilt_x * x + tilt_y * y
    x, y = x / depth, y / depth
    u = scale * (math.cos(angle) * y - math.sin(angle) * x) + (low + high) / 2.0
    v = scale * (math.sin(angle) * y + math.cos(angle) * x)
    return u, v + 4.0 * bend * (u - 0.5) ** 2 - bend, 2.0 * scale / side


def _cover(inside: np.ndarray, pixel: float, *, soft: float = 1.0) -> np.ndarray:
    """Share of each pixel that lies where the signed distance `inside` is positive."""
    return np.clip(0.5 + inside / (soft * pixel), 0.0, 1.0)


def _shape(
    leaf: Cultivar, rng: np.random.Generator, side: int, difficulty: float
) -> dict[str, np.ndarray]:
    """The leaf's layers, each [side, side]: blade, stalk, veins, relief, shadow."""
    outline = _half_width(leaf, rng)
    u, v, pixel = _pose(leaf, outline, rng, side, difficulty)
    across, right = np.abs(v), v > 0.0
    spread = leaf.tip_lean - leaf.base_lean
    q = (u - leaf.base_lean * across - leaf.curvature * across**2) / np.maximum(
        1.0 + spread * across, 0.2
    )
    grid = np.linspace(0.0, 1.0, outline.shape[1])
    w = np.where(right, np.interp(q, grid, outline[1]), np.interp(q, grid, outline[0]))
    inside = w - across - 4.0 * np.maximum(np.maximum(-q, q - 1.0), 0.0)
    slope_y, slope_x = np.gradient(inside, pixel)
    distance = inside / np.maximum(np.hypot(slope_y, slope_x), 0.5)
    blade = _cover(distance, pixel)

    stalk = _cover(0.013 - across, pixel) * _cover(u + leaf.petiole, pixel) * _cover(-u, pixel)
    midrib = _cover(0.016 * (1.0 - 0.8 * np.clip(u, 0.0, 1.0)) - across, pixel, soft=1.5)
    phase = leaf.veins * q + rng.random() + 0.5 * right  # alternate: the sides are half a step off
    offset = phase - np.round(phase)
    lean = leaf.base_lean + spread * np.clip(q, 0.0, 1.0)
    apart = np.abs(offset) / leaf.veins / np.sqrt(1.0 + lean**2)
    fade = np.clip(1.2 - across / np.maximum(w, 1e-3), 0.0, 1.0)
    secondary = _cover(0.008 * fade + 0.002 - apart, pixel, soft=1.5) * (0.35 + 0.65 * fade)
    return {
        "blade": blade,
        "stalk": stalk,
        "veins": np.maximum(midrib, secondary) * blade,
        "relief": np.sin(2.0 * np.pi * offset) * fade,
        "shadow": _blur(blade, 12),
    }


def _light(rng: np.random.Generator, side: int, difficulty: float) -> np.ndarray:
    """Brightness, its gradient over the picture and white balance: [side, side, 3]."""
    strength = 0.5 + difficulty
    brightness = 1.0 + 0.18 * strength * rng.uniform(-1.0, 1.0)
    direction = 2.0 * math.pi * rng.random()
    axis = np.linspace(-1.0, 1.0, side)
    ramp = math.cos(direction) * axis[None, :] + math.sin(direction) * axis[:, None]
    balance = 1.0 + 0.08 * strength * rng.uniform(-1.0, 1.0, 3)
    field = brightness * (1.0 + 0.12 * strength * rng.random() * ramp)
    return field[:, :, None] * balance  # [side, side, 3]


def draw_leaf(
    cultivar: Cultivar, rng: np.random.Generator, *, size: int = 128, difficulty: float = 0.5
) -> np.ndarray:
    """Draws one leaf of a cultivar, on paper, tip up.

    Args:
        cultivar: what all leaves of the class share.
        rng: where this leaf's own shape, its pose, the light and the background come from.
        size: side of the picture in pixels.
        difficulty: in [0, 1]; how much leaves of one cultivar differ, and how strong pose and
            light are (at 0.5: rotation within 12 degrees, brightness within 18 %).

    Returns:
        uint8 [size, size, 3], RGB. Raises ValueError if `difficulty` is outside [0, 1].
    """
    _check_difficulty(difficulty)
    side = 2 * size  # drawn at twice the size and averaged: veins are thinner than a pixel
    leaf = _individual(cultivar, rng, difficulty)
    layers = _shape(leaf, rng, side, difficulty)

    # Age and season move the colour of a leaf far more than its cultivar does.
    hue = leaf.hue + 0.06 * rng.uniform(-1.0, 1.0)
    saturation, value = rng.uniform(0.40, 0.75), rng.uniform(0.32, 0.60)
    green = np.array(colorsys.hsv_to_rgb(hue, saturation, value))
    pale = np.array(colorsys.hsv_to_rgb(hue - 0.04, 0.6 * saturation, min(1.0, 1.7 * value)))
    surface = 1.0 + 0.14 * _noise(rng, leaf.texture, side) + 0.10 * _noise(rng, 3, side)
    surface += 0.09 * layers["relief"] * (1.0 if rng.random() < 0.5 else -1.0)
    veins = (leaf.vein_contrast * layers["veins"])[:, :, None]
    blade = green * surface[:, :, None] * (1.0 - veins) + pale * veins  # [side, side, 3]
    dry = np.clip(3.0 * (_noise(rng, 5, side) - rng.uniform(0.5, 1.4)), 0.0, 0.8)[:, :, None]
    blade = blade * (1.0 - dry) + np.array([0.55, 0.42, 0.22]) * dry

    tone = rng.uniform(0.70, 0.95) + 0.03 * rng.uniform(-1.0, 1.0, 3)
    paper = tone * (1.0 + 0.02 * _noise(rng, 24, side) - 0.25 * layers["shadow"])[:, :, None]
    stalk, cover = layers["stalk"][:, :, None], layers["blade"][:, :, None]
    picture = paper * (1.0 - stalk) + 0.8 * pale * stalk
    picture = (picture * (1.0 - cover) + blade * cover) * _light(rng, side, difficulty)
    picture = picture.reshape(size, 2, size, 2, 3).mean(axis=(1, 3))  # [size, size, 3]
    return np.round(255.0 * np.clip(picture, 0.0, 1.0)).astype(np.uint8)


def leaf_rng(seed: int, class_index: int, split: str, index: int) -> np.random.Generator:
    """Returns the generator of one leaf of a set: a function of its identity alone."""
    return np.random.default_rng([seed, 1, class_index, SPLITS.index(split), index])


def _write_whole(path: pathlib.Path, content: bytes) -> None:
    """Writes a file so that no reader, and no interruption, ever meets half of it."""
    with replacing(path) as new:
        new.write_bytes(content)


def _is_finished(root: pathlib.Path, wanted: dict[str, float]) -> bool:
    """Whether `root` holds the whole wanted set, not a part of it or nothing.

    Raises:
        FileExistsError: it holds something else.
    """
    if root.exists() and not root.is_dir():
        raise FileExistsError(f"{root} is a file; give a folder for the leaf set.")
    for mark in (root / "leaves.json", root / "leaves.partial.json"):
        if not mark.exists():
            continue
        try:
            written = dict(json.loads(mark.read_text()))
        except (ValueError, TypeError):
            raise FileExistsError(
                f"{mark} does not describe a leaf set; give another folder."
            ) from None
        if written != wanted:
            raise FileExistsError(
                f"{root} holds another leaf set ({written} instead of {wanted}); "
                "give another folder."
            )
        return mark.name == "leaves.json"
    if root.exists() and any(root.iterdir()):
        raise FileExistsError(
            f"{root} is not empty and does not hold a leaf set; give an empty folder."
        )
    return False


def _files(wanted: dict[str, int], difficulty: float) -> Iterator[tuple[str, Callable[[], bytes]]]:
    """Name of every file of a set but its mark, and what makes its bytes when called."""
    seed, size, classes = wanted["seed"], wanted["size"], wanted["classes"]
    kinds = [cultivar(index, seed=seed, difficulty=difficulty) for index in range(classes)]

    def image(label: int, split: str, k: int) -> bytes:
        rng = leaf_rng(seed, label, split, k)
        png = io.BytesIO()
        pixels = draw_leaf(kinds[label], rng, size=size, difficulty=difficulty)
        Image.fromarray(pixels).save(png, "PNG")
        return png.getvalue()

    for split in SPLITS:
        lines = ""
        for label, k in np.ndindex(classes, wanted[f"{split}_per_class"]):
            name = f"{label + 1:02d}_{k + 1:02d}_{split}.png"
            lines += f"{name} {label + 1}\n"
            yield f"images/{name}", functools.partial(image, label, split, k)
        yield f"anno/{split}.txt", lines.encode
    names = "".join(f"cultivar-{index + 1:02d}\n" for index in range(classes))
    yield "classes.txt", names.encode


def write_dataset(
    root: str | os.PathLike[str],
    *,
    classes: int,
    train_per_class: int,
    test_per_class: int,
    size: int = 128,
    seed: int = 0,
    difficulty: float = 0.5,
) -> pathlib.Path:
    """Writes a leaf set in the layout of the UFG sets, or finds that it is already there.

    `images/<class>_<k>_<split>.png`; `anno/train.txt` and `anno/test.txt` with a line
    `<file> <label>` per image, labels from 1; `classes.txt` with one name per line; and last
    `leaves.json` with these arguments. A set that was begun with the same arguments is written
    anew, a finished one is left alone but for files that are missing.

    Args:
        root: the folder; new, empty, or holding this very set.
        classes: number of cultivars.
        train_per_class, test_per_class: images of each.
        size: side of the images in pixels.
        seed: of the cultivars and of the leaves.
        difficulty: in [0, 1], see `cultivar` and `draw_leaf`.

    Returns:
        `root` as a path.

    Raises:
        ValueError: if a number is out of its range.
        FileExistsError: if `root` is a file, or a folder that holds something else.
    """
    least = {"classes": 1, "train_per_class": 1, "test_per_class": 0, "size": 16, "seed": 0}
    given = dict(zip(least, (classes, train_per_class, test_per_class, size, seed), strict=True))
    wrong = [f"{key} is {n}, not >= {least[key]}" for key, n in given.items() if n < least[key]]
    if wrong:
        raise ValueError(f"No leaf set can be written: {'; '.join(wrong)}.")
    _check_difficulty(difficulty)

    root = pathlib.Path(root)
    wanted = {"version": VERSION, **given, "difficulty": difficulty}
    mark = (json.dumps(wanted, indent=2) + "\n").encode()
    finished = _is_finished(root, wanted)
    for folder in (root, root / "images", root / "anno"):
        folder.mkdir(parents=True, exist_ok=True)
    if not finished:
        _write_whole(root / "leaves.partial.json", mark)
    for name, content in _files(given, difficulty):
        if not (finished and (root / name).exists()):
            _write_whole(root / name, content())
    if not finished:
        _write_whole(root / "leaves.json", mark)
        (root / "leaves.partial.json").unlink(missing_ok=True)
    return root
