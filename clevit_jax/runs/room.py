"""Whether checkpoints can be kept in a folder, before anything is written to it."""

import pathlib
import shutil
from typing import Any

import jax

from clevit_jax.distributed import processes
from clevit_jax.errors import CheckpointError, NoRoomError
from clevit_jax.system.faults import os_reason
from clevit_jax.system.places import in_bucket
from clevit_jax.system.plain_path import PlainPath


def check_room(folder: pathlib.Path, state: Any, kept: str = "No checkpoint is saved yet.") -> None:
    """Raises NoRoomError unless the disk of `folder`, which may not exist, has room for one.

    All processes go by what process 0 sees. Of a bucket nothing is known beforehand.
    """
    if in_bucket(folder):
        return
    problem = ""
    needed = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state))
    folder = folder.absolute()
    free = shutil.disk_usage(next(p for p in (folder, *folder.parents) if p.is_dir())).free
    if free < 1.1 * needed:
        problem = (
            f"There is no room for a checkpoint: {folder} has {free / 1e6:.0f} MB free "
            f"and one takes {1.1 * needed / 1e6:.0f} MB; free some space. {kept}"
        )
    if problem := processes.broadcast("room", problem):
        raise NoRoomError(problem)


def check_path(folder: pathlib.Path) -> None:
    """Raises CheckpointError unless checkpoints can be written to a folder of this name."""
    plain = PlainPath(folder)
    plain.path()
    plain.close()


def check_bucket(folder: pathlib.Path) -> None:
    """Raises CheckpointError unless checkpoints can be read in a folder, where it is in a bucket.

    Whether they can be written there, `runs.lock` has tried before.
    """
    if not in_bucket(folder):
        return
    from clevit_jax.system import buckets

    try:
        buckets.check_usable(folder, writing=False)
    except OSError as error:
        raise CheckpointError(
            f"Checkpoints cannot be read in {folder}: {os_reason(error)}."
        ) from error
