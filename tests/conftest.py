"""Four CPU devices and JAX's strict modes for every test, set before JAX starts."""

import collections
import fcntl
import os
import pathlib
import re
import shutil

import compiling  # before JAX
import hypothesis
import jax
import numpy as np
import pytest
from absl import logging

from clevit_jax.model.swin import abstract_swin
from clevit_jax.system import compilation_cache

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")

# The same examples each time, and however slow the machine is.
hypothesis.settings.register_profile("suite", derandomize=True, deadline=None, database=None)
hypothesis.settings.load_profile("suite")


def pytest_sessionstart(session):
    if "PYTEST_XDIST_WORKER" not in os.environ:
        compilation_cache.prune(compiling.FOLDER, 2 << 30)


SECONDS: collections.Counter[str] = collections.Counter()  # by file


def pytest_runtest_logreport(report):
    SECONDS[report.nodeid.partition("::")[0]] += report.duration


def pytest_sessionfinish(session):
    """Keeps what each file took, for tests/quick.py; a part of a file would say too little."""
    options, cache = session.config.option, getattr(session.config, "cache", None)
    whole = not options.keyword and not any("::" in arg for arg in session.config.args)
    if cache and whole and "PYTEST_XDIST_WORKER" not in os.environ:
        before = cache.get("clevit_jax/seconds", {})
        cache.set("clevit_jax/seconds", before | {k: round(v, 1) for k, v in SECONDS.items()})


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item):
    """A test's marker decides for its fixtures, too."""
    compiling.optimise(item.get_closest_marker("optimised") is not None)
    return (yield)


@pytest.fixture(autouse=True)
def _verbosity():
    """A command keeps back what absl logs, for the rest of its process; here others follow."""
    before = logging.get_verbosity()
    yield
    logging.set_verbosity(before)


@pytest.fixture(scope="session")
def golden() -> pathlib.Path:
    """The folder of the official code's reference numbers."""
    return pathlib.Path(__file__).parent / "golden"


@pytest.fixture(scope="session")
def once(tmp_path_factory):
    """`once(name, make)`: a folder that one worker fills by `make(folder)`, for all to look at."""
    base = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        base = base.parent

    def folder(name, make):
        made, done = base / name, base / f"{name}.done"
        with open(base / f"{name}.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not done.exists():
                shutil.rmtree(made, ignore_errors=True)  # of a worker that failed
                made.mkdir()
                make(made)
                done.touch()
        return made

    return folder


@pytest.fixture(scope="session")
def gcs():
    """`gcs_emulator.Emulator` with the bucket `runs`, which all clients of this process ask."""
    import gcs_emulator

    with gcs_emulator.emulator("runs") as server:
        yield server


@pytest.fixture
def bucket(gcs, request):
    """An empty folder in a bucket."""
    from clevit_jax.system.places import run_place

    return run_place(f"gs://runs/{re.sub('[^a-z0-9]+', '-', request.node.name.lower())}")


@pytest.fixture(scope="session")
def answered(once) -> pathlib.Path:
    """The workdir of `answers.make_run`; for looking only."""
    import answers

    return once("answers", answers.make_run) / "run"


@pytest.fixture(scope="module")
def trained(answered):
    """The model of `answered`."""
    from clevit_jax.analysis.trained_model import open_trained_model

    return open_trained_model(answered)


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
