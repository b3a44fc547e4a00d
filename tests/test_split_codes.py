"""Columns that write splits as codes: read where they mean one thing, asked about where not."""

import json
import re

import pytest
from csv_folders import NINE, counts, made, of, problem, touch

from clevit_jax.data import sources
from clevit_jax.data.layouts.listing import Request
from clevit_jax.data.layouts.split_codes import codes_among, parts_of, split_meant


def table(root, column, *codes):
    """Nine rows, three of each of three codes, or six and three of two."""
    cell = (lambda i: codes[i // 3]) if len(codes) == 3 else (lambda i: codes[i // 6])
    return made(root, f"file,label,{column}", lambda i: f"{NINE[i]},{of(i)},{cell(i)}")


@pytest.mark.parametrize(
    ("column", "codes"),
    [
        ("split", ("TR", "VA", "TE")),
        ("set", ("tr", "te")),
        ("subset", ("tr", "ts")),
        ("fold", ("tr", "va", "te")),
        ("whatever", ("TR", "VA", "TE")),
        ("split", ("T", "V", "E")),
        ("split", ("t", "e")),
    ],
)
def test_codes_that_mean_one_thing_are_read(tmp_path, column, codes):
    data = sources.load_dataset(table(tmp_path, column, *codes))
    parts = (3, 3, 3) if len(codes) == 3 else (6, 3)
    expected = dict(zip(("train", "val", "test") if len(codes) == 3 else ("train", "test"), parts,
                        strict=True))  # fmt: skip
    assert counts(data) == expected
    assert [each.name for each in data.test] == [f"images/{file}" for file in NINE[6:]]
    assert bool(data.warnings) == (column == "whatever")


def test_numbers_are_asked_about_and_the_setting_says_which(tmp_path):
    root = table(tmp_path, "split", 0, 1, 2)
    said = problem(root)
    assert "'0' in 3 rows, '1' in 3 rows, '2' in 3 rows" in said
    settings = re.findall(r"split:[\w=,]+\w", said)
    assert settings == ["split:0=train,1=val,2=test", "split:0=train,2=val,1=test"]
    for setting, validated in zip(settings, (NINE[3:6], NINE[6:]), strict=True):
        data = sources.load_dataset(root, request=Request(split_column=setting))
        assert [each.name for each in data.val] == [f"images/{file}" for file in validated]
    with_one = Request(split_column="split:0=train")
    assert "does not say what '1', '2' of the column 'split' means" in problem(
        root, request=with_one
    )
    drawn = sources.load_dataset(root, request=Request(split_column="none"))
    assert counts(drawn) == {"train": 7, "test": 2}


def test_yes_and_no_in_a_column_of_splits_may_be_either(tmp_path):
    root = table(tmp_path, "split", 1, 0)  # as in CUB; others write 0 for training
    said = problem(root)
    assert "'0' in 3 rows, '1' in 6 rows" in said
    settings = re.findall(r"split:[\w=,]+\w", said)
    for setting, tested in zip(settings, (6, 3), strict=True):
        data = sources.load_dataset(root, request=Request(split_column=setting))
        assert len(data.test) == tested


def test_other_letters_are_asked_about_and_most_rows_are_for_training(tmp_path):
    root = made(
        tmp_path, "file,label,split", lambda i: f"{NINE[i]},{of(i)},{'TVL'[min(2, i // 2)]}"
    )
    assert "split:L=train,T=val,V=test or split:L=train,V=val,T=test" in problem(root)


def test_values_that_cannot_be_typed_in_the_setting_are_not_offered(tmp_path):
    said = problem(table(tmp_path, "split", "for=a", "for=b"))
    assert "'for=a' in 6 rows, 'for=b' in 3 rows, and not train, val or test; write these" in said


def test_strange_values_beside_words_name_the_setting(tmp_path):
    root = table(tmp_path, "split", "train", "gallery", "query")
    assert "split:gallery=test" in problem(root)
    setting = "split:train=train,gallery=val,query=test"
    data = sources.load_dataset(root, request=Request(split_column=setting))
    assert counts(data) == {"train": 3, "val": 3, "test": 3}


def test_codes_in_json(tmp_path):
    touch(tmp_path, NINE)
    rows = [
        {"file": file, "label": of(i), "split": ("TR", "TE")[i // 6]} for i, file in enumerate(NINE)
    ]
    (tmp_path / "all.json").write_text(json.dumps(rows))
    assert counts(sources.load_dataset(tmp_path)) == {"train": 6, "test": 3}
    text = json.dumps(rows).replace('"TR"', "1").replace('"TE"', "0")
    (tmp_path / "all.json").write_text(text)
    assert "data.split_column=split:0=train,1=test" in problem(tmp_path)
    request = Request(split_column="split:1=train,0=test")
    assert counts(sources.load_dataset(tmp_path, request=request)) == {"train": 6, "test": 3}
    drawn = sources.load_dataset(tmp_path, request=Request(split_column="none"))
    assert counts(drawn) == {"train": 7, "test": 2}


def test_what_codes_mean():
    assert codes_among(["TR", "VA", "TE"]) == {"TR": "train", "VA": "val", "TE": "test"}
    assert codes_among(["tr", "vl", "ts"]) == {"tr": "train", "vl": "val", "ts": "test"}
    assert codes_among(["T", "V"]) == {"T": "train", "V": "val"}
    for unclear in (["T"], ["V", "E"], ["L", "V", "T"], ["0", "1"], ["TR", "T"], []):
        assert codes_among(unclear) == {}
    assert codes_among(["T", "E"], alone=True) == {}  # treated and not, say
    assert codes_among(["TR", "VA"], alone=True) == {}  # countries
    assert parts_of("a:b:0=dev,x=eval", []) == ("a:b", {"0": "val", "x": "test"})
    assert parts_of("a:b", []) == ("a:b", {})
    assert parts_of("a:0=test", ["a:0=test"]) == ("a:0=test", {})
    assert split_meant("0", {"0": "test"}) == "test"
    assert split_meant("Training", {}) == "train"
    assert split_meant("x", {}) is None
