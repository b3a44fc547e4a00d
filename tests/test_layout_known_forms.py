"""Forms of known sets that need no reader of their own, each in small: read as they are meant.

Each has the images with their classes by split; where the form has no split, all are for training,
and the cut is drawn from them.
"""

import json
from typing import NamedTuple

import pytest
from test_layout_lists import lines, make, read, told


class Form(NamedTuple):
    """Files of a set; `splits` are (file, class) of each split, `aside` other images."""

    splits: dict[str, list[tuple[str, str]]]
    texts: dict[str, str]
    aside: tuple[str, ...] = ()


KINDS = ("ash", "elm", "oak")


def listed(pattern: str, start: int, stop: int, names=KINDS) -> list[tuple[str, str]]:
    """Files and classes by turns; `pattern` has the number `k` and the class `c`."""
    return [
        (pattern.format(k=k, c=names[k % len(names)]), names[k % len(names)])
        for k in range(start, stop)
    ]


def base(file: str, *, ending=True) -> str:
    name = file.rpartition("/")[2]
    return name if ending else name.rpartition(".")[0]


def table(header: str, rows, row) -> str:
    return lines([header, *(row(k, file, name) for k, (file, name) in enumerate(rows))])


def cassava() -> Form:
    rows = listed("train_images/{k}000.jpg", 0, 9, ("CBB", "CBSD", "CGM"))
    return Form(
        {"train": rows},
        {
            "train.csv": table("image_id,label", rows, lambda k, f, n: f"{base(f)},{k % 3}"),
            "label_num_to_disease_map.json": json.dumps({"0": "CBB", "1": "CBSD", "2": "CGM"}),
            "sample_submission.csv": "image_id,label\n222.jpg,4\n",
        },
        ("test_images/222.jpg",),
    )


def plant_pathology_2021() -> Form:
    names = ("healthy", "scab", "scab frog_eye_leaf_spot", "rust complex")
    rows = listed("train_images/a{k}.jpg", 0, 12, names)
    return Form(
        {"train": rows},
        {"train.csv": table("image,labels", rows, lambda k, f, n: f"{base(f)},{n}")},
        ("test_images/t.jpg",),
    )


def dog_breeds() -> Form:
    rows = listed("train/{k:032x}.jpg", 0, 9)
    text = table("id,breed", rows, lambda k, f, n: f"{base(f, ending=False)},{n}")
    form = lines([f"id,{','.join(KINDS)}", f"{99:032x},0.3,0.3,0.3"])
    texts = {"labels.csv": text, "sample_submission.csv": form}
    return Form({"train": rows}, texts, (f"test/{99:032x}.jpg",))


def leaf_classification() -> Form:
    rows = listed("images/{k}.jpg", 0, 9)
    text = table("id,species,margin1,shape1", rows, lambda k, f, n: f"{k},{n},0.0078,0.{k}")
    texts = {"train.csv": text, "test.csv": "id,margin1,shape1\n9,0.1,0.2\n"}
    return Form({"train": rows}, texts, ("images/9.jpg",))


def humpback_whales() -> Form:
    rows = listed("train/{k:08x}.jpg", 0, 9, ("new_whale", "w_c3d896a", "w_f48451c"))
    texts = {
        "train.csv": table("Image,Id", rows, lambda k, f, n: f"{base(f)},{n}"),
        "sample_submission.csv": lines(["Image,Id", f"{99:08x}.jpg,new_whale w_c3d896a"]),
    }
    return Form({"train": rows}, texts, (f"test/{99:08x}.jpg",))


