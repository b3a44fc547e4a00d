"""A disk that is full now and then under a small run, for tools/try_mishaps.py."""

import contextlib
import json
import os
import pathlib
import random
import signal
import subprocess
import time
from collections.abc import Iterator

from tools.mishap_run import STOPPED, TINY, Process, is_saving, last_step

# One stage less, and one checkpoint besides the best: a few of them fit into a megabyte.
TINIER = TINY | {
    "model.depths": "(1,)", "model.num_heads": "(1,)", "optim.ema": 0, "checkpoint.keep": 1,
    "log.report": False, "epochs": 1_000_000, "eval.every_epochs": 200,
}  # fmt: skip
FULL = (4.0, 15.0)  # seconds
PATIENCE = 120  # seconds in which a run must show that it goes on


@contextlib.contextmanager
def small_disk(folder: pathlib.Path, megabytes: float) -> Iterator[None]:
    """Mounts a disk of memory on the folder."""
    size = f"size={int(megabytes * 2**20)}"
    subprocess.run(["mount", "-t", "tmpfs", "-o", size, "tmpfs", folder], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def fill(path: pathlib.Path, seconds: float) -> int:
    """Keeps the disk full for so long; returns how many bytes that took."""
    end = time.monotonic() + seconds
    taken = 0
    with path.open("wb", buffering=0) as file:
        while time.monotonic() < end:
            try:
                while True:  # also what the run frees meanwhile
                    taken += file.write(bytes(4096))
            except OSError:
                time.sleep(0.02)
    path.unlink()
    return taken


def try_disk(
    place: pathlib.Path, *, seed: int, minutes: float, megabytes: float, fills: int
) -> list[str]:
    """Trains for so many minutes on a disk that is filled so many times.

    Args:
        place: a folder that is there for this alone.
        seed: of the moments.
        minutes: of training.
        megabytes: of the disk.
        fills: how often it is filled, half of them while a checkpoint is written.

    Returns:
        What was wrong.
    """
    draw = random.Random(seed)
    workdir = place / "disk" / "run"
    workdir.parent.mkdir()
    every = max(10, int(25 * minutes))  # so that the numbers fit, too
    settings = TINIER | {"log.every_steps": every, "checkpoint.every_steps": max(20, every)}
    with small_disk(workdir.parent, megabytes):
        process = Process(workdir, settings, place)
        wait_for_steps(process, workdir, 0)
        begun = time.monotonic()
        moments = sorted(draw.uniform(0.05, 0.85) * 60 * minutes for _ in range(fills))
        for index, moment in enumerate(moments):
            time.sleep(max(0.0, begun + moment - time.monotonic()))
            while index % 2 == 0 and not is_saving(workdir) and process.code() is None:
                time.sleep(0.002)
            before, seconds = last_step(workdir), draw.uniform(*FULL)
            saving = is_saving(workdir)
            taken = fill(workdir.parent / "filler", seconds)
            print(
                f"At {moment:.0f} s, after step {before}{', while saving' * saving}: full for "
                f"{seconds:.1f} s ({taken / 1e6:.2f} MB).",
                flush=True,
            )
            if problem := wait_for_steps(process, workdir, before):
                return [problem]
        time.sleep(max(0.0, begun + 60 * minutes - time.monotonic()))
        if process.code() is not None:
            return [f"The run ended with {process.code()}: {process.text()[-500:]}"]
        process.send(signal.SIGTERM)
        code = process.end(PATIENCE)
        problems = [] if code == STOPPED else [f"SIGTERM ended in {code}: {process.text()[-500:]}"]
        problems += ["A traceback: " + process.text()[-2000:]] * ("Traceback" in process.text())
        return problems + check_numbers(workdir, every) + check_checkpoint(workdir)


def wait_for_steps(process: Process, workdir: pathlib.Path, step: int) -> str:
    """Returns when metrics.jsonl has later steps; else what is wrong."""
    end = time.monotonic() + PATIENCE
    while last_step(workdir) <= step:
        if process.code() is not None:
            return f"The run ended with {process.code()}: {process.text()[-500:]}"
        if time.monotonic() > end:
            process.end(0)
            return f"The run hangs after step {step}: {process.text()[-500:]}"
        time.sleep(0.1)
    return ""


def check_numbers(workdir: pathlib.Path, every: int) -> list[str]:
    """What is wrong with metrics.jsonl: half lines, missing steps."""
    lines, problems = (workdir / "metrics.jsonl").read_bytes().splitlines(), []
    steps = []
    for k, line in enumerate(lines, 1):
        try:
            record = json.loads(line)
        except ValueError:
            problems.append(f"metrics.jsonl, line {k} is no JSON: {line[:80]!r}")
            continue
        if "train/loss" in record:
            steps.append(record["step"])
    missing = sorted(set(range(every, max(steps) + 1, every)) - set(steps))
    print(f"metrics.jsonl: {len(lines)} lines, updates up to {max(steps)}.")
    if missing:
        problems.append(f"metrics.jsonl lacks steps {missing}")
    if len(set(steps)) != len(steps):
        problems.append("metrics.jsonl has steps twice")
    return problems


def check_checkpoint(workdir: pathlib.Path) -> list[str]:
    """What is wrong with the checkpoints: rests of failed ones, none that can be read."""
    import clevit_jax

    names = sorted(os.listdir(workdir / "checkpoints"))
    print(f"checkpoints: {', '.join(names)}.")
    problems = [f"checkpoints/{name} was left" for name in names if not name.isdigit()]
    try:
        clevit_jax.load(workdir)
    except clevit_jax.ClevitError as error:
        problems.append(f"The last checkpoint cannot be read: {error}")
    return problems
