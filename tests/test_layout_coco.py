"""Lists in JSON: COCO, iNaturalist, Herbarium, Roboflow, and simpler ones; SQLite joins anew."""

import json
import pathlib
import sqlite3

import pytest

from clevit_jax.data import sources
from clevit_jax.data.layouts.listing import Request
from clevit_jax.errors import DataError

NAMES = ("Acer rubrum", "Acer saccharum", "Quercus alba")
GENERA = ("Acer", "Acer", "Quercus")


def make(root: pathlib.Path, lists: dict, images: list[str]) -> pathlib.Path:
    for name, content in lists.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        text = content if isinstance(content, str) else json.dumps(content)
        (root / name).write_text(text, encoding="utf-8")
    for name in images:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def coco(names: list[str], labels: list[int], **more) -> dict:
    """A list of images with labels from 3, in the manner of iNaturalist."""
    return {
        "info": {"year": 2018},
        "images": [
            {"id": 70 - i, "file_name": name, "license": 0, "width": float("nan")}
            for i, name in enumerate(names)
        ],
        "annotations": [
            {"id": i, "image_id": 70 - i, "category_id": 3 + label}
            for i, label in enumerate(labels)
        ],
        "categories": [
            {"id": 3 + i, "name": name, "genus": genus, "family": f"{genus} family",
             "kingdom": "Plantae", "supercategory": "Plants"}
            for i, (name, genus) in enumerate(zip(NAMES, GENERA, strict=True))
        ],
    } | more  # fmt: skip


def listed(data, examples) -> list[tuple[str, str]]:
    return [(example.name, data.class_names[example.label]) for example in examples]


def joined(content: dict, folder: str) -> list[tuple[str, str]]:
    """(file, category) by SQLite."""
    base = sqlite3.connect(":memory:")
    for table, fields in (
        ("images", ("id", "file_name")),
        ("annotations", ("image_id", "category_id")),
        ("categories", ("id", "name")),
    ):
        base.execute(f"create table {table} ({', '.join(fields)})")
        rows = [tuple(one[field] for field in fields) for one in content[table]]
        base.executemany(f"insert into {table} values (?, ?)", rows)
    query = """select file_name, name from images join annotations on images.id = image_id
               join categories on categories.id = category_id order by images.rowid"""
    return [(folder + file, name) for file, name in base.execute(query)]


def problems(root, **options) -> tuple[str, ...]:
    with pytest.raises(DataError) as caught:
        sources.load_dataset(root, **options)
    return caught.value.problems


TRAIN, VAL = [f"train/{i}.jpg" for i in range(6)], [f"train/{i}.jpg" for i in range(6, 9)]


@pytest.mark.parametrize(
    ("train", "val", "folder"),
    [
        ("train2018.json", "val2018.json", ""),
        ("train.json", "val.json", "images/"),
        ("annotations/instances_train2017.json", "annotations/instances_val2017.json", "x/y/"),
        ("meta/train_metadata.json", "meta/val_metadata.json", "meta/"),
    ],
)
def test_lists_by_split(tmp_path, train, val, folder):
    lists = {train: coco(TRAIN, [0, 1, 2] * 2), val: coco(VAL, [0, 1, 2])}
    data = sources.load_dataset(make(tmp_path, lists, [folder + name for name in TRAIN + VAL]))
    assert (data.layout, data.recognised_by) == ("coco", f"{train}, {val}")
    assert data.class_names == NAMES
    assert listed(data, data.train) == joined(lists[train], folder)
    assert listed(data, data.test) == joined(lists[val], folder)
    assert all(example.data.is_file() for example in data.train)
    assert [tuple(level) for level in data.levels] == [
        ("family", tuple(f"{g} family" for g in GENERA))
    ]
    said = "6 file(s) are not where it says, and are read in 'x/y/' ('train/0.jpg' is"
    assert any(said in warning for warning in data.warnings) == (folder == "x/y/")


