"""What runs and processes of a test file compile, shared between them."""

import contextlib
import os
import pathlib
from collections.abc import Iterator
from typing import Any

import jax


@contextlib.contextmanager
def shared(folder: pathlib.Path, **more: Any) -> Iterator[None]:
    """JAX's compilation cache in `folder`, also for child processes; `more` of JAX's settings."""
    settings = {
        "jax_enable_compilation_cache": True,
        "jax_compilation_cache_dir": str(folder),
        "jax_persistent_cache_min_compile_time_secs": 0.0,
        "jax_persistent_cache_min_entry_size_bytes": -1,
        **more,
    }
    before = {name: jax.config.values[name] for name in settings}
    environ = {name.upper(): os.environ.get(name.upper()) for name in settings}
    for name, value in settings.items():
        jax.config.update(name, value)
        os.environ[name.upper()] = str(value)
    jax.experimental.compilation_cache.compilation_cache.reset_cache()
    try:
        yield
    finally:
        for name, value in before.items():
            jax.config.update(name, value)
        for name, text in environ.items():
            if text is None:
                del os.environ[name]
            else:
                os.environ[name] = text
        jax.experimental.compilation_cache.compilation_cache.reset_cache()
