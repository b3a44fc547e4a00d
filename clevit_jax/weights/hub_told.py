"""`Told`: what the JSON of another library says beside its weights; how its numbers are read."""

import dataclasses
from typing import Any

from clevit_jax.errors import WeightsError
from clevit_jax.model.preprocessing import Preprocessing
from clevit_jax.system.quoting import quoted

CONFIG = "config.json"  # the name that timm and transformers give theirs


@dataclasses.dataclass(frozen=True)
class Told:
    """What the JSON beside weights says.

    Attributes:
        library: whose JSON it is, "timm" or "transformers".
        image_size: pixels per side of what the network takes; None where it does not say.
        preprocessing: None where it does not say.
        class_names: of the head's rows; () where it does not say.
        read: names of the files, for the report.
        notes: what else a user should know, in words.
    """

    library: str
    image_size: int | None
    preprocessing: Preprocessing | None
    class_names: tuple[str, ...]
    read: tuple[str, ...]
    notes: tuple[str, ...] = ()


def refuse(option: str, value: Any, why: str) -> WeightsError:
    """The error on an option that this network has not."""
    return WeightsError(
        f"{option} is {quoted([str(value)[:60]])}: {why}, so its answers would be others here."
    )


def pixels(value: Any, name: str) -> int:
    """A number of pixels, also as (height, width) or their names, which must be equal.

    Raises:
        WeightsError: on anything else.
    """
    if isinstance(value, dict):
        value = [value.get("height"), value.get("width")]
    if isinstance(value, list | tuple) and len(value) == 2 and value[0] == value[1]:
        value = value[0]
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if type(value) is not int or not 0 < value < 100_000:
        raise WeightsError(f"{name} is {quoted([str(value)[:60]])}; images must be square here.")
    return value


def names_of(value: Any) -> tuple[str, ...]:
    """Class names as a list, or by number; () where they are neither or leave one out."""
    if isinstance(value, dict):
        by_number = {str(number): name for number, name in value.items()}
        value = [by_number.get(str(number)) for number in range(len(by_number))]
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        return ()
    return tuple(value)
