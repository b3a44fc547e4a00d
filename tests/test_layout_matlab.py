"""Stanford Dogs, Stanford Cars and Flowers-102 with labels in MATLAB files, as they are published.

The expected values are computed as the readers that go with the sets do, from the same numbers.
"""

import pathlib
import random

import numpy as np
import pytest
from scipy import io

from clevit_jax.data import sources
from clevit_jax.data.layouts.listing import Notes
from clevit_jax.data.layouts.text import mat_files
from clevit_jax.errors import DataError

MAKES = ["Audi TT RS Coupe 2012", "Ram C/V Cargo Van Minivan 2012", "smart fortwo 2012"]


def touch(root: pathlib.Path, files) -> None:
    for file in files:
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).touch()


def save(path: pathlib.Path, **variables) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    io.savemat(path, variables, do_compression=True)


def cells(texts, shape) -> np.ndarray:
    array = np.empty(len(texts), object)
    array[:] = texts
    return array.reshape(shape)


def structs(**fields) -> np.ndarray:
    """A MATLAB array of structs [1, n], numbers in it being arrays [1, 1]."""
    count = len(next(iter(fields.values())))
    array = np.zeros((1, count), [(name, object) for name in fields])
    for name, values in fields.items():
        for i, value in enumerate(values):
            array[name][0, i] = value if isinstance(value, str) else np.array([[value]], np.uint8)
    return array


def dogs(root: pathlib.Path, lists="lists") -> dict[str, list[tuple[str, int]]]:
    breeds = ["n02085620-Chihuahua", "n02085782-Japanese_spaniel", "n02085936-Maltese_dog"]
    rows = {
        split: [(f"{breed}/{breed[:9]}_{10 * i + k}.jpg", label)
                for label, breed in enumerate(breeds, start=1) for k in range(3 - i)]
        for i, split in enumerate(("train", "test"))
    }  # fmt: skip
    for split, pairs in rows.items():
        touch(root / "Images", [file for file, _ in pairs])
        save(
            root / lists / f"{split}_list.mat",
            file_list=cells([file for file, _ in pairs], (-1, 1)),
            annotation_list=cells([file[:-4] for file, _ in pairs], (-1, 1)),
            labels=np.array([[label] for _, label in pairs], float),
        )
    save(root / lists / "file_list.mat", file_list=cells(["x"], (1, 1)))
    return rows


@pytest.mark.parametrize("lists", ["lists", ""])
def test_dogs(tmp_path, lists):
    rows = dogs(tmp_path, lists)
    data = sources.load_dataset(tmp_path)
    assert (data.layout, data.warnings) == ("matlab", ())
    place = f"{lists}/" if lists else ""
    assert data.recognised_by == f"{place}train_list.mat and {place}test_list.mat"
    assert data.class_names == tuple(dict.fromkeys(f.split("/")[0] for f, _ in rows["train"]))
    for split, examples in data.splits.items():
        assert [(e.name, e.label) for e in examples] == [
            (f"Images/{file}", label - 1) for file, label in rows[split]
        ]
    assert all(e.data == tmp_path / e.name and e.data.is_file() for e in data.train)


def flowers(root: pathlib.Path) -> tuple[list[int], dict[str, list[int]]]:
    labels = [1, 1, 2, 2, 3, 3, 1, 2, 3]
    splits = {"trnid": [9, 1, 3], "valid": [2, 4, 5], "tstid": [6, 7, 8]}
    touch(root / "jpg", [f"image_{k:05}.jpg" for k in range(1, 10)])
    save(root / "imagelabels.mat", labels=np.array([labels], np.uint8))
    save(root / "setid.mat", **{name: np.array([ids]) for name, ids in splits.items()})
    return labels, splits


def test_flowers(tmp_path):
    labels, splits = flowers(tmp_path)
    data = sources.load_dataset(tmp_path)
    assert (data.layout, data.class_names, data.warnings) == ("matlab", ("1", "2", "3"), ())
    for name, examples in zip(splits, (data.train, data.val, data.test), strict=True):
        assert [(e.name, e.label) for e in examples] == [
            (f"jpg/image_{k:05}.jpg", labels[k - 1] - 1) for k in splits[name]
        ]
    (tmp_path / "setid.mat").unlink()
    data = sources.load_dataset(tmp_path)
    assert len(data.train) + len(data.test) == 9
    assert "test split: 20 % of the images" in data.recognised_by
    save(tmp_path / "setid.mat", trnid=np.array([[1, 10]]), valid=2, tstid=3)
    (found,) = problems(tmp_path)
    assert "1 numbers of images are not from 1 to 9, that of the labels, as 10" in found


