"""`--mode explain`, and the map that a run keeps."""

import dataclasses
import json
import pathlib
import shutil

import numpy as np
import pytest
from answers import CLASSES
from matplotlib import font_manager
from PIL import Image

import clevit_jax
from clevit_jax.analysis import deletion
from clevit_jax.analysis.explain import choose_map, explain
from clevit_jax.analysis.trained_model import TrainedModel, open_trained_model
from clevit_jax.errors import ConfigError, DecodeError, Repeated
from clevit_jax.inference import cam, explanation
from clevit_jax.runs.workdir import MAPS_FILE

pytestmark = [
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture(scope="module")
def images(answered, tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    shutil.copytree(answered.parent / "data" / "test", folder / "in" / "deep")
    (folder / "in" / "bad.png").touch()
    return folder / "in"


def test_a_picture_for_each_image(trained, images, tmp_path, capsys):
    output = tmp_path / "out"
    named = CLASSES[1]
    assert explain(trained, str(images), output, classes=[named]) == 1
    out, err = capsys.readouterr()
    assert "32 pictures, with " in out
    assert "bad.png is an empty file." in err
    names = {path.relative_to(output).as_posix() for path in output.rglob("*.png")}
    assert names == {f"deep/{path.name}.png" for path in (images / "deep").iterdir()}
    # The tiles are the overlays that the classifier gives.
    path = sorted((images / "deep").iterdir())[0]
    with Image.open(output / "deep" / f"{path.name}.png") as sheet:
        pixels = np.asarray(sheet)
    model = clevit_jax.load(trained.path)
    predicted = model.predict(path)[0].class_name
    rows = 1 if predicted == named else 2
    tiles = [
        model.explain(path, class_, name=name).overlay()
        for class_ in (predicted, named)[:rows]
        for name in (model.map_name, cam.ROLLOUT)
    ]
    assert pixels.shape[1] == 8 + 3 * (224 + 8)
    for number, tile in enumerate(tiles):
        left, row = 8 + (1 + number % 2) * 232, number // 2
        top = 8 + row * (36 + 224 + 8) + 36
        expected = np.asarray(tile.resize((224, 224), Image.Resampling.BICUBIC))
        np.testing.assert_array_equal(pixels[top : top + 224, left : left + 224], expected)


def test_the_map_is_chosen_once(trained, images, tmp_path, monkeypatch):
    """By the deletion test on the test images; `load` takes it from the workdir."""
    kept = json.loads((trained.path / MAPS_FILE).read_text())
    cams = {name: drop for name, drop in kept["drops"].items() if name != cam.ROLLOUT}
    assert kept["chosen"] == max(cams, key=cams.get)
    assert kept["images"] == 32
    assert clevit_jax.load(trained.path).map_name == kept["chosen"]
    monkeypatch.setattr(deletion, "compare_maps", lambda *_, **__: pytest.fail("tested again"))
    path = next((images / "deep").iterdir())
    assert explain(trained, str(path), tmp_path) == 0


def test_few_test_images_choose_no_map(trained, images, tmp_path, monkeypatch, capsys):
    """Nor does a test of few that an older version kept."""
    whole = trained.dataset()
    few = dataclasses.replace(whole, test=whole.test[:3])
    monkeypatch.setattr(TrainedModel, "dataset", lambda self: few)
    monkeypatch.setattr(deletion, "compare_maps", lambda *_, **__: pytest.fail("tested"))
    run = dataclasses.replace(trained, path=tmp_path)
    kept = deletion.Deletion({"grad_cam:norm": 0.5}, 0.1, images=3, cells=4, deleted=3)
    facts = {**kept.to_json(), "fingerprint": trained.classifier.fingerprint}
    (tmp_path / MAPS_FILE).write_text(json.dumps(facts))
    assert choose_map(run, list((images / "deep").iterdir())) == cam.default_map(
        trained.classifier.model
    )
    assert capsys.readouterr().err == (
        "3 test image(s) are too few for the deletion test (at least 5), so the map is the usual "
        "one.\n"
    )


def test_the_map_of_what_is_no_run(golden, images, tmp_path, capsys):
    """Chosen on the images that are explained."""
    other = open_trained_model(golden / "dialect_timm.safetensors")
    path = next((images / "deep").iterdir())
    assert explain(other, str(path), tmp_path) == 0
    assert "Deletion test: painting over" in capsys.readouterr().err
    assert len(list(tmp_path.iterdir())) == 1


def test_what_it_refuses(trained, images, tmp_path):
    for options, part in (
        ({"classes": ["none"]}, r"has no class 'none'; its classes are"),
        ({"classes": ["A B & C"]}, r"has no class 'A B & C'; did you mean 'a, \"b\" & \\'c\\''\?"),
        ({"name": "grad_cam"}, r"no map 'grad_cam'; choose one of"),
    ):
        with pytest.raises(ConfigError, match=part):
            explain(trained, str(images), tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"--output .*file.* cannot be made"):
        explain(trained, str(images), tmp_path / "file")


def test_images_of_one_name(trained, images, tmp_path, monkeypatch, capsys):
    """Each has its own picture, below the folder that the pattern begins with, each time."""
    first, second = sorted((images / "deep").iterdir())[:2]
    for folder, image in (("a", first), ("b", second)):
        (tmp_path / "in" / folder).mkdir(parents=True)
        shutil.copy(image, tmp_path / "in" / folder / "1.png")
    monkeypatch.chdir(tmp_path)
    assert explain(trained, "in/*/1.png", pathlib.Path("out")) == 0
    assert ": out, in folders as below in\n" in capsys.readouterr().out
    pictures = [pathlib.Path("out", folder, "1.png.png").read_bytes() for folder in "ab"]
    assert pictures[0] != pictures[1]
    assert explain(trained, "in/b/1.png", pathlib.Path("one")) == 0
    assert pathlib.Path("one/1.png.png").read_bytes() == pictures[1]
    assert capsys.readouterr().out.endswith(": one\n")
    (tmp_path / "in" / "c").mkdir()
    shutil.copy(first, tmp_path / "in" / "c" / "1.png")
    assert explain(trained, "in/*/1.png", pathlib.Path("out")) == 0
    assert sorted(path.as_posix() for path in pathlib.Path("out").rglob("*.png")) == [
        f"out/{folder}/1.png.png" for folder in "abc"
    ]
    assert pathlib.Path("out/a/1.png.png").read_bytes() == pictures[0]


def test_names_as_long_as_may_be(trained, images, tmp_path):
    """Of 255 bytes, which leave no room for an ending: their pictures differ, and stay the same."""
    first, second = sorted((images / "deep").iterdir())[:2]
    for last, image in (("1", first), ("2", second)):
        name = "\u73ab" * 83 + f"{last}.png"
        shutil.copy(image, tmp_path / name)
    assert explain(trained, str(tmp_path), tmp_path / "out") == 0
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert len(names) == 2
    assert all(name.startswith("\u73ab" * 50) and name.endswith(".png.png") for name in names)
    assert explain(trained, str(tmp_path), tmp_path / "out") == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == names


def test_names_that_no_font_has(trained, images, tmp_path, monkeypatch, capsys):
    """Said once, however many pictures there are."""
    monkeypatch.setattr(font_manager, "findSystemFonts", list)
    monkeypatch.setattr(font_manager.fontManager, "ttflist", [])
    names = ("\u73ab\u7470", "\u767e\u5408", "\u83ca\u82b1", "\u8377")
    monkeypatch.setattr(trained.classifier, "class_names", names)
    for path in sorted((images / "deep").iterdir())[:2]:
        shutil.copy(path, tmp_path)
    assert explain(trained, str(tmp_path), tmp_path / "out", classes=[names[3]]) == 0
    said = capsys.readouterr().err
    assert said.count("No installed font has the characters of ") == 1
    assert said.count("  class 3 = \u8377\n") == 1


def test_an_explanation_in_a_notebook(trained, images):
    model = clevit_jax.load(trained.path)
    path = next((images / "deep").iterdir())
    found = model.explain(path, class_=2)
    assert found.class_name == model.class_names[2]
    assert found.map.shape == (16, 16)
    assert found._repr_png_().startswith(b"\x89PNG")
    assert isinstance(found, explanation.Explanation)
    for class_, part in (("none", "has no class 'none'"), (9, "no class 9; they are 0 to 3")):
        with pytest.raises(ValueError, match=part):
            model.explain(path, class_=class_)


def test_many_files_of_one_fault(trained, images, tmp_path, monkeypatch, capsys):
    """Said once, with the number and three of them."""
    for number in range(5):
        (tmp_path / f"{number}.png").touch()

    def fail(path):
        raise DecodeError(Repeated(f"{path} is empty.", rule="{n} files are empty", item=path.name))

    monkeypatch.setattr(trained.classifier, "pixels", fail)
    assert explain(trained, str(tmp_path), tmp_path / "out", name="grad_cam:norm") == 1
    out, err = capsys.readouterr()
    assert err.splitlines()[-1] == "5 files are empty (0.png, 1.png, 2.png, ...)."
    assert out.startswith("0 pictures, ")
