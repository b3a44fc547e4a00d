"""Weights by a name: a repository of the Hugging Face hub, or an official file by its own name."""

import glob
import os
import pathlib
import re

from clevit_jax.errors import ConfigError
from clevit_jax.system import hub
from clevit_jax.weights.folders import HUB_FILES
from clevit_jax.weights.shards import INDEX

_REPO = re.compile(r"(?:timm|microsoft)/[A-Za-z0-9][A-Za-z0-9._-]*(?:@[^@]+)?")
SUFFIXES = (".pth", ".pt", ".bin", ".safetensors", ".ckpt", ".npz", ".json", ".tar")
# What is read beside weights, where it is there; a converted checkpoint has the last.
_BESIDE = ("config.json", "preprocessor_config.json", "model.json")
# The official files of github.com/SwinTransformer/storage/releases, and the repositories of timm
# that hold the same weights: timm's own table (timm/models/swin_transformer.py) has both side by
# side. The hub says size and licence, and its library checks and resumes.
RELEASED = {
    "swin_tiny_patch4_window7_224.pth": "swin_tiny_patch4_window7_224.ms_in1k",
    "swin_tiny_patch4_window7_224_22k.pth": "swin_tiny_patch4_window7_224.ms_in22k",
    "swin_tiny_patch4_window7_224_22kto1k_finetune.pth": (
        "swin_tiny_patch4_window7_224.ms_in22k_ft_in1k"
    ),
    "swin_small_patch4_window7_224.pth": "swin_small_patch4_window7_224.ms_in1k",
    "swin_small_patch4_window7_224_22k.pth": "swin_small_patch4_window7_224.ms_in22k",
    "swin_small_patch4_window7_224_22kto1k_finetune.pth": (
        "swin_small_patch4_window7_224.ms_in22k_ft_in1k"
    ),
    "swin_base_patch4_window7_224.pth": "swin_base_patch4_window7_224.ms_in1k",
    "swin_base_patch4_window7_224_22k.pth": "swin_base_patch4_window7_224.ms_in22k",
    "swin_base_patch4_window7_224_22kto1k.pth": "swin_base_patch4_window7_224.ms_in22k_ft_in1k",
    "swin_base_patch4_window12_384.pth": "swin_base_patch4_window12_384.ms_in1k",
    "swin_base_patch4_window12_384_22k.pth": "swin_base_patch4_window12_384.ms_in22k",
    "swin_base_patch4_window12_384_22kto1k.pth": "swin_base_patch4_window12_384.ms_in22k_ft_in1k",
    "swin_large_patch4_window7_224_22k.pth": "swin_large_patch4_window7_224.ms_in22k",
    "swin_large_patch4_window7_224_22kto1k.pth": "swin_large_patch4_window7_224.ms_in22k_ft_in1k",
    "swin_large_patch4_window12_384_22k.pth": "swin_large_patch4_window12_384.ms_in22k",
    "swin_large_patch4_window12_384_22kto1k.pth": (
        "swin_large_patch4_window12_384.ms_in22k_ft_in1k"
    ),
}


def named(path: str | os.PathLike[str]) -> hub.Name | None:
    """What weights on the hub a path names; None where it is a path, or one that is there.

    `hf://OWNER/REPO[@REVISION][/FILE]`; `timm/REPO` and `microsoft/REPO`, as their pages are
    called; the name of an official file, as one of `RELEASED`.

    Raises:
        ConfigError: it begins with `hf://` and names no weights.
    """
    text = os.fspath(path)
    if hub.is_name(text):
        name = hub.parse(text, "The name of the weights")
        if name.kind == "dataset":
            raise ConfigError(
                f"{text} is a data set, and weights are wanted; --config.data.root={text} takes "
                "its images."
            )
        return name
    base, _, revision = text.partition("@")
    if os.path.lexists(text) or os.path.lexists(base):  # RUN@best is a run's
        return None
    if text in RELEASED:
        return hub.Name("model", f"timm/{RELEASED[text]}")
    if _REPO.fullmatch(text) and not base.endswith(SUFFIXES):
        return hub.Name("model", base, revision)
    return None


def fetch(path: str | os.PathLike[str]) -> hub.Fetched:
    """Fetches the weights that `named` finds in a path; see `system.hub.fetch`.

    Returns:
        The file or the folder, as `runs.load.read_weights` takes it.

    Raises:
        ConfigError: as `system.hub.fetch`; or the repository holds no weights, or several files.
    """
    name = named(path)
    if name is None:
        raise ConfigError(f"{os.fspath(path)} names nothing on the hub.")
    if os.fspath(path) in RELEASED:
        print(f"{path} is not here; {name} holds the same weights, and is taken.", flush=True)
    return hub.fetch(name, _WEIGHTS)


def _choose(name: hub.Name, files: tuple[str, ...]) -> hub.Choice:
    """The weights of a repository, in the order in which a folder is read, and what is beside."""
    if name.path in files:
        return with_beside(name.path, files, read=name.path)
    folder = f"{name.path}/" if name.path else ""
    for kept in HUB_FILES:
        if folder + kept in files:
            return with_beside(folder + kept, files, read=name.path)
    inside = [file for file in files if file.startswith(folder)]
    if name.path and not inside:
        raise ConfigError(f"{name}: {name.repo} has no such file; it holds {_shown(files)}.")
    others = [f for f in inside if f.endswith((".pth", ".pt", ".safetensors", ".bin", ".ckpt"))]
    if len(others) == 1:
        print(f"{name}: the one file of weights is {others[0]}.", flush=True)
        return with_beside(others[0], files, read=others[0])
    if not others:
        raise ConfigError(f"{name} holds no weights; it holds {_shown(tuple(inside))}.")
    raise ConfigError(
        f"{name} holds {len(others)} files of weights ({hub.named_files(tuple(others))}), and none "
        f"is called {' or '.join(HUB_FILES[::2])}; name one, as "
        f"{hub.Name('model', name.repo, name.revision, others[0])}."
    )


def _shown(files: tuple[str, ...]) -> str:
    return hub.named_files(tuple(file for file in files if not file.startswith(".")))


def with_beside(file: str, files: tuple[str, ...], *, read: str) -> hub.Choice:
    """A file of weights or an index of shards, the shards, and the JSON that lies beside them."""
    path = pathlib.PurePosixPath(file)
    folder = "" if path.parent == pathlib.PurePosixPath() else f"{path.parent}/"
    taken = [file]
    if path.name.endswith(INDEX):
        stem, dot, ending = path.name.removesuffix(INDEX).rpartition(".")
        shard = re.compile(
            rf"{re.escape(folder + stem)}-\d{{5}}-of-\d{{5}}{re.escape(dot + ending)}"
        )
        taken += [other for other in files if shard.fullmatch(other)]
    taken += [folder + beside for beside in _BESIDE if folder + beside in files]
    return hub.Choice(tuple(taken), tuple(map(glob.escape, taken)), read)


_WEIGHTS = hub.Use(_choose, "--config.model.pretrained", "model.safetensors config.json")
