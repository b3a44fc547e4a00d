"""Converted checkpoints: what is written is read, whole or not at all, and damage shows."""

import json
import os
import pathlib
import stat

import jax
import numpy as np
import pytest
import safetensors.numpy

from clevit_jax.errors import WeightsError
from clevit_jax.model.config import SwinConfig
from clevit_jax.weights import files
from clevit_jax.weights.convert import Weights, named_leaves
from clevit_jax.weights.converted import is_converted, read_converted, write_converted

MODEL = SwinConfig(
    image_size=16, num_classes=3, embed_dim=4, depths=(1, 1), num_heads=(1, 2), window=2
)


LEVELS = (("genus", ("p", "ü", "p")),)


@pytest.fixture(scope="module")
def given(random_params):
    params = random_params(MODEL)
    return Weights(
        MODEL, params, "timm", "x.pth", "ab12", class_names=("a", "é", "c"), levels=LEVELS
    )


@pytest.fixture
def folder(given, tmp_path):
    write_converted(given, tmp_path / "new" / "x")
    return tmp_path / "new" / "x"


def everything(folder):
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_what_is_written_is_read(given, folder):
    read = read_converted(folder)
    jax.tree.map(np.testing.assert_array_equal, read.params, given.params)
    assert (read.model, read.dialect, read.source, read.source_sha256, read.class_names) == (
        MODEL, "timm", "x.pth", "ab12", ("a", "é", "c"),
    )  # fmt: skip
    assert set(read.report.matched) == set(named_leaves(given.params))
    assert read.levels == LEVELS


def test_older_ones_have_no_levels(folder):
    facts = json.loads((folder / "model.json").read_text())
    del facts["levels"]
    (folder / "model.json").write_text(json.dumps(facts))
    assert read_converted(folder).levels == ()


def test_the_files_are_plain(given, folder):
    """Anyone with safetensors and JSON reads them, under our names."""
    tensors = safetensors.numpy.load_file(folder / "model.safetensors")
    kernel = given.params["layers"][0]["blocks"][0]["attn"]["qkv"]["kernel"]
    np.testing.assert_array_equal(tensors["layers.0.blocks.0.attn.qkv.kernel"], kernel)
    facts = json.loads((folder / "model.json").read_text())
    assert facts["class_count"] == 3
    assert facts["architecture"]["depths"] == [1, 1]
    assert facts["source"] == "x.pth"
    assert {path.name for path in folder.iterdir()} == {"model.safetensors", "model.json"}
    assert [path.name for path in folder.parent.iterdir()] == ["x"]
    plain = folder.parent / "plain"
    plain.mkdir()
    assert stat.S_IMODE(folder.stat().st_mode) == stat.S_IMODE(plain.stat().st_mode)
    for path in folder.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) & 0o444 == 0o444


def test_nothing_is_overwritten_unasked(given, folder):
    before = everything(folder)
    with pytest.raises(WeightsError, match=r"x is there; .*--overwrite"):
        write_converted(given, folder)
    assert everything(folder) == before
    other = Weights(MODEL, given.params, "timm", "y.pth")
    write_converted(other, folder, overwrite=True)
    assert read_converted(folder).source == "y.pth"
    assert [path.name for path in folder.parent.iterdir()] == ["x"]


def test_only_a_converted_checkpoint_is_ever_replaced(given, tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").write_bytes(b"1")
    (tmp_path / "file").write_bytes(b"1")
    before = everything(tmp_path)
    for target in (tmp_path / "photos", tmp_path / "file"):
        with pytest.raises(WeightsError, match=r"name another target|is a file; name a folder"):
            write_converted(given, target, overwrite=True)
    with pytest.raises(WeightsError, match="cannot be written"):
        write_converted(given, tmp_path / "file" / "x")
    assert everything(tmp_path) == before
    (tmp_path / "empty").mkdir()
    write_converted(given, tmp_path / "empty")
    assert is_converted(tmp_path / "empty")


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_failure_leaves_what_was_there(given, folder, overwrite, monkeypatch):
    target = folder if overwrite else folder.with_name("y")
    before = everything(folder.parent)

    def fail(path, *_, **__):
        pathlib.Path(path).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files, "write_safetensors", fail)
    with pytest.raises(WeightsError, match="cannot be written: No space left"):
        write_converted(given, target, overwrite=overwrite)
    assert everything(folder.parent) == before
    assert [path.name for path in folder.parent.iterdir()] == ["x"]


