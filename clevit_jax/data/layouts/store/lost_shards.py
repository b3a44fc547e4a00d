"""Shards of a data set that the names of the others count, and that are not there."""

import pathlib
import re
from collections.abc import Iterable, Sequence

from clevit_jax.data.layouts.listing import first_three

_SHARD = re.compile(r"(.*?)(\d{3,})-of-(\d{3,})(?!\d)")
_MOST_SHARDS = 100_000


def lost_shards(names: Iterable[str]) -> list[str]:
    """The shards that names such as `train-00000-of-00002.parquet` count and that are not there.

    Args:
        names: of the shards that are there, with their folders.

    Returns:
        The others, `train-00001-of-00002`, in their order.
    """
    there: dict[tuple[str, str], set[int]] = {}
    for name in names:
        if match := _SHARD.match(name):
            there.setdefault((match[1], match[3]), set()).add(int(match[2]))
    return [
        f"{start}{i:0{len(count)}}-of-{count}"
        for (start, count), numbers in there.items()
        if int(count) <= _MOST_SHARDS
        for i in range(int(count))
        if i not in numbers
    ]


def say_lost(root: pathlib.Path, lost: Sequence[str]) -> str:
    """A sentence on shards that are not there."""
    many = "shard is" if len(lost) == 1 else "shards are"
    return (
        f"{root}: {len(lost):,} {many} not there, though the names of others count them "
        f"({first_three(lost)}), so their images are not read; fetch them for the whole data set."
    )
