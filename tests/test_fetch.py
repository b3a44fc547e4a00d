"""Copies of buckets: made once, whole, of one state, resumed, and used again."""

import os
import pathlib
import re
import signal
import subprocess
import sys
import threading
import types

import pytest
from waiting import wait_until

from clevit_jax.errors import ConfigError
from clevit_jax.system import buckets, fetch, file_locks, remote
from clevit_jax.system.places import run_place

HOME = pathlib.Path(__file__).parents[1]
FILES = {
    **{f"train/{c}/{i}.png": f"{c}{i}".encode() * 9 for c in "ab" for i in range(3)},
    "a [1]#?%25 ü.txt": b"odd",
    "empty": b"",
}


def forget():
    """As in a new process: nothing is known, and no state in use."""
    fetch._known.clear()
    while fetch._in_use:
        os.close(fetch._in_use.pop())


@pytest.fixture
def full(bucket):
    """A folder in a bucket with `FILES`."""
    upload(bucket, FILES)
    forget()
    yield bucket
    forget()


def upload(folder, files):
    buckets.filesystem().pipe({f"{folder}/{name}"[5:]: data for name, data in files.items()})


@pytest.fixture
def read(monkeypatch):
    """What is read of a bucket: names of files, and from which byte."""
    done, pieces = [], remote._Objects.pieces

    def noted(self, file, start):
        done.append((file.name, start))
        return pieces(self, file, start)

    monkeypatch.setattr(remote._Objects, "pieces", noted)
    return done