def skin_of_two_parts() -> Form:
    rows = [
        (f"HAM10000_images_part_{k % 2 + 1}/ISIC_{k:05}.jpg", ("bkl", "mel", "nv")[k // 2 % 3])
        for k in range(12)
    ]
    text = table(
        "lesion_id,image_id,dx,dx_type,age,sex,localization",
        rows,
        lambda k, f, n: f"HAM_{k // 2},{base(f, ending=False)},{n},histo,80.0,male,scalp",
    )
    return Form({"train": rows}, {"HAM10000_metadata.csv": text})


def birds_525() -> Form:
    splits = {
        name: listed(f"{folder}/{{c}}/{{k}}.jpg", 0, count)
        for name, folder, count in (("train", "train", 9), ("val", "valid", 3), ("test", "test", 3))
    }
    every = [row for name in ("train", "test", "val") for row in splits[name]]
    text = table(
        "class id,filepaths,labels,data set,scientific name",
        every,
        lambda k, f, n: f"{float(KINDS.index(n))},{f},{n},{f.split('/')[0]},{n} L.",
    )
    return Form(splits, {"birds.csv": text})


def ifood() -> Form:
    train, val = listed("train_set/train_{k}.jpg", 0, 9), listed("val_set/val_{k}.jpg", 0, 3)
    row = lambda k, f, n: f"{base(f)},{KINDS.index(n)}"  # noqa: E731
    return Form(
        {"train": train, "test": val},
        {
            "train_labels.csv": table("img_name,label", train, row),
            "val_labels.csv": table("img_name,label", val, row),
            "class_list.txt": lines(f"{k} {name}" for k, name in enumerate(KINDS)),
        },
        ("test_set/test_0.jpg",),
    )


def eurosat() -> Form:
    splits = {
        name: listed("{c}/{c}_{k}.jpg", start, stop)
        for name, start, stop in (("train", 0, 9), ("val", 9, 12), ("test", 12, 15))
    }
    row = lambda k, f, n: f"{k},{f},{KINDS.index(n)},{n}"  # noqa: E731
    called = {"train": "train.csv", "val": "validation.csv", "test": "test.csv"}
    texts = {called[s]: table(",Filename,Label,ClassName", splits[s], row) for s in splits}
    return Form(splits, texts | {"label_map.json": json.dumps({n: k for k, n in enumerate(KINDS)})})


def roboflow_multiclass() -> Form:
    splits = {
        name: listed(f"{folder}/{{k}}_jpg.rf.ab.jpg", 0, count)
        for name, folder, count in (("train", "train", 9), ("val", "valid", 3), ("test", "test", 3))
    }
    texts = {
        f"{rows[0][0].split('/')[0]}/_classes.csv": table(
            "filename, ash, elm, oak",
            rows,
            lambda k, f, n: f"{base(f)}, {', '.join(str(int(n == kind)) for kind in KINDS)}",
        )
        for rows in splits.values()
    }
    return Form(splits, texts | {"README.roboflow.txt": "x"})


def mit_indoor() -> Form:
    train, test = listed("Images/{c}/{c}_{k}.jpg", 0, 9), listed("Images/{c}/{c}_{k}.jpg", 9, 12)
    texts = {
        name: lines(file.partition("/")[2] for file, _ in rows)
        for name, rows in (("TrainImages.txt", train), ("TestImages.txt", test))
    }
    return Form({"train": train, "test": test}, texts)


def places() -> Form:
    names = ("airfield", "alley", "bakery")
    train = [(f"data_256/{n[0]}/{n}/{k}.jpg", n) for n in names for k in range(3)]
    val = listed("val_256/Places365_val_{k:08}.jpg", 0, 6, names)
    return Form(
        {"train": train, "test": val},
        {
            "places365_train_standard.txt": lines(
                f"{file[8:]} {names.index(name)}" for file, name in train
            ),
            "places365_val.txt": lines(f"{base(file)} {names.index(name)}" for file, name in val),
            "categories_places365.txt": lines(
                f"/{name[0]}/{name} {k}" for k, name in enumerate(names)
            ),
            "places365_test.txt": "Places365_test_00000001.jpg\n",
        },
    )


def mxnet() -> Form:
    train, val = listed("{c}/{k}.jpg", 0, 9), listed("{c}/{k}.jpg", 9, 12)
    texts = {
        name: lines(f"{k}\t{KINDS.index(n):.6f}\t{f}" for k, (f, n) in enumerate(rows))
        for name, rows in (("data_train.lst", train), ("data_val.lst", val))
    }
    return Form({"train": train, "test": val}, texts)


def inaturalist_2018() -> Form:
    names = ("Acer rubrum", "Quercus alba", "Rosa canina")
    splits = {
        name: [(f"train_val2018/Plantae/{10 + k % 3}/{k}.jpg", names[k % 3]) for k in span]
        for name, span in (("train", range(9)), ("test", range(9, 12)))
    }
    ids = [{"id": 10 + c, "name": str(10 + c), "supercategory": "Plantae"} for c in range(3)]
    texts = {
        {"train": "train2018.json", "test": "val2018.json"}[split]: json.dumps(
            {
                "images": [{"id": k, "file_name": f} for k, (f, _) in enumerate(rows)],
                "annotations": [
                    {"id": k, "image_id": k, "category_id": 10 + names.index(n)}
                    for k, (_, n) in enumerate(rows)
                ],
                "categories": ids,
            }
        )
        for split, rows in splits.items()
    }
    named = [{"id": 10 + c, "name": name, "genus": name[:4]} for c, name in enumerate(names)]
    hidden = {"images": [{"id": 1, "file_name": "test2018/1.jpg"}]}
    texts |= {"categories.json": json.dumps(named), "test2018.json": json.dumps(hidden)}
    return Form(splits, texts, ("test2018/1.jpg",))


def inaturalist_2017() -> Form:
    """Beside the lists of images lie those of boxes in some of them."""
    splits, texts, _ = inaturalist_2018()
    boxes = {f"{split}_2017_bboxes.json": json.loads(texts[f"{split}2018.json"])
             for split in ("train", "val")}  # fmt: skip
    for content in boxes.values():
        content["images"], content["annotations"] = (
            content["images"][:2],
            [{**each, "bbox": [1, 2, 3, 4]} for each in content["annotations"][:2]],
        )
    return Form(splits, texts | {name: json.dumps(content) for name, content in boxes.items()},
                ("test2018/1.jpg",))  # fmt: skip


FORMS = (
    *(cassava, plant_pathology_2021, dog_breeds, leaf_classification, humpback_whales),
    *(skin_of_two_parts, birds_525, ifood, eurosat, roboflow_multiclass, mit_indoor, places),
    *(mxnet, inaturalist_2018, inaturalist_2017),
)


@pytest.mark.parametrize("form", FORMS)
def test_known_forms_are_read_as_they_are_meant(tmp_path, form):
    splits, texts, aside = form()
    files = [file for rows in splits.values() for file, _ in rows]
    data = read(make(tmp_path, [*files, *aside], texts))
    found = {split: told(examples, data) for split, examples in data.splits.items()}
    if set(splits) == {"train"}:
        assert set(found) == {"train", "test"}
        found = {"train": [*found["train"], *found["test"]]}
    assert {split: sorted(rows) for split, rows in found.items()} == {
        split: sorted(rows) for split, rows in splits.items()
    }
