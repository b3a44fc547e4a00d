"""Kills at random moments, and a disk that is full now and then: `make mishaps`.

    python -m tools.try_mishaps kills --count 60 --seed 0
    sudo python -m tools.try_mishaps disk --minutes 20 --megabytes 2

`kills` trains a small run many times. Two signals end each, in whatever it is just doing, and the
same command goes on until it is finished; then all arrays of its last checkpoint, its numbers and
its scores must be those of a run that was left alone, bit for bit. It takes about ten minutes.

`disk` trains on a disk of memory that it fills and frees at random moments, half of them while a
checkpoint is written. The run must go on, lose no line of metrics.jsonl, and end when it is told
to, with a checkpoint that can be read. To mount that disk takes root.

Both need Linux. They print what they drew and what came of it, and exit 1 when something is wrong.
"""

import argparse
import concurrent.futures
import os
import pathlib
import signal
import sys
import tempfile

from tools.mishap_disk import try_disk
from tools.mishap_kills import Kills


def try_kills(place: pathlib.Path, *, seed: int, count: int, jobs: int) -> list[str]:
    """Kills `count` times, `jobs` runs at a time; returns what was wrong."""
    kills = Kills(place, seed, count)
    kills.leave_alone()
    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        list(pool.map(kills.run, range(len(kills.runs))))
        list(pool.map(kills.run, kills.again()))
    print("\n| run | signal | meant for | hit | exit code |\n|---|---|---|---|---|")
    for index, shots in enumerate(kills.runs):
        for shot in shots:
            print(
                f"| {index} | {shot.number.name} | {shot.phase} | {shot.hit} | {shot.outcome} |",
                flush=True,
            )
    everything = [shot for shots in kills.runs for shot in shots]
    hit = [shot for shot in everything if shot.hit]
    print(f"\n{len(hit)} of {count} hit; of the others a run was past its phase, twice.")
    return [f"{shot.number.name}: {shot.outcome}" for shot in everything if shot.failed]


def main() -> int:
    """Returns the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("kills", "disk"))
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--count", type=int, default=60, help="kills: how many (default: 60)")
    parser.add_argument("--jobs", type=int, default=2, help="kills: runs at a time (default: 2)")
    parser.add_argument("--minutes", type=float, default=20, help="disk: of training (default: 20)")
    parser.add_argument("--megabytes", type=float, default=2, help="disk: its size (default: 2)")
    parser.add_argument("--fills", type=int, default=3, help="disk: how many times (default: 3)")
    options = parser.parse_args()
    if options.what == "disk" and os.geteuid() != 0:
        print("error: To mount a disk takes root; type the same after sudo.", file=sys.stderr)
        return 2
    # Else the runs would inherit that nohup and a shell's `&` ignore these.
    for number in (signal.SIGHUP, signal.SIGINT):
        if signal.getsignal(number) == signal.SIG_IGN:
            signal.signal(number, lambda *_: None)
    os.environ["JAX_PLATFORMS"] = "cpu"
    print(f"Seed {options.seed}.", flush=True)
    with tempfile.TemporaryDirectory(prefix="mishaps-") as folder:
        place = pathlib.Path(folder)
        if options.what == "kills":
            more = {"count": options.count, "jobs": options.jobs}
            problems = try_kills(place, seed=options.seed, **more)
        else:
            problems = try_disk(
                place, seed=options.seed, minutes=options.minutes,
                megabytes=options.megabytes, fills=options.fills,
            )  # fmt: skip
    print("\n".join(problems) or "Nothing was wrong.")
    return int(bool(problems))


if __name__ == "__main__":
    sys.exit(main())
