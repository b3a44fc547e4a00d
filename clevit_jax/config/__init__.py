"""A ConfigDict -> typed `Settings`: what settings mean, their ranges, and how configs compare."""

from clevit_jax.config.compare import (
    DEFAULTS_OF_OLDER_RUNS,
    EXTENDABLE,
    NOT_COMPARED,
    PER_HOST,
    NewerConfigError,
    changed_settings,
    restore_config,
    unextendable,
    with_places_in_full,
)
from clevit_jax.config.ranges import check_values
from clevit_jax.config.settings import (
    Settings,
    check_config,
    check_model,
    make_plan,
    model_config,
    resolve,
    resolve_data,
    resolve_decoding,
)
from clevit_jax.recipes import flatten

__all__ = [
    "DEFAULTS_OF_OLDER_RUNS",
    "EXTENDABLE",
    "NOT_COMPARED",
    "PER_HOST",
    "NewerConfigError",
    "Settings",
    "changed_settings",
    "check_config",
    "check_model",
    "check_values",
    "flatten",
    "make_plan",
    "model_config",
    "resolve",
    "resolve_data",
    "resolve_decoding",
    "restore_config",
    "unextendable",
    "with_places_in_full",
]
