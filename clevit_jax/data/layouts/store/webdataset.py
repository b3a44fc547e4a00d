"""Tar files of images, as WebDataset has them: `x.jpg` and `x.cls`; or with a folder a class."""

import itertools
import os
import pathlib
import posixpath
from collections.abc import Iterable, Iterator, Sequence

from clevit_jax.data.layouts.listing import (
    Contents,
    Notes,
    Request,
    files_ending,
    first_three,
    is_image,
)
from clevit_jax.data.layouts.store import columnar
from clevit_jax.data.layouts.store.slices import Slice, SlicedFile
from clevit_jax.data.layouts.store.tar_index import TarError, members
from clevit_jax.data.layouts.store.tar_labels import (
    Sample,
    label_kind,
    labels_beside,
    labels_by_folder,
)
from clevit_jax.data.layouts.store.told import Labels, Told
from clevit_jax.data.split_names import splits_among
from clevit_jax.errors import Repeated

LOOKS_FOR = "*.tar with x.jpg and x.cls (x.json, x.txt), as WebDataset has, or a folder a class"
_COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")
_PEEK = 64  # members that tell what a tar is


def fits(root: pathlib.Path, request: Request) -> str | None:
    """What the layout is recognised by, or None. The first members of one tar are looked at.

    Tars of images without labels beside are often the archives that the folders there came in; so
    these count only where no other folder is.
    """
    del request
    shards = _shards(root)
    more = f" and {len(shards) - 1} more" if len(shards) > 1 else ""
    for name in list(shards)[:3]:
        seen = set[str]()
        try:
            for member in itertools.islice(members(root / name), _PEEK):
                _, ending = _parts(member.name)
                if is_image(f".{ending}"):
                    seen.add("image")
                elif label_kind(ending):
                    seen.add("label")
        except (TarError, OSError):
            seen.add("image")  # let `read` say what it is, where there is nothing else
        if seen == {"image", "label"} or ("image" in seen and _is_alone(root, shards)):
            return f"{name}{more}"
    return None


def _is_alone(root: pathlib.Path, shards: Iterable[str]) -> bool:
    """Whether there are no folders but those of tars, and no images."""
    used = {name.partition("/")[0] for name in shards}
    with os.scandir(root) as entries:
        others = [entry for entry in entries if entry.name not in used and entry.name[0] != "."]
    return not any(entry.is_dir() or is_image(entry.name) for entry in others)


def _shards(root: pathlib.Path) -> dict[str, str]:
    """Tar below `root` -> the split that it belongs to, or "".

    In `root`, and in its folders that are called as splits.
    """
    with os.scandir(root) as entries:
        names = sorted(entry.name for entry in entries if entry.is_dir())
    here = files_ending(root, ".tar")
    told = splits_among(posixpath.splitext(name)[0] for name in here)
    found = {name: told.get(posixpath.splitext(name)[0], "") for name in here}
    for folder, split in splits_among(names).items():
        found |= {f"{folder}/{name}": split for name in files_ending(root / folder, ".tar")}
    return found


def _parts(name: str) -> tuple[str, str]:
    """'a/b.seg.png' -> ('a/b', 'seg.png'), as WebDataset has it."""
    folder, slash, base = name.rpartition("/")
    stem, _, ending = base.partition(".")
    return f"{folder}{slash}{stem}", ending.lower()


def read(root: pathlib.Path, request: Request, notes: Notes) -> Contents:
    """Reads the tars in `root`, and in its folders that are called as splits.

    The members `x.jpg` and `x.cls` are an image and its label; the label may also be in a field of
    `x.json`, or in `x.txt` where that is a class and no sentence. Without any of these, the folder
    in the tar is the class. The split is told by the folder or the name of the tar. Images are read
    from their place in the tar when they are decoded.
    """
    shards = _shards(root)
    if packed := files_ending(root, _COMPRESSED):
        notes.warnings.append(
            f"{root}: {first_three(packed)} not read: in a compressed tar no image can be read "
            "alone; unpack it first (gunzip, or tar -xf)."
        )
    if not shards:
        notes.problems.append(f"{root} holds no tar file; looked for {LOOKS_FOR}.")
    unsplit = [name for name, split in shards.items() if not split]
    if unsplit and len(unsplit) < len(shards):
        notes.problems.append(
            f"{root / unsplit[0]} tells no split, as other tars of {root} do; name it train-*, "
            "val-* or test-*."
        )
    samples = [
        sample
        for name, split in shards.items()
        for sample in _samples(SlicedFile(root / name, name), split, notes)
    ]
    if not samples:
        if not notes.problems:
            notes.problems.append(f"{root}: the tars hold no image.")
        return Contents((), {"train": []})
    labels = labels_beside(root, samples, request, notes)
    if labels is None and not notes.problems:
        rows = list(_rows_by_folder(root, samples, notes))
        return columnar.to_contents(rows, root, None, Labels([]), request, notes)
    if labels is None:
        return Contents((), {"train": []})
    rows = list(_rows(root, samples, labels, request, notes))
    return columnar.to_contents(rows, root, None, labels, request, notes)


