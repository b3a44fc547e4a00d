"""The check of a data set, on sets made by hand in which the truth is known."""

import io
import json
import os
import pathlib
import re
import struct
import sys
import threading
import weakref
import zlib

import numpy as np
import pytest
import tiny
from PIL import Image

from clevit_jax.config import resolve_data
from clevit_jax.data import decode
from clevit_jax.data.audit import command, filenames, findings
from clevit_jax.data.audit import read as check
from clevit_jax.data.audit.read import read_image_facts, read_images
from clevit_jax.data.dataset import Dataset, Example
from clevit_jax.errors import ConfigError, DecodeError
from clevit_jax.system import memory as host_memory


def picture(seed, size=(24, 20)):
    """Smooth noise of one hue: no two seeds look alike, and saving anew changes little."""
    grey = np.random.RandomState(seed).randint(0, 256, (20, 24, 1))
    pixels = (grey * (1.0, 0.8, 0.6)).astype(np.uint8)
    return Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC)


def write(root, name, image, **options):
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(image, bytes):
        path.write_bytes(image)
    else:
        image.save(path, **options)
    return path


def png(image):
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return stream.getvalue()


@pytest.fixture
def root(tmp_path):
    """Class folders a and b with 3 training and 2 test images each, nothing odd about them."""
    folder = tmp_path / "data"
    for seed, (split, kind, number) in enumerate(
        (split, kind, number)
        for split, count in (("train", 3), ("test", 2))
        for kind in "ab"
        for number in range(count)
    ):
        write(folder, f"{split}/{kind}/{split[:2]}{number}.png", picture(seed))
    return folder


def make_ufg(folder, train, test):
    """`train`, `test`: (file, label, image or None where there is no file)."""
    for split, rows in (("train", train), ("test", test)):
        text = "".join(f"{name} {label}\n" for name, label, _ in rows)
        write(folder, f"anno/{split}.txt", text.encode())
        for name, _, image in rows:
            if image is not None:
                write(folder / "images", name, image)
    return folder


class Checked:
    """What check_data returned, wrote and printed."""

    def __init__(self, root, workdir, capsys, **changes):
        config = tiny.get_config()
        config.data.root = str(root)
        config.data.threads = 2
        config.update_from_flattened_dict({k.replace("__", "."): v for k, v in changes.items()})
        capsys.readouterr()
        self.code = command.check_data(resolve_data(config), workdir)
        self.out = capsys.readouterr().out
        self.text = (workdir / "data_check.txt").read_text(encoding="utf-8")
        self.json = json.loads((workdir / "data_check.json").read_text(encoding="utf-8"))

    def level(self, level):
        return {finding["kind"]: finding for finding in self.json[level]}

    @property
    def errors(self):
        return self.level("errors")

    @property
    def warnings(self):
        return self.level("warnings")


@pytest.fixture
def run(tmp_path, capsys):
    return lambda root, **changes: Checked(root, tmp_path / "work", capsys, **changes)


def files(group):
    return sorted(member["file"] for member in group)


def test_nothing_odd(root, run, tmp_path):
    found = run(root, data__resize=20)  # that is the images' shorter side
    assert (found.code, found.json["errors"], found.json["warnings"]) == (0, [], [])
    assert found.json["layout"] == "folders"
    assert found.json["num_classes"] == 2
    assert re.fullmatch("[0-9a-f]{64}", found.json["split_hash"])
    each = {"min": 3, "median": 3, "max": 3}
    assert found.json["splits"]["train"] == {
        "images": 6, "classes": 2, "images_a_class": each, "classes_without_image": [],
    }  # fmt: skip
    assert found.json["images"] == {
        "read": 10, "unreadable": 0, "missing": 0,
        "width": {"min": 24, "median": 24, "max": 24},
        "height": {"min": 20, "median": 20, "max": 20},
        "smaller_than": {
            "data.resize": {"pixels": 20, "images": 0, "share": 0.0},
            "image_size": {"pixels": 16, "images": 0, "share": 0.0},
        },
        "formats": {"PNG": 10}, "modes": {"RGB": 10}, "turned_by_exif": 0, "animated": 0,
    }  # fmt: skip
    assert found.text.endswith("\n0 errors, 0 warnings\n")
    last = found.out.splitlines()[-1]
    assert last.startswith("0 errors, 0 warnings; ")
    assert str(tmp_path / "work" / "data_check.txt") in last
    assert "data_check.json" in last
    assert found.out.startswith(found.text.removesuffix("\n0 errors, 0 warnings\n"))


