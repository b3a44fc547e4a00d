"""Converted checkpoints: a folder of `model.safetensors`, with our names, and `model.json`."""

import contextlib
import dataclasses
import json
import os
import pathlib
import shutil
import tempfile
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from clevit_jax.errors import WeightsError
from clevit_jax.model.config import SwinConfig
from clevit_jax.model.preprocessing import Preprocessing
from clevit_jax.model.swin import abstract_swin
from clevit_jax.system.faults import mend, os_reason
from clevit_jax.system.files import sync
from clevit_jax.weights import files
from clevit_jax.weights.convert import HEAD, Weights, named_leaves, parameter_name
from clevit_jax.weights.heads import NEW_HEAD
from clevit_jax.weights.load_report import LoadReport

TENSORS, FACTS = "model.safetensors", "model.json"
FORMAT = "clevit_jax weights 1"


def write_converted(
    weights: Weights, folder: str | pathlib.Path, *, overwrite: bool = False
) -> None:
    """Writes a converted checkpoint, whole or not at all.

    Args:
        weights: what to write.
        folder: made with its parents; `model.safetensors` and `model.json` are written in it.
        overwrite: replaces a converted checkpoint that is there; nothing else is ever replaced.

    Raises:
        WeightsError: the folder is there, or cannot be written.
    """
    with replacing_folder(pathlib.Path(folder), overwrite=overwrite, holds=(TENSORS, FACTS)) as new:
        tensors = {
            name: np.asarray(leaf)
            for name, leaf in named_leaves(weights.params).items()
            if not (weights.headless and name in HEAD)
        }
        files.write_safetensors(new / TENSORS, tensors, {"format": FORMAT})
        facts = {
            "format": FORMAT,
            "architecture": weights.model.to_json(),
            "class_count": 0 if weights.headless else weights.model.num_classes,
            "headless": weights.headless,
            "class_names": weights.class_names,
            "levels": dict(weights.levels),
            "dialect": weights.dialect,
            "decoding": {"bits": weights.bits, "truncated": weights.truncated},
            "preprocessing": weights.preprocessing and weights.preprocessing.to_json(),
            "source": weights.source,
            "source_sha256": weights.source_sha256,
            "sha256": files.sha256(new / TENSORS),
        }
        (new / FACTS).write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")


@contextlib.contextmanager
def replacing_folder(
    folder: pathlib.Path, *, overwrite: bool, holds: tuple[str, ...]
) -> Iterator[pathlib.Path]:
    """A new folder beside `folder`, which takes its place at the end, or goes on failure.

    Raises:
        WeightsError: see `check_converted_target`; or it cannot be written.
    """
    folder = pathlib.Path(os.path.realpath(folder))  # through links, so that they stay
    check_converted_target(folder, overwrite=overwrite, holds=holds)
    new = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        new = pathlib.Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
        new.chmod(0o777 & ~_umask())  # mkdtemp's folders are private
        yield new
        for path in (*new.iterdir(), new):
            sync(path)
        _take_place(new, folder)
        sync(folder.parent)
    except OSError as error:
        reason = f"{os_reason(error)}{mend(error)}"
        raise WeightsError(f"{folder} cannot be written: {reason}.") from error
    except WeightsError as error:  # of a file in the new folder, which the user never saw
        raise WeightsError(str(error).replace(str(new), str(folder))) from error
    finally:
        if new is not None:
            shutil.rmtree(new, ignore_errors=True)


