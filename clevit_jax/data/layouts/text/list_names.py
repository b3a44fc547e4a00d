"""Which files are lists of images: `train.txt`, `anno/ct_train.txt`, `images_variant_test.txt`."""

import collections
import os
import pathlib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from clevit_jax.data.dataset import SPLIT_WORDS
from clevit_jax.data.layouts.csv import encoding
from clevit_jax.data.layouts.listing import (
    BLANKS,
    EXTENSIONS,
    Notes,
    files_below,
    first_three,
    is_image,
)
from clevit_jax.data.layouts.text import ufg
from clevit_jax.data.layouts.text.list_lines import first_names, is_comment, names_images
from clevit_jax.data.split_names import split_and_rest, splits_among

_ENDINGS = (".txt", ".lst", ".list", "")
# Words in the names of folders that hold lists.
_PLACES = frozenset(
    [
        *("anno", "annos", "annot", "annots", "annotation", "annotations", "meta", "metadata"),
        *("split", "splits", "list", "lists", "imageset", "imagesets", "sets", "main", "label"),
        *("labels", "devkit", "data", "dataset", "partition", "partitions", "txt", "info", "file"),
        *("files", "filelist", "filelists", "index", "indices", "traintest", "classification"),
        "lst",
    ]
)
_SPLIT = re.compile(r"tra?in|trn|val|dev|test|tst|eval|hold", re.IGNORECASE)
# Names of a list of all images.
_ALL = frozenset(
    [
        *("list", "lists", "all", "label", "labels", "data", "dataset", "images", "image_list"),
        *("images_list", "annotation", "annotations", "files", "file_list", "filelist", "index"),
    ]
)
_MANY = 200  # files with a split in their names: these are labels of one image each
_DEEPEST = 2  # folders of lists in each other, as ImageSets/Main
_PEEK = 1 << 16  # bytes, enough to see what a list is of
_SEEN = 20  # lines of these


class ImageList(NamedTuple):
    """A list of the images of one split.

    Attributes:
        path: of the file.
        split: "train", "val" or "test".
        family: what its name says besides: "variant" of images_variant_train.txt.
        labels: a file with the label of each line, where the list itself has none.
    """

    path: pathlib.Path
    split: str
    family: str
    labels: pathlib.Path | None = None


def find(root: pathlib.Path, notes: Notes) -> dict[str, dict[str, ImageList]]:
    """The lists of a data set: family -> split -> list.

    Only the beginning of each file is read. A family without a list of training images is none.
    Where there are train, val and trainval, the first two are read; of numbered partitions
    (`train1.txt`, `test1.txt`, ...) the first.

    Args:
        root: of the data set.
        notes: gets a problem where two lists may be that of a split, and a warning on each that is
            not read.
    """
    families: dict[str, dict[str, list[ImageList]]] = {}
    for found in _candidates(root):
        families.setdefault(found.family, {}).setdefault(found.split, []).append(found)
    chosen = dict[str, dict[str, ImageList]]()
    for family, splits in families.items():
        if not any(_lists_images(root, found) for found in splits.get("train", ())):
            continue
        splits = {
            split: [each for each in lists if len(lists) == 1 or _lists_images(root, each)]
            for split, lists in ((split, _with_labels(lists)) for split, lists in splits.items())
        }
        splits = _first_partition(root, _without_union(root, splits, notes), notes)
        for split, lists in splits.items():
            if len(lists) > 1 and not _same_bytes(lists):
                both = " and ".join(str(each.path.relative_to(root)) for each in lists[:2])
                notes.problems.append(
                    f"{root}: {both} may both be the list of the {split} split; keep "
                    "one, or join them."
                )
        chosen[family] = {split: lists[0] for split, lists in splits.items() if lists}
    for family in [name for name in families if name not in chosen] if chosen else ():
        _adopt(root, family, families[family], chosen, notes)
    return chosen


