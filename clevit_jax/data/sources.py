"""Data sets from folders: the layout is recognised and read, and missing splits are cut."""

import collections
import contextlib
import dataclasses
import gc
import itertools
import math
import os
import pathlib
from collections.abc import Iterator, Sequence

from clevit_jax.data import from_address, from_hub, splits
from clevit_jax.data.dataset import SPLIT_WORDS, Dataset, Example
from clevit_jax.data.layouts.class_names import (
    name_numbers,
    warn_of_folders,
    warn_of_lists,
)
from clevit_jax.data.layouts.listing import Contents, Notes, Request, first_three
from clevit_jax.data.layouts.store import tfds_records
from clevit_jax.data.layouts.synsets import name_synsets
from clevit_jax.data.recognise import recognise
from clevit_jax.errors import DataError, Repeated, said_once
from clevit_jax.system import places


@dataclasses.dataclass(frozen=True)
class SplitConfig:
    """How splits are cut where the data set does not have them.

    Attributes:
        test_fraction: share of the images that are tested on, where there is no test split.
        val_fraction: share of the training images that the best checkpoint is chosen by.
        folds: number of folds for cross-validation, of data without a test split; 0 for none.
        fold: which of them is tested on, from 0.
        seed: of the draw.
    """

    test_fraction: float = 0.2
    val_fraction: float = 0.0
    folds: int = 0
    fold: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        """Raises ValueError naming the setting that is out of its range."""
        for name in ("test_fraction", "val_fraction"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"data.{name} is {getattr(self, name)}; it must be in [0, 1).")
        if self.folds < 0 or self.folds == 1:
            raise ValueError(f"data.folds is {self.folds}; it must be 0, or at least 2.")
        if not 0 <= self.fold < max(1, self.folds):
            raise ValueError(
                f"data.fold is {self.fold}; it must be from 0 to below data.folds, {self.folds}."
            )
        if self.seed < 0:
            raise ValueError(f"data.split_seed is {self.seed}; it must be at least 0.")


_REQUEST, _SPLIT = Request(), SplitConfig()


def _check_folder(root: pathlib.Path, named: str) -> None:
    """Raises DataError, which says where it looked and what to name, unless `root` is a folder."""
    if root.is_dir():
        return
    place = root.absolute()
    problem = f"There is no folder {place}"
    if root.is_symlink() and not root.exists():
        problem = f"{place} is a link to {root.readlink()}, which is not there"
    elif root.exists():
        problem = f"{place} is not a folder"
    raise DataError([f"{problem}; name the folder of the images: {named}."])


def scan(
    root: str | os.PathLike[str],
    *,
    layout: str = "auto",
    request: Request = _REQUEST,
    split: SplitConfig = _SPLIT,
    copy_to: str = "",
    named: str = "data.root",
) -> tuple[Dataset, list[str]]:
    """Finds the examples of a data set, and a sentence for each thing that is wrong with it.

    Args, Raises: see `load_dataset`; here DataError says only that there is no such folder, or that
    the layout cannot be told. `named` is how messages call the root.

    Returns:
        The data set, as far as the problems allow, and the problems.
    """
    told = ""
    if copy := from_address.copied(root, request, copy_to):
        place, told = (copy.path.parent if request.tfds else copy.path), f"{copy.address}, "
    elif request.tfds:
        place = tfds_records.data_dir(root)
    elif name := from_hub.named(os.fspath(root)):
        fetched = from_hub.fetch(name)
        place, told = fetched.path, f"{fetched}, "
    else:
        place = places.place(root, "data.root")
    try:
        _check_folder(place, named)
        with _no_garbage_collection():
            found = recognise(place, layout, request)
    except DataError as error:
        raise DataError(from_address.by_address(copy, error.problems)) from error
    except OSError as error:
        where = error.filename or place
        raise DataError([f"{where} cannot be read: {error.strerror or error}."]) from error
    named_root, place, contents, notes = place, found.root, found.contents, found.notes
    if not notes.problems:
        names = name_numbers(place, contents.class_names, notes)
        if place != named_root:
            names = name_numbers(named_root, names, notes)
        names = name_synsets(named_root, place, names, notes)
        contents = contents._replace(class_names=names)
        warn_of_lists(place, names, notes)
        if found.layout != "folders":
            warn_of_folders(place, names, contents.splits["train"], notes)
    if contents.class_names and request.num_classes not in (None, len(contents.class_names)):
        notes.problems.append(
            f"{place} has {len(contents.class_names)} classes, but num_classes = "
            f"{request.num_classes}."
        )
    if len(contents.class_names) == 1 and not notes.problems:
        notes.problems.append(
            f"{place} has one class, {contents.class_names[0]!r}: there is nothing to tell apart; "
            "two are needed at least."
        )
    parts = {name: list(examples) for name, examples in contents.splits.items()}
    notes.warnings.extend(_repetitions(place, parts))
    how = list[str]()
    if contents.folds is not None:
        parts, split, how = _test_on_fold(place, parts, contents, split, notes)
    how += _cut_missing_splits(place, parts, contents.class_names, split, notes)
    numbered = {
        split: tuple(Example(data, label, i, name) for i, (data, label, _, name) in enumerate(part))
        for split, part in parts.items()
    }
    dataset = Dataset(
        layout=found.layout,
        recognised_by="; ".join([told + found.seen, *how]),
        class_names=contents.class_names,
        train=numbered["train"],
        test=numbered["test"],
        warnings=tuple(said_once(from_address.by_address(copy, notes.warnings))),
        val=numbered.get("val", ()),
        levels=contents.levels,
    )
    return dataset, from_address.by_address(copy, notes.problems)


