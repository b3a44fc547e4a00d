"""Features of images as a file: `.npz` or `.parquet`, and no pickle.

Both hold, a row an image: `name`, `split` ("train", "val", "test", or "" where there is none),
`label` (-1 where it is not known), `features` and `logits` float32; and, of all, `class_names` (of
the labels), `source` and `fingerprint` of the model that made them.
"""

import dataclasses
import json
import pathlib
import zipfile

import numpy as np

from clevit_jax.errors import ConfigError, first_line
from clevit_jax.system.files import replacing

ENDINGS = (".npz", ".parquet")
_ROWS = ("name", "split", "label", "features", "logits")
_TEXTS = ("class_names", "source", "fingerprint")


@dataclasses.dataclass(frozen=True)
class Features:
    """Features of N images.

    Attributes:
        files: N names.
        splits: N of "train", "val", "test" or "".
        labels: int32 [N], -1 where it is not known.
        features: float32 [N, C].
        logits: float32 [N, K].
        class_names: of the labels.
        source: of the model; see `Classifier.source`.
        fingerprint: of the model; see `Classifier.fingerprint`.
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
    """Raises ConfigError unless a file of this name can be written."""
    if path.suffix.lower() not in endings:
        raise ConfigError(f"--output {path} must end in {' or '.join(endings)}.")
    if path.is_dir() or not path.absolute().parent.is_dir():
        what = "is a folder" if path.is_dir() else f"cannot be written: no folder {path.parent}"
        raise ConfigError(f"--output {path} {what}; name a file in a folder that is there.")


def write_feature_file(path: pathlib.Path, found: Features) -> None:
    """Writes it whole or not at all, in the form that the ending names."""
    try:
        with replacing(path) as new:
            if path.suffix.lower() != ".npz":
                _write_parquet(new, found)
                return
            with new.open("wb") as file:
                np.savez_compressed(file, allow_pickle=False, **_arrays(found))
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror or error}.") from error


def _arrays(found: Features) -> dict[str, np.ndarray]:
    return {
        "name": np.array([_text(name) for name in found.files], dtype=str),
        "split": np.array(found.splits, dtype=str),
        "label": found.labels.astype(np.int32),
        "features": found.features,
        "logits": found.logits,
        "class_names": np.array([_text(name) for name in found.class_names], dtype=str),
        "source": np.array(_text(found.source)),
        "fingerprint": np.array(found.fingerprint),
    }


def _text(name: str) -> str:
    """What of a name is no UTF-8 as an escape."""
    return name.encode("utf-8", "backslashreplace").decode("utf-8")


def _write_parquet(path: pathlib.Path, found: Features) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    arrays = _arrays(found)
    columns = {
        name: pa.array(list(rows) if rows.ndim == 2 else rows) for name, rows in arrays.items()
        if name in _ROWS
    }  # fmt: skip
    for name in ("features", "logits"):
        flat = pa.array(arrays[name].ravel())
        columns[name] = pa.FixedSizeListArray.from_arrays(flat, arrays[name].shape[1])
    names = json.dumps(arrays["class_names"].tolist())
    facts = {"class_names": names, **{name: str(arrays[name]) for name in _TEXTS[1:]}}
    pq.write_table(pa.table(columns).replace_schema_metadata(facts), path)


def read_feature_file(path: pathlib.Path) -> Features:
    """Reads what `write` wrote. Raises ConfigError when it is something else."""
    try:
        arrays = _read_npz(path) if path.suffix.lower() == ".npz" else _read_parquet(path)
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror or error}.") from error
    except (KeyError, ValueError, TypeError, zipfile.BadZipFile) as error:
        raise ConfigError(
            f"{path} is no file of features ({first_line(error)}); write one: --mode features "
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
    with np.load(path, allow_pickle=False) as file:
        return {name: file[name] for name in (*_ROWS, *_TEXTS)}


def _read_parquet(path: pathlib.Path) -> dict[str, np.ndarray]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path)
    except pa.ArrowInvalid as error:
        raise ValueError(str(error)) from error
    facts = {key.decode(): value.decode() for key, value in (table.schema.metadata or {}).items()}
    arrays = {name: np.array(table[name].to_pylist()) for name in ("name", "split")}
    arrays["label"] = table["label"].to_numpy().astype(np.int32)
    for name in ("features", "logits"):
        rows = table[name].combine_chunks()
        arrays[name] = rows.flatten().to_numpy().reshape(len(table), -1)
    arrays["class_names"] = np.array(json.loads(facts["class_names"]), dtype=str)
    return {**arrays, **{name: np.array(facts[name]) for name in _TEXTS[1:]}}
