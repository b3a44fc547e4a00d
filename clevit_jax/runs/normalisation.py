"""Mean and std of a run: its settings, else those of the weights that it starts from."""

import pathlib

from ml_collections import ConfigDict

from clevit_jax.errors import ClevitError, ConfigError
from clevit_jax.model.preprocessing import IMAGENET_MEAN, IMAGENET_STD, Colour, Preprocessing
from clevit_jax.runs.facts import colours_of, read_run_facts
from clevit_jax.runs.load import holds_run, read_weights, split_checkpoint
from clevit_jax.runs.workdir import RUN_FILE, has_checkpoints, load_config
from clevit_jax.system.addresses import is_fetched
from clevit_jax.weights import from_address
from clevit_jax.weights.converted import TENSORS, is_converted, read_converted_preprocessing
from clevit_jax.weights.folders import weights_in
from clevit_jax.weights.hub_facts import told_beside


def mean_and_std(
    config: ConfigDict, workdir: pathlib.Path, pretrained: str, copy_to: str = ""
) -> tuple[Colour, ...]:
    """Mean and std that a run normalises by, each three numbers for pixels in 0..1.

    A setting counts first; then what a run that has begun keeps in run.json, where older ones
    have ImageNet's; then what the weights say that it starts from; then ImageNet's.

    Args:
        config: of the run.
        workdir: its folder, which need not be there.
        pretrained: path of the weights that it starts from; "" is none.
        copy_to: folder of their copy, where they lie in a bucket or on the web.
    """
    given = tuple(config.views.mean), tuple(config.views.std)
    if all(given):
        return given[0], given[1]
    known = None
    if has_checkpoints(workdir) and (workdir / RUN_FILE).is_file():
        try:
            known = colours_of(read_run_facts(workdir))
        except ConfigError:  # a damaged one is made again
            known = None
    if known is None and pretrained:
        told = preprocessing_of(pretrained, copy_to)
        known = (told.mean, told.std) if told else None
    mean, std = known or (IMAGENET_MEAN, IMAGENET_STD)
    return given[0] or mean, given[1] or std


def preprocessing_of(path: str | pathlib.Path, copy_to: str = "") -> Preprocessing | None:
    """What weights say of images, without their tensors where they lie on the disk.

    Returns:
        None where they do not say, or cannot be read: whoever reads the tensors says why.
    """
    try:
        local = split_checkpoint(path)[0]
        if holds_run(local):
            mean, std = colours_of(read_run_facts(local))
            return Preprocessing(load_config(local).eval.resize, mean=mean, std=std)
        if is_fetched(path):  # and no run, which is read where it lies
            local = from_address.fetch(path, copy_to).path
        if local.name == TENSORS and is_converted(local.parent):
            local = local.parent
        if is_converted(local):
            return read_converted_preprocessing(local)
        if not local.exists():
            return read_weights(path).preprocessing
        file = weights_in(local)[0] if local.is_dir() else local
        told = told_beside(file) if file else None
        return told.preprocessing if told else None
    except ClevitError:
        return None