def _samples(file: SlicedFile, split: str, notes: Notes) -> Iterator[Sample]:
    """The samples of a tar that have an image or a label, in their order."""
    samples: dict[str, Sample] = {}
    links = list[str]()
    try:
        for member in members(file.path):
            key, ending = _parts(member.name)
            if posixpath.basename(key) == "" or key.startswith("__MACOSX/"):  # hidden
                continue
            if not is_image(f".{ending}") and not label_kind(ending):
                continue
            if member.start < 0:
                links.append(member.name)
                continue
            parts = samples.setdefault(key, Sample(file, split, key, {})).parts
            if ending in parts:
                notes.problems.append(
                    Repeated(
                        f"{file.path}: {member.name!r} is there more than once.",
                        rule=f"{file.path}: {{n}} of its members are there more than once",
                        item=repr(member.name),
                    )
                )
            parts[ending] = member
    except TarError as error:
        notes.problems.append(f"{file.path} cannot be read: {error}.")
    if links:
        notes.warnings.append(
            f"{file.path}: {len(links)} links in it are not followed ({first_three(links)})."
        )
    yield from samples.values()


def _rows(
    root: pathlib.Path,
    samples: Sequence[Sample],
    labels: Labels,
    request: Request,
    notes: Notes,
) -> Iterator[tuple[columnar.Row, Told]]:
    """The images, with labels from members beside them."""
    lost = list[str]()
    several: dict[str, str] = {}
    for sample, told in zip(samples, labels.told, strict=True):
        images = [ending for ending in sample.parts if is_image(f".{ending}")]
        if len(images) > 1 and request.file_column.lower() in images:
            images = [request.file_column.lower()]
        if len(images) == 1:
            _check_split(sample, told.split, "its JSON is", "the JSON of {n} images is", notes)
            yield _row(sample, images[0], told)
        elif images:
            several.setdefault(" and ".join(sorted(images)), sample.key)
        else:
            lost.append(sample.key)
    for endings, key in several.items():
        notes.problems.append(
            f"{root}: {key!r} and others have several images, {endings}; set data.file_column to "
            "one of these endings."
        )
    if lost:
        notes.warnings.append(
            f"{root}: {len(lost)} labels in the tars have no image beside, and are not read "
            f"({first_three(lost)})."
        )


def _rows_by_folder(
    root: pathlib.Path, samples: Sequence[Sample], notes: Notes
) -> Iterator[tuple[columnar.Row, Told]]:
    """The images, with the folder that each is in as its class."""
    images = [
        (sample, ending) for sample in samples for ending in sample.parts if is_image(f".{ending}")
    ]
    names = [(sample.file.name, sample.parts[ending].name) for sample, ending in images]
    told, problem = labels_by_folder(names)
    if problem:
        notes.problems.append(f"{root}: {problem}")
        return
    for (sample, ending), (split, label) in zip(images, told, strict=True):
        of_many = "the folders of {n} images are"
        _check_split(sample, split, f"the folder of {sample.key!r} is", of_many, notes)
        yield _row(sample, ending, Told(label, split=split))


def _check_split(sample: Sample, split: str, what: str, of_many: str, notes: Notes) -> None:
    """Notes it where a sample is of another split than its tar."""
    if split and sample.split and split != sample.split:
        notes.problems.append(
            Repeated(
                f"{sample.file.path}, {sample.key}: {what} of the {split} split, but the tar is of "
                f"the {sample.split} split.",
                rule=f"{sample.file.path}: {of_many} of another split than the tar",
                item=repr(sample.key),
            )
        )


def _row(sample: Sample, ending: str, told: Told) -> tuple[columnar.Row, Told]:
    member = sample.parts[ending]
    image = Slice(sample.file, member.start, member.size, member.name)
    where = f"{sample.file.path}, {member.name}"
    name = f"{sample.file.name}/{member.name}"
    told = told._replace(split=sample.split or told.split)
    return columnar.Row(where, image, name, ""), told
