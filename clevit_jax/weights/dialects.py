"""Dialects: the names that libraries give the parameters of one and the same Swin.

Official names are those of Microsoft's code (microsoft/Swin-Transformer
`models/swin_transformer.py`). Here are names alone, and that Hugging Face stores query, key and
value apart and OpenMMLab sorts merged patches otherwise (`openmmlab`); what is missing or has a
wrong shape is for the caller, and what lies around the network for `wrapping`. Checked against
tests/names, the names and shapes that the libraries themselves wrote down.
"""

import functools
import re
from collections.abc import Iterable, Mapping

import numpy as np

from clevit_jax.errors import WeightsError
from clevit_jax.system.quoting import first_of, quoted
from clevit_jax.weights import heads, openmmlab, wrapping
from clevit_jax.weights.dialect_tables import DIALECTS, HUGGINGFACE_5, TABLES

# Recomputed, never loaded; under these names in every dialect.
_IGNORED = {
    "relative position index": re.compile(r"(^|\.)relative_position_index$"),
    "attention mask": re.compile(r"(^|\.)attn_mask$"),
    "mask token": re.compile(
        r"^(?:(?:swin\.)?embeddings\.)?mask_token$"
    ),  # of SimMIM, for the patches that it hides
}

# Networks that share most names with Swin and are another.
_RELATIVES = {
    "a Swin V2": re.compile(
        r"\.att\w+\.(.+\.)?(logit_scale$|cpb_mlp\.|continuous_position_bias_mlp\.)"
    ),
    "a Swin-MLP": re.compile(r"\.spatial_mlp\."),
}

_STAGE = re.compile(r"\{(2?)i\+?(\d?)\}")  # {i}, {i+1}, {2i+1}, {2i+2}
_MERGING = re.compile(r"layers\.([0-9]{1,3})\.downsample\.")
_PARTS = ("query", "key", "value")
_PART = re.compile(r"(layers\.[0-9]+\.blocks\.[0-9]+\.attn)\.(query|key|value)\.(weight|bias)")
_QKV = re.compile(r"(layers\.[0-9]+\.blocks\.[0-9]+\.attn)\.qkv\.(weight|bias)")
# Those that differ in the names of the attention.
_FAMILIES = ("microsoft", "huggingface", "torchvision", "openmmlab")
_MICROSOFTS_WRAPPERS = ("model", "teacher", "student")  # the last two are EsViT's
_NUMBER = "0|[1-9][0-9]{0,2}"
LISTED = 400  # problems that a sentence lists: as many as a Swin has parameters


@functools.cache
def _regex(template: str) -> re.Pattern[str]:
    """Matches the names that a table's entry stands for, with groups i, j and leaf."""
    groups = {"i": _NUMBER, "j": _NUMBER, "leaf": "weight|bias"}
    text = _STAGE.sub("{i}", template).replace("*", "{leaf}")
    return re.compile(
        "".join(
            f"(?P<{part[1:-1]}>{groups[part[1:-1]]})" if part.startswith("{") else re.escape(part)
            for part in re.split(r"(\{\w+\})", text)
        )
    )


def _stage_number(template: str) -> tuple[int, int]:
    """(a, b) where the entry spells stage i as a * i + b."""
    match = _STAGE.search(template)
    return (int(match[1] or 1), int(match[2] or 0)) if match else (1, 0)


def _respell(name: str, table: Iterable[tuple[str, str]]) -> str | None:
    """The name after the first entry (from, to) that it matches; None if it matches none."""
    for source, target in table:
        match = _regex(source).fullmatch(name)
        if match is None:
            continue
        fields = match.groupdict()
        if "i" in fields:
            times, plus = _stage_number(source)
            stage, rest = divmod(int(fields["i"]) - plus, times)
            if stage < 0 or rest:
                continue
            times, plus = _stage_number(target)
            target = _STAGE.sub(str(times * stage + plus), target)
        return target.replace("{j}", fields.get("j", "")).replace("*", fields.get("leaf", ""))
    return None


def _table_of(dialect: str) -> dict[str, str]:
    if dialect not in TABLES:
        known = ", ".join(DIALECTS)
        raise WeightsError(f"{dialect!r} is not a dialect of weights; give one of {known}.")
    return TABLES[dialect]


@functools.cache
def _spellings(dialect: str) -> tuple[tuple[str, str], ...]:
    """Pairs (name in the dialect, official name), of every spelling that the dialect has."""
    table = [(name, official) for official, name in _table_of(dialect).items()]
    if dialect == "huggingface":
        table += [(name, official) for official, name in HUGGINGFACE_5.items()]
        # Files of the bare SwinModel, which is `swin` inside the classifier.
        table += [(n.removeprefix("swin."), o) for n, o in table if n.startswith("swin.")]
    if dialect == "openmmlab":  # as `wrapping` leaves them
        table = [(n.removeprefix("backbone."), o) for n, o in table]
    return tuple(table)


def _is_official(name: str) -> bool:
    return _respell(name, TABLES["microsoft"].items()) is not None