def test_facts_of_images(root, run):
    write(root, "train/a/grey.png", picture(20, (10, 40)).convert("L"))
    write(root, "train/a/palette.gif", picture(21), save_all=True, append_images=[picture(22)])
    write(root, "train/a/alpha.png", picture(23).convert("RGBA"))
    write(root, "train/a/print.jpg", picture(24, (64, 50)).convert("CMYK"))
    grey16 = np.arange(480, dtype=np.uint16).reshape(20, 24) * 100
    write(root, "train/a/deep.png", Image.fromarray(grey16))
    exif = Image.Exif()
    exif[274] = 6
    write(root, "train/a/turned.jpg", picture(25, (70, 30)), exif=exif)
    # Two pictures in a JPEG, as cameras write them: only the first is meant.
    write(root, "train/a/two.jpg", picture(26), format="MPO", save_all=True,
          append_images=[picture(27)])  # fmt: skip
    images = run(root, data__resize=22, image_size=19, eval__resize=19).json["images"]
    assert images["formats"] == {"PNG": 13, "JPEG": 3, "GIF": 1}
    assert images["modes"] == {"RGB": 12, "CMYK": 1, "I;16": 1, "L": 1, "P": 1, "RGBA": 1}
    assert (images["turned_by_exif"], images["animated"]) == (1, 1)
    assert images["width"] == {"min": 10, "median": 24, "max": 64}
    assert images["height"] == {"min": 20, "median": 20, "max": 70}  # 70: turned upright
    smaller = images["smaller_than"]
    assert smaller["data.resize"] == {"pixels": 22, "images": 15, "share": 15 / 17}
    assert smaller["image_size"] == {"pixels": 19, "images": 1, "share": 1 / 17}


def bomb():
    """A PNG that says it has 40,000 x 40,000 pixels."""
    chunks = [b"IHDR" + struct.pack(">IIBBBBB", 40_000, 40_000, 8, 2, 0, 0, 0)]
    chunks += [b"IDAT" + zlib.compress(bytes(100)), b"IEND"]
    packed = (struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c)) for c in chunks)
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is an empty file."),
        (b"hello", "is a text file, not an image"),
        (png(picture(0, (200, 200)))[:3000], "is truncated, its last bytes lack"),
        (bomb(), "decompression bomb"),
    ],
    ids=["zero bytes", "text", "truncated", "bomb"],
)
def test_unreadable_images(root, run, content, said):
    path = write(root, "train/a/bad.png", content)
    other = write(root, "test/b/bad.png", b"no")
    found = run(root)
    assert found.code == 1
    with pytest.raises(DecodeError) as caught:
        decode.read_rgb(path)
    assert said in str(caught.value)
    sentences = [error["sentence"] for error in found.json["errors"]]
    assert sentences[0] == str(caught.value)
    assert sentences[1].startswith(str(other))
    assert [error["items"] for error in found.json["errors"]] == [
        ["train/a/bad.png"], ["test/b/bad.png"],
    ]  # fmt: skip
    assert (found.json["images"]["read"], found.json["images"]["unreadable"]) == (10, 2)
    assert "2 errors, 0 warnings" in found.text.splitlines()[-1]


def test_a_folder_called_like_an_image_and_a_file_that_may_not_be_read(tmp_path):
    for error, said in ((PermissionError(13, "Permission denied"), "Permission denied"),
                        (KeyError("row"), "'row'")):  # fmt: skip

        class Row:
            def __str__(self):
                return "table.parquet, row 7"

            def read(self, error=error):
                raise error

        with pytest.raises(DecodeError, match=f"^table.parquet, row 7 cannot .* {said}.$"):
            read_image_facts(Example(Row(), 0, 0, "x"))


