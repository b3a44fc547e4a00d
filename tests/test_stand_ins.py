"""Foreign objects beside the weights: passed over, never imported, and refused where they act."""

import collections
import operator
import os

import foreign_objects
import pytest
import torch
from mutated_weights import rezip, saved

from clevit_jax.errors import WeightsError
from clevit_jax.weights import files


def _read(path, data):
    path.write_bytes(data)
    return files.read_weight_file(path)


def _beside(item, old=False):
    with foreign_objects.importable():
        return saved({"state_dict": {"w": torch.arange(4.0)}, "x": item}, old)


def _of(pickled):
    """A file of weights beside which this pickle stands."""

    def change(name, data):
        if not name.endswith("data.pkl"):
            return data
        return b"\x80\2}(X\5\0\0\0model" + data[2:-1] + b"X\1\0\0\0x" + pickled + b"u."

    return rezip(saved({"w": torch.arange(4.0)}), change)


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize("name", [*foreign_objects.made(), *foreign_objects.PLAIN])
def test_what_lies_beside_the_weights_is_named_alone(tmp_path, name, old):
    item = (foreign_objects.made() | foreign_objects.PLAIN)[name]
    found = _read(tmp_path / "a.pth", _beside(item, old))
    assert (found.wrapper, found.other_entries) == ("state_dict", ("x",))
    assert found.tensors["w"].tolist() == [0, 1, 2, 3]


def test_a_state_dict_of_a_foreign_dict_is_read(tmp_path):
    easy = foreign_objects.EasyDict
    content = easy(epoch=3, model=easy({"w": torch.arange(4.0)}))
    with foreign_objects.importable():
        data = saved(content)
    found = _read(tmp_path / "a.pth", data)
    assert (found.wrapper, found.other_entries) == ("model", ("epoch",))
    assert found.tensors["w"].tolist() == [0, 1, 2, 3]


def test_no_class_that_the_process_allows_is_used(tmp_path):
    """Packages tell torch, when they are imported, that their classes may be read."""

    class Loud(dict):
        def __new__(cls, *_):
            raise AssertionError("the class of the process was used")

    data = _beside(foreign_objects.made()["easydict"])
    with torch.serialization.safe_globals([(Loud, "easydict.EasyDict"), collections.deque]):
        before = set(torch.serialization.get_safe_globals())
        assert _read(tmp_path / "a.pth", data).other_entries == ("x",)
        assert set(torch.serialization.get_safe_globals()) == before


EASY = b"ceasydict\nEasyDict\n)\x81"
ADDICT = b"caddict.addict\nDict\n)\x81"


@pytest.mark.parametrize(
    ("pickled", "name"),
    [
        (b"](" + EASY + b"X\1\0\0\0aK\1s" + EASY + b"K\1ae", "easydict.EasyDict"),
        (EASY + b"X\1\0\0\0aK\1sN}\x86b", "easydict.EasyDict"),  # a dict with slots
        (EASY + b"K\1a}b", "easydict.EasyDict"),  # a list with attributes
        (EASY + b"X\1\0\0\0aK\1s" + ADDICT + b"b", "easydict.EasyDict"),  # an object for its state
    ],
)
def test_a_name_that_is_used_in_two_ways_is_refused(tmp_path, pickled, name):
    with pytest.raises(WeightsError, match=r"are not only a dict or a list.*state_dict\(\) alone"):
        _read(tmp_path / "a.pth", _of(pickled))
    with pytest.raises(WeightsError, match=name):
        _read(tmp_path / "a.pth", _of(pickled))


class _Runs:
    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("where", foreign_objects.made())
def test_what_would_run_inside_a_foreign_object_is_refused(tmp_path, where):
    target = tmp_path / "target"
    for runs in (
        _Runs(os.system, f"touch {target}"),
        _Runs(eval, f"open({str(target)!r}, 'w')"),
        _Runs(getattr, foreign_objects.made()[where], "lr"),
        operator.itemgetter("a"),
        torch.nn.Linear(2, 2),
    ):
        item = foreign_objects.made()[where]
        if isinstance(item, list):
            item.append(runs)
        else:
            (item if isinstance(item, dict) else vars(item))["x"] = runs
        with pytest.raises(WeightsError, match="could run code"):
            _read(tmp_path / "a.pth", _beside(item))
        assert not target.exists()


def test_stand_ins_have_no_room_for_much(tmp_path):
    """What is given again and again, and what torch itself makes, is counted."""
    text = b"(X" + (10**6).to_bytes(4, "little") + b"a" * 10**6 + b"q\0X\6\0\0\0latin1q\1"
    encoded = b"c_codecs\nencode\nh\0h\1\x86Rq\2"
    arrays = b"cbuiltins\nbytearray\nh\2\x85R" * 99
    with pytest.raises(WeightsError, match="repeats itself"):
        _read(tmp_path / "a.pth", _of(text + encoded + arrays + b"t"))
    huge = b"\x8a\x06\0\0\0\0\0\x01"  # 2**40
    for call in (b"bytearray\n" + huge + b"\x85R", b"complex\nX\1\0\0\0a\x85R"):
        with pytest.raises(WeightsError, match="damaged"):
            _read(tmp_path / "a.pth", _of(b"cbuiltins\n" + call))
    items = b"q\1(" + b"".join(b"J" + n.to_bytes(4, "little") + b"N" for n in range(9999)) + b"u"
    with pytest.raises(WeightsError, match="repeats itself"):
        _read(tmp_path / "a.pth", _of(b"(" + EASY + items + (ADDICT + b"h\1b") * 9999 + b"t"))
