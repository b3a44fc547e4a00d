"""Lists of images, in the forms that well-known sets are published with."""

import pathlib

import pytest

from clevit_jax.data import sources
from clevit_jax.data.dataset import Level
from clevit_jax.data.layouts.listing import Request
from clevit_jax.errors import DataError

# Split -> (file, number of its class) of a set of three classes.
CLASSES = ("rose", "tulip", "lily")
PAIRS = {
    "train": [(f"{name}/{k}.jpg", label) for label, name in enumerate(CLASSES) for k in range(3)],
    "test": [(f"{name}/9.jpg", label) for label, name in enumerate(CLASSES)],
}


def make(root: pathlib.Path, files, texts) -> pathlib.Path:
    """Empty images, and texts."""
    for file in files:
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).touch()
    for file, text in texts.items():
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).write_bytes(text if isinstance(text, bytes) else text.encode())
    return root


def lines(rows) -> str:
    return "".join(f"{row}\n" for row in rows)


def read(root, **request):
    return sources.load_dataset(root, request=Request(**request))


def problems(root, **request) -> tuple[str, ...]:
    with pytest.raises(DataError) as caught:
        read(root, **request)
    return caught.value.problems


def told(examples, data) -> list[tuple[str, str]]:
    """(file, class name) of each example."""
    return [(example.name, data.class_names[example.label]) for example in examples]


def check(root, images="images/", names=CLASSES, layout="auto"):
    """Reads `PAIRS`, whose files are below `images`, and returns the data set."""
    data = sources.load_dataset(root, layout=layout)
    assert data.layout == "lists"
    assert data.class_names == tuple(names)
    for split, examples in (("train", data.train), ("test", data.test)):
        base = images.format(split=split)
        assert [(e.name, e.label) for e in examples] == [
            (f"{base}{file}", label) for file, label in PAIRS[split]
        ]
        assert all(e.data == root / e.name and e.data.is_file() for e in examples)
    return data


def files(images="images/") -> list[str]:
    return [images.format(split=split) + file for split in PAIRS for file, _ in PAIRS[split]]


LINES = {
    "blank": lambda file, label: f"{file} {label}",
    "one-based": lambda file, label: f"{file} {label + 1}",
    "tab": lambda file, label: f"{file}\t{label}",
    "comma": lambda file, label: f"{file},{label}",
    "comma and blank": lambda file, label: f"{file}, {label}",
    "a comma too many": lambda file, label: f"{file},{label},",
    "a comma too many in some": lambda file, label: f"{file},{label}" + "," * (label == 1),
    "semicolon": lambda file, label: f"{file};{label}",
    "label first": lambda file, label: f"{label} {file}",
    "label first, comma": lambda file, label: f"{label},{file}",
    "quoted": lambda file, label: f'"{file}","{label}"',
    "decimal": lambda file, label: f"{file} {label}.0",
    "name": lambda file, label: f"{file} {'abc'[label]} {CLASSES[label]}",
    "name, comma": lambda file, label: f'{file},"{"abc"[label]}, {CLASSES[label]}"',
    "number and name": lambda file, label: f"{file} {label} {CLASSES[label]}",
    "number and name, tab": lambda file, label: f"{file}\t{label}\t{CLASSES[label]}",
    "backslashes": lambda file, label: f".\\{file} {label}".replace("/", "\\"),
    "no ending": lambda file, label: f"{file.removesuffix('.jpg')} {label}",
    "no ending, label first": lambda file, label: f"{label} {file.removesuffix('.jpg')}",
    "other ending": lambda file, label: f"{file.replace('.jpg', '.png')} {label}",
    "Caffe on another machine": lambda file, label: f"/home/me/set/images/{file} {label}",
    "Windows": lambda file, label: f"C:\\me\\set\\images\\{file} {label}".replace("/", "\\"),
    "MXNet": lambda file, label: f"{int(file[-5]) + 10 * label}\t{label}.000000\t{file}",
}


@pytest.mark.parametrize("line", LINES)
def test_lines(tmp_path, line):
    texts = {f"{split}.txt": lines(LINES[line](*pair) for pair in PAIRS[split]) for split in PAIRS}
    names = CLASSES
    if line.startswith("name"):
        names = [f"{'abc'[k]}{',' * (line != 'name')} {CLASSES[k]}" for k in range(3)]
    data = check(make(tmp_path, files(), texts), names=names)
    assert data.recognised_by == "train.txt and test.txt"
    said = {
        "other ending": ["another ending than they have"] * 2,
        "Caffe on another machine": ["by what follows 'home/me/set/'"] * 2,
        "Windows": ["by what follows 'C:/me/set/'"] * 2,
    }.get(line, [])
    assert len(data.warnings) == len(said)
    assert all(words in warning for words, warning in zip(said, data.warnings, strict=True))


