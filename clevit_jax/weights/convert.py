"""Conversion of Swin weights: from files of other libraries to our parameters, and back.

Ours are a nested dict with the official path and Flax's leaf names. Arrays are transposed where
the frameworks differ: linear [out, in] -> [in, out], convolution OIHW -> HWIO. `dialects` knows
the names of other libraries, `files` their containers, `converted` our own folder.
"""

import dataclasses
import pathlib
import re
from collections.abc import Collection, Mapping
from typing import Any

import jax
import numpy as np

from clevit_jax.errors import WeightsError
from clevit_jax.model.attention import relative_position_index, shift_mask
from clevit_jax.model.config import SwinConfig
from clevit_jax.model.preprocessing import Preprocessing
from clevit_jax.model.swin import abstract_swin
from clevit_jax.system.quoting import first_of, printable, quoted
from clevit_jax.weights import dialects, folders, variants, wrapping
from clevit_jax.weights.infer import infer_architecture
from clevit_jax.weights.load_report import OTHER_ENTRIES, LoadReport
from clevit_jax.weights.shards import read_weight_files
from clevit_jax.weights.variants import Channels

_HEAD = {"head.weight": "head.kernel", "head.bias": "head.bias"}
HEAD = tuple(sorted(_HEAD.values()))  # our names
_NORM = {"norm.weight": "norm.scale", "norm.bias": "norm.bias"}  # the final one


@dataclasses.dataclass(frozen=True)
class Weights:
    """A Swin's parameters and where they come from.

    Attributes:
        model: the architecture; its image size is that of the file, or the usual one.
        params: nested dict of float32 NumPy arrays, as `swin.abstract_swin` shapes it.
        dialect: one of `dialects.DIALECTS`, or `clevit_jax` for a run of our own.
        source: name of the file, without its folder, or of the run.
        source_sha256: of that file, hex; of a run, empty.
        class_names: of the head's rows where they are known, else ().
        levels: coarser levels of these classes, (name, group of each class), as far as known; see
            `data.dataset.Level`.
        report: what became of the entries of the file.
        bits: of the 16-bit images that it was trained on, if it was told; see `decode.Decoding`.
        truncated: whether it was trained on images that lack their last bytes, too.
        entry, prefix: those that were asked for, of a file that holds several networks.
        headless: whether they are a network without a head, which has features and no answers;
            `params` has a head of one class at zero then, for the shape alone.
        preprocessing: how images become its input; None where nobody says, so that
            `Preprocessing.usual` is assumed.
    """

    model: SwinConfig
    params: Any
    dialect: str
    source: str
    source_sha256: str = ""
    class_names: tuple[str, ...] = ()
    levels: tuple[tuple[str, tuple[str, ...]], ...] = ()
    report: LoadReport = dataclasses.field(default_factory=LoadReport)
    bits: int = 0
    truncated: bool = False
    entry: str | None = None
    prefix: str | None = None
    headless: bool = False
    preprocessing: Preprocessing | None = None

    def __str__(self) -> str:
        network = self.model.describe()
        if self.headless:
            network = f"{network.rpartition(', ')[0]}, no head"
        size, given = self.model.image_size, self.preprocessing
        pixels = f"{size} px; {(given or Preprocessing.usual(size)).describe(size)}"
        return (
            f"{printable(self.source)} ({self.dialect}): {network}\n{self.report}\n"
            f"  images          {pixels}{'' if given else ' (assumed: not in the file)'}"
        )


def parameter_name(path: jax.tree_util.KeyPath) -> str:
    """`layers.0.blocks.1.attn.qkv.kernel` for the path of a leaf in a nested dict."""
    return jax.tree_util.keystr(path, simple=True, separator=".")


def named_leaves(params: Any) -> dict[str, Any]:
    """The leaves of a nested dict under their `parameter_name`."""
    return {parameter_name(path): leaf for path, leaf in jax.tree.leaves_with_path(params)}


def official_name(name: str) -> str:
    """The official checkpoint's name of one of our parameters: kernel and scale are `weight`."""
    return re.sub(r"\.(kernel|scale)$", ".weight", name)


def _to_ours(value: np.ndarray, name: str) -> np.ndarray:
    if name.endswith(".kernel"):
        return value.transpose(2, 3, 1, 0) if value.ndim == 4 else value.T
    return value


def _to_official(value: np.ndarray, name: str) -> np.ndarray:
    if name.endswith(".kernel"):
        return value.transpose(3, 2, 0, 1) if value.ndim == 4 else value.T
    return value


