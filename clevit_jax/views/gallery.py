"""A picture of originals beside their views, to look at before training."""

import os
import pathlib
from collections.abc import Sequence

import jax
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from clevit_jax.model.preprocessing import IMAGENET_MEAN, IMAGENET_STD, Colour
from clevit_jax.system.files import replacing
from clevit_jax.system.own_files import png_mark
from clevit_jax.system.places import run_place

MARGIN = 8  # pixels between and around the images
TEXT_HEIGHT = 16  # pixels, of headings and names
LINE_HEIGHT = TEXT_HEIGHT + MARGIN


def save_gallery(
    path: str | os.PathLike[str],
    originals: np.ndarray | jax.Array,
    anchors: np.ndarray | jax.Array,
    positives: np.ndarray | jax.Array | None,
    *,
    names: Sequence[str] | None = None,
    mean: Colour = IMAGENET_MEAN,
    std: Colour = IMAGENET_STD,
) -> None:
    """Writes a PNG with one row per image: original, anchor, positive, under column headings.

    The file appears whole or not at all: it is written beside its place and then moved there.

    Args:
        path: where to write; missing folders are made.
        originals: uint8 [N, S, S, 3], shown at the size of the views.
        anchors: float [N, s, s, 3], normalised.
        positives: the same, or None for views that have none.
        names: one per row, written above it; None for no names.
        mean, std: by which the views were normalised.

    Raises:
        ValueError: no rows, or an argument of another shape, dtype or number of rows.
    """
    originals, anchors = np.asarray(originals), np.asarray(anchors)
    columns = {"original": originals, "anchor": _pixels(anchors, mean, std)}
    if positives is not None:
        columns["positive"] = _pixels(np.asarray(positives), mean, std)
    _check_columns(columns, names)

    rows, side = anchors.shape[:2]
    name_height = LINE_HEIGHT if names is not None else 0
    row_height = name_height + side + MARGIN
    width = MARGIN + len(columns) * (side + MARGIN)
    sheet = Image.new("RGB", (width, MARGIN + LINE_HEIGHT + rows * row_height), "white")
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(TEXT_HEIGHT)
    for column, (heading, images) in enumerate(columns.items()):
        left = MARGIN + column * (side + MARGIN)
        draw.text((left, MARGIN), heading, fill="black", font=font)
        for row, pixels in enumerate(images):
            top = MARGIN + LINE_HEIGHT + row * row_height + name_height
            tile = Image.fromarray(pixels).resize((side, side), Image.Resampling.BILINEAR)
            sheet.paste(tile, (left, top))
    for row, name in enumerate(names or ()):
        top = MARGIN + LINE_HEIGHT + row * row_height
        draw.text((MARGIN, top), name, fill="black", font=font)
    _write_png(sheet, run_place(path))


def _pixels(views: np.ndarray, mean: Colour, std: Colour) -> np.ndarray:
    """Normalised float views -> uint8; no change of shape."""
    if views.ndim != 4 or views.shape[-1] != 3:
        raise ValueError(f"views have the shape {views.shape}; it must be [N, size, size, 3].")
    pixels = (views * np.array(std, np.float32) + np.array(mean, np.float32)) * 255
    return np.clip(np.round(pixels), 0, 255).astype(np.uint8)


def _check_columns(columns: dict[str, np.ndarray], names: Sequence[str] | None) -> None:
    """Raises ValueError unless the columns are pictures of as many rows, with as many names."""
    originals, anchors = columns["original"], columns["anchor"]
    if originals.dtype != np.uint8 or originals.ndim != 4 or originals.shape[-1] != 3:
        raise ValueError(
            f"originals are {originals.dtype}{originals.shape}; they must be uint8 [N, S, S, 3]."
        )
    if not len(originals):
        raise ValueError("there is no image to show; a gallery needs at least one row.")
    if len(originals) != len(anchors):
        raise ValueError(f"there are {len(originals)} originals but {len(anchors)} anchors.")
    if "positive" in columns and columns["positive"].shape != anchors.shape:
        raise ValueError(
            f"positives have the shape {columns['positive'].shape} and anchors {anchors.shape}; "
            "they must be alike."
        )
    if names is not None and len(names) != len(originals):
        raise ValueError(f"there are {len(names)} names for {len(originals)} rows.")


def _write_png(sheet: Image.Image, path: pathlib.Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as new:
        sheet.save(new, format="PNG", pnginfo=png_mark())
