"""Images that a run leaves out: found once, by all of its processes, and kept for all that follows.

`skipped_images.json` of the workdir holds

    images       listed images of each split
    split_hash   of those that are left
    skipped      for each that is not: split, row (its index there, from 0), file and reason

A run that goes on, its scores, its report and further seeds leave out these very images, also where
one can be read by now.
"""

import concurrent.futures
import pathlib
from collections.abc import Sequence
from typing import Any

from ml_collections import ConfigDict

from clevit_jax.config import changed_settings, flatten
from clevit_jax.data import pipeline
from clevit_jax.data.dataset import SPLIT_NAMES, Dataset, Skipped
from clevit_jax.data.pipeline import DecodedImages
from clevit_jax.data.skipped import classes_not_tested, leave_out, summary
from clevit_jax.distributed import processes, watch
from clevit_jax.distributed.preemption import Stop
from clevit_jax.errors import ConfigError, DecodeError, Repeated, said_once
from clevit_jax.runs.results import SEED, seed_folders
from clevit_jax.runs.workdir import has_checkpoints, load_config
from clevit_jax.system.files import read_json_object, write_json
from clevit_jax.system.progress import progress_bar

SKIPPED_FILE = "skipped_images.json"
_SHOWN = 20  # sentences on them that are printed
_ROW = {"split", "row", "file", "reason"}


def find_bad(
    dataset: Dataset,
    images: dict[str, DecodedImages],
    splits: Sequence[str],
    *,
    eval_batch: int,
    threads: int,
    stop: Stop | None = None,
) -> list[Skipped]:
    """Decodes images once, into memory while it lasts, and finds those that cannot be.

    With several processes, each decodes its share. A training image that falls to a process later,
    in another epoch, it decodes then.

    Args:
        dataset: all images.
        images: of each split, those of `dataset`.
        splits: which to look at.
        eval_batch: images of an evaluation's batch, over all processes.
        threads: images to decode at a time.
        stop: asked now and then.

    Returns:
        The same on all processes, in the order of the images.

    Raises:
        DataError: the disk failed.
        Interrupted: `stop` asked for an end.
    """
    found: list[tuple[str, int, str, str, str]] = []
    me, count = processes.index(), processes.count()
    for split in splits:
        rows: Sequence[int] = range(me, len(images[split]), count)
        if split != "train" and eval_batch % count == 0:
            rows = pipeline.eval_rows(len(images[split]), eval_batch, me, count)
        desc = f"Reading {SPLIT_NAMES[split]} images"
        with progress_bar(total=len(rows), unit=" images", desc=desc, disable=me > 0) as bar:

            def advance(done: int, _: int, bar: Any = bar) -> None:
                watch.touch()
                bar.update(done - bar.n)
                if stop is not None:
                    stop.check()

            for row, reason in images[split].check(rows, threads=threads, progress=advance):
                rule = (reason.rule, reason.item) if isinstance(reason, Repeated) else ("", "")
                found.append((split, row, reason, *rule))
    everybodys = [bad for part in processes.gather("bad images", found) for bad in part]
    order = {split: number for number, split in enumerate(splits)}
    return [
        Skipped(
            split,
            dataset.splits[split][row],
            Repeated(reason, rule=rule, item=item) if rule else reason,
        )
        for split, row, reason, rule, item in sorted(
            everybodys, key=lambda bad: (order[bad[0]], bad[1])
        )
    ]


def readable_again(
    dataset: Dataset, images: dict[str, DecodedImages], splits: Sequence[str], *, threads: int
) -> list[str]:
    """Names of images that are left out, and can be read by now."""

    def is_readable(skipped: Skipped) -> bool:
        try:
            images[skipped.split].decode(skipped.example)
        except DecodeError:
            return False
        return True

    looked_at = [skipped for skipped in dataset.skipped if skipped.split in splits]
    with concurrent.futures.ThreadPoolExecutor(threads) as pool:
        readable = list(pool.map(is_readable, looked_at))
    return [s.example.name for s, again in zip(looked_at, readable, strict=True) if again]


