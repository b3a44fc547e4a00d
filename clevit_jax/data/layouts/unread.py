"""What to say of a folder that has no known layout: what is in it, and what was meant, perhaps."""

import pathlib
from collections.abc import Sequence

from clevit_jax.data.layouts import seen
from clevit_jax.data.layouts.csv import csv_table
from clevit_jax.data.layouts.csv.answers import is_form
from clevit_jax.data.layouts.folder import file_names, folders
from clevit_jax.data.layouts.folder.folder_splits import folder_above
from clevit_jax.data.layouts.listing import first_three
from clevit_jax.data.split_names import split_called


def unknown(root: pathlib.Path, below: Sequence[pathlib.Path]) -> str:
    """Sentences on a folder of no known layout: what was seen, what to do, what was meant.

    Args:
        root: the folder.
        below: folders in it that have one.
    """
    said = [f"{root} has no known layout (docs/data.md lists them)."]
    if not below:
        said += seen.say(seen.look(root), file_names.suggest(root))
    said += _meant(root, below)
    return " ".join(said)


def _meant(root: pathlib.Path, below: Sequence[pathlib.Path]) -> list[str]:
    tables = [name for name in csv_table.table_files(root) if not is_form(name)]
    if below:
        said = [f"Did you mean data.root={' or '.join(map(str, below[:5]))}?"]
        if tables:
            said.append(
                f"That would pass over {first_three(tables)}; to hear why, set data.layout=csv."
            )
        return said
    if not tables and (above := folder_above(root)) is not None:
        if split_called(above.name) is not None:  # data/train/rose
            above = above.parent
        return [f"It looks like one class of several: did you mean data.root={above}?"]
    if lone := folders.lone_class(root):
        return [f"Its images lie in one folder, {lone}/; classes are two folders at least."]
    if tables:
        return [f"To hear what is wrong with {first_three(tables)}, set data.layout=csv."]
    return []
