"""Records of images, one object each, as lists in JSON, JSON lines and tables of metadata have."""

import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from clevit_jax.data.layouts import table
from clevit_jax.data.layouts.columns import (
    OF_CLASSES,
    Columns,
    as_setting,
    choose_columns,
    missing_column,
    plain,
    quoted_names,
    unread_folds,
)
from clevit_jax.data.layouts.file_places import FilePlaces
from clevit_jax.data.layouts.listing import BLANKS, Notes, Request, first_three
from clevit_jax.data.layouts.split_codes import parts_of, split_meant
from clevit_jax.errors import Repeated

# What to say of a file that is not there, and of many.
_NONE = (
    "the file {} is not below the data set's folder",
    "{n} of the files that it names are not below the data set's folder",
)
_SEVERAL = (
    "several files may be {}, and none lies where it says; write its folder before the name",
    "of {n} of the files that it names there are several of the name, and none lies where it says; "
    "write their folders before the names",
)
_BITS = {"0": 0, "1": 1}
_LARGE = 10**100  # numbers from which on Python may refuse to write all digits
_LONGEST = 300  # letters of a path
_BASE64 = re.compile(r"data:image/|/9j/|iVBORw0KGgo|R0lGOD|UklGR|Qk")
_BOX = "x_?min|x1|bbox|bbox_x|left"  # columns of boxes


class Records(NamedTuple):
    """A list of records.

    Attributes:
        path: the file that has them.
        split: that its name or folder means, or "".
        beside: its folder below that of the data set, "" or with a slash at the end.
        header: names of the fields that hold numbers or texts.
        rows: the line or number of each record, for sentences, and its fields.
    """

    path: pathlib.Path
    split: str
    beside: str
    header: Sequence[str]
    rows: Sequence[tuple[str, Mapping[str, Any]]]


def text_of(value: Any) -> str:
    """A number or a text, as text; "" for null, NaN, and what is neither.

    >>> text_of(3.0), text_of(" oak "), text_of(None), text_of([1])
    ('3', 'oak', '', '')
    """
    if type(value) is str and value.isascii():  # most are
        return value.strip(BLANKS)
    if type(value) is int and -_LARGE < value < _LARGE:
        return str(value)
    if value is None or value != value or isinstance(value, list | dict):
        return ""
    if isinstance(value, bool):
        value = int(value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, int):
        return hex(value) if abs(value) >= _LARGE else str(value)
    text = str(value).strip(BLANKS)
    # JSON may hold halves of characters, which nothing can print.
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


