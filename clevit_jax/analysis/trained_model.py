"""A trained model with the config and the data set of its run: what the analyses start from."""

import dataclasses
import functools
import pathlib
from collections.abc import Sequence

import jax
from ml_collections import ConfigDict

from clevit_jax.config import resolve_data, resolve_decoding
from clevit_jax.data.dataset import Dataset
from clevit_jax.data.open import open_data
from clevit_jax.data.skipped import without_bad
from clevit_jax.errors import ConfigError, DataError
from clevit_jax.inference.classifier import Classifier
from clevit_jax.inference.load import load
from clevit_jax.runs.load import Which, holds_run
from clevit_jax.runs.skipped import of_run
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

    @property
    def copy_to(self) -> str:
        """Folder of the copies of what lies in buckets or on the web; see `system.fetch`."""
        return resolve_data(self.config).copy_to if self.config else ""

    def dataset(self) -> Dataset:
        """The images that the config names, without those that the run left out.

        Other images than the run's that cannot be read are left out by `data.on_bad_image=skip`,
        which reads them all.

        Raises:
            ConfigError, DataError: they are not named, not there, or too many cannot be read.
        """
        if self.config is None:
            raise ConfigError(
                f"{self.path} is not a run, so its images are not known; name them: --config FILE "
                "--config.data.root=DIR."
            )
        data = resolve_data(self.config)
        dataset = open_data(data)
        own = of_run(dataset, self.path) if self.is_run else None
        if own is None and data.on_bad_image == "skip":
            own = self._without_bad
        return dataset if own is None else own

    @functools.cached_property
    def _without_bad(self) -> Dataset:
        data = resolve_data(self.config)
        return without_bad(data, open_data(data))

    def unreadable(self, errors: Sequence[str]) -> DataError:
        """The error on images of `dataset` that cannot be read: what to do, then each of them."""
        images = "an image" if len(errors) == 1 else f"{len(errors):,} images"
        mend = "mend or remove the files"
        if self.is_run:
            mend = "put the files back as they were when the run began"
        if self.config is None or self.config.data.on_bad_image == "stop":
            mend += ", or go on without them: --config.data.on_bad_image=skip"
        return DataError([f"{images.capitalize()} cannot be read; {mend}.", *errors])


def open_trained_model(
    path: pathlib.Path, config: ConfigDict | None = None, *, checkpoint: Which = "last"
) -> TrainedModel:
    """Opens a trained model.

    Args:
        path: workdir of a run, converted checkpoint or weight file.
        config: for a run, its own config, in which the settings of `data` may name other images;
            for anything else, the image size, the dtype and the data set; how images are resized
            only where the model does not say.
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
    if config is not None:
        decoding = resolve_decoding(config)
        if classifier.assumed:
            classifier.preprocessing = dataclasses.replace(
                classifier.preprocessing, resize=config.eval.resize
            )
        if not is_run:
            bits = decoding.bits or classifier.decoding.bits
            decoding = dataclasses.replace(decoding, bits=bits)
        classifier.decoding = decoding
    return TrainedModel(path, classifier, config, is_run, checkpoint)
