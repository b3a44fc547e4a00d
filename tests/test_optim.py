"""Schedules, groups and optimizer against the official code's numbers and torch.optim."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch

from clevit_jax.steps.optim import (
    OptimConfig,
    decay_mask,
    head_labels,
    make_optimizer,
    skipped_in_a_row,
    skipped_total,
)
from clevit_jax.steps.schedule import (
    Schedule,
    learning_rate_schedule,
    peak_learning_rate,
    schedule_numbers,
)

CLIP_NORM, WEIGHT_DECAY, MOMENTUM = 2.0, 0.3, 0.9


def test_learning_rates_equal_official_code(golden):
    """Cotton80: 12 images an update, 20 updates an epoch, 200 epochs of which 20 warm up."""
    stored = np.load(golden / "lr_cotton80.npz")
    backbone, head = Schedule(
        "linear",
        peak=peak_learning_rate(1e-3, 12),
        head_multiplier=5,
        warmup_updates=20 * 20,
        total_updates=200 * 20,
    ).functions()
    updates = stored["update"].astype(np.int32)
    for schedule, want in [(backbone, stored["backbone"]), (head, stored["head"])]:
        got = jax.jit(schedule)(updates)
        assert got.dtype == jnp.float32
        assert got[0] == got[1] < got[2]
        np.testing.assert_allclose(got, want, rtol=1e-6, atol=0)


@pytest.mark.parametrize("warmup", [0, 7])
@pytest.mark.parametrize("shape", ["linear", "cosine", "constant"])
def test_schedule_equals_its_formula(shape, warmup):
    """The formula in float64, with no warm-up too, over the run and beyond its end."""
    peak, start, total = 3e-4, 3e-7, 60
    numbers = schedule_numbers(
        peak=peak, warmup_start=start, warmup_updates=warmup, total_updates=total
    )
    schedule = learning_rate_schedule(shape, numbers)
    want = []
    for update in range(80):
        t = min(max(update - 1, 0), total)
        done = (t - warmup) / (total - warmup)
        if t < warmup:
            want.append(start + (peak - start) * t / warmup)
        elif shape == "linear":
            want.append(peak - 0.99 * peak * done)
        elif shape == "cosine":
            want.append(0.01 * peak + 0.99 * peak * (1 + math.cos(math.pi * done)) / 2)
        else:
            want.append(peak)
    with jax.debug_nans(True):  # not even in the branch that is not taken
        got = schedule(np.arange(80, dtype=np.int32))
    np.testing.assert_allclose(got, want, rtol=1e-6, atol=0)


def test_schedule_stays_accurate_over_millions_of_updates():
    numbers = schedule_numbers(
        peak=1e-3, warmup_start=1e-6, warmup_updates=1000, total_updates=10**8
    )
    schedule = learning_rate_schedule("linear", numbers)
    updates = np.array([10**7 + 1, 99_999_001, 10**8], np.int32)
    want = 1e-3 - 0.99e-3 * (updates - 1.0 - 1000) / (10**8 - 1000)
    np.testing.assert_allclose(jax.jit(schedule)(updates), want, rtol=1e-6)


def test_schedule_refusals():
    for warmup in (60, 61, -1):
        with pytest.raises(
            ValueError, match=rf"optim.warmup_epochs makes {warmup} updates.* 60 of the whole"
        ):
            schedule_numbers(peak=1.0, warmup_start=0.0, warmup_updates=warmup, total_updates=60)
    with pytest.raises(ValueError, match=r"optim.schedule is 'step'.*linear, cosine, constant"):
        Schedule("step", peak=1.0, head_multiplier=1, warmup_updates=0, total_updates=60)


def swin_tree(stage):
    """One parameter of every name in the official checkpoint; `stage` is the key of the stage."""

    def norm(size):
        return {"scale": (size,), "bias": (size,)}

    def dense(inputs, outputs):
        return {"kernel": (inputs, outputs), "bias": (outputs,)}

    block = {
        "norm1": norm(4),
        "attn": {
            "relative_position_bias_table": (169, 2),
            "qkv": dense(4, 12),
            "proj": dense(4, 4),
        },
        "norm2": norm(4),
        "mlp": {"fc1": dense(4, 16), "fc2": dense(16, 4)},
    }
    return {
        "patch_embed": {"proj": {"kernel": (4, 4, 3, 4), "bias": (4,)}, "norm": norm(4)},
        "layers": {
            stage: {
                "blocks": {stage: block},
                "downsample": {"norm": norm(16), "reduction": {"kernel": (16, 8)}},
            }
        },
        "norm": norm(8),
        "head": dense(8, 5),
    }


def structs(shapes):
    return jax.tree.map(
        lambda shape: jax.ShapeDtypeStruct(shape, jnp.float32),
        shapes,
        is_leaf=lambda x: isinstance(x, tuple),
    )


def paths_where(tree, value):
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {".".join(str(k.key) for k in path) for path, leaf in leaves if leaf == value}


@pytest.mark.parametrize("stage", [0, "0"])
def test_decay_and_head_by_name(stage):
    params = structs(swin_tree(stage))
    assert paths_where(decay_mask(params), True) == {
        "patch_embed.proj.kernel",
        "layers.0.blocks.0.attn.qkv.kernel",
        "layers.0.blocks.0.attn.proj.kernel",
        "layers.0.blocks.0.mlp.fc1.kernel",
        "layers.0.blocks.0.mlp.fc2.kernel",
        "layers.0.downsample.reduction.kernel",
        "head.kernel",
    }
    assert paths_where(head_labels(params), "head") == {"head.kernel", "head.bias"}
    assert set(jax.tree.leaves(head_labels(params))) == {"head", "backbone"}


def test_no_decay_for_a_bias_of_any_rank():
    params = structs({"attn": {"qkv": {"bias": (3, 2, 4), "kernel": (3, 2, 4)}, "gain": ()}})
    assert paths_where(decay_mask(params), True) == {"attn.qkv.kernel"}


# Small parameters of each kind: decayed or not, backbone or head.
SHAPES = {
    "layers": {0: {"attn": {"relative_position_bias_table": (9, 2), "qkv": {"kernel": (3, 4)}}}},
    "norm": {"scale": (4,), "bias": (4,)},
    "head": {"kernel": (4, 3), "bias": (3,)},
}
SCHEDULES = Schedule(
    "linear", peak=1e-3, head_multiplier=5, warmup_updates=3, total_updates=10
).functions()


def random_tree(seed, scale=1.0):
    """The parameters, or gradients, of `SHAPES`, drawn anew."""
    generator = np.random.default_rng(seed)
    return jax.tree.map(
        lambda shape: (scale * generator.standard_normal(shape)).astype(np.float32),
        SHAPES,
        is_leaf=lambda x: isinstance(x, tuple),
    )


@pytest.fixture(scope="module", params=["adamw", "sgd"])
def optimizer(request):
    """Name, transformation, and the jitted update that gives (params, state)."""
    transformation = make_optimizer(
        random_tree(0),
        OptimConfig(
            name=request.param,
            weight_decay=WEIGHT_DECAY,
            clip_norm=CLIP_NORM,
            momentum=MOMENTUM,
        ),
        SCHEDULES,
    )

    @jax.jit
    def update(params, state, gradients):
        updates, state = transformation.update(gradients, state, params)
        return optax.apply_updates(params, updates), state

    return request.param, transformation, update


def torch_groups(tensors):
    """The four groups of the official code, written out by name; the head's marked."""
    table, qkv, bias, scale, head_bias, head_kernel = (
        tensors["layers"][0]["attn"]["relative_position_bias_table"],
        tensors["layers"][0]["attn"]["qkv"]["kernel"],
        tensors["norm"]["bias"],
        tensors["norm"]["scale"],
        tensors["head"]["bias"],
        tensors["head"]["kernel"],
    )
    return [
        {"params": [qkv], "weight_decay": WEIGHT_DECAY, "head": False},
        {"params": [table, bias, scale], "weight_decay": 0.0, "head": False},
        {"params": [head_bias], "weight_decay": 0.0, "head": True},
        {"params": [head_kernel], "weight_decay": WEIGHT_DECAY, "head": True},
    ]