def read_torch_weights(
    path: str | pathlib.Path,
    *,
    entry: str | None = None,
    prefix: str | None = None,
    channels: Channels | None = None,
) -> Weights:
    """Reads the weight file of another library: recognises container, dialect and architecture.

    Args:
        path: a `.pth` or `.safetensors` file; its content decides, not its name. Or the index of
            shards, whose name ends with `.index.json`.
        entry: of a `.pth`, that holds the state dict; see `entries.choose`.
        prefix: before the names of the network; see `wrapping.unwrap`.
        channels: how a patch embedding of other than three input channels is brought to three; see
            `variants.to_three_channels`.

    Returns:
        The weights; headless where the file has no head that is one linear layer; where its head
        has no bias, one of zeros, and where a detector has no norm after the last stage, one that
        scales by 1.

    Raises:
        WeightsError: it cannot be read, is not a Swin or several, or an entry is missing, left over
            or of a wrong shape; all of them are listed, under the names that the file uses.
    """
    path = pathlib.Path(path)
    file = read_weight_files(path, entry)
    try:
        _refuse_ours(file.tensors)
        folders.refuse_adapter(file.tensors)
        dialect = dialects.recognise(file.tensors, file.wrapper, prefix)
        official, buffers = dialects.to_official_names(file.tensors, dialect, prefix)
        variants.refuse_others(official)
        adapted = variants.to_three_channels(official, channels)
        filled = variants.fill_qkv_bias(official)
        shapes = {name: value.shape for name, value in official.items()}
        model = infer_architecture(shapes | dialects.mask_shapes(file.tensors, prefix))
        detector = dialect == "openmmlab" or wrapping.EARLIER_NORM in buffers
        anew = _fill_in(official, model.channels(-1), detector=detector)
        params = from_official(official, abstract_swin(model)[1], dialect=dialect)
    except WeightsError as error:
        raise WeightsError(f"{path}: {error}") from error
    ignored = {kind: tuple(names) for kind, names in buffers.items() if names}
    if file.other_entries:
        ignored[OTHER_ENTRIES] = file.other_entries
    names = tuple(name for name in named_leaves(params) if name not in anew + filled)
    return Weights(
        model,
        params,
        dialect,
        path.name,
        file.sha256,
        report=LoadReport(
            matched=names,
            transposed=tuple(name for name in names if name.endswith(".kernel")),
            adapted=adapted,
            filled=filled,
            reinitialised=anew,
            ignored=ignored,
            head=dialects.said_of_head(file.tensors, prefix),
        ),
        entry=entry,
        prefix=prefix,
        headless="head.kernel" in anew,
    )


def _refuse_ours(names: Collection[str]) -> None:
    if {"patch_embed.proj.kernel", "norm.scale"} <= set(names):
        raise WeightsError(
            "These are the tensors of a converted checkpoint, whose model.json is not beside them; "
            "bring that file, too, and name the folder of both."
        )


def _fill_in(official: dict[str, np.ndarray], channels: int, *, detector: bool) -> tuple[str, ...]:
    """Adds the head that a backbone lacks, or its bias, and a detector's norm; our names."""
    anew: list[str] = []
    headless = not official.keys() & _HEAD.keys()
    if headless:
        official["head.weight"] = np.zeros((1, channels), np.float32)
        official["head.bias"] = np.zeros(1, np.float32)
        anew += _HEAD.values()
    elif "head.bias" not in official and official["head.weight"].ndim == 2:
        official["head.bias"] = np.zeros(len(official["head.weight"]), np.float32)
        anew.append("head.bias")
    if headless and detector and not official.keys() & _NORM.keys():
        official["norm.weight"] = np.ones(channels, np.float32)
        official["norm.bias"] = np.zeros(channels, np.float32)
        anew += _NORM.values()
    return tuple(sorted(anew))


