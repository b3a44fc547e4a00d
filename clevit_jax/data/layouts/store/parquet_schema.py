"""Columns of a Parquet file, recognised by their types and names."""

import collections
import json
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from clevit_jax.data.layouts.columns import choose_columns, is_known, quoted_names
from clevit_jax.data.layouts.listing import Request

_SOME = 1000  # rows that tell whether a column holds sentences
_PROSE = 100  # bytes of a value, on average, from which on they are sentences
_FEATURES = {"name", "split", "label", "features", "logits"}  # of `analysis.feature_file`


class Schema(NamedTuple):
    """The columns of a file that are read.

    Attributes:
        image: column of the encoded images, or of their files.
        nested: whether it is a struct, in whose field `bytes` they are.
        has_path: whether the struct has a field `path`, too.
        is_file: whether it holds no images, but names files: itself, or the field `path`.
        name: column of the names of the images, or None.
        plain: the columns of numbers and texts, which may tell something of the images.
        names: of all columns.
        classes: column -> names of the classes by label, where the metadata of the file has them.
    """

    image: str
    nested: bool
    has_path: bool
    is_file: bool
    name: str | None
    plain: tuple[str, ...]
    names: tuple[str, ...]
    classes: Mapping[str, list[str]]


def _is_binary(kind: Any) -> bool:
    from pyarrow import types

    return types.is_binary(kind) or types.is_large_binary(kind) or types.is_binary_view(kind)


def _is_nested(kind: Any) -> bool:
    from pyarrow import types

    return bool(types.is_struct(kind)) and any(
        f.name == "bytes" and _is_binary(f.type) for f in kind
    )


def is_plain(kind: Any) -> bool:
    """Whether a value is a number or a text."""
    from pyarrow import types

    if types.is_dictionary(kind):
        kind = kind.value_type
    texts = (types.is_string, types.is_large_string, types.is_string_view)
    numbers = (types.is_integer, types.is_floating, types.is_boolean)
    return any(is_kind(kind) for is_kind in (*texts, *numbers))


def _is_text(kind: Any) -> bool:
    from pyarrow import types

    return types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind)


def is_prose(name: str, column: Any) -> bool:
    """Whether a column of no known name holds sentences, which are no classes and take memory.

    Args:
        name: of the column.
        column: its values, or the first of them, of pyarrow.
    """
    from pyarrow import compute

    if is_known(name) or not _is_text(column.type) or not len(column):
        return False
    mean = compute.mean(compute.binary_length(column[:_SOME])).as_py()
    return mean is not None and mean > _PROSE


def _is_path(kind: Any) -> bool:
    """Whether a value is a struct that names a file, and holds no image."""
    from pyarrow import types

    is_struct = types.is_struct(kind) and not _is_nested(kind)
    return bool(is_struct) and any(f.name == "path" and _is_text(f.type) for f in kind)


def image_columns(schema: Any) -> list[str]:
    """Names of the columns that may hold encoded images."""
    return [field.name for field in schema if _is_binary(field.type) or _is_nested(field.type)]


def file_column(schema: Any, request: Request) -> str | None:
    """The column that names files, where none holds images; None where there is none."""
    structs = [field.name for field in schema if _is_path(field.type)]
    header = [
        field.name if _is_text(field.type) or _is_path(field.type) else "" for field in schema
    ]
    columns, _ = choose_columns(header, request)
    if columns.file is None:
        return structs[0] if len(structs) == 1 else None
    return header[columns.file]


def lists_of_images(schema: Any) -> list[str]:
    """Names of the columns that hold several images a row."""
    from pyarrow import types

    kinds = (types.is_list, types.is_large_list, types.is_fixed_size_list)
    return [
        field.name
        for field in schema
        if any(is_kind(field.type) for is_kind in kinds)
        and (_is_binary(field.type.value_type) or _is_nested(field.type.value_type))
    ]


def is_features(schema: Any) -> bool:
    """Whether a file is what `--mode features` writes, which may lie beside the images."""
    return set(schema.names) == _FEATURES and b"fingerprint" in (schema.metadata or {})


def choose_schema(
    schema: Any, request: Request, features: Any = None
) -> tuple[Schema | None, list[str]]:
    """Finds out by their types and names which columns are which.

    Args:
        schema: that of pyarrow.
        request: its `file_column` is that of the images, where given.
        features: of Hugging Face, as JSON; None takes those of the schema's metadata.

    Returns:
        The columns, or None and a sentence for each thing that keeps it from choosing.
    """
    image, problems = _choose_image(schema, request)
    header = [field.name if is_plain(field.type) else "" for field in schema]
    columns, _ = choose_columns(header, request, files=False)
    again = [name for name, count in collections.Counter(schema.names).items() if count > 1]
    problems += [f"the column {name!r} is there more than once; rename one." for name in again]
    if image is None or problems:
        return None, problems
    kind = schema.field(image).type
    is_nested = not _is_binary(kind) and not _is_text(kind)
    name = None if columns.file is None else header[columns.file]
    classes = _hub_classes(schema, features)
    plain = tuple(column for column in header if column and column != image)
    return Schema(
        image=image,
        nested=is_nested,
        has_path=is_nested and any(f.name == "path" and is_plain(f.type) for f in kind),
        is_file=not _is_binary(kind) and not _is_nested(kind),
        name=None if name == image else name,
        plain=plain,
        names=tuple(schema.names),
        classes={column: names for column in plain if (names := classes(column))},
    ), []


def _choose_image(schema: Any, request: Request) -> tuple[str | None, list[str]]:
    """The column of encoded images, or else of files; or a problem."""
    names = image_columns(schema)
    what = "encoded images (binary, or a struct with binary 'bytes')"
    if not names and (file := file_column(schema, request)) is not None:
        return file, []
    if not names and (lists := lists_of_images(schema)):
        return None, [
            f"each row of the column {lists[0]!r} holds several images, and an example has one; "
            "write a row for each."
        ]
    if request.file_column and request.file_column not in names:
        return None, [
            f"data.file_column = {request.file_column!r} is not a column of {what}; those are "
            f"{quoted_names(names)}."
        ]
    if not names:
        return None, [
            f"no column holds {what}, of {quoted_names(schema.names)}; write them in, or name "
            "their files in a column 'file_name'."
        ]
    called = [name for name in names if name.lower() in ("image", "img")]
    wanted = [request.file_column] if request.file_column else called or names
    if len(wanted) > 1:
        return None, [
            f"each of the columns {quoted_names(wanted)} may hold the images; set "
            "data.file_column to one of them."
        ]
    return wanted[0], []


def _hub_classes(schema: Any, features: Any) -> Callable[[str], list[str]]:
    """The class names that Hugging Face's `ClassLabel` has for a column; empty without it."""
    from pyarrow import types

    if features is None:
        try:
            features = json.loads(schema.metadata[b"huggingface"])["info"]["features"]
        except (KeyError, TypeError, ValueError, RecursionError):
            features = {}

    def classes(column: str) -> list[str]:
        try:
            names = features[column]["names"]
        except (KeyError, TypeError):
            return []
        usable = isinstance(names, list) and types.is_integer(schema.field(column).type)
        return [str(name) for name in names] if usable else []

    return classes
