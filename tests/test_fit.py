"""Weights fitted to another window and other classes, against PyTorch's interpolation."""

import dataclasses

import numpy as np
import pytest
import torch

from clevit_jax.errors import WeightsError
from clevit_jax.model.config import SwinConfig
from clevit_jax.weights.convert import Weights, named_leaves
from clevit_jax.weights.fit import fit_weights, read_class_map, resize_bias_table
from clevit_jax.weights.load_report import LoadReport

MODEL = SwinConfig(
    image_size=32, num_classes=6, embed_dim=8, depths=(2, 1), num_heads=(2, 4), window=4
)
HEAD = {"head.kernel", "head.bias"}
TABLES = {f"layers.{block}.attn.relative_position_bias_table"
          for block in ("0.blocks.0", "0.blocks.1", "1.blocks.0")}  # fmt: skip


@pytest.fixture(scope="module")
def given(random_params):
    """Weights with random numbers, as `weights.read_file` gives them."""
    params = random_params(MODEL)
    names = tuple(named_leaves(params))
    return Weights(MODEL, params, "timm", "x.pth", "0", report=LoadReport(matched=names))


def fitted(given, class_map=None, **changes):
    params, report = fit_weights(given, dataclasses.replace(MODEL, **changes), class_map=class_map)
    return named_leaves(params), report


def equal_but(a, b):
    """Names whose arrays differ."""
    b = named_leaves(b)
    return {name for name in a if not np.array_equal(a[name], b[name])}


@pytest.mark.parametrize(("old", "new"), [(7, 12), (12, 7), (7, 7), (4, 2), (2, 24), (7, 8)])
def test_resize_is_pytorchs_bicubic(old, new):
    table = np.random.RandomState(old).standard_normal(((2 * old - 1) ** 2, 3)).astype(np.float32)
    square = torch.from_numpy(table).T.reshape(1, 3, 2 * old - 1, 2 * old - 1)
    side = 2 * new - 1
    expected = torch.nn.functional.interpolate(square, size=(side, side), mode="bicubic")
    expected = expected.reshape(3, -1).T.numpy()
    resized = resize_bias_table(table, side * side)
    assert resized.dtype == np.float32
    np.testing.assert_allclose(resized, expected, atol=1e-5, rtol=0)


def test_resize_tells_rows_from_columns():
    """A slope along the rows alone stays one."""
    table = np.repeat(np.arange(7.0), 7)[:, None].astype(np.float32)
    square = resize_bias_table(table, 13 * 13).reshape(13, 13)
    np.testing.assert_allclose(square, square[:, :1] + np.zeros(13), atol=1e-5)
    assert square[-1, 0] - square[0, 0] > 5


def test_the_same_network_is_taken_as_it_is(given):
    params, report = fitted(given)
    assert equal_but(params, given.params) == set()
    assert set(report.matched) == set(params)
    assert (report.resized, report.mapped, report.reinitialised) == ((), (), ())


def test_another_window(given):
    params, report = fitted(given, window=8, image_size=64)
    assert equal_but(params, given.params) == TABLES
    for name in TABLES:
        old = named_leaves(given.params)[name]
        np.testing.assert_array_equal(params[name], resize_bias_table(old, 15 * 15))
    assert set(report.resized) == {f"{name}: window 4 -> 8" for name in TABLES}


def test_a_grid_that_is_smaller_than_the_window(given):
    """At 16 pixels the last grid is 2: only its table shrinks, and the first stays."""
    params, report = fitted(given, image_size=16)
    name = "layers.1.blocks.0.attn.relative_position_bias_table"
    assert equal_but(params, given.params) == {name}
    assert params[name].shape == (9, 4)
    assert report.resized == (f"{name}: window 4 -> 2",)


def test_other_classes_start_at_zero(given):
    params, report = fitted(given, num_classes=3)
    assert equal_but(params, given.params) == HEAD
    assert set(report.reinitialised) == HEAD
    assert not set(report.matched) & HEAD
    assert params["head.kernel"].shape == (16, 3)
    assert not params["head.kernel"].any()
    assert not params["head.bias"].any()


def test_a_class_map_takes_its_columns(given):
    params, report = fitted(given, num_classes=3, class_map=np.array([5, 0, 5]))
    head = given.params["head"]
    for column, source in enumerate((5, 0, 5)):
        np.testing.assert_array_equal(params["head.kernel"][:, column], head["kernel"][:, source])
        assert params["head.bias"][column] == head["bias"][source]
    assert equal_but(params, given.params) == HEAD
    assert set(report.mapped) == {f"{name}: 6 -> 3 classes" for name in HEAD}
    assert report.reinitialised == ()
    with pytest.raises(WeightsError, match=r"3 lines; .* each of the 4 classes"):
        fitted(given, num_classes=4, class_map=np.array([5, 0, 5]))
    with pytest.raises(WeightsError, match=r"from 0 to 5; wrong are the lines \[3\]"):
        fitted(given, num_classes=3, class_map=np.array([5, 0, -1]))
    with pytest.raises(WeightsError, match=r"from 0 to 5; wrong are the lines \[1, 3\]"):
        fitted(given, num_classes=3, class_map=np.array([6, 0, 6]))


def test_another_network_names_the_settings(given):
    with pytest.raises(WeightsError, match=r"x\.pth .*embed_dim=8 .*depths='\(2, 1\)'"):
        fitted(given, embed_dim=16)
    base = Weights(SwinConfig.variant("base", image_size=224), {}, "timm", "b.pth")
    with pytest.raises(WeightsError, match=r"Swin-base.*Swin-large.*model\.embed_dim=128"):
        fit_weights(base, SwinConfig.variant("large", image_size=224))


def test_class_map_files(tmp_path):
    path = tmp_path / "map.txt"
    path.write_bytes(b"\xef\xbb\xbf3\r\n 1 \r\n21840\r\n\r\n")
    np.testing.assert_array_equal(read_class_map(path), [3, 1, 21840])
    for text, says in (("1\nx\n\n-3\n5", r"lines \[2, 3, 4\]"), ("", "empty"), ("\n", "empty"),
                       ("1e3", r"\[1\]"), ("9" * 30, r"\[1\]")):  # fmt: skip
        path.write_text(text)
        with pytest.raises(WeightsError, match=says):
            read_class_map(path)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(WeightsError, match="not a UTF-8 text"):
        read_class_map(path)
    with pytest.raises(WeightsError, match="cannot be read"):
        read_class_map(tmp_path / "missing")
    with pytest.raises(WeightsError, match="cannot be read"):
        read_class_map(tmp_path)
