"""Wrapping of a network in a file: what stands before its names, and what lies beside it.

Trainers, detectors and self-supervised methods hold a Swin as one module among others. Here its
names are told from theirs; what its names mean is for `dialects`, what a head is for `heads`.
"""

import dataclasses
import re
import shlex
from collections.abc import Callable, Iterable, Mapping

from clevit_jax.errors import WeightsError
from clevit_jax.system.quoting import first_of, printable, quoted

# DistributedDataParallel, torch.compile, FSDP, activation checkpoints: also between two words.
_TRANSPARENT = frozenset(
    ("module", "_orig_mod", "_fsdp_wrapped_module", "_fpw_module", "_checkpoint_wrapped_module")
)
# The first word of an attention's name in any dialect, and how many words are looked at.
_STARTS = frozenset(("layers", "features", "stages", "encoder", "swin"))
_WORDS = 24
# Parts of a training that lie beside the layers of a network, and leave its features as they are.
_BESIDE = re.compile(
    r"n_averaged|steps|criterion\w*|\w*loss\w*|arc|\w*(arc_?face|cos_?face|margin)\w*|metric\w*"
    r"|\w+_head\w*|heads?_\w+|heads|fc\d*|classifiers|classifier_\w+|neck|projector\w*"
    r"|projection\w*|predictor\w*|queue\w*|centers?|prototypes?|temperature|logit_scale|decoder"
)
_STAGE = re.compile(r"(?:swin\.)?(?:encoder\.)?(?:layers|stages)\.([0-9]{1,3})\.")
_STAGE_NORM = re.compile(r"norm([0-9]{1,3})\.(weight|bias)")
EARLIER_NORM = "norm of an earlier stage"
# Of transformers' SwinBackbone, whose stages count from 1; newer ones have a final norm besides.
_OUTPUT_NORM = re.compile(
    r"(?:swin\.)?hidden_states_norms\.(?:stem|stage([0-9]{1,3}))\.(weight|bias)"
)
_FINAL_NORMS = ("layernorm.weight", "swin.layernorm.weight")
OUTPUT_NORM = "norm of a stage's output"
_LISTED = 9  # networks that a sentence lists


@dataclasses.dataclass(frozen=True)
class Unwrapped:
    """Names of a file, told apart.

    Attributes:
        bare: name in the file -> name inside the network.
        beside: what it belongs to (`of 'neck'`) -> names in the file that are not the network's.
    """

    bare: dict[str, str]
    beside: dict[str, list[str]]


def unwrap(
    names: Iterable[str], meaning: Callable[[str], str], prefix: str | None = None
) -> Unwrapped:
    """Takes off what the modules that hold the Swin put before its names, whatever they are.

    Args:
        names: of a file's tensors.
        meaning: bare name -> official name of the parameter of a Swin, "" if it is none.
        prefix: what stands before the names of the network that is wanted, with or without the
            last dot; by default that of the only one.

    Returns:
        The names of the network, with the final norm as `norm` where it has the number of the last
        stage, and with `head.` those of a head beside it; apart from them those of other modules,
        and of the norms that a detector has after earlier stages. Where no network is found, all
        names are its own.

    Raises:
        WeightsError: several networks stand side by side, so that it is not clear which one counts;
            or there is none under the prefix.
    """
    names = list(names)
    held = _networks(names, meaning)
    trunk = _chosen(held, prefix)
    above = _holder_of_head(names, trunk)
    bare: dict[str, str] = {}
    beside: dict[str, list[str]] = {}
    for name in names:
        if not held or _owner(name, held) == trunk:
            inner = _plain(name.removeprefix(trunk).split("."))
        elif above is not None and name.startswith(f"{above}head."):
            inner = _plain(name.removeprefix(above).split("."))
        else:
            inner = ""
        if inner and not (held and _BESIDE.fullmatch(inner.split(".")[0])):
            bare[name] = inner
        else:
            beside.setdefault(f"of {quoted([_module(name, trunk)])}", []).append(name)
    return Unwrapped(_with_final_norm(bare, beside), beside)


def _plain(words: list[str]) -> str:
    """A name without the words that wrappers put between its own."""
    return ".".join([words[0], *(word for word in words[1:] if word not in _TRANSPARENT)])


def _before(name: str, meaning: Callable[[str], str]) -> str | None:
    """What stands before the name of an attention; None where it is none."""
    words = name.split(".")
    for start in range(min(_WORDS, len(words))):
        if words[start] in _STARTS and ".attn." in meaning(_plain(words[start:])):
            return "".join(f"{word}." for word in words[:start])
    return None


