"""What to say of a folder that has no known layout: what is in it, and what was meant, perhaps."""

import pathlib
from collections.abc import Mapping, Sequence

from clevit_jax.data.layouts import csv_table, folders
from clevit_jax.data.layouts.listing import first_three


def unknown(root: pathlib.Path, below: Sequence[pathlib.Path], expected: Mapping[str, str]) -> str:
    """A sentence on a folder of no known layout.

    Args:
        root: the folder.
        below: folders in it that have one.
        expected: layout -> what it looks for.
    """
    looked_for = "; ".join(f"{name}: {what}" for name, what in expected.items())
    hint = f" Did you mean data.root={' or '.join(map(str, below[:5]))}?" if below else ""
    if not hint and (tables := csv_table.table_files(root)):
        hint = f" To hear what is wrong with {first_three(tables)}, set data.layout=csv."
    if not hint and (lone := folders.lone_class(root)):
        hint = f" Its images lie in one folder, {lone}/; classes are two folders at least."
    return f"{root} has no known layout; looked for {looked_for}.{hint}"
