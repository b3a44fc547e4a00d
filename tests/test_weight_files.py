"""Files of weights: right numbers out, nothing run, and one sentence where a file is no good."""

import argparse
import collections
import functools
import hashlib
import io
import json
import os
import pathlib
import pickle
import subprocess
import sys
import tarfile
import types
import zipfile
import zlib

import ml_dtypes
import mutated_weights
import numpy as np
import pytest
import safetensors.numpy
import torch
from mutated_weights import rezip, safetensors_file, saved, some_tensors

import clevit_jax
from clevit_jax.errors import WeightsError
from clevit_jax.weights import pickle_survey, stand_ins
from clevit_jax.weights.files import read_weight_file, sha256, write_pth, write_safetensors

DTYPES = ["f8", "f4", "f2", "bfloat16", "i8", "i4", "i2", "i1", "u1", "?"]


def _arrays():
    """Arrays of every dtype, and of the strides and shapes that are easily got wrong."""
    draw = np.random.RandomState(0)
    arrays = {f"dtype {name}": (draw.randn(3, 4) * 9).astype(name) for name in DTYPES}
    many = draw.randn(2, 3, 4).astype("f4")
    return arrays | {
        "transposed": many.transpose(2, 0, 1),
        "sliced": many[:, ::2, 1:],
        "reversed": many[::-1],
        "spread": np.broadcast_to(np.float32(3), (2, 5)),
        "read-only": np.frombuffer(many.tobytes(), "f4"),
        "big endian": many.astype(">f4"),
        "bfloat16 transposed": many.astype(ml_dtypes.bfloat16).T,
        "scalar": np.array(2.5, np.float32),
        "empty": np.zeros((0, 3), np.float32),
    }


def _with_pickle(pickled):
    data = saved({"w": torch.arange(4.0)})
    return rezip(data, lambda name, old: pickled if name.endswith("data.pkl") else old)


@pytest.fixture
def refused(tmp_path):
    """Reads bytes that must be refused, and returns the sentence without the file's name."""

    def check(data, name="weights.pth"):
        path = tmp_path / name
        path.write_bytes(data)
        with pytest.raises(WeightsError) as caught:
            read_weight_file(path)
        sentence = str(caught.value)
        assert sentence.startswith(f"{path} ")
        assert sentence.endswith(".")
        assert sentence.isprintable()  # one line, no colours
        assert "weights_only" not in sentence
        assert caught.value.__suppress_context__
        return sentence.removeprefix(f"{path} ")

    return check


class _PlainUnpickler(pickle.Unpickler):
    """An independent reading of a torch zip: storages from the zip by hand, all else a dict."""

    def __init__(self, archive, root):
        super().__init__(io.BytesIO(archive.read(f"{root}/data.pkl")))
        self.archive, self.root = archive, root

    def find_class(self, module, name):
        if name == "_rebuild_tensor_v2":
            return lambda data, offset, size, stride, *_: np.lib.stride_tricks.as_strided(
                data[offset:], size, [step * data.itemsize for step in stride]
            )
        known = {"FloatStorage": "<f4", "LongStorage": "<i8", "set": set}
        return known.get(name, collections.OrderedDict)

    def persistent_load(self, key):
        return np.frombuffer(self.archive.read(f"{self.root}/data/{key[2]}"), key[1])


@pytest.mark.parametrize(
    ("name", "beside"),
    [
        ("swin_nano_224", ()),
        (
            "clevit_best_nano",
            ("optimizer", "lr_scheduler", "max_accuracy", "scaler", "epoch", "config"),
        ),
    ],
)
def test_official_files_read_as_an_independent_reader_reads_them(golden, name, beside, monkeypatch):
    class CfgNode(dict):
        def __new__(cls, *args):
            raise AssertionError("the yacs of the process was used")

    config = types.ModuleType("yacs.config")
    config.CfgNode = CfgNode
    monkeypatch.setitem(sys.modules, "yacs", types.ModuleType("yacs"))
    monkeypatch.setitem(sys.modules, "yacs.config", config)
    path = golden / f"{name}.pth"
    allowed = set(torch.serialization.get_safe_globals())

    found = read_weight_file(path)

    assert set(torch.serialization.get_safe_globals()) == allowed
    assert (found.wrapper, found.other_entries) == ("model", beside)
    assert found.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert found.sha256 == sha256(path)
    with zipfile.ZipFile(path) as archive:
        root = archive.namelist()[0].split("/")[0]
        expected = _PlainUnpickler(archive, root).load()["model"]
    assert list(found.tensors) == list(expected)
    for key, array in expected.items():
        assert found.tensors[key].dtype == array.dtype
        np.testing.assert_array_equal(found.tensors[key], array, strict=True)