@pytest.mark.parametrize(
    "change",
    [
        lambda text: b"\xef\xbb\xbf" + text,
        lambda text: text.replace(b"\n", b"\r\n"),
        lambda text: text.replace(b"\n", b"\r"),
        lambda text: text.rstrip(b"\n"),
        lambda text: b"# of 2026\n\n" + text.replace(b"\n", b" \n\n"),
        lambda text: b"image label\n" + text,
        lambda text: b"Filename Class\n" + text,
        lambda text: b"9\n" + text,
    ],
    ids=["bom", "crlf", "cr", "no last newline", "comment", "header", "Header", "count"],
)
def test_text_variants(tmp_path, change):
    texts = {
        f"{split}.txt": change(lines(f"{file} {label}" for file, label in PAIRS[split]).encode())
        for split in PAIRS
    }
    assert check(make(tmp_path, files(), texts)).warnings == ()


@pytest.mark.parametrize(
    ("images", "place"),
    [
        ("images/", "{}.txt"),
        ("images/", "anno/{}.txt"),
        ("images/", "meta/{}.txt"),
        ("images/", "annotations/{}_list.txt"),
        ("images/", "splits/{}.lst"),
        ("images/", "ImageSets/Main/{}"),
        ("all/", "anno/ct_{}.txt"),  # DCL
        ("data/images/", "data/{}.txt"),
        ("data/images/", "{}.TXT"),
        ("pictures of 2026/", "devkit/{}.list"),
        ("{split}/", "meta/{}.txt"),  # mmpretrain
        ("{split}/images/", "labels/{}.txt"),
        ("lists/", "lists/{}.txt"),
        ("", "{}_set.txt"),
    ],
)
def test_places(tmp_path, images, place):
    texts = {
        place.format(split): lines(f"{file} {label}" for file, label in PAIRS[split])
        for split in PAIRS
    }
    data = check(make(tmp_path, files(images), texts), images, layout="lists")
    assert data.recognised_by == f"{place.format('train')} and {place.format('test')}"
    assert data.warnings == ()


def test_folders_that_have_the_same_names(tmp_path):
    """The split's own folder, the images and not their thumbnails."""
    named = [f"{c}/{k}.jpg" for c in ("a", "b") for k in range(2)]
    texts = {f"meta/{split}.txt": lines(f"{f} {f[0]}" for f in named) for split in PAIRS}
    folders = ("photographs of test", "photographs of train", "more of train/thumbs")
    root = make(tmp_path, [f"{folder}/{f}" for folder in folders for f in named], texts)
    data = sources.load_dataset(root, layout="lists")
    for split, examples in data.splits.items():
        assert [e.name for e in examples] == [f"photographs of {split}/{f}" for f in named]
    for folder in ("a picture", "thumbs"):
        there = [f"{folder}/{f}" for f in named]
        make(tmp_path / "one", there, {"train.txt": texts["meta/train.txt"]})
    data = sources.load_dataset(tmp_path / "one", layout="lists")
    assert all(e.name.startswith("a picture/") for e in data.train)
    root = make(tmp_path / "two", [f"{c}/{f}" for c in ("train", "more") for f in named], texts)
    data = sources.load_dataset(root, layout="lists")
    assert [e.name for e in data.train + data.test] == [
        f"{folder}/{f}" for folder in ("train", "more") for f in named
    ]


def test_a_folder_higher(tmp_path):
    texts = {f"{split}.txt": lines(f"{f} {n}" for f, n in PAIRS[split]) for split in PAIRS}
    make(tmp_path / "set/set", files(), texts)
    data = read(tmp_path)
    assert (data.layout, data.num_classes, len(data.test)) == ("lists", 3, 3)


def test_names_are_numbers_where_folders_do_not_tell(tmp_path):
    texts = {f"{split}.txt": lines(f"images/{k:04}.jpg {k % 3}" for k in numbers)
             for split, numbers in (("train", range(6)), ("test", range(6, 9)))}  # fmt: skip
    data = read(make(tmp_path, [f"images/{k:04}.jpg" for k in range(9)], texts))
    assert data.class_names == ("0", "1", "2")
    assert [e.label for e in data.train] == [0, 1, 2, 0, 1, 2]
    assert [e.name for e in data.test] == [f"images/{k:04}.jpg" for k in (6, 7, 8)]


