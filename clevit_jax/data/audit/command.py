"""The mode `check_data`: reads every image of a data set once, and says what is odd or wrong.

`data_check.json` holds, with the text that is printed in `data_check.txt`:

    root, tfds   as the config names the data set
    layout, recognised_by, split_hash, num_classes   null where the layout cannot be told
    levels    coarser levels of the classes, the coarsest first: name -> number of groups
    splits    split -> images, classes, images_a_class {min, median, max}, classes_without_image
    images    read, unreadable, missing: numbers of files; of those read: width and height
              {min, median, max}, smaller_than {setting -> pixels, images, share}, formats and
              modes {name -> images}, turned_by_exif, animated
    memory    splits {split -> side, bytes, images_kept}, bytes, cache_bytes, machine_bytes
    errors, warnings   lists of {kind, sentence, number, items, advice}; the items are names, or
              groups of {file, split, class}, or sentences

What of a name cannot be printed, or is not UTF-8, is written as an escape.
"""

import pathlib
import sys
import textwrap
from typing import Any

from clevit_jax.data.audit import bad_files, findings, read
from clevit_jax.data.audit.finding import Finding
from clevit_jax.data.dataset import Dataset
from clevit_jax.data.open import DataConfig, scan_data
from clevit_jax.errors import ConfigError, DataError
from clevit_jax.system import memory as host_memory
from clevit_jax.system.faults import mend, os_reason
from clevit_jax.system.files import check_can_be_made, why_not_writable, write_json, write_text
from clevit_jax.system.progress import progress_bar
from clevit_jax.system.quoting import printable
from clevit_jax.system.tables import align

JSON, TEXT = "data_check.json", "data_check.txt"
_SHOWN, _MEMBERS = 20, 6
_WIDTH = 100
_INDENT = 13


def check_data(config: DataConfig, workdir: pathlib.Path) -> int:
    """Checks a data set; prints the findings and writes both files, and nothing else, to `workdir`.

    Args:
        config: which images, and how they would be decoded.
        workdir: folder for `data_check.json` and `data_check.txt`.

    Returns:
        1 if there are errors, which are problems that stop a run, unreadable images (unless a run
        would leave them out), and the same pixels with several labels; 0 if there are warnings at
        most.

    Raises:
        ConfigError: a setting that cannot be used, or a `workdir` that cannot be written.
    """
    data_check = write_audit(config, workdir)
    where = f"{_verdict(data_check)}."
    if not why_not_writable(workdir):
        where = f"{_verdict(data_check)}; see {workdir / TEXT} and {JSON} beside it."
    encoding = sys.stdout.encoding or "utf-8"
    text = render_audit(data_check) + "\n" + where
    print(text.encode(encoding, "backslashreplace").decode(encoding))
    return 1 if data_check["errors"] else 0


def write_audit(config: DataConfig, workdir: pathlib.Path) -> dict[str, Any]:
    """Checks a data set and writes both files. Returns the JSON one, raises as `check_data`."""
    try:
        check_can_be_made(workdir)
    except OSError as error:
        raise ConfigError(
            f"--workdir {workdir} cannot be written: {os_reason(error)}{mend(error)}."
        ) from error
    data_check = _printable(audit(config))
    text = render_audit(data_check)
    workdir.mkdir(parents=True, exist_ok=True)
    if reason := why_not_writable(workdir):  # as of another's run
        print(
            f"The check is not written, since {workdir} cannot be written to: {reason}.",
            file=sys.stderr,
            flush=True,
        )
        return data_check
    write_json(workdir / JSON, data_check)
    write_text(workdir / TEXT, text + "\n" + _verdict(data_check) + "\n")
    return data_check


