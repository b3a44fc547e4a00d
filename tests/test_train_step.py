"""The update against six steps of the official code (golden/train_steps.npz), and its promises."""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from clevit_jax.distributed import sharding
from clevit_jax.model import swin
from clevit_jax.model.config import SwinConfig
from clevit_jax.steps.losses import LossConfig
from clevit_jax.steps.optim import OptimConfig, make_optimizer
from clevit_jax.steps.schedule import Schedule
from clevit_jax.steps.state import create_state
from clevit_jax.steps.train_step import apply_gradients, clevit_loss, make_train_step
from clevit_jax.views.two_views import ViewConfig, example_keys, make_views
from clevit_jax.weights.convert import from_official, to_official

NANO = SwinConfig(
    image_size=224, num_classes=21, embed_dim=16, depths=(2, 2, 2, 2), num_heads=(1, 2, 4, 8)
)
TINY = SwinConfig(
    image_size=32, num_classes=5, embed_dim=8, depths=(1, 1), num_heads=(1, 2), window=4,
    drop_path=0.3,
)  # fmt: skip
SEED = 7


def test_six_official_steps(golden):
    reference = dict(np.load(golden / "train_steps.npz"))
    graphdef, params = swin.abstract_swin(NANO)
    official = torch.load(golden / "swin_nano_224.pth", weights_only=True)["model"]
    params = from_official(official, params)
    params["head"] = jax.tree.map(np.zeros_like, params["head"])
    backbone, head = Schedule(
        "linear", peak=0.5 * 4 / 512, head_multiplier=5, warmup_updates=2, total_updates=6
    ).functions()
    optimizer = make_optimizer(params, OptimConfig(), (backbone, head))
    mesh = sharding.make_mesh(devices=jax.devices()[:1])
    state = create_state(NANO, optimizer, mesh, seed=0, params=params)
    config = LossConfig(anchor=1, positive=0.75, contrast=1)

    @jax.jit
    def step(state, anchors, positives, labels):
        batch = {"label": labels, "id": jnp.arange(4)}
        grads, metrics = jax.grad(clevit_loss, has_aux=True)(
            state.params, graphdef, anchors, positives, batch,
            config=config, key=jax.random.key(0),
        )  # fmt: skip
        state, more = apply_gradients(state, grads, optimizer)
        return state, {**metrics, **more}

    columns = ["loss_anchor", "loss_positive", "loss_contrastive", "loss", "grad_norm"]
    assert reference["columns"].tolist()[:5] == columns
    for s, row in enumerate(reference["log"]):

        def view(seed):
            return np.random.RandomState(seed).standard_normal((4, 224, 224, 3)).astype(np.float32)

        labels = np.random.RandomState(3000 + s).randint(0, 21, 4).astype(np.int32)
        state, metrics = step(state, view(1000 + s), view(2000 + s), labels)
        metrics["loss_contrastive"] = metrics["loss_contrast"]
        np.testing.assert_allclose([metrics[c] for c in columns], row[:5], rtol=1e-5)
        np.testing.assert_allclose([backbone(s), head(s)], row[5:], rtol=1e-6)

    start, end = to_official(params), to_official(state.params)
    for name, value in end.items():
        norm, delta = reference[f"norm/{name}"], reference[f"delta/{name}"]
        np.testing.assert_allclose(np.linalg.norm(value), norm, rtol=1e-4, err_msg=name)
        moved = np.linalg.norm(value.astype(np.float64) - start[name])
        np.testing.assert_allclose(moved, delta, rtol=1e-4, err_msg=name)
    for name in [n for n in reference if n.startswith("value/")]:
        value = end[name.removeprefix("value/")]
        moved = reference[name] - start[name.removeprefix("value/")]
        np.testing.assert_allclose(
            value, reference[name], atol=1e-3 * np.abs(moved).max(), rtol=0, err_msg=name
        )


def view_config(kind="full"):
    """Cheap to compile: the views have tests of their own."""
    return ViewConfig(kind=kind, size=32, brightness=0, degrees=0)


def adamw(params):
    return make_optimizer(params, OptimConfig(), (lambda _: 1e-3, lambda _: 5e-3))


@functools.cache
def start(*, devices=1, fsdp=1):
    """A mesh of the first devices, and on it the state to start from, with an average."""
    mesh = sharding.make_mesh(-1, fsdp, devices=jax.devices()[:devices])
    optimizer = adamw(swin.abstract_swin(TINY)[1])
    return create_state(TINY, optimizer, mesh, seed=SEED, ema=True), mesh


@functools.cache
def program(*, devices=1, fsdp=1, accumulation=1, kind="full", drop_path=True, **loss):
    """A compiled step on the first devices, and a state to start from."""
    graphdef, params = swin.abstract_swin(TINY)
    step = make_train_step(
        graphdef, lambda _: adamw(params), views=view_config(kind), loss=LossConfig(**loss),
        num_drop_paths=TINY.num_drop_paths if drop_path else 0,
        accumulation=accumulation, ema_decay=0.9,
    )  # fmt: skip
    state, mesh = start(devices=devices, fsdp=fsdp)
    shardings = (jax.tree.map(lambda x: x.sharding, state), sharding.replicated(mesh))
    jitted = jax.jit(step, out_shardings=shardings)
    numbers = {"seed": np.uint32(SEED), "loss": LossConfig(**loss).weights()}
    return functools.partial(jitted, numbers=numbers), state, mesh


