"""`--mode seeds`: trains a config with several seeds; mean and deviation of their scores.

Each seed is a run of its own in `seed-N` of the workdir. Beside them, `seeds.json` holds

    command, written   what was run last, and when
    split_hash         of the images, the same for all seeds
    test_images        how many there are
    one_image          what one of them is in points of top-1
    last, best         of the finished seeds: top1, top5, mean_per_class, loss, and accuracy_NAME
                       for each coarser level of the classes that all scored -> {mean, deviation},
                       the deviation that of a sample (n - 1), null with one seed; best with
                       chosen_on, a split; null before a seed is finished
    seeds              for each: seed, folder, finished, step, total, last and best as its
                       evaluation.json has them, null until it is finished

and `seeds.txt` the table that is printed. Shares are in [0, 1], loss is in nats.
"""

import os
import pathlib
import sys
import time
from collections.abc import Iterable, Mapping
from typing import Any

from ml_collections import ConfigDict

from clevit_jax.config import check_values, resolve_data
from clevit_jax.data import procedural_leaves
from clevit_jax.data.open import CACHE_SHARE, open_data
from clevit_jax.distributed.preemption import STOPPED
from clevit_jax.errors import ClevitError, ConfigError, StorageError, TrainingError
from clevit_jax.runs import results
from clevit_jax.runs.facts import SCORES
from clevit_jax.runs.skipped import as_recorded, read_skipped
from clevit_jax.runs.workdir import CONFIG_FILE, check_workdir, has_checkpoints
from clevit_jax.steps.eval_step import LEVEL_PREFIX
from clevit_jax.sweeps.devices import count_devices, share_devices
from clevit_jax.sweeps.parallel import check_idle, check_locks, train_in_children
from clevit_jax.system import memory
from clevit_jax.system.files import write_json, write_text
from clevit_jax.system.places import place
from clevit_jax.system.tables import align

JSON, TEXT = "seeds.json", "seeds.txt"
_COLUMNS = {"top1": "top-1", "top5": "top-5", "mean_per_class": "mean per class", "loss": "loss"}


def train_seeds(
    config: ConfigDict, workdir: pathlib.Path, *, seeds: int = 5, parallel: int = 1
) -> int:
    """Trains and evaluates `config` with the seeds `config.seed`, `config.seed + 1`, ...

    Seeds that are finished are left alone, begun ones go on. `data.split_seed` stays, so that all
    see the same images. A seed whose gradients stay non-finite does not keep the others from
    training; any other failure does.

    Args:
        config: in the form of `configs/base.py`.
        workdir: folder of the seeds; new, or begun with the same config.
        seeds: how many.
        parallel: how many at a time, each in a process with its share of the devices.

    Returns:
        The exit code: 0 when all are finished, `STOPPED` when a signal ended it early.

    Raises:
        ConfigError, DataError: before anything is written.
        TrainingError: seeds failed; the others are summarised before.
        StorageError: one failed since its storage does not answer.
    """
    configs = {seed: _with_seed(config, seed) for seed in range(config.seed, config.seed + seeds)}
    folders = {seed: workdir / f"seed-{seed}" for seed in configs}
    _check(config, configs, folders, workdir)
    failed = _train(configs, folders, workdir, parallel)
    done = [seed for seed, folder in folders.items() if _finished(folder)]
    count = f"{len(done)} of {len(folders)} seeds are finished"
    if results.seed_folders(workdir):
        _write_summary(workdir, configs)
    if failed:
        sentences = "\n".join(f"Seed {seed}: {failed[seed]}" for seed in sorted(failed))
        stalled = any(isinstance(error, StorageError) for error in failed.values())
        raise (StorageError if stalled else TrainingError)(f"{sentences}\n{count}.")
    if len(done) < len(folders):
        print(f"Stopped: {count}; run the same command to go on.", flush=True)
        return STOPPED
    return 0


def _with_seed(config: ConfigDict, seed: int) -> ConfigDict:
    changed = config.copy_and_resolve_references()
    changed.seed = seed
    return changed.lock()


