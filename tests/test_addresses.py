"""Data sets, weights and images by an address: as those on the disk, and called by it."""

import contextlib
import http.server
import io
import pathlib
import re
import shutil
import threading
import urllib.parse

import numpy as np
import pytest
import tiny
from PIL import Image
from test_fetch import content, forget, upload

import clevit_jax
from clevit_jax.analysis import input_files
from clevit_jax.analysis.form_images import ImagesById
from clevit_jax.config import changed_settings, resolve, resolve_data, with_places_in_full
from clevit_jax.data import sources
from clevit_jax.data.open import open_data
from clevit_jax.errors import ClevitError, ConfigError, DataError, DecodeError
from clevit_jax.inference import images_in
from clevit_jax.runs.load import read_weights, split_checkpoint
from clevit_jax.runs.normalisation import preprocessing_of
from clevit_jax.system import addresses, fetch, web
from clevit_jax.system.places import expand
from clevit_jax.weights.fit import read_class_map

GOLDEN = pathlib.Path(__file__).parent / "golden"


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """The user's cache, empty."""
    forget()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, "127.0.0.1")
    yield tmp_path / "cache"
    forget()


def picture(colour=0):
    file = io.BytesIO()
    Image.new("RGB", (8, 8), (colour, 0, 0)).save(file, "PNG")
    return file.getvalue()


SET = {
    f"{split}/{kind}/{i}.png": picture(i)
    for split in ("train", "test")
    for kind in ("oak", "elm")
    for i in range(2)
}


class Page(http.server.BaseHTTPRequestHandler):
    """Serves `server.files`, by parts if `server.parts`; notes what was asked."""

    def log_message(self, *_):
        pass

    def do_GET(self):
        server, path = self.server, urllib.parse.unquote(self.path.partition("?")[0])
        server.asked.append((self.path, self.headers.get("Range"), self.headers["Authorization"]))
        if path.startswith("/moved"):
            self._send(302, b"", {"Location": server.address + "/leaf.png"})
        elif path not in server.files:
            self._send(403 if path == "/refused" else 404, b"")
        elif path == "/page":
            self._send(200, b"<html>", {"Content-Type": "text/html"})
        else:
            self._file(server.files[path], server)

    def _file(self, data, server):
        part = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
        headers = {"ETag": f'"{hash(data)}"', "Content-Type": "application/octet-stream"}
        if not part or not server.parts:
            return self._send(200, data, headers)
        start, end = int(part[1]), int(part[2] or len(data) - 1)
        if start >= len(data):
            return self._send(416, b"", headers)
        headers["Content-Range"] = f"bytes {start}-{min(end, len(data) - 1)}/{len(data)}"
        return self._send(206, data[start : end + 1], headers)

    def _send(self, code, data, headers=()):
        self.send_response(code)
        for name, value in dict(headers).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        cut = self.server.cut
        if cut and len(data) > cut:
            data, self.server.cut = data[:cut], None
        with contextlib.suppress(OSError):  # it may have seen enough
            self.wfile.write(data)


@pytest.fixture
def server():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page)
    server.daemon_threads = True
    server.address = f"http://127.0.0.1:{server.server_port}"
    server.files, server.asked, server.parts, server.cut = {}, [], True, None
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join(5)


@pytest.mark.parametrize("parts", [True, False])
def test_a_file_on_the_web(server, tmp_path, capsys, parts, monkeypatch):
    """Once, gone on with where it broke off, and without its secret anywhere."""
    monkeypatch.setattr("clevit_jax.system.download._PAUSES", (0.0, 0.0))
    server.parts = parts
    server.files["/a b/x.bin"] = data = bytes(range(200))
    address = f"{server.address}/a%20b/x.bin?X-Amz-Signature=SECRET"
    server.cut = 50
    copy = fetch.fetched(address)
    assert copy.path.read_bytes() == data
    assert (copy.address, copy.path.name) == (f"{server.address}/a%20b/x.bin", "x.bin")
    if parts:
        assert "bytes=50-" in [part for _, part, _ in server.asked]
    del server.asked[:]
    forget()
    assert fetch.fetched(address.replace("SECRET", "NEWER")).path == copy.path
    assert [part for _, part, _ in server.asked] == ["bytes=0-0"]
    server.files["/a b/x.bin"] = b"other"
    forget()
    assert fetch.fetched(address).path.read_bytes() == b"other"
    said = capsys.readouterr()
    names = [str(path) for path in tmp_path.rglob("*")]
    kept = [path.read_text() for path in tmp_path.rglob("manifest.json")]
    assert not re.search("SECRET|NEWER", f"{said} {names} {kept}")


