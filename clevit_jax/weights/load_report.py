"""Load report: what became of every entry of a weight file."""

import dataclasses
from collections.abc import Mapping

from clevit_jax.system.quoting import first_of, quoted

OTHER_ENTRIES = "beside the model:"  # a kind of ignored entry
_KINDS = 20  # modules beside the network that a report names


@dataclasses.dataclass(frozen=True)
class LoadReport:
    """Load report: what became of every entry of a weight file.

    Attributes:
        matched: our names of the parameters that the file gave.
        transposed: those of them whose axes were transposed.
        resized: bias tables brought to another window, `name: window 7 -> 12`.
        mapped: entries of the head taken from other classes by a class map.
        adapted: the patch embedding brought to three channels, `name: 1 -> 3 channels (sum)`.
        filled: biases of query, key and value that the network does not have, and that are 0.
        reinitialised: parameters that are initialised anew.
        ignored: kind -> names in the file that hold no parameter of the network.
        passed_over: other files of the folder that would have been read before, and why not.
        beside: JSON of the folder that was read, and what to know of it, in words.
        head: what was made of a head that is no plain linear layer; "" of one that is.
    """

    matched: tuple[str, ...] = ()
    transposed: tuple[str, ...] = ()
    resized: tuple[str, ...] = ()
    mapped: tuple[str, ...] = ()
    adapted: tuple[str, ...] = ()
    filled: tuple[str, ...] = ()
    reinitialised: tuple[str, ...] = ()
    ignored: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    passed_over: tuple[str, ...] = ()
    head: str = ""
    beside: tuple[str, ...] = ()

    def __str__(self) -> str:
        ignored = [
            f"{len(names)} {kind}" for kind, names in self.ignored.items() if kind != OTHER_ENTRIES
        ]
        ignored = first_of(ignored, _KINDS)
        if OTHER_ENTRIES in self.ignored:
            ignored.append(f"{OTHER_ENTRIES} {quoted(self.ignored[OTHER_ENTRIES])}")
        rows = [
            ("matched", f"{len(self.matched)} parameters"),
            ("transposed", f"{len(self.transposed)} of them"),
            ("resized", _listed(self.resized)),
            *([("mapped", _listed(self.mapped))] if self.mapped else []),
            *([("adapted", ", ".join(self.adapted))] if self.adapted else []),
            *([("filled", f"{len(self.filled)} attn.qkv.bias with 0")] if self.filled else []),
            ("re-initialised", _listed(self.reinitialised)),
            ("ignored", ", ".join(ignored) or "0"),
            *([("passed over", ", ".join(self.passed_over))] if self.passed_over else []),
            *([("head", self.head)] if self.head else []),
            *([("read beside it", "; ".join(self.beside))] if self.beside else []),
        ]
        return "\n".join(f"  {name:<15} {text}" for name, text in rows)


def _listed(names: tuple[str, ...]) -> str:
    first = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
    return f"{len(names)}: {first}" if names else "0"
