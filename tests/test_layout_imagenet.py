"""ImageNet's form: synsets as folders, and validation images whose classes lists tell.

Expected are the pairs that the files were made from.
"""

import json

import numpy as np
import pytest
from scipy import io
from test_layout_fuzz import scan_damaged
from test_layout_lists import lines, make, problems, read, told

SYNSETS = ("n01440764", "n01443537", "n02119789")
WORDS = ("tench, Tinca tinca", "crane", "crane")
TRAIN = [f"train/{wnid}/{wnid}_{k}.JPEG" for wnid in SYNSETS for k in range(3)]
VAL = [f"val/ILSVRC2012_val_0000000{k}.JPEG" for k in range(1, 6)]
CLASSES = [2, 0, 1, 1, 2]  # of VAL, by the order of SYNSETS
STEMS = [file[4:-5] for file in VAL]
OF_THE_KIT = {0: 7, 1: 9, 2: 1}  # ILSVRC2012_ID of each synset, which is no order of theirs

ANNOTATED = {
    "val.txt": lines(f"{stem}.JPEG {c}" for stem, c in zip(STEMS, CLASSES, strict=True)),
    "val_map.txt": lines(f"{s}.JPEG\t{SYNSETS[c]}" for s, c in zip(STEMS, CLASSES, strict=True)),
    "validation_synset_labels.txt": lines(SYNSETS[c] for c in CLASSES),
    "LOC_val_solution.csv": lines(
        [
            "ImageId,PredictionString",
            *(f"{s},{SYNSETS[c]} 1 2 3 4 {SYNSETS[c]} 5 6 7 8 "
              for s, c in reversed(list(zip(STEMS, CLASSES, strict=True)))),
        ]
    ),
}  # fmt: skip


def expected(base="") -> list[tuple[str, str]]:
    return [(base + file, SYNSETS[c]) for file, c in zip(VAL, CLASSES, strict=True)]


def check(root, base="", **request):
    data = read(root, **request)
    assert data.layout == "imagenet"
    assert told(data.train, data) == [(base + file, file.split("/")[1]) for file in TRAIN]
    assert told(data.test, data) == expected(base)
    assert all(each.data == root / each.name for each in (*data.train, *data.test))
    return data


@pytest.mark.parametrize("name", ANNOTATED)
def test_lists_tell_the_classes_of_validation_images(tmp_path, name):
    data = check(make(tmp_path, [*TRAIN, *VAL], {name: ANNOTATED[name]}))
    assert data.recognised_by == f"train/<synset>/ and {name}"
    assert not data.warnings


def test_numbers_of_the_development_kit_need_it(tmp_path):
    kit = "ILSVRC2012_devkit_t12/data/"
    numbers = lines(OF_THE_KIT[c] for c in CLASSES)
    name = f"{kit}ILSVRC2012_validation_ground_truth.txt"
    root = make(tmp_path, [*TRAIN, *VAL], {name: numbers})
    (problem,) = problems(root)
    assert "numbers from 1 to 9" in problem
    assert "(1 is n02119789)" in problem
    assert "(1 is n01440764)" in problem
    assert "put meta.mat of the development kit beside it" in problem
    synsets = np.zeros((4, 1), [("ILSVRC2012_ID", object), ("WNID", object)])
    rows = [(OF_THE_KIT[i], wnid) for i, wnid in enumerate(SYNSETS)] + [(2, "n09999999")]
    for i, (number, wnid) in enumerate(rows):
        synsets[i, 0] = (np.array([[number]], np.uint16), wnid)
    io.savemat(root / kit / "meta.mat", {"synsets": synsets}, do_compression=True)
    check(root)
    (root / kit / "meta.mat").unlink()
    words = lines(f"{wnid} {OF_THE_KIT[i]} word" for i, wnid in enumerate(SYNSETS))
    (root / kit / "map_clsloc.txt").write_text(words)
    assert [each.label for each in read(root).test] == CLASSES
    (root / name).write_text(numbers + "1\n")
    (problem,) = problems(root)
    assert "has 6 lines, but there are 5 validation images" in problem