@pytest.mark.parametrize("old", [False, True])
def test_every_dtype_and_stride_of_torch_comes_out(tmp_path, old):
    tensors = some_tensors()
    (tmp_path / "a.safetensors").write_bytes(saved(tensors, old))  # the content counts
    found = read_weight_file(tmp_path / "a.safetensors")
    assert (found.wrapper, found.other_entries, list(found.tensors)) == ("", (), list(tensors))
    dtypes = {torch.bfloat16: ml_dtypes.bfloat16, torch.float16: np.float16, torch.bool: np.bool_}
    dtypes |= {torch.float32: np.float32, torch.int64: np.int64}
    for name, tensor in tensors.items():
        assert found.tensors[name].dtype == dtypes[tensor.dtype]
        assert found.tensors[name].shape == tuple(tensor.shape)
        assert found.tensors[name].astype("f8").tolist() == tensor.detach().double().tolist()


@pytest.mark.parametrize("old", [False, True])
def test_what_training_scripts_leave_beside_the_weights_is_only_named(tmp_path, old):
    weight = torch.arange(6.0)
    beside = {
        "args": argparse.Namespace(lr=0.1, path=pathlib.Path("a/b"), device=torch.device("cpu")),
        "metric": np.float64(81.5),
        "best": np.float32(0.5),
        "table": np.arange(3),
        "dtype": torch.float16,
        "size": torch.Size([1, 2]),
        "milestones": collections.Counter([3, 3, 5]),
        "names": {"a", "b"},
        "by rate": {0.5: 1, (3, "x"): 2, 7: 3},
        "optimizer": {"state": {0: {"step": torch.tensor(3.0)}}, "param_groups": [{"lr": 1e-3}]},
    }
    path = tmp_path / "a.pth"
    path.write_bytes(saved({"epoch": 3, "state_dict": {"w": weight}, **beside}, old))
    found = read_weight_file(path)
    assert found.wrapper == "state_dict"
    assert found.other_entries == ("epoch", *beside)
    assert found.tensors["w"].tolist() == weight.tolist()


def test_the_other_names_of_numpy_and_yacs_are_inert_too(tmp_path):
    """NumPy 1's module names, and a config node whose state and items come in by every way."""
    node = b"cyacs.config\nCfgNode\n)\x81(X\1\0\0\0aK\1X\1\0\0\0bK\2u}X\1\0\0\0xK\1sb"
    scalar = (
        b"cnumpy.core.multiarray\nscalar\ncnumpy\ndtype\nX\2\0\0\0f8\x89\x88\x87R(K\3NtbK\1\x86R"
    )
    weights = saved({"w": torch.arange(4.0)})

    def change(name, data):
        if not name.endswith("data.pkl"):
            return data
        state = data[2:-1]  # without protocol and stop
        items = [b"X\5\0\0\0model" + state, b"X\1\0\0\0c" + node, b"X\1\0\0\0m" + scalar]
        return b"\x80\2}(" + b"".join(items) + b"u."

    path = tmp_path / "a.pth"
    path.write_bytes(rezip(weights, change))
    found = read_weight_file(path)
    assert (found.wrapper, found.other_entries) == ("model", ("c", "m"))
    assert found.tensors["w"].tolist() == [0, 1, 2, 3]


def test_the_plain_state_dict_is_taken_where_several_are_there(tmp_path):
    one, two = {"w": torch.zeros(1)}, {"w": torch.ones(1)}
    for content, wrapper, beside in [
        ({"state_dict_ema": two, "state_dict": one}, "state_dict", ("state_dict_ema",)),
        ({"model_state_dict": one, "ema_state_dict": two}, "model_state_dict", ("ema_state_dict",)),
        ({"epoch": torch.tensor(3), "model": one}, "model", ("epoch",)),
        ({"model": "swin", "state_dict": one}, "state_dict", ("model",)),
        (one, "", ()),
        ({"model_ema": one, "epoch": 3}, "model_ema", ("epoch",)),  # for want of another
        ({"net": one, "acc": 90.0}, "net", ("acc",)),
        ({"params_ema": two, "params": one}, "params", ("params_ema",)),
        ({"module": one, "optimizer": {"state": two}}, "module", ("optimizer",)),
        ({"checkpoint": {"state_dict": one, "epoch": 1}}, "checkpoint.state_dict", ()),
        ({"mine": one, "optim": {"momenta": two}, "n": torch.tensor(3)}, "mine", ("optim", "n")),
    ]:
        (tmp_path / "a.pth").write_bytes(saved(content))
        found = read_weight_file(tmp_path / "a.pth")
        assert (found.wrapper, found.other_entries) == (wrapper, beside)
        assert found.tensors["w"].tolist() == [0]