def test_what_the_web_refuses(server):
    server.files |= {"/leaf.png": picture(7), "/page": b"", "/empty": b""}
    where = server.address

    def refused(path):
        with pytest.raises(ConfigError) as error:
            fetch.fetched(f"{where}{path}?token=SECRET", what="--input")
        assert "SECRET" not in str(error.value)
        return str(error.value)

    assert refused("/x") == f"--input is {where}/x, and cannot be read: nothing is there (404)."
    assert "refuses it (403); the address may lack a token, or have expired." in refused("/refused")
    assert "is a page for people, and no file" in refused("/page")
    assert fetch.fetched(f"{where}/empty").path.read_bytes() == b""
    assert fetch.fetched(f"{where}/moved?x=1").path.read_bytes() == picture(7)
    user = where.replace("//", "//me:word@")
    assert fetch.fetched(f"{user}/leaf.png").address == f"{where}/leaf.png"
    assert server.asked[-1][2] == "Basic bWU6d29yZA=="
    gone = web.os_error(TimeoutError(), "x")
    assert gone.strerror == "the server does not answer"


def test_what_addresses_show_and_keep():
    signed = "https://me:word@h.org/a/b.pth?download=1&sig=AAA&X-Goog-Credential=B#c"
    assert addresses.shown(signed) == "https://h.org/a/b.pth"
    assert addresses.public(signed) == "https://h.org/a/b.pth?download=1"
    assert addresses.shown("abfs://box@me.dfs.core.windows.net/a") == (
        "abfs://box@me.dfs.core.windows.net/a"
    )
    assert addresses.shown("sftp://me:word@h/a") == "sftp://me@h/a"
    assert addresses.shown("a/b?c") == "a/b?c"
    for text in ("gs://b/x", "S3://b/x", "https://h/x", "memory://x"):
        assert addresses.is_fetched(text), text
    for text in (
        "a/b", "hf://a/b", "file:///a", "https://huggingface.co/a/b", "nothing://x", "C:/x", "",
    ):  # fmt: skip
        assert not addresses.is_fetched(text), text


def test_settings_that_are_addresses(monkeypatch):
    monkeypatch.setenv("BUCKET", "mine")
    config = tiny.small()
    config.data.root, config.model.pretrained = "gs://$BUCKET/set", "https://h/$w.pth?token=A&v=1"
    config.data.copy_to, config.model.class_map = "$BUCKET/copies", "s3://b/map.txt"
    assert resolve_data(config).root == "gs://mine/set"
    settings = resolve(config, None, "cpu")
    assert (settings.pretrained, settings.class_map) == (config.model.pretrained, "s3://b/map.txt")
    assert settings.data.copy_to == "mine/copies"
    full = with_places_in_full(config)
    assert full.data.root == "gs://mine/set"
    assert full.model.pretrained == "https://h/$w.pth?v=1"
    assert full.data.copy_to == str(pathlib.Path("mine/copies").absolute())
    again = {"model.pretrained": config.model.pretrained.replace("A", "B")}
    assert changed_settings(again, {"model.pretrained": full.model.pretrained}) == []
    config.data.copy_to = "gs://b/x"
    with pytest.raises(ConfigError, match=r"data.copy_to is gs://b/x, an address"):
        resolve_data(config)
    with pytest.raises(ConfigError, match=r"write hf://a/b/w.pth"):
        expand("https://huggingface.co/a/b/blob/main/w.pth", "model.pretrained", fetched=True)


