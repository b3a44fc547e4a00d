"""Tars of images, written by tarfile and compared with what tarfile reads."""

import collections
import io
import json
import pathlib
import random
import tarfile

import numpy as np
import pytest
from PIL import Image

from clevit_jax.data import decode, sources
from clevit_jax.data.layouts.listing import Request
from clevit_jax.data.layouts.store import tar_index
from clevit_jax.errors import DataError, DecodeError


def jpeg(number: int) -> bytes:
    pixels = np.random.default_rng(number).integers(0, 256, (6, 6, 3), np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "jpeg")
    return stream.getvalue()


def pack(path: pathlib.Path, members: list[tuple[str, bytes | str]], form="w", **options):
    """Writes a tar and returns its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, form, **options) as tar:
        for name, data in members:
            data = data.encode() if isinstance(data, str) else data
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path.parent


def samples(first: int, count: int, **parts) -> list[tuple[str, bytes | str]]:
    """`0007.jpg` and parts beside, each made by a function of the number."""
    return [
        (f"{i:04}.{ending}", make(i))
        for i in range(first, first + count)
        for ending, make in {"jpg": jpeg, **parts}.items()
    ]


def cls(number: int) -> str:
    return f"{number % 2}\n"


def problems(root, **options) -> tuple[str, ...]:
    with pytest.raises(DataError) as caught:
        sources.load_dataset(root, **options)
    return caught.value.problems


def listed(data, examples) -> list[tuple[str, str]]:
    return [(example.name, data.class_names[example.label]) for example in examples]


@pytest.mark.parametrize(
    ("train", "val", "test"),
    [
        ("train-{}.tar", "val-000000.tar", "test-000000.tar"),
        ("leaves-train-{}.tar", "leaves-validation-0.tar", "leaves-test-0.tar"),
        ("train/{}.tar", "valid/0.tar", "test/0.tar"),
    ],
)
def test_shards_of_splits(tmp_path, train, val, test):
    for shard in range(2):
        pack(tmp_path / train.format(f"00000{shard}"), samples(10 * shard, 4, cls=cls))
    pack(tmp_path / val, samples(50, 2, cls=cls))
    pack(tmp_path / test, samples(60, 3, cls=cls))
    data = sources.load_dataset(tmp_path)
    assert (data.layout, data.class_names, data.warnings) == ("webdataset", ("0", "1"), ())
    assert listed(data, data.train) == [
        (f"{train.format(f'00000{shard}')}/{10 * shard + i:04}.jpg", str(i % 2))
        for shard in range(2)
        for i in range(4)
    ]
    assert (len(data.val), len(data.test)) == (2, 3)
    with tarfile.open(tmp_path / test) as tar:
        for example in data.test:
            inner = example.name.removeprefix(f"{test}/")
            assert example.data.read() == tar.extractfile(inner).read()
            decode.decode_train(example.data, example.name, size=6)
    assert str(data.test[0].data) == f"{tmp_path}/{test}, 0060.jpg"


@pytest.mark.parametrize(
    ("parts", "request_", "names"),
    [
        ({"cls": cls}, {}, ("0", "1")),
        ({"txt": lambda i: ("ash", "é 玫瑰")[i % 2]}, {}, ("ash", "é 玫瑰")),
        ({"json": lambda i: json.dumps({"label": i % 2, "box": [1]})}, {}, ("0", "1")),
        ({"json": lambda i: json.dumps({"label": i % 2, "class_name": "ab"[i % 2]})}, {},
         ("a", "b")),
        ({"json": lambda i: json.dumps({"kind": "ab"[i % 2]})}, {"label_column": "kind"},
         ("a", "b")),
        ({"cls": cls, "txt": lambda i: f"photo {i}", "json": lambda i: "{}"}, {}, ("0", "1")),
        ({"cls": cls, "txt": lambda i: "ab"[i % 2]}, {"label_column": "txt"}, ("a", "b")),
        ({"cls": cls, "seg.png": jpeg}, {"file_column": "jpg"}, ("0", "1")),
        ({"txt": lambda i: f"{i // 2}"}, {"label_column": "TXT"}, ("0", "1", "2", "3")),
    ],
)  # fmt: skip
def test_where_labels_may_be(tmp_path, parts, request_, names):
    pack(tmp_path / "all.tar", samples(0, 8, **parts))
    data = sources.load_dataset(tmp_path, request=Request(**request_))
    assert data.class_names == names
    assert sorted(listed(data, data.train + data.test)) == [
        (f"all.tar/{i:04}.jpg", names[i // 2 if len(names) > 2 else i % 2]) for i in range(8)
    ]


@pytest.mark.parametrize("wrap", ["", "./", "data/flowers/"])
def test_folders_in_a_tar_are_classes(tmp_path, wrap):
    members = [(f"{wrap}{name}/{i}.{i}.jpg", jpeg(i)) for name in ("ash", "oak") for i in range(3)]
    pack(tmp_path / "train.tar", [*members, (f"{wrap}ash/._0.jpg", "x"), ("README", "x")])
    pack(tmp_path / "test.tar", members[::3])
    data = sources.load_dataset(tmp_path)
    assert data.class_names == ("ash", "oak")
    assert listed(data, data.test) == [
        (f"test.tar/{wrap.removeprefix('./')}{name}/0.0.jpg", name) for name in ("ash", "oak")
    ]
    assert len(data.train) == 6


def test_splits_in_one_tar_and_one_tar_a_class(tmp_path):
    members = [(f"x/{split}/{name}/0.jpg", jpeg(0)) for split in ("train", "test") for name in "ab"]
    data = sources.load_dataset(pack(tmp_path / "1/x.tar", members))
    assert [len(data.train), len(data.test)] == [2, 2]
    for name in ("n01440764", "n01443537"):
        pack(tmp_path / f"2/{name}.tar", [(f"{name}_{i}.JPEG", jpeg(i)) for i in range(3)])
    data = sources.load_dataset(tmp_path / "2")
    assert data.class_names == ("n01440764", "n01443537")
    assert len(data.train + data.test) == 6


def test_test_images_without_labels_are_left_out(tmp_path):
    pack(tmp_path / "train-0.tar", samples(0, 8, cls=cls))
    pack(tmp_path / "test-0.tar", samples(0, 3))
    data = sources.load_dataset(tmp_path)
    assert data.warnings == (f"{tmp_path}: no test image has a label; none of the 3 is read.",)
    assert len(data.train + data.test) == 8


WRONG = [
    ([*samples(0, 4, cls=cls), ("x.jpg", b"")],
     "a.tar, x.jpg: there is no label; add one, or remove the row."),
    (samples(0, 4, cls=cls) * 2, "a.tar: 8 of its members are there more than once ('0000.jpg', "),
    (samples(0, 2, cls=lambda i: b"\xff\xfe"), "a.tar: '0000.cls' is no UTF-8 text."),
    (samples(0, 2, cls=lambda i: b"x" * (2 << 20)), "a.tar: '0000.cls' is too long for a label."),
    (samples(0, 4, json=lambda i: "[" if i else '{"label": 1}'),
     "a.tar: '0001.json' is no JSON object."),
    (samples(0, 4, json=lambda i: '{"kind": 1}'),
     "in the members *.json no column is known to hold the label, of 'kind'; set data.label_c"),
    (samples(0, 4, txt=lambda i: f"a photo, {i}"),
     "the 4 members *.txt hold 4 different texts, so these seem to describe the images,"),
    (samples(0, 4, cls=cls, label=cls), "the endings 'cls', 'label' may all hold the label; set"),
    (samples(0, 4, cls=cls, png=jpeg), "'0000' and others have several images, jpg and png; set"),
    (samples(0, 4), "nothing in the tars tells the class of the images (0000.jpg, 0001.jpg, "),
    ([("a/0.jpg", b""), ("b/c/0.jpg", b"")], "the images in the tars lie at different depths, or"),
    ([("a/b/0.jpg", b""), ("c/b/0.jpg", b"")], "which may be classes or not (a/b, c/b); unpack"),
]  # fmt: skip


@pytest.mark.parametrize(("members", "said"), WRONG)
def test_what_is_wrong_is_said(tmp_path, members, said):
    pack(tmp_path / "a.tar", members)
    with pytest.raises(DataError) as caught:
        sources.load_dataset(tmp_path)
    assert said in str(caught.value)


def test_label_columns_that_are_not_there(tmp_path):
    pack(tmp_path / "a.tar", samples(0, 4, cls=cls))
    request = Request(label_column="kind")
    assert (
        "data.label_column = 'kind' is no ending of members"
        in problems(tmp_path, request=request)[0]
    )
    pack(tmp_path / "a.tar", samples(0, 4, json=lambda i: '{"label": 1}'))
    assert "there is no column 'kind', only 'label'; set" in problems(tmp_path, request=request)[0]


def test_labels_without_images_and_links_are_said(tmp_path):
    pack(tmp_path / "a.tar", [*samples(0, 8, cls=cls), ("x.cls", "1")])
    with tarfile.open(tmp_path / "a.tar", "a") as tar:
        info = tarfile.TarInfo("y.jpg")
        info.type, info.linkname = tarfile.SYMTYPE, "0000.jpg"
        tar.addfile(info)
    assert sources.load_dataset(tmp_path).warnings == (
        f"{tmp_path}/a.tar: 1 links in it are not followed (y.jpg).",
        f"{tmp_path}: 1 labels in the tars have no image beside, and are not read (x).",
    )


def test_compressed_and_torn_tars_are_named(tmp_path):
    pack(tmp_path / "train-0.tar", samples(0, 8, cls=cls))
    pack(tmp_path / "train-1.tar.gz", samples(0, 8, cls=cls), "w:gz")
    assert (
        "train-1.tar.gz not read: in a compressed tar" in sources.load_dataset(tmp_path).warnings[0]
    )
    (tmp_path / "train-1.tar.gz").rename(tmp_path / "train-1.tar")
    (found,) = problems(tmp_path)
    assert found == (
        f"{tmp_path}/train-1.tar cannot be read: it is compressed, so no image in it can be read "
        "alone; unpack it with gunzip."
    )
    whole = (tmp_path / "train-0.tar").read_bytes()
    for torn in (whole[:700], whole[:3000], b"x" * 512 + whole):
        (tmp_path / "train-1.tar").write_bytes(torn)
        assert problems(tmp_path)[0].startswith(f"{tmp_path}/train-1.tar cannot be read: it is ")
    (tmp_path / "train-1.tar").unlink()
    data = sources.load_dataset(tmp_path)
    (tmp_path / "train-0.tar").write_bytes(whole[:600])
    with pytest.raises(DecodeError, match=r"0004\.jpg cannot be decoded: the file ends within it"):
        decode.decode_train(
            next(e.data for e in data.train + data.test if "4.jpg" in e.name), size=6
        )


def test_archives_beside_what_came_out_of_them_are_no_data_set(tmp_path):
    pack(tmp_path / "images.tar", [(f"images/{name}/0.jpg", jpeg(0)) for name in "ab"])
    for name in "ab":
        (tmp_path / f"images/{name}").mkdir(parents=True)
        (tmp_path / f"images/{name}/0.jpg").write_bytes(jpeg(0))
        (tmp_path / f"images/{name}/1.jpg").write_bytes(jpeg(0))
    assert sources.load_dataset(tmp_path).layout == "folders"
    assert sources.scan(tmp_path, layout="webdataset")[0].class_names == ("a", "b")


def test_no_tars_and_mixed_names(tmp_path):
    assert "holds no tar file; looked for" in problems(tmp_path, layout="webdataset")[0]
    pack(tmp_path / "train-0.tar", samples(0, 4, cls=cls))
    pack(tmp_path / "more.tar", samples(0, 4, cls=cls))
    assert problems(tmp_path)[0].startswith(f"{tmp_path}/more.tar tells no split, as other tars")


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_the_index_is_that_of_tarfile(tmp_path, form):
    long = "x" * 90 + "/" + "y" * 90
    names = ["a.jpg", "./b.jpg", long, "e" * 99, "f" * 100, "d/" * 40 + "z.jpg"]
    if form != tarfile.USTAR_FORMAT:
        names += ["é" * 120, "x/" * 200 + "z.jpg"]
    path = tmp_path / "a.tar"
    pack(path, [(name, b"x" * 513 * i) for i, name in enumerate(names)], format=form)
    with tarfile.open(path, "a", format=form) as tar:
        info = tarfile.TarInfo("folder")
        info.type = tarfile.DIRTYPE
        tar.addfile(info)
        info = tarfile.TarInfo("link" + "k" * 80)
        info.type, info.linkname = tarfile.LNKTYPE, "a" * 80
        tar.addfile(info)
    with tarfile.open(path) as tar:
        expected = [
            tar_index.Member(m.name.removeprefix("./"), m.offset_data if m.isreg() else -1, m.size)
            for m in tar.getmembers() if not m.isdir()
        ]  # fmt: skip
    assert list(tar_index.members(path)) == expected


def test_names_that_cannot_be_printed(tmp_path):
    pack(tmp_path / "a.tar", [("a\nb.jpg", b"x"), ("\udce9.jpg", b"")])
    assert [m.name for m in tar_index.members(tmp_path / "a.tar")] == ["a\\nb.jpg", "\\xe9.jpg"]


def test_sizes_in_binary(tmp_path):
    """As GNU writes those above 8 GiB; this one is small, but written so."""
    info = tarfile.TarInfo("a.jpg")
    info.size = 5
    header = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    header[124:136] = b"\x80" + (5).to_bytes(11)
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    (tmp_path / "a.tar").write_bytes(bytes(header) + b"hello" + bytes(507))
    assert list(tar_index.members(tmp_path / "a.tar")) == [("a.jpg", 512, 5)]


def fuzz(root: pathlib.Path, count: int, seed: int = 0) -> collections.Counter[str]:
    """Loads and decodes `count` damaged tars; counts what became of them."""
    path = root / "train.tar"
    kinds = [
        {"cls": cls},
        {"json": lambda i: json.dumps({"label": i % 2, "class_name": "ab"[i % 2]})},
    ]
    wholes = list[bytes]()
    for parts in kinds:
        for form in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
            pack(path, [(f"{'é' * 60}/{name}", data) for name, data in samples(0, 6, **parts)],
                 format=form)  # fmt: skip
            wholes.append(path.read_bytes().rstrip(b"\0") + bytes(1024))
    draw = random.Random(seed)
    outcomes = collections.Counter[str]()
    for _ in range(count):
        data = bytearray(draw.choice(wholes))
        at, length = draw.randrange(len(data)), draw.randint(1, 9)
        if draw.randrange(2):  # where the headers are
            at = at // 512 * 512 + draw.randrange(160)
        match draw.randrange(4):
            case 0:
                data[at : at + length] = draw.randbytes(length)
            case 1:
                del data[at : at + draw.choice([length, 512])]
            case 2:
                data[at:at] = data[at : at + draw.choice([length, 512])]
            case 3:  # the header says so itself
                data[at : at + 1] = draw.choice(
                    [b"0", b"7", b"\xff", b"\x80", b" ", b"-", b"L", b"x"]
                )
                start = at // 512 * 512
                data[start + 148 : start + 156] = b" " * 8
                total = sum(data[start : start + 512])
                data[start + 148 : start + 156] = b"%06o\0 " % total
        path.write_bytes(data)
        try:
            found, wrong = sources.scan(root, layout=draw.choice(["auto", "webdataset"]))
            for example in found.train:
                decode.decode_train(example.data, example.name, size=6)
            outcomes["refused" if wrong else "read"] += 1
        except (DataError, DecodeError) as error:
            wrong = str(error).splitlines()
            outcomes["refused"] += 1
        assert all(len(text.splitlines()) == 1 for text in wrong), wrong
    return outcomes


def test_damaged_tars_are_read_or_refused(tmp_path):
    outcomes = fuzz(tmp_path, 300)
    assert min(outcomes["read"], outcomes["refused"]) > 30


def test_texts_that_go_with_no_image_are_no_labels(tmp_path):
    images = [(f"flowers/{c}/{i}.jpg", jpeg(i)) for i in range(4) for c in ("rose", "tulip")]
    about = [("flowers/LICENSE.txt", "CC BY"), ("flowers/info.json", '{"label": 1}')]
    data = sources.load_dataset(pack(tmp_path / "flowers.tar", [*about, *images]))
    assert data.class_names == ("rose", "tulip")
    assert sum(map(len, data.splits.values())) == 8


def test_a_pointer_to_a_tar_is_called_one(tmp_path):
    (tmp_path / "train-000.tar").write_text(
        "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 12345\n"
    )
    with pytest.raises(DataError, match="it is a Git LFS pointer, not the file itself"):
        sources.load_dataset(tmp_path)