def _take_place(new: pathlib.Path, folder: pathlib.Path) -> None:
    """Renames `new` to `folder`; what is there goes when that is done, and comes back if not."""
    if not folder.exists() or not any(folder.iterdir()):
        new.rename(folder)
        return
    old = new.with_name(new.name + "-old")
    folder.rename(old)
    try:
        new.rename(folder)
    except BaseException:
        old.rename(folder)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def check_converted_target(
    folder: pathlib.Path, *, overwrite: bool, holds: tuple[str, ...] = (TENSORS, FACTS)
) -> None:
    """Raises WeightsError unless a folder of such files may be written there."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    if not folder.is_dir():
        raise WeightsError(f"{folder} is a file; name a folder, which need not be there.")
    if {path.name for path in folder.iterdir()} - set(holds):
        raise WeightsError(
            f"{folder} is there and holds more than {' and '.join(holds)}; name another target."
        )
    if not overwrite:
        raise WeightsError(f"{folder} is there; name another target, or replace it: --overwrite.")


def is_converted(path: pathlib.Path) -> bool:
    """Whether a path looks like a converted checkpoint."""
    return (path / FACTS).is_file()


def read_converted(folder: str | pathlib.Path) -> Weights:
    """Reads what `write_converted` wrote, and checks that every byte and name is as it was.

    Raises:
        WeightsError: a file is missing or damaged, or the names are not those of the architecture.
    """
    folder = pathlib.Path(folder)
    facts = _read_facts(folder / FACTS)
    file = files.read_weight_file(folder / TENSORS)
    if file.sha256 != facts["sha256"]:
        raise WeightsError(
            f"{folder / TENSORS} is damaged, or does not belong to {FACTS}: its sha256 is another; "
            "convert the original once more."
        )
    try:
        model = SwinConfig.from_json(facts["architecture"])
    except WeightsError as error:
        raise WeightsError(f"{folder / FACTS} is damaged: {error}") from error
    # A network of more blocks than the file has tensors is not even built.
    wanted = abstract_swin(model)[1] if sum(model.depths) <= len(file.tensors) else {}
    headless = facts.get("headless", False)  # which older ones do not say
    shapes = {
        name: leaf.shape
        for name, leaf in named_leaves(wanted).items()
        if not (headless and name in HEAD)
    }
    if {name: value.shape for name, value in file.tensors.items()} != shapes or not shapes:
        raise WeightsError(
            f"{folder / TENSORS} holds another network than {FACTS} says; "
            "convert the original once more."
        )
    params = jax.tree.map_with_path(
        lambda path, leaf: (
            file.tensors[parameter_name(path)]
            if parameter_name(path) in shapes
            else np.zeros(leaf.shape, np.float32)
        ),
        wanted,
    )
    report = LoadReport(matched=tuple(shapes))
    if headless:
        report = dataclasses.replace(report, reinitialised=HEAD, head=f"none; {NEW_HEAD}")
    return Weights(
        model,
        params,
        facts["dialect"],
        facts["source"],
        facts["source_sha256"],
        class_names=tuple(facts["class_names"]),
        levels=tuple((name, tuple(groups)) for name, groups in facts.get("levels", {}).items()),
        report=report,
        headless=headless,
        preprocessing=_preprocessing(facts, folder / FACTS),
        **facts.get("decoding", {}),  # older ones have none
    )


def read_converted_preprocessing(folder: pathlib.Path) -> Preprocessing | None:
    """What a converted checkpoint says of images, without its tensors.

    Raises:
        WeightsError: its model.json is missing or damaged.
    """
    return _preprocessing(_read_facts(folder / FACTS), folder / FACTS)


def _preprocessing(facts: dict[str, Any], path: pathlib.Path) -> Preprocessing | None:
    """What a `model.json` says of images; None where it says nothing, as older ones."""
    if facts.get("preprocessing") is None:
        return None
    try:
        return Preprocessing.from_json(facts["preprocessing"])
    except ValueError as error:
        raise WeightsError(f"{path} is damaged: {error}") from error


def _read_facts(path: pathlib.Path) -> dict[str, Any]:
    """The content of a `model.json`; raises WeightsError where it is not one."""
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise WeightsError(f"{path} cannot be read: {error.strerror or error}.") from error
    except (ValueError, RecursionError) as error:
        raise WeightsError(f"{path} is damaged: it is not JSON ({error}).") from error
    if not isinstance(facts, dict) or facts.get("format") != FORMAT:
        raise WeightsError(f"{path} is not a model.json of the format {FORMAT!r}.")
    texts = [facts.get(name) for name in ("sha256", "dialect", "source", "source_sha256")]
    names = facts.get("class_names")
    if (
        not all(isinstance(text, str) for text in texts)
        or not isinstance(names, list)
        or not all(isinstance(name, str) for name in names)
        or not _are_levels(facts.get("levels", {}), len(names))
        or "architecture" not in facts
        or not isinstance(facts.get("headless", False), bool)
        or (facts.get("headless") and names)
        or not _is_decoding(facts.get("decoding", {}))
    ):
        raise WeightsError(
            f"{path} is damaged: an entry is missing or of a wrong type; "
            "convert the original once more."
        )
    return facts


def _are_levels(value: Any, classes: int) -> bool:
    """Whether these are the `levels` of a `model.json`, which older ones lack."""
    return isinstance(value, dict) and all(
        isinstance(groups, list)
        and len(groups) == classes
        and all(isinstance(group, str) for group in groups)
        for groups in value.values()
    )


def _is_decoding(value: Any) -> bool:
    """Whether it is what `write_converted` writes of the decoding, or nothing."""
    if not isinstance(value, dict) or not value.keys() <= {"bits", "truncated"}:
        return False
    bits, truncated = value.get("bits", 0), value.get("truncated", False)
    return type(bits) is int and bits in (0, *range(8, 17)) and isinstance(truncated, bool)
