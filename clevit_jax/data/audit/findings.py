"""Findings of a data check: sentences on what is wrong or odd about the images."""

import itertools
import pathlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from clevit_jax.data import cut_short
from clevit_jax.data.audit import duplicates, filenames
from clevit_jax.data.audit.bad_files import problems_of, unreadable_images
from clevit_jax.data.audit.finding import Finding, counted, first_five, with_advice
from clevit_jax.data.audit.read import Entry, Reading, has_wrong_ending
from clevit_jax.data.dataset import SPLIT_NAMES, Dataset
from clevit_jax.data.decode import PLAIN, Decoding
from clevit_jax.data.sixteen_bit import dark_warning

_UNEVEN = 10


def class_name(dataset: Dataset, label: int) -> str:
    """Name of a class, or its number from 1 where problems left it without one."""
    return dataset.class_names[label] if label < dataset.num_classes else str(label + 1)


def errors(
    dataset: Dataset,
    problems: Sequence[str],
    reading: Reading,
    unreadable: Sequence[Finding] | None = None,
) -> list[Finding]:
    """What makes a data set unusable: problems of its files, unreadable images, two labels.

    Args:
        dataset: as far as problems allow.
        problems: of `sources.scan`; they name the files that are missing.
        reading: the images.
        unreadable: findings on images that cannot be read; by default `unreadable_images`.
    """
    listed = problems_of(problems)
    listed += unreadable_images(problems, reading) if unreadable is None else unreadable
    for group in _same_pixels(reading.entries):
        # One file with two labels in one list is a problem of the list, and told already.
        told = problems and len({(entry.split, entry.example.name) for entry in group}) == 1
        if not told and len({entry.example.label for entry in group}) > 1:
            which = " and ".join(_first_members(dataset, group))
            sentence = f"One picture has several labels: {which}."
            listed.append(Finding("several_labels", sentence, 1, [_members(dataset, group)]))
    return with_advice(listed)


def warnings(dataset: Dataset, reading: Reading, decoding: Decoding = PLAIN) -> list[Finding]:
    """What may well be a mistake, or make the score too good; in the order of its weight."""
    entries = reading.entries
    listed = [
        *_duplicates(dataset, entries),
        *_look_alikes(dataset, entries),
        *_shared_stems(dataset, entries),
        *_decoding(reading, decoding),
        *_class_sizes(dataset),
        *_odd_names(dataset, entries),
    ]
    return with_advice([*listed, *(Finding("layout", sentence) for sentence in dataset.warnings)])


def _decoding(reading: Reading, decoding: Decoding) -> Iterator[Finding]:
    """Images that lack their end, and 16-bit ones that come out dark without being said to."""
    names = list(
        dict.fromkeys(e.example.name for e in reading.entries if e.facts and e.facts.is_cut_short)
    )
    if sentence := cut_short.warning(names):
        yield Finding("cut_short", sentence, len(names), names)
    highest = [facts.highest for facts in reading.files if facts.highest is not None]
    sentence = dark_warning(len(highest), max(highest, default=0))
    if sentence and not decoding.bits:
        yield Finding("dark_16_bit", sentence, len(highest))


def _members(dataset: Dataset, group: Sequence[Entry]) -> list[dict[str, str]]:
    return [
        {
            "file": entry.example.name,
            "split": entry.split,
            "class": class_name(dataset, entry.example.label),
        }
        for entry in group
    ]


def _first_members(dataset: Dataset, group: Sequence[Entry]) -> Iterator[str]:
    for member in _members(dataset, group[:3]):
        yield f"{member['file']} ({member['class']}, {member['split']})"
    if len(group) > 3:
        yield f"{len(group) - 3} more"


def _same_pixels(entries: Sequence[Entry]) -> list[list[Entry]]:
    """Groups of examples with the same pixels, two or more; also one file that is listed twice."""
    groups = defaultdict[bytes, list[Entry]](list)
    for entry in entries:
        if entry.facts is not None:
            groups[entry.facts.pixels].append(entry)
    return [group for group in groups.values() if len(group) > 1]


