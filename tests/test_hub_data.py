"""Images by their names on the hub, and the record of a run; against a server on loopback."""

import dataclasses
import io
import pathlib

import hub_server
import huggingface_hub
import jax
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tiny
from hub_server import refused
from huggingface_hub import constants
from PIL import Image

from clevit_jax.config import resolve_data
from clevit_jax.config.compare import with_places_in_full
from clevit_jax.data import sources
from clevit_jax.data.open import open_data
from clevit_jax.errors import ConfigError
from clevit_jax.runs import origin
from clevit_jax.runs.beside_images import check_beside_images
from clevit_jax.runs.load import read_weights
from clevit_jax.runs.setup import prepare_run, read_pretrained
from clevit_jax.system import hub
from clevit_jax.weights.convert import Weights
from clevit_jax.weights.converted import write_converted
from clevit_jax.weights.load_report import LoadReport


@pytest.fixture
def server(tmp_path, monkeypatch):
    with hub_server.for_the_library(tmp_path, monkeypatch) as server:
        yield server


def _parquet(classes=("ash", "oak"), count=6):
    images, labels = [], []
    for number in range(count):
        stream = io.BytesIO()
        Image.new("RGB", (8, 8), (40 * number, 9, 9)).save(stream, "PNG")
        images.append({"bytes": stream.getvalue(), "path": f"{number}.png"})
        labels.append(classes[number % len(classes)])
    table = io.BytesIO()
    pq.write_table(pa.table({"image": images, "label": labels}), table)
    return table.getvalue()


def test_a_part_in_the_cache_is_no_copy(server, monkeypatch):
    """Neither of weights nor of images: a set that lacks a file would be another set."""
    server.add("a/leaves", {"a-0.parquet": _parquet(), "a-1.parquet": _parquet()}, kind="datasets")
    sources.load_dataset("hf://datasets/a/leaves")
    snapshot = next((pathlib.Path(constants.HF_HUB_CACHE)).glob("datasets--*/snapshots/*"))
    (snapshot / "a-1.parquet").unlink()
    hub.fetch.cache_clear()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    huggingface_hub.close_session()
    said = refused(sources.load_dataset, "hf://datasets/a/leaves", "has no whole copy.")
    assert "hf download a/leaves --repo-type dataset --local-dir FOLDER" in said
    assert said.endswith("name it: --config.data.root=FOLDER.")


def test_settings_that_name_the_hub(server, tmp_path):
    """A config says what was meant, from whatever folder it is read."""
    config = tiny.small()
    config.data.root, config.model.pretrained = "hf://datasets/a/leaves", "timm/swin_nano"
    full = with_places_in_full(config)
    assert full.data.root == "hf://datasets/a/leaves"
    assert full.model.pretrained == "hf://timm/swin_nano"
    begun = origin.begin_from(tiny.small(), "timm/swin_nano@abc", tmp_path / "run")
    assert begun.model.pretrained == "hf://timm/swin_nano@abc"
    assert server.asked == []


def test_images_in_parquet(server, capsys):
    files = {"README.md": b"-", "data/train-00000-of-00001.parquet": _parquet(),
             "data/test-00000-of-00001.parquet": _parquet(count=4), "raw/a.png": b"x"}  # fmt: skip
    repo = server.add(kind="datasets", repo="a/leaves", files=files, licence="cc-by-4.0")
    dataset = sources.load_dataset("hf://datasets/a/leaves")
    assert dataset.class_names == ("ash", "oak")
    assert [len(examples) for examples in dataset.splits.values()] == [6, 4]
    assert dataset.recognised_by.startswith(f"hf://datasets/a/leaves@{repo.commit}, ")
    assert sorted(server.fetched()) == sorted(files)[1:3]
    assert "2 files" in (said := capsys.readouterr().out)
    assert "licence: cc-by-4.0" in said


def test_images_in_folders(server):
    names = [f"{s}/{c}/{k}.png" for s in ("train", "test") for c in ("ash", "oak") for k in "12"]
    files = {f"set/{name}": name.encode() for name in names}  # no image is opened
    server.add(kind="datasets", repo="a/two", files=files | {"other/x.png": b"-"})
    dataset = sources.load_dataset("hf://datasets/a/two/set")
    assert dataset.layout == "folders"
    assert sorted(e.name for e in dataset.train) == [n for n in sorted(names) if "train" in n]
    assert sorted(server.fetched()) == sorted(f"set/{name}" for name in names)


def test_no_leaves_are_written_to_the_hub(server, tmp_path):
    config = tiny.small()
    config.data.root, config.data.leaves.classes = "hf://datasets/a/leaves", 2
    with pytest.raises(ConfigError, match="here the path of a file or a folder is meant"):
        open_data(resolve_data(config))
    assert not list(tmp_path.iterdir())


def test_the_record_of_a_run(server, tmp_path):
    """Repository and commit, of images and weights."""
    repo = server.add(
        "a/leaves", {"train.parquet": _parquet(), "test.parquet": _parquet()}, kind="datasets"
    )
    config = tiny.small()
    config.data.root = "hf://datasets/a/leaves"
    run = prepare_run(config, tmp_path / "run")
    params = jax.device_get(run.steps.initial_state(None).params)
    ours = Weights(
        dataclasses.replace(run.steps.model, drop_path=0.0), params, "clevit_jax", "x",
        class_names=run.dataset.class_names, report=LoadReport(),
    )  # fmt: skip
    write_converted(ours, tmp_path / "ours")
    files = {path.name: path.read_bytes() for path in (tmp_path / "ours").iterdir()}
    weights = server.add(repo="a/ours", files=files, commit="beef" * 10)
    config.model.pretrained = "hf://a/ours@main"
    run = prepare_run(config, tmp_path / "run")
    run.workdir.mkdir()
    check_beside_images(run)
    start = read_pretrained(run)
    assert start.facts["source"] == f"hf://a/ours@{weights.commit}"
    assert start.facts["path"] == "hf://a/ours@main"
    assert run.dataset.recognised_by.startswith(f"hf://datasets/a/leaves@{repo.commit}, ")
    jax.tree.map(np.testing.assert_array_equal, start.params, params)


def test_images_that_are_packed_or_are_none(server):
    server.add("a/zip", {"x.zip": b"-", "x.py": b"-"}, kind="datasets")
    copy = "--config.data.root=hf://datasets/a/zip@refs/convert/parquet"
    refused(sources.load_dataset, "hf://datasets/a/zip", "but 'x.py', 'x.zip'", copy)
    assert server.fetched() == []
    images = "names weights; images are hf://datasets/a/zip."
    refused(sources.load_dataset, "hf://a/zip", images)
    refused(read_weights, "hf://datasets/a/zip", "is a data set, and weights are wanted")
    refused(sources.load_dataset, "hf://datasets/a/zip/x", "no such folder")
