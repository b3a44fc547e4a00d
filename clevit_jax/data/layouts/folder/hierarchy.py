"""Folders in folders: which level of them the classes are, and what the classes are called."""

import collections
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

from clevit_jax.data.dataset import Level
from clevit_jax.data.layouts.folder.folder_names import are_counted, are_numbers, of_pictures
from clevit_jax.data.layouts.listing import first_three

Path = tuple[str, ...]  # names of folders, from the top
_FEW = 3  # so many times more classes than names of sub-folders make these no classes
# Sub-folders that say what is seen, not how: then the folders above may well be no classes.
_STATES = frozenset(
    ["healthy", "diseased", "sick", "infected", "normal", "abnormal", "benign", "malignant"]
    + ["positive", "negative", "pos", "neg", "yes", "no", "good", "bad", "male", "female"]
)


class Cut(NamedTuple):
    """Which level of the folders the classes are.

    Attributes:
        depth: how many names of a path are the class, at most; 0 is all of them.
        merged: whether only the last of these names counts, whatever it lies in.
    """

    depth: int
    merged: bool = False

    def of(self, path: Path) -> Path:
        """The class that the images in a folder are of."""
        if self.merged:
            return path[self.depth - 1 : self.depth] or path
        return path[: self.depth] if self.depth else path


class Decision(NamedTuple):
    """A cut, or None where the user must choose; and what to ask or warn of, "" for nothing."""

    cut: Cut | None
    said: str = ""


def decide(paths: Mapping[Path, int], level: str, where: str, root: str = "") -> Decision:
    """Finds out which level the classes are.

    Args:
        paths: the folders that hold training images, relative to the one that holds the classes,
            and how many each holds.
        level: "top", "leaf", a number from 1 or "auto", as the user gave it.
        where: what holds them, for sentences.
        root: what one of them would be read as alone, where that can be done.
    """
    deepest = max(map(len, paths), default=1)
    if level == "top":
        return Decision(Cut(1))
    if level == "leaf":
        return Decision(Cut(0))
    if level != "auto":
        return _numbered(paths, int(level), deepest, where)
    tops: dict[str, set[Path]] = collections.defaultdict(set)
    for path in paths:
        tops[path[0]].add(path[1:])
    if all(len(below) == 1 for below in tops.values()):
        return Decision(Cut(1))
    return _read_or_asked(paths, tops, where, root)


def _numbered(paths: Collection[Path], depth: int, deepest: int, where: str) -> Decision:
    """The level that the user names."""
    if depth > deepest:
        return Decision(
            None,
            f"data.class_level is {depth}, but {where} has {deepest} level(s) of folders; set it "
            f"to {deepest} at most, or to leaf.",
        )
    parents: dict[str, set[Path]] = collections.defaultdict(set)
    for path in paths:
        if len(path) >= depth:
            parents[path[depth - 1]].add(path[: depth - 1])
    repeated = [name for name, above in parents.items() if len(above) > 1]
    if depth == 1 or 3 * len(repeated) < 2 * len(parents):
        return Decision(Cut(depth))
    shown = first_three([f"{name}/" for name in sorted({p[0] for p in paths})])
    return Decision(
        Cut(depth, merged=True),
        f"{where}: folders of one name in {shown} are one class (data.class_level={depth}).",
    )