def _owner(name: str, held: Mapping[str, int]) -> str | None:
    """The longest prefix of a network that a name has; None if it has none."""
    words = name.split(".")[:_WORDS]
    before = ("".join(f"{word}." for word in words[:end]) for end in range(len(words) - 1, -1, -1))
    return next((prefix for prefix in before if prefix in held), None)


def _networks(names: list[str], meaning: Callable[[str], str]) -> dict[str, int]:
    """Prefix of each network of a file -> how many names it has; 0 of those that cannot be meant.

    These are parts without the first layer, beside a whole one, and MoBY's average `encoder_k`.
    """
    holding = [before for name in names if (before := _before(name, meaning)) is not None]
    held, whole = dict.fromkeys(sorted(holding), 0), set[str]()
    for name in names if held else ():
        prefix = _owner(name, held)
        if prefix is not None:
            held[prefix] += 1
            inner = _plain(name.removeprefix(prefix).split("."))
            if meaning(inner).startswith("patch_embed.proj."):
                whole.add(prefix)
    for prefix in held:
        average = prefix.endswith("encoder_k.") and f"{prefix[:-3]}." in held
        if average or (whole and prefix not in whole):
            held[prefix] = 0
    return held


def _chosen(held: dict[str, int], prefix: str | None) -> str:
    """The prefix of the network that counts; "" where there is none.

    Raises:
        WeightsError: there are several, or none under the wanted prefix.
    """
    counted = {before: count for before, count in held.items() if count}
    if prefix is not None:
        wanted = prefix if not prefix or prefix.endswith(".") else f"{prefix}."
        if wanted in held:
            return wanted
        under = [before for before in counted if wanted and before.startswith(wanted)]
        if len(under) == 1:
            return under[0]
        there = f"there is {_listed(counted)}" if counted else "it holds none at all"
        raise WeightsError(
            f"The file holds no Swin under {quoted([wanted])} alone; {there}: "
            f"{f'say {_flags(counted)}' if counted else 'leave --prefix out'}, so that it is clear "
            "which is meant."
        )
    if len(counted) > 1:
        raise WeightsError(
            f"The file holds {len(counted)} networks, and it is not clear which of them counts: "
            f"{_listed(counted)}. Say {_flags(counted)} when you convert it."
        )
    return next(iter(counted), "")


def _listed(held: dict[str, int]) -> str:
    counts = [
        f"{count} names {f'under {quoted([prefix])}' if prefix else 'without a prefix'}"
        for prefix, count in held.items()
    ]
    return " and ".join(first_of(counts, _LISTED))


def _flags(held: dict[str, int]) -> str:
    flags = [f"--prefix {shlex.quote(printable(prefix))}" for prefix in held]
    return " or ".join(first_of(flags, _LISTED))


def _holder_of_head(names: list[str], trunk: str) -> str | None:
    """The nearest module around the trunk that has a `head`; None where the trunk has its own."""
    words = trunk.split(".")[:-1]
    for length in range(len(words), -1, -1):
        above = "".join(f"{word}." for word in words[:length])
        if any(name.startswith(f"{above}head.") for name in names):
            return above if length < len(words) else None
    return None


def _module(name: str, trunk: str) -> str:
    """The module that a name belongs to, as seen from where the trunk is."""
    # The averages of mmcv 1 are named `ema_backbone_norm3_bias`.
    if re.fullmatch(r"ema_\w+", name):
        return "ema_*"
    words, around = name.split("."), trunk.split(".")
    shared = 0
    while shared < min(len(words), len(around)) - 1 and words[shared] == around[shared]:
        shared += 1
    return words[shared]


def _with_final_norm(bare: dict[str, str], beside: dict[str, list[str]]) -> dict[str, str]:
    """Names with the last stage's norm as `norm`; those of earlier stages go to `beside`."""
    last = max((int(m[1]) for m in map(_STAGE.match, bare.values()) if m), default=-1)
    is_complete = any(inner in _FINAL_NORMS for inner in bare.values())
    kept = {}
    for name, inner in bare.items():
        norm, output = _STAGE_NORM.fullmatch(inner), _OUTPUT_NORM.fullmatch(inner)
        if output and int(output[1] or 0) == last + 1 and not is_complete:
            kept[name] = f"layernorm.{output[2]}"
        elif output:
            beside.setdefault(OUTPUT_NORM, []).append(name)
        elif norm and int(norm[1]) < last:
            beside.setdefault(EARLIER_NORM, []).append(name)
        else:
            kept[name] = f"norm.{norm[2]}" if norm and int(norm[1]) == last else inner
    return kept
