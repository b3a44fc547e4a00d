"""t-SNE of features in two dimensions, computed by scikit-learn, and a picture of it.

Source: van der Maaten and Hinton, Visualizing Data using t-SNE, JMLR 2008.
"""

import pathlib
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from clevit_jax.analysis.class_labels import ClassLabels
from clevit_jax.analysis.neighbours import FEW, normalised
from clevit_jax.system import fonts
from clevit_jax.system.files import replacing
from clevit_jax.system.own_files import png_mark

MAX_IMAGES = 3000  # more take minutes and show no more
_MAX_LEGEND = 20  # more classes cannot be told apart by colours
_TEXT, _LINE, _MAX_NAME = 14, 24, 300  # pixels: of letters, from line to line, of a name in width
_MARGIN, _HEAD, _DOT = 12, 48, 16  # pixels around, of the heading, of a dot before a name
_Colour = tuple[float, float, float, float]
_GREY = (0.6, 0.6, 0.6, 1.0)


def sample_rows(count: int, *, most: int = MAX_IMAGES, seed: int = 0) -> np.ndarray:
    """Rows that are shown, of `count`: all, or a random sample of `most`; sorted."""
    if count <= most:
        return np.arange(count)
    return np.sort(np.random.RandomState(seed).permutation(count)[:most])


def embed(features: np.ndarray, *, seed: int = 0) -> np.ndarray:
    """Points of a t-SNE of features by their cosine; the perplexity is 30, at most N / 4.

    Fewer than five images have no layout: they lie on a line.

    Args:
        features: [N, C].
        seed: seed of scikit-learn's random numbers.

    Returns:
        float32 [N, 2].
    """
    count = len(features)
    if count < FEW:
        return np.stack([np.arange(count), np.zeros(count)], axis=1).astype(np.float32)
    from sklearn.manifold import TSNE  # here, for scikit-learn takes seconds to import
    from threadpoolctl import threadpool_limits

    # Of rows of length 1, Euclidean distance sorts as the cosine does.
    rows = normalised(features)
    # Initial points by PCA need images that differ.
    init = "pca" if min(rows.shape) > 1 and rows.std() > 0 else "random"
    tsne = TSNE(perplexity=min(30.0, count / 4), init=init, random_state=seed)
    # Its threads wait for each other by spinning: beside other work, two take 30 times as long as
    # one (132 images: 12 s and 0.4 s on two busy cores, 2026-11-25).
    with threadpool_limits(1):
        return tsne.fit_transform(rows).astype(np.float32)


def save_picture(
    path: pathlib.Path,
    points: np.ndarray,
    labels: np.ndarray,
    class_names: Sequence[str],
    *,
    title: str,
) -> str:
    """Writes a PNG of points, one colour per class; the file appears whole or not at all.

    Args:
        path: the PNG.
        points: [N, 2].
        labels: [N]; -1 is drawn grey.
        class_names: names of the labels; the legend shows them if at most 20 classes occur.
        title: heading of the picture.

    Returns:
        Lines to print, where names are in a script that no font has; see `ClassLabels.legend`.
    """
    present = [int(label) for label in np.unique(labels) if label >= 0]
    named = present if len(present) <= _MAX_LEGEND else []
    colours = {label: _colour(i, len(present)) for i, label in enumerate(present)}
    cloud = _draw_points(points, [colours.get(int(label), _GREY) for label in labels])
    title = fonts.plain(title)
    class_labels = ClassLabels(class_names if named else (), _TEXT, others=[title])
    letters = class_labels.lettering
    names = [letters.fitted(class_labels.texts[label], _MAX_NAME) for label in named]
    room = round(_MARGIN + _DOT + max(map(letters.length, names))) if names else 0
    size = (cloud.width + 2 * _MARGIN + room, cloud.height + _HEAD + _MARGIN)
    picture = Image.new("RGB", size, "white")
    picture.paste(cloud, (_MARGIN, _HEAD))
    draw = ImageDraw.Draw(picture)
    heading = letters.fitted(letters.without_boxes(title), cloud.width)
    letters.draw(draw, (_MARGIN + (cloud.width - letters.length(heading)) / 2, 18), heading)
    for row, (label, name) in enumerate(zip(named, names, strict=True)):
        left, top = cloud.width + 2 * _MARGIN, _HEAD + _MARGIN + _LINE * row
        colour = tuple(round(255 * part) for part in colours[label][:3])
        draw.ellipse((left, top + 5, left + 8, top + 13), fill=colour)
        letters.draw(draw, (left + _DOT, top), name)
    with replacing(path) as new:
        picture.save(new, format="PNG", pnginfo=png_mark())
    return class_labels.legend(named)


def _draw_points(points: np.ndarray, colours: Sequence[_Colour]) -> Image.Image:
    """The points in a frame, without any text; `colours` has one for each."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.2, 6.5), dpi=120)
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_axes((0.002, 0.002, 0.996, 0.996))
    axes.scatter(points[:, 0], points[:, 1], s=14, c=np.array(colours).reshape(-1, 4), linewidths=0)
    axes.set_xticks([])
    axes.set_yticks([])
    canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")


def _colour(number: int, count: int) -> _Colour:
    import matplotlib

    if count <= _MAX_LEGEND:
        return matplotlib.colormaps["tab20"](number % 20)
    return matplotlib.colormaps["hsv"](number / count)
