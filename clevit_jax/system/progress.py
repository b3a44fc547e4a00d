"""The bar of tqdm that fits: a widget in a notebook, a line of text in a terminal."""

import sys
import warnings

with warnings.catch_warnings():
    # Without ipywidgets a notebook gets the line of text, which says the same.
    warnings.filterwarnings("ignore", message="IProgress not found")
    from tqdm.auto import tqdm

__all__ = ["in_notebook", "tqdm"]


def in_notebook() -> bool:
    """Whether this process is the kernel of a notebook."""
    ipython = sys.modules.get("IPython")
    return ipython is not None and hasattr(ipython.get_ipython(), "kernel")