def content(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_copied_once_and_used_again(full, read, tmp_path, capsys):
    copy = fetch.fetched(str(full), str(tmp_path), "data.root")
    assert content(copy.path) == FILES
    assert copy.path.name == full.name
    assert sorted(name for name, _ in read) == sorted(FILES)
    assert (
        f"Copied 8 files, 111 bytes, of {full} to {copy.path.parent}.\n" in capsys.readouterr().out
    )
    assert fetch.fetched(str(full), str(tmp_path)) is copy
    forget()
    del read[:]
    assert fetch.fetched(f"{full}/", str(tmp_path)).state == copy.state
    forget()
    assert fetch.fetched(str(full), str(tmp_path)) == copy
    assert f"{full}: the copy in {copy.path.parent} is up to date" in capsys.readouterr().out
    forget()
    (copy.path / "train/a/1.png").unlink()
    del read[:]
    assert content(fetch.fetched(str(full), str(tmp_path)).path) == FILES
    assert read == [("train/a/1.png", 0)]


def test_another_state_is_another_copy(full, read, tmp_path, capsys):
    old = fetch.fetched(str(full), str(tmp_path))
    upload(full, {"train/a/1.png": FILES["train/a/1.png"][::-1]})  # of the same size
    (full / "empty").unlink()
    del read[:]
    fetch._known.clear()
    new = fetch.fetched(str(full), str(tmp_path))
    assert read == [("train/a/1.png", 0)]
    assert "7 files" in (said := capsys.readouterr().out)
    assert "; 6 of them were here already." in said
    assert content(old.path) == FILES  # this process reads it
    assert content(new.path) == {
        name: data[::-1] if name == "train/a/1.png" else data
        for name, data in FILES.items()
        if name != "empty"
    }
    forget()
    upload(full, {"more": b"more"})
    last = fetch.fetched(str(full), str(tmp_path))
    assert not old.path.exists()
    assert not new.path.exists()
    assert [path.name for path in last.path.parents[1].iterdir() if path.is_dir()] == [last.state]


def test_killed_it_goes_on(full, read, tmp_path, monkeypatch):
    upload(full, {"long": bytes(range(100))})
    code = f"""
import time
from clevit_jax.system import fetch, remote
remote._PIECE = 30
pieces = remote._Objects.pieces
def slow(self, file, start):
    for k, piece in enumerate(pieces(self, file, start)):
        if (file.name, k) == ("long", 2) or file.name == "train/b/2.png":
            time.sleep(600)
        yield piece
remote._Objects.pieces = slow
fetch.fetched({str(full)!r}, {str(tmp_path)!r})
"""
    environment = {**os.environ, "PYTHONPATH": str(HOME)}
    child = subprocess.Popen([sys.executable, "-c", code], env=environment)

    def came():
        files = [path.stat().st_size for path in tmp_path.rglob("*") if path.is_file()]
        return len(list(tmp_path.rglob("*.png"))) == 5 and 60 in files

    try:
        wait_until(came)
        child.send_signal(signal.SIGKILL)
    finally:
        child.kill()
        child.wait()
    assert not list(tmp_path.rglob("in_use"))
    copy = fetch.fetched(str(full), str(tmp_path))
    assert content(copy.path) == {**FILES, "long": bytes(range(100))}
    assert sorted(read) == [("long", 60), ("train/b/2.png", 0)]


def test_two_at_once_copy_once(full, read, tmp_path, monkeypatch, capsys):
    # A lock belongs to an open file, so two threads are to each other as two processes.
    monkeypatch.setattr(file_locks, "_WAIT_SECONDS", 0.01)
    states, start = [], threading.Barrier(2)

    def copy():
        start.wait()
        states.append(fetch.fetched(str(full), str(tmp_path)).state)

    threads = [threading.Thread(target=copy) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(states) == 2
    assert len(set(states)) == 1
    assert sorted(name for name, _ in read) == sorted(FILES)


def test_without_locks_it_is_copied_all_the_same(full, tmp_path, monkeypatch):
    monkeypatch.setattr(file_locks, "fcntl", None)
    assert content(fetch.fetched(str(full), str(tmp_path)).path) == FILES
    assert fetch._in_use == []


def test_what_changes_while_it_is_copied(full, tmp_path, monkeypatch, capsys):
    """Never a mix: the state that it has in the end, or none."""
    pieces, changes = remote._Objects.pieces, [("more", b"1")]
    monkeypatch.setattr("clevit_jax.system.download._PAUSES", (0.0, 0.0))

    def changing(self, file, start):
        if changes:
            upload(full, dict([changes.pop()]))
        return pieces(self, file, start)

    monkeypatch.setattr(remote._Objects, "pieces", changing)
    copy = fetch.fetched(str(full), str(tmp_path))
    assert content(copy.path) == {**FILES, "more": b"1"}
    assert "was changed while it was copied" in capsys.readouterr().out
    forget()
    changes += [("train/a/0.png", b"%d" % k) for k in range(10, 40)]
    upload(full, {"train/a/0.png": b"0"})
    with pytest.raises(ConfigError, match=r"data.root is .* changes while it is copied"):
        fetch.fetched(str(full), str(tmp_path), "data.root")


def test_other_contents_than_the_listing_says(full, tmp_path, monkeypatch):
    monkeypatch.setattr(
        remote._Objects, "pieces", lambda self, file, start: iter([b"?" * file.size])
    )
    with pytest.raises(ConfigError, match=r"\(.* has other contents than its listing says\)"):
        fetch.fetched(str(full), str(tmp_path))
    assert not list(tmp_path.rglob("*.png"))


def test_what_ends_too_soon_is_tried_again(full, tmp_path, monkeypatch):
    pieces, tried = remote._Objects.pieces, []
    monkeypatch.setattr("clevit_jax.system.download._PAUSES", (0.0, 0.0))

    def torn(self, file, start):
        if file.name == "train/a/0.png" and len(tried) < most:
            tried.append(start)
            yield next(pieces(self, file, start))[:5] if len(tried) == 1 else b""
            return
        yield from pieces(self, file, start)

    monkeypatch.setattr(remote._Objects, "pieces", torn)
    most = 9
    with pytest.raises(ConfigError) as error:
        fetch.fetched(str(full), str(tmp_path), "data.root")
    assert re.fullmatch(
        rf"data.root is {full}, and cannot be copied to the end: train/a/0.png ends after 5 of 18 "
        r"bytes. \d of 8 files are in .*\.partial, and the same command goes on from there.",
        str(error.value),
    )
    assert tried == [0, 5, 5]
    most = 4
    assert content(fetch.fetched(str(full), str(tmp_path)).path) == FILES
    assert tried == [0, 5, 5, 5]


def test_what_hangs_is_given_up(full, tmp_path, monkeypatch):
    hung = threading.Event()

    def hanging(self, file, start):
        hung.wait(60)
        yield b""

    monkeypatch.setattr(remote._Objects, "pieces", hanging)
    monkeypatch.setattr("clevit_jax.system.download._STALL_SECONDS", 0.1)
    monkeypatch.setattr("clevit_jax.system.download._LAST_SECONDS", 0.1)
    with pytest.raises(ConfigError, match=r"nothing came for 0 seconds. 0 of 8 files are in"):
        fetch.fetched(str(full), str(tmp_path))
    hung.set()


def test_no_room(full, tmp_path, monkeypatch, read):
    monkeypatch.setattr(fetch.shutil, "disk_usage", lambda _: types.SimpleNamespace(free=110))
    with pytest.raises(ConfigError) as error:
        fetch.fetched(str(full), str(tmp_path), "data.root")
    assert str(error.value) == (
        f"{full} takes 111 bytes more, and {tmp_path} has 110 bytes left: free some space, or name "
        "a folder on another disk: --config.data.copy_to=DIR, or export XDG_CACHE_HOME=DIR."
    )
    assert read == []
    (tmp_path / "file").touch()
    with pytest.raises(
        ConfigError, match=r"cannot be copied to .*: Not a directory; name a folder"
    ):
        fetch.fetched(str(full), str(tmp_path / "file"))


def test_sentences(gcs, bucket, tmp_path, monkeypatch):
    forget()

    def refused(address):
        with pytest.raises(ConfigError) as error:
            fetch.fetched(address, str(tmp_path), "data.root")
        return str(error.value)

    assert refused("gs://no-such-bucket/x") == (
        "data.root is gs://no-such-bucket/x, and cannot be read: there is no bucket "
        "no-such-bucket, or this user may not see it."
    )
    assert f"data.root is {bucket}/none, and nothing is there" in refused(f"{bucket}/none")
    assert "names no bucket" in refused("gs://")
    monkeypatch.setitem(sys.modules, "s3fs", None)
    assert refused("s3://bucket/x") == (
        "data.root is s3://bucket/x, and the package s3fs, which reads s3://, is not installed: "
        "pip install s3fs."
    )

    def forbidden(*args, **options):
        raise OSError("Forbidden: b/o\nuser does not have storage.objects.list access.")

    monkeypatch.setattr(buckets.filesystem(), "find", forbidden)
    assert "the bucket refuses it (user does not have storage.objects.list" in refused(str(bucket))


def test_names_that_no_disk_has():
    files = [remote.File(name, 1, "", name) for name in ("a", "a/b", "c/../d", "e//f", "g/h")]
    with pytest.raises(ConfigError, match=r"holds 3 object\(s\) .* disk: 'a', 'c/../d', 'e//f'"):
        remote._checked(files, "gs://bucket")
    # Some tools mark a folder by an empty object.
    marked = [remote.File("g", 0, "", "g"), files[-1]]
    assert remote._checked(marked, "gs://bucket") == (files[-1],)


def test_any_scheme_of_fsspec(tmp_path, monkeypatch):
    import fsspec

    forget()
    memory = fsspec.filesystem("memory")
    memory.pipe({"/set/a/1": b"1", "/set/2": b"2"})
    assert content(fetch.fetched("memory://set", str(tmp_path)).path) == {"a/1": b"1", "2": b"2"}
    assert fetch.local("memory://set/2", "--reference", str(tmp_path)).read_bytes() == b"2"
    with pytest.raises(ConfigError, match="--reference is memory://set, a folder"):
        fetch.local("memory://set", "--reference", str(tmp_path))
    assert fetch.local("~", "--reference") == pathlib.Path.home()


def test_where_copies_are(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert fetch.users_folder() == tmp_path / "clevit_jax/copies"
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    monkeypatch.setenv("HOME", "/home/me")
    assert fetch.users_folder() == pathlib.Path("/home/me/.cache/clevit_jax/copies")


def test_a_bucket_by_its_name(gcs, tmp_path):
    gcs.make_bucket("alone")
    forget()
    run_place("gs://alone/x").write_bytes(b"1")
    copy = fetch.fetched("gs://alone", str(tmp_path))
    assert (copy.path.name, content(copy.path)) == ("alone", {"x": b"1"})
