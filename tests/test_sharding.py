"""Meshes, the rule of where arrays live, and batches that are divided."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from jax.sharding import PartitionSpec as P

from clevit_jax.config import resolve
from clevit_jax.distributed.sharding import (
    check_batch_size,
    make_mesh,
    on_each_device,
    state_sharding,
    to_global,
)
from clevit_jax.errors import ConfigError
from clevit_jax.runs.reading import fit_devices


@pytest.mark.parametrize(
    ("data", "fsdp", "shape"),
    [(-1, 1, (4, 1)), (4, 1, (4, 1)), (2, 2, (2, 2)), (-1, 2, (2, 2)), (1, -1, (1, 4))],
)
def test_mesh(data, fsdp, shape):
    mesh = make_mesh(data, fsdp)
    assert mesh.axis_names == ("data", "fsdp")
    assert mesh.devices.shape == shape
    assert set(mesh.devices.flat) == set(jax.devices())


@pytest.mark.parametrize(
    ("data", "fsdp"), [(3, 1), (2, 1), (-1, 3), (-1, -1), (0, 4), (-1, 0), (-1, 8), (-2, -2)]
)
def test_a_mesh_that_leaves_devices_over(data, fsdp):
    with pytest.raises(ValueError, match=r"mesh.data x mesh.fsdp must use all 4 devices"):
        make_mesh(data, fsdp)


def test_mesh_of_some_devices():
    assert make_mesh(devices=jax.devices()[:2]).devices.shape == (2, 1)


def test_the_devices_of_a_process_lie_side_by_side():
    """Whatever order they come in, as on a torus: the rows of a process are a block."""

    torus = [Device(number, number // 2 % 2) for number in range(8)]
    mesh = make_mesh(2, 4, devices=torus[::-1])
    assert [[d.id for d in row] for row in mesh.devices] == [[0, 1, 4, 5], [2, 3, 6, 7]]


@dataclasses.dataclass(frozen=True)
class Device:
    """As JAX's, which have no slice_index where there is one slice."""

    id: int
    process_index: int
    platform: str = "tpu"


@dataclasses.dataclass(frozen=True)
class Sliced(Device):
    slice_index: int = 0