def test_same_pixels(root, run):
    same = picture(50)
    write(root, "train/a/one.png", same)
    write(root, "train/a/two.bmp", same)
    write(root, "test/a/three.tif", same)
    write(root, "test/a/four.png", picture(0))  # that is train/a/tr0.png
    found = run(root)
    assert (found.code, found.json["errors"]) == (0, [])
    assert set(found.warnings) == {"same_pixels_in_train_and_test", "same_pixels_in_train"}
    across = found.warnings["same_pixels_in_train_and_test"]
    assert across["number"] == 2
    assert sorted(map(files, across["items"])) == [
        ["test/a/four.png", "train/a/tr0.png"],
        ["test/a/three.tif", "train/a/one.png", "train/a/two.bmp"],
    ]
    assert across["sentence"] == (
        "Possible leak: 2 test images are pixel by pixel the same as a training image."
    )
    within = found.warnings["same_pixels_in_train"]
    assert within["number"] == 2
    assert list(map(files, within["items"])) == [["train/a/one.png", "train/a/two.bmp"]]


def test_same_pixels_with_several_labels(root, run):
    write(root, "test/b/copy.png", picture(0))
    found = run(root)
    assert found.code == 1
    (error,) = found.json["errors"]
    assert error["kind"] == "several_labels"
    assert error["items"] == [[
        {"file": "train/a/tr0.png", "split": "train", "class": "a"},
        {"file": "test/b/copy.png", "split": "test", "class": "b"},
    ]]  # fmt: skip
    assert "train/a/tr0.png (a, train) and test/b/copy.png (b, test)" in error["sentence"]


def test_images_that_look_almost_the_same(root, run):
    for name, seed in (("train/a/tr0.png", 200), ("train/a/tr1.png", 201)):
        write(root, name, picture(seed, (120, 100)))
    write(root, "test/a/anew.jpg", picture(200, (240, 200)), quality=90)
    write(root, "train/b/anew.jpg", picture(201, (120, 100)), quality=90)
    found = run(root)
    assert found.code == 0
    assert set(found.warnings) == {
        "alike_in_train_and_test", "alike_in_train", "alike_with_several_labels",
    }  # fmt: skip
    across = found.warnings["alike_in_train_and_test"]
    assert list(map(files, across["items"])) == [["test/a/anew.jpg", "train/a/tr0.png"]]
    assert across["sentence"] == ("Possible leak: 1 test image looks almost like a training image.")
    within = found.warnings["alike_in_train"]
    assert list(map(files, within["items"])) == [["train/a/tr1.png", "train/b/anew.jpg"]]
    assert within["number"] == 2
    torn = found.warnings["alike_with_several_labels"]
    assert (torn["number"], torn["items"]) == (1, within["items"])
    assert "train/a/tr1.png (a, train) ~ train/b/anew.jpg (b, train)" in found.text


def test_a_file_that_is_listed_twice_is_no_duplicate(tmp_path, run):
    one, two, three = (("1_1_train.png", 1, picture(1)), ("2_1_train.png", 2, picture(2)),
                       ("1_9_test.png", 1, picture(3)))  # fmt: skip
    twice = make_ufg(tmp_path / "data", [one, two, one], [three, ("2_1_train.png", 2, None)])
    found = run(twice)
    assert found.json["images"]["read"] == 3
    assert found.code == 0
    kinds = [w["kind"] for w in found.json["warnings"] if w["kind"] != "single_training_image"]
    # That it is in both lists is told by the layout and by its name; not once more by its pixels.
    assert kinds == ["shared_stems_in_train_and_test", "layout", "layout"]


def test_one_file_with_a_label_in_each_split(tmp_path, run):
    train = [("x.png", 1, picture(1)), ("y.png", 2, picture(2))]
    found = run(make_ufg(tmp_path / "data", train, [("x.png", 2, None)]))
    assert found.code == 1
    assert [error["kind"] for error in found.json["errors"]] == ["several_labels"]
    found = run(make_ufg(tmp_path / "other", [*train, ("x.png", 2, None)], [("y.png", 2, None)]))
    assert [error["kind"] for error in found.json["errors"]] == ["problem"]  # once is enough


def test_missing_files_are_told_once_and_others_never_opened(tmp_path, run, monkeypatch):
    outside = write(tmp_path, "secret.png", picture(9))
    train = [("a.png", 1, picture(1)), ("gone.png", 1, None), ("../../secret.png", 1, None)]
    opened = []
    real = pathlib.Path.read_bytes
    monkeypatch.setattr(pathlib.Path, "read_bytes", lambda p: opened.append(p) or real(p))
    found = run(make_ufg(tmp_path / "data", train, [("b.png", 1, picture(2))]))
    assert found.code == 1
    problems = [error["sentence"] for error in found.json["errors"]]
    assert len(problems) == 2
    assert "'gone.png' is not in images/" in problems[0]
    assert "'../../secret.png' points out of images/" in problems[1]
    assert found.json["images"]["missing"] == 1  # what points out never becomes an example
    assert outside.name not in {path.name for path in opened}


