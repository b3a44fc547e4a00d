"""Tables beside the images, as Hugging Face and Roboflow have them: `train/metadata.csv`."""

import os
import pathlib
import posixpath

from clevit_jax.data.layouts import table
from clevit_jax.data.layouts.csv.made_rows import Read, joined, with_folds
from clevit_jax.data.layouts.image_names import ImageNames
from clevit_jax.data.layouts.listing import Contents, Notes, Request, first_three, is_image
from clevit_jax.data.layouts.record.record_files import AnyCalled, head_of, read_records
from clevit_jax.data.layouts.record.record_table import choose_fields
from clevit_jax.data.layouts.record.records import (
    RecordReader,
    Records,
    choose_lists,
    open_places,
    split_by_folder,
)
from clevit_jax.data.split_names import splits_among

LOOKS_FOR = (
    "metadata.csv, metadata.jsonl or metadata.parquet with file_name, beside the images or in each "
    "split; another table in each split; or *.jsonl of files and labels"
)
_METADATA = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
_JSON_LINES = (".jsonl", ".ndjson", ".manifest")


def fits(root: pathlib.Path, request: Request) -> str | None:
    """What the layout is recognised by, or None. Only the beginning of each file is read."""
    any_called = ImageNames(root).any_called
    return (
        first_three([n for n in _lists(root) if _is_of_images(root / n, request, any_called)])
        or None
    )


def _is_of_images(path: pathlib.Path, request: Request, any_called: AnyCalled) -> bool:
    """Whether a list names images, and their labels, or else no folder that might be a class."""
    head = head_of(path, request, any_called)
    columns = choose_fields(head, request, any_called)
    if columns.file is None:
        return False
    is_metadata = path.name.lower() in _METADATA
    called = head.header[columns.file]
    if is_metadata and not called.endswith("file_name") and called != request.file_column:
        return False
    name = head.rows[0][columns.file] if head.rows else ""
    if not columns.labelled:
        return is_metadata and is_image(name) and "/" not in name
    if not name:  # of an empty table there is only the header to see
        return is_metadata
    return is_image(name) or (not is_metadata and not posixpath.splitext(name)[1])


def _has_files(path: pathlib.Path, request: Request, any_called: AnyCalled) -> bool:
    """Whether a list names files: one for testing may lack labels."""
    head = head_of(path, request, any_called)
    return choose_fields(head, request, any_called).file is not None


def _lists(root: pathlib.Path) -> dict[str, str]:
    """List below `root` -> the split that its folder or name means, or "".

    In `root` and in `data` of it: metadata and JSON lines. In their folders of splits: metadata, or
    the only table, as Roboflow's `train/_classes.csv`.
    """
    found = dict[str, str]()
    stems = dict[str, str]()
    for place in ("", "data/"):
        if not (root / place).is_dir():
            continue
        with os.scandir(root / place) as entries:
            inside = sorted(entries, key=lambda entry: entry.name)
        for entry in inside:
            stem, ending = posixpath.splitext(entry.name)
            if entry.name in _METADATA and entry.is_file():
                found[place + entry.name] = ""
            elif ending.lower() in _JSON_LINES and entry.name[0] != "." and entry.is_file():
                stems[place + entry.name] = stem
        splits = splits_among(entry.name for entry in inside if entry.is_dir())
        for folder, split in splits.items():
            tables = _tables(root / place / folder)
            metadata = [name for name in tables if name in _METADATA]
            for name in metadata or (tables if len(tables) == 1 else []):
                found[f"{place}{folder}/{name}"] = split
    told = splits_among(stems.values())
    return found | {name: told.get(stem, "") for name, stem in stems.items()}


def _tables(folder: pathlib.Path) -> list[str]:
    """Names of the tables in a folder of a split, in CSV or as metadata."""
    with os.scandir(folder) as entries:
        return sorted(
            entry.name
            for entry in entries
            if (entry.name.endswith(".csv") or entry.name in _METADATA)
            and entry.name[0] != "."
            and entry.is_file()
        )


def read(root: pathlib.Path, request: Request, notes: Notes) -> Contents:
    """Reads the metadata in `root`, `data` of it, and their folders of splits; and JSON lines.

    A list is a table in CSV or Parquet, or one JSON object a line. Files are relative to the folder
    of the list, or where `FilePlaces` finds all of them. The split is that of the folder or name of
    the list, else a column `split`, else that of the folder of the image. A list for testing
    without labels is left out.
    """
    places = open_places(root, notes)
    lists = {
        name: split
        for name, split in _lists(root).items()
        if _is_of_images(root / name, request, places.any_called)
        or (split == "test" and _has_files(root / name, request, places.any_called))
    }
    if not lists:
        notes.problems.append(f"{root} holds no list of images; looked for {LOOKS_FOR}.")
    chosen = choose_lists(lists, str(root), notes)
    if notes.problems:
        return Contents((), {"train": []})
    reader = RecordReader(root, request, places, notes)
    said = list[Read]()
    for name, split in chosen.items():
        listed = read_records(root / name, request, places.any_called, notes)
        beside = posixpath.join(posixpath.dirname(name), "")
        said.append(reader.read(Records(root / name, split, beside, *listed)))
    rows, levels = joined(said)
    if not rows and notes.problems:
        return Contents((), {"train": []})
    named = {row.name for row in rows}
    if unlisted := [file for file in places.images if file not in named]:
        notes.warnings.append(
            f"{root}: {len(unlisted)} images are in no list with labels, and are not read "
            f"({first_three(unlisted)})."
        )
    rows = split_by_folder(rows, places, request, root, notes)
    return with_folds(table.to_contents(rows, str(root), notes, levels=levels), said, notes)
