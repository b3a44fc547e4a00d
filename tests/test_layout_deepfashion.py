"""DeepFashion's lists: a count, a header, and a line of a file and its category or its split."""

import pytest
from test_layout_fuzz import scan_damaged
from test_layout_lists import lines, make, problems, read, told

from clevit_jax.data.dataset import Level

CLOTHES = ("Anorak", "Blazer", "Jeans")
WORN = [(f"img/Sheer_{k}/img_{k:08}.jpg", k % 3) for k in range(9)]
PARTS = ("train", "val", "test")
FASHION = {
    "list_category_img.txt": lines(
        ["9", "image_name  category_label", *(f"{file:50} {c + 1}" for file, c in WORN)]
    ),
    "list_category_cloth.txt": lines(
        ["3", "category_name  category_type", "Anorak   1", "Blazer   1", "Jeans   2"]
    ),
    "list_eval_partition.txt": lines(
        [
            "9",
            "image_name evaluation_status",
            *(f"{file:50} {PARTS[k // 3]}" for k, (file, _) in reversed(list(enumerate(WORN)))),
        ]
    ),
}


@pytest.mark.parametrize("folders", [("", "", ""), ("Anno_coarse/", "Anno_coarse/", "Eval/")])
def test_deepfashion(tmp_path, folders):
    texts = {folder + name: FASHION[name] for folder, name in zip(folders, FASHION, strict=True)}
    data = read(make(tmp_path, [file for file, _ in WORN], texts))
    assert data.layout == "deepfashion"
    assert {split: told(examples, data) for split, examples in data.splits.items()} == {
        split: [(file, CLOTHES[c]) for file, c in WORN[3 * k : 3 * k + 3]]
        for k, split in enumerate(PARTS)
    }
    assert data.levels == (Level("type", ("upper body", "upper body", "lower body")),)
    assert not data.warnings


def test_deepfashion_with_lists_that_lack_something(tmp_path):
    texts = FASHION | {"list_eval_partition.txt": FASHION["list_eval_partition.txt"][:-60]}
    root = make(tmp_path, [file for file, _ in WORN[:-1]], texts)
    missing = problems(root)
    assert any(WORN[-1][0] in each and "is not in" in each for each in missing)
    assert any("does not say whether 'img/Sheer_0" in each for each in missing)
    (root / "list_eval_partition.txt").unlink()
    (root / "list_category_img.txt").write_text(lines([*(f"{f} {c}" for f, c in WORN[:-1])]))
    (problem,) = problems(root)
    assert "does not name the category 0" in problem


def test_retrieval_of_clothes_is_no_classification(tmp_path):
    text = lines(["2", "image_name item_id evaluation_status", "img/a.jpg id_1 train",
                  "img/b.jpg id_2 query"])  # fmt: skip
    root = make(tmp_path, ["img/a.jpg", "img/b.jpg"], {"Eval/list_eval_partition.txt": text})
    (problem,) = problems(root)
    assert "it tests on other items than it trains on" in problem


@pytest.mark.parametrize("name", FASHION)
def test_damaged_lists_are_read_or_refused(tmp_path, name):
    root = make(tmp_path, [file for file, _ in WORN], FASHION)
    assert scan_damaged(root, name, 60)