def test_ten_updates_equal_torch(optimizer):
    """Gradients above and below the clip, over warm-up and decay of the learning rates."""
    name, transformation, update = optimizer
    params = random_tree(0)
    tensors = jax.tree.map(lambda x: torch.tensor(x, requires_grad=True), params)
    reference: torch.optim.Optimizer
    if name == "adamw":
        reference = torch.optim.AdamW(torch_groups(tensors), betas=(0.9, 0.999), eps=1e-8)
    else:
        reference = torch.optim.SGD(torch_groups(tensors), momentum=MOMENTUM, nesterov=True)

    state, norms = transformation.init(params), []
    for step in range(10):
        gradients = random_tree(100 + step, scale=[1.0, 0.1][step % 2])
        params, state = update(params, state, gradients)
        for tensor, gradient in zip(
            jax.tree.leaves(tensors), jax.tree.leaves(gradients), strict=True
        ):
            tensor.grad = torch.tensor(gradient)
        norms.append(torch.nn.utils.clip_grad_norm_(jax.tree.leaves(tensors), CLIP_NORM).item())
        # Of update n the t is max(n - 1, 0): 3 updates of warm-up, then 7 of decay.
        t, start = max(step - 1, 0), 1e-6
        for group in reference.param_groups:
            peak = 5e-3 if group["head"] else 1e-3
            rising, falling = start + (peak - start) * t / 3, peak - 0.99 * peak * (t - 3) / 7
            group["lr"] = rising if t < 3 else falling
        reference.step()
        for got, want in zip(jax.tree.leaves(params), jax.tree.leaves(tensors), strict=True):
            np.testing.assert_allclose(got, want.detach().numpy(), atol=1e-6, rtol=0)
    assert min(norms) < CLIP_NORM < max(norms)


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e30])  # the last one's square is infinite
def test_non_finite_gradients_are_never_applied(optimizer, bad):
    """Twelve in a row change nothing; the next finite one counts from the same moments."""
    name, transformation, update = optimizer
    params, state = update(random_tree(0), transformation.init(random_tree(0)), random_tree(1))
    poisoned = random_tree(2)
    poisoned["head"]["bias"][1] = bad
    skipped_params, skipped_state = params, state
    for count in range(1, 13):
        skipped_params, skipped_state = update(skipped_params, skipped_state, poisoned)
        assert skipped_in_a_row(skipped_state) == skipped_total(skipped_state) == count
    jax.tree.map(np.testing.assert_array_equal, skipped_params, params)
    for moment in ("mu", "nu") if name == "adamw" else ("trace",):
        before, after = optax.tree.get(state, moment), optax.tree.get(skipped_state, moment)
        jax.tree.map(np.testing.assert_array_equal, after, before)
        assert jax.tree.reduce(max, jax.tree.map(np.max, before)) > 0

    params, state = update(skipped_params, skipped_state, random_tree(3))
    assert skipped_in_a_row(state) == 0
    assert skipped_total(state) == 12
    assert not np.array_equal(params["head"]["bias"], skipped_params["head"]["bias"])


def test_a_skipped_update_uses_up_its_place_in_the_schedule():
    """Plain SGD: the third update, after a NaN, is at the rate of update 2, not of update 1."""
    transformation = make_optimizer(
        random_tree(0),
        OptimConfig(name="sgd", weight_decay=0.0, clip_norm=math.inf, momentum=0.0),
        SCHEDULES,
    )
    state, update = transformation.init(random_tree(0)), jax.jit(transformation.update)
    gradients = random_tree(1)
    for scale in (1.0, np.nan):
        poisoned = jax.tree.map(lambda x, scale=scale: x * np.float32(scale), gradients)
        _, state = update(poisoned, state, random_tree(0))
    updates, _ = update(gradients, state, random_tree(0))
    rate = 1e-6 + (5e-3 - 1e-6) / 3
    np.testing.assert_allclose(
        updates["head"]["bias"], -rate * gradients["head"]["bias"], rtol=1e-5
    )


def test_unknown_optimizer_is_refused():
    with pytest.raises(ValueError, match=r"optim.name is 'lamb'.*adamw, sgd"):
        OptimConfig(name="lamb")
