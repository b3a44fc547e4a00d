"""Folders of nine images with a table, and what to ask of the data set that is read from them."""

import pathlib

import pytest

from clevit_jax.data import sources
from clevit_jax.errors import DataError

NAMES = ("rose", "tulip", "lily")
NINE = [f"{i:04}.jpg" for i in range(9)]


def touch(root: pathlib.Path, files) -> pathlib.Path:
    for file in files:
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).touch()
    return root


def made(root, header, row, *, count=9, name="train.csv", where="images/", sep=",") -> pathlib.Path:
    """A folder with images, and a table whose rows are `row(i)`."""
    touch(root, [where + file for file in NINE[:count]])
    lines = [*([header] if header else []), *(row(i) for i in range(count))]
    (root / name).write_text("\n".join(lines).replace(",", sep) + "\n")
    return root


def of(i: int) -> str:
    return NAMES[i % 3]


def counts(data) -> dict[str, int]:
    return {split: len(examples) for split, examples in data.splits.items()}


def told(data) -> dict[str, str]:
    """File -> class name, of all splits."""
    every = [example for examples in data.splits.values() for example in examples]
    return {example.name: data.class_names[example.label] for example in every}


def problem(root, **options) -> str:
    """The only sentence that is said of a set that cannot be read."""
    with pytest.raises(DataError) as caught:
        sources.load_dataset(root, **options)
    (found,) = str(caught.value).splitlines()
    return found


EXPECTED = {f"images/{file}": of(i) for i, file in enumerate(NINE)}
