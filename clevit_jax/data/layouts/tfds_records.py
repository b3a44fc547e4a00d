"""Data sets that TFDS prepared in `array_record` form; read without TensorFlow."""

import bisect
import itertools
import os
import pathlib
import re
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from clevit_jax.data.dataset import SPLIT_WORDS, Example
from clevit_jax.data.layouts.listing import Found, Notes, Request, sample
from clevit_jax.errors import DataError, first_line

LOOKS_FOR = "dataset_info.json and features.json of TFDS, or a folder <version>/ with them"
NAME_FEATURE = "file_name"  # what `data.prepare` writes names to
_NAMED_BY = (NAME_FEATURE, "filename", "image/filename", "name")
_SPLITS = {name: split for split, words in SPLIT_WORDS.items() for name in words.tfds}
_FILES = ("dataset_info.json", "features.json")
_WANTED = re.compile(r"(\w+)(?:/(\w[\w.+=,-]*))?(?::(\d+\.\d+\.\d+))?", re.ASCII)
_BLOCK, _BLOCK_BYTES = 64, 4 << 20  # records read at a time: so many, of about so many bytes


def _is_prepared(folder: pathlib.Path) -> bool:
    return all((folder / name).is_file() for name in _FILES)


def _versions(folder: pathlib.Path) -> list[pathlib.Path]:
    """The prepared versions in a folder, the newest first."""
    if not folder.is_dir():
        return []
    inside = [
        path
        for path in folder.iterdir()
        if re.fullmatch(r"\d+\.\d+\.\d+", path.name, re.ASCII) and _is_prepared(path)
    ]
    return sorted(inside, key=lambda path: [int(n) for n in path.name.split(".")], reverse=True)


def fits(root: pathlib.Path, _: Request) -> str | None:
    """What the layout is recognised by, or None."""
    if _is_prepared(root):
        return " and ".join(_FILES)
    versions = _versions(root)
    if not versions:
        return None
    others = f", the newest of {len(versions)} versions" if len(versions) > 1 else ""
    return f"{_FILES[0]} in {versions[0].name}/{others}"


def data_dir(root: str | os.PathLike[str]) -> pathlib.Path:
    """The folder of all TFDS data sets: `root`, or where it is empty, TFDS's own default."""
    default = os.environ.get("TFDS_DATA_DIR") or os.path.join("~", "tensorflow_datasets")
    return pathlib.Path(os.fspath(root) or os.path.expanduser(default))


def read(root: pathlib.Path, request: Request, notes: Notes) -> Found:
    """A prepared data set: `root` itself, a version below it, or `request.tfds` below it.

    The image and the label are those of the supervised keys, else the only ones; names are those
    of a text feature (file_name, filename, image/filename or name), else `<split>/<index>`.
    Opening reads every record once, for labels and names, and finds damaged shards by that.
    """
    versions = [root] if _is_prepared(root) else _versions(root)
    folder = _named(root, request.tfds, notes) if request.tfds else next(iter(versions), None)
    if folder is None:
        if not request.tfds:
            notes.problems.append(
                f"{root} holds no prepared TFDS data set; looked for {LOOKS_FOR}."
            )
        return Found((), {"train": []})
    try:
        builder = _open(folder)
        schema = _schema(folder, builder.info, request)
    except DataError as error:
        notes.problems.extend(error.problems)
        return Found((), {"train": []})
    splits: dict[str, list[Example]] = {}
    unread = []
    for name in builder.info.splits:
        if name not in _SPLITS:
            unread.append(name)
        elif _SPLITS[name] in splits:
            notes.problems.append(f"{folder} has two validation splits; remove one.")
        else:
            splits[_SPLITS[name]] = _read_split(folder, builder, name, schema, notes)
    if unread:
        notes.warnings.append(f"{folder}: {len(unread)} split(s) are not read ({sample(unread)}).")
    if not splits.get("train") and not notes.problems:
        notes.problems.append(f"{folder} has no example in a split 'train'.")
    if "test" not in splits and "val" in splits:
        splits["test"] = splits.pop("val")
    return Found(schema.class_names, {"train": [], **splits})


