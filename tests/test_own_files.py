"""What this program wrote into a folder of images is neither an image nor a class."""

import json
import pathlib
import types

import made_runs
import numpy as np
import pytest
from PIL import Image

from clevit_jax.analysis import input_files
from clevit_jax.analysis.feature_file import Features, write_feature_file
from clevit_jax.analysis.tsne import save_picture
from clevit_jax.data import sources
from clevit_jax.errors import ConfigError
from clevit_jax.runs.beside_images import check_beside_images
from clevit_jax.system.own_files import MARK, png_mark
from clevit_jax.views.gallery import save_gallery

CLASSES = [f"{name}/{k}.png" for name in ("ash", "oak") for k in range(5)]
SPLIT = [f"{split}/{file}" for split in ("train", "test") for file in CLASSES]


def touch(root: pathlib.Path, *files: str) -> pathlib.Path:
    for file in files:
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).touch()
    return root


def draw(path: pathlib.Path, **options) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (4, 4)).save(path, **options)


def run_in(folder: pathlib.Path) -> None:
    made_runs.write_finished(folder, 0.5)
    draw(folder / "views.png")  # of a version that did not mark it
    touch(folder, "checkpoints/12/state/d/1", "tensorboard/events", ".lock", "report.html")


def seeds_in(folder: pathlib.Path) -> None:
    run_in(folder / "seed-0")
    touch(folder, "seed-1/log.txt")  # its images are still read
    touch(folder, "seeds.json", "seeds.txt")


def begun_in(folder: pathlib.Path) -> None:
    folder.mkdir(parents=True)
    (folder / ".lock").write_text(json.dumps({"pid": 1, "host": "here", "since": ""}) + "\n")


def explained_in(folder: pathlib.Path) -> None:
    draw(folder / "ash" / "0.png.png", pnginfo=png_mark())


def features_in(folder: pathlib.Path) -> None:
    touch(folder, "f.npz", "f.json")
    save_picture(folder / "f.png", np.zeros((1, 2)), np.array([0]), ("a",), title="t")


def features_without_picture_in(folder: pathlib.Path, name: str = "f.npz") -> None:
    touch(folder, "f.json")
    rows = np.zeros((1, 2), np.float32)
    one = Features(("x",), ("test",), np.array([0]), rows, rows, ("0", "1"), "run", "ab")
    write_feature_file(folder / name, one)


def features_of_parquet_in(folder: pathlib.Path) -> None:
    features_without_picture_in(folder, "f.parquet")


def gallery_in(folder: pathlib.Path) -> None:
    views = np.zeros((1, 4, 4, 3), np.float32)
    save_gallery(folder / "views.png", np.zeros((1, 4, 4, 3), np.uint8), views, views)


def predicted_in(folder: pathlib.Path) -> None:
    folder.mkdir()
    (folder / "p.csv").write_text("file,class_1,probability_1,margin\n")


def checked_in(folder: pathlib.Path) -> None:
    touch(folder, "data_check.json", "data_check.txt")


OWN = [
    run_in, seeds_in, begun_in, explained_in, features_in, features_without_picture_in,
    features_of_parquet_in, gallery_in, predicted_in, checked_in,
]  # fmt: skip


@pytest.mark.parametrize("place", ["out", "ash/out", "train"])
@pytest.mark.parametrize("write", OWN)
def test_what_is_ours_is_left_out_of_class_folders(tmp_path, write, place):
    """Beside the classes, in one of them, and under the name of a split."""
    before = sources.load_dataset(touch(tmp_path, *CLASSES))
    write(tmp_path / place)
    after = sources.load_dataset(tmp_path)
    assert after.split_hash() == before.split_hash()
    assert after.class_names == ("ash", "oak")
    (warning,) = after.warnings
    assert "what this program wrote itself is not taken for images" in warning
    assert before.warnings == ()


@pytest.mark.parametrize("write", [run_in, explained_in, features_in, gallery_in])
def test_what_is_ours_is_left_out_of_a_folder_of_named_images(tmp_path, write):
    names = [f"images/{name}_{k}_{split}.png" for name in ("a", "b") for k in "12"
             for split in ("train", "test")]  # fmt: skip
    before = sources.load_dataset(touch(tmp_path, *names))
    write(tmp_path / "images" / "out")
    after = sources.load_dataset(tmp_path)
    assert (after.layout, after.split_hash()) == ("ufg", before.split_hash())
    assert "images: what this program wrote itself" in after.warnings[0]


