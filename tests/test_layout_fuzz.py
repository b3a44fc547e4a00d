"""Thousands of damaged annotation files: read, or refused in sentences; never a traceback."""

import itertools
import json
import os
import pathlib
import random

import pytest

from clevit_jax.data import sources
from clevit_jax.errors import DataError

FILES = ["images/a/1.png", "images/a/2.JPG", "images/b/3.png", "images/b/4.png", "images/é 5.png"]
NAMES = ["a/1.png", "a/2.JPG", "b/3.png", "b/4.png", "é 5.png"]
UFG = {
    "anno/train.txt": "a/1.png 1\na/2.JPG 1\nb/3.png 2\n",
    "anno/test.txt": "é 5.png 2\nb/4.png 1\n",
    "classes.txt": "Anjou\nBeef Tomato\n",
}
CUB = {
    "images.txt": "".join(f"{key} {name}\n" for key, name in enumerate(NAMES, start=1)),
    "image_class_labels.txt": "1 1\n2 1\n3 2\n4 2\n5 2\n",
    "train_test_split.txt": "1 1\n2 0\n3 1\n4 0\n5 1\n",
    "classes.txt": "1 Black-footed Albatross\n2 Laysan Albatross\n3 Sooty Albatross\n",
}
ROWS = [
    ["file", "label", "class_name", "split"],
    ["a/1.png", "1", "ash, white", "train"],
    ["a/2.JPG", "1", "ash, white", "test"],
    ["b/3.png", "2", 'oak "red"', "train"],
    ["é 5.png", "2", 'oak "red"', "val"],
]


def quoted(rows, delimiter: str, line_end: str) -> str:
    cells = [['"' + field.replace('"', '""') + '"' for field in row] for row in rows]
    return "".join(delimiter.join(row) + line_end for row in cells)