def _read_or_asked(
    paths: Mapping[Path, int], tops: Mapping[str, set[Path]], where: str, root: str
) -> Decision:
    """The top level where the folders below cannot be classes; else a question."""
    leaves = len(set(paths))
    if len(tops) == 1:
        (top,) = tops
        return Decision(
            None,
            f"{where} has one class, {top!r}, at the top level of its folders, and others below: "
            f"{_choices(paths, from_depth=2)}.",
        )
    with_below = {top: below for top, below in tops.items() if below != {()}}
    names = collections.Counter(
        name for below in with_below.values() for name in {path[0] for path in below if path}
    )
    inside = {name for below in with_below.values() for path in below for name in path}
    repeated = 2 * sum(count > 1 for count in names.values()) >= len(names)
    # A class has images of its own beside its sub-folders, or these say how they were taken.
    if (
        _mostly_above(paths, with_below)
        or of_pictures(inside)  # not of `amazon/images/mug`, where but one level is
        or (are_numbers(inside) and repeated)
        or (
            repeated
            and len(tops) >= _FEW * len(inside)
            and len(with_below) > 1
            and not (set(names) & _STATES or of_pictures(tops) or are_counted(tops))
        )
    ):
        same = ", the same in several classes," if repeated and len(with_below) > 1 else ""
        return Decision(
            Cut(1),
            f"{where}: the sub-folders of classes ({first_three(sorted(names))}){same} are not "
            f"taken for classes, and their images count for the folder above; if they are, set "
            f"data.class_level=leaf ({leaves} classes).",
        )
    if repeated:
        return Decision(None, _which_of(paths, sorted(tops), sorted(names), where, root))
    return Decision(
        None,
        f"{where} has folders in folders, and the classes may be either: "
        f"{_choices(paths, from_depth=1)}.",
    )


def _mostly_above(paths: Mapping[Path, int], with_below: Mapping[str, set[Path]]) -> bool:
    """Whether each folder that has sub-folders has images of its own, and not just a few."""
    above = sum(paths.get((top,), 0) for top in with_below)
    below = sum(count for path, count in paths.items() if len(path) > 1)
    return all(() in inside for inside in with_below.values()) and 4 * above >= below


def _which_of(
    paths: Collection[Path], tops: Sequence[str], names: Sequence[str], where: str, root: str
) -> str:
    """A question where the same folders lie in each folder at the top."""
    alone = f"read one of them alone: data.root={root}/{tops[0]}, say" if root else "keep one alone"
    if root and len(tops) in (2, 3) and not of_pictures(tops):
        alone += "; or, if they are splits, call them train/ and test/"
    return (
        f"{where}: the same folders ({first_three(names)}) lie in {first_three(tops)}; choose one "
        f"of these: {_choices(paths, from_depth=1)}; or {alone}."
    )


def _choices(paths: Collection[Path], *, from_depth: int) -> str:
    """`2 classes at the top level (Fruit, Vegetables): data.class_level=top; 4 at the leaves ...`

    Levels that part the images as the one before or the leaves do are left out.
    """
    deepest = max(map(len, paths))
    said, counts = list[str](), {len(set(paths))}
    for depth in range(from_depth, deepest + 1):
        cut = _numbered(paths, depth, deepest, "").cut
        assert cut is not None
        classes = {cut.of(path) for path in paths}
        if depth == 1:
            said.append(_choice(classes, "at the top level", "top"))
        elif cut.merged:
            said.append(_choice(classes, "with those of one name together", str(depth)))
        elif len(classes) not in counts:
            said.append(_choice(classes, f"at level {depth}", str(depth)))
        counts.add(len(classes))
    said.append(_choice(set(paths), "at the leaves", "leaf"))
    return "; ".join([said[0], *(each.replace(" classes", "", 1) for each in said[1:])])


def _choice(classes: Collection[Path], place: str, setting: str) -> str:
    shown = first_three(["/".join(path) for path in sorted(classes)])
    unit = "class" if len(classes) == 1 else "classes"
    return f"{len(classes):,} {unit} {place} ({shown}): data.class_level={setting}"


def names_of(paths: Iterable[Path]) -> dict[Path, str]:
    """Path -> its last name, or the whole path where another one ends alike."""
    paths = list(paths)
    ends = collections.Counter(path[-1] for path in paths)
    return {path: path[-1] if ends[path[-1]] == 1 else "/".join(path) for path in paths}


def levels_above(classes: Sequence[Path]) -> tuple[Level, ...]:
    """The levels above the classes, the coarsest first.

    Left out is one that has a single group, or a group for each class.
    """
    made = list[Level]()
    for depth in range(1, max(map(len, classes), default=1)):
        groups = [path[:depth] for path in classes]
        names = names_of(dict.fromkeys(groups))
        if 1 < len(names) < len(classes):
            made.append(Level(f"level {depth}", tuple(names[group] for group in groups)))
    return tuple(made)
