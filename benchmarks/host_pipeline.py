"""Host time for each training image: this pipeline against the official way, on one core.

    python benchmarks/host_pipeline.py [--images DIR]

Prints milliseconds of one core (CPU time of the process, all threads, over the images):

* warm: images already decoded and in memory, from the iterator to the uint8 batch;
* cold: nothing in memory, each image decoded and resized to a square;
* peer: what the official data loader does on the host, in Pillow and NumPy: decode once, then two
  views of random resized crop to 448, brightness, rotation, flip, float, normalisation.

The random work of this pipeline runs on the device and is not in its number; the peer's is.
"""

import argparse
import functools
import io
import pathlib
import time
from collections.abc import Iterator

import numpy as np
from PIL import Image, ImageEnhance

from clevit_jax.data import decode, pipeline
from clevit_jax.data.dataset import Example
from clevit_jax.data.layouts.listing import EXTENSIONS

MEAN = np.array([0.485, 0.456, 0.406], np.float32).reshape(3, 1, 1)
STD = np.array([0.229, 0.224, 0.225], np.float32).reshape(3, 1, 1)


def made_images(count: int, side: int) -> list[Example]:
    """JPEGs of smooth colour with some grain, which compress about as photographs do."""
    rng = np.random.default_rng(0)
    examples = []
    for i in range(count):
        coarse = Image.fromarray(rng.integers(0, 256, (12, 12, 3), np.uint8))
        smooth = np.asarray(coarse.resize((side, side), Image.Resampling.BICUBIC))
        grain = rng.integers(-6, 7, smooth.shape)
        pixels = np.clip(smooth + grain, 0, 255).astype(np.uint8)
        stream = io.BytesIO()
        Image.fromarray(pixels).save(stream, "JPEG", quality=90)
        examples.append(Example(stream.getvalue(), 0, i, f"made {i}"))
    return examples


def found_images(folder: pathlib.Path, count: int) -> list[Example]:
    """The first images below `folder`, read into memory: disks are not what is measured."""
    paths = [p for p in sorted(folder.rglob("*")) if p.suffix.lower() in EXTENSIONS]
    examples = [Example(p.read_bytes(), 0, i, p.name) for i, p in enumerate(paths[:count])]
    if not examples:
        raise SystemExit(f"{folder} holds no image.")
    return examples


def official_view(image: Image.Image, rng: np.random.Generator) -> np.ndarray:
    """One augmented and normalised view: float32 [3, 448, 448]."""
    width, height = image.size
    for _ in range(10):
        area = width * height * rng.uniform(0.67, 1.0)
        aspect = np.exp(rng.uniform(np.log(3 / 4), np.log(4 / 3)))
        w, h = round((area * aspect) ** 0.5), round((area / aspect) ** 0.5)
        if w <= width and h <= height:
            break
    else:
        w, h = width, height
    left, top = rng.integers(0, width - w + 1), rng.integers(0, height - h + 1)
    view = image.crop((left, top, left + w, top + h))
    view = view.resize((448, 448), Image.Resampling.BILINEAR)
    view = ImageEnhance.Brightness(view).enhance(rng.uniform(0.7, 1.3))
    view = view.rotate(rng.uniform(-15, 15), Image.Resampling.NEAREST)
    if rng.random() < 0.5:
        view = view.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    pixels = np.ascontiguousarray(np.asarray(view).transpose(2, 0, 1)).astype(np.float32)
    pixels /= np.float32(255)
    pixels -= MEAN
    pixels /= STD
    return pixels


def official_batches(examples: list[Example], batch_size: int) -> Iterator[np.ndarray]:
    rng = np.random.default_rng(0)
    while True:
        views = []
        for i in rng.integers(0, len(examples), batch_size):
            image = decode.read_rgb(examples[i].data, examples[i].name)
            views += [official_view(image, rng), official_view(image, rng)]
        yield np.stack(views)


def milliseconds(batches: Iterator[object], steps: int, batch_size: int) -> float:
    """CPU milliseconds of the process for each image, after one batch to get started."""
    next(batches)
    start = time.process_time()
    for _ in range(steps):
        next(batches)
    return (time.process_time() - start) / (steps * batch_size) * 1e3


def main() -> None:
    parser = argparse.ArgumentParser(description="Host time for each training image.")
    parser.add_argument("--images", type=pathlib.Path, help="a folder of images (default: made)")
    parser.add_argument("--count", type=int, default=96, help="images to use at most")
    parser.add_argument("--size", type=int, default=600, help="side of the decoded square")
    parser.add_argument("--batch-size", type=int, default=12)
    parser.add_argument("--steps", type=int, default=8, help="batches to measure; warm: 10 times")
    args = parser.parse_args()

    if args.images is None:
        examples = made_images(args.count, args.size)
    else:
        examples = found_images(args.images, args.count)
    sides = np.array([decode.read_rgb(e.data, e.name).size for e in examples]).mean(0)
    print(f"{len(examples)} images, {sides[0]:.0f} x {sides[1]:.0f} pixels in the mean")

    def ours(cache_bytes: int, steps: int) -> float:
        decoder = functools.partial(decode.decode_train, size=args.size)
        images = pipeline.DecodedImages(examples, decoder, cache_bytes=cache_bytes)
        if cache_bytes:
            images.fill(threads=1)
        # Without prefetch all work is in the measured time, none of it before or after.
        dataset = pipeline.train_dataset(
            images,
            [e.label for e in examples],
            seed=0,
            batch_size=args.batch_size,
            process_index=0,
            process_count=1,
            threads=1,
            prefetch=0,
        )
        return milliseconds(iter(dataset), steps, args.batch_size)

    warm = ours(1 << 40, 10 * args.steps)
    cold = ours(0, args.steps)
    peer = milliseconds(official_batches(examples, args.batch_size), args.steps, args.batch_size)
    print(f"warm {warm:8.3f} ms an image, peer / warm {peer / warm:7.1f}")
    print(f"cold {cold:8.3f} ms an image, peer / cold {peer / cold:7.1f}")
    print(f"peer {peer:8.3f} ms an image")


if __name__ == "__main__":
    main()