def say_skipped(dataset: Dataset, where: pathlib.Path | None) -> None:
    """Prints what was just left out, and why; `where` is the file that will list all of them."""
    if not dataset.skipped:
        return
    said = said_once([skipped.reason for skipped in dataset.skipped])
    lines = [*said_once(classes_not_tested(dataset)), *said[:_SHOWN]]
    if len(said) > _SHOWN:
        lines.append(f"... and {len(said) - _SHOWN:,} more.")
    listed = f" (listed in {where})" if where else ""
    print(f"Warning: {summary(dataset)[:-1]}{listed}:", flush=True)
    print("\n".join(f"  {line}" for line in lines), flush=True)


def put_back(workdir: pathlib.Path, found: Sequence[Skipped]) -> str:
    """What to do about images that a run was begun with, and that cannot be read any more."""
    skip = "--config.data.on_bad_image=skip"
    which = "an image" if len(found) == 1 else f"{len(found):,} images"
    if not has_checkpoints(workdir):  # its list is that of another seed
        return (
            f"The other seeds in {workdir.parent} were begun with {which} that cannot be read any "
            "more; put the files back as they were, or name another --workdir."
        )
    return (
        f"{workdir} was begun with {which} that cannot be read any more; put the files back as "
        f"they were. Without them, begin anew from its weights (--from {workdir}@last "
        f"--workdir NEW {skip}), or score it on the others (--mode eval --other_split {skip})."
    )


def write_skipped(workdir: pathlib.Path, dataset: Dataset) -> None:
    """Writes the record of what a data set was left without."""
    images = {split: len(examples) for split, examples in dataset.splits.items()}
    rows = []
    for split, example, reason in dataset.skipped:
        images[split] = images.get(split, 0) + 1
        rows.append({"split": split, "row": example.id, "file": example.name, "reason": reason})
    record = {"images": images, "split_hash": dataset.split_hash(), "skipped": rows}
    write_json(workdir / SKIPPED_FILE, record)


def read_skipped(workdir: pathlib.Path) -> dict[str, Any] | None:
    """The record of a run; None where there is none, or it is damaged, which it says."""
    path = workdir / SKIPPED_FILE
    if not path.is_file():
        return None
    try:
        record = read_json_object(path)
    except ConfigError:
        record = {}
    rows = record.get("skipped")
    if (
        isinstance(record.get("split_hash"), str)
        and isinstance(rows, list)
        and all(isinstance(row, dict) and row.keys() >= _ROW for row in rows)
    ):
        return record
    print(f"{path} is damaged; what is left out is found anew.", flush=True)
    return None


def known_skipped(workdir: pathlib.Path, config: ConfigDict) -> dict[str, Any] | None:
    """The record that a run must follow, None where it is to find what cannot be read.

    That is its own, once it has a checkpoint; before, that of another seed beside it.
    """
    if has_checkpoints(workdir):
        return read_skipped(workdir)
    beside = seed_folders(workdir.parent) if SEED.fullmatch(workdir.name) else {}
    for folder in beside.values():
        if not has_checkpoints(folder):
            continue
        changes = changed_settings(flatten(load_config(folder)), flatten(config))
        if not any(change.startswith("data.") for change in changes):
            return read_skipped(folder)
    return None


def as_recorded(dataset: Dataset, record: dict[str, Any]) -> Dataset:
    """The data set without the images of a record, those of them that it lists."""
    rows: dict[tuple[str, str], list[int]] = {}
    wanted = {(row["split"], row["file"]) for row in record["skipped"]}
    for split, examples in dataset.splits.items() if wanted else ():
        for example in examples:
            if (split, example.name) in wanted:
                rows.setdefault((split, example.name), []).append(example.id)
    found: dict[tuple[str, int], Skipped] = {}
    for row in record["skipped"]:
        split, there = row["split"], rows.get((row["split"], row["file"]), [])
        # A name may be that of several images of a table; where files were removed, rows moved.
        for index in [row["row"]] if row["row"] in there else there:
            found[split, index] = Skipped(split, dataset.splits[split][index], str(row["reason"]))
    return leave_out(dataset, found.values())


def of_run(dataset: Dataset, workdir: pathlib.Path) -> Dataset | None:
    """The data set as a run has it; None where that has no record, or one of other images."""
    record = read_skipped(workdir)
    if record is None:
        return None
    reduced = as_recorded(dataset, record)
    return reduced if reduced.split_hash() == record["split_hash"] else None
