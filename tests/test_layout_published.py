"""Fine-grained sets in the forms that they are published in, each made of a few empty files.

Expected are the pairs that the files were made from; what a form has been told apart by is in
docs/data.md.
"""

import json

import pytest
from test_layout_lists import lines, make, problems, read, told

from clevit_jax.data import sources
from clevit_jax.data.dataset import Level

FLOWERS = ("daisy", "rose", "tulip")
FIFTEEN = [f"{FLOWERS[k % 3]}/{k}.jpg" for k in range(15)]


def pairs(data) -> dict[str, list[tuple[str, str]]]:
    return {split: told(examples, data) for split, examples in data.splits.items()}


def by_folder(files, base="") -> list[tuple[str, str]]:
    return [(base + file, file.split("/")[0]) for file in files]


# JSON


def test_plantnet_names_images_by_their_keys(tmp_path):
    ids = ("1355868", "1355920")
    images = {
        f"{chr(97 + i)}{c}": (split, c)
        for i, split in enumerate(("train", "train", "val", "test"))
        for c in range(2)
    }
    meta = {
        key: {"species_id": ids[c], "obs_id": "1", "organ": "leaf", "split": split}
        for key, (split, c) in images.items()
    }
    texts = {
        "plantnet300K_metadata.json": json.dumps(meta),
        "plantnet300K_species_id_2_name.json": json.dumps({ids[0]: "Lactuca", ids[1]: "Acacia"}),
    }
    files = {key: f"images/{split}/{ids[c]}/{key}.jpg" for key, (split, c) in images.items()}
    data = read(make(tmp_path, files.values(), texts))
    assert pairs(data) == {
        split: [
            (files[key], ("Lactuca", "Acacia")[c]) for key, (of, c) in images.items() if of == split
        ]
        for split in ("train", "val", "test")
    }


def test_names_by_number_are_no_list_of_images(tmp_path):
    names = {str(k): {"label": name} for k, name in enumerate(FLOWERS)}
    assert read(make(tmp_path, FIFTEEN, {"names.json": json.dumps(names)})).layout == "folders"


def test_a_form_of_answers_beside_the_only_folder(tmp_path):
    images = [{"id": k, "file_name": f"images/{k}.jpg"} for k in range(6)]
    listed = {
        "images": images,
        "annotations": [{"id": k, "image_id": k, "category_id": k % 2} for k in range(6)],
        "categories": [{"id": c, "name": name} for c, name in enumerate(("rosa", "acer"))],
    }
    root = make(
        tmp_path,
        [f"nybg2020/train/images/{k}.jpg" for k in range(6)] + ["nybg2020/test/images/9.jpg"],
        {
            "nybg2020/train/metadata.json": json.dumps(listed),
            "nybg2020/test/metadata.json": json.dumps({"images": [images[0]]}),
            "sample_submission.csv": "Id,Predicted\n0,0\n",
        },
    )
    data = read(root)
    assert "in nybg2020/" in data.recognised_by
    assert data.class_names == ("rosa", "acer")
    assert len(data.train) + len(data.test) == 6


def test_vertex_ai_and_ground_truth(tmp_path):
    parts = ["training"] * 9 + ["validation"] * 3 + ["test"] * 3
    files = [f"images/{k}.jpg" for k in range(15)]
    vertex = [
        {
            "imageGcsUri": f"gs://bucket/{file}",
            "classificationAnnotation": {"displayName": FLOWERS[k % 3]},
            "dataItemResourceLabels": {"aiplatform.googleapis.com/ml_use": parts[k]},
        }
        for k, file in enumerate(files)
    ]
    root = make(tmp_path, files, {"data.jsonl": lines(map(json.dumps, vertex))})
    expected = [(file, FLOWERS[k % 3]) for k, file in enumerate(files)]
    data = read(root)
    assert pairs(data) == {
        "train": expected[:9], "val": expected[9:12], "test": expected[12:]
    }  # fmt: skip
    (root / "data.jsonl").unlink()
    amazon = [
        {
            "source-ref": f"s3://bucket/{file}",
            "flower": k % 3,
            "flower-metadata": {"class-name": FLOWERS[k % 3], "human-annotated": "yes"},
        }
        for k, file in enumerate(files)
    ]
    (root / "output.manifest").write_text(lines(map(json.dumps, amazon)))
    data = read(root)
    assert sorted([*pairs(data)["train"], *pairs(data)["test"]]) == sorted(expected)


# Tables


def test_leafsnap(tmp_path):
    species = ("Abies concolor", "Acer campestre")
    rows = [
        (f"dataset/images/{source}/{name.lower().replace(' ', '_')}/{k}.jpg", name, source)
        for name in species
        for source in ("lab", "field")
        for k in range(3)
    ]
    text = lines(
        [
            "file_id\timage_path\tsegmented_path\tspecies\tsource",
            *(f"{k}\t{file}\t{file.replace('images', 'segmented')}\t{name}\t{source}"
              for k, (file, name, source) in enumerate(rows)),
        ]
    )  # fmt: skip
    segmented = [file.replace("images", "segmented") for file, _, _ in rows]
    files = [*(file for file, _, _ in rows), *segmented]
    data = read(make(tmp_path, files, {"leafsnap-dataset-images.txt": text}))
    both = [*pairs(data)["train"], *pairs(data)["test"]]
    assert sorted(both) == sorted((file, name) for file, name, _ in rows)


