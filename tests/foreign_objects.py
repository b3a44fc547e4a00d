"""Objects as training scripts leave them beside the weights, of classes made for the occasion."""

import collections
import contextlib
import datetime
import decimal
import fractions
import pathlib
import sys
import types
import typing
import uuid

import pytest


def _class(name, base, **methods):
    module, _, attribute = name.rpartition(".")
    methods |= {"__module__": module, "__qualname__": attribute}
    return type(attribute, (base,), methods)


def _reduced_to_a_call(self, _):
    return type(self), (dict(self),)


_ADDICTS = {"__getstate__": lambda self: self, "__setstate__": dict.update}
_CLASSES = {
    "DictConfig": _class("omegaconf.dictconfig.DictConfig", object),
    "Metadata": _class("omegaconf.base.ContainerMetadata", object),
    "EasyDict": _class("easydict.EasyDict", dict),
    "addict": _class("addict.addict.Dict", dict, **_ADDICTS),
    "ConfigDict": _class(
        "mmengine.config.config.ConfigDict", dict, __reduce_ex__=_reduced_to_a_call
    ),
    "AttributeDict": _class("pytorch_lightning.utilities.parsing.AttributeDict", dict),
    "CfgNode": _class("fvcore.common.config.CfgNode", dict),
    "BoxList": _class("box.box_list.BoxList", list),
}
EasyDict = _CLASSES["EasyDict"]


def _config_node():
    """As OmegaConf's: an object whose state holds classes, a defaultdict and other objects."""
    node, metadata = _CLASSES["DictConfig"](), _CLASSES["Metadata"]()
    metadata.__dict__ |= {"ref_type": typing.Any, "object_type": dict, "key_type": int}
    metadata.resolver_cache = collections.defaultdict(dict, {"env": {}})
    node.__dict__ |= {"_metadata": metadata, "_content": {"lr": 0.1}, "_parent": None}
    return node


def made():
    """Name -> object, of fake classes with the names and the ways to be stored of true ones."""
    easy = EasyDict(lr=0.1, nested=EasyDict(a=[1]))
    easy.lr = 0.1  # kept twice: as an item, and as an attribute
    addict, call = _CLASSES["addict"], _CLASSES["ConfigDict"]
    return {
        "omegaconf": _config_node(),
        "easydict": easy,
        "addict": addict(a=addict(b=1), c=addict()),  # whose state is the dict itself
        "mmengine": call(a=call(b=1)),
        "lightning": _CLASSES["AttributeDict"](lr=1e-3),
        "empty": _CLASSES["AttributeDict"](),
        "fvcore": _CLASSES["CfgNode"](A=1),
        "box": _CLASSES["BoxList"]([1, {"a": 2}]),
    }


@contextlib.contextmanager
def importable():
    """Lets these classes be pickled, as if their packages were there."""
    with pytest.MonkeyPatch.context() as patch:
        for made_class in _CLASSES.values():
            parts = made_class.__module__.split(".")
            for length in range(1, len(parts) + 1):
                name = ".".join(parts[:length])
                patch.setitem(sys.modules, name, types.ModuleType(name))
        for made_class in _CLASSES.values():
            setattr(sys.modules[made_class.__module__], made_class.__name__, made_class)
        yield


PLAIN = {
    "bytes": [b"ab", b""],
    "bytearray": [bytearray(b"ab"), bytearray()],
    "complex": 1j,
    "sets": frozenset([1, "a"]),
    "slices": [slice(1, None), range(3), ...],
    "types": [int, float, str, bool, list, dict, tuple, typing.Any],
    "collections": [collections.defaultdict(list, {"a": [1]}), collections.deque([1, 2], 5)],
    "times": [
        datetime.datetime(2026, 1, 2, tzinfo=datetime.timezone(datetime.timedelta(hours=2))),
        datetime.date(2026, 1, 2),
        datetime.time(1),
    ],
    "numbers": [decimal.Decimal("1.5"), fractions.Fraction(1, 3), uuid.UUID(int=5)],
    "paths": [pathlib.PurePosixPath("a"), pathlib.PureWindowsPath("a"), pathlib.Path("b")],
    "namespace": types.SimpleNamespace(a=1),
}