def test_numbers_from_zero_count_the_synsets_of_a_list_beside(tmp_path):
    order = [SYNSETS[k] for k in (2, 0, 1)]
    text = lines(f"{s}.JPEG {order.index(SYNSETS[c])}" for s, c in zip(STEMS, CLASSES, strict=True))
    check(make(tmp_path, [*TRAIN, *VAL], {"val.txt": text, "synsets.txt": lines(order)}))


def test_kaggles_folders_with_names_and_a_list_of_training_images(tmp_path):
    base = "ILSVRC/Data/CLS-LOC/"
    sets = "ILSVRC/ImageSets/CLS-LOC/"
    images = [base + file for file in (*TRAIN, *VAL, "train/n01440764/odd.JPEG", "test/1.JPEG")]
    texts = {
        "LOC_val_solution.csv": ANNOTATED["LOC_val_solution.csv"],
        "LOC_train_solution.csv": lines(["ImageId,PredictionString", f"{TRAIN[0][6:-5]},x 1 2"]),
        "LOC_sample_submission.csv": "ImageId,PredictionString\n1,n01440764 0 0 1 1\n",
        "LOC_synset_mapping.txt": lines(map(" ".join, zip(SYNSETS, WORDS, strict=True))),
        sets + "train_cls.txt": lines(f"{file[6:-5]} {k + 1}" for k, file in enumerate(TRAIN)),
        sets + "val.txt": lines(f"{stem} {k + 1}" for k, stem in enumerate(STEMS)),
    }
    root = make(tmp_path, images, texts)
    data = read(root)
    assert data.class_names == (WORDS[0], "crane (n01443537)", "crane (n02119789)")
    assert [each.name for each in data.train] == [base + file for file in TRAIN]
    assert [(each.name, each.label) for each in data.test] == [
        (base + file, c) for file, c in zip(VAL, CLASSES, strict=True)
    ]
    left_out, unlabelled, names = data.warnings
    assert "does not list 1 image(s)" in left_out
    assert "1 image(s) without a class" in unlabelled
    assert "names from LOC_synset_mapping.txt" in names
    for name in [name for name in texts if name.startswith("LOC_")]:
        (root / name).unlink()
    data = read(root)  # the val.txt beside counts its own lines, and says nothing
    assert data.class_names == SYNSETS
    assert any("put LOC_val_solution.csv" in sentence for sentence in data.warnings)