def test_herbarium_with_its_own_ids_and_a_test_list_without_annotations(tmp_path):
    train = {
        "annotations": [
            {"image_id": f"0000{i}", "category_id": i % 2, "genus_id": 1} for i in range(4)
        ],
        "images": [
            {"image_id": f"0000{i}", "file_name": f"000/{i}.jpg", "license": 1} for i in range(4)
        ],
        "categories": [
            {"category_id": i, "scientificName": name, "genus": "Acer", "authors": "L."}
            for i, name in enumerate(NAMES[:2])
        ],
        "distances": [{"genus_id_x": 0, "distance": float("nan")}],
    }  # fmt: skip
    test = [{"image_id": "0", "file_name": "000/t.jpg", "license": 1}]
    lists = {"train_metadata.json": train, "test_metadata.json": test}
    images = [f"train_images/000/{i}.jpg" for i in range(4)] + ["test_images/000/t.jpg"]
    data = sources.load_dataset(make(tmp_path, lists, images))
    assert (data.layout, data.class_names) == ("coco", NAMES[:2])
    assert "; the folders alone do not tell the classes" in data.recognised_by
    assert sorted(listed(data, data.train + data.test)) == [
        (f"train_images/000/{i}.jpg", NAMES[i % 2]) for i in range(4)
    ]
    assert f"{tmp_path}/test_metadata.json has no annotations, and is not read." in data.warnings
    assert data.levels == ()  # one genus


