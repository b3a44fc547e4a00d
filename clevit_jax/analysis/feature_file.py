"""Files of features: `.npz` or `.parquet`, never a pickle.

Both hold one row per image: `name`, `split` ("train", "val", "test", or "" where there is none),
`label` (-1 where it is not known), `features` and `logits`, float32. Once per file they hold
`class_names` (names of the labels), and `source` and `fingerprint` of the model.
"""

import dataclasses
import json
import pathlib
import struct
import zipfile
import zlib

import numpy as np

from clevit_jax.analysis.prediction_table import as_utf8
from clevit_jax.errors import ConfigError, first_line
from clevit_jax.system.faults import mend, os_reason
from clevit_jax.system.files import replacing, why_not_there

ENDINGS = (".npz", ".parquet")
_ROWS = ("name", "split", "label", "features", "logits")
_TEXTS = ("class_names", "source", "fingerprint")


@dataclasses.dataclass(frozen=True)
class Features:
    """Features of N images.

    Attributes:
        files: names of the images.
        splits: "train", "val", "test" or "", for each image.
        labels: int32 [N], -1 where the label is not known.
        features: float32 [N, C].
        logits: float32 [N, K]; [N, 0] of a headless network.
        class_names: names of the labels.
        source: where the model comes from; see `Classifier.source`.
        fingerprint: hash of the model; see `Classifier.fingerprint`.
    """

    files: tuple[str, ...]
    splits: tuple[str, ...]
    labels: np.ndarray
    features: np.ndarray
    logits: np.ndarray
    class_names: tuple[str, ...]
    source: str
    fingerprint: str

    def only(self, split: str) -> "Features":
        """The rows of one split."""
        rows = np.flatnonzero(np.array(self.splits) == split)
        return dataclasses.replace(
            self,
            files=tuple(self.files[i] for i in rows),
            splits=tuple(self.splits[i] for i in rows),
            labels=self.labels[rows],
            features=self.features[rows],
            logits=self.logits[rows],
        )


def check_output_path(path: pathlib.Path, endings: tuple[str, ...] = ENDINGS) -> None:
    """Raises ConfigError unless the path has such an ending and lies in an existing folder."""
    if path.suffix.lower() not in endings:
        raise ConfigError(f"--output {path} must end in {' or '.join(endings)}.")
    if path.is_dir():
        raise ConfigError(f"--output {path} is a folder; name a file.")
    if reason := why_not_there(path.absolute().parent):
        raise ConfigError(f"--output {path} cannot be written: {reason}.")


def write_feature_file(path: pathlib.Path, features: Features) -> None:
    """Writes features whole or not at all, in the format that the ending names."""
    try:
        with replacing(path) as new:
            if path.suffix.lower() != ".npz":
                _write_parquet(new, features)
                return
            with new.open("wb") as file:
                np.savez_compressed(file, allow_pickle=False, **_arrays(features))
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {os_reason(error)}{mend(error)}.") from error


def _arrays(features: Features) -> dict[str, np.ndarray]:
    """The entries of a file by their names."""
    return {
        "name": np.array([as_utf8(name) for name in features.files], dtype=str),
        "split": np.array(features.splits, dtype=str),
        "label": features.labels.astype(np.int32),
        "features": features.features,
        "logits": features.logits,
        "class_names": np.array([as_utf8(name) for name in features.class_names], dtype=str),
        "source": np.array(as_utf8(features.source)),
        "fingerprint": np.array(features.fingerprint),
    }


def _write_parquet(path: pathlib.Path, features: Features) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    arrays = _arrays(features)
    columns = {
        name: pa.array(list(arrays[name]) if arrays[name].ndim == 2 else arrays[name])
        for name in _ROWS
    }
    for name in ("features", "logits"):
        flat, width = pa.array(arrays[name].ravel()), arrays[name].shape[1]
        if width:
            columns[name] = pa.FixedSizeListArray.from_arrays(flat, width)
        else:  # logits of a headless network; Parquet has no lists of 0 fixed
            columns[name] = pa.array([[]] * len(arrays[name]), pa.list_(pa.float32()))
    class_names = json.dumps(arrays["class_names"].tolist())
    metadata = {"class_names": class_names, **{name: str(arrays[name]) for name in _TEXTS[1:]}}
    pq.write_table(pa.table(columns).replace_schema_metadata(metadata), path)


# What damage shows in, of np.load, pyarrow and what they find.
_DAMAGE = (
    KeyError, ValueError, TypeError, AttributeError, EOFError, zlib.error, zipfile.BadZipFile,
    NotImplementedError, struct.error,
)  # fmt: skip


def read_feature_file(path: pathlib.Path) -> Features:
    """Reads what `write_feature_file` wrote. Raises ConfigError for any other file."""
    try:
        arrays = _read_npz(path) if path.suffix.lower() == ".npz" else _read_parquet(path)
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror or error}.") from error
    except _DAMAGE as error:
        raise ConfigError(
            f"{path} is not a file of features ({first_line(error)}); write one: --mode features "
            f"--output {path}."
        ) from error
    return Features(
        files=tuple(arrays["name"].tolist()),
        splits=tuple(arrays["split"].tolist()),
        labels=arrays["label"],
        features=arrays["features"],
        logits=arrays["logits"],
        class_names=tuple(arrays["class_names"].tolist()),
        source=str(arrays["source"]),
        fingerprint=str(arrays["fingerprint"]),
    )


def _read_npz(path: pathlib.Path) -> dict[str, np.ndarray]:
    # Opened here: NumPy leaves a file open that turns out to be no archive.
    with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
        return {name: file[name] for name in (*_ROWS, *_TEXTS)}


def _read_parquet(path: pathlib.Path) -> dict[str, np.ndarray]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path)
    except pa.ArrowInvalid as error:
        raise ValueError(str(error)) from error
    metadata = table.schema.metadata or {}
    facts = {key.decode(): value.decode() for key, value in metadata.items()}
    arrays = {name: np.array(table[name].to_pylist()) for name in ("name", "split")}
    arrays["label"] = table["label"].to_numpy().astype(np.int32)
    for name in ("features", "logits"):
        rows = table[name].combine_chunks()
        arrays[name] = rows.flatten().to_numpy().reshape(len(table), -1)
    arrays["class_names"] = np.array(json.loads(facts["class_names"]), dtype=str)
    return {**arrays, **{name: np.array(facts[name]) for name in _TEXTS[1:]}}
