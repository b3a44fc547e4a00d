"""Names of classes that are numbers, from a table beside: JSON, CSV or lines of text."""

import pathlib
import re
import unicodedata
from collections.abc import Mapping, Sequence

from clevit_jax.data.dataset import Example
from clevit_jax.data.layouts.listing import Notes, first_three, is_image
from clevit_jax.data.layouts.name_files import Names, name_files

_BESIDE = ("", "anno", "annotations", "meta")  # folders with lists of names that were not needed
_SOME = 2000  # examples whose folders are compared with the names of their classes


def name_numbers(root: pathlib.Path, classes: Sequence[str], notes: Notes) -> tuple[str, ...]:
    """Names for classes whose names are all numbers, as far as a file in `root` tells them.

    A file that numbers its names must name every class. A bare list of n names is for the labels
    0 to n - 1 or 1 to n, whichever the classes are within.

    Args:
        root: folder of the data set.
        classes: as they are called so far, one for each label.
        notes: gets a warning on where the names come from, or why they are not taken.

    Returns:
        One name for each label; `classes` themselves where nothing names them.
    """
    numbers = tuple(classes)
    if len(numbers) < 2 or not all(re.fullmatch(r"[0-9]{1,18}", name) for name in numbers):
        return numbers
    plain = [str(int(name)) for name in numbers]
    told: dict[tuple[str, ...], list[str]] = {}
    unfit = list[str]()
    for path, names in name_files(root):
        where = path.relative_to(root).as_posix()
        named, why = _named(plain, names)
        if named is not None:
            told.setdefault(named, []).append(where)
        elif why:
            unfit.append(f"{where} {why}")
    if len(told) > 1:
        files = " and ".join(paths[0] for paths in told.values())
        notes.warnings.append(
            f"{root}: {files} name the classes differently, so they keep their numbers; remove or "
            "rename one of the files."
        )
        return numbers
    if told:
        (names_of, paths), *_ = told.items()
        notes.warnings.append(
            f"{root}: the classes have their names from {paths[0]} ({numbers[0]} is "
            f"{names_of[0]!r}, {numbers[-1]} is {names_of[-1]!r})."
        )
        return names_of
    if unfit:
        notes.warnings.append(f"{root}: the classes keep their numbers: {'; '.join(unfit[:3])}.")
    return numbers


def warn_of_folders(
    root: pathlib.Path, names: Sequence[str], examples: Sequence[Example], notes: Notes
) -> None:
    """Warns where images lie in a folder that is called as another class than theirs.

    Args:
        root: the data set, for the sentence.
        names: of the classes; those that are numbers may count otherwise than folders do.
        examples: some are looked at.
        notes: gets the warning.
    """
    called = {_plain(name): label for label, name in enumerate(names) if not name.isdigit()}
    wrong: dict[str, str] = {}
    for example in examples[:: max(1, len(examples) // _SOME)]:
        folders = [called.get(_plain(folder)) for folder in example.name.split("/")[:-1]]
        if any(label is not None for label in folders) and example.label not in folders:
            wrong.setdefault(names[example.label], example.name)
    if wrong:
        shown = [f"{file!r} is of {name!r}" for name, file in wrong.items()]
        count = "1 class has" if len(wrong) == 1 else f"{len(wrong):,} classes have"
        notes.warnings.append(
            f"{root}: {count} images in folders called as other classes ({first_three(shown)}); "
            "check the labels, or the order of the list of class names."
        )


def warn_of_lists(root: pathlib.Path, classes: Sequence[str], notes: Notes) -> None:
    """Warns where a list of class names beside has others than the classes that were read.

    One that has less than half of them is of something else.

    Args:
        root: folder of the data set.
        classes: their names, which are not all numbers.
        notes: gets the warning.
    """
    ours = {_plain(name): name for name in classes}
    if all(name.isdecimal() for name in classes):
        return
    for path, names in name_files(root, _BESIDE):
        listed = {_plain(name): name for name in (*names.by_number.values(), *names.in_order)}
        both = ours.keys() & listed.keys()
        lacking = [name for key, name in ours.items() if key not in listed]
        strange = [name for key, name in listed.items() if key not in ours]
        if 2 * len(both) > len(listed) and lacking and strange:
            notes.warnings.append(
                f"{root}: {path.relative_to(root).as_posix()} names {first_three(strange)}, which "
                f"{'is no class' if len(strange) == 1 else 'are no classes'} of the images, and "
                f"not {first_three(lacking)}; the names are those of the images, so check which "
                "are right."
            )


def _named(plain: Sequence[str], names: Names) -> tuple[tuple[str, ...] | None, str]:
    """The names of classes by what a file says; None, and perhaps why not."""
    by_number: Mapping[str, str] = names.by_number
    if names.in_order:
        start, why = _start(plain, names.in_order)
        if start is None:
            return None, why
        by_number = {str(start + i): name for i, name in enumerate(names.in_order)}
    known = [number for number in plain if by_number.get(number)]
    if not known:
        return None, ""
    if len(known) < len(plain):
        lacking = next(number for number in plain if not by_number.get(number))
        return None, f"does not name label {lacking}"
    told = tuple(by_number[number] for number in plain)
    if all(re.fullmatch(r"-?[0-9.]+", name) for name in told):
        return None, ""
    if len(set(told)) < len(told):
        return None, "gives several labels one name"
    return told, ""


def _start(plain: Sequence[str], listed: Sequence[str]) -> tuple[int | None, str]:
    """The label of the first name of a bare list; None, and perhaps why it cannot be told."""
    count, labels = len(listed), [int(number) for number in plain]
    low, high = min(labels), max(labels)
    if any(map(is_image, listed)):
        return None, ""
    if low == 0 and high == count - 1:
        return 0, ""
    if low == 1 and high == count:
        return 1, ""
    is_near = len(labels) <= 2 * count <= 4 * len(labels)
    why = f"lists {count} names, and the labels are from {low} to {high}" if is_near else ""
    return None, why


def _plain(name: str) -> str:
    """A name without capitals, numbers before it, and what stands for a blank."""
    text = unicodedata.normalize("NFKC", name).casefold()
    return re.sub(r"[\W_]+", " ", re.sub(r"^[0-9]+[._ -]+", "", text)).strip()
