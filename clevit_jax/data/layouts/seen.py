"""What lies in a folder that no reader knows: images, and files that are read in no layout."""

import collections
import os
import pathlib
import re
from typing import NamedTuple

from clevit_jax.data import no_image
from clevit_jax.data.layouts.csv import csv_table
from clevit_jax.data.layouts.listing import first_three, is_image
from clevit_jax.data.litter import is_litter

_ENTRIES = 100_000  # that are looked at
_READ = 20  # lists that are looked into
ARCHIVES = (".zip", ".rar", ".7z", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst", ".gz")
_SHEETS = (".xlsx", ".xls", ".ods", ".numbers")
_FILMS = (".mp4", ".mov", ".avi", ".mkv", ".webm", ".m4v", ".wmv")
_STORES = (
    *(".h5", ".hdf5", ".npz", ".npy", ".pkl", ".pickle", ".pt", ".pth", ".tfrecord", ".tfrecords"),
    *(".rec", ".beton", ".mdb", ".db", ".sqlite", ".bin", ".idx3-ubyte", ".feather"),
)
_LISTS = (".csv", ".tsv", ".txt", ".json", ".jsonl", ".mat")
_UNPACK = {".zip": "unzip", ".rar": "unrar x", ".7z": "7z x", ".gz": "tar -xzf", ".tgz": "tar -xzf"}


class Seen(NamedTuple):
    """Files by kind, relative to the data set; the first of each in the order of the names.

    Attributes:
        images: that are read.
        whole: whether everything was looked at.
        root: the data set.
        kinds: kind -> files.
    """

    images: list[str]
    whole: bool
    root: pathlib.Path
    kinds: dict[str, list[str]]


def look(root: pathlib.Path) -> Seen:
    """Lists a folder and what is below it, as far as `_ENTRIES` files and folders go."""
    images, kinds = list[str](), collections.defaultdict[str, list[str]](list)
    waiting, left = collections.deque([""]), _ENTRIES
    while waiting and left > 0:
        path = waiting.popleft()
        try:
            with os.scandir(root / path) as entries:
                found = sorted(entries, key=lambda entry: entry.name)
        except OSError:
            kinds["closed"].append(path)
            continue
        left -= len(found)
        for entry in found:
            if is_litter(entry.name):
                continue
            if entry.is_dir():
                waiting += [] if entry.is_symlink() else [f"{path}{entry.name}/"]
            elif is_image(entry.name) and entry.is_symlink() and not entry.is_file():
                kinds["lost"].append(path + entry.name)
            elif is_image(entry.name):
                images.append(path + entry.name)
            elif kind := _kind(entry.name, path):
                kinds[kind].append(path + entry.name)
    return Seen(images, not waiting, root, kinds)


def _no_list(path: pathlib.Path) -> str | None:
    """What a file is that is only called as a list, for a sentence; None if it may be one."""
    try:
        if pointer := no_image.pointer_at(path):
            return pointer
        with path.open("rb") as file:
            start = file.read(512).lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    except OSError:
        return None
    if not start:
        return "an empty file; fetch it again"
    if start.startswith((b"<!doctype html", b"<html")):
        return "an HTML page; the download failed, fetch it again"
    if start.startswith((b"pk\x03\x04", b"\xd0\xcf\x11\xe0")):
        return "a spreadsheet or an archive under another name; save it as CSV, or unpack it"
    return None


def archives_in(root: pathlib.Path) -> list[str]:
    """Names of the archives in a folder, sorted."""
    with os.scandir(root) as entries:
        return sorted(each.name for each in entries if each.name.lower().endswith(ARCHIVES))


def _kind(name: str, path: str) -> str | None:
    """The kind of a file that is read in no layout, or None."""
    low = name.lower()
    if re.fullmatch(r"(.*-idx[13]-ubyte(\.gz)?|data_batch(_[0-9]+)?|test_batch)", low):
        return "stores"  # of MNIST and of CIFAR
    for kind, endings in (
        ("archives", ARCHIVES),
        ("sheets", _SHEETS),
        ("films", _FILMS),
        ("stores", _STORES),
        ("boxes", (".xml",)),
    ):
        if low.endswith(endings):
            return kind
    if low.endswith(".txt") and "labels/" in f"/{path}".lower():
        return "boxes"
    return "lists" if low.endswith(_LISTS) and not low.startswith(("readme", "license")) else None


def say(seen: Seen, pattern: str | None) -> list[str]:
    """Sentences on what is there, and what to do with it to have it read.

    Args:
        seen: what is there.
        pattern: a sentence on what the names of the images tell, if they do.
    """
    said = list[str]()
    kinds = seen.kinds
    if archives := kinds.get("archives"):
        ending = os.path.splitext(archives[0].lower())[1]
        command = f" (`{_UNPACK[ending]} {archives[0]}`)" if ending in _UNPACK else ""
        said.append(f"{first_three(archives)}: an archive is not looked into; unpack it{command}.")
    if sheets := kinds.get("sheets"):
        said.append(
            f"{first_three(sheets)}: a spreadsheet is not read; save it as CSV, as train.csv with "
            "the columns file and label."
        )
    if stores := kinds.get("stores"):
        lmdb = any(file.endswith("data.mdb") for file in stores)
        said.append(
            f"{first_three(stores)}: {'an LMDB' if lmdb else 'such a file'} is not read; write its "
            "images into class folders, or into a Parquet file with the columns image and label."
        )
    lists = [name for name in kinds.get("lists", ()) if not csv_table.is_form(name)]
    no_lists = {name: what for name in lists[:_READ] if (what := _no_list(seen.root / name))}
    for what in dict.fromkeys(no_lists.values()):
        same = [name for name in no_lists if no_lists[name] == what]
        said.append(f"{first_three(same)}: {what}.")
    if lists := [name for name in lists if name not in no_lists]:
        said.append(f"{first_three(lists)}: not of a form of lists that is read.")
    if films := kinds.get("films"):
        said.append(f"{first_three(films)}: a film is not read; save pictures of it.")
    if boxes := kinds.get("boxes"):
        said.append(
            f"{len(boxes):,} file(s) of boxes, as {boxes[0]}, are not read; a class for each image "
            "is needed."
        )
    if lost := kinds.get("lost"):
        said.append(
            f"{len(lost):,} image(s) are links that lead nowhere ({first_three(lost)}); fetch what "
            "they lead to (`git annex get .`, `dvc pull`), or mend the links."
        )
    if closed := kinds.get("closed"):
        said.append(f"{first_three(closed)} may not be read; see to its permissions.")
    if seen.images and not no_lists:  # which may say it, when they are there
        more = "" if seen.whole else "more than "
        by_name = "" if pattern else ", or set data.label_pattern where the file's name tells it"
        said.append(
            f"Of {more}{len(seen.images):,} image(s) ({first_three(seen.images)}) nothing says the "
            "class: put each class into a folder of its own, or write train.csv with the columns "
            f"file and label{by_name}."
        )
        said += [pattern] if pattern else []
    elif not kinds:
        said.append("There is no image in it.")
    return said
