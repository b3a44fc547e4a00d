"""tools/pods/: what runs on a host, with processes in place of hosts."""

import http.server
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import threading

import pytest
from pod_scripts import AGAIN, PODS, ROOT, STAND_IN, lines, script
from waiting import wait_until


def test_shellcheck():
    scripts = [*ROOT.glob("tools/**/*.sh"), *ROOT.glob("tests/*.sh"), ROOT / ".ci" / "run"]
    assert len(scripts) > 8
    program = pathlib.Path(sys.executable).with_name("shellcheck")
    done = subprocess.run([program, *scripts], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


class Rerun:
    """run.sh in a folder of its own, with a command that ends with these codes in turn."""

    def __init__(self, place, *codes, **settings):
        self.place = place
        (place / "codes").write_text("\n".join(map(str, codes)) + "\n")
        script(place / "command", STAND_IN)
        script(place / "report", "#!/bin/sh\necho $1 >> reports\n")
        settings = {"RERUN_PAUSE": 0, "RERUN_REPORT": "./report", **settings}
        self.process = subprocess.Popen(
            ["bash", PODS / "run.sh", "./command", "--name", "two words"], cwd=place,
            env={**os.environ, **{name: str(value) for name, value in settings.items()}},
            text=True, stderr=subprocess.PIPE, start_new_session=True,
        )  # fmt: skip

    def ends(self):
        """Its code, how often the command started, and what was said."""
        _, said = self.process.communicate()
        assert set(lines(self.place / "starts")) <= {"--name two words"}
        assert lines(self.place / "reports") == [str(self.process.returncode)]
        return self.process.returncode, len(lines(self.place / "starts")), said


@pytest.mark.parametrize("last", [0, 1, 2, 130])
def test_again_until_it_is_done(tmp_path, last):
    assert Rerun(tmp_path, *AGAIN, last, 0).ends()[:2] == (last, len(AGAIN) + 1)


def test_killed_from_outside(tmp_path):
    codes = [-signal.SIGKILL, -signal.SIGABRT, -signal.SIGSEGV, 0]
    assert Rerun(tmp_path, *codes).ends()[:2] == (0, 4)


def test_early_ends_in_a_row(tmp_path):
    code, starts, said = Rerun(tmp_path, 75, 77, 76, 0, RERUN_LIMIT=3).ends()
    assert (code, starts) == (76, 3)
    assert "Ended with 76, the last of 3 starts in a row that took less than 1200 s" in said


def test_ends_that_are_not_early_are_not_counted(tmp_path):
    codes = [76] * 5 + [0]
    assert Rerun(tmp_path, *codes, RERUN_LIMIT=1, RERUN_EARLY=0).ends()[:2] == (0, 6)


def test_pauses_grow(tmp_path):
    script(tmp_path / "bin" / "sleep", "#!/bin/sh\necho $1 >> pauses\n")
    path = f"{tmp_path / 'bin'}:{os.environ['PATH']}"
    Rerun(tmp_path, 76, 76, 76, 76, 0, RERUN_PAUSE=3, RERUN_LONGEST=10, PATH=path).ends()
    assert lines(tmp_path / "pauses") == ["3", "6", "10", "10"]


@pytest.mark.parametrize("send", [os.kill, os.killpg], ids=["process", "group"])
def test_a_signal_goes_on_once_and_its_code_is_the_last(tmp_path, send):
    run = Rerun(tmp_path, 76, "wait", 0)
    wait_until(lambda: lines(tmp_path / "waits"), run.process)
    # A group of its own, so that what is sent to that of the script does not reach it twice.
    assert os.getpgid(int(*lines(tmp_path / "waits"))) != run.process.pid
    send(run.process.pid, signal.SIGTERM)
    code, starts, said = run.ends()
    assert (code, starts) == (75, 2)
    assert lines(tmp_path / "signals") == ["TERM"]
    assert "Stopped by SIGTERM; the command ended with 75." in said


def test_a_signal_in_a_pause(tmp_path):
    run = Rerun(tmp_path, 76, 0, RERUN_PAUSE=1000)
    assert "starts again in 1000 s" in run.process.stderr.readline()
    os.killpg(run.process.pid, signal.SIGTERM)
    assert run.ends()[:2] == (76, 1)


def test_mistyped():
    for arguments, settings, says in (
        ([], {}, "There is no command to run"),
        (["true"], {"RERUN_LIMIT": "ten"}, "'ten' is no whole number"),
    ):
        done = subprocess.run(
            ["bash", PODS / "run.sh", *arguments], env={**os.environ, **settings},
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 2
        assert says in done.stderr


@pytest.fixture
def metadata():
    """A metadata server on loopback: the attributes of an instance, and what was written to it."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            found = server.attributes.get(self.path.rpartition("/")[2])
            assert self.headers["Metadata-Flavor"] == "Google"
            self.send_response(404 if found is None else 200)
            self.end_headers()
            self.wfile.write((found or "").encode())

        def do_PUT(self):
            name = self.path.partition("/guest-attributes/")[2]
            length = int(self.headers["Content-Length"])
            server.written.append((name, self.rfile.read(length).decode()))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.attributes, server.written = {}, []
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def repository(tmp_path):
    """A repository with tools/pods/ as it is here, whose installation is noted only, and a tag."""
    place = tmp_path / "repository"
    shutil.copytree(PODS, place / "tools" / "pods")
    script(place / "tools" / "pods" / "install.sh", "#!/bin/sh\necho >> ../installed\n")
    script(place / "command", STAND_IN)
    git(place, "init", "--quiet")
    commit(place)
    git(place, "tag", "v1")
    return place


def git(place, *arguments):
    who = ("-c", "user.name=A", "-c", "user.email=a@example.org")
    subprocess.run(["git", *who, *arguments], cwd=place, check=True)


def commit(place):
    git(place, "add", "--all")
    git(place, "commit", "--quiet", "--allow-empty", "--message=all")


class Host:
    """A host that boots: startup.sh, with systemd played by a script that runs a unit at once."""

    def __init__(self, place, metadata, repository, **attributes):
        self.place, self.metadata = place, metadata
        metadata.attributes = {
            "clevit-repository": f"file://{repository}", "clevit-revision": "v1",
            "clevit-command": r"./command --name two\ words ", **attributes,
        }  # fmt: skip
        script(place / "bin" / "systemctl", "#!/bin/sh\nexit 3\n")
        script(
            place / "bin" / "systemd-run",
            r"""#!/bin/bash
while [[ $1 = -* ]]; do
    echo "$1" >> unit
    case $1 in --setenv=*) export "${1#--setenv=}" ;; *WorkingDirectory=*) folder=${1##*=} ;; esac
    shift
done
cd "$folder" && exec "$@"
""",
        )

    def boots(self):
        done = subprocess.run(
            ["bash", PODS / "startup.sh"], cwd=self.place, capture_output=True, text=True,
            check=False, env={
                **os.environ, "PATH": f"{self.place / 'bin'}:{os.environ['PATH']}",
                "GCE_METADATA_HOST": f"127.0.0.1:{self.metadata.server_port}",
                "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1", "RERUN_PAUSE": "0",
                "CLEVIT_PAUSE": "0", "CLEVIT_STATE": str(self.place / "state"),
                "CLEVIT_CLONE": str(self.place / "clone"), "CLEVIT_LOG": str(self.place / "log"),
            },
        )  # fmt: skip
        return done.returncode, done.stdout + done.stderr

    @property
    def codes(self):
        """What was told to the metadata server."""
        assert {name for name, _ in self.metadata.written} <= {"clevit/code"}
        return [code for _, code in self.metadata.written]


def test_a_host_fetches_installs_and_runs(tmp_path, metadata, repository):
    (repository / "codes").write_text("76\n0\n")
    commit(repository)
    git(repository, "tag", "--force", "v1")
    host = Host(tmp_path, metadata, repository)
    assert host.boots()[0] == 0
    assert lines(tmp_path / "clone" / "starts") == ["--name two words"] * 2
    assert host.codes == ["running", "0"]
    assert lines(tmp_path / "state" / "code") == ["0"]
    unit = set(lines(tmp_path / "unit"))
    assert {"--property=KillMode=mixed", "--property=After=network-online.target"} <= unit
    # It boots again, and has nothing to do.
    code, said = host.boots()
    assert code == 0
    assert "has ended with 0" in said
    assert len(lines(tmp_path / "clone" / "starts")) == 2


def test_a_host_that_boots_again_goes_on(tmp_path, metadata, repository):
    (repository / "codes").write_text("75\n0\n")
    commit(repository)
    git(repository, "tag", "--force", "v1")
    host = Host(tmp_path, metadata, repository)
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "code").write_text("75\n")  # it was shut down once
    assert host.boots()[0] == 0
    assert host.codes == ["running", "0"]


def test_a_host_without_the_code(tmp_path, metadata, repository):
    host = Host(tmp_path, metadata, repository, **{"clevit-revision": "v2"})
    code, said = host.boots()
    assert code == 2
    assert f"v2 of file://{repository} cannot be fetched" in said
    assert host.codes == ["2"]
    assert lines(tmp_path / "state" / "code") == ["2"]


def test_a_host_that_cannot_install(tmp_path, metadata, repository):
    script(repository / "tools" / "pods" / "install.sh", "#!/bin/sh\nexit 1\n")
    commit(repository)
    git(repository, "tag", "--force", "v1")
    host = Host(tmp_path, metadata, repository)
    assert host.boots()[0] == 2
    assert host.codes == ["running", "2"]


def test_installed_once_for_each_revision(tmp_path):
    clone = tmp_path / "clone"
    shutil.copytree(PODS, clone / "tools" / "pods")
    pip = '#!/bin/sh\necho "$*" >> pips\n'
    script(clone / "python", pip)
    maker = 'mkdir -p .venv/bin && cp python .venv/bin/python && echo "$1" >> makers\n'
    script(clone / "tools" / "make_venv.sh", maker)
    git(clone, "init", "--quiet")
    commit(clone)

    def install(**settings):
        settings = {"PYTHON": sys.executable, **settings}
        return subprocess.run(
            ["bash", clone / "tools" / "pods" / "install.sh"], env={**os.environ, **settings},
            capture_output=True, text=True, check=False,
        )  # fmt: skip

    for _ in range(2):
        assert install().returncode == 0
    assert lines(clone / "makers") == [sys.executable]
    (said,) = lines(clone / "pips")
    assert said.startswith("-m pip install")
    assert said.endswith("--constraint constraints.txt --editable .[tpu,gcs]")
    commit(clone)
    install()
    install(EXTRAS="cuda,gcs")
    assert len(lines(clone / "pips")) == 3
    done = install(PYTHON="python-of-nowhere", EXTRAS="tpu")
    assert done.returncode == 2
    assert "python-of-nowhere is no Python from 3.11 on" in done.stderr
