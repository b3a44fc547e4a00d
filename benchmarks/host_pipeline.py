"""Host time for each training image: this pipeline against torchvision's, on one core.

    python -m benchmarks.host_pipeline [--images DIR]

DIR has class folders, DIR/<class>/*; without it, JPEGs of 600 x 600 are made. Both sides read the
same files, shuffled, in batches, with one thread in this process (no worker, no prefetch, so that
no work is outside the measured time). Printed are milliseconds per image: of CPU (the process, all
threads) and of wall time, medians of several rounds in turn.

* warm: images already decoded and in memory -> uint8 batch;
* cold: nothing in memory; each file decoded and resized to a square -> uint8 batch;
* official: `ImageFolder` and `DataLoader` with the two-view transform -> two float32 batches;
* same work: `ImageFolder` and `DataLoader` with `Resize` alone, which is what cold does.

This pipeline draws the two views on the device: that work is in the official number and not in
warm or cold. The official loader keeps nothing in memory: every epoch costs it the same.
"""

import argparse
import functools
import itertools
import pathlib
import statistics
import tempfile
import time
from collections.abc import Iterator

import numpy as np

from benchmarks import made_images, official_loader
from clevit_jax.data import decode, pipeline, sources
from clevit_jax.data.dataset import Example


def our_batches(
    examples: list[Example], size: int, batch_size: int, *, warm: bool
) -> Iterator[object]:
    decoder = functools.partial(decode.decode_train, size=size)
    images = pipeline.DecodedImages(examples, decoder, cache_bytes=1 << 40 if warm else 0)
    if warm:
        images.fill(threads=1)
    dataset = pipeline.train_dataset(
        images,
        [example.label for example in examples],
        seed=0,
        batch_size=batch_size,
        process_index=0,
        process_count=1,
        threads=1,
        prefetch=0,
    )
    return iter(dataset)


def milliseconds(batches: Iterator[object], steps: int, batch_size: int) -> tuple[float, float]:
    """CPU and wall milliseconds for each image."""
    cpu, wall = time.process_time(), time.perf_counter()
    for _ in itertools.islice(batches, steps):
        pass
    spent = time.process_time() - cpu, time.perf_counter() - wall
    return spent[0] / (steps * batch_size) * 1e3, spent[1] / (steps * batch_size) * 1e3


def compare(folder: pathlib.Path, args: argparse.Namespace) -> None:
    dataset = sources.load_dataset(folder, layout="folders")
    examples = sorted(dataset.train + dataset.test, key=lambda example: example.name)
    sides = np.array([decode.read_rgb(e.data, e.name).size for e in examples]).mean(0)
    print(f"{len(examples)} images of {sides[0]:.0f} x {sides[1]:.0f} pixels in the mean")
    peer = functools.partial(official_loader.batches, str(folder), batch_size=args.batch_size)
    ours = functools.partial(our_batches, examples, args.size, args.batch_size)
    sources_of_batches = {
        "warm": (ours(warm=True), 10 * args.steps),
        "cold": (ours(warm=False), args.steps),
        "official": (peer(transform=official_loader.two_views()), args.steps),
        "same work": (peer(transform=official_loader.decoded_squares(args.size)), args.steps),
    }
    for batches, _ in sources_of_batches.values():
        next(batches)  # to get started
    rounds = [
        {
            name: milliseconds(batches, steps, args.batch_size)
            for name, (batches, steps) in sources_of_batches.items()
        }
        for _ in range(args.rounds)
    ]
    print(f"{'':10}{'CPU, ms':>9}{'wall, ms':>10}{'official / it':>15}   lowest to highest")
    for name in sources_of_batches:
        cpu, wall = (statistics.median(times[name][i] for times in rounds) for i in (0, 1))
        ratios = [times["official"][0] / times[name][0] for times in rounds]
        print(
            f"{name:10}{cpu:9.3f}{wall:10.3f}{statistics.median(ratios):15.2f}"
            f"   {min(ratios):.2f} to {max(ratios):.2f}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description="Host time for each training image.")
    parser.add_argument("--images", type=pathlib.Path, help="class folders (default: made)")
    parser.add_argument("--count", type=int, default=96, help="images to make")
    parser.add_argument("--side", type=int, default=600, help="of the images that are made, pixels")
    parser.add_argument("--size", type=int, default=600, help="side of the decoded square, pixels")
    parser.add_argument("--batch-size", type=int, default=12)
    parser.add_argument("--steps", type=int, default=8, help="batches per round; warm: 10 times")
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args()
    official_loader.import_torchvision()  # before any work
    if args.images is not None:
        compare(args.images, args)
        return
    with tempfile.TemporaryDirectory() as folder:
        made_images.write(pathlib.Path(folder), args.count, args.side)
        compare(pathlib.Path(folder), args)


if __name__ == "__main__":
    main()