def test_which_of_several_dicts_is_meant_is_asked(tmp_path, refused):
    content = {
        "generator": {"w": torch.zeros(1), "v": torch.zeros(1)},
        "best": {"swin": {"w": torch.ones(1)}},
        "discriminator": {"w": torch.ones(1)},
    }
    for name in ("generator", "discriminator"):  # of two depths
        two = {"best": content["best"], name: content[name]}
        assert f"--entry {name} or --entry best.swin" in refused(saved(two))
    asked = refused(saved(content))
    assert (
        "2 names in 'generator' and 1 names in 'discriminator' and 1 names in 'best.swin'" in asked
    )
    assert "--entry generator or --entry discriminator or --entry best.swin" in asked
    path = tmp_path / "a.pth"
    path.write_bytes(saved(content))
    assert read_weight_file(path, "best.swin").tensors["w"].tolist() == [1]
    assert read_weight_file(path, "generator").other_entries == ("best", "discriminator")
    with pytest.raises(
        WeightsError, match="no tensors in an entry 'best': tensors are in --entry g"
    ):
        read_weight_file(path, "best")


def test_one_dict_under_two_names_is_one(tmp_path):
    weights = {"w": torch.ones(1)}
    (tmp_path / "a.pth").write_bytes(saved({"mine": weights, "again": weights}))
    found = read_weight_file(tmp_path / "a.pth")
    assert (found.wrapper, found.other_entries) == ("mine", ("again",))


def test_a_dict_that_holds_itself_has_an_end(tmp_path):
    content = {"epoch": 1, "inner": {"w": {"deep": torch.ones(1)}}}
    content["inner"]["again"] = content
    (tmp_path / "a.pth").write_bytes(saved(content))
    assert read_weight_file(tmp_path / "a.pth").wrapper == "inner.w"


def test_no_state_dict_is_told_with_what_is_there(refused):
    weights = {"w": torch.zeros(1)}
    assert "entries are 'optimizer', 3" in refused(saved({"optimizer": weights, 3: 1}))
    assert "it is a list" in refused(saved([torch.zeros(1)]))
    assert "it is a Tensor" in refused(saved(torch.zeros(1)))
    assert "entries are 'model'" in refused(saved({"model": {}}))
    assert "not a tensor: 'epoch', 3" in refused(saved({**weights, "epoch": 1, 3: torch.ones(1)}))
    assert "not a tensor: 'x'" in refused(saved({"model": {**weights, "x": "y"}}))


class _Runs:
    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("where", ["alone", "beside", "in the state dict", "in the config"])
@pytest.mark.parametrize(
    "kind", ["zip", "old", "zip, protocol 4", "pickle 0", "pickle 2", "pickle 5"]
)
def test_a_pickle_that_would_run_code_is_refused(tmp_path, refused, where, kind):
    target = tmp_path / "target"
    runs = [_Runs(os.system, f"touch {target}"), _Runs(eval, f"open({str(target)!r}, 'w')")]
    content = {
        "alone": runs,
        "beside": {"model": {"w": torch.zeros(1)}, "x": runs},
        "in the state dict": {"model": {"w": torch.zeros(1), "x": runs}},
        "in the config": {"model": {"w": torch.zeros(1)}, "c": argparse.Namespace(x=runs)},
    }[where]
    if kind.startswith("pickle"):
        data = pickle.dumps(runs, int(kind[-1]))  # torch.save did not write this one
    else:
        data = saved(content, kind == "old", pickle_protocol=4 if "4" in kind else 2)
    sentence = refused(data)
    assert "could run code" in sentence
    assert f"{os.system.__module__}.system" in sentence
    assert "eval" in sentence
    assert not target.exists()


def test_whole_modules_and_other_callables_are_named(refused):
    assert "torch.nn.modules.linear.Linear" in refused(saved(torch.nn.Linear(2, 2)))
    assert "functools.partial" in refused(saved({"w": torch.ones(1), "x": functools.partial(len)}))
    assert "'torch.serialization.load'" in refused(saved({"w": torch.ones(1), "x": torch.load}))
    nested = b"\x80\2cargparse\nNamespace\nX\6\0\0\0systemcbuiltins\ngetattr\n."
    assert "'builtins.getattr'" in refused(_with_pickle(nested))


