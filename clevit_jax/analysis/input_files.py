"""The image files that `--input` names."""

import glob
import os
import pathlib
from collections.abc import Iterator

from clevit_jax.data.layouts.listing import EXTENSIONS, is_image, say_own
from clevit_jax.errors import ConfigError
from clevit_jax.system.own_files import own_names


def find_images(text: str, *, say: bool = False) -> Iterator[pathlib.Path]:
    """Paths of the images that a folder, a file or a pattern names, sorted folder by folder.

    A folder stands for all files in it with the ending of an image, at any depth, except hidden
    ones and of pictures that this program wrote (`system.own_files`); a file that is named is taken
    whatever its ending, and whoever wrote it.

    Args:
        text: path of a folder or a file, or a pattern with `*`, `?`, `[...]` or `**`.
        say: whether to print, at the end, that pictures were left out.

    Raises:
        ConfigError: there is no image; raised by the call, not by the first `next`.
    """
    path = pathlib.Path(text)
    if path.is_dir():
        files: Iterator[pathlib.Path] = _below(path, say)
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


def _below(folder: pathlib.Path, say: bool) -> Iterator[pathlib.Path]:
    own = set[str]()
    for parent, folders, files in os.walk(folder, followlinks=False):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        ours = own_names(parent, {*folders, *files}, is_image)
        if any(map(is_image, ours)):
            own.add(os.path.relpath(parent, folder))
        for name in sorted(files):
            if not name.startswith(".") and is_image(name) and name not in ours:
                yield pathlib.Path(parent, name)
    if own and say:
        print(say_own(folder, own), flush=True)