def _with_cache(config: ConfigDict, most: int) -> ConfigDict:
    changed = config.copy_and_resolve_references()
    changed.data.cache_bytes = min(config.data.cache_bytes, most)
    return changed.lock()


def _check(
    config: ConfigDict,
    configs: Mapping[int, ConfigDict],
    folders: Mapping[int, pathlib.Path],
    workdir: pathlib.Path,
) -> None:
    """Raises ConfigError or DataError unless all seeds can be trained in `workdir`."""
    if (workdir / CONFIG_FILE).exists() or has_checkpoints(workdir):
        raise ConfigError(
            f"{workdir} holds a run, not seeds; name another --workdir, nothing is changed."
        )
    for changed in configs.values():
        check_values(changed)
    begun = results.seed_folders(workdir)
    for folder in {**folders, **begun}.values():  # a child that still reads images has no config
        check_idle(folder)
    begun_on = results.common_split(results.read_result(folder) for folder in begun.values())
    for seed, folder in begun.items():
        check_workdir(folder, _with_seed(config, seed), of_seeds=True)
    if begun_on not in (None, _split_hash(config, begun.values())):
        raise ConfigError(
            f"{config.data.root or config.data.tfds} no longer lists the files and labels that the "
            f"seeds in {workdir} were trained on; point --config.data.root at the same data set, "
            "or name another --workdir."
        )


def _split_hash(config: ConfigDict, begun: Iterable[pathlib.Path]) -> str:
    """The split hash of the data set, without what seeds that have begun leave out.

    Writes procedural leaves; asks no JAX, so takes no device.
    """
    plain = config.copy_and_resolve_references()
    wanted = config.data.leaves.to_dict()
    if wanted["classes"]:
        try:
            procedural_leaves.write_dataset(place(config.data.root, "data.root"), **wanted)
        except (OSError, ValueError) as error:
            raise ConfigError(str(error)) from error
        plain.data.leaves.classes = 0
    dataset = open_data(resolve_data(plain))
    records = map(read_skipped, begun if config.data.on_bad_image == "skip" else ())
    record = next(filter(None, records), None)
    return (as_recorded(dataset, record) if record else dataset).split_hash()


def _finished(folder: pathlib.Path) -> bool:
    return (folder / CONFIG_FILE).is_file() and results.read_result(folder).finished


def _train(
    configs: Mapping[int, ConfigDict],
    folders: Mapping[int, pathlib.Path],
    workdir: pathlib.Path,
    parallel: int,
) -> dict[int, ClevitError]:
    """Trains seeds that are not finished, in processes; returns why those that failed did."""
    left = {seed: config for seed, config in configs.items() if not _finished(folders[seed])}
    for seed in configs.keys() - left.keys():
        print(f"Seed {seed} is finished ({folders[seed]}).", flush=True)
    if not left:
        return {}

    def finished(seed: int) -> None:
        run = results.read_result(folders[seed])
        top1 = 100 * run.last["top1"] if run.last else float("nan")
        print(f"Seed {seed} finished: test top-1 {top1:.2f} %.", flush=True)
        if sum(map(_finished, folders.values())) < len(folders):
            _write_summary(workdir, configs)

    shares: list[dict[str, str]] = [{}]  # one at a time has all devices
    if parallel > 1:
        check_locks()
        platform, count = count_devices()
        shares = share_devices(platform, count, parallel, os.environ)[: len(left)]
        # They read at the same time, so none can tell from the free memory what the others take.
        most = int(CACHE_SHARE * memory.available()) // len(shares)
        left = {seed: _with_cache(config, most) for seed, config in left.items()}
    return train_in_children(left, folders, shares, finished)


def _write_summary(workdir: pathlib.Path, wanted: Iterable[int]) -> None:
    """Writes seeds.json and seeds.txt, and prints the latter."""
    summary = summarise(workdir)
    write_json(workdir / JSON, summary)
    text = seeds_text(summary, wanted)
    write_text(workdir / TEXT, text + "\n")
    print(f"\n{text}\n  {workdir / TEXT}, {workdir / JSON}\n", flush=True)