def test_a_file_that_goes_away(root, run, monkeypatch):
    real = read_images

    def late(dataset, **options):
        (root / "test/a/te0.png").unlink()
        return real(dataset, **options)

    monkeypatch.setattr(check, "read_images", late)
    found = run(root)
    assert found.code == 1
    assert found.json["errors"][0]["sentence"] == "test/a/te0.png is gone since it was listed."


def test_classes(root, run):
    for number in range(10):
        write(root, f"train/b/more{number}.png", picture(60 + number))
    write(root, "train/c/x.png", picture(80))
    (root / "test/b/te0.png").unlink()
    (root / "test/b/te1.png").rename(root / "test/a/te1b.png")
    (root / "test/b").rmdir()
    found = run(root)
    assert found.code == 0
    assert found.warnings["no_image_in_test"]["items"] == ["b", "c"]
    assert found.warnings["no_image_in_test"]["sentence"] == "2 classes have no test image (b, c)."
    assert found.warnings["single_training_image"]["items"] == ["c"]
    assert found.warnings["uneven"]["sentence"] == (
        "The classes are uneven: b has 13 training images, c has 1."
    )
    splits = found.json["splits"]
    assert splits["train"]["images_a_class"] == {"min": 1, "median": 3, "max": 13}
    assert splits["test"]["classes_without_image"] == ["b", "c"]
    assert splits["test"]["classes"] == 1


ODD = {
    "control_character": ["a/x\ty.png", "a/\x7f.png"],
    "outer_blank": ["a/ x.png", "a /x.png"],
    "not_nfc": ["a/e\u0301.png"],
    "percent_escape": ["a/x%20y.png", "a/%C3.png"],
    "not_on_windows": ["a/x?.png", "a/x:y.png", "a./x.png", "a/CON.png", 'a/"x".png', "a/x\\y.png"],
    "not_utf8": ["a/\udcff.png"],
    "differ_in_case": ["a/X.png", "a/x.png"],
}
GOOD = ["a/b c.png", "a/100%.png", "a/\u00e9.png", "a/.x.png", "a/console.png", "a/\u5927.jpg"]


@pytest.mark.parametrize("kind", ODD)
def test_odd_names(kind):
    found = {odd.kind: odd.names for odd in filenames.odd_names([*GOOD, *ODD[kind]])}
    alone = {"not_nfc": {"not_nfc", "differ_in_case"}}.get(kind, {kind})  # e' is in GOOD as well
    assert set(found) == alone
    assert found[kind] == sorted(ODD[kind])
    assert filenames.odd_names(GOOD) == []


def test_odd_names_of_files(root, run):
    for number, name in enumerate(["x\ty", " x", "e\u0301", "x%20y", "X?", os.fsdecode(b"\xff")]):
        write(root, f"train/a/{name}.png", png(picture(100 + number)))
    write(root, "train/a/really.JPG", png(picture(120)))
    found = run(root)
    assert found.code == 0
    assert found.json["errors"] == []
    assert set(found.warnings) == {
        "name_control_character", "name_outer_blank", "name_not_nfc", "name_percent_escape",
        "name_not_on_windows", "name_not_utf8", "name_wrong_ending",
    }  # fmt: skip
    # All of it is text that can be printed and encoded, also what was no text before.
    assert found.warnings["name_not_utf8"]["items"] == ["train/a/\\udcff.png"]
    assert found.warnings["name_control_character"]["items"] == ["train/a/x\\ty.png"]
    assert json.dumps(found.json, ensure_ascii=False).encode("utf-8")
    assert all(line.isprintable() for line in found.text.splitlines())
    ending = found.warnings["name_wrong_ending"]
    assert ending["items"] == ["train/a/really.JPG"]
    assert "'train/a/really.JPG'" in ending["sentence"]
    assert "PNG" in ending["sentence"]


