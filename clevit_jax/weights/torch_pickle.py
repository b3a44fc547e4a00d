"""A `.pth`, in the zip form of torch.save or the older one: surveyed, then read by torch.

`torch.load(weights_only=True)` reads what has passed `pickle_survey`, with inert stand-ins for the
foreign objects that training scripts leave beside the weights.
"""

import contextlib
import io
import struct
import zipfile
from collections.abc import Iterator
from typing import Any

from clevit_jax.errors import WeightsError
from clevit_jax.system.quoting import quoted
from clevit_jax.weights.pickle_survey import MAX_PICKLE, PickleSurvey, damaged, unsafe_names
from clevit_jax.weights.stand_ins import Kind, stand_ins


def survey_zip(file: io.BufferedReader, size: int) -> dict[str, Kind]:
    """Raises WeightsError unless a zip is harmless and whole, as torch.save writes it since 1.6.

    Args:
        file: opened for reading.
        size: of the file, bytes.

    Returns:
        What each foreign name in it is used as, for `load_surveyed`.
    """
    with zipfile.ZipFile(file) as archive:
        entries = {entry.filename: entry for entry in archive.infolist()}
        root = next(iter(entries), "").split("/")[0]
        if f"{root}/constants.pkl" in entries:
            raise WeightsError("is a TorchScript program, not a state dict: save its state_dict()")
        if f"{root}/data.pkl" not in entries:
            if any(name.endswith(".npy") for name in entries):
                raise WeightsError(
                    "is a zip archive of NumPy arrays, which torch.save did not write: save them "
                    "by safetensors.numpy.save_file(dict(np.load(FILE)), 'weights.safetensors')"
                )
            raise WeightsError("is a zip archive of files, which torch.save did not write")
        # What torch could read otherwise than zipfile does (it takes A and a for the same name),
        # and what unfolds to more bytes than the file has, was not written by torch.save.
        original = {entry.orig_filename.lower() for entry in archive.infolist()}
        same = original == {name.lower() for name in entries} and not archive.comment
        same = same and len(original) == len(archive.infolist()) and _ends_plainly(file, size)
        stored = all(entry.compress_type == zipfile.ZIP_STORED for entry in entries.values())
        if not same or not stored or sum(e.file_size for e in entries.values()) > size:
            raise WeightsError("is a zip archive that torch.save did not write (repacked?)")
        if entries[f"{root}/data.pkl"].file_size > MAX_PICKLE:
            raise WeightsError(f"holds a pickle of over {MAX_PICKLE >> 20} MiB")
        prefix = f"{root}/data/"
        records = {name.removeprefix(prefix): e.file_size for name, e in entries.items()}
        if wrong := archive.testzip():  # torch writes checksums, but does not compare them
            raise WeightsError(
                damaged(f"the checksum of {quoted([wrong])}")
                + ", or save it anew with torch.serialization.set_crc32_options(True)"
            )
        survey = PickleSurvey(size, records)
        survey.run(io.BytesIO(archive.read(f"{root}/data.pkl")))
        return survey.kinds()


def _ends_plainly(file: io.BufferedReader, size: int) -> bool:
    """Whether a zip ends with one directory and its end records, so that all readers agree."""
    file.seek(max(0, size - 98))
    tail = file.read(98).rjust(98)
    if tail[56:60] == b"PK\6\7":  # the long form: end record 64, its locator, end record
        length, begin = struct.unpack_from("<QQ", tail, 40)
        (record,) = struct.unpack_from("<Q", tail, 64)
        return tail[:4] == b"PK\6\6" and begin + length == record == size - 98
    length, begin = struct.unpack_from("<II", tail, 88)
    return begin + length == size - 22


def survey_legacy(file: io.BufferedReader, size: int) -> dict[str, Kind]:
    """Raises WeightsError unless a file of torch.save before 1.6 is harmless and whole.

    Five pickles (magic number, version, system, content, keys), then the storages. Returns as
    `survey_zip`.
    """
    stream = io.BytesIO(file.read(MAX_PICKLE))
    survey = PickleSurvey(size, None)
    keys = [survey.run(stream) for _ in range(5)][-1]
    if len(keys) != len(survey.storages) or set(keys) != set(survey.storages):
        raise WeightsError(damaged("its list of storages"))
    storages = survey.storages.values()
    if stream.tell() + sum(8 + s.count * s.dtype.itemsize for s in storages) > size:
        raise WeightsError(damaged("its storages are longer than the file"))
    return survey.kinds()


def load_surveyed(file: io.BufferedReader, kinds: dict[str, Kind]) -> Any:
    """The content of a surveyed file as torch reads it, with stand-ins for foreign objects."""
    torch = import_torch()
    file.seek(0)
    with _only_these_globals(torch.serialization, stand_ins(kinds)):
        if file.peek(2)[:2] == b"PK":  # a zip; of the older format torch has no list
            # Some torch may allow less than `_KNOWN`: that is not damage, as its error would say.
            if unsafe := torch.serialization.get_unsafe_globals_in_checkpoint(file):
                raise WeightsError(unsafe_names(unsafe))
            file.seek(0)
        return torch.load(file, map_location="cpu", weights_only=True, mmap=False)


@contextlib.contextmanager
def _only_these_globals(serialization: Any, allowed: list[Any]) -> Iterator[None]:
    """Lets torch read the names that are allowed; not what else the process has allowed it."""
    before = serialization.get_safe_globals()
    serialization.clear_safe_globals()
    try:
        with serialization.safe_globals(allowed):
            yield
    finally:
        serialization.add_safe_globals(before)


def import_torch() -> Any:
    """torch; WeightsError, with what to install, where it is not there."""
    try:
        import torch
    except ImportError:
        mend = "install it with `pip install 'clevit_jax[convert]'` or use a .safetensors file"
        raise WeightsError(f"is a .pth, which needs PyTorch: {mend}") from None
    return torch
