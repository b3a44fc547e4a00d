"""`--mode compare`: a table of runs, their scores first, then the settings in which they differ.

Only the small JSON files of the runs are read; nothing is computed on a device or written.
"""

import dataclasses
import os
import pathlib
import textwrap
from collections.abc import Sequence
from typing import Any

from clevit_jax.errors import ConfigError
from clevit_jax.runs import results
from clevit_jax.runs.results import RunResult
from clevit_jax.runs.workdir import CONFIG_FILE
from clevit_jax.steps.eval_step import LEVEL_PREFIX
from clevit_jax.system.places import in_bucket
from clevit_jax.system.tables import align

WIDTH = 100
_MAX_NAME, _MIN_NAME = 24, 6  # characters of a run's name; the least where its scores are long
_MAX_SEEDS = 9  # characters of the seeds of a row
_MIN_SETTING = 12  # characters of a column of settings
_UNSET = "not set"


@dataclasses.dataclass(frozen=True)
class RunRow:
    """A row of the table: a run, or the seeds of one folder.

    Attributes:
        name: end of the path, as far as it tells the rows apart.
        runs: one run, or all seeds that were begun.
        seeds: whether it is a folder of seeds.
        split_hash: of the images, None where it is not recorded.
    """

    name: str
    runs: tuple[RunResult, ...]
    seeds: bool
    split_hash: str | None

    @property
    def shown(self) -> tuple[RunResult, ...]:
        """The runs whose scores are shown: of seeds, the finished ones."""
        return tuple(run for run in self.runs if run.finished) if self.seeds else self.runs

    @property
    def finished(self) -> bool:
        return all(run.finished for run in self.runs)


def compare_runs(paths: Sequence[pathlib.Path]) -> int:
    """Prints a table of runs and their differences. Returns 0.

    Args:
        paths: workdirs of runs, and folders of `--mode seeds`.

    Raises:
        ConfigError: a path is neither, or a file of a run cannot be read; nothing is printed.
    """
    if not paths:
        raise ConfigError("Name the runs to compare: --mode compare RUN RUN ...")
    print(comparison_text(read_rows(paths)), flush=True)
    return 0


def read_rows(paths: Sequence[pathlib.Path]) -> list[RunRow]:
    """Reads runs and folders of seeds. Raises ConfigError, see `compare_runs`."""
    seeds = [results.seed_folders(path) for path in paths]
    wrong = [
        str(path)
        for path, folders in zip(paths, seeds, strict=True)
        if not folders and not (path / CONFIG_FILE).is_file()
    ]
    if wrong:
        raise ConfigError(
            f"{', '.join(wrong)} {'is not a run' if len(wrong) == 1 else 'are not runs'}: there is "
            f"neither {CONFIG_FILE} nor a run seed-N inside; name the --workdir of a run."
        )
    rows = []
    for path, name, folders in zip(paths, _names(paths), seeds, strict=True):
        whole = (path / CONFIG_FILE).is_file()
        runs = tuple(map(results.read_result, [path] if whole else folders.values()))
        try:
            split_hash = results.common_split(runs)
        except ConfigError as error:
            raise ConfigError(f"{path}: {error}") from error
        rows.append(RunRow(name, runs, not whole, split_hash))
    return rows


def _names(paths: Sequence[pathlib.Path]) -> list[str]:
    """The shortest ends of the paths that tell them apart; the same path keeps one name."""
    parts = [
        path.parts if in_bucket(path) else pathlib.Path(os.path.abspath(path)).parts
        for path in paths
    ]
    names = []
    for own in parts:
        others = [other for other in parts if other != own]
        count = 1
        while count < len(own) and any(other[-count:] == own[-count:] for other in others):
            count += 1
        names.append(str(pathlib.Path(*own[-count:])))
    return names


def comparison_text(rows: Sequence[RunRow]) -> str:
    """The table of scores, then what it needs to be read, then the settings that differ."""
    reference = next((row.split_hash for row in rows if row.split_hash), None)
    table = [["", "run", "top-1", "mean/class", "loss", "best top-1", "step", "seed"]]
    table += [[_label(k, row, reference), *_scores(row)] for k, row in enumerate(rows, 1)]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    room = WIDTH - sum(2 + width for k, width in enumerate(widths) if k != 1)
    for cells in table:
        cells[1] = _shorten(cells[1], max(room, _MIN_NAME))
    lines = [
        "Test scores after the last epoch, in %; best: of the epoch best on the images named.",
        "",
    ]
    lines += align(table, left=range(2))
    lines += _levels(rows, reference)
    notes = _notes(rows, reference)
    return "\n".join([*lines, *([""] if notes else []), *notes, "", *_settings(rows)])


def _levels(rows: Sequence[RunRow], reference: str | None) -> list[str]:
    """A table of the scores by the coarser levels of the classes that all rows have."""
    scores = [[run.last for run in row.shown if run.last] for row in rows]
    names = results.common_levels([one for some in scores for one in some]) if all(scores) else []
    if not names:
        return []
    heads = [_shorten(name.removeprefix(LEVEL_PREFIX), _MAX_NAME) for name in names]
    table = [["", "run", *heads]]
    table += [
        [_label(k, row, reference), _shorten(row.name, _MAX_NAME)]
        + [_spread(some, name) for name in names]
        for k, (row, some) in enumerate(zip(rows, scores, strict=True), 1)
    ]
    return ["", "Images in the right group, in %:", "", *align(table, left=range(2))]