def test_a_text_with_tabs_that_is_no_table_hides_none(tmp_path):
    files = [f"images/{k}.jpg" for k in range(9)]
    text = lines(["file,label", *(f"{k}.jpg,{FLOWERS[k % 3]}" for k in range(9))])
    texts = {"notes.txt": "path\tof\tlight\nrose\tred\tx\n", "annotations/all.csv": text}
    data = read(make(tmp_path, files, texts))
    assert data.class_names == FLOWERS
    assert "annotations/all.csv" in data.recognised_by


@pytest.mark.parametrize("numbers", [True, False])
def test_columns_that_tell_the_same_classes_are_one(tmp_path, numbers):
    """As those of Danish Fungi 2020."""
    header = ["image_path", "genus", "species", "scientificName", "class_id"][: 4 + numbers]
    rows = [
        [f"{k}.jpg", "Amanita" if k % 3 else "Russula", f"sp{k % 3}", f"sp{k % 3} (L.)", str(k % 3)]
        for k in range(12)
    ]
    tables = {
        name: lines(",".join(row[: len(header)]) for row in [header, *rows[part]])
        for name, part in (
            ("DF20-train_metadata.csv", slice(0, 9)),
            ("DF20-public_test_metadata.csv", slice(9, 12)),
        )
    }
    root = make(tmp_path, [f"{k}.jpg" for k in range(12)], tables)
    if not numbers:  # two columns are asked about, as before
        assert all("may all hold the label" in problem for problem in problems(root))
        return
    data = read(root)
    assert pairs(data) == {
        "train": [(row[0], row[2]) for row in rows[:9]],
        "test": [(row[0], row[2]) for row in rows[9:]],
    }
    assert data.levels == (Level("genus", ("Russula", "Amanita", "Amanita")),)
    assert "tell the same classes; they are called by 'species'" in data.warnings[0]
    text = tables["DF20-train_metadata.csv"].replace("sp0 (L.)", "sp1 (L.)", 1)
    (root / "DF20-train_metadata.csv").write_text(text)
    assert "may all hold the label" in problems(root)[0]


def test_stanford_cars_from_kaggle_with_boxes_and_no_header(tmp_path):
    makes = ("Audi TT 2012", "Ram C V 2012", "Acura RL 2011")
    rows = {
        split: [(f"{k:05}.jpg", 30 + 7 * k, 52 + k, 250 + k, 230 + 3 * k, k % 3) for k in range(6)]
        for split in ("train", "test")
    }
    files = {
        split: [f"car_data/car_data/{split}/{makes[row[5]]}/{row[0]}" for row in listed]
        for split, listed in rows.items()
    }
    texts = {"names.csv": lines(makes)} | {
        f"anno_{split}.csv": lines(",".join(map(str, (*row[:5], row[5] + 1))) for row in listed)
        for split, listed in rows.items()
    }
    root = make(tmp_path, [*files["train"], *files["test"]], texts)
    (problem,) = problems(root)  # one question for both tables
    assert "'2' (6 classes)" in problem
    assert "'6' (3 classes)" in problem
    (root / files["train"][0]).unlink()
    assert problems(root) == (problem,)  # and nothing of what a guess would find
    (root / files["train"][0]).touch()
    data = read(root, label_column="6")
    assert pairs(data) == {
        split: [(file, makes[k % 3]) for k, file in enumerate(listed)]
        for split, listed in files.items()
    }


@pytest.mark.parametrize("word", ["UNASSIGNED", "TRAIN", ""])
def test_automl_without_splits(tmp_path, word):
    text = lines(f"{word},gs://bucket/flowers/{file},{file.split('/')[0]}" for file in FIFTEEN)
    data = sources.load_dataset(make(tmp_path, FIFTEEN, {"all_data.csv": text}), layout="csv")
    assert sorted([*pairs(data)["train"], *pairs(data)["test"]]) == sorted(by_folder(FIFTEEN))
    said = any(f"holds {word} alone" in sentence for sentence in data.warnings)
    assert said == bool(word)


def test_automl_with_splits(tmp_path):
    split = ["TRAIN"] * 9 + ["VALIDATION"] * 3 + ["TEST"] * 3
    text = lines(
        f"{split[k]},gs://bucket/flowers/{file},{file.split('/')[0]}"
        for k, file in enumerate(FIFTEEN)
    )
    data = read(make(tmp_path, FIFTEEN, {"all_data.csv": text}))
    assert pairs(data) == {
        "train": by_folder(FIFTEEN[:9]),
        "val": by_folder(FIFTEEN[9:12]),
        "test": by_folder(FIFTEEN[12:]),
    }


