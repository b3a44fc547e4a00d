"""Records of images, one object each, as lists in JSON, JSON lines and tables of metadata have."""

import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from clevit_jax.data.dataset import SPLIT_WORDS
from clevit_jax.data.layouts import table
from clevit_jax.data.layouts.columns import quoted_names
from clevit_jax.data.layouts.csv.csv_cells import RowProblems, labels_of, splits_of
from clevit_jax.data.layouts.csv.csv_columns import CsvColumns, is_usable
from clevit_jax.data.layouts.csv.csv_form import Table
from clevit_jax.data.layouts.csv.made_rows import Read, made_rows, named_files
from clevit_jax.data.layouts.file_places import FilePlaces
from clevit_jax.data.layouts.listing import Notes, Request, first_three, say_own
from clevit_jax.data.layouts.record.record_table import choose_fields
from clevit_jax.data.layouts.split_codes import NONE
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
_LONGEST = 300  # letters of a path
_BASE64 = re.compile(r"data:image/|/9j/|iVBORw0KGgo|R0lGOD|UklGR|Qk")


class Records(NamedTuple):
    """A list of records.

    Attributes:
        path: the file that has them.
        split: that its name or folder means, or "".
        beside: its folder below that of the data set, "" or with a slash at the end.
        table: the fields that hold numbers or texts, as text; its lines are positions in `places`.
        places: the line or number of each record, for sentences.
    """

    path: pathlib.Path
    split: str
    beside: str
    table: Table
    places: Sequence[str]


class RecordReader:
    """Reader of lists of records, by the rules for the columns of CSV tables."""

    def __init__(self, root: pathlib.Path, request: Request, places: FilePlaces, notes: Notes):
        """Of the data set `root`; the notes get what is wrong, and what is to be said."""
        self._root = root
        self._request = request
        self._files = places
        self._notes = notes
        self._one_hot: dict[str, int] = {}  # class -> label, in the order of the first header

    def read(self, records: Records) -> Read:
        """The rows of a list of which enough is right; the notes get what is wrong.

        Rows of a list that tells no split, by its name or a field, have the split "". A list for
        testing without any label is left out, with a warning.
        """
        path, whole, notes = records.path, records.table, self._notes
        if not whole.rows:
            notes.problems.append(f"{path} lists no image.")
            return Read([])
        columns = choose_fields(whole, self._request, self._files.any_called)
        if (
            records.split == "test"
            and not self._request.label_column
            and _is_to_tell(whole, columns)
        ):
            notes.warnings.append(
                f"{path}: no test image has a label; none of the {len(whole.rows)} is read."
            )
            return Read([])
        alone = not records.split
        if not is_usable(path, whole, columns, self._request, notes, alone=alone):
            return Read([])
        assert columns.file is not None
        problems = RowProblems(path, records.places)
        for i in columns.one_hot:
            self._one_hot.setdefault(whole.header[i].strip(), len(self._one_hot))
        is_alone = not records.split
        splits = splits_of(whole, columns.split, records.split, problems, alone=is_alone)
        labels = labels_of(path, whole, columns, splits, self._one_hot, problems, notes)
        names = named_files(whole, columns.file, labels, problems, notes)
        notes.problems.extend(problems.in_order())
        wanted = [name for name in names if name]
        of_rows = {name: split for name, split in zip(names, splits, strict=True) if split}
        files = find_files(wanted, path, records.beside, records.split, self._files, notes, of_rows)
        found = [files.get(name, "") for name in names]
        return made_rows(whole, columns, splits, labels, found, self._root, problems, notes)


def _is_to_tell(whole: Table, columns: CsvColumns) -> bool:
    """Whether a list has files and no label at all."""
    if columns.file is None or columns.one_hot:
        return False
    return not any(row[i].strip() for row in whole.rows for i in columns.label.label)


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


def split_by_folder(
    rows: Sequence[table.TableRow],
    places: FilePlaces,
    request: Request,
    where: pathlib.Path,
    notes: Notes,
) -> list[table.TableRow]:
    """Gives rows of no split that of the folders of their files, where these are of several splits.

    Args:
        rows: of which those with the split "" have none.
        places: the files of the data set.
        request: its `split_column` may say that nothing tells the split.
        where: the data set, for the sentence.
        notes: get the sentence on what is read so.
    """
    loose = dict.fromkeys(row.name for row in rows if not row.split)
    is_asked = request.split_column.strip().lower() == NONE
    told = {} if is_asked else places.splits_of(loose)
    if told:
        notes.warnings.append(
            f"{where}: the split of each image is that of its folder, as of "
            f"{first_three(list(told))}; data.split_column={NONE} has it drawn instead."
        )
    return [row if row.split else row._replace(split=told.get(row.name, "train")) for row in rows]


def open_places(root: pathlib.Path, notes: Notes) -> FilePlaces:
    """The files of a data set; it is said where this program's own are among them."""
    own = set[str]()
    places = FilePlaces(root, own)
    if own:
        notes.warnings.append(say_own(root, own))
    return places


def choose_lists(paths: Mapping[str, str], what: str, notes: Notes) -> dict[str, str]:
    """The lists that are read, and the split of each: "" where one is alone and tells none.

    Lists of training images come first.

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
    order = [*SPLIT_WORDS, ""]
    return dict(sorted(chosen.items(), key=lambda each: order.index(each[1])))
