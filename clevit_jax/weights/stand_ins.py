"""Foreign names that a training script leaves in a `.pth`, and what stands in for them.

Config objects, paths, dates and alike lie beside the weights. None of them is imported and nothing
of them runs: each becomes an object without content, a dict or a list.
"""

import collections
from collections.abc import Collection
from typing import Any, Literal

Kind = Literal["object", "dict", "list"]

_MULTIARRAY = ("numpy.core.multiarray", "numpy._core.multiarray")
_PATHS = ("Path", "PosixPath", "WindowsPath", "PurePath", "PurePosixPath", "PureWindowsPath")
HISTORY = "mmengine.logging.history_buffer.HistoryBuffer"
# That buffer keeps methods of its own by name. Nothing else may be asked for an attribute, and this
# is never the true getattr: a stand-in is there for it, too.
GETATTR = "builtins.getattr"

# Module -> its names. Of the standard library only what holds a value and does nothing.
_NAMES: dict[str, tuple[str, ...]] = {
    "builtins": (
        *("bool", "bytes", "dict", "float", "frozenset", "int", "list", "object", "range"),
        *("slice", "str", "tuple", "Ellipsis"),
    ),
    "argparse": ("Namespace",),
    "collections": ("defaultdict", "deque"),
    "datetime": ("date", "datetime", "time", "timedelta", "timezone"),
    "decimal": ("Decimal",),
    "fractions": ("Fraction",),
    "pathlib": _PATHS,
    "pathlib._local": _PATHS,
    "types": ("SimpleNamespace",),
    "typing": ("Any",),
    "uuid": ("UUID",),
    "numpy": ("dtype", "ndarray"),
    _MULTIARRAY[0]: ("scalar", "_reconstruct"),
    _MULTIARRAY[1]: ("scalar", "_reconstruct"),
    "yacs.config": ("CfgNode",),
    "fvcore.common.config": ("CfgNode",),
    "detectron2.config.config": ("CfgNode",),
    "mmengine.logging.history_buffer": ("HistoryBuffer",),
    "mmengine.config.config": ("Config", "ConfigDict"),
    "mmcv.utils.config": ("Config", "ConfigDict"),
    "omegaconf.base": ("Box", "Container", "ContainerMetadata", "Metadata", "Node"),
    "omegaconf.dictconfig": ("DictConfig",),
    "omegaconf.listconfig": ("ListConfig",),
    "omegaconf.nodes": (
        *("AnyNode", "BooleanNode", "BytesNode", "FloatNode", "IntegerNode", "InterpolationResult"),
        *("InterpolationResultNode", "PathNode", "StringNode", "ValueNode"),
    ),
    "pytorch_lightning.utilities.parsing": ("AttributeDict",),
    "lightning.pytorch.utilities.parsing": ("AttributeDict",),
    "lightning_fabric.utilities.data": ("AttributeDict",),
    "lightning.fabric.utilities.data": ("AttributeDict",),
    "easydict": ("EasyDict",),
    "addict": ("Dict",),
    "addict.addict": ("Dict",),
    "ml_collections.config_dict.config_dict": ("ConfigDict", "FieldReference", "FrozenConfigDict"),
    "box.box": ("Box",),
    "box.box_list": ("BoxList",),
    "box.config_box": ("ConfigBox",),
    "munch": ("DefaultFactoryMunch", "DefaultMunch", "Munch", "RecursiveMunch"),
}
FOREIGN = frozenset(f"{module}.{name}" for module, names in _NAMES.items() for name in names)

# How the default protocol of torch.save spells what Python 3 calls otherwise; torch reads it so.
_OLD = {"xrange": "range", "unicode": "str", "long": "int"}


class Inert:
    """Stand-in for a foreign object: swallows arguments and state, and holds nothing."""

    __slots__ = ()

    def __new__(cls, *_: Any) -> Any:
        return object.__new__(cls)

    def __setstate__(self, _: Any) -> None:
        pass


class _InertDict(Inert):
    """Stand-in for a dict of a foreign class: torch fills true ones alone, so it makes one."""

    def __new__(cls, *_: Any) -> Any:
        return collections.OrderedDict()


class _InertList(Inert):
    """The same for a list of a foreign class."""

    def __new__(cls, *_: Any) -> Any:
        return []


_CLASSES: dict[Kind, type[Inert]] = {"object": Inert, "dict": _InertDict, "list": _InertList}


def python_3_name(name: str) -> str:
    """`builtins.range` for `__builtin__.xrange`, and other names as they are."""
    module, _, attribute = name.partition(".")
    return f"builtins.{_OLD.get(attribute, attribute)}" if module == "__builtin__" else name


def stand_ins(kinds: dict[str, Kind]) -> list[tuple[type[Inert], str]]:
    """What torch takes for each foreign name, which is of the given kind, or else an object."""
    names: Collection[str] = sorted(FOREIGN | {GETATTR})
    return [(_CLASSES[kinds.get(name, "object")], name) for name in names]
