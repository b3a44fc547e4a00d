"""Errors of the house, and what is taken of the errors of others."""

import pytest

from clevit_jax.errors import DataError, Repeated, first_line


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("\n  no room.\nat frame 1\nat frame 2", "no room."),
        ("", "RuntimeError"),
        (" \n ", "RuntimeError"),
    ],
)
def test_the_first_line_of_an_error(text, said):
    assert first_line(RuntimeError(text)) == said


def test_a_data_error_shows_twenty_and_keeps_all():
    error = DataError([f"{k}." for k in range(23)])
    assert len(error.problems) == 23
    assert str(error).splitlines()[-2:] == ["19.", "... and 3 more."]


def test_what_holds_of_many_is_said_once():
    """Where the first one stood; up to three stand in full."""

    def told(count, rule):
        return [
            Repeated(f"{k} {rule}.", rule=f"{{n}} files {rule}", item=str(k)) for k in range(count)
        ]

    problems = ["first.", *told(1200, "are empty"), *told(3, "are gone"), "last."]
    error = DataError(problems)
    assert str(error).splitlines() == [
        "first.", "1,200 files are empty (0, 1, 2, ...).", "0 are gone.", "1 are gone.",
        "2 are gone.", "last.",
    ]  # fmt: skip
    assert error.problems == tuple(problems)
