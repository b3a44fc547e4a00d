"""Lists in which each class is a column of yes and no, or a file of its own, as `cat_train.txt`."""

import pathlib

from clevit_jax.data.layouts.columns import as_setting, is_label_or_file
from clevit_jax.data.layouts.listing import Notes, first_three
from clevit_jax.data.layouts.text.list_lines import whole
from clevit_jax.data.layouts.text.list_rows import Family

_YES = "1"
_NO = frozenset(("-1", "0"))  # of Pascal VOC: not there, or there and hard to see


def in_one_column(root: pathlib.Path, family: Family, notes: Notes) -> Family | None:
    """A list with a column of classes instead of a column of yes and no for each class.

    Columns without names are classes by their numbers, from 0. Others are left as they are.

    Args:
        root: of the data set, for sentences.
        family: the list.
        notes: gets a question where lists of 1 and -1 give an image no class, or several.

    Returns:
        None where that is asked.
    """
    fields = [tuple(whole(text) or "" for text in row.fields) for row in family.rows]
    values = set().union(*fields)
    count = len(family.columns)
    is_yes_or_no = _YES in values and not values - _NO - {_YES}
    if count < 2 or not is_yes_or_no or any(map(is_label_or_file, family.columns)):
        return family
    yes = [[i for i in range(count) if row[i] == _YES] for row in fields]
    other = [row for row, told in zip(family.rows, yes, strict=True) if len(told) != 1]
    if not other:
        named = not all(name.startswith("column ") for name in family.columns)
        names = family.columns if named else tuple(map(str, range(count)))
        rows = [
            row._replace(fields=(names[i],))
            for row, (i,) in zip(family.rows, yes, strict=True)
        ]  # fmt: skip
        return family._replace(columns=("class",), rows=rows)
    if "-1" not in values:
        return family
    notes.problems.append(
        f"{root}: {first_three([repr(name) for name in family.columns])} tell yes and no of "
        f"{count:,} classes, and {len(other):,} of {len(family.rows):,} images "
        f"({other[0].file!r}) are of none or of several; one class is learned for each image "
        "here: take these images out of the lists, or set data.label_column="
        f"{as_setting(family.columns[0].removeprefix('column '))} to learn yes and no of one."
    )
    return None
