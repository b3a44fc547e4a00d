"""Heads of a network in a file: the one linear layer that this library has, and all others.

What people put on a Swin in the place of its head is read where it is one linear layer, under
whatever number of an `nn.Sequential`. A small network, several heads or what a margin loss needs
are not: they are named, and the network is read without a head.
"""

import dataclasses
import re
from collections.abc import Mapping

from clevit_jax.system.quoting import first_of, quoted

_PARAMETER = re.compile(
    r"(?P<layer>head|classifier)(?P<at>(\.fc)?(\.\d{1,3})?)\.(?P<leaf>weight|bias)"
)
_MODULES = re.compile(r"\w*head\w*|classifiers?\w*|fc\d*|arc|\w*(arc_?face|cos_?face|margin)\w*")
_LISTED = 6  # names that a report lists
NEW_HEAD = "training begins with a new one"


@dataclasses.dataclass(frozen=True)
class Head:
    """The head of a file.

    Attributes:
        names: name in the file -> `weight` or `bias` of the one linear layer; empty without one.
        others: names in the file that belong to a head of another kind.
        said: what a load report says of it; "" of a plain one.
    """

    names: dict[str, str]
    others: list[str]
    said: str


def find_head(
    bare: Mapping[str, str], ranks: Mapping[str, int], beside: Mapping[str, list[str]]
) -> Head:
    """The head among the names of a network.

    Args:
        bare: name in the file -> name inside the network; see `wrapping.unwrap`.
        ranks: name in the file -> number of axes of its tensor.
        beside: what lies beside the network.
    """
    group = [name for name, inner in bare.items() if inner.split(".")[0] in ("head", "classifier")]
    parsed = {name: _PARAMETER.fullmatch(bare[name]) for name in group}
    layers = {match["layer"] + match["at"] if match else None for match in parsed.values()}
    numbered = any(match and re.search(r"\d$", match["at"]) for match in parsed.values())
    matrices = [n for n, m in parsed.items() if m and m["leaf"] == "weight" and ranks[n] == 2]
    near = [kind[3:] for kind in beside if _MODULES.fullmatch(kind[4:-1])]
    listed = ", ".join(first_of(near, _LISTED))
    if not group:
        found = f"warning: none, but beside the network lies {listed}" if near else "none"
        return Head({}, [], f"{found}; {NEW_HEAD}")
    if layers == {"head", "head.fc"}:  # two dialects', for the caller to refuse
        return Head({}, [], "")
    if len(layers) > 1 or None in layers or (numbered and not matrices):
        names = quoted(group, _LISTED)
        said = f"warning: none is read, for only one linear layer would be, not {names}; {NEW_HEAD}"
        return Head({}, group, said)
    leaves = {name: match["leaf"] for name, match in parsed.items() if match}
    notes = []
    if numbered:
        notes.append(f"the one linear layer of {quoted([str(next(iter(layers)))])}")
    if "bias" not in leaves.values():
        notes.append("without a bias, which is set to zero")
    if near:
        notes.append(f"warning: beside it lies {listed}, which is not read")
    return Head(leaves, [], "; ".join(notes))