def test_what_this_torch_does_not_allow_is_named(refused, monkeypatch):
    """Where our list is longer than that of torch: neither read nor called damage."""
    monkeypatch.setattr(pickle_survey, "_KNOWN", pickle_survey._KNOWN | {"functools.partial"})
    sentence = refused(saved({"model": {"w": torch.ones(1)}, "x": functools.partial}))
    assert sentence.startswith("asks for 'functools.partial', which could run code")


def test_stand_ins_hold_nothing():
    inert = stand_ins.Inert({"a": 1}, 2)
    inert.__setstate__({"a": 1})
    with pytest.raises(AttributeError):
        inert.a  # noqa: B018
    with pytest.raises(AttributeError):
        inert.a = 1


@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor")
@pytest.mark.filterwarnings("ignore:Sparse:UserWarning")
def test_tensors_that_are_not_plain_are_refused(refused):
    for tensor, word in [
        (torch.eye(3).to_sparse(), "_rebuild_sparse_tensor"),
        (torch.ones(3, device="meta"), "_rebuild_meta_tensor_no_storage"),
        (torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8), "_rebuild_qtensor"),
        (torch.ones(3).to(torch.float8_e4m3fn), "float8_e4m3fn"),
        (torch.ones(3) * 1j, "ComplexFloatStorage"),
    ]:
        sentence = refused(saved({"w": torch.ones(2), "x": tensor}))
        assert "not plain dense numbers" in sentence
        assert word in sentence
    for old in (False, True):
        assert "larger than its data" in refused(saved({"w": torch.ones(1).expand(10**12)}, old))


def test_a_small_file_cannot_fill_the_memory_or_the_day(refused):
    many = torch.ones(2000)
    assert "many times its own size" in refused(saved({str(i): many.view(-1) for i in range(99)}))
    plain = saved({"w": torch.arange(4.0)})
    with zipfile.ZipFile(io.BytesIO(plain)) as archive:
        pickled = archive.read("archive/data.pkl")
    numel, shape = b"cpuq\x06K\x04", b"K\x00K\x04\x85"
    assert pickled.count(numel) == pickled.count(shape) == 1
    huge = b"\x8a\x06\0\0\0\0\0\x01"  # 2**40
    for old, new, word in [
        (numel, b"cpuq\x06K\x05", "a storage of 5 numbers in 16 bytes"),
        (numel, b"cpuq\x06" + huge, "a storage of 1099511627776 numbers"),
        (numel, b"cpuq\x06J\xff\xff\xff\xff", "a storage of -1 numbers"),
        (shape, b"K\x00K\x05\x85", "larger than its data"),
        (shape, b"K\x00" + huge + b"\x85", "larger than its data"),
        (shape, b"K\x01K\x04\x85", "larger than its data"),
        (shape, b"K\x00J\xff\xff\xff\xff\x85", "damaged"),
    ]:
        assert word in refused(_with_pickle(pickled.replace(old, new)))
    assert "damaged" in refused(_with_pickle(b"\x80\2cbuiltins\nbytearray\n" + huge + b"\x85R."))
    assert "torch.Tensor" in refused(_with_pickle(b"\x80\2ctorch\nTensor\n" + huge + b"\x85R."))
    key = b")" + b"q\0h\0\x86" * 99  # its hash takes 2**99 steps
    assert "whose keys" in refused(_with_pickle(b"\x80\2}" + key + b"K\1s."))
    colliding = b"".join(
        b"\x8a\x0c" + (k * (2**61 - 1)).to_bytes(12, "little") + b"N" for k in range(99)
    )
    assert "whose keys" in refused(_with_pickle(b"\x80\2}(" + colliding + b"u."))
    text = b"X" + (10**6).to_bytes(4, "little") + b"a" * 10**6 + b"q\0X\6\0\0\0latin1q\1"
    again = b"c_codecs\nencode\nh\0h\1\x86R"
    assert "repeats itself" in refused(_with_pickle(b"\x80\2(" + text + again * 99 + b"t."))


