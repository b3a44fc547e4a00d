"""The devices of a machine, counted and divided among processes that each train a seed."""

import pytest

from clevit_jax.errors import ConfigError
from clevit_jax.sweeps import devices

CHIPS = {
    "TPU_PROCESS_BOUNDS": "1,1,1",
    "CLOUD_TPU_TASK_ID": "0",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
}


@pytest.mark.parametrize(
    ("platform", "count", "wanted", "environ", "visible"),
    [
        ("gpu", 4, 2, {}, ["0,1", "2,3"]),
        ("gpu", 4, 4, {}, ["0", "1", "2", "3"]),
        ("gpu", 8, 3, {}, ["0,1", "2,3", "4,5"]),
        ("gpu", 1, 1, {}, ["0"]),
        ("gpu", 3, 2, {"CUDA_VISIBLE_DEVICES": "6,2, 4"}, ["6", "2"]),
        ("gpu", 2, 2, {"CUDA_VISIBLE_DEVICES": "GPU-ab,MIG-cd"}, ["GPU-ab", "MIG-cd"]),
        ("gpu", 2, 2, {"CUDA_VISIBLE_DEVICES": "5,3,99"}, ["5", "3"]),  # CUDA left out the last
        ("gpu", 2, 2, {"TPU_VISIBLE_CHIPS": "7,8"}, ["0", "1"]),
        ("tpu", 4, 2, {}, ["0,1", "2,3"]),
        ("tpu", 4, 4, {}, ["0", "1", "2", "3"]),
        ("tpu", 4, 3, {}, ["0", "1", "2"]),
        ("tpu", 8, 1, {}, ["0,1,2,3,4,5,6,7"]),
        ("tpu", 8, 2, {}, ["0,1,2,3", "4,5,6,7"]),
        ("tpu", 6, 2, {}, ["0,1", "2,3"]),  # three chips cannot be had together
        ("tpu", 4, 2, {"TPU_VISIBLE_CHIPS": "2,3,0,1"}, ["2,3", "0,1"]),
    ],
)
def test_shares_of_the_devices(platform, count, wanted, environ, visible):
    name = {"gpu": "CUDA_VISIBLE_DEVICES", "tpu": "TPU_VISIBLE_CHIPS"}[platform]
    shares = devices.share_devices(platform, count, wanted, environ)
    assert [share[name] for share in shares] == visible
    if platform == "gpu":
        assert all(share.keys() == {name} for share in shares)
        return
    bounds = {1: "1,1,1", 2: "1,2,1", 4: "2,2,1", 8: "2,4,1"}  # as in jax._src.test_multiprocess
    for k, share in enumerate(shares):
        assert share == {
            **CHIPS,
            name: visible[k],
            "TPU_CHIPS_PER_PROCESS_BOUNDS": bounds[len(visible[k].split(","))],
            "TPU_PROCESS_ADDRESSES": f"localhost:{8476 + k}",
            "TPU_PROCESS_PORT": str(8476 + k),
        }


def test_cpus_are_shared_by_all():
    assert devices.share_devices("cpu", 1, 3, {"CUDA_VISIBLE_DEVICES": "0"}) == [{}, {}, {}]


@pytest.mark.parametrize("platform", ["gpu", "tpu"])
def test_too_few_devices(platform):
    with pytest.raises(ConfigError, match=rf"3 needs .* only 2 \({platform}\); ask for 2 at most"):
        devices.share_devices(platform, 2, 3, {})
    with pytest.raises(ConfigError, match="not METAL; leave it out"):
        devices.share_devices("METAL", 2, 2, {})


def test_devices_are_counted_by_another_process(monkeypatch):
    assert devices.count_devices() == ("cpu", 4)  # as conftest.py asks for
    monkeypatch.setenv("JAX_PLATFORMS", "nosuch")
    with pytest.raises(ConfigError, match=r"finds no devices to share: .*nosuch"):
        devices.count_devices()