def cars(root: pathlib.Path, folders="cars_{split}", devkit="devkit") -> dict[str, list[int]]:
    labels = {"train": [3, 1, 2, 1, 2, 3], "test": [2, 2, 1]}
    for split, inside in labels.items():
        names = [f"{k:05}.jpg" for k in range(1, len(inside) + 1)]
        touch(root / folders.format(split=split), names)
        boxes = {"bbox_x1": [1] * len(inside), "bbox_y2": [9] * len(inside)}
        named = structs(**boxes, **{"class": inside}, fname=names)
        if split == "test":
            save(root / devkit / "cars_test_annos.mat", annotations=structs(**boxes, fname=names))
            save(root / "cars_test_annos_withlabels.mat", annotations=named)
        else:
            save(root / devkit / "cars_train_annos.mat", annotations=named)
    save(root / devkit / "cars_meta.mat", class_names=cells(MAKES, (1, -1)))
    return labels


@pytest.mark.parametrize("folders", ["cars_{split}", "cars_{split}/cars_{split}"])
@pytest.mark.parametrize("devkit", ["devkit", "car_devkit/devkit", ""])
def test_cars(tmp_path, folders, devkit):
    """The same names in both folders: each list goes with its own."""
    labels = cars(tmp_path, folders, devkit)
    data = sources.load_dataset(tmp_path)
    assert (data.layout, data.class_names, data.warnings) == ("matlab", tuple(MAKES), ())
    for split, examples in data.splits.items():
        assert [(e.name, e.label) for e in examples] == [
            (f"{folders.format(split=split)}/{k:05}.jpg", label - 1)
            for k, label in enumerate(labels[split], start=1)
        ]


def test_cars_without_labels_of_the_test_images(tmp_path):
    cars(tmp_path)
    (tmp_path / "cars_test_annos_withlabels.mat").unlink()
    data = sources.load_dataset(tmp_path)
    (warning,) = data.warnings
    assert "cars_test_annos.mat has no labels, and its 3 images are left out" in warning
    assert all(e.name.startswith("cars_train/") for e in data.train + data.test)
    assert len(data.train) + len(data.test) == 6


def test_cars_in_one_file(tmp_path):
    labels, tests = [3, 1, 2, 1, 2], [0, 0, 0, 1, 1]
    paths = [f"car_ims/{k:06}.jpg" for k in range(1, 6)]
    touch(tmp_path, paths)
    annotations = structs(relative_im_path=paths, **{"class": labels}, test=tests)
    save(tmp_path / "cars_annos.mat", annotations=annotations, class_names=cells(MAKES, (1, -1)))
    data = sources.load_dataset(tmp_path)
    assert data.class_names == tuple(MAKES)
    for bit, examples in enumerate((data.train, data.test)):
        assert [(e.name, e.label) for e in examples] == [
            (path, label - 1)
            for path, label, test in zip(paths, labels, tests, strict=True)
            if test == bit
        ]
    (tmp_path / "car_ims").rename(tmp_path / "pictures")
    touch(tmp_path, ["cars_train/00001.jpg"])
    for path in (tmp_path / "pictures").iterdir():
        path.unlink()
    missing, hint = problems(tmp_path)[-2:]
    assert "row 5: the file 'car_ims/000005.jpg' is not in" in missing
    assert "cars_annos.mat goes with car_ims/, and not with cars_train/" in hint


def problems(root) -> tuple[str, ...]:
    with pytest.raises(DataError) as caught:
        sources.load_dataset(root)
    return caught.value.problems


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"MATLAB", "is no MATLAB file, or a damaged one (it is too short); fetch it again."),
        (b"", "is no MATLAB file, or a damaged one"),
        (b"version https://git-lfs.github.com/spec/v1\noid x\n", "run git lfs pull."),
        (b"<!DOCTYPE html><html>", "is a web page and not a MATLAB file; fetch it again."),
        (b"MATLAB 7.3 MAT-file".ljust(124) + b"\0\2IM" + bytes(400), "is of MATLAB 7.3 (HDF5)"),
        (None, "holds no file_list and no labels; fetch it again."),
    ],
)  # fmt: skip
def test_a_file_that_cannot_be_read_is_one_sentence(tmp_path, content, said):
    dogs(tmp_path)
    path = tmp_path / "lists" / "train_list.mat"
    if content is None:
        save(path, other=1)
    else:
        path.write_bytes(content)
    (found,) = problems(tmp_path)
    assert found.startswith(f"{path} ")
    assert said in found