@contextlib.contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """Pauses the garbage collector, which walks all rows again and again, a third of the time."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _repetitions(root: pathlib.Path, parts: dict[str, list[Example]]) -> Iterator[str]:
    """Sentences on files that are listed more than once, within a split or in two."""
    names = {split: [example.name for example in examples] for split, examples in parts.items()}
    for split, listed in names.items():
        again = [name for name, count in collections.Counter(listed).items() if count > 1]
        if again:
            yield (
                f"{root}: {len(again):,} file(s) are listed more than once for "
                f"{SPLIT_WORDS[split].purpose}, and count each time ({first_three(again)}). Remove "
                "the repeated lines, unless that is meant."
            )
    for first, second in itertools.combinations(names, 2):
        known = set(names[first])
        shared = list(dict.fromkeys(name for name in names[second] if name in known))
        if shared:
            yield (
                f"{root}: {len(shared):,} file(s) are listed both for "
                f"{SPLIT_WORDS[first].purpose} and for {SPLIT_WORDS[second].purpose} "
                f"({first_three(shared)}), so the score on them will be too good. Keep each in one "
                "list."
            )


def _test_on_fold(
    root: pathlib.Path,
    parts: dict[str, list[Example]],
    contents: Contents,
    split: SplitConfig,
    notes: Notes,
) -> tuple[dict[str, list[Example]], SplitConfig, list[str]]:
    """Tests on one of the folds that the data set tells itself.

    Returns:
        The splits, the settings for what is still to be cut, and how it was split.
    """
    folds = contents.folds
    assert folds is not None
    numbers = sorted(set(folds.of.values()))
    count = len(numbers)
    if split.folds not in (0, count):
        notes.problems.append(
            f"{root} has {count} folds in its column {folds.column!r}, but data.folds is "
            f"{split.folds}; set data.folds={count}, or data.split_column=none to draw folds."
        )
        return parts, split, []
    chosen = numbers[split.fold]
    train = parts["train"]
    parts = parts | {
        "train": [example for example in train if folds.of[example.name] != chosen],
        "test": [example for example in train if folds.of[example.name] == chosen],
    }
    name = f"fold {split.fold} of {count}"
    lost = _lost_classes(
        root,
        parts,
        contents.class_names,
        f"{name}, by the column {folds.column!r},",
        "set data.split_column=none to have the test split drawn, or give the class more images",
    )
    notes.problems.extend(lost)
    how = f"test split: {name}, by the column {folds.column!r}"
    if not split.folds:
        how += f"; data.folds={count} with data.fold=1 and so on tests on another"
    return parts, dataclasses.replace(split, folds=0, fold=0), [how]


def _lost_classes(
    root: pathlib.Path,
    parts: dict[str, list[Example]],
    class_names: Sequence[str],
    fold: str,
    mend: str = "give it more images or leave it out",
) -> list[str]:
    """Sentences on classes that have no training image, as all of theirs are in a fold."""
    trained = {example.label for example in parts["train"]}
    return [
        Repeated(
            f"{root}: {fold} holds every image of the class {class_names[label]!r}; {mend}.",
            rule=f"{root}: {fold} holds every image of {{n}} classes; {mend}",
            item=repr(class_names[label]),
        )
        for label in sorted({example.label for example in parts["test"]} - trained)
    ]


def _cut_missing_splits(
    root: pathlib.Path,
    parts: dict[str, list[Example]],
    class_names: Sequence[str],
    split: SplitConfig,
    notes: Notes,
) -> list[str]:
    """Cuts what `parts` lacks and says how; what is wrong goes to the notes."""
    problems, how = list[str](), list[str]()
    if "test" not in parts and split.folds:
        how.append(f"test split: fold {split.fold} of {split.folds}, by seed {split.seed}")
        parts["train"], parts["test"] = splits.take_fold(
            parts["train"], split.folds, split.fold, seed=split.seed
        )
        problems += _lost_classes(root, parts, class_names, f"fold {split.fold} of {split.folds}")
        if not parts["test"]:
            count = len({example.name for example in parts["train"]})
            problems.append(
                f"{root} has {count} images, so fold {split.fold} of {split.folds} holds none; "
                "lower data.folds or add images."
            )
    elif "test" not in parts:
        share = f"{100 * split.test_fraction:g} % of the images"
        how.append(f"test split: {share}, cut by seed {split.seed}")
        parts["train"], parts["test"] = splits.cut(
            parts["train"],
            split.test_fraction,
            seed=split.seed,
            what="test",
            least=min(1, math.ceil(split.test_fraction)),
        )
        if not parts["test"] and split.test_fraction:
            problems.append(
                f"{root} has no test split, and none can be cut: no class has two images, and each "
                "needs one to train on; add images, one more of a class at least, or a test split."
            )
        elif not parts["test"]:
            problems.append(
                f"{root} has no test split, and {share} round to 0; raise data.test_fraction, or "
                "set data.folds."
            )
    else:
        if split.folds:
            problems.append(
                f"{root} has a test split, and data.folds is for data without one; set "
                "data.folds=0."
            )
        if not parts["test"]:
            problems.append(f"{root} has a test split, but no image in it.")
    if split.val_fraction and "val" in parts:
        problems.append(
            f"{root} has a validation split, so none can be cut; set data.val_fraction=0."
        )
    elif split.val_fraction:
        share = f"{100 * split.val_fraction:g} % of the training images"
        how.append(f"validation split: {share}, cut by seed {split.seed}")
        parts["train"], parts["val"] = splits.cut(
            parts["train"], split.val_fraction, seed=split.seed, what="val", least=1
        )
        if not parts["val"]:
            problems.append(
                f"{root}: none of the training images can be cut for validation: no class has two, "
                "and each needs one to train on; add images or set data.val_fraction=0."
            )
    if not notes.problems:  # an empty split may only follow from what is wrong already
        notes.problems.extend(problems)
    return how


def load_dataset(
    root: str | os.PathLike[str],
    *,
    layout: str = "auto",
    request: Request = _REQUEST,
    split: SplitConfig = _SPLIT,
    copy_to: str = "",
) -> Dataset:
    """Finds the examples of a data set; no image is opened.

    Args:
        root: folder of the data set, also `gs://BUCKET/FOLDER` or a name on the hub.
        layout: its name, one of `recognise.LAYOUTS`; 'auto' finds it out. docs/data.md says what
            each is.
        request: what the readers need to know besides.
        split: how to cut splits that are not there.
        copy_to: folder of the copy of a data set in a bucket; see `system.fetch`.

    Returns:
        The data set. Examples keep the order of the annotation, or that of the sorted folders.

    Raises:
        DataError: with a sentence for each thing that is missing, unreadable or contradictory.
    """
    dataset, problems = scan(root, layout=layout, request=request, split=split, copy_to=copy_to)
    if problems:
        raise DataError(problems)
    return dataset