# Lists


def test_lists_of_sagemaker_lie_in_folders_of_their_own(tmp_path):
    train, val = FIFTEEN[:9], FIFTEEN[9:]
    files = [*(f"train/{file}" for file in train), *(f"validation/{file}" for file in val)]
    texts = {
        f"{split}_lst/{split}.lst": lines(
            f"{k}\t{FLOWERS.index(file.split('/')[0])}\t{file}" for k, file in enumerate(part)
        )
        for split, part in (("train", train), ("validation", val))
    }
    data = read(make(tmp_path, files, texts))
    assert data.layout == "lists"
    assert pairs(data) == {
        "train": by_folder(train, "train/"),
        "test": by_folder(val, "validation/"),
    }
    (tmp_path / "train_lst" / "train.lst").write_text("")
    assert read(tmp_path).layout == "folders"  # a folder of lists is no empty split


def test_levels_between_are_offered_for_compcars(tmp_path):
    cars = [f"{make_}/{year}/{k}.jpg" for make_ in ("78/1", "78/2", "81/3") for year in (1, 2)
            for k in range(3)]  # fmt: skip
    texts = {
        f"train_test_split/classification/{split}.txt": lines(
            file for file in cars if file.endswith("2.jpg") == (split == "test")
        )
        for split in ("train", "test")
    }
    root = make(tmp_path, [f"image/{file}" for file in cars], texts)
    (problem,) = problems(root)
    for way in ("=top, 2 as '78'", "=2, 3 as '78/1'", "=leaf, 6 as '78/1/1'"):
        assert f"data.class_level{way}" in problem
    data = read(root, class_level="2")
    assert data.class_names == ("1", "2", "3")
    assert len(data.train) == 12
    assert data.levels == (Level("level 1", ("78", "78", "81")),)


# Folders


def test_numbered_parts_of_a_split_hold_different_classes(tmp_path):
    """As those of ImageNet-100: train.X1/ to train.X4/, and val.X/."""
    train = [f"train.X{i}/{name}/{k}.jpg" for i, name in enumerate(FLOWERS) for k in range(3)]
    val = [f"val.X/{name}/9.jpg" for name in FLOWERS]
    root = make(tmp_path, [*train, *val], {})
    data = read(root)
    assert pairs(data) == {
        split: [(file, file.split("/")[1]) for file in files]
        for split, files in (("train", train), ("test", val))
    }
    make(tmp_path, ["train.X1/daisy/8.jpg"], {})  # in two of them: which one counts?
    (problem,) = problems(root)
    assert "train.X0/ and train.X1/ and train.X2/ are 3 folders of the train split" in problem


def test_folders_of_one_split_that_are_called_otherwise_are_no_parts(tmp_path):
    (problem,) = problems(make(tmp_path, ["train/a/1.jpg", "training/b/1.jpg"], {}))
    assert "train/ and training/ are 2 folders of the train split" in problem


def test_names_of_classes_beside_the_only_folder(tmp_path):
    """As those of the 102 flowers that a course of Udacity hands out."""
    files = [f"flower_data/{split}/{c}/{k}.jpg" for split in ("train", "valid") for c in (1, 10)
             for k in range(2)]  # fmt: skip
    names = json.dumps({"1": "pink", "10": "globe", "5": "iris"})
    data = read(make(tmp_path, files, {"cat_to_name.json": names}))
    assert data.class_names == ("pink", "globe")
    assert (len(data.train), len(data.test)) == (4, 4)


def test_a_list_of_images_beside_the_only_folder_is_not_passed_over(tmp_path):
    files = [f"set/{name}/{k}.jpg" for name in FLOWERS for k in range(2)]
    for text in (lines(f"{k}.jpg {k % 2}" for k in range(6)), "0.jpg 0\n1.jpg 1\n"):
        (problem,) = problems(make(tmp_path, files, {"my_labels.txt": text}))
        assert "has no known layout" in problem


def test_masks_beside_images_with_classes_in_their_names(tmp_path):
    names = [f"{breed}_{k}" for breed in ("Abyssinian", "american_bulldog") for k in range(4)]
    files = [f"images/{name}.jpg" for name in names]
    masks = [f"annotations/trimaps/{name}.png" for name in names]
    (problem,) = problems(make(tmp_path, [*files, *masks], {}))
    assert f"--config.data.root={tmp_path / 'images'} --config.data.label_pattern=" in problem
    assert "finds 2 classes in 8 of 8 images" in problem


@pytest.mark.parametrize("file", ["train-images-idx3-ubyte", "cifar-10-batches-py/data_batch_1"])
def test_stores_without_an_ending_are_named(tmp_path, file):
    (problem,) = problems(make(tmp_path, [], {file: b"\0"}))
    assert f"{file}: such a file is not read" in problem