def _is_attention(name: str, family: str) -> bool:
    return ".attn." in (_respell(name, _spellings(family)) or "")


def _meaning(name: str) -> str:
    """The official name of what a bare name means in any dialect; "" if it is none."""
    spelled = (_respell(name, _spellings(family)) for family in _FAMILIES)
    return next((official for official in spelled if official), "")


def unwrap(names: Iterable[str], prefix: str | None = None) -> wrapping.Unwrapped:
    """The names of the Swin in a file, and what lies beside it; see `wrapping.unwrap`."""
    return wrapping.unwrap(names, _meaning, prefix)


def recognise(names: Iterable[str], wrapper: str = "", prefix: str | None = None) -> str:
    """The dialect of a file: one of `DIALECTS`.

    Args:
        names: of the file's tensors.
        prefix: of the network that is wanted; see `wrapping.unwrap`.
        wrapper: the key that held them in the file, "" if none. Microsoft's files and those of
            the official CLE-ViT have `model`; timm before 0.9 has the same names.

    Raises:
        WeightsError: if they are not a Swin of a known dialect; says what the file holds.
    """
    bare = set(unwrap(names, prefix).bare.values())
    for what, pattern in _RELATIVES.items():
        signs = sorted(name for name in bare if pattern.search(name))
        if signs:
            raise WeightsError(
                f"These are the weights of {what} (they hold {quoted(signs[:1])}), which is "
                "another network; give those of a Swin of the first version."
            )
    attention = {family: sum(_is_attention(name, family) for name in bare) for family in _FAMILIES}
    dialect = max(attention, key=lambda known: attention[known])
    if not attention[dialect]:
        first = quoted(sorted(bare)[:5]) or "no tensor at all"
        raise WeightsError(
            "These are not the weights of a Swin as Microsoft, timm, Hugging Face, torchvision or "
            f"OpenMMLab name them: among {len(bare)} names there is none of Swin's attention; the "
            f"first are: {first}."
        )
    if dialect != "microsoft":
        return dialect
    merging = {int(match[1]) for match in map(_MERGING.match, bare) if match}
    # Not by the head, which people replace; without any merging there is nothing else.
    if (merging and 0 not in merging) or (
        not merging and any(name.startswith("head.fc.") for name in bare)
    ):
        return "timm"
    return "microsoft" if wrapper in _MICROSOFTS_WRAPPERS else "timm<0.9"


def stored_buffers(dialect: str) -> frozenset[str]:
    """Which of `relative_position_index` and `attn_mask` the library keeps in a state dict."""
    ends = (official.rpartition(".")[2] for official in _table_of(dialect))
    return frozenset(ends) & {"relative_position_index", "attn_mask"}


def ignored_kind(name: str) -> str | None:
    """The buffer that a name of any dialect means, in words; None if it means none."""
    return next((kind for kind, ends in _IGNORED.items() if ends.search(name)), None)


def to_official_names(
    tensors: Mapping[str, np.ndarray], dialect: str, prefix: str | None = None
) -> tuple[dict[str, np.ndarray], dict[str, list[str]]]:
    """Gives the tensors of a file their official names.

    Args:
        tensors: name in the file -> array; what holds the network is taken off (`unwrap`).
        dialect: as `recognise` says.
        prefix: of the network that is wanted; see `wrapping.unwrap`.

    Returns:
        Official name -> array in the official layout (query, key and value joined, in this order,
        along the output axis), and kind -> names in the file of what is never loaded, or lies
        beside the network. A name that the dialect does not have stays as it is in the file, for
        the caller to report; so do query, key and value unless all three are there.

    Raises:
        WeightsError: naming all names that mean the same parameter, and all queries, keys and
            values that do not fit together.
    """
    table = _spellings(dialect)
    given: dict[str, list[str]] = {}  # official name -> names in the file
    left: dict[str, np.ndarray] = {}
    unwrapped = unwrap(tensors, prefix)
    head = _head_of(unwrapped, tensors)
    ignored: dict[str, list[str]] = {}
    for name in head.others:
        ignored.setdefault("of 'head'", []).append(name)
    foreign = []
    for name, bare in unwrapped.bare.items():
        kind = ignored_kind(bare)
        official = f"head.{head.names[name]}" if name in head.names else _respell(bare, table)
        if name in head.others:
            continue
        if kind is not None:
            ignored.setdefault(kind, []).append(name)
        elif official is not None:
            given.setdefault(official, []).append(name)
        elif _is_official(bare):
            given.setdefault(bare, []).append(name)
            foreign.append(name)
        else:
            left[name] = tensors[name]
    _refuse_mixture(given, foreign, dialect)
    joined = _join_attention({o: tensors[names[0]] for o, names in given.items()})
    for official in [o for o in joined if _PART.fullmatch(o)]:  # without its two companions
        left[given[official][0]] = joined.pop(official)
    if dialect == "openmmlab":
        joined = openmmlab.to_official_order(joined)
    return joined | left, ignored | unwrapped.beside


