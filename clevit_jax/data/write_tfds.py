"""Writer of data sets in the `array_record` form of TFDS, without TensorFlow."""

import concurrent.futures
import functools
import itertools
import os
import pathlib
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence

from clevit_jax.data import decode, sources
from clevit_jax.data.dataset import SPLIT_WORDS, Dataset, Example, Skipped
from clevit_jax.data.layouts.store.tfds_records import LEVELS_FILE
from clevit_jax.data.layouts.store.tfds_schema import NAME_FEATURE
from clevit_jax.data.pipeline import raise_fault
from clevit_jax.data.skipped import check_limit, leave_out, summary
from clevit_jax.errors import DataError, DecodeError
from clevit_jax.system.files import write_json

_VERSION = "1.0.0"
_SKIP = "--on-bad-image skip"  # of the command
_SHARD_BYTES = 256 << 20  # what a shard holds at most where their number is not given


def default_name(root: str | os.PathLike[str]) -> str:
    """A name that TFDS accepts, made of the name of the folder."""
    folder = pathlib.Path(root).resolve().name.lower()
    name = re.sub(r"\W+", "_", folder, flags=re.ASCII).strip("_")
    return name if re.match("[a-z]", name) else f"data_{name}".rstrip("_")


def check_tfds_target(out_dir: pathlib.Path, name: str) -> None:
    """Raises DataError if TFDS would not take the name, or `out_dir/name` is there."""
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        raise DataError(
            [f"{name!r} is not a name that TFDS takes; use a-z, 0-9 and _, a letter first."]
        )
    if os.path.lexists(out_dir / name):
        raise DataError([f"{out_dir / name} is already there; remove it or choose another name."])


def write_tfds(
    dataset: Dataset,
    out_dir: pathlib.Path,
    *,
    name: str,
    shards: int | None = None,
    threads: int = 1,
    max_bad: float | None = None,
    truncated: bool = False,
    say: Callable[[str], object] = print,
    progress: Callable[[int, int], None] | None = None,
) -> pathlib.Path:
    """Writes `out_dir/name/1.0.0`, which the layout 'tfds' reads as the same data set.

    The encoded images are kept as they are, so pixels are the same; so are order, labels, names,
    class names, their coarser levels, and splits. All images are decoded first, and if one is
    unreadable, nothing is written, unless `max_bad` allows to leave it out. The result is read back
    before it gets its name, so that no part of one has it, whatever happens; a process that is
    killed leaves a hidden folder in `out_dir`. The memory it takes does not depend on the number of
    images, but for their names.

    Args:
        dataset: what to write.
        out_dir: folder of TFDS data sets; it may not exist.
        name: of the data set, as TFDS takes it.
        shards: files per split, at most one per image; None makes them of 256 MB at most.
        threads: images to check at a time.
        max_bad: share of each split that may be left out where it cannot be read, see
            `skipped.most`; None leaves out nothing.
        truncated: whether an image that lacks its last bytes is good enough, for
            `data.truncated=true`.
        say: takes a sentence on what is left out, and one on each such image.
        progress: called with (images checked or written, twice the images).

    Returns:
        The folder that was written.

    Raises:
        DataError: the target exists, or names or images cannot be kept; all of them are listed.
        OSError: the disk is full, for example.
    """
    check_tfds_target(out_dir, name)
    total = sum(map(len, dataset.splits.values()))
    count = itertools.count(1)

    def advance() -> None:
        if progress is not None:
            progress(next(count), 2 * total)

    problems = list(_class_name_problems(dataset.class_names))
    decoding = decode.Decoding(truncated=truncated)
    sizes, bad = _check_images(dataset, threads, decoding, advance)
    if bad and max_bad is None:
        problems.insert(0, f"Mend or remove {len(bad):,} images, or leave them out: {_SKIP}.")
        problems += [skipped.reason for skipped in bad]
    if problems:
        raise DataError(problems)
    if bad and max_bad is not None:
        dataset = leave_out(dataset, bad)
        check_limit(dataset, max_bad, flag="--max-bad")
        say(summary(dataset))
        for skipped in bad:
            say(skipped.reason)
            advance()  # it is not written
    out_dir.mkdir(parents=True, exist_ok=True)
    unfinished = pathlib.Path(tempfile.mkdtemp(prefix=f".{name}-", suffix="-part", dir=out_dir))
    try:
        folder = unfinished / name / _VERSION
        folder.mkdir(parents=True)
        lengths = {split: _lengths(numbers, shards) for split, numbers in sizes.items()}
        _write_shards(dataset, folder, name, lengths, advance)
        if dataset.levels:
            levels = {level.name: list(level.groups) for level in dataset.levels}
            write_json(folder / LEVELS_FILE, levels)
        _compare_with_written(dataset, folder)
        check_tfds_target(out_dir, name)  # another process may have written it by now
        os.rename(unfinished / name, out_dir / name)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return out_dir / name / _VERSION