def test_food_101(tmp_path):
    """Files without their ending, and the class is the folder."""
    named = {"train": ["apple_pie/1005649", "apple_pie/1014775", "waffles/12", "waffles/13"],
             "test": ["waffles/3", "apple_pie/1011328"]}  # fmt: skip
    texts = {f"meta/{split}.txt": lines(named[split]) for split in named}
    texts |= {"meta/classes.txt": "apple_pie\nwaffles\n", "meta/labels.txt": "Apple pie\nWaffles\n"}
    texts |= {"README.txt": "Food-101\n", "license_agreement.txt": "none\n"}
    root = make(tmp_path, [f"images/{name}.jpg" for rows in named.values() for name in rows], texts)
    data = read(root)
    assert told(data.train, data) == [(f"images/{f}.jpg", f.split("/")[0]) for f in named["train"]]
    assert told(data.test, data) == [(f"images/{f}.jpg", f.split("/")[0]) for f in named["test"]]
    assert (data.class_names, data.warnings, data.levels) == (("apple_pie", "waffles"), (), ())


def aircraft(root, splits=("train", "val", "test")) -> tuple[pathlib.Path, list[list[str]]]:
    """FGVC-Aircraft: (file, variant, family, manufacturer) of each image."""
    kinds = [
        ("707-320", "Boeing 707", "Boeing"),
        ("727-200", "Boeing 727", "Boeing"),
        ("737-300", "Boeing 737", "Boeing"),
        ("737-400", "Boeing 737", "Boeing"),
        ("F/A-18", "F/A-18", "McDonnell Douglas"),
        ("Cessna 172", "Cessna 172", "Cessna"),
    ]
    images = [[f"{100 * k + i:07}", *kind] for k, kind in enumerate(kinds) for i in range(3)]
    texts = {}
    for i, split in enumerate(("train", "val", "test")):
        chosen = [image for image in images if int(image[0]) % 100 == i]
        texts[f"data/images_{split}.txt"] = lines(image[0] for image in chosen)
        for column, level in enumerate(("variant", "family", "manufacturer"), start=1):
            name = f"data/images_{level}_{split}.txt"
            texts[name] = lines(f"{image[0]} {image[column]}" for image in chosen)
    for name in ("images", "images_variant", "images_family", "images_manufacturer"):
        train, val = (texts[f"data/{name}_{split}.txt"] for split in ("train", "val"))
        texts[f"data/{name}_trainval.txt"] = train + val
    texts = {name: text for name, text in texts.items()
             if any(name.endswith(f"_{split}.txt") for split in splits)}  # fmt: skip
    texts["data/images_box.txt"] = lines(f"{image[0]} 3 144 998 431" for image in images)
    texts["data/variants.txt"] = lines(kind[0] for kind in kinds)
    return make(root, [f"data/images/{image[0]}.jpg" for image in images], texts), images


@pytest.mark.parametrize("splits", ["train val test", "trainval test", "train val trainval test"])
def test_aircraft(tmp_path, splits):
    """The variant is the class; family and manufacturer are levels."""
    root, images = aircraft(tmp_path, splits.split())
    data = read(root)
    parts = {"train": data.train, "val": data.val, "test": data.test}
    wanted = {"train": (0,), "val": (1,), "test": (2,)}
    if "val " not in splits.replace("trainval", ""):
        wanted = {"train": (0, 1), "val": (), "test": (2,)}
    for split, inside in wanted.items():
        assert sorted(told(parts[split], data)) == [
            (f"data/images/{file}.jpg", variant)
            for file, variant, _, _ in images
            if int(file) % 100 in inside
        ]
    groups = {variant: (maker, family) for _, variant, family, maker in images}
    assert data.levels == (
        Level("manufacturer", tuple(groups[name][0] for name in data.class_names)),
        Level("family", tuple(groups[name][1] for name in data.class_names)),
    )
    by_family = read(root, label_column="family")
    assert by_family.num_classes == 5
    assert [level.name for level in by_family.levels] == ["manufacturer"]
    assert all("trainval.txt is not read" in warning for warning in data.warnings)
    assert bool(data.warnings) == (splits == "train val trainval test")


