"""Four CPU devices and JAX's strict modes for every test, set before JAX starts."""

import os
import pathlib

os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=4"
)
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["JAX_ENABLE_COMPILATION_CACHE"] = "0"  # of the user; `compiling.shared` has the suite's

import answers
import compiling
import hypothesis
import jax
import numpy as np
import pytest

from clevit_jax.analysis.trained_model import open_trained_model
from clevit_jax.model.swin import abstract_swin

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")

# The same examples each time, and however slow the machine is.
hypothesis.settings.register_profile("suite", derandomize=True, deadline=None, database=None)
hypothesis.settings.load_profile("suite")


@pytest.fixture(scope="session")
def golden() -> pathlib.Path:
    """The folder of the official code's reference numbers."""
    return pathlib.Path(__file__).parent / "golden"


@pytest.fixture(scope="session")
def compiled(tmp_path_factory) -> pathlib.Path:
    """Folder of what the tests of the analyses compile, which is much the same in all of them."""
    return tmp_path_factory.mktemp("compiled")


@pytest.fixture(scope="session")
def answered(tmp_path_factory, compiled) -> pathlib.Path:
    """The workdir of `answers.make_run`; for looking only."""
    with compiling.shared(compiled):
        return answers.make_run(tmp_path_factory.mktemp("answers"))


@pytest.fixture(scope="module")
def subject(answered, compile_once):
    """The model of `answered`."""
    return open_trained_model(answered)


@pytest.fixture(scope="module")
def compile_once(compiled):
    """Tests of a file share what they compile."""
    with compiling.shared(compiled):
        yield


@pytest.fixture(scope="session")
def random_params():
    """`random_params(model, seed=0)`: parameters of a SwinConfig, all drawn from the normal."""

    def draw(model, seed=0):
        rng = np.random.RandomState(seed)
        return jax.tree.map(
            lambda leaf: rng.standard_normal(leaf.shape).astype(np.float32),
            abstract_swin(model)[1],
        )

    return draw
