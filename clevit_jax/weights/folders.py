"""Folders of weights, as the Hugging Face hub, transformers' Trainer and peft leave them."""

import pathlib
import re
from collections.abc import Iterable

from clevit_jax.errors import WeightsError
from clevit_jax.system.quoting import quoted
from clevit_jax.weights.looks import POINTER
from clevit_jax.weights.shards import INDEX

_WHOLE = ("model.safetensors", "pytorch_model.bin")
HUB_FILES = tuple(name for whole in _WHOLE for name in (whole, whole + INDEX))
_ADAPTER = ("adapter_config.json", "adapter_model.safetensors", "adapter_model.bin")
_MERGE_FIRST = (
    "merge it into its network first, by peft's model.merge_and_unload(), and save that by "
    "save_pretrained(FOLDER)"
)
# What transformers' Trainer keeps beside the weights.
_TRAINERS = (
    *("optimizer.pt", "optimizer.bin", "scheduler.pt", "scaler.pt", "training_args.bin"),
    "rng_state.pth",
)


def weights_in(folder: pathlib.Path) -> tuple[pathlib.Path | None, tuple[str, ...]]:
    """The file of weights in a folder, or the index of its shards.

    Args:
        folder: of a model; what is not named as one of `HUB_FILES` is not looked at.

    Returns:
        The path, None where there is none; and what is passed over for it, in words: files that
        git-lfs has not fetched.

    Raises:
        WeightsError: shards are there without their index, or an adapter without its network.
    """
    there = [folder / name for name in HUB_FILES if (folder / name).is_file()]
    fetched = [path for path in there if not _is_pointer(path)]
    if fetched:
        before = there[: there.index(fetched[0])]
        said = tuple(
            f"{path.name}: a git-lfs pointer, read was {fetched[0].name}" for path in before
        )
        return fetched[0], said
    if there:
        return there[0], ()
    if any((folder / name).is_file() for name in _ADAPTER):
        raise WeightsError(
            f"{folder} holds an adapter of peft (LoRA), which changes a network that is not in it: "
            f"{_MERGE_FIRST}."
        )
    shards = sorted(
        path.name
        for name in _WHOLE
        for path in folder.glob(f"{name.rpartition('.')[0]}-*-of-*.{name.rpartition('.')[2]}")
    )
    if shards:
        raise WeightsError(
            f"{folder} holds shards ({quoted(shards, 3)}) without their index, which says what "
            f"lies in them: bring {_WHOLE[0] + INDEX} or {_WHOLE[1] + INDEX}, too."
        )
    return None, ()


def _is_pointer(path: pathlib.Path) -> bool:
    try:
        with open(path, "rb") as file:
            return file.read(len(POINTER)) == POINTER
    except OSError:  # whoever reads it says so
        return False


def check_holds_weights(path: pathlib.Path) -> None:
    """Raises WeightsError where a file's name is that of what Trainer keeps beside the weights."""
    if path.name in _TRAINERS and path.is_file():
        raise WeightsError(
            f"{path} is what transformers' Trainer keeps beside the weights, and holds none: name "
            f"the folder, or {_WHOLE[0]} in it."
        )


def refuse_adapter(names: Iterable[str]) -> None:
    """Raises WeightsError where tensors have the names of an adapter, in a file of any kind."""
    if found := [name for name in names if re.search(r"\.lora_(A|B|embedding_A)\b", name)]:
        raise WeightsError(
            f"It holds an adapter (LoRA; {len(found)} tensors such as {quoted(found[:1])}), which "
            f"changes a network: {_MERGE_FIRST}."
        )