def _check_images(
    dataset: Dataset, threads: int, decoding: decode.Decoding, advance: Callable[[], None]
) -> tuple[dict[str, list[int]], list[Skipped]]:
    """Decodes every image once: the bytes of those that can be read, by split, and the others."""
    everything = [(split, e) for split, examples in dataset.splits.items() for e in examples]
    sizes: dict[str, list[int]] = {split: [] for split in dataset.splits}
    bad = list[Skipped]()
    with concurrent.futures.ThreadPoolExecutor(threads) as pool:
        check = functools.partial(_size_or_problem, decoding=decoding)
        outcomes = pool.map(check, (example for _, example in everything))
        for (split, example), outcome in zip(everything, outcomes, strict=True):
            if isinstance(outcome, str):
                bad.append(Skipped(split, example, outcome))
            else:
                sizes[split].append(outcome)
            advance()
    return sizes, bad


def _class_name_problems(names: Sequence[str]) -> Iterator[str]:
    """Sentences on names that TFDS cannot keep, in a text file with one per line, stripped."""
    for name in names:
        if name != name.strip() or len(name.splitlines()) != 1:
            yield (
                f"The class name {name!r} begins or ends with a blank, or has several lines; "
                "rename it."
            )
        elif _unencodable(name):
            yield f"The class name {name!r} is not valid UTF-8; rename it."


def _unencodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False


def _encoded(example: Example) -> bytes:
    data = example.data
    if isinstance(data, bytes):
        return data
    return data.read_bytes() if isinstance(data, pathlib.Path) else data.read()


def _size_or_problem(example: Example, decoding: decode.Decoding) -> int | str:
    """The number of bytes of an encoded image, or a sentence on why it cannot be read."""
    place = example.name if isinstance(example.data, bytes) else str(example.data)
    try:
        encoded = _encoded(example)
        decode.read_rgb(encoded, place, decoding)
    except (OSError, DecodeError) as error:
        raise_fault(example, error)
        if isinstance(error, DecodeError):
            return error.args[0]
        return f"{place} cannot be read: {error.strerror or error}."
    return len(encoded)


def _lengths(sizes: Sequence[int], shards: int | None) -> list[int]:
    """Number of examples in each shard; they differ by one at most."""
    number = -(-sum(sizes) // _SHARD_BYTES) if shards is None else shards
    number = max(1, min(number, len(sizes)))
    ends = [len(sizes) * i // number for i in range(number + 1)]
    return [end - start for start, end in itertools.pairwise(ends)]


def _write_shards(
    dataset: Dataset,
    folder: pathlib.Path,
    name: str,
    lengths: dict[str, list[int]],
    advance: Callable[[], None],
) -> None:
    """Writes shards and metadata into `folder`, one image in memory at a time."""
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core import file_adapters, naming

    features = tfds.features.FeaturesDict(
        {
            "image": tfds.features.Image(shape=(None, None, 3)),
            "label": tfds.features.ClassLabel(names=list(dataset.class_names)),
            NAME_FEATURE: tfds.features.Text(),
        }
    )

    def records(examples: Iterator[Example]) -> Iterator[tuple[int, bytes]]:
        for example in examples:
            row = {
                "image": _encoded(example),
                "label": example.label,
                # As bytes, because names need not be valid UTF-8.
                NAME_FEATURE: example.name.encode("utf-8", "surrogateescape"),
            }
            yield example.id, features.serialize_example(row)
            advance()

    template = naming.ShardedFileTemplate(
        data_dir=folder, dataset_name=name, filetype_suffix="array_record"
    )
    infos = []
    for split, examples in dataset.splits.items():
        own = template.replace(split=SPLIT_WORDS[split].tfds[0])
        shards = lengths[split]
        rest = iter(examples)
        size = 0
        for shard, length in enumerate(shards):
            path = own.sharded_filepath(shard_index=shard, num_shards=len(shards))
            some = records(itertools.islice(rest, length))
            try:
                file_adapters.ArrayRecordFileAdapter.write_examples(path, some)
            except RuntimeError as error:  # array_record's, for whatever the disk says
                text = str(error).split(";")[0]
                raise OSError(f"{path.name} cannot be written: {text}.") from error
            size += os.path.getsize(path)
        infos.append(
            tfds.core.SplitInfo(
                name=SPLIT_WORDS[split].tfds[0],
                shard_lengths=shards,
                num_bytes=size,
                filename_template=own,
            )
        )
    tfds.folder_dataset.write_metadata(
        data_dir=folder,
        features=features,
        split_infos=infos,
        version=_VERSION,
        filename_template=template,
        check_data=False,  # would import TensorFlow
        supervised_keys=("image", "label"),
        disable_shuffling=True,
        description=f"From the layout {dataset.layout}: {dataset.recognised_by}.",
    )


def _compare_with_written(dataset: Dataset, folder: pathlib.Path) -> None:
    """Raises DataError unless what was written reads as the same data set."""
    written = sources.load_dataset(folder, layout="tfds")
    kept = [(data.split_hash(), data.class_names, data.levels) for data in (written, dataset)]
    if kept[0] != kept[1]:
        raise DataError(
            [
                f"{folder} does not read as what was written; the disk may be full or damaged, so "
                "write to another one."
            ]
        )
