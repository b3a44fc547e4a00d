"""What the names of folders say: that they are no class, that they are a part of one, or a twin."""

import collections
import re
import unicodedata
from collections.abc import Collection, Iterable

from clevit_jax.data.split_names import FILLERS, is_to_predict, words_of

# Words of folders that hold what belongs to images, or all of them.
_OF_NO_CLASS = frozenset(
    [
        *("mask", "masks", "segmentation", "segmentations", "seg", "xml", "json", "txt", "csv"),
        *("bbox", "bboxes", "box", "boxes", "jpg", "jpeg", "png", "jpegimages", "unknown", "all"),
    ]
)
# Words of how and when pictures were taken or changed: no class where a class is above or below.
_OF_PICTURES = frozenset(
    [
        *("part", "pt", "session", "batch", "set", "series", "sequence", "seq", "run", "take"),
        *("camera", "cam", "device", "phone", "scan", "scans", "video", "clip", "burst", "shot"),
        *("img", "image", "images", "dsc", "dcim", "photo", "photos", "picture", "pictures"),
        *("date", "day", "night", "week", "month", "year", "visit", "trip", "site", "plot"),
        *("morning", "noon", "afternoon", "evening", "spring", "summer", "autumn", "winter"),
        *("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "sept", "oct", "nov"),
        *("dec", "january", "february", "march", "april", "june", "july", "august"),
        *("september", "october", "november", "december"),
        *("view", "angle", "side", "front", "back", "rear", "top", "bottom", "left", "right"),
        *("close", "closeup", "up", "far", "near", "indoor", "indoors", "outdoor", "outdoors"),
        *("inside", "outside", "sunny", "cloudy", "rainy", "flash", "lab", "field", "wild"),
        *("new", "old", "extra", "more", "misc", "other", "others", "folder", "data"),
        *("color", "colour", "rgb", "gray", "grey", "grayscale", "greyscale", "bw", "hsv"),
        *("raw", "original", "originals", "processed", "preprocessed", "cropped", "crop", "crops"),
        *("resized", "augmented", "aug", "augmentation", "segmented", "masked", "background"),
        *("nobackground", "nobg", "bg", "clean", "noisy", "blurred", "flipped", "rotated"),
        *("real", "synthetic", "thermal", "infrared", "ir", "nir", "low", "high", "resolution"),
        *("small", "large", "hd", "px", "x", "no", "with", "without", "and", "by", "the", "of"),
    ]
)
# Folders of pictures that are shown in a text on the data, not of a class.
_OF_A_TEXT = frozenset(
    [
        *("doc", "docs", "documentation", "asset", "assets", "figure", "figures", "fig", "figs"),
        *("screenshot", "screenshots", "readme", "demo", "preview", "previews", "thumbnails"),
        *("output", "outputs", "result", "results", "plots", "notebooks", "scripts", "src"),
    ]
)
# Where people put what they have not sorted, or took out; without signs and numbers.
_SET_ASIDE = frozenset(
    [
        *("unsorted", "unlabelled", "unlabeled", "unclassified", "unknown", "undefined", "todo"),
        *("new folder", "untitled folder", "neuer ordner", "nouveau dossier", "nueva carpeta"),
        *("trash", "deleted", "removed", "rejected", "discarded", "duplicates", "backup", "old"),
        *("tmp", "temp", "misc", "to sort", "to check", "ignore", "excluded"),
    ]
)
MASK = re.compile(r"(.+?)[ ._-]*(mask|seg|segmentation)(_?[0-9]+)?", re.IGNORECASE)  # of a stem
_DATE = re.compile(
    r"((19|20)\d\d([-_. ]?[01]\d([-_. ]?[0-3]\d)?)?|[0-3]?\d[-_.][01]?\d[-_.](19|20)\d\d)"
)
_NUMBER = re.compile(r"\d+")
_COPY = re.compile(r"( ?- ?(copy|copie|kopie|copia)| copy| ?\(\d+\))$")
_OF_CLASSES = frozenset(("class", "cls", "label", "category", "cat", "species", "id", "n", "c"))


def says_nothing(name: str) -> bool:
    """Whether a folder's name says only that images, or what belongs to them, are in it."""
    words = words_of(name)
    return bool(words) and all(word in FILLERS or word in _OF_NO_CLASS for word in words)


def is_set_aside(name: str) -> bool:
    """Whether a folder is called as those of images in no class: `unsorted`, `New folder`."""
    return re.sub(r"[\W_]+|[0-9]+", " ", normal(name).casefold()).strip() in _SET_ASIDE


def is_of_a_text(name: str) -> bool:
    """Whether a folder is called as those of pictures in a text: `docs`, `assets`."""
    return name.lower() in _OF_A_TEXT


def is_wrapper(name: str, parent: str) -> bool:
    """Whether a folder that lies alone in another is no level: `images`, or its parent again."""
    same = normal(name).casefold() == normal(parent).casefold()
    return same or says_nothing(name) or is_to_predict(name)


def normal(name: str) -> str:
    """A name in composed characters: one name, however a system spelt its accents."""
    return name if name.isascii() else unicodedata.normalize("NFC", name)


def of_pictures(names: Collection[str]) -> bool:
    """Whether all names tell how pictures were taken or changed, or are dates."""
    return all(
        _DATE.fullmatch(name.strip())
        or (
            (words := [word for word in words_of(name) if len(word) > 1])  # cam_a
            and all(word in _OF_PICTURES for word in words)
        )
        for name in names
    )


def are_numbers(names: Collection[str]) -> bool:
    """Whether all names are numbers, as those of years or of species are."""
    return all(_NUMBER.fullmatch(name.strip()) for name in names)


def are_counted(names: Collection[str]) -> bool:
    """Whether names are one word and a number, as `farm1` and `farm2`; classes are not told so."""
    if not all(re.search(r"\d", name) for name in names):
        return False
    words = {tuple(words_of(name)) for name in names}
    (first, *others) = words
    return not others and bool(first) and not set(first) & _OF_CLASSES


def twins(names: Iterable[str]) -> list[list[str]]:
    """Names that differ in capitals, blanks, hyphens or the ending of a copy alone, by group."""
    groups = collections.defaultdict[str, list[str]](list)
    for name in names:
        groups[_bare(name)].append(name)
    return [group for group in groups.values() if len(group) > 1]


def twins_of(names: Iterable[str], among: Iterable[str]) -> dict[str, str]:
    """Name -> another of `among` that differs in such things alone, for those that have one."""
    bare = {_bare(other): other for other in among}
    return {name: bare[each] for name in names if (each := _bare(name)) in bare}


def _bare(name: str) -> str:
    """A name without what a typing error or a copy adds."""
    text = unicodedata.normalize("NFKC", name).casefold()
    text = re.sub(r"[\u00ad\u200b-\u200f\ufeff]", "", text)
    text = re.sub(r"[\s_]+", " ", text).strip()
    while (shorter := _COPY.sub("", text).strip()) and shorter != text:
        text = shorter
    return re.sub(r"[\s-]+", " ", text).strip() or name