LISTS = {
    "train.txt": "a/1.png 0\na/2.JPG 0\nb/3.png 1\n",
    "test.txt": "é 5.png 1\nb/4.png 0\n",
}
COARSE = {
    "meta/train.txt": "file,fine,coarse\na/1.png,0,0\na/2.JPG,1,0\nb/3.png,2,1\nb/4.png,0,0\n",
    "meta/val.txt": "file,fine,coarse\né 5.png,1,0\n",
}
BARE = {"train.lst": "a/1\nb/3\na/2\n", "val.lst": "b/4\n"}
BESIDE = {
    "images_kind_train.txt": "1 Black ash\n2 White ash\n3 Oak\n",
    "images_genus_train.txt": "1 Ash\n2 Ash\n3 Oak\n",
    "images_kind_test.txt": "4 Oak\n",
    "images_genus_test.txt": "4 Oak\n",
}
# Name -> layout, the file that is damaged, and all files.
CASES = {
    **{f"ufg {name}": ("ufg", name, UFG) for name in UFG},
    **{f"cub {name}": ("cub", name, CUB) for name in CUB},
    "lists blank": ("lists", "train.txt", LISTS),
    "lists comma": ("lists", "meta/train.txt", COARSE),
    "lists bare": ("lists", "train.lst", BARE),
    "lists beside": ("lists", "images_genus_train.txt", BESIDE),
    "csv comma": ("csv", "list.csv", {"list.csv": quoted(ROWS, ",", "\n")}),
    "csv semicolon": ("csv", "list.csv", {"list.csv": quoted(ROWS, ";", "\r\n")}),
    "csv tab": ("csv", "list.tsv", {"list.tsv": quoted(ROWS, "\t", "\r")}),
    "csv one-hot": (
        "csv",
        "train.csv",
        {
            "train.csv": "image_id,healthy,rust,scab\na/1,1,0,0\na/2,0,1,0\nb/3,0,0,1.0\n",
            "test.csv": "image_id,healthy,rust,scab\nb/4,0,1,0\n",
        },
    ),
    "csv kaggle": (
        "csv",
        "test.csv",
        {
            "train.csv": "class_id,dir\n0,a/1.png\n1,b/3.png\n",
            "test.csv": "class_id,dir\n0,a/2.JPG\n1,b/4.png\n",
        },
    ),
}
COCO = {
    "images": [{"id": key, "file_name": name} for key, name in enumerate(NAMES)],
    "annotations": [{"image_id": key, "category_id": 7 + key // 3} for key in range(len(NAMES))],
    "categories": [{"id": 7, "name": "ash", "genus": "x"}, {"id": 8, "name": "oak", "genus": "y"}],
}
RECORDS = [
    {"file_name": name, "label": key // 3, "class_name": ["ash", "oak"][key // 3], "split": split}
    for key, (name, split) in enumerate(zip(NAMES, ["train"] * 4 + ["test"], strict=True))
]
LINES = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in RECORDS)
CASES |= {
    "coco": ("coco", "all.json", {"all.json": json.dumps(COCO, ensure_ascii=False)}),
    "json map": (
        "coco",
        "all.json",
        {"all.json": json.dumps({f"images/{n}": n[0] for n in NAMES})},
    ),
    "json records": ("coco", "all.json", {"all.json": json.dumps(RECORDS)}),
    "json splits": (
        "coco",
        "all.json",
        {
            "all.json": json.dumps(
                {
                    "train": [[name, key // 3, "ab"[key // 3]] for key, name in enumerate(NAMES)],
                    "test": {NAMES[0]: 0},
                }
            )
        },
    ),
    "json lines": ("metadata", "all.jsonl", {"all.jsonl": LINES}),
    "metadata": (
        "metadata",
        "metadata.csv",
        {
            "metadata.csv": "file_name,label\n"
            + "".join(f'"{name}","a ""{key // 3}"""\n' for key, name in enumerate(NAMES))
        },
    ),
}
CASES |= {
    "csv no header": ("csv", "train.csv", {"train.csv": "a/1.png,ash\na/2.JPG,oak\nb/3.png,oak\n"}),
    "csv people": (
        "csv",
        "train.csv",
        {
            "train.csv": "Image|genus|species|is_valid|fold\nC:\\x\\a\\1.png|Acer|Acer rubrum|0|0\n"
            "C:\\x\\a\\2.JPG|Acer|Acer nigrum|1|1\nC:\\x\\b\\3.png|Tilia|Tilia alba|False|1\n"
            "C:\\x\\b\\4.png|Acer|Acer nigrum|0|1\n",
        },
    ),
}
TASKS = [
    {
        "id": key,
        "data": {"image": f"/data/upload/1/0123456{key}-{name}"},
        "annotations": [{"result": [{"value": {"choices": [["ash", "oak"][key // 3]]}}]}],
    }
    for key, name in enumerate(NAMES)
]
WRAPPED = {"classes": ["ash", "oak"], "data": {name: key // 3 for key, name in enumerate(NAMES)}}
COLUMNS = {"image_names": NAMES, "image_labels": [key // 3 for key in range(len(NAMES))]}
OBJECTS = {
    f"x{key}": {"filename": name, "tags": {"genus": "Acer", "species": f"Acer {key // 3}"}}
    for key, name in enumerate(NAMES)
}
CASES |= {
    f"json {name}": ("coco", "all.json", {"all.json": json.dumps(content, ensure_ascii=False)})
    for name, content in (
        ("tasks", TASKS),
        ("wrapped", WRAPPED),
        ("columns", COLUMNS),
        ("objects", OBJECTS),
    )
}
EACH = 180  # 28 cases: 5,040 files
NUMBERS = [b"", b"0", b"-1", b"+3", b"007", b"1.0", b"1e309", b"9" * 18, b"9" * 19, b"9" * 5000]
TOKENS = [
    *(b"\0", b"\n", b"\r", b"\r\n", b" ", b"\t", b",", b";", b'"', b'""', b"\\", b"/", b"."),
    *(b"../", b"..\\", b"/etc/x.png ", b"C:\\x", *NUMBERS, b"nan"),
    *(b"\xef\xbb\xbf", b"\xff\xfe", b"\xc3", b"\xed\xa0\x80"),
    *(text.encode() for text in ("\u2028", "\x85", "\x0b", "\x1c", "e\u0301", "٣", "²", "🍃")),
]


def damaged(content: bytes, draw: random.Random) -> bytes:
    """The file after one to four accidents."""
    for _ in range(draw.randint(1, 4)):
        place, other = sorted(draw.randrange(len(content) + 1) for _ in range(2))
        lines = content.splitlines(keepends=True)
        match draw.randrange(11):
            case 0:  # bits flip
                flipped = bytes(byte ^ 1 << draw.randrange(8) for byte in content[place:][:1])
                content = content[:place] + flipped + content[place + 1 :]
            case 1:
                content = content[:place]
            case 2:
                content = content[:place] + content[other:]
            case 3:
                content = content[:place] + draw.randbytes(draw.randint(1, 8)) + content[place:]
            case 4:
                draw.shuffle(lines)
                content = b"".join(lines)
            case 5 if lines:
                content += draw.choice(lines)
            case 6 if lines:
                lines.pop(draw.randrange(len(lines)))
                content = b"".join(lines)
            case 7 if digits := [i for i, byte in enumerate(content) if chr(byte).isdecimal()]:
                place = draw.choice(digits)
                content = content[:place] + draw.choice(NUMBERS) + content[place + 1 :]
            case 8 if draw.randrange(20) == 0:
                content = content[:place] + b"x" * 140_000 + content[place:]
            case 9 if draw.randrange(20) == 0:
                content = content.decode("utf-8", "replace").encode("utf-16")
            case _:
                content = content[:place] + draw.choice(TOKENS) + content[place:]
    return content


def fuzz(root: pathlib.Path, case: str, count: int, seed: int = 0) -> tuple[int, int]:
    """Loads `count` damaged sets; returns how many were read and how many refused."""
    layout, name, texts = CASES[case]
    for file in FILES:
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).touch()
    for file, text in texts.items():
        (root / file).parent.mkdir(exist_ok=True)
        (root / file).write_bytes(text.encode())
    there = {root / file for file in FILES} | {root / file for file in texts}
    sources.load_dataset(root)  # without damage it is read
    read = 0
    draw = random.Random(f"{case} {seed}")
    for _ in range(count):
        content = damaged(texts[name].encode(), draw)
        (root / name).write_bytes(content)
        try:
            data, problems = sources.scan(root, layout=draw.choice(["auto", layout]))
        except DataError as error:
            data, problems = None, error.problems
        assert data or problems, content
        for problem in problems:
            assert len(problem.splitlines()) == 1, (content, problem)
            assert problem.endswith((".", "?")), (content, problem)
        if data is not None:  # nothing outside is opened, not even to check it
            for example in itertools.chain(*data.splits.values()):
                assert pathlib.Path(os.path.normpath(example.data)).is_relative_to(root), content
        if problems:
            continue
        read += 1
        # What is read is sound: files that are there, and labels that have a name and an example.
        examples = data.train + data.val + data.test
        assert {example.data for example in examples} <= there, content
        assert {example.label for example in data.train} == set(range(data.num_classes)), content
        assert {example.label for example in examples} <= set(range(data.num_classes)), content
        assert len(set(data.class_names)) == data.num_classes, content
    return read, count - read


def scan_damaged(root: pathlib.Path, name: str, count: int) -> int:
    """Loads `root` with `count` damaged versions of a file in it; returns how many were refused."""
    whole, draw, refused = (root / name).read_bytes(), random.Random(name), 0
    for _ in range(count):
        content = damaged(whole, draw)
        (root / name).write_bytes(content)
        try:
            data, found = sources.scan(root)
        except DataError as error:
            data, found = None, list(error.problems)
        for problem in found:
            assert len(problem.splitlines()) == 1, (content, problem)
            assert problem.endswith((".", "?")), (content, problem)
        if data is not None and not found:
            every = list(itertools.chain(*data.splits.values()))
            assert all(os.path.isfile(example.data) for example in every), content
            assert {example.label for example in data.train} == set(range(data.num_classes))
            assert len(set(data.class_names)) == data.num_classes, content
        refused += bool(found)
    (root / name).write_bytes(whole)
    return refused


@pytest.mark.parametrize("case", CASES)
def test_damaged_files_are_read_or_refused(tmp_path, case):
    read, refused = fuzz(tmp_path, case, EACH)
    assert read > EACH // 50  # the damage is neither always harmless nor always fatal
    assert refused > EACH // 5
