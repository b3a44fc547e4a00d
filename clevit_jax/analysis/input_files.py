"""The image files that `--input` names."""

import glob
import os
import pathlib
from collections.abc import Iterator

from clevit_jax.data.layouts.listing import EXTENSIONS
from clevit_jax.errors import ConfigError


def find_images(text: str) -> Iterator[pathlib.Path]:
    """Paths of the images that a folder, a file or a pattern names, sorted folder by folder.

    A folder stands for all files in it with the ending of an image, at any depth, except hidden
    ones; a file that is named is taken whatever its ending.

    Args:
        text: path of a folder or a file, or a pattern with `*`, `?`, `[...]` or `**`.

    Raises:
        ConfigError: there is no image; raised by the call, not by the first `next`.
    """
    path = pathlib.Path(text)
    if path.is_dir():
        files: Iterator[pathlib.Path] = _below(path)
        problem = f"{text} holds no image (a file that ends in {', '.join(EXTENSIONS)})"
    elif path.exists():
        files, problem = iter([path]), ""
    else:
        matches = sorted(glob.glob(text, recursive=True))
        files = iter([pathlib.Path(name) for name in matches if not os.path.isdir(name)])
        problem = f"There is no file {text}"
    first = next(files, None)
    if first is None:
        raise ConfigError(f"--input: {problem}; name a folder, a file or a quoted pattern.")
    return _chain(first, files)


def _chain(first: pathlib.Path, rest: Iterator[pathlib.Path]) -> Iterator[pathlib.Path]:
    yield first
    yield from rest


def _below(folder: pathlib.Path) -> Iterator[pathlib.Path]:
    for parent, folders, files in os.walk(folder, followlinks=False):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            if not name.startswith(".") and name.lower().endswith(EXTENSIONS):
                yield pathlib.Path(parent, name)
