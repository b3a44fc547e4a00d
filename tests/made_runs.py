"""Folders as runs leave them, written by hand: the JSON files alone, with scores that are given.

`test_seeds.py` holds them against what a real run leaves.
"""

import json
import pathlib
from typing import Any

import tiny
from ml_collections import ConfigDict

SPLIT, OTHER_SPLIT = "5011" * 16, "0dd0" * 16
TOTAL = 60  # updates


def make_config(kind: str = "two views", **changes: Any) -> ConfigDict:
    """The tiny config; `optim__lr=2.0` changes `optim.lr`."""
    config = tiny.get_config(kind)
    config.update_from_flattened_dict({k.replace("__", "."): v for k, v in changes.items()})
    return config


def scores(step: int, top1: float, *, loss: float = 1.5, count: int = 20) -> dict[str, Any]:
    """Of one checkpoint, in the form of evaluation.json."""
    shares = {"top1": top1, "top5": 1.0, "mean_per_class": top1 / 2}
    return {"step": step, "loss": loss, **shares, "count": count}


def record(step: int, top1: float, *, split: str = "test", count: int = 20) -> dict[str, Any]:
    """The same in the form of metrics.jsonl."""
    found = scores(step, top1, count=count)
    return {"step": step, **{f"{split}/{k}": v for k, v in found.items() if k != "step"}}


def write_run(
    folder: pathlib.Path,
    *,
    last: dict[str, Any] | None = None,
    best: dict[str, Any] | None = None,
    records: list[dict[str, Any]] | tuple[()] = (),
    split_hash: str = SPLIT,
    begun: bool = True,
    chosen_on: str = "test",
    **changes: Any,
) -> pathlib.Path:
    """Writes a run and returns its folder.

    Args:
        folder: of the run.
        last, best: `scores` for evaluation.json; without `last` it is not written.
        records: the lines of metrics.jsonl.
        split_hash: of the images.
        begun: whether there is a run.json, as there is when the first update is made.
        chosen_on: split that the best checkpoint was chosen on.
        changes: of the config.
    """
    folder.mkdir(parents=True, exist_ok=True)

    def write(name: str, value: Any) -> None:
        (folder / name).write_text(json.dumps(value))

    write("config.json", make_config(**changes).to_dict())
    if begun:
        write("run.json", {"updates": TOTAL, "split_hash": split_hash, "chosen_on": chosen_on})
    if last is not None:
        more = {} if best is None else {"best": {"chosen_on": chosen_on, **best}}
        write("evaluation.json", {"last": last, **more, "split_hash": split_hash})
    lines = [json.dumps(record) for record in records]
    (folder / "metrics.jsonl").write_text("".join(f"{line}\n" for line in lines))
    return folder


def write_finished(
    folder: pathlib.Path, top1: float, *, best: float | None = None, loss: float = 1.5, **more: Any
) -> pathlib.Path:
    """Writes a finished run of this test top-1; its best step, 40, has `best` or the same."""
    best = top1 if best is None else best
    last = scores(TOTAL, top1, loss=loss)
    return write_run(folder, last=last, best=scores(40, best, loss=loss), **more)
