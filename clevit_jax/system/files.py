"""Files that appear whole or not at all."""

import contextlib
import json
import os
import pathlib
from collections.abc import Iterator
from typing import Any

from clevit_jax.errors import ConfigError


@contextlib.contextmanager
def replacing(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """A name beside `path` to write to; it takes its place at the end, or goes on failure.

    Raises:
        OSError: as writing and moving raise it.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: pathlib.Path, value: Any) -> None:
    """Writes it whole or not at all."""
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
    os.replace(temporary, path)


def read_json(path: pathlib.Path) -> Any:
    """Raises ConfigError when the file is missing or is no JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror or error}.") from error
    except ValueError as error:
        raise ConfigError(f"{path} is not JSON: {error}.") from error


def read_json_object(path: pathlib.Path) -> dict[str, Any]:
    """The object in a JSON file. Raises ConfigError when there is none."""
    facts = read_json(path)
    if not isinstance(facts, dict):
        raise ConfigError(f"{path} is no JSON object; it was not written by this program.")
    return facts