def two_slices(platform="tpu", slice_of=lambda process: process // 2):
    """Four processes of four devices, whose ids begin anew in each slice, as those of TPUs."""
    return [
        Sliced(100 * slice_of(process) + 4 * (process % 2) + number, process, platform,
               slice_of(process))
        for process in (2, 0, 3, 1) for number in (2, 0, 1, 3)
    ]  # fmt: skip


@pytest.mark.parametrize("fsdp", [1, 2, 4, 8])
def test_slices_lie_along_data(fsdp):
    mesh = make_mesh(-1, fsdp, devices=two_slices())
    for row in mesh.devices:
        assert len({device.slice_index for device in row}) == 1
    order = [(device.process_index, device.id % 100 % 4) for device in mesh.devices.flat]
    assert order == [(process, number) for process in range(4) for number in range(4)]


def test_the_numbers_of_slices_change_no_row():
    """Rows of a process stand where they would without slices."""
    plain = [Device(device.id, device.process_index) for device in two_slices()]
    turned = two_slices(slice_of=lambda process: 1 - process // 2)
    for devices in (plain, two_slices(), turned):
        mesh = make_mesh(4, 4, devices=devices)
        assert [{d.process_index for d in row} for row in mesh.devices] == [{0}, {1}, {2}, {3}]
    # Unless a slice has processes that do not follow one another, whose rows are still blocks.
    mixed = make_mesh(4, 4, devices=two_slices(slice_of=lambda process: process % 2))
    assert [{d.process_index for d in row} for row in mixed.devices] == [{0}, {2}, {1}, {3}]


@pytest.mark.parametrize(
    ("data", "fsdp", "each", "fits"),
    [(1, -1, 8, 8), (1, 16, 8, 8), (3, 4, 6, 3), (1, 12, 6, 6), (4, 3, 6, None), (2, 6, 6, None)],
)
def test_fsdp_stays_inside_a_slice(data, fsdp, each, fits):
    devices = [d for d in two_slices() if d.id % 100 < each]
    if fits is None:
        assert make_mesh(data, fsdp, devices=devices).devices.shape == (data, fsdp)
        return
    fsdp_found = 2 * each // data
    with pytest.raises(
        ValueError,
        match=rf"mesh\.fsdp is {fsdp_found}, .* the {each} devices of each of the 2 slices.*; "
        rf"set --config\.mesh\.data=-1 --config\.mesh\.fsdp={fits}\.$",
    ):
        make_mesh(data, fsdp, devices=devices)
    assert make_mesh(-1, fits, devices=devices).shape["fsdp"] == fits


def test_slices_of_two_sizes():
    with pytest.raises(
        ValueError, match=r"differ .* \(slice 0 has 8, slice 1 has 7\).* one shape\.$"
    ):
        make_mesh(devices=two_slices()[1:])


def test_devices_that_make_no_mesh(monkeypatch):
    """A run that is only read fits itself to the devices, unless nothing fits these."""
    monkeypatch.setattr(jax, "devices", lambda: two_slices()[1:])
    config = tiny.get_config()
    config.model.num_classes = 5
    with pytest.raises(ConfigError, match=r"^The slices differ in their number of devices"):
        fit_devices(resolve(config, None, "cpu"))


def test_hosts_of_gpus_are_no_slices():
    """JAX numbers them as slices; their network is made for parameters as well."""
    mesh = make_mesh(1, 16, devices=two_slices("gpu"))
    assert mesh.devices.shape == (1, 16)
    assert make_mesh(devices=two_slices("gpu")[1:]).shape["data"] == 15


SHAPES = {
    "largest axis": ((128, 256), P(None, "fsdp")),
    "first of equals": ((128, 128), P("fsdp")),
    "largest that divides": ((128, 129), P("fsdp")),
    "none divides": ((129, 131), P()),
    "exactly 2**14": ((2**14,), P("fsdp")),
    "one number less": ((2**14 - 2,), P()),
    "four axes": ((4, 4, 3, 512), P(None, None, None, "fsdp")),
    "scalar": ((), P()),
}


@pytest.mark.parametrize("name", SHAPES)
def test_the_rule_on_2_x_2(name):
    shape, spec = SHAPES[name]
    leaf = jax.ShapeDtypeStruct(shape, np.float32)
    (sharding,) = jax.tree.leaves(state_sharding(make_mesh(2, 2), {"a": leaf}))
    assert sharding.spec == spec
    whole = state_sharding(make_mesh(), leaf)
    assert whole.spec == P()
    assert whole.mesh.devices.shape == (4, 1)


@pytest.mark.parametrize("shape", [(4, 1), (2, 2), (1, 4)])
def test_a_batch_is_divided_row_by_row(shape):
    rows = np.arange(24, dtype=np.int32).reshape(8, 3)
    batch = to_global(make_mesh(*shape), {"a": rows})
    np.testing.assert_array_equal(batch["a"], rows)
    held = sorted(np.asarray(shard.data)[:, 0].tolist() for shard in batch["a"].addressable_shards)
    assert held == [[0, 3], [6, 9], [12, 15], [18, 21]]


def test_batch_size():
    check_batch_size("batch_size", 12, 4)
    with pytest.raises(ValueError, match=r"^batch_size is 6, .* 4 devices .* is 4 or 8\.$"):
        check_batch_size("batch_size", 6, 4)
    with pytest.raises(ValueError, match=r"eval.batch_size is 3.* is 4\.$"):
        check_batch_size("eval.batch_size", 3, 4)
    with pytest.raises(ValueError, match=r" is 4\.$"):
        check_batch_size("batch_size", 0, 4)


def test_each_device_runs_on_its_rows_with_whole_parameters():
    seen = []

    def scaled(weights, rows):
        seen.append((weights.shape, rows.shape))
        return {"rows": rows * weights.sum()}

    weights, rows = jnp.arange(3.0), jnp.arange(16.0).reshape(8, 2)
    found = on_each_device(scaled, make_mesh(2, 2), whole=1)(weights, rows)
    assert seen == [((3,), (2, 2))]
    np.testing.assert_array_equal(found["rows"], 3 * rows)
    assert len(found["rows"].sharding.device_set) == 4
    assert on_each_device(scaled, None) is scaled
    one = make_mesh(1, 1, devices=jax.devices()[:1])
    assert on_each_device(scaled, one, whole=1) is scaled
