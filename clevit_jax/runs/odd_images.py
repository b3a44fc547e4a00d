"""What is said of images that were decoded, and yet are not as they should be."""

from collections.abc import Mapping, Sequence

from clevit_jax.data import cut_short
from clevit_jax.data.pipeline import DecodedImages
from clevit_jax.data.sixteen_bit import dark_warning
from clevit_jax.distributed import processes


def say_odd(images: Mapping[str, DecodedImages], splits: Sequence[str], *, bits: int) -> None:
    """Prints a word on images that lack their last bytes, and on 16-bit ones that come out dark.

    Args:
        images: of each split, decoded once by all processes together.
        splits: which to look at.
        bits: that the user says 16-bit images have; 0 where nothing was said.
    """
    tallies = [images[split].tally for split in splits]
    names = sorted({name for tally in tallies for name in tally.cut_short})
    deep = sum(tally.deep for tally in tallies)
    highest = max((tally.highest for tally in tallies), default=0)
    of_all = processes.gather("odd images", (names, deep, highest))
    if processes.index() != 0:
        return
    lacking = sorted({name for names, _, _ in of_all for name in names})
    deep = sum(each for _, each, _ in of_all)
    dark = dark_warning(deep, max((each for _, _, each in of_all), default=0))
    for word in (cut_short.warning(lacking), None if bits else dark):
        if word:
            print(f"Warning: {word}", flush=True)
