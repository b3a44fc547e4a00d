"""Wrapping of a network in a file: what stands before its names, and what lies beside it.

Trainers, detectors and self-supervised methods hold a Swin as one module among others. Here its
names are told from theirs; what its names mean is for `dialects`.
"""

import dataclasses
import re
from collections.abc import Callable, Iterable

from clevit_jax.errors import WeightsError
from clevit_jax.system.quoting import quoted

# DistributedDataParallel and torch.compile, in either order; Lightning modules by custom.
_OUTER = ("module.", "_orig_mod.", "module.", "model.", "net.", "backbone.")
# The trunk among other modules: OpenMMLab, DINO; SimMIM, MoBY (whose average is `encoder_k`).
_TRUNKS = ("backbone.", "encoder.")
_CLASSIFIER = re.compile(r"head\.(fc\.)?(weight|bias)")
# DINO and EsViT, which replace the classifier by these.
_PROJECTION = re.compile(r"head(_dense)?\.(mlp|last_layer)\.")
_STAGE = re.compile(r"(?:layers|stages)\.([0-9]{1,3})\.")
_STAGE_NORM = re.compile(r"norm([0-9]{1,3})\.(weight|bias)")
EARLIER_NORM = "norm of an earlier stage"


@dataclasses.dataclass(frozen=True)
class Unwrapped:
    """Names of a file, told apart.

    Attributes:
        bare: name in the file -> name inside the network.
        beside: what it belongs to (`of 'neck'`) -> names in the file that are not the classifier's.
    """

    bare: dict[str, str]
    beside: dict[str, list[str]]


def unwrap(names: Iterable[str], is_attention: Callable[[str], bool]) -> Unwrapped:
    """Takes off what a module that holds the Swin puts before its names.

    Args:
        names: of a file's tensors.
        is_attention: whether a bare name is that of an attention of a Swin; tells where it is.

    Returns:
        The names of the network, with the final norm as `norm` where it has the number of the last
        stage; and beside it those of other modules, and of the norms that a detector has after
        earlier stages. Where no network is found, all names are its own.

    Raises:
        WeightsError: two trunks stand side by side, so that it is not clear which one counts.
    """
    bare = {name: name for name in names}
    for prefix in _OUTER:
        if all(name.startswith(prefix) for name in bare.values()):
            bare = {name: inner.removeprefix(prefix) for name, inner in bare.items()}
    beside: dict[str, list[str]] = {}
    trunk = _trunk(bare.values(), is_attention)
    kept = {}
    for name, inner in bare.items():
        if trunk and inner.startswith(trunk):
            kept[name] = inner.removeprefix(trunk)
        elif _PROJECTION.match(inner) or (trunk and not _CLASSIFIER.fullmatch(inner)):
            beside.setdefault(f"of {quoted([_module(inner)])}", []).append(name)
        else:
            kept[name] = inner
    return Unwrapped(_with_final_norm(kept, beside), beside)


def _module(name: str) -> str:
    # The averages of mmcv 1 are named `ema_backbone_norm3_bias`.
    return "ema_*" if re.fullmatch(r"ema_\w+", name) else name.split(".")[0]


def _trunk(names: Iterable[str], is_attention: Callable[[str], bool]) -> str:
    """The prefix of the one trunk among other modules; "" where the names are not in a module.

    Raises:
        WeightsError: there are two.
    """
    names = list(names)
    if any(map(is_attention, names)):
        return ""
    holding = [
        prefix
        for prefix in _TRUNKS
        if any(n.startswith(prefix) and is_attention(n.removeprefix(prefix)) for n in names)
    ]
    if len(holding) > 1:
        counts = (f"{sum(n.startswith(p) for n in names)} names under {p!r}" for p in holding)
        raise WeightsError(
            f"The file holds {len(holding)} networks, and it is not clear which of them counts: "
            f"{' and '.join(counts)}. Save the tensors of one alone."
        )
    return holding[0] if holding else ""


def _with_final_norm(bare: dict[str, str], beside: dict[str, list[str]]) -> dict[str, str]:
    """Names with the last stage's norm as `norm`; those of earlier stages go to `beside`."""
    last = max((int(m[1]) for m in map(_STAGE.match, bare.values()) if m), default=-1)
    kept = {}
    for name, inner in bare.items():
        norm = _STAGE_NORM.fullmatch(inner)
        if norm and int(norm[1]) < last:
            beside.setdefault(EARLIER_NORM, []).append(name)
        else:
            kept[name] = f"norm.{norm[2]}" if norm and int(norm[1]) == last else inner
    return kept
