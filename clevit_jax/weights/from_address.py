"""Weights by an address: a file or a folder in a bucket, or a file on the web, copied once.

Of a folder come only the files of its model; of a file, what is read beside it, too.
"""

import functools
import os
import pathlib

from clevit_jax.errors import ConfigError
from clevit_jax.system import addresses
from clevit_jax.system.fetch import Copy, fetched
from clevit_jax.system.places import expand
from clevit_jax.system.quoting import quoted
from clevit_jax.system.remote import Listing
from clevit_jax.weights.converted import FACTS, TENSORS
from clevit_jax.weights.folders import HUB_FILES
from clevit_jax.weights.from_hub import SUFFIXES, with_beside

_WHAT = "The address of the weights"


def fetch(address: str | os.PathLike[str], copy_to: str = "") -> Copy:
    """Copies weights; see `system.fetch.fetched`.

    Args:
        address: of a file of weights, an index of shards, a folder with one of these, or a
            converted checkpoint.
        copy_to: folder of the copies.

    Returns:
        The file or the folder, as `runs.load.read_weights` takes it.

    Raises:
        ConfigError: as `system.fetch.fetched`; or nothing there is named as weights are.
    """
    text = expand(os.fspath(address), _WHAT, fetched=True)
    if addresses.scheme(text) in addresses.WEB:
        return fetched(text, copy_to, _WHAT)
    folder, name = addresses.parent(text)
    if pathlib.PurePosixPath(name).suffix in SUFFIXES:
        choose = functools.partial(_of_file, name=name, shown=addresses.shown(text))
        copy = fetched(folder, copy_to, _WHAT, named=text, shallow=True, choose=choose)
        return Copy(copy.address, copy.path / name, copy.state)
    choose = functools.partial(_of_folder, shown=addresses.shown(text))
    return fetched(text, copy_to, _WHAT, shallow=True, choose=choose)


def _of_file(listing: Listing, *, name: str, shown: str) -> Listing:
    names = tuple(file.name for file in listing.files)
    if name not in names:
        raise ConfigError(
            f"There is no file {shown}; beside it there are {quoted(names, 5) or 'none'}."
        )
    return listing.only(with_beside(name, names, read=name).files)


def _of_folder(listing: Listing, *, shown: str) -> Listing:
    names = tuple(file.name for file in listing.files)
    if {TENSORS, FACTS} <= set(names):
        return listing.only((TENSORS, FACTS))
    found = next((name for name in HUB_FILES if name in names), None)
    if listing.is_file or found is None:
        raise ConfigError(
            f"{shown} is neither a run (config.json and checkpoints/) nor a converted checkpoint "
            f"({FACTS}), and holds no {' or '.join(HUB_FILES)}; name the file of weights. It holds "
            f"{quoted(names, 5)}."
        )
    return listing.only(with_beside(found, names, read="").files)