def test_stems():
    names = ("x/1_2_train.png", "1_2_TEST.jpg", "a.b_val.c_val.png")
    assert [filenames.stem(name) for name in names] == ["1_2", "1_2", "a.b_val.c"]
    assert filenames.stem("train_1.png") == "train_1"


def soygene_like(folder, twin_looks):
    """Every test stem is among the training stems of its class; whether they look alike differs."""
    train, test = [], []
    for label in (1, 2, 3):
        for k in range(1, 7):
            image = picture(100 * label + k, (60, 50))
            train.append((f"{label}_{k}_train.png", label, image))
            twin = image.rotate(3) if twin_looks else picture(1000 + 100 * label + k)
            if k < 6:
                test.append((f"{label}_{k}_test.png", label, twin))
    return make_ufg(folder, train, test)


@pytest.mark.parametrize("twin_looks", [True, False])
def test_shared_stems(tmp_path, run, twin_looks):
    found = run(soygene_like(tmp_path / "data", twin_looks))
    assert found.code == 0
    stems = found.warnings["shared_stems_in_train_and_test"]
    sentence = stems["sentence"]
    assert sentence.startswith(
        "Possible leak: 15 of 15 test images (100 %) have the file name of a training image of "
        "their class, but for the split and the ending, as 1_1_train.png and 1_1_test.png. The "
        f"pictures {'' if twin_looks else 'do not '}confirm it: "
    )
    assert "would be by chance for 17 %." in sentence
    assert ("for 100 %" in sentence) == twin_looks
    assert "each split just counts its files from 1, nothing is wrong" in stems["advice"]
    assert stems["number"] == 15
    assert files(stems["items"][0]) == ["1_1_test.png", "1_1_train.png"]
    if not twin_looks:
        assert "2_3_test" not in found.text  # an example says enough: there is no list of fifteen


def test_bare_numbers_and_other_classes_share_no_stems(tmp_path, run):
    for seed, name in enumerate(["train/a/1.png", "train/b/2.png", "train/b/x.png", "test/a/1.png",
                                 "test/a/x.png", "test/b/2.jpg", "train/a/9.png"]):  # fmt: skip
        write(tmp_path / "data", name, picture(seed))
    assert run(tmp_path / "data").json["warnings"] == []
    write(tmp_path / "data", "test/b/x.png", picture(30))
    (warning,) = run(tmp_path / "data").json["warnings"]
    assert warning["number"] == 1
    assert "1 of 4 test images (25 %) has the file name of" in warning["sentence"]


