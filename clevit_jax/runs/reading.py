"""A run that is only read fits itself to the devices that are here, whatever it was trained on."""

import dataclasses

import jax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from clevit_jax.config import Settings
from clevit_jax.distributed import sharding
from clevit_jax.errors import ConfigError


def readable(config: ConfigDict, platform: str) -> ConfigDict:
    """The config with what only the platform that trained it can do left to the compiler."""
    if config.model.kernels != "pallas" or platform != "gpu":
        return config
    print("model.kernels=pallas is for TPUs; this run is read without them.", flush=True)
    changed = config.copy_and_resolve_references()
    with changed.unlocked():
        changed.model.kernels = "auto"
    return changed.lock()


def fit_devices(settings: Settings) -> tuple[Settings, Mesh]:
    """The mesh of the devices that are here, and batches that divide over them; says what changed.

    Only evaluations may use the settings that are returned: they do not train what the run trained.

    Raises:
        ConfigError: not even whole copies of the parameters fit these devices.
    """
    data, fsdp = settings.mesh
    count = jax.device_count()
    words, problem = list[str](), ""
    for wanted in ((data, fsdp), (-1, fsdp), (-1, 1)):
        try:
            mesh = sharding.make_mesh(*wanted)
        except ValueError as error:
            problem = str(error)
            continue
        break
    else:
        raise ConfigError(problem)
    if wanted != settings.mesh:
        words.append(
            f"mesh.data={wanted[0]} and mesh.fsdp={wanted[1]} instead of {data} and {fsdp}"
        )
    step = settings.step
    size = -(-step.eval_batch_size // mesh.size) * mesh.size
    if size != step.eval_batch_size:
        words.append(f"eval.batch_size={size} instead of {step.eval_batch_size}")
    if step.batch_size % (mesh.size * step.accumulation):  # no update is made, but it has a shape
        batch = -(-step.batch_size // mesh.size) * mesh.size
        step = dataclasses.replace(step, batch_size=batch, accumulation=1)
    if words:
        devices = "device" if count == 1 else "devices"
        print(f"Read on the {count} {devices} that are here, with {', '.join(words)}.", flush=True)
    step = dataclasses.replace(step, eval_batch_size=size)
    return dataclasses.replace(settings, mesh=wanted, step=step), mesh