def _named(root: pathlib.Path, wanted: str, notes: Notes) -> pathlib.Path | None:
    """The folder of `name`, `name/config` or either with `:version`."""
    match = _WANTED.fullmatch(wanted)
    if match is None:
        notes.problems.append(
            f"data.tfds is {wanted!r}; it must be a name, as name, name/config, name:1.0.0 or "
            "name/config:1.0.0."
        )
        return None
    name, config, version = match.groups()
    above = root / name / config if config else root / name
    versions = _versions(above)
    if version:
        found = [path for path in versions if path.name == version]
    elif versions or config or not above.is_dir():
        found = versions
    else:  # TFDS would ask the code of the data set for its default config
        configs = [path for path in sorted(above.iterdir()) if _versions(path)]
        if len(configs) > 1:
            which = ", ".join(f"{name}/{path.name}" for path in configs)
            notes.problems.append(f"{above} has several configs; set data.tfds to one of {which}.")
            return None
        found = [path for path in configs[:1] for path in _versions(path)]
    if not found:
        there = ""
        if root.is_dir():
            inside = sorted(path.name for path in root.iterdir() if path.is_dir())
            there = f" (there: {sample(inside)})" if inside else ""
        notes.problems.append(
            f"{root} holds no prepared TFDS data set {wanted!r}{there}; prepare it with `tfds "
            f"build {wanted} --file_format=array_record` where TensorFlow is installed, or set "
            "data.root to the folder that holds it."
        )
    return next(iter(found), None)


def _open(folder: pathlib.Path) -> Any:
    """The read-only builder of a prepared folder, which looks for nothing outside it."""
    import tensorflow_datasets as tfds

    try:
        builder = tfds.builder_from_directory(os.fspath(folder))
        formats = {form.value for form in builder.info.available_file_formats()}
    except Exception as error:  # whatever its parsers raise on damaged files
        why = f"cannot be opened as a data set of TFDS: {first_line(error).removesuffix('.')}"
        raise DataError([f"{folder} {why}; prepare it again."]) from error
    if "array_record" not in formats:
        raise DataError(
            [
                f"{folder} is in the form {' and '.join(sorted(formats)) or 'unknown'}, not in "
                "array_record; prepare it with `tfds build --file_format=array_record`, or from "
                "its images with tools/prepare_tfds.py."
            ]
        )
    return builder


class _Schema(NamedTuple):
    """Which features are read; `image` has the image alone."""

    label: str
    name: str | None
    class_names: tuple[str, ...]
    image: "_ImageFeature"


class _ImageFeature(NamedTuple):
    key: str
    features: Any
    decoders: Any

    def encoded(self, record: bytes) -> bytes:
        return self.features.deserialize_example_np(record, decoders=self.decoders)[self.key]


def _schema(folder: pathlib.Path, info: Any, request: Request) -> _Schema:
    """Raises DataError where a feature is missing or ambiguous."""
    import numpy as np
    import tensorflow_datasets as tfds

    features = dict(sorted(info.features.items()))  # TFDS has them in another order each time
    images = [
        key
        for key, feature in features.items()
        # A float image is stored as a PNG of its bits.
        if isinstance(feature, tfds.features.Image) and feature.np_dtype in (np.uint8, np.uint16)
    ]
    labels = [key for key, f in features.items() if isinstance(f, tfds.features.ClassLabel)]
    supervised = [key for key in info.supervised_keys or () if isinstance(key, str)]
    problems: list[str] = []
    chosen = []
    for what, setting, forced, candidates in (
        ("an image", "data.file_column", request.file_column, images),
        ("a class label", "data.label_column", request.label_column, labels),
    ):
        preferred = [key for key in candidates if key in supervised] or candidates
        if forced:
            preferred = [forced] if forced in candidates else []
        chosen.append(next(iter(preferred), ""))
        there = f"; it has {', '.join(features)}"
        if forced and not preferred:
            problems.append(f"{folder}: {setting} = {forced!r} is not {what}{there}.")
        elif not preferred:
            problems.append(f"{folder} has no feature that is {what}{there}.")
        elif len(preferred) > 1:
            problems.append(
                f"{folder}: each of {', '.join(preferred)} may be {what}; set {setting} to one."
            )
    image, label = chosen
    if label and not features[label].num_classes:
        problems.append(
            f"{folder}: the class label {label!r} does not say how many classes it has."
        )
    if problems:
        raise DataError(problems)
    texts = [key for key, f in features.items() if isinstance(f, tfds.features.Text)]
    name = next((key for key in _NAMED_BY if key in texts), None)
    alone = tfds.features.FeaturesDict({image: features[image]})
    as_stored = _ImageFeature(image, alone, {image: tfds.decode.SkipDecoding()})
    return _Schema(label, name, tuple(features[label].names), as_stored)


