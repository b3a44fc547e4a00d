"""The layout of data sets that TFDS prepared in `array_record` form; read without TensorFlow."""

import json
import os
import pathlib
import re
from typing import Any

from clevit_jax.data.dataset import SPLIT_WORDS, Example, Level
from clevit_jax.data.layouts.listing import Contents, Notes, Request, first_three
from clevit_jax.data.layouts.store.tfds_schema import TfdsSchema, choose_features
from clevit_jax.data.layouts.store.tfds_shards import Shards, TfdsImage, damage
from clevit_jax.errors import DataError, Repeated, first_line
from clevit_jax.system.places import place

LOOKS_FOR = "dataset_info.json and features.json of TFDS, or a folder <version>/ with them"
_SPLITS = {name: split for split, words in SPLIT_WORDS.items() for name in words.tfds}
LEVELS_FILE = "levels.json"  # level -> the group of each class
_FILES = ("dataset_info.json", "features.json")
_WANTED = re.compile(r"(\w+)(?:/(\w[\w.+=,-]*))?(?::(\d+\.\d+\.\d+))?", re.ASCII)


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
    return place(root, "data.root") if os.fspath(root) else place(default, "TFDS_DATA_DIR")


def read(root: pathlib.Path, request: Request, notes: Notes) -> Contents:
    """Reads a prepared data set: `root` itself, a version below it, or `request.tfds` below it.

    The image and the label are those of the supervised keys, else the only ones; names are those
    of a text feature (file_name, filename, image/filename or name), else `<split>/<index>`.
    Opening reads every record once, for labels and names, and finds damaged shards by that.
    """
    versions = [root] if _is_prepared(root) else _versions(root)
    folder = next(iter(versions), None)
    if request.tfds:
        folder = _named_folder(root, request.tfds, notes)
    if folder is None:
        if not request.tfds:
            notes.problems.append(
                f"{root} holds no prepared TFDS data set; looked for {LOOKS_FOR}."
            )
        return Contents((), {"train": []})
    try:
        builder = _open(folder)
        schema = choose_features(folder, builder.info, request)
    except DataError as error:
        notes.problems.extend(error.problems)
        return Contents((), {"train": []})
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
        notes.warnings.append(
            f"{folder}: {len(unread)} split(s) are not read ({first_three(unread)})."
        )
    if not splits.get("train") and not notes.problems:
        notes.problems.append(f"{folder} has no example in a split 'train'.")
    if "test" in splits and not splits["test"] and builder.info.splits["test"].num_examples:
        del splits["test"]
    if "test" not in splits and "val" in splits:
        splits["test"] = splits.pop("val")
    levels = _levels(folder, len(schema.class_names), notes)
    return Contents(schema.class_names, {"train": [], **splits}, levels)


def _levels(folder: pathlib.Path, num_classes: int, notes: Notes) -> tuple[Level, ...]:
    """Coarser levels of the classes, which tools/prepare_tfds.py writes where there are any."""
    path = folder / LEVELS_FILE
    if not path.is_file():
        return ()
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
        levels = tuple(Level(name, tuple(groups)) for name, groups in told.items())
        if all(len(level.groups) == num_classes and level.groups for level in levels) and all(
            isinstance(group, str) for level in levels for group in level.groups
        ):
            return levels
    except (ValueError, TypeError, AttributeError):
        pass
    notes.problems.append(
        f"{path} does not name a group for each of the {num_classes} classes; prepare the data set "
        "again, or remove the file to go without coarser levels."
    )
    return ()


def _named_folder(root: pathlib.Path, wanted: str, notes: Notes) -> pathlib.Path | None:
    """The folder of `name`, `name/config` or either with `:version`; None, and a problem."""
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
        prepared = [path for path in versions if path.name == version]
    elif versions or config or not above.is_dir():
        prepared = versions
    else:  # TFDS would ask the code of the data set for its default config
        configs = [path for path in sorted(above.iterdir()) if _versions(path)]
        if len(configs) > 1:
            which = ", ".join(f"{name}/{path.name}" for path in configs)
            notes.problems.append(f"{above} has several configs; set data.tfds to one of {which}.")
            return None
        prepared = [path for path in configs[:1] for path in _versions(path)]
    if not prepared:
        there = ""
        if root.is_dir():
            inside = sorted(path.name for path in root.iterdir() if path.is_dir())
            there = f" (there: {first_three(inside)})" if inside else ""
        notes.problems.append(
            f"{root} holds no prepared TFDS data set {wanted!r}{there}; prepare it with `tfds "
            f"build {wanted} --file_format=array_record` where TensorFlow is installed, or set "
            "data.root to the folder that holds it."
        )
    return next(iter(prepared), None)


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


def _read_split(
    folder: pathlib.Path, builder: Any, split: str, schema: TfdsSchema, notes: Notes
) -> list[Example]:
    from tensorflow_datasets.core import decode

    source = builder.as_data_source(
        split, deserialize_method=decode.DeserializeMethod.RAW_BYTES, file_format="array_record"
    )
    parts = builder.info.splits[split].file_instructions
    if problems := list(damage(parts)):
        notes.problems.extend(problems)
        return []
    shards = Shards(source, parts, schema.image)

    examples: list[Example] = []
    wrong: list[str] = []
    unlabelled = 0
    for index, record in enumerate(shards.records()):
        row = _label_and_name(shards, index, record, split, schema)
        if isinstance(row, str):
            wrong.append(row)
            unlabelled += isinstance(row, Repeated)
        else:
            examples.append(Example(TfdsImage(shards, index), row[0], 0, row[1]))
    if split in SPLIT_WORDS["test"].tfds and len(wrong) == unlabelled > 0 and not examples:
        notes.warnings.append(
            f"{folder}: none of the {unlabelled:,} test images has a label, so they are not read."
        )
    else:
        notes.problems.extend(wrong)
    return examples


def _label_and_name(
    shards: Shards, index: int, record: bytes | OSError, split: str, schema: TfdsSchema
) -> tuple[int, str] | str:
    """The label and the name in a record, or a sentence on what is wrong with it."""
    from tensorflow_datasets.proto import tf_example_pb2

    if isinstance(record, OSError):
        return f"{shards.place(index)} cannot be read: {record}; prepare the data set again."
    try:  # in the form of TFDS, but without its NumPy arrays, which cost most of the time
        values = tf_example_pb2.Example.FromString(record).features.feature
        (label,) = values[schema.label].int64_list.value
        texts = list(values[schema.name].bytes_list.value) if schema.name else []
    except Exception as error:  # whatever protobuf raises on other data
        return (
            f"{shards.place(index)} is not an example of the data set ({type(error).__name__}); "
            "prepare the data set again."
        )
    if not 0 <= label < len(schema.class_names):
        return Repeated(
            f"{shards.place(index)} has the label {label}, but the {len(schema.class_names)} "
            "classes are numbered from 0; leave out what has no label.",
            rule=(
                f"{{n}} records of the split {split!r} have a label that is not 0 to "
                f"{len(schema.class_names) - 1}; leave out what has no label"
            ),
            item=str(shards.place(index)),
        )
    if len(texts) != 1:
        return label, f"{split}/{index}"
    return label, texts[0].decode("utf-8", "surrogateescape")