def audit(config: DataConfig) -> dict[str, Any]:
    """Reads the data set and returns what `data_check.json` holds.

    Raises:
        ConfigError: no data is named, or a setting cannot be used.
    """
    named = {"root": config.root, "tfds": config.request.tfds}
    try:
        dataset, problems = scan_data(config)
    except DataError as error:
        known = ("layout", "recognised_by", "split_hash", "num_classes", "levels")
        nothing = dict.fromkeys((*known, "splits", "images", "memory"))
        told = [finding._asdict() for finding in bad_files.problems_of(error.problems)]
        return {**named, **nothing, "errors": told, "warnings": []}
    with progress_bar(unit=" images", desc="Reading images") as bar:

        def advance(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        reading = read.read_images(
            dataset, threads=config.threads, decoding=config.decoding, progress=advance
        )
    sides = {"data.resize": config.resize, "image_size": config.image_size}
    memory, too_small = _memory_of_images(config, dataset)
    unreadable, left_out = bad_files.weigh(config, dataset, problems, reading)
    errors = findings.errors(dataset, problems, reading, unreadable)
    warnings = [*left_out, *findings.warnings(dataset, reading, config.decoding), *too_small]
    return {
        **named,
        "layout": dataset.layout,
        "recognised_by": dataset.recognised_by,
        "split_hash": dataset.split_hash(),
        "num_classes": dataset.num_classes,
        "levels": {level.name: len(level.group_names) for level in dataset.levels},
        "splits": read.describe_splits(dataset),
        "images": {
            "read": len(reading.files),
            "unreadable": len(reading.unreadable),
            "missing": len(reading.missing),
            **read.describe_images(reading.files, sides=sides),
        },
        "memory": memory,
        "errors": [f._asdict() for f in errors],
        "warnings": [f._asdict() for f in warnings],
    }


def _memory_of_images(config: DataConfig, dataset: Dataset) -> tuple[dict[str, Any], list[Finding]]:
    """Bytes of decoded images in training, as `open.decoded_images` shares the cache; warnings."""
    budget, machine = config.cache_bytes, host_memory.total()
    free, splits = budget, {}
    for split, examples in dataset.splits.items():
        side = config.resize if split == "train" else config.image_size
        size, kept = 3 * side**2, min(len(examples), free // (3 * side**2))
        splits[split] = {"side": side, "bytes": size * len(examples), "images_kept": kept}
        free = max(0, free - size * len(examples))
    total = sum(part["bytes"] for part in splits.values())
    memory = {"splits": splits, "bytes": total, "cache_bytes": budget, "machine_bytes": machine}
    too_small = list[Finding]()
    if total > budget:
        again = ", ".join(
            f"{len(examples) - splits[split]['images_kept']:,} of {len(examples):,} in {split}"
            for split, examples in dataset.splits.items()
            if splits[split]["images_kept"] < len(examples)
        )
        mend = f"set data.cache_bytes={total}"
        if total > machine:
            mend = f"all would take {host_memory.size(total)}, more than this machine has"
        too_small.append(
            Finding(
                "cache_too_small",
                f"data.cache_bytes, {host_memory.size(budget)}, does not hold all decoded images, "
                f"so some are decoded in every epoch ({again}); {mend}.",
            )
        )
    if min(total, budget) > machine:
        too_small.append(
            Finding(
                "memory_too_small",
                f"Decoded images may take {host_memory.size(min(total, budget))}, but this machine "
                f"has {host_memory.size(machine)}; training keeps as many as half of the free "
                "memory holds, and decodes the others in every epoch.",
            )
        )
    return memory, too_small


def _printable(value: Any) -> Any:
    """The same value; characters that cannot be printed, or are not UTF-8, become escapes."""
    if isinstance(value, dict):
        return {_printable(name): _printable(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_printable(inner) for inner in value]
    return printable(value) if isinstance(value, str) else value


def _number(value: float) -> str:
    return f"{value:,.1f}".removesuffix(".0")


def _verdict(data_check: dict[str, Any]) -> str:
    counts = ((len(data_check[level]), level) for level in ("errors", "warnings"))
    return ", ".join(f"{n:,} {level.removesuffix('s') if n == 1 else level}" for n, level in counts)


def render_audit(data_check: dict[str, Any]) -> str:
    """The text of `data_check.txt`: 100 columns, but for longer names; lists end after 20 items."""
    lines = _field("Data set", ", ".join(filter(None, (data_check["tfds"], data_check["root"]))))
    if data_check["layout"] is not None:
        lines += _field("Layout", f"{data_check['layout']}, told by {data_check['recognised_by']}")
        lines += _field("Split hash", data_check["split_hash"])
        if data_check["levels"]:
            levels = data_check["levels"].items()
            lines += _field("Levels", ", ".join(f"{name} ({n:,} groups)" for name, n in levels))
        lines += ["", *_render_splits(data_check["splits"])]
        lines += ["", *_render_images(data_check["images"])]
        lines += ["", *_render_memory(data_check["memory"])]
    for level in ("errors", "warnings"):
        if data_check[level]:
            lines += ["", f"{level.upper()} ({len(data_check[level]):,})"]
            lines += _render_findings(level, data_check[level])
    return "\n".join([*lines, ""])


def _field(name: str, text: str) -> list[str]:
    return _wrapped(name.ljust(_INDENT), text)


def _wrapped(first: str, text: str) -> list[str]:
    kept = textwrap.wrap(
        text.replace(" %", "\xa0%"),  # a number and its unit stay on one line
        _WIDTH,
        initial_indent=first,
        subsequent_indent=" " * max(len(first), 6),
        break_long_words=False,
        break_on_hyphens=False,
    )
    return [line.replace("\xa0", " ") for line in kept]


def _render_splits(splits: dict[str, Any]) -> list[str]:
    table = [
        ["Split", "images", "classes", "empty classes", "images per class: min", "median", "max"]
    ]
    for split, facts in splits.items():
        counts = (facts["images"], facts["classes"], len(facts["classes_without_image"]))
        each = [_number(facts["images_a_class"][name]) for name in ("min", "median", "max")]
        table.append([split, *(f"{count:,}" for count in counts), *each])
    return align(table)


def _render_images(images: dict[str, Any]) -> list[str]:
    lines = _field(
        "Files",
        f"{images['read']:,} read, {images['unreadable']:,} unreadable, "
        f"{images['missing']:,} missing",
    )
    for side in ("width", "height"):
        spread = images[side]
        text = ", ".join(f"{name} {_number(spread[name])}" for name in ("min", "median", "max"))
        lines += _field(side.capitalize(), f"{text} pixels")
    smaller = ", ".join(
        f"{part['images']:,} ({100 * part['share']:.0f} %) than {name} = {part['pixels']:,}"
        for name, part in images["smaller_than"].items()
    )
    lines += _field("Smaller", f"{smaller}; these are enlarged")
    for key, name in (("formats", "Formats"), ("modes", "Modes")):
        lines += _field(name, ", ".join(f"{k} {n:,}" for k, n in images[key].items()) or "none")
    return lines + _field(
        "Special",
        f"{images['turned_by_exif']:,} turned upright as EXIF says, "
        f"{images['animated']:,} of several frames, of which the first counts",
    )


def _render_memory(memory: dict[str, Any]) -> list[str]:
    parts = ", ".join(
        f"{split} {host_memory.size(part['bytes'])} ({part['side']} pixels per side)"
        for split, part in memory["splits"].items()
    )
    has = f"; this machine has {host_memory.size(memory['machine_bytes'])}"
    return _field(
        "Memory",
        f"decoded images take {host_memory.size(memory['bytes'])}: {parts}; data.cache_bytes is "
        f"{host_memory.size(memory['cache_bytes'])}{has}",
    )


def _render_findings(level: str, listed: list[dict[str, Any]]) -> list[str]:
    """Numbered sentences, 20 of a kind at most, and below them the lists of some."""
    lines, lists, shown = list[str](), list[str](), dict[str, int]()
    for number, finding in enumerate(listed, start=1):
        kind = finding["kind"]
        shown[kind] = shown.get(kind, 0) + 1
        if shown[kind] > _SHOWN and kind != "layout":
            continue
        advice = finding["advice"] if shown[kind] == 1 else ""
        lines += _wrapped(f"{number:>4}. ", f"{finding['sentence']} {advice}".rstrip())
        if _has_list(finding):
            lists += ["", *_render_items(level, number, finding)]
    for kind, count in shown.items():
        if count > _SHOWN and kind != "layout":
            lines.append(f"      ... and {count - _SHOWN:,} more of {kind} in {JSON}")
    return lines + lists


def _has_list(finding: dict[str, Any]) -> bool:
    """Whether there is more to list than the sentence says; of stems, an example is enough."""
    items, kind = finding["items"], finding["kind"]
    if kind.startswith("shared_stems") or kind in ("unreadable", "several_labels"):
        return False
    return len(items) > (5 if items and isinstance(items[0], str) else 0)


def _render_items(level: str, number: int, finding: dict[str, Any]) -> list[str]:
    items = finding["items"]
    cut = f", the first {_SHOWN} of {len(items):,}" if len(items) > _SHOWN else ""
    lines = [f"  {level.removesuffix('s').capitalize()} {number}{cut}:"]
    sign = " ~ " if finding["kind"].startswith("alike") else " = "
    for item in items[:_SHOWN]:
        if isinstance(item, str):
            lines += _wrapped("      ", item)
            continue
        members = [f"{m['file']} ({m['class']}, {m['split']})" for m in item[:_MEMBERS]]
        if len(item) > _MEMBERS:
            members.append(f"{len(item) - _MEMBERS:,} more")
        lines += _wrapped("      ", sign.join(members))
    return lines
