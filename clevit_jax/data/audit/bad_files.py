"""Findings on files: what is wrong with those of a data set, and images that cannot be read."""

from collections import defaultdict
from collections.abc import Sequence

from clevit_jax.data import skipped
from clevit_jax.data.audit.finding import Finding, first_five
from clevit_jax.data.audit.read import Reading
from clevit_jax.data.dataset import Dataset, Skipped
from clevit_jax.data.open import DataConfig
from clevit_jax.errors import Repeated, said_once


def problems_of(problems: Sequence[str]) -> list[Finding]:
    """Problems of a data set, those of one rule merged (`errors.said_once`)."""
    listed = list[Finding]()
    of_rule: dict[str, list[str]] = {}
    for problem in problems:
        rule = problem.rule if isinstance(problem, Repeated) else problem
        of_rule.setdefault(rule, []).append(problem)
    for same in of_rule.values():
        said = said_once(same)
        if len(said) == 1 < len(same):
            listed.append(Finding("problem", said[0], len(same), list(map(str, same))))
        else:
            listed += [Finding("problem", str(problem)) for problem in same]
    return listed


def _why(name: str, sentence: str) -> str:
    """What a sentence says of a file, without its name, its folder and the full stop."""
    return sentence.partition(name)[2].strip().removesuffix(".") or sentence.removesuffix(".")


def unreadable_images(problems: Sequence[str], reading: Reading) -> list[Finding]:
    """A finding a file, or one for all files of a fault where more than three have it."""
    unreadable = list(reading.unreadable)
    if not problems:
        unreadable += [(name, f"{name} is gone since it was listed.") for name in reading.missing]
    files = defaultdict[str, list[tuple[str, str]]](list)
    for name, sentence in unreadable:
        files[_why(name, sentence)].append((name, sentence))
    listed = list[Finding]()
    for why, same in files.items():
        names = [name for name, _ in same]
        if len(names) > 3:
            sentence = f"{len(names):,} images have the same fault, each {why} {first_five(names)}."
            listed.append(Finding("unreadable", sentence, len(names), names))
        else:
            listed += [Finding("unreadable", sentence, 1, [name]) for name, sentence in same]
    return listed


def weigh(
    config: DataConfig, dataset: Dataset, problems: Sequence[str], reading: Reading
) -> tuple[list[Finding], list[Finding]]:
    """Images that cannot be read: those that stop a run, and those that it would leave out."""
    found = unreadable_images(problems, reading)
    bad = [Skipped(e.split, e.example, "") for e in reading.entries if e.facts is None]
    if not found or problems:
        return found, []
    if reading.faults:
        which = first_five(reading.faults)
        failed = f"The disk or the machine failed {which}, which says nothing of the images"
        return _advised(found, f"{failed}: mend that, and check again."), []
    if config.on_bad_image != "skip":
        return _advised(found, skipped.how_to_go_on(bad, dataset, config)), []
    reduced = skipped.leave_out(dataset, bad)
    if too_many := skipped.problems(reduced, config.max_bad):
        return _advised(found, " ".join(said_once(too_many))), []
    return [], _advised(found, skipped.would_skip(reduced))


def _advised(found: Sequence[Finding], advice: str) -> list[Finding]:
    return [finding._replace(advice=advice) for finding in found]