def test_a_data_set_in_a_bucket_is_that_on_the_disk(bucket, tmp_path, capsys):
    upload(bucket, SET)
    for name, data in SET.items():
        (tmp_path / "disk" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "disk" / name).write_bytes(data)
    config = tiny.small()
    config.data.root, config.data.copy_to = str(bucket), str(tmp_path / "copies")
    there = open_data(resolve_data(config))
    here = sources.load_dataset(tmp_path / "disk")
    assert there.split_hash() == here.split_hash()
    assert (there.class_names, there.layout) == (here.class_names, here.layout)
    assert there.recognised_by == f"{bucket}, {here.recognised_by}"
    assert there.train[0].data.is_relative_to(tmp_path / "copies")
    assert not (tmp_path / "cache").exists()
    assert len(list((tmp_path / "copies").glob("*/*/in_use"))) == 1
    # What is wrong with it is said of the address.
    upload(bucket, {"table/train.csv": b"file,label\nnone.png,a\n"})
    with pytest.raises(DataError) as error:
        sources.load_dataset(f"{bucket}/table")
    assert f"{bucket}/table" in str(error.value)
    assert str(tmp_path) not in str(error.value)
    upload(bucket, {"set.zip": b"-"})
    with pytest.raises(ConfigError, match=r"set.zip, a file, and a folder of images is wanted"):
        sources.load_dataset(f"{bucket}/set.zip")


def test_weights(bucket, server, tmp_path, capsys):
    """Of a folder what its model needs, of a file what lies beside it; called by the address."""
    whole = (GOLDEN / "dialect_timm.safetensors").read_bytes()
    upload(bucket, {
        "timm/model.safetensors": whole, "timm/pytorch_model.bin": b"-", "timm/deep/x": b"-",
        "timm/config.json": b'{"mean": 1}', "other/swin.safetensors": whole, "other/x.bin": b"-",
        "none/x.txt": b"-", "map.txt": b"1\n0\n", "bad/swin.pth": b"no weights",
    })  # fmt: skip
    reference = read_weights(GOLDEN / "dialect_timm.safetensors")
    for address, files in {
        f"{bucket}/timm": {"model.safetensors", "config.json"},
        f"{bucket}/timm/model.safetensors": {"model.safetensors", "config.json"},
        f"{bucket}/other/swin.safetensors": {"swin.safetensors"},
    }.items():
        weights = read_weights(address, copy_to=str(tmp_path / "copies"))
        assert weights.source == address
        assert weights.source_sha256 == reference.source_sha256
        (copy,) = [c.path for (named, *_), c in fetch._known.items() if named == address]
        assert files == set(content(copy if copy.is_dir() else copy.parent))
    server.files["/w/swin.safetensors"] = whole
    weights = read_weights(f"{server.address}/w/swin.safetensors?sig=A")
    assert weights.source == f"{server.address}/w/swin.safetensors"
    assert read_class_map(f"{bucket}/map.txt").tolist() == [1, 0]
    assert preprocessing_of(f"{bucket}/other") is None
    for address, part in {
        f"{bucket}/none": "and holds no model.safetensors or",
        f"{bucket}/none/y.pth": f"There is no file {bucket}/none/y.pth; beside it there are 'x",
        f"{bucket}/bad/swin.pth": f"{bucket}/bad/swin.pth",
        f"{server.address}/none.pth": "nothing is there (404)",
    }.items():
        with pytest.raises(ClevitError) as error:
            read_weights(address)
        assert part in str(error.value)
        assert str(tmp_path) not in str(error.value)
    with pytest.raises(ClevitError, match="is not a run, so it has no checkpoints"):
        read_weights(f"{bucket}/timm", checkpoint="best")


def test_a_run_in_a_bucket_is_read_where_it_lies(bucket):
    upload(bucket, {"run/config.json": b"{}", "run/checkpoints/1/x": b"-"})
    path, which = split_checkpoint(f"{bucket}/run@best")
    assert (str(path), which) == (f"{bucket}/run", "best")
    with pytest.raises(ClevitError, match="holds no settings"):
        read_weights(f"{bucket}/run@best")


