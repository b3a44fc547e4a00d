"""Official PyTorch names <-> our parameters.

Ours is a nested dict with the official path and Flax's leaf names. Arrays are transposed where
the frameworks differ: linear [out, in] -> [in, out], convolution OIHW -> HWIO.
"""

import re
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

# Buffers of the official model that are recomputed, never loaded.
_BUFFERS = re.compile(r"(^|\.)(relative_position_index|attn_mask)$")


def parameter_name(path: jax.tree_util.KeyPath) -> str:
    """`layers.0.blocks.1.attn.qkv.kernel` for the path of a leaf in a nested dict."""
    return jax.tree_util.keystr(path, simple=True, separator=".")


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


def from_official(state_dict: Mapping[str, Any], params: Any) -> Any:
    """Fills our parameters from a state dict with the official names.

    Args:
        state_dict: name -> array (NumPy, or a torch tensor on the CPU).
        params: nested dict of arrays or `ShapeDtypeStruct`s that says which are wanted.

    Returns:
        A nested dict like `params`, of float32 NumPy arrays.

    Raises:
        ValueError: naming at once every missing, left-over and wrongly shaped entry.
    """
    given = {n: np.asarray(v) for n, v in state_dict.items() if not _BUFFERS.search(n)}
    problems = []

    def take(path: jax.tree_util.KeyPath, wanted: Any) -> np.ndarray | None:
        ours = parameter_name(path)
        name = official_name(ours)
        if name not in given:
            problems.append(f"missing {name}")
            return None
        value = _to_ours(given.pop(name).astype(np.float32), ours)
        if value.shape != wanted.shape:
            problems.append(f"{name} gives {value.shape}, wanted {wanted.shape}")
        return value

    filled = jax.tree.map_with_path(take, params)
    problems += [f"left over {name}" for name in given]
    if problems:
        raise ValueError("These weights do not fit this model: " + "; ".join(problems) + ".")
    return filled


def to_official(params: Any) -> dict[str, np.ndarray]:
    """The parameters under their official names and in their official layout, float32."""
    named = ((parameter_name(path), leaf) for path, leaf in jax.tree.leaves_with_path(params))
    return {official_name(name): _to_official(np.asarray(leaf), name) for name, leaf in named}
