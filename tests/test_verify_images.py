"""`--verify` of a folder: its own library, its own JSON, from image files to classes."""

import dataclasses
import json

import pytest

from clevit_jax.convert import _pixels, main
from clevit_jax.model.preprocessing import Preprocessing
from clevit_jax.runs.load import read_weights
from clevit_jax.weights import verify_images as room
from clevit_jax.weights.export import write_torch_weights
from clevit_jax.weights.verify_images import verify_images

pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
HALF = Preprocessing(64, squash=True, interpolation="bilinear", mean=(0.5,) * 3, std=(0.25,) * 3)


@pytest.fixture
def folder(golden, tmp_path):
    read = read_weights(golden / "dialect_timm.safetensors")
    given = dataclasses.replace(read, class_names=tuple("abcde"), preprocessing=HALF)
    write_torch_weights(given, tmp_path / "hf", "huggingface")
    return tmp_path / "hf"


def test_the_library_and_this_one_agree(folder, capsys):
    assert main([str(folder), "--verify"]) == 0
    said, errors = capsys.readouterr()
    assert errors == ""
    version = transformers.__version__
    assert f"Verified with transformers {version} by its own JSON, 4 image files" in said
    assert f"Verified with transformers {version} (names read by transformers itself)" in said
    assert "4 of them get its class, largest difference of logits" in said


@pytest.mark.parametrize(
    "changes",
    [
        {"mean": (0.4, 0.5, 0.5)},
        {"std": (0.3, 0.25, 0.25)},
        {"squash": False},
        {"interpolation": "bicubic"},
        {"resize": 66},
    ],
)
def test_other_preparation_is_found(changes, folder):
    read = read_weights(folder)
    other = dataclasses.replace(
        read, preprocessing=dataclasses.replace(read.preprocessing, **changes)
    )
    found = verify_images(other, folder, _pixels)
    assert not found.ok
    assert str(found).startswith("DIFFERENT from transformers")


def test_other_names_are_found(folder):
    renamed = dataclasses.replace(read_weights(folder), class_names=tuple("vwxyz"))
    assert verify_images(renamed, folder, _pixels).differing == 4


def test_what_a_file_does_not_say_is_not_verified(golden, capsys):
    assert main([str(golden / "dialect_huggingface.safetensors"), "--verify"]) == 0
    assert (
        "Not checked: how images are prepared. The file does not say it, so this is assumed: "
        "shorter side to 73 px (bicubic), centre 64 px; mean 0.485 0.456 0.406, std 0.229 0.224"
    ) in capsys.readouterr().out


def test_a_size_that_windows_do_not_divide_is_different(folder):
    """transformers pads; it is read at another size, and must not be called verified."""
    for name, key in (("config.json", "image_size"), ("preprocessor_config.json", "size")):
        content = json.loads((folder / name).read_text())
        content[key] = {"height": 96, "width": 96} if key == "size" else 96
        (folder / name).write_text(json.dumps(content))
    assert not verify_images(read_weights(folder), folder, _pixels).ok


def test_a_headless_folder_is_compared_by_its_features(golden, tmp_path):
    read = read_weights(golden / "dialect_timm.safetensors")
    bare = dataclasses.replace(read, headless=True, preprocessing=HALF)
    write_torch_weights(bare, tmp_path / "hf", "huggingface")
    found = verify_images(read_weights(tmp_path / "hf"), tmp_path / "hf", _pixels)
    assert (found.ok, found.what, found.count) == (True, "features", 4)


def test_without_the_library_it_says_so(folder, monkeypatch):
    monkeypatch.setattr(room, "import_error", lambda library: f"no {library}")
    found = verify_images(read_weights(folder), folder, _pixels)
    assert "transformers cannot be imported (no transformers)" in str(found)
    assert str(found).startswith("Not checked")


def test_timm_and_this_library_agree(golden, tmp_path):
    pytest.importorskip("timm", reason="timm is not installed", exc_type=Exception)
    read = read_weights(golden / "dialect_timm.safetensors")
    for headless in (False, True):
        given = dataclasses.replace(read, preprocessing=HALF, headless=headless)
        to = tmp_path / str(headless)
        write_torch_weights(given, to, "timm")
        found = verify_images(read_weights(to), to, _pixels)
        assert found.library.startswith("timm ")
        assert found.ok, str(found)
