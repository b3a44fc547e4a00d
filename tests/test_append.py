"""Records that wait while their disk is full, and come whole and in order when it is not."""

import contextlib
import errno
import json
import pathlib
import resource
import struct
import threading

import gcs_emulator
import pytest
from absl import logging
from tensorboardX.proto.event_pb2 import Event
from tensorboardX.record_writer import masked_crc32c
from waiting import wait_until

from clevit_jax.runs.metrics import MetricWriter, read_records
from clevit_jax.system.append import AppendedFile
from clevit_jax.system.uploaded import UploadedFile


@contextlib.contextmanager
def room_for(size):
    """No file may grow beyond `size` bytes: writes of more are cut, as on a full disk."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.fixture
def said(monkeypatch):
    lines: list[str] = []
    monkeypatch.setattr(logging, "error", lambda text, *args: lines.append(text % args))
    return lines


def _events(folder):
    """Events of all files, in the order of their names, checked by their lengths and sums."""
    events = []
    for path in sorted(folder.iterdir()):
        data = path.read_bytes()
        while data:
            (length,) = struct.unpack("<Q", data[:8])
            record = data[12 : 12 + length]
            for part, crc in ((data[:8], data[8:12]), (record, data[12 + length : 16 + length])):
                assert struct.unpack("<I", crc)[0] == masked_crc32c(part)
            events.append(Event.FromString(record))
            data = data[16 + length :]
    return events


def test_a_full_disk_costs_no_number(tmp_path, said):
    """Neither a torn line nor a torn event, and each outage is told of once."""
    before = set(threading.enumerate())
    writer = MetricWriter(tmp_path, step=0)
    writer.write(1, {"loss": 1.0})
    for outage, steps in enumerate((range(2, 20), range(20, 30))):
        size = min(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file())
        with room_for(size + 9):
            for step in steps:
                writer.write(step, {"loss": float(step)})
                lines = (tmp_path / "metrics.jsonl").read_text().splitlines(keepends=True)
                assert all(json.loads(line) and line.endswith("\n") for line in lines)
                _events(tmp_path / "tensorboard")
        assert len(said) == 4 * outage + 2
        assert "metrics.jsonl: File too large. Training goes on, and they wait" in "".join(said)
        writer.write(steps[-1] + 100, {"loss": 0.0})
        assert len(said) == 4 * outage + 4
        assert "metrics.jsonl again; none is lost" in said[-2]
    writer.close()
    expected = [*range(1, 20), 119, *range(20, 30), 129]
    assert [r["step"] for r in read_records(tmp_path / "metrics.jsonl")] == expected
    assert [e.step for e in _events(tmp_path / "tensorboard") if e.HasField("summary")] == expected
    assert set(threading.enumerate()) <= before  # no thread that may die, no queue that may fill


def test_events_say_what_is_written_again(tmp_path):
    """TensorBoard hides what a run that was killed had written after its checkpoint."""
    writer = MetricWriter(tmp_path, step=4)
    writer.write(5, {"train/loss": 0.5, "train/lr": float("inf")})
    writer.close()
    first, purge, scalars = _events(tmp_path / "tensorboard")
    assert first.file_version == "brain.Event:2"
    assert (purge.step, purge.session_log.status) == (5, purge.session_log.START)
    values = {value.tag: value.simple_value for value in scalars.summary.value}
    assert values == {"train/loss": 0.5, "train/lr": float("inf")}


def test_the_oldest_are_lost_beyond_what_waits(tmp_path, said):
    file = AppendedFile(tmp_path / "file", "records", waiting=3)
    file.write([b"0"])
    with room_for(1):
        for record in range(1, 6):
            file.write([b"%d" % record])
    file.write([b"6"])
    assert (tmp_path / "file").read_bytes() == b"0456"
    assert "again; the oldest 3 records are lost" in said[-1]
    with room_for(1):
        file.write([b"7"])
        file.close()
        file.close()
    assert "1 records of the records are lost" in said[-1]
    assert len(said) == 4


@pytest.mark.parametrize("code", [errno.EDQUOT, errno.EIO, errno.ESTALE, errno.EROFS])
def test_a_disk_that_is_away(tmp_path, monkeypatch, said, code):
    """The file is opened anew each time, so a handle that went stale is not held on to."""
    file = AppendedFile(tmp_path / "deep" / "file", "records")
    file.write([b"1\n"])

    def away(*_, **__):
        raise OSError(code, "away")

    with monkeypatch.context() as patch:
        patch.setattr(pathlib.Path, "open", away)
        file.write([b"2\n"])
    with (tmp_path / "deep" / "file").open("a") as torn:
        torn.write("2")  # which could not be cut off either
    file.write([b"3\n"])
    assert (tmp_path / "deep" / "file").read_bytes() == b"1\n2\n3\n"
    (tmp_path / "deep" / "file").unlink()  # by somebody else
    file.write([b"4\n"])
    assert (tmp_path / "deep" / "file").read_bytes() == b"4\n"
    assert len(said) == 2


def test_a_start_writes_only_what_it_must(tmp_path):
    """Where nothing is to be dropped, going on needs no room for a second copy."""
    writer = MetricWriter(tmp_path, step=0)
    writer.write(1, {"loss": 1.0})
    writer.close()
    before = (tmp_path / "metrics.jsonl").stat().st_ino
    MetricWriter(tmp_path, step=1).close()
    assert (tmp_path / "metrics.jsonl").stat().st_ino == before
    MetricWriter(tmp_path, step=0).close()
    assert read_records(tmp_path / "metrics.jsonl") == []


def test_a_file_in_a_bucket_grows(bucket):
    """Across two writers of one file, as of a run that goes on; flushed, it is all there."""
    for start in (0, 2):
        writer = MetricWriter(bucket, step=start)
        for step in range(start + 1, start + 4):
            writer.write(step, {"loss": float(step)})
        writer.flush()
        assert read_records(bucket / "metrics.jsonl")[-1]["step"] == start + 3
        writer.write(start + 4, {"loss": 0.5})
        writer.close()
    assert [line["step"] for line in read_records(bucket / "metrics.jsonl")] == [1, 2, 3, 4, 5, 6]
    steps = [event.step for event in _events(bucket / "tensorboard") if event.summary.value]
    assert steps == [1, 2, 3, 4, 3, 4, 5, 6]


def test_a_file_in_a_bucket_that_another_has_is_left_alone(bucket, said):
    ours = [True]
    file = UploadedFile(bucket / "file", "numbers", ours=lambda: ours[0])
    file.write([b"1"])
    file.flush()
    (bucket / "file").write_bytes(b"1, and what the other wrote")
    ours[0] = False
    file.write([b"2"])
    file.flush()
    file.write([b"3"])
    file.close()
    assert (bucket / "file").read_bytes() == b"1, and what the other wrote"
    assert not said


def test_a_file_in_a_bucket_waits_for_it(gcs, bucket, said, monkeypatch):
    gcs_emulator.retry_at_once(monkeypatch)
    file = UploadedFile(bucket / "file", "numbers", seconds=0.01)
    file.write([b"1"])
    file.flush()
    gcs.stop()
    try:
        file.write([b"2"])
        wait_until(lambda: said)
    finally:
        gcs.start()
    file.write([b"3"])
    file.close()
    assert (bucket / "file").read_bytes() == b"123"
    assert "cannot be written" in said[0]
    assert "written" in said[1]
    assert "again" in said[1]
