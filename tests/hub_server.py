"""A small hub on loopback: what huggingface_hub asks for, by its public interface, and no more.

`/api/models/OWNER/REPO/revision/REV` (datasets likewise), its `/tree/COMMIT`, and
`/OWNER/REPO/resolve/REV/FILE` by HEAD and GET, with the headers and the error codes of the hub.
"""

import contextlib
import dataclasses
import hashlib
import http.server
import json
import pathlib
import threading
import urllib.parse

import huggingface_hub
import pytest
from huggingface_hub import constants

from clevit_jax.errors import ConfigError
from clevit_jax.system import hub

TIMM = (pathlib.Path(__file__).parent / "golden" / "dialect_timm.safetensors").read_bytes()


@dataclasses.dataclass
class Repo:
    """A repository: its files, and how it behaves.

    Attributes:
        files: name -> bytes.
        licence: of its card.
        gated: whether files are for those who were let in.
        cut: bytes of a file that are sent before the connection ends; None for all.
        elsewhere: whether files are handed on to another address, as those of git-lfs are.
        commit: forty hexadecimal digits.
    """

    files: dict
    licence: str | None = "mit"
    gated: bool = False
    cut: int | None = None
    elsewhere: bool = False
    commit: str = "c0ffee" * 6 + "0123"


class Server(http.server.ThreadingHTTPServer):
    """Serves `repos`, by "models/OWNER/REPO" and "datasets/OWNER/REPO"; notes what was asked."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repos: dict[str, Repo] = {}
        self.asked: list[tuple[str, str]] = []
        self.elsewhere: dict[str, bytes] = {}
        self.status = 0  # answers everything with this number, if it is set

    @property
    def address(self):
        return f"http://127.0.0.1:{self.server_port}"

    def add(self, repo="timm/swin_nano", files=None, *, kind="models", **options):
        """A repository; of weights where no files are given."""
        files = files or {"README.md": b"-", "model.safetensors": TIMM}
        self.repos[f"{kind}/{repo}"] = made = Repo(files, **options)
        return made

    def fetched(self):
        """The files that were sent."""
        return [
            path.partition("/resolve/")[2].partition("/")[2]
            for verb, path in self.asked
            if verb == "GET" and "/resolve/" in path
        ]


@contextlib.contextmanager
def serving():
    """A server while the block lasts."""
    server = Server()
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)


@contextlib.contextmanager
def for_the_library(folder, monkeypatch):
    """A server at which the library looks, with a cache below a folder, in which the test works."""
    monkeypatch.chdir(folder)
    with serving() as server:
        for name, value in {
            "ENDPOINT": server.address,
            "HUGGINGFACE_CO_URL_TEMPLATE": server.address
            + "/{repo_id}/resolve/{revision}/{filename}",
            "HF_HUB_CACHE": str(folder / "cache"),
            "HF_TOKEN_PATH": str(folder / "token"),
            "HF_STORED_TOKENS_PATH": str(folder / "tokens"),
            "HF_HUB_OFFLINE": False,
            "HF_HUB_DISABLE_XET": True,
        }.items():
            monkeypatch.setattr(constants, name, value)
        for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
            monkeypatch.delenv(name, raising=False)
        for name in ("NO_PROXY", "no_proxy"):  # this machine is reached without
            monkeypatch.setenv(name, "127.0.0.1,localhost")
        _begin_anew()
        yield server
        _begin_anew()


def _begin_anew():
    huggingface_hub.close_session()
    hub.fetch.cache_clear()


def refused(read, name, *parts):
    """The sentence with which a name is refused; asserts that it has these parts."""
    with pytest.raises(ConfigError) as error:
        read(name)
    for part in parts:
        assert part in str(error.value), error.value
    return str(error.value)


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 10

    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self._answer(body=False)

    def do_GET(self):
        self._answer(body=True)

    def _answer(self, *, body):
        path = urllib.parse.unquote(urllib.parse.urlparse(self.path).path)
        self.server.asked.append((self.command, path))
        if self.headers.get("Authorization") == "Bearer bad":
            invalid = {"X-Error-Message": "Invalid credentials in Authorization header"}
            return self._send(401, b"{}", invalid, body=body)
        if self.server.status:
            return self._send(self.server.status, b"", body=body)
        if path.startswith("/elsewhere/"):
            return self._send(200, self.server.elsewhere[path], body=body)
        if path.startswith("/api/"):
            kind, owner, repo, *rest = path.removeprefix("/api/").split("/")
        else:
            parts = path.strip("/").split("/")
            kind = parts.pop(0) if parts[0] == "datasets" else "models"
            owner, repo, *rest = parts
        found = self.server.repos.get(f"{kind}/{owner}/{repo}")
        if found is None:
            return self._refuse(404, "RepoNotFound", body=body)
        revision = rest[1] if len(rest) > 1 else "main"
        if revision == "refs":
            revision, rest = "/".join(rest[1:4]), [rest[0], "", *rest[4:]]
        if revision not in ("main", found.commit, "refs/convert/parquet"):
            return self._refuse(404, "RevisionNotFound", body=body)
        if not path.startswith("/api/"):
            return self._file(found, "/".join(rest[2:]), body=body)
        if rest[:1] == ["tree"]:
            return self._json(_tree(found))
        return self._json(_info(f"{owner}/{repo}", found))

    def _file(self, repo, name, *, body):
        if repo.gated and self.headers.get("Authorization") != "Bearer good":
            return self._refuse(403, "GatedRepo", body=body)
        if name not in repo.files:
            return self._refuse(404, "EntryNotFound", body=body)
        data = repo.files[name]
        etag = hashlib.sha256(data).hexdigest()
        headers = {"ETag": f'"{etag}"', "X-Repo-Commit": repo.commit}
        if repo.elsewhere:
            other = self.server.address.replace("127.0.0.1", "localhost")  # another host
            headers |= {"Location": f"{other}/elsewhere/{etag}?signed=1", "ETag": '"the redirect"'}
            headers |= {"X-Linked-Etag": f'"{etag}"', "X-Linked-Size": str(len(data))}
            self.server.elsewhere[f"/elsewhere/{etag}"] = data
            return self._send(302, b"", headers, body=body)
        return self._send(200, data, headers, body=body, cut=repo.cut)

    def _refuse(self, number, code, *, body):
        return self._send(number, b"{}", {"X-Error-Code": code}, body=body)

    def _json(self, value):
        return self._send(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _send(self, number, data, headers=(), *, body=True, cut=None):
        self.send_response(number)
        for name, value in dict(headers).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if body:
            self.wfile.write(data[:cut])
        if cut is not None and body:
            self.close_connection = True


def _info(repo, found):
    siblings = [{"rfilename": name, "size": len(data)} for name, data in found.files.items()]
    card = {} if found.licence is None else {"license": found.licence}
    return {
        "id": repo, "sha": found.commit, "gated": found.gated and "auto",
        "siblings": siblings, "cardData": card, "tags": [], "downloads": 0, "likes": 0,
    }  # fmt: skip


def _tree(found):
    return [
        {"type": "file", "path": name, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
        for name, data in found.files.items()
    ]
