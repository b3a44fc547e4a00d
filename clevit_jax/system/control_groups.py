"""The control groups of Linux, which hold a container or a batch job to a share of a machine.

A process is in a group of each controller, and every group above it binds as well: the smallest
share counts. Source: kernel.org, admin-guide/cgroup-v2 and admin-guide/cgroup-v1.
"""

import pathlib
from collections.abc import Iterator

_MEMBERSHIP = pathlib.Path("/proc/self/cgroup")  # lines `<number>:<controllers>:<path>`
_MOUNT = pathlib.Path("/sys/fs/cgroup")


def folders(controller: str) -> Iterator[pathlib.Path]:
    """Folders of the groups that this process is in, the innermost first.

    Those of version 2 hold files of every controller, those of version 1 of one. A container often
    sees its own group as the outermost one, under another path than its host does: folders that
    are not there are left out.

    Args:
        controller: "cpu" or "memory".
    """
    try:
        lines = _MEMBERSHIP.read_text().splitlines()
    except OSError:  # another system than Linux, or none of its /proc
        lines = []
    parts = [line.split(":", 2) for line in lines if line.count(":") >= 2]
    found: list[pathlib.Path] = []
    for _, controllers, path in parts:
        if controllers == "":
            mounts = [_MOUNT, _MOUNT / "unified"]
        elif controller in controllers.split(","):
            mounts = [_MOUNT / controller, _MOUNT / controllers]
        else:
            continue
        for mount in mounts:
            names = [name for name in path.split("/") if name not in ("", "..")]
            found += [mount.joinpath(*names[:depth]) for depth in range(len(names), -1, -1)]
    outermost = [_MOUNT, _MOUNT / controller]  # where the list of memberships is not shown
    yield from (folder for folder in dict.fromkeys([*found, *outermost]) if folder.is_dir())


def number(folder: pathlib.Path, name: str) -> int | None:
    """The number in a file of a group; None where there is no such file, or no limit."""
    try:
        return int((folder / name).read_text().split()[0])
    except (OSError, ValueError, IndexError):  # `max` is no limit
        return None