def _refuse_mixture(given: Mapping[str, list[str]], foreign: list[str], dialect: str) -> None:
    """Raises unless each official name has one name in the file, and that is the dialect's."""
    double = {official: names for official, names in given.items() if len(names) > 1}
    told = {name for names in double.values() for name in names}
    problems = [
        f"{' and '.join(quoted([name]) for name in names)} are both {official}"
        for official, names in double.items()
    ]
    problems += [f"{quoted([n])} is not a name of {dialect}" for n in foreign if n not in told]
    if problems:
        raise WeightsError(
            "The file mixes the names of several dialects, so that it is not clear which of its "
            f"tensors count; take those of one out: {'; '.join(first_of(problems, LISTED))}."
        )


def _join_attention(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Replaces attn.query, attn.key and attn.value by attn.qkv wherever all three are there."""
    joined: dict[str, np.ndarray] = {}
    problems = []
    for name, tensor in tensors.items():
        part = _PART.fullmatch(name)
        three = [f"{part[1]}.{p}.{part[3]}" for p in _PARTS] if part else []
        if not part or not all(other in tensors for other in three):
            joined[name] = tensor
        elif part[2] == _PARTS[0]:
            q, k, v = (tensors[other] for other in three)
            if not q.ndim or not q.shape == k.shape == v.shape or not q.dtype == k.dtype == v.dtype:
                what = " and ".join(f"{x.dtype}{list(x.shape)}" for x in (q, k, v))
                problems.append(f"{part[1]}.*.{part[3]} are {what}")
            else:
                joined[f"{part[1]}.qkv.{part[3]}"] = np.concatenate([q, k, v])
    if problems:
        raise WeightsError(
            "Query, key and value must have one shape and type, to be joined into one parameter; "
            f"in this file {'; '.join(first_of(problems, LISTED))}."
        )
    return joined


def _head_of(unwrapped: wrapping.Unwrapped, tensors: Mapping[str, np.ndarray]) -> heads.Head:
    ranks = {name: np.ndim(tensors[name]) for name in unwrapped.bare}
    return heads.find_head(unwrapped.bare, ranks, unwrapped.beside)


def said_of_head(tensors: Mapping[str, np.ndarray], prefix: str | None = None) -> str:
    """What a load report says of the head of a file; "" of a plain one."""
    return _head_of(unwrap(tensors, prefix), tensors).said


def mask_shapes(
    tensors: Mapping[str, np.ndarray], prefix: str | None = None
) -> dict[str, tuple[int, ...]]:
    """Name inside the network -> shape of the attention masks in a file; they tell its size."""
    bare = unwrap(tensors, prefix).bare.items()
    masks = [(name, inner) for name, inner in bare if ignored_kind(inner) == "attention mask"]
    return {inner: tensors[name].shape for name, inner in masks}


def from_official_names(
    tensors: Mapping[str, np.ndarray], dialect: str, *, stages: int = 4
) -> dict[str, np.ndarray]:
    """Gives official tensors the names of a dialect; the inverse of `to_official_names`.

    Args:
        tensors: official name -> array in the official layout. Buffers (an index
            `layers.0.blocks.1.attn.relative_position_index` [N, N], a mask
            `layers.0.blocks.1.attn_mask`) are kept where the dialect stores them.
        dialect: one of `DIALECTS`. "huggingface" writes the spelling of the hub's files, which
            transformers 4 and 5 load.
        stages: of the network, where the names do not tell; "openmmlab" numbers its final norm.

    Raises:
        WeightsError: naming all names that are not official, or a qkv that cannot be cut in three.
    """
    table = _table_of(dialect).items()
    if dialect == "openmmlab":
        tensors = openmmlab.to_openmmlab_order(tensors)
    written: dict[str, np.ndarray] = {}
    unknown = []
    for name, tensor in _cut_attention(tensors, dialect).items():
        target = _respell(name, table)
        if target is None:
            unknown += [name] if ignored_kind(name) is None else []
        elif dialect == "torchvision" and name.endswith(".relative_position_index"):
            written[target] = tensor.reshape(-1)
        else:
            written[target] = tensor
    if unknown:
        raise WeightsError(f"These are not official names of a Swin: {quoted(unknown)}.")
    return openmmlab.number_final_norm(written, stages) if dialect == "openmmlab" else written


def _cut_attention(tensors: Mapping[str, np.ndarray], dialect: str) -> dict[str, np.ndarray]:
    """Replaces attn.qkv by attn.query, attn.key and attn.value where the dialect has these."""
    if dialect != "huggingface":
        return dict(tensors)
    cut: dict[str, np.ndarray] = {}
    for name, tensor in tensors.items():
        qkv = _QKV.fullmatch(name)
        if qkv is None:
            cut[name] = tensor
        elif not tensor.ndim or tensor.shape[0] % 3:
            raise WeightsError(f"{name} {list(tensor.shape)} cannot be cut into query, key, value.")
        else:
            names = (f"{qkv[1]}.{part}.{qkv[2]}" for part in _PARTS)
            cut |= zip(names, np.split(tensor, 3), strict=True)
    return cut
