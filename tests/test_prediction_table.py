"""Tables of predictions: what a spreadsheet would run, and what a killed run leaves."""

import csv
import io
import json

import pytest

from clevit_jax.analysis import prediction_table
from clevit_jax.analysis.prediction_table import PredictionTable
from clevit_jax.errors import ConfigError

COLUMNS = ("file", "class", "share", "flag", "error")
NAMES = (
    "plain.jpg", "=1+1.png", "+a", "-b", "@c", "\td", "\re", "'quoted", "''twice", "a,b", 'say "x"',
    "new\nline", "cr\r\nlf", "<script>.png", "\uff1dfull", "é\u2028", "", "back\\slash",
)  # fmt: skip


def row(name):
    return {"file": name, "class": f"={name}", "share": 0.123456789, "flag": True, "error": None}


def read(path):
    """The rows as another program sees them."""
    text = path.read_bytes().decode("utf-8")
    if path.suffix == ".csv":
        return list(csv.DictReader(io.StringIO(text, newline="")))
    if path.suffix == ".json":
        return json.loads(text)
    return [json.loads(line) for line in text.splitlines()]


def write(path, names, **options):
    rows = PredictionTable(path, COLUMNS, **{"resume": False, **options})
    for name in names:
        if prediction_table.as_utf8(name) not in rows.done:
            rows.write(row(name))
    rows.close()


@pytest.mark.parametrize("ending", prediction_table.ENDINGS)
def test_what_was_written_is_read(tmp_path, ending):
    path = tmp_path / f"t{ending}"
    write(path, NAMES)
    rows = read(path)
    if ending == ".csv":
        assert [line["file"].removeprefix("'") for line in rows] == list(NAMES)
        assert {line["share"] for line in rows} == {"0.123457"}
        assert {line["flag"] for line in rows} == {"yes"}
    else:
        assert [line["file"] for line in rows] == list(NAMES)
        assert all(line["share"] == 0.123457 and line["flag"] is True for line in rows)
        assert all(line["error"] is None for line in rows)


def test_no_cell_is_a_formula(tmp_path):
    path = tmp_path / "t.csv"
    write(path, NAMES)
    for line in csv.reader(io.StringIO(path.read_text(), newline="")):
        for cell in line:
            assert not cell.startswith(tuple("=+-@\t\r\n\uff1d\uff0b\uff0d\uff20")), repr(cell)


def test_names_that_are_no_utf8(tmp_path):
    for ending in prediction_table.ENDINGS:
        path = tmp_path / f"t{ending}"
        write(path, ["caf\udce9.png"])
        assert read(path)[0]["file"] == "caf\\udce9.png"
        write(path, ["caf\udce9.png", "b"], resume=True)
        assert len(read(path)) == 2


@pytest.mark.parametrize("ending", prediction_table.ENDINGS)
def test_going_on_after_any_cut(tmp_path, ending):
    """Cut at every byte: the rows that were whole stay, each file is there once, as if not cut."""
    whole, path = tmp_path / f"whole{ending}", tmp_path / f"t{ending}"
    write(whole, NAMES)
    expected = whole.read_bytes()
    for length in range(len(expected) + 1):
        path.write_bytes(expected[:length])
        write(path, NAMES, resume=True)
        assert path.read_bytes() == expected, length


@pytest.mark.parametrize("ending", prediction_table.ENDINGS)
def test_rows_that_are_there_are_not_asked_for(tmp_path, ending):
    path = tmp_path / f"t{ending}"
    write(path, NAMES[:5])
    rows = PredictionTable(path, COLUMNS, resume=True)
    assert rows.done == set(NAMES[:5])
    rows.close()


@pytest.mark.parametrize("ending", prediction_table.ENDINGS)
def test_files_of_another_kind_are_left_alone(tmp_path, ending):
    path = tmp_path / f"t{ending}"
    other = {".csv": "file,label\na,b\n", ".json": '{"a": 1}\n', ".jsonl": '{"a": 1}\n'}[ending]
    for content in (other, other.strip(), "a photograph\n", "mine", "\xff\xfe\n"):
        path.write_bytes(content.encode("latin-1"))
        with pytest.raises(ConfigError, match="not a table of --mode predict with these columns"):
            PredictionTable(path, COLUMNS, resume=True)
        assert path.read_bytes() == content.encode("latin-1")


def test_a_place_that_cannot_be_written(tmp_path):
    with pytest.raises(ConfigError, match="cannot be written"):
        PredictionTable(tmp_path / "no" / "t.csv", COLUMNS, resume=False)
