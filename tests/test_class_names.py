"""Names for classes that are numbers, from files beside, as data sets have them."""

import json
import pathlib
import random

import pytest
from test_layout_fuzz import damaged

from clevit_jax.data import sources

NAMES = ("Blight (CBB)", "Mosaic", "Healthy")


def numbered(root: pathlib.Path, first: int = 0, folder=lambda _: "") -> pathlib.Path:
    """A table of nine images with the labels `first` to `first + 2`."""
    rows = []
    for i in range(9):
        file = f"images/{folder(i % 3)}leaf{i}.jpg"
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).touch()
        rows.append(f"{file},{i % 3 + first}\n")
    (root / "train.csv").write_text("image_id,label\n" + "".join(rows))
    return root


def of(first: int) -> dict[int, str]:
    return dict(enumerate(NAMES, start=first))


FORMS = {
    "label_num_to_disease_map.json": lambda first: json.dumps(of(first)),
    "cat_to_name.json": lambda first: json.dumps(
        {str(i): name for i, name in reversed(of(first).items())}
    ),
    "class_to_idx.json": lambda first: json.dumps({name: i for i, name in of(first).items()}),
    "classes.json": lambda first: json.dumps(list(NAMES)),
    "categories.json": lambda first: json.dumps(
        [{"id": i, "name": name, "supercategory": "x"} for i, name in of(first).items()]
    ),
    "label_map.json": lambda first: json.dumps(
        {"categories": [{"id": i, "name": name} for i, name in of(first).items()]}
    ),
    "label2id.json": lambda first: json.dumps(
        {"label2id": dict(zip(NAMES, of(first), strict=True))}
    ),
    "classes.csv": lambda first: (
        "id,name\n" + "".join(f"{i},{name}\n" for i, name in of(first).items())
    ),
    "labels.csv": lambda first: (
        "Class Name (str);Class ID (int)\n"
        + "".join(f"{name};{i}\n" for i, name in of(first).items())
    ),
    "class_map.tsv": lambda first: "".join(f"{i}\t{name}\n" for i, name in of(first).items()),
    "breeds.csv": lambda first: (
        "breed_id,count,name\n" + "".join(f"{i},7,{name}\n" for i, name in of(first).items())
    ),
    "classes.txt": lambda first: "\n".join(NAMES),
    "class_names.txt": lambda first: "\r\n".join(NAMES) + "\r\n",
    "labels.txt": lambda first: "".join(f"{i} {name}\n" for i, name in of(first).items()),
    "label_list.txt": lambda first: "".join(f"{i:03}: {name}\n" for i, name in of(first).items()),
    "label_map.txt": lambda first: "".join(f"{name},{i}\n" for i, name in of(first).items()),
    "obj.names": lambda first: "\n".join(NAMES),
    "synset_words.txt": lambda first: "".join(
        f"n0144{i:04} {name}\n" for i, name in enumerate(NAMES)
    ),
    "meta/classes.txt": lambda first: "\n".join(NAMES),
}


@pytest.mark.parametrize("first", [0, 1])
@pytest.mark.parametrize("name", FORMS)
def test_names_are_read(tmp_path, name, first):
    root = numbered(tmp_path, first)
    (root / name).parent.mkdir(exist_ok=True)
    (root / name).write_text(FORMS[name](first))
    data = sources.load_dataset(root)
    assert data.class_names == NAMES
    every = data.train + data.test
    assert sorted((e.name, e.label) for e in every) == [
        (f"images/leaf{i}.jpg", i % 3) for i in range(9)
    ]
    (warning,) = data.warnings
    assert f"the classes have their names from {name} ({first} is 'Blight (CBB)'" in warning


