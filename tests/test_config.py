"""Configs: every file, the recipes number by number, no setting that does nothing; the plan."""

import importlib
import math
import pathlib
import re
import types

import jax
import numpy as np
import pytest

from clevit_jax.config import (
    check_config,
    flatten,
    make_plan,
    resolve,
    resolve_data,
)
from clevit_jax.data.decode import Decoding
from clevit_jax.data.layouts.listing import Request
from clevit_jax.data.open import open_data
from clevit_jax.data.sources import SplitConfig
from clevit_jax.errors import ConfigError
from clevit_jax.model.config import VARIANTS
from clevit_jax.steps.losses import LossConfig
from clevit_jax.steps.optim import OptimConfig
from clevit_jax.steps.schedule import Plan, Schedule
from clevit_jax.views.two_views import ViewConfig

ROOT = pathlib.Path(__file__).parents[1]
STAGES = ("R1", "R3", "R4", "R5", "R6")
# lr, weight of the positive, weight of the contrast, epochs, classes: the official scripts'.
RECIPES = {
    "cotton80": (1e-3, 0.75, 1.0, 200, 80),
    "soylocal": (1e-3, 1.0, 1.0, 200, 200),
    "soygene": (2e-3, 0.3, 0.5, 200, 1110),
    **{f"soyageing:{stage}": (1e-3, 1.0, 1.0, 200, 198) for stage in STAGES},
    "soyglobal": (1e-3, 1.0, 1.0, 200, 1938),
    "apple_foliar": (1e-3, 1.0, 1.0, 100, 4),
    "cub": (1e-3, 0.3, 0.5, 40, 200),
}
# What a recipe may set; all else is base.py's.
CHANGED = {
    "cotton80": {"model.num_classes", "loss.positive"},
    "soylocal": {"model.num_classes"},
    "soygene": {"model.num_classes", "loss.positive", "loss.contrast", "optim.lr"},
    **{f"soyageing:{stage}": {"model.num_classes", "data.root"} for stage in STAGES},
    "soyglobal": {"model.num_classes"},
    "apple_foliar": {"model.num_classes", "epochs"},
    "cub": {"model.num_classes", "epochs", "loss.positive", "loss.contrast"},
    "folder": set(),
}


def config_of(name):
    file, _, argument = name.partition(":")
    module = importlib.import_module(f"configs.{file}")
    return module.get_config(argument) if argument else module.get_config()


BASE = config_of("base")
ALL = ["base", "demo", *CHANGED]


def step_config(config, images=240, classes=5, platform="cpu"):
    """The settings of the step, as if there were so many training images of so many classes."""
    dataset = types.SimpleNamespace(num_classes=classes, train=[None] * images, levels=())
    return resolve(config, dataset, platform).step


def changed(**values):
    config = BASE.copy_and_resolve_references()
    config.update_from_flattened_dict({k.replace("__", "."): v for k, v in values.items()})
    return config


def test_no_file_is_left_out():
    files = {path.stem for path in (ROOT / "configs").glob("*.py")} - {"__init__"}
    assert files == {name.partition(":")[0] for name in ALL}


@pytest.mark.parametrize("name", ALL)
def test_a_config_makes_a_run(name):
    config = config_of(name)
    assert config.is_locked
    assert flatten(config).keys() == flatten(BASE).keys()
    model = step_config(config).model
    if name != "demo":
        assert model.image_size == 448
        assert model.window == 7
        assert (model.embed_dim, model.depths) == (128, (2, 2, 18, 2))
        assert model.num_heads == (4, 8, 16, 32)
        assert model.drop_path == 0.5


@pytest.mark.parametrize("name", RECIPES)
def test_recipe(name):
    config = config_of(name)
    loss, optim = config.loss, config.optim
    row = (optim.lr, loss.positive, loss.contrast, config.epochs, config.model.num_classes)
    assert row == RECIPES[name]
    assert (config.batch_size, config.image_size, config.eval.resize) == (12, 448, 512)
    assert (loss.anchor, config.views.parts, config.seed) == (1, 2, 0)
    assert (loss.label_smoothing, loss.cosine_margin) == (0.1, 0.4)
    assert loss.contrast_kind == "supervised_cosine"
    assert (optim.name, optim.b1, optim.b2, optim.eps) == ("adamw", 0.9, 0.999, 1e-8)
    assert (optim.weight_decay, optim.head_multiplier, optim.clip_norm) == (0.05, 5, 5)
    assert (optim.schedule, optim.warmup_epochs) == ("linear", 20)
    assert (optim.warmup_start, optim.end) == (1e-3, 0.01)


@pytest.mark.parametrize("name", CHANGED)
def test_a_recipe_changes_only_what_it_must(name):
    base, own = flatten(BASE), flatten(config_of(name))
    assert {key for key in base if own[key] != base[key]} == CHANGED[name]


def test_soyageing_needs_its_stage():
    for stage in ("", "R2", "r3"):
        with pytest.raises(ValueError, match="one of R1, R3, R4, R5, R6"):
            importlib.import_module("configs.soyageing").get_config(stage)


