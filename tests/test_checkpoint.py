"""Checkpoints: whole, exact, the right ones kept, and what happens when one is damaged."""

import errno
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import threading
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from absl import logging as absl_logging
from orbax.checkpoint._src.handlers import json_checkpoint_handler
from orbax.checkpoint._src.path import atomicity
from waiting import wait_until

from clevit_jax.distributed import processes
from clevit_jax.distributed.sharding import make_mesh, state_sharding
from clevit_jax.errors import CheckpointError, StorageError
from clevit_jax.runs import checkpoint_files
from clevit_jax.runs.checkpoint import Checkpoints
from clevit_jax.runs.checkpoint_files import remove_torn
from clevit_jax.runs.room import check_path, check_room
from clevit_jax.steps.state import TrainState
from clevit_jax.system.plain_path import PlainPath

# Futures of a restore that fails are collected by the interpreter, which warns.
pytestmark = [
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]


def values(step):
    rng = np.random.default_rng(step)
    return TrainState(
        np.int32(step),
        {"head": {"kernel": rng.random((256, 128), np.float32), "bias": np.float32([step] * 7)}},
        {"mu": rng.random((256, 128), np.float32), "count": np.int32(step)},
    )


def on(mesh, step):
    tree = values(step)
    return jax.device_put(tree, state_sharding(mesh, tree))


