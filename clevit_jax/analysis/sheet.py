"""The picture of one image in `--mode explain`: rows of tiles, each under two lines of text."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from clevit_jax.analysis.class_labels import ClassLabels
from clevit_jax.inference import cam, explanation, prediction
from clevit_jax.inference.classifier import Classifier
from clevit_jax.inference.stream import ItemOutput
from clevit_jax.system.lettering import Lettering

TEXT = 14  # height of the letters, pixels
_MIN_SIDE = 224  # smallest side of a tile, pixels
_MARGIN, _LINE = 8, 18  # pixels between tiles, and from line to line
# The two lines of text, the first in two parts of which the second is never cut, and the picture.
_Tile = tuple[tuple[str, str, str], Image.Image | None]


def draw_sheet(
    classifier: Classifier,
    image: ItemOutput,
    labels: Sequence[int],
    name: str,
    class_labels: ClassLabels,
) -> tuple[Image.Image, list[int]]:
    """The picture of one image: a row of maps for its predicted class, and one per label.

    Args:
        classifier: the model.
        image: the outputs of the image.
        labels: classes besides the predicted one.
        name: name of the CAM.
        class_labels: what the classes are called; its letters are `TEXT` high.

    Returns:
        The picture, and the classes that are named in it.
    """
    pixels = image.pixels
    probabilities = prediction.softmax(image.logits)
    rows = list(dict.fromkeys([int(probabilities.argmax()), *labels]))
    columns = dict.fromkeys([name, cam.ROLLOUT])
    maps = classifier.maps(np.stack([pixels] * len(rows)), np.array(rows), tuple(columns))
    tiles: list[list[_Tile]] = [[(("image", "", ""), Image.fromarray(pixels))]]
    for row, label in enumerate(rows):
        if row:
            tiles.append([(("", "", ""), None)])  # below the image
        probability = f"{100 * probabilities[label]:.1f} %"
        for column in columns:
            grid = explanation.enlarge(maps[column][row], len(pixels))
            kind = column.partition(":")[0].replace("_", "-")
            text = (class_labels.texts[label], probability, kind)
            tiles[-1].append((text, explanation.overlay(pixels, grid)))
    return _paste_tiles(tiles, max(_MIN_SIDE, len(pixels)), class_labels.lettering), rows


def _paste_tiles(tiles: list[list[_Tile]], side: int, letters: Lettering) -> Image.Image:
    """Rows of tiles as one picture; `side` is that of a tile in pixels."""
    head = 2 * _LINE
    columns = max(map(len, tiles))
    width = _MARGIN + columns * (side + _MARGIN)
    sheet = Image.new("RGB", (width, _MARGIN + len(tiles) * (head + side + _MARGIN)), "white")
    draw = ImageDraw.Draw(sheet)
    for row, line in enumerate(tiles):
        for column, ((name, probability, kind), image) in enumerate(line):
            left = _MARGIN + column * (side + _MARGIN)
            top = _MARGIN + row * (head + side + _MARGIN)
            rest = f" {probability}" if probability else ""
            shown = letters.fitted(name, side - letters.length(rest))
            # In two parts: a name that is written from right to left would take the number along.
            letters.draw(draw, (letters.draw(draw, (left, top), shown), top), rest)
            letters.draw(draw, (left, top + _LINE - 1), letters.fitted(kind, side))
            if image is not None:
                tile = image.resize((side, side), Image.Resampling.BICUBIC)
                sheet.paste(tile, (left, top + head))
    return sheet
