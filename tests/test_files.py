"""Files that appear whole or not at all, whoever else writes them and however it ends."""

import os
import pathlib
import stat

import pytest

from clevit_jax.system import files


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_failed_write_leaves_all_as_it_was(tmp_path, error):
    path = tmp_path / "a"
    path.write_text("old")

    def fail():
        with files.replacing(path) as new:
            new.write_text("half")
            raise error

    with pytest.raises(type(error)):
        fail()
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [("a", "old")]


def test_two_processes_of_one_number_do_not_meet(tmp_path, monkeypatch):
    """Processes on two machines that share a folder may have the same number."""
    monkeypatch.setattr(os, "getpid", lambda: 7)
    path = tmp_path / "a.json"
    with files.replacing(path) as one, files.replacing(path) as other:
        one.write_text("one")
        other.write_text("other")
        files.write_text(tmp_path / "a.txt", "beside")  # of the same stem
        assert one.read_text() == "one"
    assert path.read_text() == "one"
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.json", "a.txt"]


@pytest.mark.parametrize("mask", [0o022, 0o077])
def test_permissions_are_those_of_any_new_file(tmp_path, mask):
    before = os.umask(mask)
    try:
        with files.replacing(tmp_path / "a") as new:
            new.unlink()  # as a library that makes the file anew
            os.close(os.open(new, os.O_CREAT | os.O_WRONLY, 0o600))
        (tmp_path / "plain").touch()
    finally:
        os.umask(before)
    modes = {stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("a", "plain")}
    assert modes == {0o666 & ~mask}


def test_a_durable_file_is_on_the_disk_before_its_name(tmp_path, monkeypatch):
    order: list[str] = []
    sync, replace = os.fsync, os.replace

    def synced(descriptor):
        order.append(pathlib.Path(os.readlink(f"/proc/self/fd/{descriptor}")).suffix or "folder")
        sync(descriptor)

    def moved(*paths):
        order.append("moved")
        replace(*paths)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", moved)
    with files.replacing(tmp_path / "a", durable=True) as new:
        new.write_text("text")
    assert order == [".tmp", "moved", "folder"]
    order.clear()
    files.write_json(tmp_path / "a", {"b": "ü"})
    assert order == ["moved"]
    assert (tmp_path / "a").read_bytes() == b'{\n  "b": "\\u00fc"\n}\n'