def from_official(state_dict: Mapping[str, Any], params: Any, *, dialect: str = "microsoft") -> Any:
    """Fills our parameters from a state dict with the official names.

    Args:
        state_dict: name -> array (NumPy, or a torch tensor on the CPU); buffers are passed over.
        params: nested dict of arrays or `ShapeDtypeStruct`s that says which are wanted.
        dialect: whose names an error uses.

    Returns:
        A nested dict like `params`, of float32 NumPy arrays.

    Raises:
        WeightsError: naming at once every missing, left-over, wrongly shaped or non-finite entry.
    """
    given = {n: v for n, v in state_dict.items() if dialects.ignored_kind(n) is None}
    problems = []

    def take(path: jax.tree_util.KeyPath, wanted: Any) -> np.ndarray | None:
        ours = parameter_name(path)
        name = official_name(ours)
        like = _to_official(np.broadcast_to(np.float32(0), wanted.shape), ours)
        value = np.asarray(given.pop(name)) if name in given else None
        if problem := _problem(value, like.shape):
            in_file = " + ".join(
                dialects.from_official_names({name: like}, dialect, stages=len(params["layers"]))
            )
            problems.append(problem.format(in_file))
            return None
        assert value is not None
        return np.ascontiguousarray(_to_ours(value.astype(np.float32, copy=False), ours))

    filled = jax.tree.map_with_path(take, params)
    problems += [f"left over {quoted([name])}" for name in given]
    if problems:
        raise WeightsError(
            f"These weights do not fit a Swin of this shape in {len(problems)} place(s): "
            f"{'; '.join(first_of(problems, dialects.LISTED))}."
        )
    return filled


def _problem(value: np.ndarray | None, shape: tuple[int, ...]) -> str:
    """What is wrong with a parameter of a file, with {} for its name there; "" if nothing is."""
    if value is None:
        return "missing {}"
    if value.shape != shape:
        return f"{{}} has shape {list(value.shape)}, wanted {list(shape)}"
    # ml_dtypes' bfloat16 has kind V, as raw bytes would have; no other such type gets here.
    if value.dtype.kind not in "fV":
        return f"{{}} holds {value.dtype}, wanted floating-point numbers"
    return "" if np.isfinite(value).all() else "{} holds numbers that are not finite"


def to_official(params: Any) -> dict[str, np.ndarray]:
    """The parameters under their official names and in their official layout, float32."""
    return {
        official_name(name): _to_official(np.asarray(leaf), name)
        for name, leaf in named_leaves(params).items()
    }


def to_dialect(weights: Weights, dialect: str) -> dict[str, np.ndarray]:
    """The state dict that a library loads strictly: parameters, and buffers where it keeps them.

    Args:
        weights: any.
        dialect: one of `dialects.DIALECTS`.

    Returns:
        name -> float32 array (an index is int64) in the dialect's names and order of axes. Of
        headless weights without a head; "huggingface" with the names of the bare SwinModel then.
    """
    tensors = to_official(weights.params) | _buffers(
        weights.model, dialects.stored_buffers(dialect)
    )
    if not weights.headless:
        return dialects.from_official_names(tensors, dialect)
    body = {name: tensor for name, tensor in tensors.items() if name not in _HEAD}
    named = dialects.from_official_names(body, dialect)
    return {name.removeprefix("swin."): tensor for name, tensor in named.items()}


_MASK_BYTES = 4 << 30  # those of a Swin-L with window 12 at 1536 pixels take 0.15 GiB


def _check_masks(model: SwinConfig) -> None:
    """Raises WeightsError where the masks, which grow with the window's fourth power, are huge."""
    total = 0
    for stage, depth in enumerate(model.depths):
        for index in range(depth):
            window, shift = model.window_and_shift(stage, index)
            total += 4 * (model.grid(stage) * window) ** 2 if shift else 0
    if total > _MASK_BYTES:
        raise WeightsError(
            f"The attention masks that this dialect stores take {total / 2**30:,.0f} GiB with "
            f"windows of {model.window} at {model.image_size} pixels; write for timm or "
            "huggingface, which compute them."
        )


def _buffers(model: SwinConfig, stored: Collection[str]) -> dict[str, np.ndarray]:
    """The tables of the `stored` kinds, under their official names, for the image size."""
    if "attn_mask" in stored:
        _check_masks(model)
    tables: dict[str, np.ndarray] = {}
    for stage, depth in enumerate(model.depths):
        grid = (model.grid(stage), model.grid(stage))
        for index in range(depth):
            window, shift = model.window_and_shift(stage, index)
            block = f"layers.{stage}.blocks.{index}"
            if "relative_position_index" in stored:
                position_index = relative_position_index(window).astype(np.int64)
                tables[f"{block}.attn.relative_position_index"] = position_index
            if shift and "attn_mask" in stored:
                tables[f"{block}.attn_mask"] = shift_mask(grid, window, shift)
    return tables