def equal(a, b):
    return jax.tree.structure(a) == jax.tree.structure(b) and all(
        np.array_equal(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    )


@pytest.fixture(scope="module")
def mesh():
    return make_mesh()


@pytest.fixture
def opened():
    """`opened(folder, ...)` -> Checkpoints that are closed after the test."""
    todo = []

    def open_checkpoints(folder, *, keep=3, **more):
        todo.append(Checkpoints(folder, keep=keep, **more))
        return todo[-1]

    yield open_checkpoints
    for checkpoints in todo:
        checkpoints.close()


@pytest.fixture(scope="module")
def three(tmp_path_factory, mesh):
    """A folder with checkpoints 1, 2 and 3; their scores are 0.1, 0.2 and 0.3."""
    folder = tmp_path_factory.mktemp("three") / "checkpoints"
    checkpoints = Checkpoints(folder, keep=3)
    for step in (1, 2, 3):
        checkpoints.save(on(mesh, step), {"s": step}, top1=step / 10)
    checkpoints.wait()
    checkpoints.close()
    return folder


@pytest.fixture
def copy(three, tmp_path):
    return pathlib.Path(shutil.copytree(three, tmp_path / "checkpoints"))


@pytest.fixture
def said(monkeypatch):
    """What is logged as an error."""
    lines: list[str] = []
    monkeypatch.setattr(absl_logging, "error", lambda text, *args, **_: lines.append(text % args))
    return lines


def test_a_save_is_the_state_of_its_step_whatever_is_donated_later(opened, tmp_path):
    """On a CPU a "copy" may share memory with the buffer that the next update overwrites."""
    for devices in (1, 4):
        mesh = make_mesh(devices=jax.devices()[:devices])
        checkpoints = opened(tmp_path / str(devices), keep=10)
        update = jax.jit(lambda s: jax.tree.map(lambda x: x + x.dtype.type(1), s), donate_argnums=0)
        state, expected = on(mesh, 0), {}
        for _ in range(4):
            step = int(state.step)
            expected[step] = jax.tree.map(lambda x, s=step: x + x.dtype.type(s), values(0))
            checkpoints.save(state, {})
            for _ in range(3):
                state = update(state)
        checkpoints.wait()
        assert checkpoints.steps() == [0, 3, 6, 9]
        for step in checkpoints.steps():
            saved = checkpoints.restore(step, on(mesh, 0))[0]
            assert saved.step == step
            for a, b in zip(jax.tree.leaves(saved), jax.tree.leaves(expected[step]), strict=True):
                np.testing.assert_allclose(a, b, rtol=1e-6)


def test_another_number_of_devices(opened, three):
    """Saved on 4 x 1, read on 1 device and on 2 x 2 with the parameters divided."""
    checkpoints = opened(three)
    one, square = make_mesh(devices=jax.devices()[:1]), make_mesh(2, 2)
    for mesh, shards in ((one, 1), (square, 2)):
        state, meta = checkpoints.restore(2, on(mesh, 0))
        assert equal(state, values(2))
        assert meta == {"s": 2}
        kernel = state.params["head"]["kernel"]
        assert kernel.sharding.mesh.size == mesh.size
        assert kernel.addressable_shards[0].data.size * shards == kernel.size


def test_saved_divided_and_read_whole(opened, tmp_path, mesh):
    checkpoints = opened(tmp_path / "checkpoints")
    checkpoints.save(on(make_mesh(2, 2), 4), {})
    checkpoints.wait()
    assert equal(checkpoints.restore(4, on(mesh, 0))[0], values(4))


NAMES = ["exp[1]", "a*b", "what?", "a b", "it's \"it\"", "größe 叶", "trailing.", "50%41", "a#b",
         "~me", "$HOME", "{x}", "\\n", "file:x", os.fsdecode(b"raw\xff")]  # fmt: skip


def test_any_name_of_a_folder(opened, tmp_path, mesh, monkeypatch):
    """Among them what a library may take for a pattern, a URL or no UTF-8; links; relative ones."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    for place in ("temporary", "elsewhere", "here", "real run"):
        (tmp_path / place).mkdir()
    (tmp_path / "linked").symlink_to("real run")
    (tmp_path / "here" / "checkpoints").symlink_to(tmp_path / "elsewhere")
    monkeypatch.chdir(tmp_path)
    places = [*NAMES, "linked", "here", tmp_path / "absolute[0]"]
    for folder in (pathlib.Path(place, "checkpoints") for place in places):
        check_path(folder)
        checkpoints = opened(folder)
        for step in (1, 2):
            checkpoints.save(on(mesh, step), {"s": step}, top1=0.5)
        checkpoints.wait()
        checkpoints.close()
        assert {p.name for p in folder.iterdir() if p.is_dir()} == {"1", "2"}, folder
        again = opened(folder, read_only=True)
        assert again.best() == (2, 0.5)
        state, meta = again.restore_newest(on(mesh, 0))
        assert equal(state, values(2))
        assert meta == {"s": 2}
        assert again.restore_params([2], values(0).params, average=False)[0] == 2
        again.close()
    assert (tmp_path / "elsewhere" / "2").is_dir()
    assert not list((tmp_path / "temporary").iterdir())  # the links are gone


def test_a_name_that_cannot_be_made_plain(tmp_path, monkeypatch):
    """Refused before anything is written; a plain one needs no temporary folder."""

    def full(**_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(tempfile, "mkdtemp", full)
    check_path(tmp_path / "plain" / "checkpoints")
    with pytest.raises(CheckpointError, match=r"exp\[1\].*name a --workdir of letters"):
        check_path(tmp_path / "exp[1]" / "checkpoints")
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_read_back_was_not_saved(opened, tmp_path, mesh, monkeypatch):
    """Orbax writes files to `exp[1]` and finds none of them; the one before stays."""
    folder = tmp_path / "exp[1]" / "checkpoints"
    checkpoints = opened(folder, keep=1)
    checkpoints.save(on(mesh, 1), {}, top1=0.1)
    checkpoints.wait()
    checkpoints.close()
    monkeypatch.setattr(PlainPath, "path", lambda self: self.folder)
    checkpoints = opened(folder, keep=1)
    checkpoints.save(on(mesh, 2), {}, top1=0.2)
    with pytest.raises(CheckpointError, match=r"Checkpoint 2 could not be wr.* good .* is step 1"):
        checkpoints.wait()
    assert checkpoints.best() == (1, 0.1)
    assert [path.name for path in folder.iterdir()] == ["1"]


def test_another_shape_than_was_saved_is_not_read_back(opened, tmp_path, mesh, monkeypatch):
    shapes = checkpoint_files.shapes(on(mesh, 1))
    shapes.params["head"]["bias"] = jax.ShapeDtypeStruct((9,), np.float32)
    monkeypatch.setattr(checkpoint_files, "shapes", lambda state: shapes)
    checkpoints = opened(tmp_path / "checkpoints")
    checkpoints.save(on(mesh, 1), {})
    with pytest.raises(CheckpointError, match=r"params\.head\.bias cannot be read back"):
        checkpoints.wait()
    assert checkpoints.steps() == []


def test_multiples_are_kept_for_good(opened, tmp_path, mesh):
    checkpoints = opened(tmp_path / "checkpoints", keep=1, keep_every=4)
    for step in (2, 4, 6, 8, 9, 10):
        checkpoints.save(on(mesh, step), {}, top1=1 / step)
    checkpoints.wait()
    assert checkpoints.steps() == [2, 4, 8, 10]  # 2 is the best


def test_the_newest_and_the_best_are_kept(opened, tmp_path, mesh):
    checkpoints = opened(tmp_path / "checkpoints", keep=2)
    for step, top1 in ((1, 0.1), (2, 0.7), (3, None), (4, 0.5), (5, None), (6, None)):
        checkpoints.save(on(mesh, step), {}, top1=top1)
    checkpoints.wait()
    assert checkpoints.steps() == [2, 5, 6]
    assert checkpoints.best() == (2, 0.7)
    again = opened(tmp_path / "checkpoints", keep=2)
    assert again.best() == (2, 0.7)
    again.save(on(mesh, 7), {}, top1=0.8)
    again.wait()
    assert again.steps() == [6, 7]
    assert again.best() == (7, 0.8)


def test_nothing_scored_and_nothing_saved(opened, tmp_path, mesh):
    checkpoints = opened(tmp_path / "checkpoints", keep=1)
    assert checkpoints.restore_newest(on(mesh, 0)) is None
    assert checkpoints.best() is None
    for step in (1, 2):
        checkpoints.save(on(mesh, step), {})
    checkpoints.wait()
    assert checkpoints.steps() == [2]
    assert checkpoints.best() is None


def _cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _largest(folder):
    return max(folder.iterdir(), key=lambda path: path.stat().st_size)


@pytest.mark.parametrize("harm", [pathlib.Path.unlink, _cut], ids=["deleted", "cut"])
@pytest.mark.parametrize(
    "find",
    [
        lambda step: step / "meta" / "metadata",
        lambda step: step / "state" / "_METADATA",
        lambda step: step / "state" / "manifest.ocdbt",
        lambda step: _largest(step / "state" / "d"),
        lambda step: _largest(step / "state" / "ocdbt.process_0" / "d"),
    ],
    ids=["meta", "names", "manifest", "index", "numbers"],
)
def test_a_damaged_checkpoint_falls_back(opened, copy, mesh, said, find, harm):
    harm(find(copy / "3"))
    checkpoints = opened(copy)
    state, meta = checkpoints.restore_newest(on(mesh, 0))
    assert equal(state, values(2))
    assert meta == {"s": 2}
    assert checkpoints.steps() == [1, 2]
    assert (copy / "damaged" / "3").is_dir()
    assert "Checkpoint 3 cannot be read" in said[0]
    assert "[3] are moved to" in said[1]
    checkpoints.save(on(mesh, 3), {"s": 33})  # step 3 is free again
    checkpoints.wait()
    assert checkpoints.restore_newest(on(mesh, 0))[1] == {"s": 33}


@pytest.mark.parametrize(
    "name",
    [
        "_CHECKPOINT_METADATA",
        "commit_success.txt",
        "sha256.json",
        "meta/commit_success.txt",
        "metrics/commit_success.txt",
        "state/commit_success.txt",
    ],
)
def test_files_that_are_not_missed(opened, copy, mesh, name):
    """Orbax writes them and can do without: the numbers that come back are right."""
    (copy / "3" / name).unlink(missing_ok=True)
    assert equal(opened(copy).restore_newest(on(mesh, 0))[0], values(3))


def test_a_half_written_checkpoint_is_not_one(opened, copy, mesh):
    """What a kill during a save leaves; a reader leaves it, for the writer may still be at it."""
    half = copy / "4.orbax-checkpoint-tmp"
    shutil.copytree(copy / "3" / "state", half / "state")
    reader = opened(copy, read_only=True)
    assert reader.steps() == [1, 2, 3]
    assert half.exists()
    writer = opened(copy)
    assert writer.steps() == [1, 2, 3]
    assert writer.restore_newest(on(mesh, 0))[1] == {"s": 3}
    writer.save(on(mesh, 4), {"s": 4})
    writer.wait()
    assert not half.exists()
    assert equal(writer.restore_newest(on(mesh, 0))[0], values(4))


def test_none_can_be_read(opened, copy, mesh, said):
    """Nothing is moved, so that the run after this one does not start from nothing."""
    for step in "123":
        (copy / step / "state" / "_METADATA").unlink()
    for _ in range(2):
        checkpoints = opened(copy)
        with pytest.raises(CheckpointError, match=r"None of the checkpoints \[1, 2, 3\] .* --work"):
            checkpoints.restore_newest(on(mesh, 0))
    assert sorted(path.name for path in copy.iterdir()) == ["1", "2", "3"]
    assert len(said) == 6


def test_all_go_by_what_process_0_sees(opened, copy, mesh, monkeypatch):
    """A network disk shows it checkpoints 1 and 2 alone, and this process 3, which is the best."""
    (copy / "1" / "metrics" / "metrics").unlink()
    there = {"steps": [1, 2], "best": [[0.2, 2]], "unscored": False}
    checkpoints = opened(copy)
    monkeypatch.setattr(processes, "broadcast", lambda name, _: there[name])
    assert checkpoints.restore_newest(on(mesh, 0))[1] == {"s": 2}
    assert checkpoints.best() == (2, 0.2)
    checkpoints.add_score(1, 0.9)
    assert checkpoints.top1(1) is None
    assert checkpoints.steps() == [1, 2, 3]


def test_a_reader_changes_nothing(opened, copy, mesh, said):
    (copy / "3" / "state" / "_METADATA").unlink()
    before = sorted(copy.rglob("*"))
    assert opened(copy, read_only=True).restore_newest(on(mesh, 0))[1] == {"s": 2}
    assert sorted(copy.rglob("*")) == before
    assert not (copy / "damaged").exists()


def test_a_damaged_score_is_none(opened, copy, mesh, said):
    """Orbax would end with an error of its own, whichever checkpoint it belongs to."""
    (copy / "3" / "metrics" / "metrics").write_text("{")
    with pytest.raises(CheckpointError, match=r"3/metrics/metrics.* is damaged; delete the folder"):
        opened(copy, read_only=True)
    assert said == []
    checkpoints = opened(copy)
    assert "3/metrics/metrics, the score of a checkpoint, is damaged; the ch" in said[0]
    assert (copy / "damaged" / "3-metrics" / "metrics").read_text() == "{"
    assert checkpoints.best() == (2, 0.2)
    assert checkpoints.restore_newest(on(mesh, 0))[1] == {"s": 3}
    checkpoints.add_score(3, 0.4)
    assert checkpoints.best() == (3, 0.4)


def _empty(path):
    path.write_bytes(b"")


@pytest.mark.parametrize("harm", [pathlib.Path.unlink, _cut, _empty])
def test_any_file_may_be_torn(opened, three, mesh, tmp_path, harm):
    """Either it is not missed and all numbers are right, or the checkpoint before is taken."""
    seen = set()
    for number, path in enumerate(sorted(p for p in (three / "3").rglob("*") if p.is_file())):
        copy = pathlib.Path(shutil.copytree(three, tmp_path / str(number) / "checkpoints"))
        harm(copy / path.relative_to(three))
        state, meta = opened(copy).restore_newest(on(mesh, 0))
        assert meta["s"] in (2, 3), path
        assert equal(state, values(meta["s"])), path
        seen.add(meta["s"])
    assert seen == {2, 3}


def _flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("harm", [_flip, _cut, pathlib.Path.unlink])
def test_a_changed_file_is_seen_and_named(opened, three, mesh, tmp_path, said, harm):
    """A flipped bit gives other numbers and no error; so each file has its hash."""
    names = json.loads((three / "3" / "sha256.json").read_text())
    names = [n for n in names if "metrics" not in n and (three / "3" / n).stat().st_size]
    assert len(names) > 6
    for number, name in enumerate(names):
        copy = pathlib.Path(shutil.copytree(three, tmp_path / str(number) / "checkpoints"))
        harm(copy / "3" / name)
        reader = opened(copy, read_only=True)
        assert reader.restore_params([3, 2], values(0).params, average=False)[0] == 2
        assert equal(reader.restore_best(on(mesh, 0))[0], values(2))
        assert reader.best() == (2, 0.2)
        assert all(f"its file {name} " in line for line in said), said
        assert equal(opened(copy).restore_newest(on(mesh, 0))[0], values(2))
        said.clear()


def test_a_changed_score_is_seen(opened, copy, said):
    """0.3 reads 0.1: still JSON, and not what was written."""
    (copy / "3" / "metrics" / "metrics").write_text('{"top1": 0.1}')
    assert opened(copy).best() == (2, 0.2)
    assert "3/metrics/metrics, the score of a checkpoint, is damaged" in said[0]


def test_damage_is_moved_on_the_disk_of_the_checkpoints(opened, copy, mesh, tmp_path, said):
    """Which may be another than the workdir's: nothing is moved out of the folder."""
    workdir = tmp_path / "workdir"
    workdir.mkdir()
    (workdir / "checkpoints").symlink_to(copy)
    (copy / "3" / "state" / "_METADATA").unlink()
    opened(workdir / "checkpoints").restore_newest(on(mesh, 0))
    assert (copy / "damaged" / "3" / "state").is_dir()
    assert [path.name for path in workdir.iterdir()] == ["checkpoints"]


def test_another_shape_is_not_damage_that_is_cut_to_fit(opened, copy, mesh):
    like = on(mesh, 0)
    like.params["head"]["bias"] = like.params["head"]["bias"][:5]
    with pytest.raises(CheckpointError, match="Checkpoint 3 cannot be read"):
        opened(copy).restore(3, like)


def test_what_check_raises_is_passed_on(opened, copy, mesh):
    """And the checkpoint, which is not damaged, stays."""

    def check(meta):
        raise KeyError(meta["s"])

    with pytest.raises(KeyError, match="3"):
        opened(copy).restore_newest(on(mesh, 0), check)
    assert (copy / "3").exists()


def test_a_full_disk(opened, copy, mesh, monkeypatch):
    """A checkpoint takes 262 kB here: two arrays of 256 x 128 float32, and 11 numbers more."""
    checkpoints = opened(copy)
    full = shutil.disk_usage(copy)._replace(free=280_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: full)
    with pytest.raises(CheckpointError, match=r"no room.*0 MB free.*free some.*good .* is step 3"):
        checkpoints.save(on(mesh, 4), {})
    assert checkpoints.steps() == [1, 2, 3]
    full = full._replace(free=300_000)
    checkpoints.save(on(mesh, 4), {})
    check_room(copy / "not" / "yet", values(0))


def _no_space(*args, **kwargs):
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_write_that_fails_leaves_the_earlier_ones(opened, copy, mesh, monkeypatch):
    checkpoints = opened(copy)
    with monkeypatch.context() as patch:
        patch.setattr(json_checkpoint_handler.JsonCheckpointHandler, "_save_fn", _no_space)
        with pytest.raises(CheckpointError, match=r"Checkpoint 4 .*No space.*good .* is step 3"):
            checkpoints.save(on(mesh, 4), {})
    checkpoints.save(on(mesh, 5), {"s": 5})
    checkpoints.wait()
    assert checkpoints.steps() == [2, 3, 5]
    assert equal(checkpoints.restore_newest(on(mesh, 0))[0], values(5))


def test_a_write_that_fails_in_the_background(opened, copy, mesh, monkeypatch, said):
    """It is lost, but does not take the next one with it; `wait` raises it."""
    checkpoints = opened(copy)
    with monkeypatch.context() as patch:
        patch.setattr(atomicity.AtomicRenameTemporaryPath, "finalize", _no_space)
        checkpoints.save(on(mesh, 4), {"s": 4})
        with pytest.raises(CheckpointError, match=r"could not be written.*No space"):
            checkpoints.wait()
        assert sorted(path.name for path in copy.iterdir()) == ["1", "2", "3"]  # nothing torn
        checkpoints.save(on(mesh, 5), {"s": 5})
        while checkpoints._manager.is_saving_in_progress():
            time.sleep(0.01)
    checkpoints.save(on(mesh, 6), {"s": 6})
    checkpoints.wait()
    assert checkpoints.steps() == [2, 3, 6]
    assert any("could not be written" in line and "No space" in line for line in said)


def test_a_folder_that_is_gone_ends_at_once(opened, tmp_path, mesh):
    """No thread of orbax goes on waiting for a folder that it could not make: it takes 300 s."""
    before = set(threading.enumerate())
    checkpoints = opened(tmp_path / "checkpoints")
    (tmp_path / "checkpoints").rmdir()
    (tmp_path / "checkpoints").touch()
    with pytest.raises(CheckpointError, match=r"4 could not be written.* No checkpoint is saved"):
        checkpoints.save(on(mesh, 4), {})
    for thread in set(threading.enumerate()) - before:
        if not thread.daemon and "ThreadPool" not in thread.name:
            thread.join(60)
            assert not thread.is_alive(), thread
    checkpoints.close()


def _save(checkpoints, state):
    checkpoints.save(state, {})
    checkpoints.wait()


def test_a_disk_that_hangs(opened, tmp_path, mesh, monkeypatch, said):
    """Nothing waits longer than it may; when the disk is back, the next save succeeds."""
    answers = threading.Event()
    read_back = Checkpoints._read_back

    def hanging(self):
        answers.wait()
        read_back(self)

    monkeypatch.setattr(Checkpoints, "_read_back", hanging)
    checkpoints = opened(tmp_path / "checkpoints", timeout=0.3)
    with pytest.raises(StorageError, match="the disk does not answer for 0 seconds"):
        _save(checkpoints, on(mesh, 1))
    for call in (checkpoints.wait, lambda: checkpoints.save(on(mesh, 2), {})):
        with pytest.raises(StorageError, match="still does not answer"):
            call()
    assert checkpoints.steps() == []
    answers.set()
    checkpoints._bounded._seconds = 600
    wait_until(lambda: not checkpoints._bounded.hangs())
    checkpoints.save(on(mesh, 3), {})
    checkpoints.wait()
    assert checkpoints.steps() == [1, 3]


def test_a_disk_that_fills_in_the_middle_of_a_save(opened, tmp_path, mesh, monkeypatch, said):
    """A real one. Nothing hangs, and when there is room again the next save succeeds."""
    disk, filler = tmp_path / "disk", tmp_path / "disk" / "filler"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", disk]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("nothing may be mounted here")

    def fill(*_):
        free = shutil.disk_usage(disk).free
        filler.write_bytes(bytes(max(0, free - 100_000)))  # of 262 kB

    try:
        checkpoints = opened(disk / "checkpoints")
        _save(checkpoints, on(mesh, 1))
        with monkeypatch.context() as patch:
            patch.setattr(sys.modules[Checkpoints.__module__], "check_room", fill)
            with pytest.raises(CheckpointError, match=r"No space left .*good .* is step 1") as told:
                _save(checkpoints, on(mesh, 2))
        assert not isinstance(told.value, StorageError)
        filler.unlink()
        _save(checkpoints, on(mesh, 3))
        assert checkpoints.steps() == [1, 3]
        assert equal(checkpoints.restore_newest(on(mesh, 0))[0], values(3))
    finally:
        subprocess.run(["umount", "--lazy", disk], check=True)


def test_what_a_kill_left_goes_first(opened, copy, tmp_path):
    """Before the room is looked at; a folder that is not there is no fault."""
    (copy / "4.orbax-checkpoint-tmp" / "state").mkdir(parents=True)
    (copy / "score-3.tmp").mkdir()
    remove_torn(copy)
    remove_torn(tmp_path / "none")
    assert sorted(path.name for path in copy.iterdir()) == ["1", "2", "3"]


def test_state_may_be_shapes(opened, copy, mesh):
    like = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), on(mesh, 0)
    )
    assert equal(opened(copy).restore(1, like)[0], values(1))
    assert jnp.issubdtype(like.step.dtype, jnp.integer)
