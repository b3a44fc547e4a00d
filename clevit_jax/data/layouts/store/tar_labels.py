"""Labels of images in tars: from members beside them, or from the folders that they are in."""

import itertools
import json
import os
import pathlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Self

from clevit_jax.data.layouts.columns import missing_column, quoted_names
from clevit_jax.data.layouts.listing import Notes, Request, first_three, is_image
from clevit_jax.data.layouts.record.records import choose_fields, plain_fields, text_of
from clevit_jax.data.layouts.store.slices import SlicedFile
from clevit_jax.data.layouts.store.tar_index import Member
from clevit_jax.data.split_names import splits_among
from clevit_jax.errors import Repeated

_SURE = ("cls", "class", "label", "target", "cls.txt", "label.txt", "class.txt")
_JSON, _TEXT = ("json",), ("txt", "text")
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


class TarLabels:
    """The labels of a data set in tars."""

    def __init__(self, ending: str, field: str = "", name_field: str = ""):
        """Says where the labels are.

        Args:
            ending: of the members that have them.
            field: of the JSON in these, or "" where the member is the label itself.
            name_field: of the JSON with the name that goes with the label, or "".
        """
        self._ending = ending
        self._field = field
        self._name_field = name_field

    @classmethod
    def chosen(
        cls, root: pathlib.Path, samples: Sequence[Sample], request: Request, notes: Notes
    ) -> Self | None:
        """Finds out where the labels are; None, and perhaps a problem, where there are none.

        Args:
            root: the data set, for sentences.
            samples: of all tars.
            request: its `label_column` is an ending of members or a field of JSON, where given.
            notes: gets a problem where it cannot be told.
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
            return cls(wanted.lower())
        if len(there["label"]) > 1 and not wanted:
            notes.problems.append(
                f"{root}: the members with the endings {quoted_names(there['label'])} may all hold "
                "the label; set data.label_column to one of them."
            )
            return None
        if there["label"] and not wanted:
            return cls(there["label"][0])
        if there["json"]:
            found = cls._in_json(samples, request)
            if found is not None:
                return found
            if not there["text"] or wanted:
                fields = plain_fields(_first_objects(samples))
                problem = missing_column("label", fields)
                if wanted:
                    problem = f"there is no field {wanted!r}, only {quoted_names(fields)}"
                    problem += "; set data.label_column to one of them."
                notes.problems.append(f"{root}: in the members *.json {problem}")
                return None
        if there["text"] and not wanted:
            return cls._in_text(root, samples, there["text"][0], notes)
        if wanted:
            notes.problems.append(
                f"{root}: data.label_column = {wanted!r} is no ending of members with labels; "
                f"those are {quoted_names(e for e in endings if label_kind(e))}."
            )
        return None

    @classmethod
    def _in_json(cls, samples: Sequence[Sample], request: Request) -> Self | None:
        objects = _first_objects(samples)
        header = plain_fields(objects)
        columns, wrong = choose_fields(header, request)
        if columns.label is None or any("may all hold the label" in each for each in wrong):
            return None
        name = "" if columns.class_name is None else header[columns.class_name]
        return cls("json", header[columns.label], name)

    @classmethod
    def _in_text(
        cls, root: pathlib.Path, samples: Sequence[Sample], ending: str, notes: Notes
    ) -> Self | None:
        """Texts are labels where few are different; else they are sentences on each image."""
        labels = cls(ending)
        silent = Notes([], [])
        texts = [text for text, _ in labels.of_each(samples, silent) if text]
        if len(set(texts)) * 2 <= len(texts):
            return labels
        notes.problems.append(
            f"{root}: the {len(texts)} members *.{ending} hold {len(set(texts))} different texts, "
            "so these seem to describe the images, and there is no other label; set "
            f"data.label_column={ending} if they are the classes."
        )
        return None

    def of_each(self, samples: Iterable[Sample], notes: Notes) -> Iterator[tuple[str, str]]:
        """The label of each sample and the name that goes with it, "" for none."""
        for file, inside in itertools.groupby(samples, key=lambda sample: sample.file):
            with file.path.open("rb", buffering=0) as tar:
                for sample in inside:
                    yield self._of(tar.fileno(), sample, notes)

    def _of(self, tar: int, sample: Sample, notes: Notes) -> tuple[str, str]:
        if self._ending not in sample.parts:
            return "", ""
        text = _read(tar, sample, self._ending, notes)
        if not self._field or text is None:
            return (text or "").strip(), ""
        content = _object(text)
        if content is None:
            _note(sample, self._ending, "is no JSON object", "are no JSON objects", notes)
            return "", ""
        label = text_of(content.get(self._field))
        return label, text_of(content.get(self._name_field)) if self._name_field else ""


def _first_objects(samples: Sequence[Sample]) -> list[Mapping[str, Any]]:
    """What the first members *.json hold."""
    objects = list[Mapping[str, Any]]()
    for sample in samples[:100]:
        if "json" in sample.parts:
            with sample.file.path.open("rb", buffering=0) as tar:
                text = _read(tar.fileno(), sample, "json", Notes([], []))
            content = _object(text or "")
            objects += [] if content is None else [content]
    return objects


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
