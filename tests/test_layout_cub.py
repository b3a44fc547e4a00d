"""CUB-200-2011 and NABirds, on generated sets."""

import os
import pathlib
import tempfile
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clevit_jax.data import sources
from clevit_jax.data.dataset import Level
from clevit_jax.errors import DataError

IMAGES = [
    ("1", "001.Black_footed_Albatross/a 1.jpg"),
    ("2", "002.Laysan_Albatross/b.jpg"),
    ("3", "001.Black_footed_Albatross/c.jpg"),
    ("4", "002.Laysan_Albatross/d.JPG"),
]
LABELS = [("1", "1"), ("2", "2"), ("3", "1"), ("4", "2")]
SPLIT = [("1", "1"), ("2", "1"), ("3", "0"), ("4", "0")]
CLASSES = [("1", "001.Black_footed_Albatross"), ("2", "002.Laysan_Albatross")]
PARTS = {
    "images.txt": IMAGES,
    "image_class_labels.txt": LABELS,
    "train_test_split.txt": SPLIT,
    "classes.txt": CLASSES,
}


def text(pairs) -> bytes:
    return "".join(f"{key} {value}\n" for key, value in pairs).encode()


def make(root: pathlib.Path, changes=None, files=None) -> pathlib.Path:
    """The set, with some of its files replaced, or left out by None."""
    for name in [name for _, name in IMAGES] if files is None else files:
        (root / "images" / name).parent.mkdir(parents=True, exist_ok=True)
        (root / "images" / name).touch()
    contents = {name: text(pairs) for name, pairs in PARTS.items()} | (changes or {})
    for name, content in contents.items():
        if content is None:
            (root / name).unlink(missing_ok=True)
        else:
            (root / name).write_bytes(content)
    return root


def problems(root, **options) -> tuple[str, ...]:
    with pytest.raises(DataError) as caught:
        sources.load_dataset(root, **options)
    return caught.value.problems


def test_cub(tmp_path):
    data = sources.load_dataset(make(tmp_path))
    assert (data.layout, data.warnings) == ("cub", ())
    assert data.recognised_by == "images.txt and image_class_labels.txt"
    assert data.class_names == tuple(name for _, name in CLASSES)
    assert [tuple(e) for e in data.train] == [
        (tmp_path / "images" / IMAGES[0][1], 0, 0, IMAGES[0][1]),
        (tmp_path / "images" / IMAGES[1][1], 1, 1, IMAGES[1][1]),
    ]
    assert [(e.name, e.label) for e in data.test] == [(IMAGES[2][1], 0), (IMAGES[3][1], 1)]


@pytest.mark.parametrize("name", list(PARTS))
@pytest.mark.parametrize(
    "change",
    [
        lambda content: b"\xef\xbb\xbf" + content,
        lambda content: content.replace(b"\n", b"\r\n"),
        lambda content: content.replace(b"\n", b"\r"),
        lambda content: content.rstrip(b"\n"),
        lambda content: b"\n " + content.replace(b"\n", b"\n\n"),
        lambda content: content.replace(b"\n", b" \t\n").replace(b"1 ", b"1 \t "),
    ],
    ids=["bom", "crlf", "cr", "no last newline", "empty lines", "blanks"],
)
def test_text_variants(tmp_path, name, change):
    # Without the one name that has a blank in it: more blanks there make another name.
    files = [file.replace("a 1", "a1") for _, file in IMAGES]
    base = {part: text(pairs).replace(b"a 1", b"a1") for part, pairs in PARTS.items()}
    plain = sources.load_dataset(make(tmp_path / "plain", base, files))
    other = sources.load_dataset(make(tmp_path / "other", base | {name: change(base[name])}, files))
    assert other.class_names == plain.class_names
    assert [[e[1:] for e in inside] for inside in other.splits.values()] == [
        [e[1:] for e in inside] for inside in plain.splits.values()
    ]


