"""Classes in the names of files, by a pattern; and patterns that are suggested."""

import pathlib
import re

import pytest

from clevit_jax.data import sources
from clevit_jax.data.layouts.folder import file_names
from clevit_jax.data.layouts.listing import Request
from clevit_jax.errors import DataError


def make(root: pathlib.Path, names: list[str]) -> pathlib.Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def load(root, pattern, **options):
    return sources.load_dataset(root, request=Request(label_pattern=pattern), **options)


def problems(root, pattern, **options) -> tuple[str, ...]:
    with pytest.raises(DataError) as caught:
        load(root, pattern, **options)
    return caught.value.problems


def listed(data, examples) -> list[tuple[str, str]]:
    return [(example.name, data.class_names[example.label]) for example in examples]


CATS = [f"{name}.{i}.jpg" for name in ("cat", "dog") for i in range(5)]
PETS = [f"{name}_{i}.jpg" for name in ("Abyssinian", "american_bulldog") for i in range(4)]


@pytest.mark.parametrize("folder", ["", "train/", "images/", "a/b/"])
def test_flat_images(tmp_path, folder):
    data = load(make(tmp_path, [folder + name for name in CATS]), r"^(.+?)[._ -]?[0-9]+$")
    assert (data.layout, data.class_names) == ("file_names", ("cat", "dog"))
    assert data.recognised_by.startswith("data.label_pattern = ^(.+?)[._ -]?[0-9]+$; test split")
    assert sorted(listed(data, data.train + data.test)) == [
        (folder + name, name.partition(".")[0]) for name in CATS
    ]


def test_folders_of_splits_and_what_does_not_fit(tmp_path):
    names = [f"{split}/{name}" for split in ("cars_train", "cars_test") for name in PETS]
    make(tmp_path, [*names, "cars_train/x.png", "x_1.png", "cars_pred/cat_1.png", "train.txt"])
    data = load(tmp_path, r"^(?P<label>.+)_[0-9]+$")
    assert data.class_names == ("Abyssinian", "american_bulldog")
    for split, examples in (("cars_train", data.train), ("cars_test", data.test)):
        expected = [(f"{split}/{name}", re.sub(r"_\d.jpg", "", name)) for name in PETS]
        assert listed(data, examples) == expected
    (warning,) = data.warnings
    assert warning == (
        f"{tmp_path}: data.label_pattern = '^(?P<label>.+)_[0-9]+$' matches all but 3 of the 19 "
        "images; these are not read (cars_pred/cat_1.png, cars_train/x.png, x_1.png)."
    )


def test_test_images_without_a_class(tmp_path):
    make(tmp_path, [*(f"train/{name}" for name in CATS), "test1/1.jpg", "test1/2.jpg"])
    data = load(tmp_path, r"^([a-z]+)\.[0-9]+$")
    assert (len(data.train), len(data.test)) == (8, 2)  # cut
    assert "matches all but 2 of the 12 images" in data.warnings[0]
    make(tmp_path, ["test1/cow.1.jpg"])
    (found,) = problems(tmp_path, r"^([a-z]+)\.[0-9]+$")
    assert found.startswith(f"{tmp_path}: no training image is of 'cow', but images of the test")


def test_the_path_counts_where_the_pattern_has_a_slash(tmp_path):
    names = [f"{genus}/{name}/{i}.jpg" for genus in "ab" for name in "xy" for i in range(2)]
    make(tmp_path, [f"train/{name}" for name in names] + [f"test/{name}" for name in names])
    data = load(tmp_path, r"^([^/]+/[^/]+)/", layout="file_names")
    assert data.class_names == ("a/x", "a/y", "b/x", "b/y")
    assert load(tmp_path, r"^(\d)", layout="file_names").class_names == ("0", "1")


@pytest.mark.parametrize(
    ("pattern", "said"),
    [
        ("(", "data.label_pattern = '(' is no regular expression (missing ), unterminated"),
        ("(?P<1>x)", "is no regular expression (bad character in group name"),
        ("cat|dog", "data.label_pattern = 'cat|dog' has no group; put the part that is the class"),
        (
            "(cow)",
            "data.label_pattern = '(cow)' matches none of the 10 images (cat.0.jpg, cat.1.jpg,",
        ),
        ("(x?)", "data.label_pattern = '(x?)' matches none of the 10 images"),
        ("", "data.layout=file_names needs data.label_pattern, a regular expression with the"),
    ],
)
def test_patterns_that_do_not_work(tmp_path, pattern, said):
    (found,) = problems(make(tmp_path, CATS), pattern, layout="file_names")
    assert said in found


def test_without_images(tmp_path):
    assert problems(tmp_path, "(x)") == (f"{tmp_path} holds no image.",)
    make(tmp_path, ["test/x.png", "val/x.png"])
    data, found = sources.scan(tmp_path, request=Request(label_pattern="(x)"))
    assert data.train or found


SUGGESTED = [
    (CATS, ("cat", "dog"), 10),
    (PETS, ("Abyssinian", "american_bulldog"), 8),
    ([f"{n} ({i}).png" for n in ("é", "玫瑰") for i in range(3)], ("é", "玫瑰"), 6),
    ([f"{i:03}_{n}.png" for n in ("cat", "big dog") for i in range(3)], ("big dog", "cat"), 6),
    ([f"rose2_{i}.png" for i in range(3)] + [f"rose1_{i}.png" for i in range(3)],
     ("rose1", "rose2"), 6),
    ([f"{n}-{s}-{i}b.png" for n in ("oak", "ash") for s in "lr" for i in range(3)],
     ("ash", "oak"), 12),
    ([f"cat{i}.png" for i in range(9)] + [f"dog{i}.png" for i in range(9)] + ["x.png"],
     ("cat", "dog"), 18),
]  # fmt: skip


@pytest.mark.parametrize("folder", ["", "train/", "images/"])
@pytest.mark.parametrize(("names", "classes", "count"), SUGGESTED)
def test_suggestions_do_what_they_say(tmp_path, names, classes, count, folder):
    make(tmp_path, [folder + name for name in names])
    said = file_names.suggest(tmp_path)
    pattern = re.search(r"--config\.data\.label_pattern='(.*)' finds", said)[1]
    assert said.endswith(
        f" finds {len(classes)} classes in {count} of {len(names)} images ({', '.join(classes)})."
    )
    data = load(tmp_path, pattern)
    assert data.class_names == classes
    assert len(data.train + data.test) == count


@pytest.mark.parametrize(
    "names",
    [
        [f"{i}.jpg" for i in range(30)],
        [f"IMG_{i}.jpg" for i in range(5)] + [f"DSC_{i}.jpg" for i in range(5)],
        [f"cat.{i}.jpg" for i in range(10)],
        ["cat.0.jpg", "cat.1.jpg", "dog.0.jpg"],
        [f"{name}_1.jpg" for name in "abcdef"],
        [f"cat.{i}.txt" for i in range(5)] + [f"dog.{i}.txt" for i in range(5)],
        [f"a/{name}" for name in CATS] + [f"b/{name}" for name in CATS],
        [],
    ],
)
def test_nothing_obvious(tmp_path, names):
    assert file_names.suggest(make(tmp_path, names)) is None


def test_many_classes_are_not_all_named(tmp_path):
    names = [f"{letter * 2}_{i}.png" for letter in "abcdefgh" for i in range(2)]
    assert "finds 8 classes in 16 of 16 images (aa, bb, cc, dd, ee, ...)." in file_names.suggest(
        make(tmp_path, names)
    )
