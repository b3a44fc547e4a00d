"""Weights and images by their names on the hub, against a server on loopback."""

import errno
import functools
import importlib
import json
import os
import pathlib
import shutil
import subprocess
import sys
import types

import hub_server
import huggingface_hub
import numpy as np
import pytest
from hub_server import TIMM, refused
from huggingface_hub import constants
from safetensors.numpy import load_file, save

import clevit_jax
from clevit_jax import convert
from clevit_jax.errors import ConfigError
from clevit_jax.model.preprocessing import Preprocessing
from clevit_jax.runs.load import read_weights
from clevit_jax.runs.normalisation import preprocessing_of
from clevit_jax.system import hub
from clevit_jax.weights import from_hub

GOLDEN = pathlib.Path(__file__).parent / "golden"
CONFIG = json.dumps({"architecture": "swin"}).encode()


@pytest.fixture
def server(tmp_path, monkeypatch):
    with hub_server.for_the_library(tmp_path, monkeypatch) as server:
        yield server


_refused = functools.partial(refused, read_weights)


@pytest.mark.parametrize(
    ("typed", "kind", "repo", "revision", "path"),
    [
        ("hf://a/b", "model", "a/b", "", ""),
        ("hf://models/a/b", "model", "a/b", "", ""),
        ("hf://a/b@v1.0", "model", "a/b", "v1.0", ""),
        ("hf://a/b@v1/x/y.pth", "model", "a/b", "v1", "x/y.pth"),
        ("HF://datasets/a/b.c-d_e", "dataset", "a/b.c-d_e", "", ""),
        ("hf://datasets/a/b@refs/convert/parquet", "dataset", "a/b", "refs/convert/parquet", ""),
        ("hf://datasets/a/b@refs%2Fpr%2F3/x/", "dataset", "a/b", "refs/pr/3", "x"),
    ],
)
def test_parts_of_a_name(typed, kind, repo, revision, path):
    assert hub.parse(typed, "x") == hub.Name(kind, repo, revision, path)


@pytest.mark.parametrize(
    "typed",
    ["hf://", "hf://a", "hf://datasets/a", "hf://a/b@", "hf://../b", "hf://a/b/../c", "hf://a b/c"],
)
def test_no_name(typed):
    with pytest.raises(ConfigError, match="names nothing on the hub; write hf://OWNER/REPO"):
        hub.parse(typed, "data.root")


def test_what_is_a_name_of_weights(tmp_path, monkeypatch):
    """What is there goes first, and a path that is wrong stays a wrong path."""
    monkeypatch.chdir(tmp_path)
    for typed, meant in {
        "timm/swin_x.ms_in22k": "hf://timm/swin_x.ms_in22k",
        "microsoft/swin-base@abc": "hf://microsoft/swin-base@abc",
        "swin_base_patch4_window7_224_22k.pth": "hf://timm/swin_base_patch4_window7_224.ms_in22k",
    }.items():
        assert str(from_hub.named(typed)) == meant
        assert from_hub.named(pathlib.Path(typed)) == from_hub.named(typed)
    for typed in (
        "runs/mine", "mine", "timm", "timm/", "timm/a/b", "timm/x.pth", "./timm/x", "", "a/b",
        "weights/swin_base_patch4_window7_224_22k.pth", "runs/mine@best", "mine.pth",
    ):  # fmt: skip
        assert from_hub.named(typed) is None, typed
    (tmp_path / "timm").mkdir()
    (tmp_path / "timm/swin_x.ms_in22k").touch()
    (tmp_path / "swin_base_patch4_window7_224_22k.pth").touch()
    assert from_hub.named("timm/swin_x.ms_in22k") is None
    assert from_hub.named("timm/swin_x.ms_in22k@best") is None
    (tmp_path / "timm/swin_y@1").touch()
    assert from_hub.named("timm/swin_y@1") is None
    assert from_hub.named("swin_base_patch4_window7_224_22k.pth") is None
    with pytest.raises(clevit_jax.ClevitError) as error:
        read_weights("runs/mine")
    assert "hub" not in str(error.value)