def test_oxford_pets(tmp_path):
    """`<class>_<k> <class id> <species> <breed id>`; the masks bear the names of the images."""
    breeds = [("Abyssinian", 1, 1), ("american_bulldog", 2, 1), ("american_pit_bull_terrier", 2, 2),
              ("Bengal", 1, 2)]  # fmt: skip
    rows = {
        f"{name}_{k}": f"{name}_{k} {label} {species} {breed}"
        for label, (name, species, breed) in enumerate(breeds, start=1)
        for k in range(1, 5)
    }
    texts = {
        "annotations/list.txt": "#Image CLASS-ID SPECIES BREED ID\n" + lines(rows.values()),
        "annotations/trainval.txt": lines(list(rows.values())[::2]),
        "annotations/test.txt": lines(list(rows.values())[1::2]),
    }
    masks = [f"annotations/trimaps/{name}.png" for name in rows]
    root = make(tmp_path, [f"images/{name}.jpg" for name in rows] + masks, texts)
    data = read(root)
    assert told(data.train, data) == [(f"images/{f}.jpg", f[:-2]) for f in list(rows)[::2]]
    assert told(data.test, data) == [(f"images/{f}.jpg", f[:-2]) for f in list(rows)[1::2]]
    assert data.class_names == tuple(name for name, _, _ in breeds)
    assert data.levels == (Level("coarse", ("1", "2", "2", "1")),)
    assert data.warnings == ()


def test_grocery(tmp_path):
    """`<file>, <fine>, <coarse>`: the fine label is the class, and the coarse one a level."""
    fine = ["Fruit/Apple/Golden-Delicious", "Fruit/Apple/Granny-Smith", "Fruit/Banana",
            "Packages/Milk/Arla-Standard", "Packages/Milk/Garant-Standard"]  # fmt: skip
    coarse = [0, 0, 1, 2, 2]
    texts, listed = {}, {}
    for split, count in (("train", 3), ("val", 1), ("test", 2)):
        listed[split] = [(f"{split}/{folder}/x_{k}.jpg", label)
                         for label, folder in enumerate(fine) for k in range(count)]  # fmt: skip
        texts[f"{split}.txt"] = lines(f"{f}, {n}, {coarse[n]}" for f, n in listed[split])
    texts["classes.csv"] = "Class Name (str), Class ID (int), Coarse Class Name (str)\n"
    root = make(tmp_path, [file for rows in listed.values() for file, _ in rows], texts)
    data = sources.load_dataset(root, layout="lists")
    assert data.class_names == tuple(folder.split("/")[-1] for folder in fine)
    for split, examples in data.splits.items():
        assert [(e.name, e.label) for e in examples] == listed[split]
    assert data.levels == (Level("coarse", ("Apple", "Apple", "Banana", "Milk", "Milk")),)


def test_vegfru(tmp_path):
    """Two halves, each with lists, folders and labels from 0 of its own."""
    halves = {"veg200": ("veg", ["cabbage", "leek"]), "fru92": ("fru", ["apple", "pear"])}
    texts, there = {}, []
    for folder, (half, names) in halves.items():
        for i, split in enumerate(("train", "val", "test")):
            rows = [f"{name}/{10 * i + k}.jpg {n}" for n, name in enumerate(names) for k in (0, 1)]
            texts[f"{folder}_lists/{half}_{split}.txt"] = lines(rows)
            there += [f"{folder}_images/{row.split()[0]}" for row in rows]
    data = read(make(tmp_path, there, texts))
    assert set(data.class_names) == {"cabbage", "leek", "apple", "pear"}
    for i, examples in enumerate((data.train, data.val, data.test)):
        assert sorted(told(examples, data)) == [
            (file, file.split("/")[1])
            for file in sorted(there)
            if int(file.split("/")[2][:-4]) // 10 == i
        ]
    groups = dict(zip(data.class_names, data.levels[0].groups, strict=True))
    assert groups == {"cabbage": "veg", "leek": "veg", "apple": "fru", "pear": "fru"}
    (warning,) = data.warnings
    assert "read as one: 2 classes of 'fru' and 2 classes of 'veg'." in warning
    # Classes that are called the same, as the domains of DomainNet have them, are asked about.
    texts["fru92_lists/fru_train.txt"] = "leek/77.jpg 0\n"
    (found,) = problems(make(tmp_path, ["fru92_images/leek/77.jpg"], texts))
    assert "2 classes of 'veg', and these may be the same classes or others; keep" in found