def test_zips_that_two_readers_could_read_differently_are_refused(refused):
    plain = saved({"w": torch.arange(4.0)})
    assert "repacked" in refused(
        rezip(plain, lambda _, data: data, compression=zipfile.ZIP_DEFLATED)
    )

    def appended(name, comment=b""):
        buffer = io.BytesIO(plain)
        with zipfile.ZipFile(buffer, "a") as archive, pytest.MonkeyPatch.context() as patch:
            patch.setattr("warnings.warn", lambda *_, **__: None)
            archive.comment = comment
            if name:
                archive.writestr(name, b"x")
        return buffer.getvalue()

    assert "repacked" in refused(appended("archive/data.pkl"))
    assert "repacked" in refused(appended("archive/DATA.pkl"))
    assert "repacked" in refused(appended("", b"a comment"))
    start = plain.index(b"PK\x01\x02")
    twice = plain[:start] + plain[start:] + plain[start:]  # two directories
    assert "repacked" in refused(twice)
    assert "TorchScript" in refused(appended("archive/constants.pkl"))


def test_a_zip_whose_entries_overlap_is_refused(refused):
    buffer = io.BytesIO(saved({"w": torch.arange(4.0)}))
    with zipfile.ZipFile(buffer, "a") as archive:
        archive.writestr("archive/outer", b"")
        archive.writestr("archive/inner", bytes(10_000))
        outer = archive.getinfo("archive/outer")
        begin = outer.header_offset + 30 + len(outer.filename)
        inside = buffer.getvalue()[begin:]
        outer.file_size = outer.compress_size = len(inside)
        outer.CRC = zlib.crc32(inside)
    assert "repacked" in refused(buffer.getvalue())


def test_the_storages_of_an_old_file_are_all_there(refused):
    data = saved({"w": torch.arange(4.0)}, old=True)
    assert "storages are longer than the file" in refused(data[:-1])
    keys = data.rindex(b"\x80\2]")
    unread = data[:keys] + b"\x80\2]." + data[data.index(b".", keys) + 1 :]
    assert "list of storages" in refused(unread)  # torch would leave the tensor as memory was


@pytest.mark.parametrize("protocol", [3, 4, 5])
def test_other_protocols_are_told(refused, protocol):
    data = saved({"w": torch.ones(1)}, pickle_protocol=protocol)
    assert f"protocol {protocol}" in refused(data)


def test_one_flipped_byte_in_a_zip_is_refused(refused):
    values = torch.arange(1000.0)
    data = bytearray(saved({"w": values}))
    data[data.index(values.numpy().tobytes()) + 1234] ^= 1
    assert "the checksum of 'archive/data/0'" in refused(bytes(data))


def test_a_file_without_checksums_says_how_to_make_them(refused):
    torch.serialization.set_crc32_options(False)
    try:
        data = saved({"w": torch.arange(9.0)})
    finally:
        torch.serialization.set_crc32_options(True)
    assert "set_crc32_options(True)" in refused(data)


def test_keys_that_are_objects_are_no_damage(refused):
    sentence = refused(saved({"model": {"w": torch.ones(1)}, "by": {torch.float32: 1}}))
    assert "whose keys are neither text nor numbers" in sentence
    assert "download" not in sentence


@pytest.mark.parametrize("kind", ["zip", "old", "safetensors"])
def test_a_file_cut_short_anywhere_is_refused(tmp_path, refused, kind):
    weights = {"weight": torch.arange(8.0), "bias": torch.ones(3)}
    if kind == "safetensors":
        data = safetensors.numpy.save({name: t.numpy() for name, t in weights.items()})
    else:
        data = saved(weights, kind == "old")
    (tmp_path / "whole").write_bytes(data)
    assert read_weight_file(tmp_path / "whole").tensors["bias"].tolist() == [1, 1, 1]
    for length in range(0, len(data), 3):
        refused(data[:length])


def _tar(name):
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as archive:
        archive.addfile(tarfile.TarInfo(name))
    return made.getvalue()


