"""Paths in a bucket: as on a disk, whole or not there, and seen by every process."""

import errno
import os
import pathlib
import subprocess
import sys

import pytest

from clevit_jax.errors import ConfigError
from clevit_jax.system import buckets, files
from clevit_jax.system.places import in_bucket, place, run_place

HOME = pathlib.Path(__file__).parents[1]


def elsewhere(code):
    """What another process, as on another host, does with `run_place`."""
    subprocess.run(
        [sys.executable, "-c", f"from clevit_jax.system.places import run_place as at\n{code}"],
        check=True,
        timeout=120,
        env={**os.environ, "PYTHONPATH": str(HOME)},
    )


@pytest.fixture(params=["disk", "bucket"])
def folder(request, tmp_path):
    return tmp_path if request.param == "disk" else request.getfixturevalue("bucket")


def test_names_are_as_on_a_disk(folder):
    for name in ("3/metrics/metrics", "12/metrics/metrics", "12/state/d", "a [1]#?%25 ü.txt"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name, encoding="utf-8")

    def named(paths):
        return sorted(path.relative_to(folder).as_posix() for path in paths)

    assert named(folder.iterdir()) == ["12", "3", "a [1]#?%25 ü.txt"]
    assert named(folder.glob("[0-9]*")) == ["12", "3"]
    assert named(folder.glob("[0-9]*/metrics/metrics")) == [
        "12/metrics/metrics", "3/metrics/metrics",
    ]  # fmt: skip
    assert named(path for path in (folder / "12").glob("*/**/*") if path.is_file()) == [
        "12/metrics/metrics", "12/state/d",
    ]  # fmt: skip
    assert named(folder.glob("none/*")) == []
    assert (folder / "a [1]#?%25 ü.txt").read_text(encoding="utf-8") == "a [1]#?%25 ü.txt"
    assert (folder / "12").is_dir()
    assert not (folder / "12").is_file()
    assert not (folder / "1").exists()
    assert (folder / "12/state/d").stat().st_size == 10
    (folder / "12/state/d").unlink()
    (folder / "12/state/d").unlink(missing_ok=True)
    assert not (folder / "12/state/d").exists()


def test_errors_are_those_of_a_disk(folder):
    with pytest.raises(FileNotFoundError, match="No such file") as raised:
        (folder / "none").read_bytes()
    assert raised.value.filename == str(folder / "none")
    with pytest.raises(FileNotFoundError):
        (folder / "none").unlink()
    with pytest.raises(ConfigError, match=r"none cannot be read: No such file"):
        files.read_json(folder / "none")


def test_a_missing_bucket_is_named(gcs):
    with pytest.raises(FileNotFoundError, match="there is no bucket no-such-bucket"):
        run_place("gs://no-such-bucket/run/a").write_bytes(b"1")
    with pytest.raises(OSError, match="there is no bucket no-such-bucket"):
        files.check_can_be_made(run_place("gs://no-such-bucket/run"))


def test_a_file_that_fails_leaves_the_one_before_it(folder):
    files.write_json(folder / "a.json", 1)

    def fail():
        with files.replacing(folder / "a.json") as new:
            new.write_text("half")
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert files.read_json(folder / "a.json") == 1
    assert [path.name for path in folder.iterdir()] == ["a.json"]


def test_what_another_process_writes_is_seen(bucket):
    """With gcsfs's listings, which never expire, b.json would not be there, and a.json cut off."""
    files.write_json(bucket / "a.json", 1)
    assert [path.name for path in bucket.iterdir()] == ["a.json"]
    elsewhere(
        f"at('{bucket}/b.json').write_text('2')\n"
        f"at('{bucket}/a.json').write_text('[1, 2, 3, 4, 5, 6]')"
    )
    assert (bucket / "b.json").exists()
    assert files.read_json(bucket / "a.json") == [1, 2, 3, 4, 5, 6]
    elsewhere(f"at('{bucket}/b.json').unlink()")
    assert [path.name for path in bucket.iterdir()] == ["a.json"]


def test_a_file_cannot_be_written_in_pieces(bucket):
    with pytest.raises(OSError, match="one piece"):
        (bucket / "a").open("a")


class RefusedError(Exception):
    """As gcsfs raises it."""

    def __init__(self, code, text):
        super().__init__(text)
        self.code = code


@pytest.mark.parametrize(
    ("error", "number", "says"),
    [
        (OSError("Forbidden: b/o\nuser does not have storage.objects.create access."),
         errno.EACCES, "user does not have storage.objects.create access"),
        (RefusedError(401, "Anonymous caller does not have access, 401"),
         errno.EACCES, "gcloud auth application-default login"),
        (RefusedError(429, "rate limit"), errno.EIO, "answers 429"),
        (RefusedError(503, "backend"), errno.EIO, "answers 503"),
        (TimeoutError(), errno.ETIMEDOUT, "does not answer"),
        (OSError(errno.ENOSPC, "No space left on device", "/tmp/x"), errno.ENOSPC, "No space"),
    ],
)  # fmt: skip
def test_refusals_say_what_to_do(gcs, error, number, says):
    found = buckets.os_error(error, run_place("gs://runs/a"))
    assert found.errno == number
    assert says in str(found)


def test_what_places_take(tmp_path, monkeypatch):
    assert in_bucket(run_place("gs://runs/a"))
    assert in_bucket(run_place("GS://runs/a"))
    assert not in_bucket(run_place(tmp_path))
    assert run_place("runs/a") == place("runs/a")
    monkeypatch.setenv("RUN", "soy")
    assert str(run_place("gs://runs/$RUN")) == "gs://runs/soy"
    for text, says in {
        "s3://b/run": "Orbax, which writes the checkpoints, has no way there yet",
        "hf://owner/run": "Orbax",
        "gs://": "name has 3 signs or more",
        "gs://b/run": "name has 3 signs or more",
        "https://a.b/run": "an address",
    }.items():
        with pytest.raises(ConfigError, match=says):
            run_place(text, "--workdir")
    with pytest.raises(ConfigError, match="--config is gs://a/b"):
        place("gs://a/b", "--config")


def test_without_the_package_it_says_what_to_install(monkeypatch):
    monkeypatch.setattr(buckets.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install 'clevit_jax\[gcs\]'"):
        run_place("gs://runs/a", "--workdir")
