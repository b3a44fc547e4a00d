"""Features in two dimensions, by scikit-learn's t-SNE, and a picture of them.

Source: van der Maaten and Hinton, Visualizing Data using t-SNE, JMLR 2008.
"""

import pathlib
from collections.abc import Sequence

import numpy as np

from clevit_jax.analysis.neighbours import normalised
from clevit_jax.system.files import replacing

MAX_IMAGES = 3000  # images; more take minutes and show no more
_LEGEND = 20  # classes that colours tell apart


def sample_rows(count: int, *, most: int = MAX_IMAGES, seed: int = 0) -> np.ndarray:
    """Which rows of `count` are shown: all, or a random `most` of them, sorted."""
    if count <= most:
        return np.arange(count)
    return np.sort(np.random.RandomState(seed).permutation(count)[:most])


def embed(features: np.ndarray, *, seed: int = 0) -> np.ndarray:
    """t-SNE of features [N, C] by their cosine, float32 [N, 2]; the perplexity is 30, or N / 4.

    With fewer than five images there is nothing to lay out: they lie on a line.
    """
    count = len(features)
    if count < 5:
        return np.stack([np.arange(count), np.zeros(count)], axis=1).astype(np.float32)
    from sklearn.manifold import TSNE  # here, for scikit-learn takes seconds to import
    from threadpoolctl import threadpool_limits

    # Of rows of length 1, Euclidean distance sorts as the cosine does.
    rows = normalised(features)
    # PCA as the start needs images that differ.
    start = "pca" if min(rows.shape) > 1 and rows.std() > 0 else "random"
    tsne = TSNE(perplexity=min(30.0, count / 4), init=start, random_state=seed)
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
) -> None:
    """Writes a PNG of points [N, 2], a colour a class; a legend with up to 20 classes.

    Labels of -1 are grey. The file appears whole or not at all.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 7), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    present = [int(label) for label in np.unique(labels) if label >= 0]
    unknown = points[labels < 0]
    axes.scatter(unknown[:, 0], unknown[:, 1], s=14, color="0.6", linewidths=0)
    for number, label in enumerate(present):
        rows = points[labels == label]
        colour = _colour(number, len(present))
        # Names may hold a dollar sign, which matplotlib would take for the beginning of a formula.
        name = class_names[label].replace("$", r"\$")
        axes.scatter(rows[:, 0], rows[:, 1], s=14, color=colour, linewidths=0, label=f" {name}")
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_title(title.replace("$", r"\$"), fontsize=10)
    if 0 < len(present) <= _LEGEND:
        figure.legend(loc="outside right upper", fontsize=8, frameon=False)
    with replacing(path) as new:
        figure.savefig(new, format="png")


def _colour(number: int, count: int) -> tuple[float, float, float, float]:
    import matplotlib

    if count <= _LEGEND:
        return matplotlib.colormaps["tab20"](number % 20)
    return matplotlib.colormaps["hsv"](number / count)