@pytest.mark.parametrize("between", [",", ", ", "\t", "\t "])
@pytest.mark.parametrize("blank", ["a 1", "a1"])
def test_commas_and_tabs(tmp_path, between, blank):
    """Between ids and values; names with blanks and commas stay whole."""
    names = [name.replace("a 1", blank) for _, name in IMAGES]
    names[3] = names[3].replace("d.JPG", "d, e.JPG")
    parts = {**PARTS, "images.txt": list(enumerate(names, start=1))}
    parts["classes.txt"] = [("1", "Black-footed, great"), ("2", "Laysan")]
    lines = {name: "".join(f"{key}{between}{value}\n" for key, value in pairs).encode()
             for name, pairs in parts.items()}  # fmt: skip
    data = sources.load_dataset(make(tmp_path, lines, names))
    assert data.class_names == ("Black-footed, great", "Laysan")
    assert [(e.name, e.label) for e in data.train] == [(names[0], 0), (names[1], 1)]
    assert [(e.name, e.label) for e in data.test] == [(names[2], 0), (names[3], 1)]


def test_ids_and_labels_from_zero(tmp_path):
    parts = {
        name: text((int(key) - 1, int(value) - 1 if name == "image_class_labels.txt" else value)
                   for key, value in pairs)
        for name, pairs in PARTS.items()
    }  # fmt: skip
    data = sources.load_dataset(make(tmp_path, parts))
    assert (data.class_names, data.warnings) == (tuple(name for _, name in CLASSES), ())
    assert [(e.name, e.label) for e in data.train] == [(IMAGES[0][1], 0), (IMAGES[1][1], 1)]
    assert [e.label for e in data.test] == [0, 1]
    make(tmp_path, {**parts, "classes.txt": None})
    again = sources.load_dataset(tmp_path)
    assert (again.class_names, again.split_hash()) == (data.class_names, data.split_hash())
    # Names that begin at 1 go with none of them.
    make(tmp_path, {**parts, "classes.txt": text(CLASSES)})
    assert "is 0, but labels start at 1" in problems(tmp_path)[0]


def test_images_in_the_names_of_files_and_words_for_splits(tmp_path):
    changes = {
        "images.txt": text((key, f"images/{name}") for key, name in IMAGES),
        "train_test_split.txt": text(zip("1234", ("train", "train", "val", "test"), strict=True)),
    }
    data = sources.load_dataset(make(tmp_path, changes))
    assert [e.name for e in data.train] == [IMAGES[0][1], IMAGES[1][1]]
    assert ([e.name for e in data.val], [e.name for e in data.test]) == (
        [IMAGES[2][1]],
        [IMAGES[3][1]],
    )


def test_class_names(tmp_path):
    names = text([("2", "Laysan Albatross"), ("1", "Black-footed")])
    root = make(tmp_path, {"classes.txt": names})
    assert sources.load_dataset(root).class_names == ("Black-footed", "Laysan Albatross")
    make(root, {"classes.txt": None})
    assert sources.load_dataset(root).class_names == tuple(name for _, name in CLASSES)
    mixed = [("1", "1"), ("2", "2"), ("3", "2"), ("4", "2")]  # one folder, two classes
    make(root, {"classes.txt": None, "image_class_labels.txt": text(mixed)})
    assert sources.load_dataset(root).class_names == ("1", "2")
    # Images in no folder, only some in one, and a class of two folders.
    for files in ["1.jpg 2.jpg 3.jpg 4.jpg", "a/1.jpg 2.jpg a/3.jpg 4.jpg",
                  "a/1.jpg b/2.jpg a/3.jpg c/4.jpg"]:  # fmt: skip
        images = text(enumerate(files.split(), start=1))
        root = make(tmp_path / files.replace("/", "_"), {"classes.txt": None, "images.txt": images},
                    files.split())  # fmt: skip
        assert sources.load_dataset(root).class_names == ("1", "2")


def test_nabirds(tmp_path):
    """Ids that are uuids, and 555 classes among 1011, those of a tree, whose root is 0."""
    keys = [f"0000139e-21dc-4d0c-bfe1-4cae3c85c82{k}" for k in range(4)]
    labels = ["0817", "295", "817", "1010"]
    names = {0: "Birds", 5: "Ducks", 295: "Oak", 817: "Ash (Adult male)", 1010: "Elm"}
    changes = {
        "images.txt": [
            (key, f"{label}/{key}.jpg") for key, label in zip(keys, labels, strict=True)
        ],
        "image_class_labels.txt": list(zip(keys, labels, strict=True)),
        "train_test_split.txt": list(zip(keys, "1101", strict=True)),
        "classes.txt": list(names.items()),
    }
    root = make(tmp_path, {name: text(pairs) for name, pairs in changes.items()},
                [name for _, name in changes["images.txt"]])  # fmt: skip
    data = sources.load_dataset(root)
    assert data.class_names == ("Oak", "Ash (Adult male)", "Elm")
    assert ([e.label for e in data.train], [e.label for e in data.test]) == ([1, 0, 2], [1])
    (warning,) = data.warnings
    assert "1007 of the labels 1 to 1010 have no training image (1, 2, 3, ...)" in warning


