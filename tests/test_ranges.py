"""Every number of base.py has its range, every word its choices; all are looked at first."""

import math

import pytest

from clevit_jax.config import check_config, flatten, resolve_data
from clevit_jax.config.ranges import CHOICES, RANGES, Range
from clevit_jax.errors import ConfigError
from configs import base

BASE = flatten(base.get_config())
NUMBERS = {
    name: value
    for name, value in BASE.items()
    if isinstance(value, int | float | tuple) and not isinstance(value, bool)
}
SENSELESS = (math.nan, math.inf, -math.inf, -1, 0, 1e30, 2**31, 2**70, -1e-9)
OFF = (0,)
# What of SENSELESS a setting may be after all.
SENSIBLE = {
    "seed": (0, 2**31), "data.split_seed": (0, 2**31), "data.leaves.seed": (0, 2**31),
    "data.test_fraction": OFF, "data.val_fraction": OFF, "data.folds": OFF, "data.fold": OFF,
    "data.max_bad": OFF, "data.bits": OFF, "data.threads": OFF,
    "data.cache_bytes": (0, 2**31), "data.leaves.classes": OFF,
    "data.leaves.test_per_class": OFF, "data.leaves.difficulty": OFF,
    "model.embed_dim": OFF, "model.num_classes": OFF, "model.drop_path": OFF,
    "views.brightness": OFF, "views.degrees": OFF, "views.flip": OFF,
    "loss.anchor": OFF, "loss.positive": OFF, "loss.contrast": OFF, "loss.label_smoothing": OFF,
    "loss.cosine_margin": (-1, 0, -1e-9), "loss.triplet_margin": OFF,
    "optim.lr": OFF, "optim.head_multiplier": OFF, "optim.warmup_epochs": OFF,
    "optim.warmup_start": OFF, "optim.end": OFF, "optim.weight_decay": OFF,
    "optim.clip_norm": (math.inf, 1e30, 2**31, 2**70), "optim.b1": OFF, "optim.b2": OFF,
    "optim.momentum": OFF, "optim.ema": OFF,
    "checkpoint.every_minutes": OFF, "checkpoint.every_steps": OFF, "checkpoint.keep_every": OFF,
    "eval.patience": OFF, "mesh.data": (-1,), "mesh.fsdp": (-1,),
}  # fmt: skip


def with_value(name, value):
    """A config that holds a value, whatever its type, as one that is edited by hand may."""
    config = base.get_config()
    config.unlock()
    group, _, leaf = name.rpartition(".")
    owner = config
    for part in filter(None, group.split(".")):
        owner = owner[part]
    with owner.ignore_type():
        owner[leaf] = value
    return config


def test_every_number_and_no_other_has_a_range():
    assert NUMBERS.keys() == RANGES.keys()


@pytest.mark.parametrize("name", NUMBERS)
def test_senseless_numbers_are_refused(name):
    default = NUMBERS[name]
    for value in SENSELESS:
        if isinstance(default, float):
            value = float(value)
        held = (value, value) if isinstance(default, tuple) else value
        if value in SENSIBLE.get(name, ()):
            assert RANGES[name].holds(value), value
            continue
        with pytest.raises(ConfigError, match=name.replace(".", r"\.")) as error:
            check_config(with_value(name, held), "cpu")
        assert str(held) in str(error.value) or str(tuple(held)) in str(error.value)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", BASE)
def test_values_of_another_type_are_refused(name):
    default = BASE[name]
    others = [None, [], {"a": 1}]
    if not isinstance(default, str):
        others += ["", "3", "nan"]
    if not isinstance(default, tuple):
        others += [(1, 2)]
    else:
        others += [("a", "b"), (True, True), 3]
    if not isinstance(default, bool | float):  # a ConfigDict makes 1.0 of True
        others += [True]
    if isinstance(default, int):
        others += [1.5]
    for value in others:
        if isinstance(default, tuple) and value == []:
            continue  # a tuple, as JSON has it
        with pytest.raises(ConfigError, match=name.replace(".", r"\.")):
            check_config(with_value(name, value), "cpu")


@pytest.mark.parametrize("name", CHOICES)
def test_words_that_are_no_choice_are_refused(name):
    assert BASE[name] in CHOICES[name]
    for word in ("", "Base", "auto ", "nothing"):
        with pytest.raises(ConfigError, match=f"{name} is '{word}'; choose one of"):
            check_config(with_value(name, word), "cpu")


def test_pairs_hold_two_numbers_in_order():
    for name, value in (
        ("views.crop_scale", (1.0, 0.5)),
        ("views.crop_ratio", (0.5,)),
        ("views.erase_area", ()),
        ("views.erase_ratio", (0.1, 0.2, 0.3)),
    ):
        with pytest.raises(ConfigError, match=rf"{name} is \(.*; it must be \(low, high\)"):
            check_config(with_value(name, value), "cpu")


def test_the_data_alone_is_looked_at_for_its_images():
    resolve_data(with_value("optim.lr", math.inf))  # a listing of images needs no rate
    with pytest.raises(ConfigError, match=r"data\.resize is 0"):
        resolve_data(with_value("data.resize", 0))


def test_a_setting_that_is_not_there_is_named_with_the_nearest():
    with pytest.raises(ConfigError, match=r"no setting optim\.lrr; the nearest is optim\.lr\."):
        check_config(with_value("optim.lrr", 0.1), "cpu")
    config = base.get_config().unlock()
    del config.optim["lr"], config["mesh"]
    with pytest.raises(ConfigError, match=r"lacks mesh\.data, mesh\.fsdp, optim\.lr; start from"):
        check_config(config, "cpu")


def test_ends_that_float32_rounds_to_are_out():
    assert not Range(0, 1, below=True).holds(1 - 1e-12)
    assert Range(0, 1, below=True).holds(0.999)
    assert str(Range(2, 9, also=(0,))) == "0, or at least 2 and at most 9"
    assert str(Range(0, math.inf, above=True)) == "above 0"


def test_what_float32_rounds_is_said():
    with pytest.raises(ConfigError, match=r"optim.b2 is 0.99999999, and is 1 in float32; it must"):
        check_config(with_value("optim.b2", 0.99999999), "cpu")
