"""Records of TensorBoard's event files, as bytes.

tensorboardX's own writer has a thread and a queue, and stands still for ever once its disk was full
for a moment.
"""

import os
import pathlib
import re
import socket
import struct
import time
from collections.abc import Mapping
from typing import Any


def event_file(folder: pathlib.Path) -> pathlib.Path:
    """A new name of an event file in `folder`, as TensorBoard looks for it."""
    host = re.sub(r"[^A-Za-z0-9_.-]", "-", socket.gethostname())
    return folder / f"events.out.tfevents.{int(time.time())}.{host}.{os.getpid()}"


def first_records(*, purge_step: int | None = None) -> list[bytes]:
    """What an event file begins with.

    Args:
        purge_step: TensorBoard hides what earlier files say of this step and later ones.
    """
    from tensorboardX.proto.event_pb2 import SessionLog

    start = [_record(file_version="brain.Event:2")]
    if purge_step is not None:
        log = SessionLog(status=SessionLog.START)
        start.append(_record(step=purge_step, session_log=log))
    return start


def scalars_record(step: int, scalars: Mapping[str, float]) -> bytes:
    """One event with the values of a step."""
    from tensorboardX.proto.summary_pb2 import Summary

    values = [Summary.Value(tag=name, simple_value=value) for name, value in scalars.items()]
    return _record(step=step, summary=Summary(value=values))


def _record(**fields: Any) -> bytes:
    # tensorboardX imports torch where there is one: a second that only runs need.
    from tensorboardX.proto.event_pb2 import Event
    from tensorboardX.record_writer import masked_crc32c

    data = Event(wall_time=time.time(), **fields).SerializeToString()
    length = struct.pack("<Q", len(data))
    crcs = (struct.pack("<I", masked_crc32c(part)) for part in (length, data))
    return length + next(crcs) + data + next(crcs)
