"""Labels of images in tars: from members beside them, or from the folders that they are in."""

import itertools
import json
import os
import pathlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from clevit_jax.data.layouts.columns import quoted_names
from clevit_jax.data.layouts.csv import csv_columns
from clevit_jax.data.layouts.csv.csv_form import Table
from clevit_jax.data.layouts.listing import Notes, Request, first_three, is_image
from clevit_jax.data.layouts.record.record_table import plain_fields, text_of
from clevit_jax.data.layouts.store.slices import SlicedFile
from clevit_jax.data.layouts.store.tar_index import Member
from clevit_jax.data.layouts.store.told import Labels, Told, tell
from clevit_jax.data.split_names import splits_among
from clevit_jax.errors import Repeated

_SURE = ("cls", "class", "label", "target", "cls.txt", "label.txt", "class.txt")
_JSON, _TEXT = ("json",), ("txt", "text")
_SOME = 100  # members that tell which fields there are
_LONGEST = 1 << 20  # bytes of a member with a label


class Sample(NamedTuple):
    """The members of a tar that have one name before the first dot of it.

    Attributes:
        file: the tar.
        split: of the tar, or "".
        key: that name, with folders.
        parts: ending, without capitals -> the member.
    """

    file: SlicedFile
    split: str
    key: str
    parts: dict[str, Member]


def label_kind(ending: str) -> str:
    """What a member may be by its ending: "label", "json", "text", or "" for nothing known."""
    for kind, endings in (("label", _SURE), ("json", _JSON), ("text", _TEXT)):
        if ending in endings:
            return kind
    return ""


def labels_beside(
    root: pathlib.Path, samples: Sequence[Sample], request: Request, notes: Notes
) -> Labels | None:
    """Finds out where the labels are; None, and perhaps a problem, where there are none.

    Args:
        root: the data set, for sentences.
        samples: of all tars.
        request: its `label_column` is an ending of members or a field of JSON, where given.
        notes: gets a problem where it cannot be told, and what is wrong with members.
    """
    every = dict.fromkeys(ending for sample in samples for ending in sample.parts)
    images = {ending for ending in every if is_image(f".{ending}")}
    # A licence or a list of classes beside the images is no label.
    endings = dict.fromkeys(
        ending
        for sample in samples
        if not images.isdisjoint(sample.parts)
        for ending in sample.parts
    )
    there = {kind: [e for e in endings if label_kind(e) == kind]
             for kind in ("label", "json", "text")}  # fmt: skip
    wanted = request.label_column
    if wanted.lower() in endings and label_kind(wanted.lower()) not in ("", "json"):
        return _as_texts(samples, wanted.lower(), notes)
    if len(there["label"]) > 1 and not wanted:
        notes.problems.append(
            f"{root}: the members with the endings {quoted_names(there['label'])} may all hold "
            "the label; set data.label_column to one of them."
        )
        return None
    if there["label"] and not wanted:
        return _as_texts(samples, there["label"][0], notes)
    if there["json"] and (wanted or not there["text"] or _is_told_in_json(samples, request)):
        return _in_json(root, samples, request, notes)
    if there["text"] and not wanted:
        return _in_text(root, samples, there["text"][0], notes)
    if wanted:
        notes.problems.append(
            f"{root}: data.label_column = {wanted!r} is no ending of members with labels; "
            f"those are {quoted_names(e for e in endings if label_kind(e))}."
        )
    return None


def _as_texts(samples: Sequence[Sample], ending: str, notes: Notes) -> Labels:
    """Labels that are all that some members hold."""
    texts = _texts(samples, ending, notes)
    return Labels([Told((text or "").strip()) for _, text in texts])


def _in_text(
    root: pathlib.Path, samples: Sequence[Sample], ending: str, notes: Notes
) -> Labels | None:
    """Texts are labels where few are different; else they are sentences on each image."""
    labels = _as_texts(samples, ending, notes)
    texts = [told.label for told in labels.told if told.label]
    if len(set(texts)) * 2 <= len(texts):
        return labels
    notes.problems.append(
        f"{root}: the {len(texts)} members *.{ending} hold {len(set(texts))} different texts, "
        "so these seem to describe the images, and there is no other label; set "
        f"data.label_column={ending} if they are the classes."
    )
    return None


def _is_told_in_json(samples: Sequence[Sample], request: Request) -> bool:
    """Whether the first members *.json have a field of labels, which then goes before texts."""
    table, _ = _json_table(samples[:_SOME], Notes([], []))
    return csv_columns.choose(table, request, _among(samples), files=False).labelled


