"""`--mode features` and the files it writes, read by other programs."""

import json
import zipfile

import numpy as np
import pyarrow.parquet as pq
import pytest
from answers import CLASSES
from PIL import Image
from sklearn.neighbors import KNeighborsClassifier

import clevit_jax
from clevit_jax.analysis import feature_file, tsne
from clevit_jax.analysis.features import write_features
from clevit_jax.errors import ConfigError, DataError

pytestmark = [
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture(scope="module")
def written(trained, tmp_path_factory):
    folder = tmp_path_factory.mktemp("features")
    for name in ("f.npz", "g.parquet"):
        assert write_features(trained, folder / name) == 0
    return folder


def test_npz(trained, written):
    """NumPy alone reads it, without pickle; the numbers are the classifier's."""
    with np.load(written / "f.npz", allow_pickle=False) as file:
        arrays = dict(file)
    assert {name: array.shape for name, array in arrays.items()} == {
        "name": (64,), "split": (64,), "label": (64,), "features": (64, 16), "logits": (64, 4),
        "class_names": (4,), "source": (), "fingerprint": (),
    }  # fmt: skip
    assert not any(array.dtype.hasobject for array in arrays.values())
    assert sorted(arrays["class_names"]) == sorted(CLASSES)
    model = clevit_jax.load(trained.path)
    dataset = trained.dataset()
    for row in (0, 31, 32, 63):
        example = dataset.splits[arrays["split"][row]][row % 32]
        assert arrays["name"][row] == example.name
        assert arrays["label"][row] == example.label
        pixels = model.pixels(example.data)
        logits, features = model.dispatch(pixels[None])()
        np.testing.assert_allclose(arrays["features"][row], features[0], atol=1e-6)
        np.testing.assert_allclose(arrays["logits"][row], logits[0], atol=1e-6)


def test_parquet_holds_the_same(written):
    table = pq.read_table(written / "g.parquet")
    assert table.column_names == ["name", "split", "label", "features", "logits"]
    ours = feature_file.read_feature_file(written / "f.npz")
    np.testing.assert_array_equal(
        np.array(table["features"].to_pylist(), np.float32), ours.features
    )
    assert json.loads(table.schema.metadata[b"class_names"]) == list(ours.class_names)
    other = feature_file.read_feature_file(written / "g.parquet")
    for name in ("files", "splits", "class_names", "source", "fingerprint"):
        assert getattr(other, name) == getattr(ours, name), name
    for name in ("labels", "features", "logits"):
        np.testing.assert_array_equal(getattr(other, name), getattr(ours, name))


def test_what_the_features_are_worth(written, capsys):
    facts = json.loads((written / "f.json").read_text())
    found = feature_file.read_feature_file(written / "f.npz")
    train, test = found.only("train"), found.only("test")
    assert facts["train"] == facts["test"] == len(test.files) == 32
    nearest = KNeighborsClassifier(1, metric="cosine").fit(train.features, train.labels)
    assert facts["knn"]["1"] == pytest.approx(nearest.score(test.features, test.labels))
    assert facts["retrieval"]["queries"] == 32
    assert facts == json.loads((written / "g.json").read_text())


def test_the_picture(written):
    with Image.open(written / "f.png") as picture:
        assert picture.width > 800
        colours = picture.convert("RGB").quantize(64).getcolors()
    assert len(colours) > 8  # points of four classes, and names


def test_images_without_labels(trained, tmp_path, capsys):
    folder = tmp_path / "some"
    folder.mkdir()
    for number in range(6):
        Image.new("RGB", (20, 30), (40 * number, 0, 0)).save(folder / f"{number}.png")
    (folder / "bad.png").touch()
    assert write_features(trained, tmp_path / "f.npz", str(folder)) == 1
    assert "bad.png is an empty file." in capsys.readouterr().err
    found = feature_file.read_feature_file(tmp_path / "f.npz")
    assert len(found.files) == 6
    assert set(found.labels) == {-1}
    assert set(found.splits) == {""}
    assert not (tmp_path / "f.json").exists()
    with pytest.raises(DataError, match="empty file"):
        write_features(trained, tmp_path / "g.npz", str(folder / "bad.png"))


def test_few_images_have_no_picture(trained, tmp_path, capsys):
    """Nor do they keep an older one."""
    image = str(trained.dataset().test[0].data)
    (tmp_path / "f.png").write_bytes(b"of others")
    assert write_features(trained, tmp_path / "f.npz", image, overwrite=True) == 0
    assert "No picture: 1 image(s) are too few for t-SNE (at least 5)." in capsys.readouterr().out
    assert [path.name for path in tmp_path.iterdir()] == ["f.npz"]


def test_what_it_refuses(trained, written, tmp_path):
    with pytest.raises(
        ConfigError, match=r"f.npz exists already; name another --output, or .*--overwrite"
    ):
        write_features(trained, written / "f.npz")
    assert write_features(trained, written / "f.npz", overwrite=True) == 0
    for name in ("f.pkl", "f", "none/f.npz"):
        with pytest.raises(ConfigError, match="--output"):
            write_features(trained, tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_files_that_are_none_of_ours(tmp_path):
    """No pickle is read, whoever wrote it."""
    np.savez(tmp_path / "pickled.npz", name=np.array([{"a": 1}], dtype=object))
    (tmp_path / "text.npz").write_text("no archive")
    (tmp_path / "text.parquet").write_text("no table")
    with zipfile.ZipFile(tmp_path / "empty.npz", "w"):
        pass
    for name in ("pickled.npz", "text.npz", "text.parquet", "empty.npz"):
        with pytest.raises(ConfigError, match=f"{name} is not a file of features"):
            feature_file.read_feature_file(tmp_path / name)
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        feature_file.read_feature_file(tmp_path / "none.npz")


def test_embeddings_of_few_and_of_equal_images():
    rng = np.random.RandomState(0)
    for count in (0, 1, 4, 5, 7):
        points = tsne.embed(rng.standard_normal((count, 8)).astype(np.float32))
        assert points.shape == (count, 2)
        assert np.isfinite(points).all()
    assert np.isfinite(tsne.embed(np.ones((9, 8), np.float32))).all()
    far = np.concatenate([rng.standard_normal((20, 8)) + 9, rng.standard_normal((20, 8)) - 9])
    points = tsne.embed(far.astype(np.float32))
    assert np.linalg.norm(points[:20].mean(0) - points[20:].mean(0)) > points[:20].std()
    np.testing.assert_array_equal(points, tsne.embed(far.astype(np.float32)))
    assert len(tsne.sample_rows(10)) == 10
    chosen = tsne.sample_rows(10_000)
    assert len(np.unique(chosen)) == tsne.MAX_IMAGES