def test_roboflow_has_a_list_beside_the_images_of_each_split(tmp_path):
    lists, images = {}, []
    for split, count in (("train", 6), ("valid", 3), ("test", 3)):
        names = [f"{i}.jpg" for i in range(count)]  # the same names in each split
        content = coco(names, [0, 1, 2] * (count // 3))
        for category in content["categories"]:
            category["supercategory"] = "leaves"
        content["categories"].insert(0, {"id": 0, "name": "leaves", "supercategory": "none"})
        content["annotations"] += content["annotations"][:2]  # a second box of the same category
        lists[f"{split}/_annotations.coco.json"] = content
        images += [f"{split}/{name}" for name in names]
    data = sources.load_dataset(make(tmp_path, lists, images))
    assert (data.layout, data.class_names, data.warnings) == ("coco", NAMES, ())
    for split, examples in (("train", data.train), ("valid", data.val), ("test", data.test)):
        assert listed(data, examples) == [
            (f"{split}/{i}.jpg", NAMES[i % 3]) for i in range(len(examples))
        ]
    assert [len(data.train), len(data.val), len(data.test)] == [6, 3, 3]


def test_one_list_whose_images_lie_in_folders_of_splits(tmp_path):
    names = TRAIN + [f"test/{i}.jpg" for i in range(3)]
    root = make(tmp_path, {"all.json": coco(names, [0, 1, 2] * 3)}, names)
    data = sources.load_dataset(root)
    assert [e.name for e in data.train] == TRAIN
    assert [e.name for e in data.test] == names[6:]


def test_categories_of_one_name_are_told_apart(tmp_path):
    content = coco(TRAIN, [0, 1, 2] * 2)
    for category, order in zip(content["categories"], ("A", "B", "C"), strict=True):
        category |= {"name": "alba", "order": order}
    root = make(tmp_path, {"train.json": content}, TRAIN)
    assert sources.load_dataset(root).class_names == ("alba (A)", "alba (B)", "alba (C)")
    for category in content["categories"]:
        category.clear()
        category |= {"id": 3, "name": "alba"}
    content["categories"][1]["id"], content["categories"][2]["id"] = 4, 5
    make(tmp_path, {"train.json": content}, [])
    assert sources.load_dataset(root).class_names == ("alba (3)", "alba (4)", "alba (5)")


def test_levels_are_sorted_and_those_that_say_nothing_new_are_left_out(tmp_path):
    names = [f"{i}.jpg" for i in range(8)]
    content = coco(
        names, [0] * 8, annotations=[{"image_id": 70 - i, "category_id": i // 2} for i in range(8)]
    )
    content["categories"] = [
        {"id": i, "name": f"s{i}", "genus": f"g{min(i, 2)}", "supercategory": "ab"[i // 2],
         "family": "ab"[i // 2], "order": f"o{i}"}
        for i in range(4)
    ]  # fmt: skip
    data = sources.load_dataset(make(tmp_path, {"train.json": content}, names))
    assert [tuple(level) for level in data.levels] == [
        ("supercategory", tuple("aabb")),
        ("genus", ("g0", "g1", "g2", "g2")),
    ]


def test_images_without_annotations_are_left_out_and_counted(tmp_path):
    root = make(tmp_path, {"train.json": coco(TRAIN, [0, 1, 2, 0])}, TRAIN)
    data = sources.load_dataset(root)
    assert len(data.train + data.test) == 4
    assert data.warnings == (
        f"{root}/train.json: 2 of its 6 images have no annotation and are not read "
        "(train/4.jpg, train/5.jpg).",
    )
    make(root, {"train.json": coco(TRAIN, [0, 1] * 3)}, [])
    assert sources.load_dataset(root).warnings == (
        f"{root}: 1 categories of the lists have no training image, and are no classes "
        "(Quercus alba).",
    )


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('{"annotations": [], "images": [], "categories": []}',
         "has an empty list of 'images' and 'annotations', so no class; copy the whole file"),
        ('{"images": [', "is not whole JSON (Expecting value: line 1 column 13 (char 12)); copy"),
        ("[" * 100_000 + '{"file_name"', "no known layout"),
        (coco(TRAIN, [0] * 6, annotations=[{"image_id": 70, "category_id": c} for c in (3, 4)]),
         ": 1 of its 6 images have annotations of several categories (train/0.jpg), so no one"),
        (coco(TRAIN, [0] * 6, annotations=[{"image_id": 7, "category_id": 3}]),
         ": 1 images that annotations name are not in its list of images (7)."),
        (coco(TRAIN, [0] * 6, annotations=[{"image_id": 70, "category_id": 9}]),
         ": 1 categories of its annotations are not in its list of categories (9)."),
        (coco(TRAIN, [0] * 6, annotations=[{"category_id": 3}]),
         ": 1 of its 1 annotations have no image_id or no category_id."),
        (coco(TRAIN, [0] * 6, annotations="x"), ": 'annotations' is no list of objects; copy"),
        (coco([*TRAIN[:-1], "../gone.jpg"], [0, 1, 2] * 2),
         ": the file '../gone.jpg' is not below the data set's folder."),
    ],
)  # fmt: skip
def test_what_is_wrong_is_one_sentence(tmp_path, content, said):
    (found,) = problems(make(tmp_path, {"train.json": content}, TRAIN))
    assert said in found
    assert len(found.splitlines()) == 1


def test_thousands_of_missing_files_are_one_sentence(tmp_path):
    names = [f"{i}.jpg" for i in range(2000)]
    root = make(tmp_path, {"train.json": coco(names, [0, 1] * 1000)}, names[:2])
    with pytest.raises(DataError) as caught:
        sources.load_dataset(root)
    assert str(caught.value) == (
        f"{root}/train.json: 1,998 of the files that it names are not below the data set's folder "
        "('2.jpg', '3.jpg', '4.jpg', ...)."
    )


@pytest.mark.parametrize(
    "prefix", ["/kaggle/input/leaves/", "C:\\data\\leaves\\", "../input/leaves/", "leaves/"]
)
def test_names_of_another_machine(tmp_path, prefix):
    names = [prefix + name for name in TRAIN]
    root = make(tmp_path, {"train.json": coco(names, [0, 1, 2] * 2)}, [f"jpeg/{n}" for n in TRAIN])
    data = sources.load_dataset(root)
    assert sorted(e.name for e in data.train + data.test) == sorted(f"jpeg/{n}" for n in TRAIN)
    (warning,) = [each for each in data.warnings if "train.json: 6 file(s) are not where" in each]
    assert "left out, in 'jpeg/' (" in warning


def test_files_that_may_be_any_of_two_are_asked_about(tmp_path):
    images = [f"{place}/{i}.jpg" for place in ("left", "right") for i in range(6)]
    names = [f"{i}.jpg" for i in range(6)]
    with pytest.raises(DataError) as caught:
        sources.load_dataset(make(tmp_path, {"all.json": coco(names, [0, 1, 2] * 2)}, images))
    assert str(caught.value) == (
        f"{tmp_path}/all.json: of 6 of the files that it names there are several of the name, and "
        "none lies where it says; write their folders before the names ('0.jpg', '1.jpg', '2.jpg', "
        "...)."
    )


def test_files_of_another_ending(tmp_path):
    names = [f"{i}.PNG" for i in range(6)]
    root = make(tmp_path, {"all.json": coco(names, [0, 1, 2] * 2)}, [f"{i}.jpg" for i in range(6)])
    data = sources.load_dataset(root)
    assert {example.name for example in data.train + data.test} == {f"{i}.jpg" for i in range(6)}
    assert "6 file(s) are not where it says, and are read with the ending .jpg" in data.warnings[0]


def test_lists_of_one_split_are_asked_about_and_others_left_out(tmp_path):
    content = coco(TRAIN, [0, 1, 2] * 2)
    root = make(tmp_path, {"train.json": content, "all.json": content}, TRAIN)
    data = sources.load_dataset(root)
    assert "'all.json' not read, for the name tells no split" in data.warnings[0]
    make(root, {"annotations/train.json": content}, [])
    (found,) = problems(root)
    assert "'train.json', 'annotations/train.json' may each be the list of the train split" in found
    (root / "annotations/train.json").unlink()
    (root / "train.json").rename(root / "val.json")
    assert sources.load_dataset(root, layout="coco").train  # all and val


SIMPLE = {
    "map": {f"{i}.jpg": NAMES[i % 3] for i in range(9)},
    "numbers": {f"{i}.jpg": 4 + i % 3 for i in range(9)},
    "classes": {name: [f"{i}.jpg" for i in range(9) if NAMES[i % 3] == name] for name in NAMES},
    "records": [{"image": f"{i}.jpg", "label": NAMES[i % 3], "box": [1, 2]} for i in range(9)],
    "images": {"images": [{"file_name": f"{i}.jpg", "label": NAMES[i % 3]} for i in range(9)]},
    "no ending": [{"image_id": i, "class_id": float(i % 3), "class_name": NAMES[i % 3]}
                  for i in range(9)],
    "lists": [[f"{i}.jpg", i % 3, NAMES[i % 3]] for i in range(9)],
    "split": [{"path": f"{i}.jpg", "species": NAMES[i % 3], "split": "train"} for i in range(9)],
}  # fmt: skip


@pytest.mark.parametrize("form", SIMPLE)
def test_simpler_lists(tmp_path, form):
    images = [f"images/{i}.jpg" for i in range(9)]
    root = make(tmp_path, {"labels.json": SIMPLE[form]}, images)
    data = sources.load_dataset(root)
    assert data.layout == "coco"
    names = ("4", "5", "6") if form == "numbers" else NAMES
    assert data.class_names == names
    assert sorted(listed(data, data.train + data.test)) == [
        (image, names[i % 3]) for i, image in enumerate(images)
    ]


@pytest.mark.parametrize(
    "rows",
    [
        lambda names, labels: [[n, k, NAMES[k]] for n, k in zip(names, labels, strict=True)],
        lambda names, labels: [[k, n] for n, k in zip(names, labels, strict=True)],
        lambda names, labels: dict(zip(names, labels, strict=True)),
        lambda names, labels: [
            {"image": n, "label": k} for n, k in zip(names, labels, strict=True)
        ],
    ],
)
def test_splits_in_one_list(tmp_path, rows):
    """As CoOp's split_zhou_OxfordPets.json has them."""
    content = {"test": rows(["a.jpg", "b.jpg", "c.jpg"], [2, 1, 0]),
               "train": rows([f"{i}.jpg" for i in range(6)], [0, 1, 2] * 2),
               "val": rows(["d.jpg"], [1])}  # fmt: skip
    images = [f"images/{name}.jpg" for name in (*range(6), *"abcd")]
    data = sources.load_dataset(make(tmp_path, {"split_zhou_Pets.json": content}, images))
    assert data.class_names in (NAMES, ("0", "1", "2"))
    assert [(e.name, e.label) for e in data.train] == [(f"images/{i}.jpg", i % 3) for i in range(6)]
    assert [(e.name, e.label) for e in data.test] == [
        ("images/a.jpg", 2), ("images/b.jpg", 1), ("images/c.jpg", 0)
    ]  # fmt: skip
    assert [(e.name, e.label) for e in data.val] == [("images/d.jpg", 1)]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"train": [["0.jpg", "a", "b"]]}, "1 of its 1 entries are no objects with a file and a"),
        ({"0.jpg": ["a", "b"], "1.jpg": {"x": 1}}, "2 of its 2 entries have no label that is o"),
        ({"0.jpg": None}, "1 of its 1 entries have no label that is one number or one text"),
        ([{"file": "0.jpg", "caption": "x"}], "no column is known to hold the label, of 'file',"),
        ([{"file": "0.jpg", "label": ""}, {"file": "0.jpg", "label": 1}], "image 0: the label is"),
        ([{"file": "0.jpg", "label": 1}, 3], "1 of its 2 entries are no objects with a file"),
        (
            [{"file": "0.jpg", "label": 1, "split": "x"}],
            "the column 'split' holds 'x' in 1 row, and not",
        ),
        ({"0.jpg": 1, "images/0.jpg": 2}, "'images/0.jpg' has label '2' here but label '1' at"),
    ],
)
def test_simpler_lists_that_are_wrong(tmp_path, content, said):
    root = make(tmp_path, {"labels.json": content}, ["images/0.jpg"])
    assert any(said in problem for problem in problems(root))


def test_other_json_is_no_list(tmp_path):
    others = {"cat_to_name.json": {"1": "rose"}, "config.json": {"lr": 1}, "list.json": [1, 2],
              "names.json": ["a", "b"], "x.json": "\0\xff",
              "people.json": [{"name": "x"}]}  # fmt: skip
    root = make(
        tmp_path, others, ["train/a/0.jpg", "train/b/0.jpg", "test/a/1.jpg", "test/b/1.jpg"]
    )
    assert sources.load_dataset(root).layout == "folders"
    (found,) = problems(root, layout="coco")
    assert "holds no list of images in JSON; looked for *.json with images" in found


def test_a_list_that_says_the_same_as_the_folders(tmp_path):
    names = [f"train/{name}/{i}.jpg" for name in NAMES for i in range(2)]
    root = make(tmp_path, {"train.json": coco(names, [0, 0, 1, 1, 2, 2])}, names)
    data = sources.load_dataset(root)
    assert (data.layout, len(data.levels)) == ("coco", 1)
    assert "the layout folders (train/<class>/) says the same" in data.recognised_by
    request = Request(num_classes=4)
    assert "has 3 classes, but num_classes = 4" in problems(root, request=request)[0]


@pytest.mark.parametrize(
    "content",
    [
        {f"{i}.jpg": [NAMES[i % 3]] for i in range(6)},
        {f"{i}.jpg": {"label": NAMES[i % 3], "size": i} for i in range(6)},
        {
            "train": [[f"{i}.jpg", i % 3, NAMES[i % 3]] for i in range(3)],
            "val": [],
            "test": [[f"{i}.jpg", i % 3, NAMES[i % 3]] for i in range(3, 6)],
        },
    ],
)
def test_labels_in_lists_and_objects_and_a_split_that_is_empty(tmp_path, content):
    root = make(tmp_path, {"labels.json": content}, [f"images/{i}.jpg" for i in range(6)])
    data = sources.load_dataset(root)
    every = listed(data, data.train) + listed(data, data.splits["test"])
    assert sorted(every) == [(f"images/{i}.jpg", NAMES[i % 3]) for i in range(6)]
    if "val" in content:
        assert [e.name for e in data.splits["test"]] == [f"images/{i}.jpg" for i in range(3, 6)]


def test_json_lines_under_the_name_of_json(tmp_path):
    rows = [{"file_name": f"images/{i}.jpg", "label": NAMES[i % 3]} for i in range(6)]
    text = "".join(f"{json.dumps(row)}\n" for row in rows)
    root = make(tmp_path, {"train.json": text}, [row["file_name"] for row in rows])
    data = sources.load_dataset(root)
    every = listed(data, data.train) + listed(data, data.splits["test"])
    assert sorted(every) == [(row["file_name"], row["label"]) for row in rows]
    (root / "train.json").write_text(text + '{"file_name": "x')
    assert "is not whole JSON" in problems(root)[0]