def _alike_groups(entries: Sequence[Entry]) -> list[list[Entry]]:
    """Groups of examples that look almost the same, of two different pixels at least."""
    groups = defaultdict[bytes, list[Entry]](list)
    looks: dict[bytes, np.ndarray] = {}
    for entry in entries:
        if entry.facts is not None:
            groups[entry.facts.pixels].append(entry)
            looks[entry.facts.pixels] = entry.facts.look
    if not looks:
        return []
    pictures = list(looks)
    linked = duplicates.alike_groups(np.stack(list(looks.values())))
    return [[entry for index in link for entry in groups[pictures[index]]] for link in linked]


def _in_groups(
    groups: Sequence[Sequence[Entry]], first: str, second: str, key: Callable[[Entry], object]
) -> tuple[int, list[Sequence[Entry]]]:
    """How many files of `second` share a group with one of `first` of another key; the groups."""
    files = set[str]()
    concerned = []
    for group in groups:
        keys = {key(entry) for entry in group if entry.split == first}
        inside = {
            entry.example.name
            for entry in group
            if entry.split == second and len(keys) > (key(entry) in keys)
        }
        if inside:
            files |= inside
            concerned.append(group)
    return len(files), concerned


def _across_and_within(
    dataset: Dataset,
    groups: Sequence[Sequence[Entry]],
    kind: str,
    likeness_of: tuple[str, str],
    key: Callable[[Entry], object],
) -> Iterator[Finding]:
    """Findings on groups, between splits and within each."""
    one, several = likeness_of
    splits = list(dataset.splits)
    for first, second in itertools.combinations(splits, 2):
        number, concerned = _in_groups(groups, first, second, key)
        to = SPLIT_NAMES[second]
        if number:
            images = counted(number, f"{to} image {one}", f"{to} images {several}")
            yield Finding(
                f"{kind}_in_{first}_and_{second}",
                f"Possible leak: {images} a {SPLIT_NAMES[first]} image.",
                number,
                [_members(dataset, group) for group in concerned],
            )
    for split in splits:
        number, concerned = _in_groups(groups, split, split, key)
        if number:
            inside = [[entry for entry in group if entry.split == split] for group in concerned]
            yield Finding(
                f"{kind}_in_{split}",
                f"{number:,} {SPLIT_NAMES[split]} images {several} another one of them.",
                number,
                [_members(dataset, group) for group in inside],
            )


def _duplicates(dataset: Dataset, entries: Sequence[Entry]) -> Iterator[Finding]:
    """Different files with the same pixels."""
    verbs = ("is pixel by pixel the same as", "are pixel by pixel the same as")
    groups = _same_pixels(entries)
    yield from _across_and_within(
        dataset, groups, "same_pixels", verbs, lambda entry: entry.example.name
    )


def _look_alikes(dataset: Dataset, entries: Sequence[Entry]) -> Iterator[Finding]:
    """Images of different pixels that look almost the same."""
    verbs = ("looks almost like", "look almost like")
    groups = _alike_groups(entries)

    def pixels(entry: Entry) -> bytes:
        return b"" if entry.facts is None else entry.facts.pixels

    yield from _across_and_within(dataset, groups, "alike", verbs, pixels)
    with_several_labels = [
        group for group in groups if len({entry.example.label for entry in group}) > 1
    ]
    if with_several_labels:
        number = len(with_several_labels)
        yield Finding(
            "alike_with_several_labels",
            f"{counted(number, 'group', 'groups')} of images that look almost the same "
            f"{'has' if number == 1 else 'have'} several labels.",
            number,
            [_members(dataset, group) for group in with_several_labels],
        )


def _shared_stems(dataset: Dataset, entries: Sequence[Entry]) -> Iterator[Finding]:
    """Images whose stem and class a training image has too, as in SoyGene.

    Stems that are bare numbers are left out: class folders that count 1.jpg, 2.jpg, ... in each
    split share them without meaning anything by it.
    """
    train = [entry for entry in entries if entry.split == "train"]
    for split in ("val", "test"):
        others = [entry for entry in entries if entry.split == split]
        twins = filenames.namesakes([e.example for e in train], [e.example for e in others])
        named = {
            i: j for i, j in twins.items() if not filenames.stem(others[i].example.name).isdigit()
        }
        if not named:
            continue
        number, share = len(named), 100 * len(named) / len(others)
        first = next(iter(named))
        pair = f"{train[named[first][0]].example.name} and {others[first].example.name}"
        yield Finding(
            f"shared_stems_in_train_and_{split}",
            f"Possible leak: {number:,} of {len(others):,} {SPLIT_NAMES[split]} images "
            f"({share:.0f} %) {'has' if number == 1 else 'have'} the file name of a training "
            f"image of their class, but for the split and the ending, as {pair}."
            f"{_evidence(train, others, named)}",
            number,
            [_members(dataset, [*(train[j] for j in named[i]), others[i]]) for i in named],
        )


