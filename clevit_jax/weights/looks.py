"""What a file is that holds no weights as they are read here: told by its first bytes."""

import contextlib
import io
import re

from clevit_jax.weights import pickle_survey

POINTER = b"version https://git-lfs"  # of a file that git-lfs has not fetched
# How files of a kind begin, and what to say of them.
_BEGIN = {
    POINTER: "a git-lfs pointer: fetch the file itself with `git lfs pull`",
    b"{": "JSON text",
    b"\x80": "a plain pickle, which torch.save does not write",
    b"PK": "an empty zip archive",
    b"\x1f\x8b": "a gzip archive: unpack it first",
    b"BZh": "a bzip2 archive: unpack it first",
    b"\xfd7zXZ": "an xz archive: unpack it first",
    b"\x28\xb5\x2f\xfd": "a zstd archive: unpack it first",
    b"7z\xbc\xaf\x27\x1c": "a 7z archive: unpack it first",
    b"Rar!": "a rar archive: unpack it first",
    b"\x93NUMPY": "a NumPy array",
    b"\x89HDF": "an HDF5 file",
    b"GGUF": "a GGUF file: take the .safetensors that it was made from",
    b"\0" * 16: "an interrupted download: it begins with zeros",
}
_PICKLE = _BEGIN[b"\x80"]
_EXPORT = "which holds a whole program: take the run or the weights that it was made from"
_WEB = re.compile(rb"<(!doctype|html|head|body|\?xml|!--|script|title|error)", re.IGNORECASE)
# Words near the begin of an ONNX file, whose first field is a number, then its producer.
_ONNX = re.compile(rb"\x08[\x01-\x20]\x12.(jax2onnx|pytorch|tf2onnx|onnx|keras2onnx)", re.DOTALL)
_STABLEHLO = b"StableHLO_v"  # of the module that `jax.export` puts into its flatbuffer


def looks_like(file: io.BufferedReader, head: bytes) -> str:
    """The end of the sentence that refuses a file which is neither a `.pth` nor a `.safetensors`.

    Args:
        file: opened for reading, at its begin.
        head: its first 4096 bytes, or all of it.
    """
    if not head:
        return "is empty: download or copy it again"
    start = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    begins = (text for magic, text in _BEGIN.items() if start.startswith(magic))
    looks = next(begins, "")
    if head[257:262] == b"ustar":
        looks = "a tar archive: unpack it first"
    elif _WEB.match(start):
        looks = "a web page: the download failed"
    elif _ONNX.match(head):
        looks = f"an ONNX file, {_EXPORT}"
    elif _STABLEHLO in head:
        looks = f"a StableHLO export, {_EXPORT}"
    if not looks or looks == _PICKLE:
        if refusal := _pickle(file.read(pickle_survey.MAX_PICKLE)):
            return refusal
        looks = looks or ("something else" if b"\0" in head else "text")
    return f"is neither a .pth nor a .safetensors file; it looks like {looks}"


def _pickle(data: bytes) -> str:
    """The refusal of a pickle of any protocol; "" where the bytes are none."""
    with contextlib.suppress(Exception):
        stream = io.BytesIO(data)
        refusal = pickle_survey.unsafe_pickle(stream)
        # Any text that begins with "." would pass for the pickle of nothing.
        if refusal or (stream.tell() > 1 and stream.tell() == len(data)):
            return refusal or f"is neither a .pth nor a .safetensors file; it looks like {_PICKLE}"
    return ""
