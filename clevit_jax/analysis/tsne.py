"""t-SNE of features in two dimensions, computed by scikit-learn, and a picture of it.

Source: van der Maaten and Hinton, Visualizing Data using t-SNE, JMLR 2008.
"""

import pathlib
from collections.abc import Sequence

import numpy as np

from clevit_jax.analysis.neighbours import FEW, normalised
from clevit_jax.system.files import replacing
from clevit_jax.system.own_files import MARK

MAX_IMAGES = 3000  # more take minutes and show no more
_MAX_LEGEND = 20  # more classes cannot be told apart by colours


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
) -> None:
    """Writes a PNG of points, one colour per class; the file appears whole or not at all.

    Args:
        path: the PNG.
        points: [N, 2].
        labels: [N]; -1 is drawn grey.
        class_names: names of the labels; the legend shows them if at most 20 classes occur.
        title: heading of the picture.
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
    if 0 < len(present) <= _MAX_LEGEND:
        figure.legend(loc="outside right upper", fontsize=8, frameon=False)
    with replacing(path) as new:
        figure.savefig(new, format="png", metadata={"Software": MARK})


def _colour(number: int, count: int) -> tuple[float, float, float, float]:
    import matplotlib

    if count <= _MAX_LEGEND:
        return matplotlib.colormaps["tab20"](number % 20)
    return matplotlib.colormaps["hsv"](number / count)
