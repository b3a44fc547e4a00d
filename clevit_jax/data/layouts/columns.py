"""Names that people give the columns of a table, be it CSV or Parquet, and what they mean."""

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from clevit_jax.data.layouts.listing import Request
from clevit_jax.data.layouts.split_codes import NONE, parts_of
from clevit_jax.data.split_names import split_called

# Names as `plain` writes them; the earlier group is the better fit.
FILES = (
    (
        *("file", "filename", "filepath", "path", "imagepath", "imgpath", "imagefile", "dir"),
        *("files", "filenames", "filepaths", "fname", "fnames", "paths", "imagepaths", "imgfile"),
        *("imagefilename", "imagefilepath", "photopath", "picturepath", "relpath", "relativepath"),
        *("fullpath", "filepathname", "photofile", "filelocation"),
    ),
    (
        *("image", "img", "imagename", "imgname", "imageid", "imgid", "images", "imagenames"),
        *("imageids", "photo", "photoname", "photoid", "picture", "picturename", "pictureid"),
        "imageuuid",
    ),
)
# Only where the values are files.
FILES_IF = ("id", "ids", "uuid", "name", "names", "key", "sample", "sampleid", "guid", "index")
GENERIC = (
    *("label", "labels", "class", "classes", "classlabel", "category", "categories", "target"),
    *("targets", "cls", "finelabel", "groundtruth", "gt", "imagelabel", "imagelabels"),
)
NUMBERS = (
    *("labelid", "classid", "categoryid", "targetid", "classno", "classnumber", "classidx"),
    *("classindex", "labelnum", "labelidx", "labelindex", "labelencoded", "speciesid", "breedid"),
    *("finelabelid", "taxonid", "varietyid", "cultivarid"),
)
KINDS = (
    *("species", "cultivar", "scientificname", "taxon", "taxonname", "individualid", "individual"),
    *("epithet", "specificepithet"),
)
LABELS = ((*GENERIC, *NUMBERS, *KINDS),)
OTHER_NAMES = ("scientificname", "taxonname")  # of a class, beside its label
# Of things that may be the class, where no column is called one.
MAYBE_LABELS = (
    (
        *("breed", "variety", "disease", "diseasename", "diagnosis", "dx", "plant", "crop"),
        *("whaleid", "animal", "flower", "bird", "fruit", "commonname", "varietyname"),
        *("breedname", "cultivarname", "identity"),
        *("choice", "choices", "rectanglelabels", "polygonlabels"),  # of Label Studio
    ),
    (
        "id",
        "ids",
        "y",
        "name",
        "tag",
        "tags",
        "leaf",
        "type",
        "kind",
        "model",
        "title",
        "annotation",
    ),
)
CLASS_NAMES = (("classname",), ("labelname",), ("categoryname",), ("speciesname",))
# Coarser than the class, the coarsest first.
COARSER = (
    *("kingdom", "phylum", "supercategory", "supercategoryname", "superclass", "superclassid"),
    *("coarselabel", "coarselabelid", "coarseclass", "coarse", "supergroup"),
    *("order", "family", "subfamily", "tribe", "manufacturer", "make", "genus"),
)
# Endings of names that say of a column that it tells classes: `sub_label`, `common_name`.
OF_CLASSES = (
    *("label", "class", "category", "species", "breed", "variety", "cultivar", "commonname"),
    *("speciesname", "varietyname", "breedname", "cultivarname", "subtype", "diseasename"),
    *("diagnosis", "disease", "dx", "animal", "flower", "bird", "fruit"),
)
RANKS = ("kingdom", "phylum", "order", "family")  # beside which `class` is one, too
SPLITS = (
    *("split", "splits", "subset", "set", "partition", "datasplit", "splitset", "traintest"),
    *("traintestsplit", "trainvaltest", "splitname", "splittype", "trainortest", "datasetsplit"),
)
SPLITS_IF = (  # only where the values are splits
    *("dataset", "phase", "usage", "mode", "type", "group", "part", "purpose", "role", "stage"),
    *("use", "fold", "settype", "datatype"),
)
FOLDS = ("fold", "folds", "kfold", "foldid", "cvfold", "foldnumber", "foldno", "foldidx")
BOXES = (
    *("xmin", "ymin", "xmax", "ymax", "x1", "y1", "x2", "y2", "bbox", "bboxx", "bboxy", "bboxw"),
    *("bboxh", "xcenter", "ycenter", "left", "top", "right", "bottom", "boxes"),
)
_FLAGS = re.compile(
    r"(?:is|in|for)?(train|training|val|valid|validation|test|testing)(?:ing)?"
    r"(?:image|img|set|data|sample|flag|row)?"
)


class Columns(NamedTuple):
    """Positions of the columns that say something; None where there is none.

    Attributes:
        file: of the image's file.
        label: of the class: its number, or its name.
        class_name: of the name that goes with the label; only where there is a label, too.
        split: of train, val or test.
    """

    file: int | None
    label: int | None
    class_name: int | None
    split: int | None


