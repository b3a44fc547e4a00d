"""run.json and evaluation.json: read, with all that is there checked, and the mend in the error."""

import datetime
import math
import pathlib
from collections.abc import Callable
from typing import Any

from clevit_jax.data.dataset import Level
from clevit_jax.errors import ConfigError
from clevit_jax.model.preprocessing import IMAGENET_MEAN, IMAGENET_STD, Colour, colour
from clevit_jax.runs.goodput import SPENT_ON
from clevit_jax.runs.workdir import EVALUATION_FILE, RUN_FILE
from clevit_jax.steps.eval_step import LEVEL_PREFIX
from clevit_jax.system.files import read_json_object

SCORES = ("top1", "top5", "mean_per_class", "loss")


# What `runs.goodput` adds to a start; those of older versions have none of it.
_OF_TIME: dict[str, Callable[[Any], bool]] = {
    "reached": lambda value: _is_number(value),
    "seen": lambda value: isinstance(value, str) and _is_moment(value),
    "seconds": lambda value: _are_seconds(value, *SPENT_ON),
    "finished": lambda value: value is True,
}


def _is_moment(text: str) -> bool:
    """Whether this is a date and time with its zone, ISO 8601."""
    try:
        return datetime.datetime.fromisoformat(text).tzinfo is not None
    except ValueError:
        return False


def _are_seconds(value: Any, *names: str) -> bool:
    """Whether these are numbers of these names, none below 0; `goodput` of nothing is empty."""
    return isinstance(value, dict) and all(
        _is_number(value.get(name)) and 0 <= value[name] < math.inf for name in names
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_start(value: Any) -> bool:
    """Whether it is one of `starts`: the step, and what `describe_environment` gives."""
    if not isinstance(value, dict):
        return False
    devices, command = value.get("devices"), value.get("command")
    return (
        _is_number(value.get("step"))
        and _is_number(value.get("processes"))
        and isinstance(value.get("started"), str)
        and isinstance(value.get("python"), str)
        and isinstance(value.get("versions"), dict)
        and isinstance(devices, list)
        and len(devices) == 2
        and isinstance(command, list)
        and all(isinstance(word, str) for word in command)
        and all(right(value[name]) for name, right in _OF_TIME.items() if name in value)
        and len({"reached", "seen", "seconds"} & value.keys()) in (0, 3)
    )


def _list_of(kind: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, list) and all(map(kind, value))


def _are_levels(value: Any) -> bool:
    """Whether these are `levels`: name -> the group of each class, see `data.dataset.Level`."""
    is_level = _list_of(lambda group: isinstance(group, str))
    return isinstance(value, dict) and all(map(is_level, value.values()))


def _are_colours(value: Any, name: str) -> bool:
    """Whether these are the mean or the std that a run normalises by."""
    try:
        return isinstance(value, list) and bool(colour(value, name))
    except ValueError:
        return False


# What run.json holds; see `logger.write_run_facts`.
_FACTS: dict[str, Callable[[Any], bool]] = {
    "parameters": _is_number,
    "global_batch": _is_number,
    "updates": _is_number,
    "peak_learning_rate": _is_number,
    "peak_learning_rate_head": _is_number,
    "chosen_on": lambda value: value in ("test", "val"),
    "split_hash": lambda value: isinstance(value, str),
    "class_names": _list_of(lambda value: isinstance(value, str)),
    "starts": _list_of(_is_start),
}
# What not every run has: older ones no levels, mean, std and numbers of skipped images; only
# those that ended early (`patience.note_end`), where and why.
_OF_SOME: dict[str, Callable[[Any], bool]] = {
    "levels": _are_levels,
    "mean": lambda value: _are_colours(value, "mean"),
    "std": lambda value: _are_colours(value, "std"),
    "skipped": lambda value: isinstance(value, dict) and all(map(_is_number, value.values())),
    "ended_at": _is_number,
    "ended_because": lambda value: isinstance(value, str),
    "goodput": lambda value: value == {} or _are_seconds(value, "share", "total", *SPENT_ON),
}


def read_run_facts(workdir: pathlib.Path, *needed: str) -> dict[str, Any]:
    """The content of run.json.

    Args:
        workdir: of the run.
        needed: facts that must be there.

    Raises:
        ConfigError: there is no such file, or a fact is missing or of another type.
    """
    path = workdir / RUN_FILE
    mend = f"The command that trains the run writes it again: --mode train --workdir {workdir}."
    try:
        facts = read_json_object(path)
    except ConfigError as error:
        raise ConfigError(f"{error} {mend}") from error
    if missing := [name for name in needed if name not in facts]:
        raise ConfigError(f"{path} lacks {', '.join(missing)}; it is damaged. {mend}")
    for name, right in {**_FACTS, **_OF_SOME}.items():
        if name in facts and not right(facts[name]):
            raise ConfigError(f"{path} is damaged: its {name} is {_short(facts[name])}. {mend}")
    classes = len(facts.get("class_names", ()))
    for name, groups in facts.get("levels", {}).items():
        if len(groups) != classes:
            raise ConfigError(
                f"{path} is damaged: its level {name!r} has {len(groups)} groups for {classes} "
                f"classes. {mend}"
            )
    return facts


def levels_of(facts: dict[str, Any]) -> tuple[Level, ...]:
    """The coarser levels of the classes in what `read_run_facts` gave; none of older runs."""
    return tuple(Level(name, tuple(groups)) for name, groups in facts.get("levels", {}).items())


def colours_of(facts: dict[str, Any]) -> tuple[Colour, Colour]:
    """Mean and std in what `read_run_facts` gave; ImageNet's of older runs."""
    return (
        colour(facts.get("mean", IMAGENET_MEAN), "mean"),
        colour(facts.get("std", IMAGENET_STD), "std"),
    )


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def run_facts_are_whole(workdir: pathlib.Path) -> bool:
    """Whether run.json is there and says all that it should."""
    try:
        read_run_facts(workdir, *_FACTS)
    except ConfigError:
        return False
    return True


def read_evaluation(workdir: pathlib.Path) -> dict[str, Any]:
    """The content of evaluation.json, with "last" at least; empty where there is no such file.

    Raises:
        ConfigError: it is damaged.
    """
    path = workdir / EVALUATION_FILE
    if not path.exists():
        return {}
    mend = f"score the run again: --mode eval --workdir {workdir}."
    try:
        evaluation = read_json_object(path)
    except ConfigError as error:
        raise ConfigError(f"{str(error).removesuffix('.')}; {mend}") from error
    if evaluation.get("last") is None:
        raise ConfigError(f"{path} lacks 'last'; {mend}")
    if not isinstance(evaluation.get("split_hash", ""), str):
        raise ConfigError(f"{path} is damaged: its split_hash is no text; {mend}")
    for name in ("last", "best"):
        scores = evaluation.get(name)
        if scores is None:
            continue
        if not _are_scores(scores, "step") or not (
            scores.get("val") is None or _are_scores(scores["val"])
        ):
            wanted = ", ".join(("step", "count", *SCORES))
            raise ConfigError(f"{path} lacks a number among {wanted} of {name!r}; {mend}")
    return evaluation


def _are_scores(value: Any, *more: str) -> bool:
    if not isinstance(value, dict):
        return False
    levels = [name for name in value if name.startswith(LEVEL_PREFIX)]
    return all(_is_number(value.get(name)) for name in (*more, "count", *SCORES, *levels))
