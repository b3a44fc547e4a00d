"""Images by an address: a folder in a bucket, copied to this host before its layout is told."""

import os
import re
from collections.abc import Sequence

from clevit_jax.data.layouts.listing import Request
from clevit_jax.errors import ConfigError, Repeated
from clevit_jax.system import addresses
from clevit_jax.system.fetch import Copy, fetched
from clevit_jax.system.places import expand


def copied(root: str | os.PathLike[str], request: Request, copy_to: str = "") -> Copy | None:
    """The copy of a data set in a bucket, made where it is not there; None where `root` is none.

    Args:
        root: what `data.root` names.
        request: of which a TFDS data set is one of several folders of `root`.
        copy_to: folder of the copies; see `system.fetch`.

    Raises:
        ConfigError: as `system.fetch.fetched`; or a file is named, and no folder.
    """
    text = os.fspath(root)
    if not addresses.is_fetched(text):
        return None
    address = expand(text, "data.root", fetched=True)
    if request.tfds and (name := re.match(r"\w+", request.tfds)):
        address = f"{address.rstrip('/')}/{name[0]}"
    copy = fetched(address, copy_to, "data.root")
    if copy.path.is_file():
        raise ConfigError(
            f"data.root is {copy.address}, a file, and a folder of images is wanted; it was copied "
            f"to {copy.path}: unpack it, and name the folder: --config.data.root=DIR."
        )
    return copy


def by_address(copy: Copy | None, sentences: Sequence[str]) -> list[str]:
    """Sentences on a data set, in which the address stands for the path of its copy."""
    return [_said(copy, sentence) for sentence in sentences] if copy else list(sentences)


def _said(copy: Copy, sentence: str) -> str:
    if not isinstance(sentence, Repeated):
        return copy.said(sentence)
    rule, item = copy.said(sentence.rule), copy.said(sentence.item)
    return Repeated(copy.said(sentence), rule=rule, item=item)