def test_tiny_imagenet(tmp_path):
    train = [f"train/{wnid}/images/{wnid}_{k}.JPEG" for wnid in SYNSETS for k in range(3)]
    val = [f"val/images/val_{k}.JPEG" for k in range(5)]
    root = make(
        tmp_path,
        [*train, *val, "test/images/test_0.JPEG"],
        {
            "wnids.txt": lines(reversed(SYNSETS)),
            "words.txt": lines(["n00001740\tentity", *(f"{w}\tname {w}" for w in SYNSETS)]),
            "val/val_annotations.txt": lines(
                f"val_{k}.JPEG\t{SYNSETS[c]}\t0\t32\t44\t62" for k, c in enumerate(CLASSES)
            ),
            f"train/{SYNSETS[0]}/{SYNSETS[0]}_boxes.txt": "n01440764_0.JPEG\t0\t1\t2\t3\n",
        },
    )
    data = read(root)
    assert data.class_names == tuple(f"name {wnid}" for wnid in SYNSETS)
    assert [(e.name, e.label) for e in data.train] == [(f, i // 3) for i, f in enumerate(train)]
    assert [(e.name, e.label) for e in data.test] == list(zip(val, CLASSES, strict=True))


def test_lists_that_contradict_each_other_or_say_too_little(tmp_path):
    other = ANNOTATED["val_map.txt"].replace(SYNSETS[0], SYNSETS[1])
    root = make(tmp_path, [*TRAIN, *VAL], {"val.txt": ANNOTATED["val.txt"], "val_map.txt": other})
    (problem,) = problems(root)
    assert "say different classes of 1 validation image(s)" in problem
    (root / "val_map.txt").unlink()
    (root / "val.txt").write_text("".join(ANNOTATED["val.txt"].splitlines(keepends=True)[1:]))
    (problem,) = problems(root)
    assert "does not say the class of 'ILSVRC2012_val_00000001.JPEG'" in problem


def test_test_images_in_folders_of_synsets_are_the_test_split(tmp_path):
    test = [f"test/{wnid}/t.JPEG" for wnid in SYNSETS]
    data = read(make(tmp_path, [*TRAIN, *VAL, *test], {"val.txt": ANNOTATED["val.txt"]}))
    assert data.layout == "imagenet"
    assert told(data.val, data) == expected()
    assert told(data.test, data) == [(file, file.split("/")[1]) for file in test]


@pytest.mark.parametrize("number", ["9" * 5000, "²"])
def test_what_is_no_number_tells_nothing(tmp_path, number):
    data = read(make(tmp_path, [*TRAIN, *VAL], {"val.txt": lines([number] * len(VAL))}))
    assert "nothing says the classes of its 5 image(s)" in data.warnings[0]


def test_an_empty_list_of_training_images(tmp_path):
    root = make(tmp_path, [*TRAIN, *VAL], {"val.txt": ANNOTATED["val.txt"], "train_cls.txt": ""})
    assert problems(root) == (f"{root} lists no image for training.",)


def test_an_image_with_boxes_of_two_synsets_has_no_class(tmp_path):
    text = ANNOTATED["LOC_val_solution.csv"].replace(f"{SYNSETS[0]} 5", f"{SYNSETS[1]} 5")
    root = make(tmp_path, [*TRAIN, *VAL], {"LOC_val_solution.csv": text})
    (problem,) = problems(root)
    assert "1 image(s) have boxes of several synsets" in problem


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("synset_words.txt", lines(f"{w} name {w}" for w in SYNSETS)),
        ("README.txt", lines(["ImageNet-Rendition", *(f"{w} name {w}" for w in SYNSETS)])),
        ("Labels.json", json.dumps({w: f"name {w}" for w in SYNSETS})),
        ("imagenet_class_index.json",
         json.dumps({str(i): [w, f"name {w}"] for i, w in enumerate(SYNSETS)})),
    ],
)  # fmt: skip
def test_synsets_of_folders_are_named_by_a_file_of_all_of_them(tmp_path, file, text):
    val = [f"val/{wnid}/v.JPEG" for wnid in SYNSETS]
    root = make(tmp_path, [*TRAIN, *val], {file: text})
    data = read(root)
    assert data.layout == "folders"
    assert data.class_names == tuple(f"name {wnid}" for wnid in SYNSETS)
    (root / file).write_text(text.replace(SYNSETS[2], "n00000001"))
    assert read(root).class_names == SYNSETS


def test_a_list_of_training_images_goes_before(tmp_path):
    train = lines(f"{file[6:]} {SYNSETS.index(file.split('/')[1])}" for file in TRAIN[:-1])
    texts = {"train.txt": train, "val.txt": ANNOTATED["val.txt"]}
    data = read(make(tmp_path, [*TRAIN, *VAL], texts))
    assert data.layout == "lists"
    assert [each.label for each in data.test] == CLASSES


@pytest.mark.parametrize("name", [*ANNOTATED, "numbers"])
def test_damaged_lists_are_read_or_refused(tmp_path, name):
    texts = {
        "train_cls.txt": lines(f"{file[6:-5]} {k + 1}" for k, file in enumerate(TRAIN)),
        "synset_words.txt": lines(map(" ".join, zip(SYNSETS, WORDS, strict=True))),
        "map_clsloc.txt": lines(f"{wnid} {OF_THE_KIT[i]} a" for i, wnid in enumerate(SYNSETS)),
    }
    by_number = lines(OF_THE_KIT[c] for c in CLASSES)
    listed = "val.txt" if name == "numbers" else name
    texts[listed] = by_number if name == "numbers" else ANNOTATED[name]
    root = make(tmp_path, [*TRAIN, *VAL], texts)
    assert scan_damaged(root, listed, 60)
    for other in ("train_cls.txt", "synset_words.txt", "map_clsloc.txt"):
        scan_damaged(root, other, 20)
