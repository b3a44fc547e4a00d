"""Images that lie among those of a list and are in none."""

import pathlib
from collections.abc import Iterable

from clevit_jax.data.layouts.listing import Contents, Notes, first_three

BESIDE = "beside listed ones and in no list"  # words of the warning
# Words of warnings that tell of such images already, of a part or of all.
_TOLD = ("in no list", "left out", "are not read", "not read, as", "have no label", "has no label")


def warn_of_unlisted(
    root: pathlib.Path, images: Iterable[str], contents: Contents, notes: Notes
) -> None:
    """Warns of images in the folders of listed ones that no list names, so that none is used.

    Args:
        root: the data set, for the sentence.
        images: all that lie below it, relative to it.
        contents: what was read.
        notes: gets the warning; where images were told of that are left out, it gets none.
    """
    if notes.problems or any(words in said for said in notes.warnings for words in _TOLD):
        return
    listed = {example.name for examples in contents.splits.values() for example in examples}
    folders = {name.rpartition("/")[0] for name in listed}
    left = list[str]()
    for image in images:
        folder, _, name = image.rpartition("/")
        if image not in listed and folder in folders and name[0] != ".":
            left.append(image)
    if left:
        verb = "image lies" if len(left) == 1 else "images lie"
        notes.warnings.append(
            f"{root}: {len(left):,} {verb} {BESIDE}, and not read ({first_three(sorted(left))})."
        )