def _in_json(
    root: pathlib.Path, samples: Sequence[Sample], request: Request, notes: Notes
) -> Labels | None:
    """Labels in fields of JSON, which are told as the columns of a table are."""
    table, of = _json_table(samples, notes)
    places = [f"{each.file.name}/{each.parts['json'].name}" for each in of]
    inside = f"{root}: in the members *.json"
    labels = tell(table, root, places, inside, table.header, request, _among(samples), notes)
    if labels is None:
        return None
    each = zip(of, labels.told, strict=True)
    told = {(sample.file, sample.key): about for sample, about in each}
    nothing = Told(groups=("",) * len(labels.levels))
    return labels._replace(
        told=[told.get((sample.file, sample.key), nothing) for sample in samples]
    )


def _among(samples: Sequence[Sample]) -> Callable[[set[str]], bool]:
    """Whether an image of the samples has one of some names, with or without its ending."""
    called = set[str]()
    for sample in samples:
        for ending in sample.parts:
            if is_image(f".{ending}"):
                base = sample.key.rpartition("/")[2]
                called |= {base, f"{base}.{ending}"}
    return lambda names: not called.isdisjoint(names)


def _json_table(samples: Sequence[Sample], notes: Notes) -> tuple[Table, list[Sample]]:
    """The members *.json as rows of text, of the fields that the first have; and whose they are."""
    texts = _texts([sample for sample in samples if "json" in sample.parts], "json", notes)
    objects = ((sample, _object(text)) for sample, text in texts if text is not None)
    first = list(itertools.islice(objects, _SOME))
    header = plain_fields([content for _, content in first if content is not None])
    rows, of = list[list[str]](), list[Sample]()
    for sample, content in itertools.chain(first, objects):
        if content is None:
            _note(sample, "json", "is no JSON object", "are no JSON objects", notes)
            continue
        rows.append([text_of(content.get(name)) for name in header])
        of.append(sample)
    return Table("", header, True, rows, list(range(len(rows)))), of


def _texts(
    samples: Iterable[Sample], ending: str, notes: Notes
) -> Iterator[tuple[Sample, str | None]]:
    """The text of a member of each sample; None where there is none, or it is no text."""
    for file, inside in itertools.groupby(samples, key=lambda sample: sample.file):
        with file.path.open("rb", buffering=0) as tar:
            for sample in inside:
                is_there = ending in sample.parts
                yield sample, _read(tar.fileno(), sample, ending, notes) if is_there else None


def _object(text: str) -> dict[str, Any] | None:
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) else None


def _read(tar: int, sample: Sample, ending: str, notes: Notes) -> str | None:
    """The text of a member of an open tar; None, and a problem, if it is none."""
    member = sample.parts[ending]
    if member.size > _LONGEST:
        _note(sample, ending, "is too long for a label", "are too long for labels", notes)
        return None
    data = os.pread(tar, member.size, member.start)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        _note(sample, ending, "is no UTF-8 text", "are no UTF-8 texts", notes)
        return None
    return text


def _note(sample: Sample, ending: str, what: str, of_many: str, notes: Notes) -> None:
    name = sample.parts[ending].name
    notes.problems.append(
        Repeated(
            f"{sample.file.path}: {name!r} {what}.",
            rule=f"{sample.file.path}: {{n}} of its members *.{ending} {of_many}",
            item=repr(name),
        )
    )


def labels_by_folder(names: Sequence[tuple[str, str]]) -> tuple[list[tuple[str, str]], str]:
    """The splits and classes that folders in tars tell.

    Args:
        names: tar and member of each image.

    Returns:
        (split or "", class) of each, and what is wrong, or "".
    """
    folders = [name.split("/")[:-1] for _, name in names]
    while all(folders) and len({each[0] for each in folders}) == 1:
        folders = [each[1:] for each in folders]
    splits = [""] * len(names)
    if all(folders):
        told = splits_among(sorted({each[0] for each in folders}))
        if all(each[0] in told for each in folders):
            splits = [told[each[0]] for each in folders]
            folders = [each[1:] for each in folders]
    unpack = "unpack them (tar -xf) to read them as folders"
    if all(len(each) == 1 for each in folders):
        return list(zip(splits, (each[0] for each in folders), strict=True)), ""
    if not any(folders):
        # As ImageNet comes: n01440764.tar has n01440764_18.JPEG.
        tars = [pathlib.PurePosixPath(tar).stem for tar, _ in names]
        bases = [name.rpartition("/")[2] for _, name in names]
        both = zip(tars, bases, strict=True)
        if len(set(tars)) > 1 and all(base.startswith(tar) for tar, base in both):
            return list(zip(splits, tars, strict=True)), ""
        shown = first_three([name for _, name in names])
        return [], (
            f"nothing in the tars tells the class of the images ({shown}): beside x.jpg there is "
            "no x.cls, x.json or x.txt, and they lie in no folders; pack the labels as well."
        )
    return [], (
        "the images in the tars lie at different depths, or in folders in folders, which may be "
        f"classes or not ({first_three(['/'.join(each) or '.' for each in folders])}); {unpack}."
    )
