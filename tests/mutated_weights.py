"""Weight files by the bytes, whole and damaged.

    python tests/mutated_weights.py FOLDER SEED COUNT

reads COUNT damaged files in FOLDER, and prints how many were refused and read, and by how many
KiB the memory grew. In a process of its own: libtpu, which other tests load, keeps a timer that
sends SIGPROF for ever, so that no test can set a limit of time beside it.
"""

import argparse
import copy
import faulthandler
import io
import json
import pathlib
import random
import resource
import signal
import sys
import zipfile

import foreign_objects
import numpy as np
import safetensors.numpy
import torch

from clevit_jax.errors import WeightsError
from clevit_jax.weights.files import read_weight_file

SECONDS = 600  # of the processor, for all files; a thousandth of it is usual


def some_tensors():
    torch.manual_seed(0)
    many = torch.randn(3, 4)
    return {
        "weight": many,
        "transposed": many.t(),
        "tied": many,
        "parameter": torch.nn.Parameter(torch.randn(2)),
        "half": torch.randn(3).half(),
        "brain": torch.randn(2, 2).bfloat16(),
        "index": torch.arange(3),
        "flag": torch.tensor([True, False]),
        "count": torch.tensor(7),
        "empty": torch.zeros(0, 3),
    }


def saved(content, old=False, **options):
    buffer = io.BytesIO()
    torch.save(content, buffer, _use_new_zipfile_serialization=not old, **options)
    return buffer.getvalue()


def rezip(data, change, **options):
    """A zip with every entry passed through `change(name, bytes)`, checksums made right."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(buffer, "w", **options) as new:
        for name in old.namelist():
            new.writestr(name, change(name, old.read(name)))
    return buffer.getvalue()


def safetensors_file(header, data=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def _mutated(data, draw):
    """Bytes with one to three of the accidents that befall files."""
    data = bytearray(data)
    for _ in range(draw.choice([1, 1, 1, 2, 3])):
        at, other = sorted(draw.randrange(len(data) + 1) for _ in range(2))
        match draw.randrange(7):
            case 0:
                data = data[:at]
            case 1:
                data[at:at] = draw.randbytes(draw.choice([1, 2, 4, 8, 100]))
            case 2:
                del data[at : at + draw.choice([1, 2, 4, 8, 100])]
            case 3:
                data[at:other] = data[other:] + data[at:other]
            case 4:
                width = draw.choice([1, 2, 4, 8])
                number = draw.choice([0, 1, 255, 2**15, 2**31 - 1, 2**32 - 1, 2**63 - 1, 2**64 - 1])
                data[at : at + width] = number.to_bytes(8, "little")[:width]
            case _ if data:
                data[at % len(data)] = draw.choice([data[at % len(data)] ^ 1, draw.randrange(256)])
        data = data or bytearray(b"x")
    return bytes(data)


def _odd_header(header, draw):
    """A header that is JSON still, with something else in one or two places."""
    header = json.loads(json.dumps(header))
    odd = [
        -1,
        0,
        1,
        2**31,
        2**63,
        2**64,
        10**40,
        1.5,
        "x",
        "F32",
        "",
        None,
        True,
        [],
        {},
        [1],
        [[]],
    ]
    for _ in range(draw.choice([1, 1, 2])):
        name = draw.choice(list(header))
        entry = header[name]
        key = draw.choice(list(entry)) if isinstance(entry, dict) and entry else None
        match draw.randrange(4) if key else 3:
            case 0:
                entry[key] = copy.deepcopy(draw.choice(odd))
            case 1 if isinstance(entry[key], list) and entry[key]:
                entry[key][draw.randrange(len(entry[key]))] = copy.deepcopy(draw.choice(odd))
            case 2:
                entry[draw.choice(["shape", "dtype", "more"])] = entry.pop(key)
            case _:
                header[draw.choice([*header, "new"])] = copy.deepcopy(draw.choice([*odd, entry]))
    text = json.dumps(header)
    if not draw.randrange(8):  # an entry twice
        text = text[:-1] + ", " + text[1:]
    if not draw.randrange(16):
        text = text.replace("[", "[" * 5000, 1)
    return text.encode()


def mutants(seed, count):
    """Half `.pth` files, half `.safetensors`, each damaged in its own way."""
    content = {
        "model": some_tensors(),
        "args": argparse.Namespace(a=1),
        "best": np.float64(1),
        "e": {"s"},
        "foreign": foreign_objects.made(),
        "plain": foreign_objects.PLAIN,
    }
    with foreign_objects.importable():
        files = [saved(content), saved(content["model"]), saved(content, old=True)]
    arrays = {
        name: np.ones(shape, "f4") for name, shape in {"a": (2, 3), "b": (4,), "c": ()}.items()
    }
    plain = safetensors.numpy.save(arrays, {"k": "v"})
    length = int.from_bytes(plain[:8], "little")
    header, data = json.loads(plain[8 : 8 + length]), plain[8 + length :]
    for number in range(count):
        # Each by itself: the older form holds addresses, so that its length is not always the same.
        draw = random.Random(f"{seed} {number}")
        match number % 4:
            case 0:
                yield _mutated(draw.choice(files), draw)
            case 1:
                inside = draw.choice(["data.pkl"] * 8 + ["byteorder", "version", "/0"])

                def change(name, old, inside=inside, draw=draw):
                    return _mutated(old, draw) if name.endswith(inside) else old

                yield rezip(draw.choice(files[:2]), change)
            case 2:
                yield _mutated(plain, draw)
            case _:
                text = _odd_header(header, draw)
                yield safetensors_file(text, draw.choice([data, data, data[:-4]]))


def survive(files, folder):
    """Reads files that may be damaged; returns how many were refused, and how many read."""
    refused = read = 0
    for data in files:
        path = folder / "mutant"
        path.write_bytes(data)
        try:
            read_weight_file(path)
            read += 1
        except WeightsError as error:
            sentence = str(error)
            assert sentence.isprintable()
            assert sentence.endswith(".")
            assert len(sentence) < 3000
            refused += 1
    return refused, read


def main():
    folder, seed, count = sys.argv[1:]
    # One that hangs ends here, and says where.
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS + 10))
    faulthandler.register(signal.SIGXCPU, chain=True)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    refused, read = survive(mutants(int(seed), int(count)), pathlib.Path(folder))
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak
    print(json.dumps({"refused": refused, "read": read, "grown": grown}))


if __name__ == "__main__":
    main()