def _evidence(train: Sequence[Entry], others: Sequence[Entry], twins: dict[int, list[int]]) -> str:
    """Whether images look more like their namesake than like the rest of their class."""
    looks = defaultdict[int, dict[int, np.ndarray]](dict)  # label -> index in train -> hash
    for index, entry in enumerate(train):
        if entry.facts is not None:
            looks[entry.example.label][index] = entry.facts.look
    closest, chance = list[float](), list[float]()
    for index, same in twins.items():
        facts, inside = others[index].facts, looks[others[index].example.label]
        is_twin = np.isin(list(inside), same)
        if facts is None or not is_twin.any() or is_twin.all():
            continue
        apart = duplicates.distances(np.stack(list(inside.values())), facts.look)
        closest.append(float(is_twin[apart == apart.min()].mean()))
        chance.append(float(is_twin.mean()))
    if not closest:
        return ""
    hits, expected = np.sum(closest), np.sum(chance)
    deviation = np.sqrt(np.sum([share * (1 - share) for share in chance]))
    shares = (
        f"{100 * np.mean(closest):.0f} %, and would be by chance for {100 * np.mean(chance):.0f} %"
    )
    if hits > expected + 3 * deviation:
        return f" The pictures confirm it: that training image is the most similar for {shares}."
    return f" The pictures do not confirm it: that training image is the most similar for {shares}."


def _class_sizes(dataset: Dataset) -> Iterator[Finding]:
    """Classes that a split lacks, with one training image, or far larger than others."""
    counts = {
        split: Counter(example.label for example in examples)
        for split, examples in dataset.splits.items()
    }
    labels = set(range(dataset.num_classes)) or set().union(*counts.values())
    for split, images in counts.items():
        lacking = [class_name(dataset, x) for x in sorted(labels) if not images[x]]
        if lacking:
            number = len(lacking)
            yield Finding(
                f"no_image_in_{split}",
                f"{counted(number, 'class has', 'classes have')} no {SPLIT_NAMES[split]} image "
                f"{first_five(lacking)}.",
                number,
                lacking,
            )
    train = {label: count for label, count in counts["train"].items() if count}
    single = [class_name(dataset, label) for label in sorted(train) if train[label] == 1]
    if single:
        yield Finding(
            "single_training_image",
            f"{counted(len(single), 'class has', 'classes have')} a single training image "
            f"{first_five(single)}.",
            len(single),
            single,
        )
    by_size = sorted(train, key=lambda label: (train[label], label))
    if train and train[by_size[-1]] >= _UNEVEN * train[by_size[0]]:
        small, large = (class_name(dataset, by_size[index]) for index in (0, -1))
        yield Finding(
            "uneven",
            f"The classes are uneven: {large} has {train[by_size[-1]]:,} training images, "
            f"{small} has {train[by_size[0]]:,}.",
            2,
            [large, small],
        )


def _odd_names(dataset: Dataset, entries: Sequence[Entry]) -> Iterator[Finding]:
    """File names that will make trouble, and endings of another format."""
    kinds = filenames.odd_names(
        entry.example.name for entry in entries if isinstance(entry.example.data, pathlib.Path)
    )
    wrong_ending = {
        entry.example.name: entry.facts.format
        for entry in entries
        if entry.facts is not None and has_wrong_ending(entry.example.name, entry.facts.format)
    }
    if wrong_ending:
        formats = ", ".join(sorted(set(wrong_ending.values())))
        what = f"an ending that is not of the format, {formats}"
        kinds.append(
            filenames.OddNames("wrong_ending", f"have {what}", f"has {what}", sorted(wrong_ending)),
        )
    for odd in kinds:
        number = len(odd.names)
        said = counted(number, f"file name {odd.single}", f"file names {odd.several}")
        quoted = first_five([f"'{name}'" for name in odd.names])
        yield Finding(f"name_{odd.kind}", f"{said} {quoted}.", number, odd.names)
