"""Lists in JSON as programs for labelling and libraries write them."""

import itertools
import json
import pathlib

import pytest

from clevit_jax.data import sources
from clevit_jax.data.layouts.record.json_forms import begun
from clevit_jax.errors import DataError

NAMES = ("rose", "tulip", "lily")
COUNT = 9
FILES = [f"{i:04}.jpg" for i in range(COUNT)]


def of(i: int) -> str:
    return NAMES[i % 3]


def make(root: pathlib.Path, content, *, where: str = "images/", name: str = "all.json"):
    (root / where).mkdir(parents=True, exist_ok=True)
    for file in FILES:
        (root / where / file).touch()
    (root / name).write_text(content if isinstance(content, str) else json.dumps(content))
    return root


def told(root, **options) -> dict[str, str]:
    data = sources.load_dataset(root, **options)
    assert data.layout == "coco"
    every = list(itertools.chain(*data.splits.values()))
    assert len({e.name for e in every}) == len(every)
    return {pathlib.PurePath(e.name).name: data.class_names[e.label] for e in every}


def problem(root, **options) -> str:
    with pytest.raises(DataError) as caught:
        sources.load_dataset(root, **options)
    (found,) = str(caught.value).splitlines()
    return found


def task(i: int, image: str, **more) -> dict:
    """As Label Studio exports it."""
    result = [{"id": "x", "from_name": "class", "to_name": "image", "type": "choices",
               "value": {"choices": [of(i)]}}]  # fmt: skip
    annotation = {"id": 50 + i, "completed_by": 1, "was_cancelled": False, "result": result,
                  "lead_time": 0.5 + i, "created_at": f"2024-01-01T00:00:{i:02}Z"}  # fmt: skip
    return {"id": i, "annotations": [annotation], "file_upload": image.rpartition("/")[2],
            "data": {"image": image}, "meta": {}, "inner_id": i, "project": 3, **more}  # fmt: skip


