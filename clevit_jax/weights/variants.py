"""Swins that differ from ours: brought to it where that loses nothing, named where it is another.

All on official names and in the official layout; which file they are from is for the caller.
"""

import re
from collections import Counter
from collections.abc import Mapping
from typing import Literal, get_args

import numpy as np

from clevit_jax.errors import WeightsError
from clevit_jax.model.config import MLP_RATIO, PATCH
from clevit_jax.system.quoting import quoted

Channels = Literal["sum", "repeat", "first"]
CHANNELS: tuple[Channels, ...] = get_args(Channels)
_PATCHES = "patch_embed.proj.weight"
_RGB = 3
_FC1 = re.compile(r"layers\.\d+\.blocks\.\d+\.mlp\.fc1\.weight")
_QKV = re.compile(r"(layers\.\d+\.blocks\.\d+\.attn\.qkv)\.weight")
_POSITIONS = re.compile(r"(.+\.)?(absolute_pos_embed|position_embeddings)")


def refuse_others(official: Mapping[str, np.ndarray]) -> None:
    """Raises WeightsError, with what it is, on a network that differs from ours in all its parts.

    Args:
        official: official name -> array; a name that is none stays as it is in the file.
    """
    shape = official[_PATCHES].shape if _PATCHES in official else ()
    what = ""
    if positions := [name for name in official if _POSITIONS.fullmatch(name)]:
        what = (
            f"adds absolute positions to its patches ({quoted(positions[:1])}), and ours has none"
        )
    elif len(shape) == 4 and shape[2] == shape[3] != PATCH:
        what = f"has patches of {shape[2]} pixels a side, and ours of {PATCH}"
    ratios = Counter(
        value.shape[0] / value.shape[1]
        for name, value in official.items()
        if _FC1.fullmatch(name) and value.ndim == 2 and value.size
    )
    if ratios and not what:
        ratio, _ = ratios.most_common(1)[0]
        if ratio != MLP_RATIO:
            what = f"widens its MLPs by {ratio:.4g} (mlp_ratio), and ours by {MLP_RATIO}"
    if what:
        raise WeightsError(
            f"This Swin {what}: it is another network, which is not built here; give the weights "
            "of one as it was published."
        )


def to_three_channels(
    official: dict[str, np.ndarray], channels: Channels | None
) -> tuple[str, ...]:
    """Brings a patch embedding of other than three input channels to red, green and blue, in place.

    A kernel of n channels becomes, by `channels`:

    * `sum`: a third of the sum of all, for each colour. Where red, green and blue are equal it
      answers as the kernel did with that grey in all its channels.
    * `repeat`: its channels, again from the first one, times n / 3: the rule of timm's
      `adapt_input_conv`. Of one channel it is the same as `sum`.
    * `first`: the first three as they are. It answers as the kernel did with 0 in all others.

    Returns:
        What was done, in words; () where there are three channels.

    Raises:
        WeightsError: there are others and `channels` is None; there are three, or too few to take
            the first three of, and it is not.
    """
    kernel = official.get(_PATCHES)
    if channels is not None and channels not in CHANNELS:
        raise WeightsError(f"channels must be {', '.join(CHANNELS)}, or None, not {channels!r}.")
    n = (
        0
        if kernel is None or kernel.ndim != 4 or kernel.shape[2:] != (PATCH,) * 2
        else kernel.shape[1]
    )
    if kernel is None or n in (0, _RGB):
        if channels is not None and n:
            raise WeightsError(
                "The patch embedding has three channels of input, as it should; drop the choice of "
                f"channels ({channels})."
            )
        return ()
    if channels is None or (channels == "first" and n < _RGB):
        raise WeightsError(_which(n))
    kernel = kernel.astype(np.float32)
    if channels == "sum":
        kernel = np.repeat(kernel.sum(1, keepdims=True) / _RGB, _RGB, 1)
    elif channels == "repeat":
        kernel = kernel[:, np.arange(_RGB) % n] * np.float32(n / _RGB)
    else:
        kernel = kernel[:, :_RGB]
    official[_PATCHES] = kernel
    return (f"patch_embed.proj.kernel: {n} -> {_RGB} channels ({channels})",)


def _which(n: int) -> str:
    choices = "--channels sum (each colour gets a third of their sum) or " if n > 1 else ""
    if n > _RGB:
        choices += "--channels first (the first three, if they are red, green and blue)"
    elif n > 1:
        choices += f"--channels repeat (again from the first, times {n}/3)"
    else:
        choices = (
            "--channels repeat, or sum, which is the same for one (each colour gets a third of it, "
            "so that grey images are answered as before)"
        )
    return (
        f"Its patch embedding has {n} channel{'s' * (n > 1)} of input, and images here have red, "
        f"green and blue; say by clevit_jax_convert how to bring it to three: {choices}."
    )


def fill_qkv_bias(official: dict[str, np.ndarray]) -> tuple[str, ...]:
    """Adds a bias of 0 to query, key and value where no block has one, which changes no answer.

    Returns:
        The names that were added; () where blocks have a bias, or lack more than that.
    """
    weights = {m[1]: official[m[0]] for m in map(_QKV.fullmatch, official) if m}
    if any(re.search(r"\.(qkv|query|key|value)\.bias$", name) for name in official):
        return ()
    added = {f"{name}.bias": np.zeros(len(w), np.float32) for name, w in weights.items() if w.ndim}
    official |= added
    return tuple(added)
