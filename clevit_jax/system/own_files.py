"""What this program writes into folders, told from the images of users.

Runs, pictures and tables may lie in a folder of images, and must not become images or a class. A
user's image must never be taken for one of them, so nothing goes by its name alone, but in a folder
that is sure to be a run: pictures have a mark in their first bytes. An image is opened only where
its name, or a file beside it, makes it likely that it is ours.
"""

import json
import os
from collections.abc import Callable, Set

from PIL.PngImagePlugin import PngInfo

MARK = "Written by clevit_jax"  # the text "Software" of each PNG
RUN_FOLDERS = ("checkpoints", "tensorboard", "wandb")
PROFILE_FOLDER, OF_PROFILE = "profile", "plugins"  # the second is in the first, unlike in a class
_CONFIG = "config.json"
_BESIDE_CONFIG = {"run.json", "metrics.jsonl", "checkpoints", ".lock"}  # any of them makes a run
_PICTURE_OF_RUN = "views.png"
_OF_RUN = (".json", ".jsonl", ".npz", ".html", ".txt", ".lock", ".tmp")
# Of other modes and commands: each group is there as a whole.
_TOGETHER = (
    {"data_check.json", "data_check.txt"},
    {"seeds.json", "seeds.txt"},
    {"model.safetensors", "model.json"},
    {"dataset_info.json", "features.json"},
)
_EXPORTED = (".stablehlo", ".onnx")
_TABLES = (".csv", ".json", ".jsonl")
_FEATURES = (".npz", ".parquet")
_PEEK = 512  # bytes of a file that are looked at
_PARTS = 64 << 10  # where .npz and .parquet list their parts, bytes


def png_mark() -> PngInfo:
    """What `PIL.Image.Image.save` takes as `pnginfo`, so that the picture is known as ours."""
    info = PngInfo()
    info.add_text("Software", MARK)
    return info


def is_run(folder: str | os.PathLike[str], names: Set[str]) -> bool:
    """Whether a folder of these files and folders is a run, by its config and what is beside it."""
    if _CONFIG not in names or not names & _BESIDE_CONFIG:
        return False
    try:
        with open(os.path.join(folder, _CONFIG), encoding="utf-8") as file:
            settings = json.load(file)
    except (OSError, ValueError):
        return False
    return isinstance(settings, dict) and all(
        isinstance(settings.get(group), dict) for group in ("data", "model")
    )


def own_names(
    folder: str | os.PathLike[str], names: Set[str], is_image: Callable[[str], bool]
) -> set[str]:
    """Those of the files and folders in a folder that this program wrote.

    A folder may be among them, by its name, in which there are images of a user: that is not looked
    at.

    Args:
        folder: where they are.
        names: all that is there.
        is_image: whether a name is that of an image.
    """
    others = {name for name in names if not is_image(name)}
    if is_run(folder, names):
        own = {name for name in others if name.endswith(_OF_RUN)} | (names & {_PICTURE_OF_RUN})
        if os.path.isdir(os.path.join(folder, PROFILE_FOLDER, OF_PROFILE)):
            own |= {PROFILE_FOLDER} & names
        return own | (names & set(RUN_FOLDERS))
    own = {name for name in names & {_PICTURE_OF_RUN} if _marked(folder, name)}
    own |= {name for group in _TOGETHER if group <= names for name in group}
    own |= {name for name in others if name.endswith(_EXPORTED) and f"{name}.json" in names}
    own |= {f"{name}.json" for name in own if name.endswith(_EXPORTED)}
    for name in names - others:
        if not name.endswith(".png"):  # most, where there are many
            continue
        stem, ending = os.path.splitext(name)
        if ending != ".png":
            continue
        features = {stem + of for of in _FEATURES} & names
        if (is_image(stem) or features) and _marked(folder, name):
            own |= {name} | features | ({f"{stem}.json"} & names if features else set())
    if len(others) == len(names):  # what would say nothing beside images
        own |= names & {"log.txt", "report.html"}  # a run that has only begun has the first
        own |= {name for name in others if name.endswith(_TABLES) and _predicted(folder, name)}
        for name in others:  # features of few images have no picture beside them
            if name.endswith(_FEATURES) and _holds_features(folder, name):
                own |= {name, f"{os.path.splitext(name)[0]}.json"} & names
        own |= {name for name in names & {".lock"} if b'"pid"' in _peek(folder, name)}
    return own


def _peek(folder: str | os.PathLike[str], name: str, *, end: int = 0) -> bytes:
    """The beginning of a file, or its last `end` bytes; nothing where it cannot be read."""
    try:
        with open(os.path.join(folder, name), "rb") as file:
            if end:
                file.seek(max(0, os.fstat(file.fileno()).st_size - end))
            return file.read(end or _PEEK)
    except OSError:
        return b""


def _marked(folder: str | os.PathLike[str], name: str) -> bool:
    return f"Software\0{MARK}".encode() in _peek(folder, name)


def _holds_features(folder: str | os.PathLike[str], name: str) -> bool:
    """Whether a file is one of `--mode features`, by the list of its parts, which is at its end."""
    tail = _peek(folder, name, end=_PARTS)
    return all(part in tail for part in (b"features", b"logits", b"fingerprint"))


def _predicted(folder: str | os.PathLike[str], name: str) -> bool:
    """Whether a file is a table of `--mode predict`."""
    head = _peek(folder, name)
    return b"file" in head and b"class_1" in head and b"probability_1" in head
