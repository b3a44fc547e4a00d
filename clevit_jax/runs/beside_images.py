"""Whether a run can lie where `--workdir` says, when the images are there, too."""

import os
import pathlib

from clevit_jax.errors import ConfigError
from clevit_jax.runs.setup import Run
from clevit_jax.runs.workdir import CONFIG_FILE, EVALUATION_FILE, RUN_FILE
from clevit_jax.system.addresses import is_fetched
from clevit_jax.system.hub import is_name
from clevit_jax.system.own_files import RUN_FOLDERS, is_run
from clevit_jax.system.places import in_bucket, place

_WRITTEN = (CONFIG_FILE, RUN_FILE, EVALUATION_FILE, "metrics.jsonl", "views.png", *RUN_FOLDERS)


def check_beside_images(run: Run) -> None:
    """Raises ConfigError where a new run would write between the images of a class, or over files.

    A run may lie anywhere else in the data folder, and be that folder: see `system.own_files`. One
    that is there already goes on, wherever it is.
    """
    root, workdir = run.settings.data.root, run.workdir
    elsewhere = is_name(root) or is_fetched(root) or in_bucket(workdir)
    if not root or elsewhere or not workdir.is_dir():
        return
    images = pathlib.Path(os.path.realpath(place(root, "data.root")))
    here = pathlib.Path(os.path.realpath(workdir))
    names = set(os.listdir(workdir))
    if not here.is_relative_to(images) or is_run(workdir, names):
        return
    other = f"name a folder of its own: --workdir {images.parent / 'runs' / images.name}"
    if here == images:
        if clash := sorted(names.intersection(_WRITTEN)):
            raise ConfigError(
                f"--workdir {workdir} is the folder of the images, and {', '.join(clash)} in it "
                f"would be written over by the run; {other}. Nothing is changed."
            )
        return
    inside = here.relative_to(images).parts
    for examples in run.dataset.splits.values():
        for example in examples:
            data = example.data
            if isinstance(data, pathlib.Path) and _below(root, data, inside):
                raise ConfigError(
                    f"--workdir {workdir} holds images of the data set ({data.name}), and a run "
                    f"does not belong between them; {other}. Nothing is changed."
                )


def _below(root: str, path: pathlib.Path, inside: tuple[str, ...]) -> bool:
    """Whether a file is in the folder of the data set that `inside` names, part by part."""
    try:
        return path.relative_to(place(root, "data.root")).parts[: len(inside)] == inside
    except ValueError:
        return False
