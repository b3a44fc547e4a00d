"""Which files `--input` names."""

import glob
import os
import pathlib
from collections.abc import Iterator

from clevit_jax.data.layouts.listing import EXTENSIONS
from clevit_jax.errors import ConfigError


def find_images(text: str) -> Iterator[pathlib.Path]:
    """The images that a folder, a file or a pattern names, sorted folder by folder.

    Of folders all files with the ending of an image are taken, at any depth, except hidden ones;
    a file that is named is taken whatever its ending.

    Args:
        text: path of a folder or a file, or a pattern with `*`, `?`, `[...]` or `**`.

    Raises:
        ConfigError: there is none; at the call, not at the first file.
    """
    path = pathlib.Path(text)
    if path.is_dir():
        files: Iterator[pathlib.Path] = _below(path)
        what = f"{text} holds no image (a file that ends in {', '.join(EXTENSIONS)})"
    elif path.exists():
        files, what = iter([path]), ""
    else:
        found = sorted(glob.glob(text, recursive=True))
        named = [pathlib.Path(name) for name in found if not os.path.isdir(name)]
        files, what = iter(named), f"There is no file {text}"
    first = next(files, None)
    if first is None:
        raise ConfigError(f"--input: {what}; name a folder, a file or a quoted pattern.")
    return _chain(first, files)


def _chain(first: pathlib.Path, rest: Iterator[pathlib.Path]) -> Iterator[pathlib.Path]:
    yield first
    yield from rest


def _below(folder: pathlib.Path) -> Iterator[pathlib.Path]:
    for place, folders, files in os.walk(folder, followlinks=False):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            if not name.startswith(".") and name.lower().endswith(EXTENSIONS):
                yield pathlib.Path(place, name)