def test_weights_are_fetched_once(server, capsys):
    repo = server.add(files={"README.md": b"-", "model.safetensors": TIMM, "config.json": CONFIG,
                               "pytorch_model.bin": b"x", "flax_model.msgpack": b"x"})  # fmt: skip
    weights = read_weights("timm/swin_nano")
    reference = load_file(GOLDEN / "dialect_timm.safetensors")
    kernel = weights.params["head"]["kernel"]
    np.testing.assert_array_equal(kernel, reference["head.fc.weight"].T)
    assert weights.source == f"hf://timm/swin_nano@{repo.commit}"
    assert sorted(server.fetched()) == ["config.json", "model.safetensors"]
    size = (len(TIMM) + len(CONFIG)) / 1e6
    said = capsys.readouterr().out
    assert said == (
        f"Fetching hf://timm/swin_nano@{repo.commit}: 2 files, {size:,.1f} MB to download; "
        "licence: mit.\n"
    )
    asked = len(server.asked)
    assert read_weights("hf://timm/swin_nano").source == weights.source
    assert len(server.asked) == asked  # one command reads one commit
    hub.fetch.cache_clear()
    read_weights("hf://timm/swin_nano")
    assert len(server.fetched()) == 2
    assert "2 files, in the cache already; licence: mit." in capsys.readouterr().out


@pytest.mark.parametrize("how", ["offline", "away", "ill"])
def test_without_the_hub_the_cache_is_taken(server, monkeypatch, capsys, how):
    server.add()
    read_weights("hf://timm/swin_nano")
    hub.fetch.cache_clear()
    capsys.readouterr()
    if how == "offline":
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
        huggingface_hub.close_session()
        reason = "since HF_HUB_OFFLINE is set."
    elif how == "away":
        server.shutdown()
        server.server_close()
        huggingface_hub.close_session()
        reason = f"since {server.address} cannot be reached ("
    else:
        server.status = 503
        reason = f"since {server.address} answers with error 503"
    assert read_weights("hf://timm/swin_nano").source.startswith("hf://timm/swin_nano@c0ffee")
    assert reason in capsys.readouterr().out
    said = _refused("hf://timm/swin_other", reason[:-2], "has no whole copy.")
    assert "hf download timm/swin_other model.safetensors config.json --local-dir FOLDER" in said
    assert "name it: --config.model.pretrained=FOLDER." in said


def test_refusals_of_the_hub(server, tmp_path):
    server.add("a/gated", gated=True)
    said = refused(
        read_weights,
        "hf://a/gated",
        f"let in: ask at {server.address}/a/gated, and log in (hf auth",
    )
    assert "--config.model.pretrained=FOLDER" in said
    refused(
        read_weights, "hf://a/none", "hf://a/none: the hub has no such repository", "hf auth login"
    )
    _refused("timm/none", "hf://timm/none: the hub has no such repository")
    server.add()
    _refused("hf://timm/swin_nano@v7", "no such revision", "--revision v7")
    refused(
        read_weights,
        "hf://timm/swin_nano/x.pth",
        "no such file; it holds 'README.md', 'model.safetensors'",
    )


def test_a_token_that_is_none(server, monkeypatch):
    server.add()
    monkeypatch.setenv("HF_TOKEN", "bad")
    refused(
        read_weights, "hf://timm/swin_nano", "the hub refuses the token that you have (401): log in"
    )


@pytest.mark.parametrize(
    ("licence", "said"),
    [
        (None, "not stated, so ask its owner."),
        (["mit", "cc0-1.0"], "mit, cc0-1.0."),
        ("x\x1b", "x\\x1b."),
    ],
)
def test_what_a_card_says(server, capsys, licence, said):
    server.add(licence=licence)
    read_weights("hf://timm/swin_nano")
    assert capsys.readouterr().out.endswith(f"licence: {said}\n")


def test_a_branch_that_moves_while_it_is_fetched(server, monkeypatch):
    """Its files might be of two commits."""
    repo = server.add()
    fetch = huggingface_hub.snapshot_download

    def later(*args, **options):
        repo.commit = "beef" * 10
        return fetch(*args, **options)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", later)
    refused(
        read_weights, "hf://timm/swin_nano", "was changed while it was fetched", f"@{'beef' * 10}."
    )


