"""Columns of a Parquet file, recognised by their types and names."""

import collections
import json
from typing import Any, NamedTuple

from clevit_jax.data.layouts.columns import choose_columns, missing_column, quoted_names
from clevit_jax.data.layouts.listing import Request

_FEATURES = {"name", "split", "label", "features", "logits"}  # of `analysis.feature_file`


class Schema(NamedTuple):
    """The columns of a file that are read.

    Attributes:
        image: column of the encoded images.
        nested: whether it is a struct, in whose field `bytes` they are.
        has_path: whether the struct has a field `path`, too.
        label, class_name, split, name: other columns, or None; `name` is that of the images.
        classes: names of the classes by label, where the metadata of the file has them.
    """

    image: str
    nested: bool
    has_path: bool
    label: str
    class_name: str | None
    split: str | None
    name: str | None
    classes: list[str]

    @property
    def encoded(self) -> str:
        """Path of the encoded images in the file."""
        return f"{self.image}.bytes" if self.nested else self.image


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


def image_columns(schema: Any) -> list[str]:
    """Names of the columns that may hold encoded images."""
    return [field.name for field in schema if _is_binary(field.type) or _is_nested(field.type)]


def is_features(schema: Any) -> bool:
    """Whether a file is what `--mode features` writes, which may lie beside the images."""
    return set(schema.names) == _FEATURES and b"fingerprint" in (schema.metadata or {})


def choose_schema(schema: Any, request: Request) -> tuple[Schema | None, list[str]]:
    """Finds out by their types and names which columns are which.

    Args:
        schema: that of pyarrow.
        request: its `file_column` is that of the images, and its `label_column` that of the labels,
            where given.

    Returns:
        The columns, or None and a sentence for each thing that keeps it from choosing.
    """
    image, problems = _choose_image(schema, request)
    header = [field.name if is_plain(field.type) else "" for field in schema]
    columns, wrong = choose_columns(header, request, files=False)
    problems += wrong
    if columns.label is None and not request.label_column:
        problems.append(missing_column("label", schema.names))
    again = [name for name, count in collections.Counter(schema.names).items() if count > 1]
    problems += [f"the column {name!r} is there more than once; rename one." for name in again]
    if image is None or columns.label is None or problems:
        return None, problems
    kind = schema.field(image).type
    nested = not _is_binary(kind)
    return Schema(
        image=image,
        nested=nested,
        has_path=nested and any(f.name == "path" and is_plain(f.type) for f in kind),
        label=header[columns.label],
        class_name=None if columns.class_name is None else header[columns.class_name],
        split=None if columns.split is None else header[columns.split],
        name=None if columns.file is None else header[columns.file],
        classes=_hub_classes(schema, header[columns.label]),
    ), []


def _choose_image(schema: Any, request: Request) -> tuple[str | None, list[str]]:
    """The column of encoded images, or a problem."""
    names = image_columns(schema)
    what = "encoded images (binary, or a struct with binary 'bytes')"
    if request.file_column and request.file_column not in names:
        return None, [
            f"data.file_column = {request.file_column!r} is not a column of {what}; those are "
            f"{quoted_names(names)}."
        ]
    if not names:
        return None, [f"no column holds {what}, of {quoted_names(schema.names)}; write them in."]
    called = [name for name in names if name.lower() in ("image", "img")]
    wanted = [request.file_column] if request.file_column else called or names
    if len(wanted) > 1:
        return None, [
            f"each of the columns {quoted_names(wanted)} may hold the images; set "
            "data.file_column to one of them."
        ]
    return wanted[0], []


def _hub_classes(schema: Any, label: str) -> list[str]:
    """The class names that Hugging Face's `ClassLabel` has for a column; empty without it."""
    from pyarrow import types

    try:
        features = json.loads(schema.metadata[b"huggingface"])["info"]["features"]
        names = features[label]["names"]
    except (KeyError, TypeError, ValueError):
        return []
    usable = isinstance(names, list) and types.is_integer(schema.field(label).type)
    return [str(name) for name in names] if usable else []
