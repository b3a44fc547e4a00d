"""The procedural leaf set: what is on disk, what is random, and what tells cultivars apart."""

import dataclasses
import json
import pathlib
from typing import Any

import numpy as np
import pytest
from PIL import Image

from clevit_jax.data import procedural_leaves

CLASSES, TRAIN, TEST, SIZE = 8, 16, 12, 64


def read_split(root: pathlib.Path, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Images uint8 [n, H, W, 3] and labels from 0 [n] of a set in the UFG layout."""
    lines = [line.split() for line in (root / "anno" / f"{split}.txt").read_text().splitlines()]
    images = [np.asarray(Image.open(root / "images" / name)) for name, _ in lines]
    return np.stack(images), np.array([int(label) - 1 for _, label in lines])


def nearest_neighbour_accuracy(
    train: np.ndarray, train_labels: np.ndarray, test: np.ndarray, test_labels: np.ndarray
) -> float:
    """Share of the test rows whose L1-nearest training row has their label."""
    nearest = [np.abs(train - row).sum(axis=1).argmin() for row in test]
    return float(np.mean(train_labels[nearest] == test_labels))


def colour_histograms(images: np.ndarray) -> np.ndarray:
    """RGB histograms of 8x8x8 bins: [n, 512], each summing to one."""
    bins = images.reshape(len(images), -1, 3).astype(int) // 32
    code = bins[..., 0] * 64 + bins[..., 1] * 8 + bins[..., 2]
    return np.stack([np.bincount(row, minlength=512) / row.size for row in code])


def colour_histogram_accuracy(root: pathlib.Path) -> float:
    """Test accuracy of a nearest neighbour that sees colours only."""
    (train, labels), (test, test_labels) = read_split(root, "train"), read_split(root, "test")
    return nearest_neighbour_accuracy(
        colour_histograms(train), labels, colour_histograms(test), test_labels
    )


def edge_histograms(images: np.ndarray, cells: int = 8, directions: int = 8) -> np.ndarray:
    """Gradient directions (no colour) in a grid of cells, weighted by strength, unit length."""
    grey = images.astype(float).mean(axis=3)
    d_y, d_x = np.gradient(grey, axis=(1, 2))
    turn = np.floor(np.arctan2(d_y, d_x) % np.pi / np.pi * directions).astype(int) % directions
    n, cell = len(images), images.shape[1] // cells
    strength = np.hypot(d_y, d_x)[..., None] * (turn[..., None] == np.arange(directions))
    pooled = strength.reshape(n, cells, cell, cells, cell, directions).sum(axis=(2, 4))
    rows = np.sqrt(pooled.reshape(n, -1))
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def shape_accuracy(root: pathlib.Path) -> float:
    """Test accuracy of a nearest neighbour that sees edges only."""
    (train, labels), (test, test_labels) = read_split(root, "train"), read_split(root, "test")
    return nearest_neighbour_accuracy(
        edge_histograms(train), labels, edge_histograms(test), test_labels
    )


def silhouette(image: np.ndarray) -> np.ndarray:
    """Where the leaf is, [H, W]: the blue channel below Otsu's threshold (leaves lack blue)."""
    blue = image[..., 2].astype(int)
    count = np.bincount(blue.ravel(), minlength=256).astype(float)
    below, total = np.cumsum(count), np.cumsum(count * np.arange(256))
    with np.errstate(divide="ignore", invalid="ignore"):
        gap = total / below - (total[-1] - total) / (below[-1] - below)
        between = below * (below[-1] - below) * gap**2
    return blue <= np.nanargmax(between)


def draw(class_index: int, index: int, *, difficulty: float, size: int = SIZE) -> np.ndarray:
    kind = procedural_leaves.cultivar(class_index, seed=3, difficulty=difficulty)
    rng = procedural_leaves.leaf_rng(3, class_index, "train", index)
    return procedural_leaves.draw_leaf(kind, rng, size=size, difficulty=difficulty)


def contents(root: pathlib.Path) -> dict[str, bytes]:
    files = [path for path in root.rglob("*") if path.is_file()]
    return {str(path.relative_to(root)): path.read_bytes() for path in files}


def write(root: pathlib.Path, **changes: Any) -> pathlib.Path:
    sizes: dict[str, Any] = {"classes": 3, "train_per_class": 2, "test_per_class": 1, "size": 32}
    return procedural_leaves.write_dataset(
        root, **(sizes | {"seed": 5, "difficulty": 0.25} | changes)
    )


@pytest.fixture(scope="module")
def default_set(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """Eight classes at the default seed and difficulty."""
    return procedural_leaves.write_dataset(
        tmp_path_factory.mktemp("leaves"),
        classes=CLASSES,
        train_per_class=TRAIN,
        test_per_class=TEST,
        size=SIZE,
    )


# --- on disk ---------------------------------------------------------------------------------


def test_layout_is_that_of_the_ufg_sets(tmp_path: pathlib.Path) -> None:
    root = write(tmp_path / "new" / "leaves")
    assert root == tmp_path / "new" / "leaves"
    expected = {
        "train": "01_01_train 1,01_02_train 1,02_01_train 2,02_02_train 2,03_01_train 3,"
        "03_02_train 3",
        "test": "01_01_test 1,02_01_test 2,03_01_test 3",
    }
    for split, lines in expected.items():
        text = "".join(f"{line.replace(' ', '.png ')}\n" for line in lines.split(","))
        assert (root / "anno" / f"{split}.txt").read_text() == text
    assert (root / "classes.txt").read_text() == "cultivar-01\ncultivar-02\ncultivar-03\n"
    assert len(list((root / "images").iterdir())) == 9
    for path in (root / "images").iterdir():
        with Image.open(path) as image:
            assert (image.format, image.mode, image.size) == ("PNG", "RGB", (32, 32))
    assert json.loads((root / "leaves.json").read_text()) == {
        "version": procedural_leaves.VERSION,
        "classes": 3,
        "train_per_class": 2,
        "test_per_class": 1,
        "size": 32,
        "seed": 5,
        "difficulty": 0.25,
    }
    others = {"leaves.json", "classes.txt", "anno", "images"}
    assert {path.name for path in root.iterdir()} == others


@pytest.mark.parametrize(("classes", "train", "test"), [(1, 1, 0), (2, 3, 2), (101, 1, 0)])
def test_any_counts(tmp_path: pathlib.Path, classes: int, train: int, test: int) -> None:
    root = write(tmp_path, classes=classes, train_per_class=train, test_per_class=test, size=16)
    for split, count in (("train", train), ("test", test)):
        lines = (root / "anno" / f"{split}.txt").read_text().splitlines()
        labels = [int(line.split()[1]) for line in lines]
        assert labels == [label for label in range(1, classes + 1) for _ in range(count)]
        assert all((root / "images" / line.split()[0]).is_file() for line in lines)
    assert len((root / "classes.txt").read_text().split()) == classes
    assert len(list((root / "images").iterdir())) == classes * (train + test)


def test_a_finished_set_is_left_alone(tmp_path: pathlib.Path) -> None:
    root = write(tmp_path)
    before, times = contents(root), {p: p.stat().st_mtime_ns for p in root.rglob("*")}
    write(tmp_path)
    assert {p: p.stat().st_mtime_ns for p in root.rglob("*")} == times
    lost = root / "images" / "02_01_train.png"
    lost.unlink()
    write(tmp_path)
    assert contents(root) == before
    kept = root / "images" / "02_02_train.png"
    assert kept.stat().st_mtime_ns == times[kept]


def test_an_interrupted_write_is_completed(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = contents(write(tmp_path / "whole"))
    real, calls = procedural_leaves.draw_leaf, []

    def interrupted(*args, **kwargs):
        calls.append(args)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return real(*args, **kwargs)

    monkeypatch.setattr(procedural_leaves, "draw_leaf", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "part")
    part = contents(tmp_path / "part")
    assert "leaves.json" not in part
    assert sum(name.startswith("images") for name in part) == 4
    monkeypatch.undo()
    (tmp_path / "part" / "images" / "01_01_train.png").write_bytes(b"half")
    with pytest.raises(FileExistsError, match="another leaf set"):
        write(tmp_path / "part", seed=6)
    assert contents(write(tmp_path / "part")) == whole


def test_a_folder_that_holds_something_else_is_refused(tmp_path: pathlib.Path) -> None:
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    (theirs / "thesis.txt").write_text("years of work")
    with pytest.raises(FileExistsError, match=r"theirs is not empty and does not hold a leaf set"):
        write(theirs)
    assert contents(theirs) == {"thesis.txt": b"years of work"}

    ours = contents(write(tmp_path / "ours"))
    with pytest.raises(FileExistsError, match=r"another leaf set .*'seed': 5.*'seed': 6"):
        write(tmp_path / "ours", seed=6)
    assert contents(tmp_path / "ours") == ours

    with pytest.raises(FileExistsError, match=r"thesis.txt is a file"):
        write(theirs / "thesis.txt")
    (theirs / "leaves.json").write_text("{")
    with pytest.raises(FileExistsError, match=r"leaves.json does not describe a leaf set"):
        write(theirs)


def test_wrong_arguments_are_all_named(tmp_path: pathlib.Path) -> None:
    with pytest.raises(ValueError, match=r"classes is 0.*test_per_class is -1.*size is 15"):
        write(tmp_path, classes=0, test_per_class=-1, size=15)
    for difficulty in (-0.1, 1.5, float("nan")):
        with pytest.raises(ValueError, match="difficulty"):
            write(tmp_path, difficulty=difficulty)
    with pytest.raises(ValueError, match="class_index is -1"):
        procedural_leaves.cultivar(-1)
    assert not list(tmp_path.iterdir())


# --- what is random, and what it depends on -----------------------------------------------------


def test_same_arguments_same_bytes(tmp_path: pathlib.Path) -> None:
    first = contents(write(tmp_path / "first"))
    np.random.seed(1)  # noqa: NPY002 -- the legacy global state must not matter
    assert contents(write(tmp_path / "second")) == first
    other = contents(write(tmp_path / "other", seed=6))
    images = [name for name in first if name.startswith("images")]
    assert len({first[name] for name in images} | {other[name] for name in images}) == 18


def test_an_image_depends_on_its_identity_alone(tmp_path: pathlib.Path) -> None:
    small = contents(write(tmp_path / "small"))
    big = contents(write(tmp_path / "big", classes=4, train_per_class=3, test_per_class=2))
    images = [name for name in small if name.startswith("images")]
    assert [name for name in images if small[name] != big[name]] == []
    kind = procedural_leaves.cultivar(2, seed=5, difficulty=0.25)
    alone = procedural_leaves.draw_leaf(
        kind, procedural_leaves.leaf_rng(5, 2, "train", 1), size=32, difficulty=0.25
    )
    on_disk = np.asarray(Image.open(tmp_path / "big" / "images" / "03_02_train.png"))
    np.testing.assert_array_equal(alone, on_disk)


def test_each_identity_has_its_own_random_numbers() -> None:
    drawn = {
        procedural_leaves.leaf_rng(seed, c, split, k).random()
        for seed in range(3)
        for c in range(3)
        for split in ("train", "test")
        for k in range(3)
    }
    assert len(drawn) == 54


@pytest.mark.parametrize("size", [16, 33, 96])
def test_picture_type(size: int) -> None:
    picture = draw(0, 0, difficulty=0.5, size=size)
    assert picture.shape == (size, size, 3)
    assert picture.dtype == np.uint8


def test_difficulty_draws_cultivars_together() -> None:
    spread = []
    for difficulty in (0.0, 0.5, 1.0):
        kinds = [procedural_leaves.cultivar(c, seed=3, difficulty=difficulty) for c in range(50)]
        for name, (low, high) in procedural_leaves._RANGES.items():
            assert all(low <= getattr(kind, name) <= high for kind in kinds), name
        spread.append(np.std([dataclasses.astuple(kind) for kind in kinds], axis=0))
    np.testing.assert_allclose(spread[1], 0.6 * spread[0], rtol=1e-6)
    np.testing.assert_allclose(spread[2], 0.2 * spread[0], rtol=1e-6)
    assert min(spread[2]) > 0.0


def test_classes_differ_more_in_silhouette_than_images_of_a_class() -> None:
    shapes = np.array(
        [[silhouette(draw(c, k, difficulty=0.0)) for k in range(5)] for c in range(6)]
    ).reshape(30, -1)  # [classes * images, pixels]
    both = (shapes[:, None] & shapes[None]).sum(axis=2)
    either = (shapes[:, None] | shapes[None]).sum(axis=2)
    apart = (1.0 - both / either).reshape(6, 5, 6, 5).transpose(0, 2, 1, 3)  # K K images images
    within = [apart[c, c][~np.eye(5, dtype=bool)].mean() for c in range(6)]
    between = apart.mean(axis=(2, 3))[~np.eye(6, dtype=bool)]
    assert min(within) > 0.01  # no two leaves are the same
    assert max(within) < 0.2
    assert between.mean() > 1.7 * np.mean(within)
    assert between.min() > np.mean(within)


def test_a_leaf_fills_its_frame() -> None:
    shares = []
    for c in range(12):
        mask = silhouette(draw(c, 0, difficulty=0.5))
        rows, columns = np.nonzero(mask)
        shares.append(max(np.ptp(rows), np.ptp(columns)) / SIZE)
        middle = (np.abs(rows - SIZE / 2) < 0.4 * SIZE) & (np.abs(columns - SIZE / 2) < 0.4 * SIZE)
        assert middle.mean() > 0.8
    assert min(shares) > 0.75


@pytest.fixture(scope="module")
def nuisances() -> dict[float, dict[str, np.ndarray]]:
    """What 24 leaves of one narrow, plain cultivar show, at two difficulties."""
    found = {}
    for difficulty in (0.1, 0.9):
        kind = procedural_leaves.cultivar(0, difficulty=difficulty)
        kind = dataclasses.replace(kind, width=0.2, lobe_depth=-1.0, tooth_depth=-1.0)
        seen: dict[str, list[float]] = {}
        for k in range(24):
            rng = procedural_leaves.leaf_rng(0, 0, "train", k)
            image = procedural_leaves.draw_leaf(kind, rng, size=SIZE, difficulty=difficulty).astype(
                float
            )
            y, x = np.nonzero(silhouette(image))
            axis = np.linalg.eigh(np.cov(np.stack([x, y])))[1][:, 1]
            paper = np.concatenate([image[:, :3].reshape(-1, 3), image[:, -3:].reshape(-1, 3)])
            sides = image[:, -3:].mean() / image[:, :3].mean()
            measured = {
                "angle": np.degrees(np.arctan(axis[0] / axis[1])),
                "centre": x.mean() / SIZE,
                "length": np.ptp(y) / SIZE,
                "tone": paper.mean() / 255,
                "balance": paper[:, 0].mean() / paper[:, 2].mean(),
                "gradient": sides,
            }
            for name, value in measured.items():
                seen.setdefault(name, []).append(value)
        found[difficulty] = {name: np.array(values) for name, values in seen.items()}
    return found


@pytest.mark.parametrize(
    ("name", "least"),
    [
        ("angle", 6.0),
        ("centre", 0.02),
        ("length", 0.042),
        ("tone", 0.05),
        ("balance", 0.04),
        ("gradient", 0.05),
    ],
)
def test_nuisances_are_there_and_grow_with_difficulty(
    nuisances: dict[float, dict[str, np.ndarray]], name: str, least: float
) -> None:
    easy, hard = nuisances[0.1][name].std(), nuisances[0.9][name].std()
    assert hard > least
    assert hard > easy > 0.0


# --- what tells cultivars apart ----------------------------------------------------------------


def test_shape_tells_cultivars_apart_and_colour_does_not(default_set: pathlib.Path) -> None:
    assert colour_histogram_accuracy(default_set) < 0.25
    assert shape_accuracy(default_set) > 0.6


def test_accuracy_falls_with_difficulty(default_set: pathlib.Path, tmp_path: pathlib.Path) -> None:
    easy, hard = (
        procedural_leaves.write_dataset(
            tmp_path / str(difficulty),
            classes=CLASSES,
            train_per_class=TRAIN,
            test_per_class=6,
            size=SIZE,
            difficulty=difficulty,
        )
        for difficulty in (0.0, 1.0)
    )
    assert shape_accuracy(easy) > shape_accuracy(default_set) + 0.1
    assert shape_accuracy(default_set) > shape_accuracy(hard) + 0.25
    assert colour_histogram_accuracy(easy) < 0.3
