"""Encoded images in the `array_record` shards of TFDS."""

import bisect
import itertools
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

from clevit_jax.data.layouts.store.tfds_schema import ImageFeature

_BLOCK, _BLOCK_BYTES = 64, 4 << 20  # records read at a time: so many, of about so many bytes


class Shards:
    """Random access to the records of a split; safe to use from several threads."""

    def __init__(self, source: Any, parts: Sequence[Any], image: ImageFeature):
        self._source = source
        self._paths = [pathlib.Path(part.filename) for part in parts]
        self._ends = list(itertools.accumulate(part.take for part in parts))
        self.image = image

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def __getitem__(self, index: int) -> bytes:
        """A record. Raises OSError where the shard is damaged."""
        try:
            record = self._source[index]
        except Exception as error:  # array_record raises RuntimeError
            raise OSError(str(error).split(";")[0].split("(")[0].strip() or "damaged") from error
        if not record:  # what array_record returns where a shard was cut off
            raise OSError("the record is empty")
        return record

    def records(self) -> Iterator[bytes | OSError]:
        """All records, in blocks, which is several times as fast as one by one."""
        start, count = 0, 8  # a guess, before their size is known
        while start < len(self):
            indices = range(start, min(start + count, len(self)))
            try:
                records = self._source.__getitems__(list(indices))
            except Exception:  # array_record raises RuntimeError; each record is tried below
                records = [b""]
            if all(records):
                yield from records
                size = sum(map(len, records)) // len(records)
                count = max(1, min(_BLOCK, _BLOCK_BYTES // max(1, size)))
            else:
                yield from map(self._record_or_error, indices)
            start = indices.stop

    def _record_or_error(self, index: int) -> bytes | OSError:
        try:
            return self[index]
        except OSError as error:
            return error

    def place(self, index: int) -> str:
        """The shard and the number of a record in it, for sentences."""
        shard = bisect.bisect_right(self._ends, index)
        start = self._ends[shard - 1] if shard else 0
        return f"{self._paths[shard]}, record {index - start}"


class TfdsImage:
    """An encoded image in a shard. Light: a data set has one per image."""

    __slots__ = ("_index", "_shards")

    def __init__(self, shards: Shards, index: int):
        self._shards = shards
        self._index = index

    def read(self) -> bytes:
        """The encoded image. Raises OSError where the shard is damaged."""
        return self._shards.image.encoded(self._shards[self._index])

    def __str__(self) -> str:
        return self._shards.place(self._index)


def damage(parts: Sequence[Any]) -> Iterator[str]:
    """Sentences on shards that are missing, damaged, or hold another number of records."""
    from tensorflow_datasets.core import file_adapters

    for part in parts:
        path = pathlib.Path(part.filename)
        try:
            count = file_adapters.ArrayRecordFileAdapter.num_examples(path)
        except Exception as error:  # array_record raises RuntimeError, sometimes without a text
            why = "is cut off or damaged" if path.is_file() else "is missing"
            text = str(error).split(";")[0].strip()
            why += f" ({text})" if text and path.is_file() else ""
            yield f"{path} {why}; copy it again, or prepare the data set again."
            continue
        if count != part.examples_in_shard:
            yield (
                f"{path} has {count} records, but {path.parent / 'dataset_info.json'} says "
                f"{part.examples_in_shard}; copy it again, or prepare the data set again."
            )
