"""Tables in text."""

from clevit_jax.system.tables import align


def test_columns_are_as_wide_as_their_widest_cell():
    assert align([["", "run", "top-1"], ["10", "a", "7.25"], ["2", "long name", "100.00"]]) == [
        "          run   top-1",
        "10          a    7.25",
        "2   long name  100.00",
    ]


def test_left_columns():
    rows = [["name", "images", "kind"], ["a", "1,000", "b"]]
    assert align(rows, left=(0, 2)) == ["name  images  kind", "a      1,000  b"]
    assert align(rows, left=()) == ["name  images  kind", "   a   1,000     b"]


def test_the_last_cell_of_a_short_row_runs_on():
    rows = [["", "ms"], ["last epoch of those that are finished"], ["  mean", "12.5"], ["seed 1"]]
    assert align(rows) == [
        "          ms",
        "last epoch of those that are finished",
        "  mean  12.5",
        "seed 1",
    ]
    rows = [["size", "ms", "MiB"], ["8", "out of memory: 10 GiB are wanted"], ["16", "1", "2"]]
    assert align(rows, left=())[1:] == ["   8  out of memory: 10 GiB are wanted", "  16   1    2"]


def test_none():
    assert align([]) == []
