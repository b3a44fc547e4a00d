"""Weights in several files: the shards of the Hugging Face hub, told of by an index beside them.

`model.safetensors.index.json` says which tensor lies in which `model-00001-of-00003.safetensors`;
`pytorch_model.bin.index.json` is the same for a `.bin`.
"""

import hashlib
import json
import os
import pathlib
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from clevit_jax.errors import WeightsError
from clevit_jax.system.faults import os_reason
from clevit_jax.system.quoting import printable, quoted
from clevit_jax.weights.files import WeightFile, read_weight_file

INDEX = ".index.json"
_INDEX_BYTES = 16 << 20  # a Swin's has 30 thousand
_SHARD = re.compile(r"(.+)-[0-9]{5}-of-([0-9]{5})(\.\w+)")


def read_weight_files(path: str | os.PathLike[str], entry: str | None = None) -> WeightFile:
    """Reads a file of weights, or all shards of an index.

    Args:
        path: as `read_weight_file` takes it, or an index whose name ends with `.index.json`.
        entry: as `read_weight_file` takes it; each shard has it.

    Returns:
        The tensors. The sha256 of shards is that of what `sha256sum` prints for them, in the
        alphabetic order of their names; what lies beside the tensors is named with its shard.

    Raises:
        WeightsError: as `read_weight_file`; a shard alone; an index that is damaged, names a file
            outside its folder, or other tensors than its shards hold.
    """
    path = pathlib.Path(path)
    if path.name.endswith(INDEX):
        return _read_shards(path, entry)
    match = _SHARD.fullmatch(path.name)
    if match and int(match[2]) > 1:
        index = path.with_name(f"{match[1]}{match[3]}{INDEX}")
        raise WeightsError(
            f"{printable(os.fspath(path))} is one of {int(match[2])} shards, which are read "
            f"together: name the folder of them and of {quoted([index.name])}."
        )
    return read_weight_file(path, entry)


def _read_shards(index: pathlib.Path, entry: str | None) -> WeightFile:
    places = _places(index)
    shards = sorted(set(places.values()))
    if missing := [name for name in shards if not (index.parent / name).is_file()]:
        raise _refusal(
            index, f"names {len(missing)} of {len(shards)} shards that are not beside it", missing
        )
    tensors: dict[str, np.ndarray] = {}
    listed = ""
    others: list[str] = []
    problems: list[tuple[str, set[str], set[str]]] = []
    for shard in shards:
        file = read_weight_file(index.parent / shard, entry)
        wanted = {name for name, place in places.items() if place == shard}
        if wanted != set(file.tensors):
            problems.append((shard, wanted - set(file.tensors), set(file.tensors) - wanted))
        tensors |= file.tensors
        others += [f"{shard}: {entry}" for entry in file.other_entries]
        listed += f"{file.sha256}  {shard}\n"
    if problems:
        shard, lacking, more = problems[0]
        lacks = f"lacks {len(lacking)} tensors ({quoted(sorted(lacking), 3)})" if lacking else ""
        holds = f"holds {len(more)} others ({quoted(sorted(more), 3)})" if more else ""
        raise _refusal(
            index,
            "tells other tensors than its shards hold, for "
            f"{quoted([shard])} {' and '.join(filter(None, (lacks, holds)))}",
            [name for name, *_ in problems],
        )
    ordered = {name: tensors[name] for name in places}
    return WeightFile(ordered, "", tuple(others), hashlib.sha256(listed.encode()).hexdigest())


def _refusal(index: pathlib.Path, what: str, shards: list[str]) -> WeightsError:
    return WeightsError(
        f"{printable(os.fspath(index))} {what}: download or copy anew {quoted(shards)}."
    )


def _places(index: pathlib.Path) -> dict[str, str]:
    """Tensor -> shard, the plain name of a file in the folder of the index."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        entries = dict(pairs)
        if len(entries) < len(pairs):
            raise ValueError("it names an entry twice")
        return entries

    shown = printable(os.fspath(index))
    try:
        with open(index, "rb") as file:
            text = file.read(_INDEX_BYTES + 1)
        if len(text) > _INDEX_BYTES:
            raise ValueError("it is too long")
        content = json.loads(text.decode("utf-8"), object_pairs_hook=unique)
    except FileNotFoundError:
        raise WeightsError(f"{shown} does not exist.") from None
    except OSError as error:
        raise WeightsError(f"{shown} cannot be read ({os_reason(error)}).") from None
    except (ValueError, RecursionError) as error:
        known = type(error) is ValueError
        reason = str(error) if known else "it is not JSON"
        raise WeightsError(
            f"{shown} is damaged or cut short ({reason}): download or copy it again."
        ) from None
    places = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(places, Mapping) or not places:
        raise WeightsError(
            f"{shown} is no index of shards, for it has no weight_map of tensors and files: "
            "download or copy it again."
        )
    strange = [place for place in places.values() if not _is_plain(place)]
    if strange:
        raise WeightsError(
            f"{shown} names what is no file in its own folder "
            f"({quoted(sorted(set(map(str, strange))), 3)}), which is not read: put the shards "
            "beside it and name them there."
        )
    return dict(places)


def _is_plain(place: Any) -> bool:
    if not isinstance(place, str) or not place or place in (".", "..") or "\0" in place:
        return False
    return place == pathlib.PurePosixPath(place).name == pathlib.PureWindowsPath(place).name