def test_images_of_input(bucket, server, tmp_path, capsys):
    upload(bucket, {
        **{f"in/{name}": picture() for name in ("b.png", "a/c.PNG", "a/d.png", "e/a [1].png")},
        "in/torn.png": picture()[:40], "in/notes.txt": b"-", "in/.hidden.png": b"-",
    })  # fmt: skip

    def found(text, say=False):
        return [str(path) for path in input_files.find_images(text, say=say)]

    assert found(f"{bucket}/in", say=True) == [
        f"{bucket}/in/{name}" for name in ("b.png", "torn.png", "a/c.PNG", "a/d.png", "e/a [1].png")
    ]
    said = capsys.readouterr().out
    assert f"{bucket}/in: left out: 1 .txt.\n" in said
    assert found(f"{bucket}/in/a/*.png") == [f"{bucket}/in/a/d.png"]
    assert found(f"{bucket}/in/**/[bd].png") == [f"{bucket}/in/a/d.png", f"{bucket}/in/b.png"]
    assert found(f"{bucket}/in/[ae]") == [
        f"{bucket}/in/{name}" for name in ("a/c.PNG", "a/d.png", "e/a [1].png")
    ]
    assert found(f"{bucket}/in/e/a [1].png") == [f"{bucket}/in/e/a [1].png"]
    server.files["/leaf.png"] = picture()
    assert found(f"{server.address}/leaf.png?token=A") == [f"{server.address}/leaf.png"]
    for text in (f"{bucket}/in/*.gif", f"{bucket}/in/a/x.png"):
        with pytest.raises(ConfigError, match=r"--input"):
            found(text)
    # What asks for more than a name.
    base = input_files.base_folder(f"{bucket}/in/*/d.png")
    (image,) = input_files.find_images(f"{bucket}/in/*/d.png")
    assert image.relative_to(base) == pathlib.Path("a/d.png")
    assert str(base) == f"{bucket}/in"
    assert input_files.base_folder(f"{bucket}/in") == input_files.base_folder(f"{bucket}/in/")
    assert ImagesById([image]).find("a/d.png") == [image]
    assert images_in.rgb(image).size == (8, 8)
    torn = list(input_files.find_images(f"{bucket}/in"))[1]
    with pytest.raises(DecodeError, match=re.escape(f"{bucket}/in/torn.png ")):
        images_in.rgb(torn)


def test_an_image_in_python(bucket, server):
    upload(bucket, {"x.png": picture(9), "torn.png": picture()[:40]})
    server.files["/leaf.png"] = picture(7)
    names = [f"{bucket}/x.png", f"{server.address}/leaf.png?token=A"]
    images = list(images_in.each(names, images_in.rgb))
    assert [np.asarray(image)[0, 0, 0] for image in images] == [9, 7]
    for name, part in {
        f"{bucket}/none.png": "there is no such file",
        f"{bucket}/torn.png": f"{bucket}/torn.png",
        f"{server.address}/x?token=SECRET": f"{server.address}/x, and cannot be read: nothing",
    }.items():
        with pytest.raises(DecodeError) as error:
            images_in.rgb(name)
        assert part in str(error.value)
        assert "SECRET" not in str(error.value)


def test_predictions_are_called_by_the_address(trained, bucket, tmp_path):
    """The table is that of the same images on the disk, but for the names."""
    from clevit_jax.analysis.predict import predict

    folder = tmp_path / "images"
    folder.mkdir()
    for name in sorted((trained.path.parent / "data/test").iterdir())[:3]:
        shutil.copy(name, folder)
    upload(bucket, {f"in/{name}": data for name, data in content(folder).items()})
    for source, table in ((f"{bucket}/in", "there.csv"), (str(folder), "here.csv")):
        assert predict(trained, source, tmp_path / table, top=2) == 0
    here, there = ((tmp_path / name).read_text() for name in ("here.csv", "there.csv"))
    assert there == here.replace(str(folder), f"{bucket}/in")


def test_what_is_asked_by_name(bucket):
    """A model that is not there, and a config, which is code."""
    upload(bucket, {"recipe.py": b"raise SystemExit"})
    with pytest.raises(ConfigError, match=r"a config file is code, so it is read from this machin"):
        clevit_jax.get_config(f"{bucket}/recipe.py")
    with pytest.raises(ClevitError, match="nothing is there"):
        clevit_jax.load(f"{bucket}/none")