class _Shards:
    """Random access to the records of a split; safe to use from several threads."""

    def __init__(self, source: Any, parts: Sequence[Any], image: _ImageFeature):
        self._source = source
        self._paths = [pathlib.Path(part.filename) for part in parts]
        self._ends = list(itertools.accumulate(part.take for part in parts))
        self.image = image

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def __getitem__(self, index: int) -> bytes:
        """A record. Raises OSError where the shard is damaged."""
        try:
            record = self._source[index]
        except Exception as error:  # array_record raises RuntimeError
            raise OSError(str(error).split(";")[0].split("(")[0].strip() or "damaged") from error
        if not record:  # what array_record gives of a shard that was cut off
            raise OSError("the record is empty")
        return record

    def records(self) -> Iterator[bytes | OSError]:
        """All records, in blocks, which is several times as fast as one by one."""
        start, count = 0, 8  # a guess, before their size is known
        while start < len(self):
            indices = range(start, min(start + count, len(self)))
            try:
                records = self._source.__getitems__(list(indices))
            except Exception:  # array_record raises RuntimeError; of which record is found below
                records = [b""]
            if all(records):
                yield from records
                size = sum(map(len, records)) // len(records)
                count = max(1, min(_BLOCK, _BLOCK_BYTES // max(1, size)))
            else:
                yield from map(self._record_or_error, indices)
            start = indices.stop

    def _record_or_error(self, index: int) -> bytes | OSError:
        try:
            return self[index]
        except OSError as error:
            return error

    def place(self, index: int) -> str:
        shard = bisect.bisect_right(self._ends, index)
        start = self._ends[shard - 1] if shard else 0
        return f"{self._paths[shard]}, record {index - start}"


class Record:
    """An encoded image in a shard. Light: a data set has as many as images."""

    __slots__ = ("_index", "_shards")

    def __init__(self, shards: _Shards, index: int):
        self._shards = shards
        self._index = index

    def read(self) -> bytes:
        """The encoded image. Raises OSError where the shard is damaged."""
        return self._shards.image.encoded(self._shards[self._index])

    def __str__(self) -> str:
        return self._shards.place(self._index)


def _damage(parts: Sequence[Any]) -> Iterator[str]:
    """Sentences on shards that are missing, damaged, or hold another number of records."""
    from tensorflow_datasets.core import file_adapters

    for part in parts:
        path = pathlib.Path(part.filename)
        try:
            count = file_adapters.ArrayRecordFileAdapter.num_examples(path)
        except Exception as error:  # array_record raises RuntimeError, sometimes without a text
            why = "is cut off or damaged" if path.is_file() else "is missing"
            text = str(error).split(";")[0].strip()
            why += f" ({text})" if text and path.is_file() else ""
            yield f"{path} {why}; copy it again, or prepare the data set again."
            continue
        if count != part.examples_in_shard:
            yield (
                f"{path} has {count} records, but {path.parent / _FILES[0]} says "
                f"{part.examples_in_shard}; copy it again, or prepare the data set again."
            )


def _read_split(
    folder: pathlib.Path, builder: Any, split: str, schema: _Schema, notes: Notes
) -> list[Example]:
    from tensorflow_datasets.core import decode

    source = builder.as_data_source(
        split, deserialize_method=decode.DeserializeMethod.RAW_BYTES, file_format="array_record"
    )
    parts = builder.info.splits[split].file_instructions
    damage = list(_damage(parts))
    if damage:
        notes.problems.extend(damage)
        return []
    shards = _Shards(source, parts, schema.image)

    examples: list[Example] = []
    for index, record in enumerate(shards.records()):
        row = _label_and_name(shards, index, record, split, schema)
        if isinstance(row, str):
            notes.problems.append(row)
        else:
            examples.append(Example(Record(shards, index), row[0], 0, row[1]))
    return examples


def _label_and_name(
    shards: _Shards, index: int, record: bytes | OSError, split: str, schema: _Schema
) -> tuple[int, str] | str:
    """(label, name) of a record, or a sentence on what is wrong with it."""
    from tensorflow_datasets.proto import tf_example_pb2

    if isinstance(record, OSError):
        return f"{shards.place(index)} cannot be read: {record}; prepare the data set again."
    try:  # in the form of TFDS, but without its NumPy arrays, which cost most of the time
        values = tf_example_pb2.Example.FromString(record).features.feature
        (label,) = values[schema.label].int64_list.value
        texts = list(values[schema.name].bytes_list.value) if schema.name else []
    except Exception as error:  # whatever protobuf raises on what is no example
        return f"{shards.place(index)} is no example of the data set: {type(error).__name__}."
    if not 0 <= label < len(schema.class_names):
        return (
            f"{shards.place(index)} has the label {label}, but the {len(schema.class_names)} "
            "classes are numbered from 0; leave out what has no label."
        )
    if len(texts) != 1:
        return label, f"{split}/{index}"
    return label, texts[0].decode("utf-8", "surrogateescape")
