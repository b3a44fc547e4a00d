"""Limits of the host side: memory, and waiting for batches.

    python -m benchmarks.host_limits

Batches are loaded as in training: two threads decode, two batches are put together ahead, and two
more wait on the device, which here is the CPU, so that its copies count against us.

* memory: peak of a fresh process, less what it held after its imports, while it first decodes
  every image and then trains on an epoch of them; the cache holds a part of the images;
* waiting: share of the time that is spent in `next(batches)` with all images in the cache, when a
  step takes the device 5 ms (a sleep stands for it). As in training, the batch before is held until
  its successor's step has begun.
"""

import argparse
import collections
import concurrent.futures
import functools
import multiprocessing
import pathlib
import statistics
import tempfile
import time
from typing import Any

import numpy as np

from benchmarks import made_images
from clevit_jax.data import decode, pipeline, sources
from clevit_jax.distributed import sharding

BATCH, SIZE = 12, 600  # batch_size; data.resize, pixels
THREADS, PREFETCH, BUFFER = 2, 2, 2  # the last two as in `train._train_batches`


def decoded_images(folder: pathlib.Path, cache_bytes: int) -> pipeline.DecodedImages:
    dataset = sources.load_dataset(folder, layout="folders")
    decoder = functools.partial(decode.decode_train, size=SIZE)
    return pipeline.DecodedImages(dataset.train, decoder, cache_bytes=cache_bytes)


def train_batches(images: pipeline.DecodedImages) -> Any:
    """The iterator of `train._train_batches`."""
    dataset = pipeline.train_dataset(
        images,
        np.zeros(len(images), np.int32),
        seed=0,
        batch_size=BATCH,
        process_index=0,
        process_count=1,
        threads=THREADS,
        prefetch=PREFETCH,
    )
    put = functools.partial(sharding.to_global, sharding.make_mesh())
    return iter(pipeline.to_device(dataset, put, buffer=BUFFER))


def resident(field: str) -> float:
    """VmRSS (now) or VmHWM (peak) of this process, MB. Unlike `getrusage`, without the parent's."""
    lines = pathlib.Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:")) / 1e3


def memory(folder: pathlib.Path, cache_bytes: int) -> tuple[int, float, float, float]:
    """(number of images, MB after imports, peak MB of decoding all, peak MB of an epoch more)."""
    before = resident("VmRSS")
    images = decoded_images(folder, cache_bytes)
    images.fill(threads=THREADS)
    filled = resident("VmHWM")
    batches = train_batches(images)
    for _ in range(-(-len(images) // BATCH)):
        next(batches)
    batches.close()
    return len(images), before, filled, resident("VmHWM")


def waiting(batches: Any, steps: int, step_seconds: float) -> tuple[float, float]:
    """(share of the time spent waiting, milliseconds per step)."""
    held: collections.deque[Any] = collections.deque([next(batches)], maxlen=1)
    waited, start = 0.0, time.perf_counter()
    for _ in range(steps):
        before = time.perf_counter()
        batch = next(batches)
        waited += time.perf_counter() - before
        time.sleep(step_seconds)
        held.append(batch)
    spent = time.perf_counter() - start
    return waited / spent, spent / steps * 1e3


def main() -> None:
    parser = argparse.ArgumentParser(description="Memory, and waiting for batches.")
    parser.add_argument("--count", type=int, default=800, help="images to make")
    parser.add_argument("--side", type=int, default=600, help="of the images, pixels")
    parser.add_argument("--cache-mb", type=int, default=200, help="where memory is measured")
    parser.add_argument("--step-ms", type=float, default=5.0, help="what a step takes the device")
    parser.add_argument("--steps", type=int, default=400, help="in a round of waiting")
    parser.add_argument("--rounds", type=int, default=9, help="of waiting")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        made_images.write(folder, args.count, args.side)
        fresh = multiprocessing.get_context("spawn")
        with concurrent.futures.ProcessPoolExecutor(1, mp_context=fresh) as process:
            measured = process.submit(memory, folder, args.cache_mb * 10**6).result()
        number, before, filled, peak = measured
        print(
            f"memory: {number} images of {args.side} x {args.side}, decoded {number * 1.08:.0f} MB"
        )
        print(f"  cache {args.cache_mb} MB; process after its imports {before:.0f} MB")
        print(
            f"  decoding all: {filled - before:.0f} MB more, {filled - before - args.cache_mb:.0f}"
            " above the cache"
        )
        print(
            f"  an epoch of batches: {peak - before:.0f} MB more, "
            f"{peak - before - args.cache_mb:.0f} above the cache"
        )
        images = decoded_images(folder, 1 << 40)
        images.fill(threads=THREADS)
    batches = train_batches(images)
    rounds = [waiting(batches, args.steps, args.step_ms / 1e3) for _ in range(args.rounds)]
    alone = [waiting(batches, args.steps, 0.0)[1] for _ in range(3)]
    batches.close()
    shares = sorted(100 * share for share, _ in rounds)
    print(f"waiting: {args.rounds} rounds of {args.steps} steps, {BATCH} images per batch")
    print(
        f"  share of a step of {statistics.median(ms for _, ms in rounds):.2f} ms: "
        f"{statistics.median(shares):.2f} %, from {shares[0]:.2f} to {shares[-1]:.2f}"
    )
    print(f"  batches alone: one in {statistics.median(alone):.2f} ms")


if __name__ == "__main__":
    main()