def _adopt(
    root: pathlib.Path,
    family: str,
    splits: Mapping[str, list[ImageList]],
    chosen: dict[str, dict[str, ImageList]],
    notes: Notes,
) -> None:
    """Gives lists without one for training to the family whose name says theirs and more.

    So `places365_val.txt` goes with `places365_train_standard.txt`. Others are not read, and it is
    said.
    """
    words = set(family.split())
    near = [name for name in chosen if words <= set(name.split())]
    for split, lists in splits.items():
        listing = [each for each in lists if _lists_images(root, each)]
        if len(listing) == len(near) == 1 and split not in chosen[near[0]]:
            chosen[near[0]][split] = listing[0]
        elif listing:
            shown = first_three([each.path.relative_to(root).as_posix() for each in listing])
            notes.warnings.append(
                f"{root}: {shown}: not read, as no list of training images is called alike."
            )


def relative(root: pathlib.Path, families: Mapping[str, Mapping[str, ImageList]]) -> str:
    """The lists that there are, for sentences."""
    paths = [
        path.relative_to(root).as_posix()
        for splits in families.values()
        for each in sorted(splits.values(), key=lambda each: list(SPLIT_WORDS).index(each.split))
        for path in (each.path, each.labels)
        if path is not None
    ]
    shown = [*paths[:3], f"{len(paths) - 3} more"] if len(paths) > 4 else paths
    return " and ".join(shown)


def _candidates(root: pathlib.Path) -> Iterator[ImageList]:
    """Files that are called as lists of a split are, sorted."""
    paths = sorted(_files(root, 0))
    if any(path.parent.name == "anno" for path in paths) and ufg.is_annotated(root):
        paths = [path for path in paths if path.parent != root / "anno"]
    splits = splits_among(dict.fromkeys(path.stem for path in paths))
    if "train" not in splits.values():  # a name that has no partner is a weaker sign
        told = {path.stem: split_and_rest(path.stem)[0] for path in paths}
        splits = {stem: split for stem, split in told.items() if split is not None}
    splits = {stem: split for stem, split in splits.items() if stem.lower() not in _ALL}
    if "train" not in splits.values():
        yield from _of_all(root, [path for path in paths if path.stem.lower() in _ALL])
    for path in paths:
        if path.stem in splits:
            yield ImageList(path, splits[path.stem], split_and_rest(path.stem)[1])


def _of_all(root: pathlib.Path, paths: list[pathlib.Path]) -> list[ImageList]:
    """The list of all images, where there is one whose every line has a file and a label."""
    if (root / "image_class_labels.txt").exists():  # images.txt is of CUB's form
        return []
    lists = [ImageList(path, "train", "") for path in paths]
    return [
        each
        for each in lists
        if all(len(re.split(rf"[{BLANKS},;|]+", line)) > 1 for line in _head(each.path))
        and not _names_classes(_head(each.path))
        and _lists_images(root, each)
    ]


def _names_classes(lines: Sequence[str]) -> bool:
    """Whether lines count 0, 1, 2, ... and each has a name of its own, as lists of classes do."""
    parts = [re.fullmatch(r"([0-9]+)[\s,;:.]+(.*[^\W\d].*)", line) for line in lines]
    numbers = [int(match[1]) for match in parts if match]
    names = {match[2] for match in parts if match}
    is_count = numbers in (list(range(len(lines))), list(range(1, len(lines) + 1)))
    return is_count and len(names) == len(lines) and not names_images(lines)


def _files(folder: pathlib.Path, depth: int) -> Iterator[pathlib.Path]:
    files, folders = list[pathlib.Path](), list[pathlib.Path]()
    with os.scandir(folder) as entries:
        for entry in entries:
            name = entry.name
            if name.startswith("."):
                continue
            if may_list(name) and entry.is_file():
                files.append(folder / name)
            elif depth < _DEEPEST and not is_image(name) and _is_place(name) and entry.is_dir():
                folders.append(folder / name)
    if len(files) <= _MANY:
        yield from files
    for inner in folders:
        yield from _files(inner, depth + 1)


def may_list(name: str) -> bool:
    """Whether a file is called as a list of images is."""
    stem, ending = os.path.splitext(name.lower())
    return ending in _ENDINGS and bool(_SPLIT.search(stem) or (ending and stem in _ALL))