def test_what_is_wrong_in_a_file_is_named(tmp_path):
    rows = dogs(tmp_path)
    path = tmp_path / "lists" / "train_list.mat"
    files = [file for file, _ in rows["train"]]
    save(path, file_list=cells(files, (-1, 1)), labels=np.ones((3, 1)))
    assert problems(tmp_path) == (f"{path} has 9 files, but 3 labels; fetch it again.",)
    labels = np.array([[label] for _, label in rows["train"]], float)
    labels[4] = np.nan
    save(path, file_list=cells(files, (-1, 1)), labels=labels)
    (found,) = problems(tmp_path)
    assert found == (f"{path}, row 5: the file or the label cannot be read; fetch the file again.")
    for file in files[:6]:
        (tmp_path / "Images" / file).unlink()
    labels[4] = 2
    save(path, file_list=cells(files, (-1, 1)), labels=labels)
    with pytest.raises(DataError, match=r"train_list\.mat: 6 of 9 files are not there \('n0208"):
        sources.load_dataset(tmp_path)
    save(path, file_list=cells([f"../{file}" for file in files], (-1, 1)), labels=labels)
    assert "points out of" in problems(tmp_path)[0]
    cars(tmp_path / "cars")
    save(tmp_path / "cars/devkit/cars_meta.mat", class_names=cells(MAKES[:2], (1, -1)))
    (found,) = problems(tmp_path / "cars")
    assert "cars_meta.mat names 2 classes, and not that of the label 3; fetch it again." in found


@pytest.mark.parametrize("compressed", [True, False])
def test_values_are_those_that_scipy_reads(tmp_path, compressed):
    """SciPy's reader is the reference; it is not used, for a damaged file ends its process."""
    numbers = {
        "u1": np.arange(6, dtype=np.uint8).reshape(2, 3),
        "i2": np.array([[-3, 300]], np.int16),
        "f8": np.array([[1.5, np.nan, -0.25]]),
        "f4": np.ones((3, 1), np.float32),
        "i8": np.array([[1 << 60]]),
        "none": np.zeros((0, 0)),
    }
    names = ["", "Anjou", "é, 梨 🍐", "x" * 50]
    path = tmp_path / "x.mat"
    variables = {
        **numbers,
        "texts": cells(names, (2, 2)),
        "rows": np.array(["ab", "cde"]),
        "one": "a",
        "nested": cells([cells(["a"], (1, 1)), 3], (1, 2)),
        "structs": structs(a=[1, 2], b=["x", "y"]),
    }
    io.savemat(path, variables, do_compression=compressed)
    notes = Notes([], [])
    found = mat_files.load(path, [*variables, "gone"], notes)
    assert (found.keys(), notes.problems) == (variables.keys(), [])
    theirs = io.loadmat(path)
    for name in numbers:
        np.testing.assert_array_equal(found[name], theirs[name].ravel(order="F"))
    assert mat_files.numbers(found["f8"]) == [None, None, None]
    flat = [str(x[0]) if x.size else "" for x in theirs["texts"].ravel(order="F")]
    assert [x or "" for x in mat_files.texts(found["texts"])] == flat
    assert sorted(flat) == sorted(names)
    assert found["rows"] == [row.rstrip() for row in theirs["rows"]]
    assert mat_files.texts(found["one"]) == ["a"]
    assert found["nested"] == [["a"], [3]]
    assert mat_files.texts(found["structs"]["b"]) == [str(x[0]) for x in theirs["structs"]["b"][0]]
    assert mat_files.numbers(found["structs"]["a"]) == [1, 2]
    assert mat_files.load(path, ["one"], notes) == {"one": "a"}


def fuzz(root: pathlib.Path, count: int, seed: int = 0) -> tuple[int, int]:
    """Loads `count` sets with a damaged MATLAB file; how many were read, and how many refused."""
    dogs(root / "dogs")
    flowers(root / "flowers")
    cars(root / "cars")
    paths = sorted(root.rglob("*.mat"))
    contents = {path: path.read_bytes() for path in paths}
    plain = {}
    for path in paths:  # damage within what is compressed is found by its check sum
        variables = {k: v for k, v in io.loadmat(path).items() if not k.startswith("__")}
        io.savemat(path, variables)
        plain[path] = path.read_bytes()
        path.write_bytes(contents[path])
    draw = random.Random(seed)
    read = 0
    for _ in range(count):
        path = draw.choice(paths)
        content = bytearray(draw.choice((contents, plain))[path])
        for _ in range(draw.randint(1, 4)):
            place = draw.randrange(len(content)) if content else 0
            match draw.randrange(4):
                case 0 if content:
                    content[place] ^= 1 << draw.randrange(8)
                case 1:
                    del content[place:]
                case 2:
                    content[place:place] = draw.randbytes(draw.randint(1, 8))
                case _:
                    content[place : place + 4] = draw.choice(
                        (b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x0e\0\0\0", b"\0\0\0\x7f")
                    )
        path.write_bytes(content)
        data, found = sources.scan(root / path.relative_to(root).parts[0], layout="matlab")
        for problem in found:
            assert len(problem.splitlines()) == 1, (bytes(content), problem)
            assert problem.endswith("."), problem
        if not found:
            read += 1
            examples = data.train + data.val + data.test
            assert all(example.data.is_file() for example in examples)
            assert {example.label for example in data.train} == set(range(data.num_classes))
        path.write_bytes(contents[path])
    return read, count - read


def test_damaged_files_are_read_or_refused(tmp_path):
    read, refused = fuzz(tmp_path, 300)
    assert read > 6
    assert refused > 60