def test_the_hierarchy_of_nabirds(tmp_path):
    """Levels are the ways from the root; a class that lies higher than others fills up."""
    names = {0: "Birds", 1: "Ducks", 2: "Hawks", 3: "Mallard", 4: "Teal", 5: "Kite",
             6: "Mallard (Male)", 7: "Mallard (Female)"}  # fmt: skip
    parents = {1: 0, 2: 0, 3: 1, 4: 1, 5: 2, 6: 3, 7: 3}
    labels = [4, 5, 6, 7]
    files = [f"{label:04}/{k}.jpg" for label in labels for k in (0, 1)]
    changes = {
        "images.txt": text(enumerate(files)),
        "image_class_labels.txt": text((k, labels[k // 2]) for k in range(8)),
        "train_test_split.txt": text((k, 1 - k % 2) for k in range(8)),
        "classes.txt": text(names.items()),
        "hierarchy.txt": text(parents.items()),
    }
    data = sources.load_dataset(make(tmp_path, changes, files))
    assert data.class_names == ("Teal", "Kite", "Mallard (Male)", "Mallard (Female)")
    assert data.levels == (
        Level("level 1", ("Ducks", "Hawks", "Ducks", "Ducks")),
        Level("level 2", ("Teal", "Kite", "Mallard", "Mallard")),
    )
    make(tmp_path, {**changes, "hierarchy.txt": text([*parents.items(), (0, 7)])}, files)
    data = sources.load_dataset(tmp_path)
    assert data.levels == ()
    assert any("hierarchy.txt: " in said and "is above itself" in said for said in data.warnings)


def test_without_a_split_file(tmp_path):
    files = [f"{c}/{k}.jpg" for c in "ab" for k in range(5)]
    changes = {
        "images.txt": text(enumerate(files)),
        "image_class_labels.txt": text((k, 1 + k // 5) for k in range(10)),
        "train_test_split.txt": None,
        "classes.txt": None,
    }
    data = sources.load_dataset(make(tmp_path, changes, files))
    assert data.recognised_by.endswith("test split: 20 % of the images, cut by seed 0")
    assert (data.class_names, len(data.train), len(data.test)) == (("a", "b"), 8, 2)


@pytest.mark.parametrize(
    ("name", "line", "said"),
    [
        ("images.txt", "5 gone.jpg", "the file 'gone.jpg' is not in images/."),
        ("images.txt", "5 ../x.jpg", "the file '../x.jpg' points out of images/; "),
        ("images.txt", "5 a/../../x.jpg", "points out of images/; "),
        ("images.txt", "5 ..\\x.jpg", "points out of images/; "),
        ("images.txt", "5 /etc/x.jpg", "points out of images/; "),
        ("images.txt", "5 C:\\x.jpg", "points out of images/; "),
        ("images.txt", "5", "expected '<id> <value>', not '5'."),
        ("images.txt", "1 002.Laysan_Albatross/b.jpg", "the id '1' is on line 1, too; remove one."),
        ("images.txt", "x 002.Laysan_Albatross/b.jpg", "'x' is not in image_class_labels.txt."),
        ("image_class_labels.txt", "5 one", "the label 'one' of '5' is not an integer."),
        ("image_class_labels.txt", "5 1.0", "is not an integer."),
        ("image_class_labels.txt", "5 0", "the label of '5' is 0, but labels start at 1."),
        ("image_class_labels.txt", "5 1", "the id '5' is not in images.txt."),
        ("image_class_labels.txt", "4 1", "the id '4' is on line 4, too; remove one."),
        ("train_test_split.txt", "5 2", "the value of '5' is '2'; it must be 1 (training) or 0"),
        ("train_test_split.txt", "5 1", "the id '5' is not in images.txt."),
        ("train_test_split.txt", "1 1", "the id '1' is on line 1, too; remove one."),
        ("classes.txt", "x y", "the label 'x' of 'y' is not an integer."),
        ("classes.txt", "-1 y", "the label of 'y' is -1, but labels start at 1."),
        ("classes.txt", "02 y", "label 02 has another name above."),
    ],
)  # fmt: skip
def test_bad_line_is_named(tmp_path, name, line, said):
    number = len(PARTS[name]) + 2
    root = make(tmp_path, {name: text(PARTS[name]) + b"\n" + line.encode() + b"\n"})
    found = problems(root)
    assert [s for s in found if s.startswith(f"{root / name}, line {number}: ") and said in s]


@pytest.mark.parametrize("name", ["image_class_labels.txt", "train_test_split.txt", "images.txt"])
def test_missing_ids_are_all_listed(tmp_path, name):
    root = make(tmp_path, {name: text(PARTS[name][2:])})
    lost = [s for s in problems(root) if s.endswith(f"is not in {name}.")]
    others = ["images.txt"] if name != "images.txt" else list(PARTS)[1:3]
    assert lost == [
        f"{root / other}, line {key}: the id '{key}' is not in {name}."
        for other in others
        for key in (1, 2)
    ]


def test_all_problems_at_once(tmp_path):
    changes = {
        "images.txt": text([*IMAGES, ("5", "gone.jpg")]),
        "image_class_labels.txt": text([*LABELS[:2], ("3", "x"), ("4", "3"), ("5", "2")]),
        "train_test_split.txt": text([*SPLIT, ("5", "yes")]),
        "classes.txt": text([*CLASSES, ("4", CLASSES[0][1])]),
    }
    root = make(tmp_path, changes)
    assert problems(root) == (
        f"{root / 'images.txt'}, line 5: the file 'gone.jpg' is not in images/.",
        f"{root / 'image_class_labels.txt'}, line 3: the label 'x' of {IMAGES[2][1]!r} is not an "
        "integer.",
        f"{root / 'train_test_split.txt'}, line 5: the value of '5' is 'yes'; it must be 1 "
        "(training) or 0 (testing).",
        f"{root / 'classes.txt'} does not name label 3, that of {IMAGES[3][1]!r}.",
        f"{root / 'image_class_labels.txt'}, line 4: no training image has the label '3'.",
    )


def test_two_classes_of_one_name(tmp_path):
    root = make(tmp_path, {"classes.txt": text([("1", "a"), ("2", "a")])})
    (found,) = problems(root)
    assert "line 2: the class name 'a' goes with label '2' here but with label '1' at" in found


def test_files_that_are_missing_or_empty(tmp_path):
    root = make(tmp_path / "forced", {"images.txt": None})
    assert problems(root, layout="cub") == (f"{root / 'images.txt'} is missing.",)
    assert problems(root)[0].startswith(f"{root} has no known layout")
    root = make(tmp_path / "empty", {"images.txt": b"\n", "image_class_labels.txt": b"",
                                     "train_test_split.txt": None})  # fmt: skip
    assert problems(root) == (f"{root} lists no image for training.",)
    root = make(tmp_path / "trained", {"train_test_split.txt": text((k, 1) for k in range(1, 5))})
    assert problems(root) == (f"{root} has a test split, but no image in it.",)
    root = make(tmp_path / "tested", {"train_test_split.txt": text((k, 0) for k in range(1, 5))})
    assert problems(root) == (f"{root} lists no image for training.",)
    root = make(tmp_path / "bytes", {"image_class_labels.txt": b"1 1\n2 \xff\n"})
    (found,) = problems(root)
    assert found.startswith(f"{root / 'image_class_labels.txt'}, line 2: not UTF-8 text")
    root = make(tmp_path / "bare")
    (root / "images").rename(root / "pictures")
    assert problems(root) == (f"{root / 'images'} is missing: the listed files belong there.",)


def test_a_file_under_two_ids(tmp_path):
    again = {
        "images.txt": text([*IMAGES, ("5", IMAGES[0][1])]),
        "image_class_labels.txt": text([*LABELS, ("5", "2")]),
        "train_test_split.txt": text([*SPLIT, ("5", "1")]),
    }
    root = make(tmp_path, again)
    place = root / "image_class_labels.txt"
    assert problems(root) == (
        f"{place}, line 5: {IMAGES[0][1]!r} has label '2' here but label '1' at {place}, line 1.",
    )


def test_paths_that_point_out_are_never_examples(tmp_path):
    root = make(tmp_path, {"images.txt": text([("1", "../a.jpg"), *IMAGES[1:]])})
    assert [e.name for e in sources.scan(root)[0].train] == [IMAGES[1][1]]


def test_no_stat_for_each_file(tmp_path, monkeypatch):
    root = make(tmp_path)
    calls = []
    for where, name in [(pathlib.Path, "stat"), (os, "stat"), (os, "scandir")]:
        kept = getattr(where, name)

        def counted(path, *args, kept=kept, **options):
            calls.append(str(path))
            return kept(path, *args, **options)

        monkeypatch.setattr(where, name, counted)
    sources.load_dataset(root, layout="cub")
    assert not [path for path in calls if path.lower().endswith(".jpg")]
    assert calls.count(str(root / "images" / "002.Laysan_Albatross")) == 1


# Lines cannot hold their own ends, and blanks around a name do not belong to it.
_PIECES = ["?", "%20", "#", ",", '"', "'", " ", "e\u0301", "é", "=", "..", "\u00a0", "\u2028"]
_CHARACTERS = st.characters(exclude_categories=("Cs",), exclude_characters="\0/\\:\r\n")
_NAMES = (
    st.lists(_CHARACTERS | st.sampled_from(_PIECES), max_size=8).map("".join)
    .map(lambda name: name.strip(" \t"))
)  # fmt: skip
_IDS = st.text(st.characters(exclude_categories=("Cs", "Cc"), exclude_characters=" "), min_size=1)


@settings(max_examples=100)
@given(
    names=st.lists(st.tuples(_NAMES, _NAMES), min_size=1, max_size=5),
    keys=st.lists(_IDS, min_size=5, max_size=5, unique=True),
    class_names=st.lists(_NAMES.filter(bool), min_size=2, max_size=2, unique=True),
    blank=st.sampled_from([" ", "\t", "  "]),
    line_end=st.sampled_from(["\n", "\r\n", "\r"]),
    mark=st.sampled_from([b"", b"\xef\xbb\xbf"]),
    ended=st.booleans(),
)
def test_names_are_read_as_written(names, keys, class_names, blank, line_end, mark, ended):
    files = [f"{folder}_/{name}{k}.JPG" for k, (folder, name) in enumerate(names)]
    keys = [f"{k}{key}" for k, key in enumerate(keys)][: len(files)]  # no mark of byte order first
    columns = {
        "images.txt": zip(keys, files, strict=True),
        "image_class_labels.txt": ((key, 1 + k % 2) for k, key in enumerate(keys)),
        "train_test_split.txt": None,
        "classes.txt": enumerate(class_names, start=1),
    }
    changes = {}
    for name, pairs in columns.items():
        content = line_end.join(f"{key}{blank}{value}" for key, value in pairs or ())
        content += line_end * ended
        changes[name] = None if pairs is None else mark + content.encode()
    with tempfile.TemporaryDirectory() as folder:
        root = make(pathlib.Path(folder), changes, files)
        data, _ = sources.scan(root, split=sources.SplitConfig(test_fraction=0))
        assert all(e.data.is_file() for e in data.train)
    assert [e.name for e in data.train] == files
    assert [data.class_names[e.label] for e in data.train] == [
        class_names[k % 2] for k in range(len(files))
    ]


def test_accents_in_another_form_are_found(tmp_path):
    files = [unicodedata.normalize("NFC", f"é/{k}.jpg") for k in "1234"]
    images = [(str(k), unicodedata.normalize("NFD", name)) for k, name in enumerate(files, 1)]
    images[1] = ("2", "é\\2.jpg")
    root = make(tmp_path, {"images.txt": text(images)}, files)
    assert [e.name for e in sources.load_dataset(root).train] == files[:2]


def test_a_split_of_another_name_is_not_passed_over_in_silence(tmp_path):
    root = make(tmp_path, {"train_test_split.txt": None, "train_val_test_split.txt": b"1 0\n"})
    (said,) = [s for s in sources.scan(root)[0].warnings if "split" in s]
    assert (
        "train_val_test_split.txt: not read; for these splits, write train_test_split.txt" in said
    )
