"""Lists of images, a line each: `train.txt` of `<file> <label>`, as many sets are published with.

Such are those of Food-101, FGVC-Aircraft, Oxford Pets, VegFru, the Grocery Store Dataset, Stanford
Online Products, DTD and SUN397, and those that DCL, mmpretrain, PaddleClas and Caffe read.
"""

import collections
import pathlib
from collections.abc import Sequence

from clevit_jax.data.layouts import table
from clevit_jax.data.layouts.listing import Contents, Notes, Request
from clevit_jax.data.layouts.text import (
    list_classes,
    list_folders,
    list_names,
    list_one_hot,
    list_splits,
)
from clevit_jax.data.layouts.text.list_files import ListedFiles
from clevit_jax.data.layouts.text.list_lines import whole
from clevit_jax.data.layouts.text.list_rows import Family, Row, read_family
from clevit_jax.data.layouts.unlisted import warn_of_unlisted
from clevit_jax.errors import Repeated

LOOKS_FOR = "train.txt, perhaps with test.txt and val.txt, of lines <file> <label>"


def fits(root: pathlib.Path, _: Request) -> str | None:
    """What the layout is recognised by, or None. Only the beginning of each list is read."""
    found = list_names.find(root, Notes([], []))
    return list_names.relative(root, found) if found else None


def read(root: pathlib.Path, request: Request, notes: Notes) -> Contents:
    """Reads lists named as splits, in `root` or in folders such as anno/, meta/ and splits/ in it.

    A line has a file, and after or before it its class: a number or a name; with blanks, commas or
    tabs between, and perhaps a header. Of several columns the class is the one that tells the
    others, which are coarser levels; so are the classes of lists for the same images
    (`images_variant_train.txt`, `images_family_train.txt`). Without a class in the lines, it is the
    folder of the file, or else what names as `american_bulldog_12.jpg` begin with.

    Files are relative to the root, to the folder of the list, or to another folder, the first that
    has them all; their endings may be left out.
    """
    found = list_names.find(root, notes)
    if not found:
        notes.problems.append(f"{root} holds no list of images; looked for {LOOKS_FOR}.")
    if notes.problems:
        return Contents((), {"train": []})
    files = ListedFiles(root, notes)
    families = [read_family(name, lists, files, request, notes) for name, lists in found.items()]
    families = _together([family for family in families if family.rows])
    families = [
        list_splits.parted(root, list_splits.completed(family, notes), request, notes)
        for family in families
    ]
    labelled = [family for family in families if family.columns] or families
    if not any(row.split == "train" for family in labelled for row in family.rows):
        if not notes.problems:  # it may only follow from what is wrong already
            notes.problems.append(f"{root} lists no image for training.")
        return Contents((), {"train": []})
    sets = [{row.file for row in family.rows} for family in labelled]
    if len(labelled) == 1 or all(each == sets[0] for each in sets):
        rows, levels = _classes(root, _beside(labelled), request, notes)
    elif sum(map(len, sets)) == len(set().union(*sets)):
        rows, levels = _joined(root, labelled, request, notes)
    else:
        names = " and ".join(repr(family.name) for family in labelled)
        notes.problems.append(
            f"{root}: the lists {names} share some images, but not all; keep those of one."
        )
        return Contents((), {"train": []})
    if not rows and notes.problems:
        return Contents((), {"train": []})
    contents = table.to_contents(rows, str(root), notes, levels=levels)
    warn_of_unlisted(root, files.images(), contents, notes)
    return contents


def _together(families: list[Family]) -> list[Family]:
    """Lists of one class each, without labels, as `rose_train.txt`, as one list of all."""
    sets = [{row.file for row in family.rows} for family in families]
    of_one = all(not family.columns and len(set(_folders(family.rows))) == 1 for family in families)
    if len(families) < 2 or not of_one or sum(map(len, sets)) > len(set().union(*sets)):
        return families
    return [Family("", (), [row for family in families for row in family.rows], False)]


def _beside(families: Sequence[Family]) -> Family:
    """Lists of the same images with one class each, as one list with a column for each."""
    first = families[0]
    if len(families) == 1:
        return first
    fields = [{row.file: row.fields for row in family.rows} for family in families]
    return Family(
        "",
        tuple(
            family.name or "class" if len(family.columns) == 1 else f"{family.name} {column}"
            for family in families
            for column in family.columns
        ),
        [
            row._replace(fields=tuple(x for each in fields for x in each[row.file]))
            for row in first.rows
        ],
        False,
    )


