"""A trained model with the config and the data set of its run: what the analyses start from."""

import dataclasses
import pathlib

import jax
from ml_collections import ConfigDict

from clevit_jax.config import resolve_data
from clevit_jax.data.dataset import Dataset
from clevit_jax.data.open import open_data
from clevit_jax.errors import ConfigError
from clevit_jax.inference.classifier import Classifier, load
from clevit_jax.runs.load import Which, holds_run
from clevit_jax.runs.workdir import check_workdir, load_config
from clevit_jax.system import cpus


@dataclasses.dataclass(frozen=True)
class TrainedModel:
    """A trained model, where it lies, and the config of its run.

    Attributes:
        path: workdir of a run, converted checkpoint or weight file.
        classifier: the model.
        config: config of the run, or the one that was given; None where there is neither.
        is_run: whether `path` is the workdir of a run.
        checkpoint: which checkpoint of the run it is.
    """

    path: pathlib.Path
    classifier: Classifier
    config: ConfigDict | None
    is_run: bool
    checkpoint: Which = "last"

    @property
    def batch_size(self) -> int:
        """Images per batch."""
        return self.config.eval.batch_size if self.config else 24

    @property
    def threads(self) -> int:
        """Threads that decode images."""
        return resolve_data(self.config).threads if self.config else cpus.usable()

    def dataset(self) -> Dataset:
        """The images that the config names. Raises ConfigError, DataError."""
        if self.config is None:
            raise ConfigError(
                f"{self.path} is not a run, so its images are not known; name them: --config FILE "
                "--config.data.root=DIR."
            )
        return open_data(resolve_data(self.config))


def open_trained_model(
    path: pathlib.Path, config: ConfigDict | None = None, *, checkpoint: Which = "last"
) -> TrainedModel:
    """Opens a trained model.

    Args:
        path: workdir of a run, converted checkpoint or weight file.
        config: for a run, its own config, in which the settings of `data` may name other images;
            for anything else, the image size, the dtype and the data set.
        checkpoint: which checkpoint of a run, "last" or "best".

    Raises:
        ConfigError, CheckpointError, WeightsError: in one sentence that names the culprit.
    """
    is_run = holds_run(path)
    if is_run:
        check_workdir(path, config or load_config(path), free=("data.",), reading=True)
        config = config or load_config(path)
    automatic = "float32" if jax.default_backend() == "cpu" else "bfloat16"
    dtype = config.model.dtype if config is not None else "auto"
    classifier = load(
        path,
        checkpoint=checkpoint,
        dtype=automatic if dtype == "auto" else dtype,
        image_size=config.image_size if config is not None and not is_run else None,
    )
    if config is not None and not is_run:
        classifier.resize = config.eval.resize
    return TrainedModel(path, classifier, config, is_run, checkpoint)