def test_two_files_that_agree_and_two_that_do_not(tmp_path):
    root = numbered(tmp_path)
    (root / "classes.txt").write_text("\n".join(NAMES))
    (root / "names.json").write_text(json.dumps(of(0)))
    assert sources.load_dataset(root).class_names == NAMES
    (root / "classes.txt").write_text("\n".join(reversed(NAMES)))
    data = sources.load_dataset(root)
    assert data.class_names == ("0", "1", "2")
    assert "classes.txt and names.json name the classes differently" in data.warnings[0]


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        (
            "classes.txt",
            "a\nb\nc\nd\n",
            "classes.txt lists 4 names, and the labels are from 0 to 2",
        ),
        ("names.json", '{"0": "a", "1": "b"}', "names.json does not name label 2"),
        ("names.json", '{"0": "a", "1": "b", "2": "a"}', "gives several labels one name"),
        ("names.json", '{"1": "a", "2": "b", "3": "c"}', "names.json does not name label 0"),
    ],
)
def test_numbers_stay_where_names_do_not_fit(tmp_path, name, text, said):
    root = numbered(tmp_path)
    (root / name).write_text(text)
    data = sources.load_dataset(root)
    assert data.class_names == ("0", "1", "2")
    assert said in data.warnings[0]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("label_counts.json", '{"0": 120, "1": 130, "2": 9}'),
        ("labels.txt", "0\n1\n2\n"),
        ("image_names.txt", "a.jpg\nb.jpg\nc.jpg\n"),
        ("classes.json", "{damaged"),
        ("classes.json", "[" * 5000),
        ("classes.txt", "\0\0"),
        ("classes.csv", "id,name\n"),
        ("labels.json", "[1, 2, 3]"),
        ("notes.txt", "one\ntwo\nthree\n"),
        ("classes.txt", ""),
        ("classes.txt", "x" * (1 << 21)),
    ],
)
def test_files_of_other_things(tmp_path, name, text):
    root = numbered(tmp_path)
    (root / name).write_text(text)
    data = sources.load_dataset(root)
    assert (data.class_names, data.warnings) == (("0", "1", "2"), ())


def test_names_that_are_words_stay(tmp_path):
    root = numbered(tmp_path)
    table = (root / "train.csv").read_text().replace(",0\n", ",ash\n")
    (root / "train.csv").write_text(table)
    (root / "classes.txt").write_text("\n".join(NAMES))
    assert sources.load_dataset(root).class_names == ("1", "2", "ash")


@pytest.mark.parametrize("style", ["{}/", "00.{}/"])
def test_names_that_contradict_the_folders(tmp_path, style):
    names = ["Red Oak", "White Ash", "Lime"]
    folders = [style.format(name.replace(" ", "_")) for name in names]
    root = numbered(tmp_path, folder=folders.__getitem__)
    (root / "classes.txt").write_text("\n".join(names))
    assert len(sources.load_dataset(root).warnings) == 1  # on where the names come from
    (root / "classes.txt").write_text("\n".join([names[1], names[0], names[2]]))
    data = sources.load_dataset(root)
    assert "2 classes have images in folders called as other classes" in data.warnings[1]
    assert "is of 'White Ash'" in data.warnings[1]


@pytest.mark.parametrize("name", ["cat_to_name.json", "labels.csv", "labels.txt", "classes.txt"])
def test_damaged_files_never_stop_the_reading(tmp_path, name):
    root = numbered(tmp_path)
    draw = random.Random(name)
    taken = 0
    for _ in range(100):
        content = damaged(FORMS[name](0).encode(), draw)
        (root / name).write_bytes(content)
        data = sources.load_dataset(root, layout="csv")
        assert len(set(data.class_names)) == 3, content
        assert all(len(warning.splitlines()) == 1 for warning in data.warnings), content
        taken += data.class_names != ("0", "1", "2")
    assert 0 < taken < 100


def test_a_list_of_classes_is_no_list_of_images_that_are_numbered_alike(tmp_path):
    root = tmp_path
    for i in range(6):
        (root / f"{i}.jpg").touch()
    (root / "train.csv").write_text(
        "image,label\n" + "".join(f"{i}.jpg,{i % 3}\n" for i in range(6))
    )
    (root / "labels.txt").write_text("".join(f"{i} {name}\n" for i, name in of(0).items()))
    assert sources.load_dataset(root).class_names == NAMES
