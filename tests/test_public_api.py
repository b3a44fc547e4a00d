"""The names of `clevit_jax` itself: there, listed, and free of what is slow to import."""

import os
import subprocess
import sys

import clevit_jax


def _child(code):
    """What fresh Python prints for it."""
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_name_is_there():
    """The first time, when it is imported, and the second."""
    listed = dir(clevit_jax)
    assert {*clevit_jax.__all__} <= {*listed}
    assert listed == sorted(listed)
    for _ in range(2):
        for name in clevit_jax.__all__:
            assert getattr(clevit_jax, name) is not None
    assert not hasattr(clevit_jax, "no_such_name")


def test_star():
    names: dict = {}
    exec("from clevit_jax import *", names)
    for name in clevit_jax.__all__:
        assert names[name] is getattr(clevit_jax, name)


def test_importing_it_is_cheap():
    """Neither JAX nor what is slow beside it; nor when its names are listed."""
    heavy = {"jax", "jaxlib", "flax", "numpy", "grain", "orbax", "PIL", "matplotlib", "tqdm"}
    code = (
        "import sys, clevit_jax; dir(clevit_jax); clevit_jax.ClevitError\n"
        f"print(sorted({heavy} & {{*sys.modules}}))"
    )
    assert _child(code) == "[]\n"


def test_train_and_evaluate_stay_functions():
    """Modules have these names, too, and Python hands a module to its package."""
    code = (
        "import types, clevit_jax.train, clevit_jax.evaluate, clevit_jax\n"
        "from clevit_jax.train import train_workdir\n"
        "for function in (clevit_jax.train, clevit_jax.evaluate):\n"
        "    print(type(function) is types.FunctionType, function.__name__)\n"
    )
    assert _child(code) == "True train\nTrue evaluate\n"
