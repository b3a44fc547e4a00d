"""Names of splits as people write them: train, training_set, cars_train, seg_test, val2018, dev.

One name alone is taken for a split only where it says nothing else: `split_called`. A name that
says more, as `cars_train`, needs a partner that says the same of another split: `splits_among`.
"""

import re
import unicodedata
from collections.abc import Iterable

# Words of a name, without capitals; the split that each means.
_WORDS = {
    **dict.fromkeys(("train", "training", "trn", "trainval"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "validate", "dev", "development"), "val"),
    **dict.fromkeys(("test", "testing", "tst", "eval", "evaluation", "holdout"), "test"),
}
# Words that add nothing to these.
FILLERS = frozenset(
    [
        *("set", "sets", "split", "splits", "data", "dataset", "datasets", "folder"),
        *("image", "images", "img", "imgs", "picture", "pictures", "photo", "photos"),
        *("file", "files", "list", "lists", "label", "labels", "labelled", "labeled"),
        *("annotation", "annotations", "info", "metadata", "meta", "public", "private"),
        *("mini", "small", "full", "all", "final", "resized", "cropped", "augmented", "raw"),
    ]
)
# Words for images to predict: no split, but a partner of one.
_TO_PREDICT = frozenset(
    ["pred", "predict", "prediction", "predictions", "unlabelled", "unlabeled", "inference"]
)
# Of two names of the test split, those that mean validation then: `train`, `eval` and `test`.
_OR_VALIDATION = frozenset(("eval", "evaluation", "public"))


def split_called(name: str) -> str | None:
    """The split that a name means by itself: 'train', 'val' or 'test'; None if it means none.

    >>> split_called("Training_set"), split_called("val2018"), split_called("cars_train")
    ('train', 'val', None)
    """
    split, rest = _told(words_of(name))
    return None if rest else split


def splits_among(names: Iterable[str]) -> dict[str, str]:
    """The splits that some names beside each other mean; names that mean none are left out.

    >>> splits_among(["cars_train", "cars_test", "docs"])
    {'cars_train': 'train', 'cars_test': 'test'}
    >>> splits_among(["freight train", "bus"])
    {}

    Args:
        names: of folders, of tables without their ending, or the values of a column.

    Returns:
        Name -> 'train', 'val' or 'test', in the order of the names. Several names may mean one
        split. Where `eval` stands beside another test split, it is the validation split.
    """
    words = {name: words_of(name) for name in names}
    told = {name: _told(inside) for name, inside in words.items()}
    # What is said besides -> the splits that it is said of; images to predict count as one.
    partners: dict[tuple[str, ...], set[str]] = {}
    for split, rest in told.values():
        if split is None and rest and rest[-1] in _TO_PREDICT:
            split, rest = "predict", rest[:-1]
        if split is not None:
            partners.setdefault(rest, set()).add(split)
    splits = {
        name: split
        for name, (split, rest) in told.items()
        if split is not None and (not rest or len(partners[rest]) > 1)
    }
    tests = [name for name, split in splits.items() if split == "test"]
    doubtful = [name for name in tests if _OR_VALIDATION & set(words[name])]
    if "val" not in splits.values() and len(doubtful) < len(tests):
        splits |= dict.fromkeys(doubtful, "val")
    return splits


def split_and_rest(name: str) -> tuple[str | None, str]:
    """The split that a name speaks of, and what it says besides.

    >>> split_and_rest("images_variant_train"), split_and_rest("train_list")
    (('train', 'variant'), ('train', ''))
    """
    split, rest = _told(words_of(name))
    return split, " ".join(rest)


def is_to_predict(name: str) -> bool:
    """Whether a name says that its images have no label: `seg_pred`, `unlabelled`."""
    return bool(_TO_PREDICT & set(words_of(name)))


def words_of(name: str) -> list[str]:
    """The words of a name in lower case, apart at capitals, digits and signs; no numbers."""
    text = unicodedata.normalize("NFKC", name)
    text = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", text).lower()
    words = list[str]()
    for word in re.findall(r"[^\W\d_]+", text):
        glued = re.fullmatch(r"(train|training|val|valid|validation|test|testing)(\w+)", word)
        if glued and glued[2] in (*FILLERS, *_WORDS):  # trainset, testimages, trainval
            words += [glued[1], glued[2]]
        else:
            words.append(word)
    return words


def _told(words: list[str]) -> tuple[str | None, tuple[str, ...]]:
    """The split that words mean, and the words that say something else."""
    splits = list(dict.fromkeys(_WORDS[word] for word in words if word in _WORDS))
    rest = tuple(word for word in words if word not in _WORDS and word not in FILLERS)
    if splits == ["train", "val"]:  # trainval: what is trained on, with the validation split in it
        splits = ["train"]
    return (splits[0] if len(splits) == 1 else None), rest