FORMS = {
    "annotations": {"version": 1, "annotations": {FILES[i]: of(i) for i in range(COUNT)}},
    "annotations of records": {
        "annotations": [{"file": FILES[i], "label": of(i)} for i in range(COUNT)]
    },
    "data": {"name": "x", "data": [{"image": FILES[i], "label": of(i)} for i in range(COUNT)]},
    "names in order": {
        "classes": list(NAMES),
        "data": [{"image": FILES[i], "label": i % 3} for i in range(COUNT)],
    },
    "names from 1": {
        "classes": list(NAMES),
        "images": [{"file_name": FILES[i], "label": i % 3 + 1} for i in range(COUNT)],
    },
    "names by number": {
        "label_map": {str(i): name for i, name in enumerate(NAMES)},
        "annotations": {FILES[i]: i % 3 for i in range(COUNT)},
    },
    "numbers by name": {
        "class_to_idx": {name: i for i, name in enumerate(NAMES)},
        "samples": [[FILES[i], i % 3] for i in range(COUNT)],
    },
    "fiftyone": {"classes": list(NAMES), "labels": {f"{i:04}": i % 3 for i in range(COUNT)}},
    "categories": {
        "images": [{"id": i, "file_name": FILES[i], "category_id": i % 3} for i in range(COUNT)],
        "categories": [{"id": i, "name": name} for i, name in enumerate(NAMES)],
    },
    "labels of annotations": {
        "images": [{"id": i, "file_name": FILES[i]} for i in range(COUNT)],
        "annotations": [{"id": 9, "image_id": i, "category": of(i)} for i in range(COUNT)],
    },
    "no endings": {f"{i:04}": of(i) for i in range(COUNT)},
    "classes without endings": {
        name: [f"{i:04}" for i in range(COUNT) if of(i) == name] for name in NAMES
    },
    "objects by id": {
        f"x{i}": {"filename": FILES[i], "regions": [], "file_attributes": {"class": of(i)}}
        for i in range(COUNT)
    },
    "via": {
        "_via_settings": {"ui": {"image": {"size": 3}}},
        "_via_img_metadata": {
            f"{FILES[i]}{i}": {
                "filename": FILES[i], "size": i, "regions": {},
                "file_attributes": {"class": of(i)},
            }
            for i in range(COUNT)
        },
    },
    "lists": {"images": FILES, "labels": [of(i) for i in range(COUNT)]},
    "few-shot": {
        "label_names": list(NAMES),
        "image_names": [f"/home/x/images/{file}" for file in FILES],
        "image_labels": [i % 3 for i in range(COUNT)],
    },
    "pandas columns": {
        "image": {str(i): FILES[i] for i in range(COUNT)},
        "label": {str(i): of(i) for i in range(COUNT)},
    },
    "pandas index": {str(i): {"image": FILES[i], "label": of(i)} for i in range(COUNT)},
    "a label in a list": [{"image": FILES[i], "labels": [of(i)]} for i in range(COUNT)],
    "a label in an object": [
        {"image": {"path": FILES[i], "width": 3}, "category": {"id": i % 3, "name": of(i)}}
        for i in range(COUNT)
    ],
    "create ml": [
        {"image": FILES[i], "annotations": [{"label": of(i), "coordinates": {"x": j, "y": i}}
                                            for j in range(2)]}
        for i in range(COUNT)
    ],
    "boxes": [
        {"image": FILES[i], "label": of(i), "bbox": [j, 0, 3, 4]}
        for i in range(COUNT) for j in range(2)
    ],
    "label studio": [task(i, FILES[i]) for i in range(COUNT)],
    "label studio, uploaded": [
        task(i, f"/data/upload/3/5f2c1d{i}e-{FILES[i]}") for i in range(COUNT)
    ],
    "label studio, local": [
        task(i, f"/data/local-files/?d=flowers/images/{FILES[i]}") for i in range(COUNT)
    ],
    "label studio, short": [
        {"image": f"/data/upload/3/5f2c1d{i}e-{FILES[i]}", "id": i, "choice": of(i), "annotator": 1,
         "annotation_id": 5 + i, "lead_time": 0.1 * i} for i in range(COUNT)
    ],
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_forms(tmp_path, form):
    assert told(make(tmp_path, FORMS[form])) == {FILES[i]: of(i) for i in range(COUNT)}


@pytest.mark.parametrize("form", ["annotations", "fiftyone", "via", "label studio", "few-shot"])
def test_forms_of_which_the_beginning_alone_is_looked_at(tmp_path, form, monkeypatch):
    """A file of which the first bytes end within a value."""
    text = json.dumps(FORMS[form])
    monkeypatch.setattr("clevit_jax.data.layouts.record.json_files._HEAD", len(text) * 2 // 3)
    assert len(told(make(tmp_path, text))) == COUNT


def test_images_that_come_after_many_categories(tmp_path, monkeypatch):
    content = {
        "categories": [{"id": i, "name": name} for i, name in enumerate(NAMES)],
        "images": [{"id": i, "file_name": FILES[i]} for i in range(COUNT)],
        "annotations": [{"image_id": i, "category_id": i % 3} for i in range(COUNT)],
    }
    monkeypatch.setattr("clevit_jax.data.layouts.record.json_files._HEAD", 40)
    assert len(told(make(tmp_path, content))) == COUNT


def test_label_studio_serves_files_from_folders(tmp_path):
    """Of two files of one name, the path tells which."""
    for folder in ("a", "b"):
        make(tmp_path, {}, where=f"{folder}/")
    tasks = [task(i, f"/data/local-files/?d=b/{FILES[i]}") for i in range(COUNT)]
    data = sources.load_dataset(make(tmp_path, tasks, where="a/"))
    every = itertools.chain(*data.splits.values())
    assert {e.name for e in every} == {f"b/{file}" for file in FILES}


def test_file_name_goes_before_other_names_of_files(tmp_path):
    rows = [{"path": f"/home/x/{i}.jpg", "file_name": FILES[i], "label": of(i)}
            for i in range(COUNT)]  # fmt: skip
    assert len(told(make(tmp_path, rows))) == COUNT


def test_the_splits_of_an_object_with_something_beside(tmp_path):
    rows = [{"file": FILES[i], "label": i % 3} for i in range(COUNT)]
    content = {"classes": list(NAMES), "train_images": rows[:6], "test_images": rows[6:]}
    data = sources.load_dataset(make(tmp_path, content))
    assert (len(data.train), len(data.test), data.class_names) == (6, 3, NAMES)
    content = {"first": rows[:6], "second": rows[6:]}
    assert problem(make(tmp_path, content)) == (
        f"{tmp_path}/all.json holds several lists of images ('first', 'second'), and which are "
        "of which split is not told; keep one, or call them train, val and test."
    )


def test_several_labels_of_an_image_are_one_sentence(tmp_path):
    rows = [{"image": FILES[i], "labels": [of(i)]} for i in range(COUNT)]
    rows[4]["labels"] = rows[5]["labels"] = ["rose", "lily"]
    assert problem(make(tmp_path, rows)) == (
        f"{tmp_path}/all.json: 2 of its 9 entries have several values of 'labels' (image 4: "
        "'rose', 'lily', image 5: 'rose', 'lily'), and one class is learned for each image here: "
        "write one for each, or remove these."
    )
    for row in rows:
        row["labels"] = ["rose", "lily"]
    assert "9 of its 9 entries have several values of 'labels'" in problem(make(tmp_path, rows))


def test_two_people_who_label_alike_and_not(tmp_path):
    tasks = [task(i, FILES[i]) for i in range(COUNT)]
    again = task(0, FILES[0])["annotations"][0]
    cancelled = task(1, FILES[0])["annotations"][0] | {"was_cancelled": True}
    tasks[0]["annotations"] += [again, cancelled]
    assert told(make(tmp_path, tasks))[FILES[0]] == "rose"
    again["result"][0]["value"]["choices"] = ["lily"]
    assert "1 of its 9 entries have several values of 'choices' (image 0: 'rose', 'lily')" in (
        problem(make(tmp_path, tasks))
    )


def test_names_that_do_not_fit_the_numbers_are_said(tmp_path):
    rows = [{"image": FILES[i], "label": 2 * (i % 3)} for i in range(COUNT)]
    root = make(tmp_path, {"classes": list(NAMES), "data": rows})
    data = sources.load_dataset(root)
    assert data.class_names == ("0", "2", "4")
    said = "the list of 3 names beside the images does not name label"
    assert any(said in warning for warning in data.warnings)


@pytest.mark.parametrize(
    "content",
    [
        {"0001": "rose", "0002": "tulip", "0003": "lily"},  # names for numbers
        {str(i): "flower" for i in range(4)},  # groups of classes, beside images of these numbers
        {"flower": ["0", "1"], "tree": ["2", "3"]},
        {"model": {"name": "swin", "depth": [2, 2]}, "lr": 0.1},
        {"errors": [{"file": "images/0001.jpg", "reason": "x"}], "warnings": []},
        {"rose": {"id": 3, "color": "red"}, "lily": {"id": 4, "color": "red"}},
        {"0": ["n01440764", "tench"], "1": ["n01443537", "goldfish"]},
        [],
        {},
        {"images": 3},
    ],
)
def test_other_json_is_no_list(tmp_path, content):
    for i in range(4):
        (tmp_path / f"train/{i % 2}").mkdir(parents=True, exist_ok=True)
        (tmp_path / f"train/{i % 2}/{i:04}.jpg").touch()
        (tmp_path / f"train/{i % 2}/{i}.jpg").touch()
    (tmp_path / "about.json").write_text(json.dumps(content))
    assert sources.load_dataset(tmp_path).layout == "folders"


def test_the_beginning_of_any_length_is_read():
    text = json.dumps([{"a": [1, {"b": "x, }"}], "c": None}, ["]", 2.5], {"d": {}}])
    for end in range(len(text)):
        found = begun(text[:end])
        assert found is None or isinstance(found, list)
        for part, whole in zip(found or [], json.loads(text), strict=False):
            assert part == whole or len(str(part)) < len(str(whole))
    assert begun(text) == json.loads(text)
    assert begun("[" * 10**5) is not None
    assert begun('{"a": 1}\n{"a": 2}\n{"a"') == [{"a": 1}, {"a": 2}]