def test_learning_rate_of_cotton80(golden):
    """240 images in batches of 12: the rates of the official code at each of 4000 updates."""
    reference = np.load(golden / "lr_cotton80.npz")
    plan = make_plan(config_of("cotton80"), 240)
    assert plan.total == 4000
    backbone, head = step_config(config_of("cotton80")).schedule.functions()
    updates = np.arange(plan.total)
    np.testing.assert_allclose(backbone(updates), reference["backbone"][:4000], rtol=2e-6)
    np.testing.assert_allclose(head(updates), reference["head"][:4000], rtol=2e-6)


def test_every_setting_is_used():
    """By its full name, as a part of `config.views` or `config.loss`, or by its group's alias."""
    text = "".join(path.read_text() for path in (ROOT / "clevit_jax").rglob("*.py"))
    body = re.sub(r'"[\w.]+": (Range\(|_[A-Z])', "", text)  # the table of ranges is no use
    whole = {"views": "**config.views", "loss": "**config.loss", "data.leaves": "data.leaves"}
    unused = []
    for name in flatten(BASE):
        group, _, leaf = name.rpartition(".")
        if group in whole:
            used = whole[group] in body
        elif group == "model" and leaf in ("embed_dim", "depths", "num_heads"):
            used = f'"{leaf}"' in body
        else:
            owner = group.rpartition(".")[2] or "config"
            used = re.search(rf"\b{owner}\.{leaf}\b", body)
        if not used:
            unused.append(name)
    assert unused == []


def test_a_number_out_of_range_is_named():
    for name, value, part in (
        ("batch_size", 0, "batch_size is 0; it must be at least 1 and at most 1000000."),
        ("optim__lr", math.nan, "optim.lr is nan"),
        ("optim__ema", 1.0, "optim.ema is 1.0; it must be at least 0 and below 1."),
        ("optim__clip_norm", 0.0, "optim.clip_norm is 0.0; it must be above 0."),
        ("eval__resize", 400, "eval.resize is 400; it must be at least image_size, 448"),
        ("views__crop_scale", ("a", 1.0), "views.crop_scale"),
        ("checkpoint__keep", 0, "checkpoint.keep is 0"),
        ("checkpoint__keep_every", -1, "checkpoint.keep_every is -1"),
        ("checkpoint__timeout_minutes", 0.0, "checkpoint.timeout_minutes is 0.0"),
        ("log__every_steps", 0, "log.every_steps is 0"),
    ):
        with pytest.raises(ConfigError, match=re.escape(part)):
            step_config(changed(**{name: value}))


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"log__wandb": "True"}, "log.wandb is 'True'; it is the name of the project"),
        ({"log__mlflow": "false"}, "log.mlflow is 'false'; it is the name of the experiment"),
        ({"log__mlflow": " "}, "log.mlflow is ' '"),
        ({"log__wandb": "me/leaves"}, "has no /. Its owner stands in WANDB_ENTITY."),
        ({"log__wandb": "x" * 129}, "log.wandb has 129 characters"),
    ],
)
def test_names_that_no_tracker_takes_are_refused(values, says):
    with pytest.raises(ConfigError, match=re.escape(says)):
        check_config(changed(**values), "cpu")
    names = changed(log__wandb="Blätter 2.0", log__mlflow="/Users/me/leaves")
    check_config(names, "cpu")


def test_defaults_are_said_once():
    """What the parts take for granted is what base.py says."""
    step = step_config(BASE)
    assert (step.views, step.loss, step.optim) == (ViewConfig(), LossConfig(), OptimConfig())


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"seed": 2**32}, "seed is 4294967296"),
        ({"loss__anchor": 0.0, "loss__positive": 0.0, "loss__contrast": 0.0}, "all 0"),
        ({"loss__contrast_kind": "instance_triplet", "accumulation": 12}, "no other image"),
    ],
)
def test_what_could_not_train_is_refused(values, says):
    with pytest.raises(ConfigError, match=says):
        step_config(changed(**values))


def test_base_views_need_base_losses():
    with pytest.raises(ConfigError, match=r"loss.positive=0 and loss.contrast=0"):
        step_config(changed(views__kind="base", loss__contrast=0.0))
    alone = changed(views__kind="base", loss__contrast=0.0, loss__positive=0.0)
    assert step_config(alone).loss.anchor == 1


def test_model_overrides():
    config = changed(model__variant="tiny", model__window=14, model__dtype="bfloat16")
    model = step_config(config, classes=9).model
    assert model.depths == VARIANTS["tiny"]["depths"]
    assert (model.num_classes, model.window, model.dtype) == (9, 14, jax.numpy.bfloat16)
    auto = step_config(BASE).model
    assert auto.dtype == jax.numpy.float32
    for platform in ("gpu", "tpu"):
        auto = step_config(BASE, platform=platform).model
        assert auto.dtype == jax.numpy.bfloat16
    with pytest.raises(ConfigError, match="'half'; choose one of auto, float32, bfloat16"):
        step_config(changed(model__dtype="half"))