def test_a_token_opens_a_gated_repository(server, monkeypatch):
    server.add("a/gated", gated=True)
    monkeypatch.setenv("HF_TOKEN", "good")
    assert read_weights("hf://a/gated").dialect == "timm"


def test_files_that_lie_elsewhere(server):
    """The hub hands large files on to another host."""
    server.add(elsewhere=True)
    assert read_weights("hf://timm/swin_nano").dialect == "timm"
    assert len(list(pathlib.Path(constants.HF_HUB_CACHE).rglob("blobs/*"))) == 1
    assert [path for verb, path in server.asked if verb == "GET"][-1].startswith("/elsewhere/")


def test_a_download_that_is_cut_off(server, monkeypatch):
    monkeypatch.setattr("time.sleep", lambda _: None)  # between the library's trials
    repo = server.add(cut=1000)
    _refused("hf://timm/swin_nano", "was cut off while it was fetched", "start again")
    assert not list(pathlib.Path(constants.HF_HUB_CACHE).rglob("model.safetensors"))
    repo.cut = None
    assert read_weights("hf://timm/swin_nano").dialect == "timm"


def test_a_full_disk(server, monkeypatch):
    server.add()
    monkeypatch.setattr(shutil, "disk_usage", lambda _: types.SimpleNamespace(free=0))
    refused(
        read_weights,
        "hf://timm/swin_nano",
        "has 0.0 MB left: free some space",
        "export HF_HOME=DIR",
    )
    assert server.fetched() == []


def test_a_disk_that_fills_up(server, monkeypatch):
    server.add()

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", full)
    refused(
        read_weights,
        "hf://timm/swin_nano",
        "does not fit",
        "No space left on device",
        "HF_HOME=DIR",
    )