def _label(number: int, row: RunRow, reference: str | None) -> str:
    marks = ("!" if row.split_hash and row.split_hash != reference else "") + (
        "" if row.finished else "*"
    )
    return f"{number}{marks}"


def _scores(row: RunRow) -> list[str]:
    """The cells of a row after its number."""
    last = [run.last for run in row.shown if run.last]
    best = [run.best for run in row.shown if run.best]
    val = " val" if any(run.scored_on == "val" for run in row.shown) else ""
    chosen = f" {best[0]['chosen_on']}" if best else ""
    seed = [int(run.config.get("seed", 0)) for run in row.runs]
    return [
        _shorten(row.name, _MAX_NAME),
        _spread(last, "top1") + (val if last else ""),
        _spread(last, "mean_per_class"),
        _spread(last, "loss"),
        _spread(best, "top1") + chosen,
        _progress(row),
        _shorten(_ranges(seed), _MAX_SEEDS),
    ]


def _spread(scores: Sequence[dict[str, Any]], name: str) -> str:
    """`61.00`, or of several `61.00+-1.20`."""
    if not scores:
        return "-"
    digits, scale = (4, 1) if name == "loss" else (2, 100)
    mean, deviation = results.mean_and_deviation([row[name] for row in scores])
    more = "" if deviation is None else f"+-{scale * deviation:.{digits}f}"
    return f"{scale * mean:.{digits}f}{more}"


def _progress(row: RunRow) -> str:
    if row.seeds:
        return f"{len(row.shown)}/{len(row.runs)} seeds"
    (run,) = row.runs
    return f"{run.step}/{'?' if run.total is None else run.total}"


def _ranges(numbers: Sequence[int]) -> str:
    """`0-2,5`."""
    ends: list[list[int]] = []
    for number in sorted(numbers):
        if ends and number == ends[-1][1] + 1:
            ends[-1][1] = number
        else:
            ends.append([number, number])
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in ends)


def _notes(rows: Sequence[RunRow], reference: str | None) -> list[str]:
    """Sentences on what the numbers stand for."""
    notes = []
    unfinished = [row for row in rows if not row.finished]
    if any(not row.seeds for row in unfinished):
        notes.append(
            "* not finished: the scores are of its newest evaluation, on validation images where "
            "it says val."
        )
    if any(row.seeds for row in unfinished):
        notes.append("* seeds that are not finished are left out of the mean.")
    if any(row.seeds for row in rows):
        notes.append("+- is the sample standard deviation over the seeds.")
    others = [k for k, row in enumerate(rows, 1) if row.split_hash not in (None, reference)]
    unknown = [k for k, row in enumerate(rows, 1) if row.split_hash is None]
    scored = [run for row in rows for run in row.shown if run.scored_on == "test"]
    counts = {run.last["count"] for run in scored if run.last}
    if others:
        first = next(k for k, row in enumerate(rows, 1) if row.split_hash)
        notes.append(
            f"! not comparable: {_ranges(others)} had other images, or another split of them, than "
            f"{first} (split {(reference or '')[:8]})."
        )
    if unknown:
        notes.append(f"It is not recorded which images {_ranges(unknown)} was tested on.")
    if not others and not unknown and len(rows) > 1:
        (count,) = counts if len(counts) == 1 else (None,)
        some = f"{count} " if count else ""
        notes.append(f"All were tested on the same {some}images (split {(reference or '')[:8]}).")
    return [line for note in notes for line in textwrap.wrap(note, WIDTH)]


def _settings(rows: Sequence[RunRow]) -> list[str]:
    """One row per setting that differs, one column per run; where that is too wide, by value."""
    configs = [row.runs[0].config for row in rows]
    names = sorted({name for config in configs for name in config} - {"seed"})
    values = {name: [_text(config, name) for config in configs] for name in names}
    differ = {name: texts for name, texts in values.items() if len(set(texts)) > 1}
    if len(rows) < 2:
        return ["A single run has no differences."]
    if not differ:
        return ["All settings but the seed are the same."]
    first = max(map(len, differ))
    room = (WIDTH - first) // len(rows) - 2
    if room < _MIN_SETTING:
        return ["Settings that differ, and the runs with each value:", *_by_value(differ)]
    heads = [f"{k} {row.name}" for k, row in enumerate(rows, 1)]
    table = [["", *(_shorten(head, room) for head in heads)]]
    table += [[name, *(_shorten(text, room) for text in texts)] for name, texts in differ.items()]
    return ["Settings that differ:", "", *align(table, left=range(len(table[0])))]


def _by_value(differ: dict[str, list[str]]) -> list[str]:
    lines = []
    for name, texts in differ.items():
        lines.append(name)
        for text in dict.fromkeys(texts):
            runs = _ranges([k for k, other in enumerate(texts, 1) if other == text])
            line = f"{runs:<16} {_shorten(text, WIDTH - 19)}"
            lines += [f"  {part}" for part in textwrap.wrap(line, WIDTH - 2)]
    return lines


def _text(config: dict[str, Any], name: str) -> str:
    if name not in config:
        return _UNSET
    return str(config[name]) or repr("")


def _shorten(text: str, width: int) -> str:
    """Leaves out the middle of what is too long."""
    text = text.replace("\n", " ")
    if len(text) <= width:
        return text
    front = (width - 3) // 2
    return f"{text[:front]}...{text[len(text) - (width - 3 - front) :]}"