def plain_fields(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The fields of the first records that hold a number or a text, in their order."""
    fields: dict[str, bool] = {}
    for row in rows[:100]:
        for name, value in row.items():
            fields[str(name)] = fields.get(str(name), False) or isinstance(value, str | int | float)
    return [name for name, is_plain in fields.items() if is_plain]


def choose_fields(header: Sequence[str], request: Request) -> tuple[Columns, list[str]]:
    """Which fields are which; `file_name`, as Hugging Face calls it, goes before others."""
    columns, problems = choose_columns(header, request)
    if not request.file_column:
        named = [name for name in header if name == "file_name"]
        named = named or [name for name in header if name.endswith("_file_name")]
        if len(named) == 1:
            columns = columns._replace(file=list(header).index(named[0]))
            problems = [each for each in problems if " may all hold the file;" not in each]
    return columns, problems


def one_hot_fields(header: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The fields that are a class each, where all but those of file and split are 0 or 1."""
    columns, _ = choose_columns(header, Request())
    if columns.label is not None or not rows:
        return []
    other = {columns.file, columns.split}
    rest = [name for i, name in enumerate(header) if i not in other]
    is_one_hot = len(rest) > 1 and all(
        text_of(row.get(name)) in _BITS for row in rows for name in rest
    )
    return rest if is_one_hot else []


def _with_label(records: Records, request: Request, notes: Notes) -> Records:
    """Records of columns of 0 and 1 with a label instead of these."""
    rows = [row for _, row in records.rows]
    fields = [] if request.label_column else one_hot_fields(records.header, rows)
    if not fields:
        return records
    made, wrong = list[tuple[str, Mapping[str, Any]]](), list[str]()
    for place, row in records.rows:
        classes = [name for name in fields if _BITS[text_of(row[name])]]
        if len(classes) == 1:
            made.append((place, {**row, "label": classes[0]}))
        else:
            wrong.append(place)
    if wrong:
        notes.problems.append(
            f"{records.path}: {len(wrong)} of its {len(rows)} images have 1 in no column or in "
            f"several ({first_three(wrong)}), and an image must be of one class; mend or remove "
            "these rows."
        )
        return records._replace(header=[*records.header, "label"], rows=[])
    return records._replace(header=[*records.header, "label"], rows=made)


def _one_a_file(
    rows: Sequence[table.TableRow], records: Records, notes: Notes
) -> list[table.TableRow]:
    """Of rows that are boxes in images, one for each image; all must be of one class."""
    if not any(re.fullmatch(_BOX, name.strip().lower()) for name in records.header):
        return list(rows)
    first = dict[str, table.TableRow]()
    mixed = dict[str, None]()
    for row in rows:
        if first.setdefault(row.name, row).label != row.label:
            mixed[row.name] = None
    if mixed:
        notes.problems.append(
            f"{records.path}: {len(mixed)} of its {len(first)} images have boxes of several "
            f"classes ({first_three(list(mixed))}), so no one class; remove their rows, or cut the "
            "boxes out as images of their own."
        )
    return list(first.values())


def table_rows(
    records: Records, request: Request, places: FilePlaces, root: pathlib.Path, notes: Notes
) -> list[table.TableRow]:
    """The rows of a list of which enough is right; the notes get what is wrong.

    A list for testing without any label is left out, with a warning.
    """
    path, problems = records.path, notes.problems
    if not records.rows:
        problems.append(f"{path} lists no image.")
        return []
    records = _with_label(records, request, notes)
    columns, wrong = choose_fields(records.header, request)
    problems.extend(f"{path}: {problem}" for problem in wrong)
    if columns.file is None and not request.file_column:
        problems.append(f"{path}: {missing_column('file', records.header)}")
    file, label, class_name, split = (
        None if place is None else records.header[place] for place in columns
    )
    unlabelled = label is None or not any(text_of(row.get(label)) for _, row in records.rows)
    if unlabelled and records.split == "test" and not request.label_column:
        notes.warnings.append(
            f"{path}: no test image has a label; none of the {len(records.rows)} is read."
        )
        return []
    if label is None and not request.label_column:
        problems.append(f"{path}: {missing_column('label', records.header)}")
    if file is None or label is None or wrong:
        return []
    taken = {file, label, class_name, split}
    if not request.label_column and (finer := _finer(records, label, taken)):
        shown = " or ".join(f"data.label_column={as_setting(name)}" for name in (label, *finer))
        counts = ", ".join(
            f"{name!r} ({len(_values(records, name)):,} classes)" for name in (label, *finer)
        )
        problems.append(f"{path}: the columns {counts} may all hold the label; set {shown}.")
        return []
    if split is None and not records.split and request.split_column != "none":
        notes.warnings.extend(f"{path}: {said}" for said in [unread_folds(records.header)] if said)
    named = [text_of(row.get(file)) for _, row in records.rows]
    _, meant = parts_of(request.split_column, records.header)
    splits = [
        _split(row, split, meant, records, f"{path}, {place}", problems)
        for place, row in records.rows
    ]
    of_rows = {name: told for name, told in zip(named, splits, strict=True) if told}
    every = [name for name in named if name]
    files = find_files(every, path, records.beside, records.split, places, notes, of_rows)
    rows = list[table.TableRow]()
    for name, told, (place, row) in zip(named, splits, records.rows, strict=True):
        where = f"{path}, {place}"
        text = text_of(row.get(label))
        if not text:
            problems.append(_repeated(path, place, "the label is empty", "have no label"))
        if not name:
            problems.append(_repeated(path, place, "the file is empty", "name no file"))
        called = "" if class_name is None else text_of(row.get(class_name))
        if class_name is not None and text and not called:
            problems.append(_repeated(path, place, "the class name is empty", "have no class name"))
        if text and told is not None and name in files:
            found = files[name]
            rows.append(table.TableRow(where, told, text, called, root / found, found))
    return _one_a_file(rows, records, notes)


def _values(records: Records, *names: str) -> set[tuple[str, ...]]:
    """The distinct values of some fields together."""
    return {tuple(text_of(row.get(name)) for name in names) for _, row in records.rows}


def _finer(records: Records, label: str, taken: set[str | None]) -> list[str]:
    """The fields called as classes of which each value goes with one label, and not otherwise."""
    classes = len(_values(records, label))
    found = list[str]()
    for name in records.header:
        if name not in taken and plain(name).endswith(OF_CLASSES):
            count = len(_values(records, name))
            is_finer = classes < count == len(_values(records, name, label))
            found += [name] if is_finer and 2 * count <= len(records.rows) else []
    return found


def _repeated(path: pathlib.Path, place: str, what: str, of_many: str) -> Repeated:
    rule = f"{path}: {{n}} of its images {of_many}"
    return Repeated(f"{path}, {place}: {what}.", rule=rule, item=place)


def _split(
    row: Mapping[str, Any],
    split: str | None,
    meant: Mapping[str, str],
    records: Records,
    where: str,
    problems: list[str],
) -> str | None:
    """The split of a row; "" where nothing tells it, None where it is wrong."""
    if split is None:
        return records.split
    text = text_of(row.get(split))
    told = split_meant(text, meant)
    if told is None:
        problems.append(
            Repeated(
                f"{where}: the split {text!r} is not train, val or test.",
                rule=f"{records.path}: {{n}} values of {split!r} are not train, val or test; say "
                f"which they mean, as data.split_column={as_setting(split)}:0=train,1=test",
                item=repr(text),
            )
        )
    elif records.split and told != records.split:
        problems.append(
            f"{where}: the split is {text!r} in a list of the {records.split} split; move the row."
        )
        return None
    return told


def find_files(
    names: Sequence[str],
    path: pathlib.Path,
    beside: str,
    split: str,
    places: FilePlaces,
    notes: Notes,
    of_rows: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """The files that the list `path` names, by their names; the notes get those not there."""
    if packed := [name for name in names[:100] if len(name) > _LONGEST and _BASE64.match(name)]:
        notes.problems.append(
            f"{path} holds images as text (base64, {packed[0][:20]!r} and so on), which is not "
            "read; write them as files, or in Parquet as bytes (base64.b64decode)."
        )
        return {}
    files, repair = places.find(names, beside=beside, split=split, of_rows=of_rows or {})
    count = len(set(names)) - len(files)
    if repair is not None and repair.is_taken:
        notes.warnings.append(
            f"{path}: {len(repair.found):,} file(s) are not where it says, and are read "
            f"{repair.said}."
        )
        files |= {each.name: file for each, file in repair.found.items()}
    elif repair is not None:
        notes.problems.append(
            f"{path}: {count:,} file(s) are not where it says; {len(repair.found):,} of them may "
            f"be those {repair.said}. Write where they are, if so, or move them."
        )
        return files
    for name in dict.fromkeys(names):
        if name not in files:
            one, many = _SEVERAL if places.is_called(name) else _NONE
            notes.problems.append(
                Repeated(
                    f"{path}: {one.format(repr(name))}.",
                    rule=f"{path}: {many}",
                    item=repr(name),
                )
            )
    return files


def split_by_folder(rows: Sequence[table.TableRow], places: FilePlaces) -> list[table.TableRow]:
    """Gives rows of no split that of the folder of their file, where all lie in such folders."""
    told = {row.name: places.split_of(row.name) for row in rows if not row.split}
    by_folder = bool(told) and all(told.values()) and "train" in told.values()
    return [
        row if row.split else row._replace(split=told[row.name] if by_folder else "train")
        for row in rows
    ]


def choose_lists(paths: Mapping[str, str], what: str, notes: Notes) -> dict[str, str]:
    """The lists that are read, and the split of each: "" where one is alone and tells none.

    Lists that tell no split are left out, with a warning, where others tell one.

    Args:
        paths: name of each list -> split that it means, or "".
        what: the folder that they are in, for sentences.
        notes: gets a problem where two mean one split.
    """
    told = {name: split for name, split in paths.items() if split}
    loose = [name for name in paths if name not in told]
    if told and len(loose) == 1 and "train" not in told.values():
        told, loose = {loose[0]: "train", **told}, []
    if told and loose:
        notes.warnings.append(
            f"{what}: {quoted_names(loose)} not read, for the name tells no split, as that of "
            f"{quoted_names(told)} does."
        )
    chosen = told or dict.fromkeys(loose, "")
    for split in dict.fromkeys(chosen.values()):
        same = [name for name, own in chosen.items() if own == split]
        boxes = [name for name in same if re.search(r"bbox|boxes", name.lower())]
        if boxes and len(same) - len(boxes) == 1:  # of the same images, as iNaturalist's of 2017
            notes.warnings.append(f"{what}: {quoted_names(boxes)} not read: of boxes, by the name.")
            chosen = {name: own for name, own in chosen.items() if name not in boxes}
            continue
        if len(same) > 1:
            which = f"the list of the {split} split" if split else "the list of all images"
            notes.problems.append(
                f"{what}: {quoted_names(same)} may each be {which}; keep one there, and move the "
                "others to another folder."
            )
    return chosen