def plain(name: str) -> str:
    """A name of a column without capitals, blanks, `_`, `-` and dots."""
    return re.sub(r"[\s_.-]+", "", name).lower()


def is_unnamed(name: str) -> bool:
    """Whether a column has no name, or the one that pandas gives it."""
    return plain(name) == "" or plain(name).startswith("unnamed:")


def flag_of(name: str) -> str | None:
    """The split that a column of yes and no is about: 'test' of `is_test_image`; or None."""
    match = _FLAGS.fullmatch(plain(name))
    return split_called(match[1]) if match else None


def is_known(name: str) -> bool:
    """Whether a name is one that columns have."""
    every = (*FILES, FILES_IF, *LABELS, *MAYBE_LABELS, *CLASS_NAMES, COARSER, SPLITS, SPLITS_IF)
    return any(plain(name) in group for group in (*every, FOLDS, BOXES))


def is_label_or_file(name: str) -> bool:
    """Whether a name is one that columns of files or classes surely have."""
    return any(plain(name) in group for group in (*FILES, *LABELS, *CLASS_NAMES))


def split_of(text: str) -> str | None:
    """The split that `text` means: 'train', 'val' or 'test'; None if it means none of them."""
    return split_called(text.strip())


def quoted_names(names: Iterable[str]) -> str:
    """Names, quoted, for a sentence."""
    return ", ".join(repr(name) for name in names) or "none"


def as_setting(name: str) -> str:
    """A name as it is typed after `data.label_column=`: in quotes where it needs them."""
    return name if re.fullmatch(r"[\w.+-]+", name) else repr(name)


def unread_folds(header: Sequence[str]) -> str:
    """A sentence for a list whose column of folds is not read; "" where there is none."""
    folds = called(header, FOLDS)
    if not folds:
        return ""
    return (
        f"the column {header[folds[0]].strip()!r} tells folds, which are read of CSV tables alone: "
        "no split follows from it here. Write a column 'split', or the list as a CSV table."
    )


def missing_column(what: str, header: Sequence[str]) -> str:
    """A sentence for a table that has no column of files, or none of labels.

    Args:
        what: "file" or "label".
        header: names of the columns that there are.
    """
    return (
        f"no column is known to hold the {what}, of {quoted_names(header)}; "
        f"set data.{what}_column to one of them."
    )


def choose_columns(
    header: Sequence[str], request: Request, *, files: bool = True
) -> tuple[Columns, list[str]]:
    """Finds out by their names alone which columns are which.

    Args:
        header: names of the columns; "" for one that is not to be chosen.
        request: its `file_column`, `label_column` and `split_column` go first, where given.
        files: whether images are files; else their names matter little, and a column of them is not
            chosen in doubt.

    Returns:
        The columns, and a sentence for each choice that cannot be made. That a column is not there
        is a problem only where the request names it: the reader knows whether it needs one.
    """
    problems: list[str] = []
    wanted = request.file_column if files else ""
    file = pick(header, FILES, "file", wanted, problems if files else [])
    groups = (*LABELS, *MAYBE_LABELS[:1])
    label = pick(header, groups, "label", request.label_column, problems)
    name = pick(header, CLASS_NAMES, "class name", "", problems)
    if label is None and not request.label_column:
        label = name
    wanted, _ = parts_of(request.split_column, header)
    split = None
    if wanted.strip().lower() != NONE or called(header, (NONE,)):
        split = pick(header, (SPLITS,), "split", wanted, problems)
    return Columns(file, label, None if name == label else name, split), problems


def called(header: Sequence[str], names: Sequence[str]) -> list[int]:
    """Positions of the columns that have one of some plain names."""
    return [i for i, name in enumerate(header) if plain(name) in names]


def wanted_column(header: Sequence[str], wanted: str, what: str, problems: list[str]) -> int | None:
    """The position of the column that a setting names; a problem where there is none."""
    return pick(header, (), what, wanted, problems)


def pick(
    header: Sequence[str],
    groups: Sequence[Sequence[str]],
    what: str,
    wanted: str,
    problems: list[str],
) -> int | None:
    """The position of a column, `wanted` or of the first group that has any."""
    names = [name.strip() for name in header]
    if wanted:
        tries = [[i for i, name in enumerate(names) if name == wanted.strip()]]
        tries.append([i for i, name in enumerate(names) if name.lower() == wanted.strip().lower()])
    else:
        tries = [called(header, group) for group in groups]
    fitting = next(filter(None, tries), [])
    if wanted and not fitting:
        problems.append(
            f"there is no column {wanted!r}, only {quoted_names(filter(None, names))}; set "
            f"data.{what}_column to one of them."
        )
    if len(fitting) > 1:
        problems.append(several([names[i] for i in fitting], what))
    return fitting[0] if fitting else None


def several(names: Sequence[str], what: str) -> str:
    """A sentence on columns of which each may be the one that is looked for."""
    settable = what in ("file", "label", "split") and len(set(names)) == len(names)
    mend = f"set data.{what}_column to one of them" if settable else "rename or remove one"
    return f"the columns {quoted_names(names)} may all hold the {what}; {mend}."