@pytest.mark.parametrize("write", [run_in, seeds_in, explained_in, features_in, gallery_in])
@pytest.mark.parametrize("place", ["", "out"])
def test_what_is_ours_is_not_asked_about(tmp_path, capsys, write, place):
    """Of `--mode predict` and its like."""
    draw(tmp_path / "ash" / "0.png")
    write(tmp_path / place)
    assert list(input_files.find_images(str(tmp_path), say=True)) == [tmp_path / "ash" / "0.png"]
    assert capsys.readouterr().out.count("is not taken for images") == 1
    (named,) = input_files.find_images(str(tmp_path / "ash" / "0.png"))
    assert named == tmp_path / "ash" / "0.png"


def test_a_run_that_is_the_data_folder(tmp_path):
    before = sources.load_dataset(touch(tmp_path, *CLASSES))
    run_in(tmp_path)
    assert sources.load_dataset(tmp_path).split_hash() == before.split_hash()


@pytest.mark.parametrize("run", [False, True])
@pytest.mark.parametrize("name", ["checkpoints", "tensorboard", "seed-0", "views.png"])
def test_a_class_is_never_taken_for_ours(tmp_path, name, run):
    """Whatever it is called, and even where somebody trained into it."""
    files = [*CLASSES, f"{name}/1.png", f"{name}/old/2.png"]
    before = sources.load_dataset(touch(tmp_path, *files))
    assert name in before.class_names
    if run:
        run_in(tmp_path / name)
        made_runs.write_finished(tmp_path, 0.5)
    assert sources.load_dataset(tmp_path).split_hash() == before.split_hash()


def test_names_alone_make_no_picture_ours(tmp_path):
    """As other programs write them: no mark."""
    np.savez(tmp_path / "of_others.npz", features=np.zeros(1))
    touch(tmp_path, *CLASSES, "ash/0.png.png", "ash/1.npz", "ash/1.json", "ash/views.png")
    draw(tmp_path / "oak" / "7.png", pnginfo=png_mark())  # neither name nor neighbour says so
    (tmp_path / "ash" / "config.json").write_text('{"data": {}, "model": {}}')
    (tmp_path / "ash" / "log.txt").touch()
    data = sources.load_dataset(tmp_path)
    names = {example.name for split in data.splits.values() for example in split}
    assert names == {*CLASSES, "ash/0.png.png", "ash/views.png", "oak/7.png"}
    assert all("this program" not in warning for warning in data.warnings)
    assert MARK.encode() in (tmp_path / "oak" / "7.png").read_bytes()[:100]


def beside(root: pathlib.Path, workdir: pathlib.Path) -> None:
    """`check_beside_images` on what it looks at of a run."""
    config = types.SimpleNamespace(root=str(root))
    dataset = sources.load_dataset(root)
    settings = types.SimpleNamespace(data=config)
    check_beside_images(types.SimpleNamespace(settings=settings, workdir=workdir, dataset=dataset))


@pytest.mark.parametrize("workdir", ["ash", "train/oak"])
def test_a_run_between_the_images_of_a_class_is_refused(tmp_path, workdir):
    root = touch(tmp_path / "data", *(CLASSES if workdir == "ash" else SPLIT))
    with pytest.raises(ConfigError, match=f"data/{workdir} holds images of the data set") as caught:
        beside(root, root / workdir)
    assert f"--workdir {tmp_path / 'runs' / 'data'}" in str(caught.value)
    made_runs.write_finished(root / workdir, 0.5)  # begun by an earlier version
    beside(root, root / workdir)


@pytest.mark.parametrize("workdir", ["", "..", "ash/run", "new", "../elsewhere"])
def test_a_run_elsewhere_in_the_data_folder_is_not_refused(tmp_path, workdir):
    root = touch(tmp_path / "data", *CLASSES)
    (root / workdir).mkdir(exist_ok=True)
    begin = root / workdir / ".lock"  # as training makes it, so a new folder is no empty class
    begin.write_text('{"pid": 1}')
    beside(root, root / workdir)


def test_a_run_writes_over_no_file_of_the_data_set(tmp_path):
    touch(tmp_path, *CLASSES, "config.json", "notes.txt")
    with pytest.raises(ConfigError, match=r"and config\.json in it would be written over"):
        beside(tmp_path, tmp_path)