def test_online_products(tmp_path):
    """A header, and the file last: `image_id class_id super_class_id path`."""
    rows = [(k + 1, k // 2 + 1, k // 4 + 1, f"sofa_final/{k // 2}_{k}.JPG") for k in range(8)]
    header = ("image_id", "class_id", "super_class_id", "path")
    texts = {
        "Ebay_train.txt": lines(" ".join(map(str, row)) for row in [header, *rows[::2]]),
        "Ebay_test.txt": lines(" ".join(map(str, row)) for row in [header, *rows[1::2]]),
    }
    data = read(make(tmp_path, [row[3] for row in rows], texts))
    assert data.class_names == ("1", "2", "3", "4")
    assert [(e.name, e.label) for e in data.test] == [(row[3], row[1] - 1) for row in rows[1::2]]
    assert data.levels == (Level("super_class_id", ("1", "1", "2", "2")),)
    # As published, the classes of the test list are others.
    texts["Ebay_test.txt"] = lines([" ".join(header), "9 9 1 sofa_final/0_1.JPG"])
    (found,) = problems(make(tmp_path, [], texts))
    assert "no training image has the label '9'" in found


def test_dtd_and_sun397(tmp_path):
    """Several partitions, of which the first is read; SUN397 writes a slash before its files."""
    texts, there = {}, []
    for k in (1, 2, 10):
        for i, split in enumerate(("train", "val", "test")):
            named = [f"{name}/{name}_{(i + k) % 3}.jpg" for name in ("banded", "dotted")]
            texts[f"labels/{split}{k}.txt"] = lines(named)
            there += [f"images/{name}" for name in named]
    data = read(make(tmp_path / "dtd", there, texts))
    assert told(data.train, data) == [(f"images/{c}/{c}_1.jpg", c) for c in ("banded", "dotted")]
    assert told(data.val, data) == [(f"images/{c}/{c}_2.jpg", c) for c in ("banded", "dotted")]
    (warning,) = data.warnings
    assert "3 partitions" in warning
    assert "labels/train1.txt" in warning
    names = {"a/abbey": "abbey", "a/airfield": "airfield", "b/bar": "bar",
             "c/church/indoor": "c/church/indoor",
             "t/theater/indoor": "t/theater/indoor"}  # fmt: skip
    texts = {f"Partitions/{name}_0{k}.txt": lines(f"/{c}/sun_{k + i}.jpg" for c in names)
             for i, name in enumerate(("Training", "Testing")) for k in (1, 2)}  # fmt: skip
    there = [f"SUN397/{folder}/sun_{k}.jpg" for folder in names for k in (1, 2, 3)]
    data = read(make(tmp_path / "sun", there, texts))
    assert told(data.train, data) == [(f"SUN397/{c}/sun_1.jpg", names[c]) for c in names]
    assert told(data.test, data) == [(f"SUN397/{c}/sun_2.jpg", names[c]) for c in names]


def test_paddleclas_and_caffe(tmp_path):
    texts = {"train_list.txt": lines(f"jpg/image_{k:05}.jpg {k % 2}" for k in range(4)),
             "val_list.txt": lines(f"jpg/image_{k:05}.jpg {k % 2}" for k in (4, 5)),
             "train_extra_list.txt": lines(f"jpg/image_{k:05}.jpg {k % 2}" for k in range(6)),
             "label_list.txt": "0 pink primrose\n1 globe thistle\n"}  # fmt: skip
    data = read(make(tmp_path, [f"jpg/image_{k:05}.jpg" for k in range(6)], texts))
    assert ([e.label for e in data.train], [e.label for e in data.test]) == ([0, 1, 0, 1], [0, 1])
    assert data.recognised_by.startswith("train_list.txt and val_list.txt")
    # Caffe's ImageNet: a test list whose labels are all 0, only to fill the column.
    rows = {s: [(f"n0{k % 3}/{s}_{k}.JPEG", k % 3) for k in range(6)] for s in ("train", "val")}
    rows["test"] = [(f"test_{k}.JPEG", 0) for k in range(4)]
    texts = {f"{s}.txt": lines(f"{f} {n}" for f, n in rows[s]) for s in rows}
    there = [f"{split}/{file}" for split in rows for file, _ in rows[split]]
    root = make(tmp_path / "caffe", there, texts)
    data = sources.load_dataset(root, layout="lists")
    (warning,) = data.warnings
    assert "all 4 test images have the label '0'" in warning
    texts["test.txt"] = texts["test.txt"].replace(" 0", " -1")
    data = sources.load_dataset(make(root, [], texts), layout="lists")
    assert [e.name for e in data.test] == [f"val/{file}" for file, _ in rows["val"]]
    assert "'-1', which no training image has; they are left out" in data.warnings[0]


def test_mmpretrain(tmp_path):
    """ImageNet: the folders of the training images name the classes; others lie in none."""
    train = [(f"n0{k % 3}/n0{k % 3}_{k}.JPEG", k % 3) for k in range(6)]
    val = [(f"ILSVRC2012_val_{k:08}.JPEG", k % 3) for k in range(3)]
    texts = {f"meta/{split}.txt": lines(f"{f} {n}" for f, n in rows)
             for split, rows in (("train", train), ("val", val))}  # fmt: skip
    there = [f"train/{file}" for file, _ in train] + [f"val/{file}" for file, _ in val]
    data = sources.load_dataset(make(tmp_path, there, texts), layout="lists")
    assert data.class_names == ("n00", "n01", "n02")
    assert [(e.name, e.label) for e in data.test] == [(f"val/{file}", n) for file, n in val]


def test_one_list_of_all(tmp_path):
    """`labels.txt` and the like, where each line has an image and a label."""
    rows = [f"{k}.jpg {k % 3}" for k in range(15)]
    for name in ("labels.txt", "data/list.lst", "annotations/all.txt"):
        root = tmp_path / name.replace("/", "_")
        make(root, [f"images/{k}.jpg" for k in range(15)], {name: lines(rows)})
        data = read(root)
        assert data.recognised_by.startswith(f"{name}; test split: 20 % of the images")
        assert {(e.name, e.label) for e in data.train + data.test} == {
            (f"images/{k}.jpg", k % 3) for k in range(15)
        }
    make(root, [], {"train.txt": lines(rows[:12]), "val.txt": lines(rows[12:])})
    assert len(read(root).train) == 12  # lists of splits say more


def test_labels_in_a_file_of_their_own(tmp_path):
    """`train_images.txt` and `train_labels.txt` go line by line."""
    texts = {}
    for split, pairs in PAIRS.items():
        texts[f"{split}_images.txt"] = lines(file for file, _ in pairs)
        texts[f"{split}_labels.txt"] = lines(label for _, label in pairs)
    data = check(make(tmp_path, files(), texts))
    assert data.recognised_by == (
        "train_images.txt and train_labels.txt and test_images.txt and test_labels.txt"
    )
    make(tmp_path, [], {"test_labels.txt": "0\n1\n"})
    assert problems(tmp_path) == (
        f"{tmp_path / 'test_labels.txt'} has 2 lines, but {tmp_path / 'test_images.txt'} has 3 "
        "images; write a label for each.",
    )


def test_what_tells_no_classes(tmp_path):
    """Captions, boxes and lists of detectors."""
    there = [f"images/{split}/{k}.jpg" for split in ("train", "val") for k in range(12)]
    for label in ("a dog of the {}th kind", "{},5,60,70,0"):
        rows = [f"images/train/{k}.jpg {label.format(k)}" for k in range(12)]
        (found,) = problems(make(tmp_path, there, {"train.txt": lines(rows)}))
        assert "each of the 12 training images has another label (column 2), as '" in found
    texts = {f"{split}.txt": lines(f"/home/me/set/{file}" for file in there if split in file)
             for split in ("train", "val")}  # fmt: skip
    (found,) = problems(make(tmp_path, [], texts))
    assert "name files without classes, and neither their folders nor their names tell" in found


def test_a_test_list_without_labels_is_left_out(tmp_path):
    flat = {split: [file.replace("/", "-") for file, _ in PAIRS[split]] for split in PAIRS}
    labelled = zip(flat["train"], PAIRS["train"], strict=True)
    texts = {"train.txt": lines(f"{file} {label}" for file, (_, label) in labelled),
             "test.txt": lines(flat["test"])}  # fmt: skip
    data = read(make(tmp_path, [f"images/{file}" for split in flat.values() for file in split],
                     texts))  # fmt: skip
    assert len(data.train) + len(data.test) == 9
    assert f"{tmp_path / 'test.txt'} has no labels; its 3 images are left out." in data.warnings
    assert "cut by seed" in data.recognised_by


def test_two_columns(tmp_path):
    """One that tells the other is the class; else it is asked, and data.label_column says."""
    columns = {"fine": [0, 0, 1, 1, 2, 2], "coarse": [0, 0, 0, 0, 1, 1], "other": [0, 1] * 3}

    def write(*names, header=False):
        rows = [" ".join([f"{k}.jpg", *(str(columns[name][k]) for name in names)])
                for k in range(6)]  # fmt: skip
        text = lines([" ".join(["file", *names]), *rows] if header else rows)
        return make(tmp_path, [f"{k}.jpg" for k in range(6)], {"train.txt": text})

    for names in (("fine", "coarse"), ("coarse", "fine")):
        data = read(write(*names))
        assert data.num_classes == 3
        assert [level.groups for level in data.levels] == [("0", "0", "1")]
        assert read(write(*names, header=True)).levels[0].name == "coarse"
    (found,) = problems(write("fine", "other"))
    assert "more than one column may be the class" in found
    assert "data.label_column=2: 3 classes; data.label_column=3: 2 classes" in found
    assert read(tmp_path, label_column="3").num_classes == 2
    assert read(write("fine", "other", header=True), label_column="other").num_classes == 2
    (found,) = problems(tmp_path, label_column="genus")
    assert "there is no column 'genus', only 'fine', 'other'" in found


def test_folders_within_folders_are_asked_about(tmp_path):
    named = [f"{c}/{k}.jpg" for c in ("Fruit/Red", "Fruit/Pear", "Root/Red") for k in range(4)]
    root = make(tmp_path, [f"images/{name}" for name in named], {"train.txt": lines(named)})
    (found,) = problems(root)
    assert "data.class_level=top, 2 as 'Fruit'" in found
    assert "data.class_level=leaf, 3 as 'Fruit/Pear'" in found
    assert read(root, class_level="top").class_names == ("Fruit", "Root")
    data = read(root, class_level="leaf")
    assert data.class_names == ("Fruit/Red", "Pear", "Root/Red")
    assert data.levels == (Level("level 1", ("Fruit", "Fruit", "Root")),)
    assert read(root, class_level="2").class_names == data.class_names


def test_the_class_in_the_name_of_the_file(tmp_path):
    named = [f"{c}_{k}.jpg" for c in ("american_bulldog", "Bengal") for k in range(3)]
    root = make(tmp_path, named, {"train.txt": lines(named)})
    data = read(root)
    assert data.class_names == ("Bengal", "american_bulldog")
    assert "told by the names of the files, as 'american_bulldog'" in data.warnings[0]
    for camera in ("IMG", "DSC"):
        there = [f"{c}_{k}.jpg" for c in ("a", camera) for k in range(3)]
        root = make(tmp_path / camera, there, {"train.txt": lines(there)})
        (found,) = problems(root)
        assert "name files without classes" in found


def test_what_is_no_list(tmp_path):
    """Texts of other kinds, also such as have a split in their names."""
    texts = {
        "README.txt": "See rose/1.jpg\n", "requirements.txt": "jax\n", "test_requirements.txt": "x",
        "labels.txt": "rose\ntulip\n", "train_log.txt": "epoch 1 loss 0.3\n",
        "training.txt": "We trained for 3 days.\n", "test.txt": "rose/1.jpg 0\n",
    }  # fmt: skip
    there = [f"{name}/{k}.jpg" for name in ("rose", "tulip") for k in range(3)]
    assert read(make(tmp_path, there, texts)).layout == "folders"


def test_lists_and_folders_that_agree_or_differ(tmp_path):
    """mmpretrain's lists and class folders say the same; a list of a few images is asked about."""
    texts = {f"meta/{split}.txt": lines(f"{f} {n}" for f, n in PAIRS[split]) for split in PAIRS}
    data = read(make(tmp_path, files("{split}/"), texts))
    assert data.layout == "lists"
    assert "the layout folders (train/<class>/ and test/<class>/) says the same" in (
        data.recognised_by
    )
    whole = texts["meta/train.txt"].splitlines()
    texts["meta/train.txt"] = lines(whole[1:])
    data = read(make(tmp_path, [], texts))
    assert (data.layout, len(data.train)) == ("lists", 8)
    assert any(
        "1 image that is in folders is in no list, and not read." in w for w in data.warnings
    )
    texts["meta/train.txt"] = lines(whole[::3])
    texts["meta/test.txt"] = lines(texts["meta/test.txt"].splitlines()[:1])
    (found,) = problems(make(tmp_path, [], texts))
    for said in (
        "data.layout=lists, by meta/train.txt and meta/test.txt: 3 classes, 3 training",
        "data.layout=folders, by train/<class>/ and test/<class>/: 3 classes, 9 training",
    ):
        assert said in found


def test_ufg_with_labels_from_zero_or_commas(tmp_path):
    """UFG's own form stays UFG's; what only lies in anno/ as well is a list."""
    for name, form, layout in (("ufg", "{} {}", "ufg"), ("commas", "{},{}", "lists")):
        texts = {f"anno/{split}.txt": lines(form.format(f, n + 1) for f, n in PAIRS[split])
                 for split in PAIRS}  # fmt: skip
        assert read(make(tmp_path / name, files(), texts)).layout == layout
    texts = {f"anno/{split}.txt": lines(f"{f} {n}" for f, n in PAIRS[split]) for split in PAIRS}
    check(make(tmp_path / "zero", files(), texts))
    many = [(f"{k}.jpg", k % 5 + 1) for k in range(50)]  # one label 0 is a slip, not a class
    texts = {f"anno/{split}.txt": lines(f"{f} {n}" for f, n in many) for split in PAIRS}
    texts["anno/train.txt"] += "0.jpg 0\n"
    found = problems(make(tmp_path / "slip", [f"images/{f}" for f, _ in many], texts))
    assert "is 0, but labels start at 1" in found[0]


def test_bad_lines_are_named_once(tmp_path):
    texts = {f"{split}.txt": lines(f"{f} {n}" for f, n in PAIRS[split]) for split in PAIRS}
    path = tmp_path / "train.txt"
    root = make(tmp_path, files(), texts | {"train.txt": texts["train.txt"] + "gone.jpg 1\n"})
    assert problems(root) == (f"{path}, line 10: the file 'gone.jpg' is not in images/.",)
    more = "".join(f"gone/{k}.jpg 1\n" for k in range(5000))
    make(tmp_path, [], {"train.txt": texts["train.txt"] + more})
    with pytest.raises(DataError) as caught:
        read(root)
    assert str(caught.value) == (
        f"{path}: 5,000 of 5,009 files are not there ('gone/0.jpg', 'gone/1.jpg', "
        "'gone/2.jpg', ...)."
    )
    make(tmp_path, [], {"train.txt": texts["train.txt"] + "../a.jpg 1\n/etc/b.jpg 1\n"})
    assert [problem.split(": ")[1] for problem in problems(root)] == [
        "the file '../a.jpg' points out of images/.",
        "the file '/etc/b.jpg' is not in images/.",
    ]
    make(tmp_path, [], {"train.txt": texts["train.txt"] + "rose/1.jpg 2\n"})
    (found,) = problems(root)
    assert "'images/rose/1.jpg' has label '2' here but label '0'" in found
    make(tmp_path, [], {"train.txt": texts["train.txt"] + "rose/1.jpg\n"})
    (found,) = problems(root)
    assert "line 10: expected a file and 1 more, as most lines have, not 'rose/1.jpg'" in found
    make(tmp_path, [], {"train.txt": texts["train.txt"], "test.txt": ""})
    assert problems(root) == (f"{root / 'test.txt'} lists no image.",)
    make(tmp_path, [], {"train.txt": texts["train.txt"].encode() + b"\xff.jpg 1\n"})
    assert "train.txt, line 10: not UTF-8 text" in problems(root)[0]


def test_what_may_be_one_of_several(tmp_path):
    texts = {f"{split}.txt": lines(f"{f} {n}" for f, n in PAIRS[split]) for split in PAIRS}
    root = make(tmp_path / "images", files("color/") + files("grey/"), texts)
    assert "the files that it lists are in color/ as well as in grey/" in problems(root)[0]
    root = make(tmp_path / "lists", files(), texts | {"anno/tr_train.txt": "rose/0.jpg 0\n"})
    assert read(root).num_classes == 3  # a list without a partner counts less
    make(root, [], {"meta/train.txt": "rose/0.jpg 0\n"})
    (found,) = problems(root)
    assert "meta/train.txt and train.txt may both be the list of the train split" in found
    make(root, [], {"meta/train.txt": texts["train.txt"]})
    assert read(root).num_classes == 3  # a copy
    root = make(tmp_path / "endings", files() + files("images/x").copy(), texts)
    make(root, ["images/rose/0.png"], {"train.txt": texts["train.txt"].replace(".jpg", "")})
    (found,) = problems(root)
    assert "may be any of 'images/rose/0.jpg', 'images/rose/0.png'; write its ending" in found


def test_files_named_without_their_folder(tmp_path):
    named = {split: [(f"{c}_{i}{k}.jpg", c) for c in "ab" for k in range(2)]
             for i, split in enumerate(("train", "test"))}  # fmt: skip
    texts = {f"{split}.txt": lines(f"{f} {c}" for f, c in named[split]) for split in named}
    root = make(tmp_path, [f"img/{c}/{f}" for rows in named.values() for f, c in rows], texts)
    data = read(root)
    assert told(data.train, data) == [(f"img/{c}/{f}", c) for f, c in named["train"]]
    assert "names files without their folder; 4 are found by their names" in data.warnings[0]