def test_memory(root, run, monkeypatch):
    monkeypatch.setattr(host_memory, "total", lambda: 10**6)
    found = run(root, data__resize=20, data__cache_bytes=8000)
    train, test = 3 * 20 * 20, 3 * 16 * 16
    assert found.json["memory"] == {
        "splits": {
            "train": {"side": 20, "bytes": 6 * train, "images_kept": 6},
            "test": {"side": 16, "bytes": 4 * test, "images_kept": (8000 - 6 * train) // test},
        },
        "bytes": 6 * train + 4 * test, "cache_bytes": 8000, "machine_bytes": 10**6,
    }  # fmt: skip
    sentence = found.warnings["cache_too_small"]["sentence"]
    assert "(3 of 4 in test)" in sentence
    assert f"set data.cache_bytes={6 * train + 4 * test}." in sentence
    assert found.code == 0
    enough = run(root, data__resize=20, data__cache_bytes=6 * train + 4 * test)
    assert enough.json["warnings"] == []
    monkeypatch.setattr(host_memory, "total", lambda: 5000)
    assert "half of the free memory" in run(root).warnings["memory_too_small"]["sentence"]


def test_the_cache_is_shared_as_in_training(root, run):
    """`images_kept` are those that `open.decoded_images` keeps."""
    from clevit_jax.data.open import decoded_images, open_data

    config = tiny.get_config()
    config.data.root = str(root)
    config.data.resize = 20
    config.data.cache_bytes = 8000
    settings = resolve_data(config)
    dataset = open_data(settings)
    kept = {}
    for split, images in decoded_images(settings, dataset, training=True).items():
        images.fill(threads=1)
        kept[split] = sum(images[i] is images[i] for i in range(len(images)))
    splits = run(root, data__resize=20, data__cache_bytes=8000).json["memory"]["splits"]
    assert {split: part["images_kept"] for split, part in splits.items()} == kept


def test_what_the_scan_says_is_passed_on(root, run):
    write(root, "train/loose.png", picture(40))
    write(root, "test/z/1.png", picture(41))
    found = run(root)
    assert found.code == 1
    kinds = [error["kind"] for error in found.json["errors"]]
    assert kinds == ["problem"] * len(kinds)
    assert any("test/z" in error["sentence"] for error in found.json["errors"])
    assert "loose.png" in found.warnings["layout"]["sentence"]


def test_no_layout(tmp_path, run):
    found = run(tmp_path / "nowhere")
    assert found.code == 1
    (error,) = found.json["errors"]
    assert error["kind"] == "problem"
    assert str(tmp_path / "nowhere") in error["sentence"]
    assert found.json["splits"] is None
    assert found.json["layout"] is None
    assert "There is no folder" in found.out
    assert "1 error, 0 warnings" in found.out.splitlines()[-1]


def test_all_reports_have_the_same_keys(root, tmp_path, run):
    assert list(run(root).json) == list(run(tmp_path / "nowhere").json)


def test_settings_that_cannot_be_used(root, run, tmp_path):
    with pytest.raises(ConfigError, match=r"data\.threads is -1"):
        run(root, data__threads=-1)
    with pytest.raises(ConfigError, match=r"data\.folds is 1"):
        run(root, data__folds=1)
    with pytest.raises(ConfigError, match=r"data\.root is empty"):
        run("")
    (tmp_path / "file").touch()
    config = tiny.get_config()
    config.data.root = str(root)
    with pytest.raises(ConfigError, match="cannot be written"):
        command.check_data(resolve_data(config), tmp_path / "file")


def test_nothing_else_in_the_workdir_is_touched(root, run, tmp_path):
    before = {name: f"{name} of a run".encode() for name in ("config.json", "metrics.jsonl")}
    for name, content in before.items():
        write(tmp_path / "work", name, content)
    run(root)
    run(root)  # the reports are replaced
    after = {path.name: path.read_bytes() for path in (tmp_path / "work").iterdir()}
    assert set(after) == {*before, "data_check.json", "data_check.txt"}
    assert {name: after[name] for name in before} == before


def test_the_number_of_threads_changes_nothing(root, run):
    write(root, "train/a/bad.png", b"no")
    write(root, "test/b/worse.png", b"")
    write(root, "test/b/copy.png", picture(0))
    write(root, "test/a/anew.jpg", picture(1), quality=85)
    reports = [run(root, data__threads=threads) for threads in (1, 2, 7)]
    assert reports[0].json == reports[1].json == reports[2].json
    assert reports[0].text == reports[1].text == reports[2].text


def test_long_lists_are_cut_in_the_text_only(root, run):
    for number in range(25):
        write(root, f"train/a/bad{number:02}.png", b"no")
        write(root, f"train/a/x{number:02}.png", picture(200 + number))
        write(root, f"test/a/y{number:02}.png", picture(200 + number))
        write(root, f"train/b/%20{number:02}.png", picture(300 + number))
    found = run(root)
    (error,) = found.json["errors"]  # one fault, said once
    assert error["sentence"].startswith("25 images have the same fault, each is a text file, not")
    assert error["items"] == [f"train/a/bad{number:02}.png" for number in range(25)]
    assert "data.on_bad_image=skip" in error["advice"]
    assert len(found.warnings["same_pixels_in_train_and_test"]["items"]) == 25
    assert len(re.findall(r"train/a/x\d\d\.png .* = test/a/y", found.text)) == 20
    assert "the first 20 of 25:" in found.text
    assert len(found.warnings["name_percent_escape"]["items"]) == 25
    assert "and 20 more)" in " ".join(found.text.split())
    assert "1 error, " in found.text


def test_the_text_has_the_numbers_of_the_json(root, run):
    write(root, "train/a/grey.png", picture(20, (10, 40)).convert("L"))
    write(root, "train/a/bad.png", b"no")
    found = run(root, data__resize=30)
    text = " ".join(found.text.split())
    for split, facts in found.json["splits"].items():
        each = facts["images_a_class"]
        row = [split, facts["images"], facts["classes"], len(facts["classes_without_image"])]
        row += [each["min"], format(each["median"], "g"), each["max"]]
        assert " ".join(map(str, row)) in text
    images = found.json["images"]
    assert f"{images['read']} read, {images['unreadable']} unreadable, 0 missing" in text
    assert "Width min 10, median 24, max 24 pixels" in text
    assert "11 (100 %) than data.resize = 30, 1 (9 %) than image_size = 16" in text
    assert "Modes RGB 10, L 1" in text
    for finding in found.json["errors"] + found.json["warnings"]:
        assert finding["sentence"] in text


def test_the_text_fits_100_columns(root, run):
    for number in range(9):
        write(root, f"train/a/a rather long name of {number}.png", picture(200 + number % 3))
        write(root, f"test/b/a rather long name of {number}.png", picture(200 + number % 3))
    found = run(root)
    # The folder's own path may be long; blanks apart, nothing else may.
    for line in found.text.splitlines():
        assert len(line) <= 100 or str(root) in line
    assert "a rather long name of 0.png" in found.text


def test_a_terminal_that_is_not_utf8(root, run, monkeypatch, tmp_path):
    write(root, "train/\u5927/x.png", picture(90))
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii"))
    run(root)
    sys.stdout.flush()
    assert b"\\u5927" in raw.getvalue()
    assert "\u5927" in (tmp_path / "work/data_check.txt").read_text(encoding="utf-8")


class Row:
    """An image in a table."""

    def __init__(self, content, place):
        self.content, self.place = content, place

    def read(self):
        return self.content

    def __str__(self):
        return self.place


def test_images_in_memory_and_in_larger_files():
    one, two = png(picture(1)), png(picture(2))
    train = (Example(one, 0, 0, "x.png"), Example(Row(two, "t.parquet, row 1"), 0, 1, "y.png"))
    bad = Example(Row(b"", "t.parquet, row 2"), 0, 1, "z.png")
    # The same name in another split is another image, where there is no file.
    test = (Example(two, 0, 0, "x.png"), bad, bad._replace(id=2))
    done = []
    reading = read_images(
        Dataset("parquet", "t.parquet", ("a",), train, test, ()),
        threads=2,
        progress=lambda *count: done.append(count),
    )
    assert done == [(k, 4) for k in (1, 2, 3, 4)]
    assert [entry.split for entry in reading.entries] == ["train", "train", "test", "test", "test"]
    pixels = [entry.facts and entry.facts.pixels for entry in reading.entries]
    assert pixels[1] == pixels[2] != pixels[0]
    assert pixels[3:] == [None, None]
    assert reading.unreadable == [("z.png", "t.parquet, row 2 cannot be decoded: empty.")] or (
        reading.unreadable == [("z.png", "t.parquet, row 2 is an empty file.")]
    )


def test_rows_of_a_table():
    """Their names need not be those of files, and one may be listed with two labels."""
    train = (Example(png(picture(1)), 0, 0, "a: 1?"), Example(png(picture(2)), 1, 1, "b%20"))
    data = Dataset("csv", "", ("a", "b"), (*train, train[0]._replace(label=1)), (), ())
    reading = read_images(data, threads=1)
    (error,) = findings.errors(data, [], reading)
    assert error.kind == "several_labels"
    kinds = [finding.kind for finding in findings.warnings(data, reading)]
    assert not [kind for kind in kinds if kind.startswith("name_")]


def test_images_do_not_pile_up(monkeypatch):
    seen, most, lock = [], [0], threading.Lock()
    real = decode.read_rgb

    def counted(*args):
        image = real(*args)
        with lock:
            seen.append(weakref.ref(image))
            most[0] = max(most[0], sum(one() is not None for one in seen))
        return image

    monkeypatch.setattr(decode, "read_rgb", counted)
    train = tuple(Example(png(picture(k)), 0, k, str(k)) for k in range(40))
    read_images(Dataset("csv", "", ("a",), train, (), ()), threads=3)
    assert 1 <= most[0] <= 3
    assert len(seen) == 40
    assert not any(one() for one in seen)


def test_an_interrupt_does_not_wait_for_the_rest(monkeypatch):
    read = []
    monkeypatch.setattr(decode, "read_rgb", lambda data, name, *_: read.append(name) or picture(0))
    train = tuple(Example(png(picture(0)), 0, k, str(k)) for k in range(500))

    def stop(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        read_images(Dataset("csv", "", ("a",), train, (), ()), threads=1, progress=stop)
    assert len(read) < 400