def summarise(workdir: pathlib.Path) -> dict[str, Any]:
    """Scores of the seeds in a folder, in the form of `seeds.json`.

    Raises:
        ConfigError: they are not of the same images, or a file of a run cannot be read.
    """
    runs = {seed: results.read_result(path) for seed, path in results.seed_folders(workdir).items()}
    split_hash = results.common_split(runs.values())
    finished = [run for run in runs.values() if run.finished]
    last = [run.last for run in finished if run.last]
    best = [run.best for run in finished if run.best]
    count = last[0]["count"] if last else None
    return {
        "command": sys.argv,
        "written": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "split_hash": split_hash,
        "test_images": count,
        "one_image": 100 / count if count else None,
        "last": _spreads(last) if last else None,
        "best": {"chosen_on": best[0]["chosen_on"], **_spreads(best)} if best else None,
        "seeds": [
            {
                "seed": seed,
                "folder": run.folder.name,
                "finished": run.finished,
                "step": run.step,
                "total": run.total,
                "last": run.last if run.finished else None,
                "best": run.best if run.finished else None,
            }
            for seed, run in runs.items()
        ],
    }


def _spreads(scores: list[dict[str, Any]]) -> dict[str, Any]:
    """`{"top1": {"mean": ..., "deviation": ...}, ...}`."""
    spreads = {}
    for name in (*SCORES, *results.common_levels(scores)):
        mean, deviation = results.mean_and_deviation([row[name] for row in scores])
        spreads[name] = {"mean": mean, "deviation": deviation}
    return spreads


def seeds_text(summary: dict[str, Any], wanted: Iterable[int] = ()) -> str:
    """Scores after the last epoch, of the best epoch, and seeds that are not finished, as a table.

    Args:
        summary: in the form of `seeds.json`.
        wanted: seeds that were asked for; those that are not begun get a line.
    """
    rows = {row["seed"]: row for row in summary["seeds"]}
    left = [seed for seed in sorted({*rows, *wanted}) if not rows.get(seed, {}).get("finished")]
    done = [row for row in rows.values() if row["finished"]]
    lines = [f"{len(done)} of {len(done) + len(left)} seeds are finished."]
    table = []
    levels = results.common_levels([summary["last"] or {}])
    columns = _COLUMNS | {name: name.removeprefix(LEVEL_PREFIX) for name in levels}
    if done:
        lines[0] += (
            f" Scores on {summary['test_images']} test images in %; one image is "
            f"{summary['one_image']:.2f} points (split {(summary['split_hash'] or '?')[:8]})."
        )
        lines.append("")
        table += [["", *columns.values()], ["last epoch"]]
        table += _block(summary["last"], done, "last", columns)
    if summary["best"]:
        how = results.how_chosen(summary["best"]["chosen_on"])
        table += [[f"best epoch, {how}"], *_block(summary["best"], done, "best", columns)]
    for seed in left:
        row = rows.get(seed)
        of = f" of {row['total']}" if row and row["total"] else ""
        state = f"not finished, step {row['step']}{of}" if row else "not begun"
        table.append([f"  seed {seed}", state])
    return "\n".join(lines + align(table, left=(0,) if done else (0, 1)))


def _block(
    spreads: dict[str, Any], done: list[dict[str, Any]], which: str, columns: Iterable[str]
) -> list[list[str]]:
    """Rows of the table: mean, deviation and each seed."""
    rows = [
        _cells(kind, {name: spreads[name][kind] for name in columns if name in spreads}, columns)
        for kind in ("mean", "deviation")
    ]
    seeds = [row for row in done if row[which]]
    return rows + [_cells(f"seed {row['seed']}", row[which], columns) for row in seeds]


def _cells(label: str, scores: Mapping[str, float | None], columns: Iterable[str]) -> list[str]:
    cells = [f"  {label}"]
    for name in columns:
        value = scores.get(name)
        digits, scale = (4, 1) if name == "loss" else (2, 100)
        cells.append("-" if value is None else f"{scale * value:.{digits}f}")
    return cells
