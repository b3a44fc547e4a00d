"""Entries of a `.pth`: which of its dicts is the state dict of the network."""

import re
from collections.abc import Callable, Mapping
from typing import Any

from clevit_jax.errors import WeightsError
from clevit_jax.system.quoting import first_of, printable, quoted

# By custom: Microsoft and CLE-ViT; timm, Lightning and OpenMMLab; plain torch scripts, DeepSpeed
# (`module`), BasicSR (`params`); DINO and EsViT, whose authors evaluate the teacher; last, for
# files that have nothing else, the averages of timm and others. The first that is there is taken.
WRAPPERS = (
    *("model", "state_dict", "model_state_dict", "model_state", "net", "network", "params"),
    *("weights", "module", "teacher", "student"),
    *("state_dict_ema", "model_ema", "ema_state_dict", "params_ema"),
)
# What trainers keep beside, which may hold tensors, too.
_OTHERS = re.compile(r".*(optim|sched|scaler|rng|random|args|config|callback|loop|hparam|hyper).*")
_DEPTH = 3
_LISTED = 9  # entries that a sentence lists


def choose(
    content: Any, items: Callable[[Any], dict[Any, Any]], is_tensor: Callable[[Any], bool],
    entry: str | None = None,
) -> tuple[str, ...]:  # fmt: skip
    """The path of the entry that holds the state dict; () where the file is one, or holds none.

    Args:
        content: of the file.
        items: what is in a dict; empty of anything else.
        is_tensor: whether a value is one.
        entry: the wanted one, with dots between those of a nested one, as `checkpoint.state_dict`;
            by default the only dict of tensors, or of several the first by custom.

    Raises:
        WeightsError: there is no such entry; or there are several, and no custom among them.
    """
    found = _dicts(content, items, is_tensor)
    if entry is not None:
        for path in found:
            if ".".join(path) == entry:
                return path
        there = f"tensors are in {_flags(found)}" if found else "no entry holds tensors"
        raise WeightsError(f"holds no tensors in an entry {quoted([entry])}: {there}")
    top = items(content)
    tensors = [value for value in top.values() if is_tensor(value)]
    ranked = sorted(found, key=_rank)
    if not ranked or (
        any(value.ndim for value in tensors) and not any(path[0] in WRAPPERS for path in ranked)
    ):
        return ()
    first = ranked[0]
    rivals = [path for path in ranked if _rank(path) == _rank(first)]
    if len(rivals) > 1 or (len(ranked) > 1 and not _by_custom(first)):
        raise WeightsError(
            f"holds {len(ranked)} dicts of tensors, and it is not clear which of them is the "
            f"network: {_counts(ranked, content, items)}. Say {_flags(ranked)} when you convert it"
        )
    return first


def _dicts(
    content: Any, items: Callable[[Any], dict[Any, Any]], is_tensor: Callable[[Any], bool]
) -> list[tuple[str, ...]]:
    """Paths of the dicts in a file that hold tensors, the outer ones first."""
    found, seen = [], {id(content)}
    level: list[tuple[tuple[str, ...], Any]] = [((), content)]
    for _ in range(_DEPTH):
        inner = []
        for path, held in level:
            for name, value in items(held).items():
                if type(name) is not str or _OTHERS.fullmatch(name.lower()) or id(value) in seen:
                    continue
                inside = items(value)
                if any(map(is_tensor, inside.values())):
                    found.append((*path, name))
                elif inside:
                    inner.append(((*path, name), value))
                if inside:
                    seen.add(id(value))  # a file may hold itself
        level = inner
    return found


def _rank(path: tuple[str, ...]) -> tuple[int, ...]:
    custom = [WRAPPERS.index(name) if name in WRAPPERS else len(WRAPPERS) for name in path]
    return len(path), *custom


def _by_custom(path: tuple[str, ...]) -> bool:
    return any(name in WRAPPERS for name in path)


def _counts(
    paths: list[tuple[str, ...]], content: Any, items: Callable[[Any], Mapping[Any, Any]]
) -> str:
    counts = []
    for path in paths:
        held = content
        for name in path:
            held = items(held)[name]
        counts.append(f"{len(items(held))} names in {quoted(['.'.join(path)])}")
    return " and ".join(first_of(counts, _LISTED))


def _flags(paths: list[tuple[str, ...]]) -> str:
    flags = [f"--entry {printable('.'.join(path))}" for path in paths]
    return " or ".join(first_of(flags, _LISTED))
