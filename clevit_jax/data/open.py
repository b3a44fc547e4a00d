"""The data set of a run: its examples, its splits, and its decoded images."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

from clevit_jax.data import decode, procedural_leaves, sources
from clevit_jax.data.dataset import Dataset
from clevit_jax.data.decode import PLAIN, Decoding
from clevit_jax.data.layouts.listing import Request
from clevit_jax.data.pipeline import DecodedImages
from clevit_jax.data.tally import Tally
from clevit_jax.distributed import processes
from clevit_jax.errors import ConfigError, DataError
from clevit_jax.system import memory
from clevit_jax.system.places import place

CACHE_SHARE = 0.5  # of the free memory, for decoded images; the rest is for training itself


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """Which images a run has, and how they are decoded.

    Attributes:
        root: folder of the images.
        layout: its layout, or "auto".
        request: settings of the layout's reader.
        split: how splits are cut where the data has none.
        leaves: options of `procedural_leaves.write_dataset`; none are written without "classes".
        resize: pixels per side of the squares that training images are resized to.
        image_size: pixels per side of the centre crops of the other splits.
        eval_resize: pixels of the shorter side before that crop.
        cache_bytes: bytes of decoded images that are kept in memory.
        threads: number of threads that decode.
        on_bad_image: what an image that cannot be read does: "stop", or "skip" to leave it out.
        max_bad: share of the images of each split that may be left out, see `skipped.most`.
        decoding: what the files of the images do not tell.
        copy_to: folder of copies of what lies in buckets or on the web; see `system.fetch`.
    """

    root: str
    layout: str
    request: Request
    split: sources.SplitConfig
    leaves: Mapping[str, Any]
    resize: int
    image_size: int
    eval_resize: int
    cache_bytes: int
    threads: int
    on_bad_image: str = "stop"
    max_bad: float = 0.01
    decoding: Decoding = PLAIN
    copy_to: str = ""

    @property
    def name(self) -> str:
        """What the user named: the folder, or the TFDS data set."""
        return self.root or self.request.tfds


def scan_data(config: DataConfig) -> tuple[Dataset, list[str]]:
    """Finds which images there are; writes the procedural leaves first if the config asks.

    Returns:
        The data set, as far as problems allow, and a sentence for each thing wrong with it.

    Raises:
        ConfigError: no data is named, or a setting cannot be used.
        DataError: the layout of the files cannot be told.
    """
    if not config.name:
        raise ConfigError("data.root is empty; name the folder of images: --config.data.root=DIR.")
    if config.leaves.get("classes"):
        try:
            if processes.index() == 0:
                procedural_leaves.write_dataset(place(config.root, "data.root"), **config.leaves)
        except (OSError, ValueError) as error:
            raise ConfigError(str(error)) from error
        processes.barrier("leaves")
    try:
        return sources.scan(
            config.root,
            layout=config.layout,
            request=config.request,
            split=config.split,
            copy_to=config.copy_to,
            named="--config.data.root=DIR",
        )
    except DataError:
        raise
    except ValueError as error:
        raise ConfigError(str(error)) from error


def open_data(config: DataConfig) -> Dataset:
    """The data set of `scan_data`; raises DataError with everything that is wrong with it."""
    dataset, problems = scan_data(config)
    if problems:
        raise DataError(problems)
    return dataset


def decoded_images(
    config: DataConfig, dataset: Dataset, *, training: bool
) -> dict[str, DecodedImages]:
    """The images of each split, decoded when they are asked for.

    Those of "train" are uint8 squares, `resize` pixels per side; the others uint8 centre crops,
    `image_size` pixels per side. `cache_bytes` goes to the splits in turn: to the training images
    first, if there is `training`; what they leave to the others. Where it is more than half of the
    memory that is free, that half counts: a process that asks for more than there is, is killed.
    What that costs is printed.
    """
    free = min(config.cache_bytes, int(CACHE_SHARE * memory.available()))
    wanted = min(config.cache_bytes, _bytes_kept(config, dataset, training=training))
    if free < wanted:
        print(
            f"data.cache_bytes is lowered from {memory.size(config.cache_bytes)} to "
            f"{memory.size(free)}, half of the memory that is free: images beyond that are decoded "
            "in every epoch.",
            flush=True,
        )
    images = {}
    for split, examples in dataset.splits.items():
        tally = Tally()
        if split == "train":
            side = config.resize
            decoder = functools.partial(decode.decode_train, size=side)
        else:
            side = config.image_size
            decoder = functools.partial(decode.decode_eval, resize=config.eval_resize, crop=side)
        decoder = functools.partial(decoder, decoding=config.decoding, tally=tally)
        images[split] = DecodedImages(examples, decoder, cache_bytes=free, tally=tally)
        if split != "train" or training:
            free = max(0, free - 3 * side**2 * len(examples))
    return images


def _bytes_kept(config: DataConfig, dataset: Dataset, *, training: bool) -> int:
    """Bytes of all decoded images that are looked at more than once."""
    sides = {"train": config.resize if training else 0}
    return sum(
        3 * sides.get(split, config.image_size) ** 2 * len(examples)
        for split, examples in dataset.splits.items()
    )
