"""Images by a name: a data set of the Hugging Face hub, as Parquet or as it lies there."""

import glob
import pathlib

from clevit_jax.data.formats import EXTENSIONS
from clevit_jax.errors import ConfigError
from clevit_jax.system import hub

_PARQUET = ".parquet"
_ENDINGS = (*EXTENSIONS, _PARQUET, ".arrow", ".tar")
_COPY = "refs/convert/parquet"  # which the hub makes by itself of most data sets


def named(root: str) -> hub.Name | None:
    """The data set on the hub that `hf://datasets/OWNER/REPO[@REVISION][/FOLDER]` names.

    Raises:
        ConfigError: it begins with `hf://` and names no data set.
    """
    if not hub.is_name(root):
        return None
    name = hub.parse(root, "data.root")
    if name.kind == "model":
        raise ConfigError(
            f"data.root is {root}, which names weights; images are "
            f"hf://datasets/{root.removeprefix(hub.PREFIX)}."
        )
    return name


def fetch(name: hub.Name) -> hub.Fetched:
    """Fetches the images of a data set; see `system.hub.fetch`.

    Returns:
        The folder of the images.

    Raises:
        ConfigError: as `system.hub.fetch`; or it holds nothing that is read.
    """
    return hub.fetch(name, _IMAGES)


def _choose(name: hub.Name, files: tuple[str, ...]) -> hub.Choice:
    """Its Parquet where it has some, else all that it, or the folder of it, holds."""
    folder = f"{name.path}/" if name.path else ""
    inside = [file for file in files if file.startswith(folder)]
    if not inside:
        raise ConfigError(f"{name}: {name.repo} has no such folder; it holds {_shown(files)}.")
    parquet = [f for f in inside if f.endswith(_PARQUET) and not f.endswith("metadata.parquet")]
    if parquet:
        return hub.Choice(tuple(parquet), (f"{glob.escape(folder)}*{_PARQUET}",), name.path)
    if not any(pathlib.PurePosixPath(file).suffix.lower() in _ENDINGS for file in inside):
        copy = hub.Name("dataset", name.repo, _COPY)
        mend = (
            "bring and unpack it by hand"
            if name.revision == _COPY
            else f"the hub may keep a copy that is: --config.data.root={copy}"
        )
        raise ConfigError(
            f"{name} holds no images that are read as they lie there, but {_shown(tuple(inside))}; "
            f"{mend}."
        )
    return hub.Choice(tuple(inside), (f"{glob.escape(folder)}*",), name.path)


def _shown(files: tuple[str, ...]) -> str:
    return hub.named_files(tuple(file for file in files if not file.startswith(".")))


_IMAGES = hub.Use(_choose, "--config.data.root")