def test_links_stay_links(given, folder, tmp_path):
    link = tmp_path / "link"
    link.symlink_to(folder)
    write_converted(Weights(MODEL, given.params, "timm", "y.pth"), link, overwrite=True)
    assert link.is_symlink()
    assert read_converted(folder).source == "y.pth"
    (tmp_path / "to come").symlink_to(tmp_path / "later")
    write_converted(given, tmp_path / "to come")
    assert is_converted(tmp_path / "later")
    assert not list(tmp_path.rglob(".*"))


def test_what_was_there_comes_back_when_its_place_cannot_be_taken(given, folder, monkeypatch):
    before = everything(folder.parent)
    rename = pathlib.Path.rename

    def stop_at_the_second(self, target):
        if target == folder and not self.name.endswith("-old"):
            raise KeyboardInterrupt
        return rename(self, target)

    monkeypatch.setattr(pathlib.Path, "rename", stop_at_the_second)
    with pytest.raises(KeyboardInterrupt):
        write_converted(given, folder, overwrite=True)
    assert everything(folder.parent) == before


def test_it_is_on_the_disk_before_it_takes_its_place(given, tmp_path, monkeypatch):
    synced, sync, rename = [], os.fsync, pathlib.Path.rename

    def watch(descriptor):
        synced.append(pathlib.Path(os.readlink(f"/proc/self/fd/{descriptor}")).name)
        sync(descriptor)

    def renamed(self, target):
        synced.append("renamed")
        return rename(self, target)

    monkeypatch.setattr(os, "fsync", watch)
    monkeypatch.setattr(pathlib.Path, "rename", renamed)
    write_converted(given, tmp_path / "x")
    at = synced.index("renamed")
    assert {"model.safetensors", "model.json"} <= set(synced[:at])
    assert synced[at + 1 :] == [tmp_path.name]


def _edit(**changes):
    def edit(folder):
        facts = json.loads((folder / "model.json").read_text())
        (folder / "model.json").write_text(json.dumps(facts | changes))

    return edit


def _flip(folder):
    path = folder / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(bytes(data))


def _size(**changes):
    """Damages some numbers of the architecture."""
    plain = {"image_size": 16, "num_classes": 4, "embed_dim": 4, "window": 2, "depths": [1, 1],
             "num_heads": [1, 2]}  # fmt: skip
    return _edit(architecture=plain | changes)


DAMAGE = {
    "flipped": (_flip, "sha256 is another"),
    "no tensors": (lambda f: (f / "model.safetensors").unlink(), r"model\.safetensors"),
    "cut": (lambda f: (f / "model.safetensors").write_bytes(b""), r"model\.safetensors"),
    "no JSON": (lambda f: (f / "model.json").write_text("{"), "not JSON"),
    "deep JSON": (lambda f: (f / "model.json").write_text("[" * 100_000), "not JSON"),
    "binary": (lambda f: (f / "model.json").write_bytes(b"\xff\xfe"), "not JSON"),
    "a list": (lambda f: (f / "model.json").write_text("[]"), "not a model.json"),
    "format": (_edit(format="2"), "not a model.json"),
    "hash": (_edit(sha256=7), "wrong type"),
    "names": (_edit(class_names=[1]), "wrong type"),
    "levels": (_edit(levels=["genus", ["p", "ü", "p"]]), "wrong type"),
    "a level": (_edit(levels={"genus": ["p", "ü"]}), "wrong type"),
    "architecture": (_edit(architecture=3), "architecture"),
    "other": (_edit(architecture={"image_size": 16, "num_classes": 4, "embed_dim": 4, "window": 2,
                                  "depths": [1, 1], "num_heads": [1, 2]}), "another network"),
    "deep": (_size(depths=[100, 100]), "another network"),
    "deeper": (_size(depths=[10**7, 1]), "depths is 1e.07; at most 100 is read"),
    "stages": (_size(depths=[1] * 4000, num_heads=[1] * 4000), "4000 stages; at most 8"),
    "window": (_size(window=10**9), "window is 1e.09; at most 64"),
    "wide": (_size(embed_dim=10**9), "embed_dim is 1e.09; at most 4,096"),
    "large": (_size(image_size=2**40), "image_size is 1.1e.12; at most 8,192"),
}  # fmt: skip


@pytest.mark.parametrize("kind", DAMAGE)
def test_damage_is_a_sentence(folder, kind):
    damage, says = DAMAGE[kind]
    damage(folder)
    with pytest.raises(WeightsError, match=says) as error:
        read_converted(folder)
    assert str(folder) in str(error.value)


def test_a_folder_that_is_none(tmp_path):
    assert not is_converted(tmp_path)
    with pytest.raises(WeightsError, match=r"model\.json cannot be read"):
        read_converted(tmp_path)
