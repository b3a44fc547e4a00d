"""Opening the data set of a config: its examples, its splits, and its images when asked for."""

import functools
import os
import pathlib

from ml_collections import ConfigDict

from clevit_jax.data import decode, procedural_leaves, sources
from clevit_jax.data.dataset import Dataset
from clevit_jax.data.layouts.listing import Request
from clevit_jax.data.pipeline import DecodedImages
from clevit_jax.distributed import processes
from clevit_jax.errors import ConfigError, DataError


def scan_data(config: ConfigDict) -> tuple[Dataset, list[str]]:
    """Finds which images there are; writes the procedural leaves first if the config asks.

    Returns:
        The data set, as far as problems allow, and a sentence for each thing wrong with it.

    Raises:
        ConfigError: no data is named, or a setting cannot be used.
        DataError: the layout of the files cannot be told.
    """
    data = config.data
    if not (data.root or data.tfds):
        raise ConfigError("data.root is empty; name the folder of images: --config.data.root=DIR.")
    wanted = data.leaves.to_dict()
    if wanted["classes"]:
        try:
            if processes.index() == 0:
                procedural_leaves.write_dataset(pathlib.Path(data.root), **wanted)
        except (OSError, ValueError) as error:
            raise ConfigError(str(error)) from error
        processes.barrier("leaves")
    request = Request(
        num_classes=config.model.num_classes or None,
        file_column=data.file_column,
        label_column=data.label_column,
        tfds=data.tfds,
    )
    return sources.scan(data.root, layout=data.layout, request=request, split=split_config(config))


def open_data(config: ConfigDict) -> Dataset:
    """As `scan_data`; DataError lists everything that is wrong with the files."""
    dataset, problems = scan_data(config)
    if problems:
        raise DataError(problems)
    return dataset


def split_config(config: ConfigDict) -> sources.SplitConfig:
    """How splits are cut. Raises ValueError, see `SplitConfig`."""
    data = config.data
    return sources.SplitConfig(
        test_fraction=data.test_fraction,
        val_fraction=data.val_fraction,
        folds=data.folds,
        fold=data.fold,
        seed=data.split_seed,
    )


def decoded_images(
    config: ConfigDict, dataset: Dataset, *, training: bool
) -> dict[str, DecodedImages]:
    """The images of each split, decoded when they are asked for.

    Those of "train" are uint8 squares, `data.resize` pixels a side; the others uint8 centre crops,
    `image_size` pixels a side. `data.cache_bytes` goes to the splits in turn: to the training
    images first, if there is `training`; what they leave to the others.
    """
    free = config.data.cache_bytes
    images = {}
    for split, examples in dataset.splits.items():
        if split == "train":
            side = config.data.resize
            decoder = functools.partial(decode.decode_train, size=side)
        else:
            side = config.image_size
            decoder = functools.partial(decode.decode_eval, resize=config.eval.resize, crop=side)
        images[split] = DecodedImages(examples, decoder, cache_bytes=free)
        if split != "train" or training:
            free = max(0, free - 3 * side**2 * len(examples))
    return images


def decode_threads(config: ConfigDict) -> int:
    """Threads that decode."""
    return config.data.threads or all_threads()


def all_threads() -> int:
    """As many as there are cores."""
    return os.cpu_count() or 1
