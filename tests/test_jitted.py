"""What runs share: their numbers are arguments of the step, so one program serves them all."""

import jax
import numpy as np
import pytest
import tiny

from clevit_jax.config import resolve
from clevit_jax.distributed import sharding
from clevit_jax.steps.jitted import make_jitted_steps


def steps_of(*, terms=(), **changes):
    config = tiny.get_config()
    config.model.num_classes = 3
    config.update_from_flattened_dict({k.replace("__", "."): v for k, v in changes.items()})
    return make_jitted_steps(
        resolve(config, None, "cpu").step, sharding.make_mesh(-1, 1), terms=terms
    )


def lowered(steps):
    arguments = (steps.abstract_state, steps.train_batch, steps.abstract_numbers)
    return steps.train_step.trace(*arguments).lower().as_text()


@pytest.fixture(scope="module")
def plain():
    return lowered(steps_of())


@pytest.mark.parametrize(
    "changes",
    [
        {"seed": 7},
        {"optim__lr": 0.5},
        {"optim__head_multiplier": 1.0, "optim__end": 0.5},
        {"loss__contrast": 0.3, "loss__positive": 0.5, "loss__anchor": 2.0},
        {"loss__positive": 0.0},
        {"epochs": 30, "optim__warmup_epochs": 3.0, "optim__warmup_start": 0.1},
    ],
)
def test_runs_that_differ_in_numbers_share_the_program(plain, changes):
    assert lowered(steps_of(**changes)) == plain


@pytest.mark.parametrize(
    "changes", [{"optim__schedule": "cosine"}, {"optim__b1": 0.8}, {"loss__contrast": 0.0}]
)
def test_what_shapes_the_program_is_in_it(plain, changes):
    assert lowered(steps_of(**changes)) != plain


def test_a_term_of_weight_0_is_there_where_it_is_asked_for(plain):
    assert lowered(steps_of(loss__contrast=0.0, terms=("contrast",))) == plain


def test_steps_of_the_same_program_are_the_same():
    one, other = steps_of(), steps_of(seed=7, loss__contrast=0.3, loss__positive=0.0)
    assert one.train_step is other.train_step
    assert one.eval_step is other.eval_step
    assert (one.config.seed, other.config.seed) == (0, 7)


def test_the_numbers_are_those_of_the_config():
    steps = steps_of(seed=9, optim__lr=2.0, epochs=20, optim__warmup_epochs=2.0)
    numbers = jax.device_get(steps.numbers())
    assert numbers["seed"] == 9
    backbone = numbers["backbone"]
    assert (backbone["warmup"], backbone["total"]) == (20, 200)  # 10 batches an epoch
    peak = 2.0 * 4 / 512
    np.testing.assert_allclose(backbone["rise"] * 20, peak, rtol=1e-6)
    np.testing.assert_allclose(numbers["head"]["rise"] * 20, 5 * peak, rtol=1e-6)
    abstract = jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), steps.abstract_numbers)
    assert abstract == jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), numbers)