def _joined(
    root: pathlib.Path, families: Sequence[Family], request: Request, notes: Notes
) -> tuple[list[table.TableRow], list[str]]:
    """Lists of different images, whose classes are put side by side, as VegFru's two halves.

    Classes that have the same name in both, or none, may be the same or not: that is asked about.
    """
    joined = list[table.TableRow]()
    named = collections.Counter[str]()
    told = list[str]()
    for family in families:
        rows = _classes(root, family, request, notes)[0]
        names = {row.class_name or row.label for row in rows}
        named.update(names)
        told.append(f"{len(names):,} classes of {family.name!r}")
        for row in rows:
            name = row.class_name or row.label
            joined.append(
                row._replace(label=name, class_name="", groups=(family.name or "others",))
            )
    if any(count > 1 or whole(name) for name, count in named.items()):
        notes.problems.append(
            f"{root} has lists of several sets of images, with {' and '.join(told)}, and these may "
            "be the same classes or others; keep the lists of one set, or write one list of all."
        )
        return [], []
    notes.warnings.append(
        f"{root} has lists of several sets of images, which are read as one: {' and '.join(told)}."
    )
    return joined, ["set"]


def _classes(
    root: pathlib.Path, family: Family, request: Request, notes: Notes
) -> tuple[list[table.TableRow], list[str]]:
    """The rows with their classes, and the names of the levels."""
    if not family.columns:
        return list_folders.told(root, family.rows, _folders(family.rows), request, notes)
    if not request.label_column:
        single = list_one_hot.in_one_column(root, family, notes)
        if single is None:
            return [], []
        family = single
    trained = [row for row in family.rows if row.split == "train"]
    values = [[row.fields[i] for row in trained] for i in range(len(family.columns))]
    folders = _folders(trained)
    choice = list_classes.choose(
        family.columns,
        values,
        request.label_column,
        rows_first=family.rows_first,
        apart=len(set(folders)) > 1 and len(set(folders)) == len(folders),
    )
    if isinstance(choice, str):
        notes.problems.append(f"{root}: {choice}")
        return [], []
    rows = _without_dummies(root, family.rows, choice.label, notes)
    folders = _folders(rows)
    labels = [row.fields[choice.label] for row in rows]
    notes.problems.extend(
        Repeated(
            f"{row.where}: the label is empty.",
            rule=f"{root}: {{n}} labels are empty",
            item=row.where,
        )
        for row, label in zip(rows, labels, strict=True)
        if not label
    )
    names = {row.fields[choice.label]: "" for row in rows}
    if choice.name is None and all(map(whole, labels)):
        names |= list_folders.folder_names(folders, labels) or list_folders.counted_of(
            [row.file for row in rows], labels
        )
    groups = list[list[str]]()
    for level in choice.levels:
        inside = [row.fields[level] for row in rows]
        named = list_folders.group_names(folders, inside) if all(map(whole, inside)) else {}
        groups.append([named.get(group, group) for group in inside])
    return [
        table.TableRow(
            row.where,
            row.split,
            row.fields[choice.label],
            row.fields[choice.name] if choice.name is not None else names[row.fields[choice.label]],
            root / row.file,
            row.file,
            tuple(level[i] for level in groups),
        )
        for i, row in enumerate(rows)
        if row.fields[choice.label]
    ], _level_names([family.columns[level] for level in choice.levels])


def _level_names(columns: Sequence[str]) -> list[str]:
    """The names of the columns of coarser classes; "coarse" for one without a name."""
    if len(columns) == 1 and columns[0].startswith("column "):
        return ["coarse"]
    return [name.replace("column ", "coarse ") for name in columns]


def _folders(rows: Sequence[Row]) -> list[tuple[str, ...]]:
    """The folders that may be the classes, of each row."""
    return list_folders.class_folders([row.inner for row in rows], [row.split for row in rows])


def _without_dummies(root: pathlib.Path, rows: list[Row], label: int, notes: Notes) -> list[Row]:
    """Leaves out a test list whose one label no training image has: it stands for none."""
    labels: dict[str, set[str]] = {}
    for row in rows:
        labels.setdefault(row.split, set()).add(row.fields[label])
    told = labels.get("test", set())
    if len(told) != 1 or len(labels["train"]) == 1:
        return rows
    (only,) = told
    tested = [row for row in rows if row.split == "test"]
    if only not in labels["train"] and (len(tested) > 2 or only in ("-1", "0")):
        notes.warnings.append(
            f"{root}: all {len(tested):,} test images have the label {only!r}, which no training "
            "image has; they are left out."
        )
        return [row for row in rows if row.split != "test"]
    if only in labels["train"] and len(tested) > 2:
        notes.warnings.append(
            f"{root}: all {len(tested):,} test images have the label {only!r}; if it only fills "
            "the column, take the list of the test split away."
        )
    return rows