def batch_of(rows=8):
    rng = np.random.RandomState(0)
    return {
        "image": rng.randint(0, 256, (rows, 40, 40, 3)).astype(np.uint8),
        "label": (np.arange(rows) % 3).astype(np.int32),
        "id": np.arange(rows, dtype=np.int32),
        "epoch": np.zeros(rows, np.int32),
    }


def run(steps=3, **options):
    step, state, mesh = program(**options)
    for _ in range(steps):
        state, metrics = step(state, sharding.to_global(mesh, batch_of()))
    return jax.device_get((state, metrics))


def assert_same_run(a, b):
    np.testing.assert_allclose(a[1]["loss"], b[1]["loss"], rtol=1e-5)
    for x, y in zip(jax.tree.leaves(a[0].params), jax.tree.leaves(b[0].params), strict=True):
        # Adam divides by what may be near zero: rounding moves an element by 0.3 % of an update.
        assert np.linalg.norm(x - y) <= 1e-4 * np.linalg.norm(y) + 1e-5


def test_accumulation_equals_the_whole_batch_but_for_the_contrastive_term():
    assert_same_run(run(accumulation=4, contrast=0.0), run(contrast=0.0))


def test_accumulated_contrastive_term_is_the_mean_over_the_parts():
    """And not the term of the whole batch, see the test above."""
    parts = run(steps=1, accumulation=4, drop_path=False)[1]["loss_contrast"]
    graphdef, params = swin.abstract_swin(TINY)[0], start()[0].params

    @jax.jit
    def alone(batch):
        keys = example_keys(SEED, batch["epoch"], batch["id"])
        pair = make_views(keys, batch["image"], config=view_config())
        _, metrics = clevit_loss(
            params, graphdef, pair[0], pair[1], batch, config=LossConfig(), key=jax.random.key(0)
        )
        return metrics["loss_contrast"]

    batch = batch_of()
    each = [alone({name: value[j::4] for name, value in batch.items()}) for j in range(4)]
    np.testing.assert_allclose(parts, np.mean(each), rtol=1e-5)
    assert abs(parts - alone(batch)) > 1e-3


def test_anchor_only_runs():
    base = run(steps=1, kind="base", positive=0.0, contrast=0.0)[1]
    assert base.keys() == {
        "loss", "loss_anchor", "accuracy", "grad_norm", "skipped", "skipped_in_a_row"
    }  # fmt: skip
    np.testing.assert_allclose(base["loss"], math.log(5), rtol=1e-5)  # the head is zeros


def test_triplet_runs_and_the_loss_is_the_weighted_sum():
    m = run(
        steps=1, contrast_kind="instance_triplet", anchor=0.5, positive=0.25, contrast=2.0
    )[1]  # fmt: skip
    assert 0 < m["loss_contrast"] < 3
    expected = 0.5 * m["loss_anchor"] + 0.25 * m["loss_positive"] + 2 * m["loss_contrast"]
    np.testing.assert_allclose(m["loss"], expected, rtol=1e-6)


def test_average_of_parameters():
    step, state, mesh = program()
    new, _ = step(state, sharding.to_global(mesh, batch_of()))
    jax.tree.map(
        lambda e, p0, p1: np.testing.assert_allclose(e, 0.9 * p0 + 0.1 * p1, rtol=1e-5, atol=1e-8),
        *jax.device_get((new.ema, state.params, new.params)),
    )
    assert new.eval_params is new.ema


def test_drop_path_noise_changes_with_the_step_only():
    step, state, mesh = program()
    batch = sharding.to_global(mesh, batch_of())
    first, again = (step(state, batch)[1]["grad_norm"] for _ in range(2))
    later = step(dataclasses.replace(state, step=state.step + 1), batch)
    assert first == again
    assert first != later[1]["grad_norm"]


def test_a_gradient_that_is_no_number_changes_nothing_and_is_counted():
    step, state, mesh = program()
    broken = jax.tree.map(lambda x: x, state.params)
    broken["norm"]["scale"] = state.params["norm"]["scale"] * jnp.nan
    bad = dataclasses.replace(state, params=broken)
    new, metrics = step(bad, sharding.to_global(mesh, batch_of()))
    assert metrics["skipped"] == metrics["skipped_in_a_row"] == 1
    np.testing.assert_array_equal(new.params["head"]["kernel"], state.params["head"]["kernel"])
    good, metrics = step(
        dataclasses.replace(new, params=state.params), sharding.to_global(mesh, batch_of())
    )
    assert (metrics["skipped"], metrics["skipped_in_a_row"]) == (1, 0)
    assert np.any(good.params["head"]["kernel"] != 0)


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        ({"contrast_kind": "simclr"}, "instance_triplet"),
        ({"positive": -1}, "loss.positive"),
        ({"label_smoothing": 1}, "label_smoothing"),
    ],
)
def test_senseless_losses_are_refused(bad, says):
    with pytest.raises(ValueError, match=says):
        LossConfig(**bad)