def test_what_is_no_file_of_weights_is_told_by_its_looks(tmp_path, refused):
    arrays = io.BytesIO()
    np.savez(arrays, a=np.ones(3))
    other = io.BytesIO()
    with zipfile.ZipFile(other, "w") as archive:
        archive.writestr("readme.txt", "hello")
    one = io.BytesIO()
    np.save(one, np.ones(3))
    arrays_of_numpy = {"a": np.ones((2, 3)), "b": np.zeros(3)}
    for data, word in [
        (b"", "is empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 3\n", "git lfs pull"),
        (b"\n<!DOCTYPE html><html>Not found</html>", "web page"),
        (b'{"error": "not found"}', "JSON"),
        (b"not found\n", "text"),
        (b"\x1f\x8b\x08" + b"\0" * 40, "gzip"),
        (one.getvalue(), "NumPy array"),
        (arrays.getvalue(), "NumPy arrays"),
        (other.getvalue(), "zip archive of files"),
        (pickle.dumps({"w": [1.0]}), "plain pickle"),
        (b"\0" * 5000, "zeros"),
        (np.random.RandomState(0).bytes(5000), "something else"),
        (b"x" * 257 + b"ustar\0", "tar archive"),
        (_tar("./weights.pth"), "tar archive"),
        (b".gitignore and more\n", "text"),
        (pickle.dumps({"w": 1}, protocol=0), "plain pickle"),
        (b"<\0\0\x008\0d\0b\0" + b"\0" * 300 + b"ML\xefR\rStableHLO_v1.15.0\0", "StableHLO export"),
        (b"\x08\n\x12\x08jax2onnx:" + b"\0" * 90, "ONNX file"),
        (b"<Error><Code>AccessDenied</Code></Error>", "web page"),
    ]:
        assert word in refused(data)
        assert word in refused(data, "weights.safetensors")
    for content in (arrays_of_numpy, {"model": arrays_of_numpy}):
        assert "holds arrays of NumPy" in refused(saved(content))
    with pytest.raises(WeightsError, match="is a folder"):
        read_weight_file(tmp_path)
    with pytest.raises(WeightsError, match=r"missing\.pth does not exist"):
        read_weight_file(tmp_path / "missing.pth")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(WeightsError, match="not a regular file"):
        read_weight_file(tmp_path / "pipe")
    with pytest.raises(WeightsError, match="does not exist"):
        sha256(tmp_path / "missing.pth")


