"""OpenMMLab's order of merged patches, and its numbers on the final norm.

mmpretrain, mmdet and mmseg gather the four patches that are merged by `nn.Unfold`, channel by
channel: of the 4C numbers each channel has four in a row, those at (row, column) (0, 0), (0, 1),
(1, 0), (1, 1). The official code sets patch beside patch, (0, 0), (1, 0), (0, 1), (1, 1), each with
its C channels. What has the right names and shapes is therefore still in another order. The
relative position index is built in another way there, and is the same.
"""

import re
from collections.abc import Mapping

import numpy as np

_MERGING = re.compile(r"layers\.[0-9]{1,3}\.downsample\.(norm\.(weight|bias)|reduction\.weight)")
_OTHER_ORDER = (0, 2, 1, 3)  # rows first or columns first; its own inverse
_STAGE = re.compile(r"backbone\.stages\.([0-9]{1,3})\.")


def to_official_order(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Sorts the merged patches of OpenMMLab as the official code has them.

    Args:
        tensors: official name -> array in OpenMMLab's order; the last axis of merging is [C * 4].

    Returns:
        The same with the last axis of each norm and reduction of merging as [4 * C]. A tensor whose
        last axis is not a multiple of 4 stays as it is, for its shape to be refused.
    """
    return {name: _sorted(name, x, from_channels=True) for name, x in tensors.items()}


def to_openmmlab_order(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The inverse of `to_official_order`."""
    return {name: _sorted(name, x, from_channels=False) for name, x in tensors.items()}


def _sorted(name: str, x: np.ndarray, *, from_channels: bool) -> np.ndarray:
    if not _MERGING.fullmatch(name) or not x.ndim or x.shape[-1] % 4:
        return x
    channels = x.shape[-1] // 4
    if from_channels:
        apart = x.reshape(*x.shape[:-1], channels, 4)[..., _OTHER_ORDER]
    else:
        apart = x.reshape(*x.shape[:-1], 4, channels)[..., _OTHER_ORDER, :]
    return apart.swapaxes(-1, -2).reshape(x.shape)


def number_final_norm(tensors: Mapping[str, np.ndarray], stages: int) -> dict[str, np.ndarray]:
    """`backbone.norm3.bias` for `backbone.norm.bias` in a network of four stages.

    Args:
        tensors: OpenMMLab's name -> array.
        stages: of the network, where no name tells.
    """
    told = [int(match[1]) + 1 for match in map(_STAGE.match, tensors) if match]
    norm = f"backbone.norm{max(told, default=stages) - 1}."
    return {re.sub(r"^backbone\.norm\.", norm, name): x for name, x in tensors.items()}