def test_without_the_library(server, monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    _refused("hf://timm/swin_nano", "is not installed: pip install 'clevit_jax[hub]'.")


def test_which_file_of_a_repository(server, capsys):
    """By the order of a folder; another by its name; one alone; of several the user says which."""
    server.add("a/two", files={"x.safetensors": TIMM, "sub/y.safetensors": TIMM})
    _refused("hf://a/two", "holds 2 files of weights ('sub/y.safetensors', 'x.safetensors')",
             "name one, as hf://a/two/x.safetensors")  # fmt: skip
    assert read_weights("hf://a/two/sub/y.safetensors").source.endswith("123/sub/y.safetensors")
    server.add("a/one", files={"best.safetensors": TIMM, "x.txt": b"-"})
    assert read_weights("hf://a/one").dialect == "timm"
    assert "the one file of weights is best.safetensors" in capsys.readouterr().out
    server.add("a/none", files={"x.txt": b"-", ".gitattributes": b"-"})
    _refused("hf://a/none", "holds no weights; it holds 'x.txt'.")


def test_shards_come_with_their_index(server):
    tensors = load_file(GOLDEN / "dialect_timm.safetensors")
    names = sorted(tensors)
    parts = {"1": names[::2], "2": names[1::2]}
    shard = "model-0000{}-of-00002.safetensors".format
    weight_map = {name: shard(k) for k, part in parts.items() for name in part}
    files = {shard(k): save({n: tensors[n] for n in part}) for k, part in parts.items()}
    files["model.safetensors.index.json"] = json.dumps({"weight_map": weight_map}).encode()
    files |= {"model.fp16-00001-of-00001.safetensors": b"-", "pytorch_model.bin": b"-"}
    server.add(files=files)
    whole = load_file(GOLDEN / "dialect_timm.safetensors")["head.fc.bias"]
    np.testing.assert_array_equal(read_weights("hf://timm/swin_nano").params["head"]["bias"], whole)
    assert sorted(server.fetched()) == [shard(1), shard(2), "model.safetensors.index.json"]


def test_an_official_file_by_its_name(server, capsys):
    server.add("timm/swin_tiny_patch4_window7_224.ms_in1k")
    assert read_weights("swin_tiny_patch4_window7_224.pth").dialect == "timm"
    said = capsys.readouterr().out
    assert said.startswith(
        "swin_tiny_patch4_window7_224.pth is not here; "
        "hf://timm/swin_tiny_patch4_window7_224.ms_in1k holds the same weights, and is taken.\n"
    )


def test_the_converter(server, capsys, tmp_path):
    """Wrong options are refused before anything is fetched."""
    server.add()
    assert convert.main(["hf://timm/swin_nano", "--overwrite"]) == 2
    assert convert.main(["hf://timm/swin_nano", "out", "--ema"]) == 2
    assert server.asked == []
    assert convert.main(["hf://timm/swin_nano", "out"]) == 0
    capsys.readouterr()
    facts = json.loads((tmp_path / "out/model.json").read_text())
    assert any("hf://timm/swin_nano@c0ffee" in str(value) for value in facts.values())
    clevit_jax.convert_weights("timm/swin_nano", "again")
    assert clevit_jax.load("timm/swin_nano").source.startswith("hf://timm/swin_nano@c0ffee")


def test_verifying_looks_at_what_was_fetched(server, monkeypatch):
    server.add()
    seen = []

    def look(weights, path):
        seen.append((path / "model.safetensors").read_bytes())
        return types.SimpleNamespace(ok=True)

    monkeypatch.setattr(convert.verify, "verify", look)
    assert convert.main(["timm/swin_nano", "--verify"]) == 0
    assert seen == [TIMM]


def test_the_json_of_the_repository_is_read(server):
    """A run that starts from the name normalises by it, too."""
    given = {"input_size": [3, 64, 64], "crop_pct": 1.0, "mean": [0.5] * 3, "std": [0.25] * 3}
    config = json.dumps({"architecture": "swin", "pretrained_cfg": given}).encode()
    server.add(files={"config.json": config, "model.safetensors": TIMM})
    wanted = Preprocessing(64, mean=(0.5,) * 3, std=(0.25,) * 3)
    for name in ("hf://timm/swin_nano", "hf://timm/swin_nano/model.safetensors"):
        assert read_weights(name).preprocessing == wanted
        assert preprocessing_of(name) == wanted
    assert clevit_jax.load("timm/swin_nano").preprocessing == wanted


def test_a_converted_checkpoint_on_the_hub(server, tmp_path):
    clevit_jax.convert_weights(GOLDEN / "dialect_timm.safetensors", "ours")
    files = {path.name: path.read_bytes() for path in (tmp_path / "ours").iterdir()}
    server.add("a/ours", files=files)
    assert read_weights("hf://a/ours").dialect == "timm"


def test_the_command_under_the_variables_of_the_library(server, tmp_path):
    """HF_ENDPOINT and HF_HOME, as a user sets them; the library is not imported before."""
    server.add()
    code = (
        "import sys, clevit_jax, clevit_jax.convert, clevit_jax.train\n"
        "assert 'huggingface_hub' not in sys.modules\n"
        "sys.exit(clevit_jax.convert.main(['timm/swin_nano', 'converted']))"
    )
    variables = {"HF_ENDPOINT": server.address, "HF_HOME": str(tmp_path / "home"),
                 "HF_HUB_OFFLINE": "0"}  # fmt: skip
    path = str(pathlib.Path(clevit_jax.__file__).parents[1])
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True,
        env={**os.environ, **variables, "PYTHONPATH": path, "HF_HUB_DISABLE_XET": "1"},
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert done.stdout.startswith(f"Fetching hf://timm/swin_nano@{'c0ffee' * 6}0123: model.safet")
    assert (tmp_path / "converted/model.json").is_file()
    assert list((tmp_path / "home/hub").glob("models--timm--swin_nano/snapshots/*/*.safetensors"))


def test_one_room_imports_the_library():
    root = pathlib.Path(clevit_jax.__file__).parent
    users = [p.stem for p in root.rglob("*.py") if "import huggingface_hub" in p.read_text()]
    assert users == ["hub"]
    assert importlib.import_module("clevit_jax.system.hub_errors")