def test_errors_of_the_system_and_of_torch_become_sentences(tmp_path, monkeypatch, refused):
    data = saved({"w": torch.ones(1)})
    for error, word in [
        (PermissionError(13, "Permission denied"), "Permission denied"),
        (MemoryError(), "not enough memory"),
        (RecursionError("deep"), "damaged"),
        (pickle.UnpicklingError("\033[1mset weights_only=False\033[0m\nnow"), "damaged"),
    ]:
        monkeypatch.setattr(torch, "load", functools.partial(_raise, error))
        assert word in refused(data)
    monkeypatch.setattr(torch, "load", functools.partial(_raise, KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        read_weight_file(tmp_path / "weights.pth")


def _raise(error, *_, **__):
    raise error


def test_only_pth_needs_torch(tmp_path, monkeypatch, refused):
    write_pth(tmp_path / "a.pth", {"w": np.ones(2, np.float32)})
    write_safetensors(tmp_path / "a.safetensors", {"w": np.ones(2, np.float32)})
    monkeypatch.setitem(sys.modules, "torch", None)
    assert read_weight_file(tmp_path / "a.safetensors").tensors["w"].tolist() == [1, 1]
    assert "pip install 'clevit_jax[convert]'" in refused((tmp_path / "a.pth").read_bytes())
    with pytest.raises(WeightsError, match="pip install"):
        write_pth(tmp_path / "b.pth", {"w": np.ones(2, np.float32)})
    assert not (tmp_path / "b.pth").exists()


def _entry(dtype="F32", shape=(2,), offsets=(0, 8)):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


@pytest.mark.parametrize(
    ("header", "word"),
    [
        ({"w": _entry(shape=[3])}, "invalid shape, data type, or offset"),
        ({"w": _entry(shape=[-2, -1])}, "integer `-2`"),
        ({"w": _entry(shape=[2.0])}, "floating point"),
        ({"w": _entry(shape=["2"])}, "string"),
        ({"w": _entry(shape=[True, 2])}, "boolean `true`"),
        ({"w": _entry(shape=[[2]])}, "sequence"),
        ({"w": _entry(shape=[2**63, 2**63, 0], offsets=[0, 0])}, "damaged"),
        ({"w": _entry(shape=[2**70, 0], offsets=[0, 0])}, "expected usize"),
        ({"w": _entry(shape=[1] * 99 + [2])}, "ValueError"),
        ({"w": _entry(offsets=[0, 8, 8])}, "expected 2 elements"),
        ({"w": _entry(offsets=[4, 12])}, "invalid offset for tensor `w`"),
        ({"w": _entry(offsets=[8, 0])}, "invalid offset"),
        ({"w": _entry(), "v": _entry()}, "invalid offset"),
        ({"w": _entry(shape=[1], offsets=[0, 4])}, "file not fully covered"),
        ({"w": _entry(shape=[4], offsets=[0, 16])}, "file not fully covered"),
        ({"w": _entry(dtype="F8_E4M3", shape=[8])}, "'w' as 'F8_E4M3'"),
        ({"w": _entry(dtype=["F32"])}, "expected string"),
        ({"w": {"dtype": "F32"}}, "missing field `shape`"),
        ({"w": {**_entry(), "more": 1}}, "more than dtype, shape and place"),
        ({"w": [1]}, "invalid type"),
        ({"w": _entry(), "__metadata__": {"a": 1}}, "expected a string"),
        ({"w": _entry(), "__metadata__": "a"}, "expected a map"),
        (b'{"w": %(w)s, "w": %(w)s}' % {b"w": json.dumps(_entry()).encode()}, "twice"),
        (b'{"w": ' + b"[" * 200_000 + b"]" * 200_000 + b"}", "recursion limit"),
        (b'{"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}', "EOF"),
        (b'{"w": {"dtype": "F32", "shape": [NaN], "data_offsets": [0, 8]}}', "expected value"),
        (b'{"\xff": 1}', "invalid UTF-8"),
    ],
)
def test_a_header_that_does_not_fit_its_file_is_refused(refused, header, word):
    sentence = refused(safetensors_file(header, bytes(8)))
    assert word in sentence
    assert len(sentence) < 400


def test_the_words_of_safetensors_keep_to_their_line(refused):
    """They hold names of the file as they are."""
    name = "\33[31m\n" + "x" * 10_000
    sentence = refused(safetensors_file({name: _entry(offsets=[4, 12])}, bytes(8)))
    assert "tensor `\\x1b[31m\\nxxx" in sentence
    assert len(sentence) < 400


def test_safetensors_headers_of_odd_lengths(tmp_path, refused):
    good = safetensors_file({"w": _entry()}, np.array([1, 2], "<f4").tobytes())
    (tmp_path / "a.bin").write_bytes(good)
    assert read_weight_file(tmp_path / "a.bin").tensors["w"].tolist() == [1, 2]
    for length in (0, 3, len(good) - 7, 99_999_999, 2**64 - 1):
        refused(length.to_bytes(8, "little") + good[8:])
    assert "holds no tensors" in refused(safetensors_file({}))


def _by_hand(path):
    """A safetensors file as its format says: 8 bytes, JSON, data."""
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    names = {"F64": "f8", "F32": "f4", "F16": "f2", "BF16": "bfloat16", "BOOL": "?"}
    found = {}
    for name, entry in header.items():
        if name != "__metadata__":
            dtype = names.get(entry["dtype"]) or entry["dtype"].lower().replace("8", "1")
            dtype = {"i16": "i2", "i32": "i4", "i64": "i8"}.get(dtype, dtype)
            begin, end = (8 + length + offset for offset in entry["data_offsets"])
            found[name] = np.frombuffer(data[begin:end], dtype).reshape(entry["shape"])
    return found, header.get("__metadata__")


def _assert_same(found, expected):
    assert set(found) == set(expected)
    for name, array in expected.items():
        assert found[name].dtype == array.dtype.newbyteorder("=")
        assert found[name].shape == array.shape
        np.testing.assert_array_equal(found[name].astype("f8"), array.astype("f8"))


def test_written_safetensors_hold_the_right_bytes(tmp_path):
    path = tmp_path / "new" / "folder" / "a.safetensors"
    write_safetensors(path, _arrays(), {"made by": "a test"})
    found, metadata = _by_hand(path)
    _assert_same(found, _arrays())
    assert metadata == {"made by": "a test"}
    read = read_weight_file(path)
    assert (read.wrapper, read.other_entries) == ("", ())
    _assert_same(read.tensors, _arrays())


@pytest.mark.parametrize("wrapper", ["", "model"])
def test_written_pth_hold_what_torch_reads(tmp_path, wrapper):
    path = tmp_path / "new" / "folder" / "a.pth"
    write_pth(path, _arrays(), wrapper=wrapper)
    content = torch.load(path, weights_only=True)
    state = content["model"] if wrapper else content
    assert list(state) == list(_arrays())
    assert isinstance(state, collections.OrderedDict)
    for name, array in _arrays().items():
        assert str(state[name].dtype).removeprefix("torch.") == array.dtype.newbyteorder("=").name
        assert tuple(state[name].shape) == array.shape
        assert state[name].is_contiguous()
        assert state[name].double().tolist() == array.astype("f8").tolist()
    read = read_weight_file(path)
    assert read.wrapper == wrapper
    _assert_same(read.tensors, _arrays())
    again = tmp_path / "again.pth"
    write_pth(again, _arrays(), wrapper=wrapper)
    assert path.read_bytes() == again.read_bytes()  # nothing of the file's name in it


WRITERS = [write_safetensors, write_pth]


@pytest.mark.parametrize("write", WRITERS)
def test_nothing_is_overwritten_unasked(tmp_path, write):
    path = tmp_path / "a"
    path.write_bytes(b"precious")
    with pytest.raises(WeightsError, match=r"a exists already: .*overwrit"):
        write(path, {"w": np.ones(2, np.float32)})
    assert path.read_bytes() == b"precious"
    write(path, {"w": np.ones(2, np.float32)}, overwrite=True)
    assert read_weight_file(path).tensors["w"].tolist() == [1, 1]
    (tmp_path / "plain").touch()
    assert path.stat().st_mode == (tmp_path / "plain").stat().st_mode
    (tmp_path / "plain").unlink()
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    with pytest.raises(WeightsError, match="exists already"):
        write(tmp_path / "link", {"w": np.ones(2, np.float32)})
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "link"]


@pytest.mark.parametrize("write", WRITERS)
@pytest.mark.parametrize(
    ("error", "kind", "word"),
    [
        (OSError(28, "No space left on device"), WeightsError, "cannot be written .No space left"),
        (RuntimeError("unexpected pos 64\nmore"), WeightsError, r"cannot be written .RuntimeError"),
        (safetensors.SafetensorError("I/O"), WeightsError, "cannot be written .SafetensorError"),
        (MemoryError(), WeightsError, "not enough memory"),
        (KeyboardInterrupt("by hand"), KeyboardInterrupt, "by hand"),
    ],
)
def test_a_failed_write_leaves_all_as_it_was(tmp_path, monkeypatch, write, error, kind, word):
    path = tmp_path / "a"
    path.write_bytes(b"precious")

    def half(content, target, *_):
        path = target if isinstance(target, pathlib.Path) else pathlib.Path(target.name)
        path.write_bytes(b"half")
        raise error

    monkeypatch.setattr(torch, "save", half)
    monkeypatch.setattr(safetensors.numpy, "save_file", half)
    with pytest.raises(kind, match=word):
        write(path, {"w": np.ones(2, np.float32)}, overwrite=True)
    assert path.read_bytes() == b"precious"
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_is_called_one(tmp_path, monkeypatch):
    """Whatever the library wraps around the system's error."""
    full = OSError(28, "No space left on device")
    torchs = RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 704 vs 598")
    torchs.__context__ = full
    says = "(No space left on device; free some space there, or name another place)"
    for error in (full, torchs):
        monkeypatch.setattr(torch, "save", functools.partial(_raise, error))
        with pytest.raises(WeightsError) as caught:
            write_pth(tmp_path / "a.pth", {"w": np.ones(2, np.float32)})
        assert says in str(caught.value)
    rust = safetensors.SafetensorError(
        "Error while serializing: I/O error: No space left on device (os error 28)"
    )
    monkeypatch.setattr(safetensors.numpy, "save_file", functools.partial(_raise, rust))
    with pytest.raises(WeightsError) as caught:
        write_safetensors(tmp_path / "a.safetensors", {"w": np.ones(2, np.float32)})
    assert says in str(caught.value)


@pytest.mark.parametrize("write", [write_pth, write_safetensors])
def test_what_cannot_be_stored_is_named(tmp_path, write):
    tensors = {"w": np.ones(2), "x": np.array(["a"]), "y": np.ones(2, np.complex64)}
    with pytest.raises(WeightsError, match=r"lacks the dtype of 'x' .<U1., 'y' .complex64.\."):
        write(tmp_path / "a", tensors)
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(WeightsError, match="cannot be written"):
        write(tmp_path / "file" / "a", {"w": np.ones(2)})
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_two_thousand_mutated_files_do_no_harm(tmp_path):
    (tmp_path / "cwd").mkdir()
    (tmp_path / "temp").mkdir()
    command = [sys.executable, mutated_weights.__file__, str(tmp_path), "20", "2000"]
    paths = [str(pathlib.Path(clevit_jax.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    done = subprocess.run(
        command, cwd=tmp_path / "cwd", capture_output=True, text=True,
        env={**os.environ, "TMPDIR": str(tmp_path / "temp"), "PYTHONPATH": os.pathsep.join(paths)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["refused"] + found["read"] == 2000
    assert found["refused"] > 1000
    assert found["read"] > 50  # a reader that refuses everything proves nothing
    assert found["grown"] < 300 << 10  # KiB
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["cwd", "mutant", "temp"]