@pytest.mark.parametrize("images", [1, 3, 10, 12, 240, 241])
@pytest.mark.parametrize("batch", [1, 4, 7, 12, 300])
@pytest.mark.parametrize("epochs", [1, 2, 13])
def test_plan_against_counting(images, batch, epochs):
    """Image by image: an epoch is over with the update that leaves less than a batch of it."""
    plan = Plan(images, batch, epochs)
    ends = [sum(1 for n in range(1, e * images + 1) if n % batch == 0) for e in range(epochs + 1)]
    assert [plan.end_of(e) for e in range(epochs + 1)] == ends
    assert plan.total == ends[-1]
    for step in range(plan.total + 3):
        over = max(e for e in range(epochs + 1) if ends[e] <= step)
        assert plan.epochs_done(step) == over


def test_plan_of_parts_of_an_epoch_and_of_nothing():
    assert Plan(240, 12, 200).end_of(2.5) == 50
    with pytest.raises(ConfigError, match="200 epochs of 0 images make no update of batch_size 12"):
        make_plan(BASE, 0)
    with pytest.raises(ConfigError, match="lower batch_size or raise epochs"):
        make_plan(changed(epochs=1), 11)
    assert make_plan(changed(epochs=1), 12).total == 1


def test_data_is_needed():
    with pytest.raises(ConfigError, match=r"name the folder of images: --config.data.root=DIR"):
        open_data(resolve_data(BASE))


def test_leaves_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    for root in (tmp_path / "file", tmp_path / "file" / "leaves"):
        with pytest.raises(ConfigError, match="file"):
            open_data(resolve_data(changed(data__root=str(root), data__leaves__classes=2)))


def test_threads():
    assert resolve_data(changed(data__threads=3)).threads == 3
    assert resolve_data(BASE).threads >= 1


def test_every_setting_arrives_where_it_belongs():
    """Each with a value of its own, so that none can stand for another."""
    config = changed(
        data__root="x", data__layout="csv", data__file_column="f", data__label_column="l",
        data__tfds="t", data__test_fraction=0.31, data__val_fraction=0.12, data__folds=5,
        data__fold=3, data__split_seed=17, data__resize=601, data__cache_bytes=7, data__threads=3,
        data__split_column="s", data__header="false", data__class_level="leaf",
        data__label_pattern="(.+)_", image_size=448, eval__resize=613, model__num_classes=9,
        data__truncated=True, data__bits=12, data__copy_to="c",
    )  # fmt: skip
    data = resolve_data(config)
    assert data.request == Request(9, "f", "l", "t", "s", "false", "leaf", "(.+)_")
    assert data.split == SplitConfig(0.31, 0.12, 5, 3, 17)
    assert (data.root, data.layout, data.leaves["classes"]) == ("x", "csv", 0)
    assert (data.resize, data.image_size, data.eval_resize) == (601, 448, 613)
    assert (data.cache_bytes, data.threads, data.copy_to) == (7, 3, "c")
    assert data.decoding == Decoding(truncated=True, bits=12)
    config = changed(
        optim__weight_decay=0.06, optim__clip_norm=3.0, optim__b1=0.91, optim__b2=0.95,
        optim__eps=1e-7, optim__momentum=0.7, optim__ema=0.99, optim__lr=0.512, epochs=7,
        optim__head_multiplier=4.0, optim__warmup_epochs=2.0, optim__warmup_start=0.2,
        optim__end=0.03, batch_size=4, accumulation=2, eval__batch_size=6, seed=11,
        data__resize=601, mesh__data=2, mesh__fsdp=3, model__pretrained="p", model__class_map="m",
        eval__every_epochs=5, checkpoint__every_minutes=8.0, checkpoint__every_steps=9,
        checkpoint__keep=10, checkpoint__keep_every=12, checkpoint__timeout_minutes=2.5,
        log__every_steps=13, log__report=False, model__remat="blocks",
    )  # fmt: skip
    dataset = types.SimpleNamespace(num_classes=5, train=[None] * 100, levels=())
    settings = resolve(config, dataset, "cpu")
    step = settings.step
    assert step.optim == OptimConfig("adamw", 0.06, 3.0, 0.91, 0.95, 1e-7, 0.7, 0.99)
    assert step.schedule == Schedule("linear", 0.004, 4.0, 50, 175, 0.2, 0.03)
    assert (step.seed, step.batch_size, step.accumulation, step.resize) == (11, 4, 2, 601)
    assert (step.eval_batch_size, step.model.remat) == (6, "blocks")
    assert settings.plan == Plan(100, 4, 7)
    assert (settings.mesh, settings.pretrained, settings.class_map) == ((2, 3), "p", "m")
    assert (settings.eval_every_epochs, settings.keep, settings.log_steps) == (5, 10, 13)
    assert (settings.checkpoint_minutes, settings.checkpoint_steps) == (8.0, 9)
    assert (settings.checkpoint_keep_every, settings.checkpoint_timeout_minutes) == (12, 2.5)
    assert settings.report is False