def _is_place(name: str) -> bool:
    return bool(_PLACES & set(re.findall(r"[a-z]+", name.lower())))


def _head(path: pathlib.Path) -> list[str]:
    """The first lines of a file, stripped, without blank ones and comments."""
    with path.open("rb") as file:
        data = file.read(_PEEK)
    lines = re.split(r"\r\n|\n|\r", encoding.begun(data))
    lines = lines[:-1] if len(data) == _PEEK and len(lines) > 1 else lines
    lines = [line.strip(BLANKS) for line in lines]
    return [line for line in lines if line and not is_comment(line)][:_SEEN]


def _lists_images(root: pathlib.Path, found: ImageList) -> bool:
    """Whether a file names images: with their endings, or without, and they are there."""
    lines = _head(found.path)
    if names_images(lines[1:]) or names_images(lines):
        return True
    names = [name for line in lines[:2] for name in first_names(line)]
    names = [name.replace("\\", "/").strip("/") for name in names if len(name) < 1000]
    folders = (root, root / "images", root / "jpg", found.path.parent, found.path.parent / "images")
    for folder in folders:
        for name in names:
            if any(os.path.exists(f"{folder}/{name}{end}") for end in (".jpg", ".png", ".JPG")):
                return True
    if not any(re.search(r"[0-9]", name) for name in names):  # a text of words
        return False
    ends = tuple(f"/{name}{ending}" for name in names for ending in EXTENSIONS if name)
    return any(f"/{file}".lower().endswith(ends) for file in files_below(str(root), hidden=False))


def _with_labels(lists: list[ImageList]) -> list[ImageList]:
    """Puts together `train_images.txt` and `train_labels.txt`, which go line by line."""
    heads = [_head(each.path) for each in lists] if len(lists) == 2 else []
    for place, head in enumerate(heads):
        images, labels = lists[1 - place], lists[place]
        words = {len(re.split(rf"[{BLANKS},;|]+", line)) for line in head}
        called = ["label" in each.path.stem.lower() for each in (labels, images)]
        alone = words == {1} and not names_images(head) and names_images(heads[1 - place])
        if alone and called == [True, False]:
            return [images._replace(labels=labels.path)]
    return lists


def _without_union(
    root: pathlib.Path, splits: dict[str, list[ImageList]], notes: Notes
) -> dict[str, list[ImageList]]:
    """Leaves out trainval where train and val are there."""
    train = splits.get("train", [])
    unions = [each for each in train if re.search(r"trainval|train_?val", each.path.stem.lower())]
    if not unions or len(unions) == len(train) or "val" not in splits:
        return splits
    notes.warnings.append(
        f"{root}: {unions[0].path.relative_to(root)} is not read, for train and val are there."
    )
    return {**splits, "train": [each for each in train if each not in unions]}


def _first_partition(
    root: pathlib.Path, splits: dict[str, list[ImageList]], notes: Notes
) -> dict[str, list[ImageList]]:
    """Of lists that are numbered alike in each split, the first."""
    numbered = dict[str, dict[int, ImageList]]()
    for split, lists in splits.items():
        told = {int(match[1]): each for each in lists
                if (match := re.search(r"([0-9]{1,4})$", each.path.stem))}  # fmt: skip
        if len(told) < len(lists):
            return splits
        numbered[split] = told
    counts = collections.Counter(number for told in numbered.values() for number in told)
    if len(splits) < 2 or len(counts) < 2 or set(counts.values()) != {len(splits)}:
        return splits
    first = min(counts)
    names = ", ".join(
        str(numbered[split][first].path.relative_to(root))
        for split in SPLIT_WORDS
        if split in numbered
    )
    notes.warnings.append(
        f"{root} has {len(counts)} partitions; read is the first ({names}); to read another, move "
        "the lists of the others away."
    )
    return {split: [told[first]] for split, told in numbered.items()}


def _same_bytes(lists: list[ImageList]) -> bool:
    """Whether the lists are copies of each other."""
    return len({each.path.read_bytes() for each in lists}) == 1
