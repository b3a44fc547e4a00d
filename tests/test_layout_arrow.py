"""Data sets that `save_to_disk` wrote (tests/golden/arrow), and damaged ones."""

import concurrent.futures
import io
import json
import pathlib
import shutil

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from clevit_jax.data import decode, sources
from clevit_jax.data.layouts.listing import Request
from clevit_jax.errors import DataError, DecodeError

GOLDEN = pathlib.Path(__file__).parent / "golden/arrow"


def pixels(number: int) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 256, (6, 6, 3), np.uint8)


def png(number: int) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels(number)).save(stream, "png")
    return stream.getvalue()


def write(path: pathlib.Path, columns: dict, *, rows: int = 2, form=pa.ipc.new_stream, **options):
    """Writes an Arrow file in batches of some rows, and returns its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.table(columns)
    with form(str(path), table.schema, options=pa.ipc.IpcWriteOptions(**options)) as writer:
        writer.write_table(table, rows)
    return path.parent


def saved(root: pathlib.Path, split: str, columns: dict, **options) -> None:
    write(root / split / "data-00000-of-00001.arrow", columns, **options)
    state = {"_data_files": [{"filename": "data-00000-of-00001.arrow"}], "_split": split}
    (root / split / "state.json").write_text(json.dumps(state))


def problems(root, **options) -> tuple[str, ...]:
    with pytest.raises(DataError) as caught:
        sources.load_dataset(root, **options)
    return caught.value.problems


def listed(data, examples) -> list[tuple[str, str]]:
    return [(example.name, data.class_names[example.label]) for example in examples]


IMAGES = [{"bytes": png(i), "path": f"{i}.png"} for i in range(6)]
SIX = {"image": IMAGES, "label": ["ash", "oak"] * 3}


def test_a_dict_that_datasets_wrote():
    data = sources.load_dataset(GOLDEN / "dict")
    assert (data.layout, data.class_names, data.warnings) == ("arrow", ("ash", "oak"), ())
    assert data.recognised_by == "test/data-00000-of-00001.arrow and 3 more"
    names = [[example.name for example in examples] for examples in data.splits.values()]
    assert names == [[f"{i}.png" for i in range(5)], ["5.png"], ["6.png", "7.png"]]
    for number, example in enumerate((*data.train, *data.val, *data.test)):
        assert example.label == number % 2
        decoded = decode.decode_train(example.data, example.name, size=6)
        np.testing.assert_array_equal(decoded, pixels(number))
    assert str(data.train[4].data) == f"{GOLDEN}/dict/train/data-00001-of-00002.arrow, row 1"


def test_a_single_data_set_that_datasets_wrote():
    data = sources.load_dataset(GOLDEN / "one")
    assert sorted(listed(data, data.train + data.test)) == [
        (f"{i}.png", ("ash", "oak")[i % 2]) for i in range(5)
    ]


@pytest.mark.parametrize("form", [pa.ipc.new_stream, pa.ipc.new_file])
@pytest.mark.parametrize("kind", [pa.binary(), pa.large_binary()])
@pytest.mark.parametrize("rows", [1, 4, 100])
def test_any_form_by_several_threads(tmp_path, form, kind, rows):
    encoded = [f"image {i} ".encode() * (i % 7) for i in range(200)]
    columns = {
        "img": pa.array(encoded, kind),
        "class": pa.array(["ash", "oak"] * 100).dictionary_encode(),
        "split": ["train"] * 150 + ["test"] * 50,
    }
    data = sources.load_dataset(write(tmp_path / "all.arrow", columns, rows=rows, form=form))
    stored = [example.data for example in data.train + data.test]
    order = np.random.default_rng(0).permutation(200)
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        read = list(pool.map(lambda i: stored[i].read(), order))
    assert read == [encoded[i] for i in order]
    assert data.train[3].name == "all.arrow/3"
    assert listed(data, data.test)[0][1] == "ash"


def test_files_of_the_cache_and_names_of_splits(tmp_path):
    for split in ("train", "test"):
        write(tmp_path / f"leaves-{split}.arrow", SIX)
    write(tmp_path / "cache-0123.arrow", {"other": [1]})
    data = sources.load_dataset(tmp_path)
    assert [len(data.train), len(data.test)] == [6, 6]


def test_splits_of_other_names_are_said(tmp_path):
    for split in ("train", "test", "unsupervised"):
        saved(tmp_path, split, SIX)
    (warning, *_) = sources.load_dataset(tmp_path).warnings
    assert "unsupervised not read, for the name tells no split" in warning
    shutil.rmtree(tmp_path / "train")
    shutil.rmtree(tmp_path / "test")
    assert len(sources.load_dataset(tmp_path).train) == 5  # alone, it is all of it


def test_images_that_are_files(tmp_path):
    """Without bytes, as `Image(decode=False)` of a folder may be saved."""
    columns = SIX | {"image": [{"bytes": None, "path": f"/data/leaves/{i}.png"} for i in range(6)]}
    kind = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    saved(tmp_path, "train", columns | {"image": pa.array(columns["image"], kind)})
    assert "'/data/leaves/0.png' is not below the data set's folder" in problems(tmp_path)[0]
    (tmp_path / "leaves").mkdir()
    for i in range(6):
        (tmp_path / f"leaves/{i}.png").write_bytes(png(i))
    data = sources.load_dataset(tmp_path)
    assert sorted(e.name for e in data.train + data.test) == [f"leaves/{i}.png" for i in range(6)]
    assert "6 file(s) are not where it says, and are read with '/data/' left" in data.warnings[0]


@pytest.mark.parametrize("image", [None, {"bytes": None, "path": None}])
def test_a_row_without_an_image_is_named(tmp_path, image):
    saved(tmp_path, "train", SIX | {"image": [*IMAGES[:5], image]})
    (found,) = problems(tmp_path)
    assert found.endswith("arrow, row 5: there is no image, and no file is named.")


@pytest.mark.parametrize(
    ("columns", "options", "said"),
    [
        ({"label": [1, None] * 3}, {}, "row 1: there is no label; add one, or remove the row."),
        ({"split": ["train", "x"] * 3}, {}, "row 1: the split 'x' is not train, val or test"),
        ({}, {"compression": "zstd"}, "arrow: it is compressed; save it without compression."),
        (
            {"image": pa.array([b""] * 6, pa.binary_view())},
            {},
            "arrow: the images are binary views;",
        ),
        ({"image": [[one] for one in IMAGES]}, {}, "each row of the column 'image' holds several"),
        ({"image": [1] * 6}, {}, "no column holds encoded images"),
        ({"label": [[1]] * 6}, {}, "no column is known to hold the label, of 'image', 'label'"),
    ],
)
def test_what_is_wrong_is_named(tmp_path, columns, options, said):
    saved(tmp_path, "train", SIX | columns, **options)
    assert said in problems(tmp_path)[0]


def test_missing_and_torn_files_are_named(tmp_path):
    saved(tmp_path, "train", SIX)
    path = tmp_path / "train/data-00000-of-00001.arrow"
    whole = path.read_bytes()
    for torn in (b"", b"ARROW1\0\0", whole[:100], whole[: len(whole) // 2]):
        path.write_bytes(torn)
        (found,) = problems(tmp_path)
        assert found.startswith(f"{path} is not a whole Arrow file (")
    path.unlink()
    (found,) = problems(tmp_path, layout="arrow")
    assert "lists 1 files that are not there (data-00000-of-00001.arrow); copy them again." in found
    saved(
        tmp_path, "train", {"image": pa.array([], pa.binary()), "label": pa.array([], pa.int64())}
    )
    assert problems(tmp_path)[0].endswith("lists no image.")
    assert "holds no Arrow file; looked for" in problems(tmp_path / "train/..", layout="parquet")[
        0
    ].replace("Parquet", "Arrow")


def test_a_file_that_is_cut_off_later(tmp_path):
    saved(tmp_path, "train", SIX)
    data = sources.load_dataset(tmp_path)
    path = tmp_path / "train/data-00000-of-00001.arrow"
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(DecodeError, match="row 4 cannot be decoded: the file ends within it"):
        decode.decode_train(
            next(e.data for e in data.train + data.test if e.name == "4.png"), size=6
        )


def test_other_columns(tmp_path):
    saved(tmp_path, "train", SIX | {"kind": ["x", "y", "z"] * 2})
    assert sources.load_dataset(tmp_path, request=Request(label_column="kind")).class_names == (
        "x", "y", "z"
    )  # fmt: skip


def mutated(whole: bytes, rng: np.random.Generator) -> bytes:
    """The file after one accident."""
    data = bytearray(whole)
    at, length = rng.integers(len(data)), int(rng.integers(1, 9))
    match rng.integers(3):
        case 0:
            data[at : at + length] = rng.bytes(length)
        case 1:
            del data[at : at + length]
        case 2:
            data[at:at] = data[at : at + length]
    return bytes(data)


def fuzz(root: pathlib.Path, count: int, seed: int = 0) -> tuple[int, int]:
    """Loads and decodes `count` damaged sets; returns how many were read and how many refused."""
    saved(root, "train", SIX | {"split": ["train", "test"] * 3, "label": [0, 0, 1] * 2}, rows=4)
    path = root / "train/data-00000-of-00001.arrow"
    path.rename(root / "all.arrow")
    shutil.rmtree(root / "train")
    whole = (root / "all.arrow").read_bytes()
    rng = np.random.default_rng(seed)
    read = 0
    for _ in range(count):
        (root / "all.arrow").write_bytes(mutated(whole, rng))
        try:
            for example in sources.load_dataset(root, layout="arrow").train:
                decode.decode_train(example.data, example.name, size=6)
            read += 1
        except (DataError, DecodeError):
            pass
    return read, count - read


def test_mutated_files_are_read_or_refused(tmp_path):
    """No traceback, and no end of the process, whatever bytes are changed, left out or repeated."""
    assert min(fuzz(tmp_path, 300)) > 30
